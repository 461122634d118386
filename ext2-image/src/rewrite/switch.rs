//! The log of a rewrite, the step that makes it hold, and carrying it out.
//!
//! A log is a chain of index blocks. Each names blocks of the image and where in the free space what they are to hold
//! lies, with CRC-32 sums; all numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `e2daxrw1` |
//! | 8..12 | the next index block, 0 in the last |
//! | 12..16 | entries of this one |
//! | 16..20 | CRC-32 of this block with zeros here |
//! | 24.. | entries: block, where its contents lie, CRC-32 of the contents |
//!
//! The entry of block [`SUPER`] is the new superblock, those of block [`PATCHES`] are changes of single bytes (see
//! [`patch`](super::patch)). The first index block and its sum stand in the superblock from byte
//! 992, where ext4 has nothing, in one aligned store; the mark is the bit [`UNFINISHED`] of `s_feature_incompat`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::mem::offset_of;

use blockdev::BlockDevice;
use ext2_core::raw::{MAGIC, RawSuperblock, SUPERBLOCK_OFFSET};
use ext2_core::{BlockSize, Corrupt, Errno, Error, IncompatFeatures, Object, Result};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::patch::{self, Packed};
use super::{Draft, Step, descriptor_places, fill};
use crate::joined::{Joined, MOST};
use crate::little::word;

/// The mark of an image whose log has to be carried out.
const UNFINISHED: u32 = IncompatFeatures::UNFINISHED_REWRITE.bits();
/// Begins an index block.
const INDEX: &[u8; 8] = b"e2daxrw1";
/// Stands for the superblock among the blocks of a log.
const SUPER: u32 = u32::MAX;
/// Stands for changes of single bytes; no block of an image that is ever logged has this number.
const PATCHES: u32 = 0;
/// Blocks of a log up to which what was in them before is put back.
const FEW: usize = 256;
/// Bytes before the entries of an index block, and of an entry.
const HEADER: usize = 24;
const ENTRY: usize = 12;
/// Where the superblock says where the log begins.
const POINTER: u64 = SUPERBLOCK_OFFSET + 992;
const INCOMPAT: u64 = SUPERBLOCK_OFFSET + offset_of!(RawSuperblock, s_feature_incompat) as u64;

