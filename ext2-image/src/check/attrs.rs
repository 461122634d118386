//! Pass 1: extended attributes, in the inode and in blocks.

use alloc::vec::Vec;
use core::mem::{offset_of, take};

use zerocopy::FromBytes;

use super::finding::{Kind, Place};
use super::inodes::Seen;
use super::run::{AttributeBlock, Mode, Run, Step};
use ext2_core::CompatFeatures;
use ext2_core::raw::{
    GOOD_OLD_INODE_SIZE, RawInode, RawInodeExtra, RawXattrEntry, RawXattrHeader, XATTR_MAGIC,
};

/// What is wrong with a list of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Names or values lie over each other, or outside.
    Overlap,
    /// A name or value that cannot be.
    Entry,
    /// The hash of an attribute, which is this and should be that.
    Hash(u32, u32),
}

/// Ranges of bytes that are taken.
struct Taken {
    ranges: Vec<(usize, usize)>,
    len: usize,
}

impl Taken {
    fn new(len: usize) -> Self {
        Self { ranges: Vec::new(), len }
    }

    /// Takes `len` bytes at `at`; `false` when some are outside or taken.
    fn take(&mut self, at: usize, len: usize) -> bool {
        let end = at.saturating_add(len);
        if end > self.len {
            return false;
        }
        if len == 0 {
            return true;
        }
        let next = self.ranges.partition_point(|&(start, _)| start < at);
        let before = next.checked_sub(1).and_then(|before| self.ranges.get(before));
        if before.is_some_and(|&(_, before_end)| before_end > at)
            || self.ranges.get(next).is_some_and(|&(start, _)| start < end)
        {
            return false;
        }
        self.ranges.insert(next, (at, end));
        true
    }
}

/// The hash of an attribute (Linux: `ext2_xattr_hash_entry`): over the bytes of the name, then over the
/// words of the value.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let of_name = name.iter().fold(0u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
    value.chunks(4).fold(of_name, |hash, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}

/// The list of attributes in an inode: `room` begins with the magic number.
fn check_in_inode(room: &[u8]) -> Option<Fault> {
    let mut taken = Taken::new(room.len());
    taken.take(0, 4);
    let mut remain = room.len().saturating_sub(4);
    let mut at = 4;
    while remain >= size_of::<RawXattrEntry>() && room.get(at..at + 4).is_some_and(|end| end != [0; 4]) {
        let Ok((entry, rest)) = RawXattrEntry::ref_from_prefix(room.get(at..).unwrap_or_default()) else {
            return Some(Fault::Overlap);
        };
        let name_len = usize::from(entry.e_name_len);
        let whole = (size_of::<RawXattrEntry>() + name_len).next_multiple_of(4);
        if !taken.take(at, whole) {
            return Some(Fault::Overlap);
        }
        remain -= size_of::<RawXattrEntry>();
        if name_len.next_multiple_of(4) > remain {
            return Some(Fault::Entry);
        }
        remain -= name_len.next_multiple_of(4);
        let (offset, size) = (usize::from(entry.e_value_offs.get()), entry.e_value_size.get() as usize);
        if entry.e_value_block.get() != 0 || size > remain {
            return Some(Fault::Entry);
        }
        if size != 0 && !taken.take(4 + offset, size.next_multiple_of(4)) {
            return Some(Fault::Overlap);
        }
        let name = rest.get(..name_len).unwrap_or_default();
        let value = room.get(4 + offset..).and_then(|values| values.get(..size.next_multiple_of(4)));
        let expected = hash(name, value.unwrap_or_default());
        if entry.e_hash.get() != 0 && entry.e_hash.get() != expected {
            return Some(Fault::Hash(entry.e_hash.get(), expected));
        }
        remain -= size;
        at += whole;
    }
    (!taken.take(at, 4)).then_some(Fault::Overlap)
}

