//! Ending the use of a file system.

use super::Ext2;
use crate::error::Result;

/// How a file system was left by [`Ext2::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// All is written, and the image says that it was unmounted cleanly.
    Clean,
    /// It was open for reading only: nothing was written.
    ReadOnly,
    /// All is written, but the image does not say that it was unmounted cleanly.
    Unclean(Unclean),
}

/// Why an image is not called clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unclean {
    /// It was not clean when it was opened.
    Before,
    /// An error was found, now or by who wrote the image before, or a change ended half-way: a check is due.
    Errors,
    /// Files without a name are still held: their blocks are lost until a check, or until it is opened for writing again.
    FilesWithoutName,
    /// Changes of other threads were under way.
    ChangesUnderWay,
    /// Memory of files was lent for storing and is not back.
    Leases,
}

impl core::fmt::Display for Unclean {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Before => "it was not clean before",
            Self::Errors => "errors were found",
            Self::FilesWithoutName => "files without a name are still open",
            Self::ChangesUnderWay => "changes are under way",
            Self::Leases => "memory of files is still lent for storing",
        })
    }
}

impl Ext2 {
    /// Whether changes are refused with `EROFS`.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.0.is_read_only()
    }

    /// Runs changes that a crash brings back all or none of, where there is a log. They should be few: nobody commits
    /// meanwhile, but where the log is full: by them, or while somebody who waits for room in it holds what they need.
    ///
    /// # Errors
    /// `EROFS`, those of `changes`, in which a sync or a close fails, of another file system with a log too; the device's.
    #[cfg(feature = "write")]
    pub fn together<T>(&self, changes: impl FnOnce() -> Result<T>) -> Result<T> {
        self.0.log.iter().for_each(|log| log.give_way());
        self.0.change(|| {
            let _whole = self.0.hold_log_patiently();
            changes()
        })
    }

    /// Makes everything durable: files, directories, bitmaps, counts. Linux: `sync_filesystem`.
    ///
    /// # Errors
    /// The device's.
    pub fn sync(&self) -> Result<()> {
        self.0.sync_all()
    }

    /// Closes the file system: writes everything and marks the image as cleanly unmounted, if it was when
    /// it was opened, no file without a name is held any more, no change is under way, and no memory is lent for
    /// storing; the answer says which. Inodes that are still held can be read, but not changed, and mappings of
    /// them can be loaded from, but not stored to. Changes of other threads should have ended: those that have
    /// begun go on, and the image is left as not clean. Where others sync or close it too, one waits for the other.
    ///
    /// # Errors
    /// The device's, and those of a sync; the file system is open as before then, but for a log that could not
    /// be ended: that was the last change.
    pub fn close(self) -> Result<Closed> {
        self.0.unmount()
    }
}
