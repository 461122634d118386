//! Where the log lies: the journal that the image has, or one that is made for as long as the image is open for writing.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::{FromZeros, IntoBytes};

use super::batch::Batch;
use super::record::{self, JOURNAL, LEAST, MARK, MODE, Map, S_LEN, S_MADE, S_MARK, S_SEQUENCE, big};
use crate::balloc::{Blocks, Request, Role};
use crate::error::{Error, Result};
use crate::features::CompatFeatures;
use crate::fs::Fs;
use crate::raw::RawInode;
use crate::{Errno, GroupNr};

/// Of how many of the file system's blocks one is the log's, and the most that it has.
const SHARE: u32 = 64;
const MOST: u32 = 8192;
/// A journal is made where it takes no more than this part of the file system, and of what is free.
const LEAST_SHARE: u32 = 8;

/// Where the log lies.
#[derive(Debug)]
pub(crate) struct Area {
    pub(super) blocks: Vec<u32>,
    /// The number of the first commit.
    pub(super) sequence: u32,
    /// It is there for us alone, and goes when we are done.
    pub(crate) is_made: bool,
    /// Blocks that lead to the others.
    pub(super) leading: Vec<u32>,
    /// Each commit is a journal of its own.
    pub(super) batch: Option<Batch>,
}

impl Area {
    /// Where a block of the log lies, in bytes.
    pub(super) fn byte_of(&self, nr: u32, block: u64) -> u64 {
        u64::from(self.blocks.get(nr as usize).copied().unwrap_or_default()) * block
    }
}

/// A change that is in one commit or in none.
pub(crate) struct Hold<'f>(&'f Fs);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.dev.hold(false);
    }
}

/// A [`Hold`] of somebody who waits for locks meanwhile.
pub(crate) struct PatientHold<'f>(Hold<'f>);

impl Drop for PatientHold<'_> {
    fn drop(&mut self) {
        self.0.0.log.iter().for_each(|log| log.count_patient(false));
    }
}

impl Fs {
    /// The place of a log, durable and empty; `None` where there is no room for one, or a journal of another kind.
    pub(crate) fn find_log(self: &alloc::sync::Arc<Self>) -> Result<Option<Area>> {
        match self.sb.journal_inode {
            Some(JOURNAL) => self.load_log(),
            Some(_) => Ok(None),
            None => self.make_log(),
        }
    }

    fn journal_inode(&self) -> Result<RawInode> {
        let mut raw = RawInode::new_zeroed();
        self.dev.read_at(self.inode_offset(JOURNAL)?, raw.as_mut_bytes())?;
        Ok(raw)
    }

    /// The journal that the image has, if it is empty and has no features that change its records.
    fn load_log(&self) -> Result<Option<Area>> {
        let raw = self.journal_inode()?;
        let size = self.geo.block_size.bytes();
        let (mut blocks, leading) = super::replay::walk(&*self.dev, &raw, size, self.geo.blocks_count)?;
        let Some(&first) = blocks.first() else { return Ok(None) };
        let at = u64::from(first) * size;
        let mut head = vec![0; 1024];
        self.dev.read_at(at, &mut head)?;
        let len = big(&head, S_LEN);
        let is_usable = len as usize <= blocks.len() && len >= LEAST && big(&head, 20) == 1;
        if !is_usable || !record::is_plain(&head, size) {
            return Ok(None);
        }
        let is_ours = head.get(S_MARK..S_MARK + MARK.len()) == Some(MARK.as_slice());
        if !is_ours {
            self.dev.write_at(at + S_MARK as u64, MARK)?;
            self.dev.write_at(at + S_MADE as u64, &[0])?;
            self.dev.flush()?;
        }
        let is_made = is_ours && head.get(S_MADE) == Some(&1);
        blocks.truncate(len as usize);
        // Past all that may lie there from before.
        let sequence = big(&head, S_SEQUENCE).wrapping_add(1);
        Ok(Some(Area { blocks, sequence, is_made, leading, batch: None }))
    }

    pub(super) fn take_for_log(
        self: &alloc::sync::Arc<Self>,
        guard: &mut Blocks,
        count: u32,
    ) -> Result<Vec<u32>> {
        let mut blocks = Vec::new();
        while blocks.len() < count as usize {
            let goal = blocks.last().map_or(self.geo.blocks_count / 2, |last| last + 1);
            let group = self.geo.group_of_block(goal).map_or(GroupNr::new(0), |(group, _)| group);
            let request = Request {
                owner: JOURNAL,
                home: group,
                goal,
                count: count - blocks.len() as u32,
                role: Role::Meta,
                window: None,
            };
            let (run, _) = self.take(&request)?;
            guard.push(run);
            blocks.extend((0..run.len).map(|n| run.block(n)));
        }
        Ok(blocks)
    }

