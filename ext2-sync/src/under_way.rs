//! Calls that are under way, and who waits for those that began before.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::pause::pause_between;

/// Counts calls that are under way, for who waits until all of them that had begun have ended, and for none that begins
/// meanwhile (Linux: `srcu_struct`). To begin and to end costs an atomic each.
///
/// # Invariants
/// 1. A call is counted in the slot of the turn that it began in, and ends in that slot.
/// 2. Only the last two turns have calls: another turn comes when the last but one has none.
#[derive(Debug)]
pub struct UnderWay {
    turn: AtomicU32,
    /// Calls, by their turn. A power of two, so that slots go on where turns wrap.
    calls: [AtomicU32; 4],
}

/// A call that is under way until this is dropped.
#[derive(Debug)]
#[must_use = "the call ends when this is dropped"]
pub struct Begun<'a>(&'a AtomicU32);

impl UnderWay {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { turn: AtomicU32::new(0), calls: [const { AtomicU32::new(0) }; 4] }
    }

    fn calls_of(&self, turn: u32) -> &AtomicU32 {
        // OK to index: the remainder is less than 4.
        &self.calls[(turn % 4) as usize]
    }

    /// A call begins.
    #[inline]
    pub fn begin(&self) -> Begun<'_> {
        loop {
            let turn = self.turn.load(Ordering::SeqCst);
            let calls = self.calls_of(turn);
            calls.fetch_add(1, Ordering::SeqCst);
            // Counted in a turn that has passed it would be waited for by nobody, or too long.
            if self.turn.load(Ordering::SeqCst) == turn {
                return Begun(calls);
            }
            calls.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Waits until all calls have ended that are under way now. None of them may wait for the caller.
    pub fn wait(&self) {
        let start = self.turn.load(Ordering::SeqCst);
        let mut looks = 0;
        loop {
            let turn = self.turn.load(Ordering::SeqCst);
            if turn.wrapping_sub(start) >= 2 {
                // Those of the first turn, and of the one before it, had to end for that.
                return;
            }
            if self.calls_of(turn.wrapping_sub(1)).load(Ordering::SeqCst) > 0 {
                pause_between(&mut looks);
                continue;
            }
            // Where it fails another has gone on.
            let _ =
                self.turn.compare_exchange(turn, turn.wrapping_add(1), Ordering::SeqCst, Ordering::SeqCst);
        }
    }
}

impl Default for UnderWay {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Begun<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicBool, AtomicU64};
    use std::time::Duration;

    #[test]
    fn who_waits_waits_for_calls_that_began_before_and_for_no_later_one() {
        let (calls, waited) = (UnderWay::new(), AtomicBool::new(false));
        // Nothing to wait for, however often.
        (0..5).for_each(|_| calls.wait());
        std::thread::scope(|scope| {
            let before = calls.begin();
            scope.spawn(|| {
                calls.wait();
                waited.store(true, Ordering::SeqCst);
            });
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waited.load(Ordering::SeqCst));
            // One in the turn that has begun since, and stays.
            let later = calls.begin();
            drop(before);
            while !waited.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            drop(later);
        });
        calls.wait();
    }

    #[test]
    fn what_a_call_noted_before_it_ended_is_known_to_who_waited_for_it() {
        let (calls, done) = (UnderWay::new(), AtomicBool::new(false));
        // What has begun, and what of it is noted.
        let (begun, noted) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        let call = calls.begin();
                        begun.fetch_add(1, Ordering::SeqCst);
                        noted.fetch_add(1, Ordering::SeqCst);
                        drop(call);
                    }
                });
            }
            for _ in 0..2000 {
                let had_begun = begun.load(Ordering::SeqCst);
                calls.wait();
                assert!(noted.load(Ordering::SeqCst) >= had_begun);
            }
            done.store(true, Ordering::SeqCst);
        });
    }

    #[test]
    fn turns_that_wrap_are_turns() {
        let calls = UnderWay::new();
        calls.turn.store(u32::MAX, Ordering::SeqCst);
        drop(calls.begin());
        calls.wait();
        assert!(calls.turn.load(Ordering::SeqCst) < 4);
        drop(calls.begin());
        calls.wait();
    }
}
