//! An inode (`struct ext2_inode`, and the fields that ext4 put behind it).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an inode in revision 0, and of the part that every inode has.
pub const GOOD_OLD_INODE_SIZE: u64 = 128;

/// The first 128 bytes of an inode.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the kernel's names; offsets are asserted below
pub struct RawInode {
    pub i_mode: U16,
    pub i_uid: U16,
    pub i_size: U32,
    pub i_atime: U32,
    pub i_ctime: U32,
    pub i_mtime: U32,
    pub i_dtime: U32,
    pub i_gid: U16,
    pub i_links_count: U16,
    /// In units of 512 bytes, indirect blocks and the attribute block included.
    pub i_blocks: U32,
    pub i_flags: U32,
    pub i_osd1: U32,
    /// 12 direct pointers, then the indirect, double and triple indirect one.
    pub i_block: [U32; 15],
    pub i_generation: U32,
    pub i_file_acl: U32,
    /// The high half of a regular file's size (`i_dir_acl` of others).
    pub i_size_high: U32,
    pub i_faddr: U32,
    pub i_frag: u8,
    pub i_fsize: u8,
    /// `i_file_acl_high` of ext4.
    pub i_pad1: U16,
    pub i_uid_high: U16,
    pub i_gid_high: U16,
    pub i_reserved2: U32,
}

const _: () = {
    assert!(size_of::<RawInode>() == 128);
    assert!(core::mem::offset_of!(RawInode, i_links_count) == 26);
    assert!(core::mem::offset_of!(RawInode, i_block) == 40);
    assert!(core::mem::offset_of!(RawInode, i_generation) == 100);
    assert!(core::mem::offset_of!(RawInode, i_size_high) == 108);
    assert!(core::mem::offset_of!(RawInode, i_uid_high) == 120);
};

/// What follows the first 128 bytes where `i_extra_isize` says that it is there.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the kernel's names
pub struct RawInodeExtra {
    /// Bytes of these fields that are in use, this one included.
    pub i_extra_isize: U16,
    pub i_checksum_hi: U16,
    /// Low 2 bits: 33rd and 34th bit of the seconds; the rest: nanoseconds.
    pub i_ctime_extra: U32,
    pub i_mtime_extra: U32,
    pub i_atime_extra: U32,
    pub i_crtime: U32,
    pub i_crtime_extra: U32,
    pub i_version_hi: U32,
    pub i_projid: U32,
}

const _: () = assert!(size_of::<RawInodeExtra>() == 32);
