//! Locks, without poisoning, and the order in which they may be taken.
//!
//! # Lock order
//! A thread takes locks in rising [`Rank`]; two of the same rank only where the rank says so. Debug
//! builds with `std` assert it at every acquisition. The order, outermost first, with its Linux name:
//!
//! | rank | lock | Linux |
//! |---|---|---|
//! | `Rename` | one rename between directories at a time in a file system | `s_vfs_rename_mutex` |
//! | `Io` | an inode's contents: directories parent first, then by number | `i_rwsem` |
//! | `Journal` | the one transaction in the journal | – |
//! | `Index` | the index of a directory | – |
//! | `Orphan` | the superblock's list of truncations | – |
//! | `Map` | an inode's block map, while it changes | `truncate_mutex` |
//! | `Xattr` | attribute blocks that inodes share | `xattr_sem`, the mbcache |
//! | `Group` | one group's bitmaps and counts | `bgl_lock` |
//! | `Super` | the superblock's counts and state | `s_lock` |
//! | `Attr` | an inode's attributes | `i_lock` |
//! | `Table` | the table of inodes in memory | `inode_hash_lock` |
//! | `Stores` | stores into blocks that a transaction may hold | – |
//! | `Leaf` | a lock under which no other is taken | spin locks |
//! | `Log` | the commit that is under way: a device's | `j_state_lock` |
//! | `LogState` | the blocks that the next one holds | `j_list_lock` |
//!
//! A device's own locks are below all of these.
//!
//! With the feature `turns` a test can decide at each lock which thread goes on: see [`turn`].

#[cfg(feature = "turns")]
pub mod turn;

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{Ordering, fence};
use portable_atomic::AtomicU64;

/// The place of a lock in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the table above says what each is
pub enum Rank {
    Rename,
    Io,
    Journal,
    Index,
    Orphan,
    Map,
    Xattr,
    Group,
    Super,
    Attr,
    Table,
    Stores,
    Leaf,
    Log,
    LogState,
}

impl Rank {
    /// Whether a second lock of this rank may be taken while one is held (in an order of its own).
    #[cfg(all(feature = "std", debug_assertions))]
    const fn repeats(self) -> bool {
        matches!(self, Self::Io)
    }
}

#[cfg(all(feature = "std", debug_assertions))]
mod order {
    use super::Rank;
    use std::cell::RefCell;
    use std::vec::Vec;

    std::thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    /// Notes that a lock of a rank is held until it is dropped.
    #[derive(Debug)]
    pub(super) struct Held(Rank);

    impl Held {
        pub(super) fn take(rank: Rank) -> Self {
            HELD.with_borrow_mut(|held| {
                if let Some(&highest) = held.iter().max() {
                    assert!(
                        rank > highest || (rank == highest && rank.repeats()),
                        "lock order: {rank:?} taken while {highest:?} is held"
                    );
                }
                held.push(rank);
            });
            Self(rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            // A guard may outlive the thread's storage only while the thread ends.
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                if let Some(at) = held.iter().rposition(|&rank| rank == self.0) {
                    held.remove(at);
                }
            });
        }
    }
}

#[cfg(not(all(feature = "std", debug_assertions)))]
mod order {
    use super::Rank;

    #[derive(Debug)]
    pub(super) struct Held;

    impl Held {
        #[inline(always)]
        pub(super) fn take(_: Rank) -> Self {
            Self
        }
    }
}

