//! Faults of 2 MiB (`dax_iomap_pmd_fault`).

use blockdev::{Access, DaxDevice};

use super::{DaxInode, Fallback, FaultRequest, FaultResult, Outcome};
use super::{device_page, is_synchronous, mark, note_answer};
use crate::entry::{Content, DevPage, Order, PAGE_SIZE, PMD_PAGES, PMD_SIZE};
use crate::iomap::{Iomap, MapFlags, MapKind, OpFlags};
use crate::iter::{IomapIter, Step};
use crate::mapping::{EntryGuard, GrabError};
use crate::page_table::{Slot, Target, Writable};
use crate::trace::Event;
use crate::vma::Vma;

/// Handles a fault in a place that has no table of 4 KiB translations. The caller holds
/// `invalidate_lock` shared. On `FALLBACK` the place is left empty.
pub(super) fn fault<I: DaxInode + ?Sized>(inode: &I, request: &FaultRequest<'_>) -> Outcome {
    let info = request.info();
    let max_pgoff = inode.size().div_ceil(PAGE_SIZE);
    inode.pages().emit(|| Event::PmdFault(info, max_pgoff));
    let outcome = match find_and_map(inode, request, max_pgoff) {
        Ok(outcome) => outcome,
        Err(reason) => {
            request.table.split(request.address);
            let index = Order::Pmd.round(request.pgoff());
            inode.pages().emit(|| Event::Fallback { index, reason });
            Outcome::Done(FaultResult::FALLBACK)
        }
    };
    let result = match &outcome {
        Outcome::Done(result) => *result,
        Outcome::NeedsSync(result, _) => *result | FaultResult::NEEDDSYNC,
    };
    inode.pages().emit(|| Event::PmdFaultDone(info, max_pgoff, result));
    outcome
}

/// The reasons that can be seen without looking at the file's map (Linux: `dax_fault_check_fallback`).
pub(crate) fn check(request: &FaultRequest<'_>, vma: &Vma, max_pgoff: u64) -> Result<(), Fallback> {
    let pmd_start = request.address & !(PMD_SIZE - 1);
    if request.pgoff() % PMD_PAGES != (request.address / PAGE_SIZE) % PMD_PAGES {
        return Err(Fallback::Colour);
    }
    if request.is_store() && !vma.is_shared() {
        return Err(Fallback::PrivateWrite);
    }
    if pmd_start < vma.start {
        return Err(Fallback::BeforeMapping);
    }
    if pmd_start + PMD_SIZE > vma.end {
        return Err(Fallback::AfterMapping);
    }
    if request.pgoff() | (PMD_PAGES - 1) >= max_pgoff {
        return Err(Fallback::PastEof);
    }
    Ok(())
}

fn find_and_map<I: DaxInode + ?Sized>(
    inode: &I,
    request: &FaultRequest<'_>,
    max_pgoff: u64,
) -> Result<Outcome, Fallback> {
    let index = Order::Pmd.round(request.pgoff());
    if index >= max_pgoff {
        return Ok(Outcome::Done(FaultResult::SIGBUS));
    }
    check(request, request.vma, max_pgoff)?;
    let mut entry = match inode.pages().grab(index, Order::Pmd) {
        Ok(entry) => entry,
        Err(GrabError::Conflict) => return Err(Fallback::Conflict),
        Err(GrabError::OutOfRange) => return Ok(Outcome::Done(FaultResult::SIGBUS)),
    };
    if request.table.slot(request.address) == Slot::Table {
        // Somebody hung a table there meanwhile: try the access again, it will take the 4 KiB way.
        return Ok(Outcome::Done(FaultResult::empty()));
    }

    let pos = index * PAGE_SIZE;
    let mut flags = OpFlags::FAULT | OpFlags::DAX;
    if request.is_store() {
        flags |= OpFlags::WRITE | OpFlags::UNIT;
    }
    let mut iter = IomapIter::new(inode, pos, PMD_SIZE, flags);
    let mut mapped = Err(Fallback::BeginFailed);
    loop {
        match iter.next() {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                // The 4 KiB fault that follows meets the same error and reports it.
                log::debug!(target: "ext2_dax::fault", "2 MiB fault at file page {index}: {error}");
                mapped = Err(Fallback::BeginFailed);
                break;
            }
        }
        let length = iter.length();
        let Some(iomap) = iter.iomap() else { break };
        note_answer(inode, pos, PMD_SIZE, flags, iomap);
        mapped = if length < PMD_SIZE {
            Err(Fallback::TooShort)
        } else {
            let major = iomap.flags.contains(MapFlags::NEW);
            map_unit(inode, request, &mut entry, iomap, pos, flags).map(|outcome| with_major(outcome, major))
        };
        iter.processed(Step::Done(if mapped.is_ok() { PMD_SIZE } else { 0 }));
    }
    drop(iter);
    if mapped.is_err() && request.is_store() {
        entry.forget_hole();
    }
    mapped
}

