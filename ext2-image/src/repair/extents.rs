//! Files that have extents in a file system without them: their blocks become those of a map, so that the file stays and
//! the image stays ext2. (e2fsck makes the image one with extents.)

use alloc::vec::Vec;
use core::mem::offset_of;

use ext2_core::raw::RawInode;
use zerocopy::IntoBytes;

use crate::check::run::{Run, Step};
use crate::little::{half, word};

/// `eh_magic`.
const MAGIC: u16 = 0xf30a;
/// Lengths above this are of extents that were never written.
const WRITTEN: u16 = 0x8000;
/// `EXT4_EXTENTS_FL`.
const FLAG: u32 = 0x8_0000;

/// Whether the room of the map in an inode has a root of extents.
pub(crate) fn has_extents(raw: &RawInode) -> bool {
    let root = raw.i_block.as_bytes();
    half(root, 0) == MAGIC && half(root, 2) <= half(root, 4) && half(root, 4) == 4 && half(root, 6) <= 5
}

/// A run of blocks: the first in the file, the first on the device, and how many.
type Extent = (u32, u32, u16);

impl Run<'_> {
    /// Keeps others from the blocks that the extents of an inode name.
    pub(crate) fn claim_extents(&mut self, _nr: u32, raw: &RawInode) -> Step {
        let mut extents = Vec::new();
        self.read_extents(raw.i_block.as_bytes(), 5, &mut extents)?;
        for (_, start, len) in extents {
            for block in start..start.saturating_add(len.into()) {
                self.s.found.set(block.into());
            }
        }
        Ok(())
    }

    /// Gives an inode a map of the blocks that its extents name.
    pub(crate) fn map_extents(&mut self, nr: u32) -> Step {
        let Some(offset) = self.inode_offset(nr) else { return Ok(()) };
        let map = offset + offset_of!(RawInode, i_block) as u64;
        let mut root = [0; 60];
        self.dev.read_at(map, &mut root)?;
        let mut extents = Vec::new();
        self.read_extents(&root, 5, &mut extents)?;
        let flags = offset + offset_of!(RawInode, i_flags) as u64;
        self.dev.write_u32(flags, self.dev.read_u32(flags)? & !FLAG)?;
        self.dev.zero(map, 60)?;
        for (first, start, len) in extents {
            for (nr_in_file, block) in (u64::from(first)..).zip(start..start.saturating_add(len.into())) {
                if self.is_block(block) {
                    self.hang(nr, nr_in_file, block)?;
                }
            }
        }
        Ok(())
    }

    /// The extents below a node, no deeper than `most` levels and no more than there are blocks.
    fn read_extents(&self, node: &[u8], most: u16, extents: &mut Vec<Extent>) -> Step {
        let (entries, depth) = (half(node, 2), half(node, 6));
        if half(node, 0) != MAGIC || depth > most || extents.len() as u64 > u64::from(self.geo.blocks_count) {
            return Ok(());
        }
        for entry in node.get(12..).unwrap_or_default().chunks_exact(12).take(entries.into()) {
            if depth == 0 {
                let len = half(entry, 4);
                if len <= WRITTEN && half(entry, 6) == 0 && self.is_block(word(entry, 8)) {
                    extents.push((word(entry, 0), word(entry, 8), len));
                }
            } else if half(entry, 8) == 0 && self.is_block(word(entry, 4)) {
                let mut below = Vec::new();
                self.read_block(word(entry, 4), &mut below)?;
                self.read_extents(&below, depth - 1, extents)?;
            }
        }
        Ok(())
    }
}
