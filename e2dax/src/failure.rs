//! Errors as the command prints them: `e2dax: OBJECT: what happened`, and the exit code that goes with each.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;

use crate::text::show_os;

/// `Result` of a verb.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// The operation failed.
pub(crate) const FAILED: u8 = 1;
/// A comparison could not be made.
pub(crate) const TROUBLE: u8 = 2;
/// The command line makes no sense.
pub(crate) const USAGE: u8 = 2;
/// The image is broken, or uses what is not supported.
pub(crate) const BROKEN: u8 = 8;

/// Why a verb did not do what it was asked for, and of what object that is said.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The file, image or place in an image; empty where there is none to name.
    object: String,
    cause: Cause,
}

/// Why.
#[derive(Debug)]
pub(crate) enum Cause {
    /// The arguments contradict each other.
    Usage(String),
    /// A file of this machine.
    Host(io::Error),
    /// The file system in an image.
    FileSystem(ext2_core::Error),
    /// The DAX path.
    Dax(ext2_dax::Error),
    /// What has no error type of its own.
    Text(String),
    /// An image is broken, in words.
    Broken(String),
    /// Somebody has the image open: who, and what for.
    Locked(String),
    /// The user stopped it: what state things are in.
    Interrupted(String),
    /// The standard output cannot be written.
    Output(io::Error),
}

impl Failure {
    /// A failure of `object`.
    pub(crate) fn new(object: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self { object: object.into(), cause: cause.into() }
    }

    /// A failure of a file of this machine.
    pub(crate) fn host(path: &Path, error: impl Into<io::Error>) -> Self {
        let name = match show_os(path.as_os_str()) {
            // An empty argument is hard to see otherwise.
            name if name.is_empty() => "''".into(),
            name => name,
        };
        Self::new(name, Cause::Host(error.into()))
    }

    /// A failure to open the image at `path`, which is called `name`.
    pub(crate) fn opening(name: String, path: &Path, error: blockdev::Error) -> Self {
        match error {
            // These are about the file as a whole and name it themselves.
            blockdev::Error::Io { op: op @ ("open" | "lock" | "map"), message, .. } => {
                let own = format!("{}: ", path.display());
                let message = message.strip_prefix(own.as_str()).unwrap_or(&message);
                match message.strip_prefix("locked: ").filter(|_| op == "lock") {
                    Some(who) => Self::new(name, Cause::Locked(who.into())),
                    None => Self::text(name, format!("{op}: {message}")),
                }
            }
            other => Self::new(name, other),
        }
    }

    /// A failure of `object` in words.
    pub(crate) fn text(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(object, Cause::Text(what.into()))
    }

    /// A contradiction in an image. `what` is the whole message.
    pub(crate) fn broken(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(object, Cause::Broken(what.into()))
    }

    /// Work that the user stopped. `what` is the state that `object` is in, and how to go on.
    pub(crate) fn interrupted(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(object, Cause::Interrupted(what.into()))
    }

    /// An argument that makes no sense.
    pub(crate) fn usage(argument: &OsStr, what: impl Into<String>) -> Self {
        Self::new(show_os(argument), Cause::Usage(what.into()))
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match &self.cause {
            Cause::Usage(_) => USAGE,
            Cause::Interrupted(_) => crate::stop::INTERRUPTED,
            Cause::FileSystem(ext2_core::Error::Corrupt(_) | ext2_core::Error::Incompatible(_))
            | Cause::Broken(_) => BROKEN,
            _ => FAILED,
        }
    }

    /// Whether somebody has the image open.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(&self.cause, Cause::Locked(_))
    }

    /// Who has the image open, and for what, where that is why.
    pub(crate) fn holder(&self) -> Option<&str> {
        match &self.cause {
            Cause::Locked(who) => Some(who),
            _ => None,
        }
    }

    /// Whether it is about an inode that is deleted.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(&self.cause, Cause::FileSystem(error) if error.is(ext2_core::Errno::STALE))
    }

    /// Whether an image has no room for what was to be done.
    pub(crate) fn is_no_room(&self) -> bool {
        matches!(&self.cause, Cause::FileSystem(error) if error.is(ext2_core::Errno::NOSPC))
    }

    /// Whether nobody reads the output any more, which is no reason to complain.
    pub(crate) fn is_closed_output(&self) -> bool {
        matches!(&self.cause, Cause::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.object.is_empty() {
            write!(f, "{}: ", self.object)?;
        }
        match &self.cause {
            Cause::Locked(who) => write!(f, "is in use: {who}; --wait waits until it is free"),
            Cause::Usage(what) | Cause::Text(what) | Cause::Broken(what) | Cause::Interrupted(what) => {
                f.write_str(what)
            }
            Cause::Host(error) | Cause::Output(error) => {
                let text = error.to_string();
                // The number that the standard library adds tells a person nothing.
                f.write_str(text.split(" (os error").next().unwrap_or(&text))
            }
            Cause::FileSystem(error) => write!(f, "{error}"),
            Cause::Dax(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<ext2_core::Error> for Cause {
    fn from(error: ext2_core::Error) -> Self {
        Self::FileSystem(error)
    }
}

impl From<blockdev::Error> for Cause {
    fn from(error: blockdev::Error) -> Self {
        Self::FileSystem(error.into())
    }
}

impl From<ext2_dax::Error> for Cause {
    fn from(error: ext2_dax::Error) -> Self {
        match error {
            ext2_dax::Error::FileSystem(error) => Self::FileSystem(error),
            ext2_dax::Error::Device(error) => Self::FileSystem(error.into()),
            error => Self::Dax(error),
        }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

/// Names the object of an error.
pub(crate) trait Of<T> {
    /// `object` is what the error is about.
    fn of(self, object: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Cause>> Of<T> for std::result::Result<T, E> {
    fn of(self, object: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure { object: object(), cause: error.into() })
    }
}
