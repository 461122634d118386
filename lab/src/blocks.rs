//! What each block of an image is used for, as far as anything can be read: a broken image is what it is made for.
//!
//! # Invariants
//! 1. An indirect block is walked once, whatever leads to it; so the work is linear in the image.
//! 2. The first use that is found is the one that is told.

use blockdev::BlockDevice;
use ext2_core::{GroupNr, InodeNr};
use ext2_image::fields::{Layout, Structure};
use serde::Serialize;

/// What a block is used for. The numbers are those of the page's colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Use {
    Free,
    /// Said to be used, and nobody's.
    Nobody,
    Superblock,
    Descriptors,
    BlockBitmap,
    InodeBitmap,
    InodeTable,
    Data,
    Directory,
    Symlink,
    Indirect,
    Double,
    Triple,
    Xattrs,
    Journal,
    Reserved,
}

/// Blocks beside each other that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct BlockRun {
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) used: Use,
    /// The inode whose they are, 0 for none.
    pub(crate) ino: u32,
    /// The group, where they are a group's.
    pub(crate) group: u32,
}

/// The uses of all blocks.
pub(crate) struct Blocks {
    of: Vec<(Use, u32, u32)>,
}

/// Images of more blocks than this are not drawn block by block.
const MOST: u32 = 1 << 21;

const S_IFMT: u16 = 0xf000;
const S_IFDIR: u16 = 0x4000;
const S_IFREG: u16 = 0x8000;
const S_IFLNK: u16 = 0xa000;

fn word(bytes: &[u8], at: usize) -> u32 {
    let part = bytes.get(at..at + 4).and_then(|part| part.try_into().ok());
    part.map_or(0, u32::from_le_bytes)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    let part = bytes.get(at..at + 2).and_then(|part| part.try_into().ok());
    part.map_or(0, u16::from_le_bytes)
}

impl Blocks {
    /// Looks at everything. Empty where there is no superblock to go by.
    pub(crate) fn of(dev: &dyn BlockDevice, layout: &Layout) -> Self {
        let Ok(geo) = layout.geometry() else { return Self { of: Vec::new() } };
        let count = geo.blocks_count.min(MOST);
        let mut blocks = Self { of: vec![(Use::Nobody, 0, 0); count as usize] };
        blocks.metadata(dev, layout);
        for nr in (1..=geo.inodes_count).filter_map(InodeNr::new) {
            blocks.inode(dev, layout, nr);
        }
        for group in (0..geo.groups).map(GroupNr::new) {
            let Ok(bitmap) = layout.take(dev, Structure::BlockBitmap(group)) else { continue };
            for bit in 0..geo.group_len(group) {
                let set = bitmap.bytes.get(bit as usize / 8).is_none_or(|byte| byte >> (bit % 8) & 1 != 0);
                let block = geo.group_start(group) + bit;
                if !set && blocks.used(block) == Use::Nobody {
                    blocks.mark(block, Use::Free, 0, group.get());
                }
            }
        }
        for block in 0..count.min(geo.group_start(GroupNr::new(0))) {
            blocks.mark(block, Use::Reserved, 0, 0);
        }
        blocks
    }

    fn used(&self, block: u32) -> Use {
        self.of.get(block as usize).map_or(Use::Free, |(used, _, _)| *used)
    }

    /// What a block is used for, and by which inode; nothing past the last block.
    pub(crate) fn get(&self, block: u32) -> Option<(Use, u32, u32)> {
        self.of.get(block as usize).copied()
    }

    /// Marks a block that nobody has yet; whether it was so.
    fn mark(&mut self, block: u32, used: Use, ino: u32, group: u32) -> bool {
        match self.of.get_mut(block as usize) {
            Some(place) if place.0 == Use::Nobody => {
                *place = (used, ino, group);
                true
            }
            _ => false,
        }
    }

