//! A directory entry (`struct ext2_dir_entry_2`).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an entry before its name.
pub const DIRENT_HEADER: usize = 8;

/// The fixed part of a directory entry; the name follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the kernel's names
pub struct RawDirentHeader {
    pub inode: U32,
    pub rec_len: U16,
    pub name_len: u8,
    /// With `filetype`; otherwise the high byte of the name's length, which is always 0.
    pub file_type: u8,
}

const _: () = assert!(size_of::<RawDirentHeader>() == DIRENT_HEADER);

/// Bytes that an entry with a name of `name_len` bytes needs (Linux: `EXT2_DIR_REC_LEN`). One without a name, which only a
/// broken image has, has 12 as well: no entry may be shorter.
#[must_use]
pub const fn dirent_size(name_len: usize) -> usize {
    let with_a_name = if name_len == 0 { 1 } else { name_len };
    (DIRENT_HEADER + with_a_name).next_multiple_of(4)
}
