//! Extended attributes as they lie in a new inode and in a block of their own.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::{Error, Result, Xattr};
use ext2_core::raw::{RawXattrEntry, RawXattrHeader, XATTR_MAGIC};
use ext2_core::rules::XattrName;
use ext2_core::{Acl, BlockSize};

/// Where the attributes of an inode go.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// The inode's bytes after its fields; empty where it has no attributes there.
    pub(super) in_inode: Vec<u8>,
    /// A block of attributes, where one is needed.
    pub(super) block: Option<Vec<u8>>,
}

/// An attribute ready to be stored.
struct Stored {
    name: XattrName,
    value: Vec<u8>,
}

/// Why an attribute cannot be stored.
enum Refused {
    /// Its name is none of ext2's.
    Name(ext2_core::Error),
    /// It is no access control list.
    List,
}

impl Stored {
    fn new((name, value): &Xattr) -> Result<Self, Refused> {
        let name = XattrName::parse(name).map_err(Refused::Name)?;
        let value = match name.acl_kind() {
            Some(_) => Acl::from_user(value).ok_or(Refused::List)?.to_disk(),
            None => value.clone(),
        };
        Ok(Self { name, value })
    }

    fn entry_len(&self) -> usize {
        size_of::<RawXattrEntry>() + self.name.suffix.len().next_multiple_of(4)
    }

    fn len(&self) -> usize {
        self.entry_len() + self.value.len().next_multiple_of(4)
    }

    /// The order of Linux: index, length of the name, name.
    fn key(&self) -> (u8, usize, &[u8]) {
        (self.name.index, self.name.suffix.len(), &self.name.suffix)
    }

