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
//! | [`raw`] | structures as they lie on disk |
//! | `superblock`, `geometry`, `features` | what an image is and where everything lies |
//! | `map` | the block map, answered in full |
//! | `inode`, `dir`, `xattr`, `acl`, `resolve` | files and their names |
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
// What only a writer reaches is there to be compiled, and left out of the program.
#![cfg_attr(not(feature = "write"), allow(dead_code, unused_imports, unused_variables))]

extern crate alloc;

mod acl;
mod balloc;
#[cfg(feature = "std")]
mod cursor;
mod dir;
mod errno;
mod error;
mod features;
mod fs;
mod geometry;
mod inode;
mod journal;
mod log;
mod map;
mod name;
mod namei;
mod number;
mod order;
mod path;
pub mod placement;
pub mod plumbing;
pub mod raw;
mod resolve;
pub mod rules;
mod space;
mod superblock;
pub mod sync;
mod time;
mod walk;
mod xattr;

pub use acl::{Acl, AclEntry, AclKind, AclTag};
pub use balloc::Policy;
#[cfg(feature = "std")]
pub use balloc::without_reserve;
#[cfg(feature = "std")]
pub use cursor::{Cursor, FileAt};
pub use dir::{DirEntry, Entries};
pub use errno::Errno;
pub use error::{Corrupt, Error, Incompatible, Object, Result};
pub use features::{CompatFeatures, Features, IncompatFeatures, RoCompatFeatures};
pub use fs::{Closed, Ext2, OpenOptions, StatFs, SuperblockAt, Unclean};
pub use geometry::Geometry;
pub use inode::{Attr, DeviceNr, Extents, FileKind, Inode, InodeFlags, Piece, SetAttr};
pub use log::{recovered, replay};
pub use map::Mapping;
pub use name::Name;
pub use namei::{NewInode, RenameFlags};
pub use number::{BlockSize, DeviceBlock, FileBlock, GroupNr, InodeNr};
pub use order::Barrier;
pub use path::ReadDir;
pub use resolve::Follow;
pub use space::Wait;
pub use superblock::{OnError, Superblock};
#[cfg(feature = "std")]
pub use time::SystemClock;
pub use time::{Clock, FixedClock, Timestamp};
pub use walk::{Found, Walk, WalkError};
pub use xattr::XattrSet;
