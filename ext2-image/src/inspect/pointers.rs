//! The block map of an inode as it lies on the device: runs of blocks, with the indirect blocks in their place.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::raw::RawInode;
use ext2_core::rules::{DIRECT, SLOTS, Shape};
use ext2_core::{Corrupt, Geometry, InodeNr, Object, Result};
use zerocopy::FromBytes;

use crate::fields::{InodeShape, Layout, Structure};

/// A part of a block map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An indirect block, before what it leads to.
    Indirect {
        /// How many levels it stands above the contents: 1 to 3.
        level: u32,
        /// Where it lies on the device.
        block: u32,
        /// The first block of the file that it leads to.
        first: u64,
        /// It was met before in this inode, or lies outside the file system: it is not entered.
        is_wrong: bool,
    },
    /// Blocks of the file that lie beside each other.
    Run {
        /// The first of them in the file.
        first: u64,
        /// How many.
        count: u64,
        /// The first of them on the device.
        block: u32,
    },
}

/// The raw inode of a number, and all its bytes.
///
/// # Errors
/// A number that there is not, an inode table outside the file system, the device's.
pub fn read_inode(dev: &dyn BlockDevice, layout: &Layout, nr: InodeNr) -> Result<(RawInode, Vec<u8>)> {
    let (offset, len) = layout.place(dev, Structure::Inode(nr))?;
    let mut bytes = vec![0; len];
    dev.read_at(offset, &mut bytes)?;
    match RawInode::read_from_prefix(&bytes) {
        Ok((raw, _)) => Ok((raw, bytes)),
        Err(_) => Err(Corrupt::new(Object::Inode(nr), format!("has {len} bytes")).into()),
    }
}

/// The whole block map of an inode in the order of the file; empty where it has none (short links, devices, FIFOs).
///
/// # Errors
/// The device's.
pub fn pointers(dev: &dyn BlockDevice, geo: &Geometry, bytes: &[u8]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    visit(dev, geo, bytes, &mut Budget::of(geo), &mut |step| steps.push(step))?;
    Ok(steps)
}

/// How many indirect blocks a walk may still enter: so many that all inodes of a sound file system are walked, and no
/// image on which they share their blocks takes for ever.
#[derive(Clone, Copy, Debug)]
pub struct Budget(u64);

impl Budget {
    /// For one walk over all inodes: live ones and what is left of deleted ones.
    #[must_use]
    pub fn of(geo: &Geometry) -> Self {
        Self(2 * u64::from(geo.blocks_count))
    }
}

/// As [`pointers`], step by step.
///
/// # Errors
/// `Corrupt` where the budget does not last; the device's.
pub fn visit(
    dev: &dyn BlockDevice,
    geo: &Geometry,
    bytes: &[u8],
    budget: &mut Budget,
    each: &mut dyn FnMut(Step),
) -> Result<()> {
    let Ok((raw, _)) = RawInode::read_from_prefix(bytes) else { return Ok(()) };
    if InodeShape::of(bytes) != InodeShape::Pointers {
        return Ok(());
    }
    let roots: [u32; SLOTS] = raw.i_block.map(|pointer| pointer.get());
    let mut visitor = Visitor {
        dev,
        geo,
        shape: Shape::new(geo.block_size.pointers()),
        entered: BTreeSet::new(),
        run: None,
        budget,
        each,
    };
    let mut first = 0;
    for (slot, &pointer) in roots.iter().enumerate() {
        // The last three slots are roots of trees.
        let level = (slot as u64).saturating_sub(DIRECT - 1) as u32;
        if level == 0 {
            visitor.data(first, pointer);
        } else {
            visitor.enter(level, pointer, first)?;
        }
        first += visitor.shape.span(level);
    }
    visitor.flush();
    Ok(())
}

struct Visitor<'d> {
    dev: &'d dyn BlockDevice,
    geo: &'d Geometry,
    shape: Shape,
    entered: BTreeSet<u32>,
    /// The run that may go on: first block of the file, count, first block on the device.
    run: Option<(u64, u64, u32)>,
    budget: &'d mut Budget,
    each: &'d mut dyn FnMut(Step),
}

impl Visitor<'_> {
    fn flush(&mut self) {
        if let Some((first, count, block)) = self.run.take() {
            (self.each)(Step::Run { first, count, block });
        }
    }

    fn data(&mut self, at: u64, pointer: u32) {
        if pointer == 0 {
            return;
        }
        if let Some((first, count, block)) = &mut self.run
            && *first + *count == at
            && u64::from(*block) + *count == u64::from(pointer)
        {
            *count += 1;
            return;
        }
        self.flush();
        self.run = Some((at, 1, pointer));
    }

    /// The tree below an indirect block. No deeper than three levels, so that it may call itself.
    fn enter(&mut self, level: u32, block: u32, first: u64) -> Result<()> {
        if block == 0 {
            return Ok(());
        }
        self.flush();
        let place = self.geo.data_block(block).filter(|_| self.entered.insert(block));
        (self.each)(Step::Indirect { level, block, first, is_wrong: place.is_none() });
        let Some(place) = place else { return Ok(()) };
        self.budget.0 = self.budget.0.checked_sub(1).ok_or_else(|| {
            Corrupt::new(
                Object::Block(block.into()),
                "is one indirect block more than the file system has blocks",
            )
        })?;
        let mut bytes = vec![0; self.geo.block_size.len()];
        self.dev.read_at(self.geo.byte_of(place), &mut bytes)?;
        for (nr, pointer) in bytes.chunks_exact(4).enumerate() {
            let pointer = pointer.try_into().map_or(0, u32::from_le_bytes);
            let at = first + nr as u64 * self.shape.span(level - 1);
            if level == 1 {
                self.data(at, pointer);
            } else {
                self.enter(level - 1, pointer, at)?;
            }
        }
        Ok(())
    }
}
