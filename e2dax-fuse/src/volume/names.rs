//! Names: looking them up, making, linking, removing and renaming them.

use std::sync::Arc;

use ext2_core::{DeviceNr, FileKind, Inode, InodeNr, NewInode, RenameFlags};
use rustix::io::Errno;

use super::{Caller, Volume};
use crate::convert::{node_of, nr_of};
use crate::nodes::Node;
use crate::reply::Reply;
use crate::wire::Entry;

/// `RENAME_WHITEOUT`: leave a character device 0:0, which hides what lies below in an overlay.
const WHITEOUT: u32 = 4;

/// What a new inode is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct New {
    /// Kind and permissions, as in `st_mode`.
    pub(crate) mode: u32,
    /// The caller's mask.
    pub(crate) umask: u32,
    /// The number of a device file, as the protocol has it.
    pub(crate) device: u32,
}

impl New {
    fn inode(self, kind: FileKind, caller: Caller) -> NewInode {
        NewInode {
            // OK to cast: only the lower 12 bits are meant.
            mode: (self.mode & 0o7777) as u16,
            uid: caller.uid,
            gid: caller.gid,
            umask: (self.umask & 0o777) as u16,
            device: matches!(kind, FileKind::CharDevice | FileKind::BlockDevice)
                .then(|| DeviceNr::from_u32(self.device)),
            ..NewInode::new(kind, 0)
        }
    }
}

impl Volume {
    /// What a reply says of an inode; it counts as looked up from here on.
    pub(super) fn entry(&self, inode: Inode) -> (Entry, Arc<Node>) {
        let node = self.nodes.look_up(inode);
        let generation = node.inode.attr().generation.into();
        (Entry { node: node_of(node.inode.nr()), generation, attr: self.attr(&node.inode) }, node)
    }

    /// Looks a name up; `None` where there is no such name, which the kernel remembers as well.
    ///
    /// `.` of any number and `..` are asked for when somebody comes with a file handle, perhaps of before this mount.
    pub(crate) fn look_up(&self, parent: u64, name: &[u8]) -> Reply<Option<Entry>> {
        if name == b"." {
            let nr = nr_of(parent).ok_or(Errno::STALE)?;
            // The journal and the other files of the file system itself are nobody's (Linux: `ext2_nfs_get_inode`).
            if nr != InodeNr::ROOT && nr.get() < self.fs.geometry().first_ino {
                return Err(Errno::STALE);
            }
            let inode = match self.fs.inode(nr) {
                // Anybody may make up a number that no name leads to: that says nothing of the image.
                Err(ext2_core::Error::Corrupt(_)) => return Err(Errno::STALE),
                found => found.map_err(|error| self.errno(&error))?,
            };
            if inode.attr().links == 0 {
                return Err(Errno::STALE);
            }
            return Ok(Some(self.entry(inode).0));
        }
        match self.node(parent)?.inode.lookup(name) {
            Ok(inode) => Ok(Some(self.entry(inode).0)),
            Err(error) if error.is(ext2_core::Errno::NOENT) => Ok(None),
            Err(error) => Err(self.errno(&error)),
        }
    }

    /// Makes anything but a link. Linux: `ext2_create`, `ext2_mknod`, `ext2_mkdir`.
    pub(crate) fn make(
        &self,
        parent: u64,
        name: &[u8],
        new: New,
        caller: Caller,
    ) -> Reply<(Entry, Arc<Node>)> {
        // OK to cast: the kind is in the lower 16 bits.
        let kind = FileKind::from_mode((new.mode & 0o170_000) as u16).ok_or(Errno::INVAL)?;
        let parent = self.node(parent)?;
        let inode =
            parent.inode.create(name, &new.inode(kind, caller)).map_err(|error| self.errno(&error))?;
        self.changed_directory(&parent.inode)?;
        Ok(self.entry(inode))
    }

    /// Makes a file without a name, which is gone with its last holder unless it is linked. Linux: `ext2_tmpfile`.
    pub(crate) fn make_unnamed(&self, parent: u64, new: New, caller: Caller) -> Reply<(Entry, Arc<Node>)> {
        let new = new.inode(FileKind::Regular, caller);
        Ok(self.entry(self.node(parent)?.inode.tmpfile(&new).map_err(|error| self.errno(&error))?))
    }

