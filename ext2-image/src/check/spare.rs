//! The resize inode, which holds the spare blocks for descriptors: a double indirect block that points to the spare blocks of
//! group 0, each of which points to the same block of the groups with backups.
//!
//! There may be a thousand of them, one behind the other: many are read at a time.

use core::mem::{offset_of, take};

use alloc::vec::Vec;

use zerocopy::{FromZeros, IntoBytes};

use super::finding::{Kind, Place};
use super::layout::pointer;
use super::memo::runs;
use super::run::{Run, Step};
use super::tree::Walk;
use crate::zeros::is_zero;
use ext2_core::raw::{RawInode, RawSuperblock, SUPERBLOCK_OFFSET};
use ext2_core::{CompatFeatures, GroupNr, IncompatFeatures};

/// The inode's number.
const INODE: u32 = 7;

/// Bytes that are read at a time.
pub(crate) const AHEAD: u32 = 64 << 10;

/// Blocks that were read because they follow one that was asked for.
#[derive(Debug, Default)]
struct Ahead {
    first: u32,
    bytes: Vec<u8>,
}

impl Run<'_> {
    /// Checks the resize inode, or that there is none.
    pub(crate) fn check_resize_inode(&mut self) -> Step {
        let Some(offset) = self.inode_offset(INODE) else { return Ok(()) };
        let mut inode = RawInode::new_zeroed();
        self.dev.read_at(offset, inode.as_mut_bytes())?;
        if !self.sb.features.compat.contains(CompatFeatures::RESIZE_INODE) {
            if self.raw.s_reserved_gdt_blocks.get() != 0 {
                let found = self.raw.s_reserved_gdt_blocks.get().into();
                if self.report(Place::Superblock, Kind::ReservedDescriptors, Some(found), Some(0))? {
                    let field = offset_of!(RawSuperblock, s_reserved_gdt_blocks) as u64;
                    self.dev.write_u16(SUPERBLOCK_OFFSET + field, 0)?;
                }
            }
            if inode.i_block.iter().any(|block| block.get() != 0)
                && self.fault(Place::Inode(INODE), Kind::ResizeInodeLeft)?
            {
                self.dev.zero(offset, self.geo.inode_size.into())?;
            }
            return Ok(());
        }
        if !self.resize_inode_is_good(&inode)? {
            self.later.resize_inode = self.fault(Place::Inode(INODE), Kind::ResizeInode)?;
        }
        Ok(())
    }

    /// Whether there are spare blocks that the inode can hold. With `meta_bg` there are none: files may have what lies behind the
    /// descriptors.
    pub(crate) fn has_spare(&self) -> bool {
        !self.sb.features.incompat.contains(IncompatFeatures::META_BG)
            && u64::from(self.geo.reserved_gdt_blocks) <= self.geo.block_size.pointers()
    }

    fn resize_inode_is_good(&mut self, inode: &RawInode) -> Step<bool> {
        let [.., double, triple] = &inode.i_block;
        let others = inode.i_block.iter().take(13).any(|block| block.get() != 0);
        let double = double.get();
        if others
            || triple.get() != 0
            || inode.i_mode.get() & 0o170_000 != 0o100_000
            || !self.is_block(double)
            || !self.has_spare()
        {
            return Ok(false);
        }
        let spare = u32::from(self.geo.reserved_gdt_blocks);
        let mut top = take(&mut self.s.block);
        self.read_block(double, &mut top)?;
        let pointers = self.geo.block_size.pointers() as usize;
        let first = self.geo.first_data_block.saturating_add(1);
        let backups: Vec<u32> = (1..self.geo.groups)
            .filter(|&group| self.geo.has_super(GroupNr::new(group)))
            .map(|group| group.wrapping_mul(self.geo.blocks_per_group))
            .collect();
        let (mut good, mut ahead) = (true, Ahead::default());
        for nr in 0..spare {
            let from = self.geo.descriptor_blocks().saturating_add(nr);
            let block = first.saturating_add(from);
            if pointer(&top, from as usize % pointers) != block || !self.is_block(block) {
                good = false;
                break;
            }
            let leaf = self.read_ahead(&mut ahead, block, spare - nr)?;
            for (index, group) in backups.iter().take(pointers).enumerate() {
                good &= pointer(leaf, index) == block.wrapping_add(*group);
            }
            // Former backups may be left there by resize2fs, what is no block not.
            let left = leaf.get(backups.len().min(pointers) * 4..).unwrap_or_default();
            let is_left = |at: u32| at == 0 || self.is_block(at);
            good &= is_zero(left) || (0..left.len() / 4).all(|index| is_left(pointer(left, index)));
        }
        // Those of other descriptors nobody leaves.
        let first = self.geo.descriptor_blocks() as usize % pointers;
        let is_spare = |index: usize| (index + pointers - first) % pointers < spare as usize;
        good &= (0..pointers).all(|index| is_spare(index) || pointer(&top, index) == 0);
        self.s.block = top;
        Ok(good)
    }

    /// Counts the blocks of the resize inode below an indirect block.
    pub(crate) fn count_spare(&mut self, block: u32, level: usize, walk: &mut Walk) -> Step {
        if self.s.walked.set(block.into()) {
            return Ok(());
        }
        let Some(slot) = self.s.levels.get_mut(level - 1) else { return Ok(()) };
        let mut buffer = take(slot);
        self.read_block(block, &mut buffer)?;
        let mut ahead = Ahead::default();
        for run in runs(&buffer) {
            for nr in 0..run.len {
                let below = run.block + nr;
                walk.blocks += 1;
                walk.end = walk.end.max(1);
                if level < 2 || !self.is_block(below) {
                    continue;
                }
                if level > 2 {
                    self.count_spare(below, level - 1, walk)?;
                } else if !self.s.walked.set(below.into()) {
                    let pointers = self.geo.block_size.pointers();
                    // As the block of the file that its first pointer is for.
                    let first = 12 + pointers + u64::from(run.index + nr) * pointers;
                    let leaf = self.read_ahead(&mut ahead, below, run.len - nr)?;
                    for copies in runs(leaf) {
                        walk.blocks += u64::from(copies.len);
                        walk.end = walk.end.max(first + u64::from(copies.index) + u64::from(copies.len));
                    }
                }
            }
        }
        if let Some(slot) = self.s.levels.get_mut(level - 1) {
            *slot = buffer;
        }
        Ok(())
    }

    /// A block, read together with some of the `count` that it begins, as far as they are blocks.
    fn read_ahead<'a>(&self, ahead: &'a mut Ahead, block: u32, count: u32) -> Step<&'a [u8]> {
        let len = self.block_len();
        let past = ahead.bytes.len() / len;
        let at = block.checked_sub(ahead.first).map(|at| at as usize).filter(|&at| at < past);
        if at.is_none() {
            // OK to cast: a block has at most 64 KiB.
            let most = (AHEAD / len as u32).min(self.geo.blocks_count - block);
            ahead.bytes.resize(count.clamp(1, most) as usize * len, 0);
            ahead.first = block;
            self.dev.read_at(self.byte_of(block), &mut ahead.bytes)?;
        }
        let start = at.unwrap_or(0) * len;
        Ok(ahead.bytes.get(start..start + len).unwrap_or_default())
    }
}
