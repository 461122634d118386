//! Rewriting an image as a whole: its blocks, inodes and groups get other places, in one step.
//!
//! # Invariants
//! 1. Until the step is taken, only blocks are written that the image as it was has free, or that lie past its end: whoever
//!    looks, even after a crash, sees the image as it was, sound and clean.
//! 2. What must change in blocks that are in use is kept in a log of blocks that both the old and the new image have
//!    free. One aligned store of four bytes (`s_feature_incompat`) makes the log hold; from then on the image is the new
//!    one, and everybody who does not know the mark refuses it.
//! 3. Carrying the log out can be done any number of times ([`recover`]). The mark goes last.
//!
//! So no order among the changes has to be thought of, and no state is one that a checker must mend. What is paid is that
//! what changes in place is written twice: the bytes that change, or the block where these are many.
//!
//! | module | is |
//! |---|---|
//! | `space` | what is free before and after, and where moved blocks go |
//! | `moves` | which blocks move where |
//! | `draft` | the new image while it is made |
//! | `remap` | finding all that points to a moved block or inode |
//! | `switch` | the log, the step, and carrying it out again |
//! | `patch` | what the log says of blocks of which little changes |

mod draft;
mod moves;
mod patch;
mod remap;
mod space;
mod switch;

use blockdev::BlockDevice;
use ext2_core::raw::{RawGroupDesc, RawSuperblock, SUPERBLOCK_OFFSET};
use ext2_core::{CompatFeatures, IncompatFeatures};
use ext2_core::{Corrupt, Errno, Error, Geometry, GroupNr, Object, Result, Superblock};

use alloc::vec::Vec;
use zerocopy::{FromZeros, IntoBytes};

/// How a rewrite is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'w> {
    /// How many bytes behind a multiple of 2 MiB of memory the file system begins.
    pub bias: u64,
    /// The byte of the device from which on it is nobody's, if there is one: room for the log where the image is full.
    pub spill: Option<u64>,
    /// Seconds since 1970, for the time of the last change of the superblock; `None` leaves it.
    pub now: Option<u32>,
    /// Who watches.
    pub watch: Watch<'w>,
}

pub(crate) use draft::Draft;
pub(crate) use moves::Moves;
pub(crate) use remap::Numbers;
pub(crate) use space::{Space, fill};
pub use switch::{is_unfinished, recover};

/// What a long rewrite is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Copying blocks to their new places.
    Copy,
    /// Looking through the inodes for what points to them.
    Inodes,
    /// Writing the log and carrying it out.
    Switch,
}

/// How far a rewrite is: of what a [`Step`] counts (bytes, inodes, blocks), `done` of `total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What it is at.
    pub step: Step,
    /// How much of it is done.
    pub done: u64,
    /// How much there is.
    pub total: u64,
}

/// Who is told of the progress of a rewrite, and may end it.
#[derive(Clone, Copy)]
pub struct Watch<'w> {
    /// Told now and then.
    pub progress: &'w dyn Fn(Progress),
    /// Asked now and then until the step is taken: true ends the work with `EINTR`, and the image is as it was.
    pub stop: &'w dyn Fn() -> bool,
}

impl core::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Watch")
    }
}

impl Default for Watch<'_> {
    fn default() -> Self {
        Self { progress: &|_| (), stop: &|| false }
    }
}

impl Watch<'_> {
    fn tick(&self, step: Step, done: u64, total: u64) -> Result<()> {
        (self.progress)(Progress { step, done, total });
        if (self.stop)() {
            return Err(Error::Caller(Errno::INTR, "stopped: the image is as it was"));
        }
        Ok(())
    }
}

/// The image as it is: its superblock, layout and descriptors.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) raw: RawSuperblock,
    pub(crate) sb: Superblock,
    pub(crate) geo: Geometry,
    pub(crate) descs: Vec<RawGroupDesc>,
}

impl Image {
    /// Reads what has to be known of an image that is going to be rewritten, which has to be clean.
    pub(crate) fn read(dev: &dyn BlockDevice) -> Result<Self> {
        let mut raw = RawSuperblock::new_zeroed();
        let end = SUPERBLOCK_OFFSET + size_of::<RawSuperblock>() as u64;
        if dev.size() < end {
            return Err(Corrupt::new(Object::Superblock, "the device is too small to have one").into());
        }
        dev.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
        let sb = Superblock::from_raw(&raw, dev.size(), false)?;
        sb.features.check_writable()?;
        if !sb.clean || sb.has_errors || sb.last_orphan != 0 {
            return Err(Error::Caller(Errno::UCLEAN, "the image is not clean: check and repair it first"));
        }
        if sb.features.incompat.contains(IncompatFeatures::META_BG)
            && sb.features.compat.contains(CompatFeatures::RESIZE_INODE)
        {
            let what = "resize_inode and meta_bg exclude each other: check and repair the image first";
            return Err(Corrupt::new(Object::Superblock, what).into());
        }
        let geo = Geometry::new(&sb);
        let mut descs = alloc::vec![RawGroupDesc::default(); geo.groups as usize];
        for (nr, chunk) in descs.chunks_mut(geo.descriptors_per_block() as usize).enumerate() {
            // OK to cast: there are at most 2^32 groups.
            let block = geo.descriptor_block(nr as u32, GroupNr::new(0));
            let Some(block) = geo.data_block(block) else {
                return Err(
                    Corrupt::new(Object::Superblock, "descriptors lie outside the file system").into()
                );
            };
            dev.read_at(geo.byte_of(block), chunk.as_mut_bytes())?;
        }
        for group in geo.group_numbers() {
            let desc = &descs[group.get() as usize];
            geo.check_descriptor(group, desc)?;
            let (start, end) = group_range(&geo, group);
            let behind = start.saturating_add(geo.group_overhead(group));
            let table = desc.bg_inode_table.get();
            let apart = [desc.bg_block_bitmap.get(), desc.bg_inode_bitmap.get(), table]
                .iter()
                .all(|&block| block >= behind && block < end)
                && table + geo.inode_table_blocks() <= end;
            if !apart {
                let what = "bitmaps or inode table lie outside the group or on its descriptors";
                return Err(Corrupt::new(Object::Group(group), what).into());
            }
        }
        Ok(Self { raw, sb, geo, descs })
    }
}

/// The first block of a group and the one behind its last.
pub(crate) fn group_range(geo: &Geometry, group: GroupNr) -> (u32, u32) {
    let start = geo.group_start(group);
    (start, start.saturating_add(geo.group_len(group)))
}

/// Every place of every block of descriptors: the block, and which one of them it holds.
pub(crate) fn descriptor_places(geo: &Geometry) -> Vec<(u32, u32)> {
    let per_block = geo.descriptors_per_block();
    let mut places = Vec::new();
    for nr in 0..geo.descriptor_blocks() {
        if geo.is_meta_descriptor(nr) {
            let first = nr.saturating_mul(per_block);
            for group in [first, first.saturating_add(1), first.saturating_add(per_block - 1)] {
                if group < geo.groups {
                    let group = GroupNr::new(group);
                    places.push((geo.group_start(group) + u32::from(geo.has_super(group)), nr));
                }
            }
        } else {
            for group in geo.group_numbers().filter(|&group| geo.has_old_descriptors(group)) {
                places.push((geo.group_start(group) + 1 + nr, nr));
            }
        }
    }
    places.sort_unstable();
    places.dedup();
    places
}
