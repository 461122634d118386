//! A few words in different blocks that change together: all of them or none, whenever the power goes.
//!
//! | where | how |
//! |---|---|
//! | there is a log | in one commit |
//! | the image has a journal that can be used | by a transaction of it |
//! | it has none | by a journal that is made for the moment (`log/brief.rs`) |
//! | it has one that cannot be used, or inode 8 is somebody's | not at all |
//!
//! # Locking
//! [`Together`] holds the journal's lock from when it is found; while it stores, nobody else stores into the tables of
//! inodes and the superblock.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Images, Journal};
use crate::error::Result;
use crate::fs::Fs;
use crate::inode::Inode;
use crate::log::{Brief, PatientHold};
use crate::order::Barrier;
use crate::sync::MutexGuard;

/// The most blocks in which the words lie.
const MOST: usize = 4;

/// A way to change words together.
pub(crate) enum Together<'f> {
    /// One commit of the log holds them. It gives way to nobody until they are stored: what they need is taken meanwhile.
    Logged(PatientHold<'f>),
    /// A transaction.
    Journal(Journal<'f>),
    /// A transaction in a journal of its own.
    Brief(Brief, MutexGuard<'f, ()>),
}

impl<'f> Together<'f> {
    /// A way, with the room that it needs; `None` where there is none.
    ///
    /// # Errors
    /// `ENOSPC` where a journal would have to be made and there is no room for it; `Corrupt`, the device's.
    pub(crate) fn find(fs: &'f Arc<Fs>) -> Result<Option<Self>> {
        // A log that would give way to the block that is taken next goes before.
        if fs.blocks_to_take()? == 0 {
            fs.give_up_batch()?;
        }
        let hold = fs.hold_log_patiently();
        if fs.is_logged() {
            return Ok(Some(Self::Logged(hold)));
        }
        drop(hold);
        if fs.sb.journal_inode.is_some() {
            return Ok(Journal::find(fs)?.filter(|journal| journal.has_room(MOST)).map(Self::Journal));
        }
        let lock = fs.writer()?.journal.lock();
        Ok(Brief::reserve(fs)?.map(|brief| Self::Brief(brief, lock)))
    }

    /// The journal's inode, for who stores under a lock: the last holder lets go of it under none.
    pub(crate) fn inode(&self) -> Option<Inode> {
        match self {
            Self::Journal(journal) => Some(journal.inode.clone()),
            Self::Logged(_) | Self::Brief(..) => None,
        }
    }

    /// Stores words at places of the device. When it returns they are durable, but in a log.
    ///
    /// # Errors
    /// `Corrupt`, the device's; where it is not known whether all or none of them are there, that was the last change.
    pub(crate) fn store(self, fs: &Arc<Fs>, words: &[(u64, u32)]) -> Result<()> {
        match self {
            Self::Logged(_on) => {
                // Under it nothing is waited for but room in the log.
                let _whole = fs.hold_log();
                let now = |&(at, _): &(u64, u32)| Ok((at, fs.dev.read_u32(at)?));
                let first = words.iter().map(now).collect::<Result<Vec<_>>>()?;
                // What is there first, so that all blocks are in memory before a word changes: then nothing fails.
                first.iter().chain(words).try_for_each(|&(at, word)| fs.store_u32(at, word))
            }
            Self::Journal(journal) => {
                // Where it fails others may store again before it is said that this was the last change.
                let mut transaction = None;
                fs.whole(|| {
                    let _alone = fs.stores.write();
                    // Also in an image of the superblock: whoever replays half of it goes on with it.
                    fs.store_recover(true)?;
                    let mut images = Images::default();
                    for (at, word) in words {
                        images.put(fs, *at, &word.to_le_bytes())?;
                    }
                    let known = fs.losses.count();
                    let transaction = transaction.insert(journal.begin(&images)?);
                    transaction.hold()?;
                    transaction.place(words, known)?;
                    transaction.empty()
                })
            }
            Self::Brief(brief, _lock) => {
                let done = {
                    let _alone = fs.stores.write();
                    brief.store(fs, words)
                };
                done.map_err(|failed| {
                    if failed.is_unsettled {
                        brief.keep();
                        fs.freeze(&failed.error);
                    }
                    failed.error
                })
            }
        }
    }
}

impl super::Transaction<'_> {
    /// Stores what the transaction holds, which was begun when so many losses were known, in its place, when it is sure to hold, and
    /// waits until it is there.
    fn place(&self, words: &[(u64, u32)], known: u32) -> Result<()> {
        let fs = self.journal.fs;
        fs.fence_since(Barrier::TogetherHeld, known)?;
        for &(at, word) in words {
            fs.dev.write_u32(at, word)?;
        }
        fs.fence_since(Barrier::TogetherPlaced, known)
    }
}
