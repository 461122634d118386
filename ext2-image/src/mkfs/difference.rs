//! The first structure in which two images differ, by name and field: what two builds that should be the same did
//! differently.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use blockdev::BlockDevice;
use zerocopy::FromBytes;

use ext2_core::Result;
use ext2_core::raw::{RawGroupDesc, RawInode, RawInodeExtra, RawSuperblock};
use ext2_core::{Ext2, GroupNr};

/// The first byte in which two images differ, and what lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FirstDifference {
    /// The byte, counted from the file system's start.
    pub offset: u64,
    /// What lies there: `superblock`, `group 3 block bitmap`, `inode 12`, `block 77`.
    pub structure: String,
    /// The field of the structure, by the kernel's name; empty where it has no fields.
    pub field: String,
}

impl fmt::Display for FirstDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.structure)?;
        if self.field.is_empty() { Ok(()) } else { write!(f, ": {}", self.field) }
    }
}

/// Bytes that are compared at once.
const CHUNK: u64 = 1 << 20;

/// Compares two file systems byte by byte, up to the end of the shorter device. The layout of the left one names what
/// differs.
///
/// # Errors
/// `Corrupt`, the device's errors.
pub fn first_difference(left: &Ext2, right: &Ext2) -> Result<Option<FirstDifference>> {
    let (a, b): (&Arc<dyn BlockDevice>, _) = (left.device(), right.device());
    let end = a.size().min(b.size());
    let (mut x, mut y): (Vec<u8>, Vec<u8>) = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
    let mut at = 0;
    while at < end {
        let len = (end - at).min(CHUNK) as usize;
        a.read_at(at, &mut x[..len])?;
        b.read_at(at, &mut y[..len])?;
        if x[..len] != y[..len] {
            let place = x.iter().zip(&y).take(len).position(|(x, y)| x != y).unwrap_or(0);
            return name(left, at + place as u64).map(Some);
        }
        at += len as u64;
    }
    Ok((a.size() != b.size()).then(|| FirstDifference {
        offset: end,
        structure: format!("the devices have {} and {} bytes", a.size(), b.size()),
        field: String::new(),
    }))
}

/// Says what lies at a byte.
fn name(fs: &Ext2, offset: u64) -> Result<FirstDifference> {
    let geometry = fs.geometry();
    let size = geometry.block_size.bytes();
    let (structure, field) = if (1024..2048).contains(&offset) {
        ("superblock".into(), superblock_field(offset - 1024))
    } else {
        match u32::try_from(offset / size).ok().and_then(|block| geometry.group_of_block(block)) {
            None => (format!("block {}", offset / size), String::new()),
            Some((group, _)) => in_group(fs, group, offset)?,
        }
    };
    Ok(FirstDifference { offset, structure, field })
}

fn in_group(fs: &Ext2, group: GroupNr, offset: u64) -> Result<(String, String)> {
    let geometry = fs.geometry();
    let size = geometry.block_size.bytes();
    let block = offset / size;
    // Structures may lie in any group: with `flex_bg` they do.
    for owner in geometry.group_numbers() {
        let desc = fs.descriptor(owner)?;
        let table = u64::from(desc.bg_inode_table.get());
        let blocks = u64::from(geometry.inode_table_blocks());
        if block == u64::from(desc.bg_block_bitmap.get()) {
            let bit = (offset % size) * 8;
            return Ok((format!("group {owner} block bitmap"), format!("bits from {bit}")));
        }
        if block == u64::from(desc.bg_inode_bitmap.get()) {
            let bit = (offset % size) * 8;
            return Ok((format!("group {owner} inode bitmap"), format!("bits from {bit}")));
        }
        if (table..table + blocks).contains(&block) {
            let inside = offset - table * size;
            let inode_size = u64::from(geometry.inode_size);
            let index = inside / inode_size;
            let number = u64::from(owner.get()) * u64::from(geometry.inodes_per_group) + index + 1;
            return Ok((format!("inode {number}"), inode_field(inside % inode_size)));
        }
    }
    let place = block.saturating_sub(u64::from(geometry.group_start(group)));
    if place < u64::from(geometry.group_overhead(group)) {
        if place == 0 && geometry.has_super(group) {
            return Ok((format!("group {group} superblock backup"), superblock_field(offset % size)));
        }
        return Ok((format!("group {group} descriptors"), descriptor_field(offset % size)));
    }
    Ok((format!("block {block}"), String::new()))
}

