//! Numbers at the edges of what they can be: every public call takes them, and answers as it would for others.

use blockdev::Access;
use ext2_core::plumbing::{Allocate, Plumbing};
use ext2_core::{Errno, FileBlock, Wait};
use ext2_dax::entry::{DevPage, Order};
use ext2_dax::iomap::{Iomap, OpFlags};
use ext2_dax::iter::IomapIter;
use ext2_dax::mmu::soft::{Counters, MapRequest, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing, VmFile, Vma};
use ext2_dax::rw::Limits;
use ext2_dax::uio::{Faulting, SliceSink, SliceSource};
use ext2_dax::{DaxFs, File, writeback, zero};
use proptest::prelude::*;

use crate::setup::{file, fresh, request};
use crate::toy::{Flaw, Toy};

const EDGES: [u64; 22] = [
    0,
    1,
    4095,
    4096,
    4097,
    (2 << 20) - 1,
    2 << 20,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 38,
    1 << 41,
    1 << 44,
    1 << 51,
    1 << 52,
    (1 << 63) - 4096,
    (1 << 63) - 1,
    1 << 63,
    (1 << 63) + 1,
    u64::MAX - 4095,
    u64::MAX - 1,
    u64::MAX,
];

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => prop::sample::select(EDGES.to_vec()), 1 => any::<u64>(), 1 => 0_u64..200_000]
}

const SIZE: u64 = 100_000;

/// A file of [`SIZE`] bytes with three pages of data.
fn sample() -> (DaxFs, File) {
    let (fs, file) = holding(&[1; 3 * 4096]);
    file.truncate(SIZE, Wait::Yes).unwrap();
    (fs, file)
}

/// A file of these bytes.
fn holding(bytes: &[u8]) -> (DaxFs, File) {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, bytes).unwrap();
    (fs, file)
}

fn check_calls(file: &File, a: u64, b: u64) -> Result<(), TestCaseError> {
    let mut buf = vec![7; 200_000];
    let there = SIZE.saturating_sub(a);
    let read = file.read_to(a, b, &mut SliceSink::new(&mut buf), Limits::default());
    prop_assert_eq!(read, Ok(there.min(b)), "read_to");
    let mut ten = [0; 10];
    prop_assert_eq!(file.read_at(a, &mut ten), Ok(there.min(10)), "read_at");
    prop_assert_eq!(file.inode().read_at(a, &mut ten), Ok(there.min(10) as usize), "the core's read_at");
    let pieces: u64 =
        file.inode().with_pieces(a, b, |pieces| pieces.iter().map(|piece| piece.len).sum()).unwrap();
    prop_assert_eq!(pieces, there.min(b), "with_pieces");
    // A lease covers what was asked, as far as files can go.
    let end = b.min(i64::MAX.unsigned_abs());
    match file.lease(a..b, Access::Read) {
        Ok(lease) => {
            let parts = lease.owned_parts().unwrap();
            let last = parts.last().map(|part| part.start() + part.len());
            prop_assert_eq!((parts[0].start(), last), (a, Some(end)), "lease");
        }
        Err(error) => prop_assert!(a >= end && error.is(Errno::INVAL), "lease: {error}"),
    }
    for seek in [file.seek_data(a), file.seek_hole(a)] {
        prop_assert!(seek.as_ref().is_ok_and(|at| (a..=SIZE).contains(at)) || seek.is_err(), "{seek:?}");
    }
    let mapping = file.inode().map(FileBlock::new(a), b).unwrap();
    prop_assert!(mapping.count >= 1 && mapping.count <= b.max(1) && mapping.start.get() == a, "{mapping:?}");
    prop_assert_eq!(mapping.is_hole(), a >= 3);
    let known = file.inode().known_run(FileBlock::new(a), b.max(1));
    prop_assert!(known.is_none() || a + b.max(1) <= 3);
    let request = |colour| MapRequest {
        offset: a,
        len: b,
        sharing: Sharing::Shared,
        protection: Protection::ReadWrite,
        colour,
    };
    for colour in [0, b] {
        if let Ok(map) = file.map(&SoftMmu::new(), &request(colour)) {
            let inside = a < SIZE;
            prop_assert_eq!(map.load(0).is_ok(), inside, "load");
            for at in [a, b, u64::MAX] {
                let _ = (map.load(at), map.load_bytes(at, &mut ten), map.store_bytes(u64::MAX, &ten));
                let _ =
                    (map.msync(at, b), map.msync(0, at), map.mmu().load(at), map.mmu().store_bytes(at, &ten));
            }
            prop_assert!(map.msync(0, b).is_ok(), "msync");
        }
    }
    prop_assert!(file.pages().entries().iter().all(|entry| entry.index < 1 << 40));
    prop_assert!(writeback::writeback_range(file.pages(), VmFile::memory(file), a, b).is_ok());
    file.pages().invalidate(a, b);
    if let Ok(entry) = file.pages().grab(a, Order::Pmd) {
        prop_assert!(entry.index() <= a && entry.page_of(b).is_none());
    }
    prop_assert!(file.size() == SIZE);
    Ok(())
}

