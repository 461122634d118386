//! Locks: the system's where there is one, spinning ones without.
//!
//! A panic of a lock's holder does not poison it: everything guarded here is left consistent before any
//! call that can panic.

#[cfg(not(feature = "std"))]
pub(crate) use spin::Mutex;

#[cfg(feature = "std")]
pub(crate) use with_std::Mutex;

#[cfg(feature = "std")]
mod with_std {
    use std::sync::PoisonError;

    use std::sync::MutexGuard;

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
}
