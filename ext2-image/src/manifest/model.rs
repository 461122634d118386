//! What a manifest says, as types.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use super::{AttributeFlags, Without, quote};

/// A tree of files as data: every name with its attributes, in the order of the printed paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    filesystem: BTreeMap<String, Vec<u8>>,
    entries: Vec<Entry>,
}

impl Manifest {
    /// Sorts the entries and makes of them a manifest without a `fs` line.
    ///
    /// # Errors
    /// The path of the first entry that breaks an invariant of the [module](super), and why.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, (Vec<u8>, &'static str)> {
        entries.sort_by_cached_key(|entry| quote(&entry.path));
        match first_fault(&entries) {
            Some((index, why)) => Err((entries.swap_remove(index).path, why)),
            None => Ok(Self { filesystem: BTreeMap::new(), entries }),
        }
    }

    /// The entries, sorted by printed path; the first is `/` unless the manifest is empty.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries, without the manifest.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The manifest without what does not matter, so that [`diff`](super::diff()) does not compare it.
    ///
    /// ```
    /// use ext2_core::{Ext2, OpenOptions};
    /// use ext2_image::manifest::{Without, diff, from_image};
    ///
    /// let fs = Ext2::open(ext2_image::mkfs::in_memory(1 << 20)?, &OpenOptions::default())?;
    /// fs.write("file", "the same")?;
    /// let before = from_image(&fs)?;
    /// fs.remove_file("file")?;
    /// fs.write("file", "the same")?;
    ///
    /// let no_times = Without { times: true, ..Without::default() };
    /// assert!(diff(&before.without(no_times), &from_image(&fs)?.without(no_times)).is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn without(self, what: Without) -> Self {
        let Self { filesystem, entries } = self;
        Self { filesystem, entries: entries.into_iter().map(|entry| what.of(entry)).collect() }
    }

    /// The entry of an absolute path, if the manifest has it.
    pub fn entry(&self, path: &[u8]) -> Option<&Entry> {
        let key = quote(path);
        let index = self.entries.binary_search_by(|entry| quote(&entry.path).cmp(&key)).ok()?;
        self.entries.get(index)
    }

    /// The inode behind a path, through the hard link where the path is a later name.
    pub fn inode(&self, path: &[u8]) -> Option<&Inode> {
        match &self.entry(path)?.node {
            Node::Inode(inode) => Some(inode),
            Node::HardLink(first) => match &self.entry(first)?.node {
                Node::Inode(inode) => Some(inode),
                Node::HardLink(_) => None,
            },
        }
    }

    /// The keys and values of the `fs` line: what the file system was, for who builds it again.
    pub fn filesystem(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.filesystem
    }

    /// Sets a key of the `fs` line. False, and nothing set, where the key is not lower-case letters, digits and `-`.
    pub fn set_filesystem(&mut self, key: &str, value: &[u8]) -> bool {
        let valid =
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if valid {
            self.filesystem.insert(key.into(), value.into());
        }
        valid
    }
}

/// The first entry of a sorted list that breaks an invariant of a manifest.
pub(super) fn first_fault(entries: &[Entry]) -> Option<(usize, &'static str)> {
    let mut directories = BTreeSet::new();
    let mut linkable = BTreeSet::new();
    let mut previous: Option<&[u8]> = None;
    for (index, entry) in entries.iter().enumerate() {
        let path = entry.path.as_slice();
        if previous == Some(path) {
            return Some((index, "this path is there twice"));
        }
        previous = Some(path);
        match parent(path) {
            Err(why) => return Some((index, why)),
            Ok(Some(parent)) if !directories.contains(parent) => {
                return Some((index, "its parent directory is not in the manifest"));
            }
            Ok(_) => {}
        }
        match &entry.node {
            Node::HardLink(first) if !linkable.contains(first.as_slice()) => {
                return Some((index, "the hardlink is not to an earlier file that has attributes"));
            }
            Node::HardLink(_) => {}
            Node::Inode(inode) if inode.kind == Kind::Directory => {
                directories.insert(path);
            }
            Node::Inode(_) if path == b"/" => return Some((index, "the root is not a directory")),
            Node::Inode(_) => {
                linkable.insert(path);
            }
        }
    }
    None
}

/// The path of the directory that holds `path`; none for the root.
fn parent(path: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    if path == b"/" {
        return Ok(None);
    }
    let Some(cut) = path.iter().rposition(|&byte| byte == b'/') else {
        return Err("the path does not start with /");
    };
    let (parent, name) = path.split_at(cut);
    if matches!(name, b"/" | b"/." | b"/..") || name.contains(&0) {
        return Err("the last component of the path is not a file name");
    }
    Ok(Some(if parent.is_empty() { b"/" } else { parent }))
}

/// One line: a name and what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Absolute path from the root of the file system, as bytes; the root is `/`.
    pub path: Vec<u8>,
    /// What is there.
    pub node: Node,
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// The first name of an inode (every name but one of most files).
    Inode(Inode),
    /// A later name of the inode whose first name this is.
    HardLink(Vec<u8>),
}

/// The attributes of an inode. What is `None` is not said, and [`diff`](super::diff) does not compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Type, with what only that type has.
    pub kind: Kind,
    /// Permission bits, set-id and sticky included: `0..=0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `st_size` in bytes.
    pub size: Option<u64>,
    /// Number of names.
    pub nlink: Option<u32>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of the content.
    pub mtime: Option<Time>,
    /// Last change of the inode.
    pub ctime: Option<Time>,
    /// Birth, where the inode has room for it.
    pub crtime: Option<Time>,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Attribute flags.
    pub flags: AttributeFlags,
}

/// Type of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `f`
    File {
        /// The holes, ascending, never empty, apart from each other; the last ends at the size of the file at most.
        holes: Vec<ByteSpan>,
        /// CRC-32 of all bytes, holes read as zeros.
        crc: Option<u32>,
    },
    /// `d`
    Directory,
    /// `l`
    Symlink {
        /// What it points to, as bytes.
        target: Vec<u8>,
    },
    /// `c`
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// `b`
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// `p`
    Fifo,
    /// `s`
    Socket,
}

impl Kind {
    /// The letter of the type, as find(1) prints it.
    pub fn letter(&self) -> char {
        match self {
            Self::File { .. } => 'f',
            Self::Directory => 'd',
            Self::Symlink { .. } => 'l',
            Self::CharDevice { .. } => 'c',
            Self::BlockDevice { .. } => 'b',
            Self::Fifo => 'p',
            Self::Socket => 's',
        }
    }
}

/// A range of bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSpan {
    /// First byte.
    pub offset: u64,
    /// Number of bytes, not zero.
    pub length: u64,
}

/// A point in time: seconds since 1970 (negative before), and nanoseconds to add to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that second, `0..1_000_000_000`.
    pub nanoseconds: u32,
}

/// An extended attribute as getxattr(2) gives it, with the prefix of its namespace. ACLs are in the encoding of that
/// call (version 2), not in the one of the disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Whole name, `user.origin` for one.
    pub name: Vec<u8>,
    /// Value, which may be empty.
    pub value: Vec<u8>,
}
