//! Which pages of a range are protected so that the first store to them is told, and which were stored to.
//!
//! # Invariants
//! 1. All of it is read and changed by who [holds](Ledger::hold) the ledger, together with the protection that it stands
//!    for. So a page that can be stored to is noted, whenever somebody looks. One that is noted may be protected all the same:
//!    where the system refuses to change the protection of many pages, it may have done so for some.
//! 2. Holding takes no lock of the system and no memory: a signal handler holds it, too. No thread that holds it stores to
//!    the range, and none is interrupted by a handler of the program's that might.

use core::cell::Cell;
use core::hint::spin_loop;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::bits::Bits;
use super::faults::everything_but_faults;
use super::stage::HUGE;
use crate::PAGE_SIZE;

/// Pages in a unit of 2 MiB.
const UNIT: u64 = HUGE / PAGE_SIZE;
/// Pieces that pages are noted in one by one, each of which takes two mappings; past it units are noted whole.
const PIECES: u64 = 4096;
/// Pages that are protected already and are protected again, so that one call does for what lies on both sides.
const GAP: u64 = 1024;

/// What became of a store that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// Nobody may store to the page.
    No,
    /// It is one whose stores are not told.
    Nobodys,
    /// It was noted before.
    Before,
    /// These pages are noted now: the first, and the first after. They are still protected.
    Now(u64, u64),
}

/// The pages of one range, counted from its start.
#[derive(Debug)]
pub(super) struct Ledger {
    base: u64,
    pages: u64,
    /// Whether what one translation of 2 MiB may cover is noted at once.
    by_units: bool,
    turn: AtomicBool,
    /// Pages of the file.
    file: Bits,
    /// Of those, pages that were stored to, and can be.
    stored: Bits,
    /// Pages of no file that nobody may store to.
    denied: Bits,
    /// Units of addresses that are one piece of the file, as a translation of 2 MiB needs it.
    whole: Bits,
    /// How often something was noted since it was last taken.
    pieces: AtomicU64,
    /// No store is let through.
    stopped: AtomicBool,
}

impl Ledger {
    /// One of a range of so many bytes, none of which is a file's. None where there is no memory for it.
    pub(super) fn new(base: u64, len: u64, by_units: bool) -> Option<Self> {
        let pages = len / PAGE_SIZE;
        Some(Self {
            base,
            pages,
            by_units,
            turn: AtomicBool::new(false),
            file: Bits::new(pages)?,
            stored: Bits::new(pages)?,
            denied: Bits::new(pages)?,
            whole: Bits::new(len / HUGE + 2)?,
            pieces: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        })
    }

    /// The page at an address.
    pub(super) fn page_at(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.base).map(|at| at / PAGE_SIZE).filter(|page| *page < self.pages)
    }

    /// The address of a page.
    pub(super) fn address(&self, page: u64) -> u64 {
        self.base + page * PAGE_SIZE
    }

    /// Waits for the ledger. For signal handlers, in which no other signal is let through.
    pub(super) fn hold_in_handler(&self) -> Held<'_> {
        let mut tries = 0;
        while self.turn.swap(true, Ordering::Acquire) {
            tries += 1;
            if tries < 100 {
                spin_loop();
                continue;
            }
            // Not a yield: who holds it may have a lower priority.
            let pause = libc::timespec { tv_sec: 0, tv_nsec: 20_000 };
            // SAFETY: the time is read; nothing is given back.
            unsafe { libc::nanosleep(&raw const pause, core::ptr::null_mut()) };
        }
        Held { ledger: self, signals: Cell::new(None) }
    }

    /// Waits for the ledger, with signals kept away: a handler that stores to the range would wait for its own thread.
    pub(super) fn hold(&self) -> Held<'_> {
        let before = everything_but_faults().map(|set| {
            let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
            // SAFETY: a set that was filled in, and room for another.
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, before.as_mut_ptr()) };
            // SAFETY: filled in by the call, or all zeros, which is a set as well.
            unsafe { before.assume_init() }
        });
        let held = self.hold_in_handler();
        held.signals.set(before);
        held
    }

    /// The unit of addresses around a page, as pages, cut to the range; and its number.
    fn unit_of(&self, page: u64) -> (u64, u64, u64) {
        let address = self.address(page);
        let start = address / HUGE * HUGE;
        let first = start.saturating_sub(self.base) / PAGE_SIZE;
        let after = ((start + HUGE - self.base) / PAGE_SIZE).min(self.pages);
        (address / HUGE - self.base / HUGE, first, after)
    }
}

