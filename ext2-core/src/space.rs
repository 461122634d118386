//! The seam to whoever maps or caches a file's pages.

use alloc::sync::Arc;
use core::any::Any;
use core::fmt::Debug;
use core::ops::Range;

use crate::Inode;
use crate::error::Result;
use crate::sync::{Mutex, Rank};

/// Whether to wait for whoever holds the pages, or be refused with `EBUSY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Wait.
    Yes,
    /// Refuse.
    No,
}

/// What maps or caches a file's pages (Linux: `struct address_space`). Truncate and punch go through it,
/// so that no translation outlives the blocks that it points to.
pub trait AddressSpace: Any + Debug + Send + Sync {
    /// Takes away every translation and entry of the bytes in `range`, waits for leases (or refuses),
    /// and runs `change` while none can come back. Linux: `invalidate_lock` held exclusive around
    /// `truncate_pagecache` and the freeing of blocks.
    ///
    /// # Errors
    /// `EBUSY` when told not to wait; what `change` returns.
    fn invalidate(&self, range: Range<u64>, wait: Wait, change: &mut dyn FnMut() -> Result<()>)
    -> Result<()>;

    /// Whether anybody maps or leases a byte of `range`: its blocks are then not moved, since that would
    /// cost who maps them a fault.
    fn is_in_use(&self, range: Range<u64>) -> bool {
        let _ = range;
        false
    }

    /// Writes the dirty pages of `range` back to the media.
    ///
    /// # Errors
    /// The device's.
    fn write_back(&self, range: Range<u64>) -> Result<()>;
}

/// The address space of an inode, once somebody attached one.
pub(crate) struct Space(Mutex<Option<Arc<dyn AddressSpace>>>);

impl Space {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Rank::Leaf, None))
    }

    pub(crate) fn get(&self) -> Option<Arc<dyn AddressSpace>> {
        self.0.lock().clone()
    }

    pub(crate) fn get_or_attach(
        &self,
        make: impl FnOnce() -> Arc<dyn AddressSpace>,
    ) -> Arc<dyn AddressSpace> {
        self.0.lock().get_or_insert_with(make).clone()
    }

    /// Runs `change` with nobody mapping `range`.
    pub(crate) fn invalidate(
        &self,
        range: Range<u64>,
        wait: Wait,
        change: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        match self.get() {
            Some(space) => space.invalidate(range, wait, change),
            None => change(),
        }
    }
}

impl Inode {
    /// The address space of this inode, made by `make` if nobody attached one before. All who hold the
    /// inode share it. `make` is run under a lock: it takes no other.
    pub fn attach(&self, make: impl FnOnce() -> Arc<dyn AddressSpace>) -> Arc<dyn AddressSpace> {
        self.0.space.get_or_attach(make)
    }
}
