//! The files of a directory of the host as contents.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::kept::Kept;
use crate::mkfs::{Contents, Error, NodeId, Result, SourceFile, Stamp};

/// Files below a directory, by their paths in the tree. The directory of the file before is kept open.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    directory: Option<(NodeId, OwnedFd)>,
    open: Option<File>,
    path: Vec<u8>,
    /// What was read when the directory was walked, and the handle and size of the open file that is among it.
    kept: Arc<Kept>,
    known: Option<(u64, u64)>,
}

impl Folder {
    /// The files below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self::with(root, Arc::default())
    }

    /// The files below `root`, of which some were read already.
    pub(super) fn with(root: &Path, kept: Arc<Kept>) -> Self {
        Self { root: root.to_path_buf(), directory: None, open: None, path: Vec::new(), kept, known: None }
    }

    /// The place in the host of a path of the tree.
    fn place(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
    }

    /// Bytes of a file by its path in the tree.
    pub(super) fn size_of(&self, path: &[u8]) -> Result<u64> {
        std::fs::metadata(self.place(path)).map(|meta| meta.len()).map_err(|error| Error::source(path, error))
    }

    fn failed(&self, error: impl core::fmt::Display) -> Error {
        Error::source(&self.path, error)
    }
}

/// Opens for reading, without changing the access time where that is allowed, and without waiting for a FIFO.
pub(super) fn open_quietly(directory: impl std::os::fd::AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match openat(&directory, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(&directory, name, flags, Mode::empty()),
        result => result,
    }
}

impl Contents for Folder {
    fn open(&mut self, file: &SourceFile<'_>) -> Result<()> {
        self.open = None;
        self.known = self.kept.get(file.handle, file.size).map(|_| (file.handle, file.size));
        if self.known.is_some() {
            return Ok(());
        }
        let (parent, name) = file.tree.first_name(file.node);
        self.path.clear();
        if self.directory.as_ref().is_none_or(|(node, _)| *node != parent) {
            let path = file.tree.path(parent);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = openat(CWD, self.place(&path), flags, Mode::empty());
            self.directory = Some((parent, opened.map_err(|error| Error::source(&path, error))?));
        }
        let Some((_, directory)) = &self.directory else { unreachable!("opened above") };
        let failed = |error: &dyn core::fmt::Display| Error::source(&file.path(), error);
        let opened = open_quietly(directory, OsStr::from_bytes(name)).map_err(|error| failed(&error))?;
        let meta = fstat(&opened).map_err(|error| failed(&error))?;
        let is_file = FileType::from_raw_mode(meta.st_mode) == FileType::RegularFile;
        if u64::try_from(meta.st_size) != Ok(file.size) || !is_file {
            return Err(failed(&"has changed since it was looked at"));
        }
        self.open = Some(File::from(opened));
        self.path.extend_from_slice(name);
        Ok(())
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if let Some((handle, size)) = self.known {
            let bytes = self.kept.get(handle, size).unwrap_or_default();
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let part = start.checked_add(buf.len()).and_then(|end| bytes.get(start..end));
            buf.copy_from_slice(part.ok_or_else(|| self.failed("is read past its end"))?);
            return Ok(());
        }
        let Some(file) = &self.open else { return Err(self.failed("no file is open")) };
        file.read_exact_at(buf, offset).map_err(|error| self.failed(error))
    }

    fn close(&mut self) -> Result<()> {
        self.open = None;
        self.known = None;
        Ok(())
    }

    fn another(&self) -> Option<Box<dyn Contents + Send>> {
        Some(Box::new(Self::with(&self.root, Arc::clone(&self.kept))))
    }

    /// What is read now and then is read where it lies: there it can be seen whether it is what it was.
    fn at_random(&self) -> Option<Box<dyn Contents + Send>> {
        Some(Box::new(Self::new(&self.root)))
    }

    fn stamp(&self, file: &SourceFile<'_>) -> Option<Stamp> {
        file.tree.stamp(file.node)
    }

    fn host_file(&self) -> Option<(&File, u64)> {
        self.open.as_ref().map(|file| (file, 0))
    }
}
