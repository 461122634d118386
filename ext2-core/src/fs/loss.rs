//! Stores that may be lost. A fence or a flush that fails may have lost anything that was stored since the one before, and
//! the device says so but once, to whoever happened to ask (Linux: a page that could not be written is clean afterwards).
//!
//! # Invariants
//! 1. Every fence and flush of a change goes through [`Fs::fence`] or [`Fs::flush`], but those of a log, which ends all
//!    writing when it fails, and those that end the writing anyway.
//! 2. Once one has failed the image is marked for a check, and is not called clean.
//! 3. Whoever makes something durable afterwards that may have been stored before is told, once for each file and once for
//!    the whole (Linux: `errseq_t`). A file that nobody held when something was lost, and whose stores were durable by then, is
//!    none of those.
//!
//! # Locking
//! A loss is noted under any lock, and takes none. Files that were let go have a lock of their own, behind all others.

use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::Fs;
use crate::InodeNr;
use crate::error::{Error, Result};
use crate::order::Barrier;
use crate::sync::{Mended, Mutex, Rank};

/// `EIO`.
const EIO: i32 = 5;

/// Files that are remembered after they were let go; of more, those with the lowest numbers are forgotten.
const LET_GO_MOST: usize = 4096;

/// Fences and flushes that failed.
#[derive(Debug)]
pub(crate) struct Losses {
    count: AtomicU32,
    /// Of how many a sync of the whole has told.
    told: AtomicU32,
    /// Flushes that have begun.
    flushes: AtomicU32,
    /// Files that nobody holds any more, and whose stores no flush that began later has made durable.
    let_go: Mutex<BTreeMap<InodeNr, LetGo>>,
    /// Whether there are any.
    has_let_go: AtomicBool,
}

/// A file when it was let go.
#[derive(Debug)]
struct LetGo {
    /// Of how many losses it was told.
    told: u32,
    /// How many flushes had begun.
    flushes: u32,
}

impl Losses {
    pub(super) fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            told: AtomicU32::new(0),
            flushes: AtomicU32::new(0),
            let_go: Mutex::new(Rank::Leaf, BTreeMap::new()),
            has_let_go: AtomicBool::new(false),
        }
    }

    /// Of how many whoever syncs the whole was told.
    pub(super) fn told(&self) -> &AtomicU32 {
        &self.told
    }

    /// How many there were so far: for what begins now, and for who was told by a mark in the image.
    pub(crate) fn known(&self) -> AtomicU32 {
        AtomicU32::new(self.count.load(Ordering::SeqCst))
    }

    /// Of how many a file was told that somebody holds from now on.
    pub(crate) fn told_of(&self, nr: InodeNr) -> AtomicU32 {
        if !self.has_let_go.load(Ordering::SeqCst) {
            return self.known();
        }
        match self.let_go.lock().remove(&nr) {
            Some(one) => AtomicU32::new(one.told),
            None => self.known(),
        }
    }

    /// Notes that nobody holds a file any more, which has been stored to since it was made durable, or is to be told something.
    pub(super) fn let_go(&self, nr: InodeNr, told: u32, is_stored: bool) {
        if !is_stored && told == self.count.load(Ordering::SeqCst) {
            return;
        }
        let mut let_go = self.let_go.lock();
        let_go.insert(nr, LetGo { told, flushes: self.flushes.load(Ordering::SeqCst) });
        if let_go.len() > LET_GO_MOST {
            let_go.pop_first();
        }
        self.has_let_go.store(true, Ordering::SeqCst);
    }

    /// A flush has made durable what was let go before it began; what was lost before stays to be told, unless the whole is told.
    fn flushed(&self, begun: u32, now: u32, is_whole: bool) {
        if self.has_let_go.load(Ordering::SeqCst) {
            let mut let_go = self.let_go.lock();
            let_go.retain(|_, one| one.flushes >= begun || one.told != now && !is_whole);
            self.has_let_go.store(!let_go.is_empty(), Ordering::SeqCst);
        }
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
        let losses = &self.losses;
        let begun = losses.flushes.fetch_add(1, Ordering::SeqCst) + 1;
        if let Err(error) = why.flush(&*self.dev).map_err(Error::from) {
            if !Mended::FlushUnnoted.is_back() {
                self.note_loss(&error);
            }
            told.store(losses.count.load(Ordering::SeqCst), Ordering::SeqCst);
            return Err(error);
        }
        // Also what somebody else's has lost since this one began.
        let now = losses.count.load(Ordering::SeqCst);
        losses.flushed(begun, now, core::ptr::eq(told, &losses.told));
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

    /// Notes that what was stored may be lost.
    pub(crate) fn note_loss(&self, error: &Error) {
        self.losses.count.fetch_add(1, Ordering::SeqCst);
        self.found_broken(error);
    }
}