/// The field in which byte `at` lies, of a list of fields by their ends.
fn field(at: u64, ends: &[(u64, &str)]) -> String {
    ends.iter().find(|(end, _)| at < *end).map(|(_, name)| String::from(*name)).unwrap_or_default()
}

macro_rules! fields {
    ($type:ty: $($name:ident),+ $(,)?) => {
        [$((
            (core::mem::offset_of!($type, $name) + size_of_field(|raw: &$type| size_of_val(&raw.$name))) as u64,
            stringify!($name),
        )),+]
    };
}

fn size_of_field<T: FromBytes>(of: impl Fn(&T) -> usize) -> usize {
    of(&T::new_zeroed())
}

fn superblock_field(at: u64) -> String {
    let ends = fields!(RawSuperblock: s_inodes_count, s_blocks_count, s_r_blocks_count, s_free_blocks_count,
        s_free_inodes_count, s_first_data_block, s_log_block_size, s_log_frag_size, s_blocks_per_group,
        s_frags_per_group, s_inodes_per_group, s_mtime, s_wtime, s_mnt_count, s_max_mnt_count, s_magic, s_state,
        s_errors, s_minor_rev_level, s_lastcheck, s_checkinterval, s_creator_os, s_rev_level, s_def_resuid,
        s_def_resgid, s_first_ino, s_inode_size, s_block_group_nr, s_feature_compat, s_feature_incompat,
        s_feature_ro_compat, s_uuid, s_volume_name, s_last_mounted, s_algorithm_usage_bitmap, s_prealloc_blocks,
        s_prealloc_dir_blocks, s_reserved_gdt_blocks, s_journal_uuid, s_journal_inum, s_journal_dev, s_last_orphan,
        s_hash_seed, s_def_hash_version, s_jnl_backup_type, s_desc_size, s_default_mount_opts, s_first_meta_bg,
        s_mkfs_time, s_jnl_blocks, s_blocks_count_hi, s_r_blocks_count_hi, s_free_blocks_count_hi,
        s_min_extra_isize, s_want_extra_isize, s_flags, s_raid_stride, s_mmp_interval, s_mmp_block,
        s_raid_stripe_width, s_log_groups_per_flex, s_checksum_type, s_reserved_pad, s_kbytes_written,
        s_ext4_fields, s_backup_bgs, s_reserved, s_checksum);
    field(at, &ends)
}

fn descriptor_field(at: u64) -> String {
    let size = size_of::<RawGroupDesc>() as u64;
    let ends = fields!(RawGroupDesc: bg_block_bitmap, bg_inode_bitmap, bg_inode_table, bg_free_blocks_count,
        bg_free_inodes_count, bg_used_dirs_count, bg_flags, bg_reserved, bg_itable_unused, bg_checksum);
    format!("entry {} {}", at / size, field(at % size, &ends))
}

fn inode_field(at: u64) -> String {
    let base = size_of::<RawInode>() as u64;
    let ends = fields!(RawInode: i_mode, i_uid, i_size, i_atime, i_ctime, i_mtime, i_dtime, i_gid, i_links_count,
        i_blocks, i_flags, i_osd1, i_block, i_generation, i_file_acl, i_size_high, i_faddr, i_frag, i_fsize, i_pad1,
        i_uid_high, i_gid_high, i_reserved2);
    if at < base {
        return field(at, &ends);
    }
    let ends = fields!(RawInodeExtra: i_extra_isize, i_checksum_hi, i_ctime_extra, i_mtime_extra, i_atime_extra,
        i_crtime, i_crtime_extra, i_version_hi, i_projid);
    let found = field(at - base, &ends);
    if found.is_empty() { "attributes".into() } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_in_their_fields() {
        assert_eq!(superblock_field(0), "s_inodes_count");
        assert_eq!(superblock_field(57), "s_magic");
        assert_eq!(superblock_field(1023), "s_checksum");
        assert_eq!(descriptor_field(32 * 3 + 12), "entry 3 bg_free_blocks_count");
        assert_eq!(inode_field(41), "i_block");
        assert_eq!(inode_field(128 + 17), "i_crtime");
        assert_eq!(inode_field(200), "attributes");
    }
}
