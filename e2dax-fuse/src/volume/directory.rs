//! Listing directories. A cookie is a place in the directory's bytes, so nothing is kept between requests.

use ext2_core::{DirEntry, Entries, FileKind};
use fuser::FopenFlags;

use super::{Volume, keep_name};
use crate::convert::{ROOT, node_of};
use crate::reply::Reply;
use crate::wire::{Entry, Listing, Out, Read};

impl Volume {
    /// Opens a directory: the kernel may keep what it has listed, unless it is the root or the access time is due.
    pub(crate) fn open_directory(&self, number: u64) -> Reply<FopenFlags> {
        let node = self.node(number)?;
        if number == ROOT {
            // The kernel does not see all that comes and goes there.
            return Ok(FopenFlags::empty());
        }
        if self.atime_is_due(&node.inode) {
            return Ok(FopenFlags::FOPEN_CACHE_DIR);
        }
        Ok(FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE)
    }

    /// Gives entries from the cookie on to `add` until it says that there is no more room.
    fn list(&self, number: u64, read: Read, mut add: impl FnMut(&Entries, &DirEntry) -> bool) -> Reply<()> {
        let node = self.node(number)?;
        let mut entries = node.inode.entries(read.offset).map_err(|error| self.errno(&error))?;
        self.accessed(&node.inode, read);
        let mut any = false;
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => {
                    if add(&entries, &entry) {
                        break;
                    }
                    any = true;
                }
                // What is well comes first; the next request begins with what is not.
                Err(_) if any => break,
                Err(error) => return Err(self.errno(&error)),
            }
        }
        Ok(())
    }

    fn kind_of(&self, entry: &DirEntry) -> FileKind {
        let known = entry.kind.or_else(|| self.fs.inode(entry.nr).ok().map(|inode| inode.kind()));
        known.unwrap_or(FileKind::Regular)
    }

    /// Names and numbers.
    pub(crate) fn read_directory(&self, number: u64, read: Read, listing: &mut Listing) -> Reply<()> {
        self.list(number, read, |_, entry| {
            let kind = self.kind_of(entry).mode_bits().into();
            !listing.add(None, entry.nr.get().into(), entry.next_cookie, kind, &entry.name)
        })
    }

    /// Names and all attributes; each entry counts as looked up, but for `.` and `..`.
    pub(crate) fn read_directory_plus(&self, number: u64, read: Read, listing: &mut Listing) -> Reply<()> {
        self.list(number, read, |entries, entry| {
            let inode = match entries.inode(entry) {
                Ok(Some(inode)) => inode,
                // Removed since it was listed; its number may be another file's.
                Ok(None) => return false,
                Err(error) => {
                    // Its name is there, as in a plain listing; whoever looks it up is told what is wrong with it.
                    self.found(&error);
                    let (number, kind) =
                        (entry.nr.get().into(), entry.kind.map_or(0, FileKind::mode_bits).into());
                    let nothing = Out::default().no_attributes();
                    return !listing.add(Some(nothing), number, entry.next_cookie, kind, &entry.name);
                }
            };
            let is_dot = entry.name == b"." || entry.name == b"..";
            let generation = inode.attr().generation.into();
            let told = Entry { node: node_of(inode.nr()), generation, attr: self.attr(&inode) };
            let (out, kind) = (
                Out::default().entry(keep_name(number, &entry.name), &told),
                inode.kind().mode_bits().into(),
            );
            if is_dot {
                return !listing.add(Some(out), told.attr.ino, entry.next_cookie, kind, &entry.name);
            }
            // Counted before the kernel can know of it, and taken back if it is not told.
            let node = self.nodes.look_up(inode);
            let full = !listing.add(Some(out), told.attr.ino, entry.next_cookie, kind, &entry.name);
            if full {
                self.nodes.forget(told.node, 1);
            }
            drop(node);
            full
        })
    }
}
