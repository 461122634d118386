//! Faults of 4 KiB (`dax_iomap_pte_fault`).

use blockdev::Access;

use super::{DaxInode, FaultRequest, FaultResult, Outcome};
use super::{cow, device_page, is_synchronous, mark, note_answer, page_memory, result_of};
use crate::entry::{Content, Order, PAGE_SIZE};
use crate::error::{BadMapping, Error, Result};
use crate::iomap::{Iomap, MapFlags, MapKind, OpFlags};
use crate::iter::{IomapIter, Step};
use crate::mapping::{EntryGuard, GrabError};
use crate::page_table::{Slot, Target, Writable};
use crate::trace::Event;

/// Handles a missing page, or a store to a read-only one. The caller holds `invalidate_lock` shared.
pub(super) fn fault<I: DaxInode + ?Sized>(inode: &I, request: &FaultRequest<'_>) -> Outcome {
    let info = request.info();
    inode.pages().emit(|| Event::PteFault(info, FaultResult::empty()));
    let outcome = find_and_map(inode, request);
    let result = match &outcome {
        Outcome::Done(result) => *result,
        Outcome::NeedsSync(result, _) => *result | FaultResult::NEEDDSYNC,
    };
    inode.pages().emit(|| Event::PteFaultDone(info, result));
    outcome
}

fn find_and_map<I: DaxInode + ?Sized>(inode: &I, request: &FaultRequest<'_>) -> Outcome {
    let index = request.pgoff();
    let Some(pos) = index.checked_mul(PAGE_SIZE).filter(|pos| *pos < inode.size()) else {
        return Outcome::Done(FaultResult::SIGBUS);
    };
    let mut entry = match inode.pages().grab(index, Order::Pte) {
        Ok(entry) => entry,
        Err(GrabError::Conflict | GrabError::OutOfRange) => return Outcome::Done(FaultResult::SIGBUS),
    };
    if request.table.slot(request.address) == Slot::Huge {
        // Somebody else mapped the whole unit meanwhile: try the access again.
        return Outcome::Done(FaultResult::NOPAGE);
    }

    // A private store reads the page and copies it; only shared stores need blocks.
    let copies = request.is_store() && !request.vma.is_shared();
    let mut flags = OpFlags::FAULT | OpFlags::DAX;
    if request.is_store() && !copies {
        flags |= OpFlags::WRITE;
    }

    let mut iter = IomapIter::new(inode, pos, PAGE_SIZE, flags);
    let mut outcome = None;
    let mut major = FaultResult::empty();
    let walked = loop {
        match iter.next() {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
        let length = iter.length();
        let Some(iomap) = iter.iomap() else { break Ok(()) };
        note_answer(inode, pos, PAGE_SIZE, flags, iomap);
        let step = if length < PAGE_SIZE {
            Step::Failed(BadMapping::ShorterThanPage { length }.into())
        } else {
            let mapped = if copies {
                cow::copy_page(inode, request, iomap, pos)
            } else {
                map_page(inode, request, &mut entry, iomap, pos, flags)
            };
            match mapped {
                Ok(done) => {
                    if iomap.flags.contains(MapFlags::NEW) {
                        major = FaultResult::MAJOR;
                    }
                    outcome = Some(done);
                    Step::Done(PAGE_SIZE)
                }
                Err(error) => Step::Failed(error),
            }
        };
        iter.processed(step);
    };
    drop(iter);
    if flags.contains(OpFlags::WRITE) && !matches!((&walked, &outcome), (Ok(()), Some(_))) {
        entry.forget_hole();
    }
    match (walked, outcome) {
        (Ok(()), Some(Outcome::Done(result))) => Outcome::Done(result | major),
        (Ok(()), Some(Outcome::NeedsSync(result, page))) => Outcome::NeedsSync(result | major, page),
        (Err(error), _) => Outcome::Done(failed(request, &error)),
        (Ok(()), None) => Outcome::Done(FaultResult::SIGBUS),
    }
}

fn failed(request: &FaultRequest<'_>, error: &Error) -> FaultResult {
    log::debug!(target: "ext2_dax::fault", "fault on file page {}: {error}", request.pgoff());
    result_of(error)
}

/// Maps what is at `pos` and says so in the entry (Linux: `dax_fault_iter`).
fn map_page<I: DaxInode + ?Sized>(
    inode: &I,
    request: &FaultRequest<'_>,
    entry: &mut EntryGuard<'_>,
    iomap: &Iomap<I::Private>,
    pos: u64,
    flags: OpFlags,
) -> Result<Outcome> {
    let store = flags.contains(OpFlags::WRITE);
    match iomap.kind {
        MapKind::Hole | MapKind::Unwritten if !store => {
            entry.insert(Content::Zero, mark(inode.compat(), flags, false));
            request.table.map_pte(request.address, Target::Zero, Writable::No);
            let result = FaultResult::NOPAGE;
            inode.pages().emit(|| Event::LoadHole(request.info(), result));
            Ok(Outcome::Done(result))
        }
        MapKind::Mapped => {
            let page = device_page(iomap, pos)?;
            let access = if store { Access::Write } else { Access::Read };
            page_memory(inode.memory(), page, access)?;
            let synchronous = is_synchronous(request, flags, iomap);
            entry.insert(Content::Page(page), mark(inode.compat(), flags, synchronous));
            if synchronous {
                return Ok(Outcome::NeedsSync(FaultResult::empty(), page));
            }
            let writable = if store { Writable::Yes } else { Writable::No };
            request.table.map_pte(request.address, Target::Page(page), writable);
            Ok(Outcome::Done(FaultResult::NOPAGE))
        }
        kind => {
            log::error!(target: "ext2_dax::fault", "file page {}: met {kind:?}", request.pgoff());
            Err(BadMapping::NotMapped(kind).into())
        }
    }
}
