//! The mapping as a page table, and as somebody who maps the file.

use blockdev::PAGE_SIZE;
use blockdev::host_map::StoresBy;
use ext2_core::sync::Mended;

use super::area::{Area, Blocks, State};
use super::runs::{Joins, Kind, Run};
use crate::entry::{DevPage, PMD_PAGES, PMD_SIZE};
use crate::mapping::{PrivateCopies, StoredRun, Translations};
use crate::mmu::{CowPage, PageTable, Protection, Sharing, Slot, SlotTaken, Target, Writable};
use crate::truncate::Taken;

impl Area {
    /// The address at which the place of 2 MiB around `address` begins, and the file pages that the mapping has of it.
    fn place_of(&self, address: u64) -> (u64, u64, u64) {
        let (vma, place) = (self.vma(), address & !(PMD_SIZE - 1));
        let first = vma.page_at(place.max(vma.start));
        let end = vma.page_at((place + PMD_SIZE).min(vma.end));
        (place, first, end)
    }

    /// Forgets that pages were mapped one by one in places of 2 MiB of which all is in these pages.
    fn forget_tables(&self, state: &mut State, start: u64, end: u64) {
        let vma = self.vma();
        let addresses = vma.start + self.byte(start)..vma.start + self.byte(end);
        let is_whole = |place: &u64| {
            (*place).max(vma.start) >= addresses.start && (place + PMD_SIZE).min(vma.end) <= addresses.end
        };
        state.tables.retain(|place| !is_whole(place));
    }

    fn note(&self, state: &mut State, done: crate::Result<()>) {
        if let Err(error) = done {
            state.failed = Some(error);
        }
    }

    /// The parts of runs that hold no private copies, and those that do, as the kernel has it.
    fn without_copies(&self, runs: Vec<Run>) -> Vec<Run> {
        let mut rest = Vec::new();
        for run in runs {
            // Copies of zeros are known where they are told of.
            let may_be_copied = match run.kind {
                Kind::File(_) => true,
                Kind::Zeros => !self.is_answered(),
                _ => false,
            };
            if !may_be_copied {
                rest.extend((run.kind != Kind::Copy).then_some(run));
                continue;
            }
            let (at, len) = (self.byte(run.start), (run.end - run.start) * PAGE_SIZE);
            let copies = self.space.kinds(at, len).unwrap_or_default();
            let mut from = run.start;
            for copy in copies.iter().filter(|copy| !copy.kind.file && !copy.kind.zero) {
                let page = |byte: u64| self.vma().pgoff + byte / PAGE_SIZE;
                rest.extend((from < page(copy.start)).then_some(Run {
                    start: from,
                    end: page(copy.start),
                    ..run
                }));
                from = page(copy.end);
            }
            rest.extend((from < run.end).then(|| run.cut(from, run.end)));
        }
        rest
    }
}

impl Area {
    /// What is mapped as a hole of the file pages `start..end`, without private copies.
    fn holes(&self, state: &State, start: u64, end: u64) -> Vec<Run> {
        let mut holes = state.runs.within(start, end);
        holes.retain(|run| run.kind == Kind::Zeros);
        if self.is_private() { self.without_copies(holes) } else { holes }
    }

    /// Maps the blocks that a hole was given as this `kind`, in one step each; the rest of it stays. What cannot be looked up or
    /// mapped is taken away: zeros would be wrong.
    fn map_blocks(&self, state: &mut State, run: Run, kind: fn(u64) -> Kind) {
        let mut at = run.start;
        while at < run.end {
            let extents = self.file.layout(at, run.end, 64).unwrap_or_default();
            if extents.is_empty() && at < self.file.end_page() {
                self.revoke(state, at, run.end, PrivateCopies::Drop);
            }
            let Some(last) = extents.last() else { break };
            at = last.first + last.count;
            for extent in &extents {
                let (first, after) = (extent.first, extent.first + extent.count);
                let Some(device) = extent.device else { continue };
                let done = self.place_within_budget(state, first, after, kind(device.get()));
                if let Err(error) = done {
                    log::debug!(target: "ext2_dax::mmu", "pages {first} to {after} are taken away: {error}");
                    self.revoke(state, first, after, PrivateCopies::Drop);
                }
            }
        }
    }
}

