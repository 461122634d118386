//! What is in a file system, as a program sees it through our reader: for comparing before with after.

use std::{collections::BTreeMap, sync::Arc};

use blockdev::BlockDevice;
use ext2_core::{Ext2, FileKind, Inode, InodeNr, OpenOptions, Timestamp};

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// File, directory and so on.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Last read, and last change of the contents.
    pub times: [Timestamp; 2],
    /// Number of names.
    pub links: u16,
    /// Inode, to tell which names are of one file.
    pub inode: u32,
    /// Bytes that it has, or would have without holes.
    pub size: u64,
    /// Bytes of a file, but of a very large one nothing; target of a symlink, number of a device; nothing for others.
    pub content: Vec<u8>,
    /// Extended attributes, sorted.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Paths with what they are. The root is the empty path.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// The largest file whose contents are taken, in bytes; of a larger one only the size counts.
pub const LARGEST: u64 = 4 << 20;

/// Reads everything on a device.
///
/// # Errors
/// The first error of the reader, with the path.
pub fn read(device: Arc<dyn BlockDevice>) -> Result<Tree, String> {
    let fs = Ext2::open(device, &OpenOptions::read_only()).map_err(|error| error.to_string())?;
    of(&fs)
}

/// Reads everything in an open file system.
///
/// # Errors
/// As [`read`].
pub fn of(fs: &Ext2) -> Result<Tree, String> {
    let mut tree = Tree::new();
    let root = fs.root().map_err(|error| error.to_string())?;
    let mut pending = vec![(Vec::new(), root)];
    while let Some((path, inode)) = pending.pop() {
        let named = |error: ext2_core::Error| format!("{}: {error}", path.escape_ascii());
        if inode.kind() == FileKind::Directory {
            // No path of a sound file system is so long; a circle of directories would be.
            if path.len() > 1 << 16 {
                return Err(format!("{}…: directories in a circle", path[..80].escape_ascii()));
            }
            for entry in inode.entries(0).map_err(named)? {
                let entry = entry.map_err(named)?;
                if entry.name != b"." && entry.name != b".." {
                    let child = fs.inode(entry.nr).map_err(named)?;
                    pending.push(([&path[..], b"/", &entry.name].concat(), child));
                }
            }
        }
        let node = node(&inode).map_err(named)?;
        tree.insert(path, node);
    }
    Ok(tree)
}

/// What an open file is, whether or not a name leads to it; `None` where there is none of this number.
pub fn of_file(fs: &Ext2, nr: u32) -> Option<Node> {
    let inode = InodeNr::new(nr).and_then(|nr| fs.inode(nr).ok())?;
    node(&inode).ok()
}

fn node(inode: &Inode) -> Result<Node, ext2_core::Error> {
    let attr = inode.attr();
    let content = match inode.kind() {
        FileKind::Regular if attr.size > LARGEST => Vec::new(),
        FileKind::Regular => {
            let mut bytes = vec![0; usize::try_from(attr.size).expect("not above the largest")];
            let read = inode.read_at(0, &mut bytes)?;
            bytes.truncate(read);
            bytes
        }
        FileKind::Symlink => inode.read_link()?,
        _ => attr.device.map(|device| format!("{device:?}").into_bytes()).unwrap_or_default(),
    };
    let mut xattrs = inode.xattrs()?;
    xattrs.sort();
    let (links, inode, size) = (attr.links, attr.nr.get(), attr.size);
    let (uid, gid, times) = (attr.uid, attr.gid, [attr.atime, attr.mtime]);
    Ok(Node { kind: attr.kind, mode: attr.mode, uid, gid, times, links, inode, size, content, xattrs })
}
