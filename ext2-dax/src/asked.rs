//! How much the data path asked of the file system, on either of its two paths.

use crate::sync::{AtomicU64, Ordering};

/// A sum of questions and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Calls of `iomap_begin`, or of `get_block`.
    pub calls: u64,
    /// Blocks that the callers could have used.
    pub blocks_asked: u64,
    /// Blocks that the answers covered and the callers believed.
    pub blocks_answered: u64,
    /// Times that a reader or writer locked the inode for itself.
    pub exclusive_locks: u64,
    /// Times that a reader locked the inode together with others.
    pub shared_locks: u64,
    /// Times that an operation was counted in, so that truncation would wait for it.
    pub dio_counts: u64,
}

/// Places that threads add in: two that add at the same time do not wait for each other's cache line.
const PLACES: usize = 16;

/// The sums of a file system: each thread has a place of its own, as long as there are no more of them.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    places: [Sums; PLACES],
}

/// The sums of one place, on cache lines that are no other's.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Sums {
    calls: AtomicU64,
    asked: AtomicU64,
    answered: AtomicU64,
    exclusive: AtomicU64,
    shared: AtomicU64,
    dio: AtomicU64,
}

/// The next thread's place. Not one of the model's atomics: which place a thread has decides nothing.
static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

std::thread_local! {
    static PLACE: usize = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % PLACES;
}

impl Counts {
    fn own(&self) -> &Sums {
        // A thread that is ending has no place any more, and takes the first.
        &self.places[PLACE.try_with(|place| *place).unwrap_or(0)]
    }

    pub(crate) fn question(&self, asked: u64, answered: u64) {
        let own = self.own();
        own.calls.fetch_add(1, Ordering::Relaxed);
        own.asked.fetch_add(asked, Ordering::Relaxed);
        own.answered.fetch_add(answered.min(asked), Ordering::Relaxed);
    }

    pub(crate) fn exclusive(&self) {
        self.own().exclusive.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn shared(&self) {
        self.own().shared.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "buffer-head")]
    pub(crate) fn dio(&self) {
        self.own().dio.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self) -> Asked {
        let sum = |of: fn(&Sums) -> &AtomicU64| {
            self.places.iter().map(|place| of(place).load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
        };
        Asked {
            calls: sum(|place| &place.calls),
            blocks_asked: sum(|place| &place.asked),
            blocks_answered: sum(|place| &place.answered),
            exclusive_locks: sum(|place| &place.exclusive),
            shared_locks: sum(|place| &place.shared),
            dio_counts: sum(|place| &place.dio),
        }
    }
}
