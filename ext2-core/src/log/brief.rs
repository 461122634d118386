//! A journal for one transaction, on an image that has none.
//!
//! Two words that have to change together, in two blocks, need a transaction, and a transaction needs a journal. This one
//! is made of a few free blocks, is the file system's for a moment, and holds, among the blocks that change, the block
//! of the superblock as it is without it: whoever replays it takes it away by that.
//!
//! | state | what `e2fsck -p` does |
//! |---|---|
//! | inode 8 is there, or a part of it | clears it: "journal inode is not in use, but contains data" |
//! | and `needs_recovery`, `s_journal_inum`, one or both | clears them: "has_journal flag is clear, but a journal is present" |
//! | and `has_journal`: the one store that commits | replays it; there is no journal after that |
//! | all in place, and `has_journal` gone | as before that store |
//!
//! e2fsck and Linux want 1024 blocks in a journal. The inode has so many; those past the transaction's own are one and
//! the same, again and again, and the journal's superblock says how many are in use. Linux refuses a journal that short,
//! so that it never goes on with this one.
//!
//! # Invariants
//! 1. `has_journal` is there only while the transaction is whole and everything that leads to it is durable.
//! 2. Nobody else stores into the blocks that it holds (see `fs/stores.rs`).

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use blockdev::BlockDevice;
use zerocopy::{FromZeros, IntoBytes};

use super::record::{self, COMMIT, JOURNAL, LEAST, MODE};
use super::replay::{BRIEF, GENERATION, is_brief};
use crate::balloc::{Blocks, Request, Role};
use crate::error::{Error, Result, refuse};
use crate::features::{CompatFeatures, IncompatFeatures};
use crate::fs::{Fs, super_at};
use crate::order::Barrier;
use crate::raw::{RawInode, SUPERBLOCK_OFFSET};
use crate::sync::Mended;
use crate::{Errno, GroupNr};

/// The most blocks that a transaction changes, the superblock's among them.
const MOST_IMAGES: usize = 4;
/// Blocks of a transaction: the journal's superblock, a descriptor, the images, a commit. The inode points to each itself.
const LOG: usize = MOST_IMAGES + 3;
const _: () = assert!(LOG <= 12);

/// Takes what leads to such a journal away: from the superblock, then, durably after that, inode 8 if it lies at byte
/// `inode` of the device. The journal does not hold, or no more: there is no `has_journal`.
pub(super) fn forget(dev: &dyn BlockDevice, inode: Option<u64>) -> Result<()> {
    let incompat = dev.read_u32(super_at!(s_feature_incompat))?;
    dev.write_u32(super_at!(s_feature_incompat), incompat & !IncompatFeatures::RECOVER.bits())?;
    dev.write_u32(super_at!(s_journal_inum), 0)?;
    Barrier::BriefForgotten.fence(dev)?;
    match inode {
        Some(inode) => Ok(dev.write_at(inode, RawInode::new_zeroed().as_bytes())?),
        None => Ok(()),
    }
}

/// The blocks of such a journal, taken and not yet used.
#[derive(Debug)]
pub(crate) struct Brief {
    guard: Blocks,
    log: Vec<u32>,
    leading: Vec<u32>,
    /// Where inode 8 lies on the device, in bytes.
    inode: u64,
}

/// A transaction that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// A replay of what is on the device may have to end it.
    pub(crate) is_unsettled: bool,
}

impl Brief {
    /// Takes the blocks; `None` where there can be no such journal, since its inode is in use.
    ///
    /// # Errors
    /// `ENOSPC`, `Corrupt`, the device's.
    pub(crate) fn reserve(fs: &Arc<Fs>) -> Result<Option<Self>> {
        let sb = &fs.sb;
        if sb.first_ino <= JOURNAL.get()
            || sb.inodes_per_group < JOURNAL.get()
            || sb.features.compat.contains(CompatFeatures::HAS_JOURNAL)
        {
            return Ok(None);
        }
        let inode = fs.inode_offset(JOURNAL)?;
        let mut raw = RawInode::new_zeroed();
        fs.dev.read_at(inode, raw.as_mut_bytes())?;
        if raw.i_mode.get() != 0 && !is_brief(&raw, sb.block_size.bytes()) {
            return Ok(None);
        }
        let per_block = fs.geo.block_size.bytes() / 4;
        let leading = 1 + usize::from(12 + per_block < u64::from(LEAST));
        if fs.free_blocks_now()? < (LOG + leading) as u64 {
            return refuse(Errno::NOSPC, "no room for a journal");
        }
        fs.need_dynamic_revision()?;
        let mut guard = Blocks::new(fs);
        let mut taken = Vec::new();
        let home = fs.geo.group_of_inode(JOURNAL).map_or(GroupNr::new(0), |(group, _)| group);
        while taken.len() < LOG + leading {
            let request = Request {
                owner: JOURNAL,
                home,
                goal: taken.last().map_or(fs.geo.group_start(home), |last| last + 1),
                count: (LOG + leading - taken.len()) as u32,
                role: Role::Meta,
                window: None,
            };
            let (run, _) = fs.take(&request)?;
            guard.push(run);
            taken.extend((0..run.len).map(|nr| run.block(nr)));
        }
        let leading = taken.split_off(LOG);
        Ok(Some(Self { guard, log: taken, leading, inode }))
    }

