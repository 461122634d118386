//! What a crash left in the log: the blocks that complete commits hold.
//!
//! Only a log of ours is replayed ([`MARK`]); the journal of a kernel's file system is e2fsck's.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use blockdev::{BlockDevice, Patched};
use zerocopy::{FromZeros, IntoBytes};

use super::record::{
    self, JOURNAL, MAGIC, MARK, MODE, S_LEN, S_MADE, S_MARK, S_SEQUENCE, S_START, big, copied,
};
use crate::BlockSize;
use crate::error::{Error, Result};
use crate::features::{CompatFeatures, IncompatFeatures};
use crate::fs::super_at;
use crate::raw::{RawInode, RawSuperblock, SUPERBLOCK_OFFSET};
#[cfg(feature = "write")]
use crate::sync::Mended;
use ext2_format::superblock::STATE_VALID;

/// What the journal's superblock says in the place of [`S_MADE`] where it was made for one transaction.
pub(super) const BRIEF: u8 = 2;
/// And where it holds a commit of a batch.
pub(super) const BATCH: u8 = 3;
/// The generation of inode 8 while it is such a journal's, so that what a crash leaves of it is known.
pub(super) const GENERATION: u32 = u32::from_le_bytes(*b"e2dx");

/// Whether inode 8 is such a journal's, or what a crash left of it, on an image with blocks of so many bytes: of a torn one any
/// words may be there and the others not.
pub(super) fn is_brief(raw: &RawInode, block_size: u64) -> bool {
    let size = u64::from(record::LEAST) * block_size;
    [0, GENERATION].contains(&raw.i_generation.get())
        && [0, MODE].contains(&raw.i_mode.get())
        && [0, size].contains(&u64::from(raw.i_size.get()))
        && raw.i_links_count.get() <= 1
        && raw.i_flags.get() == 0
        && raw.as_bytes().iter().any(|byte| *byte != 0)
}

/// Where in the superblock the head of the list of orphans is.
#[cfg(feature = "write")]
const LAST_ORPHAN: usize = core::mem::offset_of!(RawSuperblock, s_last_orphan);

/// What a log holds that has to be replayed.
#[derive(Debug)]
#[cfg_attr(not(feature = "write"), allow(dead_code))] // who only reads leaves the log as it is
pub(crate) struct Recovered {
    pub(crate) block_size: u64,
    /// The newest image of each block.
    pub(crate) blocks: BTreeMap<u32, Vec<u8>>,
    end: End,
}

/// What is left to do when everything is in its place.
#[derive(Debug)]
#[cfg_attr(not(feature = "write"), allow(dead_code))] // who only reads leaves the log as it is
enum End {
    /// To empty the log, whose superblock lies at byte `head`; `next` is the number after the last commit.
    Empty { head: u64, next: u32 },
    /// To take away what is left of a journal that was made for one transaction, and its inode at a byte of the device.
    Forget { inode: Option<u64> },
    /// To put the superblock in its place, which has no journal.
    Settle,
    /// To take away what the superblock has of a journal that does not hold.
    Unname,
}

/// The blocks of a journal in order, and those that only lead to them.
pub(super) fn walk(
    dev: &dyn BlockDevice,
    raw: &RawInode,
    block_size: u64,
    blocks_count: u32,
) -> Result<(Vec<u32>, Vec<u32>)> {
    record::blocks_of(raw, block_size, blocks_count, |nr| {
        let mut bytes = vec![0; block_size as usize];
        dev.read_at(u64::from(nr) * block_size, &mut bytes)?;
        Ok(bytes)
    })
}