fn put_word(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// The sum of an index block, without the place where it stands.
fn sum(block: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(block.get(..16).unwrap_or_default());
    hash.update(&[0; 4]);
    hash.update(block.get(20..).unwrap_or_default());
    hash.finalize()
}

/// What was in blocks before a log took them.
type Below = BTreeMap<u32, Vec<u8>>;

impl Draft<'_> {
    /// Writes bitmaps, descriptors and copies of the superblock of the new image, and takes the step. Gives how many blocks
    /// changed in place.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.write_groups()?;
        self.write_copies()?;
        let blocks = self.log.len() as u64;
        let (head, below) = self.write_log()?;
        self.watch.tick(Step::Switch, 0, blocks)?;
        // All of the new image is durable before the mark makes it hold, and so is what leads to it, which nobody follows
        // without the mark.
        self.dev.write_at(POINTER, &head)?;
        self.dev.flush()?;
        let before = self.old.raw.s_feature_incompat.get();
        self.dev.write_u32(INCOMPAT, before | UNFINISHED)?;
        self.dev.flush()?;
        let carried = recover(self.dev)?;
        debug_assert!(carried);
        // The change is there and durable: what cannot be put back into free blocks is no failure of it.
        let _ = self.clear_log(&below);
        (self.watch.progress)(super::Progress { step: Step::Switch, done: blocks, total: blocks });
        Ok(blocks)
    }

    /// Bitmaps of blocks, and the counts.
    fn write_groups(&mut self) -> Result<()> {
        let mut free = 0_u64;
        let mut inodes = 0_u64;
        // Nobody has inodes in a group that was not there before. Its bitmaps lie beside each other.
        let mut unused = alloc::vec![0; self.len()];
        fill(&mut unused, self.geo.inodes_per_group, self.len() as u32 * 8, true);
        let mut out = Joined::new(self.dev);
        for group in 0..self.geo.groups {
            if let Some(count) = self.space.count_free(group) {
                let bitmap = self.space.after(group).map(<[u8]>::to_vec).unwrap_or_default();
                let desc = &mut self.descs[group as usize];
                // OK to cast: a group has less than 2^16 free blocks.
                desc.bg_free_blocks_count.set(count as u16);
                let (place, inodes) = (desc.bg_block_bitmap.get(), desc.bg_inode_bitmap.get());
                if group < self.old.geo.groups {
                    self.put(place, &bitmap)?;
                } else {
                    out.write_at(self.byte_of(place), &bitmap)?;
                    out.write_at(self.byte_of(inodes), &unused)?;
                }
            }
            let desc = &self.descs[group as usize];
            free += u64::from(desc.bg_free_blocks_count.get());
            inodes += u64::from(desc.bg_free_inodes_count.get());
        }
        out.end()?;
        self.raw.s_free_blocks_count.set(u32::try_from(free).unwrap_or(u32::MAX));
        self.raw.s_free_inodes_count.set(u32::try_from(inodes).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Descriptors wherever they have a place, and the copies of the superblock but the first.
    fn write_copies(&mut self) -> Result<()> {
        let per_block = self.geo.descriptors_per_block() as usize;
        let (mut block, mut old) = (Vec::new(), Vec::new());
        for (place, nr) in descriptor_places(&self.geo) {
            block.clear();
            block.resize(self.len(), 0);
            let descs = self.descs.iter().skip(nr as usize * per_block);
            for (slot, desc) in block.chunks_exact_mut(32).zip(descs) {
                slot.copy_from_slice(desc.as_bytes());
            }
            self.put_if_changed(place, &block, &mut old)?;
        }
        for group in self.geo.group_numbers().skip(1) {
            if !self.geo.has_super(group) {
                continue;
            }
            let mut copy = self.raw;
            copy.s_block_group_nr.set(u16::try_from(group.get()).unwrap_or(u16::MAX));
            block.clear();
            block.extend_from_slice(copy.as_bytes());
            block.resize(self.len(), 0);
            self.put_if_changed(self.geo.group_start(group), &block, &mut old)?;
        }
        Ok(())
    }

    fn put_if_changed(&mut self, place: u32, block: &[u8], old: &mut Vec<u8>) -> Result<()> {
        if self.space.is_used_before(place)? {
            self.read_old(place, old)?;
            if old == block {
                self.log.remove(&place);
                return Ok(());
            }
        }
        self.put(place, block)
    }

    /// What the log says: blocks of which much changes, and the changes of others.
    fn apart(&self) -> Result<(Vec<u32>, Vec<Vec<u8>>)> {
        let (len, mut whole, mut packed) = (self.len(), Vec::new(), Packed::new(self.len()));
        let numbers: Vec<u32> = self.log.keys().copied().collect();
        let mut old = Vec::new();
        // What lies one behind the other is read together.
        let runs = numbers.chunk_by(|a, b| a + 1 == *b).flat_map(|run| run.chunks((MOST / len).max(1)));
        for run in runs {
            old.resize(run.len() * len, 0);
            self.dev.read_at(self.byte_of(run.first().copied().unwrap_or(0)), &mut old)?;
            for (&nr, old) in run.iter().zip(old.chunks_exact(len)) {
                let Some(new) = self.log.get(&nr) else { continue };
                match patch::runs(old, new) {
                    Some(runs) => runs.into_iter().for_each(|run| {
                        packed.push(nr, run.start, new.get(run).unwrap_or_default());
                    }),
                    None => whole.push(nr),
                }
            }
        }
        Ok((whole, packed.into_blocks()))
    }

    /// What is in the free blocks of the new image that a log is going to take, unless they are many.
    fn below_log(&self, places: &[u32]) -> Result<Below> {
        let mut below = BTreeMap::new();
        if places.len() <= FEW {
            for &place in places.iter().filter(|&&place| place < self.geo.blocks_count) {
                let mut bytes = Vec::new();
                self.read_old(place, &mut bytes)?;
                below.insert(place, bytes);
            }
        }
        Ok(below)
    }

    /// Puts back what was in the blocks of the log, deleted files or zeros. Whether it gets to the disk is nobody's concern.
    fn clear_log(&self, below: &Below) -> Result<()> {
        let mut out = Joined::new(self.dev);
        below.iter().try_for_each(|(&place, bytes)| out.write_at(self.byte_of(place), bytes))?;
        Ok(out.end()?)
    }

    /// Writes the log, and gives what the superblock says of it, and what was in its blocks.
    fn write_log(&self) -> Result<([u8; 8], Below)> {
        let len = self.len();
        let per_index = (len - HEADER) / ENTRY;
        let (whole, patches) = self.apart()?;
        let entries = whole.len() + patches.len() + 1;
        let indices = entries.div_ceil(per_index);
        let all = self.space.for_log(entries + indices, self.spill)?;
        if all.len() < entries + indices {
            return Err(Error::Caller(Errno::NOSPC, "no room for the log of the change"));
        }
        let below = self.below_log(&all)?;
        let (heads, places) = all.split_at(indices);
        let mut superblock = self.raw.as_bytes().to_vec();
        superblock.resize(len, 0);
        let blocks = whole.iter().filter_map(|block| Some((*block, self.log.get(block)?.as_slice())));
        let blocks = blocks.chain(patches.iter().map(|bytes| (PATCHES, bytes.as_slice())));
        let blocks: Vec<(u32, &[u8])> = blocks.chain([(SUPER, superblock.as_slice())]).collect();
        let (mut head, mut out) = ([0; 8], Joined::new(self.dev));
        let parts = blocks.chunks(per_index).zip(places.chunks(per_index)).zip(heads).enumerate();
        for (nr, ((part, places), &at)) in parts {
            let mut index = alloc::vec![0; len];
            index[..8].copy_from_slice(INDEX);
            put_word(&mut index, 8, heads.get(nr + 1).copied().unwrap_or(0));
            put_word(&mut index, 12, part.len() as u32);
            for (slot, ((block, bytes), &place)) in part.iter().zip(places).enumerate() {
                out.write_at(self.byte_of(place), bytes)?;
                let entry = HEADER + slot * ENTRY;
                put_word(&mut index, entry, *block);
                put_word(&mut index, entry + 4, place);
                put_word(&mut index, entry + 8, crc32fast::hash(bytes));
            }
            let own = sum(&index);
            put_word(&mut index, 16, own);
            out.write_at(self.byte_of(at), &index)?;
            if nr == 0 {
                put_word(&mut head, 0, at);
                put_word(&mut head, 4, own);
            }
        }
        out.end()?;
        Ok((head, below))
    }
}

/// Whether a rewrite of the image was interrupted after the step was taken: [`recover`] carries it out.
///
/// # Errors
/// The device's.
pub fn is_unfinished(dev: &dyn BlockDevice) -> Result<bool> {
    Ok(read_super(dev)?.is_some())
}

fn read_super(dev: &dyn BlockDevice) -> Result<Option<RawSuperblock>> {
    let mut raw = RawSuperblock::new_zeroed();
    if dev.size() < SUPERBLOCK_OFFSET + 1024 {
        return Ok(None);
    }
    dev.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
    let marked = raw.s_magic.get() == MAGIC && raw.s_feature_incompat.get() & UNFINISHED != 0;
    Ok(marked.then_some(raw))
}

fn broken<T>(what: &str) -> Result<T> {
    Err(Corrupt::new(Object::Superblock, alloc::format!("an interrupted change cannot be finished: {what}"))
        .into())
}

/// Carries out a rewrite that was interrupted, if one was: after it the image is the new one, sound and clean. May be
/// interrupted and called again.
///
/// # Errors
/// `Corrupt` where the log is not whole; nothing is changed then. The device's.
pub fn recover(dev: &dyn BlockDevice) -> Result<bool> {
    let Some(raw) = read_super(dev)? else { return Ok(false) };
    let Some(size) = BlockSize::from_s_log_block_size(raw.s_log_block_size.get()) else {
        return broken("its block size is unknown");
    };
    let mut pointer = [0; 8];
    dev.read_at(POINTER, &mut pointer)?;
    let (head, own) = (word(&pointer, 0), word(&pointer, 4));
    let mut superblock = None;
    // First all of it is looked at, so that a broken log changes nothing.
    walk(dev, size, (head, own), |block, bytes| {
        if block == SUPER {
            superblock = Some(bytes.to_vec());
        }
        Ok(())
    })?;
    let Some(superblock) = superblock else { return broken("its log has no superblock") };
    let Ok((mut new, _)) = RawSuperblock::read_from_prefix(&superblock) else {
        return broken("its superblock is cut off");
    };
    if new.s_magic.get() != MAGIC
        || new.s_log_block_size != raw.s_log_block_size
        || new.s_feature_incompat.get() & UNFINISHED != 0
    {
        return broken("its superblock is none");
    }
    let mut out = Joined::new(dev);
    walk(dev, size, (head, own), |block, bytes| {
        match block {
            SUPER => {}
            PATCHES => {
                for (block, at, bytes) in patch::unpack(bytes).flatten() {
                    dev.write_at((u64::from(block) << size.log2()) + at as u64, bytes)?;
                }
            }
            _ => out.write_at(u64::from(block) << size.log2(), bytes)?,
        }
        Ok(())
    })?;
    out.end()?;
    // As long as it has the mark and the pointer, the superblock may be durable before the blocks, or in part.
    let incompat = new.s_feature_incompat.get();
    new.s_feature_incompat.set(incompat | UNFINISHED);
    new.as_mut_bytes()[992..1000].copy_from_slice(&pointer);
    dev.write_at(SUPERBLOCK_OFFSET, new.as_bytes())?;
    dev.flush()?;
    dev.write_u32(INCOMPAT, incompat)?;
    dev.flush()?;
    // Whether this gets to the disk is nobody's concern: without the mark it leads nowhere.
    dev.write_at(POINTER, &[0; 8])?;
    Ok(true)
}

/// Shows each block of a log.
fn walk(
    dev: &dyn BlockDevice,
    size: BlockSize,
    (mut at, own): (u32, u32),
    mut each: impl FnMut(u32, &[u8]) -> Result<()>,
) -> Result<()> {
    let len = size.len();
    let all = dev.size() >> size.log2();
    let inside = |block: u32| u64::from(block) < all && u64::from(block) << size.log2() > SUPERBLOCK_OFFSET;
    let (mut index, mut bytes, mut entries) = (alloc::vec![0; len], Vec::new(), Vec::new());
    let mut expected = Some(own);
    let mut seen = BTreeSet::new();
    while at != 0 {
        if !inside(at) || !seen.insert(at) {
            return broken("its log leads outside the image, or in a circle");
        }
        dev.read_at(u64::from(at) << size.log2(), &mut index)?;
        let count = word(&index, 12) as usize;
        let is_good = index.starts_with(INDEX)
            && sum(&index) == word(&index, 16)
            && expected.take().is_none_or(|own| own == word(&index, 16))
            && count <= (len - HEADER) / ENTRY;
        if !is_good {
            return broken("its log is not whole");
        }
        entries.clear();
        for slot in 0..count {
            let entry = HEADER + slot * ENTRY;
            let [block, place, sum] = [0, 4, 8].map(|field| word(&index, entry + field));
            if !inside(place) || (!matches!(block, SUPER | PATCHES) && !inside(block)) {
                return broken("its log leads outside the image");
            }
            entries.push((block, place, sum));
        }
        // What lies one behind the other is read together.
        for run in entries.chunk_by(|a, b| a.1.wrapping_add(1) == b.1).flat_map(|run| run.chunks(MOST / len))
        {
            bytes.resize(run.len() * len, 0);
            let first = run.first().map_or(0, |entry| entry.1);
            dev.read_at(u64::from(first) << size.log2(), &mut bytes)?;
            for (&(block, _, sum), bytes) in run.iter().zip(bytes.chunks_exact(len)) {
                if crc32fast::hash(bytes) != sum {
                    return broken("its log is not whole");
                }
                let is_outside =
                    |change: Option<(u32, _, _)>| change.is_none_or(|(block, ..)| !inside(block));
                if block == PATCHES && patch::unpack(bytes).any(is_outside) {
                    return broken("its log leads outside the image");
                }
                each(block, bytes)?;
            }
        }
        at = word(&index, 8);
    }
    if expected.is_some() { broken("it has no log") } else { Ok(()) }
}