    /// Linux: `ext4_xattr_hash_entry`, with the name's bytes taken as unsigned.
    fn hash(&self) -> u32 {
        let name = self.name.suffix.iter().fold(0u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
        self.value.chunks(4).fold(name, |hash, word| {
            let mut bytes = [0; 4];
            bytes[..word.len()].copy_from_slice(word);
            hash.rotate_left(16) ^ u32::from_le_bytes(bytes)
        })
    }
}

/// The warning about an attribute that ext2 has no place for.
#[must_use]
pub fn attribute_lost(name: &[u8]) -> String {
    let shown = crate::manifest::quote(name);
    alloc::format!(
        "attribute {shown} is left out: ext2 holds user., trusted., security. and access control lists"
    )
}

/// Bytes of the end of a list.
const END: usize = 4;

/// Lays the attributes of the file `path` out: as many as fit into `room` bytes of the inode, the rest in a block.
pub(super) fn place(path: &[u8], xattrs: &[Xattr], room: usize, block_size: BlockSize) -> Result<Placed> {
    let mut all = Vec::with_capacity(xattrs.len());
    for xattr in xattrs {
        let refused = |refused: Refused| {
            let shown = crate::manifest::quote(&xattr.0);
            let what = match refused {
                Refused::Name(what) => alloc::format!("attribute {shown}: {what}"),
                Refused::List => alloc::format!("attribute {shown} is no access control list"),
            };
            Error::entry(path, what)
        };
        all.push(Stored::new(xattr).map_err(refused)?);
    }
    all.sort_by(|a, b| a.key().cmp(&b.key()));
    let mut left = room.saturating_sub(size_of::<u32>() + END);
    let (inside, outside): (Vec<_>, Vec<_>) = all.into_iter().partition(|stored| {
        let fits = stored.len() <= left;
        left -= if fits { stored.len() } else { 0 };
        fits
    });
    let mut placed = Placed::default();
    if !inside.is_empty() {
        placed.in_inode = vec![0; room];
        let (magic, rest) = placed.in_inode.split_at_mut(size_of::<u32>());
        magic.copy_from_slice(&XATTR_MAGIC.to_le_bytes());
        lay(&inside, rest, 0);
    }
    if !outside.is_empty() {
        let needed = size_of::<RawXattrHeader>() + END + outside.iter().map(Stored::len).sum::<usize>();
        if needed > block_size.len() {
            let what = alloc::format!(
                "its extended attributes take {needed} bytes: more than a block of {block_size}"
            );
            return Err(Error::entry(path, what));
        }
        placed.block = Some(block(&outside, block_size));
    }
    Ok(placed)
}

/// Which of a file's attributes have no room beside the others: the largest, as many as it takes for the rest to fit, the largest
/// first. None where one is not valid: that is refused for that, not for its size.
pub(super) fn without_room(xattrs: &[Xattr], room: usize, block_size: BlockSize) -> Vec<usize> {
    let size = |(name, value): &Xattr| {
        size_of::<RawXattrEntry>() + name.len().next_multiple_of(4) + value.len().next_multiple_of(4)
    };
    // Nothing to be counted exactly where all of it fits a block by itself.
    let room_of_block = block_size.len() - size_of::<RawXattrHeader>() - END;
    if xattrs.iter().map(size).sum::<usize>() <= room_of_block {
        return Vec::new();
    }
    let stored = xattrs.iter().enumerate().map(|(index, xattr)| Ok((index, Stored::new(xattr)?)));
    let Ok(mut stored) = stored.collect::<Result<Vec<_>, Refused>>() else { return Vec::new() };
    let lens: Vec<usize> = stored.iter().map(|(_, stored)| stored.len()).collect();
    stored.sort_by(|(_, a), (_, b)| a.key().cmp(&b.key()));
    let room = room.saturating_sub(size_of::<u32>() + END);
    let mut is_kept = vec![true; xattrs.len()];
    // As they are laid out.
    let fits = |is_kept: &[bool]| {
        let (mut inside, mut outside) = (0, 0);
        for (_, stored) in stored.iter().filter(|(index, _)| is_kept[*index]) {
            let len = stored.len();
            *(if inside + len <= room { &mut inside } else { &mut outside }) += len;
        }
        outside <= room_of_block
    };
    let mut by_size: Vec<usize> = (0..xattrs.len()).collect();
    by_size.sort_by_key(|&index| (xattrs[index].1.len(), &xattrs[index].0));
    let (mut total, mut left_out) = (lens.iter().sum::<usize>(), Vec::new());
    // The sum alone tells of most that they cannot fit.
    while total > room + room_of_block || !fits(&is_kept) {
        let Some(largest) = by_size.pop() else { break };
        is_kept[largest] = false;
        total -= lens[largest];
        left_out.push(largest);
    }
    left_out
}

/// A block with these attributes.
fn block(all: &[Stored], block_size: BlockSize) -> Vec<u8> {
    let mut bytes = vec![0; block_size.len()];
    let hash = all.iter().fold(0u32, |hash, stored| hash.rotate_left(16) ^ stored.hash());
    let header = RawXattrHeader {
        h_magic: XATTR_MAGIC.into(),
        h_refcount: 1.into(),
        h_blocks: 1.into(),
        h_hash: hash.into(),
        ..RawXattrHeader::default()
    };
    bytes[..size_of::<RawXattrHeader>()].copy_from_slice(header.as_bytes());
    lay(all, &mut bytes, size_of::<RawXattrHeader>());
    bytes
}

/// Writes entries into `bytes` from `at` on and values from its end backwards; offsets count from its start. The
/// caller has made sure that they fit.
fn lay(all: &[Stored], bytes: &mut [u8], mut at: usize) {
    let mut end = bytes.len();
    for stored in all {
        let len = stored.value.len();
        end -= len.next_multiple_of(4);
        let entry = RawXattrEntry {
            e_name_len: stored.name.suffix.len() as u8, // at most 255: parsed
            e_name_index: stored.name.index,
            e_value_offs: (if len == 0 { 0 } else { end as u16 }).into(), // less than a block of 64 KiB
            e_value_block: 0.into(),
            e_value_size: (len as u32).into(),
            e_hash: stored.hash().into(),
        };
        bytes[at..at + size_of::<RawXattrEntry>()].copy_from_slice(entry.as_bytes());
        let name = at + size_of::<RawXattrEntry>();
        bytes[name..name + stored.name.suffix.len()].copy_from_slice(&stored.name.suffix);
        bytes[end..end + len].copy_from_slice(&stored.value);
        at += stored.entry_len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ext2_core::rules::{parse_block, parse_inode};

    fn size(bytes: u64) -> BlockSize {
        BlockSize::new(bytes).unwrap()
    }

    #[test]
    fn what_fits_the_inode_lies_there_and_the_rest_in_a_block() {
        let xattrs: Vec<Xattr> = vec![
            (b"user.big".to_vec(), vec![7; 100]),
            (b"user.b".to_vec(), b"two".to_vec()),
            (b"security.capability".to_vec(), vec![1; 20]),
            (b"user.a".to_vec(), Vec::new()),
        ];
        let placed = place(b"/f", &xattrs, 96, size(1024)).unwrap();
        let inside = parse_inode(&placed.in_inode).unwrap();
        let names: Vec<_> = inside.iter().map(|xattr| xattr.name.full()).collect();
        assert_eq!(names, [&b"user.a"[..], b"user.b"]);
        let outside = parse_block(&placed.block.unwrap()).unwrap();
        assert_eq!(outside.len(), 2);
        assert_eq!(outside[0].value, vec![7; 100]);
    }

    #[test]
    fn too_many_attributes_are_refused_by_the_name_of_the_file() {
        let xattrs = vec![(b"user.big".to_vec(), vec![7; 2000])];
        let error = place(b"/dir/f", &xattrs, 96, size(1024)).unwrap_err();
        assert!(alloc::string::ToString::to_string(&error).starts_with("/dir/f: "), "{error}");
        assert!(place(b"/dir/f", &xattrs, 96, size(4096)).is_ok());
    }

    #[test]
    fn as_many_attributes_are_left_out_as_it_takes_and_the_largest_of_them() {
        let xattr = |nr: usize| (alloc::format!("user.{nr:04}").into_bytes(), vec![7; nr % 90]);
        for count in [40, 60, 300, 5000] {
            let xattrs: Vec<Xattr> = (0..count).map(xattr).collect();
            let left_out = without_room(&xattrs, 96, size(1024));
            let fits = |left_out: &[usize]| {
                let all = xattrs.iter().enumerate().filter(|(index, _)| !left_out.contains(index));
                place(b"/f", &all.map(|(_, xattr)| xattr.clone()).collect::<Vec<_>>(), 96, size(1024)).is_ok()
            };
            assert!(fits(&left_out), "{count}");
            assert!(left_out.len().checked_sub(1).is_none_or(|less| !fits(&left_out[..less])), "{count}");
            assert!(left_out.is_sorted_by_key(|&index| core::cmp::Reverse((xattrs[index].1.len(), index))));
        }
        let broken = [(0..300).map(xattr).collect(), vec![(b"nobodys".to_vec(), Vec::new())]].concat();
        assert!(without_room(&broken, 96, size(1024)).is_empty());
    }
}
