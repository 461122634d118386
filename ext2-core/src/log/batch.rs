//! A log for changes that are brought to the media as one: nothing of the file system's own is stored before a commit, and an
//! image of which nothing was committed is as it was when it was opened, clean.
//!
//! A commit is a journal of its own. It lies in blocks that were kept free for it, and no inode leads to it: the superblock
//! has a copy of a journal's map (`s_jnl_blocks`), which e2fsck takes where inode 8 is no journal's.
//!
//! | step | after a crash `e2fsck -p` |
//! |---|---|
//! | contents of files, the journal's blocks: F | finds the image as it was |
//! | the superblock: map, `needs_recovery`, `s_journal_inum` | clears them, and checks the image: as it was |
//! | and `has_journal`, by one store: F | replays it; the superblock in it has no journal |
//! | every block but the superblock's in its place: F | replays it again |
//! | the superblock, `has_journal` first, `needs_recovery` last: F | finds what is left of them, clears it, and checks the image |
//!
//! Four flushes, however much changed. e2fsck stores its copy of the map into inode 8 before it replays; so the block of that
//! inode is part of every commit.
//!
//! In which order the superblock is stored is said in `ext2-format` (`journal/naming.rs`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use blockdev::{BlockDevice, Media};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::area::Area;
use super::logged::ENDURANCE;
use super::record::{self, JOURNAL, LEAST, Map, Step, tags_in};
use crate::balloc::{Blocks, Run};
use crate::error::Result;
use crate::features::CompatFeatures;
use crate::fs::Fs;
use crate::raw::{RawInode, RawSuperblock, SUPERBLOCK_OFFSET};
use crate::{DeviceBlock, Errno};

/// Of how many of the file system's blocks, and of the free ones, one is the log's.
const SHARE: u64 = 16;
const SHARE_OF_FREE: u64 = 8;
/// The fewest blocks that are worth it, and the most.
const FEWEST: u64 = 64;
const MOST: u64 = 8192;

/// Blocks of a log besides the images and their descriptors: the journal's superblock, the commit, and one that ends it.
const FRAME: usize = 3;

/// What makes an area the place of batches.
#[derive(Debug)]
pub(super) struct Batch {
    /// The map of the journal's inode, and the blocks that it leads through.
    pub(super) map: Map,
    /// Bytes of the journal.
    pub(super) size: u32,
    /// The block with inode 8.
    pub(super) inode_block: u32,
}

/// How many blocks may change before a commit, in a log of so many: half of what fits, since a commit may have to wait for
/// a change that is under way.
pub(super) fn most(log: usize, block_size: usize) -> usize {
    let images = log.saturating_sub(FRAME);
    let descriptors = images.div_ceil(tags_in(block_size).max(1));
    // The superblock's and inode 8's are always among them.
    images.saturating_sub(descriptors + 2) / 2
}

/// Does stores into the superblock, step after step. All media but persistent memory, which is written by lines or words, take
/// the stores to one sector of 512 bytes in order, without a fence.
fn store(dev: &dyn BlockDevice, steps: Vec<Step>) -> blockdev::Result<()> {
    let is_by_sectors = dev.media() != Media::Persistent;
    for step in steps {
        for (at, word) in step {
            dev.write_u32(SUPERBLOCK_OFFSET + at as u64, word)?;
        }
        if !is_by_sectors {
            dev.fence()?;
        }
    }
    Ok(())
}

fn superblock(dev: &dyn BlockDevice) -> blockdev::Result<RawSuperblock> {
    let mut sb = RawSuperblock::new_zeroed();
    dev.read_at(SUPERBLOCK_OFFSET, sb.as_mut_bytes())?;
    Ok(sb)
}

/// Makes the journal hold.
pub(super) fn name(dev: &dyn BlockDevice, batch: &Batch) -> blockdev::Result<()> {
    store(dev, record::naming(&superblock(dev)?, &batch.map.copy(batch.size)))
}

/// Puts the superblock's image, from its block, in its place: the last of what the journal holds.
pub(super) fn settle(dev: &dyn BlockDevice, image: &[u8]) -> blockdev::Result<()> {
    match RawSuperblock::read_from_prefix(image) {
        Ok((image, _)) => store(dev, record::settling(&superblock(dev)?, &image)),
        Err(_) => Err(blockdev::Error::Unsupported("a journal without the superblock")),
    }
}

/// Takes away what a crash left of a journal that does not hold.
pub(super) fn forget(dev: &dyn BlockDevice) -> blockdev::Result<()> {
    store(dev, record::forgetting(&superblock(dev)?))
}

