//! Where everything lies in a new file system: sizes and places, before a byte is written.
//!
//! # Invariants
//! 1. The numbers are those of mke2fs 1.47 for the same arguments, down to its roundings.
//! 2. Every group holds its bitmaps and its inode table right after its copies of superblock and descriptors.
//!    The rest of the group is free, in one run.
//! 3. [`Layout::geometry`] comes from the superblock as the reader sees it, so that the two cannot disagree.

use alloc::format;
use alloc::vec::Vec;

use zerocopy::FromZeros;

use super::{Error, Format, Inodes, Result, Revision};
use ext2_core::raw::{MAGIC, RawGroupDesc, RawSuperblock};
use ext2_core::{BlockSize, Geometry, GroupNr, Superblock};
use ext2_core::{CompatFeatures, Features, IncompatFeatures};

/// The first inode that is not reserved.
pub(super) const FIRST_INO: u32 = 11;
/// The inode that holds the room for growth of the descriptors.
pub(super) const RESIZE_INO: u32 = 7;
/// Bytes of the extra fields of an inode that has them.
pub(super) const EXTRA_ISIZE: u16 = 32;
/// Bytes of a group descriptor.
const DESC_SIZE: u64 = size_of::<RawGroupDesc>() as u64;
/// `s_flags`: directory hashes take bytes as signed.
const SIGNED_HASH: u32 = 1;
/// `s_default_mount_opts`: user attributes and ACLs.
const DEFAULT_MOUNT_OPTIONS: u32 = 0xc;

/// Where everything lies in a new file system.
#[derive(Clone, Debug)]
pub struct Layout {
    geometry: Geometry,
    raw: RawSuperblock,
    features: Features,
}

/// The numbers that have to agree.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    block_size: BlockSize,
    inode_size: u64,
    features: Features,
    first_data_block: u64,
    blocks: u64,
    reserved_blocks: u64,
    blocks_per_group: u64,
    inodes_per_group: u64,
    table_blocks: u64,
    reserved_gdt: u64,
    backups: [u32; 2],
}

impl Numbers {
    fn groups(&self) -> u64 {
        (self.blocks - self.first_data_block).div_ceil(self.blocks_per_group)
    }

    fn descriptor_blocks(&self) -> u64 {
        self.groups().div_ceil(self.block_size.bytes() / DESC_SIZE)
    }

    /// Spare descriptor blocks that let the file system grow to 1024 times its size, as far as one indirect block
    /// of pointers to them goes.
    fn wanted_reserved_gdt(&self) -> u64 {
        let most = u64::from(u32::MAX);
        let blocks = if self.blocks < most / 1024 { self.blocks * 1024 } else { most };
        let groups = (blocks - self.first_data_block).div_ceil(self.blocks_per_group);
        let wanted = groups.div_ceil(self.block_size.bytes() / DESC_SIZE);
        wanted.saturating_sub(self.descriptor_blocks()).min(self.block_size.pointers())
    }

    /// The two groups with backups under `sparse_super2`: the second and the last.
    fn sparse2_backups(&self) -> [u32; 2] {
        let last = (self.groups() - 1) as u32; // at most 2^32 blocks: fits
        match last {
            0 => [0, 0],
            1 => [1, 0],
            _ => [1, last],
        }
    }

    /// Whether the last group begins with a copy of the superblock.
    fn last_has_super(&self) -> bool {
        let last = (self.groups() - 1) as u32;
        if self.features.compat.contains(CompatFeatures::SPARSE_SUPER2) {
            return last == 0 || self.sparse2_backups().contains(&last);
        }
        if !self.features.ro_compat.contains(ext2_core::RoCompatFeatures::SPARSE_SUPER) {
            return true;
        }
        last <= 1 || [3, 5, 7].into_iter().any(|base| is_power(last, base))
    }

