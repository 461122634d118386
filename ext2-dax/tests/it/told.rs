//! What an address space of somebody else's is told of a file, and what is written back of what it stored.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ext2_dax::Wait;
use ext2_dax::compat::{Compat, Layouts};
use ext2_dax::entry::{Content, DevPage, Order, PMD_SIZE};
use ext2_dax::error::Result;
use ext2_dax::fault::DaxInode;
use ext2_dax::lease::PageLease;
use ext2_dax::mapping::{PrivateCopies, StoredRun, Translations};
use ext2_dax::mmu::soft::{MapRequest, SoftMap, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing, VmFile};
use ext2_dax::trace::Event;
use ext2_dax::truncate::{Taken, take_pages};
use ext2_dax::writeback::writeback_range;

use super::fake::FakeFile;

const P: u64 = 4096;

/// Translations that note what they are told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    ahead: bool,
    stored: Mutex<Vec<StoredRun>>,
    told: Mutex<Vec<(&'static str, u64, u64)>>,
}

impl Told {
    pub(crate) fn ahead(ahead: bool) -> Arc<Self> {
        Arc::new(Self { ahead, ..Self::default() })
    }

    fn note(&self, what: &'static str, start: u64, end: u64) {
        self.told.lock().unwrap().push((what, start, end));
    }

