//! Removing or replacing an attribute where it lies: for where all cannot be written anew, since no block is free or, without it,
//! they do not fit in one. Nobody is to keep rights that are taken away for want of room.
//!
//! The last of a list goes by the zero word that ends the list before it. In an inode any other stays as an entry that
//! stands for no name: its index becomes one that nobody uses, and its hash stays right, since the index is no part of it. The
//! next change that writes the list anew leaves it out.
//!
//! In a block that would hide all that follow: Linux looks for a name up to the first entry that sorts past it
//! (`ext2_xattr_get`). So the list is written anew in its place, as Linux does it always; values stay where they are. Without a log
//! a power cut in that moment may tear a list that does not lie in one sector (docs/durability.md).

use alloc::vec;
use alloc::vec::Vec;

use crate::error::{Result, refuse};
use crate::inode::Cell;
use crate::raw::{GOOD_OLD_INODE_SIZE, RawXattrHeader};
use crate::{DeviceBlock, Errno};
use ext2_format::xattr::{STRUCK, Xattr, XattrName, build_block, find_entry, without_entry};

use super::change::REFCOUNT;

impl Cell {
    /// Whether the inode's own room holds this attribute and no other.
    pub(super) fn is_alone_in_inode(&self, name: &XattrName) -> Result<bool> {
        Ok(matches!(self.xattrs_in_inode()?.as_slice(), [only] if only.name == *name))
    }

    /// Removes an attribute where it lies. The caller holds the `io` lock exclusive.
    ///
    /// # Errors
    /// `ENOSPC` where the block is not this inode's alone; `Corrupt`, the device's errors.
    pub(super) fn strike_xattr(&self, name: &XattrName, in_inode: bool) -> Result<()> {
        let _xattr = self.fs.writer()?.xattr.lock();
        let (at, list) = if in_inode { self.list_in_inode()? } else { self.list_in_block()? };
        let moved = || self.corrupt("an attribute moved while it was removed");
        let (place, is_last) = find_entry(&list, name).ok_or_else(moved)?;
        if !in_inode && !is_last {
            return self.cut_out(at - size_of::<RawXattrHeader>() as u64, name);
        }
        let at = at + place as u64;
        let word = if is_last { 0 } else { self.fs.dev.read_u32(at)? & !0xff00 | u32::from(STRUCK) << 8 };
        self.fs.store_u32(at, word)
    }

    /// Writes the list of the block at this byte anew, in its place, without an attribute.
    fn cut_out(&self, start: u64, name: &XattrName) -> Result<()> {
        let mut block = vec![0; self.fs.geo.block_size.len()];
        self.fs.dev.read_at(start, &mut block)?;
        let left = without_entry(&block, name);
        let left = left.ok_or_else(|| self.corrupt("the list of its attributes has no end"))?;
        self.store_changed(start, &block, &left)
    }

    /// Whether its block has this attribute, and the inode has not, and no other uses the block so far: then a new value needs none.
    pub(super) fn can_replace_in_place(&self, name: &XattrName) -> Result<bool> {
        let Some(block) = self.fs.geo.data_block(self.attrs.lock().file_acl) else { return Ok(false) };
        let has = |all: Vec<Xattr>| all.iter().any(|xattr| xattr.name == *name);
        Ok(self.is_alone_in(block)? && has(self.xattrs_in_block()?) && !has(self.xattrs_in_inode()?))
    }

    /// Whether no other inode uses a block of attributes. That stays so as long as the caller holds the `xattr` lock.
    fn is_alone_in(&self, block: DeviceBlock) -> Result<bool> {
        Ok(self.fs.dev.read_u32(self.fs.geo.byte_of(block) + REFCOUNT)? == 1)
    }

    /// Writes all attributes to its block, in its place, where they fit and no other inode uses it by now. The caller holds the `io`
    /// lock exclusive.
    pub(super) fn replace_in_place(&self, all: &[Xattr]) -> Result<bool> {
        let _xattr = self.fs.writer()?.xattr.lock();
        let block = self.fs.geo.data_block(self.attrs.lock().file_acl);
        let (Some(block), Some(bytes)) = (block, build_block(all, self.fs.geo.block_size.len())) else {
            return Ok(false);
        };
        if !self.is_alone_in(block)? {
            return Ok(false);
        }
        let (start, mut there) = (self.fs.geo.byte_of(block), vec![0; bytes.len()]);
        self.fs.dev.read_at(start, &mut there)?;
        self.fs.share_no_more(block.get());
        self.store_changed(start, &there, &bytes).map(|()| true)
    }

    /// Stores what differs from what is there, by one call.
    fn store_changed(&self, start: u64, there: &[u8], wanted: &[u8]) -> Result<()> {
        let changed = |(old, new): &(&u8, &u8)| old != new;
        let first = there.iter().zip(wanted).take_while(|pair| !changed(pair)).count();
        let same = there.iter().rev().zip(wanted.iter().rev()).take_while(|pair| !changed(pair)).count();
        let part = wanted.get(first..wanted.len() - same).unwrap_or_default();
        Ok(self.fs.dev.write_at(start + first as u64, part)?)
    }

    /// Where the list in the inode's own room begins on the device, and its bytes.
    fn list_in_inode(&self) -> Result<(u64, Vec<u8>)> {
        let start = GOOD_OLD_INODE_SIZE + u64::from(self.attrs.lock().extra_isize) + 4;
        let mut list = vec![0; usize::from(self.fs.geo.inode_size).saturating_sub(start as usize)];
        self.fs.dev.read_at(self.offset + start, &mut list)?;
        Ok((self.offset + start, list))
    }

    fn list_in_block(&self) -> Result<(u64, Vec<u8>)> {
        let block: Option<DeviceBlock> = self.fs.geo.data_block(self.attrs.lock().file_acl);
        let Some(block) = block else { return Err(self.corrupt("has no block of attributes")) };
        let at = self.fs.geo.byte_of(block);
        let refcount = core::mem::offset_of!(RawXattrHeader, h_refcount) as u64;
        if self.fs.dev.read_u32(at + refcount)? > 1 {
            return refuse(Errno::NOSPC, "no block is free for attributes that another file shares");
        }
        self.fs.share_no_more(block.get());
        let header = size_of::<RawXattrHeader>();
        let mut list = vec![0; self.fs.geo.block_size.len() - header];
        self.fs.dev.read_at(at + header as u64, &mut list)?;
        Ok((at + header as u64, list))
    }
}
