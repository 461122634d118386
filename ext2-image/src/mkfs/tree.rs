//! The files that go into a new file system, in memory: names and attributes, no contents.
//!
//! # Invariants
//! 1. Node 0 is the root, a directory. Every other node has at least one name; a directory has one.
//! 2. After [`Tree::sort`] the names of a directory are in the order of their bytes, whatever the order in which they
//!    came. All that is made of the tree depends on that order alone.
//!
//! A million files take some 200 MB: names lie in one piece, rare things (attributes, holes, targets) aside.

use alloc::boxed::Box;
use alloc::vec::Vec;

#[cfg(feature = "std")]
use super::Stamp;
use super::{Error, Result, Warnings, XattrList};
use crate::manifest::ByteSpan;
use ext2_core::{DeviceNr, FileKind, Timestamp};

/// A node of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u32);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    /// Counted from 0 in the order in which nodes were added.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Data, from wherever [`Contents`](super::Contents) has it.
    File {
        /// Bytes.
        size: u64,
        /// Where data is, ascending and apart, in bytes; all else is hole. `None`: everywhere.
        data: Option<Box<[ByteSpan]>>,
        /// What the source finds the file by, besides its path.
        handle: u64,
    },
    /// Names.
    Directory,
    /// A path.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice(DeviceNr),
    /// A block device.
    BlockDevice(DeviceNr),
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

impl Body {
    /// The kind of file.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        match self {
            Self::File { .. } => FileKind::Regular,
            Self::Directory => FileKind::Directory,
            Self::Symlink(_) => FileKind::Symlink,
            Self::CharDevice(_) => FileKind::CharDevice,
            Self::BlockDevice(_) => FileKind::BlockDevice,
            Self::Fifo => FileKind::Fifo,
            Self::Socket => FileKind::Socket,
        }
    }
}

/// The attributes of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAttrs {
    /// Permission bits, set-id and sticky included.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Birth; stored where the inode has room.
    pub crtime: Timestamp,
    /// Attribute flags, as bits of `i_flags`.
    pub flags: u32,
    /// Extended attributes, in any order.
    pub xattrs: XattrList,
}

