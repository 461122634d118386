//! Locks: the system's where there is one, spinning ones without.
//!
//! A panic of a lock's holder does not poison it: everything guarded here is left consistent before any
//! call that can panic.

#[cfg(not(feature = "std"))]
pub(crate) use spin::{Mutex, RwLock};

#[cfg(feature = "std")]
pub(crate) use with_std::{Mutex, RwLock};

#[cfg(feature = "std")]
mod with_std {
    use std::sync::PoisonError;

    use std::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    /// `std`'s, with the interface of `spin`'s.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::sync::Mutex::new(value))
        }

        #[inline]
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// `std`'s, with the interface of `spin`'s.
    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(std::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::sync::RwLock::new(value))
        }

        #[inline]
        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        #[inline]
        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
