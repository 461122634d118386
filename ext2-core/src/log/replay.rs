//! What a crash left in the log: the blocks that complete commits hold.
//!
//! Only a log of ours is replayed ([`MARK`]); the journal of a kernel's file system is e2fsck's.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use blockdev::BlockDevice;
use zerocopy::{FromZeros, IntoBytes};

use super::record::{
    self, COMMIT, DESCRIPTOR, JOURNAL, MAGIC, MARK, S_MADE, S_MARK, S_SEQUENCE, S_START, big,
};
use crate::BlockSize;
use crate::error::{Corrupt, Error, Object, Result};
use crate::features::{CompatFeatures, IncompatFeatures};
#[cfg(feature = "write")]
use crate::fs::super_at;
use crate::raw::{RawInode, RawSuperblock, SUPERBLOCK_OFFSET};
use ext2_format::superblock::STATE_VALID;

/// What the journal's superblock says in the place of [`S_MADE`] where it was made for one transaction.
pub(super) const BRIEF: u8 = 2;
/// The generation of inode 8 while it is such a journal's, so that what a crash leaves of it is known.
pub(super) const GENERATION: u32 = u32::from_le_bytes(*b"e2dx");
/// Its mode: a file that is root's.
pub(super) const MODE: u16 = 0o100_600;

/// Whether inode 8 is such a journal's, or what a crash left of it, on an image with blocks of so many bytes.
pub(super) fn is_brief(raw: &RawInode, block_size: u64) -> bool {
    let is_named = raw.i_generation.get() == GENERATION;
    // Of a torn one the word with its mode and size may be there, and not the one with its generation.
    is_named
        || raw.i_mode.get() == MODE && u64::from(raw.i_size.get()) == u64::from(record::LEAST) * block_size
}

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
}

fn broken<T>(what: alloc::string::String) -> Result<T> {
    Err(Corrupt::new(Object::Inode(JOURNAL), what).into())
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
    let is_brief = is_brief(&raw, block_size);
    if !has_journal {
        let left = Recovered { block_size, blocks: BTreeMap::new(), end: End::Forget { inode } };
        return Ok(is_brief.then_some(left));
    }
    let (blocks, _) = walk(dev, &raw, block_size, sb.s_blocks_count.get())?;
    let load = |n: usize| -> Result<Vec<u8>> {
        let mut bytes = vec![0; block_size as usize];
        let nr = blocks.get(n).copied().unwrap_or_default();
        dev.read_at(u64::from(nr) * block_size, &mut bytes)?;
        Ok(bytes)
    };
    let Some(&first) = blocks.first() else { return Ok(None) };
    let head = load(0)?;
    if big(&head, 0) != MAGIC || head.get(S_MARK..S_MARK + MARK.len()) != Some(MARK.as_slice()) {
        return Ok(None);
    }
    let (mut next, start) = (big(&head, S_SEQUENCE), big(&head, S_START) as usize);
    let mut found = BTreeMap::new();
    if start >= blocks.len() {
        return broken(format!("its journal begins at block {start}"));
    }
    let (mut at, mut steps) = (start, 0);
    let mut pending = Vec::new();
    let forward = |at: usize| if at + 1 == blocks.len() { 1 } else { at + 1 };
    while start != 0 && steps < blocks.len() {
        let record = load(at)?;
        if big(&record, 0) != MAGIC || big(&record, 8) != next {
            break;
        }
        (at, steps) = (forward(at), steps + 1);
        match big(&record, 4) {
            DESCRIPTOR => {
                for (nr, escaped) in record::tags(&record) {
                    let mut bytes = load(at)?;
                    if escaped {
                        record::put(&mut bytes, 0, MAGIC);
                    }
                    if nr >= sb.s_blocks_count.get() {
                        return broken(format!("its log names block {nr}"));
                    }
                    pending.push((nr, bytes));
                    (at, steps) = (forward(at), steps + 1);
                }
            }
            COMMIT => {
                found.extend(pending.drain(..));
                next = next.wrapping_add(1);
            }
            _ => break,
        }
    }
    let end = match head.get(S_MADE) {
        Some(&BRIEF) => End::Forget { inode: inode.filter(|_| is_brief) },
        _ => End::Empty { head: u64::from(first) * block_size, next },
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
    pub(crate) fn apply(self, dev: &dyn BlockDevice) -> Result<()> {
        if !self.blocks.is_empty() {
            log::info!("{} blocks are replayed from the log", self.blocks.len());
        }
        let is_brief = matches!(self.end, End::Forget { .. });
        for (nr, bytes) in &self.blocks {
            if is_brief && u64::from(*nr) == SUPERBLOCK_OFFSET / self.block_size {
                // It differs in what goes last, store by store, and in a word that a transaction may have.
                let at = super_at!(s_last_orphan);
                let within = (at % self.block_size) as usize;
                if let Some(Ok(word)) = bytes.get(within..within + 4).map(<[u8; 4]>::try_from) {
                    dev.write_u32(at, u32::from_le_bytes(word))?;
                }
                continue;
            }
            let start = u64::from(*nr) * self.block_size;
            let len = self.block_size.min(dev.size().saturating_sub(start)) as usize;
            dev.write_at(start, bytes.get(..len).unwrap_or_default())?;
        }
        dev.flush()?;
        let (head, next) = match self.end {
            End::Empty { head, next } => (head, next),
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
}

#[cfg(test)]
impl Recovered {
    /// These blocks, of a log that lies nowhere.
    pub(super) fn of_blocks(block_size: u64, blocks: BTreeMap<u32, Vec<u8>>) -> Self {
        Self { block_size, blocks, end: End::Empty { head: 0, next: 0 } }
    }
}