    /// Makes a symbolic link.
    pub(crate) fn symlink(&self, parent: u64, name: &[u8], target: &[u8], caller: Caller) -> Reply<Entry> {
        let parent = self.node(parent)?;
        let new = New { mode: 0o777, umask: 0, device: 0 }.inode(FileKind::Symlink, caller);
        let inode = parent.inode.symlink(name, target, &new).map_err(|error| self.errno(&error))?;
        self.changed_directory(&parent.inode)?;
        Ok(self.entry(inode).0)
    }

    /// The target of a symbolic link.
    pub(crate) fn read_link(&self, number: u64) -> Reply<Vec<u8>> {
        let node = self.node(number)?;
        let target = node.inode.read_link().map_err(|error| self.errno(&error))?;
        self.touch_atime(&node.inode);
        Ok(target)
    }

    /// Makes another name for an inode.
    pub(crate) fn link(&self, number: u64, parent: u64, name: &[u8]) -> Reply<Entry> {
        let (node, parent) = (self.node(number)?, self.node(parent)?);
        parent.inode.link(&node.inode, name).map_err(|error| self.errno(&error))?;
        self.changed_directory(&parent.inode)?;
        Ok(self.entry(node.inode.clone()).0)
    }

    /// Removes a name of a file.
    pub(crate) fn unlink(&self, parent: u64, name: &[u8]) -> Reply<()> {
        let parent = self.node(parent)?;
        parent.inode.unlink(name).map_err(|error| self.errno(&error))?;
        self.changed_directory(&parent.inode)
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&self, parent: u64, name: &[u8]) -> Reply<()> {
        let parent = self.node(parent)?;
        parent.inode.rmdir(name).map_err(|error| self.errno(&error))?;
        self.changed_directory(&parent.inode)
    }

    /// Renames, and leaves a whiteout in the old place: it is made first, under a name of its own, so that nothing has
    /// changed where there is no room for it. The kernel keeps others from both directories meanwhile.
    fn rename_behind_whiteout(
        &self,
        (old, from): (&Inode, &[u8]),
        (new, to): (&Inode, &[u8]),
        flags: RenameFlags,
        caller: Caller,
    ) -> ext2_core::Result<()> {
        let (mut name, mut number) = (Vec::new(), 0);
        let whiteout = loop {
            name.clear();
            name.extend(format!(".whiteout-{number:x}").bytes());
            let new = New { mode: 0, umask: 0, device: 0 }.inode(FileKind::CharDevice, caller);
            match old.create(&name, &new) {
                Err(error) if error.is(ext2_core::Errno::EXIST) => number += 1,
                made => break made?,
            }
        };
        drop(whiteout);
        let moved = self.fs.rename(old, from, new, to, flags);
        match moved {
            Ok(()) => self.fs.rename(old, &name, old, from, RenameFlags::empty()),
            Err(error) => {
                // What cannot be removed again stays, and the error is the caller's all the same.
                if let Err(left) = old.unlink(&name) {
                    log::error!("a whiteout stays behind: {left}");
                }
                Err(error)
            }
        }
    }

    /// Renames; `flags` as renameat2 has them.
    pub(crate) fn rename(
        &self,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        flags: u32,
        caller: Caller,
    ) -> Reply<()> {
        let leaves_whiteout = flags & WHITEOUT != 0;
        let flags = RenameFlags::from_bits(flags & !WHITEOUT).ok_or(Errno::INVAL)?;
        if leaves_whiteout && flags.contains(RenameFlags::EXCHANGE) {
            return Err(Errno::INVAL);
        }
        let (old, new) = (self.node(from.0)?, self.node(to.0)?);
        let moved = if leaves_whiteout {
            let (from, to) = ((&old.inode, from.1), (&new.inode, to.1));
            self.fs.together(|| self.rename_behind_whiteout(from, to, flags, caller))
        } else {
            self.fs.rename(&old.inode, from.1, &new.inode, to.1, flags)
        };
        moved.map_err(|error| self.errno(&error))?;
        self.changed_directory(&old.inode)?;
        self.changed_directory(&new.inode)
    }
}
