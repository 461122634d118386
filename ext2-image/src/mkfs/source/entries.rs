//! The manifest of a directory of the host, walked in the order of a manifest.
//!
//! # Invariants
//! Memory is that of the names in the directories that are open, the longest chain of them, and of one name of each file
//! that has names that were not met yet. Said is what [`TreeEntries`](crate::manifest::TreeEntries) says of the tree of such
//! a directory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::folder::open_quietly;
use super::look::Look;
use super::which::{Times, Xattrs};
use crate::manifest::ordered::{Folders, Next};
use crate::manifest::{ByteSpan, Entry, Kind, Node, inode_of_attrs, sum_of_spans};
use crate::mkfs::{Body, Error, Result};

/// The entries of a directory of the host in the order of a manifest, each file read as it comes.
pub struct DirectoryEntries {
    root: PathBuf,
    look: Look<'static>,
    folders: Folders<()>,
    /// The folder of the last file, by its path in the tree.
    open: Option<(Vec<u8>, OwnedFd)>,
    /// Files with several names: the first one, and how many are still to come.
    linked: HashMap<(u64, u64), (Vec<u8>, u64)>,
    buffer: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Begun,
    Done,
}

impl std::fmt::Debug for DirectoryEntries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectoryEntries").field("root", &self.root).finish_non_exhaustive()
    }
}

impl DirectoryEntries {
    /// Of the directory `root`, or of what a link of that name leads to. An error is the last item.
    #[must_use]
    pub fn new(root: &Path, times: Times, xattrs: Xattrs) -> Self {
        Self {
            root: root.to_path_buf(),
            look: Look::new(times, xattrs),
            folders: Folders::new(),
            open: None,
            linked: HashMap::new(),
            buffer: Vec::new(),
            state: State::New,
        }
    }

    /// The place in the host of a path of the tree.
    fn place(&self, path: &[u8]) -> PathBuf {
        match path.strip_prefix(b"/").unwrap_or(path) {
            b"" => self.root.join("."),
            path => self.root.join(OsStr::from_bytes(path)),
        }
    }

    fn enter(&mut self, path: Vec<u8>) -> Result<()> {
        let shown = if path.is_empty() { b"/".as_slice() } else { &path };
        let names = self.look.names(&self.place(&path), shown)?;
        // No directory of a host has a name twice.
        self.folders.push(path, names.into_iter().map(|(name, is_folder)| (name, (), is_folder)));
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Entry>> {
        if self.state == State::New {
            self.state = State::Begun;
            let (attrs, _) = self.look.at_root(&self.root)?;
            self.enter(Vec::new())?;
            let inode = inode_of_attrs(&attrs, None, Kind::Directory);
            return Ok(Some(Entry { path: b"/".to_vec(), node: Node::Inode(inode) }));
        }
        loop {
            match self.folders.next() {
                None => return Ok(None),
                Some(Next::File(path, ())) => return self.entry(path).map(Some),
                Some(Next::Enter(path, ())) => self.enter(path)?,
            }
        }
    }

    fn entry(&mut self, path: Vec<u8>) -> Result<Entry> {
        let cut = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        let (above, whole) = (path.get(..cut).unwrap_or_default(), self.place(&path));
        let folder = match self.open.take().filter(|(open, _)| open == above) {
            Some((_, folder)) => folder,
            None => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = openat(CWD, self.place(above), flags, Mode::empty());
                opened.map_err(|error| Error::source(above, error))?
            }
        };
        let found = self.look.one(folder.as_fd(), &whole, &path)?;
        if let Some(id) = found.linked {
            if let Some((first, left)) = self.linked.get_mut(&id) {
                let first = first.clone();
                *left -= 1;
                if *left == 0 {
                    self.linked.remove(&id);
                }
                self.open = Some((above.to_vec(), folder));
                return Ok(Entry { path, node: Node::HardLink(first) });
            }
            self.linked.insert(id, (path.clone(), found.links - 1));
        }
        let (size, kind) = match found.body {
            Body::File { size, data, .. } => {
                (Some(size), self.file(&folder, &whole, &path, (size, data.as_deref()))?)
            }
            Body::Directory => (None, Kind::Directory),
            Body::Symlink(target) => (Some(target.len() as u64), Kind::Symlink { target: target.into() }),
            Body::CharDevice(nr) => (None, Kind::CharDevice { major: nr.major, minor: nr.minor }),
            Body::BlockDevice(nr) => (None, Kind::BlockDevice { major: nr.major, minor: nr.minor }),
            Body::Fifo => (None, Kind::Fifo),
            Body::Socket => (None, Kind::Socket),
        };
        self.open = Some((above.to_vec(), folder));
        let inode = inode_of_attrs(&found.attrs, size, kind);
        Ok(Entry { path, node: Node::Inode(inode) })
    }

