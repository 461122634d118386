//! How attributes lie in a block or in an inode.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use super::XattrName;
use crate::raw::{RawXattrEntry, RawXattrHeader, XATTR_MAGIC};

/// An attribute with its value as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Its name, as the format splits it.
    pub name: XattrName,
    /// Its value, byte for byte.
    pub value: Vec<u8>,
}

/// The index of an attribute that was removed where it lay. It stands for no prefix, and
/// whoever reads attributes passes it by.
pub const STRUCK: u8 = 0xff;

/// The entry that begins at a byte, its name without the prefix, and where the next one begins.
fn entry_at(bytes: &[u8], at: usize) -> Option<(RawXattrEntry, &[u8], usize)> {
    let (entry, after) = RawXattrEntry::read_from_prefix(bytes.get(at..)?).ok()?;
    let len = usize::from(entry.e_name_len);
    Some((entry, after.get(..len)?, at + size_of::<RawXattrEntry>() + len.next_multiple_of(4)))
}

/// Where the entry of a name lies in a list, in bytes, and whether it is the last.
#[must_use]
pub fn find_entry(entries: &[u8], name: &XattrName) -> Option<(usize, bool)> {
    let (mut at, mut found) = (0, None);
    loop {
        if entries.get(at..at + 4)? == [0; 4] {
            return found.map(|place| (place, false));
        }
        let (entry, suffix, next) = entry_at(entries, at)?;
        if entry.e_name_index == name.index && suffix == name.suffix {
            if entries.get(next..next + 4)? == [0; 4] {
                return Some((at, true));
            }
            found = Some(at);
        }
        at = next;
    }
}

/// A block without the entry of a name, and without those that were struck out; values stay where they are. `None` where the
/// list does not lie in the block.
#[must_use]
pub fn without_entry(block: &[u8], name: &XattrName) -> Option<Vec<u8>> {
    let (mut header, _) = RawXattrHeader::read_from_prefix(block).ok()?;
    let start = size_of::<RawXattrHeader>();
    let (mut at, mut kept, mut hash) = (start, Vec::new(), 0u32);
    while block.get(at..at + 4)? != [0; 4] {
        let (entry, suffix, next) = entry_at(block, at)?;
        let is_named = entry.e_name_index == name.index && suffix == name.suffix;
        if !is_named && entry.e_name_index != STRUCK {
            kept.extend_from_slice(block.get(at..next)?);
            hash = hash.rotate_left(16) ^ entry.e_hash.get();
        }
        at = next;
    }
    header.h_hash = hash.into();
    let mut left = block.to_vec();
    left.get_mut(..start)?.copy_from_slice(header.as_bytes());
    kept.resize(at - start, 0);
    left.get_mut(start..at)?.copy_from_slice(&kept);
    Some(left)
}

/// The attributes of a block.
///
/// # Errors
/// What is wrong with the block.
pub fn parse_block(block: &[u8]) -> Result<Vec<Xattr>, String> {
    let Ok((header, entries)) = RawXattrHeader::read_from_prefix(block) else {
        return Err("shorter than its header".into());
    };
    if header.h_magic.get() != XATTR_MAGIC || header.h_blocks.get() != 1 {
        return Err(format!("magic {:#x}, {} blocks", header.h_magic.get(), header.h_blocks.get()));
    }
    parse_entries(entries, block)
}

/// The attributes in an inode: `room` is what follows the inode's own fields.
///
/// # Errors
/// What is wrong with them.
pub fn parse_inode(room: &[u8]) -> Result<Vec<Xattr>, String> {
    match room.split_at_checked(4) {
        Some((magic, entries)) if magic == XATTR_MAGIC.to_le_bytes() => parse_entries(entries, entries),
        _ => Ok(Vec::new()),
    }
}

