//! The superblock (`struct ext2_super_block`).

use alloc::vec::Vec;

use ext2_core::{CompatFeatures, IncompatFeatures, RoCompatFeatures};

use super::Field;
use super::spec::Kind::{Bytes, Int, Text, Uuid, Words};
use super::spec::Sense::{Bits, Choice, Hex, Inode, Plain, Time};
use super::spec::{Spec, take_apart};

const STATES: &[(u32, &str)] =
    &[(1, "unmounted cleanly"), (2, "errors were found"), (4, "orphans are being recovered")];
const ERRORS: &[(u32, &str)] = &[(0, "not said"), (1, "continue"), (2, "remount read-only"), (3, "panic")];
const SYSTEMS: &[(u32, &str)] = &[(0, "Linux"), (1, "Hurd"), (2, "Masix"), (3, "FreeBSD"), (4, "Lites")];
const REVISIONS: &[(u32, &str)] = &[(0, "as first made"), (1, "dynamic")];
const HASHES: &[(u32, &str)] = &[
    (0, "legacy"),
    (1, "half MD4"),
    (2, "tea"),
    (3, "legacy unsigned"),
    (4, "half MD4 unsigned"),
    (5, "tea unsigned"),
    (6, "siphash"),
];
const FLAGS: &[(u32, &str)] = &[(1, "signed hashes"), (2, "unsigned hashes"), (4, "test file system")];
const MOUNT: &[(u32, &str)] = &[
    (0x1, "debug"),
    (0x2, "bsdgroups"),
    (0x4, "user_xattr"),
    (0x8, "acl"),
    (0x10, "uid16"),
    (0x20, "journal_data"),
    (0x40, "journal_data_ordered"),
    (0x100, "nobarrier"),
    (0x200, "block_validity"),
    (0x400, "discard"),
    (0x800, "nodelalloc"),
];
const BACKUPS: &[(u32, &str)] = &[(0, "none"), (1, "of the journal's block map")];