/// Finds what is to be replayed; `None` where there is no need, or where the journal is not ours to replay.
pub(crate) fn recover(dev: &dyn BlockDevice) -> Result<Option<Recovered>> {
    let mut sb = RawSuperblock::new_zeroed();
    if dev.size() < SUPERBLOCK_OFFSET + size_of::<RawSuperblock>() as u64 {
        return Ok(None);
    }
    dev.read_at(SUPERBLOCK_OFFSET, sb.as_mut_bytes())?;
    let is_marked = sb.s_feature_incompat.get() & IncompatFeatures::RECOVER.bits() != 0;
    let has_journal = sb.s_feature_compat.get() & CompatFeatures::HAS_JOURNAL.bits() != 0;
    let is_named = sb.s_journal_inum.get() == JOURNAL.get();
    let is_clean = sb.s_state.get() & STATE_VALID != 0;
    // One that was made for a moment leaves something behind where there is no journal.
    let needs = sb.s_magic.get() == crate::raw::MAGIC
        && if has_journal { is_marked && is_named } else { is_marked || !is_clean };
    let (true, Some(size)) = (needs, BlockSize::from_s_log_block_size(sb.s_log_block_size.get())) else {
        return Ok(None);
    };
    let block_size = size.bytes();
    let mut raw = RawInode::new_zeroed();
    let end = dev.size() - size_of::<RawInode>() as u64;
    let inode = match inode_offset(dev, &sb, block_size) {
        // Whoever opens it says what is wrong.
        Ok(None) | Err(Error::Device(blockdev::Error::OutOfRange { .. })) => None,
        at => at?.filter(|at| *at <= end),
    };
    match inode {
        Some(at) => dev.read_at(at, raw.as_mut_bytes())?,
        None if has_journal => return Ok(None),
        None => {}
    }
    // Where the inode is no reserved one it is somebody's.
    let is_reserved = sb.s_rev_level.get() == 0 || sb.s_first_ino.get() > JOURNAL.get();
    let is_brief = is_reserved && is_brief(&raw, block_size);
    if !has_journal {
        let is_unnamed = record::is_left(&sb, &raw);
        let end = if is_unnamed { End::Unname } else { End::Forget { inode } };
        let left = Recovered { block_size, blocks: BTreeMap::new(), end };
        return Ok((is_brief || is_unnamed).then_some(left));
    }
    if raw.i_links_count.get() == 0
        && let Some(copy) = copied(&sb)
    {
        raw = copy;
    }
    // OK to cast: at most what it has now. No journal is worth more memory than the device has bytes.
    let blocks_count = u64::from(sb.s_blocks_count.get()).min(dev.size().div_ceil(block_size)) as u32;
    let (blocks, _) = walk(dev, &raw, block_size, blocks_count)?;
    let load = |n: usize| -> Result<Vec<u8>> {
        let mut bytes = vec![0; block_size as usize];
        let nr = blocks.get(n).copied().unwrap_or_default();
        dev.read_at(u64::from(nr) * block_size, &mut bytes)?;
        Ok(bytes)
    };
    let Some(&head_block) = blocks.first() else { return Ok(None) };
    let head = load(0)?;
    if big(&head, 0) != MAGIC || head.get(S_MARK..S_MARK + MARK.len()) != Some(MARK.as_slice()) {
        return Ok(None);
    }
    let (first, start) = (big(&head, S_SEQUENCE), big(&head, S_START) as usize);
    let made = head.get(S_MADE);
    // A kernel that used the journal meanwhile left the mark as it was.
    if start != 0 && !matches!(made, Some(&(BRIEF | BATCH))) && record::is_foreign(&load(start)?, first) {
        return Ok(None);
    }
    // The inode may have more blocks than are in use.
    let len = blocks.len().min(big(&head, S_LEN) as usize);
    let (found, next) = record::replayed(len, start, first, blocks_count, load)?;
    let end = match made {
        Some(&BRIEF) => End::Forget { inode: inode.filter(|_| is_brief) },
        Some(&BATCH) => End::Settle,
        _ => End::Empty { head: u64::from(head_block) * block_size, next },
    };
    Ok(Some(Recovered { block_size, blocks: found, end }))
}

/// Where the journal's inode lies, in bytes.
fn inode_offset(dev: &dyn BlockDevice, sb: &RawSuperblock, block_size: u64) -> Result<Option<u64>> {
    let inode_size = if sb.s_rev_level.get() == 0 { 128 } else { u64::from(sb.s_inode_size.get()) };
    let index = u64::from(JOURNAL.get()) - 1;
    if u64::from(sb.s_inodes_per_group.get()) <= index {
        return Ok(None);
    }
    // The table of the first group is the third word of the first descriptor.
    let descriptor = (u64::from(sb.s_first_data_block.get()) + 1) * block_size;
    let table = u64::from(dev.read_u32(descriptor + 8)?);
    Ok(Some(table * block_size + index * inode_size))
}

