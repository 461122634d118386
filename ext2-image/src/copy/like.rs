//! The side of a copy that goes into an image: names made in its directories, filled and given their attributes.

use ext2_core::{
    AclKind, DeviceNr, Errno, Error, FileKind, Inode, NewInode, Result, SetAttr, Timestamp, XattrSet,
};

use super::{Owner, Xattr};
use std::vec::Vec;

/// What a copy is to be like.
#[derive(Clone, Debug)]
pub(super) struct Like {
    pub(super) kind: FileKind,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
    pub(super) device: Option<DeviceNr>,
    pub(super) xattrs: Vec<Xattr>,
}

impl Like {
    /// As a file of an image is.
    pub(super) fn inode(inode: &Inode) -> Result<Self> {
        let attr = inode.attr();
        Ok(Self {
            kind: attr.kind,
            mode: attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            atime: attr.atime,
            mtime: attr.mtime,
            device: attr.device,
            xattrs: inode.xattrs()?,
        })
    }

    /// The same, but for its owner.
    pub(super) fn owned_by(self, owner: Owner) -> Self {
        Self { uid: owner.uid.unwrap_or(self.uid), gid: owner.gid.unwrap_or(self.gid), ..self }
    }

    fn new_inode(&self) -> NewInode {
        NewInode { uid: self.uid, gid: self.gid, device: self.device, ..NewInode::new(self.kind, self.mode) }
    }
}

/// Makes a directory, or takes the one that is there.
pub(super) fn make_dir(parent: &Inode, name: &[u8], like: &Like) -> Result<Inode> {
    match parent.create(name, &like.new_inode()) {
        Err(error) if error.is(Errno::EXIST) => {
            let there = parent.lookup(name)?;
            if there.kind() == FileKind::Directory { Ok(there) } else { Err(error) }
        }
        other => other,
    }
}

/// Makes an empty file, a device, FIFO or socket; what is there is replaced unless it is a directory.
pub(super) fn make_file(parent: &Inode, name: &[u8], like: &Like) -> Result<Inode> {
    replacing(parent, name, || parent.create(name, &like.new_inode()))
}

/// Makes a symbolic link.
pub(super) fn make_symlink(parent: &Inode, name: &[u8], target: &[u8], like: &Like) -> Result<Inode> {
    replacing(parent, name, || parent.symlink(name, target, &like.new_inode()))
}

/// Makes another name for a file that was copied.
pub(super) fn make_link(parent: &Inode, name: &[u8], first: &Inode) -> Result<()> {
    replacing(parent, name, || parent.link(first, name))
}

fn replacing<T>(parent: &Inode, name: &[u8], make: impl Fn() -> Result<T>) -> Result<T> {
    match make() {
        Err(error) if error.is(Errno::EXIST) => {
            parent.unlink(name)?;
            make()
        }
        other => other,
    }
}

/// Stores bytes, all or an error.
pub(super) fn store(inode: &Inode, at: u64, bytes: &[u8]) -> Result<()> {
    let (mut at, mut bytes) = (at, bytes);
    while !bytes.is_empty() {
        let written = inode.write_at(at, bytes)?;
        if written == 0 {
            return Err(Error::Caller(Errno::NOSPC, "the file system is full"));
        }
        at += written as u64;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Attributes of what is filled: lists first, because they change the mode, times last.
pub(super) fn finish(inode: &Inode, like: &Like) -> Result<()> {
    if like.kind != FileKind::Symlink {
        // What a directory's default list gave does not stay.
        inode.set_acl(AclKind::Access, None)?;
        inode.set_acl(AclKind::Default, None)?;
    }
    for (name, value) in &like.xattrs {
        inode.xattr_set(name, value, XattrSet::Any).map_err(|error| match error {
            // Not the image is full, but the one block that an inode has for them.
            error if error.is(Errno::NOSPC) => {
                Error::Caller(Errno::RANGE, "the extended attributes do not fit")
            }
            error => error,
        })?;
    }
    inode.set_attr(&SetAttr {
        mode: (like.kind != FileKind::Symlink).then_some(like.mode),
        uid: Some(like.uid),
        gid: Some(like.gid),
        atime: Some(like.atime),
        mtime: Some(like.mtime),
        ..SetAttr::default()
    })
}
