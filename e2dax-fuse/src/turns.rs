//! Who listens to the kernel, and how.
//!
//! A thread that sleeps costs whoever wakes it more than most requests take to answer. So one thread listens, answers
//! what is short itself, and looks for the next request for a moment before it sleeps; the others sleep here, and not
//! in the connection, where the kernel would wake one after the other. They take over while a request is answered
//! that takes long: one that waits for the device, and one of many bytes if there is a processor for that.
//!
//! # Invariants
//! 1. Somebody listens, or every thread answers a request, or the one that listens answers a short one.
//! 2. Looking for requests in vain takes no more time than `1 / MOST_SKIPPED` of a `LOOK` for each request.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long a listener looks for the next request before it sleeps.
pub(crate) const LOOK: Duration = Duration::from_micros(50);
/// After having looked in vain it sleeps at once, twice as often each time up to this.
const MOST_SKIPPED: u32 = 1024;
/// A request that takes longer than this, and than its bytes explain, is slow. After two of them others listen while
/// the next ones are answered: the image may lie on a disk, where many at a time are faster.
pub(crate) const SLOW: Duration = Duration::from_micros(500);
/// What a byte explains, in nanoseconds: memory moves more than 1 GB/s.
const BYTE: u64 = 1;
/// So many next ones, and so far apart the two may be. One alone may be the scheduler's doing.
const WARY: u32 = 256;

/// Turns at listening.
#[derive(Debug)]
pub(crate) struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
    /// Requests left during which others listen.
    wary: AtomicU32,
    /// Requests left during which another slow one makes it so.
    suspicious: AtomicU32,
    /// Whether there is a processor for another one, besides those of who asks and who answers.
    pub(crate) has_processors: bool,
}

/// A turn, given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// For a machine of so many processors: one thread listens for each four.
    pub(crate) fn new(processors: usize) -> Self {
        Self {
            free: Mutex::new((processors / 4).clamp(1, 4)),
            freed: Condvar::new(),
            wary: AtomicU32::new(0),
            suspicious: AtomicU32::new(0),
            has_processors: processors > 2,
        }
    }

    /// Waits for a turn.
    pub(crate) fn take(&self) -> Turn<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Turn(self)
    }

    /// Whether a request is to be answered while others listen, because earlier ones were slow.
    pub(crate) fn is_wary(&self) -> bool {
        count_down(&self.suspicious);
        count_down(&self.wary) > 0
    }

    /// Notes how long a request took that moved so many bytes.
    pub(crate) fn took(&self, time: Duration, bytes: usize) {
        let explained = Duration::from_nanos(u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(BYTE));
        if time > SLOW.saturating_add(explained) && self.suspicious.swap(WARY, Ordering::Relaxed) > 0 {
            self.wary.store(WARY, Ordering::Relaxed);
        }
    }
}

/// Takes one off, and gives what there was. Threads that count at once may count one request for two; nothing depends
/// on the number.
fn count_down(left: &AtomicU32) -> u32 {
    let before = left.load(Ordering::Relaxed);
    left.store(before.saturating_sub(1), Ordering::Relaxed);
    before
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

/// Whether it pays to look for requests before sleeping: one thread's experience.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// How often it is not done yet.
    skip: u32,
    /// How often it is not done after the next time in vain.
    next: u32,
}

impl Looks {
    /// Whether to look this time.
    pub(crate) fn now(&mut self) -> bool {
        let now = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        now
    }

    /// A request was found.
    pub(crate) fn found(&mut self) {
        *self = Self::default();
    }

    /// None was.
    pub(crate) fn in_vain(&mut self) {
        self.next = (2 * self.next).clamp(1, MOST_SKIPPED);
        self.skip = self.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_in_vain_becomes_rare_and_success_brings_it_back() {
        let mut looks = Looks::default();
        let mut looked = 0;
        for _ in 0..100_000 {
            if looks.now() {
                looked += 1;
                looks.in_vain();
            }
        }
        assert!((90..120).contains(&looked), "{looked}");
        looks.found();
        assert!(looks.now() && looks.now());
    }

    #[test]
    fn a_turn_passes_on_when_it_is_given_up_and_slowness_is_forgotten() {
        let turns = Turns::new(2);
        let turn = turns.take();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| drop(turns.take()));
            drop(turn);
            other.join().unwrap();
        });
        turns.took(SLOW, 0);
        turns.took(SLOW, 0);
        assert!(!turns.is_wary());
        // What moves many bytes may take as long.
        turns.took(2 * SLOW, 1 << 20);
        turns.took(2 * SLOW, 1 << 20);
        assert!(!turns.is_wary());
        turns.took(2 * SLOW, 0);
        assert!(!turns.is_wary(), "once may be the scheduler's doing");
        turns.took(2 * SLOW, 0);
        assert_eq!((0..2 * WARY).filter(|_| turns.is_wary()).count(), WARY as usize);
    }
}