    /// What it was told since the last call.
    pub(crate) fn all(&self) -> Vec<(&'static str, u64, u64)> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

impl Translations for Told {
    fn zap(&self, start: u64, end: u64, copies: PrivateCopies) {
        self.note(if copies == PrivateCopies::Keep { "zap" } else { "drop" }, start, end);
    }
    fn write_protect(&self, start: u64, end: u64) {
        self.note("protect", start, end);
    }
    fn maps_ahead(&self) -> bool {
        self.ahead
    }
    fn published(&self, start: u64, end: u64) {
        self.note("published", start, end);
    }
    fn published_alone(&self, start: u64, end: u64) {
        self.note("alone", start, end);
    }
    fn settled(&self, start: u64, end: u64) {
        self.note("settled", start, end);
    }
    fn grown(&self, start: u64, end: u64) {
        self.note("grown", start, end);
    }
    fn stop_stores(&self) {
        self.note("stop", 0, 0);
    }
    fn take_stored(&self, _: u64, _: u64) -> Vec<StoredRun> {
        std::mem::take(&mut self.stored.lock().unwrap())
    }
}

/// Translations that do what they must, and no more.
#[derive(Debug)]
pub(crate) struct Plain(pub(crate) Arc<Told>);

impl Translations for Plain {
    fn zap(&self, start: u64, end: u64, copies: PrivateCopies) {
        self.0.zap(start, end, copies);
    }
    fn write_protect(&self, start: u64, end: u64) {
        self.0.write_protect(start, end);
    }
}

fn file_of(size: u64) -> Arc<FakeFile> {
    let file = FakeFile::new(Compat::FULL);
    file.set_size(size);
    file
}

fn map(file: &Arc<FakeFile>, len: u64) -> SoftMap {
    let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
    SoftMmu::new().map(file.clone(), &MapRequest { offset: 0, len, sharing, protection, colour: 0 }).unwrap()
}

fn write_back(file: &FakeFile, start: u64, end: u64) -> Result<u64> {
    writeback_range(DaxInode::pages(file), &*file.device, start, end)
}

fn run(first: u64, count: u64, device: u64) -> StoredRun {
    StoredRun::new(first, count, DevPage::new(device).unwrap())
}

#[test]
fn what_was_stored_without_a_fault_is_written_back_whole_and_once() {
    let file = file_of(100 * P);
    let told = Told::ahead(true);
    DaxInode::pages(&*file).attach(told.clone());
    told.stored.lock().unwrap().extend([run(10, 4, 50), run(20, 1, 70)]);
    assert_eq!(write_back(&file, 0, 99).unwrap(), 0, "no entry");
    assert_eq!(file.device.written(), [(50 * P, 4 * P), (70 * P, P)]);
    write_back(&file, 0, 99).unwrap();
    assert_eq!(file.device.written(), []);
}

#[test]
fn what_the_device_would_not_write_back_is_kept_for_who_touches_it() {
    let file = file_of(100 * P);
    let told = Told::ahead(true);
    DaxInode::pages(&*file).attach(told.clone());
    told.stored.lock().unwrap().extend([run(2, 1, 40), run(10, 4, 50), run(20, 1, 70)]);
    file.device.good.store(1, Ordering::SeqCst);
    write_back(&file, 0, 99).unwrap_err();
    file.device.good.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(file.device.written(), [(40 * P, P)]);
    // Beside them on both sides.
    write_back(&file, 0, 9).unwrap();
    write_back(&file, 14, 19).unwrap();
    write_back(&file, 21, 99).unwrap();
    assert_eq!(file.device.written(), []);
    // The last page of one, and the only one of the other.
    write_back(&file, 13, 13).unwrap();
    assert_eq!(file.device.written(), [(50 * P, 4 * P)]);
    write_back(&file, 20, 20).unwrap();
    assert_eq!(file.device.written(), [(70 * P, P)]);
    write_back(&file, 0, 99).unwrap();
    assert_eq!(file.device.written(), []);
}

#[test]
fn each_dirty_entry_in_the_range_is_protected_and_written_back_whole() {
    let file = file_of(3 * PMD_SIZE);
    // Two units that lie aligned, and pages behind them.
    file.place(512, 512, 1024);
    file.place(0, 4, 10);
    file.place(1024, 4, 20);
    let map = map(&file, 3 * PMD_SIZE);
    for page in [1, 3, 700, 1024, 1025] {
        map.store(page * P, 1).unwrap();
    }
    map.load(2 * P).unwrap();
    let told = Told::ahead(false);
    DaxInode::pages(&*file).attach(told.clone());
    assert_eq!(DaxInode::pages(&*file).dirty_entries(), 5);
    // From the last page of what is in front, by the unit in the middle, to the first page behind.
    assert_eq!(write_back(&file, 3, 1024).unwrap(), 3);
    assert_eq!(told.all(), [("protect", 3, 4), ("protect", 512, 1024), ("protect", 1024, 1025)]);
    assert_eq!(file.device.written(), [(13 * P, P), (1024 * P, PMD_SIZE), (20 * P, P)]);
    let dirty: Vec<u64> = DaxInode::pages(&*file)
        .entries()
        .iter()
        .filter(|entry| entry.dirty)
        .map(|entry| entry.index)
        .collect();
    assert_eq!((dirty, DaxInode::pages(&*file).dirty_entries()), (vec![1, 1025], 2));
    // A part of a unit is all of it.
    map.store(700 * P, 2).unwrap();
    assert_eq!(write_back(&file, 1023, 1023).unwrap(), 1);
    assert_eq!(file.device.written(), [(1024 * P, PMD_SIZE)]);
}

#[test]
fn an_entry_that_the_device_would_not_write_back_stays_dirty_and_is_nobody_s() {
    let file = file_of(4 * P);
    let map = map(&file, 4 * P);
    map.store(0, 1).unwrap();
    map.store(P, 1).unwrap();
    file.device.good.store(1, Ordering::SeqCst);
    write_back(&file, 0, 3).unwrap_err();
    file.device.good.store(u64::MAX, Ordering::SeqCst);
    let entries = DaxInode::pages(&*file).entries();
    assert_eq!(
        entries.iter().map(|entry| (entry.dirty, entry.locked)).collect::<Vec<_>>(),
        [(false, false), (true, false)]
    );
    assert_eq!(DaxInode::pages(&*file).dirty_entries(), 1);
    // Also who wants the page of which the write-back failed gets it.
    map.store(P + 1, 2).unwrap();
    assert_eq!(write_back(&file, 0, 3).unwrap(), 1);
}

#[test]
fn write_back_waits_for_who_holds_an_entry_and_passes_it_on() {
    let file = file_of(4 * P);
    let map = map(&file, 4 * P);
    for round in 0..20 {
        map.store(P, round).unwrap();
        let held = DaxInode::pages(&*file).grab(1, Order::Pte).unwrap();
        let written = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let count = write_back(&file, 0, 3).unwrap();
                    written.lock().unwrap().push(count);
                });
            }
            std::thread::sleep(Duration::from_millis(5));
            assert!(written.lock().unwrap().is_empty(), "it did not wait");
            drop(held);
        });
        // One of them wrote it; the others found it written, and none waits for ever.
        let written = written.into_inner().unwrap();
        assert_eq!(written.iter().sum::<u64>(), 1, "{written:?}");
        assert_eq!(DaxInode::pages(&*file).dirty_entries(), 0);
    }
}

