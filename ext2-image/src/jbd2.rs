//! The journal of ext3 and ext4 (jbd2): bringing back what it holds.
//!
//! A journal is a file, inode 8, whose blocks are a ring: descriptors that name blocks, copies of these, revocations, and
//! commits that end a transaction. What the last mount did not write to its place is in committed transactions; they are
//! written there in their order, and the journal is empty then. Linux: fs/jbd2/recovery.c.
//!
//! # Invariants
//! 1. Nothing of a transaction is written whose commit is not there, or whose checksums say that it is broken.
//! 2. A block that a later transaction revokes is not written by an earlier one.
//! 3. The journal is emptied when all else is durable; a replay that ends before that is done again from the start.
//! 4. No journal makes a replay leave the file system, or take more memory than a few bytes for each block of the journal.

mod block;
mod ring;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::raw::{MAGIC, RawSuperblock, SUPERBLOCK_OFFSET};
use ext2_core::{CompatFeatures, Corrupt, IncompatFeatures, Incompatible, Object, Result};
use zerocopy::{FromZeros, IntoBytes};

use block::{Kind, Log};
use ring::Ring;

/// What a replay did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replay {
    /// Transactions that were in the journal.
    pub transactions: u64,
    /// Blocks that were written to their places.
    pub blocks: u64,
    /// Copies of blocks that were left, since a later transaction gave the block up.
    pub revoked: u64,
    /// Why the journal was not followed to its end, or what of it was left out.
    pub broken: Option<String>,
}

fn corrupt<T>(what: impl Into<String>) -> Result<T> {
    Err(Corrupt::new(Object::Superblock, what).into())
}

fn superblock(dev: &dyn BlockDevice) -> Result<RawSuperblock> {
    let mut raw = RawSuperblock::new_zeroed();
    if dev.size() < SUPERBLOCK_OFFSET + 1024 {
        return corrupt(format!("a device of {} bytes has none", dev.size()));
    }
    dev.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
    if raw.s_magic.get() != MAGIC {
        return corrupt(format!("magic number is {:#06x} and not {MAGIC:#06x}", raw.s_magic.get()));
    }
    Ok(raw)
}

/// Whether an image says that its journal has to be replayed (`needs_recovery`).
///
/// # Errors
/// `Corrupt` when there is no superblock, the device's errors.
pub fn needs_replay(dev: &dyn BlockDevice) -> Result<bool> {
    Ok(is_marked(&superblock(dev)?))
}

/// Whether the journal lies on a device of its own, which only its UUID names.
pub(crate) fn is_elsewhere(raw: &RawSuperblock) -> bool {
    has_feature(raw) && raw.s_journal_inum.get() == 0 && raw.s_journal_uuid != [0; 16]
}

/// Whether the superblock of an image can be used: what keeps its journal from being replayed is the journal's then.
pub(crate) fn is_usable(dev: &dyn BlockDevice, raw: &RawSuperblock) -> bool {
    ring::geometry(dev, raw).is_ok()
}

/// Refuses a journal on a device of its own.
pub(crate) fn elsewhere() -> ext2_core::Error {
    Incompatible::Feature("journal on another device".into()).into()
}

