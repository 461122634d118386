//! A device on which something happens before it is claimed.

use std::fmt;

use blockdev::{BlockDevice, Claim};

use crate::Hook;

/// The device, and what somebody does who had it until then.
pub struct Claimed<D> {
    inner: D,
    first: Hook,
}

impl<D> Claimed<D> {
    /// `first` is done at the first claim, before that is made.
    pub fn new(inner: D, first: impl FnOnce() + Send + 'static) -> Self {
        let claimed = Self { inner, first: Hook::default() };
        claimed.first.set(first);
        claimed
    }
}

impl<D: fmt::Debug> fmt::Debug for Claimed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<D: BlockDevice> BlockDevice for Claimed<D> {
    crate::forward!(inner: size, read_at, write_at, zero, fence, flush);

    fn claim(&self, offset: u64, len: u64) -> blockdev::Result<Claim> {
        self.first.run();
        self.inner.claim(offset, len)
    }
}
