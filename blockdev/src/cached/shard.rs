//! A part of the cache behind one lock.
//!
//! # Invariants
//! 1. `recency` holds each block of `blocks` once, at the tick of its last use.
//! 2. `dirty` holds `(epoch, block)` for exactly the blocks whose `dirty` is that epoch.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// A block of the device below, held in memory.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) data: Box<[u8]>,
    /// The epoch in which it was written, if it is newer than what is below.
    dirty: Option<u64>,
    /// Writes to it, by which a write-back finds that it was written again meanwhile.
    version: u64,
    tick: u64,
}

#[derive(Debug, Default)]
pub(super) struct Shard {
    blocks: BTreeMap<u64, Block>,
    recency: BTreeMap<u64, u64>,
    dirty: BTreeSet<(u64, u64)>,
    tick: u64,
    /// Evictions of blocks that had been written to: what was read from below before one may be stale.
    pub(super) generation: u64,
}

impl Shard {
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.blocks.contains_key(&number)
    }

    /// The block, which becomes the most recently used.
    pub(super) fn get(&mut self, number: u64) -> Option<&Block> {
        self.touch(number)
    }

    fn touch(&mut self, number: u64) -> Option<&Block> {
        let block = self.blocks.get_mut(&number)?;
        self.recency.remove(&block.tick);
        self.tick += 1;
        block.tick = self.tick;
        self.recency.insert(self.tick, number);
        Some(block)
    }

    /// Puts a clean block in, in place of any other.
    pub(super) fn insert(&mut self, number: u64, data: Box<[u8]>) {
        self.remove(number);
        self.tick += 1;
        self.recency.insert(self.tick, number);
        self.blocks.insert(number, Block { data, dirty: None, version: 0, tick: self.tick });
    }

    /// Forgets a block, dirty or not.
    pub(super) fn remove(&mut self, number: u64) {
        if let Some(block) = self.blocks.remove(&number) {
            self.recency.remove(&block.tick);
            if let Some(epoch) = block.dirty {
                self.dirty.remove(&(epoch, number));
            }
            if block.version > 0 {
                self.generation += 1;
            }
        }
    }

    /// Forgets the blocks of a range, dirty or not.
    pub(super) fn remove_range(&mut self, numbers: core::ops::Range<u64>) {
        let held = self.blocks.range(numbers).map(|(&number, _)| number).collect::<Vec<_>>();
        held.into_iter().for_each(|number| self.remove(number));
    }

    /// The epoch of a block that is dirty.
    pub(super) fn dirty_epoch(&self, number: u64) -> Option<u64> {
        self.blocks.get(&number)?.dirty
    }

    /// Writes into a block that is held, in `epoch`; it is clean or of the same epoch.
    pub(super) fn write(&mut self, number: u64, epoch: u64, within: usize, bytes: &[u8]) {
        self.touch(number);
        let Some(block) = self.blocks.get_mut(&number) else { return };
        block.data[within..within + bytes.len()].copy_from_slice(bytes);
        block.version += 1;
        if let Some(before) = block.dirty.replace(epoch) {
            self.dirty.remove(&(before, number));
        }
        self.dirty.insert((epoch, number));
    }

    /// Evicts the least recently used clean block. `Err` with the epoch of the least recently used block of
    /// all if there is no clean one among the oldest.
    pub(super) fn evict(&mut self) -> Result<(), u64> {
        const LOOK: usize = 64;
        let oldest = self.recency.values().take(LOOK).copied();
        let mut first_dirty = None;
        for number in oldest {
            match self.dirty_epoch(number) {
                None => {
                    self.remove(number);
                    return Ok(());
                }
                epoch => first_dirty = first_dirty.or(epoch),
            }
        }
        first_dirty.map_or(Ok(()), Err)
    }

    /// The oldest epoch that has a dirty block.
    pub(super) fn oldest_epoch(&self) -> Option<u64> {
        self.dirty.first().map(|&(epoch, _)| epoch)
    }

    /// Adds the dirty blocks of `epoch`, with their versions and contents.
    pub(super) fn collect_dirty(&self, epoch: u64, into: &mut BTreeMap<u64, (u64, Box<[u8]>)>) {
        for &(_, number) in self.dirty.range((epoch, 0)..=(epoch, u64::MAX)) {
            if let Some(block) = self.blocks.get(&number) {
                into.insert(number, (block.version, block.data.clone()));
            }
        }
    }

    /// The block was written below as it was at `version`.
    pub(super) fn written(&mut self, number: u64, version: u64) {
        if let Some(block) = self.blocks.get_mut(&number)
            && block.version == version
            && let Some(epoch) = block.dirty.take()
        {
            self.dirty.remove(&(epoch, number));
        }
    }
}
