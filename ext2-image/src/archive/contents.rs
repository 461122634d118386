//! The bytes of files in archives, read where they lie.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::member::Data;
use crate::mkfs::{Contents, Error, Result, SourceFile};

/// Where the bytes of one file are.
#[derive(Debug)]
pub(super) struct Place {
    /// Which archive.
    pub(super) archive: u32,
    /// Where in it.
    pub(super) data: Data,
}

#[derive(Debug)]
struct Shared {
    files: Vec<File>,
    places: Vec<Place>,
}

/// The bytes of files in archives. Handles are those that [`Merge`](super::Merge) gave out.
#[derive(Debug)]
pub struct ArchiveContents {
    shared: Arc<Shared>,
    open: usize,
    path: Vec<u8>,
}

impl ArchiveContents {
    pub(super) fn new(files: Vec<File>, places: Vec<Place>) -> Self {
        Self { shared: Arc::new(Shared { files, places }), open: usize::MAX, path: Vec::new() }
    }

    fn place(&self) -> Option<(&File, &Data)> {
        let place = self.shared.places.get(self.open)?;
        Some((self.shared.files.get(place.archive as usize)?, &place.data))
    }
}

impl Contents for ArchiveContents {
    fn open(&mut self, file: &SourceFile<'_>) -> Result<()> {
        self.open = usize::try_from(file.handle).unwrap_or(usize::MAX);
        self.path = file.path();
        let size = self.place().map(|(_, data)| match data {
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
        let read = match self.place() {
            Some((file, Data::Whole { at, .. })) => file.read_exact_at(buf, at + offset),
            Some((file, Data::Sparse(map))) => map.read_at(file, offset, buf),
            None => return Err(Error::source(&self.path, "no file is open")),
        };
        read.map_err(|error| Error::source(&self.path, error))
    }

    fn another(&self) -> Option<Box<dyn Contents + Send>> {
        Some(Box::new(Self { shared: Arc::clone(&self.shared), open: usize::MAX, path: Vec::new() }))
    }

    fn host_file(&self) -> Option<(&File, u64)> {
        match self.place()? {
            (file, Data::Whole { at, .. }) => Some((file, *at)),
            // The pieces lie in the archive without what is between them.
            (_, Data::Sparse(_)) => None,
        }
    }
}
