//! The locks of the standard library: a thread tries, spins for a while, and sleeps.

use std::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::sync::{PoisonError, TryLockError, TryLockResult};

/// How often a thread looks whether a lock is free before it sleeps. It waits twice as long each time, so that who
/// holds the lock may take it some times in a row: tens of microseconds together, as it costs to sleep and be woken.
const LOOKS: u32 = 11;

/// Threads that spin.
static SPINNING: AtomicUsize = AtomicUsize::new(0);

/// Threads that may: one processor is left for who holds the lock.
fn most() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| std::thread::available_parallelism().map_or(0, |processors| processors.get() - 1))
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
        pub(crate) fn $name<T: ?Sized>(lock: &$of<T>) -> $guard<'_, T> {
            let attempt = || taken(lock.$try());
            #[cfg(feature = "turns")]
            if let Some(taken) = crate::turn::until(attempt) {
                return taken;
            }
            let taken = attempt().or_else(|| spin(attempt));
            taken.unwrap_or_else(|| lock.$name().unwrap_or_else(PoisonError::into_inner))
        }
    };
}

pub(crate) fn try_lock<T: ?Sized>(lock: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    taken(lock.try_lock())
}
pub(crate) fn try_read<T: ?Sized>(lock: &RwLock<T>) -> Option<RwLockReadGuard<'_, T>> {
    taken(lock.try_read())
}
pub(crate) fn try_write<T: ?Sized>(lock: &RwLock<T>) -> Option<RwLockWriteGuard<'_, T>> {
    taken(lock.try_write())
}

patient!(lock, try_lock, Mutex, MutexGuard);
patient!(read, try_read, RwLock, RwLockReadGuard);
patient!(write, try_write, RwLock, RwLockWriteGuard);
