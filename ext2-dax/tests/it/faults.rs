//! Faults through the software MMU: what is mapped, what is traced, and every reason to fall back.

use std::sync::Arc;

use blockdev::BlockDevice;
use ext2_dax::Wait;
use ext2_dax::compat::Compat;
use ext2_dax::entry::{Content, Order, PMD_SIZE};
use ext2_dax::error::Error;
use ext2_dax::fault::{DaxInode, Fallback, FaultRequest, FaultResult, StoreOrLoad};
use ext2_dax::iomap::{Iomap, OpFlags};
use ext2_dax::mmu::soft::{HugeZeroPage, MapRequest, Signal, SoftMap, SoftMmu};
use ext2_dax::mmu::{CowPage, PageTable, Protection, Sharing, Slot, SlotTaken, Target, Writable};
use ext2_dax::trace::Event;

use super::fake::{Call, FakeFile};

const P: u64 = 4096;

fn request(len: u64) -> MapRequest {
    MapRequest { offset: 0, len, sharing: Sharing::Shared, protection: Protection::ReadWrite, colour: 0 }
}

fn map(file: &Arc<FakeFile>, request: MapRequest) -> SoftMap {
    SoftMmu::new().map(file.clone(), &request).unwrap()
}

fn file_of(size: u64) -> Arc<FakeFile> {
    let file = FakeFile::new(Compat::FULL);
    file.set_size(size);
    file
}

/// The reasons for which faults fell back since the log was last emptied.
fn reasons(file: &FakeFile) -> Vec<Fallback> {
    let reason = |event: Event| match event {
        Event::Fallback { reason, .. } => Some(reason),
        _ => None,
    };
    file.log.take().iter().filter_map(|record| reason(record.event)).collect()
}

#[test]
fn a_hole_of_two_megabytes_costs_one_fault_and_one_question() {
    let file = file_of(PMD_SIZE);
    let map = map(&file, request(PMD_SIZE));
    let mut all = vec![1; PMD_SIZE as usize];
    map.load_bytes(0, &mut all).unwrap();
    assert!(all.iter().all(|byte| *byte == 0));
    assert_eq!(
        file.lines(),
        [
            "dax_pmd_fault shared pgoff=0x0 max_pgoff=0x200",
            "dax_pmd_load_hole shared",
            "dax_pmd_fault_done shared pgoff=0x0 max_pgoff=0x200 -> NOPAGE",
        ]
    );
    assert_eq!(file.calls().iter().filter(|call| matches!(call, Call::Begin { .. })).count(), 1);
    let entries = DaxInode::pages(&*file).entries();
    assert_eq!((entries.len(), entries[0].order, entries[0].content), (1, Order::Pmd, Content::Zero));
    assert!(!entries[0].dirty, "a load makes nothing dirty");
    let counters = map.mmu().counters();
    assert_eq!((counters.pmds, counters.zero_pmds, counters.pmd_faults), (1, 1, 1));
    assert_eq!(counters.tlb_reach(64), PMD_SIZE);
}

#[test]
fn a_hole_of_one_block_at_a_time_costs_512_faults() {
    let compat = Compat::LINUX_6_1;
    let file = FakeFile::new(compat);
    file.set_size(PMD_SIZE);
    let map = map(&file, request(PMD_SIZE));
    map.load_bytes(0, &mut vec![1; PMD_SIZE as usize]).unwrap();
    assert_eq!(map.mmu().counters().pte_faults, 512);
    assert_eq!(map.mmu().counters().pmd_faults, 0);
    assert_eq!(DaxInode::pages(&*file).dirty_entries(), 512, "L13 of Linux 6.1");
}

#[test]
fn a_store_into_a_hole_of_two_megabytes_gets_an_aligned_run_whole() {
    let file = file_of(PMD_SIZE);
    let map = map(&file, request(PMD_SIZE));
    map.load(5).unwrap();
    map.store(5, 7).unwrap();
    map.store(PMD_SIZE - 1, 8).unwrap();
    assert_eq!((map.load(5), map.load(6), map.load(PMD_SIZE - 1)), (Ok(7), Ok(0), Ok(8)));
    assert_eq!(map.mmu().counters().pmd_faults, 2);
    assert_eq!(file.blocks(), 512);
    assert_eq!(file.fsync().unwrap(), 1);
    assert_eq!(file.fsync().unwrap(), 0);
}

