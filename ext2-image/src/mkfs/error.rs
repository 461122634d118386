//! Why a file system cannot be made.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::manifest::quote;

/// `Result` of making a file system.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why a file system cannot be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The parameters contradict each other or ask for what ext2 has not.
    Format(String),
    /// What is to go in does not fit. Bytes of the file system.
    TooSmall {
        /// The least that would do, with all other parameters as they are.
        needed: u64,
        /// What there is.
        given: u64,
    },
    /// More inodes are needed than were asked for.
    TooFewInodes {
        /// The least that would do.
        needed: u64,
        /// What was asked for.
        given: u64,
    },
    /// A file cannot be held by this file system.
    Entry {
        /// Its path.
        path: Vec<u8>,
        /// Why not.
        what: String,
    },
    /// A file could not be read where it comes from, or is no longer what it was.
    Source {
        /// Its path.
        path: Vec<u8>,
        /// Why not.
        what: String,
    },
    /// The device failed, or the result did not validate.
    Fs(ext2_core::Error),
}

impl Error {
    pub(crate) fn format<T>(what: impl Into<String>) -> Result<T> {
        Err(Self::Format(what.into()))
    }

    /// An error about a file that this file system cannot hold.
    pub fn entry(path: &[u8], what: impl Into<String>) -> Self {
        Self::Entry { path: path.into(), what: what.into() }
    }

    /// An error about a file that cannot be read.
    pub fn source(path: &[u8], what: impl fmt::Display) -> Self {
        Self::Source { path: path.into(), what: alloc::format!("{what}") }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(what) => f.write_str(what),
            Self::TooSmall { needed, given } => {
                write!(f, "it does not fit {given} bytes: {needed} are needed")
            }
            Self::TooFewInodes { needed, given } => {
                write!(f, "{given} inodes are too few: {needed} are needed")
            }
            Self::Entry { path, what } | Self::Source { path, what } => write!(f, "{}: {what}", quote(path)),
            Self::Fs(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Fs(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ext2_core::Error> for Error {
    fn from(error: ext2_core::Error) -> Self {
        Self::Fs(error)
    }
}

impl From<blockdev::Error> for Error {
    fn from(error: blockdev::Error) -> Self {
        Self::Fs(error.into())
    }
}
