//! A lock for many readers or one writer.

use core::fmt;

use crate::guard::Guard;
use crate::imp;
use crate::rank::{Rank, order};

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

impl<T: ?Sized> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("rank", &self.rank).finish_non_exhaustive()
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use crate::Mutex;

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
}