    fn metadata(&mut self, dev: &dyn BlockDevice, layout: &Layout) {
        let Ok(geo) = layout.geometry() else { return };
        for group in (0..geo.groups).map(GroupNr::new) {
            let nr = group.get();
            for (what, used) in [
                (Structure::Superblock(group), Use::Superblock),
                (Structure::Group(group), Use::Descriptors),
                (Structure::BlockBitmap(group), Use::BlockBitmap),
                (Structure::InodeBitmap(group), Use::InodeBitmap),
            ] {
                if let Ok((offset, _)) = layout.place(dev, what)
                    && let Ok(block) = u32::try_from(offset / geo.block_size.bytes())
                {
                    self.mark(block, used, 0, nr);
                }
            }
            if geo.has_super(group) {
                let head = geo.group_start(group)..geo.group_start(group) + geo.group_overhead(group);
                for (at, block) in head.enumerate().skip(1) {
                    let used = if at as u64 <= u64::from(geo.descriptor_blocks()) {
                        Use::Descriptors
                    } else {
                        Use::Reserved
                    };
                    self.mark(block, used, 0, nr);
                }
            }
            let first = InodeNr::new(nr.saturating_mul(geo.inodes_per_group).saturating_add(1));
            if let Some(Ok((offset, _))) = first.map(|first| layout.place(dev, Structure::Inode(first))) {
                let bytes = u64::from(geo.inodes_per_group) * u64::from(geo.inode_size);
                let start = offset / geo.block_size.bytes();
                for block in start..start + bytes.div_ceil(geo.block_size.bytes()) {
                    if let Ok(block) = u32::try_from(block) {
                        self.mark(block, Use::InodeTable, 0, nr);
                    }
                }
            }
        }
    }

    fn inode(&mut self, dev: &dyn BlockDevice, layout: &Layout, nr: InodeNr) {
        let Ok(geo) = layout.geometry() else { return };
        let Ok((offset, len)) = layout.place(dev, Structure::Inode(nr)) else { return };
        let mut raw = vec![0; len];
        if dev.read_at(offset, &mut raw).is_err() || raw.iter().all(|byte| *byte == 0) {
            return;
        }
        let (mode, links, ino) = (half(&raw, 0), half(&raw, 26), nr.get());
        let reserved = ino < 11 && ino != InodeNr::ROOT.get();
        if links == 0 && !reserved {
            return;
        }
        // i_file_acl.
        self.mark_within(geo.blocks_count, word(&raw, 104), Use::Xattrs, ino);
        let used = match mode & S_IFMT {
            S_IFDIR => Use::Directory,
            // A short target is in the place of the pointers; i_blocks says so.
            S_IFLNK if word(&raw, 28) > 0 => Use::Symlink,
            S_IFREG if ino == 8 => Use::Journal,
            S_IFREG if reserved => Use::Reserved,
            S_IFREG => Use::Data,
            0 if reserved => Use::Reserved,
            _ => return,
        };
        for slot in 0..15 {
            let pointer = word(&raw, 40 + 4 * slot);
            let level = slot.saturating_sub(11);
            self.pointer(dev, layout, pointer, level, used, ino);
        }
    }

    fn mark_within(&mut self, count: u32, block: u32, used: Use, ino: u32) -> bool {
        block != 0 && block < count && self.mark(block, used, ino, 0)
    }

    fn pointer(
        &mut self,
        dev: &dyn BlockDevice,
        layout: &Layout,
        block: u32,
        level: usize,
        used: Use,
        ino: u32,
    ) {
        let Ok(geo) = layout.geometry() else { return };
        let here = match level {
            0 => used,
            1 => Use::Indirect,
            2 => Use::Double,
            _ => Use::Triple,
        };
        if !self.mark_within(geo.blocks_count, block, here, ino) || level == 0 {
            return;
        }
        let mut bytes = vec![0; geo.block_size.len()];
        if dev.read_at(u64::from(block) * geo.block_size.bytes(), &mut bytes).is_err() {
            return;
        }
        for slot in 0..bytes.len() / 4 {
            self.pointer(dev, layout, word(&bytes, 4 * slot), level - 1, used, ino);
        }
    }

    /// All of them, those beside each other joined.
    pub(crate) fn runs(&self) -> Vec<BlockRun> {
        let mut runs: Vec<BlockRun> = Vec::new();
        for (block, &(used, ino, group)) in (0_u32..).zip(&self.of) {
            match runs.last_mut() {
                Some(last) if (last.used, last.ino, last.group) == (used, ino, group) => last.count += 1,
                _ => runs.push(BlockRun { first: block, count: 1, used, ino, group }),
            }
        }
        runs
    }
}
