//! What goes wrong in a copy, and who is told.

use std::io;
use std::string::String;
use std::vec::Vec;

use crate::manifest::quote;

/// Which side of a copy a path is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// What is copied: a path in the image, or of the host for [`insert`](super::insert).
    Source(Vec<u8>),
    /// What is made: a path in the image, or of the host for [`extract`](super::extract).
    Destination(Vec<u8>),
}

/// Why a file was not copied.
#[derive(Debug)]
pub enum Cause {
    /// An image says so.
    FileSystem(ext2_core::Error),
    /// The host does.
    Host(io::Error),
}

/// A file that was not copied, or not whole.
#[derive(Debug)]
#[non_exhaustive]
pub struct Problem {
    /// Which file.
    pub place: Place,
    /// Why.
    pub cause: Cause,
}

impl Problem {
    /// Whether a file system is full, the host's or an image's: going on would only say so again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match &self.cause {
            Cause::Host(error) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Cause::FileSystem(error) => error.errno() == ext2_core::Errno::NOSPC,
        }
    }
}

impl core::fmt::Display for Problem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (Place::Source(path) | Place::Destination(path)) = &self.place;
        match &self.cause {
            Cause::FileSystem(error) => write!(f, "{}: {error}", quote(path)),
            Cause::Host(error) => write!(f, "{}: {error}", quote(path)),
        }
    }
}

impl core::error::Error for Problem {}

impl From<ext2_core::Error> for Cause {
    fn from(error: ext2_core::Error) -> Self {
        Self::FileSystem(error)
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

impl From<rustix::io::Errno> for Cause {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Host(error.into())
    }
}

/// Names the file of an error.
pub(super) trait At<T> {
    fn source(self, path: &[u8]) -> Result<T, Problem>;
    fn destination(self, path: &[u8]) -> Result<T, Problem>;
}

impl<T, E: Into<Cause>> At<T> for Result<T, E> {
    fn source(self, path: &[u8]) -> Result<T, Problem> {
        self.map_err(|error| Problem { place: Place::Source(path.to_vec()), cause: error.into() })
    }

    fn destination(self, path: &[u8]) -> Result<T, Problem> {
        self.map_err(|error| Problem { place: Place::Destination(path.to_vec()), cause: error.into() })
    }
}

/// Is told how a copy goes on.
pub trait Observer {
    /// So many more bytes of files were moved.
    fn moved(&mut self, bytes: u64) {
        let _ = bytes;
    }

    /// Whether files that cannot be read whole are copied as far as that goes: what is missing becomes a hole, and is told.
    fn rescues(&self) -> bool {
        false
    }

    /// Whether the file of the host at `path`, of this device and inode number, is left out of [`insert`](super::insert), because
    /// it is the image that it would be copied into. Whoever says so tells it.
    fn leaves_out(&mut self, path: &[u8], device: u64, inode: u64) -> bool {
        let _ = (path, device, inode);
        false
    }

    /// A file was not copied; the copy goes on.
    fn problem(&mut self, problem: Problem);

    /// At the end: an extended attribute of this name was left out of so many files, because the destination does not
    /// take it or the source does not give it.
    fn left_out(&mut self, xattr: &[u8], files: u64);
}

/// Keeps the problems; an attribute that was left out is one.
impl Observer for Vec<String> {
    fn problem(&mut self, problem: Problem) {
        self.push(std::format!("{problem}"));
    }

    fn left_out(&mut self, xattr: &[u8], files: u64) {
        self.push(std::format!("{}: left out of {files} files", quote(xattr)));
    }
}

/// Counts of attributes that were left out, by name.
#[derive(Debug, Default)]
pub(super) struct LeftOut(std::collections::BTreeMap<Vec<u8>, u64>);

impl LeftOut {
    pub(super) fn add(&mut self, names: impl IntoIterator<Item = Vec<u8>>) {
        for name in names {
            *self.0.entry(name).or_default() += 1;
        }
    }

    pub(super) fn tell(&self, observer: &mut dyn Observer) {
        for (name, &files) in &self.0 {
            observer.left_out(name, files);
        }
    }
}
