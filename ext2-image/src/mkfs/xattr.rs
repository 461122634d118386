//! Extended attributes as they lie in a new inode and in a block of their own.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::tree::Xattr;
use super::{Error, Result};
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

impl Stored {
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
    for (name, value) in xattrs {
        let shown = crate::manifest::quote(name);
        let refused = |what| Error::entry(path, alloc::format!("attribute {shown}: {what}"));
        let name = XattrName::parse(name).map_err(refused)?;
        let value = if name.acl_kind().is_some() {
            let acl = Acl::from_user(value).ok_or_else(|| {
                Error::entry(path, alloc::format!("attribute {shown} is no access control list"))
            })?;
            acl.to_disk()
        } else {
            value.clone()
        };
        all.push(Stored { name, value });
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

/// Whether attributes that are valid take more room than a file has for them.
pub(super) fn is_too_much(xattrs: &[Xattr], room: usize, block_size: BlockSize) -> bool {
    let size = |(name, value): &Xattr| {
        size_of::<RawXattrEntry>() + name.len().next_multiple_of(4) + value.len().next_multiple_of(4)
    };
    // Nothing to be counted exactly where all of it fits a block by itself.
    let room_of_block = block_size.len() - size_of::<RawXattrHeader>() - END;
    let sum = xattrs.iter().map(size).sum::<usize>();
    if sum <= room_of_block {
        return false;
    }
    let valid = |(name, value): &&Xattr| {
        XattrName::parse(name).is_ok_and(|name| name.acl_kind().is_none() || Acl::from_user(value).is_some())
    };
    // One that is not valid is refused for that, not for its size.
    // Prefixes of names and the users of access lists are not stored: still more than a quarter of what is counted is.
    xattrs.iter().all(|xattr| valid(&xattr))
        && (sum > 4 * (room_of_block + room) || place(b"", xattrs, room, block_size).is_err())
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
}
