//! One mapping: what its pages are, and making them what the file has.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use blockdev::BackingFile;
use blockdev::host_map::{FileUse, HostSpace, StoresBy};
use ext2_core::Barrier;

use super::runs::{Joins, Kind, Run, Runs};
use super::service::Service;
use crate::entry::{DevPage, PAGE_SIZE, PMD_PAGES};
use crate::error::{Errno, Error, Result};
use crate::mapping::{StoredRun, Translations};
use crate::mmu::{Extent, Sharing, VmFile, Vma};
use crate::sync::{Mutex, MutexGuard};

/// Pages of holes that are mapped before they are touched: what a process without rights gives to a system call has to be
/// there. Holes beyond are mapped in units, when they are touched.
const ZEROS_AHEAD: u64 = 512 * PMD_PAGES;
/// Runs that are taken away at once at most, for one that takes their place.
const EVICTED_AT_ONCE: u64 = 16;
/// Runs that are looked up at a time.
const RUNS_AT_ONCE: usize = 64;

/// A mapping of a file.
#[derive(Debug)]
pub(super) struct Area {
    vma: Vma,
    pub(super) file: Arc<dyn VmFile>,
    pub(super) space: HostSpace,
    pub(super) service: Arc<Service>,
    pub(super) ahead: bool,
    state: Mutex<State>,
}

/// What changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) runs: Runs,
    /// Places of 2 MiB in which pages are mapped one by one, by the address at which they begin.
    pub(super) tables: BTreeSet<u64>,
    /// Where runs were placed, oldest first.
    pub(super) recent: VecDeque<u64>,
    /// What was stored to runs that went, and what may have been before it was tracked.
    pub(super) stored: Vec<StoredRun>,
    /// How many of these there may be before those that lie in one another are joined.
    stored_most: usize,
    /// Pages that are a bus error for the moment.
    pub(super) refused: Vec<Range<u64>>,
    /// Why the page table could not do what a fault asked of it.
    pub(super) failed: Option<Error>,
    pub(super) stopped: bool,
    /// The page that a store waits for which is being answered.
    pub(super) storing: Option<u64>,
    /// The pages whose waiters were woken last.
    pub(super) woken: (u64, u64),
    /// The mapping has ended: its runs count no more, whoever is still at work on them.
    pub(super) has_ended: bool,
}

/// Whether all who map the file were told of the blocks that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocks {
    /// Yes: the caller keeps away who could give it some, or has told of them.
    Told,
    /// Not those that others are just giving it.
    Found,
}

/// What the device's bytes are, if the host can map them.
pub(super) fn check_backing(file: &dyn VmFile) -> Result<()> {
    let refused = |why| Err(Error::refused(Errno::OPNOTSUPP, why));
    match file.memory().backing_file() {
        None => refused("the image is not one file of the host, whose pages could be mapped"),
        Some(file) if !file.offset.is_multiple_of(PAGE_SIZE) => {
            refused("the file system does not begin at a multiple of 4096 bytes of the image")
        }
        Some(_) => Ok(()),
    }
}

impl Area {
    pub(super) fn new(
        vma: Vma,
        file: Arc<dyn VmFile>,
        space: HostSpace,
        service: Arc<Service>,
        ahead: bool,
    ) -> Arc<Self> {
        let end = vma.pgoff + (vma.end - vma.start) / PAGE_SIZE;
        let kind = if service.faults.is_some() { Kind::Missing } else { Kind::End };
        let state = State {
            runs: Runs::new(vma.pgoff, end, kind),
            tables: BTreeSet::new(),
            recent: VecDeque::new(),
            stored: Vec::new(),
            stored_most: 64,
            refused: Vec::new(),
            failed: None,
            stopped: false,
            storing: None,
            woken: (0, 0),
            has_ended: false,
        };
        Arc::new(Self { vma, file, space, service, ahead, state: Mutex::new(state) })
    }

