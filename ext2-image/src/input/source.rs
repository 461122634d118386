//! What a person names as a source.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::oci::Place;

/// A source by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A directory, an archive or a manifest; `-` is an archive on the standard input.
    Path(PathBuf),
    /// A container image.
    Container {
        /// As it was written.
        name: OsString,
        /// Where it is.
        place: Place,
    },
}

impl Source {
    /// Reads a name: `oci:PATH[:TAG]` is a container image, all else a path.
    #[must_use]
    pub fn parse(name: &OsStr) -> Self {
        match Place::parse(name) {
            Some(place) => Self::Container { name: name.into(), place },
            None => Self::Path(name.into()),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        match self {
            Self::Path(path) => path.as_os_str(),
            Self::Container { name, .. } => name,
        }
    }

    /// The file or directory that it is read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::Container { place, .. } => &place.path,
        }
    }
}