#[cfg(feature = "std")]
mod imp {
    use std::sync::atomic::{AtomicUsize, Ordering};
    pub(super) use std::sync::{Mutex, MutexGuard, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
    use std::sync::{PoisonError, TryLockError, TryLockResult};

    /// How often a thread looks whether a lock is free before it sleeps. It waits twice as long each time, so that who
    /// holds the lock may take it some times in a row: tens of microseconds together, as it costs to sleep and be woken.
    const LOOKS: u32 = 11;

    /// Threads that spin.
    static SPINNING: AtomicUsize = AtomicUsize::new(0);

    /// Threads that may: one processor is left for who holds the lock.
    fn most() -> usize {
        static MOST: OnceLock<usize> = OnceLock::new();
        *MOST
            .get_or_init(|| std::thread::available_parallelism().map_or(0, |processors| processors.get() - 1))
    }

    /// Tries for a while to take a lock that somebody holds, as its holder is likely to be done with it soon (Linux:
    /// `rwsem_optimistic_spin`).
    #[cold]
    fn spin<G>(attempt: impl Fn() -> Option<G>) -> Option<G> {
        let may = SPINNING.fetch_add(1, Ordering::Relaxed) < most();
        let looks = if may { LOOKS } else { 0 };
        let got = (0..looks).find_map(|look| {
            (0..1_u32 << look).for_each(|_| core::hint::spin_loop());
            attempt()
        });
        SPINNING.fetch_sub(1, Ordering::Relaxed);
        got
    }

    /// The lock, unless somebody holds it.
    #[inline]
    fn taken<G>(attempt: TryLockResult<G>) -> Option<G> {
        match attempt {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    macro_rules! patient {
        ($name:ident, $try:ident, $of:ident, $guard:ident) => {
            /// The lock; tries at first, then spins, then sleeps.
            #[inline]
            pub(super) fn $name<T: ?Sized>(lock: &$of<T>) -> $guard<'_, T> {
                let attempt = || taken(lock.$try());
                #[cfg(feature = "turns")]
                if let Some(taken) = super::turn::until(attempt) {
                    return taken;
                }
                let taken = attempt().or_else(|| spin(attempt));
                taken.unwrap_or_else(|| lock.$name().unwrap_or_else(PoisonError::into_inner))
            }
        };
    }

    pub(super) fn try_lock<T: ?Sized>(lock: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        taken(lock.try_lock())
    }
    pub(super) fn try_read<T: ?Sized>(lock: &RwLock<T>) -> Option<RwLockReadGuard<'_, T>> {
        taken(lock.try_read())
    }
    pub(super) fn try_write<T: ?Sized>(lock: &RwLock<T>) -> Option<RwLockWriteGuard<'_, T>> {
        taken(lock.try_write())
    }

    patient!(lock, try_lock, Mutex, MutexGuard);
    patient!(read, try_read, RwLock, RwLockReadGuard);
    patient!(write, try_write, RwLock, RwLockWriteGuard);
}

#[cfg(not(feature = "std"))]
mod imp {
    pub(super) use spin::{Mutex, MutexGuard, Once, RwLock, RwLockReadGuard, RwLockWriteGuard};

    pub(super) fn try_lock<T: ?Sized>(lock: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        lock.try_lock()
    }
    pub(super) fn try_read<T: ?Sized>(lock: &RwLock<T>) -> Option<RwLockReadGuard<'_, T>> {
        lock.try_read()
    }
    pub(super) fn try_write<T: ?Sized>(lock: &RwLock<T>) -> Option<RwLockWriteGuard<'_, T>> {
        lock.try_write()
    }
    pub(super) fn lock<T: ?Sized>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
        lock.lock()
    }
    pub(super) fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
        lock.read()
    }
    pub(super) fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
        lock.write()
    }
}

/// A mutex with a place in the lock order.
pub struct Mutex<T: ?Sized> {
    rank: Rank,
    inner: imp::Mutex<T>,
}

impl<T> Mutex<T> {
    /// A mutex of `rank` around `value`.
    pub const fn new(rank: Rank, value: T) -> Self {
        Self { rank, inner: imp::Mutex::new(value) }
    }
}

/// What holds a [`Mutex`] until it is dropped.
pub type MutexGuard<'m, T> = Guard<imp::MutexGuard<'m, T>>;

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = order::Held::take(self.rank);
        Guard { inner: imp::lock(&self.inner), _held: held }
    }

    /// The lock, unless somebody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let held = order::Held::take(self.rank);
        Some(Guard { inner: imp::try_lock(&self.inner)?, _held: held })
    }
}

/// A reader-writer lock with a place in the lock order.
pub struct RwLock<T: ?Sized> {
    rank: Rank,
    inner: imp::RwLock<T>,
}

impl<T> RwLock<T> {
    /// A lock of `rank` around `value`.
    pub const fn new(rank: Rank, value: T) -> Self {
        Self { rank, inner: imp::RwLock::new(value) }
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits for the lock, shared.
    pub fn read(&self) -> Guard<imp::RwLockReadGuard<'_, T>> {
        let held = order::Held::take(self.rank);
        Guard { inner: imp::read(&self.inner), _held: held }
    }

