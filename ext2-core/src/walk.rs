//! Walking a tree: every file below a directory, parents before children, names in the order of their bytes.
//!
//! # Invariants
//! 1. A directory is entered at most once, so that a walk ends on any image; a second name of a directory is
//!    [`Corrupt`](crate::Error::Corrupt), and the walk goes on behind it. One that was moved since it was given is passed over.
//! 2. What is given has a path that leads to it and to nothing else: a name with a `/` or a NUL in it, a name that is
//!    there twice and a second `.` or `..` are `Corrupt` too.
//!
//! # Locking
//! A directory is read as a whole when it is entered, under its own lock; between the steps nothing is locked. Where others
//! may change the file system meanwhile, each name is looked up again when its turn comes: its number may be another
//! file's by then. A name that is gone is passed over.

mod entered;

use alloc::format;
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
    /// The directories that are being walked, the innermost last.
    open: Vec<Directory>,
    /// The directory that was given last, to be entered at the next step.
    next: Option<(Vec<u8>, Inode)>,
    /// Those that were given, and where.
    entered: Entered,
}

/// A directory with what is still to be given of it, the next one last.
#[derive(Debug)]
struct Directory {
    path: Vec<u8>,
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
        Self { fs: inode.fs(), start: Some(start), open: Vec::new(), next: None, entered: Entered::default() }
    }

    /// Leaves out what is below the directory that was given last.
    pub fn skip_below(&mut self) {
        self.next = None;
    }

    /// Reads a directory whose files come next.
    fn enter(&mut self, path: Vec<u8>, inode: &Inode) {
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
        self.open.push(Directory { path, inode: inode.clone(), rest, last: Vec::new() });
    }

    /// The file of a name in `directory` that was listed with the number `nr`; `None` where it is gone.
    fn inode_of(&self, directory: &Inode, name: &[u8], nr: InodeNr) -> Result<Option<Inode>, Error> {
        if self.fs.is_read_only() {
            return directory.of_entry(name, nr).map(Some);
        }
        match directory.lookup(name) {
            Err(error) if error.is(Errno::NOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    /// What a name of the innermost directory leads to; `None` where it is gone.
    fn visit(
        &mut self,
        directory: &Inode,
        folder: &[u8],
        (name, nr): (&[u8], InodeNr),
        twice: bool,
    ) -> Result<Option<Found>, WalkError> {
        let slash: &[u8] = if folder.ends_with(b"/") { b"" } else { b"/" };
        let path = [folder, slash, name].concat();
        let broken = |path: &[u8], object, what| {
            Err(WalkError { path: path.to_vec(), error: Corrupt::new(object, what).into() })
        };
        let dots = name == b"." || name == b"..";
        if dots || name.is_empty() || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            let what = format!("the name {} is none that a path can hold", Name::from(name));
            return broken(folder, Object::Inode(nr), what);
        }
        if twice {
            return broken(&path, Object::Inode(nr), "the name is there twice".into());
        }
        let inode = match self.inode_of(directory, name, nr) {
            Ok(Some(inode)) => inode,
            Ok(None) => return Ok(None),
            Err(error) => return Err(WalkError { path, error }),
        };
        if inode.kind() == FileKind::Directory {
            let nr = inode.nr();
            match self.entered.enter(directory, name, &inode) {
                Ok(Met::First) => {}
                Ok(Met::Moved) => return Ok(None),
                Ok(Met::Twice) => {
                    let what = "the directory has a second name here".into();
                    return broken(&path, Object::Directory(nr), what);
                }
                Err(error) => return Err(WalkError { path, error }),
            }
            self.next = Some((path.clone(), inode.clone()));
        }
        Ok(Some(Found { path, depth: self.open.len(), inode }))
    }
}

impl Iterator for Walk {
    type Item = Result<Found, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(start) = self.start.take() {
            if start.inode.kind() == FileKind::Directory {
                self.entered.begin(&start.inode);
                self.next = Some((start.path.to_vec(), start.inode.clone()));
            }
            return Some(Ok(start));
        }
        if let Some((path, inode)) = self.next.take() {
            self.enter(path, &inode);
        }
        loop {
            let directory = self.open.last_mut()?;
            match directory.rest.pop() {
                None => drop(self.open.pop()),
                Some(Err(error)) => {
                    return Some(Err(WalkError { path: directory.path.clone(), error }));
                }
                Some(Ok((name, nr))) => {
                    let (path, inode) = (directory.path.clone(), directory.inode.clone());
                    let twice = core::mem::replace(&mut directory.last, name.clone()) == name;
                    if let Some(found) = self.visit(&inode, &path, (&name, nr), twice).transpose() {
                        return Some(found);
                    }
                }
            }
        }
    }
}
