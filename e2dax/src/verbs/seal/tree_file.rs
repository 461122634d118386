//! The hash tree in a file of its own, which takes the place of an old one when the image is sealed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::beside::{self, Name, take};
use crate::failure::{Failure, Result};
use crate::text::show_os;

/// What the tree is written to.
pub(crate) struct TreeFile {
    path: PathBuf,
    file: File,
    /// The name that it gets when it is whole; none for a device.
    name: Option<Name>,
}

impl TreeFile {
    /// Opens what is to become the tree at `path`.
    ///
    /// # Errors
    /// What is there, without `force`; what is neither a file nor a block device; what is in use; the system's.
    pub(crate) fn create(path: &Path, force: bool, wait: bool) -> Result<Self> {
        let host = |error| Failure::host(path, error);
        let refused = |what| Err(Failure::text(show_os(path.as_os_str()), what));
        let existing = match std::fs::metadata(path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(host(error)),
        };
        let place = beside::place(path);
        if let Some(found) = &existing {
            let kind = found.file_type();
            match (kind.is_file(), kind.is_block_device()) {
                (false, false) if kind.is_dir() => return refused("is a directory"),
                (false, false) => return refused("is no file and no block device"),
                (true, _) if !force => return refused("exists: --force replaces it"),
                (_, true) if !force => return refused("is a device: --force overwrites what is on it"),
                (true, _) => drop(take(&place, found, wait)?),
                (_, true) => {
                    return Ok(Self { file: take(path, found, wait)?, path: path.into(), name: None });
                }
            }
        }
        let (file, name) = beside::create(&place, existing.as_ref(), wait).map_err(host)?;
        Ok(Self { path: path.into(), file, name: Some(name) })
    }

    /// The file, for whoever makes the tree.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the tree, which is whole, its name.
    ///
    /// # Errors
    /// The system's; what was there is there still, or the message says otherwise.
    pub(crate) fn publish(self) -> Result<()> {
        match self.name {
            Some(name) => name.give_to(&self.file),
            None => self.file.sync_data().map_err(|error| Failure::host(&self.path, error)),
        }
    }
}