    /// Settles inodes per group for `inodes` in all. False where a group cannot count so many.
    fn set_inodes(&mut self, inodes: u64) -> bool {
        let groups = self.groups();
        let per_block = self.block_size.bytes() / self.inode_size;
        let mut each = inodes.div_ceil(groups);
        if each > self.block_size.bytes() * 8 {
            return false;
        }
        each = each.min((1 << 16) - per_block);
        loop {
            // Whole blocks of the table, then whole bytes of the bitmap.
            let filled = each.div_ceil(per_block) * per_block;
            self.inodes_per_group = filled.max(8) & !7;
            self.table_blocks = self.inodes_per_group.div_ceil(per_block);
            if self.inodes_per_group * groups <= u64::from(u32::MAX) {
                return true;
            }
            each -= 1;
        }
    }
}

/// Whether `nr` is a power of `base`.
fn is_power(mut nr: u32, base: u32) -> bool {
    while nr > 1 && nr.is_multiple_of(base) {
        nr /= base;
    }
    nr == 1
}

impl Layout {
    pub(super) fn new(format: &Format, bytes: u64, used_inodes: u64) -> Result<Self> {
        format.check()?;
        let block_size = format.block_size_for(bytes);
        // Whole pages, so that the last page of a device can be mapped.
        let blocks = bytes / 4096 * 4096 / block_size.bytes();
        if blocks > u64::from(u32::MAX) {
            return Error::format(format!(
                "{blocks} blocks: ext2 counts them in 32 bits, take larger blocks"
            ));
        }
        let needed_inodes = u64::from(FIRST_INO - 1) + used_inodes.max(1);
        let asked = format.inodes_for(blocks, block_size);
        if let Inodes::Count(given) = format.inodes
            && given < needed_inodes
        {
            return Err(Error::TooFewInodes { needed: needed_inodes, given });
        }
        let mut inodes = asked.max(u64::from(FIRST_INO) + 1);
        if inodes > u64::from(u32::MAX) {
            return Error::format(format!("{inodes} inodes: ext2 counts them in 32 bits"));
        }
        loop {
            let numbers = settle(format, block_size, blocks, inodes)?;
            let have = numbers.inodes_per_group * numbers.groups();
            if have >= needed_inodes {
                return Self::from_numbers(format, &numbers, bytes);
            }
            // Rounded down, or more files than the size would suggest.
            inodes = needed_inodes.max(inodes + 1).max(have + 8);
            if inodes > u64::from(u32::MAX) {
                return Err(Error::TooFewInodes { needed: needed_inodes, given: have });
            }
        }
    }

    fn from_numbers(format: &Format, numbers: &Numbers, bytes: u64) -> Result<Self> {
        let raw = superblock(format, numbers)?;
        let sb = Superblock::from_raw(&raw, bytes, false)?;
        Ok(Self { geometry: Geometry::new(&sb), raw, features: numbers.features })
    }

    /// The geometry, as the reader sees it.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What the file system uses.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// Bytes of the file system: its blocks, without what was left out at the device's end.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.geometry.blocks_count) * self.geometry.block_size.bytes()
    }

    /// Blocks kept for privileged users.
    #[must_use]
    pub fn reserved_blocks(&self) -> u32 {
        self.raw.s_r_blocks_count.get()
    }

    /// The superblock without free counts, group number and state of mounts.
    pub(super) fn raw(&self) -> &RawSuperblock {
        &self.raw
    }

    /// Blocks of a group before its first free one: superblock, descriptors, bitmaps and inode table.
    #[must_use]
    pub fn metadata_blocks(&self, group: GroupNr) -> u32 {
        self.geometry.group_overhead(group) + 2 + self.geometry.inode_table_blocks()
    }

    /// The descriptor of a group, without counts.
    pub(super) fn descriptor(&self, group: GroupNr) -> RawGroupDesc {
        let bitmap = self.geometry.group_start(group) + self.geometry.group_overhead(group);
        let mut desc = RawGroupDesc::new_zeroed();
        desc.bg_block_bitmap.set(bitmap);
        desc.bg_inode_bitmap.set(bitmap + 1);
        desc.bg_inode_table.set(bitmap + 2);
        desc
    }

    /// The free run of a group: first block and count.
    #[must_use]
    pub fn free_run(&self, group: GroupNr) -> (u32, u32) {
        let taken = self.metadata_blocks(group);
        (self.geometry.group_start(group) + taken, self.geometry.group_len(group).saturating_sub(taken))
    }

    /// Blocks that the file system's own structures take, `lost+found` and the root not counted (`s_overhead`).
    #[must_use]
    pub fn overhead(&self) -> u32 {
        let taken: u32 = self.geometry.group_numbers().map(|group| self.metadata_blocks(group)).sum();
        taken + self.geometry.first_data_block
    }

    /// The block of a group's backups, for each group that has them; group 0 is left out.
    pub(super) fn backups(&self) -> Vec<GroupNr> {
        self.geometry.group_numbers().skip(1).filter(|&group| self.geometry.has_super(group)).collect()
    }

    /// Whether inode 7 holds room for the descriptors to grow.
    pub(super) fn has_resize_inode(&self) -> bool {
        self.features.compat.contains(CompatFeatures::RESIZE_INODE)
    }
}

