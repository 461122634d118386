//! Stores that may be lost. A fence or a flush that fails may have lost anything that was stored since the one before, and
//! the device says so but once, to whoever happened to ask (Linux: a page that could not be written is clean afterwards).
//!
//! # Invariants
//! 1. Every fence and flush of a change goes through [`Fs::fence`] or [`Fs::flush`], but those of a log, which ends all
//!    writing when it fails, and those that end the writing anyway.
//! 2. Once one has failed the image is marked for a check, and is not called clean.
//! 3. Whoever makes something durable afterwards that may have been stored before is told, once for each file and once for
//!    the whole (Linux: `errseq_t`). Of a file that nobody held when something was lost nobody knows whether it had been stored
//!    to: it counts as one that had, once, unless a sync of the whole has told.
//!
//! # Locking
//! A loss is noted under any lock, and takes none. The files that were told have a lock of their own, behind all others.

use alloc::collections::BTreeSet;
use core::sync::atomic::{AtomicU32, Ordering};

use super::Fs;
use crate::InodeNr;
use crate::error::{Error, Result};
use crate::order::{Barrier, Fences};
use crate::sync::{Mended, Mutex, Rank};

/// `EIO`.
const EIO: i32 = 5;

/// Fences and flushes that failed.
#[derive(Debug)]
pub(crate) struct Losses {
    count: AtomicU32,
    /// Of how many a sync of the whole has told.
    told: AtomicU32,
    files: Mutex<Told>,
}

/// The files that need not be told of the losses that there were.
#[derive(Debug)]
struct Told {
    /// Of how many losses.
    count: u32,
    files: BTreeSet<InodeNr>,
}

impl Losses {
    pub(super) fn new() -> Self {
        let files = Told { count: 0, files: BTreeSet::new() };
        Self { count: AtomicU32::new(0), told: AtomicU32::new(0), files: Mutex::new(Rank::Leaf, files) }
    }

    /// Of how many whoever syncs the whole was told.
    pub(super) fn told(&self) -> &AtomicU32 {
        &self.told
    }

    /// How many there were so far.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }

    /// Of how many a file was told that is read from the device now.
    pub(crate) fn told_of(&self, nr: InodeNr) -> u32 {
        let count = self.count();
        let is_told = count == 0 || self.told.load(Ordering::SeqCst) == count || {
            let told = self.files.lock();
            told.count == count && told.files.contains(&nr)
        };
        if is_told { count } else { count.wrapping_sub(1) }
    }

    /// Notes that a file needs to be told of no more than later losses: it was told, or is new.
    pub(crate) fn note_told(&self, nr: InodeNr, count: u32) {
        if count == 0 {
            return;
        }
        let mut told = self.files.lock();
        if told.count != count {
            *told = Told { count, files: BTreeSet::new() };
        }
        told.files.insert(nr);
    }
}

impl Fences for Fs {
    fn fence(&self, why: Barrier) -> Result<()> {
        Self::fence(self, why)
    }
}

impl Fs {
    /// A fence.
    ///
    /// # Errors
    /// The device's: what was stored before may be lost.
    pub(crate) fn fence(&self, why: Barrier) -> Result<()> {
        why.fence(&*self.dev).map_err(Error::from).inspect_err(|error| {
            if !Mended::FenceUnnoted.is_back() {
                self.note_loss(error);
            }
        })
    }

    /// A flush, for somebody who was told of so many losses before.
    ///
    /// # Errors
    /// The device's; `EIO` where an earlier fence or flush failed, of which he was not told.
    pub(crate) fn flush(&self, why: Barrier, told: &AtomicU32) -> Result<()> {
        if let Err(error) = why.flush(&*self.dev).map_err(Error::from) {
            if !Mended::FlushUnnoted.is_back() {
                self.note_loss(&error);
            }
            told.store(self.losses.count(), Ordering::SeqCst);
            return Err(error);
        }
        // Also what somebody else's has lost since this one began.
        let now = self.losses.count();
        if told.swap(now, Ordering::SeqCst) == now || Mended::LossUntold.is_back() {
            return Ok(());
        }
        Err(Error::Device(blockdev::Error::Io {
            op: "flush",
            offset: 0,
            errno: Some(EIO),
            message: "what was stored before an earlier fence or flush, which failed, may be lost".into(),
        }))
    }

    /// As [`flush`](Self::flush), for who makes file `nr` durable.
    pub(crate) fn flush_file(&self, why: Barrier, nr: InodeNr, told: &AtomicU32) -> Result<()> {
        let done = self.flush(why, told);
        self.losses.note_told(nr, told.load(Ordering::SeqCst));
        done
    }

    /// Notes that what was stored may be lost.
    pub(crate) fn note_loss(&self, error: &Error) {
        self.losses.count.fetch_add(1, Ordering::SeqCst);
        self.found_broken(error);
    }
}