/// Whether the inode of the journal begins with the superblock of one that lies in it. One with features that are not known is
/// refused.
pub(crate) fn has_superblock(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<bool> {
    match Ring::open(dev, raw) {
        Ok(_) => Ok(true),
        Err(ext2_core::Error::Corrupt(_)) => Ok(false),
        // What is not known here, or cannot be read now, may be sound.
        Err(error) => Err(error),
    }
}

/// Whether what should be a journal begins as one, of a version that is not known.
pub(crate) fn has_unknown_version(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<bool> {
    match ring::version(dev, raw) {
        Ok(version) => {
            Ok(version.is_some_and(|version| !ring::is_known(version) && !ring::is_of_log(version)))
        }
        Err(ext2_core::Error::Device(error)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// Whether the copy of the journal's map in the superblock leads to a journal.
pub(crate) fn has_kept_map(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<bool> {
    match Ring::open_by_backup(dev, raw) {
        Ok(_) => Ok(true),
        Err(ext2_core::Error::Device(error)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// Whether a journal whose superblock is of version 1 has features or users, which only version 2 knows.
pub(crate) fn has_later_fields(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<bool> {
    match Ring::open(dev, raw) {
        Ok(ring) => Ok(ring.has_later_fields()),
        Err(ext2_core::Error::Device(error)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// Fills the superblock of a journal with zeros behind what version 1 has.
pub(crate) fn clear_later_fields(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<()> {
    Ring::open(dev, raw)?.clear_later_fields(dev)
}

/// How many file systems the superblock of a journal in an image says it has; it can have one.
pub(crate) fn users(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<u32> {
    match Ring::open(dev, raw) {
        Ok(ring) => Ok(ring.users()),
        Err(ext2_core::Error::Device(error)) => Err(error.into()),
        Err(_) => Ok(0),
    }
}

/// Makes the superblock of a journal say that one file system has it.
pub(crate) fn set_one_user(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<()> {
    Ring::open(dev, raw)?.set_one_user(dev)
}

/// Whether a superblock says that its journal has to be replayed.
fn is_marked(raw: &RawSuperblock) -> bool {
    raw.s_feature_incompat.get() & IncompatFeatures::RECOVER.bits() != 0
}

fn has_feature(raw: &RawSuperblock) -> bool {
    raw.s_feature_compat.get() & CompatFeatures::HAS_JOURNAL.bits() != 0
}

/// Opens the journal by its inode, or by the copy of that one's map: what is wrong with the inode may be mended by the journal
/// itself.
fn open(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<Ring> {
    Ring::open(dev, raw).or_else(|error| match error {
        ext2_core::Error::Corrupt(_) => Ring::open_by_backup(dev, raw).map_err(|_| error),
        _ => Err(error),
    })
}

/// Whether a superblock says that its journal has to be replayed, and what it names, though it can be looked for, is none.
pub(crate) fn is_marked_in_vain(dev: &dyn BlockDevice, raw: &RawSuperblock) -> bool {
    is_marked(raw)
        && !is_elsewhere(raw)
        && ring::leads_to_inode(dev, raw)
        && matches!(open(dev, raw), Err(ext2_core::Error::Corrupt(_)))
}

/// Whether the journal holds transactions, though the superblock does not say that they have to be brought back: so it is with a
/// backup of it, whom nobody told. A kernel empties such a journal unread.
pub(crate) fn is_full_unmarked(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<bool> {
    if is_marked(raw) || !has_feature(raw) {
        return Ok(false);
    }
    match open(dev, raw) {
        Ok(ring) => Ok(ring.start != 0),
        Err(ext2_core::Error::Device(error)) => Err(error.into()),
        // A check tells what is wrong with a journal that nobody needs.
        Err(_) => Ok(false),
    }
}

/// Writes what the journal holds to its places and empties the journal; `None` where the superblock does not say that there is
/// something to replay.
///
/// # Errors
/// `Corrupt` when journal or superblock cannot be followed at all, `Incompatible` for a journal on another device or with
/// features that are not known, the device's errors. After one nothing of the journal is given up.
pub fn replay(dev: &dyn BlockDevice) -> Result<Option<Replay>> {
    let raw = superblock(dev)?;
    // Where only the feature was lost, a mark and a number still tell of the journal.
    let has_journal = has_feature(&raw) || raw.s_journal_inum.get() != 0;
    if !is_marked(&raw) || !has_journal {
        return Ok(None);
    }
    bring_back(dev, open(dev, &raw)?).map(Some)
}

/// As [`replay`], where [`is_full_unmarked`].
pub(crate) fn replay_unmarked(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<Replay> {
    bring_back(dev, open(dev, raw)?)
}

fn bring_back(dev: &dyn BlockDevice, ring: Ring) -> Result<Replay> {
    let mut done = Replay::default();
    let mut next = ring.sequence;
    if ring.start != 0 && ring.fast_commits {
        return Err(Incompatible::Feature("fast_commit of the journal".into()).into());
    }
    if ring.start != 0 {
        next = write_back(dev, &ring, &mut done)?;
        dev.flush()?;
    }
    let errno = ring.empty(dev, next)?;
    // The journal may have held the superblock: it is read again.
    let mut raw = superblock(dev)?;
    raw.s_feature_incompat = (raw.s_feature_incompat.get() & !IncompatFeatures::RECOVER.bits()).into();
    if errno != 0 {
        raw.s_state = (raw.s_state.get() | ext2_core::rules::STATE_ERROR).into();
    }
    dev.write_at(SUPERBLOCK_OFFSET, raw.as_bytes())?;
    dev.flush()?;
    Ok(done)
}

/// A transaction: its number, and the place in the ring at which it begins.
type Transaction = (u32, u32);

/// Finds the committed transactions, and writes them back; gives the number after the last.
fn write_back(dev: &dyn BlockDevice, ring: &Ring, done: &mut Replay) -> Result<u32> {
    let log = Log::new(dev, ring);
    let (transactions, end) = scan(&log, ring, done)?;
    done.transactions = transactions.len() as u64;
    let revoked = revocations(&log, ring, &transactions)?;
    let mut bytes = vec![0; ring.block_size];
    // A hostile journal has copies of its own blocks, which become other records on the way.
    let mut left = u64::from(ring.len());
    for &(sequence, start) in &transactions {
        let mut at = start;
        while let Some(block) = log.read(at, sequence)?.filter(|_| left > 0) {
            at = ring.after(at, 1);
            left -= 1;
            match block.kind {
                Kind::Descriptor => {
                    for tag in log.tags(&block.bytes) {
                        let from = at;
                        at = ring.after(at, 1);
                        left = left.saturating_sub(1);
                        if revoked.get(&tag.block).is_some_and(|&last| !is_before(last, sequence)) {
                            done.revoked += 1;
                            continue;
                        }
                        log.read_bytes(from, &mut bytes)?;
                        if !log.is_whole(&tag, sequence, &bytes) {
                            done.broken =
                                Some(format!("block {} of transaction {sequence} is broken", tag.block));
                            continue;
                        }
                        if tag.escaped {
                            let magic = block::JOURNAL_MAGIC.to_be_bytes();
                            bytes.get_mut(..4).unwrap_or_default().copy_from_slice(&magic);
                        }
                        match ring.place(tag.block) {
                            Some(offset) => dev.write_at(offset, &bytes)?,
                            None => {
                                done.broken = Some(format!(
                                    "transaction {sequence} has block {}, which is outside",
                                    tag.block
                                ));
                                continue;
                            }
                        }
                        done.blocks += 1;
                    }
                }
                Kind::Commit => break,
                Kind::Revocation => {}
            }
        }
    }
    Ok(end)
}

/// Whether a transaction is older than another (Linux: `tid_gt`): their numbers go round.
fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// The transactions that were committed, and the number after the last.
fn scan(log: &Log<'_>, ring: &Ring, done: &mut Replay) -> Result<(Vec<Transaction>, u32)> {
    let mut transactions = Vec::new();
    let (mut at, mut start, mut sequence) = (ring.start, ring.start, ring.sequence);
    let mut sum = !0;
    // No journal has more blocks in use than it has.
    let mut left = u64::from(ring.len());
    let mut whole = true;
    while let Some(block) = log.read(at, sequence)? {
        at = ring.after(at, 1);
        left = left.saturating_sub(1);
        match block.kind {
            Kind::Descriptor => {
                if !log.has_tail_sum(&block.bytes) {
                    done.broken = Some(format!("the descriptor in block {at} of the journal is broken"));
                    break;
                }
                let count = log.tags(&block.bytes).len() as u64;
                if ring.sums_transactions {
                    sum = crate::crc::crc32_be(sum, &block.bytes);
                    let mut bytes = vec![0; ring.block_size];
                    for nr in 0..count.min(left) {
                        log.read_bytes(ring.after(at, nr), &mut bytes)?;
                        sum = crate::crc::crc32_be(sum, &bytes);
                    }
                }
                at = ring.after(at, count);
                left = left.saturating_sub(count);
            }
            Kind::Revocation => whole &= log.has_tail_sum(&block.bytes),
            Kind::Commit => {
                if !whole || !log.is_commit_whole(&block.bytes, sum) {
                    done.broken = Some(format!("transaction {sequence} is broken"));
                    break;
                }
                transactions.push((sequence, start));
                sequence = sequence.wrapping_add(1);
                start = at;
                sum = !0;
            }
        }
        if left == 0 {
            break;
        }
    }
    Ok((transactions, sequence.wrapping_add(1)))
}

/// For each block that was revoked the last transaction that did it.
fn revocations(log: &Log<'_>, ring: &Ring, transactions: &[Transaction]) -> Result<BTreeMap<u64, u32>> {
    let mut revoked = BTreeMap::new();
    for &(sequence, start) in transactions {
        let mut at = start;
        while let Some(block) = log.read(at, sequence)? {
            at = ring.after(at, 1);
            match block.kind {
                Kind::Descriptor => at = ring.after(at, log.tags(&block.bytes).len() as u64),
                Kind::Commit => break,
                Kind::Revocation => {
                    for block in log.revoked(&block.bytes) {
                        revoked.insert(block, sequence);
                    }
                }
            }
        }
    }
    Ok(revoked)
}
