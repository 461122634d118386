//! Connections that their clients have left, and what they had asked for.
//!
//! A client that waits too long for an answer leaves, connects again, and asks once more for what it has no answer to. What it
//! writes after that must not be undone by the request of before, which may still wait: in a socket, or for the device. So who
//! comes lets nothing more be changed by those who have left, and waits for the change that is under way.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use blockdev::{BlockDevice, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::stream::Stream;

/// One connection's.
#[derive(Debug)]
pub(super) struct Fate {
    /// Which device, by its address.
    device: usize,
    socket: OwnedFd,
    /// Whether nothing more is changed. Held shared by each change.
    is_over: RwLock<bool>,
}

impl Fate {
    /// Whether the client sends no more.
    fn has_left(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let asked = rustix::io::retry_on_intr(|| poll(&mut socket, Some(&now)));
        asked.is_ok_and(|found| found > 0)
    }

    fn end(&self) {
        *self.is_over.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Changes the device, unless that is not to be any more.
    pub(super) fn change(&self, offset: u64, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let is_over = self.is_over.read().unwrap_or_else(PoisonError::into_inner);
        if *is_over {
            let message = "the client has left, and come back".into();
            return Err(Error::Io { op: "write", offset, errno: None, message });
        }
        change()
    }
}

/// Those of all connections that are served.
#[derive(Debug, Default)]
pub(super) struct Fates(Mutex<Vec<Arc<Fate>>>);

/// One of them, until it is dropped.
pub(super) struct Served<'f> {
    all: &'f Fates,
    pub(super) fate: Arc<Fate>,
}

impl Fates {
    fn all(&self) -> MutexGuard<'_, Vec<Arc<Fate>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection, when nothing of those that were left before can change its device any more.
    pub(super) fn begin(&self, stream: &Stream, device: &dyn BlockDevice) -> io::Result<Served<'_>> {
        let device = core::ptr::from_ref(device).cast::<()>().addr();
        let socket = stream.as_fd().try_clone_to_owned()?;
        let fate = Arc::new(Fate { device, socket, is_over: RwLock::new(false) });
        let before = {
            let mut all = self.all();
            let before = all.clone();
            all.push(Arc::clone(&fate));
            before
        };
        let served = Served { all: self, fate };
        before.iter().filter(|fate| fate.device == device && fate.has_left()).for_each(|fate| fate.end());
        Ok(served)
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.all.all().retain(|fate| !Arc::ptr_eq(fate, &self.fate));
    }
}
