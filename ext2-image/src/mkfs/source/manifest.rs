//! The tree of a manifest: the text says everything but the bytes, which a directory has under the same paths.

use std::collections::BTreeMap;
use std::path::Path;

use super::Folder;
use super::summed::{Summed, SummedFolder};
use crate::manifest::{ByteSpan, ContentCrc, Inode, Kind, Manifest, Node, Time, crc_of_zeros};
use crate::mkfs::{Body, Contents, Error, NodeAttrs, NodeId, Result, SourceFile, Tree};
use ext2_core::{DeviceNr, Timestamp};

/// A tree from a manifest, and the sums that its files have to have.
#[derive(Debug)]
#[non_exhaustive]
pub struct Built {
    /// The tree; the handle of a file is its index in `sums`.
    pub tree: Tree,
    /// The CRC-32 of each file, where the manifest says it.
    pub sums: Vec<Option<u32>>,
}

/// The tree that a manifest describes. Files whose size it does not say have that of the file in `contents`; times
/// that it does not say are the file's `mtime`, and where that is not said either `default_time`.
///
/// # Errors
/// `Entry` and `Source`.
pub fn tree_of_manifest(manifest: &Manifest, contents: &Path, default_time: Timestamp) -> Result<Built> {
    let mut entries = manifest.entries().iter();
    let root = match entries.next().map(|entry| &entry.node) {
        Some(Node::Inode(inode)) => attrs(inode, default_time),
        _ => return Err(Error::entry(b"/", "the manifest has no root")),
    };
    let mut built = Built { tree: Tree::new(root), sums: Vec::new() };
    let mut nodes: BTreeMap<&[u8], NodeId> = BTreeMap::from([(&b"/"[..], NodeId::ROOT)]);
    for entry in entries {
        let path = entry.path.as_slice();
        let cut = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        let above = path.get(..cut.max(1)).unwrap_or_default();
        let name = path.get(cut + 1..).unwrap_or_default();
        let missing = || Error::entry(path, "its directory is not in the manifest");
        let parent = *nodes.get(above).ok_or_else(missing)?;
        match &entry.node {
            Node::HardLink(first) => {
                let node = *nodes.get(first.as_slice()).ok_or_else(missing)?;
                built.tree.link(parent, name, node)?;
            }
            Node::Inode(inode) => {
                let body = body(path, inode, contents, &mut built.sums)?;
                let node = built.tree.add(parent, name, attrs(inode, default_time), body)?;
                nodes.insert(path, node);
            }
        }
    }
    Ok(built)
}

fn attrs(inode: &Inode, default_time: Timestamp) -> NodeAttrs {
    let time = |time: Option<Time>| time.map(Timestamp::from);
    let mtime = time(inode.mtime).unwrap_or(default_time);
    NodeAttrs {
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        atime: time(inode.atime).unwrap_or(mtime),
        mtime,
        ctime: time(inode.ctime).unwrap_or(mtime),
        crtime: time(inode.crtime).unwrap_or(mtime),
        flags: inode.flags.bits(),
        xattrs: inode.xattrs.iter().map(|xattr| (xattr.name.clone(), xattr.value.clone())).collect(),
    }
}

fn body(path: &[u8], inode: &Inode, contents: &Path, sums: &mut Vec<Option<u32>>) -> Result<Body> {
    Ok(match &inode.kind {
        Kind::File { holes, crc } => {
            let size = match inode.size {
                Some(size) => size,
                None => Folder::new(contents).size_of(path)?,
            };
            sums.push(*crc);
            let data: Option<Box<[ByteSpan]>> = (!holes.is_empty()).then(|| between(holes, size).into());
            // A file without data is never opened, so that nobody else sums it.
            let is_read = data.as_ref().map_or(size > 0, |spans| !spans.is_empty());
            if let (Some(said), false) = (*crc, is_read)
                && said != crc_of_zeros(size)
            {
                return Err(wrong_sum(path, crc_of_zeros(size), said));
            }
            Body::File { size, data, handle: sums.len() as u64 - 1 }
        }
        Kind::Directory => Body::Directory,
        Kind::Symlink { target } => Body::Symlink(target.as_slice().into()),
        Kind::CharDevice { major, minor } => Body::CharDevice(DeviceNr { major: *major, minor: *minor }),
        Kind::BlockDevice { major, minor } => Body::BlockDevice(DeviceNr { major: *major, minor: *minor }),
        Kind::Fifo => Body::Fifo,
        Kind::Socket => Body::Socket,
    })
}

fn wrong_sum(path: &[u8], found: u32, said: u32) -> Error {
    Error::source(path, format!("its CRC-32 is {found:08x}, and the manifest says {said:08x}"))
}

/// What lies between holes.
fn between(holes: &[ByteSpan], size: u64) -> Vec<ByteSpan> {
    let mut data = Vec::new();
    let mut at = 0;
    let end = ByteSpan { offset: size, length: 0 };
    for hole in holes.iter().chain([&end]) {
        if hole.offset > at {
            data.push(ByteSpan { offset: at, length: hole.offset - at });
        }
        at = hole.offset.saturating_add(hole.length);
    }
    data
}

/// The contents of a manifest: a folder whose files have to have the sums that the manifest says.
#[derive(Debug)]
pub struct CheckedFolder {
    folder: Folder,
    sums: Vec<Option<u32>>,
    /// Path, size and sum of the open file.
    open: Option<(Vec<u8>, u64, u32)>,
    /// The sum of what was read so far, and up to where that is.
    crc: ContentCrc,
    at: u64,
}

impl CheckedFolder {
    /// The files below `root`, with the sums of [`Built`].
    #[must_use]
    pub fn new(root: &Path, sums: Vec<Option<u32>>) -> Self {
        Self { folder: Folder::new(root), sums, open: None, crc: ContentCrc::new(), at: 0 }
    }
}

impl Contents for CheckedFolder {
    fn open(&mut self, file: &SourceFile<'_>) -> Result<()> {
        self.folder.open(file)?;
        let sum = usize::try_from(file.handle).ok().and_then(|index| *self.sums.get(index)?);
        self.open = sum.map(|sum| (file.path(), file.size, sum));
        (self.crc, self.at) = (ContentCrc::new(), 0);
        Ok(())
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.folder.read_at(offset, buf)?;
        // Data comes in ascending order; what is left out is hole.
        self.crc.update_zeros(offset.saturating_sub(self.at));
        self.crc.update(buf);
        self.at = offset + buf.len() as u64;
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.folder.close()?;
        let Some((path, size, sum)) = self.open.take() else { return Ok(()) };
        let mut crc = core::mem::take(&mut self.crc);
        crc.update_zeros(size.saturating_sub(self.at));
        let found = crc.finish();
        if found == sum {
            return Ok(());
        }
        Err(wrong_sum(&path, found, sum))
    }

    fn abandon(&mut self) {
        self.folder.abandon();
        self.open = None;
    }

    fn at_random(&self) -> Option<Box<dyn Contents + Send>> {
        let summed = self.sums.iter().map(|sum| sum.map(Summed::new)).collect();
        Some(Box::new(SummedFolder::new(self.folder.another()?, summed)))
    }

    fn lies_in(&self) -> Option<&std::fs::File> {
        self.folder.lies_in()
    }

    fn host_file(&self) -> Option<(&std::fs::File, u64)> {
        // What is to be summed has to be read.
        if self.open.is_some() { None } else { self.folder.host_file() }
    }
}