#[cfg(feature = "write")]
impl Recovered {
    /// Puts everything in its place, and empties the log. Linux: `jbd2_journal_recover`.
    pub(crate) fn apply(mut self, dev: &dyn BlockDevice) -> Result<()> {
        if !self.blocks.is_empty() {
            log::info!("{} blocks are replayed from the log", self.blocks.len());
        }
        if let End::Forget { inode: Some(at) } = self.end
            && !Mended::InodeReplayedFirst.is_back()
        {
            self.keep_inode(dev, at)?;
        }
        let is_whole = matches!(self.end, End::Empty { .. });
        let mut superblock: &[u8] = &[];
        for (nr, bytes) in &self.blocks {
            if !is_whole && u64::from(*nr) == SUPERBLOCK_OFFSET / self.block_size {
                // It differs in what goes last, store by store.
                superblock = bytes.get((SUPERBLOCK_OFFSET % self.block_size) as usize..).unwrap_or_default();
                continue;
            }
            let start = u64::from(*nr) * self.block_size;
            let len = self.block_size.min(dev.size().saturating_sub(start)) as usize;
            dev.write_at(start, bytes.get(..len).unwrap_or_default())?;
        }
        if let (End::Forget { .. }, Some(four)) = (&self.end, superblock.get(LAST_ORPHAN..LAST_ORPHAN + 4)) {
            // A word that its transaction may have.
            dev.write_at(super_at!(s_last_orphan), four)?;
        }
        dev.flush()?;
        let (head, next) = match self.end {
            End::Empty { head, next } => (head, next),
            End::Settle => {
                super::batch::settle(dev, superblock)?;
                return Ok(dev.flush()?);
            }
            End::Unname => {
                super::batch::forget(dev)?;
                return Ok(dev.flush()?);
            }
            End::Forget { inode } => {
                let at = super_at!(s_feature_compat);
                let features = dev.read_u32(at)? & !CompatFeatures::HAS_JOURNAL.bits();
                dev.write_u32(at, features)?;
                dev.flush()?;
                super::brief::forget(dev, inode)?;
                return Ok(dev.flush()?);
            }
        };
        let mut words = [0; 8];
        record::put(&mut words, 0, next);
        dev.write_at(head + S_SEQUENCE as u64, &words)?;
        dev.flush()?;
        let at = super_at!(s_feature_incompat);
        let features = dev.read_u32(at)? & !IncompatFeatures::RECOVER.bits();
        dev.write_u32(at, features)?;
        dev.flush()?;
        Ok(())
    }

    /// Leaves the inode of the journal, at byte `at`, as it is on the device. Its transaction has the block of the table
    /// as it was before there was that journal; but the power may fail again before all blocks are in their place.
    fn keep_inode(&mut self, dev: &dyn BlockDevice, at: u64) -> Result<()> {
        // OK to cast: it lies among the blocks of the file system.
        let (nr, within) = ((at / self.block_size) as u32, (at % self.block_size) as usize);
        let block = self.blocks.get_mut(&nr);
        match block.and_then(|block| block.get_mut(within..within + size_of::<RawInode>())) {
            Some(place) => Ok(dev.read_at(at, place)?),
            None => Ok(()),
        }
    }
}

impl Recovered {
    /// The device as it is when this is applied, in memory alone.
    pub(super) fn over(mut self, dev: Arc<dyn BlockDevice>) -> Result<Patched<Arc<dyn BlockDevice>>> {
        // What is replayed needs no recovery any more.
        let at = super_at!(s_feature_incompat);
        // OK to cast: the superblock is at the begin of the device.
        let (nr, within) = ((at / self.block_size) as u32, (at % self.block_size) as usize);
        let mut head = match self.blocks.remove(&nr) {
            Some(newer) => newer,
            None => {
                let mut there = vec![0; self.block_size as usize];
                dev.read_at(u64::from(nr) * self.block_size, &mut there)?;
                there
            }
        };
        if let Some(word) = head.get_mut(within) {
            // OK to cast: the lowest byte.
            *word &= !(IncompatFeatures::RECOVER.bits() as u8);
        }
        self.blocks.insert(nr, head);
        Ok(Patched::new(dev, self.block_size, self.blocks))
    }
}
