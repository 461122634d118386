//! What operations give, and the errors among it.

use rustix::io::Errno;

/// What an operation gives.
pub(crate) type Reply<T> = Result<T, Errno>;

/// The number that a program is told. What the image has wrong is the log's matter, too.
pub(crate) fn errno(error: &ext2_core::Error) -> Errno {
    match error {
        ext2_core::Error::Caller(..) => {}
        other => log::error!("{other}"),
    }
    Errno::from_raw_os_error(error.errno().get())
}
