//! The file that is the journal, and its superblock.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::mem::offset_of;

use blockdev::BlockDevice;
use ext2_core::raw::{RawGroupDesc, RawInode, RawSuperblock};
use ext2_core::{Geometry, GroupNr, Incompatible, Result, Superblock};
use zerocopy::{FromZeros, IntoBytes};

use super::block::{JOURNAL_MAGIC, big};
use super::corrupt;
use crate::check::superblock::OF_FILES;
use crate::crc::crc32c;

/// Incompatible features of a journal: revocations, 64-bit numbers, commits that do not wait, checksums of version 2 and 3, fast
/// commits.
const KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | FAST_COMMIT;
const LARGE: u32 = 0x2;
const SUMS_2: u32 = 0x8;
const SUMS_3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
/// Compatible: a checksum for each transaction.
const SUMS_1: u32 = 0x1;
/// `s_checksum_type`.
const CRC_32C: u8 = 4;

/// Where fields of the superblock lie, in bytes.
const FIRST: usize = 20;
const SEQUENCE: usize = 24;
const START: usize = 28;
const ERRNO: usize = 32;
const CHECKSUM: usize = 252;
/// What of version 2 says how to read the journal: features, and users of a journal that has a device of its own.
const FEATURES: core::ops::Range<usize> = 36..48;
const USERS: core::ops::Range<usize> = 64..68;

/// A journal that is open.
#[derive(Debug)]
pub(super) struct Ring {
    /// The blocks of the device, in the order of the file.
    map: Vec<u32>,
    pub(super) block_size: usize,
    blocks_count: u32,
    first: u32,
    end: u32,
    /// The block at which the log begins; 0 when there is none.
    pub(super) start: u32,
    /// The number of the first transaction.
    pub(super) sequence: u32,
    pub(super) large: bool,
    pub(super) sums_2: bool,
    pub(super) sums_3: bool,
    pub(super) sums_transactions: bool,
    /// Whether there may be commits that are not in the log.
    pub(super) fast_commits: bool,
    /// With which checksums begin.
    pub(super) seed: u32,
    head: Vec<u8>,
}

