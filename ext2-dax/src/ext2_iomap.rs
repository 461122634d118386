//! iomap over the block map of ext2 (`ext2_iomap_begin`, `ext2_iomap_end`).
//!
//! # Invariants
//! 1. `begin` is answered in full for the range asked, holes and runs alike (`Holes::Full`).
//! 2. Only `WRITE` allocates.

use ext2_core::{FileBlock, Mapping};

use crate::compat::Holes;
use crate::error::{Error, Result, errno};
use crate::file::FileInner;
use crate::iomap::{Iomap, IomapOps, MapFlags, OpFlags};

/// What `begin` hands to `end`.
#[derive(Debug)]
pub(crate) struct Unpublished(());

impl FileInner {
    /// The blocks that hold `len` bytes from `pos`.
    fn blocks_of(&self, pos: u64, len: u64) -> Result<(FileBlock, u64)> {
        let bytes = self.inode.fs().geometry().block_size.bytes();
        let too_far = || Error::refused(errno::EFBIG, "no file has a byte there");
        let end = pos.checked_add(len).ok_or_else(too_far)?;
        Ok((FileBlock::new(pos / bytes), end.div_ceil(bytes) - pos / bytes))
    }

    fn answer(&self, mapping: &Mapping) -> Iomap<Unpublished> {
        let fs = self.inode.fs();
        let bytes = fs.geometry().block_size.bytes();
        let offset = mapping.start.get() * bytes;
        match mapping.target {
            None if self.compat().holes == Holes::OneBlock => Iomap::hole(offset, bytes),
            None => Iomap::hole(offset, mapping.count * bytes),
            Some(block) => {
                let mut iomap = Iomap::mapped(offset, mapping.count * bytes, fs.geometry().byte_of(block));
                iomap.flags |= MapFlags::MERGED;
                iomap
            }
        }
    }
}

impl IomapOps for FileInner {
    type Private = Unpublished;

    fn begin(&self, pos: u64, len: u64, flags: OpFlags) -> Result<Iomap<Unpublished>> {
        let (start, count) = self.blocks_of(pos, len)?;
        if flags.contains(OpFlags::WRITE) {
            return Err(Error::refused(errno::EROFS, "the file system is read-only"));
        }
        Ok(self.answer(&self.inode.map(start, count)?))
    }

    fn end(&self, _: u64, _: u64, _: u64, _: OpFlags, _: Iomap<Unpublished>) -> Result<()> {
        Ok(())
    }
}
