//! Page faults on a DAX file (`dax_iomap_fault` and what it calls).
//!
//! # Invariants
//! 1. The entry of the range is locked before the block map is looked up and until the translation is
//!    in place.
//! 2. A fault never undoes: what was allocated for it stays, zeroed, whatever becomes of the fault.
//!    Linux truncates in `iomap_end` while it holds the very lock that truncation needs (L2).
//! 3. `pos >= i_size` is `SIGBUS`, decided before any entry is made (point 5 of the mail).
//! 4. A 2 MiB fault that cannot be served says why ([`Fallback`]) and leaves no blocks behind.
//! 5. A store fault that fails leaves no translation of a hole behind, in any address space: the file may have a
//!    block there by then.

mod cow;
mod mkwrite;
mod pmd;
mod pte;

use blockdev::{Access, DaxDevice, PmemSlice};

pub use crate::fallback::Fallback;
pub use crate::fault_result::FaultResult;
#[cfg(feature = "buffer-head")]
pub(crate) use pmd::check as check_fallback;

use crate::compat::{Compat, ReadFaults};
use crate::entry::{DevPage, Order, PAGE_SIZE};
use crate::error::{BadMapping, Error, Result};
use crate::iomap::{Iomap, IomapOps, MapFlags, OpFlags};
use crate::mapping::{DaxMapping, Mark};
use crate::page_table::PageTable;
use crate::trace::{Event, FaultInfo};
use crate::vma::{Sharing, Vma};

/// What the processor wanted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOrLoad {
    /// Load.
    Load,
    /// Store.
    Store,
}

/// A page fault (Linux: `struct vm_fault`).
#[derive(Clone, Copy, Debug)]
pub struct FaultRequest<'a> {
    /// The mapping that was touched.
    pub vma: &'a Vma,
    /// Its page table.
    pub table: &'a dyn PageTable,
    /// The address touched; within the mapping.
    pub address: u64,
    /// What was wanted.
    pub access: StoreOrLoad,
}

impl FaultRequest<'_> {
    /// The file page touched.
    #[must_use]
    pub fn pgoff(&self) -> u64 {
        self.vma.page_at(self.address)
    }

    pub(crate) fn is_store(&self) -> bool {
        self.access == StoreOrLoad::Store
    }

    /// Whether it would store to the file, and nobody may any more. The caller holds `invalidate_lock`.
    pub(crate) fn may_not_store(&self, pages: &DaxMapping) -> bool {
        self.is_store() && self.vma.is_shared() && pages.are_stores_stopped()
    }

    pub(crate) fn info(&self) -> FaultInfo {
        FaultInfo {
            shared: self.vma.is_shared(),
            write: self.is_store(),
            address: self.address,
            vm_start: self.vma.start,
            vm_end: self.vma.end,
            pgoff: self.pgoff(),
        }
    }
}

/// A file whose pages can be faulted in: the inode as fs/dax.c sees it.
pub trait DaxInode: IomapOps {
    /// The file's pages.
    fn pages(&self) -> &DaxMapping;

    /// The memory that its blocks are in.
    fn memory(&self) -> &dyn DaxDevice;

    /// Bytes of the file.
    fn size(&self) -> u64;

    /// Whose behaviour is wanted.
    fn compat(&self) -> &Compat {
        &Compat::FULL
    }

    /// Notes that a mapping is about to be stored to (Linux: `file_update_time` in `page_mkwrite`).
    fn about_to_store(&self) {}

    /// Makes data and metadata of these file pages, both inclusive, durable: what a synchronous mapping
    /// needs before its first store.
    ///
    /// # Errors
    /// The file system's or the device's.
    fn sync_pages(&self, first: u64, last: u64) -> Result<()>;
}

/// Handles a fault of this size, with the locks that a file system takes around it (Linux:
/// `ext2_dax_fault`).
pub fn handle<I: DaxInode + ?Sized>(inode: &I, request: &FaultRequest<'_>, order: Order) -> FaultResult {
    if request.is_store() && request.vma.is_shared() {
        inode.about_to_store();
    }
    let outcome = {
        let _no_truncate = inode.pages().lock_shared();
        if request.may_not_store(inode.pages()) {
            return FaultResult::SIGBUS;
        }
        match order {
            Order::Pte => pte::fault(inode, request),
            Order::Pmd => pmd::fault(inode, request),
        }
    };
    match outcome {
        Outcome::Done(result) => result,
        Outcome::NeedsSync(result, page) => mkwrite::finish_sync_fault(inode, request, order, page) | result,
    }
}

/// What the part of a fault under `invalidate_lock` came to.
enum Outcome {
    Done(FaultResult),
    /// Everything is there, but block map or size have to be made durable before this page is mapped.
    NeedsSync(FaultResult, DevPage),
}

/// Tells that the file system was asked and what it said.
pub(crate) fn note_answer<I: DaxInode + ?Sized>(
    inode: &I,
    pos: u64,
    length: u64,
    flags: OpFlags,
    iomap: &Iomap<I::Private>,
) {
    inode.pages().emit(|| Event::IomapIter {
        pos,
        length,
        flags,
        offset: iomap.offset,
        answered: iomap.length,
        kind: iomap.kind,
        map_flags: iomap.flags,
        addr: iomap.addr,
    });
}

/// The page of the device that holds file byte `pos`. The one place where a file offset becomes a page:
/// the expression is only right where `addr` and `offset` are congruent modulo the page size, so that
/// is checked (point 2 of the mail).
///
/// # Errors
/// [`BadMapping::BadAddress`] when there are no blocks, or addresses and offsets do not fit.
pub fn device_page<P>(iomap: &Iomap<P>, pos: u64) -> Result<DevPage> {
    let bad = BadMapping::BadAddress { addr: iomap.addr };
    let addr = iomap.addr_of(pos).ok_or(bad)?;
    if addr % PAGE_SIZE != pos % PAGE_SIZE {
        return Err(bad.into());
    }
    DevPage::new(addr / PAGE_SIZE).ok_or_else(|| bad.into())
}

/// The memory of one page.
fn page_memory(device: &dyn DaxDevice, page: DevPage, access: Access) -> Result<PmemSlice<'_>> {
    Ok(device.direct_access(page.get(), 1, access)?)
}

/// Whether this fault has to wait for metadata (Linux: `dax_fault_is_synchronous`).
fn is_synchronous<P>(request: &FaultRequest<'_>, flags: OpFlags, iomap: &Iomap<P>) -> bool {
    flags.contains(OpFlags::WRITE)
        && request.vma.sharing == Sharing::Synchronous
        && iomap.flags.contains(MapFlags::DIRTY)
}

/// Whether the entry of a fault becomes dirty.
fn mark(compat: &Compat, flags: OpFlags, synchronous: bool) -> Mark {
    let stores = flags.contains(OpFlags::WRITE) || compat.read_faults == ReadFaults::Dirty;
    if stores && !synchronous { Mark::Dirty } else { Mark::AsItIs }
}

/// What an error of the file system or the device is to who touched the page.
fn result_of(error: &Error) -> FaultResult {
    if error.is(crate::error::Errno::NOMEM) { FaultResult::OOM } else { FaultResult::SIGBUS }
}
