//! Why something cannot be sealed, or a seal not be read.

use alloc::string::String;
use core::fmt;

/// `Result` of sealing.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why something cannot be sealed, or a seal not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The parameters are none that dm-verity has.
    Params(String),
    /// A device has no room for what is to lie there. Bytes.
    TooSmall {
        /// Which: `data` or `hash tree`.
        what: &'static str,
        /// Bytes that it has to have.
        needed: u64,
        /// Bytes that it has.
        given: u64,
    },
    /// There is no seal, or none that can be read.
    NoSeal(String),
    /// The device's.
    Device(blockdev::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Params(what) => f.write_str(what),
            Self::TooSmall { what, needed, given } => {
                write!(f, "the device of the {what} has {given} bytes: {needed} are needed")
            }
            Self::NoSeal(what) => write!(f, "no seal: {what}"),
            Self::Device(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Device(error) => Some(error),
            _ => None,
        }
    }
}

impl From<blockdev::Error> for Error {
    fn from(error: blockdev::Error) -> Self {
        Self::Device(error)
    }
}
