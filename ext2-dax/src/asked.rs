//! How much the data path asked of the file system, on either of its two paths.

use std::sync::atomic::{AtomicUsize as StdAtomicUsize, Ordering as StdOrdering};

use crate::sync::{AtomicU64, Ordering};

/// A sum of questions and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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

/// Places that each belong to one thread at a time.
const PLACES: usize = 16;

/// The sums of a file system. Each thread has a place of its own, in which it adds without waiting for anybody, its
/// own earlier stores included; when there are more threads, they share the last.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    places: [Sums; PLACES + 1],
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
    /// Reads that were sure of their blocks: each is a call that got what it asked for, and locked nothing.
    reads: AtomicU64,
    read_blocks: AtomicU64,
}

/// One of the sums of a place.
type Which = fn(&Sums) -> &AtomicU64;

/// The places that are taken, as bits. Not one of the model's atomics: which place a thread has decides nothing.
static TAKEN: StdAtomicUsize = StdAtomicUsize::new(0);

/// A thread's place, free again when the thread ends.
struct Place(usize);

impl Place {
    fn take() -> Self {
        let mut taken = TAKEN.load(StdOrdering::Relaxed);
        while taken.trailing_ones() < PLACES as u32 {
            let place = taken.trailing_ones() as usize;
            match TAKEN.compare_exchange_weak(
                taken,
                taken | 1 << place,
                StdOrdering::Acquire,
                StdOrdering::Relaxed,
            ) {
                Ok(_) => return Self(place),
                Err(now) => taken = now,
            }
        }
        Self(PLACES)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0 < PLACES {
            TAKEN.fetch_and(!(1 << self.0), StdOrdering::Release);
        }
    }
}

std::thread_local! {
    static PLACE: Place = Place::take();
}

impl Counts {
    #[inline(always)]
    fn add<const N: usize>(&self, amounts: [(Which, u64); N]) {
        // A thread that is ending has no place any more, and takes the common one.
        let place = PLACE.try_with(|place| place.0).unwrap_or(PLACES);
        let Some(sums) = self.places.get(place) else { return };
        for (of, amount) in amounts {
            let sum = of(sums);
            if place < PLACES {
                // Nobody else stores here.
                sum.store(sum.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
            } else {
                sum.fetch_add(amount, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn question(&self, asked: u64, answered: u64) {
        self.add([
            (|sums| &sums.calls, 1),
            (|sums| &sums.asked, asked),
            (|sums| &sums.answered, answered.min(asked)),
        ]);
    }

    pub(crate) fn exclusive(&self) {
        self.add([(|sums| &sums.exclusive, 1)]);
    }

    pub(crate) fn shared(&self) {
        self.add([(|sums| &sums.shared, 1)]);
    }

    /// A read that was sure of its blocks, so many.
    #[inline]
    pub(crate) fn read(&self, blocks: u64) {
        self.add([(|sums| &sums.reads, 1), (|sums| &sums.read_blocks, blocks)]);
    }

    #[cfg(feature = "buffer-head")]
    pub(crate) fn dio(&self) {
        self.add([(|sums| &sums.dio, 1)]);
    }

    pub(crate) fn sum(&self) -> Asked {
        let sum = |of: Which| {
            self.places.iter().map(|place| of(place).load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
        };
        let (reads, read_blocks) = (sum(|place| &place.reads), sum(|place| &place.read_blocks));
        Asked {
            calls: sum(|place| &place.calls).wrapping_add(reads),
            blocks_asked: sum(|place| &place.asked).wrapping_add(read_blocks),
            blocks_answered: sum(|place| &place.answered).wrapping_add(read_blocks),
            exclusive_locks: sum(|place| &place.exclusive),
            shared_locks: sum(|place| &place.shared),
            dio_counts: sum(|place| &place.dio),
        }
    }
}
