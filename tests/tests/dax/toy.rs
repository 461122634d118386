//! A file system of one file, as somebody would write it who has read the contract and nothing else: a table from pages of
//! the file to pages of a disk that was used before. It can be told to break a rule.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use blockdev::{BlockDevice, DaxDevice, RamDevice};
use ext2_dax::Wait;
use ext2_dax::conformance::Subject;
use ext2_dax::entry::{Order, PAGE_SIZE, PMD_PAGES};
use ext2_dax::error::{Errno, Error, Result};
use ext2_dax::fault::{self, DaxInode, FaultRequest, FaultResult};
use ext2_dax::iomap::{Iomap, IomapOps, MapFlags, OpFlags};
use ext2_dax::mapping::DaxMapping;
use ext2_dax::mmu::{Protection, Sharing, VmFile};
use ext2_dax::trace::{InodeId, Tracer};
use ext2_dax::truncate::{Taken, take_pages};
use ext2_dax::{Compat, WaitTable, writeback, zero};

/// The rule that a toy breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// Pages are given as they are.
    DirtyPages,
    /// Only pages of a write are given as they are: faults get zeros.
    DirtyWrites,
    /// A fault of 2 MiB gets a page.
    StrayPage,
    /// A write that ends early counts as whole.
    SizeOfRequest,
    /// Holes end after a page.
    ShortHoles,
    /// Blocks that are new are not said to be.
    Silent,
    /// Looking allocates.
    Eager,
    /// What was stored past the end stays.
    KeepsTail,
    /// Truncation tells nobody.
    CutsAlone,
}

#[derive(Debug)]
pub(crate) struct Toy {
    disk: Arc<RamDevice>,
    pages: Arc<DaxMapping>,
    table: Mutex<Table>,
    flaw: Flaw,
}

#[derive(Debug, Default)]
struct Table {
    /// From pages of the file to pages of the disk.
    places: BTreeMap<u64, u64>,
    size: u64,
    /// Pages that were given back.
    free: Vec<u64>,
    /// The first page that nobody had.
    next: u64,
}

/// What an answer made: the page of the file, to be given back if nothing is written to it.
#[derive(Debug)]
pub(crate) struct Made(u64);

impl Toy {
    /// A new file on a disk of 16 MiB that others have used.
    pub(crate) fn new(flaw: Flaw) -> Arc<Self> {
        let disk = RamDevice::new(16 << 20).unwrap();
        disk.write_at(0, &vec![0xee; 16 << 20]).unwrap();
        let id = InodeId { dev: (7, 7), ino: 1 };
        let pages = DaxMapping::new(id, Arc::new(WaitTable::new()), Arc::new(Tracer::new()));
        Arc::new(Self { disk: Arc::new(disk), pages: Arc::new(pages), table: Mutex::default(), flaw })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    /// Finds a free page, and makes it zero.
    fn take(&self, table: &mut Table, flags: OpFlags) -> Result<u64> {
        let page = table.free.pop().unwrap_or(table.next);
        table.next = table.next.max(page + 1);
        if (page + 1) * PAGE_SIZE > self.disk.size() {
            return Err(Error::refused(Errno::NOSPC, "the toy is full"));
        }
        let stays_dirty = match self.flaw {
            Flaw::DirtyPages => true,
            Flaw::DirtyWrites => !flags.contains(OpFlags::FAULT),
            _ => false,
        };
        if !stays_dirty {
            self.disk.zero(page * PAGE_SIZE, PAGE_SIZE)?;
        }
        Ok(page)
    }

    /// Finds 2 MiB in one piece, if there are any.
    fn take_unit(&self, table: &mut Table) -> Result<Option<u64>> {
        let first = table.next.next_multiple_of(PMD_PAGES);
        if (first + PMD_PAGES) * PAGE_SIZE > self.disk.size() {
            return Ok(None);
        }
        table.free.extend(table.next..first);
        table.next = first + PMD_PAGES;
        self.disk.zero(first * PAGE_SIZE, PMD_PAGES * PAGE_SIZE)?;
        Ok(Some(first))
    }
}

impl IomapOps for Toy {
    type Private = Made;

