//! The new image while it is made: what is free in the old one is written at once, the rest is kept for the log.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::raw::{RawGroupDesc, RawSuperblock};
use ext2_core::{Geometry, Result};

use super::{Image, Moves, Options, Space, Step, Watch};

/// Bytes that are copied at a time.
const COPY: u64 = 4 << 20;

/// A new image over an old one.
pub(crate) struct Draft<'d> {
    pub(crate) dev: &'d dyn BlockDevice,
    pub(crate) watch: Watch<'d>,
    pub(crate) old: Image,
    /// The new superblock, without free counts.
    pub(crate) raw: RawSuperblock,
    pub(crate) geo: Geometry,
    /// The descriptors of the new image.
    pub(crate) descs: Vec<RawGroupDesc>,
    pub(crate) space: Space<'d>,
    /// The byte of the device from which on it is nobody's, if there is one: room for the log.
    pub(crate) spill: Option<u64>,
    /// Blocks that are in use in the old image, as they are in the new one.
    pub(super) log: BTreeMap<u32, Vec<u8>>,
}

impl<'d> Draft<'d> {
    /// Nothing is changed yet.
    pub(crate) fn new(
        dev: &'d dyn BlockDevice,
        old: Image,
        mut raw: RawSuperblock,
        geo: Geometry,
        options: &Options<'d>,
    ) -> Self {
        let space = Space::new(dev, &old.geo, &geo, &old.descs, options.bias);
        if let Some(now) = options.now {
            raw.s_wtime.set(now);
        }
        let (watch, spill) = (options.watch, options.spill);
        let mut descs = old.descs.clone();
        descs.resize(geo.groups as usize, RawGroupDesc::default());
        Self { dev, watch, old, raw, geo, descs, space, spill, log: BTreeMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.geo.block_size.len()
    }

    pub(crate) fn byte_of(&self, block: u32) -> u64 {
        u64::from(block) << self.geo.block_size.log2()
    }

    /// Reads a block as it is in the old image.
    pub(crate) fn read_old(&self, block: u32, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.resize(self.len(), 0);
        Ok(self.dev.read_at(self.byte_of(block), buffer)?)
    }

    /// Reads a block as it is in the new image so far.
    pub(crate) fn read(&self, block: u32, buffer: &mut Vec<u8>) -> Result<()> {
        match self.log.get(&block) {
            Some(bytes) => {
                buffer.clear();
                buffer.extend_from_slice(bytes);
                Ok(())
            }
            None => self.read_old(block, buffer),
        }
    }

    /// Makes a block what it is in the new image.
    pub(crate) fn put(&mut self, block: u32, bytes: &[u8]) -> Result<()> {
        if self.space.is_used_before(block)? {
            self.log.insert(block, bytes.to_vec());
            return Ok(());
        }
        Ok(self.dev.write_at(self.byte_of(block), bytes)?)
    }

    /// Changes bytes of a block, from `at` on.
    pub(crate) fn patch(&mut self, block: u32, at: usize, bytes: &[u8]) -> Result<()> {
        if let Some(place) = self.log.get_mut(&block).and_then(|block| block.get_mut(at..at + bytes.len())) {
            place.copy_from_slice(bytes);
            return Ok(());
        }
        let mut all = Vec::new();
        self.read_old(block, &mut all)?;
        if let Some(place) = all.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self.put(block, &all)
    }

    /// Copies the blocks that move to their new places: at once where these are free in the old image, otherwise by the log.
    pub(crate) fn copy(&mut self, moves: &Moves) -> Result<()> {
        let size = self.geo.block_size.bytes();
        let total = moves.blocks() * size;
        let (mut done, mut buffer) = (0, Vec::new());
        for run in moves.runs() {
            let (mut from, mut to, mut left) =
                (self.byte_of(run.from), self.byte_of(run.to), u64::from(run.len) * size);
            let by_log = self.space.next_used(run.to, run.to + run.len)?.is_some();
            while left > 0 {
                let part = if by_log { size } else { left.min(COPY) };
                buffer.resize(part as usize, 0);
                self.dev.read_at(from, &mut buffer)?;
                if by_log {
                    // OK to cast: it was the number of a block.
                    self.put((to / size) as u32, &buffer)?;
                } else {
                    self.dev.write_contents(to, &buffer)?;
                }
                (from, to, left, done) = (from + part, to + part, left - part, done + part);
                self.watch.tick(Step::Copy, done, total)?;
            }
        }
        Ok(())
    }
}
