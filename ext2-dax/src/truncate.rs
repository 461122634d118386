//! Taking pages from a file while others map or lease them (Linux: the part of `ext2_setsize` under
//! `invalidate_lock`, and `dax_break_layout`).
//!
//! # Invariants
//! 1. From the first translation taken to the last block freed no fault can install a new one:
//!    `invalidate_lock` is held exclusively all the while.
//! 2. A leased page is not taken: the caller waits, or is told `EBUSY`.
//! 3. What was stored to pages that stay, and lie in an entry or a translation that reaches beyond the range, is written
//!    back before that goes: what it says about them must not be lost. Of the pages in the range it is kept, since the change
//!    may fail, and leave them where they are.

use std::ops::Range;

use blockdev::DaxDevice;
pub use ext2_core::plumbing::Taken;
use ext2_core::sync::Mended;

use crate::Wait;
use crate::compat::Layouts;
use crate::entry::PAGE_SIZE;
use crate::error::{Errno, Error, Result};
use crate::leases::InTheWay;
use crate::mapping::{DaxMapping, PrivateCopies};
use crate::writeback::{write_stored, writeback_range};

/// Waits until no other thread leases any of the file pages.
///
/// # Errors
/// `EBUSY` for a lease of the calling thread's own.
pub(crate) fn wait_idle(mapping: &DaxMapping, pages: &Range<u64>) -> Result<()> {
    mapping.leases().wait_idle(pages);
    match mapping.leases().in_the_way(pages) {
        Some(InTheWay::Own) => {
            Err(Error::refused(Errno::BUSY, "this thread leases the blocks: drop the lease first"))
        }
        // A new one, of somebody else, is for the next attempt.
        Some(InTheWay::Others) | None => Ok(()),
    }
}

/// Takes translations and entries of the bytes `range` away and runs `change`, which frees the blocks,
/// while nobody can make new ones.
///
/// With [`Wait::Yes`] the caller holds no lock that the holder of a lease may want.
///
/// The page in which the range begins, if it does not begin with it, stays mapped: its part of the file
/// stays, and what is stored behind the new end is zeroed when the file grows again. The page in which
/// the range ends goes whole; it may be the last of the file. Private copies go only with a truncation (Linux:
/// `even_cows`).
///
/// # Errors
/// `EBUSY` when leased and `wait` is [`Wait::No`], or by this thread; the device's while writing back; both
/// before `change` is run. Otherwise what `change` says.
pub fn take_pages<T>(
    mapping: &DaxMapping,
    memory: &dyn DaxDevice,
    range: Range<u64>,
    wait: Wait,
    layouts: Layouts,
    why: Taken,
    change: impl FnOnce() -> T,
) -> Result<T> {
    take_pages_if(mapping, memory, range, (wait, layouts, why), change, |_| Gone::Perhaps)
}

/// Whether pages are the file's no more, as the change says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// They are not.
    Yes,
    /// Nobody can tell: they may be the file's, as what lies in other places or where they were.
    Perhaps,
    /// They are as they were: the change failed.
    No,
}

/// As [`take_pages`], where the change tells what became of the pages: of those that stay private copies stay too.
pub(crate) fn take_pages_if<T>(
    mapping: &DaxMapping,
    memory: &dyn DaxDevice,
    range: Range<u64>,
    (wait, layouts, why): (Wait, Layouts, Taken),
    change: impl FnOnce() -> T,
    are_gone: impl FnOnce(&T) -> Gone,
) -> Result<T> {
    let start = range.start.div_ceil(PAGE_SIZE);
    let end = range.end.div_ceil(PAGE_SIZE).max(start);
    // A lease of a page of which a part is taken is in the way, too: its tail is about to be zeroed.
    let touched = range.start / PAGE_SIZE..range.end.div_ceil(PAGE_SIZE);
    let _no_faults = loop {
        let lock = mapping.lock_exclusive();
        let in_the_way = match layouts {
            Layouts::Ignored => None,
            Layouts::Broken => mapping.leases().in_the_way(&touched),
        };
        if in_the_way.is_none() {
            break lock;
        }
        drop(lock);
        if wait == Wait::No {
            return Err(Error::refused(Errno::BUSY, "the blocks are leased"));
        }
        wait_idle(mapping, &touched)?;
    };
    // A private copy has no entry, nor has what is mapped ahead.
    let has_others =
        if Mended::CopyPastTheEnd.is_back() { mapping.is_mapped_ahead() } else { mapping.mappings() > 0 };
    let is_mapped = mapping.pages() > 0 || has_others;
    let mut taken = TakenPages { mapping, pages: start..start };
    if start < end && is_mapped {
        // What goes whole and is not all in the range stays the file's, and so must what says that it was stored to: nobody
        // stores to it any more, and then it is written back.
        if i64::try_from(range.end).is_ok() && !range.end.is_multiple_of(PAGE_SIZE) {
            taken.add(end - 1..end);
            mapping.unmap(end - 1, end, PrivateCopies::Keep);
            writeback_range(mapping, memory, end - 1, end - 1)?;
        }
        for info in mapping.straddling(start, end) {
            let last = info.index + info.order.pages();
            taken.add(info.index..last);
            // The entry goes whole, so must every translation that it stands for.
            mapping.unmap(info.index, last, PrivateCopies::Keep);
            if info.dirty {
                writeback_range(mapping, memory, info.index, last - 1)?;
            } else {
                write_stored(mapping, memory, info.index, last)?;
            }
        }
        taken.add(start..end);
        mapping.tell_going(start, end, why);
        mapping.delete(start, end);
    }
    let done = change();
    let gone = are_gone(&done);
    if start < end && is_mapped && gone != Gone::No {
        if why == Taken::Truncated || Mended::PrivateCopiesGo.is_back() {
            mapping.unmap(start, end, PrivateCopies::Drop);
        }
        if gone == Gone::Yes {
            mapping.forget_stored_in(start, end);
        }
    }
    Ok(done)
}

/// All the pages whose translations were taken, those around the range with them. Whoever maps ahead is told of each that
/// it may be mapped again, also where the change failed half-way: nobody else would.
struct TakenPages<'a> {
    mapping: &'a DaxMapping,
    pages: Range<u64>,
}

impl TakenPages<'_> {
    fn add(&mut self, pages: Range<u64>) {
        if self.pages.is_empty() {
            self.pages = pages;
        } else {
            self.pages = self.pages.start.min(pages.start)..self.pages.end.max(pages.end);
        }
    }
}

impl Drop for TakenPages<'_> {
    fn drop(&mut self) {
        if !self.pages.is_empty() {
            self.mapping.tell_settled(self.pages.start, self.pages.end);
        }
    }
}
