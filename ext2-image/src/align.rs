//! Moving files into whole units of 2 MiB, in place, so that pages of that size can map them.
//!
//! In rounds, each of which is a [rewrite](crate::rewrite) of its own, taken in one step: first the units of files that no
//! page can map move to free aligned units, as many as there are; their former places are free after the step. When none
//! is free, those that hold the least (small files, ends of files, directories, indirect blocks) are emptied into
//! others that are broken anyway. A unit of a file that has a hole in it stays: it could only be mapped by giving it
//! blocks that it does not need.
//!
//! ```
//! use std::sync::Arc;
//!
//! use blockdev::BlockDevice;
//! use ext2_core::placement::Policy;
//! use ext2_core::{Ext2, OpenOptions};
//! use ext2_image::align::align;
//! use ext2_image::rewrite::Options;
//!
//! // As Linux writes it: blocks follow the metadata, wherever that ends.
//! let device: Arc<dyn BlockDevice> = Arc::new(ext2_image::mkfs::in_memory(64 << 20)?);
//! let as_linux = OpenOptions { placement: Some(Policy::Goal.placement()), ..OpenOptions::default() };
//! let fs = Ext2::open(Arc::clone(&device), &as_linux)?;
//! fs.write("file", vec![1; 4 << 20])?;
//! let _ = fs.close()?;
//!
//! let done = align(&device, &Options::default())?;
//! assert_eq!((done.before.mappable, done.after.mappable), (0, 2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::raw::RawSuperblock;
use ext2_core::{Ext2, FileBlock, FileKind, Geometry, OpenOptions, Result};

use crate::rewrite::{Draft, Image, Moves, Numbers, Options, group_range};
use crate::{UNIT, UnitCounts, UnitState, Units, Walk};

/// What aligning did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Aligned {
    /// Whole units of all files before, by their states.
    pub before: UnitCounts,
    /// And after.
    pub after: UnitCounts,
    /// Blocks that were moved, those that made room for others included.
    pub moved_blocks: u64,
    /// Steps that were taken.
    pub rounds: u64,
}

/// A unit of a file that is all data and cannot be mapped: where its blocks lie, in order.
type Broken = Vec<(u32, u32)>;

/// What the files have.
#[derive(Debug, Default)]
struct Survey {
    counts: UnitCounts,
    broken: Vec<Broken>,
    /// First blocks of units that are mapped as they are.
    good: BTreeSet<u32>,
}

/// Aligns all files of an image. The device is claimed meanwhile. Each round leaves the image sound; one that is stopped can
/// be gone on with by calling this again.
///
/// # Errors
/// `EBUSY` where the image is in use; `UCLEAN` where it is not clean; `EINTR` where it was stopped; `Corrupt`, `Incompatible`,
/// the device's.
pub fn align(dev: &Arc<dyn BlockDevice>, options: &Options<'_>) -> Result<Aligned> {
    let image = Image::read(&**dev)?;
    let _claim = dev.claim(0, u64::from(image.geo.blocks_count) << image.geo.block_size.log2())?;
    let mut done = Aligned::default();
    let mut survey = look(dev, options.bias)?;
    done.before = survey.counts;
    let mut made_room = false;
    while !survey.broken.is_empty() {
        let image = Image::read(&**dev)?;
        let (raw, geo): (RawSuperblock, Geometry) = (image.raw, image.geo.clone());
        let mut draft = Draft::new(&**dev, image, raw, geo, options);
        if draft.space.unit() == 0 {
            break;
        }
        let mut moves = place(&mut draft, &survey.broken)?;
        if moves.blocks() > 0 {
            made_room = false;
        } else {
            // Room that was made and is not enough for a single unit is no use making again.
            if made_room {
                break;
            }
            moves = make_room(&mut draft, &survey)?;
            if moves.blocks() == 0 {
                break;
            }
            made_room = true;
        }
        moves.sort();
        for run in moves.runs() {
            draft.space.mark(run.from, run.len, false)?;
        }
        if done.rounds == 0 {
            // Each round leaves bitmaps that can be believed as much.
            draft.look()?;
        }
        draft.copy(&moves)?;
        draft.remap(&moves, &Numbers::new())?;
        draft.finish()?;
        done.moved_blocks += moves.blocks();
        done.rounds += 1;
        survey = look(dev, options.bias)?;
    }
    done.after = survey.counts;
    Ok(done)
}