#[test]
fn who_maps_what_ends_is_told_of_all_that_stands_for_one_entry() {
    let file = file_of(4 * PMD_SIZE);
    let pages = DaxInode::pages(&*file);
    let by_entries = Told::ahead(false);
    pages.attach(by_entries.clone());
    // Nothing has an entry, and nobody maps ahead.
    pages.invalidate(3, 5);
    assert_eq!(by_entries.all(), []);
    drop(pages.grab(600, Order::Pmd).unwrap());
    drop(pages.grab(3, Order::Pte).unwrap());
    // An entry of 2 MiB goes whole, one page goes alone.
    pages.invalidate(700, 1100);
    assert_eq!(by_entries.all(), [("alone", 512, 1100)]);
    pages.invalidate(0, 2);
    pages.invalidate(3, 4);
    assert_eq!(by_entries.all(), [("alone", 0, 2), ("alone", 3, 4)]);
    assert_eq!(pages.pages(), 0);

    // With two, each is told before the first maps anything.
    let ahead = Told::ahead(true);
    pages.attach(ahead.clone());
    pages.invalidate(7, 9);
    assert_eq!(by_entries.all(), [("published", 7, 9)]);
    assert_eq!(ahead.all(), [("published", 7, 9)]);
    let (first, second): (Arc<dyn Translations>, Arc<dyn Translations>) = (by_entries.clone(), ahead.clone());
    pages.detach(&first);
    // Again: it is not there.
    pages.detach(&first);
    pages.invalidate(7, 9);
    assert_eq!((by_entries.all(), ahead.all()), (vec![], vec![("alone", 7, 9)]));
    pages.detach(&second);
    assert_eq!(pages.mappings(), 0);
    pages.attach(first);
    for _ in 0..2 {
        pages.invalidate(7, 9);
        assert_eq!((by_entries.all(), ahead.all()), (vec![], vec![]), "nobody maps ahead any more");
        // It is not there.
        pages.detach(&second);
    }
}

#[test]
fn a_huge_zero_page_that_gives_way_is_taken_from_who_has_it_by_its_entry() {
    let file = file_of(PMD_SIZE);
    let map = map(&file, PMD_SIZE);
    map.load(0).unwrap();
    let pages = DaxInode::pages(&*file);
    assert_eq!(pages.entries()[0].content, Content::Zero);
    let (by_entries, ahead) = (Told::ahead(false), Told::ahead(true));
    pages.attach(by_entries.clone());
    pages.attach(ahead.clone());
    let entry = pages.grab(7, Order::Pte).unwrap();
    assert_eq!((entry.index(), entry.order(), entry.content()), (7, Order::Pte, Content::Empty));
    drop(entry);
    // Who maps ahead has the hole, with an entry or without.
    assert_eq!((by_entries.all(), ahead.all()), (vec![("zap", 0, 512)], vec![]));
    assert_eq!(pages.pages(), 1);
}

#[test]
fn pages_that_are_taken_are_settled_when_the_change_is_made() {
    let file = file_of(4 * PMD_SIZE);
    file.place(0, 1024, 512);
    let map = map(&file, 4 * PMD_SIZE);
    map.load(0).unwrap();
    map.load(PMD_SIZE).unwrap();
    let pages = VmFile::pages(&*file);
    let told = Told::ahead(false);
    pages.attach(told.clone());
    let change = || told.note("change", 0, 0);
    let range = PMD_SIZE - 3 * P..2 * PMD_SIZE - P;
    take_pages(pages, &*file.device, range, Wait::Yes, Layouts::Broken, Taken::Truncated, change).unwrap();
    let all = told.all();
    // Both units go whole; private copies only of what is taken, and only when it is.
    let expected = [
        ("zap", 0, 512),
        ("zap", 512, 1024),
        ("zap", 509, 1023),
        ("change", 0, 0),
        ("drop", 509, 1023),
        ("settled", 0, 1024),
    ];
    assert_eq!(all, expected);
    assert_eq!(pages.pages(), 0);
}

