//! The order of stores, said in types.
//!
//! Under this order a crash at any point leaves an image that `e2fsck -p` mends without a question, and
//! what was fenced is there:
//!
//! 1. **Initialise before pointing**: what a pointer will name is written, then a fence, then the pointer.
//! 2. **Birth and death at zero links**: a new inode has no links until its name is durable; a dying one
//!    has none before its last name goes.
//! 3. **Publish with one aligned store** of 2 or 4 bytes.
//! 4. **No reuse before the last pointer is gone**, behind a fence.
//!
//! [`Written`] is what was stored and is perhaps still in flight; only a fence makes it [`Durable`]; what
//! publishes and what frees asks for `Durable`. A wrong order does not compile. Bitmaps and counts are
//! not ordered: after a crash they are rebuilt.

use blockdev::BlockDevice;

use crate::error::Result;

/// Something stored on the device, perhaps not yet on the media.
#[derive(Debug)]
#[must_use = "what was written is worth nothing before a fence"]
pub(crate) struct Written<T>(T);

/// Something that is on the media no later than all that is stored from now on.
#[derive(Debug)]
#[must_use = "a fence was paid for this"]
pub(crate) struct Durable<T>(T);

impl<T> Written<T> {
    /// States that `what` has been stored.
    pub(crate) fn new(what: T) -> Self {
        Self(what)
    }

    /// The fence.
    pub(crate) fn fence(self, dev: &dyn BlockDevice) -> Result<Durable<T>> {
        dev.fence()?;
        Ok(Durable(self.0))
    }
}

impl<T> Durable<T> {
    /// What it is.
    pub(crate) fn into_inner(self) -> T {
        self.0
    }

    /// A look at it.
    pub(crate) fn get(&self) -> &T {
        &self.0
    }
}

/// A pointer or name that was taken away: what it named may be used anew once this is durable.
#[derive(Debug)]
pub(crate) struct Unlinked;
