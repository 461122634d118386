//! Names: making, linking, removing and renaming (Linux: `fs/ext2/namei.c`).
//!
//! # Invariants
//! 1. **Birth at zero links**: a new inode's body says that it is dead until its name is durable.
//! 2. **Death at zero links**: the last name goes only after the inode says that it is dead.
//! 3. A rename shows the old name, the new one or both, never none; a target that is replaced shows the old
//!    file or the new one. Directories that change their parent are the exception: see [`rename`].
//!
//! # Locking
//! A change holds the `io` lock of each directory it touches exclusive; more than one are taken in the
//! order of their numbers, after which names are looked up again: the inodes that were found are held all the
//! while, so that a name which still has the same number has the same inode. After directories it takes that of each
//! file which gets or loses a name, in the same order (Linux: `lock_two_nondirectories`): whether a name is
//! the last one is decided under it. Link counts are under the attributes' lock.

mod create;
mod rename;
mod shelter;
mod unlink;

pub use create::NewInode;
pub use rename::RenameFlags;

use alloc::vec::Vec;

use crate::Errno;
use crate::dir::{Found, NAME_MAX, Named};
use crate::error::{Result, refuse};
use crate::inode::{Cell, FileKind, Inode};

/// The most names that an inode can have (Linux: `EXT2_LINK_MAX`).
pub(crate) const LINK_MAX: u16 = 32_000;

/// Whether a path's last name is one that every directory has, or the root itself. Linux: not `LAST_NORM`.
fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b".." | b"/")
}

/// A name that may be made or removed.
fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() {
        return refuse(Errno::NOENT, "an empty name");
    }
    if name.len() > NAME_MAX {
        return refuse(Errno::NAMETOOLONG, "a name has at most 255 bytes");
    }
    if is_dots(name) {
        return refuse(Errno::EXIST, "the name of a directory itself");
    }
    if name.contains(&b'/') || name.contains(&0) {
        return refuse(Errno::INVAL, "a slash or a zero byte in a name");
    }
    Ok(())
}

/// What becomes of a directory's times when a name comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Change,
    /// They stay: the name is there for a moment only.
    Keep,
}

impl Cell {
    pub(crate) fn as_named(&self) -> Named {
        Named { nr: self.nr, kind: self.kind }
    }

    /// Refuses a name in a directory that has none any more.
    fn check_alive(&self) -> Result<()> {
        match self.attrs.lock().links {
            0 => refuse(Errno::NOENT, "the directory is removed"),
            _ => Ok(()),
        }
    }

    /// Changes the number of names by one.
    fn count_link(&self, delta: i32) -> Result<()> {
        self.count_link_and(Times::Change, delta)
    }

    fn count_link_and(&self, times: Times, delta: i32) -> Result<()> {
        let mut attrs = self.attrs.lock();
        let links = i32::from(attrs.links) + delta;
        if self.kind == FileKind::Directory && delta < 0 && links < 2 {
            // Its own name and `.` remain: it must not be taken for dead.
            return Err(self.corrupt("has fewer links than directories in it"));
        }
        let links = u16::try_from(links).map_err(|_| self.corrupt("has fewer links than names"))?;
        let stored = self.store_links(&mut attrs, links);
        if times == Times::Change {
            attrs.ctime = self.fs.clock.now();
            attrs.late = true;
        }
        drop(attrs);
        self.fs.whole(|| stored)
    }

    /// The entry of a name that is to be removed or replaced.
    fn must_find(&self, name: &[u8]) -> Result<Found> {
        match self.find(name)? {
            Some(found) => Ok(found),
            None => refuse(Errno::NOENT, ""),
        }
    }

    /// Refuses to remove names of what cannot be changed.
    fn check_removable(&self, victim: &Self) -> Result<()> {
        self.check_changeable()?;
        victim.check_changeable()
    }

    fn check_insertable(&self) -> Result<()> {
        self.check_mutable()?;
        self.check_alive()
    }
}

/// Runs `change` with the `io` locks of some inodes: directories, then others, each in the order of their numbers.
fn with_locks<T>(inodes: &[&Inode], change: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut sorted: Vec<&Inode> = inodes.to_vec();
    sorted.sort_by_key(|inode| (inode.kind() != FileKind::Directory, inode.nr()));
    sorted.dedup_by_key(|inode| inode.nr());
    let _guards: Vec<_> = sorted.iter().map(|inode| inode.0.io.write()).collect();
    change()
}

/// Whether a directory holds nothing but `.` and `..`.
fn is_empty(dir: &Cell) -> Result<bool> {
    let len = dir.fs.geo.block_size.len();
    let mut buffer = alloc::vec![0; len];
    for start in (0..dir.dir_blocks()?).map(|block| block * len as u64) {
        dir.read_dir_block(start, &mut buffer)?;
        for slot in ext2_format::dirent::slots(&buffer, dir.fs.geo.inodes_count, dir.has_type()) {
            let slot = slot.map_err(|why| dir.corrupt(alloc::format!("block at byte {start}: {why}")))?;
            if slot.inode != 0 && slot.name != b"." && slot.name != b".." {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

impl Inode {
    fn need_dir(&self) -> Result<()> {
        self.need(FileKind::Directory)
    }

    /// The directory that this one is in. It is held until its parent is, so that both are there: a directory that holds
    /// another is not removed.
    fn parent(&self) -> Result<Self> {
        let _io = self.0.io.read();
        match self.0.find(b"..")? {
            Some(found) => self.of_entry(b"..", found.nr),
            None => Err(self.0.corrupt("has no `..`")),
        }
    }
}