/// Looks at all units of all files.
fn look(dev: &Arc<dyn BlockDevice>, bias: u64) -> Result<Survey> {
    let fs = Ext2::open(dev.clone(), &OpenOptions::read_only())?;
    let size = fs.geometry().block_size;
    let mut survey = Survey::default();
    let mut seen = BTreeSet::new();
    let root = fs.root()?;
    for step in Walk::new(&root, b"/") {
        let inode = step.map_err(|error| error.error)?.inode;
        let attr = inode.attr();
        if inode.kind() != FileKind::Regular
            || attr.size < UNIT
            || (attr.links > 1 && !seen.insert(inode.nr()))
        {
            continue;
        }
        for run in Units::of(&inode, bias) {
            let run = run?;
            survey.counts += run;
            let blocks = UNIT / size.bytes();
            for unit in run.first..run.first + run.count {
                let first = FileBlock::new(unit * blocks);
                match run.state {
                    UnitState::Mappable => {
                        if let Some(block) = inode.map(first, 1)?.target {
                            survey.good.insert(block.get());
                        }
                    }
                    UnitState::Fragmented | UnitState::Unaligned => {
                        let (mut at, end, mut runs) = (unit * blocks, (unit + 1) * blocks, Broken::new());
                        while at < end {
                            let mapping = inode.map(FileBlock::new(at), end - at)?;
                            if let Some(block) = mapping.target {
                                // OK to cast: within a unit.
                                runs.push((block.get(), mapping.count as u32));
                            }
                            at = mapping.end().get();
                        }
                        survey.broken.push(runs);
                    }
                    UnitState::HugeZero | UnitState::Hole | UnitState::PastEof => {}
                }
            }
        }
    }
    Ok(survey)
}

/// Gives free units to as many of those that need one as there are.
fn place(draft: &mut Draft<'_>, broken: &[Broken]) -> Result<Moves> {
    let mut moves = Moves::default();
    for runs in broken {
        let Some(unit) = draft.space.take_unit()? else { break };
        let mut to = unit;
        for &(from, len) in runs {
            moves.push(from, to, len);
            to += len;
        }
    }
    Ok(moves)
}

/// Empties units that hold little into others that are broken anyway.
fn make_room(draft: &mut Draft<'_>, survey: &Survey) -> Result<Moves> {
    let (geo, unit) = (draft.geo.clone(), draft.space.unit());
    let mut fixed = BTreeSet::new();
    for group in geo.group_numbers() {
        let (start, _) = group_range(&geo, group);
        let desc = draft.descs[group.get() as usize];
        let own = [
            (start, geo.group_overhead(group)),
            (desc.bg_block_bitmap.get(), 1),
            (desc.bg_inode_bitmap.get(), 1),
            (desc.bg_inode_table.get(), geo.inode_table_blocks()),
        ];
        for (first, len) in own {
            fixed.extend((first..first + len).filter(|&block| draft.space.unit_at(block) == block));
            // The unit in which a run begins is none of its multiples.
            let next = draft.space.unit_at(first);
            if next > first {
                fixed.insert(next.saturating_sub(unit));
            }
        }
    }
    let mut candidates = Vec::new();
    let mut room = 0_u64;
    let mut start = draft.space.unit_at(geo.first_data_block + 1);
    while start.checked_add(unit).is_some_and(|end| end <= geo.blocks_count) {
        let (mut used, mut at) = (0, start);
        while let Some(block) = draft.space.next_used(at, start + unit)? {
            (used, at) = (used + 1, block + 1);
        }
        if used > 0 {
            room += u64::from(unit - used);
            if !fixed.contains(&start) && !survey.good.contains(&start) {
                candidates.push((used, start));
            }
        }
        start += unit;
    }
    candidates.sort_unstable();
    // What one empties has to fit into the others that are broken.
    let mut chosen = Vec::new();
    let mut needed = 0_u64;
    for (used, start) in candidates {
        room = room.saturating_sub(u64::from(unit - used));
        needed += u64::from(used);
        if needed > room || chosen.len() >= survey.broken.len() {
            break;
        }
        chosen.push(start);
    }
    // Nothing is put into a unit that is to be free.
    for &start in &chosen {
        draft.space.mark(start, unit, true)?;
    }
    let mut moves = Moves::default();
    for &start in &chosen {
        let mut block = start;
        while block < start + unit {
            if !draft.space.is_used_before(block)? {
                block += 1;
                continue;
            }
            let mut len = 1;
            while block + len < start + unit && draft.space.is_used_before(block + len)? {
                len += 1;
            }
            while len > 0 {
                let Some((to, count)) = draft.space.take_broken(len)? else { return Ok(Moves::default()) };
                moves.push(block, to, count);
                (block, len) = (block + count, len - count);
            }
        }
    }
    for &start in &chosen {
        draft.space.mark(start, unit, false)?;
    }
    Ok(moves)
}
