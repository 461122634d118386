//! Keeping blocks where they are while somebody uses their memory directly (Linux: elevated page
//! references and `dax_layout_busy_page`).
//!
//! A lease names a range of file pages. Truncation and punching first look for leases of their range,
//! under `invalidate_lock` held exclusively; if there are any they drop the lock, wait, and look again.
//! A lease is taken under the same lock held shared, so it never slips in between. A thread that took the lease
//! in the way, or used it last, does not wait for itself: it is refused with `EBUSY`.
//!
//! This is for file systems on the DAX layer; of a file of an ext2, [`File::lease`](crate::File::lease) is the way.
//!
//! ```
//! use std::sync::Arc;
//!
//! use blockdev::{BlockDevice, RamDevice};
//! use ext2_dax::compat::Layouts;
//! use ext2_dax::lease::PageLease;
//! use ext2_dax::mapping::DaxMapping;
//! use ext2_dax::trace::{InodeId, Tracer};
//! use ext2_dax::truncate::{Taken, take_pages};
//! use ext2_dax::{Errno, Wait, WaitTable};
//!
//! let device = RamDevice::new(1 << 20)?;
//! let memory = device.dax().ok_or("it is memory")?;
//! let pages = Arc::new(DaxMapping::new(InodeId::default(), Arc::new(WaitTable::new()), Arc::new(Tracer::new())));
//! let truncate = |freed: &mut bool| {
//!     take_pages(&pages, memory, 0..u64::MAX, Wait::No, Layouts::Broken, Taken::Truncated, || *freed = true)
//! };
//! // The first four pages of a file; what the file has there is looked up while nothing can go.
//! let (lease, _) = PageLease::take(&pages, 0..4, || "its blocks");
//! let mut freed = false;
//! assert_eq!(truncate(&mut freed).unwrap_err().errno(), Errno::BUSY);
//! assert!(!freed);
//! drop(lease);
//! truncate(&mut freed)?;
//! assert!(freed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::ops::Range;
use std::sync::Arc;

use crate::leases::LeaseId;
use crate::mapping::DaxMapping;

/// File pages that stay where they are until this is dropped.
#[derive(Debug)]
pub struct PageLease {
    mapping: Arc<DaxMapping>,
    pages: Range<u64>,
    id: LeaseId,
}

impl PageLease {
    /// Leases file pages. What of them the file has is for the caller to find out, now: `look` runs
    /// while nothing can be taken away.
    pub fn take<T>(mapping: &Arc<DaxMapping>, pages: Range<u64>, look: impl FnOnce() -> T) -> (Self, T) {
        let _no_truncate = mapping.lock_shared();
        let id = mapping.leases().take(pages.clone());
        let lease = Self { mapping: Arc::clone(mapping), pages, id };
        let seen = look();
        (lease, seen)
    }

    /// Notes that this thread uses the lease, and runs `look` while nothing can be taken from the file: blocks may have
    /// come since the last look.
    pub fn look_again<T>(&self, look: impl FnOnce() -> T) -> T {
        let _no_truncate = self.mapping.lock_shared();
        self.mapping.leases().used(self.id);
        look()
    }

    /// Says which bytes of the device the holder may store to: those of the leased pages, each time all of them. They
    /// are written back by every [`writeback_range`](crate::writeback::writeback_range) of these pages from now on, and
    /// once more after the lease is gone.
    pub fn lend(&self, bytes: Vec<Range<u64>>) {
        self.mapping.leases().lend(self.id, bytes);
    }

    /// The file pages.
    #[must_use]
    pub fn pages(&self) -> Range<u64> {
        self.pages.clone()
    }
}

impl Drop for PageLease {
    fn drop(&mut self) {
        self.mapping.leases().release(self.id);
    }
}