#[test]
fn a_store_where_no_aligned_run_is_free_allocates_one_block() {
    let file = file_of(PMD_SIZE);
    file.place(10_000, 1, (32 << 20) / P - 5);
    let map = map(&file, request(PMD_SIZE));
    map.load(0).unwrap();
    map.store(P, 7).unwrap();
    assert_eq!(file.blocks(), 2);
    assert_eq!((map.load(0), map.load(P), map.load(2 * P)), (Ok(0), Ok(7), Ok(0)));
    assert_eq!(reasons(&file), [Fallback::TooShort]);
}

#[test]
fn aligned_blocks_are_mapped_by_one_translation_for_load_and_store() {
    let file = file_of(2 * PMD_SIZE);
    file.place(0, 1024, 1024);
    let map = map(&file, request(2 * PMD_SIZE));
    map.load(100).unwrap();
    map.store(PMD_SIZE, 1).unwrap();
    map.load(PMD_SIZE + 5 * P).unwrap();
    assert_eq!(map.mmu().counters().pmds, 2);
    assert_eq!(map.mmu().counters().pte_faults, 0);
}

#[test]
fn past_the_end_of_the_file_is_sigbus_before_any_entry_is_made() {
    let file = file_of(P);
    let map = map(&file, request(4 * P));
    assert_eq!(map.load(P), Err(Signal::Bus));
    assert_eq!(map.store(P, 1), Err(Signal::Bus));
    assert_eq!(DaxInode::pages(&*file).pages(), 0);
    assert!(map.load(P - 1).is_ok());
    assert_eq!(map.load(4 * P), Err(Signal::Segv));
}

#[test]
fn a_write_into_a_mapped_hole_is_seen_through_the_mapping() {
    let file = file_of(PMD_SIZE);
    let reader = map(&file, request(PMD_SIZE));
    reader.load(0).unwrap();
    file.write(8 * P + 3, b"hello").unwrap();
    assert_eq!(DaxInode::pages(&*file).pages(), 0, "the huge zero entry is gone");
    assert_eq!(reader.load(8 * P + 3), Ok(b'h'));
    assert_eq!(reader.load(8 * P + 2), Ok(0));
    assert_eq!(reasons(&file), [Fallback::TooShort]);
}

#[test]
fn a_private_store_copies_and_the_file_keeps_its_bytes() {
    let file = file_of(4 * P);
    file.write(0, &[3; 100]).unwrap();
    let private = map(&file, MapRequest { sharing: Sharing::Private, ..request(4 * P) });
    private.load(0).unwrap();
    private.store(0, 9).unwrap();
    private.store(2 * P, 9).unwrap();
    assert_eq!((private.load(0), private.load(1), private.load(2 * P)), (Ok(9), Ok(3), Ok(9)));
    let mut bytes = [1; 1];
    file.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [3]);
    assert_eq!(file.blocks(), 1);
    assert_eq!(private.mmu().counters().copies, 2);
}

#[test]
fn truncation_takes_mapped_pages_away_and_growing_shows_zeros() {
    let file = file_of(0);
    file.write(0, &[9; 3 * P as usize]).unwrap();
    let map = map(&file, request(4 * P));
    assert_eq!(map.load(2 * P), Ok(9));
    file.truncate(P + 10, Wait::Yes).unwrap();
    assert_eq!(map.load(2 * P), Err(Signal::Bus));
    assert_eq!((map.load(P + 9), map.load(P + 10)), (Ok(9), Ok(0)));
    file.set_size(4 * P);
    assert_eq!(map.load(2 * P), Ok(0));
}