/// The list of attributes in a block.
fn check_in_block(block: &[u8]) -> Option<Fault> {
    let mut taken = Taken::new(block.len());
    let mut at = size_of::<RawXattrHeader>();
    taken.take(0, at);
    while block.get(at..at + 4).is_some_and(|end| end != [0; 4]) {
        let Ok((entry, rest)) = RawXattrEntry::ref_from_prefix(block.get(at..).unwrap_or_default()) else {
            return Some(Fault::Overlap);
        };
        let name_len = usize::from(entry.e_name_len);
        let whole = (size_of::<RawXattrEntry>() + name_len).next_multiple_of(4);
        if !taken.take(at, whole) {
            return Some(Fault::Overlap);
        }
        let (offset, size) = (usize::from(entry.e_value_offs.get()), entry.e_value_size.get() as usize);
        if entry.e_name_index == 0
            || entry.e_value_block.get() != 0
            || offset.saturating_add(size) > block.len()
        {
            return Some(Fault::Entry);
        }
        if size != 0 && !taken.take(offset, size.next_multiple_of(4)) {
            return Some(Fault::Overlap);
        }
        let name = rest.get(..name_len).unwrap_or_default();
        let value = block.get(offset..).and_then(|values| values.get(..size.next_multiple_of(4)));
        let expected = hash(name, value.unwrap_or_default());
        if entry.e_hash.get() != expected {
            return Some(Fault::Hash(entry.e_hash.get(), expected));
        }
        at += whole;
    }
    (!taken.take(at, 4)).then_some(Fault::Overlap)
}

