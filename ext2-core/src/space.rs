//! The seam to whoever maps or caches a file's pages.
//!
//! # Invariants
//! 1. Whoever changes the map of a file that pages are of, by whatever door he came, tells them here: blocks go inside
//!    [`AddressSpace::invalidate`], and blocks that came are told to [`AddressSpace::published`], also after an error,
//!    since a part may have become reachable.
//! 2. Giving a file blocks, or a larger size, takes nothing from anybody and waits for nobody.
//! 3. Who waits for a lease holds nothing: not even the inode's `io` lock, which the holder of the lease may want.
//! 4. Blocks that somebody has given the file and not told of yet are told of by whoever finds them for a write or a store fault,
//!    before he returns.
//! 5. No lock of this crate but an inode's `io` is held when [`AddressSpace::published`] is called.
//! 6. An address space comes under the inode's `io` lock, which whoever takes blocks away holds exclusive: nobody maps what goes
//!    without being told.

use alloc::sync::Arc;
use core::any::Any;
use core::fmt::Debug;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::Errno;
use crate::error::Result;
use crate::sync::{Mended, Once};

/// Whether to wait for whoever holds the pages, or be refused with `EBUSY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Wait for other threads. For itself nobody waits: what the caller's own thread holds is `EBUSY`.
    Yes,
    /// Refuse.
    No,
}

/// Why pages are taken from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The file ends before them. Private copies of them go as well (Linux: `unmap_mapping_range` with `even_cows`).
    Truncated,
    /// They are a hole from now on. Private copies stay.
    Punched,
    /// Their bytes lie elsewhere from now on. Private copies stay.
    Moved,
}

/// Who gave a file blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publisher {
    /// A call that writes. It holds the inode's `io` lock exclusive, and no entry of the pages.
    Call,
    /// A page fault, which holds the entry of the very pages.
    Fault,
}

/// Whether memory of a file may still be stored to after [`AddressSpace::stop_stores`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// No: all have ended.
    Ended,
    /// Yes: memory was lent for storing and is not back.
    Lent,
}

/// What maps or caches a file's pages (Linux: `struct address_space`).
pub trait AddressSpace: Any + Debug + Send + Sync {
    /// Takes away every translation and entry of the bytes in `range`, and runs `change` while none can come back, or
    /// is refused where somebody leases a byte of it. Linux: `invalidate_lock` held exclusive around
    /// `truncate_pagecache` and the freeing of blocks.
    ///
    /// # Errors
    /// `EBUSY` where bytes are leased, before `change` is run; what `change` returns.
    fn invalidate(&self, range: Range<u64>, why: Taken, change: &mut dyn FnMut() -> Result<()>)
    -> Result<()>;

    /// Waits until no other thread leases a byte of `range`. Called with no lock held: who leases it may need any of the
    /// file's to come to an end.
    ///
    /// # Errors
    /// `EBUSY` when it is the calling thread's own lease that it would wait for.
    fn wait_idle(&self, range: Range<u64>) -> Result<()>;

    /// Blocks became reachable in `range`, or some of them did: whoever maps the hole that was there has to look again.
    /// Linux: `invalidate_inode_pages2_range` after `iomap_end`, and `unmap_mapping_pages` in a fault.
    fn published(&self, range: Range<u64>, by: Publisher);

    /// The file becomes longer by `range`, whose bytes are a hole or what was written there: runs `change`, by which all see the
    /// size that is stored, when whoever maps pages before they are touched has these. So nobody who sees the size is refused what
    /// it covers. Called with the inode's `io` lock held exclusive.
    fn grow(&self, range: Range<u64>, change: &mut dyn FnMut()) {
        let _ = range;
        change();
    }

    /// Whether somebody stores to pages and brings that to the media by himself: what leads there has to be durable before he can
    /// (Linux: `VM_SYNC`).
    fn is_synchronous(&self) -> bool {
        false
    }

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

    /// The file system is being closed: lets no store through a translation any more.
    fn stop_stores(&self) -> Stores;

    /// Closing failed: stores may go on.
    fn resume_stores(&self);
}

/// The address space of an inode, once somebody attached one.
pub(crate) struct Space {
    attached: Once<Arc<dyn AddressSpace>>,
    /// Threads that have given the file blocks, perhaps, and not told of all of them yet.
    telling: AtomicU32,
}

/// Somebody is about to give the file blocks and to tell of them, until it is dropped.
pub(crate) struct Telling<'s>(&'s AtomicU32);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Space {
    pub(crate) const fn new() -> Self {
        Self { attached: Once::new(), telling: AtomicU32::new(0) }
    }

    pub(crate) fn get(&self) -> Option<&Arc<dyn AddressSpace>> {
        self.attached.get()
    }

    /// From before blocks are reachable until after they were told of.
    pub(crate) fn tell(&self) -> Telling<'_> {
        self.telling.fetch_add(1, Ordering::SeqCst);
        Telling(&self.telling)
    }

    /// Whether blocks that others have made reachable may not have been told of yet; `own` is the caller's telling.
    pub(crate) fn is_untold(&self, own: Option<&Telling<'_>>) -> bool {
        self.telling.load(Ordering::SeqCst) > u32::from(own.is_some()) && !Mended::FoundUntold.is_back()
    }

    /// Tells of blocks of others that were found in `range` and may not have been told of yet, so that nobody who maps the hole sees
    /// it after the caller has returned.
    pub(crate) fn found(&self, range: Range<u64>, by: Publisher) {
        if self.is_untold(None) {
            self.published(range, by);
        }
    }

    pub(crate) fn get_or_attach(
        &self,
        make: impl FnOnce() -> Arc<dyn AddressSpace>,
    ) -> Arc<dyn AddressSpace> {
        self.attached.get_or_init(make).clone()
    }

    /// Runs `change` with nobody mapping `range`.
    pub(crate) fn invalidate(
        &self,
        range: Range<u64>,
        why: Taken,
        change: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        match self.get() {
            Some(space) => space.invalidate(range, why, change),
            None => change(),
        }
    }

    /// Runs `change`, which takes the bytes of `range` and all locks that it needs, as often as leases are in the way and
    /// `wait` says to wait for them: between the attempts, with no lock held, for what it would take by then.
    pub(crate) fn patiently(
        &self,
        range: impl Fn() -> Range<u64>,
        wait: Wait,
        mut change: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        loop {
            match (change(), self.get()) {
                (Err(error), Some(space)) if wait == Wait::Yes && error.refuses(Errno::BUSY) => {
                    space.wait_idle(range())?;
                }
                (done, _) => return done,
            }
        }
    }

    /// Shows a larger size by `change`, and tells of it.
    pub(crate) fn grow(&self, range: Range<u64>, mut change: impl FnMut()) {
        match self.get() {
            Some(space) => space.grow(range, &mut change),
            None => change(),
        }
    }

    /// Whether somebody relies on what leads to his stores.
    pub(crate) fn is_synchronous(&self) -> bool {
        self.get().is_some_and(|space| space.is_synchronous())
    }

    /// Tells that blocks came.
    pub(crate) fn published(&self, range: Range<u64>, by: Publisher) {
        if let Some(space) = self.get()
            && !(by == Publisher::Call && Mended::WriteLeavesPages.is_back())
        {
            space.published(range, by);
        }
    }
}
