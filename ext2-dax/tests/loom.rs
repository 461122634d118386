//! Every interleaving of the two state machines that others rest on: the entry lock, and mapping against
//! truncation. Run with
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p ext2-dax --release --test loom`.
//! loom reports a deadlock when all threads wait, so a lost wake-up fails the test.
#![cfg(loom)]

use std::sync::Arc;

use blockdev::{Access, BlockDevice, DaxDevice, PmemSlice, RamDevice};
use ext2_dax::Wait;
use ext2_dax::compat::Compat;
use ext2_dax::entry::{Order, PAGE_SIZE};
use ext2_dax::error::Result;
use ext2_dax::fault::{self, DaxInode, FaultRequest, FaultResult};
use ext2_dax::iomap::{Iomap, IomapOps, OpFlags};
use ext2_dax::lease::PageLease;
use ext2_dax::mapping::DaxMapping;
use ext2_dax::mmu::soft::{MapRequest, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing, VmFile};
use ext2_dax::trace::{InodeId, Tracer};
use ext2_dax::truncate::{Taken, take_pages};
use ext2_dax::{WaitTable, writeback};
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use loom::thread;

fn mapping() -> Arc<DaxMapping> {
    Arc::new(DaxMapping::new(InodeId::default(), Arc::new(WaitTable::new()), Arc::new(Tracer::new())))
}

/// Takes the entry and checks that nobody else has it.
fn hold(pages: &DaxMapping, index: u64, order: Order, holders: &AtomicUsize) {
    if let Ok(entry) = pages.grab(index, order) {
        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold one entry");
        thread::yield_now();
        holders.fetch_sub(1, Ordering::SeqCst);
        drop(entry);
    }
}

/// Runs three threads that want what `wants` says, one of them on the test's own thread.
fn contend(wants: [(u64, Order); 3]) {
    loom::model(move || {
        let (pages, holders) = (mapping(), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = wants[1..]
            .iter()
            .map(|&(index, order)| {
                let (pages, holders) = (Arc::clone(&pages), Arc::clone(&holders));
                thread::spawn(move || hold(&pages, index, order, &holders))
            })
            .collect();
        hold(&pages, wants[0].0, wants[0].1, &holders);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(pages.entries().iter().all(|entry| !entry.locked));
    });
}

#[test]
fn an_entry_has_one_holder_and_every_waiter_gets_it() {
    contend([(3, Order::Pte), (3, Order::Pte), (3, Order::Pte)]);
}

#[test]
fn small_and_large_faults_on_one_unit_never_hold_it_together() {
    contend([(3, Order::Pmd), (3, Order::Pte), (3, Order::Pmd)]);
}

#[test]
fn when_an_entry_is_deleted_all_who_waited_for_it_go_on() {
    // Two wait for the large entry. If its deletion woke only one of them, that one would make a small
    // entry, whose waiters are others, and the second would sleep for ever (Linux, until 2021).
    loom::model(|| {
        let pages = mapping();
        let held = pages.grab(3, Order::Pmd).unwrap();
        let deleter = {
            let pages = Arc::clone(&pages);
            thread::spawn(move || pages.invalidate(0, 512))
        };
        let waiters: Vec<_> = [3, 4]
            .map(|index| {
                let pages = Arc::clone(&pages);
                thread::spawn(move || drop(pages.grab(index, Order::Pte).unwrap()))
            })
            .into_iter()
            .collect();
        drop(held);
        deleter.join().unwrap();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

/// One page at device page 1, until it is truncated away.
#[derive(Debug)]
struct OnePage {
    device: RamDevice,
    pages: Arc<DaxMapping>,
    size: AtomicU64,
    freed: AtomicBool,
}

impl OnePage {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            device: RamDevice::new(4 * PAGE_SIZE).unwrap(),
            pages: mapping(),
            size: AtomicU64::new(PAGE_SIZE),
            freed: AtomicBool::new(false),
        })
    }

    fn truncate(&self) {
        let freed = || {
            self.size.store(0, Ordering::SeqCst);
            self.freed.store(true, Ordering::SeqCst);
        };
        let (layouts, why) = (Compat::FULL.layouts, Taken::Truncated);
        take_pages(&self.pages, self, 0..u64::MAX, Wait::Yes, layouts, why, freed).unwrap();
    }
}

impl BlockDevice for OnePage {
    fn size(&self) -> u64 {
        self.device.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> blockdev::Result<()> {
        self.device.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> blockdev::Result<()> {
        self.device.write_at(offset, buf)
    }
    fn zero(&self, offset: u64, len: u64) -> blockdev::Result<()> {
        self.device.zero(offset, len)
    }
    fn fence(&self) -> blockdev::Result<()> {
        Ok(())
    }
    fn flush(&self) -> blockdev::Result<()> {
        Ok(())
    }
}

impl DaxDevice for OnePage {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> blockdev::Result<PmemSlice<'_>> {
        assert!(!self.freed.load(Ordering::SeqCst), "an access reached a block that was freed");
        self.device.direct_access(page, count, mode)
    }
    fn recovery_write(&self, offset: u64, buf: &[u8]) -> blockdev::Result<()> {
        self.device.recovery_write(offset, buf)
    }
    fn write_back(&self, offset: u64, len: u64) -> blockdev::Result<()> {
        assert!(!self.freed.load(Ordering::SeqCst), "a block was flushed that was freed");
        self.device.write_back(offset, len)
    }
    fn pfn(&self, page: u64) -> u64 {
        self.device.pfn(page)
    }
}

impl IomapOps for OnePage {
    type Private = ();
    fn begin(&self, _: u64, _: u64, _: OpFlags) -> Result<Iomap> {
        assert!(!self.freed.load(Ordering::SeqCst), "the map was asked for a page past the end");
        Ok(Iomap::mapped(0, PAGE_SIZE, PAGE_SIZE))
    }
    fn end(&self, _: u64, _: u64, _: u64, _: OpFlags, _: Iomap) -> Result<()> {
        Ok(())
    }
}

impl DaxInode for OnePage {
    fn pages(&self) -> &DaxMapping {
        &self.pages
    }
    fn memory(&self) -> &dyn DaxDevice {
        self
    }
    fn size(&self) -> u64 {
        self.size.load(Ordering::SeqCst)
    }
    fn compat(&self) -> &Compat {
        &Compat::FULL
    }
    fn sync_pages(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
}

impl VmFile for OnePage {
    fn pages(&self) -> &Arc<DaxMapping> {
        &self.pages
    }
    fn memory(&self) -> &dyn DaxDevice {
        self
    }
    fn fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        fault::handle(self, request, Order::Pte)
    }
    fn has_huge_faults(&self) -> bool {
        false
    }
    fn huge_fault(&self, _: &FaultRequest<'_>) -> FaultResult {
        FaultResult::FALLBACK
    }
    fn msync(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
    fn check_map(&self, _: Sharing, _: Protection) -> Result<()> {
        Ok(())
    }
}

fn request() -> MapRequest {
    let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
    MapRequest { offset: 0, len: PAGE_SIZE, sharing, protection, colour: 0 }
}

#[test]
fn no_store_reaches_a_block_after_truncation_freed_it() {
    loom::model(|| {
        let file = OnePage::new();
        let map = SoftMmu::new().map(Arc::clone(&file) as _, &request()).unwrap();
        let other = Arc::clone(&file);
        let truncation = thread::spawn(move || other.truncate());
        let _ = map.store(0, 1);
        truncation.join().unwrap();
        assert_eq!(map.mmu().counters().ptes, 0, "a translation outlived its block");
        assert_eq!(file.pages.pages(), 0, "an entry outlived its block");
    });
}

#[test]
fn a_store_during_write_back_is_found_by_the_next() {
    loom::model(|| {
        let file = OnePage::new();
        let map = SoftMmu::new().map(Arc::clone(&file) as _, &request()).unwrap();
        map.store(0, 1).unwrap();
        let other = Arc::clone(&file);
        let stored = Arc::new(AtomicBool::new(false));
        let before = Arc::clone(&stored);
        let sync = thread::spawn(move || {
            let early = before.load(Ordering::SeqCst);
            writeback::writeback_range(&other.pages, &*other, 0, 0).unwrap();
            early
        });
        map.store(1, 1).unwrap();
        stored.store(true, Ordering::SeqCst);
        let early = sync.join().unwrap();
        // Either the store came before the write-back, which covered it; or the page is dirty again; or
        // it went through the translation that write-back then took away, before the flush.
        let found = writeback::writeback_range(&file.pages, &*file, 0, 0).unwrap();
        assert!(found <= 1 && !(early && found > 0));
        map.store(2, 1).unwrap();
        assert_eq!(file.pages.dirty_entries(), 1, "a store after write-back is noted");
    });
}

#[test]
fn truncation_waits_for_a_lease_and_is_woken_when_it_ends() {
    loom::model(|| {
        let file = OnePage::new();
        let other = Arc::clone(&file);
        let holder = thread::spawn(move || {
            let (lease, size) = PageLease::take(&other.pages, 0..1, || other.size.load(Ordering::SeqCst));
            thread::yield_now();
            assert_eq!(other.size.load(Ordering::SeqCst), size, "a leased page was taken");
            drop(lease);
        });
        file.truncate();
        holder.join().unwrap();
    });
}
