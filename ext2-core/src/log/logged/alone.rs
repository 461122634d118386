//! Commits of a batch: each a journal of its own, that is there from one flush to the next.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use blockdev::{Error, Result};
use ext2_format::journal as record;

use super::commit::{Committer, Frozen};
use super::{Logged, State};
use crate::log::area::Area;
use crate::log::batch::{self, Batch};
use crate::log::replay::BATCH;
use crate::raw::SUPERBLOCK_OFFSET;

/// Whether a commit is the one that closes the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// More may follow.
    No,
    /// Where nothing changed but the superblock's times and count of mounts, nothing is stored.
    Yes,
}

/// Fields of the superblock that an opening changes: `s_mtime`, `s_wtime` and `s_mnt_count`.
const OF_OPENING: core::ops::Range<usize> = 44..54;

impl Logged {
    /// Begins to keep back; where commits go is said next.
    pub(crate) fn begin_batch(&self, sequence: u32) {
        *self.commit.lock() = Committer::default();
        self.failed.store(false, Ordering::SeqCst);
        *self.state.write() = State { running: sequence, most: usize::MAX, ..State::default() };
        self.on.store(true, Ordering::Release);
    }

    /// Commits go to blocks that nobody has on the device, from `most` changed blocks on.
    pub(crate) fn give_area(&self, area: Area, most: usize) {
        let Some(batch) = &area.batch else { return };
        let mut committer = self.commit.lock();
        let mut state = self.state.write();
        self.kept.store((area.blocks.len() + area.leading.len()) as u64, Ordering::Release);
        state.most = most;
        // OK to cast: the superblock is at the begin of the device.
        state.always = vec![(SUPERBLOCK_OFFSET / self.block) as u32, batch.inode_block];
        committer.area = Some(area);
    }

    /// Forgets all that was kept back: the device is as it was.
    pub(crate) fn cancel(&self) {
        self.turn_off(&mut self.commit.lock(), &mut self.state.write());
    }

    /// Keeps nothing back from here on; gives the place where commits went.
    fn turn_off(&self, committer: &mut Committer, state: &mut State) -> Option<Area> {
        *state = State::default();
        self.kept.store(0, Ordering::Release);
        self.on.store(false, Ordering::Release);
        committer.area.take()
    }

