//! Single fields of an inode on the device, each one store.

use core::mem::offset_of;
use core::sync::atomic::Ordering;

use super::attr::{ATIME_EXTRA_END, CTIME_EXTRA_END, MTIME_EXTRA_END};
use super::{Attrs, Cell, FileKind, InodeFlags};
use crate::Timestamp;
use crate::error::Result;
use crate::order::Barrier;
use crate::raw::{RawInode, RawInodeExtra};

/// Byte offset of a field within the inode.
macro_rules! at {
    ($field:ident) => {
        offset_of!(RawInode, $field) as u64
    };
}

/// Byte offset of an extra field within the inode.
macro_rules! extra {
    ($field:ident) => {
        (size_of::<RawInode>() + offset_of!(RawInodeExtra, $field)) as u64
    };
}

/// Sizes from here on need the `large_file` feature.
const LARGE: u64 = 1 << 31;

impl Cell {
    pub(super) fn store_u16(&self, at: u64, value: u16) -> Result<()> {
        self.fs.store_u16(self.offset + at, value)
    }

    pub(super) fn store_u32(&self, at: u64, value: u32) -> Result<()> {
        self.fs.store_u32(self.offset + at, value)
    }

    /// Stores one of the 15 pointers.
    pub(crate) fn store_root(&self, slot: usize, pointer: u32) -> Result<()> {
        let stored = self.store_u32(at!(i_block) + 4 * slot as u64, pointer);
        if stored.is_ok() {
            self.root[slot].store(pointer, Ordering::Release);
        }
        // Also after an error: something may have been stored.
        self.runs.forget();
        stored
    }

    /// Stores 0 or another pointer in the place of one, at a byte of the device.
    pub(crate) fn store_pointer(&self, at: u64, pointer: u32) -> Result<()> {
        let stored = self.fs.dev.write_u32(at, pointer);
        // Also after an error: something may have been stored.
        self.runs.forget();
        Ok(stored?)
    }