impl Run<'_> {
    /// What lies behind the first 128 bytes of an inode.
    pub(crate) fn check_extra_space(&mut self, inode: &Seen<'_>) -> Step {
        let start = GOOD_OLD_INODE_SIZE as usize;
        let Some(extra) = inode.bytes.get(start..).filter(|extra| extra.len() >= 4) else { return Ok(()) };
        let mut len = usize::from(u16::from_le_bytes([extra[0], extra[1]]));
        if len != 0 && (len < 4 || len > extra.len() || !len.is_multiple_of(4)) {
            let want = usize::from(self.sb.want_extra_isize);
            let expected = if len < 4 || len > extra.len() { want } else { len.next_multiple_of(4) };
            let found = Some(len as u64);
            if !self.report(inode.place(), Kind::ExtraSize, found, Some(expected as u64))? {
                return Ok(());
            }
            self.put_u16(inode.nr, start, expected as u16)?;
            len = expected;
        }
        let Some(room) = extra.get(len..).filter(|room| room.len() > 4) else { return Ok(()) };
        self.check_attributes_in_inode(inode, start + len, room)?;
        self.check_times(inode)
    }

    /// The attributes that an inode has in itself, `at` bytes behind its start.
    fn check_attributes_in_inode(&mut self, inode: &Seen<'_>, at: usize, room: &[u8]) -> Step {
        if room.get(..4) != Some(&XATTR_MAGIC.to_le_bytes()) {
            return Ok(());
        }
        let mend = match check_in_inode(room) {
            None => return Ok(()),
            Some(Fault::Overlap) => self.fault(inode.place(), Kind::AttributeOverlap)?,
            Some(Fault::Entry) => self.fault(inode.place(), Kind::AttributeInInode)?,
            Some(Fault::Hash(found, expected)) => {
                let numbers = (Some(found.into()), Some(expected.into()));
                self.report(inode.place(), Kind::AttributeHash, numbers.0, numbers.1)?
            }
        };
        if mend {
            // As e2fsck: all attributes in the inode go.
            self.put_u32(inode.nr, at, 0)?;
        }
        Ok(())
    }

    /// Times from 2310-04-04 to 2378-04-22, in the last of the four spans of 136 years and before its middle: old kernels stored
    /// times before 1970 so. e2fsck looks at the fields whether or not they are said to be in use.
    fn check_times(&mut self, inode: &Seen<'_>) -> Step {
        const SPAN: u32 = 3;
        let low = [
            (offset_of!(RawInode, i_atime), offset_of!(RawInodeExtra, i_atime_extra)),
            (offset_of!(RawInode, i_ctime), offset_of!(RawInodeExtra, i_ctime_extra)),
            (offset_of!(RawInode, i_mtime), offset_of!(RawInodeExtra, i_mtime_extra)),
            (
                GOOD_OLD_INODE_SIZE as usize + offset_of!(RawInodeExtra, i_crtime),
                offset_of!(RawInodeExtra, i_crtime_extra),
            ),
        ];
        let word = |at: usize| crate::little::word(inode.bytes, at);
        let times = low.map(|(low, extra)| (low, GOOD_OLD_INODE_SIZE as usize + extra));
        let far = times.map(|(low, extra)| (extra, word(extra), word(low) >> 31 == 1));
        let far = far.into_iter().filter(|(_, extra, is_late)| *is_late && extra & SPAN == SPAN);
        if far.clone().next().is_none() || !self.fault(inode.place(), Kind::FarTimes)? {
            return Ok(());
        }
        for (at, extra, _) in far {
            self.put_u32(inode.nr, at, extra & !SPAN)?;
        }
        Ok(())
    }

    /// Reports a bad field, but not of a reserved inode: nobody looks at it there, e2fsck neither.
    fn report_field(&mut self, inode: &Seen<'_>, kind: Kind, found: u32) -> Step {
        if (inode.nr == super::inodes::ROOT || inode.nr >= self.geo.first_ino)
            && self.report(inode.place(), kind, Some(found.into()), None)?
        {
            if kind == Kind::AttributeFeature && self.is_attribute_block(found)? {
                return self.set_feature_ext_attr();
            }
            self.put_u32(inode.nr, offset_of!(RawInode, i_file_acl), 0)?;
        }
        Ok(())
    }

    /// Whether a block begins as one of attributes does.
    fn is_attribute_block(&self, block: u32) -> Step<bool> {
        if !self.is_block(block) {
            return Ok(false);
        }
        Ok(self.dev.read_u32(u64::from(block) << self.geo.block_size.log2())? == XATTR_MAGIC)
    }

    /// The block of attributes of an inode: 1 when it has one that is used, otherwise 0.
    pub(crate) fn check_attribute_block(&mut self, inode: &Seen<'_>) -> Step<u32> {
        let nr = inode.raw.i_file_acl.get();
        if nr == 0 {
            return Ok(0);
        }
        if !self.sb.features.compat.contains(CompatFeatures::EXT_ATTR) {
            self.report_field(inode, Kind::AttributeFeature, nr)?;
            return Ok(0);
        }
        if !self.is_block(nr) {
            self.report_field(inode, Kind::AttributeBlockPlace, nr)?;
            return Ok(0);
        }
        if let Some(seen) = self.s.attributes.get_mut(&nr) {
            seen.users = seen.users.saturating_add(1);
            return Ok(1);
        }
        let mut block = take(&mut self.s.block);
        self.read_block(nr, &mut block)?;
        let header = RawXattrHeader::read_from_prefix(&block).map(|(header, _)| header).unwrap_or_default();
        let is_headed = header.h_magic.get() == XATTR_MAGIC && header.h_blocks.get() == 1;
        let fault = if is_headed { check_in_block(&block) } else { Some(Fault::Entry) };
        self.s.block = block;
        let drop = match fault {
            None => false,
            Some(Fault::Hash(found, expected)) => {
                let numbers = (Some(found.into()), Some(expected.into()));
                self.report(Place::Block(nr.into()), Kind::AttributeHash, numbers.0, numbers.1)?
            }
            Some(_) => self.fault(Place::Block(nr.into()), Kind::AttributeBlock)?,
        };
        if drop {
            self.put_u32(inode.nr, offset_of!(RawInode, i_file_acl), 0)?;
            return Ok(0);
        }
        let at = self.inode_offset(inode.nr).unwrap_or(0) + offset_of!(RawInode, i_file_acl) as u64;
        if !self.claim(inode.nr, nr, at, 0)? && self.mode == Mode::Repair {
            // It becomes a block of its own before anything else is said of it.
            return Ok(1);
        }
        self.s.attributes.insert(nr, AttributeBlock { refcount: header.h_refcount.get(), users: 1 });
        Ok(1)
    }

    /// Compares the users of each block of attributes with the number it notes.
    pub(crate) fn check_attribute_counts(&mut self) -> Step {
        let attributes = take(&mut self.s.attributes);
        for (&block, seen) in &attributes {
            if seen.refcount != seen.users {
                let numbers = (Some(seen.refcount.into()), Some(seen.users.into()));
                if self.report(Place::Block(block.into()), Kind::AttributeCount, numbers.0, numbers.1)? {
                    let at = (u64::from(block) << self.geo.block_size.log2())
                        + offset_of!(RawXattrHeader, h_refcount) as u64;
                    self.dev.write_u32(at, seen.users)?;
                }
            }
        }
        self.s.attributes = attributes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_apart_and_ranges_that_share_a_byte_are_not() {
        let mut taken = Taken::new(100);
        assert!(taken.take(10, 10));
        assert!(taken.take(20, 10));
        assert!(taken.take(0, 10));
        assert!(!taken.take(29, 2));
        assert!(!taken.take(5, 1));
        assert!(!taken.take(95, 6));
        assert!(taken.take(95, 5));
        assert!(!taken.take(usize::MAX, 2));
    }
}
