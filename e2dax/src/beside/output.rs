//! Where something new is written to, and what is there now.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::{Name, create, place, take};
use crate::failure::{Failure, Result};
use crate::text::show_os;

/// A name that something is written to.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// The name as it was given, for whoever reads an error.
    given: PathBuf,
    /// Where the name leads: to what is replaced, or made.
    path: PathBuf,
    /// What is there; none for a new file.
    existing: Option<Metadata>,
}

impl Output {
    /// Looks at what has the name `given`.
    ///
    /// # Errors
    /// The system's, but for a file that is not there.
    pub(crate) fn find(given: &Path) -> Result<Self> {
        let path = place(given);
        let existing = match std::fs::metadata(&path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::host(given, error)),
        };
        Ok(Self { given: given.into(), path, existing })
    }

    /// Where the name leads.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is there; none for a new file.
    pub(crate) fn existing(&self) -> Option<&Metadata> {
        self.existing.as_ref()
    }

    /// Whether a block device is there.
    pub(crate) fn is_device(&self) -> bool {
        self.existing.as_ref().is_some_and(|meta| meta.file_type().is_block_device())
    }

    /// Whether this is the file of these attributes.
    pub(crate) fn is(&self, other: &Metadata) -> bool {
        self.existing.as_ref().is_some_and(|meta| (meta.dev(), meta.ino()) == (other.dev(), other.ino()))
    }

    /// Whether what is there is written through, as a pipe or a terminal is: nothing in it can be lost.
    pub(crate) fn is_passage(&self) -> bool {
        self.existing.as_ref().is_some_and(|meta| {
            let kind = meta.file_type();
            !kind.is_file() && !kind.is_dir() && !kind.is_block_device()
        })
    }

    /// Refuses what is neither a file nor a block device.
    ///
    /// # Errors
    /// What is there instead.
    pub(crate) fn need_storage(&self) -> Result<()> {
        match &self.existing {
            Some(meta) if meta.is_dir() => Err(self.refused("is a directory")),
            _ if self.is_passage() => Err(self.refused("is no file and no block device")),
            _ => Ok(()),
        }
    }

    /// Refuses what is there already, where nobody said with `force` that it may go.
    ///
    /// # Errors
    /// As [`need_storage`](Self::need_storage), and what is there.
    pub(crate) fn need_force(&self, force: bool) -> Result<()> {
        self.need_storage()?;
        match &self.existing {
            Some(_) if force => Ok(()),
            Some(_) if self.is_device() => Err(self.refused("is a device: --force overwrites what is on it")),
            Some(_) => Err(self.refused("exists: --force replaces it")),
            None => Ok(()),
        }
    }

    /// Says why nothing is written to it.
    pub(crate) fn refused(&self, what: &str) -> Failure {
        Failure::text(show_os(self.given.as_os_str()), what)
    }

    /// Opens what is written to: a file that is made beside what is there, or that itself where it is no file or
    /// `in_place` asks for it.
    ///
    /// # Errors
    /// What is in use, unless `wait` says to wait for that, and the system's.
    pub(crate) fn open(&self, in_place: bool, wait: bool) -> Result<NewFile> {
        let host = |error| Failure::host(&self.given, error);
        let new = |file, name| NewFile { path: self.path.clone(), file, name, syncs: !self.is_passage() };
        if self.is_passage() {
            return Ok(new(OpenOptions::new().write(true).open(&self.path).map_err(host)?, None));
        }
        // Not before it is known that nobody uses what is there.
        let there = self.existing.as_ref().map(|meta| take(&self.path, meta, wait)).transpose()?;
        if let Some(file) = there.filter(|_| in_place || self.is_device()) {
            return Ok(new(file, None));
        }
        let (file, name) = create(&self.path, self.existing(), wait).map_err(host)?;
        Ok(new(file, Some(name)))
    }
}

/// What is written to.
pub(crate) struct NewFile {
    path: PathBuf,
    file: File,
    /// The name that it gets when it is whole; none where it is written in place.
    name: Option<Name>,
    /// Whether it lies on a disk.
    syncs: bool,
}

impl NewFile {
    /// The file, for whoever fills it.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether what was there before is being written to.
    pub(crate) fn is_in_place(&self) -> bool {
        self.name.is_none()
    }

    /// Gives the file, which is whole, its name; what was written in place is brought to the disk.
    ///
    /// # Errors
    /// The system's; what was there is there still, or the message says otherwise.
    pub(crate) fn publish(self) -> Result<()> {
        match self.name {
            Some(name) => name.give_to(&self.file),
            None if !self.syncs => Ok(()),
            None => self.file.sync_data().map_err(|error| Failure::host(&self.path, error)),
        }
    }
}
