//! What a file system needs to be written: groups, the superblock's changing part, and the switch to read-only.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use blockdev::Claim;
use ext2_format::superblock::{STATE_ERROR, STATE_VALID};

use super::change::{Others, Running};
use super::orphans::Orphans;
use super::{Closed, Fs, Unclean};
use crate::balloc::{Groups, Place};
use crate::error::{Error, Result, refuse};
use crate::features::{CompatFeatures, IncompatFeatures, RoCompatFeatures};
use crate::order::Barrier;
use crate::space::Stores;
use crate::sync::{Mended, Mutex, Rank, RwLock};
use crate::{Errno, Ext2, OnError};

/// The writing half of an open file system.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Exclusive: the one who closes. Shared: who makes all durable, since what comes later is stored into what may be another's.
    close: RwLock<()>,
    pub(crate) groups: Groups,
    pub(crate) place: Place,
    /// One rename between directories at a time.
    pub(crate) rename: Mutex<()>,
    /// The one transaction in the journal.
    pub(crate) journal: Mutex<()>,
    /// The superblock's list of orphans; held while a file is truncated.
    pub(crate) orphan: Mutex<Orphans>,
    /// Attribute blocks that inodes share.
    pub(crate) xattr: Mutex<()>,
    /// The superblock's features, as they are now.
    state: Mutex<State>,
    /// A check is due. No lock guards it: what fails may fail under any.
    has_errors: AtomicBool,
    read_only: AtomicBool,
    closed: AtomicBool,
    /// The device is ours to write to, until the file system is closed.
    claim: Claim,
    pub(super) running: Running,
    generation: AtomicU32,
    pub(crate) strict_rename: bool,
    pub(crate) share_xattrs: bool,
    on_error: OnError,
}

#[derive(Debug)]
struct State {
    /// How many losses were known when a compatible feature was last stored.
    known: u32,
    revision: u32,
    compat: CompatFeatures,
    ro_compat: RoCompatFeatures,
}

/// How a file system that is open for writing behaves.
pub(crate) struct Behaviour {
    pub(crate) on_error: OnError,
    pub(crate) strict_rename: bool,
    pub(crate) share_xattrs: bool,
}

impl Writer {
    pub(crate) fn new(fs: &Fs, claim: Claim, groups: Groups, place: Place, behaviour: &Behaviour) -> Self {
        let features = fs.sb.features;
        let now = fs.clock.now();
        // Differs from mount to mount, so that a handle of an earlier inode of the same number is stale.
        let seed = (now.sec as u32).rotate_left(13) ^ now.nsec ^ u32::from(fs.sb.mount_count);
        Self {
            close: RwLock::new(Rank::Close, ()),
            groups,
            place,
            rename: Mutex::new(Rank::Rename, ()),
            journal: Mutex::new(Rank::Journal, ()),
            orphan: Mutex::new(Rank::Orphan, Orphans::default()),
            xattr: Mutex::new(Rank::Xattr, ()),
            state: Mutex::new(
                Rank::Super,
                State {
                    known: 0,
                    revision: fs.sb.revision,
                    compat: features.compat,
                    ro_compat: features.ro_compat,
                },
            ),
            has_errors: AtomicBool::new(fs.sb.has_errors),
            read_only: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            claim,
            running: Running::new(),
            generation: AtomicU32::new(seed),
            strict_rename: behaviour.strict_rename,
            share_xattrs: behaviour.share_xattrs,
            on_error: behaviour.on_error,
        }
    }

    /// The generation of a new inode.
    pub(crate) fn next_generation(&self) -> u32 {
        self.generation.fetch_add(1, Ordering::Relaxed)
    }
}

impl Fs {
    /// Whether it was opened for writing.
    pub(crate) fn has_writer(&self) -> bool {
        self.writer.is_some()
    }

    /// Whether changes are refused.
    pub(super) fn is_read_only(&self) -> bool {
        self.writer().is_err() || self.is_closing()
    }

    /// Free blocks and inodes.
    pub(super) fn free_counts(&self) -> (u64, u64) {
        match &self.writer {
            Some(writer) => {
                let groups = &writer.groups;
                let blocks = groups.free_blocks.load(Ordering::Relaxed) + self.kept_blocks();
                (blocks, groups.free_inodes.load(Ordering::Relaxed))
            }
            None => self.counts_of_superblock(),
        }
    }

    /// The writing half.
    ///
    /// # Errors
    /// `EROFS` when the file system is open read-only, was closed, or was made read-only by an error.
    pub(crate) fn writer(&self) -> Result<&Writer> {
        match &self.writer {
            Some(writer) if !writer.read_only.load(Ordering::Relaxed) => Ok(writer),
            _ => refuse(Errno::ROFS, "the file system is read-only"),
        }
    }