#[test]
fn write_back_protects_so_that_the_next_store_is_seen() {
    let file = file_of(4 * P);
    let map = map(&file, request(4 * P));
    map.store(0, 1).unwrap();
    map.store(1, 1).unwrap();
    assert_eq!(map.mmu().counters().pte_faults, 1);
    assert_eq!(file.fsync().unwrap(), 1);
    assert_eq!(file.fsync().unwrap(), 0);
    map.store(2, 1).unwrap();
    assert_eq!(map.mmu().counters().pte_faults, 2);
    assert_eq!(file.fsync().unwrap(), 1);
    map.load(P).unwrap();
    assert_eq!(file.fsync().unwrap(), 0, "only what was stored is dirty");
}

#[test]
fn a_synchronous_store_waits_for_metadata_once() {
    let file = file_of(PMD_SIZE);
    file.set_not_durable();
    let map = map(&file, MapRequest { sharing: Sharing::Synchronous, ..request(P) });
    map.store(0, 1).unwrap();
    let lines = file.lines();
    assert!(lines.iter().any(|line| line.ends_with("-> MAJOR|NEEDDSYNC")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("dax_insert_pfn_mkwrite shared")), "{lines:?}");
    map.store(P - 1, 1).unwrap();
    assert_eq!(file.lines(), [] as [&str; 0]);
}

#[test]
fn a_synchronous_store_makes_its_page_or_its_unit_durable_and_is_major_for_new_blocks() {
    for (len, order, pages) in [(3 * P, Order::Pte, 2..=2), (2 * PMD_SIZE, Order::Pmd, 512..=1023)] {
        let file = file_of(2 * PMD_SIZE);
        file.set_not_durable();
        let map = map(&file, MapRequest { sharing: Sharing::Synchronous, ..request(len) });
        let vma = map.vma();
        let address = vma.start + pages.start() * P;
        let table = Open::default();
        let request = FaultRequest { vma, table: &table, address, access: StoreOrLoad::Store };
        let result = ext2_dax::fault::handle(&*file, &request, order);
        assert_eq!(result, FaultResult::NOPAGE | FaultResult::MAJOR, "{order:?}");
        let events = file.log.take();
        let waits = |event: &Event| match event {
            Event::PteFaultDone(_, result) | Event::PmdFaultDone(_, _, result) => {
                result.contains(FaultResult::NEEDDSYNC | FaultResult::MAJOR)
            }
            _ => false,
        };
        assert!(events.iter().any(|record| waits(&record.event)), "{order:?}");
        let asked = |event: &Event| match event {
            Event::IomapIter { pos, length, .. } => (*pos, *length) == (pages.start() * P, order.bytes()),
            _ => false,
        };
        assert!(events.iter().any(|record| asked(&record.event)), "{order:?}");
        assert!(
            file.calls().contains(&Call::Sync { first: *pages.start(), last: *pages.end() }),
            "{order:?}"
        );
        assert_eq!(table.mapped.lock().unwrap()[..], [(order, Writable::Yes)]);
        // Again, with blocks that are durable: nothing to wait for.
        let result = ext2_dax::fault::handle(&*file, &request, order);
        assert_eq!(result, FaultResult::NOPAGE, "{order:?}");
        assert!(!file.calls().iter().any(|call| matches!(call, Call::Sync { .. })));
    }
}

#[test]
fn a_unit_behind_the_end_is_sigbus_and_one_that_begins_before_it_falls_back() {
    for (size, expected) in [(PMD_SIZE, FaultResult::SIGBUS), (PMD_SIZE + 1, FaultResult::FALLBACK)] {
        let file = file_of(size);
        let map = map(&file, request(2 * PMD_SIZE));
        let (vma, table) = (map.vma(), Open::default());
        let address = vma.start + PMD_SIZE;
        let request = FaultRequest { vma, table: &table, address, access: StoreOrLoad::Load };
        assert_eq!(ext2_dax::fault::handle(&*file, &request, Order::Pmd), expected);
    }
}

