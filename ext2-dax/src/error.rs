//! What this crate answers instead of doing what was asked, and whose fault it is.

use std::fmt;

use crate::iomap::MapKind;

/// `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Linux error numbers that this crate itself gives.
pub mod errno {
    /// Interrupted by a fatal signal.
    pub const EINTR: i32 = 4;
    /// Input/output error.
    pub const EIO: i32 = 5;
    /// No such device or address.
    pub const ENXIO: i32 = 6;
    /// The call would have to wait.
    pub const EAGAIN: i32 = 11;
    /// Out of memory.
    pub const ENOMEM: i32 = 12;
    /// Bad address.
    pub const EFAULT: i32 = 14;
    /// Blocks are leased.
    pub const EBUSY: i32 = 16;
    /// Invalid argument.
    pub const EINVAL: i32 = 22;
    /// File too large.
    pub const EFBIG: i32 = 27;
    /// No space left.
    pub const ENOSPC: i32 = 28;
    /// Read-only file system.
    pub const EROFS: i32 = 30;
    /// Not supported by this file, device or file system.
    pub const EOPNOTSUPP: i32 = 95;
    /// Permission denied.
    pub const EACCES: i32 = 13;
    /// No such device: the file cannot be mapped.
    pub const ENODEV: i32 = 19;
    /// It is a directory.
    pub const EISDIR: i32 = 21;
    /// A number that does not fit.
    pub const EOVERFLOW: i32 = 75;
    /// Bad file descriptor: the file was opened for something else.
    pub const EBADF: i32 = 9;
}

/// An operation that was not carried out.
#[derive(Debug)]
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
        /// The error number, for example [`errno::EINVAL`].
        errno: i32,
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
    /// The Linux error number of this error, always positive.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::BadAddress => errno::EFAULT,
            Self::Interrupted => errno::EINTR,
            Self::BadMapping(_) => errno::EIO,
            Self::Refused { errno, .. } => *errno,
            Self::Device(error) => device_errno(error),
            Self::FileSystem(error) => error.errno().get(),
        }
    }

    /// An error with this number and reason.
    #[must_use]
    pub const fn refused(errno: i32, why: &'static str) -> Self {
        Self::Refused { errno, why }
    }
}

/// The number that Linux would give for a device's error.
fn device_errno(error: &blockdev::Error) -> i32 {
    match error {
        blockdev::Error::ReadOnly => errno::EROFS,
        blockdev::Error::NoSpace { .. } => errno::ENOSPC,
        blockdev::Error::Unsupported(_) => errno::EOPNOTSUPP,
        blockdev::Error::Io { errno: Some(number), .. } if *number > 0 => *number,
        _ => errno::EIO,
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

/// The way back through a call of the file system that called us.
impl From<Error> for ext2_core::Error {
    fn from(error: Error) -> Self {
        use ext2_core::Errno;
        match error {
            Error::Device(error) => Self::Device(error),
            Error::FileSystem(error) => error,
            Error::BadAddress => Self::Caller(Errno::FAULT, "the caller's buffer cannot be reached"),
            Error::Interrupted => Self::Caller(Errno::INTR, ""),
            Error::BadMapping(_) => Self::Caller(Errno::IO, "the file system's mapping is unusable"),
            Error::Refused { errno: errno::EBUSY, why } => Self::Caller(Errno::BUSY, why),
            Error::Refused { errno: errno::EOPNOTSUPP, why } => Self::Caller(Errno::OPNOTSUPP, why),
            Error::Refused { why, .. } => Self::Caller(Errno::INVAL, why),
        }
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