    /// Notes that the image is not cleanly unmounted from now on; durable before anything else is
    /// stored. Linux: `ext2_setup_super`.
    pub(crate) fn begin_writing(&self) -> Result<()> {
        self.store_state(0)?;
        self.fence(Barrier::Mounted)?;
        let now = self.clock.now().encode(false).0;
        self.store_u32(super_at!(s_mtime), now)?;
        self.store_u16(super_at!(s_mnt_count), self.sb.mount_count.saturating_add(1))?;
        Ok(())
    }

    /// Stores the state. Whether a check is due.
    fn store_state(&self, valid: u16) -> Result<bool> {
        let has_errors = &self.writer()?.has_errors;
        let had_errors = has_errors.load(Ordering::SeqCst);
        let errors = if had_errors { STATE_ERROR } else { 0 };
        self.store_u16(super_at!(s_state), valid | errors)?;
        if !had_errors && has_errors.load(Ordering::SeqCst) {
            // Found meanwhile: this may have been stored over the mark.
            self.store_u16(super_at!(s_state), STATE_ERROR)?;
            return Ok(true);
        }
        Ok(had_errors)
    }

    /// Sets a compatible feature that is about to be used, behind a fence of the caller's.
    pub(crate) fn need_compat(&self, feature: CompatFeatures) -> Result<()> {
        let mut state = self.writer()?.state.lock();
        let known = self.losses.count();
        // A loss may have taken it.
        if !state.compat.contains(feature) || state.known != known {
            self.need_revision_1(&mut state)?;
            let with = state.compat | feature;
            if Mended::FeatureUnsaid.is_back() {
                state.compat = with;
            }
            self.store_u32(super_at!(s_feature_compat), with.bits())?;
            (state.compat, state.known) = (with, known);
        }
        Ok(())
    }

    /// Takes a compatible feature away that nothing uses any more, behind a fence of the caller's.
    pub(crate) fn drop_compat(&self, feature: CompatFeatures) -> Result<()> {
        let mut state = self.writer()?.state.lock();
        let without = state.compat - feature;
        self.store_u32(super_at!(s_feature_compat), without.bits())?;
        state.compat = without;
        Ok(())
    }

    /// The inode of the journal, 0 for none.
    pub(crate) fn store_journal_inode(&self, nr: u32) -> Result<()> {
        self.store_u32(super_at!(s_journal_inum), nr)
    }

    /// Notes that a file of 2 GiB or more exists, before one does.
    pub(crate) fn need_large_file(&self) -> Result<()> {
        let mut state = self.writer()?.state.lock();
        if !state.ro_compat.contains(RoCompatFeatures::LARGE_FILE) {
            self.need_revision_1(&mut state)?;
            let with = state.ro_compat | RoCompatFeatures::LARGE_FILE;
            // e2fsck sets it where it finds such a file, so nothing waits for it.
            self.store_u32(super_at!(s_feature_ro_compat), with.bits())?;
            state.ro_compat = with;
        }
        Ok(())
    }

    /// Makes sure that features count.
    pub(crate) fn need_dynamic_revision(&self) -> Result<()> {
        let mut state = self.writer()?.state.lock();
        self.need_revision_1(&mut state)
    }

    /// Features need revision 1 (Linux: `ext2_update_dynamic_rev`).
    fn need_revision_1(&self, state: &mut State) -> Result<()> {
        let is_lost = self.sb.revision == 0 && state.known != self.losses.count();
        if state.revision == 0 || is_lost {
            log::warn!("the file system becomes revision 1, for a feature that revision 0 does not have");
            let known = self.losses.count();
            self.store_u32(super_at!(s_first_ino), self.sb.first_ino)?;
            self.store_u16(super_at!(s_inode_size), self.sb.inode_size)?;
            self.fence_since(Barrier::Revision, known)?;
            self.store_u32(super_at!(s_rev_level), 1)?;
            state.revision = 1;
        }
        Ok(())
    }

    /// The head of the list of orphans, 0 for none. The caller holds its lock.
    pub(crate) fn store_orphan(&self, nr: u32) -> Result<()> {
        self.store_u32(super_at!(s_last_orphan), nr)
    }

    /// Says whether the journal may hold a transaction.
    pub(crate) fn store_recover(&self, recover: bool) -> Result<()> {
        let mut incompat = self.sb.features.incompat;
        incompat.set(IncompatFeatures::RECOVER, recover);
        Ok(self.dev.write_u32(super_at!(s_feature_incompat), incompat.bits())?)
    }