fn check_changes(file: &File, a: u64, b: u64) -> Result<(), TestCaseError> {
    let max = file.inode().fs().max_size();
    prop_assert!(file.zero_range(a, b).is_ok() && file.size() == SIZE);
    prop_assert!(file.punch_hole(a, b, Wait::No).is_ok() && file.size() == SIZE);
    prop_assert!(file.inode().fallocate(3, a, b).is_ok() || b == 0);
    let _ = file.inode().fallocate(u32::MAX, a, b);
    let mut nothing = Faulting::new(SliceSource::new(&[]), 0);
    let wrote = file.write_from(a, b, &mut nothing, Limits::default());
    prop_assert!(wrote.is_err() || b == 0, "a write without a source: {wrote:?}");
    prop_assert_eq!(file.size(), SIZE, "nothing was written");
    match file.write_at(a, b"x") {
        Ok(done) => prop_assert_eq!((done, file.size()), (1, (a + 1).max(SIZE))),
        Err(error) => prop_assert!(a >= max && error.is(Errno::FBIG), "{error}"),
    }
    match file.truncate(a, Wait::Yes) {
        Ok(()) => prop_assert_eq!(file.size(), a),
        Err(error) => prop_assert!(a > max && error.is(Errno::FBIG), "{error}"),
    }
    file.truncate(SIZE, Wait::Yes).unwrap();
    // The plumbing is no door to sizes that no file has.
    let inode = file.inode();
    {
        let _io = inode.io_lock().write();
        match inode.raise_size(a, b) {
            Ok(()) => prop_assert_eq!(inode.size(), a.max(SIZE)),
            Err(error) => prop_assert!(a > max && error.is(Errno::FBIG), "{error}"),
        }
        prop_assert!(inode.zero_block_tail(b).is_ok() || b > max);
        for how in [Allocate::Fault, Allocate::AlignedRun, Allocate::Published] {
            // Not more than there is room for.
            let got = inode.map_for_write(FileBlock::new(a), b.min(4), how);
            prop_assert!(got.is_ok_and(|got| got.mapping.count >= 1) || a > 1 << 29);
        }
    }
    inode.truncate(SIZE, Wait::Yes).unwrap();
    let _ = inode.map_for_write(FileBlock::new(a), b, Allocate::AfterFill);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn calls_of_a_file_take_every_number((a, b) in (number(), number())) {
        let (_fs, file) = sample();
        check_calls(&file, a, b)?;
        check_changes(&file, a, b)?;
    }

    #[test]
    fn values_take_every_number(numbers in [number(), number(), number(), number()]) {
        let [a, b, c, d] = numbers;
        let vma = Vma { start: a, end: b, pgoff: c, sharing: Sharing::Shared, protection: Protection::ReadWrite };
        for (start, end) in [(0, u64::MAX), (c, d), (d, c), (u64::MAX, 0)] {
            if let Some((first, last)) = vma.addresses_of(start, end) {
                prop_assert!(a <= first && first < last && last <= b, "{vma:?}: {first:#x}..{last:#x}");
            }
        }
        prop_assert!(vma.page_at(d) >= c);
        let _ = (vma.has_colour(), vma.is_shared());
        let iomap = Iomap::<()>::mapped(a, b, c);
        prop_assert!(iomap.end().is_none_or(|end| end >= a));
        prop_assert!(iomap.addr_of(d).is_none_or(|addr| d >= a && addr >= c));
        prop_assert!(DevPage::new(a).is_none_or(|page| page.byte() / 4096 == a));
        prop_assert!(Order::Pmd.round(a) <= a && Order::Pte.round(a) == a);
        let counters = Counters { ptes: a, pmds: b, ..Counters::default() };
        prop_assert!(counters.mapped_bytes() >= counters.tlb_reach(c));
        // A walk of somebody else's file system.
        let toy = Toy::new(Flaw::None);
        let mut iter = IomapIter::new(&*toy, a, b, OpFlags::DAX);
        prop_assert_eq!(iter.next().unwrap(), b > 0 && a < u64::MAX);
        prop_assert!(iter.length() <= b);
        drop(iter);
        prop_assert_eq!(zero::zero_range(&*toy, a, b.min(1 << 40)), Ok(0));
        prop_assert_eq!(zero::truncate_page(&*toy, a, 0), Ok(0));
    }
}