impl PageTable for Area {
    fn slot(&self, address: u64) -> Slot {
        let (place, first, end) = self.place_of(address);
        let state = self.state();
        if state.tables.contains(&place) {
            return Slot::Table;
        }
        let runs = state.runs.within(first, end);
        let is_empty = |run: &Run| match run.kind {
            Kind::Missing => true,
            Kind::Zeros => self.ahead,
            _ => false,
        };
        if runs.iter().all(is_empty) {
            Slot::None
        } else if runs.len() == 1 && end - first == PMD_PAGES && self.vma().has_colour() {
            Slot::Huge
        } else {
            Slot::Table
        }
    }

    fn has_huge_zero_page(&self) -> bool {
        true
    }

    fn map_pte(&self, address: u64, target: Target, _: Writable) {
        let page = self.vma().page_at(address);
        let (place, ..) = self.place_of(address);
        let mut state = self.state();
        state.tables.insert(place);
        let kind = state.runs.kind(page);
        let done = match target {
            // Another thread has made it since the fault began.
            _ if kind == Some(Kind::Copy) => Ok(()),
            Target::Page(device) if kind == Some(Kind::File(device.get())) => Ok(()),
            Target::Page(device) => {
                self.place_within_budget(&mut state, page, page + 1, Kind::File(device.get()))
            }
            Target::Zero if kind != Some(Kind::Missing) => Ok(()),
            Target::Zero => {
                let protect = self.vma().protection == Protection::ReadWrite;
                let zeros = [0; PAGE_SIZE as usize];
                // One that was there already is the same.
                let copied = self.space.copy_page(self.byte(page), &zeros, protect).map(drop);
                if copied.is_ok() {
                    let (start, end) = (page, page + 1);
                    self.set(&mut state, Run { start, end, kind: Kind::Zeros, joins: Joins::Alike });
                    state.recent.push_back(page);
                }
                copied.map_err(Into::into)
            }
        };
        self.note(&mut state, done);
    }

    fn map_pmd(&self, address: u64, target: Target, _: Writable) -> Result<(), SlotTaken> {
        let (place, first, end) = self.place_of(address);
        let mut state = self.state();
        if state.tables.contains(&place) || end - first != PMD_PAGES {
            return Err(SlotTaken);
        }
        let kind = match target {
            Target::Zero => Kind::Zeros,
            Target::Page(device) => Kind::File(device.get()),
        };
        let done = match state.runs.within(first, end).as_slice() {
            [run] if run.kind == kind => Ok(()),
            _ => self.place_within_budget(&mut state, first, end, kind),
        };
        self.note(&mut state, done);
        Ok(())
    }

    fn map_copy(&self, address: u64, copy: CowPage) {
        let page = self.vma().page_at(address);
        let (place, ..) = self.place_of(address);
        let mut state = self.state();
        state.tables.insert(place);
        if state.runs.kind(page) == Some(Kind::Missing) {
            self.service.counts.add(|counts| &counts.copies);
            let copied = self.space.copy_page(self.byte(page), &copy, false).map(drop).map_err(Into::into);
            let placed = copied.and_then(|()| self.place(&mut state, page, page + 1, Kind::Copy));
            self.note(&mut state, placed);
        }
    }

    fn split(&self, address: u64) {
        let (place, ..) = self.place_of(address);
        self.state().tables.insert(place);
    }
}

impl Translations for Area {
    fn zap(&self, start: u64, end: u64, copies: PrivateCopies) {
        let Some((start, end)) = self.cut(start, end) else { return };
        let mut state = self.state();
        let mut runs = state.runs.within(start, end);
        if copies == PrivateCopies::Keep && self.is_private() {
            runs = self.without_copies(runs);
        }
        let goes = |run: &Run| match run.kind {
            Kind::File(_) | Kind::Shown(_) | Kind::Zeros => true,
            Kind::Copy => copies == PrivateCopies::Drop,
            Kind::Missing | Kind::End => false,
        };
        // Neighbours go in one step.
        let mut taken: Option<(u64, u64)> = None;
        for run in runs.into_iter().filter(goes) {
            match &mut taken {
                Some((_, end)) if *end == run.start => *end = run.end,
                _ => {
                    if let Some((start, end)) = taken.replace((run.start, run.end)) {
                        self.revoke(&mut state, start, end, copies);
                    }
                }
            }
        }
        if let Some((start, end)) = taken {
            self.revoke(&mut state, start, end, copies);
        }
        self.forget_tables(&mut state, start, end);
    }

