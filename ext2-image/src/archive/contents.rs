//! The bytes of files in archives, read where they lie; and of files in other trees, which are asked for them.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::member::Data;
use crate::mkfs::{Body, Contents, Error, NodeId, Result, SourceFile, Stamp, Tree};

/// Where the bytes of one file are.
#[derive(Debug)]
pub(super) enum Place {
    /// In an archive.
    Archive {
        /// Which one.
        archive: u32,
        /// Where in it.
        data: Data,
    },
    /// In a file of another tree.
    Tree {
        /// Which one.
        tree: u32,
        /// The file in it.
        node: NodeId,
    },
}

/// Another tree, and what has the bytes of its files.
pub(super) struct Lower {
    pub(super) tree: Arc<Tree>,
    pub(super) contents: Box<dyn Contents + Send>,
}

impl fmt::Debug for Lower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lower").field("files", &self.tree.len()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Shared {
    files: Vec<File>,
    places: Vec<Place>,
}

/// The bytes of files in archives and other trees. Handles are those that [`Merge`](super::Merge) gave out.
#[derive(Debug)]
pub struct ArchiveContents {
    shared: Arc<Shared>,
    trees: Vec<Lower>,
    open: usize,
    path: Vec<u8>,
}

impl ArchiveContents {
    pub(super) fn new(files: Vec<File>, places: Vec<Place>, trees: Vec<Lower>) -> Self {
        Self { shared: Arc::new(Shared { files, places }), trees, open: usize::MAX, path: Vec::new() }
    }

    /// The same, with other readers of the trees below.
    fn with(
        &self,
        reader: fn(&(dyn Contents + Send)) -> Option<Box<dyn Contents + Send>>,
    ) -> Option<Box<dyn Contents + Send>> {
        let another = |lower: &Lower| {
            Some(Lower { tree: Arc::clone(&lower.tree), contents: reader(&*lower.contents)? })
        };
        let trees = self.trees.iter().map(another).collect::<Option<_>>()?;
        Some(Box::new(Self { shared: Arc::clone(&self.shared), trees, open: usize::MAX, path: Vec::new() }))
    }

    fn archive(&self) -> Option<(&File, &Data)> {
        match self.shared.places.get(self.open)? {
            Place::Archive { archive, data } => Some((self.shared.files.get(*archive as usize)?, data)),
            Place::Tree { .. } => None,
        }
    }

    /// The tree that has the open file.
    fn lower(&mut self) -> Option<(&mut Lower, NodeId)> {
        match self.shared.places.get(self.open)? {
            &Place::Tree { tree, node } => Some((self.trees.get_mut(tree as usize)?, node)),
            Place::Archive { .. } => None,
        }
    }
}

impl Contents for ArchiveContents {
    fn open(&mut self, file: &SourceFile<'_>) -> Result<()> {
        self.open = usize::try_from(file.handle).unwrap_or(usize::MAX);
        self.path = file.path();
        if let Some((lower, node)) = self.lower() {
            let Body::File { size, handle, .. } = *lower.tree.body(node) else {
                return Err(Error::source(&file.path(), "is no file where it comes from"));
            };
            let tree = Arc::clone(&lower.tree);
            return lower.contents.open(&SourceFile { tree: &tree, node, size, handle });
        }
        let size = self.archive().map(|(_, data)| match data {
            Data::Whole { size, .. } => *size,
            Data::Sparse(map) => map.size(),
        });
        if size == Some(file.size) {
            Ok(())
        } else {
            Err(Error::source(&self.path, "is in no archive that is open"))
        }
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if let Some((lower, _)) = self.lower() {
            return lower.contents.read_at(offset, buf);
        }
        let read = match self.archive() {
            Some((file, Data::Whole { at, .. })) => file.read_exact_at(buf, at + offset),
            Some((file, Data::Sparse(map))) => map.read_at(file, offset, buf),
            None => return Err(Error::source(&self.path, "no file is open")),
        };
        read.map_err(|error| Error::source(&self.path, error))
    }

    fn close(&mut self) -> Result<()> {
        self.lower().map_or(Ok(()), |(lower, _)| lower.contents.close())
    }

    fn abandon(&mut self) {
        if let Some((lower, _)) = self.lower() {
            lower.contents.abandon();
        }
    }

    fn another(&self) -> Option<Box<dyn Contents + Send>> {
        self.with(|lower| lower.another())
    }

    fn at_random(&self) -> Option<Box<dyn Contents + Send>> {
        self.with(|lower| lower.at_random())
    }

    fn lies_in(&self) -> Option<&File> {
        match self.shared.places.get(self.open)? {
            Place::Archive { archive, .. } => self.shared.files.get(*archive as usize),
            Place::Tree { tree, .. } => self.trees.get(*tree as usize)?.contents.lies_in(),
        }
    }

    fn stamp(&self, file: &SourceFile<'_>) -> Option<Stamp> {
        match self.shared.places.get(usize::try_from(file.handle).ok()?)? {
            Place::Archive { .. } => None,
            &Place::Tree { tree, node } => {
                let Lower { tree, contents } = self.trees.get(tree as usize)?;
                let Body::File { size, handle, .. } = *tree.body(node) else { return None };
                contents.stamp(&SourceFile { tree, node, size, handle })
            }
        }
    }

    fn host_file(&self) -> Option<(&File, u64)> {
        match self.shared.places.get(self.open)? {
            Place::Archive { archive, data: Data::Whole { at, .. } } => {
                Some((self.shared.files.get(*archive as usize)?, *at))
            }
            // The pieces lie in the archive without what is between them.
            Place::Archive { data: Data::Sparse(_), .. } => None,
            Place::Tree { tree, .. } => self.trees.get(*tree as usize)?.contents.host_file(),
        }
    }
}
