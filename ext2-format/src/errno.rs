//! Error numbers, as Linux gives them to a program.

use core::fmt;
use core::num::NonZeroI32;

/// A Linux error number (`errno`), positive. Every number can be one, named here or not, so that one which came from
/// elsewhere (the system, a device, a file system of the embedder's) keeps its value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(NonZeroI32);

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = concat!("`E", stringify!($name), "`: ", $text, ".")]
            pub const $name: Self = Self(NonZeroI32::new($number).expect("not zero"));)*

            /// The symbolic name, such as `ENOENT`; `E?` for a number that is not among the constants.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self.0.get() {
                    $($number => concat!("E", stringify!($name)),)*
                    _ => "E?",
                }
            }

            fn text(self) -> &'static str {
                match self.0.get() {
                    $($number => $text,)*
                    _ => "",
                }
            }
        }
    };
}

errnos! {
    PERM = 1, "operation not permitted";
    NOENT = 2, "no such file or directory";
    INTR = 4, "interrupted";
    IO = 5, "input/output error";
    NXIO = 6, "no such device or address";
    TOOBIG = 7, "argument list too long";
    BADF = 9, "bad file descriptor";
    AGAIN = 11, "try again";
    NOMEM = 12, "out of memory";
    ACCES = 13, "permission denied";
    FAULT = 14, "bad address";
    BUSY = 16, "device or resource busy";
    EXIST = 17, "file exists";
    XDEV = 18, "cross-device link";
    NODEV = 19, "no such device";
    NOTDIR = 20, "not a directory";
    ISDIR = 21, "is a directory";
    INVAL = 22, "invalid argument";
    NFILE = 23, "too many open files in the system";
    MFILE = 24, "too many open files";
    NOTTY = 25, "no such control of the device";
    TXTBSY = 26, "text file busy";
    FBIG = 27, "file too large";
    NOSPC = 28, "no space left on device";
    SPIPE = 29, "illegal seek";
    ROFS = 30, "read-only file system";
    MLINK = 31, "too many links";
    PIPE = 32, "broken pipe";
    RANGE = 34, "result too large";
    DEADLK = 35, "the call would wait for itself";
    NAMETOOLONG = 36, "file name too long";
    NOSYS = 38, "function not implemented";
    NOTEMPTY = 39, "directory not empty";
    LOOP = 40, "too many levels of symbolic links";
    NODATA = 61, "no data available";
    OVERFLOW = 75, "value too large";
    ILSEQ = 84, "invalid or incomplete multibyte or wide character";
    OPNOTSUPP = 95, "operation not supported";
    TIMEDOUT = 110, "timed out";
    STALE = 116, "stale file handle";
    UCLEAN = 117, "structure needs cleaning";
    REMOTEIO = 121, "remote input/output error";
    DQUOT = 122, "disk quota exceeded";
    CANCELED = 125, "operation cancelled";
    HWPOISON = 133, "memory page has a hardware error";
}

impl Errno {
    /// The number, as in `errno.h` of Linux.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0.get()
    }

    /// The error of a number, as in `errno.h` of Linux; `None` for what is no error (0 and less).
    #[must_use]
    pub const fn new(number: i32) -> Option<Self> {
        match NonZeroI32::new(number) {
            Some(number) if number.get() > 0 => Some(Self(number)),
            _ => None,
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "E?" => write!(f, "E{}", self.get()),
            name => f.write_str(name),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            "" => write!(f, "error {}", self.get()),
            text => f.write_str(text),
        }
    }
}

/// The system's error of that number: [`raw_os_error`](std::io::Error::raw_os_error) gives it back. Where the system is
/// not Linux its numbers mean something else, and the error is of a kind only.
#[cfg(feature = "std")]
impl From<Errno> for std::io::Error {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.get())
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn from(errno: Errno) -> Self {
        use std::io::ErrorKind;
        let kind = match errno {
            Errno::NOENT => ErrorKind::NotFound,
            Errno::PERM | Errno::ACCES => ErrorKind::PermissionDenied,
            Errno::EXIST => ErrorKind::AlreadyExists,
            Errno::INTR => ErrorKind::Interrupted,
            Errno::INVAL => ErrorKind::InvalidInput,
            Errno::NOMEM => ErrorKind::OutOfMemory,
            Errno::NOTDIR => ErrorKind::NotADirectory,
            Errno::ISDIR => ErrorKind::IsADirectory,
            Errno::NOTEMPTY => ErrorKind::DirectoryNotEmpty,
            Errno::ROFS => ErrorKind::ReadOnlyFilesystem,
            Errno::NOSPC => ErrorKind::StorageFull,
            Errno::BUSY => ErrorKind::ResourceBusy,
            Errno::AGAIN => ErrorKind::WouldBlock,
            Errno::OPNOTSUPP => ErrorKind::Unsupported,
            _ => ErrorKind::Other,
        };
        Self::new(kind, std::string::ToString::to_string(&errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_positive_number_is_kept_and_no_other_is_an_error() {
        for number in [1, 28, 77, 133, 4095, i32::MAX] {
            let errno = Errno::new(number).unwrap();
            assert_eq!(errno.get(), number);
            #[cfg(all(feature = "std", target_os = "linux"))]
            assert_eq!(std::io::Error::from(errno).raw_os_error(), Some(number));
        }
        assert!([0, -1, -28, i32::MIN].into_iter().all(|number| Errno::new(number).is_none()));
    }

    #[test]
    fn a_number_without_a_name_is_shown() {
        let odd = Errno::new(77).unwrap();
        assert_eq!((std::format!("{odd:?}"), std::format!("{odd}")), ("E77".into(), "error 77".into()));
        assert_eq!((std::format!("{:?}", Errno::BADF), Errno::BADF.get()), ("EBADF".into(), 9));
    }
}
