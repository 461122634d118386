//! The question a file system is asked about its block map, and the answer (include/linux/iomap.h).
//!
//! Nothing here knows of DAX, pages or faults: point 3 of the founding mail asks that the iterator be
//! one thing and what is done with a mapping another.
//!
//! # The contract
//! Of an answer:
//! 1. It covers the byte asked: `offset <= pos < offset + length`. It is never empty.
//! 2. It is **in full for the range asked**: a hole or a run is cut only where the request ends, or
//!    where the next byte of the file is something else. Point 6 of the mail rests on this.
//! 3. `addr` is the device byte of `offset`, present exactly when blocks are there. `addr` and `offset` are the same
//!    modulo the page size.
//! 4. Without `WRITE`, nothing is allocated. With it, the answer has blocks; a hole is an answer to
//!    [`OpFlags::UNIT`] only.
//!
//! Of new blocks, whose contents are whatever others left there:
//!
//! 5. **For a fault** (`FAULT`), `begin` zeroes them on the device before it makes them the file's: the page is mapped, and
//!    seen by others, before `end`. They stay the file's whatever becomes of the fault, which never undoes. With
//!    [`OpFlags::UNIT`] they are all of the range in one run that is aligned to 2 MiB, or there are none.
//! 6. **For a write**, nobody but the file system zeroes either. `end` says which bytes were filled: of the blocks that they
//!    touch the rest is zero before the blocks can be found, and blocks that they do not touch are given back. A file
//!    system that zeroes in `begin` as for a fault, and keeps what it gave, is right too, and slower.
//! 7. `NEW` says that there was a hole before. Whoever maps it is made to look again: after `begin` for a fault, after `end`
//!    for a write, so that blocks have to be found from then on. A file system that tells its pages itself
//!    (`DaxMapping::invalidate`) need not say it of writes.
//!
//! Of the size:
//!
//! 8. **`end` of a write raises it** to `pos + written`, if that is more, after the bytes are the file's. What lies between
//!    the old end and `pos` is zero before. A fault never changes the size; a fault past it does not arrive.
//! 9. What `end` was told as written is reported to the caller: it stays, unless `end` fails.
//!
//! Of taking away: blocks and pages go under `truncate::take_pages`.
//!
//! `conformance::check` holds a file system to all this.

use crate::error::Result;
pub use crate::map_kind::{MapFlags, MapKind, OpFlags};

/// A range of a file and where it is on the device (Linux: `struct iomap`).
#[derive(Debug)]
pub struct Iomap<P = ()> {
    /// Device byte of `offset`; `None` where there are no blocks.
    pub addr: Option<u64>,
    /// First byte of the file that this describes; may lie before the byte asked.
    pub offset: u64,
    /// Bytes from `offset`.
    pub length: u64,
    /// What the range is.
    pub kind: MapKind,
    /// What is special about it.
    pub flags: MapFlags,
    /// The file system's own token from `begin` to `end`: for ext2 the blocks that no pointer leads to
    /// yet.
    pub private: Option<P>,
}

impl<P> Iomap<P> {
    /// A hole of `length` bytes from `offset`.
    #[must_use]
    pub fn hole(offset: u64, length: u64) -> Self {
        Self { addr: None, offset, length, kind: MapKind::Hole, flags: MapFlags::empty(), private: None }
    }

    /// Blocks from device byte `addr`.
    #[must_use]
    pub fn mapped(offset: u64, length: u64, addr: u64) -> Self {
        Self {
            addr: Some(addr),
            offset,
            length,
            kind: MapKind::Mapped,
            flags: MapFlags::empty(),
            private: None,
        }
    }

    /// The first byte after the mapping; `None` if that is no 64-bit number.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }

    /// Device byte of file byte `pos`, where blocks are there and `pos` lies within.
    #[must_use]
    pub fn addr_of(&self, pos: u64) -> Option<u64> {
        self.addr?.checked_add(pos.checked_sub(self.offset)?)
    }
}

/// A file whose block map can be asked (Linux: `struct iomap_ops` and the inode it is called with).
///
/// For each `begin` that succeeded the caller calls `end` exactly once, with the same `pos`, and with
/// what it got. [`IomapIter`](crate::iter::IomapIter) is the only caller in this crate and keeps to it
/// on every way out.
pub trait IomapOps {
    /// What `begin` hands to `end`.
    type Private;

    /// Finds, and for [`OpFlags::WRITE`] makes, the mapping of the file at byte `pos`. `len` is how many
    /// bytes from there the caller could use, at least 1; the answer may be longer or shorter.
    ///
    /// # Errors
    /// Whatever keeps the file system from answering; `end` is then not called.
    fn begin(&self, pos: u64, len: u64, flags: OpFlags) -> Result<Iomap<Self::Private>>;

    /// Finishes with a mapping. `len` is the part of the request that the mapping covered and `written`
    /// how many bytes of that were done, from `pos` on; 0 after an error.
    ///
    /// # Errors
    /// What kept the file system from finishing. The iterator passes it on only when nothing was done,
    /// unless the bytes done are lost with it.
    fn end(
        &self,
        pos: u64,
        len: u64,
        written: u64,
        flags: OpFlags,
        iomap: Iomap<Self::Private>,
    ) -> Result<()>;
}
