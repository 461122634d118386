//! The ext2 format as data: what lies on a device, and what follows from that by arithmetic.
//!
//! Nothing here opens a device, takes a lock or has a cache. Bytes come in and values go out; where a lookup has to read on its
//! way, as in a block map, the caller says how ([`map::Pointers`]). `ext2-core` is the file system over this, and hands all of
//! it out under its own name: depend on this crate alone to parse or build structures without a file system.
//!
//! | module | is |
//! |---|---|
//! | [`raw`] | structures as they lie on disk, little-endian, nothing checked |
//! | [`superblock`], [`features`], [`geometry`] | what an image is, checked once, and where everything lies |
//! | [`number`] | numbers that must not mix: blocks of a file and of the device, groups, inodes |
//! | [`map`] | the shape of block maps, and lookups that answer a range in full |
//! | [`bitmap`] | bitmaps of groups |
//! | [`inode`], [`time`] | kinds of files, flags, device numbers, owners, times |
//! | [`dirent`], [`name`] | entries in a block of a directory, and names |
//! | [`xattr`], [`acl`] | extended attributes and access lists, as they are stored and as programs see them |
//! | [`journal`] | the records of a journal (Linux: `jbd2`) |
//! | [`error`], [`errno`] | errors by whose fault they are, with the numbers of POSIX |
//!
//! ```
//! use ext2_format::{FileKind, dirent};
//!
//! let mut block = dirent::entry_bytes(12, 1024, b"notes", FileKind::Regular.dirent_type());
//! block.resize(1024, 0);
//! let entry = dirent::slots(&block, 64, true).next().ok_or("no entry")??;
//! assert_eq!((entry.inode, entry.name), (12, &b"notes"[..]));
//! # Ok::<(), String>(())
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acl;
#[cfg(feature = "bitmap")]
pub mod bitmap;
pub mod dirent;
pub mod errno;
pub mod error;
pub mod features;
pub mod geometry;
pub mod inode;
pub mod journal;
pub mod map;
pub mod name;
pub mod number;
pub mod raw;
pub mod superblock;
pub mod time;
pub mod xattr;

pub use acl::{Acl, AclEntry, AclKind, AclTag};
pub use errno::Errno;
pub use error::{Corrupt, Error, Incompatible, Object, Result};
pub use features::{CompatFeatures, Features, IncompatFeatures, RoCompatFeatures};
pub use geometry::Geometry;
pub use inode::{Attr, DeviceNr, FileKind, InodeFlags};
pub use map::Mapping;
pub use name::Name;
pub use number::{BlockSize, DeviceBlock, FileBlock, GroupNr, InodeNr};
pub use superblock::{OnError, Superblock};
pub use time::Timestamp;
