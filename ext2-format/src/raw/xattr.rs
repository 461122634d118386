//! Extended attributes (`struct ext2_xattr_header`, `struct ext2_xattr_entry`).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `h_magic` of an attribute block, and of the attributes inside an inode.
pub const XATTR_MAGIC: u32 = 0xea02_0000;

/// The head of an attribute block, 32 bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the kernel's names
pub struct RawXattrHeader {
    pub h_magic: U32,
    pub h_refcount: U32,
    pub h_blocks: U32,
    pub h_hash: U32,
    pub h_checksum: U32,
    pub h_reserved: [U32; 3],
}

/// One attribute, 16 bytes; its name follows. Four zero bytes end the list.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the kernel's names
pub struct RawXattrEntry {
    pub e_name_len: u8,
    pub e_name_index: u8,
    /// Where the value lies: from the block's start, or from the first entry inside an inode.
    pub e_value_offs: U16,
    /// Always 0: values lie in the same block.
    pub e_value_block: U32,
    pub e_value_size: U32,
    pub e_hash: U32,
}

const _: () = {
    assert!(size_of::<RawXattrHeader>() == 32);
    assert!(size_of::<RawXattrEntry>() == 16);
};
