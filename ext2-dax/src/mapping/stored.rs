//! What was stored to pages that no entry tells of, until it is written back.
//!
//! # Invariants
//! 1. A run is here until somebody has written it back: a sync that begins while another one writes finds it too, and returns
//!    no earlier than it is durable.
//! 2. What a mapping knows of stores moves here under the lock of the list, so that it is known to one of the two.
//! 3. Of pages that are taken from a file it is kept until they are gone: where they are not, since the change failed, they are
//!    still to be written back. To write back what is another's by then does no harm.
//!
//! Lock order: the list, then a page table.

use std::collections::BTreeMap;
use std::ops::Range;

use super::DaxMapping;
#[cfg(all(target_os = "linux", not(miri), not(loom)))]
use super::Translations;
use crate::entry::DevPage;

/// Pages that were stored to by a mapping which is asked, and where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredRun {
    /// First file page.
    pub first: u64,
    /// Pages.
    pub count: u64,
    /// The device's page that the first one is.
    pub device: DevPage,
}

impl StoredRun {
    /// `count` pages from file page `first` on, which lie from `device` on.
    #[must_use]
    pub fn new(first: u64, count: u64, device: DevPage) -> Self {
        Self { first, count, device }
    }
}

/// Runs by the device's page that they begin at.
#[derive(Debug, Default)]
pub(super) struct Stored {
    runs: BTreeMap<DevPage, Run>,
    next: u64,
}

#[derive(Debug)]
struct Run {
    count: u64,
    /// The file pages that it is, or was, of.
    pages: Range<u64>,
    /// Differs for each time that it was stored to.
    nr: u64,
}

/// A run that is to be written back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unwritten {
    pub(crate) device: DevPage,
    pub(crate) count: u64,
    nr: u64,
}

impl Stored {
    fn add(&mut self, run: &StoredRun) {
        let (count, end) = (run.count, run.first.saturating_add(run.count));
        self.next += 1;
        let there = self.runs.entry(run.device).or_insert(Run { count, pages: run.first..end, nr: 0 });
        there.count = there.count.max(count);
        there.pages = there.pages.start.min(run.first)..there.pages.end.max(end);
        there.nr = self.next;
    }
}

impl DaxMapping {
    /// Keeps what was stored for the next write-back.
    pub(super) fn keep_stored(&self, run: &StoredRun) {
        self.stored.lock().add(run);
    }

    /// What was stored to the pages without a fault, and is not written back.
    pub(crate) fn find_stored(&self, start: u64, end: u64) -> Vec<Unwritten> {
        let mut stored = self.stored.lock();
        for one in self.translations.read().iter() {
            one.take_stored(start, end).iter().for_each(|run| stored.add(run));
        }
        let touching = stored.runs.iter().filter(|(_, run)| run.pages.start < end && start < run.pages.end);
        touching.map(|(device, run)| Unwritten { device: *device, count: run.count, nr: run.nr }).collect()
    }

    /// Notes that a run was written back, unless it was stored to since.
    pub(crate) fn forget_stored(&self, written: Unwritten) {
        let mut stored = self.stored.lock();
        if stored.runs.get(&written.device).is_some_and(|run| run.nr == written.nr) {
            stored.runs.remove(&written.device);
        }
    }

    /// The file has no such pages any more: what was stored to them need not be written back. The caller holds
    /// `invalidate_lock` exclusively.
    pub(crate) fn forget_stored_in(&self, start: u64, end: u64) {
        let found = self.find_stored(start, end);
        let mut stored = self.stored.lock();
        for run in found {
            let is_inside = |run: &Run| start <= run.pages.start && run.pages.end <= end;
            if stored.runs.get(&run.device).is_some_and(is_inside) {
                stored.runs.remove(&run.device);
            }
        }
    }

    /// Takes over what one mapping knows, which may be about to go. Gives what was stored since it was last asked.
    #[cfg(all(target_os = "linux", not(miri), not(loom)))]
    pub(crate) fn take_over_stored(&self, one: &dyn Translations) -> Vec<StoredRun> {
        let mut stored = self.stored.lock();
        let runs = one.take_stored(0, u64::MAX);
        runs.iter().for_each(|run| stored.add(run));
        runs
    }
}