    /// Does what is to be done when the image turns out to be broken. Linux: `ext2_error`.
    pub(crate) fn found_broken(&self, error: &Error) {
        let Some(writer) = &self.writer else { return };
        log::error!("{error}");
        if writer.closed.load(Ordering::Relaxed) {
            return;
        }
        if self.mark_broken(writer, writer.on_error == OnError::RemountRo) {
            log::error!("the file system is read-only from now on");
        }
    }

    /// Notes that a check is due, and ends all writing where that is asked for. Whether it went on until now.
    fn mark_broken(&self, writer: &Writer, ends: bool) -> bool {
        if !writer.has_errors.swap(true, Ordering::SeqCst) {
            // The device may be what failed; the image is not marked as clean in any case. Past the lock over what transactions
            // hold, under which something may have failed: a replay that takes the mark back finds an image that is not clean.
            let _ = self.dev.write_u16(super_at!(s_state), STATE_ERROR);
        }
        ends && !writer.read_only.swap(true, Ordering::Relaxed)
    }

    /// Ends all writing, since memory, device and names may disagree: no number and no block is given away
    /// again that something on the device may still stand for. The image stays marked, and e2fsck mends it.
    pub(crate) fn freeze(&self, why: &dyn core::fmt::Display) {
        let is_open = |writer: &&Writer| !writer.closed.load(Ordering::Relaxed);
        let Some(writer) = self.writer.as_ref().filter(is_open) else { return };
        if self.mark_broken(writer, true) {
            log::error!("a change ended half-way, the file system is read-only from now on: {why}");
        }
    }

    /// Writes all that is late, and waits for it. Linux: `ext2_sync_fs`.
    pub(crate) fn sync_all(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        self.refuse_within()?;
        let _open = (!Mended::ClosesApart.is_back()).then(|| writer.close.read());
        if writer.closed.load(Ordering::Relaxed) {
            Ok(())
        } else {
            self.sync_open(writer, self.losses.told())
        }
    }

    /// Within changes that belong together nobody waits for what waits for those.
    pub(crate) fn refuse_within(&self) -> Result<()> {
        self.log.as_ref().map_or(Ok(()), |log| Ok(log.refuse_within()?))
    }

    /// As [`sync_all`](Self::sync_all), for somebody who was told of so many losses before: who closes is told by the mark in the
    /// image.
    fn sync_open(&self, writer: &Writer, told: &AtomicU32) -> Result<()> {
        self.write_late(writer)?;
        self.flush(Barrier::Synced, told)
    }

