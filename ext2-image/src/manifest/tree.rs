//! The manifest of a directory or an archive of the host: what [`mkfs`](crate::mkfs) would make an image of.
//!
//! Said is what such a source can say: sizes, targets and bytes, owners, modes, attributes, and the time of the last change. Sizes and
//! links of directories, and other times, belong to an image.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::ordered::{Folders, Next};
use super::{AttributeFlags, ByteSpan, ContentCrc, Entry, Inode, Kind, Node, Xattr};
use crate::kept_paths::{KeptPath, KeptPaths};
use crate::mkfs::{Body, Contents, NodeAttrs, NodeId, Result, SourceFile, Tree};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 17;

/// The entries of a tree in the order of a manifest, each file read as it comes.
pub struct TreeEntries {
    tree: Tree,
    contents: alloc::boxed::Box<dyn Contents>,
    folders: Folders<NodeId>,
    /// The first names of nodes with several.
    first_names: BTreeMap<NodeId, KeptPath>,
    kept: KeptPaths,
    names: Vec<u32>,
    is_begun: bool,
    buffer: Vec<u8>,
}

impl core::fmt::Debug for TreeEntries {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TreeEntries").field("nodes", &self.tree.len()).finish_non_exhaustive()
    }
}

impl TreeEntries {
    /// Of a tree and the bytes of its files.
    ///
    /// # Errors
    /// A tree that no image could hold.
    pub fn new(mut tree: Tree, contents: alloc::boxed::Box<dyn Contents>) -> Result<Self> {
        tree.sort()?;
        let mut names = vec![0; tree.len()];
        for directory in tree.ids().filter(|&node| matches!(tree.body(node), Body::Directory)) {
            for (_, child) in tree.children(directory) {
                if let Some(count) = names.get_mut(child.index()) {
                    *count += 1;
                }
            }
        }
        Ok(Self {
            tree,
            contents,
            folders: Folders::new(),
            first_names: BTreeMap::new(),
            kept: KeptPaths::default(),
            names,
            is_begun: false,
            buffer: Vec::new(),
        })
    }

    /// What the entries are of.
    #[cfg(feature = "archive")]
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    fn enter(&mut self, path: Vec<u8>, directory: NodeId) {
        let tree = &self.tree;
        let names = tree
            .children(directory)
            .map(|(name, child)| (name.to_vec(), child, matches!(tree.body(child), Body::Directory)));
        self.folders.push(path, names);
    }

    fn entry(&mut self, path: Vec<u8>, node: NodeId) -> Result<Entry> {
        if self.names.get(node.index()).is_some_and(|&names| names > 1) {
            if let Some(first) = self.first_names.get(&node) {
                return Ok(Entry { path, node: Node::HardLink(self.kept.path(*first)) });
            }
            self.first_names.insert(node, self.kept.keep(&path));
        }
        let (size, kind) = match self.tree.body(node).clone() {
            Body::File { size, data, handle } => {
                (Some(size), self.file(node, size, data.as_deref(), handle)?)
            }
            Body::Directory => (None, Kind::Directory),
            Body::Symlink(target) => (Some(target.len() as u64), Kind::Symlink { target: target.into() }),
            Body::CharDevice(nr) => (None, Kind::CharDevice { major: nr.major, minor: nr.minor }),
            Body::BlockDevice(nr) => (None, Kind::BlockDevice { major: nr.major, minor: nr.minor }),
            Body::Fifo => (None, Kind::Fifo),
            Body::Socket => (None, Kind::Socket),
        };
        Ok(Entry { path, node: Node::Inode(inode_of_attrs(self.tree.attrs(node), size, kind)) })
    }

    /// The sum of a file's bytes.
    fn file(&mut self, node: NodeId, size: u64, data: Option<&[ByteSpan]>, handle: u64) -> Result<Kind> {
        let contents = &mut self.contents;
        let is_read = size > 0 && data.is_none_or(|spans| spans.iter().any(|span| span.length > 0));
        if is_read {
            contents.open(&SourceFile { tree: &self.tree, node, size, handle })?;
        }
        let kind = sum_of_spans(size, data, &mut self.buffer, &mut |at, bytes| contents.read_at(at, bytes))?;
        if is_read {
            contents.close()?;
        }
        Ok(kind)
    }
}

/// The holes and the sum of a file of `size` bytes whose data lies in `spans` (`None`: everywhere); `read` fills a buffer
/// from an offset of the file.
pub(crate) fn sum_of_spans(
    size: u64,
    spans: Option<&[ByteSpan]>,
    buffer: &mut Vec<u8>,
    read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
) -> Result<Kind> {
    let (mut crc, mut holes, mut at) = (ContentCrc::new(), Vec::new(), 0);
    let all = [ByteSpan { offset: 0, length: size }];
    for span in spans.unwrap_or(&all).iter().filter(|span| span.length > 0) {
        if span.offset > at {
            holes.push(ByteSpan { offset: at, length: span.offset - at });
            crc.update_zeros(span.offset - at);
        }
        at = span.offset;
        let end = span.offset + span.length;
        buffer.resize(CHUNK, 0);
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let bytes = buffer.get_mut(..want).unwrap_or_default();
            read(at, bytes)?;
            crc.update(bytes);
            at += want as u64;
        }
    }
    if at < size {
        holes.push(ByteSpan { offset: at, length: size - at });
        crc.update_zeros(size - at);
    }
    Ok(Kind::File { holes, crc: Some(crc.finish()) })
}

/// What a manifest says of a file with these attributes; links and most times belong to an image.
pub(crate) fn inode_of_attrs(attrs: &NodeAttrs, size: Option<u64>, kind: Kind) -> Inode {
    let mut xattrs: Vec<Xattr> =
        attrs.xattrs.iter().map(|(name, value)| Xattr { name: name.clone(), value: value.clone() }).collect();
    xattrs.sort();
    Inode {
        kind,
        mode: attrs.mode,
        uid: attrs.uid,
        gid: attrs.gid,
        size,
        nlink: None,
        atime: None,
        mtime: Some(attrs.mtime.into()),
        ctime: None,
        crtime: None,
        xattrs,
        flags: AttributeFlags::from_inode_flags(attrs.flags),
    }
}

impl Iterator for TreeEntries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.is_begun {
            self.is_begun = true;
            self.enter(Vec::new(), NodeId::ROOT);
            return Some(self.entry(b"/".to_vec(), NodeId::ROOT));
        }
        loop {
            match self.folders.next()? {
                Next::File(path, node) => return Some(self.entry(path, node)),
                Next::Enter(path, node) => self.enter(path, node),
            }
        }
    }
}
