//! Rights that were taken away: whether they are gone from the media, too, and the set-id bits that a write takes.
//!
//! # Invariants
//! 1. Who finds no set-id bit that he would have to take has not come before it is gone: he waits for the media, whoever took
//!    it, by a write, a change of mode or owner, or an access list, and also where the inode was let go since.
//!    The same holds of an attribute that gives rights.
//! 2. Where mode, owners, access list or other attributes may be lost on the way to the media, by a fence behind them or another's,
//!    the next who takes or changes any stores and fences all of them again, though memory has them. That is so of each inode after
//!    each loss, whoever was told of it: what was lost may have been stored long before.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ext2_format::xattr::XattrName;

use super::owner::SET_ID;
use super::{Attrs, Cell, Inode};
use crate::Errno;
use crate::error::{Error, Result};
use crate::fs::change::Change;
use crate::order::Barrier;
use crate::sync::Mended;
use crate::xattr::XattrSet;

/// What is known of rights that were taken from an inode. Changed under its `attrs` lock, but for what is gone.
#[derive(Debug, Default)]
pub(crate) struct RightsTaken {
    /// A change of them has ended with an error: the media may have others than memory.
    is_lost: AtomicBool,
    /// How many losses were known when all of them were last stored anew, or the inode was born.
    known: AtomicU32,
    /// How often something went that a write takes: set-id bits, or an attribute that gives rights.
    taken: AtomicU32,
    /// How often of these they are known to be gone from the media.
    gone: AtomicU32,
}

impl RightsTaken {
    /// Notes it where a change of them has ended with an error that leaves open what the media have.
    pub(crate) fn note<T>(&self, done: Result<T>) -> Result<T> {
        done.inspect_err(|error| {
            if matches!(error, Error::Device(_)) {
                self.is_lost.store(true, Ordering::SeqCst);
            }
        })
    }

    /// Notes that all of them were stored since so many losses were known.
    pub(crate) fn are_whole(&self, known: u32) {
        self.known.store(known, Ordering::SeqCst);
    }

    /// Notes how it ended that mode and owners were stored, all that may be lost of them.
    pub(super) fn stored(&self, done: &Result<()>) {
        self.is_lost.store(done.is_err(), Ordering::SeqCst);
    }

