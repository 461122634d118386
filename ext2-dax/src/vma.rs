//! A range of an address space that maps a range of a file.

use crate::entry::{PAGE_SIZE, PMD_SIZE};

/// With whom the stores to a mapping are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// With everybody (`MAP_SHARED`).
    Shared,
    /// With everybody, and durable the moment they are flushed: block map and size are durable before
    /// the first store to a page (`MAP_SHARED_VALIDATE | MAP_SYNC`).
    Synchronous,
    /// With nobody: a store copies its page (`MAP_PRIVATE`).
    Private,
}

/// What may be done through a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Load.
    ReadOnly,
    /// Load and store.
    ReadWrite,
}

/// One range of an address space that maps a range of a file (Linux: `struct vm_area_struct`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vma {
    /// First address; a multiple of the page size.
    pub start: u64,
    /// First address after; a multiple of the page size.
    pub end: u64,
    /// File page mapped at `start`.
    pub pgoff: u64,
    /// With whom stores are shared.
    pub sharing: Sharing,
    /// What may be done.
    pub protection: Protection,
}

impl Vma {
    /// Linux's `VM_SHARED`: a store reaches the file. `mmap` clears it when the file was opened for
    /// reading only, so a shared read-only mapping counts as private in this sense.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.sharing != Sharing::Private && self.protection == Protection::ReadWrite
    }

    /// Whether `msync` syncs the file (Linux: `vfs_fsync_range` where there is `VM_SHARED`, which a mapping for loads keeps of a
    /// file that is open for writing).
    pub(crate) fn is_synced(&self, is_open_for_writing: bool) -> bool {
        self.is_shared() || self.sharing != Sharing::Private && is_open_for_writing
    }

    /// The file page mapped at `address`, which lies in the range.
    #[must_use]
    pub fn page_at(&self, address: u64) -> u64 {
        self.pgoff.saturating_add(address.saturating_sub(self.start) / PAGE_SIZE)
    }

    /// The addresses at which file pages `start..end` are mapped, cut to the range; `None` if there are
    /// none.
    #[must_use]
    pub fn addresses_of(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let last = self.pgoff.saturating_add(self.end.saturating_sub(self.start) / PAGE_SIZE);
        let (start, end) = (start.max(self.pgoff), end.min(last));
        // OK to compute: what is mapped lies between `start` and `end`, which are 64-bit numbers.
        let address = |page: u64| self.start + (page - self.pgoff) * PAGE_SIZE;
        (start < end).then(|| (address(start), address(end)))
    }

    /// Whether file offsets and addresses agree modulo 2 MiB, so that whole units can be mapped.
    #[must_use]
    pub fn has_colour(&self) -> bool {
        (self.start / PAGE_SIZE) % (PMD_SIZE / PAGE_SIZE) == self.pgoff % (PMD_SIZE / PAGE_SIZE)
    }
}
