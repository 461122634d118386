//! A mutex.

use core::fmt;

use crate::guard::Guard;
use crate::imp;
use crate::rank::{Rank, order};

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

impl<T: ?Sized> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("rank", &self.rank).finish_non_exhaustive()
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
    fn locks_may_be_dropped_in_any_order() {
        let (outer, inner) = (Mutex::new(Rank::Group, ()), Mutex::new(Rank::Super, ()));
        let first = outer.lock();
        let second = inner.lock();
        drop(first);
        drop(second);
        let _again = outer.lock();
    }
}
