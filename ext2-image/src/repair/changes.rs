//! What a repair would store, above an image that stays as it is until it is stored.
//!
//! # Invariants
//! 1. Nothing is written below before [`Changes::store`].
//! 2. A grain is here whole: its bytes are those that a reader of the repaired image sees.
//! 3. [`Changes::store`] keeps an order in which any prefix of its stores is an image that a repair can be begun on anew:
//!    the mark that the image is not clean, and blocks that nothing pointed to; what was in use; the superblock.
//! 4. What was first changed after a flush is stored after all of before, durably: a journal is emptied when what it held is
//!    in its places.
//!
//! # Locking
//! One mutex around the grains; nothing is called with it held but reads of the device below.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;
use core::ops::Range;

use spin::{Mutex, MutexGuard};

use blockdev::{BlockDevice, Extent, Result};
use ext2_core::raw::{MAGIC, SUPERBLOCK_OFFSET};
use ext2_core::rules::STATE_VALID;

use crate::joined::Joined;

/// Who is told of a range before it is stored to: its offset, and what is there now.
pub(crate) type Told<'a, E> = dyn FnMut(u64, &[u8]) -> Result<(), E> + 'a;

/// Bytes of a grain: the smallest block, and the superblock.
pub const GRAIN: u64 = 1024;

/// Where `s_magic` and `s_state` lie, in bytes of the device.
const MAGIC_AT: u64 = SUPERBLOCK_OFFSET + 56;
const STATE_AT: u64 = SUPERBLOCK_OFFSET + 58;
/// Most bytes of one change that is listed.
const LISTED: usize = 1 << 20;

#[derive(Debug)]
struct Grain {
    bytes: Vec<u8>,
    /// Of a block that nothing pointed to.
    fresh: bool,
    /// It was as below at the first flush.
    late: bool,
}

#[derive(Debug, Default)]
struct State {
    grains: BTreeMap<u64, Grain>,
    /// Stores that changed a byte.
    stamp: u64,
    /// Whether there was a flush since the last store.
    flushed: bool,
}

/// An image with changes above it. Its memory is that of the changes.
#[derive(Debug)]
pub struct Changes<'d> {
    below: &'d dyn BlockDevice,
    state: Mutex<State>,
}

/// A range of the image that is stored otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Where it begins, in bytes of the device.
    pub offset: u64,
    /// What is there.
    pub old: Vec<u8>,
    /// What comes there.
    pub new: Vec<u8>,
}

impl<'d> Changes<'d> {
    /// No changes, above `below`.
    #[must_use]
    pub fn new(below: &'d dyn BlockDevice) -> Self {
        Self { below, state: Mutex::default() }
    }

