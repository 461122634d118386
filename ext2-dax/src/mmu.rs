//! Where translations live: what a fault handler needs of a page table, and what a page table needs of
//! a file. [`soft`] is a page table in software; [`host`] maps into the address space of this process.
//!
//! A fault handler never names an address space by type: it is given a [`Vma`] and a [`PageTable`], and
//! answers with bits. So the entry logic is the same whether the table is software or the host's.

#[cfg(all(target_os = "linux", not(miri), not(loom)))]
pub mod host;
pub mod soft;

use std::fmt::Debug;
use std::sync::Arc;

use blockdev::DaxDevice;
use ext2_core::Barrier;

use crate::entry::{DevPage, PAGE_SIZE};
use crate::error::{Errno, Error, Result};
use crate::fault::{FaultRequest, FaultResult};
use crate::mapping::DaxMapping;
pub use crate::page_table::{CowPage, PageTable, Slot, SlotTaken, Target, Writable};
pub use crate::vma::{Protection, Sharing, Vma};

/// A run of file pages that are one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First file page.
    pub first: u64,
    /// Pages.
    pub count: u64,
    /// The device's page that the first one is; none for a hole.
    pub device: Option<DevPage>,
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

    /// Whether the file is open for writing, so that a shared mapping for loads alone is one of which `msync` syncs the file.
    fn is_open_for_writing(&self) -> bool {
        true
    }

    /// Makes what was stored to these file pages, both inclusive, durable (`msync(MS_SYNC)`).
    ///
    /// # Errors
    /// The file system's or the device's.
    fn msync(&self, first: u64, last: u64) -> Result<()>;

    /// Makes what leads to its pages durable no later than what is stored after.
    ///
    /// # Errors
    /// The device's.
    fn fence(&self, barrier: Barrier) -> Result<()> {
        Ok(barrier.fence(self.memory())?)
    }

    /// Whether another may be giving the file blocks at this moment that not all who map the hole have been told of: who finds them
    /// tells of them before he lets anybody store to them.
    fn has_untold(&self) -> bool {
        false
    }

    /// What the file pages from `first` to before `end` are, in order, as far as the file goes: `most` runs at most. Asks the
    /// block map and takes no lock.
    ///
    /// # Errors
    /// The image's; `EOPNOTSUPP` for a file that is only mapped page by page, as faults ask.
    fn layout(&self, first: u64, end: u64, most: usize) -> Result<Vec<Extent>> {
        let _ = (first, end, most);
        Err(Error::refused(Errno::OPNOTSUPP, "the file does not tell where its pages are"))
    }

    /// The first page that is wholly past the end of the file, or past the one that it is about to have.
    fn end_page(&self) -> u64 {
        u64::MAX
    }

    /// Notes that a mapping was stored to without a fault (Linux: `file_update_time`).
    fn stored(&self) {}

    /// Whether a mapping of this kind is allowed.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for synchronous mappings where they are not offered; `EACCES` and the like.
    fn check_map(&self, sharing: Sharing, protection: Protection) -> Result<()>;
}

/// Syncs `len` bytes from `offset` of a mapping of `file`, rounded up to pages, where that syncs the file (`msync(MS_SYNC)`).
///
/// # Errors
/// `EINVAL` for an offset that is no multiple of the page size; `ENOMEM`, after what there is was written, for a range that ends
/// past the mapping; the file's.
fn msync(file: &dyn VmFile, vma: &Vma, offset: u64, len: u64) -> Result<()> {
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Error::refused(Errno::INVAL, "msync needs a page boundary"));
    }
    let beyond = || Error::refused(Errno::NOMEM, "the range is not all mapped");
    let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or_else(beyond)?;
    let end = offset.checked_add(len).ok_or_else(beyond)?;
    let size = vma.end - vma.start;
    let last = end.min(size);
    if offset < last && vma.is_synced(file.is_open_for_writing()) {
        let first = vma.pgoff + offset / PAGE_SIZE;
        file.msync(first, vma.pgoff + last / PAGE_SIZE - 1)?;
    }
    if end > size && len > 0 { Err(beyond()) } else { Ok(()) }
}
