//! A group descriptor (`struct ext2_group_desc`).

use alloc::vec::Vec;

use super::Field;
use super::spec::Kind::{Bytes, Int};
use super::spec::Sense::{Bits, Block, Hex, Plain};
use super::spec::{Spec, take_apart};

const FLAGS: &[(u32, &str)] = &[(1, "INODE_UNINIT"), (2, "BLOCK_UNINIT"), (4, "ITABLE_ZEROED")];

const TABLE: &[Spec] = &[
    ("bg_block_bitmap", 0, Int(4), Block, "block of the bitmap of blocks"),
    ("bg_inode_bitmap", 4, Int(4), Block, "block of the bitmap of inodes"),
    ("bg_inode_table", 8, Int(4), Block, "first block of the inode table"),
    ("bg_free_blocks_count", 12, Int(2), Plain, "free blocks"),
    ("bg_free_inodes_count", 14, Int(2), Plain, "free inodes"),
    ("bg_used_dirs_count", 16, Int(2), Plain, "directories"),
    ("bg_flags", 18, Int(2), Bits(FLAGS), ""),
    ("bg_reserved", 20, Bytes(8), Plain, ""),
    ("bg_itable_unused", 28, Int(2), Plain, "inodes at the table's end that were never used"),
    ("bg_checksum", 30, Int(2), Hex, ""),
];

/// The fields of a group descriptor, 32 bytes.
#[must_use]
pub fn group_descriptor(bytes: &[u8]) -> Vec<Field> {
    take_apart(bytes, TABLE)
}
