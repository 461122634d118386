//! Repairs of inodes, and of what pass 1 found that needs blocks.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::mem::{offset_of, take};

use ext2_core::raw::{GOOD_OLD_INODE_SIZE, RawInode, RawSuperblock, SUPERBLOCK_OFFSET};
use ext2_core::{CompatFeatures, FileKind, GroupNr, RoCompatFeatures};
use zerocopy::{FromZeros, IntoBytes};

use crate::check::inodes::{ROOT, Seen};
use crate::check::layout::pointer;
use crate::check::run::{Double, Run, Step};

/// A block of a file: its number there, where its pointer lies, and the block.
pub(crate) type Mapped = (u64, u64, u32);

impl Run<'_> {
    /// What pass 1 leaves to its end.
    pub(crate) fn finish_inodes(&mut self) -> Step {
        self.map_extents()?;
        for double in take(&mut self.later.doubles) {
            self.part(double)?;
            self.later.again = true;
        }
        for inode in take(&mut self.later.holes) {
            self.close_holes(inode)?;
            self.later.again = true;
        }
        if take(&mut self.later.resize_inode) {
            self.make_resize_inode()?;
            self.later.again = true;
        }
        self.begin_anew()
    }

    /// Gives the second user of a block a copy of its own, or, where no block is free, a hole.
    fn part(&mut self, double: Double) -> Step {
        if self.dev.read_u32(double.at)? != double.block {
            return Ok(());
        }
        let copy = self.copy_block(double.block, double.level)?;
        Ok(self.dev.write_u32(double.at, copy.unwrap_or(0))?)
    }

    /// Copies a block and all below it; `None` where no block is free.
    fn copy_block(&mut self, block: u32, level: usize) -> Step<Option<u32>> {
        let Some(copy) = self.take_block() else { return Ok(None) };
        let mut bytes = Vec::new();
        self.read_block(block, &mut bytes)?;
        if level > 0 {
            for slot in bytes.chunks_exact_mut(4) {
                let Some(&old) = slot.first_chunk::<4>() else { continue };
                let below = u32::from_le_bytes(old);
                let own = match below {
                    0 => 0,
                    _ if !self.is_block(below) => 0,
                    _ => self.copy_block(below, level - 1)?.unwrap_or(0),
                };
                slot.copy_from_slice(&own.to_le_bytes());
            }
        }
        self.fill_block(copy, &bytes)?;
        Ok(Some(copy))
    }

    /// Leaves a directory without holes: each is filled by the last block that it has; the first block, which has to begin
    /// with `.`, by a new one.
    fn close_holes(&mut self, inode: u32) -> Step {
        let mut blocks = self.mapped(inode)?;
        let mut nr = 0;
        while let Some(&(last, at, block)) = blocks.last() {
            if nr >= last {
                break;
            }
            if blocks.binary_search_by_key(&nr, |mapped| mapped.0).is_err() {
                if nr == 0
                    && let Some(fresh) = self.take_block()
                {
                    let bytes = self.empty_directory(inode, ROOT);
                    self.fill_block(fresh, &bytes)?;
                    self.hang(inode, 0, fresh)?;
                } else {
                    if !self.hang(inode, nr, block)? {
                        self.later.left += 1;
                        break;
                    }
                    self.dev.write_u32(at, 0)?;
                    blocks.pop();
                }
            }
            nr += 1;
        }
        self.drop_index(inode)
    }

    /// Takes the flag of a hash tree from a directory whose blocks move.
    pub(crate) fn drop_index(&mut self, inode: u32) -> Step {
        const INDEX: u32 = 0x1000;
        let Some(offset) = self.inode_offset(inode) else { return Ok(()) };
        let at = offset + offset_of!(RawInode, i_flags) as u64;
        let flags = self.dev.read_u32(at)?;
        if let Some(dir) = self.dir_mut(inode) {
            dir.indexed = false;
        }
        if flags & INDEX != 0 {
            self.dev.write_u32(at, flags & !INDEX)?;
        }
        Ok(())
    }

    /// The blocks of a file that its map gives, in their order.
    pub(crate) fn mapped(&mut self, inode: u32) -> Step<Vec<Mapped>> {
        let mut found = Vec::new();
        let Some(offset) = self.inode_offset(inode) else { return Ok(found) };
        let map = offset + offset_of!(RawInode, i_block) as u64;
        let mut walked = BTreeSet::new();
        let pointers = self.geo.block_size.pointers();
        let mut first = 0;
        for slot in 0..15u64 {
            let level = slot.saturating_sub(11) as u32;
            self.collect(map + slot * 4, first, level, &mut walked, &mut found)?;
            first += pointers.pow(level);
        }
        Ok(found)
    }

    fn collect(
        &mut self,
        at: u64,
        first: u64,
        level: u32,
        walked: &mut BTreeSet<u32>,
        found: &mut Vec<Mapped>,
    ) -> Step {
        let block = self.dev.read_u32(at)?;
        if !self.is_block(block) {
            return Ok(());
        }
        if level == 0 {
            found.push((first, at, block));
            return Ok(());
        }
        if !walked.insert(block) {
            return Ok(());
        }
        let pointers = self.geo.block_size.pointers();
        let mut bytes = Vec::new();
        self.read_block(block, &mut bytes)?;
        for index in (0..pointers).filter(|&index| pointer(&bytes, index as usize) != 0) {
            let span = pointers.pow(level - 1);
            let at = self.byte_of(block) + index * 4;
            self.collect(at, first + index * span, level - 1, walked, found)?;
        }
        Ok(())
    }

    /// The root that is no directory: made one where its contents are one, otherwise taken away, so that a new one is made.
    pub(crate) fn mend_root(&mut self, inode: &Seen<'_>) -> Step {
        let first = inode.raw.i_block[0].get();
        if self.is_block(first) && self.dev.read_u32(self.byte_of(first))? == ROOT {
            let mode = inode.raw.i_mode.get() & 0o7777 | FileKind::Directory.mode_bits();
            self.put_u16(ROOT, offset_of!(RawInode, i_mode), mode)?;
            self.set_state(ROOT, crate::check::run::USED | 2);
            self.later.again = true;
            return Ok(());
        }
        if let Some(offset) = self.inode_offset(ROOT) {
            self.dev.zero(offset, inode.bytes.len() as u64)?;
        }
        self.set_state(ROOT, 0);
        Ok(())
    }

    /// Makes an empty root.
    pub(crate) fn make_root(&mut self) -> Step {
        let Some(block) = self.take_block() else {
            self.later.left += 1;
            return Ok(());
        };
        let bytes = self.empty_directory(ROOT, ROOT);
        self.fill_block(block, &bytes)?;
        self.write_directory(ROOT, 0o755, block)?;
        self.later.again = true;
        Ok(())
    }

    /// Stores the inode of a directory of one block.
    pub(crate) fn write_directory(&mut self, nr: u32, rights: u16, block: u32) -> Step {
        let Some(offset) = self.inode_offset(nr) else { return Ok(()) };
        let mut raw = RawInode::new_zeroed();
        raw.i_mode = (FileKind::Directory.mode_bits() | rights).into();
        raw.i_links_count = 2.into();
        // OK to cast: a block has at most 64 KiB.
        raw.i_size = (self.block_len() as u32).into();
        raw.i_blocks = (self.block_len() as u32 / 512).into();
        raw.i_block[0] = block.into();
        for time in [&mut raw.i_atime, &mut raw.i_ctime, &mut raw.i_mtime] {
            *time = self.now.into();
        }
        self.write_inode(offset, &raw)
    }

    /// Writes an inode that is made anew.
    pub(crate) fn write_inode(&self, offset: u64, raw: &RawInode) -> Step {
        let mut bytes = vec![0; self.geo.inode_size.into()];
        if let Some(old) = bytes.get_mut(..size_of::<RawInode>()) {
            old.copy_from_slice(raw.as_bytes());
        }
        let start = GOOD_OLD_INODE_SIZE as usize;
        let extra = self.sb.want_extra_isize;
        if let Some(field) = bytes.get_mut(start..start + 2)
            && usize::from(extra) + start <= usize::from(self.geo.inode_size)
        {
            field.copy_from_slice(&extra.to_le_bytes());
        }
        Ok(self.dev.write_at(offset, &bytes)?)
    }

    /// An inode whose mode says no kind of file: a regular file where its map is that of one, otherwise nothing.
    pub(crate) fn mend_mode(&mut self, inode: &Seen<'_>) -> Step {
        let (nr, raw) = (inode.nr, inode.raw);
        if self.later.again && self.inode_kind(nr)? == Some(FileKind::Directory) {
            // It was found to be a directory just now.
            return Ok(());
        }
        let blocks = || raw.i_block.iter().map(|block| block.get()).filter(|&block| block != 0);
        let sound = blocks().all(|block| self.is_block(block) && !self.s.found.get(block.into()));
        if blocks().next().is_none() || !sound || raw.i_size.get() == 0 || raw.i_blocks.get() == 0 {
            return self.clear_inode(nr);
        }
        let mode = raw.i_mode.get() & 0o7777 | FileKind::Regular.mode_bits();
        self.put_u16(nr, offset_of!(RawInode, i_mode), mode)?;
        self.later.again = true;
        Ok(())
    }

    fn inode_kind(&self, nr: u32) -> Step<Option<FileKind>> {
        let Some(offset) = self.inode_offset(nr) else { return Ok(None) };
        // The mode is the low half of the first word.
        Ok(FileKind::from_mode(self.dev.read_u32(offset)? as u16))
    }

    /// Without a block for it, or without spare blocks that it can hold, the image is one that has none: nothing of a file is
    /// lost by that.
    fn drop_resize_inode(&mut self, offset: u64) -> Step {
        let mut raw = RawSuperblock::new_zeroed();
        self.dev.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
        let compat = raw.s_feature_compat.get() & !CompatFeatures::RESIZE_INODE.bits();
        raw.s_feature_compat = compat.into();
        raw.s_reserved_gdt_blocks = 0.into();
        self.dev.write_at(SUPERBLOCK_OFFSET, raw.as_bytes())?;
        Ok(self.dev.zero(offset, self.geo.inode_size.into())?)
    }

    /// Makes the inode that holds the spare descriptor blocks, as they lie (mke2fs: `ext2fs_create_resize_inode`).
    fn make_resize_inode(&mut self) -> Step {
        const RESIZE: u32 = 7;
        let Some(offset) = self.inode_offset(RESIZE) else { return Ok(()) };
        let double = self.dev.read_u32(offset + (offset_of!(RawInode, i_block) + 13 * 4) as u64)?;
        let pointers = self.geo.block_size.pointers();
        let double = if !self.has_spare() {
            None
        } else if self.is_block(double) && !self.s.found.set(double.into()) {
            Some(double)
        } else {
            self.take_block()
        };
        let Some(double) = double else { return self.drop_resize_inode(offset) };
        let backups: Vec<u32> =
            (1..self.geo.groups).filter(|&group| self.geo.has_super(GroupNr::new(group))).collect();
        let (mut top, mut blocks) = (vec![0; self.block_len()], 1u64);
        for nr in 0..u32::from(self.geo.reserved_gdt_blocks) {
            let from = self.geo.descriptor_blocks().saturating_add(nr);
            let block = self.geo.first_data_block.saturating_add(1).saturating_add(from);
            if !self.is_block(block) {
                continue;
            }
            put_pointer(&mut top, u64::from(from) % pointers, block);
            let mut leaf = vec![0; self.block_len()];
            for (index, &group) in (0..pointers).zip(&backups) {
                let copy = block.wrapping_add(group.wrapping_mul(self.geo.blocks_per_group));
                put_pointer(&mut leaf, index, copy);
            }
            self.dev.write_at(self.byte_of(block), &leaf)?;
            blocks += 1 + pointers.min(backups.len() as u64);
        }
        self.dev.write_at(self.byte_of(double), &top)?;
        let size = (pointers * pointers + pointers + 12) << self.geo.block_size.log2();
        let mut raw = RawInode::new_zeroed();
        raw.i_mode = (FileKind::Regular.mode_bits() | 0o600).into();
        raw.i_links_count = 1.into();
        // OK to cast: the two halves, and what fits the field as mke2fs counts it.
        raw.i_size = (size as u32).into();
        raw.i_size_high = ((size >> 32) as u32).into();
        raw.i_blocks = ((blocks << (self.geo.block_size.log2() - 9)) as u32).into();
        raw.i_block[13] = double.into();
        for time in [&mut raw.i_atime, &mut raw.i_ctime, &mut raw.i_mtime] {
            *time = self.now.into();
        }
        self.write_inode(offset, &raw)
    }

    /// Says in the superblock that there are files of 2 GiB.
    pub(crate) fn set_feature_large_file(&mut self) -> Step {
        self.set_feature_ro(RoCompatFeatures::LARGE_FILE.bits())
    }

    /// Sets a feature that does not keep others from reading.
    pub(crate) fn set_feature_ro(&mut self, feature: u32) -> Step {
        self.sb.features.ro_compat |= RoCompatFeatures::from_bits_retain(feature);
        let bits = self.raw.s_feature_ro_compat.get() | feature;
        self.raw.s_feature_ro_compat = bits.into();
        let at = SUPERBLOCK_OFFSET + offset_of!(RawSuperblock, s_feature_ro_compat) as u64;
        Ok(self.dev.write_u32(at, bits)?)
    }

    /// Says in the superblock that there are attributes.
    pub(crate) fn set_feature_ext_attr(&mut self) -> Step {
        self.later.again = true;
        let bits = self.raw.s_feature_compat.get() | CompatFeatures::EXT_ATTR.bits();
        self.raw.s_feature_compat = bits.into();
        let at = SUPERBLOCK_OFFSET + offset_of!(RawSuperblock, s_feature_compat) as u64;
        Ok(self.dev.write_u32(at, bits)?)
    }
}

fn put_pointer(block: &mut [u8], nr: u64, value: u32) {
    // OK to cast: a number of pointers in a block.
    let at = nr as usize * 4;
    if let Some(slot) = block.get_mut(at..at + 4) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
}