    /// The device below.
    #[must_use]
    pub fn below(&self) -> &'d dyn BlockDevice {
        self.below
    }

    /// A number that rises with every store that changes a byte.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        self.state().stamp
    }

    /// Whether any byte of a range was stored to, whether that changed it or not.
    pub(crate) fn is_changed(&self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len).div_ceil(GRAIN);
        self.state().grains.range(offset / GRAIN..end).next().is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn grain_len(&self, nr: u64) -> usize {
        // At most a grain.
        GRAIN.min(self.below.size() - nr * GRAIN) as usize
    }

    fn read_below(&self, nr: u64) -> Result<Vec<u8>> {
        let mut bytes = alloc::vec![0; self.grain_len(nr)];
        self.below.read_at(nr * GRAIN, &mut bytes)?;
        Ok(bytes)
    }

    /// Changes a range grain by grain.
    fn put(
        &self,
        offset: u64,
        len: usize,
        fresh: bool,
        bytes: impl Fn(Range<usize>, &mut [u8]),
    ) -> Result<()> {
        blockdev_check(offset, len as u64, self.size())?;
        let mut done = 0;
        let mut state = self.state();
        while done < len {
            let at = offset + done as u64;
            let (nr, from) = (at / GRAIN, (at % GRAIN) as usize);
            let count = (GRAIN as usize - from).min(len - done);
            let late = state.flushed;
            if let Entry::Vacant(place) = state.grains.entry(nr) {
                place.insert(Grain { bytes: self.read_below(nr)?, fresh, late });
            }
            let mut changed = false;
            if let Some(grain) = state.grains.get_mut(&nr)
                && let Some(room) = grain.bytes.get_mut(from..from + count)
            {
                grain.fresh |= fresh;
                let old = room.to_vec();
                bytes(done..done + count, room);
                changed = old != *room;
            }
            state.stamp += u64::from(changed);
            done += count;
        }
        Ok(())
    }

    /// What would be stored, in the order of the device: ranges of at most 1 MiB that differ from what is below.
    ///
    /// # Errors
    /// Those of reading the device.
    pub fn list(&self) -> Result<Vec<Change>> {
        let mut list: Vec<Change> = Vec::new();
        for (&nr, grain) in &self.state().grains {
            let old = self.read_below(nr)?;
            if old == grain.bytes {
                continue;
            }
            let offset = nr * GRAIN;
            match list.last_mut() {
                Some(last) if last.offset + last.new.len() as u64 == offset && last.new.len() < LISTED => {
                    last.old.extend_from_slice(&old);
                    last.new.extend_from_slice(&grain.bytes);
                }
                _ => list.push(Change { offset, old, new: grain.bytes.clone() }),
            }
        }
        Ok(list)
    }

    /// Stores all changes, and forgets them. Gives the bytes stored.
    ///
    /// # Errors
    /// Those of the device. After one the image is marked as not clean, and a repair can be begun anew.
    pub fn apply(&self) -> Result<u64> {
        self.store(&mut |_, _| Ok(()), &mut || Ok(()))
    }

    /// As [`apply`](Self::apply), with what is needed to undo it. `before` is told of the ranges (offset and length) and what is there now,
    /// before the first store.
    ///
    /// # Errors
    /// Those of the device and of `before`. After one the image is marked as not clean, and a repair can be begun anew.
    pub fn store<E: From<blockdev::Error>>(
        &self,
        before: &mut Told<'_, E>,
        ready: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut state = self.state();
        state.flushed = false;
        let super_nr = SUPERBLOCK_OFFSET / GRAIN;
        let mut changed: BTreeMap<u64, Grain> = BTreeMap::new();
        for (nr, grain) in core::mem::take(&mut state.grains) {
            let old = self.read_below(nr)?;
            if old != grain.bytes {
                before(nr * GRAIN, &old)?;
                changed.insert(nr, grain);
            }
        }
        if changed.is_empty() {
            return Ok(0);
        }
        if !changed.contains_key(&super_nr) && self.below.size() >= SUPERBLOCK_OFFSET + GRAIN {
            // Its mark changes and comes back.
            let bytes = self.read_below(super_nr)?;
            before(SUPERBLOCK_OFFSET, &bytes)?;
            changed.insert(super_nr, Grain { bytes, fresh: false, late: true });
        }
        ready()?;
        let last = changed.remove(&super_nr);
        // One flush is enough for the mark and for what lies where nobody looks.
        let mut marked = false;
        if !changed.is_empty() && self.below.size() >= SUPERBLOCK_OFFSET + GRAIN {
            let mut words = [0; 4];
            self.below.read_at(MAGIC_AT, &mut words)?;
            let [magic_low, magic_high, state_low, state_high] = words;
            let state = u16::from_le_bytes([state_low, state_high]);
            if u16::from_le_bytes([magic_low, magic_high]) == MAGIC && state & STATE_VALID != 0 {
                self.below.write_u16(STATE_AT, state & !STATE_VALID)?;
                marked = true;
            }
        }
        let mut bytes = 0;
        for (late, fresh) in [(false, true), (false, false), (true, true), (true, false)] {
            let is_of_these = |grain: &Grain| (grain.late, grain.fresh) == (late, fresh);
            let mut joined = Joined::new(self.below);
            for (&nr, grain) in changed.iter().filter(|(_, grain)| is_of_these(grain)) {
                bytes += grain.bytes.len() as u64;
                joined.write_at(nr * GRAIN, &grain.bytes)?;
            }
            joined.end()?;
            if marked || changed.values().any(is_of_these) {
                self.below.flush()?;
                marked = false;
            }
        }
        if let Some(grain) = last {
            bytes += grain.bytes.len() as u64;
            self.below.write_at(SUPERBLOCK_OFFSET, &grain.bytes)?;
            self.below.flush()?;
        }
        Ok(bytes)
    }
}

fn blockdev_check(offset: u64, len: u64, size: u64) -> Result<()> {
    if len <= size && offset <= size - len {
        Ok(())
    } else {
        Err(blockdev::Error::OutOfRange { offset, len, size })
    }
}

impl BlockDevice for Changes<'_> {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.below.read_at(offset, buf)?;
        if buf.is_empty() {
            return Ok(());
        }
        let end = offset + buf.len() as u64;
        for (&nr, grain) in self.state().grains.range(offset / GRAIN..end.div_ceil(GRAIN)) {
            let start = nr * GRAIN;
            let (from, to) = (start.max(offset), (start + grain.bytes.len() as u64).min(end));
            let here = grain.bytes.get((from - start) as usize..(to - start) as usize);
            let there = buf.get_mut((from - offset) as usize..(to - offset) as usize);
            if let (Some(here), Some(there)) = (here, there) {
                there.copy_from_slice(here);
            }
        }
        Ok(())
    }

    fn extent(&self, offset: u64, len: u64) -> Result<(Extent, u64)> {
        blockdev_check(offset, len, self.size())?;
        match self.state().grains.range(offset / GRAIN..(offset + len).div_ceil(GRAIN)).next() {
            Some(_) => Ok((Extent::Data, len)),
            None => self.below.extent(offset, len),
        }
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.put(offset, buf.len(), false, |range, room| {
            room.copy_from_slice(buf.get(range).unwrap_or_default());
        })
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        // OK to cast: a range of the device that is asked for at a time is small.
        self.put(offset, len as usize, false, |_, room| room.fill(0))
    }

    fn write_contents(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.put(offset, buf.len(), true, |range, room| {
            room.copy_from_slice(buf.get(range).unwrap_or_default());
        })
    }

    fn zero_contents(&self, offset: u64, len: u64) -> Result<()> {
        self.put(offset, len as usize, true, |_, room| room.fill(0))
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.state().flushed = true;
        Ok(())
    }
}