    /// The sum of a file's bytes.
    fn file(
        &mut self,
        folder: &OwnedFd,
        whole: &Path,
        path: &[u8],
        (size, spans): (u64, Option<&[ByteSpan]>),
    ) -> Result<Kind> {
        if size == 0 || spans.is_some_and(<[ByteSpan]>::is_empty) {
            return sum_of_spans(size, spans, &mut self.buffer, &mut |_, _| Ok(()));
        }
        let failed = |error: std::io::Error| Error::source(path, error);
        let name = whole.file_name().unwrap_or_default();
        let file = File::from(open_quietly(folder, name).map_err(|error| failed(error.into()))?);
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() || meta.size() != size {
            return Err(Error::source(path, "has changed since it was looked at"));
        }
        let mut read = |at: u64, bytes: &mut [u8]| file.read_exact_at(bytes, at).map_err(failed);
        sum_of_spans(size, spans, &mut self.buffer, &mut read)
    }
}

impl Iterator for DirectoryEntries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Done {
            return None;
        }
        let step = self.step();
        if !matches!(step, Ok(Some(_))) {
            self.state = State::Done;
        }
        step.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::TreeEntries;
    use crate::mkfs::source::{Folder, read_directory};

    #[test]
    fn a_directory_that_is_walked_is_the_tree_that_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for directory in ["a", "a/x", "a-b", "a b", "z/y/x/w", "empty"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        for (name, bytes) in [("a/f", 5), ("a-b/f", 0), ("a/x/f", 300_000), ("a0", 1), ("z/y/x/w/f", 7)] {
            std::fs::write(root.join(name), vec![9; bytes]).unwrap();
        }
        let sparse = File::create(root.join("sparse")).unwrap();
        sparse.set_len(1 << 22).unwrap();
        sparse.write_at(b"data", 1 << 21).unwrap();
        for name in ["z/second", "a/third"] {
            std::fs::hard_link(root.join("a0"), root.join(name)).unwrap();
        }
        // Its other name is elsewhere.
        let other = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
        std::fs::hard_link(root.join("a/f"), other.path().join("f")).unwrap();
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        std::os::unix::fs::symlink(root, other.path().join("to-root")).unwrap();
        std::os::unix::net::UnixListener::bind(root.join("z/socket")).unwrap();
        for (times, place) in
            [(Times::Modified, root.to_path_buf()), (Times::All, other.path().join("to-root"))]
        {
            let tree = read_directory(&place, times, Xattrs::Keep, &mut |_| ()).unwrap();
            let tree = TreeEntries::new(tree, Box::new(Folder::new(&place))).unwrap();
            let tree: Vec<Entry> = tree.map(Result::unwrap).collect();
            let walked: Vec<Entry> =
                DirectoryEntries::new(&place, times, Xattrs::Keep).map(Result::unwrap).collect();
            assert_eq!(walked, tree);
            assert!(walked.len() > 15);
        }
        assert!(DirectoryEntries::new(&root.join("a0"), Times::All, Xattrs::Keep).next().unwrap().is_err());
        assert!(DirectoryEntries::new(&root.join("none"), Times::All, Xattrs::Keep).next().unwrap().is_err());
    }
}
