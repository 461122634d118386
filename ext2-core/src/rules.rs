//! Rules of the format that whoever builds, checks or rewrites an image as a whole needs besides the structures of
//! [`raw`](crate::raw): where a block of a file hangs, how records and attributes are spelled, how large a file can be.
//!
//! This is the whole of what `ext2-image` takes from the inside of this crate. Everything here is arithmetic or a pure
//! function of bytes: nothing holds a device, a lock or a running file system.

#[doc(inline)]
pub use ext2_format::{
    dirent::decode_rec_len,
    geometry::max_file_size,
    map::{DIRECT, Path, SLOTS, Shape},
    superblock::{STATE_ERROR, STATE_VALID},
    xattr::{Xattr, XattrName, parse_block, parse_inode},
};