    /// Stores are found when they are [asked for](Translations::take_stored).
    fn write_protect(&self, _: u64, _: u64) {}

    fn maps_ahead(&self) -> bool {
        self.ahead
    }

    fn is_synchronous(&self) -> bool {
        self.vma().sharing == Sharing::Synchronous
    }

    fn published(&self, start: u64, end: u64) {
        if !self.ahead {
            return self.zap(start, end, PrivateCopies::Keep);
        }
        let Some((start, end)) = self.cut(start, end) else { return };
        let mut state = self.state();
        for run in self.holes(&state, start, end) {
            if self.is_answered() {
                // All who map the hole have to be told before anybody maps the blocks: they are mapped by the next touch.
                self.revoke(&mut state, run.start, run.end, PrivateCopies::Keep);
            } else if self.vma().is_shared() && !Mended::StoredBeforeAllKnow.is_back() {
                // The same, but what is there is shown already.
                self.map_blocks(&mut state, run, Kind::Shown);
            } else {
                self.map_blocks(&mut state, run, Kind::File);
            }
        }
    }

    fn told(&self, start: u64, end: u64) {
        let Some((start, end)) = self.cut(start, end).filter(|_| !self.is_answered()) else { return };
        let mut state = self.state();
        for run in state.runs.within(start, end) {
            if let Kind::Shown(device) = run.kind
                && let Err(error) = self.place(&mut state, run.start, run.end, Kind::File(device))
            {
                log::debug!(target: "ext2_dax::mmu", "pages {} to {} wait for a store: {error}", run.start, run.end);
            }
        }
    }

    fn going(&self, start: u64, end: u64, why: Taken) {
        if self.is_answered() {
            return self.zap(start, end, PrivateCopies::Keep);
        }
        let Some((start, end)) = self.cut(start, end) else { return };
        let mut state = self.state();
        let mut runs = state.runs.within(start, end);
        if self.is_private() {
            runs = self.without_copies(runs);
        }
        // What is shown until it is settled need not be a copy of what was there, which would take as much memory.
        for run in runs {
            let (at, len) = (self.byte(run.start), (run.end - run.start) * PAGE_SIZE);
            let is_shown = match (run.kind, why) {
                (Kind::Missing | Kind::Copy | Kind::End, _) => true,
                (_, Taken::Truncated) => self.place(&mut state, run.start, run.end, Kind::End).is_ok(),
                // A hole is one before and after.
                (Kind::Zeros, _) => true,
                (_, Taken::Punched) if !self.is_private() && self.space.place_zeros(at, len).is_ok() => {
                    self.note_shown(&mut state, run.start, run.end);
                    true
                }
                // What moves is still to be read, and so is what a private mapping has not copied.
                _ => false,
            };
            if !is_shown {
                self.revoke(&mut state, run.start, run.end, PrivateCopies::Keep);
            }
        }
        self.forget_tables(&mut state, start, end);
    }

    fn published_alone(&self, start: u64, end: u64) {
        // A store to a synchronous mapping waits until its block is durable.
        if !self.ahead || self.vma().sharing == Sharing::Synchronous {
            return self.published(start, end);
        }
        let Some((start, end)) = self.cut(start, end) else { return };
        let mut state = self.state();
        for run in self.holes(&state, start, end) {
            self.map_blocks(&mut state, run, Kind::File);
        }
    }

    fn settled(&self, start: u64, end: u64) {
        let Some((start, end)) = self.cut(start, end).filter(|_| self.ahead) else { return };
        let mut state = self.state();
        // A truncation that has failed leaves the file as long as it was.
        let file_end = self.file.end_page();
        let is_back = |run: &Run| {
            run.kind == Kind::Missing || run.kind == Kind::End && run.start < file_end && !self.is_answered()
        };
        for run in state.runs.within(start, end).into_iter().filter(is_back) {
            if let Err(error) = self.refill(&mut state, run.start, run.end, Blocks::Told) {
                log::debug!(target: "ext2_dax::mmu", "pages {} to {} wait for a touch: {error}", run.start, run.end);
                if !self.is_answered() {
                    self.revoke(&mut state, run.start, run.end, PrivateCopies::Drop);
                }
            }
        }
    }

