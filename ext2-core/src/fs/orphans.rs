//! The superblock's list of orphans (Linux: `ext3_orphan_add`): inodes that a crash leaves to e2fsck. One with names is
//! truncated to its size, one without is deleted, and its block of attributes loses a user. Each inode names the next one
//! in the place of its time of deletion.
//!
//! # Invariants
//! 1. At the head is one file that is dead, or about to die, and shares its attributes: e2fsck counts the users of such a
//!    block, and stops where the block says another number. Behind it, or at the head, is the file that is being
//!    truncated.
//! 2. It changes by one store. A longer list cannot: who is taken out of its midst names another inode still, which
//!    e2fsck takes for a broken list, and stops.

use core::mem::offset_of;

use super::Fs;
use crate::InodeNr;
use crate::error::Result;
use crate::order::Barrier;
use crate::raw::RawInode;

/// The list as far as it outlives a call.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    /// The dead file at the head, and where that inode lies on the device.
    pub(crate) dead: Option<(InodeNr, u64)>,
}

impl Fs {
    /// The time of deletion of an inode that dies now. Numbers up to the last inode's stand for the next one of the list there, and
    /// e2fsck asks a person about those that no list leads to: a clock that is near 1970 gives the number behind them.
    /// libext2fs: `ext2fs_set_dtime`.
    pub(crate) fn time_of_death(&self, now: crate::Timestamp) -> u32 {
        let is_early = crate::sync::Mended::EarlyDeath.is_back();
        let first = if is_early { 1 } else { self.geo.inodes_count.saturating_add(1) };
        now.encode(false).0.max(first)
    }

    /// Ends the list with an inode, which names no other; or with none. By one store.
    pub(crate) fn end_orphans(&self, orphans: &Orphans, last: Option<InodeNr>) -> Result<()> {
        let nr = last.map_or(0, InodeNr::get);
        match orphans.dead {
            Some((_, inode)) => self.store_u32(inode + offset_of!(RawInode, i_dtime) as u64, nr),
            None => self.store_orphan(nr),
        }
    }

    /// Puts an inode with names and without a time of deletion at the end of the list, or takes the last one out, durably.
    pub(crate) fn list_orphan(&self, orphans: &Orphans, nr: Option<InodeNr>) -> Result<()> {
        let known = self.losses.count();
        self.end_orphans(orphans, nr)?;
        self.fence_since(Barrier::OrphanListed, known)
    }

    /// Keeps the list for a file at byte `inode` of the device that is about to die, durably. Not where there is one already.
    pub(crate) fn list_dead(&self, orphans: &mut Orphans, nr: InodeNr, inode: u64) -> Result<bool> {
        if orphans.dead.is_some() {
            return Ok(false);
        }
        self.list_orphan(orphans, Some(nr))?;
        orphans.dead = Some((nr, inode));
        Ok(true)
    }

    /// Takes the dead file out of the list, by one store. Where that fails it is in the list still, and what is truncated comes
    /// behind it.
    pub(crate) fn unlist_dead(&self, orphans: &mut Orphans) -> Result<()> {
        self.store_orphan(0)?;
        orphans.dead = None;
        Ok(())
    }

    /// Puts a dead file back that was taken out by the last store, for e2fsck: it names no other yet.
    pub(crate) fn list_again(&self, orphans: &mut Orphans, nr: InodeNr, inode: u64) -> Result<()> {
        self.store_orphan(nr.get())?;
        orphans.dead = Some((nr, inode));
        Ok(())
    }
}
