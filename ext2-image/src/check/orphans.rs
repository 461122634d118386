//! Before the passes, as e2fsck does it: the list of orphans, inodes that were open and have no name,
//! or were being truncated, when the system went down.

use core::mem::{offset_of, take};

use zerocopy::{FromZeros, IntoBytes};

use super::finding::{Kind, Place};
use super::layout::pointer;
use super::run::{Mode, Run, Step};
use ext2_core::raw::{RawInode, RawSuperblock, RawXattrHeader, SUPERBLOCK_OFFSET, XATTR_MAGIC};
use ext2_core::rules::STATE_ERROR;

/// What releasing blocks came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    /// Go on.
    On,
    /// A block was impossible, or free already: e2fsck leaves the rest to the passes.
    Abort,
}

/// The truncation of one inode.
struct Truncation {
    /// Blocks of the file below this one stay; 0 for a file to delete.
    keep: u64,
    /// Whether pointers are cleared: not in a file that is deleted as a whole.
    clears: bool,
    released: u64,
}

impl Run<'_> {
    /// Carries out what the list of orphans asks for.
    pub(crate) fn release_orphans(&mut self) -> Step {
        let mut next = self.raw.s_last_orphan.get();
        if next == 0 || self.raw.s_state.get() & STATE_ERROR != 0 {
            return Ok(());
        }
        if !self.report(Place::Superblock, Kind::OrphanList, Some(next.into()), Some(0))? {
            return Ok(());
        }
        if self.mode == Mode::Repair {
            // The passes may begin anew, and the list is followed once.
            let field = offset_of!(RawSuperblock, s_last_orphan) as u64;
            self.dev.write_u32(SUPERBLOCK_OFFSET + field, 0)?;
        }
        // A list that goes in a circle ends when it has been once through all inodes.
        for _ in 0..self.geo.inodes_count {
            if next == 0 {
                break;
            }
            if next < self.geo.first_ino || next > self.geo.inodes_count {
                return Ok(());
            }
            match self.release_orphan(next)? {
                Some(following) => next = following,
                None => break,
            }
        }
        Ok(())
    }

    /// Releases one orphan, and gives the next; `None` when the list cannot be followed.
    fn release_orphan(&mut self, nr: u32) -> Step<Option<u32>> {
        let Some(offset) = self.inode_offset(nr) else { return Ok(None) };
        let mut raw = RawInode::new_zeroed();
        self.dev.read_at(offset, raw.as_mut_bytes())?;
        let next = raw.i_dtime.get();
        if next != 0 && (next < self.geo.first_ino || next > self.geo.inodes_count) {
            return Ok(None);
        }
        let links = raw.i_links_count.get();
        let kind = ext2_core::FileKind::from_mode(raw.i_mode.get());
        let has_map = match kind {
            Some(ext2_core::FileKind::Regular | ext2_core::FileKind::Directory) => true,
            Some(ext2_core::FileKind::Symlink) => raw.i_blocks.get() != 0 && raw.i_file_acl.get() == 0,
            _ => false,
        };
        if has_map {
            let size = u64::from(raw.i_size_high.get()) << 32 | u64::from(raw.i_size.get());
            let keep = if links == 0 { 0 } else { self.geo.block_size.blocks_for(size) };
            let mut truncation = Truncation { keep, clears: links != 0, released: 0 };
            let release = self.release_tree(&mut raw, &mut truncation)?;
            if truncation.clears {
                self.dev.write_at(offset, raw.as_bytes())?;
            }
            if release == Release::Abort {
                return Ok(None);
            }
            // OK to cast: as e2fsck, which keeps 32 bits.
            let sectors = (truncation.released << (self.geo.block_size.log2() - 9)) as u32;
            self.put_u32(
                nr,
                offset_of!(RawInode, i_blocks),
                raw.i_blocks.get().wrapping_sub(if truncation.clears { sectors } else { 0 }),
            )?;
            if self.is_block(raw.i_file_acl.get()) {
                self.drop_attribute_block(raw.i_file_acl.get())?;
                self.put_u32(nr, offset_of!(RawInode, i_file_acl), 0)?;
            }
        }
        let dtime = if links == 0 { self.now } else { 0 };
        self.put_u32(nr, offset_of!(RawInode, i_dtime), dtime)?;
        Ok(Some(next))
    }

    /// Lowers the number of users of a block of attributes.
    fn drop_attribute_block(&mut self, block: u32) -> Step {
        let mut header = RawXattrHeader::default();
        let at = u64::from(block) << self.geo.block_size.log2();
        self.dev.read_at(at, header.as_mut_bytes())?;
        if header.h_magic.get() == XATTR_MAGIC {
            let count = header.h_refcount.get().wrapping_sub(1);
            self.dev.write_u32(at + offset_of!(RawXattrHeader, h_refcount) as u64, count)?;
        }
        Ok(())
    }

    fn release_tree(&mut self, raw: &mut RawInode, truncation: &mut Truncation) -> Step<Release> {
        let pointers = self.geo.block_size.pointers();
        let mut first = 0;
        for slot in 0..raw.i_block.len() {
            let level = slot.saturating_sub(11);
            let Some(block) = raw.i_block.get(slot).map(|block| block.get()) else { break };
            let (left, release) = self.release(block, first, level, truncation)?;
            if truncation.clears
                && left != block
                && let Some(pointer) = raw.i_block.get_mut(slot)
            {
                pointer.set(left);
            }
            if release == Release::Abort {
                return Ok(Release::Abort);
            }
            first += pointers.pow(level as u32);
        }
        Ok(Release::On)
    }

    /// Releases what a pointer stands for, below before above; gives what the pointer becomes.
    fn release(
        &mut self,
        block: u32,
        first: u64,
        level: usize,
        truncation: &mut Truncation,
    ) -> Step<(u32, Release)> {
        if block == 0 {
            return Ok((0, Release::On));
        }
        if !self.is_block(block) {
            return Ok((block, Release::Abort));
        }
        let mut is_empty = true;
        if level > 0
            && let Some(slot) = self.s.levels.get_mut(level - 1)
        {
            let mut buffer = take(slot);
            // What several pointers lead to is gone through once, or no image would be too small to take for ever.
            let is_known = self.s.walked.set(block.into());
            is_empty &= !is_known;
            let pointers = if is_known { 0 } else { self.geo.block_size.pointers() };
            if !is_known {
                self.read_block(block, &mut buffer)?;
            }
            let span = self.geo.block_size.pointers().pow(level as u32 - 1);
            let at = u64::from(block) << self.geo.block_size.log2();
            for index in 0..pointers {
                let below = pointer(&buffer, index as usize);
                let (left, release) = self.release(below, first + index * span, level - 1, truncation)?;
                is_empty &= left == 0;
                if left != below {
                    self.dev.write_u32(at + index * 4, left)?;
                }
                if release == Release::Abort {
                    return Ok((block, release));
                }
            }
            if let Some(slot) = self.s.levels.get_mut(level - 1) {
                *slot = buffer;
            }
        } else if first < truncation.keep {
            return Ok((block, Release::On));
        }
        if !self.take_from_bitmap(block, truncation.clears && level > 0 && !is_empty)? {
            return Ok((block, Release::Abort));
        }
        if !truncation.clears || level > 0 && !is_empty {
            return Ok((block, Release::On));
        }
        truncation.released += 1;
        Ok((0, Release::On))
    }

    /// Marks a block as free on the device, unless it only has to be looked at; whether it was in use.
    fn take_from_bitmap(&mut self, block: u32, only_look: bool) -> Step<bool> {
        let Some((group, bit)) = self.geo.group_of_block(block) else { return Ok(false) };
        let Some(desc) = self.s.descs.get(group.get() as usize) else { return Ok(false) };
        let at = (u64::from(desc.bg_block_bitmap.get()) << self.geo.block_size.log2()) + u64::from(bit / 8);
        let mut byte = [0];
        self.dev.read_at(at, &mut byte)?;
        let mask = 1 << (bit % 8);
        let was = byte[0] & mask != 0;
        if was && !only_look {
            self.dev.write_at(at, &[byte[0] & !mask])?;
        }
        Ok(was)
    }
}
