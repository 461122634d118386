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

/// The sums of a file system.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    calls: AtomicU64,
    asked: AtomicU64,
    answered: AtomicU64,
    exclusive: AtomicU64,
    shared: AtomicU64,
    dio: AtomicU64,
}

impl Counts {
    pub(crate) fn question(&self, asked: u64, answered: u64) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.asked.fetch_add(asked, Ordering::Relaxed);
        self.answered.fetch_add(answered.min(asked), Ordering::Relaxed);
    }

    pub(crate) fn exclusive(&self) {
        self.exclusive.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn shared(&self) {
        self.shared.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "buffer-head")]
    pub(crate) fn dio(&self) {
        self.dio.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self) -> Asked {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Asked {
            calls: load(&self.calls),
            blocks_asked: load(&self.asked),
            blocks_answered: load(&self.answered),
            exclusive_locks: load(&self.exclusive),
            shared_locks: load(&self.shared),
            dio_counts: load(&self.dio),
        }
    }
}