impl Fs {
    /// Begins to keep back what is stored, before anything is. False, with nothing kept or stored, where there is no room for
    /// a log, the image has a journal, or was not clean.
    pub(crate) fn start_batch(self: &Arc<Self>) -> Result<bool> {
        let Some(log) = self.log.as_ref().filter(|_| self.can_batch()) else { return Ok(false) };
        let size = self.geo.block_size.bytes();
        let inode = self.inode_offset(JOURNAL)?;
        let mut raw = RawInode::new_zeroed();
        self.dev.read_at(inode, raw.as_mut_bytes())?;
        let free = self.free_blocks_now()?.saturating_sub(u64::from(self.sb.reserved_blocks));
        let count = (u64::from(self.geo.blocks_count) / SHARE).min(free / SHARE_OF_FREE).min(MOST);
        if count < FEWEST || raw.i_mode.get() != 0 || raw.i_links_count.get() != 0 {
            return Ok(false);
        }
        // OK to cast: at most `MOST`. e2fsck asks for so many blocks; those past ours are one and the same.
        let (count, total) = (count as u32, LEAST.max(count as u32));
        log.begin_batch(self.new_sequence());
        let mut guard = Blocks::new(self);
        let taken = self.take_for_log(&mut guard, count).and_then(|blocks| {
            let leading = self.take_for_log(&mut guard, Map::leading(total, size))?;
            Ok((blocks, leading))
        });
        let (blocks, leading) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                drop(guard);
                log.cancel();
                return if error.is(Errno::NOSPC) { Ok(false) } else { Err(error) };
            }
        };
        guard.keep();
        let last = blocks.last().copied().unwrap_or_default();
        let map = Map::new(total, size, &leading, |n| blocks.get(n as usize).copied().unwrap_or(last));
        // OK to cast: a file system has at most 2^32 blocks.
        let batch = Batch { map, size: total * size as u32, inode_block: (inode / size) as u32 };
        let area = Area { blocks, sequence: 0, is_made: true, leading, batch: Some(batch) };
        log.give_area(area, most(count as usize, size as usize));
        Ok(true)
    }

    fn can_batch(&self) -> bool {
        let sb = &self.sb;
        sb.clean
            && !sb.has_errors
            && sb.last_orphan == 0
            && sb.revision > 0
            && sb.first_ino > JOURNAL.get()
            && sb.inodes_per_group >= JOURNAL.get()
            && !sb.features.compat.contains(CompatFeatures::HAS_JOURNAL)
            && sb.journal_inode.is_none()
    }

    /// A number of a first commit that no earlier log at its place has come to.
    pub(super) fn new_sequence(&self) -> u32 {
        let now = self.clock.now();
        // A clock may stand still: each opening counts.
        let opened = u32::from(self.sb.mount_count) << 16;
        ((now.sec as u32) << 8 ^ now.nsec.rotate_left(7) ^ opened) | 1
    }

    /// Whether changes are kept back.
    pub(crate) fn is_batched(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_on() && log.kept() > 0)
    }

    /// Blocks that are kept free for the log, and count as free.
    pub(crate) fn kept_blocks(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.kept())
    }

    /// Gives the log's blocks back in memory, before the last commit: nobody takes blocks any more.
    pub(crate) fn give_back_batch(&self) -> Result<()> {
        let Some(log) = self.log.as_ref() else { return Ok(()) };
        self.give_back(log.set_kept(false))
    }

    /// Takes them again in memory, where the last commit failed and others may follow.
    pub(crate) fn take_back_batch(&self) {
        let (Some(log), Some(writer)) = (&self.log, &self.writer) else { return };
        for block in log.set_kept(true) {
            let Some((nr, bit)) = self.geo.group_of_block(block) else { continue };
            let mut group = writer.groups.get(nr).lock();
            let bitmap = group.blocks(self, nr).ok().flatten().filter(|bitmap| !bitmap.is_set(bit));
            if bitmap.map(|bitmap| bitmap.fill(bit..bit + 1, true)).is_some() {
                writer.groups.count_blocks(nr, &mut group, 1);
            }
        }
    }

    /// Brings what is kept back to the media as the last of it, with all that makes the image a clean one.
    pub(crate) fn end_batch(&self) -> Result<()> {
        self.log.as_ref().map_or(Ok(()), |log| Ok(log.end_batch()?))
    }

    /// Commits what was kept back, keeps nothing back from then on, and gives the log's blocks to who needs them; false where
    /// there is no such log (any more), or a change is under way that must be whole.
    pub(crate) fn give_up_batch(&self) -> Result<bool> {
        let Some(log) = self.log.as_ref().filter(|_| self.is_batched()) else { return Ok(false) };
        let Some(kept) = log.give_up()? else { return Ok(false) };
        let given = self.give_back(kept);
        log.given_back();
        given.map(|()| true)
    }

    /// Whether blocks that a log keeps free may come, since it can be given up, or is just now. Nobody gives it up while this
    /// thread is within a change that must be whole.
    pub(crate) fn may_give_up(&self) -> bool {
        self.is_batched() && crate::sync::may_wait() || self.log.as_ref().is_some_and(|log| log.is_giving())
    }

    /// Does what needs room, again and again where a log keeps room free that may come.
    pub(crate) fn with_room<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        for _ in 0..ENDURANCE {
            // Asked first: what another gives back meanwhile is free when it has been said that nothing comes.
            let may_come = self.may_give_up();
            match work() {
                Err(error) if error.refuses(Errno::NOSPC) && may_come => {
                    if !self.give_up_batch()? {
                        crate::sync::pause();
                    }
                }
                done => return done,
            }
        }
        work()
    }

    /// Frees blocks of a log in memory.
    pub(super) fn give_back(&self, mut all: Vec<u32>) -> Result<()> {
        all.sort_unstable();
        for run in all.chunk_by(|a, b| a + 1 == *b) {
            if let Some(start) = run.first().and_then(|nr| DeviceBlock::new(*nr)) {
                self.release(Run { start, len: run.len() as u32 })?;
            }
        }
        Ok(())
    }
}
