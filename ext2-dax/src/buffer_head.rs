//! The data path of Linux 4.8: `get_block` and a buffer head, made to look like direct I/O. Kept beside
//! the new one so that the two can be compared; nothing uses it unless it is asked for.
//!
//! The founding mail is about what is wrong here. A buffer head says *mapped* or nothing; when it says
//! nothing, its size is whatever the caller had put in. So the callers guess: no flag, one block
//! ([`HoleSize::Untold`]). The patch under discussion made ext2 say "one block"
//! ([`HoleSize::OneBlock`]), which is honest and as useless for 2 MiB. [`HoleSize::InFull`] is what the
//! mail's point 6 asks for, and what the new path does.
//!
//! Differences to the new path that are meant, and nothing else: reads exclude each other
//! ([`DioFlags::LOCKING`]), every operation is counted so that truncation waits for the count, holes
//! have the size that [`HoleSize`] says, and a 2 MiB fault that finds too little has allocated already.
//! Where Linux 4.8 put pages of the page cache under holes, the zero page is mapped. Synchronous mappings are refused: Linux
//! had them only with iomap, and no fault fences here.
//!
//! ```
//! use ext2_core::Follow;
//! use ext2_dax::buffer_head::HoleSize;
//! use ext2_dax::{DataPath, DaxFs, DaxOptions, File, OpenFor};
//! # let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(16 << 20)?, &Default::default())?;
//!
//! fs.write("hole", "")?;
//! let asked = |path| -> ext2_dax::Result<u64> {
//!     let dax = DaxFs::new(fs.clone(), DaxOptions { path, ..DaxOptions::default() });
//!     let file = File::open(&dax, fs.resolve("hole", Follow::Yes)?, OpenFor::Writing)?;
//!     file.truncate(1 << 20, ext2_dax::Wait::Yes)?;
//!     file.read_at(0, &mut vec![0; 1 << 20])?;
//!     Ok(dax.asked().calls)
//! };
//! // A hole of 256 blocks: asked block by block there, and once here.
//! assert!(asked(DataPath::BufferHead(HoleSize::OneBlock))? >= 256);
//! assert_eq!(asked(DataPath::Iomap)?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod fault;
mod io;
mod pmd;

pub use crate::dio::DioCount;
pub(crate) use io::{do_io_read, do_io_write};

use bitflags::bitflags;

use crate::entry::{Order, PAGE_SIZE};
use crate::error::Result;
use crate::fault::{DaxInode, FaultRequest, FaultResult};

/// Handles a fault of this size, with the locks that a file system takes around it (`ext2_dax_fault`
/// and `ext2_dax_pmd_fault` of Linux 4.8; `dax_sem` was what is `invalidate_lock` now).
pub(crate) fn handle<I: GetBlock + ?Sized>(
    inode: &I,
    request: &FaultRequest<'_>,
    order: Order,
) -> FaultResult {
    if request.is_store() && request.vma.is_shared() {
        inode.about_to_store();
    }
    let _no_truncate = inode.pages().lock_shared();
    if request.may_not_store(inode.pages()) {
        return FaultResult::SIGBUS;
    }
    match order {
        Order::Pte => fault::fault(inode, request),
        Order::Pmd => pmd::pmd_fault(inode, request),
    }
}

/// What a buffer head says about the size of a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoleSize {
    /// Nothing: the size is left at what was asked, and the caller must not believe it (Linux 4.8).
    Untold,
    /// One block (the patch that the mail answers).
    OneBlock,
    /// As much of the request as is hole.
    InFull,
}

bitflags! {
    /// What a buffer head says besides numbers.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct BhState: u32 {
        /// `blocknr` is where the data is.
        const MAPPED = 1;
        /// `size` counts although no other flag is set: what the patch makes true.
        const SIZED = 2;
    }
}

bitflags! {
    /// How `dax_do_io` is to behave like direct I/O.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DioFlags: u32 {
        /// Reads lock the inode exclusively.
        const LOCKING = 1;
        /// The operation is not counted in.
        const SKIP_DIO_COUNT = 2;
    }
}

/// Whether `get_block` may allocate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// Only look.
    No,
    /// Allocate, zeroed, where there is a hole, for a call that writes.
    Yes,
    /// The same for a fault, which holds the entry of the pages.
    ForFault,
}

/// The question and the answer in one (Linux: `struct buffer_head` as DAX used it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferHead {
    /// What is true of it.
    pub state: BhState,
    /// Device byte of the first block, where it is mapped.
    pub addr: u64,
    /// In: bytes the caller could use. Out: bytes that are contiguous, if the state says so.
    pub size: u64,
}

impl BufferHead {
    /// A question for `size` bytes.
    fn ask(size: u64) -> Self {
        Self { size, ..Self::default() }
    }

    fn is_mapped(&self) -> bool {
        self.state.contains(BhState::MAPPED)
    }

    /// Whether the size may be believed (Linux: `buffer_size_valid`).
    fn has_size(&self) -> bool {
        !self.state.is_empty()
    }

    /// The bytes that may be believed: one block, if nothing is said.
    pub(crate) fn believed(&self) -> u64 {
        if self.has_size() { self.size } else { PAGE_SIZE }
    }
}

/// A file system that answers with buffer heads.
pub(crate) trait GetBlock: DaxInode {
    /// Finds file block `block`, for as many bytes as `bh.size` says and are contiguous.
    fn get_block(&self, block: u64, bh: &mut BufferHead, create: Create) -> Result<()>;

    /// Tells who maps a hole in these pages of blocks that a fault has found there and another is just giving the file: what is
    /// mapped for a load may be stored to without another fault.
    fn tell_found(&self, page: u64, count: u64);

    /// Runs `body` with the inode locked for itself alone.
    fn locked(&self, body: &mut dyn FnMut());

    /// Who is inside `dax_do_io`.
    fn dio_count(&self) -> &DioCount;

    /// Takes back what a failed write allocated past the end of the file (Linux: `ext2_write_failed`).
    fn write_failed(&self, end: u64);
}
