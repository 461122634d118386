//! The format as it lies on disk: little-endian structures under the kernel's field names, sizes
//! asserted, nothing checked. Validated types are built from these; nothing else reads bytes.

mod dirent;
mod group;
mod inode;
mod superblock;
mod xattr;

pub use dirent::{DIRENT_HEADER, RawDirentHeader, dirent_size};
pub use group::RawGroupDesc;
pub use inode::{GOOD_OLD_INODE_SIZE, RawInode, RawInodeExtra};
pub use superblock::{MAGIC, RawSuperblock, SUPERBLOCK_OFFSET};
pub use xattr::{RawXattrEntry, RawXattrHeader, XATTR_MAGIC};

pub use zerocopy::little_endian::{U16, U32};