#[test]
fn whole_files_are_asked_for_with_the_largest_number() {
    let (_fs, file) = sample();
    let mut bytes = vec![9; 200_000];
    assert_eq!(file.read_to(0, u64::MAX, &mut SliceSink::new(&mut bytes), Limits::default()), Ok(SIZE));
    assert!(
        bytes[..3 * 4096].iter().all(|byte| *byte == 1)
            && bytes[SIZE as usize..].iter().all(|byte| *byte == 9)
    );
    assert!(file.inode().map(FileBlock::new(0), 1 << 32).is_ok_and(|mapping| mapping.count == 3));
    assert!(file.lease(0..u64::MAX, Access::Read).is_ok());
}

#[test]
fn an_address_space_is_not_used_up_by_mappings_that_are_gone() {
    let (_fs, file) = holding(&[1; 4096]);
    let mmu = SoftMmu::new();
    for round in 0..64 {
        let map = file.map(&mmu, &request(1 << 40, Sharing::Shared));
        assert!(map.is_ok(), "round {round}: {map:?}");
    }
}

#[test]
fn a_mapping_takes_a_gap_between_others_where_no_address_is_left_after_them() {
    let (_fs, file) = holding(&[7; 4096]);
    let mmu = SoftMmu::new();
    let map = |len: u64, colour: u64| file.map(&mmu, &MapRequest { colour, ..request(len, Sharing::Shared) });
    // All addresses but for a little: one large mapping, one at its end, and a small one between.
    let (large, small, last) = (map(8 << 40, 0).unwrap(), map(4096, 8192).unwrap(), map(7 << 40, 0).unwrap());
    assert!(map(2 << 40, 0).is_err_and(|error| error.is(Errno::NOMEM)));
    let was = large.vma().start;
    drop(large);
    let (one, two) = (map(2 << 40, 4096).unwrap(), map(5 << 40, 0).unwrap());
    assert!(map(2 << 40, 0).is_err_and(|error| error.is(Errno::NOMEM)), "the gap is not so large");
    let mut all: Vec<_> = [&one, &two, &small, &last].map(|map| (map.vma().start, map.vma().end)).into();
    assert!(was <= all[0].0 && all[1].1 < small.vma().start, "{all:x?}");
    all.sort_unstable();
    // None shares a place of 2 MiB with another.
    assert!(all.windows(2).all(|pair| pair[0].1.div_ceil(2 << 20) < pair[1].0 / (2 << 20)), "{all:x?}");
    for map in [&one, &two, &small, &last] {
        assert_eq!((map.load(0), mmu.load(map.vma().start)), (Ok(7), Ok(7)));
    }
}
