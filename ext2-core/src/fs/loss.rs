//! Stores that may be lost. A fence or a flush that fails may have lost anything that was stored since the one before, and
//! the device says so but once, to whoever happened to ask (Linux: a page that could not be written is clean afterwards).
//!
//! # Invariants
//! 1. Every fence and flush of a file system that is open for writing goes through [`Fs::fence`] or [`Fs::flush`], but
//!    those of a log, which ends all writing when it fails.
//! 2. Once one has failed the image is marked for a check, and is not called clean.
//! 3. Whoever makes something durable afterwards that may have been stored before is told, once for each file and once for
//!    the whole (Linux: `errseq_t`).
//!
//! # Locking
//! None: a fence is waited for under any lock.

use core::sync::atomic::{AtomicU32, Ordering};

use super::Fs;
use crate::error::{Error, Result};
use crate::order::Barrier;
use crate::sync::Mended;

/// `EIO`.
const EIO: i32 = 5;

/// Fences and flushes that failed.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    count: AtomicU32,
    /// Of how many a sync of the whole has told.
    told: AtomicU32,
}

impl Losses {
    /// Of how many whoever syncs the whole was told.
    pub(super) fn told(&self) -> &AtomicU32 {
        &self.told
    }

    /// How many there were so far: for who wants to hear of later ones only, or was told by a mark in the image.
    pub(crate) fn known(&self) -> AtomicU32 {
        AtomicU32::new(self.count.load(Ordering::SeqCst))
    }

    /// Of how many a file was told that nobody held until now: a sync of the whole told for it.
    pub(crate) fn told_of_unheld(&self) -> AtomicU32 {
        AtomicU32::new(self.told.load(Ordering::SeqCst))
    }

    /// Notes that a file is new: what was lost before is none of it.
    pub(crate) fn begin(&self, told: &AtomicU32) {
        told.store(self.count.load(Ordering::SeqCst), Ordering::SeqCst);
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
        let before = self.losses.count.load(Ordering::SeqCst);
        if let Err(error) = why.flush(&*self.dev).map_err(Error::from) {
            if !Mended::FlushUnnoted.is_back() {
                self.note_loss(&error);
            }
            told.store(self.losses.count.load(Ordering::SeqCst), Ordering::SeqCst);
            return Err(error);
        }
        if told.swap(before, Ordering::SeqCst) == before || Mended::LossUntold.is_back() {
            return Ok(());
        }
        Err(Error::Device(blockdev::Error::Io {
            op: "flush",
            offset: 0,
            errno: Some(EIO),
            message: "what was stored before an earlier fence or flush, which failed, may be lost".into(),
        }))
    }

    /// Notes that what was stored may be lost.
    pub(crate) fn note_loss(&self, error: &Error) {
        self.losses.count.fetch_add(1, Ordering::SeqCst);
        self.found_broken(error);
    }
}
