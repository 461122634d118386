//! Where translations live: what a fault handler needs of a page table, and what a page table needs of
//! a file. [`soft`] is a page table in software.
//!
//! A fault handler never names an address space by type: it is given a [`Vma`] and a [`PageTable`], and
//! answers with bits. So the entry logic is the same whether the table is software or the host's.

pub mod soft;

use std::fmt::Debug;
use std::sync::Arc;

use blockdev::DaxDevice;

use crate::error::Result;
use crate::fault::{FaultRequest, FaultResult};
use crate::mapping::DaxMapping;
pub use crate::page_table::{CowPage, PageTable, Slot, SlotTaken, Target, Writable};
pub use crate::vma::{Protection, Sharing, Vma};

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

    /// Whether a mapping of this kind is allowed.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for synchronous mappings where they are not offered; `EACCES` and the like.
    fn check_map(&self, sharing: Sharing, protection: Protection) -> Result<()>;
}