fn with_major(outcome: Outcome, major: bool) -> Outcome {
    let major = if major { FaultResult::MAJOR } else { FaultResult::empty() };
    match outcome {
        Outcome::Done(result) => Outcome::Done(result | major),
        Outcome::NeedsSync(result, page) => Outcome::NeedsSync(result | major, page),
    }
}

/// Maps the unit and says so in the entry (Linux: `dax_fault_iter` for a PMD).
fn map_unit<I: DaxInode + ?Sized>(
    inode: &I,
    request: &FaultRequest<'_>,
    entry: &mut EntryGuard<'_>,
    iomap: &Iomap<I::Private>,
    pos: u64,
    flags: OpFlags,
) -> Result<Outcome, Fallback> {
    let store = flags.contains(OpFlags::WRITE);
    match iomap.kind {
        MapKind::Hole | MapKind::Unwritten if !store => {
            let hole = map_hole(inode, request, entry, flags);
            if hole.is_err() {
                inode.pages().emit(|| Event::PmdLoadHoleFallback(request.info()));
            }
            hole
        }
        MapKind::Mapped => {
            let page = aligned_run(inode.memory(), iomap, pos, store).ok_or(Fallback::Unaligned)?;
            let synchronous = is_synchronous(request, flags, iomap);
            entry.insert(Content::Page(page), mark(inode.compat(), flags, synchronous));
            if synchronous {
                return Ok(Outcome::NeedsSync(FaultResult::empty(), page));
            }
            let writable = if store { Writable::Yes } else { Writable::No };
            request
                .table
                .map_pmd(request.address, Target::Page(page), writable)
                .map_err(|_| Fallback::SlotTaken)?;
            Ok(Outcome::Done(FaultResult::NOPAGE))
        }
        // The file system has no unit to give; a page it may have.
        MapKind::Hole | MapKind::Unwritten => Err(Fallback::NoUnit),
        kind => {
            log::error!(target: "ext2_dax::fault", "2 MiB at file byte {pos}: a store met {kind:?}");
            Err(Fallback::BadMapping)
        }
    }
}

/// Maps the huge zero page (Linux: `dax_pmd_load_hole`).
fn map_hole<I: DaxInode + ?Sized>(
    inode: &I,
    request: &FaultRequest<'_>,
    entry: &mut EntryGuard<'_>,
    flags: OpFlags,
) -> Result<Outcome, Fallback> {
    if !request.table.has_huge_zero_page() {
        return Err(Fallback::NoHugeZeroPage);
    }
    entry.insert(Content::Zero, mark(inode.compat(), flags, false));
    request.table.map_pmd(request.address, Target::Zero, Writable::No).map_err(|_| Fallback::SlotTaken)?;
    inode.pages().emit(|| Event::PmdLoadHole(request.info()));
    Ok(Outcome::Done(FaultResult::NOPAGE))
}

/// The first device page of the unit at `pos`, if the unit is one run of memory, aligned to 2 MiB, and
/// none of it is poisoned.
fn aligned_run<P>(device: &dyn DaxDevice, iomap: &Iomap<P>, pos: u64, store: bool) -> Option<DevPage> {
    let page = device_page(iomap, pos).ok()?;
    let access = if store { Access::Write } else { Access::Read };
    let run = device.direct_access(page.get(), PMD_PAGES, access).ok()?;
    (run.len() >= PMD_SIZE && device.pfn(page.get()).is_multiple_of(PMD_PAGES)).then_some(page)
}
