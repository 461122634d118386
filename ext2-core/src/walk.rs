//! Walking a tree: every file below a directory, parents before children, names in the order of their bytes.
//!
//! # Invariants
//! 1. A directory is entered at most once, so that a walk ends on any image; a second name of a directory is
//!    [`Corrupt`](crate::Error::Corrupt), and the walk goes on behind it. One that was moved since it was given is passed over.
//! 2. What is given has a path that leads to it and to nothing else: a name with a `/` or a NUL in it and a second `.` or
//!    `..` are `Corrupt` too, and so is a name that is there twice where nobody writes. Where somebody may, a listing gives
//!    one twice that went and was made again behind it: it is given once.
//! 3. Memory is that of the longest path, and of the names in the directories that are being walked: not of a path for each.
//!
//! # Locking
//! All names of a directory are read when it is entered, each block under the directory's lock and nothing from one block to
//! the next; between the steps nothing is locked. On a file system that was opened for writing each name is looked up again
//! when its turn comes, also once writing has ended: its number may be another file's by then. A name that is gone is passed
//! over.

mod entered;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

pub(crate) use entered::{Entered, Met};

use crate::{Corrupt, Errno, Error, Ext2, FileKind, Inode, InodeNr, Name, Object};

/// A file that a walk has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// Its path: that of the walk's start, and the names below it. A start of `/` makes it absolute.
    pub path: Vec<u8>,
    /// How far below the start it lies; 0 is the start itself.
    pub depth: usize,
    /// The file.
    pub inode: Inode,
}

impl Found {
    /// The last name of the path; empty for the root.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }
}

/// A part of a tree that cannot be walked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalkError {
    /// The path of the file, or of the directory that cannot be read.
    pub path: Vec<u8>,
    /// Why.
    pub error: Error,
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Name::from(&self.path[..]), self.error)
    }
}

impl core::error::Error for WalkError {}

/// A walk. Errors do not end it.
///
/// ```
/// use ext2_core::{Ext2, OpenOptions};
///
/// let fs = Ext2::open(ext2_image::mkfs::in_memory(4 << 20)?, &OpenOptions::default())?;
/// fs.create_dir_all("a/b/c")?;
/// let mut depths = Vec::new();
/// let mut walk = fs.walk("a")?;
/// while let Some(found) = walk.next() {
///     let found = found?;
///     depths.push(found.depth);
///     if found.path.ends_with(b"/b") {
///         walk.skip_below();
///     }
/// }
/// assert_eq!(depths.len(), 2); // a and a/b
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Walk {
    fs: Ext2,
    start: Option<Found>,
    /// The path of what was given last, which begins with those of all directories that are being walked.
    path: Vec<u8>,
    /// The directories that are being walked, the innermost last.
    open: Vec<Directory>,
    /// The directory that was given last, to be entered at the next step.
    next: Option<Inode>,
    /// Those that were given, and where.
    entered: Entered,
}

/// A directory with what is still to be given of it, the next one last.
#[derive(Debug)]
struct Directory {
    /// How much of the walk's path is its own.
    len: usize,
    inode: Inode,
    rest: Vec<Result<(Vec<u8>, InodeNr), Error>>,
    /// The name that was given last.
    last: Vec<u8>,
}

impl Walk {
    /// Walks the tree below `inode`, itself first. `path` is what is known of its place: the paths of what is found
    /// begin with it.
    #[must_use]
    pub fn new(inode: &Inode, path: &[u8]) -> Self {
        let start = Found { path: path.to_vec(), depth: 0, inode: inode.clone() };
        Self {
            fs: inode.fs(),
            start: Some(start),
            path: path.to_vec(),
            open: Vec::new(),
            next: None,
            entered: Entered::default(),
        }
    }

    /// Leaves out what is below the directory that was given last.
    pub fn skip_below(&mut self) {
        self.next = None;
    }

