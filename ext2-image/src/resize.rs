//! Growing and shrinking an image, offline.
//!
//! The numbers of the result (groups, inodes, reserved blocks, spare descriptor blocks, backups) are those of resize2fs 1.47.
//! How it comes about is not: the new image is made beside the old one and put in its place in one step (see
//! [`rewrite`](crate::rewrite)), so that a crash leaves the one or the other.
//!
//! Blocks in the way (behind the new end, or where descriptors, bitmaps and tables of the new image have to be) move. A
//! whole unit of 2 MiB moves to a whole unit as long as there is one; the rest goes into units that are broken already.
//! Inodes of groups that go get the first free numbers.
//!
//! ```
//! use std::sync::Arc;
//!
//! use ext2_core::Ext2;
//! use ext2_image::resize::Resize;
//!
//! let image = Arc::new(ext2_image::mkfs::in_memory(64 << 20)?);
//! let fs = Ext2::open(Arc::clone(&image), &Default::default())?;
//! fs.write("kept", "these bytes")?;
//! fs.close()?;
//!
//! let blocks = Resize::minimum(&image)?;
//! let plan = Resize::plan(&image, blocks.into())?;
//! assert!(plan.bytes() < 8 << 20);
//! plan.run(&image, &Default::default())?;
//! assert_eq!(Ext2::open(image, &Default::default())?.read("kept")?, b"these bytes");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod groups;
mod numbers;
mod spare;

use alloc::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::raw::RawSuperblock;
use ext2_core::{CompatFeatures, Geometry, GroupNr, Result};

use crate::rewrite::{Draft, Image, Options};

/// What a resize is to come to, worked out but not begun.
#[derive(Clone, Debug)]
pub struct Resize {
    old: Image,
    raw: RawSuperblock,
    geo: Geometry,
}

/// What a resize did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resized {
    /// Blocks before and after.
    pub blocks: (u32, u32),
    /// Groups before and after.
    pub groups: (u32, u32),
    /// Blocks of files, directories and attributes that were moved.
    pub moved_blocks: u64,
    /// Whole units of 2 MiB among them that stayed whole, and those for which there was no room.
    pub units_kept: u64,
    /// Whole units of 2 MiB that were broken for want of a free one.
    pub units_broken: u64,
    /// Inodes that got another number.
    pub moved_inodes: u64,
    /// Blocks that changed in place, by way of the log.
    pub logged_blocks: u64,
}

impl Resize {
    /// A resize of the image on `dev` to `blocks` blocks, or what resize2fs makes of that: a last group in which nothing
    /// would fit is left out.
    ///
    /// # Errors
    /// `UCLEAN` for an image that is not clean; `NOSPC` where the size is too small for what is in the image, as far as
    /// that can be told beforehand; `FBIG` where it has more blocks or inodes than can be numbered; `Incompatible`.
    pub fn plan(dev: &dyn BlockDevice, blocks: u64) -> Result<Self> {
        let old = Image::read(dev)?;
        let (raw, geo) = numbers::resized(&old, blocks)?;
        numbers::check_fits(&old, &geo)?;
        Ok(Self { old, raw, geo })
    }

    /// The fewest blocks that the image can be shrunk to.
    ///
    /// # Errors
    /// As for [`plan`](Self::plan).
    pub fn minimum(dev: &dyn BlockDevice) -> Result<u32> {
        numbers::minimum(&Image::read(dev)?)
    }

    /// Blocks of the result.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.geo.blocks_count
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        self.geo.block_size.bytes()
    }

    /// Bytes of the result.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.geo.blocks_count) * self.geo.block_size.bytes()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.geo == self.old.geo
    }

    /// Does it. The device has at least [`bytes`](Self::bytes), and is the one that was planned for, unchanged. It is
    /// claimed meanwhile. One that is a file may be cut off behind the new end when this has returned.
    ///
    /// # Errors
    /// `EBUSY` where the image is in use; `EINTR` where it was stopped, `ENOSPC` where the files do not fit or there is no
    /// room for the log: the image is as it was then. The device's: if the step was taken,
    /// [`recover`](crate::rewrite::recover) carries it out.
    pub fn run(&self, dev: &dyn BlockDevice, options: &Options<'_>) -> Result<Resized> {
        let size = self.geo.block_size.bytes();
        let bytes = u64::from(self.old.geo.blocks_count.max(self.geo.blocks_count)) * size;
        let _claim = dev.claim(0, bytes)?;
        let (old, new) = (&self.old.geo, &self.geo);
        let mut done = Resized {
            blocks: (old.blocks_count, new.blocks_count),
            groups: (old.groups, new.groups),
            ..Resized::default()
        };
        if self.is_nothing() {
            return Ok(done);
        }
        let draft = lay_anew(dev, self.old.clone(), self.raw, new.clone(), options, &mut done)?;
        done.logged_blocks = draft.finish()?;
        Ok(done)
    }
}

/// A draft of the image with another layout of its groups, and everything that is in the way moved.
fn lay_anew<'d>(
    dev: &'d dyn BlockDevice,
    old: Image,
    raw: RawSuperblock,
    geo: Geometry,
    options: &Options<'d>,
    done: &mut Resized,
) -> Result<Draft<'d>> {
    let mut draft = Draft::new(dev, old, raw, geo, options);
    draft.look()?;
    let in_the_way = groups::lay_out(&mut draft)?;
    let moves = groups::find_places(&mut draft, &in_the_way, done)?;
    done.moved_blocks = moves.blocks();
    draft.copy(&moves)?;
    let numbers = draft.renumber()?;
    done.moved_inodes = numbers.len() as u64;
    if moves.blocks() > 0 || !numbers.is_empty() {
        draft.remap(&moves, &numbers)?;
    }
    spare::write(&mut draft)?;
    groups::count_overhead(&mut draft);
    Ok(draft)
}

/// As a resize lays out another size, for an image of the same size whose features change.
pub(crate) fn relaid<'d>(
    dev: &'d dyn BlockDevice,
    old: Image,
    raw: RawSuperblock,
    geo: Geometry,
    options: &Options<'d>,
) -> Result<Draft<'d>> {
    lay_anew(dev, old, raw, geo, options, &mut Resized::default())
}

/// The groups with a copy of the superblock, the first left out.
fn backups(geo: &Geometry) -> Vec<GroupNr> {
    geo.group_numbers().skip(1).filter(|&group| geo.has_super(group)).collect()
}

/// Whether inode 7 holds spare descriptors.
fn has_spare(draft: &Draft<'_>) -> bool {
    draft.old.sb.features.compat.contains(CompatFeatures::RESIZE_INODE)
}
