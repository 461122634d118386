//! Which pages of a range are protected so that the first store to them is told, and which were stored to.
//!
//! # Invariants
//! 1. All of it is read and changed by who [holds](Ledger::hold) the ledger, together with the protection that it stands
//!    for. So a page that can be stored to is noted, whenever somebody looks. One that is noted may be protected all the same:
//!    where the system refuses to change the protection of many pages, it may have done so for some.
//! 2. Holding takes no lock of the system and no memory: a signal handler holds it, too. No thread that holds it stores to
//!    the range, and none is interrupted by a handler of the program's that might.

use core::alloc::Layout;
use core::cell::Cell;
use core::hint::spin_loop;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::alloc::alloc_zeroed;

use super::faults::everything_but_faults;
use super::stage::HUGE;
use crate::PAGE_SIZE;

/// Pages in a unit of 2 MiB.
const UNIT: u64 = HUGE / PAGE_SIZE;
/// Pieces that pages are noted in one by one, each of which takes two mappings; past it units are noted whole.
const PIECES: u64 = 4096;
/// Pages that are protected already and are protected again, so that one call does for what lies on both sides.
const GAP: u64 = 1024;

/// A bit for each page.
#[derive(Debug)]
struct Bits(Box<[AtomicU64]>);

impl Bits {
    /// None where there is no memory. What is never touched takes none: a bit is zero until then.
    fn new(count: u64) -> Option<Self> {
        let words = usize::try_from(count.div_ceil(64).max(1)).ok()?;
        let layout = Layout::array::<AtomicU64>(words).ok()?;
        // SAFETY: not of size 0, as there is a word.
        let start = unsafe { alloc_zeroed(layout) }.cast::<AtomicU64>();
        if start.is_null() {
            return None;
        }
        // SAFETY: allocated just now as an array of so many words; all zeros is a word.
        Some(Self(unsafe { Box::from_raw(core::ptr::slice_from_raw_parts_mut(start, words)) }))
    }

    fn word(&self, bit: u64) -> u64 {
        // OK to cast: as many as were made.
        self.0.get((bit / 64) as usize).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn get(&self, bit: u64) -> bool {
        self.word(bit) >> (bit % 64) & 1 == 1
    }

    fn set(&self, first: u64, after: u64, to: bool) {
        let mut at = first;
        while at < after {
            let end = (at / 64 + 1) * 64;
            let mask = u64::MAX << (at % 64) & if end > after { u64::MAX >> (end - after) } else { u64::MAX };
            // OK to cast: as in `word`.
            if let Some(word) = self.0.get((at / 64) as usize) {
                let before = word.load(Ordering::Relaxed);
                word.store(if to { before | mask } else { before & !mask }, Ordering::Relaxed);
            }
            at = end;
        }
    }

    /// The first bit from `at` to before `end` that is like this, or `end`.
    fn find(&self, mut at: u64, end: u64, like: bool) -> u64 {
        while at < end {
            let word = if like { self.word(at) } else { !self.word(at) } >> (at % 64);
            if word != 0 {
                return (at + u64::from(word.trailing_zeros())).min(end);
            }
            at = (at / 64 + 1) * 64;
        }
        end
    }
}

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
        let mut at = first;
        while at < after {
            let (unit, start, end) = ledger.unit_of(at);
            let is_whole = start >= first && end <= after && end - start == UNIT;
            let is_aligned = matches!(what, Placed::File(byte)
                if (byte + (start.max(first) - first) * PAGE_SIZE).is_multiple_of(HUGE));
            ledger.whole.set(unit, unit + 1, is_whole && is_aligned);
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
    fn bits_agree_with_a_list() {
        let bits = Bits::new(300).unwrap();
        let mut list = [false; 300];
        let mut state = 3_u64;
        for _ in 0..5000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (a, b) = (state >> 20 & 0x1ff, state >> 40 & 0x1ff);
            let (first, after) = (a.min(b).min(300), a.max(b).min(300));
            bits.set(first, after, state >> 60 & 1 == 1);
            list[first as usize..after as usize].fill(state >> 60 & 1 == 1);
            for like in [true, false] {
                let expected = (first..after).find(|at| list[*at as usize] == like).unwrap_or(after);
                assert_eq!(bits.find(first, after, like), expected);
            }
        }
    }
}
