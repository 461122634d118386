//! What a mapping can be, what is special about it, and what it is asked for (the constants of
//! include/linux/iomap.h).

use bitflags::bitflags;

/// What a range of a file is (Linux: `IOMAP_HOLE` and its siblings, with the same numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum MapKind {
    /// No blocks: reads as zeros.
    Hole = 0,
    /// Space is promised but no blocks are chosen. Never on ext2.
    Delalloc = 1,
    /// Blocks with data.
    Mapped = 2,
    /// Blocks whose contents do not count yet. Never on ext2.
    Unwritten = 3,
    /// The data is in the inode. Never on ext2.
    Inline = 4,
}

bitflags! {
    /// What is special about a mapping (Linux: `IOMAP_F_*`, same bits).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MapFlags: u16 {
        /// The blocks were allocated by this very call: translations of the hole that was there must
        /// be taken away.
        const NEW = 1;
        /// Something that is needed to find the data is not durable yet: a synchronous mapping has to
        /// fsync before it may store.
        const DIRTY = 2;
        /// The blocks belong to other files too and must be copied before a write. Never on ext2.
        const SHARED = 4;
        /// Several runs of the file system were joined into this mapping.
        const MERGED = 8;
        /// Invalid by the time it is used; the iterator asks again.
        const STALE = 0x200;
    }
}

bitflags! {
    /// What the caller of `iomap_begin` is about to do (Linux: `IOMAP_*`, same bits).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct OpFlags: u32 {
        /// Store: blocks have to be there afterwards.
        const WRITE = 1;
        /// Zero a range: never allocates.
        const ZERO = 2;
        /// Only tell (FIEMAP, SEEK_HOLE): never allocates.
        const REPORT = 4;
        /// On behalf of a page fault.
        const FAULT = 8;
        /// Answer `EAGAIN` rather than wait or allocate.
        const NOWAIT = 32;
        /// The caller loads and stores by itself.
        const DAX = 256;
        /// Ours, with `WRITE | FAULT`: the whole range as one aligned run, or the hole that is there and nothing
        /// allocated. Wished by a fault of 2 MiB, which can use nothing less.
        const UNIT = 0x1_0000;
    }
}
