//! Listing directories. A cookie is a place in the directory's bytes, so nothing is kept between requests.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use ext2_core::{DirEntry, FileKind};
use fuser::{FopenFlags, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::{KEEP, Reply, Volume};
use crate::convert::{errno, file_type, node_of};

impl Volume {
    /// Opens a directory: the kernel may keep what it has listed, unless the access time is due.
    pub(crate) fn open_directory(&self, number: u64) -> Reply<FopenFlags> {
        let node = self.node(number)?;
        if self.atime_is_due(&node.inode) {
            return Ok(FopenFlags::FOPEN_CACHE_DIR);
        }
        Ok(FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE)
    }

    /// Gives entries from `cookie` on to `add` until it says that there is no more room.
    fn list(&self, number: u64, cookie: u64, mut add: impl FnMut(&DirEntry) -> bool) -> Reply<()> {
        let node = self.node(number)?;
        let entries = node.inode.entries(cookie).map_err(|error| errno(&error))?;
        self.accessed(&node.inode);
        let mut any = false;
        for entry in entries {
            match entry {
                Ok(entry) => {
                    if add(&entry) {
                        break;
                    }
                    any = true;
                }
                // What is well comes first; the next request begins with what is not.
                Err(_) if any => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(())
    }

    fn kind_of(&self, entry: &DirEntry) -> FileKind {
        let known = entry.kind.or_else(|| self.fs.inode(entry.nr).ok().map(|inode| inode.kind()));
        known.unwrap_or(FileKind::Regular)
    }

    /// Names and numbers.
    pub(crate) fn read_directory(&self, number: u64, cookie: u64, reply: &mut ReplyDirectory) -> Reply<()> {
        self.list(number, cookie, |entry| {
            let kind = file_type(self.kind_of(entry));
            reply.add(INodeNo(entry.nr.get().into()), entry.next_cookie, kind, OsStr::from_bytes(&entry.name))
        })
    }

    /// Names and all attributes; each entry counts as looked up, but for `.` and `..`.
    pub(crate) fn read_directory_plus(
        &self,
        number: u64,
        cookie: u64,
        reply: &mut ReplyDirectoryPlus,
    ) -> Reply<()> {
        self.list(number, cookie, |entry| {
            let name = OsStr::from_bytes(&entry.name);
            let Ok(inode) = self.fs.inode(entry.nr) else {
                // An inode that cannot be read is told of by whoever looks it up; its name is there.
                return false;
            };
            let is_dot = entry.name == b"." || entry.name == b"..";
            let generation = fuser::Generation(inode.attr().generation.into());
            let mut attr = self.attr(&inode);
            attr.ino = INodeNo(node_of(entry.nr));
            if is_dot {
                return reply.add(attr.ino, entry.next_cookie, name, &KEEP, &attr, generation);
            }
            // Counted before the kernel can know of it, and taken back if it is not told.
            let node = self.nodes.look_up(inode);
            let full = reply.add(attr.ino, entry.next_cookie, name, &KEEP, &attr, generation);
            if full {
                self.nodes.forget(attr.ino.0, 1);
            }
            drop(node);
            full
        })
    }
}