const TABLE: &[Spec] = &[
    ("s_inodes_count", 0, Int(4), Plain, "inodes, used and free"),
    ("s_blocks_count", 4, Int(4), Plain, "blocks of the file system"),
    ("s_r_blocks_count", 8, Int(4), Plain, "blocks kept for root"),
    ("s_free_blocks_count", 12, Int(4), Plain, "free blocks"),
    ("s_free_inodes_count", 16, Int(4), Plain, "free inodes"),
    ("s_first_data_block", 20, Int(4), Plain, "block of the superblock"),
    ("s_log_block_size", 24, Int(4), Plain, "block size is 1024 << this"),
    ("s_log_frag_size", 28, Int(4), Plain, "fragment size is 1024 << this"),
    ("s_blocks_per_group", 32, Int(4), Plain, ""),
    ("s_frags_per_group", 36, Int(4), Plain, ""),
    ("s_inodes_per_group", 40, Int(4), Plain, ""),
    ("s_mtime", 44, Int(4), Time, "last mount"),
    ("s_wtime", 48, Int(4), Time, "last write"),
    ("s_mnt_count", 52, Int(2), Plain, "mounts since the last check"),
    ("s_max_mnt_count", 54, Int(2), Plain, "mounts until a check is due, 65535 for never"),
    ("s_magic", 56, Int(2), Hex, "0xef53"),
    ("s_state", 58, Int(2), Bits(STATES), ""),
    ("s_errors", 60, Int(2), Choice(ERRORS), "on errors"),
    ("s_minor_rev_level", 62, Int(2), Plain, ""),
    ("s_lastcheck", 64, Int(4), Time, "last check"),
    ("s_checkinterval", 68, Int(4), Plain, "seconds until a check is due, 0 for never"),
    ("s_creator_os", 72, Int(4), Choice(SYSTEMS), "made by"),
    ("s_rev_level", 76, Int(4), Choice(REVISIONS), "revision"),
    ("s_def_resuid", 80, Int(2), Plain, "user of the reserved blocks"),
    ("s_def_resgid", 82, Int(2), Plain, "group of the reserved blocks"),
    ("s_first_ino", 84, Int(4), Plain, "first inode that is not reserved"),
    ("s_inode_size", 88, Int(2), Plain, "bytes of an inode"),
    ("s_block_group_nr", 90, Int(2), Plain, "group of this copy"),
    ("s_feature_compat", 92, Int(4), Bits(CompatFeatures::NAMES), ""),
    ("s_feature_incompat", 96, Int(4), Bits(IncompatFeatures::NAMES), ""),
    ("s_feature_ro_compat", 100, Int(4), Bits(RoCompatFeatures::NAMES), ""),
    ("s_uuid", 104, Uuid, Plain, ""),
    ("s_volume_name", 120, Text(16), Plain, "label"),
    ("s_last_mounted", 136, Text(64), Plain, "where it was mounted"),
    ("s_algorithm_usage_bitmap", 200, Int(4), Hex, "compression; not in use"),
    ("s_prealloc_blocks", 204, Int(1), Plain, "blocks preallocated to files"),
    ("s_prealloc_dir_blocks", 205, Int(1), Plain, "blocks preallocated to directories"),
    ("s_reserved_gdt_blocks", 206, Int(2), Plain, "spare blocks of descriptors, for growth"),
    ("s_journal_uuid", 208, Uuid, Plain, "of a journal elsewhere"),
    ("s_journal_inum", 224, Int(4), Inode, "the journal"),
    ("s_journal_dev", 228, Int(4), Hex, "device of a journal elsewhere"),
    ("s_last_orphan", 232, Int(4), Inode, "first of the inodes to delete or cut after a crash"),
    ("s_hash_seed", 236, Words(4), Hex, "seed of directory hashes"),
    ("s_def_hash_version", 252, Int(1), Choice(HASHES), "hash of new directories"),
    ("s_jnl_backup_type", 253, Int(1), Choice(BACKUPS), "copy in s_jnl_blocks"),
    ("s_desc_size", 254, Int(2), Plain, "bytes of a descriptor, with 64bit"),
    ("s_default_mount_opts", 256, Int(4), Bits(MOUNT), "mount options"),
    ("s_first_meta_bg", 260, Int(4), Plain, "first block of descriptors in its meta group"),
    ("s_mkfs_time", 264, Int(4), Time, "made"),
    ("s_jnl_blocks", 268, Words(17), Plain, "the journal's pointers and size"),
    ("s_blocks_count_hi", 336, Int(4), Plain, ""),
    ("s_r_blocks_count_hi", 340, Int(4), Plain, ""),
    ("s_free_blocks_count_hi", 344, Int(4), Plain, ""),
    ("s_min_extra_isize", 348, Int(2), Plain, "extra bytes that all inodes use"),
    ("s_want_extra_isize", 350, Int(2), Plain, "extra bytes that new inodes use"),
    ("s_flags", 352, Int(4), Bits(FLAGS), ""),
    ("s_raid_stride", 356, Int(2), Plain, "blocks of a RAID chunk"),
    ("s_mmp_interval", 358, Int(2), Plain, ""),
    ("s_mmp_block", 360, Int(8), Plain, ""),
    ("s_raid_stripe_width", 368, Int(4), Plain, "blocks of a RAID stripe"),
    ("s_log_groups_per_flex", 372, Int(1), Plain, ""),
    ("s_checksum_type", 373, Int(1), Plain, ""),
    ("s_reserved_pad", 374, Int(2), Plain, ""),
    ("s_kbytes_written", 376, Int(8), Plain, "KiB written in its life"),
    ("s_snapshot_inum", 384, Int(4), Inode, ""),
    ("s_snapshot_id", 388, Int(4), Plain, ""),
    ("s_snapshot_r_blocks_count", 392, Int(8), Plain, ""),
    ("s_snapshot_list", 400, Int(4), Inode, ""),
    ("s_error_count", 404, Int(4), Plain, "errors noted since the last check"),
    ("s_first_error_time", 408, Int(4), Time, ""),
    ("s_first_error_ino", 412, Int(4), Inode, ""),
    ("s_first_error_block", 416, Int(8), Plain, ""),
    ("s_first_error_func", 424, Text(32), Plain, ""),
    ("s_first_error_line", 456, Int(4), Plain, ""),
    ("s_last_error_time", 460, Int(4), Time, ""),
    ("s_last_error_ino", 464, Int(4), Inode, ""),
    ("s_last_error_line", 468, Int(4), Plain, ""),
    ("s_last_error_block", 472, Int(8), Plain, ""),
    ("s_last_error_func", 480, Text(32), Plain, ""),
    ("s_mount_opts", 512, Text(64), Plain, ""),
    ("s_usr_quota_inum", 576, Int(4), Inode, ""),
    ("s_grp_quota_inum", 580, Int(4), Inode, ""),
    ("s_overhead_clusters", 584, Int(4), Plain, ""),
    ("s_backup_bgs", 588, Words(2), Plain, "group of a backup, with sparse_super2"),
    ("s_encrypt_algos", 596, Bytes(4), Plain, ""),
    ("s_encrypt_pw_salt", 600, Bytes(16), Plain, ""),
    ("s_lpf_ino", 616, Int(4), Inode, "lost+found"),
    ("s_prj_quota_inum", 620, Int(4), Inode, ""),
    ("s_checksum_seed", 624, Int(4), Hex, ""),
    ("s_reserved", 628, Bytes(392), Plain, ""),
    ("s_checksum", 1020, Int(4), Hex, ""),
];

/// The fields of a superblock, 1024 bytes; as many as lie inside fewer.
#[must_use]
pub fn superblock(bytes: &[u8]) -> Vec<Field> {
    let mut fields = take_apart(bytes, TABLE);
    for field in &mut fields {
        let number = field.value.number().unwrap_or_default();
        if field.name == "s_log_block_size" {
            field.meaning = match number {
                0..=6 => alloc::format!("blocks of {} bytes", 1024_u32 << number).into(),
                _ => "no block size that there is".into(),
            };
        } else if field.name == "s_magic" {
            field.meaning = if number == 0xef53 { "ext2, ext3 or ext4" } else { "0xef53 is expected" }.into();
        }
    }
    fields
}
