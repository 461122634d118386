//! Stores that may be lost. A fence or a flush that fails may have lost anything that was stored since the one before, and
//! the device says so but once, to whoever happened to ask (Linux: a page that could not be written is clean afterwards).
//!
//! # Invariants
//! 1. Every fence and flush of a change goes through [`Fs::fence`] or [`Fs::flush`], but those of a log, which ends all
//!    writing when it fails, and those that end the writing anyway.
//! 2. Once one has failed the image is marked for a check, and is not called clean.
//! 3. Whoever makes something durable afterwards that may have been stored before is told, once for each file and once for
//!    the whole (Linux: `errseq_t`). Of a file that nobody held when something was lost nobody knows whether it had been stored
//!    to: it counts as one that had, once, unless a sync of the whole has told. Of two who hold one file whoever syncs it first
//!    is told (Linux tells each open file).
//! 4. Whoever says that something is durable has looked at the losses when no fence or flush is under way any more that began
//!    before his own had ended: such a one may have lost it, and not have said so yet.
//!
//! # Locking
//! A loss is noted under any lock, and takes none. The files that were told have a lock of their own, behind all others. Whoever
//! waits for fences and flushes of others may hold any lock: none of these waits for one. Flushes of a log do, and for changes to
//! end, too: nobody waits for those here, since its commits come one after the other.

use alloc::collections::BTreeSet;
use core::sync::atomic::{AtomicU32, Ordering};

use super::Fs;
use crate::InodeNr;
use crate::error::{Error, Result};
use crate::order::{Barrier, Fences};
use crate::sync::{Mended, Mutex, Rank, UnderWay};

/// `EIO`.
const EIO: i32 = 5;

/// Fences and flushes that failed.
#[derive(Debug)]
pub(crate) struct Losses {
    count: AtomicU32,
    /// Of how many a sync of the whole has told.
    told: AtomicU32,
    files: Mutex<Told>,
    /// Fences and flushes that may fail yet, or have failed and are not counted yet.
    under_way: UnderWay,
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
        Self {
            count: AtomicU32::new(0),
            told: AtomicU32::new(0),
            files: Mutex::new(Rank::Leaf, files),
            under_way: UnderWay::new(),
        }
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

    /// Notes that a file was told of so many. Of fewer than are known it says nothing: it is to be told of the others.
    fn note_told(&self, nr: InodeNr, count: u32) {
        if count == 0 {
            return;
        }
        let mut told = self.files.lock();
        if count > told.count {
            *told = Told { count, files: BTreeSet::new() };
        }
        if count == told.count {
            told.files.insert(nr);
        }
    }

    /// Notes that a file is new, and was begun when there were so many: those are nothing to it. Later ones are, also where a
    /// former file of its number was told of them.
    pub(crate) fn note_new(&self, nr: InodeNr, count: u32) {
        if self.count() == 0 {
            return;
        }
        self.note_told(nr, count);
        let mut told = self.files.lock();
        if count < told.count {
            told.files.remove(&nr);
        }
    }
}

impl Fences for Fs {
    fn fence(&self, why: Barrier, known: u32) -> Result<()> {
        self.fence_since(why, known)
    }
}

impl Fs {
    /// A fence, where it does not matter whether another's has lost what was stored before: nothing else was, or nothing goes on.
    ///
    /// # Errors
    /// The device's: what was stored before may be lost.
    pub(crate) fn fence(&self, why: Barrier) -> Result<()> {
        self.losing(!Mended::FenceUnnoted.is_back(), || Ok(why.fence(&*self.dev)?))
    }

    /// A fence behind what was stored since there were so many losses.
    ///
    /// # Errors
    /// The device's; `EIO` where another's fence or flush has failed meanwhile, which may have lost it.
    pub(crate) fn fence_since(&self, why: Barrier, known: u32) -> Result<()> {
        self.fence(why)?;
        if Mended::LossPassedBy.is_back() {
            return Ok(());
        }
        self.wait_for_losses();
        self.none_since(known)
    }

    /// Refuses to go on where there were more losses than so many.
    pub(crate) fn none_since(&self, known: u32) -> Result<()> {
        if self.losses.count() == known { Ok(()) } else { Err(lost()) }
    }

    /// A flush, for somebody who was told of so many losses before.
    ///
    /// # Errors
    /// The device's; `EIO` where an earlier fence or flush failed, of which he was not told.
    pub(crate) fn flush(&self, why: Barrier, told: &AtomicU32) -> Result<()> {
        let done = self.losing(!Mended::FlushUnnoted.is_back(), || Ok(why.flush(&*self.dev)?));
        if done.is_err() {
            told.store(self.losses.count(), Ordering::SeqCst);
            return done;
        }
        self.wait_for_losses();
        // Also what somebody else's has lost since this one began.
        let now = self.losses.count();
        let is_told = told.swap(now, Ordering::SeqCst) == now || Mended::LossUntold.is_back();
        if is_told { Ok(()) } else { Err(lost()) }
    }

    /// As [`flush`](Self::flush), for who makes file `nr` durable.
    pub(crate) fn flush_file(&self, why: Barrier, nr: InodeNr, told: &AtomicU32) -> Result<()> {
        let done = self.flush(why, told);
        self.losses.note_told(nr, told.load(Ordering::SeqCst));
        done
    }

    /// Runs what waits for the media: where it fails what was stored before may be lost, which is noted before anybody who waits
    /// for it goes on.
    pub(crate) fn losing(&self, is_noted: bool, call: impl FnOnce() -> Result<()>) -> Result<()> {
        // Nobody waits for what goes into a log: see `wait_for_losses`.
        let _begun = (!self.is_logged()).then(|| self.losses.under_way.begin());
        call().inspect_err(|error| {
            if is_noted {
                self.note_loss(error);
            }
        })
    }

    /// Waits until all fences and flushes that are under way have said what they lost. Those of a log come one after the other,
    /// and the first that fails is the last.
    fn wait_for_losses(&self) {
        if !self.is_logged() {
            self.losses.under_way.wait();
        }
    }

    /// Notes that what was stored may be lost.
    pub(crate) fn note_loss(&self, error: &Error) {
        self.losses.count.fetch_add(1, Ordering::SeqCst);
        self.found_broken(error);
    }
}

/// What who makes something durable is told that an earlier fence or flush may have lost.
fn lost() -> Error {
    Error::Device(blockdev::Error::Io {
        op: "flush",
        offset: 0,
        errno: Some(EIO),
        message: "what was stored before an earlier fence or flush, which failed, may be lost".into(),
    })
}
