//! What is free and used in the groups, and the blocks that are known to be bad.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use blockdev::BlockDevice;
use ext2_core::raw::RawGroupDesc;
use ext2_core::{Corrupt, GroupNr, InodeNr, Object, Result};

use super::{Budget, Step, read_inode, visit};
use crate::fields::{BitRun, Layout, Structure, bit_runs};

/// A group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupSpace {
    /// Which.
    pub group: GroupNr,
    /// Its blocks on the device.
    pub blocks: Range<u32>,
    /// Its inodes.
    pub inodes: Range<u32>,
    /// Whether it begins with a copy of the superblock.
    pub has_super: bool,
    /// Blocks at its start for superblock and descriptors.
    pub overhead: u32,
    /// Its descriptor, unchecked.
    pub descriptor: RawGroupDesc,
    /// Runs of blocks by their numbers on the device, free and used by turns; none where the bitmap cannot be read.
    pub block_runs: Vec<BitRun>,
    /// The same of inodes, by their numbers.
    pub inode_runs: Vec<BitRun>,
}

impl GroupSpace {
    /// Numbers that are free among runs.
    #[must_use]
    pub fn free(runs: &[BitRun]) -> u32 {
        runs.iter().filter(|run| !run.is_set).map(|run| run.bits.end - run.bits.start).sum()
    }
}

/// A group with its bitmaps.
///
/// # Errors
/// A group that there is not; the device's.
pub fn group_space(dev: &dyn BlockDevice, layout: &Layout, group: GroupNr) -> Result<GroupSpace> {
    let geo = layout.geometry()?;
    let descriptor = layout.descriptor(dev, group)?;
    let (start, len) = (geo.group_start(group), geo.group_len(group));
    let first = group.get() * geo.inodes_per_group + 1;
    let runs = |what, count, from: u32| -> Result<Vec<BitRun>> {
        // A bitmap that lies nowhere is shown by having no runs; the descriptor says where it should lie.
        let Ok((offset, len)) = layout.place(dev, what) else { return Ok(Vec::new()) };
        let mut bytes = vec![0; len];
        dev.read_at(offset, &mut bytes)?;
        let shift = |run: BitRun| BitRun { bits: run.bits.start + from..run.bits.end + from, ..run };
        Ok(bit_runs(&bytes, count).into_iter().map(shift).collect())
    };
    Ok(GroupSpace {
        group,
        blocks: start..start + len,
        inodes: first..first + geo.inodes_per_group,
        has_super: geo.has_super(group),
        overhead: geo.group_overhead(group),
        descriptor,
        block_runs: runs(Structure::BlockBitmap(group), len, start)?,
        inode_runs: runs(Structure::InodeBitmap(group), geo.inodes_per_group, first)?,
    })
}

/// Whether a block is used in its bitmap.
///
/// # Errors
/// A block of no group; the device's.
pub fn is_set(dev: &dyn BlockDevice, layout: &Layout, block: u32) -> Result<bool> {
    let none = || Corrupt::new(Object::Block(block.into()), "lies in no group");
    let (group, bit) = layout.geometry()?.group_of_block(block).ok_or_else(none)?;
    let (offset, _) = layout.place(dev, Structure::BlockBitmap(group))?;
    let mut byte = [0];
    dev.read_at(offset + u64::from(bit / 8), &mut byte)?;
    Ok(byte[0] >> (bit % 8) & 1 != 0)
}

/// The bitmaps of blocks, each read once.
#[derive(Debug, Default)]
pub(super) struct Bitmaps(BTreeMap<GroupNr, Vec<u8>>);

impl Bitmaps {
    /// Whether a block is nobody's. One of no group, or of a group whose bitmap lies nowhere, is not.
    pub(super) fn is_free(&mut self, dev: &dyn BlockDevice, layout: &Layout, block: u32) -> Result<bool> {
        let Some((group, bit)) = layout.geometry()?.group_of_block(block) else { return Ok(false) };
        let bitmap = match self.0.entry(group) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let mut bytes = Vec::new();
                if let Ok((offset, len)) = layout.place(dev, Structure::BlockBitmap(group)) {
                    bytes.resize(len, 0);
                    dev.read_at(offset, &mut bytes)?;
                }
                new.insert(bytes)
            }
        };
        Ok(bitmap.get(bit as usize / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 0))
    }
}

/// The blocks that inode 1 keeps from use (`e2fsck -c`, `mke2fs -l`).
///
/// # Errors
/// A superblock that is none; the device's.
pub fn bad_blocks(dev: &dyn BlockDevice, layout: &Layout) -> Result<Vec<Range<u32>>> {
    let mut bad = Vec::new();
    let Some(nr) = InodeNr::new(1) else { return Ok(bad) };
    let (_, bytes) = read_inode(dev, layout, nr)?;
    visit(dev, layout.geometry()?, &bytes, &mut Budget::of(layout.geometry()?), &mut |step| {
        if let Step::Run { count, block, .. } = step {
            // OK to cast: a run of blocks with numbers of 32 bits.
            bad.push(block..block.saturating_add(count as u32));
        }
    })?;
    Ok(bad)
}
