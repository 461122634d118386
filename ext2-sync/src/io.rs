//! The lock around the contents of an inode, whose readers may do without.

use core::fmt;
use core::sync::atomic::{Ordering, fence};

use portable_atomic::AtomicU64;

use crate::guard::Guard;
use crate::imp;
use crate::rank::Rank;
use crate::rwlock::RwLock;
#[cfg(feature = "turns")]
use crate::turn;

/// A reader-writer lock whose readers may do without it: they look at the time, copy what they need, and
/// [look again](Self::unchanged) whether a writer came between; then what they copied counts for nothing (Linux:
/// `seqcount_rwlock_t`). A reader that takes no lock stores nothing that others read, and waits for none of its own
/// stores.
pub struct IoLock {
    lock: RwLock<()>,
    /// Odd while somebody holds the lock exclusive.
    changes: AtomicU64,
}

/// When a reader without the lock began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance(u64);

impl Glance {
    /// How often the lock was taken or given up exclusive before: not the same after a writer was there.
    #[inline]
    #[must_use]
    pub fn changes(self) -> u64 {
        self.0
    }
}

impl IoLock {
    /// A lock of `rank`.
    #[must_use]
    pub const fn new(rank: Rank) -> Self {
        Self { lock: RwLock::new(rank, ()), changes: AtomicU64::new(0) }
    }

    /// Waits for the lock, shared.
    #[inline]
    pub fn read(&self) -> IoReadGuard<'_> {
        #[cfg(feature = "turns")]
        turn::waits();
        self.lock.read()
    }

    /// Waits for the lock, exclusive.
    #[inline]
    pub fn write(&self) -> IoGuard<'_> {
        #[cfg(feature = "turns")]
        turn::waits();
        self.hold(self.lock.write())
    }

    /// The lock, shared, unless somebody holds it exclusive (Linux: `inode_trylock_shared`).
    #[inline]
    pub fn try_read(&self) -> Option<IoReadGuard<'_>> {
        self.lock.try_read()
    }

    /// The lock, exclusive, unless somebody holds it (Linux: `inode_trylock`).
    #[inline]
    pub fn try_write(&self) -> Option<IoGuard<'_>> {
        Some(self.hold(self.lock.try_write()?))
    }

    #[inline]
    fn hold<'a>(&'a self, guard: Guard<imp::RwLockWriteGuard<'a, ()>>) -> IoGuard<'a> {
        // Whoever sees a store that comes after this sees this. Streaming stores too come after a locked one.
        self.changes.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::Release);
        IoGuard { changes: &self.changes, _guard: guard }
    }

    /// Begins to read without the lock, unless somebody holds it exclusive.
    #[inline]
    pub fn glance(&self) -> Option<Glance> {
        #[cfg(feature = "turns")]
        turn::pass();
        let now = self.changes.load(Ordering::Acquire);
        (now & 1 == 0).then_some(Glance(now))
    }

    /// Whether nobody has held the lock exclusive since: what was read meanwhile is what a reader with the lock would
    /// have read.
    #[inline]
    pub fn unchanged(&self, since: Glance) -> bool {
        #[cfg(feature = "turns")]
        turn::pass();
        fence(Ordering::Acquire);
        self.changes.load(Ordering::Relaxed) == since.0
    }
}

impl fmt::Debug for IoLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoLock").field("changes", &self.changes).finish_non_exhaustive()
    }
}

/// What holds an [`IoLock`] shared until it is dropped.
pub type IoReadGuard<'a> = Guard<imp::RwLockReadGuard<'a, ()>>;

/// What holds an [`IoLock`] exclusive until it is dropped.
#[derive(Debug)]
pub struct IoGuard<'a> {
    changes: &'a AtomicU64,
    _guard: Guard<imp::RwLockWriteGuard<'a, ()>>,
}

impl Drop for IoGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.changes.fetch_add(1, Ordering::Release);
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn a_glance_counts_only_while_nobody_writes() {
        let lock = IoLock::new(Rank::Io);
        let before = lock.glance().unwrap();
        assert!(lock.unchanged(before));
        drop(lock.read());
        assert!(lock.unchanged(before));
        let writing = lock.write();
        assert!(lock.glance().is_none() && !lock.unchanged(before));
        drop(writing);
        assert!(!lock.unchanged(before));
        assert!(lock.glance().is_some_and(|now| now != before && lock.unchanged(now)));
    }

    #[test]
    fn what_a_glance_read_of_two_words_was_written_together() {
        use core::sync::atomic::AtomicBool;
        let (lock, words, done) =
            (IoLock::new(Rank::Io), [AtomicU64::new(0), AtomicU64::new(0)], AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for nr in 1..20_000 {
                    let _writing = lock.write();
                    words.iter().for_each(|word| word.store(nr, Ordering::Relaxed));
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                let Some(glance) = lock.glance() else { continue };
                let [first, second] = [1, 0].map(|at: usize| words[at].load(Ordering::Relaxed));
                assert!(!lock.unchanged(glance) || first == second);
            }
        });
    }
}
