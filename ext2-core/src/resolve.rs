//! From a path to an inode (Linux: `path_lookupat`).

use alloc::vec::Vec;

use crate::error::{Result, refuse};
use crate::inode::{FileKind, Inode};
use crate::{Errno, Ext2};

/// Whether the last name of a path is followed when it is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// To what it points to.
    Yes,
    /// The link itself.
    No,
}

/// Symbolic links followed in one path (Linux: `MAXSYMLINKS`).
const LINKS_MAX: u32 = 40;

/// More bytes than the longest path or link target has (Linux: `PATH_MAX`, which counts the 0 behind it).
const PATH_MAX: usize = 4096;

/// Names that are still to be walked, the next one last.
struct Rest(Vec<Vec<u8>>);

impl Rest {
    fn push(&mut self, path: &[u8]) {
        let names = path.split(|&byte| byte == b'/').rev().filter(|name| !name.is_empty());
        self.0.extend(names.map(<[u8]>::to_vec));
        // A trailing slash asks for a directory, as a `.` would.
        if path.ends_with(b"/") && path.iter().any(|&byte| byte != b'/') {
            let at = self.0.len() - path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).count();
            self.0.insert(at, b".".to_vec());
        }
    }
}

impl Ext2 {
    /// The inode of a path, from the root; a leading slash may be left out. Names are bytes; `..` of the
    /// root is the root, and symbolic links never lead out.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ELOOP` after 40 links, `ENAMETOOLONG`; `Corrupt`; the device's errors.
    pub fn resolve(&self, path: impl AsRef<[u8]>, follow: Follow) -> Result<Inode> {
        self.resolve_from(self.root()?, path, follow)
    }

    /// The inode of a path that begins at an inode, whether the path has a leading slash or not. `..` of that inode is the
    /// root: of a directory that is named by its number nobody knows what is above it. Links that begin with a slash lead
    /// to the root.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_from(&self, start: Inode, path: impl AsRef<[u8]>, follow: Follow) -> Result<Inode> {
        self.resolve_bytes(start, path.as_ref(), follow)
    }

    fn resolve_bytes(&self, start: Inode, path: &[u8], follow: Follow) -> Result<Inode> {
        if path.len() >= PATH_MAX {
            return refuse(Errno::NAMETOOLONG, "");
        }
        let root = self.root()?;
        // The directories from the root to where the walk is: `..` goes back.
        let mut at: Vec<Inode> = Vec::new();
        let mut rest = Rest(Vec::new());
        rest.push(path);
        let mut links = 0;
        let mut current = start;
        while let Some(name) = rest.0.pop() {
            if current.kind() != FileKind::Directory {
                return refuse(Errno::NOTDIR, "");
            }
            if name == b"." {
                continue;
            }
            if name == b".." {
                current = at.pop().unwrap_or_else(|| root.clone());
                continue;
            }
            let next = current.lookup(&name)?;
            if next.kind() == FileKind::Symlink && (follow == Follow::Yes || !rest.0.is_empty()) {
                links += 1;
                if links > LINKS_MAX {
                    return refuse(Errno::LOOP, "");
                }
                let target = next.read_link()?;
                if target.is_empty() {
                    return refuse(Errno::NOENT, "");
                }
                if rest.0.len() > PATH_MAX {
                    return refuse(Errno::NAMETOOLONG, "");
                }
                if target.first() == Some(&b'/') {
                    at.clear();
                    current = root.clone();
                }
                rest.push(&target);
            } else {
                at.push(core::mem::replace(&mut current, next));
            }
        }
        Ok(current)
    }

    /// The directory in which the last name of a path lies (or would), and that name. A path may end in `.` or `..`, and
    /// the name of the root is `/`, in itself: each call that makes or removes names refuses these with the number that
    /// Linux gives (`EEXIST`, `EISDIR`, `EBUSY`, …), after all that is wrong with the path before them. Linux:
    /// `filename_parentat`.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_parent<'p>(&self, path: &'p [u8]) -> Result<(Inode, &'p [u8])> {
        if path.len() >= PATH_MAX {
            return refuse(Errno::NAMETOOLONG, "");
        }
        let trimmed = match path.iter().rposition(|&byte| byte != b'/') {
            Some(last) => path.get(..=last).unwrap_or_default(),
            None => return Ok((self.root()?, b"/")),
        };
        let start = trimmed.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (parent, name) = trimmed.split_at(start);
        let parent = self.resolve(parent, Follow::Yes)?;
        parent.need(FileKind::Directory)?;
        Ok((parent, name))
    }
}
