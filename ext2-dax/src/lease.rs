//! Keeping blocks where they are while somebody uses their memory directly (Linux: elevated page
//! references and `dax_layout_busy_page`).
//!
//! A lease names a range of file pages. Truncation and punching first look for leases of their range,
//! under `invalidate_lock` held exclusively; if there are any they drop the lock, wait, and look again.
//! A lease is taken under the same lock held shared, so it never slips in between.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::mapping::DaxMapping;
use crate::sync::{Condvar, Mutex};

/// The leases of one file.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<Held>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    ranges: BTreeMap<u64, Range<u64>>,
}

/// The name of a lease within its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseId(u64);

impl Leases {
    pub(crate) fn new() -> Self {
        Self { held: Mutex::new(Held::default()), released: Condvar::new() }
    }

    /// Records a lease of file pages. The caller holds `invalidate_lock` shared.
    pub(crate) fn take(&self, pages: Range<u64>) -> LeaseId {
        let mut held = self.held.lock();
        let id = held.next;
        held.next += 1;
        held.ranges.insert(id, pages);
        LeaseId(id)
    }

    /// Gives a lease back and wakes who waits for it.
    pub(crate) fn release(&self, id: LeaseId) {
        self.held.lock().ranges.remove(&id.0);
        self.released.notify_all();
    }

    /// Whether any of the file pages is leased.
    pub(crate) fn is_busy(&self, pages: &Range<u64>) -> bool {
        self.held.lock().touch(pages)
    }

    /// Sleeps until none of the file pages is leased. The caller holds no lock that a holder of a lease
    /// may need; a new lease may be there when this returns.
    pub(crate) fn wait_idle(&self, pages: &Range<u64>) {
        let mut held = self.held.lock();
        while held.touch(pages) {
            held = self.released.wait(held);
        }
    }
}

impl Held {
    fn touch(&self, pages: &Range<u64>) -> bool {
        self.ranges.values().any(|lease| lease.start < pages.end && pages.start < lease.end)
    }
}

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