/// The numbers for `inodes` inodes in `asked_blocks` blocks, as mke2fs comes to them.
fn settle(format: &Format, block_size: BlockSize, asked_blocks: u64, inodes: u64) -> Result<Numbers> {
    let bits = block_size.bytes() * 8;
    // Free counts of a group have 16 bits.
    let most_per_group = bits.min((1 << 16) - 8);
    let inode_size = u64::from(format.effective_inode_size());
    if inode_size > block_size.bytes() {
        return Error::format(format!("inodes of {inode_size} bytes in blocks of {block_size}"));
    }
    let blocks_per_group = format.blocks_per_group.map_or(most_per_group, u64::from);
    if blocks_per_group < 256 || blocks_per_group > bits || !blocks_per_group.is_multiple_of(8) {
        return Error::format(format!(
            "{blocks_per_group} blocks per group: multiples of 8 from 256 to {bits}"
        ));
    }
    let reserved = (format.reserved_percent * asked_blocks as f64 / 100.0) as u64;
    let mut numbers = Numbers {
        block_size,
        inode_size,
        features: format.effective_features(),
        first_data_block: u64::from(block_size.bytes() == 1024),
        blocks: asked_blocks,
        reserved_blocks: reserved,
        blocks_per_group: blocks_per_group.min(most_per_group),
        inodes_per_group: 0,
        table_blocks: 0,
        reserved_gdt: 0,
        backups: [0; 2],
    };
    let too_small = |numbers: &Numbers, overhead: u64| Error::TooSmall {
        needed: (numbers.first_data_block + overhead + 1) * block_size.bytes(),
        given: asked_blocks * block_size.bytes(),
    };
    if numbers.blocks <= numbers.first_data_block {
        return Err(too_small(&numbers, 8));
    }
    loop {
        if !numbers.set_inodes(inodes) {
            // A group cannot count so many: take more groups.
            if numbers.blocks_per_group < 256 {
                return Error::format(format!("{inodes} inodes are too many for {asked_blocks} blocks"));
            }
            numbers.blocks_per_group -= 8;
            numbers.blocks = asked_blocks;
            continue;
        }
        let resize = numbers.features.compat.contains(CompatFeatures::RESIZE_INODE);
        numbers.reserved_gdt = if resize { numbers.wanted_reserved_gdt() } else { 0 };
        let descriptors = numbers.descriptor_blocks();
        if numbers.reserved_gdt + descriptors > numbers.blocks_per_group * 3 / 4 {
            numbers.features.incompat |= IncompatFeatures::META_BG;
            numbers.features.compat -= CompatFeatures::RESIZE_INODE;
            numbers.reserved_gdt = 0;
        }
        let meta_bg = numbers.features.incompat.contains(IncompatFeatures::META_BG);
        let behind_super = 1 + numbers.reserved_gdt + if meta_bg { 1 } else { descriptors };
        let own = 2 + numbers.table_blocks;
        if behind_super + own > numbers.blocks_per_group {
            return Error::format(format!("{inodes} inodes are too many for {asked_blocks} blocks"));
        }
        let last = own + if numbers.last_has_super() { 1 + descriptors + numbers.reserved_gdt } else { 0 };
        let rest = (numbers.blocks - numbers.first_data_block) % numbers.blocks_per_group;
        if numbers.groups() == 1 && rest != 0 && rest < last {
            return Err(too_small(&numbers, last));
        }
        if rest != 0 && rest < last + 50 && numbers.groups() > 1 {
            // The last group would hold little or nothing: leave it out.
            let kept = numbers.blocks - rest;
            numbers.reserved_blocks = (reserved as f64 * kept as f64 / asked_blocks as f64) as u64;
            numbers.blocks = kept;
            continue;
        }
        if numbers.features.compat.contains(CompatFeatures::SPARSE_SUPER2) {
            numbers.backups = numbers.sparse2_backups();
        }
        return Ok(numbers);
    }
}

