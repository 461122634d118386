//! Who gets which block of a new file system.
//!
//! # Invariants
//! 1. Blocks are given out in ascending order from two supplies that do not overlap: *units*, which are whole runs of
//!    2 MiB that begin on a multiple of 2 MiB of the device, and *filler*, which is everything else that is free.
//! 2. What [`Needs`] counts is what is taken, block for block. A layout therefore either has room or has not, and no
//!    order of files changes that: filler may come in pieces, units may not.

use alloc::vec::Vec;
use core::ops::AddAssign;

use super::{Error, Layout, Result};
use crate::UNIT;
use ext2_core::BlockSize;

/// Whether large files are laid out for 2 MiB pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// No: files follow each other without gaps.
    Off,
    /// Whole 2 MiB of files begin on 2 MiB of the device.
    Units {
        /// Where the file system begins on the device, in bytes.
        device_offset: u64,
    },
}

/// What some files take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Needs {
    /// Whole units.
    pub units: u64,
    /// Blocks of filler.
    pub filler: u64,
}

impl AddAssign for Needs {
    fn add_assign(&mut self, more: Self) {
        self.units += more.units;
        self.filler += more.filler;
    }
}

/// The units of a device, in blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    /// Blocks of a unit.
    pub(super) blocks: u64,
    /// Blocks of the device before the file system, modulo a unit.
    phase: u64,
}

impl Units {
    /// The units that `align` asks for, if any.
    pub(super) fn new(align: Align, block_size: BlockSize) -> Result<Option<Self>> {
        let Align::Units { device_offset } = align else { return Ok(None) };
        if device_offset % block_size.bytes() != 0 {
            return Error::format(alloc::format!(
                "a file system at byte {device_offset} of the device cannot be aligned: it is no multiple of a block"
            ));
        }
        let blocks = UNIT / block_size.bytes();
        Ok(Some(Self { blocks, phase: device_offset / block_size.bytes() % blocks }))
    }

    /// The units within a run of blocks: first block and number.
    fn within(self, start: u64, len: u64) -> (u64, u64) {
        let first = (start + self.phase).next_multiple_of(self.blocks) - self.phase;
        (first, (start + len).saturating_sub(first) / self.blocks)
    }
}

/// Free blocks of a layout, and units among them.
pub(super) fn room(layout: &Layout, units: Option<Units>) -> Needs {
    let mut room = Needs::default();
    for group in layout.geometry().group_numbers() {
        let (start, len) = layout.free_run(group);
        room.filler += u64::from(len);
        room.units += units.map_or(0, |units| units.within(start.into(), len.into()).1);
    }
    room
}

/// Whether what is needed has room.
pub(super) fn fits(layout: &Layout, units: Option<Units>, needs: Needs) -> bool {
    let room = room(layout, units);
    let unit_blocks = units.map_or(0, |units| units.blocks);
    needs.units <= room.units
        && needs.units.saturating_mul(unit_blocks).saturating_add(needs.filler) <= room.filler
}

/// A run of blocks.
pub(super) type Run = (u32, u32);

/// A supply that is handed out from the front.
#[derive(Debug, Default)]
struct Supply {
    runs: Vec<Run>,
    /// Which run is next, and how much of it is gone.
    at: usize,
    gone: u32,
}

impl Supply {
    fn push(&mut self, start: u64, len: u64) {
        if len > 0 {
            // Within the file system: fits.
            self.runs.push((start as u32, len as u32));
        }
    }

    /// The next run, of at most `most` blocks.
    fn take(&mut self, most: u32) -> Option<Run> {
        let &(start, len) = self.runs.get(self.at)?;
        let run = (start + self.gone, most.min(len - self.gone));
        self.gone += run.1;
        if self.gone == len {
            (self.at, self.gone) = (self.at + 1, 0);
        }
        Some(run)
    }

    fn taken(&self) -> impl Iterator<Item = Run> {
        let part = self.runs.get(self.at).map(|&(start, _)| (start, self.gone)).filter(|run| run.1 > 0);
        self.runs.iter().take(self.at).copied().chain(part)
    }
}

/// The free blocks of a new file system.
#[derive(Debug)]
pub(super) struct Space {
    filler: Supply,
    units: Supply,
    unit_blocks: u32,
}

impl Space {
    /// Divides what is free in `layout` so that `needs`, which [`fits`], can be taken. Filler up to the first unit that
    /// is reserved holds all small things if it can, so that they lie together.
    pub(super) fn new(layout: &Layout, units: Option<Units>, needs: Needs) -> Self {
        let mut space = Self { filler: Supply::default(), units: Supply::default(), unit_blocks: 0 };
        let runs = layout.geometry().group_numbers().map(|group| layout.free_run(group));
        let Some(units) = units else {
            runs.for_each(|(start, len)| space.filler.push(start.into(), len.into()));
            return space;
        };
        space.unit_blocks = units.blocks as u32; // at most 2048
        let mut spare = room(layout, Some(units)).units.saturating_sub(needs.units);
        let mut wanted = needs.units;
        let mut filled = 0;
        for (start, len) in runs {
            let (start, len) = (u64::from(start), u64::from(len));
            let (first, count) = units.within(start, len);
            // Units that go to the filler because it is short of blocks, then those that are wanted.
            let short = needs.filler.saturating_sub(filled + first.saturating_sub(start).min(len));
            let skipped = short.div_ceil(units.blocks).min(spare).min(count);
            let taken = wanted.min(count - skipped);
            let reserved = first + skipped * units.blocks;
            let end = reserved + taken * units.blocks;
            if taken > 0 {
                space.filler.push(start, reserved - start);
                space.units.push(reserved, end - reserved);
                space.filler.push(end, start + len - end);
            } else {
                space.filler.push(start, len);
            }
            spare -= skipped;
            wanted -= taken;
            filled += len - taken * units.blocks;
        }
        space
    }

    /// Up to `most` blocks of filler.
    pub(super) fn filler(&mut self, most: u64) -> Result<Run> {
        self.filler.take(u32::try_from(most).unwrap_or(u32::MAX)).ok_or_else(Self::exhausted)
    }

    /// Up to `most` units, in blocks.
    pub(super) fn units(&mut self, most: u64) -> Result<Run> {
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        self.units.take(most.saturating_mul(self.unit_blocks)).ok_or_else(Self::exhausted)
    }

    /// The plan counted all that is taken: this is an error of ours, never of the caller's.
    fn exhausted() -> Error {
        Error::Format("the plan has fewer blocks than the files take".into())
    }

    /// All that was taken, in ascending order.
    pub(super) fn taken(&self) -> Vec<Run> {
        let mut all: Vec<Run> = self.filler.taken().chain(self.units.taken()).collect();
        all.sort_unstable();
        all
    }
}
