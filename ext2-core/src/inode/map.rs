//! The block map of an inode on a device.

use core::sync::atomic::Ordering;

use super::{Cell, Inode};
use crate::error::Result;
use crate::map::{Mapping, Pointers, Shape, Tree, lookup};
use crate::{DeviceBlock, FileBlock};

impl Pointers for Cell {
    fn root(&self, slot: usize) -> u32 {
        self.root[slot].load(Ordering::Acquire)
    }

    fn read(&self, block: DeviceBlock, index: u64, into: &mut [u32]) -> Result<()> {
        let offset = self.fs.geo.byte_of(block) + index * 4;
        self.fs.dev.read_at(offset, zerocopy::IntoBytes::as_mut_bytes(into))?;
        for pointer in into {
            *pointer = u32::from_le(*pointer);
        }
        Ok(())
    }

    fn read_one(&self, block: DeviceBlock, index: u64) -> Result<u32> {
        Ok(self.fs.dev.read_u32(self.fs.geo.byte_of(block) + index * 4)?)
    }

    fn valid(&self, pointer: u32) -> Option<DeviceBlock> {
        self.fs.geo.data_block(pointer)
    }

    fn end(&self) -> u32 {
        self.fs.geo.blocks_count
    }
}

impl Cell {
    pub(crate) fn shape(&self) -> Shape {
        Shape::new(self.fs.geo.block_size.pointers())
    }

    /// The mapping of `count` blocks from `start`, in full.
    pub(crate) fn map(&self, start: FileBlock, count: u64) -> Result<Mapping> {
        if !self.has_blocks() {
            return Ok(Mapping { start, count: count.max(1), target: None });
        }
        self.map_blocks(start, count)
    }

    /// [`map`](Self::map) of an inode that is known to have blocks.
    pub(crate) fn map_blocks(&self, start: FileBlock, count: u64) -> Result<Mapping> {
        let budget = u64::from(self.fs.geo.blocks_count);
        lookup(&Tree { pointers: self, shape: self.shape(), inode: self.nr, budget }, start, count)
    }
}

impl Inode {
    /// What `count` blocks from `start` are: a hole, or a contiguous run on the device, **in full** for
    /// the range asked and never past it; `count` 0 counts as 1. Blocks past the file's end are hole,
    /// unless some were left there.
    ///
    /// # Errors
    /// `Corrupt` when the map leads out of the file system, the device's errors. When a part of the
    /// answer is known before an error, that part is the answer.
    pub fn map(&self, start: FileBlock, count: u64) -> Result<Mapping> {
        self.0.map(start, count)
    }
}
