//! Files that have extents in a file system without them: their blocks become those of a map, so that the file stays and
//! the image stays ext2. (e2fsck makes the image one with extents.)
//!
//! # Invariants
//! 1. A block in which extents lie is not taken before the repair is stored: until then they are what leads to the file.
//! 2. Maps are made where those of all such files have room, and otherwise none: the extents stay whole.
//! 3. No node is read twice for one inode, and in a round no more is read than the image has blocks, some times over.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::mem::{offset_of, take};

use ext2_core::raw::RawInode;
use ext2_core::rules::Shape;
use zerocopy::IntoBytes;

use crate::check::run::{Run, Step};
use crate::little::{half, word};
use crate::mkfs::indirect_blocks;

/// `eh_magic`.
const MAGIC: u16 = 0xf30a;
/// Lengths above this are of extents that were never written.
const WRITTEN: u16 = 0x8000;
/// `EXT4_EXTENTS_FL`.
const FLAG: u32 = 0x8_0000;
/// How many blocks and nodes are looked at, for each block of the image: a sound image has no more than one.
const LOOKS: u64 = 8;

/// Whether the room of the map in an inode has a root of extents.
pub(crate) fn has_extents(raw: &RawInode) -> bool {
    let root = raw.i_block.as_bytes();
    half(root, 0) == MAGIC && half(root, 2) <= half(root, 4) && half(root, 4) == 4 && half(root, 6) <= 5
}

/// A run of blocks: the first in the file, the first on the device, and how many.
type Extent = (u32, u32, u16);

/// Inodes that have extents.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    inodes: Vec<u32>,
    /// Indirect blocks that their maps need.
    needed: u64,
    /// Blocks and nodes that were looked at.
    looks: u64,
    /// Whether they name more than there can be.
    is_too_much: bool,
}

/// The extents of one inode while they are read.
#[derive(Default)]
struct Reader {
    extents: Vec<Extent>,
    nodes: BTreeSet<u32>,
}

impl Run<'_> {
    /// Keeps others from the blocks that the extents of an inode name, and from those in which they lie; the inode gets a map
    /// when it is known what is free.
    pub(crate) fn claim_extents(&mut self, nr: u32, raw: &RawInode) -> Step {
        let reader = self.extents_below(raw.i_block.as_bytes())?;
        for &(_, start, len) in &reader.extents {
            let most = self.geo.blocks_count.saturating_sub(start);
            self.s.found.set_range(start.into(), u64::from(len).min(most.into()));
        }
        self.later.extents.needed += self.indirect_blocks_of(&reader.extents);
        self.later.extents.inodes.push(nr);
        self.s.nodes.extend(reader.nodes);
        Ok(())
    }

    /// Gives the inodes that have extents a map, if there is room for those of all of them.
    pub(crate) fn map_extents(&mut self) -> Step {
        let extents = take(&mut self.later.extents);
        if extents.inodes.is_empty() {
            return Ok(());
        }
        self.later.again = true;
        let (used, all) = self.count_blocks();
        let nodes = self.s.nodes.iter().filter(|&&node| !self.s.found.get(node.into())).count() as u64;
        if extents.is_too_much || extents.needed + nodes > all.saturating_sub(used) {
            self.later.left += 1;
            return self.begin_anew();
        }
        extents.inodes.into_iter().try_for_each(|inode| self.map_inode(inode))
    }

    /// How many indirect blocks a map of extents has.
    fn indirect_blocks_of(&self, extents: &[Extent]) -> u64 {
        let shape = Shape::new(self.geo.block_size.pointers());
        let end = |first: u32, len: u16| (u64::from(first) + u64::from(len)).min(shape.max_blocks());
        let mut runs: Vec<(u64, u64)> =
            extents.iter().map(|&(first, _, len)| (u64::from(first), end(first, len))).collect();
        runs.sort_unstable();
        let mut done = 0;
        let apart = runs.into_iter().filter_map(|(first, end)| {
            let first = first.max(done);
            done = done.max(end);
            (first < end).then(|| (first, end - first))
        });
        indirect_blocks(shape, apart)
    }

    fn map_inode(&mut self, nr: u32) -> Step {
        let Some(offset) = self.inode_offset(nr) else { return Ok(()) };
        let map = offset + offset_of!(RawInode, i_block) as u64;
        let mut root = [0; 60];
        self.dev.read_at(map, &mut root)?;
        let reader = self.extents_below(&root)?;
        let flags = offset + offset_of!(RawInode, i_flags) as u64;
        self.dev.write_u32(flags, self.dev.read_u32(flags)? & !FLAG)?;
        self.dev.zero(map, 60)?;
        for (first, start, len) in reader.extents {
            for (nr_in_file, block) in (u64::from(first)..).zip(start..start.saturating_add(len.into())) {
                if self.is_block(block) {
                    self.hang(nr, nr_in_file, block)?;
                }
            }
        }
        Ok(())
    }

    fn extents_below(&mut self, root: &[u8]) -> Step<Reader> {
        let mut reader = Reader::default();
        self.read_extents(root, 5, &mut reader)?;
        Ok(reader)
    }

    /// The extents below a node, no deeper than `most` levels.
    fn read_extents(&mut self, node: &[u8], most: u16, reader: &mut Reader) -> Step {
        let (entries, depth) = (half(node, 2), half(node, 6));
        if half(node, 0) != MAGIC || depth > most {
            return Ok(());
        }
        let limit = u64::from(self.geo.blocks_count).saturating_mul(LOOKS);
        for entry in node.get(12..).unwrap_or_default().chunks_exact(12).take(entries.into()) {
            if self.later.extents.looks > limit {
                self.later.extents.is_too_much = true;
                return Ok(());
            }
            if depth == 0 {
                let len = half(entry, 4);
                if len <= WRITTEN && half(entry, 6) == 0 && self.is_block(word(entry, 8)) {
                    reader.extents.push((word(entry, 0), word(entry, 8), len));
                    self.later.extents.looks += u64::from(len).max(1);
                }
            } else if half(entry, 8) == 0
                && self.is_block(word(entry, 4))
                && reader.nodes.insert(word(entry, 4))
            {
                let mut below = Vec::new();
                self.read_block(word(entry, 4), &mut below)?;
                self.later.extents.looks += 1;
                self.read_extents(&below, depth - 1, reader)?;
            }
        }
        Ok(())
    }
}
