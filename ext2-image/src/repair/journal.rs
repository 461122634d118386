//! Repairs of the journal, as far as it is a file: where it is, and that it begins as one.

use alloc::vec;
use core::mem::offset_of;

use ext2_core::FileKind;
use ext2_core::raw::{RawInode, RawSuperblock, SUPERBLOCK_OFFSET};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::check::run::{Run, Step};

impl Run<'_> {
    /// A journal that is a file with a name, as ext3 once made it on a mount, becomes inode 8; its name goes with the passes.
    /// `false` where inode 8 has something, or the file is no journal.
    fn move_journal(&mut self, hidden: &RawInode) -> Step<bool> {
        const INODE: u32 = 8;
        let nr = self.raw.s_journal_inum.get();
        let is_used = hidden.i_links_count.get() != 0 || hidden.i_block.iter().any(|block| block.get() != 0);
        if nr < self.geo.first_ino || is_used || !crate::jbd2::has_superblock(self.dev, &self.raw)? {
            return Ok(false);
        }
        let (Some(from), Some(to)) = (self.inode_offset(nr), self.inode_offset(INODE)) else {
            return Ok(false);
        };
        let mut bytes = vec![0; self.geo.inode_size.into()];
        self.dev.read_at(from, &mut bytes)?;
        let Ok((inode, _)) = RawInode::mut_from_prefix(&mut bytes) else { return Ok(false) };
        if FileKind::from_mode(inode.i_mode.get()) != Some(FileKind::Regular)
            || inode.i_links_count.get() == 0
        {
            return Ok(false);
        }
        inode.i_mode = (FileKind::Regular.mode_bits() | 0o600).into();
        inode.i_links_count = 1.into();
        self.dev.write_at(to, &bytes)?;
        self.dev.zero(from, self.geo.inode_size.into())?;
        let at = SUPERBLOCK_OFFSET + offset_of!(RawSuperblock, s_journal_inum) as u64;
        self.dev.write_u32(at, INODE)?;
        Ok(true)
    }

    /// Gives the journal's inode back the map of which the superblock has a copy, as e2fsck does it; `false` where that leads to
    /// no journal, or the inode does.
    fn restore_journal(&mut self, offset: u64) -> Step<bool> {
        const INODE: u32 = 8;
        let mut raw = self.raw;
        raw.s_journal_inum = INODE.into();
        if crate::jbd2::has_superblock(self.dev, &raw)? || !crate::jbd2::has_kept_map(self.dev, &raw)? {
            return Ok(false);
        }
        let [pointers @ .., high, low] = &raw.s_jnl_blocks;
        let mut inode = RawInode::new_zeroed();
        inode.i_mode = (FileKind::Regular.mode_bits() | 0o600).into();
        inode.i_links_count = 1.into();
        (inode.i_size, inode.i_size_high) = (*low, *high);
        inode.i_block = *pointers;
        for time in [&mut inode.i_atime, &mut inode.i_ctime, &mut inode.i_mtime] {
            *time = self.now.into();
        }
        self.write_inode(offset, &inode)?;
        let at = SUPERBLOCK_OFFSET + offset_of!(RawSuperblock, s_journal_inum) as u64;
        self.dev.write_u32(at, INODE)?;
        Ok(true)
    }

    /// A journal that cannot be one: found by the copy of its map, begun anew where its inode holds a run of blocks as mke2fs
    /// makes it, otherwise taken away with its feature.
    pub(crate) fn mend_journal(&mut self) -> Step {
        const INODE: u32 = 8;
        const LEAST: u32 = 1024;
        self.later.again = true;
        let Some(offset) = self.inode_offset(INODE) else { return Ok(()) };
        let mut inode = RawInode::new_zeroed();
        self.dev.read_at(offset, inode.as_mut_bytes())?;
        let blocks = inode.i_size.get() >> self.geo.block_size.log2();
        let [first, ..] = &inode.i_block;
        if self.move_journal(&inode)? || self.restore_journal(offset)? {
            return Ok(());
        }
        let direct = || inode.i_block.iter().take(12).map(|block| block.get());
        let is_run = direct().zip(first.get()..).all(|(block, next)| block == next && self.is_block(block));
        let mut raw = RawSuperblock::new_zeroed();
        self.dev.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
        raw.s_feature_incompat = (raw.s_feature_incompat.get() & !0x4).into();
        if FileKind::from_mode(inode.i_mode.get()) == Some(FileKind::Regular)
            && inode.i_links_count.get() != 0
            && inode.i_size_high.get() == 0
            && blocks >= LEAST
            && is_run
        {
            raw.s_journal_inum = INODE.into();
            let mut journal = ext2_format::journal::superblock(self.block_len(), blocks, 1);
            if let Some(uuid) = journal.get_mut(48..64) {
                uuid.copy_from_slice(&raw.s_uuid);
            }
            self.dev.write_at(self.byte_of(first.get()), &journal)?;
        }
        // One whose blocks cannot be followed to their end is none. Of one on another device nothing is known.
        let nr = raw.s_journal_inum.get();
        let is_elsewhere = nr == 0 && (raw.s_journal_dev.get() != 0 || raw.s_journal_uuid != [0; 16]);
        if !is_elsewhere && (nr != INODE || !crate::jbd2::has_superblock(self.dev, &raw)?) {
            raw.s_feature_compat = (raw.s_feature_compat.get() & !0x4).into();
            raw.s_journal_inum = 0.into();
            raw.s_jnl_backup_type = 0;
            raw.s_jnl_blocks = Default::default();
            self.dev.zero(offset, self.geo.inode_size.into())?;
        }
        Ok(self.dev.write_at(SUPERBLOCK_OFFSET, raw.as_bytes())?)
    }
}
