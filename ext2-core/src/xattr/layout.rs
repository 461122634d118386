//! How attributes lie in a block or in an inode.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::FromBytes;

use super::XattrName;
use crate::raw::{RawXattrEntry, RawXattrHeader, XATTR_MAGIC};

/// An attribute with its value as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Xattr {
    pub(crate) name: XattrName,
    pub(crate) value: Vec<u8>,
}

/// The attributes of a block.
pub(crate) fn parse_block(block: &[u8]) -> Result<Vec<Xattr>, String> {
    let Ok((header, entries)) = RawXattrHeader::read_from_prefix(block) else {
        return Err("shorter than its header".into());
    };
    if header.h_magic.get() != XATTR_MAGIC || header.h_blocks.get() != 1 {
        return Err(format!("magic {:#x}, {} blocks", header.h_magic.get(), header.h_blocks.get()));
    }
    parse_entries(entries, block)
}

/// The attributes in an inode: `room` is what follows the inode's own fields.
pub(crate) fn parse_inode(room: &[u8]) -> Result<Vec<Xattr>, String> {
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
        let name = XattrName { index: entry.e_name_index, suffix: suffix.to_vec() };
        all.push(Xattr { name, value: value.to_vec() });
        entries = rest.get(name_len.next_multiple_of(4)..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
