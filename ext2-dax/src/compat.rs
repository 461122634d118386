//! Every difference between this library and the ext2 of Linux 6.1, as a type.
//!
//! A field is a choice, its variants say what each side does, its doc comment says why ours differs.
//! The L-numbers are those of the list of Linux's known problems in `docs/conversion.md`.
//!
//! A hole of 2 MiB, read page by page, is one fault here and 512 there:
//!
//! ```
//! use ext2_core::Follow;
//! use ext2_dax::mmu::soft::{MapRequest, SoftMmu};
//! use ext2_dax::mmu::{Protection, Sharing};
//! use ext2_dax::{Compat, DaxFs, DaxOptions, File, OpenFor};
//!
//! let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(16 << 20)?, &Default::default())?;
//! fs.write("hole", "")?;
//! for (compat, faults) in [(Compat::FULL, 1), (Compat::LINUX_6_1, 512)] {
//!     let dax = DaxFs::new(fs.clone(), DaxOptions { compat, ..DaxOptions::default() });
//!     let file = File::open(&dax, fs.resolve("hole", Follow::Yes)?, OpenFor::Writing)?;
//!     file.truncate(2 << 20, ext2_dax::Wait::Yes)?;
//!
//!     let mmu = SoftMmu::new();
//!     let (sharing, protection) = (Sharing::Shared, Protection::ReadOnly);
//!     let map = file.map(&mmu, &MapRequest { offset: 0, len: 2 << 20, sharing, protection, colour: 0 })?;
//!     for page in 0..512 {
//!         assert_eq!(map.load(page * 4096), Ok(0));
//!     }
//!     let counters = mmu.counters();
//!     assert_eq!(counters.pte_faults + counters.pmd_faults - counters.pmd_fallbacks, faults);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// How much of a hole `iomap_begin` reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holes {
    /// All of the range asked, as point 6 of the mail wants.
    Full,
    /// One block, whatever was asked.
    OneBlock,
}

/// Whether 2 MiB faults are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PmdFaults {
    /// Tried first, falling back to 4 KiB for a named reason.
    Tried,
    /// Linux removed ext2's handler in 4.10.
    Never,
}

/// What a read fault does to the dirty mark of its entry (L13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadFaults {
    /// Nothing: only stores make dirty.
    Clean,
    /// Sets it, so that write-back flushes pages, even the zero page, that nobody stored to.
    Dirty,
}

/// When the blocks of a write(2) into a hole become part of the file, and what a short copy takes back
/// (L1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Publish {
    /// When the bytes are in them: `iomap_end` publishes what was written and frees the rest. `i_size`
    /// rises with each mapping that is done, so nothing reported is ever taken back.
    AfterData,
    /// When they are allocated. `i_size` rises when the whole call is over; a short copy frees
    /// everything past the old `i_size`, the bytes just reported included.
    AtBegin,
}

/// What happens to the bytes between the old end of file and the end of its block when the file grows
/// (L6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Growth {
    /// They are zeroed first: a mapping may have stored to them, before or while the file was cut there
    /// (L5).
    ZeroTail,
    /// They are left, and become part of the file.
    KeepTail,
}

/// What read(2) of a hole into a buffer that cannot be written says (L7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoleIntoBadBuffer {
    /// `EFAULT`.
    Fault,
    /// 0 bytes, which means end of file.
    EndOfFile,
}

/// Whether truncation waits for who leases the blocks (L4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layouts {
    /// It waits, or says `EBUSY` when asked not to.
    Broken,
    /// It frees them all the same.
    Ignored,
}

/// What `SEEK_DATA` and `SEEK_HOLE` look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seeks {
    /// The block map.
    BlockMap,
    /// Nothing: all is data up to the end of file, as `generic_file_llseek` has it.
    EndOfFile,
}

/// Whether a mapping may be synchronous (`MAP_SYNC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncMappings {
    /// Yes: the file system knows whether block map and size are durable.
    Offered,
    /// No: ext2 in Linux never promised it.
    Refused,
}

/// How many blocks a write asks for at once (L14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteBlocks {
    /// Those that it touches.
    Touched,
    /// As many as its length makes, wherever in its first block it begins: one fewer, often, and the rest in a
    /// second round. To be seen where the caller's buffer faults before that.
    Length,
}

/// How far one answer of the block map goes (L15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Runs {
    /// To the end of the run, or of the request.
    InFull,
    /// To the end of the array of pointers, too: the inode's own twelve, or an indirect block. What a write then asks
    /// for first is no more than that.
    OneArray,
}

/// All the choices together. [`Compat::FULL`] is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compat {
    /// Point 6 of the mail: without the length of a hole no 2 MiB zero page can be mapped, and each
    /// 4 KiB of a hole costs a fault and a call.
    pub holes: Holes,
    /// With whole holes and aligned runs a 2 MiB fault succeeds, so it is worth trying.
    pub pmd_faults: PmdFaults,
    /// Write-back should find what was stored and nothing else.
    pub read_faults: ReadFaults,
    /// Linux loses bytes that it reported as written when a buffer faults half-way.
    pub publish: Publish,
    /// Bytes past the end of a file must never be seen.
    pub growth: Growth,
    /// A bad buffer is not the end of the file.
    pub hole_into_bad_buffer: HoleIntoBadBuffer,
    /// Freed blocks under a lease are soon another file's.
    pub layouts: Layouts,
    /// The map is there to be asked.
    pub seeks: Seeks,
    /// See [`SyncMappings::Offered`].
    pub sync_mappings: SyncMappings,
    /// A write that is asked for once is best answered once.
    pub write_blocks: WriteBlocks,
    /// A run that ends at each array of pointers is never 2 MiB long where it counts.
    pub runs: Runs,
}

impl Compat {
    /// This library's own behaviour.
    pub const FULL: Self = Self {
        holes: Holes::Full,
        pmd_faults: PmdFaults::Tried,
        read_faults: ReadFaults::Clean,
        publish: Publish::AfterData,
        growth: Growth::ZeroTail,
        hole_into_bad_buffer: HoleIntoBadBuffer::Fault,
        layouts: Layouts::Broken,
        seeks: Seeks::BlockMap,
        sync_mappings: SyncMappings::Offered,
        write_blocks: WriteBlocks::Touched,
        runs: Runs::InFull,
    };

    /// Linux 6.1's ext2, warts included; what the recordings in `testdata/linux-6.1` show.
    pub const LINUX_6_1: Self = Self {
        holes: Holes::OneBlock,
        pmd_faults: PmdFaults::Never,
        read_faults: ReadFaults::Dirty,
        publish: Publish::AtBegin,
        growth: Growth::KeepTail,
        hole_into_bad_buffer: HoleIntoBadBuffer::EndOfFile,
        layouts: Layouts::Ignored,
        seeks: Seeks::EndOfFile,
        sync_mappings: SyncMappings::Refused,
        write_blocks: WriteBlocks::Length,
        runs: Runs::OneArray,
    };
}

impl Default for Compat {
    fn default() -> Self {
        Self::FULL
    }
}
