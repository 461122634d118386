//! What a device can answer instead of doing what was asked.

use alloc::string::String;
use core::fmt;

/// `Result` of a device.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// An operation that a device did not carry out, with the place on the device in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The range `offset..offset + len` does not lie within the device's `size` bytes.
    OutOfRange {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// Bytes that the device has.
        size: u64,
    },
    /// A write, zero or recovery write to a device that is open read-only.
    ReadOnly,
    /// The memory at `offset` has lost its contents (a bad block of pmem); writing it anew heals it.
    Poisoned {
        /// First byte of the poisoned page.
        offset: u64,
    },
    /// The device's backing store is full: a hole of the image file could not be filled.
    NoSpace {
        /// First byte of the range that could not be backed.
        offset: u64,
    },
    /// Somebody else writes to it: this program through another object, or the kernel.
    InUse {
        /// Who, as the end of "in use: ".
        by: String,
    },
    /// The device cannot do this at all (DAX on a plain file, for example).
    Unsupported(&'static str),
    /// The partition table is damaged, or does not have what was asked for.
    BadTable(&'static str),
    /// The operating system refused.
    Io {
        /// What was tried: `read`, `write`, `flush`, `open`, …
        op: &'static str,
        /// Where, in bytes.
        offset: u64,
        /// The system's error number, where there was one.
        errno: Option<i32>,
        /// What the system said.
        message: String,
    },
}

impl Error {
    /// The system's error of an operation (`read`, `write`, …) at a byte of the device. Its "no space" becomes `NoSpace`.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn io(op: &'static str, offset: u64, error: std::io::Error) -> Self {
        crate::open::io_error(op, offset, error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { offset, len, size } => {
                write!(f, "{len} bytes at {offset} lie outside the device of {size} bytes")
            }
            Self::ReadOnly => f.write_str("the device is read-only"),
            Self::Poisoned { offset } => write!(f, "the memory at byte {offset} is poisoned"),
            Self::NoSpace { offset } => {
                write!(f, "no space left in the device's backing store for byte {offset}")
            }
            Self::InUse { by } => write!(f, "in use: {by}"),
            Self::Unsupported(what) => write!(f, "the device does not support {what}"),
            Self::BadTable(what) => write!(f, "partition table: {what}"),
            Self::Io { op, offset, message, .. } => write!(f, "{op} at byte {offset}: {message}"),
        }
    }
}

impl core::error::Error for Error {}
