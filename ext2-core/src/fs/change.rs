//! Changes that are under way: counted, so that an image is not called clean beside one, and what becomes of the file
//! system when one fails.
//!
//! # Invariants
//! 1. Whatever stores to the device holds a [`Change`], from before its first store until after its last.
//! 2. Once a commit of a log has failed no change begins: nothing that is stored would reach the media but contents, which would
//!    be there beside rights that were taken, and names that are gone.
//! 3. Once [`Running::close`] was called no change begins. If it answers [`Others::Ended`], none stores any more.

use alloc::sync::Arc;
use core::borrow::Borrow;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Fs;
use crate::Errno;
use crate::error::{Error, Result, refuse};

/// The changes that are under way.
#[derive(Debug)]
pub(super) struct Running {
    count: AtomicUsize,
    closing: AtomicBool,
    unsettled: AtomicBool,
}

/// What other threads do while one closes the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// All changes have ended.
    Ended,
    /// Some have not.
    Running,
}

impl Running {
    pub(super) const fn new() -> Self {
        Self {
            count: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
        }
    }

    /// Lets no change begin from now on, and says whether some are under way.
    pub(super) fn close(&self) -> Others {
        self.closing.store(true, Ordering::SeqCst);
        if self.count.load(Ordering::SeqCst) == 0 { Others::Ended } else { Others::Running }
    }

    /// Lets changes begin again: closing failed.
    pub(super) fn reopen(&self) {
        self.closing.store(false, Ordering::SeqCst);
    }

    /// Whether an inode was let go that should have been freed or written, and was not.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled.load(Ordering::SeqCst)
    }
}

/// A change that is under way, until it is dropped.
pub(crate) struct Change<F: Borrow<Fs>>(F);

impl<F: Borrow<Fs>> Change<F> {
    /// Counts a change.
    ///
    /// # Errors
    /// `EROFS` when the file system cannot be written, or is being closed; `EIO` where its log has failed.
    pub(crate) fn begin(fs: F) -> Result<Self> {
        let Some(writer) = &fs.borrow().writer else {
            return refuse(Errno::ROFS, "the file system is read-only");
        };
        // Counted first: who closes sees this change, or this sees that it is closed.
        writer.running.count.fetch_add(1, Ordering::SeqCst);
        let change = Self(fs);
        change.0.borrow().writer()?;
        if change.0.borrow().is_closing() {
            return refuse(Errno::ROFS, "the file system is being closed");
        }
        change.0.borrow().refuse_behind_failed_log()?;
        Ok(change)
    }
}

impl<F: Borrow<Fs>> Drop for Change<F> {
    fn drop(&mut self) {
        if let Some(writer) = &self.0.borrow().writer {
            writer.running.count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl<F: Borrow<Fs>> fmt::Debug for Change<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change")
    }
}

/// A change that outlives the call that began it.
pub(crate) type OwnedChange = Change<Arc<Fs>>;

impl Fs {
    pub(super) fn is_closing(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.running.closing.load(Ordering::SeqCst))
    }

    /// Notes that an inode goes without being freed or written, since the file system is being closed.
    pub(crate) fn leave_unsettled(&self) {
        if let Some(writer) = &self.writer {
            writer.running.unsettled.store(true, Ordering::SeqCst);
        }
    }

    /// Runs a change of names from its first store to its last. When the device fails on the way, that was
    /// the last change. Linux: a journal that is aborted.
    pub(crate) fn whole<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = change();
        if let Err(error @ Error::Device(_)) = &done {
            self.freeze(error);
        }
        done
    }

    /// Runs a change that leaves blocks which nobody has when the device fails on the way, or that lie past the end of a
    /// file, or a flush, after which nobody knows what is durable: the image is marked for a check then, and writing goes on
    /// where errors are not to end it (Linux: `ext2_fsync`).
    pub(crate) fn may_lose<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = change();
        if let Err(error @ Error::Device(_)) = &done {
            self.found_broken(error);
        }
        done
    }

    /// Refuses a change that no commit would bring to the media. Whatever has failed, and whoever was told: the image is marked
    /// for a check, and writing ends where errors are to end it.
    fn refuse_behind_failed_log(&self) -> Result<()> {
        let Some(log) = self.log.as_ref().filter(|log| log.is_on()) else { return Ok(()) };
        self.may_lose(|| Ok(log.refuse_failed()?))
    }

    /// Runs a change; when it finds the image broken, that is noted.
    pub(crate) fn change<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        // Before it holds what others wait for.
        self.make_room()?;
        self.change_further(change)
    }

    /// Waits for room in a log for a change that begins.
    pub(crate) fn make_room(&self) -> Result<()> {
        self.log.as_ref().map_or(Ok(()), |log| Ok(log.make_room()?))
    }

    /// A part of a change that is under way, which waits for no room: it may hold what others wait for.
    pub(crate) fn change_further<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let _change = Change::begin(self)?;
        let done = change();
        if let Err(error @ Error::Corrupt(_)) = &done {
            self.found_broken(error);
        }
        done
    }
}
