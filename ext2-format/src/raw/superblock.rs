//! The superblock (`struct ext2_super_block`).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `s_magic` of ext2, ext3 and ext4.
pub const MAGIC: u16 = 0xef53;

/// Where the primary superblock lies, in bytes from the device's start.
pub const SUPERBLOCK_OFFSET: u64 = 1024;

/// The superblock, 1024 bytes. Fields past `s_first_meta_bg` that ext2 does not use are kept as bytes, so
/// that what others put there survives.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the kernel's names; offsets are asserted below
pub struct RawSuperblock {
    pub s_inodes_count: U32,
    pub s_blocks_count: U32,
    pub s_r_blocks_count: U32,
    pub s_free_blocks_count: U32,
    pub s_free_inodes_count: U32,
    pub s_first_data_block: U32,
    pub s_log_block_size: U32,
    pub s_log_frag_size: U32,
    pub s_blocks_per_group: U32,
    pub s_frags_per_group: U32,
    pub s_inodes_per_group: U32,
    pub s_mtime: U32,
    pub s_wtime: U32,
    pub s_mnt_count: U16,
    pub s_max_mnt_count: U16,
    pub s_magic: U16,
    pub s_state: U16,
    pub s_errors: U16,
    pub s_minor_rev_level: U16,
    pub s_lastcheck: U32,
    pub s_checkinterval: U32,
    pub s_creator_os: U32,
    pub s_rev_level: U32,
    pub s_def_resuid: U16,
    pub s_def_resgid: U16,
    pub s_first_ino: U32,
    pub s_inode_size: U16,
    pub s_block_group_nr: U16,
    pub s_feature_compat: U32,
    pub s_feature_incompat: U32,
    pub s_feature_ro_compat: U32,
    pub s_uuid: [u8; 16],
    pub s_volume_name: [u8; 16],
    pub s_last_mounted: [u8; 64],
    pub s_algorithm_usage_bitmap: U32,
    pub s_prealloc_blocks: u8,
    pub s_prealloc_dir_blocks: u8,
    /// Blocks of the descriptor table that `resize_inode` keeps for growth.
    pub s_reserved_gdt_blocks: U16,
    pub s_journal_uuid: [u8; 16],
    pub s_journal_inum: U32,
    pub s_journal_dev: U32,
    pub s_last_orphan: U32,
    pub s_hash_seed: [U32; 4],
    pub s_def_hash_version: u8,
    /// Says that `s_jnl_blocks` is a copy of the journal inode's block map.
    pub s_jnl_backup_type: u8,
    pub s_desc_size: U16,
    pub s_default_mount_opts: U32,
    pub s_first_meta_bg: U32,
    pub s_mkfs_time: U32,
    pub s_jnl_blocks: [U32; 17],
    pub s_blocks_count_hi: U32,
    pub s_r_blocks_count_hi: U32,
    pub s_free_blocks_count_hi: U32,
    pub s_min_extra_isize: U16,
    pub s_want_extra_isize: U16,
    pub s_flags: U32,
    pub s_raid_stride: U16,
    pub s_mmp_interval: U16,
    pub s_mmp_block: [U32; 2],
    pub s_raid_stripe_width: U32,
    pub s_log_groups_per_flex: u8,
    pub s_checksum_type: u8,
    pub s_reserved_pad: U16,
    pub s_kbytes_written: [U32; 2],
    /// Snapshot and error-log fields of ext4.
    pub s_ext4_fields: [u8; 204],
    /// Groups with backups under `sparse_super2`; 0 for none.
    pub s_backup_bgs: [U32; 2],
    pub s_reserved: [u8; 424],
    pub s_checksum: U32,
}

const _: () = {
    assert!(size_of::<RawSuperblock>() == 1024);
    assert!(core::mem::offset_of!(RawSuperblock, s_magic) == 56);
    assert!(core::mem::offset_of!(RawSuperblock, s_state) == 58);
    assert!(core::mem::offset_of!(RawSuperblock, s_rev_level) == 76);
    assert!(core::mem::offset_of!(RawSuperblock, s_uuid) == 104);
    assert!(core::mem::offset_of!(RawSuperblock, s_reserved_gdt_blocks) == 206);
    assert!(core::mem::offset_of!(RawSuperblock, s_last_orphan) == 232);
    assert!(core::mem::offset_of!(RawSuperblock, s_first_meta_bg) == 260);
    assert!(core::mem::offset_of!(RawSuperblock, s_min_extra_isize) == 348);
    assert!(core::mem::offset_of!(RawSuperblock, s_kbytes_written) == 376);
    assert!(core::mem::offset_of!(RawSuperblock, s_backup_bgs) == 588);
};