    /// Notes that a mode was stored in the place of another.
    pub(super) fn changed(&self, old: u16, new: u16) {
        if of_write(old) & !of_write(new) != 0 && !Mended::OthersTakeSetId.is_back() {
            self.taken.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How often they were taken, where they may not be gone from the media yet.
    fn pending(&self) -> Option<u32> {
        let taken = self.taken.load(Ordering::SeqCst);
        (taken > self.gone.load(Ordering::SeqCst)).then_some(taken)
    }
}

/// The set-id bits that a write takes from a mode: without group execute set-group-ID says something else.
fn of_write(mode: u16) -> u16 {
    mode & if mode & 0o010 != 0 { 0o6000 } else { 0o4000 }
}

impl Cell {
    /// Whether the media may have other rights than memory: another mode, other owners, or other attributes.
    pub(crate) fn may_have_lost_rights(&self) -> bool {
        let (rights, count) = (&self.rights_taken, self.fs.losses.count());
        rights.is_lost.load(Ordering::SeqCst)
            || rights.known.load(Ordering::SeqCst) != count && !Mended::LossPassedBy.is_back()
    }

    /// Notes what may not be on the media of what was stored to the inode before it was read from the device.
    pub(super) fn note_former(&self) {
        let losses = &self.fs.losses;
        self.losses_told.store(losses.told_of(self.nr), Ordering::SeqCst);
        if self.fs.is_logged() && self.fs.rights_in_log.lock().remove(&self.nr) {
            self.rights_taken.taken.store(1, Ordering::SeqCst);
        }
    }

    /// Keeps what is to be known of rights that were taken when the inode is read again.
    pub(super) fn leave_rights(&self) {
        if self.fs.is_logged() && self.rights_taken.pending().is_some() {
            self.fs.rights_in_log.lock().insert(self.nr);
        }
    }
}

impl Inode {
    /// Takes the set-id bits away, as a write by anybody but root does (Linux: `file_remove_privs`). They are durably gone
    /// when this returns, and where a [log](crate::OpenOptions::log) keeps changes for a commit, one is made: no crash shows what
    /// is written after it with a set-id bit. (Within changes that belong together, or in a batch, it holds with those.)
    ///
    /// # Errors
    /// The device's.
    pub fn strip_setid(&self) -> Result<()> {
        self.strip(of_write)
    }

    /// The same of both, also of set-group-ID without group execute: a write by somebody outside of the group takes that, too.
    pub(crate) fn strip_all_setid(&self) -> Result<()> {
        self.strip(|mode| mode & SET_ID)
    }

    fn strip(&self, bits: fn(u16) -> u16) -> Result<()> {
        let taken = self.take_setid(bits)?;
        self.commit_rights(taken.filter(|_| !Mended::SetIdInLog.is_back()))
    }

    /// Commits what was taken so often: the bytes that come next wait for no commit. Not within changes that belong together, which
    /// commit it later. Without a lock: what it waits for may want that.
    fn commit_rights(&self, taken: Option<u32>) -> Result<()> {
        let Some(taken) = taken else { return Ok(()) };
        if let Some(log) = self.0.fs.log.as_ref().filter(|log| log.is_on()) {
            if self.0.fs.refuse_within().is_err() {
                return Ok(());
            }
            log.commit()?;
        }
        self.0.rights_taken.gone.fetch_max(taken, Ordering::SeqCst);
        Ok(())
    }

    /// Removes an attribute that gives rights, before anything that is stored afterwards: also of an append-only file, whose end
    /// is written to.
    pub(crate) fn take_right(&self, name: &[u8]) -> Result<()> {
        let parsed = XattrName::parse(name)?;
        let rights = &self.0.rights_taken;
        let done = self.0.fs.change(|| {
            let _io = self.0.io.write();
            self.0.check_mutable()?;
            self.0.store_lost_rights()?;
            let known = self.0.fs.losses.count();
            let removed = self.0.set_xattr(parsed, None, XattrSet::Any);
            if removed.is_ok() {
                rights.taken.fetch_add(1, Ordering::SeqCst);
            }
            rights.note(removed.and_then(|()| self.0.fs.fence_since(Barrier::RightsTaken, known)))
        });
        if done.as_ref().is_err_and(|error| !error.refuses(Errno::NODATA)) {
            return done;
        }
        // Also where another has removed it, or somebody within changes that belong together.
        self.commit_rights(rights.pending())?;
        done
    }

    /// Takes these bits of the mode away, and gives how often that was done, where there were any, or another has taken them and
    /// they may not be gone from the media yet.
    fn take_setid(&self, bits: fn(u16) -> u16) -> Result<Option<u32>> {
        let rights = &self.0.rights_taken;
        let has_none = |attrs: &Attrs| bits(attrs.mode) == 0 && !self.0.may_have_lost_rights();
        {
            // Most files have none: each write by a user asks.
            let attrs = self.0.attrs.lock();
            if has_none(&attrs) {
                return Ok(rights.pending());
            }
        }
        // Who changes mode and access list gives back what the mode had, and would bring the bits back.
        let _io = (!Mended::SetIdComesBack.is_back()).then(|| self.0.io.read());
        let _change = Change::begin(&*self.0.fs)?;
        self.0.store_lost_rights()?;
        let mut attrs = self.0.attrs.lock();
        if has_none(&attrs) {
            return Ok(rights.pending());
        }
        let changed = Attrs { mode: attrs.mode & !bits(attrs.mode), ..*attrs };
        self.0.store_rights(&mut attrs, &changed)?;
        if Mended::OthersTakeSetId.is_back() {
            rights.taken.fetch_add(1, Ordering::SeqCst);
        }
        Ok(rights.pending())
    }
}
