//! The one place that names the locks this crate uses, so that the same code runs on the standard
//! library's locks and, under `--cfg loom`, on loom's.
//!
//! With the feature `turns` a test decides at each lock which thread goes on.
//!
//! A lock whose holder panicked is taken as it is: every critical section here leaves its data
//! consistent before it calls out.

use std::ops::{Deref, DerefMut};

#[cfg(loom)]
use loom::sync as imp;
#[cfg(not(loom))]
use std::sync as imp;

#[cfg(loom)]
pub(crate) use loom::thread::{ThreadId, current as current_thread};
#[cfg(not(loom))]
pub(crate) use std::thread::{ThreadId, current as current_thread};

pub(crate) use imp::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// A mutual exclusion lock.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(imp::Mutex<T>);

/// What [`Mutex::lock`] gives.
pub(crate) struct MutexGuard<'a, T>(imp::MutexGuard<'a, T>, &'a Mutex<T>);

/// What `attempt` gives, where a test decides who goes on.
#[cfg(all(feature = "turns", not(loom)))]
fn in_turn<G>(attempt: impl Fn() -> std::sync::TryLockResult<G>) -> Option<G> {
    use std::sync::TryLockError;
    ext2_core::sync::turn::until(|| match attempt() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    })
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(all(feature = "turns", not(loom)))]
        if let Some(guard) = in_turn(|| self.0.try_lock()) {
            return MutexGuard(guard, self);
        }
        MutexGuard(self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), self)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A lock with many readers or one writer. Nobody takes it who holds it, not even shared twice: a writer who comes between
/// the two lets no reader in. Debug builds see that also where no writer comes.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(imp::RwLock<T>);

/// What [`RwLock::read`] gives.
#[derive(Debug)]
pub(crate) struct RwLockReadGuard<'a, T> {
    guard: imp::RwLockReadGuard<'a, T>,
    _held: Held,
}

/// What [`RwLock::write`] gives.
#[derive(Debug)]
pub(crate) struct RwLockWriteGuard<'a, T> {
    guard: imp::RwLockWriteGuard<'a, T>,
    _held: Held,
}

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(imp::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        let held = Held::take(std::ptr::from_ref(self).addr());
        #[cfg(all(feature = "turns", not(loom)))]
        if let Some(guard) = in_turn(|| self.0.try_read()) {
            return RwLockReadGuard { guard, _held: held };
        }
        let guard = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        RwLockReadGuard { guard, _held: held }
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        let held = Held::take(std::ptr::from_ref(self).addr());
        #[cfg(all(feature = "turns", not(loom)))]
        if let Some(guard) = in_turn(|| self.0.try_write()) {
            return RwLockWriteGuard { guard, _held: held };
        }
        let guard = self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        RwLockWriteGuard { guard, _held: held }
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Notes that this thread holds a reader-writer lock, until it is dropped.
#[derive(Debug)]
struct Held(#[cfg(all(debug_assertions, not(loom)))] usize);

#[cfg(all(debug_assertions, not(loom)))]
mod held {
    use super::Held;
    use std::cell::RefCell;

    std::thread_local! {
        static LOCKS: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    impl Held {
        /// Before the lock is waited for: what comes to a standstill is seen first.
        pub(super) fn take(lock: usize) -> Self {
            LOCKS.with_borrow_mut(|locks| {
                assert!(!locks.contains(&lock), "a reader-writer lock is taken by who holds it");
                locks.push(lock);
            });
            Self(lock)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            // A guard may outlive the thread's storage only while the thread ends.
            let _ = LOCKS.try_with(|locks| locks.borrow_mut().retain(|lock| *lock != self.0));
        }
    }
}

#[cfg(not(all(debug_assertions, not(loom))))]
impl Held {
    #[inline(always)]
    fn take(_: usize) -> Self {
        Self()
    }
}

/// A place to wait until somebody says that the state behind a [`Mutex`] has changed.
#[derive(Debug, Default)]
pub(crate) struct Condvar(imp::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(imp::Condvar::new())
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard(guard, mutex) = guard;
        #[cfg(all(feature = "turns", not(loom)))]
        if ext2_core::sync::turn::is_entered() {
            drop(guard);
            // Woken without a reason, as may be: who waits looks again.
            let _ = ext2_core::sync::turn::stuck();
            return mutex.lock();
        }
        MutexGuard(self.0.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner()), mutex)
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}