    /// How many blocks are kept free for the log, while it keeps back.
    pub(crate) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Acquire)
    }

    /// The blocks of a batch, which are kept free from now on, or not; the last commit goes there all the same.
    pub(crate) fn set_kept(&self, is_kept: bool) -> Vec<u32> {
        let committer = self.commit.lock();
        let area = committer.area.as_ref().filter(|area| area.batch.is_some());
        let all: Vec<_> = area.into_iter().flat_map(|area| area.blocks.iter().chain(&area.leading)).collect();
        self.kept.store(if is_kept { all.len() as u64 } else { 0 }, Ordering::Release);
        all.into_iter().copied().collect()
    }

    /// The last commit: the device is the one below again. Nobody else stores to it meanwhile.
    pub(crate) fn end_batch(&self) -> Result<()> {
        let mut committer = self.commit.lock();
        while let Some(frozen) = self.freeze()? {
            self.run(&mut committer, &frozen, Last::Yes)?;
            let mut state = self.state.write();
            if state.dirty == 0 {
                self.turn_off(&mut committer, &mut state);
                return Ok(());
            }
        }
        Err(Error::Unsupported("the end of a log in the middle of a change"))
    }

    /// A commit, after which nothing is kept back, and the blocks that were kept free; none where a change is under way that
    /// must be whole, or another has given them. Waits for the end of a commit that is under way, unless that waits in turn for
    /// who may wait for locks of this thread.
    pub(crate) fn give_up(&self) -> Result<Option<Vec<u32>>> {
        self.givers.fetch_add(1, Ordering::SeqCst);
        let committer = loop {
            match self.commit.try_lock() {
                None if !self.is_awaited.load(Ordering::SeqCst) => crate::sync::pause(),
                committer => break committer,
            }
        };
        self.givers.fetch_sub(1, Ordering::SeqCst);
        let Some(mut committer) = committer else { return Ok(None) };
        // Another has done so since it was asked: there is nothing to give a second time.
        if !self.is_on() {
            return Ok(None);
        }
        let Some(frozen) = self.freeze()? else { return Ok(None) };
        self.run(&mut committer, &frozen, Last::No)?;
        let mut state = self.state.write();
        if state.dirty > 0 || self.holds.load(Ordering::Acquire) > 0 {
            return Ok(None);
        }
        // Contents that came after the commit, behind a fence that nobody waited for: their pointers are stored at once now.
        // Where this fails they may be lost, and no later flush is to say otherwise.
        self.or_fail(self.inner.flush())?;
        self.is_giving.store(true, Ordering::Release);
        let area = self.turn_off(&mut committer, &mut state);
        Ok(area.map(|area| area.blocks.into_iter().chain(area.leading).collect()))
    }

    /// Whether somebody gives the blocks back that were kept free, until `given_back`.
    pub(crate) fn is_giving(&self) -> bool {
        self.is_giving.load(Ordering::Acquire)
    }

    /// Those that [`give_up`](Self::give_up) gave are free.
    pub(crate) fn given_back(&self) {
        self.is_giving.store(false, Ordering::Release);
    }

    /// Brings what is frozen to the media, all or none of it after a crash.
    pub(super) fn commit_alone(&self, area: &Area, batch: &Batch, frozen: &Frozen, last: Last) -> Result<()> {
        let Frozen { number, blocks, .. } = frozen;
        let superblock = (SUPERBLOCK_OFFSET / self.block) as u32;
        let mut images = BTreeMap::new();
        let mut is_changed = last == Last::No;
        for (nr, bytes) in blocks {
            let (start, mut there) = (u64::from(*nr) * self.block, vec![0; bytes.len()]);
            let len = self.block.min(self.inner.size().saturating_sub(start)) as usize;
            self.inner.read_at(start, there.get_mut(..len).unwrap_or_default())?;
            let is_superblock = *nr == superblock;
            let differs = &there != bytes;
            is_changed |= differs && !(is_superblock && is_same_but_opened(&there, bytes, self.block));
            if differs || is_superblock || *nr == batch.inode_block {
                images.insert(*nr, bytes.as_slice());
            }
        }
        if blocks.is_empty() || !is_changed {
            // Contents may have been stored.
            self.inner.flush()?;
            self.forget(*number, blocks);
            return Ok(());
        }
        self.write_journal(area, batch, *number, &images)?;
        self.inner.flush()?;
        batch::name(&*self.inner, batch)?;
        self.inner.flush()?;
        let image = images.remove(&superblock).unwrap_or_default();
        for (nr, bytes) in images {
            self.put(nr, bytes)?;
        }
        self.inner.flush()?;
        let image = image.get((SUPERBLOCK_OFFSET % self.block) as usize..).unwrap_or_default();
        batch::settle(&*self.inner, image)?;
        self.inner.flush()?;
        self.forget(*number, blocks);
        // No journal is left that could be replayed.
        self.state.write().live.clear();
        Ok(())
    }

    /// Writes a whole journal, which nothing leads to.
    fn write_journal(
        &self,
        area: &Area,
        batch: &Batch,
        number: u32,
        images: &BTreeMap<u32, &[u8]>,
    ) -> Result<()> {
        let images: Vec<_> = images.iter().map(|(nr, bytes)| (*nr, *bytes)).collect();
        // OK to cast: a block has at most 64 KiB, and a log far fewer than 2^32 blocks.
        let log = record::whole(self.block as usize, area.blocks.len() as u32, number, BATCH, &images);
        if log.len() > area.blocks.len() {
            return Err(Error::Unsupported("a change that is larger than its log"));
        }
        area.blocks.iter().zip(&log).try_for_each(|(nr, bytes)| self.put(*nr, bytes))?;
        batch.map.leading.iter().try_for_each(|(nr, bytes)| self.put(*nr, bytes))
    }
}

/// Whether two images of the superblock's block differ in nothing but what an opening changes.
fn is_same_but_opened(before: &[u8], after: &[u8], block: u64) -> bool {
    let at = (SUPERBLOCK_OFFSET % block) as usize;
    let opened = at + OF_OPENING.start..at + OF_OPENING.end;
    let pairs = before.iter().zip(after).enumerate();
    pairs.filter(|(place, _)| !opened.contains(place)).all(|(_, (before, after))| before == after)
}
