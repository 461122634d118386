//! Answering a page fault.

use std::ops::Range;

use blockdev::host_map::PageFault;

use super::area::{Area, State};
use super::runs::{Kind, Run};
use crate::entry::{PAGE_SIZE, PMD_PAGES};
use crate::error::{Errno, Error, Result};
use crate::fault::{FaultRequest, FaultResult, StoreOrLoad};
use crate::mmu::{PageTable, Slot};

/// Pages of a hole that are mapped at most when one of them is touched.
const ZEROS_AT_ONCE: u64 = 64 * PMD_PAGES;
/// Runs that are mapped at most when the one before them is touched.
const FOLLOWING: usize = 15;

/// What became of a page that was touched.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Around {
    /// It is mapped, or is what somebody else has made it meanwhile.
    Mapped,
    /// It is a hole, and was stored to.
    NeedsBlocks,
    /// It has blocks that another has just given it, as have these pages, and not all who map the hole were told.
    Untold(Range<u64>),
}

impl Area {
    /// Makes the page what the file has, or refuses the access; either way the thread goes on.
    pub(super) fn answer(&self, fault: PageFault) {
        let page = self.vma().page_at(fault.address);
        {
            let mut state = self.state();
            (state.woken, state.storing) = ((0, 0), fault.store.then_some(page));
        }
        if let Err(error) =
            self.supply(page, fault.store, fault.protected).and_then(|()| self.noted(page, fault))
        {
            log::debug!(target: "ext2_dax::mmu", "page {page} of the file cannot be supplied: {error}");
            self.refuse(page);
        }
        // Who made the page what it is has woken those who wait for it.
        let (first, after) = {
            let mut state = self.state();
            state.storing = None;
            state.woken
        };
        if (first..after).contains(&page) {
            return;
        }
        if let Err(error) = self.space.wake(self.byte(page), PAGE_SIZE) {
            log::error!(target: "ext2_dax::mmu", "a thread stays asleep: {error}");
        }
    }

    /// Lets a store to a page of the file through that is the first since it was asked what was stored.
    fn noted(&self, page: u64, fault: PageFault) -> Result<()> {
        if fault.protected && self.allow_stores(page)? {
            self.state().woken = (page, page + 1);
        }
        Ok(())
    }

    /// Makes a page that was touched, and missing or protected, what the file has, but for the protection that finds stores.
    fn supply(&self, page: u64, store: bool, protected: bool) -> Result<()> {
        {
            let mut state = self.state();
            let kind = state.runs.kind(page);
            let store_to_zeros = kind == Some(Kind::Zeros) && protected;
            // Somebody else was here meanwhile.
            if kind != Some(Kind::Missing) && !store_to_zeros {
                return Ok(());
            }
            if store_to_zeros && self.is_private() {
                self.space.unprotect(self.byte(page), PAGE_SIZE)?;
                self.service.counts.add(|counts| &counts.copies);
                return self.place(&mut state, page, page + 1, Kind::Copy);
            }
        }
        if self.ahead && !(store && protected) && self.map_around(page, store && self.vma().is_shared())? {
            return Ok(());
        }
        self.fault(page, if store { StoreOrLoad::Store } else { StoreOrLoad::Load })
    }

    /// Maps the run of the file that `page` is in, as far as it is missing. False if it is a hole and one is needed with
    /// blocks.
    fn map_around(&self, page: u64, needs_blocks: bool) -> Result<bool> {
        let _no_truncate = self.file.pages().lock_shared();
        match self.map_found(page, needs_blocks, None)? {
            Around::Mapped => Ok(true),
            Around::NeedsBlocks => Ok(false),
            Around::Untold(pages) => {
                // Or a store through this mapping would not be seen by who still maps the hole.
                self.file.pages().invalidate(pages.start, pages.end);
                let found = self.map_found(page, needs_blocks, Some(pages))?;
                Ok(found != Around::NeedsBlocks)
            }
        }
    }

    /// As [`map_around`](Self::map_around), of what is in the pages `told` where all who map the file were told of those.
    fn map_found(&self, page: u64, needs_blocks: bool, told: Option<Range<u64>>) -> Result<Around> {
        let mut state = self.state();
        let Some(missing) = state.runs.at(page).filter(|run| run.kind == Kind::Missing) else {
            return Ok(Around::Mapped);
        };
        let file_end = self.file.end_page();
        if page >= file_end {
            self.place(&mut state, file_end.max(missing.start), missing.end, Kind::End)?;
            return Ok(Around::Mapped);
        }
        // The block map is asked forwards, from where the unit begins.
        let address = self.vma().start + self.byte(page);
        let before = (address / PAGE_SIZE) % PMD_PAGES;
        let unit = page.saturating_sub(before).max(missing.start);
        let mut at = unit;
        let extent = loop {
            let found = self.file.layout(at, missing.end, 1)?;
            let Some(extent) = found.first().copied().filter(|extent| extent.count > 0) else {
                return Err(Error::refused(Errno::IO, "the block map has no answer"));
            };
            at = extent.first + extent.count;
            if at > page {
                break extent;
            }
        };
        let Run { start, end, .. } = missing;
        let (first, after) = (extent.first.max(start), at.min(end));
        let (first, after) = match &told {
            Some(told) => (first.max(told.start), after.min(told.end)),
            None => (first, after),
        };
        match extent.device {
            Some(_) if told.is_none() && self.file.has_untold() => return Ok(Around::Untold(first..after)),
            Some(device) => {
                let kind = Kind::File(device.get() + (first - extent.first));
                self.place_within_budget(&mut state, first, after, kind)?;
                let before = first.checked_sub(1).and_then(|page| state.runs.kind(page));
                if matches!(before, Some(Kind::File(_))) {
                    self.map_following(&mut state, after, file_end.min(end));
                }
            }
            None if needs_blocks => return Ok(Around::NeedsBlocks),
            None => {
                // Who comes from the hole before goes on, as likely as not: twice as far each time.
                let behind = first.checked_sub(1).and_then(|page| state.runs.at(page));
                let behind =
                    behind.filter(|run| run.kind == Kind::Zeros).map_or(0, |run| run.end - run.start);
                let ahead = (2 * behind / PMD_PAGES * PMD_PAGES).clamp(PMD_PAGES, ZEROS_AT_ONCE);
                let zeros_end = page - before.min(page) + ahead;
                self.place_within_budget(&mut state, first, after.min(zeros_end), Kind::Zeros)?;
            }
        }
        Ok(Around::Mapped)
    }