    /// Makes the file end at `size`.
    pub(crate) fn store_size(&self, size: u64) -> Result<()> {
        self.write_size(self.size(), size)?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// Makes the file longer. What it becomes is on the media before anybody may store to it who brings his stores there by
    /// himself, and whoever maps pages ahead has them before anybody sees the size.
    pub(crate) fn lengthen(&self, size: u64) -> Result<()> {
        let (old, known) = (self.size(), self.fs.losses.count());
        self.write_size(old, size)?;
        if self.space.is_synchronous()
            && let Err(error) = self.fs.fence_since(Barrier::SizeRaised, known)
        {
            // It is not longer in memory, and a later store goes by that.
            self.fs.whole(|| self.write_size(size, old))?;
            return Err(error);
        }
        self.space.grow(old..size, || self.size.store(size, Ordering::Release));
        Ok(())
    }

    /// Stores the size on the device, in the place of another. Where its high half changes, the larger of the two high halves is there as long as
    /// the low one may be either: a crash between the two leaves a hole at the end and takes nothing away.
    fn write_size(&self, old: u64, size: u64) -> Result<()> {
        let (low, high) = (size as u32, (size >> 32) as u32);
        let before = (old >> 32) as u32;
        if self.kind == FileKind::Regular && size >= LARGE {
            self.fs.need_large_file()?;
        }
        if self.kind == FileKind::Regular && high != before {
            // Half-way the device has a size that memory does not know, and that no later store would mend.
            self.fs.whole(|| self.write_size_across(low, high, before))
        } else {
            self.store_u32(at!(i_size), low)
        }
    }

    /// Stores both halves of a size.
    fn write_size_across(&self, low: u32, high: u32, before: u32) -> Result<()> {
        let known = self.fs.losses.count();
        if high > before {
            self.store_u32(at!(i_size_high), high)?;
            self.fs.fence_since(Barrier::SizeRaisedHigh, known)?;
        }
        self.store_u32(at!(i_size), low)?;
        if high < before {
            self.fs.fence_since(Barrier::SizeLoweredHigh, known)?;
            self.store_u32(at!(i_size_high), high)?;
        }
        Ok(())
    }

    /// Stores the number of names, and the time of deletion: with no names the inode is dead, and
    /// `dtime` says so first; with names it is not.
    pub(crate) fn store_links(&self, attrs: &mut Attrs, links: u16) -> Result<()> {
        let dtime = match links {
            0 => self.fs.time_of_death(self.fs.clock.now()),
            _ => 0,
        };
        // In the list of orphans the time of deletion names another inode.
        if (attrs.links == 0) != (links == 0) && !attrs.is_orphan {
            self.store_u32(at!(i_dtime), dtime)?;
        }
        self.store_u16(at!(i_links_count), links)?;
        attrs.links = links;
        attrs.linkable = false;
        Ok(())
    }

    /// Stores the time of deletion alone: 0 while the inode is in the list of truncations.
    pub(crate) fn store_dtime(&self, dtime: u32) -> Result<()> {
        self.store_u32(at!(i_dtime), dtime)
    }

    /// Stores the attribute flags.
    pub(crate) fn store_flags(&self, attrs: &mut Attrs, flags: InodeFlags) -> Result<()> {
        self.store_u32(at!(i_flags), flags.bits())?;
        attrs.flags = flags;
        Ok(())
    }

    /// Stores the pointer to the attribute block.
    pub(crate) fn store_file_acl(&self, attrs: &mut Attrs, block: u32) -> Result<()> {
        self.store_u32(at!(i_file_acl), block)?;
        attrs.file_acl = block;
        Ok(())
    }

    fn store_time(&self, at: u64, extra: Option<u64>, time: Timestamp) -> Result<()> {
        let (seconds, high) = time.encode(extra.is_some());
        self.store_u32(at, seconds)?;
        extra.map_or(Ok(()), |extra| self.store_u32(extra, high))
    }

    /// Writes times and block count, if they are late.
    pub(crate) fn write_late(&self) -> Result<()> {
        let mut attrs = self.attrs.lock();
        if !attrs.late || self.fs.writer().is_err() {
            return Ok(());
        }
        self.settle_owners(&mut attrs)?;
        let has = |end: u16, at: u64| (attrs.extra_isize >= end).then_some(at);
        self.store_time(at!(i_atime), has(ATIME_EXTRA_END, extra!(i_atime_extra)), attrs.atime)?;
        self.store_time(at!(i_mtime), has(MTIME_EXTRA_END, extra!(i_mtime_extra)), attrs.mtime)?;
        self.store_time(at!(i_ctime), has(CTIME_EXTRA_END, extra!(i_ctime_extra)), attrs.ctime)?;
        if let Some(crtime) = attrs.crtime {
            self.store_time(extra!(i_crtime), Some(extra!(i_crtime_extra)), crtime)?;
        }
        self.store_u32(at!(i_blocks), attrs.blocks_512)?;
        attrs.late = false;
        Ok(())
    }

    /// Adds blocks (or takes them away) to the count of the inode's space; a count that was wrong stays at
    /// the limits of its field.
    pub(crate) fn count_blocks(&self, blocks: i64) {
        let units = blocks << (self.fs.geo.block_size.log2() - 9);
        let mut attrs = self.attrs.lock();
        let sum = i64::from(attrs.blocks_512).saturating_add(units);
        attrs.blocks_512 = u32::try_from(sum.max(0)).unwrap_or(u32::MAX);
        attrs.late = true;
    }

    /// Notes a change of the contents.
    pub(crate) fn touch_mtime(&self) {
        let now = self.fs.clock.now();
        let mut attrs = self.attrs.lock();
        attrs.mtime = now;
        attrs.ctime = now;
        attrs.late = true;
    }

    /// Notes a change of the inode.
    pub(crate) fn touch_ctime(&self) {
        let now = self.fs.clock.now();
        let mut attrs = self.attrs.lock();
        attrs.ctime = now;
        attrs.late = true;
    }
}