/// The superblock, all but free counts.
fn superblock(format: &Format, numbers: &Numbers) -> Result<RawSuperblock> {
    let narrow = |value: u64| {
        u32::try_from(value).map_err(|_| Error::Format(format!("{value} does not fit the superblock")))
    };
    let mut raw = RawSuperblock::new_zeroed();
    let made = format.created.encode(false).0;
    let log = numbers.block_size.log2() - 10;
    raw.s_inodes_count.set(narrow(numbers.inodes_per_group * numbers.groups())?);
    raw.s_blocks_count.set(narrow(numbers.blocks)?);
    raw.s_r_blocks_count.set(narrow(numbers.reserved_blocks)?);
    raw.s_first_data_block.set(narrow(numbers.first_data_block)?);
    raw.s_log_block_size.set(log);
    raw.s_log_frag_size.set(log);
    raw.s_blocks_per_group.set(narrow(numbers.blocks_per_group)?);
    raw.s_frags_per_group.set(narrow(numbers.blocks_per_group)?);
    raw.s_inodes_per_group.set(narrow(numbers.inodes_per_group)?);
    raw.s_wtime.set(made);
    raw.s_max_mnt_count.set(u16::MAX);
    raw.s_magic.set(MAGIC);
    raw.s_state.set(1);
    raw.s_errors.set(1);
    raw.s_lastcheck.set(made);
    raw.s_uuid = format.uuid;
    raw.s_mkfs_time.set(made);
    for (word, seed) in raw.s_hash_seed.iter_mut().zip(format.hash_seed) {
        word.set(seed);
    }
    raw.s_def_hash_version = 1;
    raw.s_flags.set(SIGNED_HASH);
    copy_text(&mut raw.s_volume_name, &format.label);
    copy_text(&mut raw.s_last_mounted, &format.last_mounted);
    if format.revision == Revision::Dynamic {
        raw.s_rev_level.set(1);
        raw.s_default_mount_opts.set(DEFAULT_MOUNT_OPTIONS);
        raw.s_first_ino.set(FIRST_INO);
        raw.s_inode_size.set(format.inode_size);
        raw.s_feature_compat.set(numbers.features.compat.bits());
        raw.s_feature_incompat.set(numbers.features.incompat.bits());
        raw.s_feature_ro_compat.set(numbers.features.ro_compat.bits());
        raw.s_reserved_gdt_blocks.set(narrow(numbers.reserved_gdt)? as u16);
        for (word, group) in raw.s_backup_bgs.iter_mut().zip(numbers.backups) {
            word.set(group);
        }
        if format.inode_size > 128 {
            raw.s_min_extra_isize.set(EXTRA_ISIZE);
            raw.s_want_extra_isize.set(EXTRA_ISIZE);
        }
    }
    Ok(raw)
}

/// Puts `text` at the start of a field.
fn copy_text(field: &mut [u8], text: &[u8]) {
    for (byte, &from) in field.iter_mut().zip(text) {
        *byte = from;
    }
}