impl NodeAttrs {
    /// Attributes with one time for all four.
    #[must_use]
    pub fn new(mode: u16, owner: (u32, u32), time: Timestamp) -> Self {
        let (uid, gid) = owner;
        Self {
            mode,
            uid,
            gid,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            flags: 0,
            xattrs: XattrList::default(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) attrs: NodeAttrs,
    pub(super) body: Body,
    pub(super) links: u32,
    /// Of a directory: how many directories it has.
    pub(super) subdirs: u32,
    /// The first entry that names it, for messages and to find it again.
    first: u32,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
struct Entry {
    parent: NodeId,
    node: NodeId,
    name: u64,
    name_len: u8,
}

/// A tree of files.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    names: Vec<u8>,
    entries: Vec<Entry>,
    /// Where the entries of each directory begin, once sorted; indexed by node, one more than there are nodes.
    starts: Vec<u32>,
    warnings: Warnings,
    /// Of files of the host what they were when they were looked at; indexed by node.
    #[cfg(feature = "std")]
    stamps: Vec<Option<Stamp>>,
}

/// The most names that a file or directory may have (Linux: `EXT2_LINK_MAX`).
pub(super) const LINK_MAX: u32 = 32_000;

impl Tree {
    /// A tree of nothing but the root directory.
    #[must_use]
    pub fn new(root: NodeAttrs) -> Self {
        let node = Node { attrs: root, body: Body::Directory, links: 1, subdirs: 0, first: u32::MAX };
        Self {
            nodes: alloc::vec![node],
            names: Vec::new(),
            entries: Vec::new(),
            starts: Vec::new(),
            warnings: Warnings::default(),
            #[cfg(feature = "std")]
            stamps: Vec::new(),
        }
    }

    /// Puts a new file into a directory.
    ///
    /// # Errors
    /// A name that is empty, `.`, `..`, longer than 255 bytes, or has a `/` or 0; a parent that is no directory; more
    /// files than 32 bits count. Names that come twice are found by [`sort`](Self::sort).
    pub fn add(&mut self, parent: NodeId, name: &[u8], attrs: NodeAttrs, body: Body) -> Result<NodeId> {
        let Ok(index) = u32::try_from(self.nodes.len()) else {
            return Err(Error::entry(name, "more than 2^32 files"));
        };
        let is_directory = body == Body::Directory;
        let first = self.entries.len() as u32; // as many entries as links: checked by `name`
        self.nodes.push(Node { attrs, body, links: 0, subdirs: 0, first });
        let node = NodeId(index);
        if let Err(error) = self.name(parent, name, node) {
            self.nodes.pop();
            return Err(error);
        }
        if is_directory {
            self.nodes[parent.index()].subdirs += 1;
        }
        Ok(node)
    }

    /// Gives a file, not a directory, another name.
    ///
    /// # Errors
    /// As [`add`](Self::add), and when there are too many names.
    pub fn link(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<()> {
        if self.node(node).body == Body::Directory {
            return Err(Error::entry(name, "a directory has one name"));
        }
        self.name(parent, name, node)
    }

    fn name(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<()> {
        let at_parent = |what: &str| Err(Error::entry(&self.path_of_name(parent, name), what));
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
            return at_parent("this is no name of a file");
        }
        let Ok(name_len) = u8::try_from(name.len()) else {
            return at_parent("the name is longer than 255 bytes");
        };
        if self.node(parent).body != Body::Directory {
            return at_parent("the parent is not a directory");
        }
        if u32::try_from(self.entries.len() + 1).is_err() {
            return at_parent("more than 2^32 names");
        }
        if self.node(node).links >= LINK_MAX {
            return at_parent("the file has more than 32000 names");
        }
        self.entries.push(Entry { parent, node, name: self.names.len() as u64, name_len });
        self.names.extend_from_slice(name);
        self.nodes[node.index()].links += 1;
        self.starts.clear();
        Ok(())
    }

    /// Replaces attributes and, unless it is a directory, contents of a file.
    ///
    /// # Errors
    /// When a directory would become something else, or something else a directory.
    pub fn replace(&mut self, node: NodeId, attrs: NodeAttrs, body: Body) -> Result<()> {
        let old = &mut self.nodes[node.index()];
        if (old.body == Body::Directory) != (body == Body::Directory) {
            return Err(Error::entry(&self.path(node), "is both a directory and something else"));
        }
        old.attrs = attrs;
        old.body = body;
        Ok(())
    }

    /// Changes the attributes of every file, say to other owners.
    pub fn for_each_attrs(&mut self, mut change: impl FnMut(&mut NodeAttrs)) {
        self.nodes.iter_mut().for_each(|node| change(&mut node.attrs));
    }

    /// Changes the attributes of one file.
    pub fn attrs_mut(&mut self, node: NodeId) -> &mut NodeAttrs {
        &mut self.nodes[node.index()].attrs
    }

    /// What of the source this tree does not have.
    #[must_use]
    pub fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// For whoever makes the tree and finds what it cannot hold.
    pub fn warnings_mut(&mut self) -> &mut Warnings {
        &mut self.warnings
    }

    /// Remembers what the file of the host was from which a node was made.
    #[cfg(feature = "std")]
    pub(super) fn set_stamp(&mut self, node: NodeId, stamp: Stamp) {
        if self.stamps.len() <= node.index() {
            self.stamps.resize(node.index() + 1, None);
        }
        self.stamps[node.index()] = Some(stamp);
    }

    /// What the file of the host was from which a node was made.
    #[cfg(feature = "std")]
    pub(super) fn stamp(&self, node: NodeId) -> Option<Stamp> {
        *self.stamps.get(node.index())?
    }

    /// How many files there are, the root included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The attributes of a file.
    #[must_use]
    pub fn attrs(&self, node: NodeId) -> &NodeAttrs {
        &self.node(node).attrs
    }

    /// What is in a file.
    #[must_use]
    pub fn body(&self, node: NodeId) -> &Body {
        &self.node(node).body
    }

    pub(super) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.index()]
    }

    /// All files, in the order in which they came.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    fn entry_name(&self, entry: &Entry) -> &[u8] {
        let start = entry.name as usize;
        &self.names[start..start + usize::from(entry.name_len)]
    }

