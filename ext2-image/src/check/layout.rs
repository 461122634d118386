//! Pass 0: the descriptors, and the blocks that they and the superblock claim.

use core::mem::offset_of;

use zerocopy::{FromZeros, IntoBytes};

use super::Pass;
use super::finding::{Kind, Place};
use super::run::{Run, Step, Stop};
use super::superblock::{ORPHANS, UNINIT_BG, marks_no_journal};
use crate::little::word;
use ext2_core::raw::{RawGroupDesc, RawSuperblock, SUPERBLOCK_OFFSET};
use ext2_core::{Barrier, CompatFeatures, GroupNr, IncompatFeatures};

/// `bg_flags`: the table, or the block bitmap, was never written.
pub(crate) const TABLE_UNWRITTEN: u16 = 1;
pub(crate) const BITMAP_UNWRITTEN: u16 = 2;

/// The inode of the journal.
const JOURNAL: u32 = 8;

/// The checksum of a descriptor (Linux: `ext4_group_desc_csum`).
fn descriptor_sum(raw: &RawSuperblock, group: u32, desc: &RawGroupDesc) -> u16 {
    let body = desc.as_bytes().get(..offset_of!(RawGroupDesc, bg_checksum)).unwrap_or_default();
    let sum = crate::crc::crc16(!0, &raw.s_uuid);
    crate::crc::crc16(crate::crc::crc16(sum, &group.to_le_bytes()), body)
}

fn say_all_written(desc: &mut RawGroupDesc) {
    desc.bg_flags.set(desc.bg_flags.get() & !(TABLE_UNWRITTEN | BITMAP_UNWRITTEN));
    desc.bg_itable_unused.set(0);
}

/// A descriptor as a backup has it, without what it says of parts that were never written: they may have been since.
/// libext2fs: `ext2fs_open2` with a block of a backup.
pub(crate) fn of_backup(raw: &RawSuperblock, group: u32, mut desc: RawGroupDesc) -> RawGroupDesc {
    if raw.s_feature_ro_compat.get() & UNINIT_BG != 0 {
        say_all_written(&mut desc);
        desc.bg_checksum.set(descriptor_sum(raw, group, &desc));
    }
    desc
}