impl Ring {
    /// Finds the journal of a file system.
    pub(super) fn open(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<Self> {
        let geo = geometry(dev, raw)?;
        let map = map_of(dev, &geo, raw)?;
        Self::with_map(dev, &geo, map)
    }

    /// Finds the journal by the copy of its inode's map in the superblock (`s_jnl_blocks`), as e2fsck does where the inode is
    /// no journal.
    pub(super) fn open_by_backup(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<Self> {
        let geo = geometry(dev, raw)?;
        let [pointers @ .., high, low] = &raw.s_jnl_blocks;
        if raw.s_jnl_backup_type != 1 {
            return corrupt("the superblock has no copy of the journal's map");
        }
        let size = u64::from(high.get()) << 32 | u64::from(low.get());
        let map = follow(dev, &geo, pointers.iter().map(|pointer| pointer.get()), size)?;
        Self::with_map(dev, &geo, map)
    }

    fn with_map(dev: &dyn BlockDevice, geo: &Geometry, map: Vec<u32>) -> Result<Self> {
        let block_size = geo.block_size.len();
        let Some(&block) = map.first() else { return corrupt("the journal has no blocks") };
        let mut head = vec![0; block_size.min(1024)];
        dev.read_at(u64::from(block) << geo.block_size.log2(), &mut head)?;
        let kind = big(&head, 4);
        if big(&head, 0) != JOURNAL_MAGIC || !is_known(kind) {
            return corrupt("the journal has no superblock");
        }
        let [compat, incompat, ro_compat] = [36, 40, 44].map(|at| if kind == 4 { big(&head, at) } else { 0 });
        // None that does not keep others from reading is known.
        let unknown = if incompat & !KNOWN != 0 { incompat & !KNOWN } else { ro_compat };
        if unknown != 0 {
            return Err(Incompatible::Feature(format!("{unknown:#x} of the journal")).into());
        }
        let (sums_2, sums_3) = (incompat & SUMS_2 != 0, incompat & SUMS_3 != 0);
        if sums_2 && sums_3 || (sums_2 || sums_3) && (compat & SUMS_1 != 0 || head.get(80) != Some(&CRC_32C))
        {
            return corrupt("the journal has checksums of two versions, or of a kind that is not known");
        }
        let (first, start) = (big(&head, FIRST), big(&head, START));
        // The log of a journal in a file begins behind its superblock. Transactions in front of where it is said to begin show
        // that this is wrong; e2fsck follows them without a look at it.
        let is_first_wrong = start != 0 && (first == 0 || first > start);
        let ring = Self {
            block_size,
            blocks_count: geo.blocks_count,
            first: if is_first_wrong { 1 } else { first },
            end: big(&head, 16),
            start,
            sequence: big(&head, SEQUENCE),
            large: incompat & LARGE != 0,
            sums_2,
            sums_3,
            sums_transactions: compat & SUMS_1 != 0,
            fast_commits: incompat & FAST_COMMIT != 0,
            seed: crc32c(!0, head.get(48..64).unwrap_or_default()),
            map,
            head,
        };
        if (sums_2 || sums_3) && big(&ring.head, CHECKSUM) != ring.sum() {
            return corrupt("the checksum of the journal's superblock is wrong");
        }
        let blocks = ring.map.len() as u64;
        if big(&ring.head, 12) as usize != block_size
            || u64::from(ring.end) > blocks
            || ring.first == 0
            || ring.first >= ring.end
            || ring.start != 0 && !(ring.first..ring.end).contains(&ring.start)
        {
            return corrupt("the journal's superblock contradicts its file");
        }
        Ok(ring)
    }

    /// Blocks of the log.
    pub(super) fn len(&self) -> u32 {
        self.end - self.first
    }

    /// The place `count` blocks further round.
    pub(super) fn after(&self, at: u32, count: u64) -> u32 {
        let from_first = (u64::from(at - self.first) + count) % u64::from(self.len());
        // OK to cast: below the number of blocks.
        self.first + from_first as u32
    }

    /// Where a block of the journal lies, in bytes of the device.
    pub(super) fn offset(&self, at: u32) -> u64 {
        self.map.get(at as usize).map_or(0, |&block| u64::from(block) * self.block_size as u64)
    }

    /// Where a block of the file system lies, in bytes, if it has one of that number.
    pub(super) fn place(&self, block: u64) -> Option<u64> {
        (block < u64::from(self.blocks_count)).then(|| block * self.block_size as u64)
    }

    /// Whether a superblock of version 1 has fields of version 2.
    pub(super) fn has_later_fields(&self) -> bool {
        let is_set = |range: core::ops::Range<usize>| {
            self.head.get(range).is_some_and(|field| field.iter().any(|&byte| byte != 0))
        };
        big(&self.head, 4) == 3 && (is_set(FEATURES) || is_set(USERS))
    }

    /// Leaves of a superblock of version 1 what that has.
    pub(super) fn clear_later_fields(&self, dev: &dyn BlockDevice) -> Result<()> {
        let len = self.block_size.saturating_sub(FEATURES.start);
        Ok(dev.zero(self.offset(0) + FEATURES.start as u64, len as u64)?)
    }

    /// How many file systems a superblock of version 2 says have this journal (`s_nr_users`); 0 and 1 are both said of a
    /// journal in an image.
    pub(super) fn users(&self) -> u32 {
        if big(&self.head, 4) == 4 { big(&self.head, USERS.start) } else { 0 }
    }

    /// Says that one file system has this journal.
    pub(super) fn set_one_user(mut self, dev: &dyn BlockDevice) -> Result<()> {
        self.head.get_mut(USERS).unwrap_or_default().copy_from_slice(&1u32.to_be_bytes());
        self.store_head(dev)
    }

    fn sum(&self) -> u32 {
        let mut head = self.head.clone();
        head.resize(1024, 0);
        head.get_mut(CHECKSUM..CHECKSUM + 4).unwrap_or_default().fill(0);
        crc32c(!0, &head)
    }

    /// Says that nothing is in the journal, and that transactions go on with `sequence`; gives the error that the last mount
    /// left in it.
    pub(super) fn empty(mut self, dev: &dyn BlockDevice, sequence: u32) -> Result<u32> {
        let errno = big(&self.head, ERRNO);
        for (at, value) in [(FIRST, self.first), (SEQUENCE, sequence), (START, 0), (ERRNO, 0)] {
            self.head.get_mut(at..at + 4).unwrap_or_default().copy_from_slice(&value.to_be_bytes());
        }
        self.store_head(dev)?;
        dev.flush()?;
        Ok(errno)
    }

    fn store_head(&mut self, dev: &dyn BlockDevice) -> Result<()> {
        if self.sums_2 || self.sums_3 {
            let sum = self.sum();
            self.head.get_mut(CHECKSUM..CHECKSUM + 4).unwrap_or_default().copy_from_slice(&sum.to_be_bytes());
        }
        Ok(dev.write_at(self.offset(0), &self.head)?)
    }
}

/// The layout of an image, as far as the journal is found by it: features that only files have change nothing of that.
pub(super) fn geometry(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<Geometry> {
    let mut known = *raw;
    known.s_feature_incompat = (raw.s_feature_incompat.get() & !OF_FILES).into();
    Ok(Geometry::new(&Superblock::from_raw(&known, dev.size(), true)?))
}

/// Whether a superblock of a journal is of a version that is known, 1 or 2, by the kind of its block.
pub(super) fn is_known(kind: u32) -> bool {
    matches!(kind, 3 | 4)
}

/// Whether a block of this kind is of the log itself, a descriptor, a commit or revocations, and so no superblock of any version.
pub(super) fn is_of_log(kind: u32) -> bool {
    matches!(kind, 1 | 2 | 5)
}

/// The kind of block with which a journal begins, if it begins as one of its blocks.
pub(super) fn version(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<Option<u32>> {
    let geo = geometry(dev, raw)?;
    let Some(&block) = map_of(dev, &geo, raw)?.first() else { return Ok(None) };
    let mut head = [0; 8];
    dev.read_at(u64::from(block) << geo.block_size.log2(), &mut head)?;
    Ok((big(&head, 0) == JOURNAL_MAGIC).then(|| big(&head, 4)))
}

/// Whether the inode that is named as the journal can be looked at, or is none at all: not where a broken descriptor leads
/// elsewhere.
pub(super) fn leads_to_inode(dev: &dyn BlockDevice, raw: &RawSuperblock) -> bool {
    let Ok(geo) = geometry(dev, raw) else { return false };
    let nr = raw.s_journal_inum.get();
    if nr == 0 || nr > geo.inodes_count {
        return true;
    }
    let group = group_of(&geo, nr);
    let start = geo.group_start(group);
    let places = start..start.saturating_add(geo.group_len(group));
    table_of(dev, &geo, group).is_ok_and(|table| places.contains(&table))
}

/// The blocks of the journal by the inode that a superblock names.
fn map_of(dev: &dyn BlockDevice, geo: &Geometry, raw: &RawSuperblock) -> Result<Vec<u32>> {
    let nr = raw.s_journal_inum.get();
    if nr == 0 && raw.s_journal_dev.get() == 0 && raw.s_journal_uuid == [0; 16] {
        return corrupt("nothing says where the journal is");
    }
    if nr == 0 {
        return Err(super::elsewhere());
    }
    if nr > geo.inodes_count {
        return corrupt("the journal's inode is past the last");
    }
    blocks_of(dev, geo, nr)
}

fn group_of(geo: &Geometry, nr: u32) -> GroupNr {
    GroupNr::new((nr - 1) / geo.inodes_per_group)
}

/// The first block of a group's table of inodes.
fn table_of(dev: &dyn BlockDevice, geo: &Geometry, group: GroupNr) -> Result<u32> {
    let field = offset_of!(RawGroupDesc, bg_inode_table) as u64;
    Ok(dev.read_u32(geo.descriptor_offset(group, GroupNr::new(0)) + field)?)
}

/// The blocks of a file by its map; one with a hole ends there.
fn blocks_of(dev: &dyn BlockDevice, geo: &Geometry, nr: u32) -> Result<Vec<u32>> {
    let table = table_of(dev, geo, group_of(geo, nr))?;
    let within = u64::from((nr - 1) % geo.inodes_per_group) * u64::from(geo.inode_size);
    // A broken descriptor leads anywhere, also past the end of the device.
    let block = u32::try_from(u64::from(table) + (within >> geo.block_size.log2()));
    if block.ok().and_then(|block| geo.data_block(block)).is_none() {
        return corrupt("no block of the file system has the journal's inode");
    }
    let offset = (u64::from(table) << geo.block_size.log2()) + within;
    let mut inode = RawInode::new_zeroed();
    dev.read_at(offset, inode.as_mut_bytes())?;
    if inode.i_links_count.get() == 0 || inode.i_flags.get() & 0x8_0000 != 0 {
        return corrupt("the journal's inode is not one with a map of blocks");
    }
    let size = u64::from(inode.i_size_high.get()) << 32 | u64::from(inode.i_size.get());
    follow(dev, geo, inode.i_block.iter().map(|pointer| pointer.get()), size)
}

/// The blocks of a file of `size` bytes below the pointers of its inode.
fn follow(
    dev: &dyn BlockDevice,
    geo: &Geometry,
    pointers: impl Iterator<Item = u32>,
    size: u64,
) -> Result<Vec<u32>> {
    let want = (size >> geo.block_size.log2()).min(geo.blocks_count.into());
    let mut map = Vec::new();
    for (slot, pointer) in pointers.enumerate() {
        let level = slot.saturating_sub(11) as u32;
        if map.len() as u64 >= want || !collect(dev, geo, pointer, level, want, &mut map)? {
            break;
        }
    }
    Ok(map)
}

/// Adds the blocks below a pointer; `false` at a hole.
fn collect(
    dev: &dyn BlockDevice,
    geo: &Geometry,
    block: u32,
    level: u32,
    want: u64,
    map: &mut Vec<u32>,
) -> Result<bool> {
    if geo.data_block(block).is_none() {
        return Ok(false);
    }
    if level == 0 {
        map.push(block);
        return Ok(true);
    }
    let mut bytes = vec![0; geo.block_size.len()];
    dev.read_at(u64::from(block) << geo.block_size.log2(), &mut bytes)?;
    for pointer in bytes.chunks_exact(4) {
        if map.len() as u64 >= want {
            break;
        }
        let below = pointer.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if !collect(dev, geo, below, level - 1, want, map)? {
            return Ok(false);
        }
    }
    Ok(true)
}