    fn grown(&self, start: u64, end: u64) {
        let Some((start, end)) = self.cut(start, end) else { return };
        let mut state = self.state();
        for run in state.runs.within(start, end).into_iter().filter(|run| run.kind == Kind::End) {
            let done = if self.ahead {
                // Nobody maps them as a hole yet.
                self.refill(&mut state, run.start, run.end, Blocks::Told)
            } else {
                self.place(&mut state, run.start, run.end, Kind::Missing)
            };
            if let Err(error) = done {
                log::warn!(target: "ext2_dax::mmu", "pages {} to {} stay bus errors: {error}", run.start, run.end);
                // Where somebody answers faults, they are missing pages a moment later.
                if self.is_answered() {
                    self.note_refused(&mut state, run.start..run.end);
                }
            }
        }
    }

    fn take_stored(&self, start: u64, end: u64) -> Vec<StoredRun> {
        let Some((start, end)) = self.cut(start, end).filter(|_| self.vma().is_shared()) else {
            return Vec::new();
        };
        let mut state = self.state();
        self.collect_stored(&mut state, start, end);
        let stored = std::mem::take(&mut state.stored);
        drop(state);
        // Where nobody tells stores apart, what may have been stored to has the time of it: a time too new costs a copy, one too
        // old a file that is left out of a backup.
        if !stored.is_empty() {
            self.file.stored();
        }
        stored
    }

    fn stop_stores(&self) {
        self.set_stopped(true);
    }

    fn resume_stores(&self) {
        self.set_stopped(false);
    }
}

impl Area {
    /// Adds to what is known to be stored what was stored to these pages since that was asked.
    fn collect_stored(&self, state: &mut State, start: u64, end: u64) {
        for run in state.runs.within(start, end) {
            let Kind::File(device) = run.kind else { continue };
            let mut found = |first: u64, after: u64| {
                let device = DevPage::new(device + (first - run.start));
                state.stored.extend(device.map(|device| StoredRun { first, count: after - first, device }));
            };
            if !self.is_tracked() {
                found(run.start, run.end);
                continue;
            }
            let (at, len) = (self.byte(run.start), (run.end - run.start) * PAGE_SIZE);
            let page = |byte: u64| self.vma().pgoff + byte / PAGE_SIZE;
            if let Err(error) = self.space.take_stored(at, len, |from, to| found(page(from), page(to))) {
                log::warn!(target: "ext2_dax::mmu", "all pages count as stored to: {error}");
                found(run.start, run.end);
            }
        }
    }

    fn set_stopped(&self, stopped: bool) {
        if !self.vma().is_shared() || !self.space.is_ours() {
            return;
        }
        let mut state = self.state();
        state.stopped = stopped;
        let done =
            if stopped { self.space.stop_stores().map_err(Into::into) } else { self.let_stores(&mut state) };
        if let Err(error) = done {
            log::error!(target: "ext2_dax::mmu", "the rights of a mapping stay what they were: {error}");
        }
    }

    /// Gives each run the rights that it has where stores are not stopped.
    fn let_stores(&self, state: &mut State) -> crate::Result<()> {
        let (first, after) = self.pages();
        let by_signals = matches!(self.space.stores_by(), StoresBy::Signals { .. });
        if by_signals {
            // What could be stored to is protected by now, and has to be noted anew.
            self.collect_stored(state, first, after);
        }
        self.space.resume_stores();
        if self.is_answered() && !by_signals {
            return Ok(self.space.let_stores(0, self.space.len())?);
        }
        for run in state.runs.within(first, after) {
            let can_be_stored_to = match run.kind {
                Kind::File(_) => !by_signals,
                // Where nobody answers, these are protected as they are.
                Kind::Zeros | Kind::Shown(_) | Kind::Missing => self.is_answered(),
                Kind::End | Kind::Copy => true,
            };
            if can_be_stored_to {
                self.space.let_stores(self.byte(run.start), (run.end - run.start) * PAGE_SIZE)?;
            }
        }
        Ok(())
    }
}