impl Run<'_> {
    /// Checks the descriptors and marks all metadata.
    pub(crate) fn check_layout(&mut self) -> Step {
        // What it holds comes before all else.
        self.check_log()?;
        self.read_descriptors()?;
        self.check_places()?;
        let groups = self.geo.groups;
        self.s.found.reset(self.geo.blocks_count.into());
        self.s.metadata.reset(self.geo.blocks_count.into());
        self.s.walked.reset(self.geo.blocks_count.into());
        for group in 0..groups {
            let nr = GroupNr::new(group);
            let start = self.geo.group_start(nr);
            let overhead = self.geo.group_overhead(nr).min(self.geo.group_len(nr));
            self.s.found.set_range(start.into(), overhead.into());
            self.s.metadata.set_range(start.into(), overhead.into());
            self.claim_tables(group)?;
            self.tick(Pass::Layout, u64::from(group) + 1, groups.into());
        }
        if self.raw.s_feature_ro_compat.get() & ORPHANS != 0
            && self.fault(Place::Superblock, Kind::OrphansPresent)?
        {
            self.raw.s_feature_ro_compat = (self.raw.s_feature_ro_compat.get() & !ORPHANS).into();
            let at = SUPERBLOCK_OFFSET + offset_of!(RawSuperblock, s_feature_ro_compat) as u64;
            self.dev.write_u32(at, self.raw.s_feature_ro_compat.get())?;
        }
        if marks_no_journal(&self.raw) && self.fault(Place::Superblock, Kind::RecoveryLeft)? {
            self.clear_mark()?;
        }
        self.check_resize_inode()?;
        self.check_journal()?;
        self.begin_anew()
    }

    /// Transactions of which the superblock does not say that they have to be brought back.
    fn check_log(&mut self) -> Step {
        if crate::jbd2::is_full_unmarked(self.dev, &self.raw)?
            && self.fault(Place::Inode(JOURNAL), Kind::JournalUnmarked)?
        {
            crate::jbd2::replay_unmarked(self.dev, &self.raw)?;
            return Err(Stop::Again);
        }
        Ok(())
    }

    /// Says in the superblock that no journal has to be replayed.
    fn clear_mark(&mut self) -> Step {
        let bits = self.raw.s_feature_incompat.get() & !IncompatFeatures::RECOVER.bits();
        self.raw.s_feature_incompat = bits.into();
        let at = SUPERBLOCK_OFFSET + offset_of!(RawSuperblock, s_feature_incompat) as u64;
        Ok(self.dev.write_u32(at, bits)?)
    }

    /// The journal, as far as ext2 is concerned: where it is, and that it begins as one.
    fn check_journal(&mut self) -> Step {
        // e2fsck looks at nothing either where it does not have that device.
        if crate::jbd2::is_elsewhere(&self.raw) {
            return Err(crate::jbd2::elsewhere().into());
        }
        // Whoever looks for the journal would look for that one, and e2fsck does not know which is meant.
        if self.raw.s_journal_uuid != [0; 16] && self.fault(Place::Superblock, Kind::JournalElsewhere)? {
            let field = offset_of!(RawSuperblock, s_journal_uuid) as u64;
            self.dev.zero(SUPERBLOCK_OFFSET + field, 16)?;
            self.later.again = true;
        }
        if !self.sb.features.compat.contains(CompatFeatures::HAS_JOURNAL) {
            return self.check_unused_journal();
        }
        let nr = self.raw.s_journal_inum.get();
        // Of one on another device nothing is known.
        let is_elsewhere = nr == 0 && self.raw.s_journal_dev.get() != 0;
        let is_one = is_elsewhere || crate::jbd2::has_superblock(self.dev, &self.raw)?;
        if nr != JOURNAL && is_one {
            if self.report(Place::Superblock, Kind::JournalInode, Some(nr.into()), None)? {
                self.mend_journal()?;
            }
            return Ok(());
        }
        if !is_one {
            let is_foreign = crate::jbd2::has_unknown_version(self.dev, &self.raw)?;
            let kind = if is_foreign { Kind::JournalVersion } else { Kind::JournalSuperblock };
            if self.fault(Place::Inode(JOURNAL), kind)? {
                self.mend_journal()?;
            }
        }
        if crate::jbd2::has_later_fields(self.dev, &self.raw)?
            && self.fault(Place::Inode(JOURNAL), Kind::JournalFields)?
        {
            crate::jbd2::clear_later_fields(self.dev, &self.raw)?;
        }
        let users = crate::jbd2::users(self.dev, &self.raw)?;
        if users > 1 && self.report(Place::Inode(JOURNAL), Kind::JournalUsers, Some(users.into()), Some(1))? {
            crate::jbd2::set_one_user(self.dev, &self.raw)?;
        }
        Ok(())
    }

    /// A journal that is named without the feature is no longer wanted, with all that it may hold.
    fn check_unused_journal(&mut self) -> Step {
        let nr = self.raw.s_journal_inum.get();
        if nr == 0 {
            return Ok(());
        }
        let is_one = crate::jbd2::has_superblock(self.dev, &self.raw)?;
        let wanted = if !is_one && crate::jbd2::has_unknown_version(self.dev, &self.raw)? {
            self.fault(Place::Inode(JOURNAL), Kind::JournalVersion)?
        } else {
            let kind = if is_one { Kind::JournalUnused } else { Kind::JournalLeft };
            self.report(Place::Superblock, kind, Some(nr.into()), None)?
        };
        if wanted {
            self.raw.s_journal_inum = 0.into();
            let field = offset_of!(RawSuperblock, s_journal_inum) as u64;
            self.dev.write_u32(SUPERBLOCK_OFFSET + field, 0)?;
            self.clear_mark()?;
        }
        Ok(())
    }

    pub(crate) fn read_descriptors(&mut self) -> Step {
        let mut descs = core::mem::take(&mut self.s.descs);
        descs.clear();
        descs.resize(self.geo.groups as usize, RawGroupDesc::default());
        let per_block = self.geo.descriptors_per_block() as usize;
        for (nr, chunk) in descs.chunks_mut(per_block).enumerate() {
            // OK to cast: there are at most 2^32 groups.
            let block = self.geo.descriptor_block(nr as u32, GroupNr::new(0));
            if !self.is_block(block) {
                self.report(Place::Superblock, Kind::SuperblockField, Some(block.into()), None)?;
                return Err(Stop::Unusable);
            }
            self.dev.read_at(u64::from(block) << self.geo.block_size.log2(), chunk.as_mut_bytes())?;
        }
        self.s.descs = descs;
        Ok(())
    }

    /// Checks that bitmaps and tables lie in their groups. What lies outside the file system ends the
    /// check: the rest cannot be read.
    fn check_places(&mut self) -> Step {
        let mut usable = true;
        for group in 0..self.geo.groups {
            let Some(desc) = self.s.descs.get(group as usize).copied() else { break };
            let start = u64::from(self.geo.group_start(GroupNr::new(group)));
            let end = start + u64::from(self.geo.group_len(GroupNr::new(group)));
            let places = [
                (Kind::BlockBitmapPlace, desc.bg_block_bitmap.get(), 1),
                (Kind::InodeBitmapPlace, desc.bg_inode_bitmap.get(), 1),
                (Kind::InodeTablePlace, desc.bg_inode_table.get(), self.geo.inode_table_blocks()),
            ];
            let flags = desc.bg_flags.get() & 3;
            if self.has_sums() {
                self.check_descriptor_sum(group, &desc)?;
            } else if (flags != 0 || desc.bg_itable_unused.get() != 0)
                && self.report(Place::Group(group), Kind::GroupFlags, Some(flags.into()), None)?
            {
                let at = self.geo.descriptor_offset(GroupNr::new(group), GroupNr::new(0));
                let field = |field: usize| at + field as u64;
                self.dev.write_u16(field(offset_of!(RawGroupDesc, bg_flags)), desc.bg_flags.get() & !3)?;
                self.dev.write_u16(field(offset_of!(RawGroupDesc, bg_itable_unused)), 0)?;
            }
            for (kind, block, len) in places {
                let first = u64::from(block);
                let last = first + u64::from(len);
                if first < start || last > end {
                    self.report(Place::Group(group), kind, Some(first), None)?;
                }
                if block <= self.geo.first_data_block || last > u64::from(self.geo.blocks_count) {
                    usable = false;
                }
            }
        }
        if usable { Ok(()) } else { Err(Stop::Unusable) }
    }

    /// Whether descriptors have checksums and say what of their group was never written.
    pub(crate) fn has_sums(&self) -> bool {
        self.sb.features.ro_compat.bits() & UNINIT_BG != 0
    }

    /// The flags of a group that count, and how many inodes of its table are in use at most.
    pub(crate) fn written(&self, group: u32) -> (u16, u32) {
        let per_group = self.geo.inodes_per_group;
        match self.s.descs.get(group as usize).filter(|_| self.has_sums()) {
            None => (0, per_group),
            Some(desc) if desc.bg_flags.get() & TABLE_UNWRITTEN != 0 => (desc.bg_flags.get(), 0),
            Some(desc) => (desc.bg_flags.get(), per_group.saturating_sub(desc.bg_itable_unused.get().into())),
        }
    }

    fn check_descriptor_sum(&mut self, group: u32, desc: &RawGroupDesc) -> Step {
        let sum = descriptor_sum(&self.raw, group, desc);
        if sum != desc.bg_checksum.get() {
            let numbers = (Some(desc.bg_checksum.get().into()), Some(sum.into()));
            if self.report(Place::Group(group), Kind::GroupChecksum, numbers.0, numbers.1)? {
                // What it says of parts that were never written is not to be believed either.
                self.believe_all_written(group)?;
            }
        }
        Ok(())
    }

    /// Takes back what a descriptor says was never written: bitmaps and table are read from the device from now on.
    pub(crate) fn believe_all_written(&mut self, group: u32) -> Step {
        self.change_descriptor(group, say_all_written)
    }

    /// Stores a descriptor that `change` changes, with its checksum where there are some.
    pub(crate) fn change_descriptor(&mut self, group: u32, change: impl FnOnce(&mut RawGroupDesc)) -> Step {
        let at = self.geo.descriptor_offset(GroupNr::new(group), GroupNr::new(0));
        let mut desc = RawGroupDesc::default();
        self.dev.read_at(at, desc.as_mut_bytes())?;
        change(&mut desc);
        if self.has_sums() {
            desc.bg_checksum.set(descriptor_sum(&self.raw, group, &desc));
        }
        self.dev.write_at(at, desc.as_bytes())?;
        if let Some(known) = self.s.descs.get_mut(group as usize) {
            *known = desc;
        }
        Ok(())
    }

    fn claim_tables(&mut self, group: u32) -> Step {
        let Some(desc) = self.s.descs.get(group as usize).copied() else { return Ok(()) };
        let places = [
            (Kind::InodeTableOverlap, desc.bg_inode_table.get(), self.geo.inode_table_blocks()),
            (Kind::BlockBitmapOverlap, desc.bg_block_bitmap.get(), 1),
            (Kind::InodeBitmapOverlap, desc.bg_inode_bitmap.get(), 1),
        ];
        for (kind, first, len) in places {
            self.s.metadata.set_range(first.into(), len.into());
            if self.s.found.set_if_clear(first.into(), len.into()) {
                continue;
            }
            let overlap = (first..first.saturating_add(len)).find(|&block| self.s.found.get(block.into()));
            self.s.found.set_range(first.into(), len.into());
            if let Some(block) = overlap {
                self.report(Place::Group(group), kind, Some(block.into()), None)?;
            }
        }
        Ok(())
    }

    /// Compares the backups of the superblock with the primary one, in what must be the same.
    pub(crate) fn check_backups(&mut self) -> Step {
        let mut raw = RawSuperblock::new_zeroed();
        for group in (1..self.geo.groups).map(GroupNr::new) {
            if !self.geo.has_super(group) {
                continue;
            }
            let offset = u64::from(self.geo.group_start(group)) << self.geo.block_size.log2();
            self.dev.read_at(offset, raw.as_mut_bytes())?;
            let constant = |sb: &RawSuperblock| {
                (
                    sb.s_magic,
                    sb.s_inodes_count,
                    sb.s_blocks_count,
                    sb.s_log_block_size,
                    sb.s_blocks_per_group,
                    sb.s_inodes_per_group,
                    sb.s_inode_size,
                    sb.s_uuid,
                )
            };
            if constant(&raw) != constant(&self.raw)
                && self.fault(Place::Group(group.get()), Kind::BackupSuperblock)?
            {
                self.write_backup(group)?;
            }
        }
        Ok(())
    }

    /// After mending: the superblock says that the file system is clean.
    pub(crate) fn finish_super(&mut self) -> Step {
        let state = self.raw.s_state.get() & !2 | 1;
        self.dev.write_u16(SUPERBLOCK_OFFSET + offset_of!(RawSuperblock, s_state) as u64, state)?;
        self.dev.write_u32(SUPERBLOCK_OFFSET + offset_of!(RawSuperblock, s_last_orphan) as u64, 0)?;
        Ok(Barrier::Mended.flush(self.dev)?)
    }
}

/// The `nr`-th pointer of an indirect block; 0 past its end.
pub(crate) fn pointer(block: &[u8], nr: usize) -> u32 {
    word(block, nr * 4)
}
