//! Holes and data of a file: `SEEK_HOLE`, `SEEK_DATA`, and the list of extents (FIEMAP).

use super::{Cell, Inode};
use crate::error::{Result, refuse};
use crate::map::Mapping;
use crate::{Errno, FileBlock};

impl Cell {
    /// What is left of a budget of blocks, or bytes, once those of a run are taken from it.
    pub(super) fn spend(&self, budget: u64, is_hole: bool, count: u64) -> Result<u64> {
        let left = budget.checked_sub(if is_hole { 0 } else { count });
        left.ok_or_else(|| self.corrupt("block map has more blocks than the file system"))
    }
}

impl Inode {
    /// The offset of the first data at or after byte `offset` (Linux: `SEEK_DATA`, by iomap).
    ///
    /// # Errors
    /// `ENXIO` when `offset` is at or past the end, or only hole follows.
    pub fn seek_data(&self, offset: u64) -> Result<u64> {
        let (found, _) = self.seek(offset, |mapping| !mapping.is_hole())?;
        found.map_or_else(|| refuse(Errno::NXIO, "no data up to the file's end"), Ok)
    }

    /// The offset of the first hole at or after byte `offset`; the end of the file counts as one (Linux:
    /// `SEEK_HOLE`, by iomap).
    ///
    /// # Errors
    /// `ENXIO` when `offset` is at or past the end.
    pub fn seek_hole(&self, offset: u64) -> Result<u64> {
        self.seek(offset, Mapping::is_hole).map(|(found, end)| found.unwrap_or(end))
    }

    /// Where the first run is that is wanted, if any, and where the file ended then.
    fn seek(&self, offset: u64, found: impl Fn(&Mapping) -> bool) -> Result<(Option<u64>, u64)> {
        let _io = self.0.io.read();
        let size = self.size();
        if offset >= size {
            return refuse(Errno::NXIO, "the offset is past the file's end");
        }
        let (block_size, mut budget) = (self.0.fs.geo.block_size, self.0.fs.geo.blocks_count.into());
        let mut block = block_size.block_of(offset);
        let last = block_size.block_of(size - 1);
        while block <= last {
            let mapping = self.0.map(block, last.get() - block.get() + 1)?;
            if found(&mapping) {
                return Ok((Some(offset.max(block.get() * block_size.bytes())), size));
            }
            budget = self.0.spend(budget, mapping.is_hole(), mapping.count)?;
            block = mapping.end();
        }
        Ok((None, size))
    }

    /// The runs of data of the file, in order, up to its end (Linux: FIEMAP). Each is as long as the blocks are contiguous.
    #[must_use]
    pub fn extents(&self) -> Extents {
        let end = self.0.fs.geo.block_size.blocks_for(self.size());
        Extents { inode: self.clone(), next: 0, end, budget: u64::from(self.0.fs.geo.blocks_count) }
    }
}

/// The runs of data of a file. An error ends the iteration; more blocks than the file system has are one, so that a
/// map whose pointers lead back into it is not followed to its end, which is terabytes away.
#[derive(Debug)]
pub struct Extents {
    inode: Inode,
    next: u64,
    end: u64,
    budget: u64,
}

impl Iterator for Extents {
    type Item = Result<Mapping>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.end {
            let found = self.inode.map(FileBlock::new(self.next), self.end - self.next).and_then(|run| {
                self.budget = self.inode.0.spend(self.budget, run.is_hole(), run.count)?;
                Ok(run)
            });
            self.next = found.as_ref().map_or(self.end, |run| run.end().get());
            if !found.as_ref().is_ok_and(Mapping::is_hole) {
                return Some(found);
            }
        }
        None
    }
}