/// The list that begins `entries`, whose values lie at offsets into `values`.
fn parse_entries(mut entries: &[u8], values: &[u8]) -> Result<Vec<Xattr>, String> {
    let mut all = Vec::new();
    loop {
        let Some(first) = entries.get(..4) else {
            return Err("the list of attributes has no end".into());
        };
        if first == [0; 4] {
            return Ok(all);
        }
        let Ok((entry, rest)) = RawXattrEntry::read_from_prefix(entries) else {
            return Err("the list of attributes has no end".into());
        };
        let name_len = usize::from(entry.e_name_len);
        let Some(suffix) = rest.get(..name_len) else {
            return Err(format!("an attribute's name of {name_len} bytes does not fit"));
        };
        let (at, len) = (usize::from(entry.e_value_offs.get()), entry.e_value_size.get());
        if entry.e_value_block.get() != 0 {
            return Err(format!("an attribute's value lies in block {}", entry.e_value_block.get()));
        }
        let value = usize::try_from(len).ok().and_then(|len| values.get(at..at.checked_add(len)?));
        let Some(value) = (if len == 0 { Some(&[][..]) } else { value }) else {
            return Err(format!("an attribute's value of {len} bytes at {at} does not fit"));
        };
        if entry.e_name_index != STRUCK {
            let name = XattrName { index: entry.e_name_index, suffix: suffix.to_vec() };
            all.push(Xattr { name, value: value.to_vec() });
        }
        entries = rest.get(name_len.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// The attributes as a block of `len` bytes with one owner: sorted, hashed, values from the end. `None`
/// when they do not fit. Linux: `ext2_xattr_set2`.
#[must_use]
pub fn build_block(xattrs: &[Xattr], len: usize) -> Option<Vec<u8>> {
    let mut sorted: Vec<&Xattr> = xattrs.iter().collect();
    sorted.sort_by_key(|xattr| (xattr.name.index, xattr.name.suffix.len(), &xattr.name.suffix));
    let mut block = vec![0; len];
    let mut values = len;
    let mut at = size_of::<RawXattrHeader>();
    let mut block_hash = 0u32;
    for xattr in sorted {
        let (suffix, value) = (&xattr.name.suffix, &xattr.value);
        let padded = value.len().checked_next_multiple_of(4)?;
        values = values.checked_sub(padded)?;
        let entry_len = size_of::<RawXattrEntry>() + suffix.len().next_multiple_of(4);
        // Four zero bytes end the list.
        if at + entry_len + 4 > values {
            return None;
        }
        let hash = entry_hash(suffix, value);
        let entry = RawXattrEntry {
            e_name_len: u8::try_from(suffix.len()).ok()?,
            e_name_index: xattr.name.index,
            e_value_offs: u16::try_from(if value.is_empty() { 0 } else { values }).ok()?.into(),
            e_value_block: 0.into(),
            e_value_size: u32::try_from(value.len()).ok()?.into(),
            e_hash: hash.into(),
        };
        let header = size_of::<RawXattrEntry>();
        block.get_mut(at..at + header)?.copy_from_slice(entry.as_bytes());
        block.get_mut(at + header..at + header + suffix.len())?.copy_from_slice(suffix);
        block.get_mut(values..values + value.len())?.copy_from_slice(value);
        block_hash = block_hash.rotate_left(16) ^ hash;
        at += entry_len;
    }
    let header = RawXattrHeader {
        h_magic: XATTR_MAGIC.into(),
        h_refcount: 1.into(),
        h_blocks: 1.into(),
        h_hash: block_hash.into(),
        ..RawXattrHeader::default()
    };
    block.get_mut(..size_of::<RawXattrHeader>())?.copy_from_slice(header.as_bytes());
    Some(block)
}

/// The hash of a name and its value (Linux: `ext2_xattr_hash_entry`).
fn entry_hash(suffix: &[u8], value: &[u8]) -> u32 {
    let name = suffix.iter().fold(0u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
    value.chunks(4).fold(name, |hash, chunk| {
        let mut word = [0; 4];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_a_block_in_sorted_order() {
        let xattr = |index, suffix: &[u8], value: &[u8]| Xattr {
            name: XattrName { index, suffix: suffix.to_vec() },
            value: value.to_vec(),
        };
        let all = [
            xattr(6, b"capability", &[1; 20]),
            xattr(1, b"bb", b"x"),
            xattr(1, b"a", b""),
            xattr(2, b"", b"acl"),
        ];
        let block = build_block(&all, 1024).unwrap();
        let sorted = [2, 1, 3, 0].map(|nr: usize| all[nr].clone());
        assert_eq!(parse_block(&block).unwrap(), sorted);
        assert_eq!(build_block(&[xattr(1, b"a", &[0; 1000])], 1024), None);
        assert!(build_block(&[xattr(1, b"a", &[0; 964])], 1024).is_some());
    }

    #[test]
    fn broken_places_are_named_and_never_read_past() {
        assert!(parse_block(&[0; 1024]).unwrap_err().contains("magic"));
        let mut block = [0xff; 1024];
        block[..4].copy_from_slice(&XATTR_MAGIC.to_le_bytes());
        block[8..12].copy_from_slice(&1u32.to_le_bytes());
        assert!(parse_block(&block).is_err());
        assert!(parse_inode(&XATTR_MAGIC.to_le_bytes()).unwrap_err().contains("no end"));
        assert_eq!(parse_inode(&[0; 100]), Ok(Vec::new()));
        assert_eq!(parse_inode(&[]), Ok(Vec::new()));
    }

    #[test]
    fn an_entry_that_was_struck_out_is_no_attribute_and_the_others_are() {
        let xattr = |suffix: &[u8]| Xattr {
            name: XattrName { index: 1, suffix: suffix.to_vec() },
            value: b"value".to_vec(),
        };
        let all = [xattr(b"a"), xattr(b"b"), xattr(b"c")];
        let block = build_block(&all, 1024).unwrap();
        let header = size_of::<RawXattrHeader>();
        for (nr, gone) in all.iter().enumerate() {
            let (place, is_last) = find_entry(&block[header..], &gone.name).unwrap();
            assert_eq!(is_last, nr == 2);
            let mut block = block.clone();
            match is_last {
                true => block[header + place..header + place + 4].fill(0),
                false => block[header + place + 1] = STRUCK,
            }
            let left: Vec<Xattr> = all.iter().filter(|xattr| *xattr != gone).cloned().collect();
            assert_eq!(parse_block(&block), Ok(left));
        }
        assert_eq!(find_entry(&block[header..], &xattr(b"d").name), None);
    }
}
