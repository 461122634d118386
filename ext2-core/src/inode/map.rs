//! The block map of an inode on a device.

use core::sync::atomic::Ordering;

use super::{Cell, Inode};
use crate::error::Result;
use crate::map::{DIRECT, KnownRun, Mapping, Pointers, Shape, Tree, lookup, lookup_one};
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

    /// The mapping of `count` blocks from `start`, in full: from what is known, or else from the device.
    pub(crate) fn map(&self, start: FileBlock, count: u64) -> Result<Mapping> {
        let count = count.max(1);
        match self.known_run(start, count) {
            Some(target) => Ok(Mapping { start, count, target: Some(target) }),
            None => self.look_up(start, count),
        }
    }

    /// Where `count` blocks from `start`, at least 1, begin on the device, if they are known to lie there in a row.
    #[inline]
    pub(crate) fn known_run(&self, start: FileBlock, count: u64) -> Option<DeviceBlock> {
        if !self.has_blocks() {
            return None;
        }
        let at = start.get();
        if at >= DIRECT {
            let (target, _) = self.runs.find(at).filter(|&(_, len)| len >= count)?;
            return DeviceBlock::new(u32::try_from(target).ok()?);
        }
        // What the inode itself points to is in memory.
        let first = self.root(at as usize);
        if count > 1 {
            if count > DIRECT - at {
                return None;
            }
            // OK to cast: at most 12.
            let mut slots = (at..at + count).zip(0..);
            let last = first.checked_add(count as u32 - 1)?;
            let in_a_row = slots.all(|(slot, nr)| self.root(slot as usize) == first.wrapping_add(nr));
            if !in_a_row || self.valid(last).is_none() {
                return None;
            }
        }
        self.valid(first)
    }

    /// The mapping of `count` blocks, at least 1, from `start`, in full, as the device has it; it is known then.
    pub(crate) fn look_up(&self, start: FileBlock, count: u64) -> Result<Mapping> {
        if !self.has_blocks() {
            return Ok(Mapping { start, count, target: None });
        }
        let ticket = self.runs.ticket();
        let (mapping, run) = if count == 1 {
            let found = lookup_one(&self.tree(), start)?;
            (
                Mapping { start, count, target: found.map(|(target, _)| target) },
                found.and_then(|(_, run)| run),
            )
        } else {
            let mapping = self.map_blocks(start, count)?;
            let run = mapping.target.filter(|_| mapping.end().get() > DIRECT);
            (mapping, run.and_then(|target| KnownRun::new(start.get(), mapping.count, target)))
        };
        if let Some(run) = run {
            let blocks = self.fs.geo.block_size.blocks_for(self.size());
            self.runs.keep(ticket, start.get(), run, blocks);
        }
        Ok(mapping)
    }

    /// The mapping of `count` blocks from `start`, in full, as the device has it: for those who change the map, and
    /// hold its lock. The inode is known to have blocks.
    pub(crate) fn map_blocks(&self, start: FileBlock, count: u64) -> Result<Mapping> {
        lookup(&self.tree(), start, count)
    }

    /// The block that a pointer of the map names.
    #[cfg(feature = "write")]
    pub(crate) fn pointed(&self, pointer: u32) -> Result<DeviceBlock> {
        let outside = || alloc::format!("block map points to block {pointer}, outside the file system");
        self.valid(pointer).ok_or_else(|| self.corrupt(outside()))
    }

    fn tree(&self) -> Tree<'_, Self> {
        let budget = u64::from(self.fs.geo.blocks_count);
        Tree { pointers: self, shape: self.shape(), inode: self.nr, budget }
    }
}

impl Inode {
    /// What `count` blocks from `start` are: a hole, or a contiguous run on the device, **in full** for the range asked and
    /// never past it; `count` 0 counts as 1. Blocks past the file's end are hole, unless some were left there.
    ///
    /// # Errors
    /// `Corrupt` when the map leads out of the file system, the device's errors. When a part of the
    /// answer is known before an error, that part is the answer.
    pub fn map(&self, start: FileBlock, count: u64) -> Result<Mapping> {
        self.0.map(start, count)
    }

    /// Where `count` blocks from `start`, at least 1, begin on the device, if that is known without a look at the
    /// device and they lie there in a row: what was found lately and has not been taken from the file since.
    #[must_use]
    #[inline]
    pub fn known_run(&self, start: FileBlock, count: u64) -> Option<DeviceBlock> {
        self.0.known_run(start, count)
    }
}
