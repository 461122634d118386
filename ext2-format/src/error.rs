//! Errors, sorted by whose fault they are: the caller's, the image's, our limits', the device's.

use alloc::string::String;
use core::fmt;

use crate::{Errno, GroupNr, InodeNr};

/// `Result` of the file system.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong, and whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The caller asked for what cannot be; the number is the one that Linux's ext2 gives.
    Caller(Errno, &'static str),
    /// The image contradicts itself.
    Corrupt(Corrupt),
    /// The image is sound, but uses what this library does not support.
    Incompatible(Incompatible),
    /// The device failed.
    Device(blockdev::Error),
}

impl Error {
    /// The error number that a POSIX program would see. A number that the system or the caller's own code gave is kept.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Caller(errno, _) => *errno,
            Self::Corrupt(_) => Errno::UCLEAN,
            Self::Incompatible(_) => Errno::INVAL,
            Self::Device(blockdev::Error::NoSpace { .. }) => Errno::NOSPC,
            Self::Device(blockdev::Error::ReadOnly) => Errno::ROFS,
            Self::Device(blockdev::Error::Unsupported(_)) => Errno::OPNOTSUPP,
            Self::Device(blockdev::Error::InUse { .. }) => Errno::BUSY,
            Self::Device(blockdev::Error::Io { errno: Some(number), .. }) => {
                Errno::new(*number).unwrap_or(Errno::IO)
            }
            Self::Device(_) => Errno::IO,
        }
    }

    /// Whether [`errno`](Self::errno) is this number, whoever's fault it is.
    #[must_use]
    pub fn is(&self, errno: Errno) -> bool {
        self.errno() == errno
    }

    /// Whether the file system itself refused with this number: not a device whose own error has the same one.
    #[must_use]
    pub fn refuses(&self, errno: Errno) -> bool {
        matches!(self, Self::Caller(own, _) if *own == errno)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(errno, "") => write!(f, "{errno}"),
            Self::Caller(errno, what) => write!(f, "{what}: {errno}"),
            Self::Corrupt(corrupt) => write!(f, "the image is broken: {corrupt}"),
            Self::Incompatible(what) => write!(f, "{what}"),
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

impl From<Corrupt> for Error {
    fn from(corrupt: Corrupt) -> Self {
        Self::Corrupt(corrupt)
    }
}

impl From<Incompatible> for Error {
    fn from(what: Incompatible) -> Self {
        Self::Incompatible(what)
    }
}

/// The system's error with the number of [`Error::errno`]; the text that names the object is lost.
#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        error.errno().into()
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Caller(errno, "")
    }
}

/// Shorthand for [`Error::Caller`] in a `Result`.
///
/// # Errors
/// Always this one.
pub fn refuse<T>(errno: Errno, what: &'static str) -> Result<T> {
    Err(Error::Caller(errno, what))
}

/// A contradiction in an image: which object, and what is wrong with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Corrupt {
    object: Object,
    what: String,
}

/// The object of an image that a [`Corrupt`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Object {
    /// The superblock.
    Superblock,
    /// The descriptor of a group.
    Group(GroupNr),
    /// An inode.
    Inode(InodeNr),
    /// A directory, by its inode.
    Directory(InodeNr),
    /// A block of the device, by number.
    Block(u64),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock => f.write_str("superblock"),
            Self::Group(nr) => write!(f, "group {nr}"),
            Self::Inode(nr) => write!(f, "inode {nr}"),
            Self::Directory(nr) => write!(f, "directory inode {nr}"),
            Self::Block(nr) => write!(f, "block {nr}"),
        }
    }
}

impl Corrupt {
    /// `what` is wrong with `object`: lower case, no full stop, numbers included.
    pub fn new(object: Object, what: impl Into<String>) -> Self {
        Self { object, what: what.into() }
    }

    /// What is broken.
    #[must_use]
    pub fn object(&self) -> Object {
        self.object
    }
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}

impl fmt::Debug for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Corrupt({self})")
    }
}

/// A property of an image that this library does not support.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incompatible {
    /// A feature without which the image cannot be read.
    Feature(String),
    /// A feature without which the image cannot be written; it may be opened read-only.
    ReadOnlyFeature(String),
    /// The journal holds changes that were not carried out.
    JournalNeedsRecovery,
    /// A revision of the format later than 1.
    Revision(u32),
}

impl fmt::Display for Incompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Feature(name) => write!(f, "the image uses a feature that is not supported: {name}"),
            Self::ReadOnlyFeature(name) => {
                write!(f, "the image can only be opened read-only: it uses {name}")
            }
            Self::JournalNeedsRecovery => f.write_str(
                "the journal needs recovery: run e2fsck, or ignore the journal and open read-only",
            ),
            Self::Revision(nr) => write!(f, "revision {nr} of the format is not supported"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_of_the_number_that_it_has() {
        let io = |errno| blockdev::Error::Io { op: "write", offset: 4096, errno, message: "no".into() };
        let cases: [(Error, Errno); 8] = [
            (Errno::BADF.into(), Errno::BADF),
            (Error::Caller(Errno::NOSPC, "no free block"), Errno::NOSPC),
            (Corrupt::new(Object::Superblock, "odd").into(), Errno::UCLEAN),
            (blockdev::Error::NoSpace { offset: 0 }.into(), Errno::NOSPC),
            (blockdev::Error::ReadOnly.into(), Errno::ROFS),
            (io(Some(27)).into(), Errno::FBIG),
            (io(None).into(), Errno::IO),
            (io(Some(-5)).into(), Errno::IO),
        ];
        for (error, errno) in cases {
            assert!(error.is(errno) && error.errno() == errno, "{error}");
            assert_eq!(error.refuses(errno), matches!(error, Error::Caller(..)), "{error}");
            #[cfg(all(feature = "std", target_os = "linux"))]
            assert_eq!(std::io::Error::from(error).raw_os_error(), Some(errno.get()));
        }
    }
}
