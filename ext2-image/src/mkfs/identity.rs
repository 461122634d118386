//! UUID and hash seed of a new file system from what goes into it, so that they need not be given and never differ for
//! the same input. An empty `lost+found`, which an image gets by itself, does not count: an image and an archive of it
//! are the same input.
//!
//! They derive from names, kinds, sizes, holes, modes, owners, times, targets and attributes, and from a seed; not from
//! the bytes of files, which would have to be read twice. Two trees that differ in nothing but bytes (not even in a
//! time) get the same UUID unless they get different seeds. The hash is FNV-1a of 128 bits: it tells inputs apart, and
//! is no protection against somebody who makes them alike on purpose.

use super::tree::{Body, NodeId, Tree};
use super::{Format, Result};

/// FNV-1a of 128 bits.
#[derive(Clone, Copy, Debug)]
struct Fnv(u128);

impl Fnv {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(Self::PRIME);
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// Bytes with their length, so that neighbours cannot trade bytes.
    fn text(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes(bytes);
    }
}

fn hash_node(hash: &mut Fnv, tree: &Tree, node: NodeId) {
    let attrs = tree.attrs(node);
    hash.bytes(&[tree.body(node).kind().dirent_type()]);
    hash.number(u64::from(attrs.mode) | u64::from(attrs.flags) << 32);
    hash.number(u64::from(attrs.uid) | u64::from(attrs.gid) << 32);
    for time in [attrs.atime, attrs.mtime, attrs.ctime, attrs.crtime] {
        hash.number(time.sec.cast_unsigned());
        hash.number(time.nsec.into());
    }
    match tree.body(node) {
        Body::File { size, data, .. } => {
            hash.number(*size);
            let spans = data.as_deref().unwrap_or_default();
            hash.number(if data.is_some() { spans.len() as u64 } else { u64::MAX });
            for span in spans {
                hash.number(span.offset);
                hash.number(span.length);
            }
        }
        Body::Symlink(target) => hash.text(target),
        Body::CharDevice(device) | Body::BlockDevice(device) => {
            hash.number(u64::from(device.major) << 32 | u64::from(device.minor));
        }
        Body::Directory | Body::Fifo | Body::Socket => {}
    }
    let mut xattrs: alloc::vec::Vec<_> = attrs.xattrs.iter().collect();
    xattrs.sort();
    hash.number(xattrs.len() as u64);
    for (name, value) in xattrs {
        hash.text(name);
        hash.text(value);
    }
}

/// Whether a name in the root is the directory that an image gets by itself.
fn is_made_anyway(tree: &Tree, name: &[u8], node: NodeId) -> bool {
    let attrs = tree.attrs(node);
    name == b"lost+found"
        && *tree.body(node) == Body::Directory
        && tree.children(node).next().is_none()
        && (attrs.mode, attrs.flags) == (0o700, 0)
        && attrs.xattrs.is_empty()
}

/// UUID and hash seed for a tree and a seed (which may be empty). The UUID is of version 8.
///
/// # Errors
/// As [`Tree::sort`], which this does first.
pub fn identity(tree: &mut Tree, seed: &[u8]) -> Result<([u8; 16], [u32; 4])> {
    tree.sort()?;
    let mut hash = Fnv(Fnv::BASIS);
    hash.text(seed);
    hash_node(&mut hash, tree, NodeId::ROOT);
    // Nodes are told apart by where they come first, so that links are part of it.
    let mut seen = alloc::vec![0u32; tree.len()];
    let mut count = 0;
    let made = tree.children(NodeId::ROOT).find(|(name, node)| is_made_anyway(tree, name, *node));
    let made = made.map(|(_, node)| node);
    for directory in tree.directories().filter(|&directory| Some(directory) != made) {
        for (name, node) in tree.children(directory) {
            if Some(node) == made {
                continue;
            }
            hash.text(name);
            if let Some(place) = seen.get_mut(node.index()) {
                if *place != 0 {
                    hash.number(u64::from(*place));
                    continue;
                }
                count += 1;
                *place = count;
            }
            hash_node(&mut hash, tree, node);
        }
        hash.number(u64::MAX);
    }
    Ok(from_hash(hash))
}

/// UUID and hash seed from a seed alone.
#[must_use]
pub fn identity_of_seed(seed: &[u8]) -> ([u8; 16], [u32; 4]) {
    let mut hash = Fnv(Fnv::BASIS);
    hash.text(seed);
    from_hash(hash)
}

fn from_hash(hash: Fnv) -> ([u8; 16], [u32; 4]) {
    let derive = |purpose: &[u8]| {
        let mut own = hash;
        own.text(purpose);
        // FNV's high bits move late: fold them over.
        own.bytes(&[0; 16]);
        own.0.to_be_bytes()
    };
    let mut uuid = derive(b"uuid");
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let seed = derive(b"hash seed");
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(seed.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte));
    }
    (uuid, words)
}

impl Format {
    /// The format with UUID and hash seed from [`identity`].
    ///
    /// # Errors
    /// As [`identity`].
    pub fn identified(mut self, tree: &mut Tree, seed: &[u8]) -> Result<Self> {
        (self.uuid, self.hash_seed) = identity(tree, seed)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::NodeAttrs;
    use super::*;
    use ext2_core::Timestamp;

    fn tree(names: &[&[u8]]) -> Tree {
        let attrs = || NodeAttrs::new(0o644, (0, 0), Timestamp::from_secs(5));
        let mut tree = Tree::new(attrs());
        for name in names {
            tree.add(NodeId::ROOT, name, attrs(), Body::File { size: 3, data: None, handle: 0 }).unwrap();
        }
        tree
    }

    #[test]
    fn the_order_of_arrival_does_not_matter_and_every_name_does() {
        let of = |names: &[&[u8]]| identity(&mut tree(names), b"").unwrap();
        assert_eq!(of(&[b"a", b"b"]), of(&[b"b", b"a"]));
        assert_ne!(of(&[b"a", b"b"]), of(&[b"a", b"c"]));
        assert_ne!(of(&[b"a"]), identity(&mut tree(&[b"a"]), b"seed").unwrap());
        let mut linked = tree(&[b"a"]);
        linked.link(NodeId::ROOT, b"b", NodeId(1)).unwrap();
        assert_ne!(identity(&mut linked, b"").unwrap(), of(&[b"a", b"b"]));
    }

    #[test]
    fn an_empty_lost_and_found_is_no_other_input_and_one_with_a_file_is() {
        let mut with = tree(&[b"a"]);
        let attrs = NodeAttrs::new(0o700, (0, 0), Timestamp::from_secs(7));
        let node = with.add(NodeId::ROOT, b"lost+found", attrs.clone(), Body::Directory).unwrap();
        assert_eq!(identity(&mut with, b"").unwrap(), identity(&mut tree(&[b"a"]), b"").unwrap());
        with.add(node, b"#12", attrs, Body::Fifo).unwrap();
        assert_ne!(identity(&mut with, b"").unwrap(), identity(&mut tree(&[b"a"]), b"").unwrap());
    }

    #[test]
    fn a_uuid_is_of_version_8_and_differs_from_the_hash_seed() {
        let (uuid, seed) = identity_of_seed(b"x");
        assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (8, 2));
        assert_ne!(uuid[..4], seed[0].to_be_bytes());
        assert_ne!(identity_of_seed(b"y").0, uuid);
    }
}
