//! Where translations live: what a fault handler needs of a page table, and what a page table needs of
//! a file. [`soft`] is a page table in software.
//!
//! A fault handler never names an address space by type: it is given a [`Vma`] and a [`PageTable`], and
//! answers with bits. So the entry logic is the same whether the table is software or the host's.

pub mod soft;

use std::fmt::Debug;
use std::sync::Arc;

use blockdev::DaxDevice;

use crate::entry::{DevPage, PAGE_SIZE, PMD_SIZE};
use crate::error::Result;
use crate::fault::{FaultRequest, FaultResult};
use crate::mapping::DaxMapping;

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

    /// The file page mapped at `address`, which lies in the range.
    #[must_use]
    pub fn page_at(&self, address: u64) -> u64 {
        self.pgoff + (address.saturating_sub(self.start)) / PAGE_SIZE
    }

    /// The addresses at which file pages `start..end` are mapped, cut to the range; `None` if there are
    /// none.
    #[must_use]
    pub fn addresses_of(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let last = self.pgoff + (self.end - self.start) / PAGE_SIZE;
        let (start, end) = (start.max(self.pgoff), end.min(last));
        (start < end).then(|| {
            (self.start + (start - self.pgoff) * PAGE_SIZE, self.start + (end - self.pgoff) * PAGE_SIZE)
        })
    }

    /// Whether file offsets and addresses agree modulo 2 MiB, so that whole units can be mapped.
    #[must_use]
    pub fn has_colour(&self) -> bool {
        (self.start / PAGE_SIZE) % (PMD_SIZE / PAGE_SIZE) == self.pgoff % (PMD_SIZE / PAGE_SIZE)
    }
}

/// What a translation leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Zeros that cannot be stored to.
    Zero,
    /// A page of the device, the first one of a 2 MiB translation.
    Page(DevPage),
}

/// Whether a translation lets stores through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    /// A store faults.
    No,
    /// A store reaches the page.
    Yes,
}

/// What hangs in the place of a page table that covers 2 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Nothing.
    None,
    /// A table of 4 KiB translations. No 2 MiB fault is tried while it is there.
    Table,
    /// One translation of 2 MiB.
    Huge,
}

/// A 2 MiB translation was not installed because something hangs in its place already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotTaken;

/// A page of private memory, copied from a file's page.
pub type CowPage = Box<[u8; PAGE_SIZE as usize]>;

/// A page table, as a fault handler uses it. All addresses lie in the VMA that the fault was for.
pub trait PageTable: Debug {
    /// What hangs in the 2 MiB place around `address`.
    fn slot(&self, address: u64) -> Slot;

    /// Whether there is a huge zero page to map.
    fn has_huge_zero_page(&self) -> bool;

    /// Maps the page at `address`; replaces a translation that was there.
    fn map_pte(&self, address: u64, target: Target, writable: Writable);

    /// Maps the 2 MiB unit around `address`. A translation of 2 MiB to the same place that was there is
    /// made writable if asked.
    ///
    /// # Errors
    /// `SlotTaken`.
    fn map_pmd(&self, address: u64, target: Target, writable: Writable) -> Result<(), SlotTaken>;

    /// Maps a private copy at `address`.
    fn map_copy(&self, address: u64, page: CowPage);

    /// Takes the 2 MiB translation around `address` away, if there is one (Linux: `split_huge_pmd` of a
    /// file mapping).
    fn split(&self, address: u64);
}

/// What an address space calls when a mapping needs its file (Linux: `struct vm_operations_struct`).
pub trait VmFile: Debug + Send + Sync {
    /// The file's pages.
    fn pages(&self) -> &Arc<DaxMapping>;

    /// The memory that device pages are.
    fn memory(&self) -> &dyn DaxDevice;

    /// Handles a fault of 4 KiB: a missing page, or a store to a read-only one.
    fn fault(&self, request: &FaultRequest<'_>) -> FaultResult;

    /// Whether 2 MiB faults are handled at all.
    fn has_huge_faults(&self) -> bool;

    /// Handles a fault of 2 MiB.
    fn huge_fault(&self, request: &FaultRequest<'_>) -> FaultResult;

    /// Makes what was stored to these file pages, both inclusive, durable (`msync(MS_SYNC)`).
    ///
    /// # Errors
    /// The file system's or the device's.
    fn msync(&self, first: u64, last: u64) -> Result<()>;

    /// Whether a mapping of this kind can be had.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for synchronous mappings where they are not offered; `EACCES` and the like.
    fn check_map(&self, sharing: Sharing, protection: Protection) -> Result<()>;
}
