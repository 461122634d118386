//! Where the bytes of files come from.

use alloc::boxed::Box;
use alloc::vec::Vec;

#[cfg(feature = "std")]
use super::Stamp;
use super::{Error, NodeId, Result, Tree};

/// A file whose bytes are wanted.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SourceFile<'t> {
    /// The tree.
    pub tree: &'t Tree,
    /// The file in it.
    pub node: NodeId,
    /// Bytes.
    pub size: u64,
    /// What the source put into [`Body::File`](super::Body::File).
    pub handle: u64,
}

impl SourceFile<'_> {
    /// Its path in the tree.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        self.tree.path(self.node)
    }
}

/// Gives the bytes of the files of a tree. Files are asked for one after the other.
pub trait Contents {
    /// Makes a file the one that the next calls are about.
    ///
    /// # Errors
    /// `Source` when it cannot be opened, or no longer has the size that the tree says.
    fn open(&mut self, file: &SourceFile<'_>) -> Result<()>;

    /// Fills `buf` from byte `offset`; the caller asks for nothing past the file's size.
    ///
    /// # Errors
    /// `Source`.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Says that no more is wanted of the open file.
    ///
    /// # Errors
    /// `Source` when its bytes turn out not to be those that were promised.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }

    /// As [`close`](Self::close), of a file that was not read whole: what was promised is not held against it.
    fn abandon(&mut self) {}

    /// Another reader of the same files, for a thread of its own, which is asked for parts of files in any order; none
    /// where files can only be read one after the other, each from its front to its end.
    fn another(&self) -> Option<Box<dyn Contents + Send>> {
        None
    }

    /// As [`another`](Self::another), for who reads parts of files again and again, and some never: what is promised of a file's
    /// bytes is looked into before any of them is given.
    fn at_random(&self) -> Option<Box<dyn Contents + Send>> {
        self.another()
    }

    /// The file of the host in which the bytes of the open file lie, in whatever order: as long as it is what it was, so are
    /// they.
    #[cfg(feature = "std")]
    fn lies_in(&self) -> Option<&std::fs::File> {
        self.host_file().map(|(file, _)| file)
    }

    /// What a file of the host in which the bytes of `file` lie was when the tree was made, where that was seen and the file can be
    /// opened; none elsewhere: then it has to be opened to be known again.
    #[cfg(feature = "std")]
    fn stamp(&self, file: &SourceFile<'_>) -> Option<Stamp> {
        let _ = file;
        None
    }

    /// The open file as a file of the host, and where in it its bytes begin: what can be copied without being read.
    #[cfg(feature = "std")]
    fn host_file(&self) -> Option<(&std::fs::File, u64)> {
        None
    }
}

/// No contents: for a tree without files that have data.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoContents;

impl Contents for NoContents {
    fn open(&mut self, file: &SourceFile<'_>) -> Result<()> {
        Err(Error::source(&file.path(), "there are no contents"))
    }

    fn read_at(&mut self, _: u64, _: &mut [u8]) -> Result<()> {
        Err(Error::source(b"/", "there are no contents"))
    }
}

/// A file in memory: its size, and bytes where they are not zero.
#[derive(Clone, Debug, Default)]
pub struct MemoryFile {
    size: u64,
    pieces: Vec<(u64, Vec<u8>)>,
}

impl MemoryFile {
    /// Puts bytes at an offset, behind all that were put before.
    pub fn set(&mut self, offset: u64, bytes: &[u8]) {
        self.pieces.push((offset, bytes.to_vec()));
    }
}

/// Contents in memory, by [`handle`](SourceFile::handle).
#[derive(Clone, Debug, Default)]
pub struct MemoryContents {
    files: Vec<MemoryFile>,
    open: usize,
}

impl MemoryContents {
    /// Keeps the bytes of a file and gives the handle to find them by.
    pub fn push(&mut self, bytes: Vec<u8>) -> u64 {
        self.push_sparse(MemoryFile { size: bytes.len() as u64, pieces: alloc::vec![(0, bytes)] })
    }

    /// Keeps a file and gives the handle to find it by.
    pub fn push_sparse(&mut self, file: MemoryFile) -> u64 {
        self.files.push(file);
        self.files.len() as u64 - 1
    }

    /// A file of `size` bytes, all zero.
    #[must_use]
    pub fn sparse(size: u64) -> MemoryFile {
        MemoryFile { size, pieces: Vec::new() }
    }

    /// The bytes of a file that was kept in one piece.
    #[must_use]
    pub fn bytes(&self, handle: u64) -> Option<&[u8]> {
        self.files.get(usize::try_from(handle).ok()?)?.pieces.first().map(|piece| piece.1.as_slice())
    }
}

impl Contents for MemoryContents {
    fn open(&mut self, file: &SourceFile<'_>) -> Result<()> {
        self.open = usize::try_from(file.handle).unwrap_or(usize::MAX);
        match self.files.get(self.open) {
            Some(found) if found.size == file.size => Ok(()),
            _ => Err(Error::source(&file.path(), "its contents are missing or have another size")),
        }
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let Some(file) = self.files.get(self.open) else {
            return Err(Error::source(b"/", "no file is open"));
        };
        buf.fill(0);
        let end = offset.saturating_add(buf.len() as u64);
        for (start, bytes) in &file.pieces {
            let (from, to) = (offset.max(*start), end.min(start.saturating_add(bytes.len() as u64)));
            if from < to {
                // Within both slices: fits.
                let piece = &bytes[(from - start) as usize..(to - start) as usize];
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(piece);
            }
        }
        Ok(())
    }
}