    /// The first name of a file and the directory that it is in; the root has an empty one.
    #[must_use]
    pub fn first_name(&self, node: NodeId) -> (NodeId, &[u8]) {
        match self.entries.get(self.node(node).first as usize) {
            Some(entry) => (entry.parent, self.entry_name(entry)),
            None => (NodeId::ROOT, b""),
        }
    }

    /// The path of a file by its first name, absolute.
    #[must_use]
    pub fn path(&self, node: NodeId) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut at = node;
        while at != NodeId::ROOT {
            let Some(entry) = self.entries.get(self.node(at).first as usize) else { break };
            parts.push(self.entry_name(entry));
            at = entry.parent;
        }
        if parts.is_empty() {
            return b"/".to_vec();
        }
        parts.iter().rev().flat_map(|part| [b"/", *part].concat()).collect()
    }

    fn path_of_name(&self, parent: NodeId, name: &[u8]) -> Vec<u8> {
        let above = self.path(parent);
        let above = if above == b"/" { &[] } else { above.as_slice() };
        [above, b"/", name].concat()
    }

    /// Puts the names in order. Everything that looks at [`children`](Self::children) comes after this.
    ///
    /// # Errors
    /// A name that is in a directory twice; a directory with too many directories.
    pub fn sort(&mut self) -> Result<()> {
        let names = &self.names;
        let name = |entry: &Entry| {
            let start = entry.name as usize;
            &names[start..start + usize::from(entry.name_len)]
        };
        self.entries.sort_unstable_by(|a, b| (a.parent, name(a), a.node).cmp(&(b.parent, name(b), b.node)));
        let twice = self.entries.windows(2).find(|pair| match pair {
            [a, b] => a.parent == b.parent && name(a) == name(b),
            _ => false,
        });
        if let Some([entry, ..]) = twice {
            let (parent, name) = (entry.parent, name(entry).to_vec());
            return Err(Error::entry(&self.path_of_name(parent, &name), "this name is there twice"));
        }
        // First names anew, and where the entries of each directory begin.
        self.nodes.iter_mut().for_each(|node| node.first = u32::MAX);
        self.starts = alloc::vec![0; self.nodes.len() + 1];
        for (index, entry) in self.entries.iter().enumerate() {
            self.starts[entry.parent.index() + 1] += 1;
            let first = &mut self.nodes[entry.node.index()].first;
            *first = (*first).min(index as u32);
        }
        for index in 1..self.starts.len() {
            self.starts[index] += self.starts[index - 1];
        }
        match self.ids().find(|&id| self.node(id).subdirs + 2 > LINK_MAX) {
            Some(id) => Err(Error::entry(&self.path(id), "holds more than 31998 directories")),
            None => Ok(()),
        }
    }

    /// Names and files of a directory, in order of the names' bytes. Empty before [`sort`](Self::sort).
    pub fn children(&self, directory: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> + Clone {
        let range = match (self.starts.get(directory.index()), self.starts.get(directory.index() + 1)) {
            (Some(&start), Some(&end)) => start as usize..end as usize,
            _ => 0..0,
        };
        self.entries[range].iter().map(|entry| (self.entry_name(entry), entry.node))
    }

    /// The directory that holds a directory; the root holds itself.
    pub(super) fn parent(&self, directory: NodeId) -> NodeId {
        self.entries.get(self.node(directory).first as usize).map_or(NodeId::ROOT, |entry| entry.parent)
    }

    /// Every directory, each after the one that holds it, in depth-first order of names.
    pub(crate) fn directories(&self) -> Directories<'_> {
        Directories { tree: self, pending: alloc::vec![NodeId::ROOT] }
    }
}

/// The directories of a tree, depth first.
pub(crate) struct Directories<'t> {
    tree: &'t Tree,
    pending: Vec<NodeId>,
}

impl Iterator for Directories<'_> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        let next = self.pending.pop()?;
        let from = self.pending.len();
        let below = self.tree.children(next).map(|(_, node)| node);
        self.pending.extend(below.filter(|&node| self.tree.node(node).body == Body::Directory));
        self.pending[from..].reverse();
        Some(next)
    }
}
