//! What this crate answers instead of doing what was asked, and whose fault it is.

use std::fmt;

pub use ext2_core::Errno;

use crate::map_kind::MapKind;
use ext2_core::sync::Mended;

/// `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The caller's buffer could not be read or written at its first byte (`EFAULT`).
    BadAddress,
    /// The caller asked to stop before the first byte moved (`EINTR`).
    Interrupted,
    /// The file system answered `iomap_begin` with something that breaks its contract (`EIO`).
    BadMapping(BadMapping),
    /// The request cannot be done; the number is Linux's.
    Refused {
        /// The error number, for example [`Errno::INVAL`].
        errno: Errno,
        /// Why, as a sentence fragment.
        why: &'static str,
    },
    /// The device failed, or its memory is poisoned.
    Device(blockdev::Error),
    /// The file system could not, or would not.
    FileSystem(ext2_core::Error),
}

/// How an answer of `iomap_begin` breaks the contract of [`IomapOps`](crate::iomap::IomapOps).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadMapping {
    /// It covers no byte. Linux would loop for ever.
    Empty,
    /// It begins after the position that was asked.
    StartsAfter {
        /// Byte of the file that was asked.
        pos: u64,
        /// First byte of the answer.
        offset: u64,
    },
    /// It ends at or before the position that was asked, or its end is no 64-bit number.
    EndsBefore {
        /// Byte of the file that was asked.
        pos: u64,
    },
    /// It is marked stale although it was only just made.
    Stale,
    /// The loop body claims to have done more bytes than the mapping had.
    TooMuchDone {
        /// Bytes claimed.
        processed: u64,
        /// Bytes there were.
        length: u64,
    },
    /// A write met something other than mapped blocks: point 4 of the mail.
    NotMapped(MapKind),
    /// The mapping is shorter than the page that a fault needs.
    ShorterThanPage {
        /// Bytes of the answer.
        length: u64,
    },
    /// It has blocks but no device address, or one that does not fit the file's offset within a page.
    BadAddress {
        /// Byte on the device, where there is one.
        addr: Option<u64>,
    },
}

impl Error {
    /// The Linux error number of this error.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::BadAddress => Errno::FAULT,
            Self::Interrupted => Errno::INTR,
            Self::BadMapping(_) => Errno::IO,
            Self::Refused { errno, .. } => *errno,
            Self::Device(error) => ext2_core::Error::Device(error.clone()).errno(),
            Self::FileSystem(_) if Mended::NumberLost.is_back() => Errno::INVAL,
            Self::FileSystem(error) => error.errno(),
        }
    }

    /// Whether it has this number, whoever's fault it is.
    #[must_use]
    pub fn is(&self, errno: Errno) -> bool {
        self.errno() == errno
    }

    /// An error with this number and reason.
    #[must_use]
    pub const fn refused(errno: Errno, why: &'static str) -> Self {
        Self::Refused { errno, why }
    }
}

impl From<blockdev::Error> for Error {
    fn from(error: blockdev::Error) -> Self {
        Self::Device(error)
    }
}

impl From<ext2_core::Error> for Error {
    fn from(error: ext2_core::Error) -> Self {
        match error {
            ext2_core::Error::Device(error) => Self::Device(error),
            error => Self::FileSystem(error),
        }
    }
}

/// The way back through a call of the file system that called us: number and reason stay.
impl From<Error> for ext2_core::Error {
    fn from(error: Error) -> Self {
        let errno = error.errno();
        match error {
            Error::Device(error) => Self::Device(error),
            Error::FileSystem(error) => error,
            Error::BadAddress => Self::Caller(errno, "the caller's buffer cannot be reached"),
            Error::Interrupted => Self::Caller(errno, ""),
            Error::BadMapping(_) => Self::Caller(errno, "the file system's mapping is unusable"),
            Error::Refused { why, .. } => Self::Caller(errno, why),
        }
    }
}

/// With the number, as [`ext2_core::Error`] does it.
#[cfg(not(target_family = "wasm"))]
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        ext2_core::Error::from(error).into()
    }
}

impl From<BadMapping> for Error {
    fn from(error: BadMapping) -> Self {
        Self::BadMapping(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadAddress => f.write_str("the caller's buffer cannot be reached"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::BadMapping(bad) => write!(f, "the file system's mapping is unusable: {bad}"),
            Self::Refused { why, .. } => f.write_str(why),
            Self::Device(error) => error.fmt(f),
            Self::FileSystem(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for BadMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::StartsAfter { pos, offset } => write!(f, "it starts at {offset}, after byte {pos}"),
            Self::EndsBefore { pos } => write!(f, "it ends before byte {pos}"),
            Self::Stale => f.write_str("it was stale when it was made"),
            Self::TooMuchDone { processed, length } => {
                write!(f, "{processed} bytes were done of {length}")
            }
            Self::NotMapped(kind) => write!(f, "a write met {kind:?}"),
            Self::ShorterThanPage { length } => write!(f, "{length} bytes are less than a page"),
            Self::BadAddress { addr: Some(addr) } => write!(f, "device byte {addr} does not fit its offset"),
            Self::BadAddress { addr: None } => f.write_str("it has no device address"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Device(error) => Some(error),
            Self::FileSystem(error) => Some(error),
            _ => None,
        }
    }
}
