//! A group descriptor (`struct ext2_group_desc`).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The descriptor of a block group, 32 bytes. Block numbers are of the device.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
#[allow(missing_docs)] // the kernel's names
pub struct RawGroupDesc {
    pub bg_block_bitmap: U32,
    pub bg_inode_bitmap: U32,
    pub bg_inode_table: U32,
    pub bg_free_blocks_count: U16,
    pub bg_free_inodes_count: U16,
    pub bg_used_dirs_count: U16,
    pub bg_flags: U16,
    pub bg_reserved: [u8; 8],
    pub bg_itable_unused: U16,
    pub bg_checksum: U16,
}

const _: () = assert!(size_of::<RawGroupDesc>() == 32);