#[test]
fn only_a_synchronous_store_waits_for_metadata() {
    let file = file_of(PMD_SIZE);
    file.set_not_durable();
    map(&file, request(P)).store(0, 1).unwrap();
    map(&file, MapRequest { sharing: Sharing::Private, ..request(P) }).store(0, 1).unwrap();
    map(&file, MapRequest { sharing: Sharing::Synchronous, ..request(P) }).load(0).unwrap();
    assert!(!file.calls().iter().any(|call| matches!(call, Call::Sync { .. })));
}

/// A page table that takes all.
#[derive(Debug, Default)]
struct Open {
    mapped: std::sync::Mutex<Vec<(Order, Writable)>>,
}

impl PageTable for Open {
    fn slot(&self, _: u64) -> Slot {
        Slot::None
    }
    fn has_huge_zero_page(&self) -> bool {
        true
    }
    fn map_pte(&self, _: u64, _: Target, writable: Writable) {
        self.mapped.lock().unwrap().push((Order::Pte, writable));
    }
    fn map_pmd(&self, _: u64, _: Target, writable: Writable) -> Result<(), SlotTaken> {
        self.mapped.lock().unwrap().push((Order::Pmd, writable));
        Ok(())
    }
    fn map_copy(&self, _: u64, _: CowPage) {}
    fn split(&self, _: u64) {}
}

#[test]
fn a_store_through_one_mapping_is_seen_through_all_that_had_the_hole() {
    for len in [P, PMD_SIZE] {
        let file = file_of(PMD_SIZE);
        let (one, other) = (map(&file, request(len)), map(&file, request(len)));
        assert_eq!((one.load(0), other.load(0)), (Ok(0), Ok(0)));
        one.store(0, 7).unwrap();
        assert_eq!((one.load(0), other.load(0)), (Ok(7), Ok(7)));
    }
}

#[test]
fn a_store_that_fails_takes_the_hole_from_all_and_a_load_from_nobody() {
    for len in [P, PMD_SIZE] {
        let file = file_of(PMD_SIZE);
        let (one, other) = (map(&file, request(len)), map(&file, request(len)));
        assert_eq!((one.load(0), other.load(0)), (Ok(0), Ok(0)));
        let faults = |map: &SoftMap| map.mmu().counters().pte_faults + map.mmu().counters().pmd_faults;
        // A load that fails, or finds what was there, leaves everybody his own.
        let vma = other.vma();
        let order = if len == P { Order::Pte } else { Order::Pmd };
        let load = FaultRequest { vma, table: &Taken, address: vma.start, access: StoreOrLoad::Load };
        ext2_dax::fault::handle(&*file, &load, order);
        file.answer(|_, _, _| Some(Err(Error::refused(ext2_dax::Errno::IO, "no"))));
        ext2_dax::fault::handle(&*file, &load, order);
        let before = faults(&one);
        one.load(0).unwrap();
        assert_eq!(faults(&one), before, "{len} bytes");
        assert_eq!(other.store(0, 1), Err(Signal::Bus));
        file.answer(|_, _, _| None);
        // The file may have blocks there by now.
        file.place(0, 1, 9);
        file.device.write_at(9 * P, &[5]).unwrap();
        assert_eq!(one.load(0), Ok(5), "{len} bytes");
        assert!(faults(&one) > before);
    }
}

#[test]
fn f1_addresses_and_offsets_that_disagree_fall_back() {
    let file = file_of(2 * PMD_SIZE);
    let map = map(&file, MapRequest { colour: P, ..request(2 * PMD_SIZE) });
    map.load(PMD_SIZE).unwrap();
    assert_eq!(reasons(&file), [Fallback::Colour]);
}

#[test]
fn f2_a_private_store_falls_back() {
    let file = file_of(PMD_SIZE);
    let map = map(&file, MapRequest { sharing: Sharing::Private, ..request(PMD_SIZE) });
    map.store(0, 1).unwrap();
    assert_eq!(reasons(&file), [Fallback::PrivateWrite]);
}

