//! Inodes that were deleted, and how one comes back.

use alloc::format;
use alloc::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::raw::{RawInode, SUPERBLOCK_OFFSET};
use ext2_core::rules::STATE_VALID;
use ext2_core::{Corrupt, InodeNr, Object, Result};
use zerocopy::FromBytes;

use super::space::Bitmaps;
use super::table::each_inode;
use super::{Budget, Step, read_inode, visit};
use crate::fields::{Layout, Structure};

/// An inode that was deleted, and still says where its contents lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deleted {
    /// Its number.
    pub inode: InodeNr,
    /// Type and permissions.
    pub mode: u16,
    /// Its owner.
    pub uid: u32,
    /// Its size in bytes.
    pub size: u64,
    /// When it was deleted, in seconds since 1970.
    pub deleted_at: u32,
    /// Its blocks, indirect ones and attributes included.
    pub blocks: u64,
    /// How many of them nobody has taken since.
    pub free: u64,
}

impl Deleted {
    /// Whether all of it is still there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.blocks == self.free
    }
}

/// The deleted inodes that have blocks, or that need none, in the order of their numbers (debugfs: `lsdel`). Linux and
/// this library clear the pointers of what they delete; debugfs and crashes leave them.
///
/// # Errors
/// A superblock that is none; the device's.
pub fn deleted(dev: &dyn BlockDevice, layout: &Layout) -> Result<Vec<Deleted>> {
    let geo = layout.geometry()?;
    let (mut all, mut budget, mut bitmaps) = (Vec::new(), Budget::of(geo), Bitmaps::default());
    for group in geo.group_numbers() {
        each_inode(dev, layout, group, &mut |nr, inode| {
            all.extend(look(dev, layout, nr, inode, (&mut budget, &mut bitmaps))?);
            Ok(())
        })?;
    }
    Ok(all)
}

/// What is left of an inode, if it is deleted and anything is.
fn look(
    dev: &dyn BlockDevice,
    layout: &Layout,
    nr: InodeNr,
    bytes: &[u8],
    (budget, bitmaps): (&mut Budget, &mut Bitmaps),
) -> Result<Option<Deleted>> {
    let geo = layout.geometry()?;
    let Ok((raw, _)) = RawInode::read_from_prefix(bytes) else { return Ok(None) };
    let gone = raw.i_links_count.get() == 0 && raw.i_dtime.get() != 0 && raw.i_mode.get() != 0;
    if !gone || nr.get() < geo.first_ino {
        return Ok(None);
    }
    let mut taken = Vec::new();
    if raw.i_file_acl.get() != 0 {
        taken.push((raw.i_file_acl.get(), 1));
    }
    visit(dev, geo, bytes, budget, &mut |step| match step {
        Step::Indirect { block, .. } => taken.push((block, 1)),
        Step::Run { count, block, .. } => taken.push((block, count)),
    })?;
    let (mut blocks, mut free) = (0, 0);
    for (first, count) in taken {
        blocks += count;
        for block in
            (u64::from(first)..u64::from(first) + count).filter_map(|block| u32::try_from(block).ok())
        {
            if geo.data_block(block).is_some() && bitmaps.is_free(dev, layout, block)? {
                free += 1;
            }
        }
    }
    let is_file = raw.i_mode.get() >> 12 == 0o10;
    let high = if is_file { u64::from(raw.i_size_high.get()) << 32 } else { 0 };
    let size = u64::from(raw.i_size.get()) | high;
    if blocks == 0 && (size == 0 || is_file || raw.i_mode.get() >> 12 == 0o4) {
        return Ok(None);
    }
    Ok(Some(Deleted {
        inode: nr,
        mode: raw.i_mode.get(),
        uid: u32::from(raw.i_uid.get()) | u32::from(raw.i_uid_high.get()) << 16,
        size,
        deleted_at: raw.i_dtime.get(),
        blocks,
        free,
    }))
}

/// Takes the deletion of an inode back as far as the inode says it: one link, no time. The image is marked as not clean,
/// so that whoever opens it next counts its blocks as used; then it has to get a name at once.
///
/// # Errors
/// An inode that is not deleted, a directory (its names are gone), or one of whose blocks somebody has taken; the
/// device's.
pub fn revive(dev: &dyn BlockDevice, layout: &Layout, nr: InodeNr) -> Result<()> {
    let (_, bytes) = read_inode(dev, layout, nr)?;
    let refuse = |what| Err(Corrupt::new(Object::Inode(nr), what).into());
    let (mut budget, mut bitmaps) = (Budget::of(layout.geometry()?), Bitmaps::default());
    let Some(found) = look(dev, layout, nr, &bytes, (&mut budget, &mut bitmaps))? else {
        return refuse("is not deleted, or nothing is left of it".into());
    };
    if found.mode >> 12 == 0o4 {
        return refuse("is a directory; what was in it has no names any more".into());
    }
    if !found.is_whole() {
        let lost = found.blocks - found.free;
        return refuse(format!("{lost} of its {} blocks are taken by others since", found.blocks));
    }
    // What opens the image next finds it by its links, and marks its blocks.
    let mut state = [0; 2];
    dev.read_at(SUPERBLOCK_OFFSET + 58, &mut state)?;
    let state = u16::from_le_bytes(state) & !STATE_VALID;
    dev.write_at(SUPERBLOCK_OFFSET + 58, &state.to_le_bytes())?;
    dev.flush()?;
    let (offset, _) = layout.place(dev, Structure::Inode(nr))?;
    // i_dtime, and i_links_count.
    dev.write_at(offset + 20, &0_u32.to_le_bytes())?;
    dev.write_at(offset + 26, &1_u16.to_le_bytes())?;
    Ok(dev.flush()?)
}