    pub(super) fn vma(&self) -> &Vma {
        &self.vma
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The file pages that are mapped: first, and first after.
    pub(super) fn pages(&self) -> (u64, u64) {
        (self.vma.pgoff, self.vma.pgoff + (self.vma.end - self.vma.start) / PAGE_SIZE)
    }

    /// File pages `start..end` cut to the mapping; `None` if there are none, as in a child of `fork`.
    pub(super) fn cut(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        if !self.space.is_ours() {
            return None;
        }
        let (first, after) = self.pages();
        let (start, end) = (start.max(first), end.min(after));
        (start < end).then_some((start, end))
    }

    /// The byte of the mapping at which a file page lies.
    pub(super) fn byte(&self, page: u64) -> u64 {
        (page - self.vma.pgoff) * PAGE_SIZE
    }

    pub(super) fn is_private(&self) -> bool {
        self.vma.sharing == Sharing::Private
    }

    /// Whether stores are told apart.
    pub(super) fn is_tracked(&self) -> bool {
        self.space.stores_by() != StoresBy::Nobody
    }

    /// Whether somebody answers faults.
    pub(super) fn is_answered(&self) -> bool {
        self.service.faults.is_some()
    }

    pub(super) fn attach(self: &Arc<Self>) {
        let translations: Arc<dyn Translations> = Arc::<Self>::clone(self);
        self.file.pages().attach(translations);
    }

    /// Ends the mapping; what was stored through it is still to be written back.
    pub(super) fn detach(self: &Arc<Self>) {
        if !self.space.is_ours() {
            // It is the parent's, whose threads may have held every lock of it.
            return;
        }
        self.service.remove(self);
        let translations: Arc<dyn Translations> = Arc::<Self>::clone(self);
        self.file.pages().take_over_stored(&**self);
        self.file.pages().detach(&translations);
        let mut state = self.state();
        state.has_ended = true;
        self.service.changed(state.runs.len(), 0);
    }

    /// Notes that there were `before` runs, and how many there are now.
    pub(super) fn counted(&self, state: &State, before: usize) {
        if !state.has_ended {
            self.service.changed(before, state.runs.len());
        }
    }

    /// Maps what there is, as far as it is mapped ahead.
    ///
    /// # Errors
    /// Without anybody to answer faults, all of it has to be mapped.
    pub(super) fn populate(&self) -> Result<()> {
        let (first, end) = self.pages();
        let _no_truncate = self.file.pages().lock_shared();
        // The file system was closed since it was asked who may store.
        if self.file.pages().are_stores_stopped() {
            self.stop_stores();
        }
        if !self.ahead {
            return Ok(());
        }
        let mut state = self.state();
        self.refill(&mut state, first, end, Blocks::Found)?;
        self.tell_of_shown(state, first, end);
        Ok(())
    }

    /// Tells of what was found and is [shown](Kind::Shown) for that, so that it may be stored to. The caller keeps truncation
    /// away.
    fn tell_of_shown(&self, state: MutexGuard<'_, State>, start: u64, end: u64) {
        let has_some = state.runs.within(start, end).iter().any(|run| matches!(run.kind, Kind::Shown(_)));
        drop(state);
        if has_some {
            self.file.pages().invalidate(start, end);
        }
    }

    /// Makes pages this, and says so.
    pub(super) fn place(&self, state: &mut State, start: u64, end: u64, kind: Kind) -> Result<()> {
        let (at, len) = (self.byte(start), (end - start) * PAGE_SIZE);
        let mut run = Run { start, end, kind, joins: Joins::Alike };
        match kind {
            Kind::Missing => self.place_missing(state, run)?,
            Kind::Zeros => {
                self.space.place_zeros(at, len)?;
                run.joins = Joins::Never;
            }
            Kind::End => self.space.place_end(at, len)?,
            Kind::File(first) | Kind::Shown(first) => {
                if self.vma.sharing == Sharing::Synchronous {
                    // A store may follow at once, without a fault: what leads to the page goes before it.
                    self.file.fence(Barrier::FaultReturned)?;
                }
                let BackingFile { fd, offset } = self
                    .file
                    .memory()
                    .backing_file()
                    .ok_or(Error::refused(Errno::OPNOTSUPP, "the file is gone"))?;
                let how = match kind {
                    Kind::Shown(_) => FileUse::Loaded,
                    _ if self.is_tracked() => FileUse::Tracked,
                    _ => FileUse::Plain,
                };
                let touched = self.space.place_file(at, len, fd, offset + first * PAGE_SIZE, how)?;
                if touched && let Some(device) = DevPage::new(first) {
                    state.stored.push(StoredRun { first: start, count: end - start, device });
                }
                run.joins = self.ask_for_huge(state.runs.joined(run));
            }
            Kind::Copy => {}
        }
        self.set(state, run);
        match kind {
            Kind::Missing => self.service.counts.add(|counts| &counts.revoked),
            _ => {
                self.service.counts.add(|counts| &counts.placed);
                if let Some(page) = state.storing.filter(|page| (start..end).contains(page)) {
                    // In the answer that maps the page: before another answer it may be gone again, and so for ever where threads
                    // take turns. And before who waits is woken: his next fault would be answered after the store.
                    self.space.allow_stores(self.byte(page))?;
                }
                self.space.wake(at, len)?;
                state.woken = (start, end);
            }
        }
        if matches!(kind, Kind::File(_) | Kind::Zeros) {
            state.recent.push_back(start);
            // What was placed over and over is in the queue over and over.
            if state.recent.len() > 4 * state.runs.len() + 64 {
                self.forget_stale(state);
            }
        }
        Ok(())
    }

    /// Notes what pages are from now on, and how many mappings there are by that. What was there of the file counts as stored to:
    /// a store could come until it was gone.
    pub(super) fn set(&self, state: &mut State, run: Run) {
        for gone in state.runs.within(run.start, run.end) {
            self.note_stored(state, gone);
        }
        let before = state.runs.len();
        state.runs.set(run);
        self.counted(state, before);
    }

    /// Makes pages missing, and those that are missing beside them anew: what the kernel has put into one of two neighbours keeps
    /// them two mappings for ever.
    fn place_missing(&self, state: &State, run: Run) -> blockdev::Result<()> {
        let place =
            |run: Run| self.space.place_missing(self.byte(run.start), (run.end - run.start) * PAGE_SIZE);
        let whole = state.runs.joined(run);
        match place(whole) {
            // It takes as many addresses again for a moment.
            Err(_) if whole != run => place(run),
            done => done,
        }
    }

    /// Asks for pages of 2 MiB in a run of the file that has room for one, or of which a part has asked before: or it would be two
    /// mappings.
    fn ask_for_huge(&self, run: Run) -> Joins {
        if run.joins != Joins::Huge && run.end - run.start < PMD_PAGES {
            return Joins::Alike;
        }
        self.space.ask_for_huge(self.byte(run.start), (run.end - run.start) * PAGE_SIZE);
        Joins::Huge
    }

    fn forget_stale(&self, state: &mut State) {
        let mut seen = BTreeSet::new();
        let recent = std::mem::take(&mut state.recent);
        let is_start =
            |page: &u64| state.runs.at(*page).is_some_and(|run| run.start == *page) && seen.insert(*page);
        let kept: VecDeque<u64> = recent.into_iter().filter(is_start).collect();
        state.recent = kept;
    }

    /// As [`place`](Self::place), for what makes mappings more: first takes others away where there are too many.
    pub(super) fn place_within_budget(
        &self,
        state: &mut State,
        start: u64,
        end: u64,
        kind: Kind,
    ) -> Result<()> {
        if self.is_private() {
            // A copy is no mapping of its own, and nothing of this can be taken away.
            return self.place(state, start, end, kind);
        }
        // Several at once, where they are many: neighbours go in one step.
        let most = (self.service.budget / 64).clamp(1, EVICTED_AT_ONCE);
        while self.service.mappings() + 2 > self.service.budget && self.evict_some(state, start, end, most) {}
        // Where others have all of the budget, this one has its run all the same: a page of the file is no bus error for that.
        match self.place(state, start, end, kind) {
            // The rest of the process has many mappings, too.
            Err(error) if error.is(Errno::NOMEM) => {
                for _ in 0..64 {
                    self.evict(state, start, end);
                }
                self.place(state, start, end, kind)
            }
            done => done,
        }
    }

    /// Takes the oldest run away, but not one that touches `start..end`.
    pub(super) fn evict(&self, state: &mut State, start: u64, end: u64) -> bool {
        self.evict_some(state, start, end, 1)
    }

    /// Takes the oldest run away, but not one that touches `start..end`, and with it those that were placed next and follow it:
    /// so many at most. False if there is none.
    fn evict_some(&self, state: &mut State, start: u64, end: u64, most: u64) -> bool {
        if !self.is_answered() || self.is_private() {
            return false;
        }
        if self.evict_recent(state, start, end, most) {
            return true;
        }
        // What was left of a run that was cut, or was passed over once, is in the queue no more: all take their turn again.
        let (first, after) = self.pages();
        state.recent = state.runs.within(first, after).iter().map(|run| run.start).collect();
        self.evict_recent(state, start, end, most)
    }

    /// As [`evict_some`](Self::evict_some), of those in the queue.
    fn evict_recent(&self, state: &mut State, start: u64, end: u64, most: u64) -> bool {
        let mut goes: Option<(u64, u64)> = None;
        let mut count = 0;
        while count < most
            && let Some(page) = state.recent.front().copied()
        {
            let run = state.runs.at(page).filter(|run| {
                matches!(run.kind, Kind::File(_) | Kind::Zeros) && (run.end <= start || end <= run.start)
            });
            let Some(run) = run else {
                state.recent.pop_front();
                continue;
            };
            goes = match goes {
                None => Some((run.start, run.end)),
                Some((first, after)) if run.start == after => Some((first, run.end)),
                Some(_) => break,
            };
            state.recent.pop_front();
            count += 1;
        }
        let Some((first, after)) = goes else { return false };
        if let Err(error) = self.place(state, first, after, Kind::Missing) {
            log::warn!(target: "ext2_dax::mmu", "a mapping cannot be taken away: {error}");
            return false;
        }
        for _ in 0..count {
            self.service.counts.add(|counts| &counts.evicted);
        }
        true
    }

    /// Notes all of a run that goes as stored to, if it can have been.
    fn note_stored(&self, state: &mut State, run: Run) {
        if let (Kind::File(first), true) = (run.kind, self.vma.is_shared())
            && let Some(device) = DevPage::new(first)
        {
            state.stored.push(StoredRun { first: run.start, count: run.end - run.start, device });
            // What goes and comes back over and over is there over and over, and perhaps nobody ever syncs.
            if state.stored.len() > state.stored_most {
                join(&mut state.stored);
                state.stored_most = 2 * state.stored.len() + 64;
            }
        }
    }

    /// Maps what the file has in `start..end`, over what is there: data, holes as far as they are not too many, and what lies
    /// past the end. The caller keeps truncation away, and where it is [`Blocks::Found`] tells of what is [shown](Kind::Shown).
    ///
    /// # Errors
    /// The image's; without anybody to answer faults, `ENOMEM`.
    pub(super) fn refill(&self, state: &mut State, start: u64, end: u64, blocks: Blocks) -> Result<()> {
        let answered = self.is_answered();
        let (mut at, mut zeros) = (start, 0);
        let file_end = self.file.end_page().clamp(start, end);
        while at < file_end {
            let extents = self.file.layout(at, file_end, RUNS_AT_ONCE)?;
            let Some(last) = extents.last() else { break };
            let after = last.first + last.count;
            // It was asked after them: what others have not told of is among those.
            let is_untold = blocks == Blocks::Found && self.vma.is_shared() && self.file.has_untold();
            for extent in extents {
                let kind = match extent.device {
                    None => Kind::Zeros,
                    // The next touch tells of them.
                    Some(_) if is_untold && answered => {
                        self.unless_missing(state, extent)?;
                        continue;
                    }
                    Some(page) if is_untold => Kind::Shown(page.get()),
                    Some(page) => Kind::File(page.get()),
                };
                if kind == Kind::Zeros && answered {
                    zeros += extent.count;
                    if zeros > ZEROS_AHEAD {
                        self.unless_missing(state, extent)?;
                        continue;
                    }
                }
                let full = self.service.mappings() + 2 > self.service.budget;
                if full && answered {
                    self.unless_missing(state, extent)?;
                } else if full {
                    return Err(no_room());
                } else {
                    self.place(state, extent.first, extent.first + extent.count, kind)?;
                }
            }
            at = after;
        }
        if file_end < end {
            self.place(state, file_end, end, Kind::End)?;
        }
        Ok(())
    }

    /// Where nobody answers faults: maps a page of the file that is a bus error since it could not be mapped when it came.
    /// False where that is not so.
    pub(super) fn map_again(&self, page: u64) -> Result<bool> {
        if self.is_answered() {
            return Ok(false);
        }
        let _no_truncate = self.file.pages().lock_shared();
        let mut state = self.state();
        if state.runs.kind(page) != Some(Kind::End) || page >= self.file.end_page() {
            return Ok(false);
        }
        self.refill(&mut state, page, page + 1, Blocks::Found)?;
        self.tell_of_shown(state, page, page + 1);
        Ok(true)
    }

    /// Leaves pages to be mapped when they are touched.
    fn unless_missing(&self, state: &mut State, extent: Extent) -> Result<()> {
        for run in state.runs.within(extent.first, extent.first + extent.count) {
            if run.kind != Kind::Missing {
                self.place(state, run.start, run.end, Kind::Missing)?;
            }
        }
        Ok(())
    }
}

/// Joins runs that overlap or touch, in the file and on the device alike.
fn join(stored: &mut Vec<StoredRun>) {
    // Those of one place of the file on the device follow one another.
    stored.sort_unstable_by_key(|run| (run.device.get().wrapping_sub(run.first), run.first));
    stored.dedup_by(|next, run| {
        let is_same = next.device.get().wrapping_sub(next.first) == run.device.get().wrapping_sub(run.first);
        let joins = is_same && next.first <= run.first + run.count;
        if joins {
            run.count = run.count.max(next.first + next.count - run.first);
        }
        joins
    });
}

fn no_room() -> Error {
    Error::refused(
        Errno::NOMEM,
        "the file has more pieces than the process may have mappings (vm.max_map_count)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_were_stored_to_over_and_over_are_joined_and_no_page_is_lost() {
        let device = |page| DevPage::new(page).unwrap();
        let run = |first, count, page| StoredRun { first, count, device: device(page) };
        // The last lies elsewhere since its blocks were moved.
        let mut stored = vec![run(8, 4, 108), run(3, 2, 103), run(0, 4, 100), run(8, 2, 108), run(3, 2, 203)];
        join(&mut stored);
        assert_eq!(stored, [run(0, 5, 100), run(8, 4, 108), run(3, 2, 203)]);
    }
}
