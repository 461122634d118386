//! The ext2 file system while it runs: format, block map, allocation, directories, attributes. What is done to an image
//! as a whole (making, checking, describing it) is in `ext2-image`.
//!
//! An [`Ext2`] is opened over a [`blockdev::BlockDevice`]; an [`Inode`] is a file, directory or other
//! object of it. Everything takes `&self` and may be used from many threads. Nothing here sees a pointer,
//! a page or a fault: bytes of files are found through [`Inode::map`], and moved by copying
//! ([`Inode::read_at`]) or, in `ext2-dax`, by loads and stores on the device itself.
//!
//! | module | is |
//! |---|---|
//! | [`raw`] and the numbers, errors and values beside it | the format as data: from [`ext2_format`] |
//! | `map` | what lookups in block maps found lately |
//! | `inode`, `dir`, `xattr`, `resolve` | files and their names |
//! | `path`, `walk` | the common jobs by path, each in one call; a whole tree, file by file |
//! | `namei` | making, linking, removing and renaming |
//! | `balloc` | free blocks and inodes, and who gets which |
//! | `journal` | one transaction for what ext2 has no safe order for |
//! | `order` | the order of stores, in types |
//! | [`placement`] | policies of where blocks go, built in and of your own |
//! | [`plumbing`] | what only the layer that moves a file's bytes may call |
//! | [`rules`] | the format's arithmetic, for who works on whole images |
//! | [`sync`] | locks and their order |
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod clock;
#[cfg(feature = "std")]
mod cursor;
mod dir;
mod fs;
mod inode;
mod log;
mod map;
mod path;
mod resolve;
pub mod rules;
mod walk;
mod xattr;

// What only a writer needs: without the feature none of it is compiled. Modules above leave out parts of theirs in the same
// way, each a file of its own; `fs::reader` then stands in the place of `fs::writer`.
#[cfg(feature = "write")]
mod balloc;
#[cfg(feature = "write")]
mod journal;
#[cfg(feature = "write")]
mod namei;
#[cfg(feature = "write")]
mod order;
#[cfg(feature = "write")]
pub mod placement;
#[cfg(feature = "write")]
pub mod plumbing;
#[cfg(feature = "write")]
mod space;

#[cfg(feature = "std")]
pub use clock::SystemClock;
pub use clock::{Clock, FixedClock};
#[cfg(feature = "std")]
pub use cursor::{Cursor, FileAt};
pub use dir::{DirEntry, Entries};
#[doc(inline)]
pub use ext2_format::{
    Acl, AclEntry, AclKind, AclTag, Attr, BlockSize, CompatFeatures, Corrupt, DeviceBlock, DeviceNr, Errno,
    Error, Features, FileBlock, FileKind, Geometry, GroupNr, IncompatFeatures, Incompatible, InodeFlags,
    InodeNr, Mapping, Name, Object, OnError, Result, RoCompatFeatures, Superblock, Timestamp, raw,
};
pub(crate) use ext2_format::{acl, error, features};
#[doc(inline)]
pub use ext2_sync as sync;
pub use fs::{Closed, Ext2, OpenOptions, StatFs, SuperblockAt, Unclean};
pub use inode::{Extents, Inode, Piece};
pub use log::recovered;
pub use path::ReadDir;
pub use resolve::Follow;
pub use walk::{Found, Walk, WalkError};

#[cfg(feature = "write")]
mod write {
    pub use crate::balloc::Policy;
    #[cfg(feature = "std")]
    pub use crate::balloc::without_reserve;
    pub use crate::inode::SetAttr;
    pub use crate::log::replay;
    pub use crate::namei::{NewInode, RenameFlags};
    pub use crate::order::Barrier;
    pub use crate::space::Wait;
    pub use crate::xattr::XattrSet;
}
#[cfg(feature = "write")]
#[doc(inline)]
pub use write::*;