#[test]
fn a_private_store_to_a_huge_zero_page_takes_one_fault_more() {
    let file = file_of(PMD_SIZE);
    let map = map(&file, MapRequest { sharing: Sharing::Private, ..request(PMD_SIZE) });
    map.load(0).unwrap();
    map.store(P, 1).unwrap();
    assert_eq!((map.load(0), map.load(P)), (Ok(0), Ok(1)));
    let counters = map.mmu().counters();
    assert_eq!((counters.pmd_faults, counters.pte_faults, counters.copies), (1, 2, 1));
    assert_eq!(file.blocks(), 0);
}

#[test]
fn f3_and_f4_units_that_the_mapping_does_not_hold_fall_back() {
    let file = file_of(4 * PMD_SIZE);
    let map = map(&file, MapRequest { offset: P, ..request(2 * PMD_SIZE) });
    map.load(0).unwrap();
    assert_eq!(reasons(&file), [Fallback::BeforeMapping]);
    map.load(2 * PMD_SIZE - 1).unwrap();
    assert_eq!(reasons(&file), [Fallback::AfterMapping]);
}

#[test]
fn f5_a_unit_in_which_the_file_ends_falls_back() {
    let file = file_of(PMD_SIZE - P);
    map(&file, request(PMD_SIZE)).load(0).unwrap();
    assert_eq!(reasons(&file), [Fallback::PastEof]);
}

#[test]
fn f6_a_small_entry_keeps_the_unit_small_without_a_question() {
    let file = file_of(PMD_SIZE);
    map(&file, request(P)).load(0).unwrap();
    reasons(&file);
    file.calls();
    let large = map(&file, request(PMD_SIZE));
    large.load(5 * P).unwrap();
    assert_eq!(reasons(&file), [Fallback::Conflict]);
    assert_eq!(file.calls().len(), 2, "only the 4 KiB fault asked");
    DaxInode::pages(&*file).invalidate(0, 512);
    let again = map(&file, request(PMD_SIZE));
    again.load(0).unwrap();
    assert_eq!(again.mmu().counters().pmds, 1);
}

#[test]
fn f7_an_error_of_the_file_system_falls_back_and_the_small_fault_reports_it() {
    let file = file_of(PMD_SIZE);
    file.answer(|_, _, flags| {
        flags.contains(OpFlags::WRITE).then(|| Err(Error::refused(ext2_dax::Errno::NOSPC, "full")))
    });
    assert_eq!(map(&file, request(PMD_SIZE)).store(0, 1), Err(Signal::Bus));
    assert_eq!(reasons(&file), [Fallback::BeginFailed]);
}

#[test]
fn a_fault_without_memory_says_so_and_any_other_error_is_the_bus_s() {
    for (errno, end) in [(ext2_dax::Errno::NOMEM, "-> OOM"), (ext2_dax::Errno::IO, "-> SIGBUS")] {
        let file = file_of(P);
        file.answer(move |_, _, _| Some(Err(Error::refused(errno, "no"))));
        assert_eq!(map(&file, request(P)).load(0), Err(Signal::Bus));
        let lines = file.lines();
        assert!(lines.last().is_some_and(|line| line.ends_with(end)), "{lines:?}");
    }
}

#[test]
fn an_answer_shorter_than_a_page_is_an_error_and_a_longer_one_is_not() {
    for (len, loaded) in [(512, Err(Signal::Bus)), (P, Ok(0)), (2 * P, Ok(0))] {
        let file = file_of(2 * P);
        file.answer(move |_, _, _| Some(Ok(Iomap::mapped(0, len, 7 * P))));
        let map = map(&file, request(P));
        // The second load finds what the first left.
        assert_eq!([map.load(0), map.load(0)], [loaded, loaded], "{len} bytes");
    }
}

#[test]
fn f8_a_short_hole_falls_back() {
    let file = file_of(PMD_SIZE);
    file.place(100, 1, 9);
    map(&file, request(PMD_SIZE)).load(0).unwrap();
    assert_eq!(reasons(&file), [Fallback::TooShort]);
}

