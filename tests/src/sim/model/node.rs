//! A file, directory or other object of the model.

use std::collections::{BTreeMap, BTreeSet};

use ext2_core::{DeviceNr, FileKind};

use crate::sim::base::BEGIN;

/// Number of a node, which is never another's.
pub type Id = u64;

/// The root directory.
pub(in crate::sim) const ROOT: Id = 0;

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Size in bytes, and the blocks that are there.
    File(u64, BTreeMap<u64, Vec<u8>>),
    /// Names.
    Directory(BTreeMap<Vec<u8>, Id>),
    /// Target.
    Symlink(Vec<u8>),
    /// Nothing.
    Special,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Kind.
    pub kind: FileKind,
    /// Number of its inode.
    pub nr: u32,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Attribute flags.
    pub flags: u32,
    /// Names; of a directory, subdirectories and its two own.
    pub links: u32,
    /// Whether it was made without a name, and may get one.
    pub is_linkable: bool,
    /// Seconds of the last read.
    pub atime: i64,
    /// Of the last change of the contents.
    pub mtime: i64,
    /// Of the last change of the inode.
    pub ctime: i64,
    /// Of when it was made.
    pub crtime: i64,
    /// What `mtime` and `ctime` may be as well, since a store through a mapping is noted when it faults.
    pub perhaps: BTreeSet<i64>,
    /// Extended attributes, access control lists in the form of programs.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Number of a device file.
    pub device: Option<DeviceNr>,
    /// Of a directory: the one that it is in.
    pub parent: Id,
    /// What it holds.
    pub content: Content,
}

impl Node {
    /// The root of an empty file system.
    pub(super) fn root() -> Self {
        Self {
            kind: FileKind::Directory,
            nr: 2,
            mode: 0o755,
            uid: 0,
            gid: 0,
            flags: 0,
            links: 2,
            is_linkable: false,
            atime: BEGIN,
            mtime: BEGIN,
            ctime: BEGIN,
            crtime: BEGIN,
            perhaps: BTreeSet::new(),
            xattrs: BTreeMap::new(),
            device: None,
            parent: ROOT,
            content: Content::Directory(BTreeMap::new()),
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Bytes of a file.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.content {
            Content::File(size, _) => *size,
            Content::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }

    /// Notes a change of the contents.
    pub(super) fn modified(&mut self, now: i64) {
        (self.mtime, self.ctime) = (now, now);
        self.perhaps.clear();
    }

    /// Notes a change of the inode.
    pub(super) fn changed(&mut self, now: i64) {
        self.ctime = now;
    }

    /// Notes that the contents may have been changed now.
    pub(super) fn perhaps_modified(&mut self, now: i64) {
        self.perhaps.insert(now);
    }
}