    fn begin(&self, pos: u64, len: u64, flags: OpFlags) -> Result<Iomap<Made>> {
        let table = &mut *self.table();
        let (first, end) = (pos / PAGE_SIZE, pos.saturating_add(len).div_ceil(PAGE_SIZE));
        if let Some(&place) = table.places.get(&first) {
            let in_a_row = |nr: &u64| table.places.get(&(first + nr)) == Some(&(place + nr));
            let count = (1..end - first).take_while(in_a_row).count() as u64 + 1;
            return Ok(Iomap::mapped(first * PAGE_SIZE, count * PAGE_SIZE, place * PAGE_SIZE));
        }
        let hole = table.places.range(first..).next().map_or(end, |(next, _)| end.min(*next)) - first;
        if !flags.contains(OpFlags::WRITE) && self.flaw != Flaw::Eager {
            let hole = if self.flaw == Flaw::ShortHoles { 1 } else { hole };
            // The last page of all has no end that is a number of 64 bits.
            let bytes = (u64::MAX - first * PAGE_SIZE).min(hole.saturating_mul(PAGE_SIZE));
            return Ok(Iomap::hole(first * PAGE_SIZE, bytes));
        }
        let (place, count) = if flags.contains(OpFlags::UNIT) && self.flaw != Flaw::StrayPage {
            let whole = hole >= PMD_PAGES && first.is_multiple_of(PMD_PAGES);
            match if whole { self.take_unit(table)? } else { None } {
                Some(place) => (place, PMD_PAGES),
                None => return Ok(Iomap::hole(first * PAGE_SIZE, hole * PAGE_SIZE)),
            }
        } else {
            (self.take(table, flags)?, 1)
        };
        table.places.extend((0..count).map(|nr| (first + nr, place + nr)));
        let mut answer = Iomap::mapped(first * PAGE_SIZE, count * PAGE_SIZE, place * PAGE_SIZE);
        if self.flaw != Flaw::Silent {
            answer.flags |= MapFlags::NEW;
        }
        answer.private = (!flags.contains(OpFlags::FAULT)).then_some(Made(first));
        Ok(answer)
    }

    fn end(&self, pos: u64, len: u64, written: u64, flags: OpFlags, answer: Iomap<Made>) -> Result<()> {
        if !flags.contains(OpFlags::WRITE) || flags.contains(OpFlags::FAULT) {
            return Ok(());
        }
        let written = if self.flaw == Flaw::SizeOfRequest { len } else { written };
        if written == 0 {
            if let Some(Made(page)) = answer.private {
                let table = &mut *self.table();
                table.free.extend(table.places.remove(&page));
            }
            return Ok(());
        }
        let old = self.table().size;
        if pos > old {
            zero::zero_range(self, old, pos - old)?;
        }
        let table = &mut *self.table();
        table.size = table.size.max(pos + written);
        Ok(())
    }
}

impl DaxInode for Toy {
    fn pages(&self) -> &DaxMapping {
        &self.pages
    }

    fn memory(&self) -> &dyn DaxDevice {
        &*self.disk
    }

    fn size(&self) -> u64 {
        self.table().size
    }

    fn sync_pages(&self, first: u64, last: u64) -> Result<()> {
        writeback::writeback_range(&self.pages, &*self.disk, first, last)?;
        Ok(self.disk.flush()?)
    }
}

impl VmFile for Toy {
    fn pages(&self) -> &Arc<DaxMapping> {
        &self.pages
    }

    fn memory(&self) -> &dyn DaxDevice {
        &*self.disk
    }

    fn fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        fault::handle(self, request, Order::Pte)
    }

    fn has_huge_faults(&self) -> bool {
        true
    }

    fn huge_fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        fault::handle(self, request, Order::Pmd)
    }

    fn msync(&self, first: u64, last: u64) -> Result<()> {
        self.sync_pages(first, last)
    }

    fn check_map(&self, _: Sharing, _: Protection) -> Result<()> {
        Ok(())
    }
}

impl Subject for Toy {
    fn set_size(&self, size: u64, wait: Wait) -> Result<()> {
        let old = self.table().size;
        if size >= old {
            if self.flaw != Flaw::KeepsTail {
                zero::truncate_page(self, old, PAGE_SIZE)?;
            }
            self.table().size = size;
            return Ok(());
        }
        let cut = || {
            let table = &mut *self.table();
            table.free.extend(table.places.split_off(&size.div_ceil(PAGE_SIZE)).into_values());
            table.size = size;
        };
        if self.flaw == Flaw::CutsAlone {
            cut();
            return Ok(());
        }
        let (layouts, why) = (Compat::FULL.layouts, Taken::Truncated);
        take_pages(&self.pages, &*self.disk, size..u64::MAX, wait, layouts, why, cut)
    }

    fn data_pages(&self) -> u64 {
        self.table().places.len() as u64
    }
}