    /// Stores words at places of the device, all or none of them after a crash. The caller has [`Fs`]'s `stores` exclusive.
    pub(crate) fn store(&self, fs: &Fs, words: &[(u64, u32)]) -> core::result::Result<(), Failed> {
        let mut step = Step::Making;
        self.run(fs, words, &mut step).or_else(|error| {
            let is_back = match step {
                Step::Making => true,
                Step::Named | Step::Ended => fs.losing(true, || forget(&*fs.dev, Some(self.inode))).is_ok(),
                Step::Committed => false,
            };
            match step {
                // All is in its place, and nothing is left of the journal.
                Step::Ended if is_back && !Mended::DoneIsUndone.is_back() => Ok(()),
                _ => Err(Failed { error, is_unsettled: !is_back }),
            }
        })
    }

    /// Keeps its blocks: somebody may replay it.
    pub(crate) fn keep(self) {
        self.guard.keep();
    }

    fn run(&self, fs: &Fs, words: &[(u64, u32)], step: &mut Step) -> Result<()> {
        let (dev, known) = (&*fs.dev, fs.losses.count());
        self.write_log(fs, &images(fs, words)?)?;
        *step = Step::Named;
        self.write_inode(fs)?;
        fs.fence_since(Barrier::BriefWritten, known)?;
        let compat = dev.read_u32(super_at!(s_feature_compat))?;
        let incompat = dev.read_u32(super_at!(s_feature_incompat))?;
        dev.write_u32(super_at!(s_feature_incompat), incompat | IncompatFeatures::RECOVER.bits())?;
        dev.write_u32(super_at!(s_journal_inum), JOURNAL.get())?;
        fs.fence_since(Barrier::BriefNamed, known)?;
        *step = Step::Committed;
        dev.write_u32(super_at!(s_feature_compat), compat | CompatFeatures::HAS_JOURNAL.bits())?;
        fs.fence_since(Barrier::TogetherHeld, known)?;
        for &(at, word) in words {
            dev.write_u32(at, word)?;
        }
        fs.fence_since(Barrier::TogetherPlaced, known)?;
        dev.write_u32(super_at!(s_feature_compat), compat)?;
        fs.fence_since(Barrier::BriefEnded, known)?;
        *step = Step::Ended;
        fs.losing(true, || forget(dev, Some(self.inode)))
    }

    fn write_log(&self, fs: &Fs, images: &BTreeMap<u32, Vec<u8>>) -> Result<()> {
        let len = fs.geo.block_size.len();
        let sequence = fs.new_sequence();
        let images: Vec<_> = images.iter().map(|(nr, bytes)| (*nr, bytes.as_slice())).collect();
        // The inode's other blocks are the last of these, which ends the log.
        let mut blocks = record::whole(len, LOG as u32, sequence, BRIEF, &images);
        blocks.resize(LOG, Cow::Owned(record::block(len, COMMIT, sequence)));
        for (nr, bytes) in self.log.iter().zip(&blocks) {
            fs.dev.write_at(u64::from(*nr) * len as u64, bytes)?;
        }
        // All of the last indirect block leads to that one, and all of the one above it to the last.
        let mut below = self.log.last().copied().unwrap_or_default();
        for &nr in &self.leading {
            let bytes: Vec<u8> = (0..len / 4).flat_map(|_| below.to_le_bytes()).collect();
            fs.dev.write_at(u64::from(nr) * len as u64, &bytes)?;
            below = nr;
        }
        Ok(())
    }

    fn write_inode(&self, fs: &Fs) -> Result<()> {
        let size = fs.geo.block_size.bytes();
        let last = self.log.last().copied().unwrap_or_default();
        let seconds = fs.clock.now().encode(false).0;
        let mut raw = RawInode::new_zeroed();
        raw.i_mode = MODE.into();
        raw.i_links_count = 1.into();
        raw.i_generation = GENERATION.into();
        raw.i_size = (LEAST * size as u32).into();
        raw.i_blocks = ((LOG + self.leading.len()) as u32 * (size / 512) as u32).into();
        (raw.i_atime, raw.i_ctime, raw.i_mtime) = (seconds.into(), seconds.into(), seconds.into());
        let direct = self.log.iter().copied().chain(core::iter::repeat(last)).take(12);
        for (slot, block) in raw.i_block.iter_mut().zip(direct.chain(self.leading.iter().copied())) {
            *slot = block.into();
        }
        Ok(fs.dev.write_at(self.inode, raw.as_bytes())?)
    }
}

/// How far a transaction is.
enum Step {
    /// Nothing leads to the journal.
    Making,
    /// Something does, and it does not hold.
    Named,
    /// It may hold.
    Committed,
    /// It has held, and does no more.
    Ended,
}

/// The blocks that words change, and the superblock's, as they are to be.
fn images(fs: &Fs, words: &[(u64, u32)]) -> Result<BTreeMap<u32, Vec<u8>>> {
    let size = fs.geo.block_size.bytes();
    let mut images = BTreeMap::new();
    let places = words.iter().map(|(at, _)| *at).chain([SUPERBLOCK_OFFSET]);
    for at in places {
        let mut bytes = vec![0; size as usize];
        fs.dev.read_at(at / size * size, &mut bytes)?;
        // OK to cast: a file system has at most 2^32 blocks.
        images.insert((at / size) as u32, bytes);
    }
    for &(at, word) in words {
        let within = (at % size) as usize;
        if let Some(place) =
            images.get_mut(&((at / size) as u32)).and_then(|block| block.get_mut(within..within + 4))
        {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }
    Ok(images)
}