    /// Makes a journal where there is plenty of room. A crash on the way leaves blocks of nobody, or an inode for e2fsck.
    fn make_log(self: &alloc::sync::Arc<Self>) -> Result<Option<Area>> {
        let size = self.geo.block_size.bytes();
        let total = self.geo.blocks_count;
        let count = (total / SHARE).clamp(LEAST, MOST);
        let free = self.free_blocks_now()?.saturating_sub(u64::from(self.sb.reserved_blocks));
        let is_small = u64::from(count) * u64::from(LEAST_SHARE) > u64::from(total).min(free);
        let raw = self.journal_inode()?;
        if is_small
            || raw.i_mode.get() != 0
            || raw.i_links_count.get() != 0
            || self.sb.first_ino <= JOURNAL.get()
        {
            return Ok(None);
        }
        let mut guard = Blocks::new(self);
        let taken = self.take_for_log(&mut guard, count);
        let taken =
            taken.and_then(|data| Ok((data, self.take_for_log(&mut guard, Map::leading(count, size))?)));
        let (data, leading) = match taken {
            Ok(taken) => taken,
            Err(error) if error.is(Errno::NOSPC) => return Ok(None),
            Err(error) => return Err(error),
        };
        let map = Map::new(count, size, &leading, |n| data.get(n as usize).copied().unwrap_or_default());
        for (nr, bytes) in &map.leading {
            self.dev.write_at(u64::from(*nr) * size, bytes)?;
        }
        let now = self.clock.now();
        let first = u64::from(data.first().copied().unwrap_or_default()) * size;
        let mut old = vec![0; 1024];
        self.dev.read_at(first, &mut old)?;
        // Where a log of ours lay before, the numbers go on: its commits lie there still.
        let goes_on = old.get(S_MARK..S_MARK + MARK.len()) == Some(MARK.as_slice());
        let sequence = if goes_on { big(&old, S_SEQUENCE).wrapping_add(1) } else { self.new_sequence() };
        self.dev.write_at(first, &record::marked(size as usize, count, sequence, 1))?;
        self.dev.flush()?;
        let mut raw = RawInode::new_zeroed();
        raw.i_mode = MODE.into();
        raw.i_links_count = 1.into();
        raw.i_size = (count * size as u32).into();
        raw.i_blocks = ((data.len() + leading.len()) as u32 * (size / 512) as u32).into();
        let seconds = now.encode(false).0;
        (raw.i_atime, raw.i_ctime, raw.i_mtime) = (seconds.into(), seconds.into(), seconds.into());
        raw.i_block.iter_mut().zip(map.slots).for_each(|(slot, block)| *slot = block.into());
        self.dev.write_at(self.inode_offset(JOURNAL)?, raw.as_bytes())?;
        self.dev.flush()?;
        self.store_journal_inode(JOURNAL.get())?;
        self.need_compat(CompatFeatures::HAS_JOURNAL)?;
        self.dev.flush()?;
        guard.keep();
        Ok(Some(Area { blocks: data, sequence, is_made: true, leading, batch: None }))
    }

    /// Takes a journal away that was made for us. The log has ended.
    pub(crate) fn remove_log(&self, area: &Area) -> Result<()> {
        self.drop_compat(CompatFeatures::HAS_JOURNAL)?;
        self.store_journal_inode(0)?;
        self.dev.flush()?;
        self.dev.write_at(self.inode_offset(JOURNAL)?, RawInode::new_zeroed().as_bytes())?;
        self.dev.flush()?;
        self.give_back(area.blocks.iter().chain(&area.leading).copied().collect())
    }

    pub(crate) fn free_blocks_now(&self) -> Result<u64> {
        let writer = self.writer()?;
        Ok(writer.groups.free_blocks.load(core::sync::atomic::Ordering::Relaxed))
    }

    /// Whether changes go through a log now.
    pub(crate) fn is_logged(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_on())
    }

    /// Keeps commits from what happens until the answer is dropped.
    pub(crate) fn hold_log(&self) -> Hold<'_> {
        self.dev.hold(true);
        Hold(self)
    }

    /// The same for changes that take locks: who waits for room in the log may hold them, so that a commit comes between where
    /// there is none left.
    pub(crate) fn hold_log_patiently(&self) -> PatientHold<'_> {
        let hold = self.hold_log();
        self.log.iter().for_each(|log| log.count_patient(true));
        PatientHold(hold)
    }

    /// Begins to log, if there is a place for it: what was stored so far is durable then.
    pub(crate) fn start_log(self: &alloc::sync::Arc<Self>) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let area = match self.find_log() {
            Ok(area) => area,
            // A journal that is broken is e2fsck's; every fence is waited for then.
            Err(Error::Corrupt(why)) => {
                log::warn!("no log: {why}");
                None
            }
            Err(error) => return Err(error),
        };
        let Some(area) = area else {
            log::info!("no room for a log: each fence waits for the media");
            return Ok(());
        };
        self.store_recover(true)?;
        self.dev.flush()?;
        log.begin(area);
        Ok(())
    }

    /// Ends the log, if there is one: everything is in its place, and the image has the journal that it had before.
    /// Where the device fails on the way, that was the last change: half of a log would be replayed over what comes after it.
    pub(crate) fn end_log(&self) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        self.whole(|| {
            let Some(area) = log.end()? else { return Ok(()) };
            self.store_recover(false)?;
            self.dev.flush()?;
            // Of one that an error made read-only nothing is freed any more: the journal stays, and the next log is in it.
            if area.is_made && self.writer().is_ok() { self.remove_log(&area) } else { Ok(()) }
        })
    }
}