    /// Reads the directory that was given last, whose files come next.
    fn enter(&mut self, inode: Inode) {
        let mut rest = match inode.entries(0) {
            Err(error) => vec![Err(error)],
            Ok(entries) => {
                entries.map(|entry| entry.map(|entry| (entry.name.into_bytes(), entry.nr))).collect()
            }
        };
        for dots in [&b"."[..], b".."] {
            if let Some(at) = rest.iter().position(|entry| matches!(entry, Ok((name, _)) if name == dots)) {
                drop(rest.swap_remove(at));
            }
        }
        // From the end: errors, then the names in order.
        rest.sort_by(|a, b| match (a, b) {
            (Ok(a), Ok(b)) => b.cmp(a),
            (a, b) => a.is_err().cmp(&b.is_err()),
        });
        self.open.push(Directory { len: self.path.len(), inode, rest, last: Vec::new() });
    }

    /// The file of a name in `directory` that was listed with the number `nr`; `None` where it is gone.
    fn inode_of(&self, directory: &Inode, name: &[u8], nr: InodeNr) -> Result<Option<Inode>, Error> {
        // Not whether it can be written now: an error, a close or a shutdown may have ended that, after names have changed.
        if !self.fs.0.has_writer() {
            return directory.of_entry(name, nr).map(Some);
        }
        match directory.lookup(name) {
            Err(error) if error.is(Errno::NOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    /// What a name of the innermost directory leads to; `None` where it is gone, or was given.
    fn visit(
        &mut self,
        directory: &Inode,
        (name, nr): (&[u8], InodeNr),
        twice: bool,
    ) -> Result<Option<Found>, WalkError> {
        if !can_be_in_a_path(name) {
            let what = format!("the name {} is none that a path can hold", Name::from(name));
            return Err(self.broken(Object::Inode(nr), what));
        }
        if !self.path.ends_with(b"/") {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        if twice {
            if self.fs.0.has_writer() {
                return Ok(None);
            }
            return Err(self.broken(Object::Inode(nr), "the name is there twice".into()));
        }
        let inode = match self.inode_of(directory, name, nr) {
            Ok(Some(inode)) => inode,
            Ok(None) => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        if inode.kind() == FileKind::Directory {
            match self.entered.enter(directory, name, &inode) {
                Ok(Met::First) => {}
                Ok(Met::Moved) => return Ok(None),
                Ok(Met::Twice) => {
                    let what = "the directory has a second name here".into();
                    return Err(self.broken(Object::Directory(inode.nr()), what));
                }
                Err(error) => return Err(self.failed(error)),
            }
            self.next = Some(inode.clone());
        }
        Ok(Some(Found { path: self.path.clone(), depth: self.open.len(), inode }))
    }

    /// An error of what has the path now.
    fn failed(&self, error: Error) -> WalkError {
        WalkError { path: self.path.clone(), error }
    }

    fn broken(&self, object: Object, what: String) -> WalkError {
        self.failed(Corrupt::new(object, what).into())
    }
}

/// Whether a path can lead to a file by this name, other than the directory and its parent.
pub(crate) fn can_be_in_a_path(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

impl Iterator for Walk {
    type Item = Result<Found, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(start) = self.start.take() {
            if start.inode.kind() == FileKind::Directory {
                self.entered.begin(&start.inode);
                self.next = Some(start.inode.clone());
            }
            return Some(Ok(start));
        }
        if let Some(inode) = self.next.take() {
            self.enter(inode);
        }
        loop {
            let directory = self.open.last_mut()?;
            self.path.truncate(directory.len);
            match directory.rest.pop() {
                None => drop(self.open.pop()),
                Some(Err(error)) => return Some(Err(self.failed(error))),
                Some(Ok((name, nr))) => {
                    let inode = directory.inode.clone();
                    let twice = directory.last == name;
                    let found = self.visit(&inode, (&name, nr), twice).transpose();
                    if let Some(directory) = self.open.last_mut() {
                        directory.last = name;
                    }
                    if found.is_some() {
                        return found;
                    }
                }
            }
        }
    }
}