    /// Writes all that is late: times, block counts, bitmaps, counts.
    fn write_late(&self, writer: &Writer) -> Result<()> {
        let (held, leaving) = self.table.held();
        for inode in held {
            if let Some(space) = inode.0.space.get() {
                space.write_back(0..u64::MAX)?;
            }
            inode.0.store_lost()?;
            inode.0.write_late()?;
        }
        // Who lets go of a file writes it himself; what is durable when this returns is all that there was when it began.
        if !self.is_closing() && !Mended::LeavingPassedOver.is_back() {
            leaving.into_iter().for_each(|nr| self.table.wait_for(nr));
        }
        writer.groups.write(self)?;
        let count =
            |sum: &portable_atomic::AtomicU64| u32::try_from(sum.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        self.store_u32(super_at!(s_free_blocks_count), count(&writer.groups.free_blocks))?;
        self.store_u32(super_at!(s_free_inodes_count), count(&writer.groups.free_inodes))?;
        self.store_u32(super_at!(s_wtime), self.clock.now().encode(false).0)
    }

    /// Writes everything and, if it was clean before, marks the image as clean. Later changes are refused.
    pub(crate) fn unmount(&self) -> Result<Closed> {
        let Some(writer) = &self.writer else { return Ok(Closed::ReadOnly) };
        self.refuse_within()?;
        let _alone = (!Mended::ClosesApart.is_back()).then(|| writer.close.write());
        if writer.closed.load(Ordering::Relaxed) {
            return Ok(Closed::ReadOnly);
        }
        let others = writer.running.close();
        // Whoever maps a file may load from now on, and not store: the image is about to be called clean.
        let (held, _) = self.table.held();
        let stores = held.iter().filter_map(|inode| inode.0.space.get()).map(|space| space.stop_stores());
        let stores = stores.fold(Stores::Ended, |all, one| if one == Stores::Lent { one } else { all });
        let done = self.end_writing(writer, others, stores);
        match done {
            Ok(_) => {
                writer.read_only.store(true, Ordering::Relaxed);
                writer.closed.store(true, Ordering::Relaxed);
                if others == Others::Ended && stores == Stores::Ended {
                    writer.claim.release();
                }
            }
            Err(_) => {
                self.take_back_batch();
                // The mark of a clean unmount may be there, and changes go on.
                let known = self.losses.count();
                let _ = self.whole(|| {
                    self.store_state(0)?;
                    self.fence_since(Barrier::Mounted, known)
                });
                held.iter().filter_map(|inode| inode.0.space.get()).for_each(|space| space.resume_stores());
                writer.running.reopen();
            }
        }
        done
    }

    /// Writes everything, while no change begins any more, and marks the image as clean if nobody can make that untrue.
    fn end_writing(&self, writer: &Writer, others: Others, stores: Stores) -> Result<Closed> {
        // What is kept back goes out at the end, all together.
        let is_batch = others == Others::Ended && self.is_batched();
        if is_batch {
            // Of one that an error made read-only nothing is freed any more.
            if self.writer().is_ok() {
                self.give_back_batch()?;
            }
            self.write_late(writer)?;
        } else {
            self.sync_open(writer, &AtomicU32::new(self.losses.count()))?;
        }
        // Who holds a file without a name keeps its blocks, which nobody frees any more.
        // One that is let go meanwhile is seen in the table, or notes that it was left as it is before it goes.
        let (held, leaving) = self.table.held();
        let is_held = held.iter().any(|inode| inode.0.attrs.lock().links == 0) || !leaving.is_empty();
        let is_held = is_held || writer.running.is_unsettled();
        drop(held);
        if !is_batch && others == Others::Ended && self.is_logged() {
            self.end_log()?;
            // The blocks that the log had are free now.
            self.sync_open(writer, &AtomicU32::new(self.losses.count()))?;
        }
        let has_errors = writer.has_errors.load(Ordering::SeqCst) && !Mended::ErrorsAreClean.is_back();
        let why = if is_held && !Mended::ClosedIsClean.is_back() {
            Some(Unclean::FilesWithoutName)
        } else if others == Others::Running {
            Some(Unclean::ChangesUnderWay)
        } else if stores == Stores::Lent {
            Some(Unclean::Leases)
        } else if has_errors || writer.read_only.load(Ordering::Relaxed) {
            Some(Unclean::Errors)
        } else if !self.sb.clean {
            Some(Unclean::Before)
        } else {
            None
        };
        if let Some(why) = why {
            if is_batch {
                self.end_batch()?;
            }
            log::warn!("the image is left as not clean: {why}");
            return Ok(Closed::Unclean(why));
        }
        let is_marked = self.store_state(STATE_VALID)? && !Mended::ErrorsAreClean.is_back();
        if is_batch {
            self.end_batch()?;
        } else {
            Barrier::Unmounted.flush(&*self.dev)?;
        }
        Ok(if is_marked { Closed::Unclean(Unclean::Errors) } else { Closed::Clean })
    }

    /// Lets go without writing anything more: an open that failed.
    pub(crate) fn abandon(&self) {
        if let Some(writer) = &self.writer {
            writer.closed.store(true, Ordering::Relaxed);
            writer.claim.release();
        }
    }
}

impl Drop for Fs {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            log::error!("the file system could not be closed cleanly: {error}");
        }
    }
}

impl Ext2 {
    /// Notes that the image turned out to be broken, as the error says, and makes the file system read-only where that is
    /// asked for. Changes that find it so have noted it themselves; this is for who only reads. Nothing happens
    /// where the file system is open for reading only. Linux: `ext2_error`.
    pub fn note_broken(&self, error: &Error) {
        self.0.found_broken(error);
    }

    /// Whether changes wait in the [log](crate::OpenOptions::log) for a commit, as [`sync`](Self::sync) makes one.
    #[must_use]
    pub fn has_uncommitted(&self) -> bool {
        self.0.log.as_ref().is_some_and(|log| log.is_dirty())
    }

    /// Whether changes go through a [log](crate::OpenOptions::log).
    #[must_use]
    pub fn has_log(&self) -> bool {
        self.0.log.as_ref().is_some_and(|log| log.is_on())
    }

    /// Ends all writing at once, as if the power went: what the last commit of a log does not hold is lost, and later
    /// changes are refused. Without a log what was stored stays. Linux: `FS_IOC_SHUTDOWN` without a flush.
    pub fn shut_down(&self) {
        if let Some(log) = &self.0.log {
            log.abandon();
        }
        self.0.freeze(&"it was shut down");
    }
}