/// What pages are from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// The file's, from this byte of it on, and protected.
    File(u64),
    /// No file's. A store does what it does without us.
    Open,
    /// No file's, and nobody may store to them.
    Denied,
}

/// The ledger, as long as nobody else has it.
pub(super) struct Held<'a> {
    ledger: &'a Ledger,
    /// The signals that were kept away before.
    signals: Cell<Option<libc::sigset_t>>,
}

impl<'a> Held<'a> {
    pub(super) fn ledger(&self) -> &'a Ledger {
        self.ledger
    }

    /// Says what pages are from now on.
    pub(super) fn placed(&self, first: u64, after: u64, what: Placed) {
        let ledger = self.ledger;
        ledger.file.set(first, after, matches!(what, Placed::File(_)));
        ledger.stored.set(first, after, false);
        ledger.denied.set(first, after, what == Placed::Denied);
        let unit = |page| ledger.unit_of(page).0;
        ledger.whole.set(unit(first), unit(after.saturating_sub(1)) + 1, false);
        let Placed::File(byte) = what else { return };
        let mut at = first;
        while at < after {
            let (unit, start, end) = ledger.unit_of(at);
            let is_whole = start >= first && end <= after && end - start == UNIT;
            let is_aligned = (byte + (start.max(first) - first) * PAGE_SIZE).is_multiple_of(HUGE);
            if is_whole && is_aligned {
                ledger.whole.set(unit, unit + 1, true);
            }
            at = end;
        }
    }

    /// Notes a store to a page.
    pub(super) fn note(&self, page: u64) -> Noted {
        let ledger = self.ledger;
        if ledger.stopped.load(Ordering::Relaxed) || ledger.denied.get(page) {
            return Noted::No;
        }
        // What was the file's when the store faulted may be something else by now.
        if !ledger.file.get(page) {
            return Noted::Nobodys;
        }
        if ledger.stored.get(page) {
            return Noted::Before;
        }
        let (unit, start, end) = ledger.unit_of(page);
        let pieces = ledger.pieces.fetch_add(1, Ordering::Relaxed);
        let (first, after) = if ledger.by_units && ledger.whole.get(unit) {
            (start, end)
        } else if pieces >= PIECES {
            // As far as the file goes in the unit.
            (self.back(page, start), ledger.file.find(page, end, false))
        } else {
            (page, page + 1)
        };
        ledger.stored.set(first, after, true);
        Noted::Now(first, after)
    }

    /// Notes all pages of the file around a page that has just been noted: between others, they have protection of one kind,
    /// which needs no more mappings.
    pub(super) fn note_around(&self, page: u64) -> (u64, u64) {
        let (first, after) = (self.back(page, 0), self.ledger.file.find(page, self.ledger.pages, false));
        self.ledger.stored.set(first, after, true);
        (first, after)
    }

    /// Notes pages of the file that could not be protected.
    pub(super) fn note_all(&self, first: u64, after: u64) {
        self.ledger.stored.set(first, after, true);
    }

    /// The first of the file's pages that lie before `page` without a gap, from `least` on.
    fn back(&self, page: u64, least: u64) -> u64 {
        let mut first = page;
        while first > least && self.ledger.file.get(first - 1) {
            first -= 1;
        }
        first
    }

    /// Takes what was stored to, after `protect` has protected it again: runs of pages that it may get others with that are
    /// protected already. Stops at the first error; what was not protected stays noted.
    pub(super) fn take<E>(
        &self,
        first: u64,
        after: u64,
        mut protect: impl FnMut(u64, u64) -> Result<(), E>,
        mut visit: impl FnMut(u64, u64),
    ) -> Result<(), E> {
        let ledger = self.ledger;
        let mut at = ledger.stored.find(first, after, true);
        while at < after {
            let mut end = ledger.stored.find(at, after, false);
            let next = loop {
                let next = ledger.stored.find(end, after, true);
                let joins = next < after && next - end <= GAP && ledger.file.find(end, next, false) == next;
                if !joins {
                    break next;
                }
                end = ledger.stored.find(next, after, false);
            };
            protect(at, end)?;
            let mut run = at;
            while run < end {
                let run_end = ledger.stored.find(run, end, false);
                visit(run, run_end);
                run = ledger.stored.find(run_end, end, true);
            }
            ledger.stored.set(at, end, false);
            at = next;
        }
        ledger.pieces.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Lets no store through any more, or notes them again.
    pub(super) fn set_stopped(&self, stopped: bool) {
        self.ledger.stopped.store(stopped, Ordering::Relaxed);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.ledger.turn.store(false, Ordering::Release);
        if let Some(before) = self.signals.take() {
            // SAFETY: a set that the same call gave.
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, core::ptr::null_mut());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 7 * HUGE - 3 * PAGE_SIZE;

    type Ranges = Vec<(u64, u64)>;

    /// What was stored to, and what was protected again.
    fn taken(ledger: &Ledger, first: u64, after: u64) -> (Ranges, Ranges) {
        let (mut stored, mut protected) = (Vec::new(), Vec::new());
        let protect = |first, after| {
            protected.push((first, after));
            Ok::<(), ()>(())
        };
        ledger.hold().take(first, after, protect, |first, after| stored.push((first, after))).unwrap();
        (stored, protected)
    }

    #[test]
    fn what_was_noted_is_taken_once_and_neighbours_are_protected_by_one_call() {
        let ledger = Ledger::new(BASE, 3 * HUGE, false).unwrap();
        let held = ledger.hold();
        assert_eq!(held.note(5), Noted::Nobodys);
        held.placed(4, 6, Placed::Denied);
        assert_eq!(held.note(5), Noted::No);
        held.placed(0, 1400, Placed::File(0));
        assert_eq!(held.note(5), Noted::Now(5, 6));
        assert_eq!((held.note(5), held.note(6)), (Noted::Before, Noted::Now(6, 7)));
        assert_eq!(held.note(130), Noted::Now(130, 131));
        assert_eq!(held.note(1300), Noted::Now(1300, 1301));
        // No file any more: its store goes with it, and nothing is protected across it.
        held.placed(60, 61, Placed::Open);
        drop(held);
        assert_eq!(taken(&ledger, 0, 6), (vec![(5, 6)], vec![(5, 6)]));
        let all = taken(&ledger, 0, 3 * UNIT);
        assert_eq!(all, (vec![(6, 7), (130, 131), (1300, 1301)], vec![(6, 7), (130, 131), (1300, 1301)]));
        assert_eq!(taken(&ledger, 0, 3 * UNIT), (vec![], vec![]));
        let held = ledger.hold();
        held.placed(60, 61, Placed::File(60 * PAGE_SIZE));
        let _ = [held.note(2), held.note(90)];
        drop(held);
        assert_eq!(taken(&ledger, 0, 3 * UNIT), (vec![(2, 3), (90, 91)], vec![(2, 91)]));
    }

    #[test]
    fn a_unit_is_noted_whole_where_one_translation_may_cover_it() {
        for by_units in [true, false] {
            let ledger = Ledger::new(BASE, 3 * HUGE, by_units).unwrap();
            let held = ledger.hold();
            // The first whole unit of addresses begins at page 3; this makes it aligned in the file.
            held.placed(0, 3 * UNIT, Placed::File(HUGE - 3 * PAGE_SIZE));
            let one = |page| Noted::Now(page, page + 1);
            assert_eq!(held.note(2), one(2), "the edge is no unit");
            assert_eq!(held.note(5), if by_units { Noted::Now(3, 3 + UNIT) } else { one(5) });
            held.placed(3 + UNIT + 9, 3 + UNIT + 10, Placed::Open);
            assert_eq!(held.note(3 + UNIT + 4), one(3 + UNIT + 4), "in pieces");
            held.placed(3 + UNIT, 3 + 2 * UNIT, Placed::File(8 * HUGE + PAGE_SIZE));
            assert_eq!(held.note(3 + UNIT + 4), one(3 + UNIT + 4), "not aligned in the file");
        }
    }

    #[test]
    fn a_store_that_nobody_may_make_is_not_noted_and_too_many_pieces_are_noted_by_units() {
        let ledger = Ledger::new(0, 40 * HUGE, false).unwrap();
        let held = ledger.hold();
        held.placed(0, 40 * UNIT, Placed::File(PAGE_SIZE));
        held.set_stopped(true);
        assert_eq!(held.note(7), Noted::No);
        held.set_stopped(false);
        for page in (0..2 * PIECES).step_by(2) {
            assert_eq!(held.note(page), Noted::Now(page, page + 1));
        }
        assert_eq!(held.note(30 * UNIT + 8), Noted::Now(30 * UNIT, 31 * UNIT));
        held.placed(33 * UNIT - 2, 33 * UNIT - 1, Placed::Open);
        assert_eq!(held.note(33 * UNIT - 1), Noted::Now(33 * UNIT - 1, 33 * UNIT));
        assert_eq!(held.note_around(8), (0, 33 * UNIT - 2));
        drop(held);
        assert_eq!(taken(&ledger, 0, 31 * UNIT).0, [(0, 31 * UNIT)]);
        assert_eq!(ledger.hold().note(9), Noted::Now(9, 10), "counted anew");
    }

    #[test]
    fn an_error_of_protection_leaves_the_note() {
        let ledger = Ledger::new(0, HUGE, false).unwrap();
        let held = ledger.hold();
        held.placed(0, UNIT, Placed::File(0));
        let _ = held.note(3);
        assert_eq!(held.take(0, UNIT, |_, _| Err(()), |_, _| panic!("nothing was protected")), Err(()));
        assert_eq!(held.note(3), Noted::Before);
    }

    #[test]
    fn pages_that_were_never_the_files_take_no_memory_however_often_they_are_said_to_be_missing() {
        const PAGES: u64 = (1 << 40) / PAGE_SIZE;
        let ledger = Ledger::new(0, 1 << 40, true).unwrap();
        let held = ledger.hold();
        for at in [0, PAGES / 2, PAGES - UNIT] {
            held.placed(at, at + UNIT, Placed::File(0));
            assert_eq!(held.note(at + 5), Noted::Now(at, at + UNIT));
            held.placed(0, PAGES, Placed::Open);
            assert_eq!(held.note(at + 5), Noted::Nobodys);
        }
        drop(held);
        for bits in [&ledger.file, &ledger.stored, &ledger.denied] {
            let (first, after) = bits.addresses();
            let (first, after) = (first.next_multiple_of(PAGE_SIZE), after / PAGE_SIZE * PAGE_SIZE);
            let there = super::super::pages::kinds(first, after, true).unwrap();
            let there: u64 = there.iter().map(|run| run.end - run.start).sum();
            // The host may give pages of 2 MiB.
            assert!(there <= 3 * HUGE, "{there} bytes of {}", after - first);
        }
    }
}