    /// Waits for the lock, exclusive.
    pub fn write(&self) -> Guard<imp::RwLockWriteGuard<'_, T>> {
        let held = order::Held::take(self.rank);
        Guard { inner: imp::write(&self.inner), _held: held }
    }

    /// The lock, shared, unless somebody holds it exclusive.
    pub fn try_read(&self) -> Option<Guard<imp::RwLockReadGuard<'_, T>>> {
        let held = order::Held::take(self.rank);
        Some(Guard { inner: imp::try_read(&self.inner)?, _held: held })
    }

    /// The lock, exclusive, unless somebody holds it.
    pub fn try_write(&self) -> Option<Guard<imp::RwLockWriteGuard<'_, T>>> {
        let held = order::Held::take(self.rank);
        Some(Guard { inner: imp::try_write(&self.inner)?, _held: held })
    }
}

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
    pub(crate) fn changes(self) -> u64 {
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
    pub fn read(&self) -> IoReadGuard<'_> {
        self.lock.read()
    }

    /// Waits for the lock, exclusive.
    pub fn write(&self) -> IoGuard<'_> {
        self.hold(self.lock.write())
    }

    /// The lock, shared, unless somebody holds it exclusive (Linux: `inode_trylock_shared`).
    pub fn try_read(&self) -> Option<IoReadGuard<'_>> {
        self.lock.try_read()
    }

    /// The lock, exclusive, unless somebody holds it (Linux: `inode_trylock`).
    pub fn try_write(&self) -> Option<IoGuard<'_>> {
        Some(self.hold(self.lock.try_write()?))
    }

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
    fn drop(&mut self) {
        self.changes.fetch_add(1, Ordering::Release);
    }
}

/// A value that is made once, by whoever needs it first. `make` takes no lock.
#[derive(Debug)]
pub(crate) struct Once<T>(
    #[cfg(feature = "std")] imp::OnceLock<T>,
    #[cfg(not(feature = "std"))] imp::Once<T>,
);

impl<T> Once<T> {
    pub(crate) const fn new() -> Self {
        #[cfg(feature = "std")]
        return Self(imp::OnceLock::new());
        #[cfg(not(feature = "std"))]
        return Self(imp::Once::new());
    }

    /// The value, if it was made.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.get()
    }

    /// The value, made now if it was not before.
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        #[cfg(feature = "std")]
        return self.0.get_or_init(make);
        #[cfg(not(feature = "std"))]
        return self.0.call_once(make);
    }
}

/// What holds a lock until it is dropped.
#[derive(Debug)]
pub struct Guard<G> {
    inner: G,
    _held: order::Held,
}

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;
    fn deref(&self) -> &G::Target {
        &self.inner
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.inner
    }
}

impl<T: ?Sized> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("rank", &self.rank).finish_non_exhaustive()
    }
}

impl<T: ?Sized> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("rank", &self.rank).finish_non_exhaustive()
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "lock order: Group taken while Super is held")]
    fn taking_an_outer_lock_inside_an_inner_one_is_caught() {
        let (outer, inner) = (Mutex::new(Rank::Group, ()), Mutex::new(Rank::Super, ()));
        let _held = inner.lock();
        let _wrong = outer.lock();
    }

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

    #[test]
    fn whoever_waits_gets_the_lock_alone_also_where_threads_outnumber_processors() {
        let (mutex, lock) = (Mutex::new(Rank::Group, 0_u32), RwLock::new(Rank::Attr, 0_u32));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for nr in 0..500 {
                        let mut first = mutex.lock();
                        let before = *lock.read();
                        *first += 1;
                        let mut second = lock.write();
                        *second += 1;
                        assert_eq!((*first, before + 1), (*second, *second));
                        if nr % 100 == 0 {
                            // Longer than anybody spins.
                            std::thread::sleep(core::time::Duration::from_millis(1));
                        }
                    }
                });
            }
        });
        assert_eq!((*mutex.lock(), *lock.read()), (4000, 4000));
    }

    #[test]
    fn locks_may_be_dropped_in_any_order() {
        let (outer, inner) = (Mutex::new(Rank::Group, ()), Mutex::new(Rank::Super, ()));
        let first = outer.lock();
        let second = inner.lock();
        drop(first);
        drop(second);
        let _again = outer.lock();
    }
}
