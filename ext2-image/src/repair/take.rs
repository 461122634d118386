//! Taking blocks and inodes for what a repair makes, and hanging blocks into a file.
//!
//! A block may be taken when pass 1 has seen all inodes: what nothing claimed is free, whatever the bitmaps say.

use alloc::vec;
use core::mem::offset_of;

use ext2_core::raw::RawInode;

use crate::check::layout::TABLE_UNWRITTEN;
use crate::check::run::{Run, Step};

/// Pointers in an inode that lead to data without a level between.
const DIRECT: u64 = 12;

impl Run<'_> {
    /// Takes a free block; `None` when there is none. Its contents are what they were.
    pub(crate) fn take_block(&mut self) -> Option<u32> {
        if self.later.full {
            return None;
        }
        let first = self.geo.first_data_block.saturating_add(1);
        let from = self.later.next_block.max(first);
        let end = u64::from(self.geo.blocks_count);
        let free = self.first_free(from.into(), end).or_else(|| self.first_free(first.into(), from.into()));
        self.later.full = free.is_none();
        let free = free?;
        self.s.found.set(free);
        self.later.taken += 1;
        // OK to cast: below the number of blocks, which has 32 bits.
        let block = free as u32;
        self.later.next_block = block.saturating_add(1);
        Some(block)
    }

    /// The first free block in a range. One in which extents lie is none: what is stored half may have to be read again.
    fn first_free(&self, mut from: u64, end: u64) -> Option<u64> {
        loop {
            let free = self.s.found.first_zero(from, end)?;
            // OK to cast: below the number of blocks, which has 32 bits.
            if !self.s.nodes.contains(&(free as u32)) {
                return Some(free);
            }
            from = free + 1;
        }
    }

    /// Takes an inode that is neither reserved nor in use.
    pub(crate) fn take_inode(&mut self) -> Step<Option<u32>> {
        let from = self.later.next_inode.max(self.geo.first_ino);
        let Some(free) = (from..=self.geo.inodes_count).find(|&nr| self.state(nr) == 0) else {
            return Ok(None);
        };
        self.later.next_inode = free.saturating_add(1);
        self.write_table_up_to(free)?;
        Ok(Some(free))
    }

    /// Makes an inode one of those that its group says were written, and those before it zeros.
    fn write_table_up_to(&mut self, nr: u32) -> Step {
        let (group, index) = ((nr - 1) / self.geo.inodes_per_group, (nr - 1) % self.geo.inodes_per_group);
        let written = self.written(group).1;
        if index < written {
            return Ok(());
        }
        let Some(first) = self.inode_offset(nr - (index - written)) else { return Ok(()) };
        let count = u64::from(index - written) + 1;
        self.dev.zero(first, count * u64::from(self.geo.inode_size))?;
        let unused = self.geo.inodes_per_group - index - 1;
        self.change_descriptor(group, |desc| {
            desc.bg_flags.set(desc.bg_flags.get() & !TABLE_UNWRITTEN);
            // OK to cast: a group has fewer than 2^16 inodes, as the field needs it.
            desc.bg_itable_unused.set(unused as u16);
        })
    }

    /// Where a block lies, in bytes of the device.
    pub(crate) fn byte_of(&self, block: u32) -> u64 {
        u64::from(block) << self.geo.block_size.log2()
    }

    /// Stores a block that was taken: nothing points to it yet.
    pub(crate) fn fill_block(&self, block: u32, bytes: &[u8]) -> Step {
        Ok(self.dev.write_contents(self.byte_of(block), bytes)?)
    }

    /// Lets the block `nr` of a file be `block`, with the indirect blocks that this needs. `false` when there is no block
    /// for those, or no file has so many.
    pub(crate) fn hang(&mut self, inode: u32, nr: u64, block: u32) -> Step<bool> {
        let Some(offset) = self.inode_offset(inode) else { return Ok(false) };
        let map = offset + offset_of!(RawInode, i_block) as u64;
        let pointers = self.geo.block_size.pointers();
        let mut rest = nr;
        if rest < DIRECT {
            self.dev.write_u32(map + rest * 4, block)?;
            return Ok(true);
        }
        rest -= DIRECT;
        let mut levels = 1;
        while levels <= 3 && rest >= pointers.pow(levels) {
            rest -= pointers.pow(levels);
            levels += 1;
        }
        if levels > 3 {
            return Ok(false);
        }
        let mut at = map + (DIRECT + u64::from(levels) - 1) * 4;
        for level in (0..levels).rev() {
            let mut indirect = self.dev.read_u32(at)?;
            if !self.is_block(indirect) {
                let Some(fresh) = self.take_block() else { return Ok(false) };
                self.fill_block(fresh, &vec![0; self.block_len()])?;
                self.dev.write_u32(at, fresh)?;
                indirect = fresh;
            }
            let span = pointers.pow(level);
            at = self.byte_of(indirect) + rest / span * 4;
            rest %= span;
        }
        self.dev.write_u32(at, block)?;
        Ok(true)
    }

    /// Ends the passes where something was mended that later ones have to see.
    pub(crate) fn begin_anew(&self) -> Step {
        if self.later.again { Err(crate::check::run::Stop::Again) } else { Ok(()) }
    }
}