#[test]
fn lent_memory_is_written_back_while_it_is_lent_and_once_after() {
    let file = file_of(100 * P);
    let pages = VmFile::pages(&*file);
    let (lease, ()) = PageLease::take(pages, 10..14, || ());
    assert_eq!(lease.pages(), 10..14);
    // A lease that may only load.
    write_back(&file, 0, 99).unwrap();
    assert_eq!(file.device.written(), []);
    lease.lend(vec![50 * P..52 * P, 60 * P..60 * P + 10]);
    let lent = [(50 * P, 2 * P), (60 * P, 10)];
    for _ in 0..2 {
        write_back(&file, 0, 99).unwrap();
        assert_eq!(file.device.written(), lent);
    }
    // Its first page and its last one, and those beside.
    write_back(&file, 13, 13).unwrap();
    write_back(&file, 0, 10).unwrap();
    assert_eq!(file.device.written(), [lent, lent].concat());
    write_back(&file, 0, 9).unwrap();
    write_back(&file, 14, 99).unwrap();
    assert_eq!(file.device.written(), []);
    drop(lease);
    write_back(&file, 14, 99).unwrap();
    write_back(&file, 0, 9).unwrap();
    assert_eq!(file.device.written(), []);
    // What the device would not take is kept.
    file.device.good.store(1, Ordering::SeqCst);
    write_back(&file, 0, 99).unwrap_err();
    file.device.good.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(file.device.written(), lent[..1]);
    write_back(&file, 0, 99).unwrap();
    assert_eq!(file.device.written(), lent[1..]);
    write_back(&file, 0, 99).unwrap();
    assert_eq!(file.device.written(), []);
}

#[test]
fn memory_that_several_leases_lent_is_written_back_as_far_as_any_of_them_went() {
    let file = file_of(100 * P);
    let pages = VmFile::pages(&*file);
    let lease = |range: std::ops::Range<u64>, lent: std::ops::Range<u64>| {
        let (lease, ()) = PageLease::take(pages, range, || ());
        lease.lend(vec![lent]);
        lease
    };
    let leases = [lease(10..12, 50 * P..51 * P), lease(8..14, 50 * P..54 * P), lease(20..21, 50 * P..52 * P)];
    drop(leases);
    // The pages of all three are those of what came back.
    write_back(&file, 0, 7).unwrap();
    write_back(&file, 21, 99).unwrap();
    assert_eq!(file.device.written(), []);
    write_back(&file, 20, 20).unwrap();
    assert_eq!(file.device.written(), [(50 * P, 4 * P)]);
    write_back(&file, 0, 99).unwrap();
    assert_eq!(file.device.written(), []);
    // One that lent nothing owes nothing, and the next what it lent.
    drop(PageLease::take(pages, 10..12, || ()));
    drop(lease(10..12, 50 * P..51 * P));
    write_back(&file, 0, 99).unwrap();
    assert_eq!(file.device.written(), [(50 * P, P)]);
    // A lease that lends nothing any more owes nothing.
    let lease = lease(10..12, 50 * P..51 * P);
    lease.lend(Vec::new());
    write_back(&file, 0, 99).unwrap();
    drop(lease);
    write_back(&file, 0, 99).unwrap();
    assert_eq!(file.device.written(), []);
    drop(file.log.take());
    // Where nothing is dirty nothing is traced.
    write_back(&file, 0, 99).unwrap();
    assert!(!file.log.take().iter().any(|record| matches!(record.event, Event::WritebackRange { .. })));
}

#[test]
fn who_only_takes_and_protects_translations_misses_nothing() {
    let file = file_of(PMD_SIZE);
    let pages = DaxInode::pages(&*file);
    let told = Told::ahead(false);
    pages.attach(Arc::new(Plain(told.clone())));
    pages.invalidate(1, 2);
    assert_eq!(told.all(), [], "nothing is mapped ahead");
    drop(pages.grab(3, Order::Pte).unwrap());
    pages.invalidate(1, 5);
    assert_eq!(told.all(), [("zap", 1, 5)]);
    // Where two map the file.
    pages.attach(Arc::new(Plain(told.clone())));
    drop(pages.grab(3, Order::Pte).unwrap());
    pages.invalidate(1, 5);
    assert_eq!(told.all(), [("zap", 1, 5); 2]);
}

#[test]
fn a_write_into_a_hole_is_told_of_the_pages_that_have_blocks_now_and_of_no_others() {
    let file = file_of(100 * P);
    let told = Told::ahead(true);
    DaxInode::pages(&*file).attach(told.clone());
    file.write(2 * P + 3, &vec![1; 2 * P as usize]).unwrap();
    assert_eq!(told.all(), [("alone", 2, 5)]);
    file.write(2 * P, &[1; 10]).unwrap();
    assert_eq!(told.all(), [], "the blocks were there");
    file.write(7 * P, &vec![1; P as usize]).unwrap();
    assert_eq!(told.all(), [("alone", 7, 8)]);
}