    /// Lets the kernel store to a page that is protected to find stores. False where that is not what is in its way.
    pub(super) fn allow_stores(&self, page: u64) -> Result<bool> {
        let _state = self.state();
        Ok(self.space.allow_stores(self.byte(page))?)
    }

    /// Maps the runs that follow one that was reached from the run before: whoever goes through the file does not wait for each.
    /// Only data, and only as far as there is room: what cannot be mapped now is mapped when it is touched.
    fn map_following(&self, state: &mut State, start: u64, end: u64) {
        let following = self.file.layout(start, end, FOLLOWING).unwrap_or_default();
        if self.file.has_untold() {
            return;
        }
        for extent in following {
            let Some(device) = extent.device else { return };
            let is_full = self.service.mappings() + 2 > self.service.budget;
            let after = extent.first + extent.count;
            if is_full || self.place(state, extent.first, after, Kind::File(device.get())).is_err() {
                return;
            }
        }
    }

    /// A fault as a kernel has it, with this mapping as page table (Linux: `__handle_mm_fault`).
    pub(super) fn fault(&self, page: u64, access: StoreOrLoad) -> Result<()> {
        let counts = &self.service.counts;
        let address = self.vma().start + self.byte(page);
        let request = FaultRequest { vma: self.vma(), table: self, address, access };
        let noted = |result: FaultResult| {
            if result.contains(FaultResult::MAJOR) {
                counts.add(|counts| &counts.major);
            }
            match self.state().failed.take() {
                Some(error) => Err(error),
                None if result.is_error() => Err(Error::refused(Errno::IO, "the fault was refused")),
                None => Ok(()),
            }
        };
        let is_copy = access == StoreOrLoad::Store && !self.vma().is_shared();
        if self.slot(address) != Slot::Table && !is_copy && self.file.has_huge_faults() {
            counts.add(|counts| &counts.pmd_faults);
            let result = self.file.huge_fault(&request);
            if !result.contains(FaultResult::FALLBACK) {
                return noted(result);
            }
            counts.add(|counts| &counts.pmd_fallbacks);
            self.split(address);
        }
        counts.add(|counts| &counts.pte_faults);
        noted(self.file.fault(&request))
    }

    /// Makes a page one that no file has, for a moment, or for as long as it is past the end.
    fn refuse(&self, page: u64) {
        self.service.counts.add(|counts| &counts.refused);
        let mut state = self.state();
        let Some(run) = state.runs.at(page) else { return };
        let past_end = self.file.end_page() <= page;
        let (start, end) =
            if past_end && run.kind == Kind::Missing { (page, run.end) } else { (page, page + 1) };
        if self.place(&mut state, start, end, Kind::End).is_err() {
            // There is no room for one more mapping: the whole run, which needs none, or what was kept for this.
            let mut done = self.place(&mut state, run.start, run.end, Kind::End);
            if done.is_err() {
                self.service.with_reserve(|| done = self.place(&mut state, run.start, run.end, Kind::End));
            }
            match done {
                Ok(()) => self.note_refused(&mut state, run.start..run.end),
                Err(error) => {
                    log::error!(target: "ext2_dax::mmu", "page {page} of the file can neither be supplied nor refused: {error}");
                }
            }
        } else if !past_end {
            self.note_refused(&mut state, page..page + 1);
        }
    }

    /// Notes pages that are a bus error for the moment.
    pub(super) fn note_refused(&self, state: &mut State, pages: Range<u64>) {
        state.refused.push(pages);
        self.service.note_refused();
    }

    /// Makes what was refused missing again.
    pub(super) fn forget_refused(&self) {
        let mut state = self.state();
        for pages in std::mem::take(&mut state.refused) {
            // What is past the end by now stays what it is.
            let mut missing = state.runs.within(pages.start, pages.end.min(self.file.end_page()));
            missing.retain(|run| run.kind == Kind::End);
            for run in missing {
                if let Err(error) = self.place(&mut state, run.start, run.end, Kind::Missing) {
                    log::debug!(target: "ext2_dax::mmu", "pages of the file stay refused: {error}");
                    self.note_refused(&mut state, run.start..run.end);
                }
            }
        }
    }
}
