//! A value that is made once.

use crate::imp;

/// A value that is made once, by whoever needs it first. `make` takes no lock.
#[derive(Debug)]
pub struct Once<T>(#[cfg(feature = "std")] imp::OnceLock<T>, #[cfg(not(feature = "std"))] imp::Once<T>);

impl<T> Once<T> {
    /// One that is not made yet.
    #[must_use]
    pub const fn new() -> Self {
        #[cfg(feature = "std")]
        return Self(imp::OnceLock::new());
        #[cfg(not(feature = "std"))]
        return Self(imp::Once::new());
    }

    /// The value, if it was made.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.0.get()
    }

    /// The value, made now if it was not before.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        #[cfg(feature = "std")]
        return self.0.get_or_init(make);
        #[cfg(not(feature = "std"))]
        return self.0.call_once(make);
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self::new()
    }
}