#[test]
fn f9_without_a_huge_zero_page_a_hole_falls_back() {
    let file = file_of(PMD_SIZE);
    let mmu = SoftMmu::with_huge_zero_page(HugeZeroPage::Missing);
    mmu.map(file.clone(), &request(PMD_SIZE)).unwrap().load(0).unwrap();
    let lines = file.lines();
    assert!(lines.contains(&"dax_pmd_load_hole_fallback shared".to_owned()), "{lines:?}");
}

/// A page table in which somebody is always faster.
#[derive(Debug)]
struct Taken;

impl PageTable for Taken {
    fn slot(&self, _: u64) -> Slot {
        Slot::None
    }
    fn has_huge_zero_page(&self) -> bool {
        true
    }
    fn map_pte(&self, _: u64, _: Target, _: Writable) {}
    fn map_pmd(&self, _: u64, _: Target, _: Writable) -> Result<(), SlotTaken> {
        Err(SlotTaken)
    }
    fn map_copy(&self, _: u64, _: CowPage) {}
    fn split(&self, _: u64) {}
}

#[test]
fn f10_a_place_that_is_taken_meanwhile_falls_back() {
    let file = file_of(PMD_SIZE);
    let map = map(&file, request(PMD_SIZE));
    let vma = map.vma();
    let request = FaultRequest { vma, table: &Taken, address: vma.start, access: StoreOrLoad::Load };
    let result = ext2_dax::fault::handle(&*file, &request, Order::Pmd);
    assert_eq!(result, FaultResult::FALLBACK);
    assert_eq!(reasons(&file), [Fallback::SlotTaken]);
}

#[test]
fn f11_blocks_that_are_not_one_aligned_run_fall_back() {
    let file = file_of(PMD_SIZE);
    file.place(0, 512, 513);
    let map = map(&file, request(PMD_SIZE));
    map.store(0, 1).unwrap();
    assert_eq!(reasons(&file), [Fallback::Unaligned]);
    assert_eq!(file.blocks(), 512, "L2: nothing was taken back");
}

#[test]
fn f12_a_store_that_meets_neither_blocks_nor_a_hole_is_refused() {
    let file = file_of(PMD_SIZE);
    file.answer(|_, _, _| {
        let kind = ext2_dax::iomap::MapKind::Delalloc;
        Some(Ok(Iomap { kind, ..Iomap::hole(0, PMD_SIZE) }))
    });
    assert_eq!(map(&file, request(PMD_SIZE)).store(0, 1), Err(Signal::Bus));
    assert_eq!(reasons(&file), [Fallback::BadMapping]);
    let entries = DaxInode::pages(&*file).entries();
    assert!(entries.iter().all(|entry| !entry.locked && entry.content == Content::Empty), "{entries:?}");
}

#[test]
fn f13_a_file_system_without_an_aligned_run_says_the_hole_and_a_page_will_do() {
    let file = file_of(PMD_SIZE);
    file.answer(|_, _, flags| flags.contains(OpFlags::UNIT).then(|| Ok(Iomap::hole(0, PMD_SIZE))));
    map(&file, request(PMD_SIZE)).store(0, 1).unwrap();
    assert_eq!(reasons(&file), [Fallback::NoUnit]);
    assert_eq!(file.blocks(), 1);
}

#[test]
fn a_store_that_meets_a_hole_dies() {
    let file = file_of(PMD_SIZE);
    file.answer(|_, _, flags| flags.contains(OpFlags::WRITE).then(|| Ok(Iomap::hole(0, PMD_SIZE))));
    assert_eq!(map(&file, request(PMD_SIZE)).store(0, 1), Err(Signal::Bus));
    let entries = DaxInode::pages(&*file).entries();
    assert!(entries.iter().all(|entry| !entry.locked && entry.content == Content::Empty), "{entries:?}");
}

#[test]
fn thirteen_reasons_have_thirteen_numbers() {
    let numbers: Vec<_> = Fallback::ALL.iter().map(|reason| reason.number()).collect();
    assert_eq!(numbers, (1..=13).collect::<Vec<_>>());
}
