//! The manifest of an image.
//!
//! # Invariants
//! - Every directory is entered once, and the blocks of all files together are no more than the file system has: an
//!   image whose directories form a cycle, or whose files share blocks, is refused and does not take for ever.

use alloc::{collections::BTreeMap, format, string::ToString, vec, vec::Vec};

use super::ordered::{Folders, Next};
use super::{AttributeFlags, ByteSpan, ContentCrc, Entry, Inode, Kind, Manifest, Node, Time, Xattr, quote};
use crate::kept_paths::{KeptPath, KeptPaths};
use ext2_core::{Attr, Corrupt, DeviceNr, Ext2, FileBlock, FileKind, InodeNr, Object, Result, Timestamp};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 17;

/// Walks a whole image and reads every byte that is not in a hole.
///
/// # Errors
/// The first thing that cannot be read: `Corrupt` where the tree contradicts itself (a directory with two names, a name
/// twice in one directory or one that no path can hold, blocks that belong to several files), or the device's error.
pub fn from_image(fs: &Ext2) -> Result<Manifest> {
    let entries = ImageEntries::new(&fs.root()?).collect::<Result<Vec<Entry>>>()?;
    let root = Object::Directory(InodeNr::ROOT);
    let fault = |(path, why): (Vec<u8>, _)| Corrupt::new(root, format!("{}: {why}", quote(&path)));
    let mut manifest = Manifest::new(entries).map_err(fault)?;
    describe(fs, &mut manifest);
    Ok(manifest)
}

/// What a manifest says of the file system itself, without entries.
#[must_use]
pub fn describe_image(fs: &Ext2) -> Manifest {
    let mut manifest = Manifest::default();
    describe(fs, &mut manifest);
    manifest
}

/// The entries of a directory of an image in the order of a manifest, each file read as it comes. The directory is the root
/// `/` of their paths.
///
/// Memory is that of the directories that are open, a bit for each inode, and the first names of inodes with several. An
/// error is the last item.
#[derive(Debug)]
pub struct ImageEntries {
    fs: Ext2,
    folders: Folders<InodeNr>,
    /// A bit for each inode: directories that were entered.
    entered: Vec<u64>,
    first_names: BTreeMap<InodeNr, KeptPath>,
    kept: KeptPaths,
    reader: Reader,
    start: Option<InodeNr>,
    is_done: bool,
}

impl ImageEntries {
    /// Of a directory.
    #[must_use]
    pub fn new(directory: &ext2_core::Inode) -> Self {
        let fs = directory.fs();
        let words = fs.geometry().inodes_count as usize / 64 + 1;
        Self {
            reader: Reader { budget: fs.superblock().blocks_count.into(), buffer: Vec::new() },
            fs,
            folders: Folders::new(),
            entered: vec![0; words],
            first_names: BTreeMap::new(),
            kept: KeptPaths::default(),
            start: Some(directory.nr()),
            is_done: false,
        }
    }

    /// Marks a directory as entered; false if it was.
    fn mark(&mut self, nr: InodeNr) -> bool {
        let (word, bit) = (nr.get() as usize / 64, 1 << (nr.get() % 64));
        let Some(word) = self.entered.get_mut(word) else { return false };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Reads the names of a directory.
    fn enter(&mut self, path: Vec<u8>, nr: InodeNr) -> Result<()> {
        let broken = |what| Err(Corrupt::new(Object::Directory(nr), what).into());
        let mut names: Vec<(Vec<u8>, InodeNr, bool)> = Vec::new();
        let mut entries = self.fs.inode(nr)?.entries(0)?;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if matches!(&entry.name[..], b"." | b"..") {
                continue;
            }
            if entry.name.is_empty() || entry.name.iter().any(|byte| matches!(byte, 0 | b'/')) {
                return broken(format!("the name {} is none that a path can hold", quote(&entry.name)));
            }
            let Some(inode) = entries.inode(&entry)? else { continue };
            let is_directory = inode.kind() == FileKind::Directory;
            // What the name stands for by now, which need not be what was listed.
            let nr = inode.nr();
            if is_directory && !self.mark(nr) {
                return broken(format!("directory inode {nr} has a second name here"));
            }
            names.push((entry.name.into_bytes(), nr, is_directory));
        }
        match self.folders.push(path, names.into_iter()) {
            Some(twice) => broken(format!("the name {} is there twice", quote(&twice))),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: Vec<u8>, nr: InodeNr) -> Result<Entry> {
        if let Some(first) = self.first_names.get(&nr) {
            return Ok(Entry { path, node: Node::HardLink(self.kept.path(*first)) });
        }
        let inode = self.fs.inode(nr)?;
        if inode.kind() != FileKind::Directory && inode.attr().links > 1 {
            self.first_names.insert(nr, self.kept.keep(&path));
        }
        Ok(Entry { path, node: Node::Inode(self.reader.inode(&inode)?) })
    }

    fn step(&mut self) -> Result<Option<Entry>> {
        if let Some(start) = self.start.take() {
            self.mark(start);
            self.enter(Vec::new(), start)?;
            return self.entry(b"/".to_vec(), start).map(Some);
        }
        loop {
            match self.folders.next() {
                None => return Ok(None),
                Some(Next::File(path, nr)) => return self.entry(path, nr).map(Some),
                Some(Next::Enter(path, nr)) => self.enter(path, nr)?,
            }
        }
    }
}

impl Iterator for ImageEntries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let step = self.step();
        self.is_done = !matches!(step, Ok(Some(_)));
        step.transpose()
    }
}

/// Fills the `fs` line.
fn describe(fs: &Ext2, manifest: &mut Manifest) {
    let superblock = fs.superblock();
    let numbers = [
        ("block-size", superblock.block_size.bytes()),
        ("blocks", superblock.blocks_count.into()),
        ("inode-size", superblock.inode_size.into()),
        ("inodes", superblock.inodes_count.into()),
        ("revision", superblock.revision.into()),
        ("reserved-blocks", superblock.reserved_blocks.into()),
    ];
    for (key, number) in numbers {
        manifest.set_filesystem(key, number.to_string().as_bytes());
    }
    manifest.set_filesystem("uuid", &with_dashes(&superblock.uuid));
    let seed = superblock.hash_seed.map(u32::to_le_bytes);
    manifest.set_filesystem("hash-seed", &with_dashes(seed.as_flattened()));
    manifest.set_filesystem("features", superblock.features.to_names().as_bytes());
    if superblock.created.sec > 0 {
        manifest.set_filesystem("created", superblock.created.sec.to_string().as_bytes());
    }
    if !superblock.label.is_empty() {
        manifest.set_filesystem("label", &superblock.label);
    }
}

/// 16 bytes as a UUID is written.
fn with_dashes(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push(b'-');
        }
        text.extend(format!("{byte:02x}").bytes());
    }
    text
}

/// Reads contents, and counts what it reads.
#[derive(Debug)]
struct Reader {
    /// Blocks that files may still have.
    budget: u64,
    buffer: Vec<u8>,
}

impl Reader {
    /// All attributes of an inode.
    fn inode(&mut self, inode: &ext2_core::Inode) -> Result<Inode> {
        let attr = inode.attr();
        let kind = match (attr.kind, attr.device) {
            (FileKind::Regular, _) => self.contents(inode)?,
            (FileKind::Directory, _) => Kind::Directory,
            (FileKind::Symlink, _) => Kind::Symlink { target: inode.read_link()? },
            (FileKind::CharDevice, Some(DeviceNr { major, minor })) => Kind::CharDevice { major, minor },
            (FileKind::BlockDevice, Some(DeviceNr { major, minor })) => Kind::BlockDevice { major, minor },
            (FileKind::CharDevice | FileKind::BlockDevice, None) => {
                return Err(Corrupt::new(Object::Inode(attr.nr), "a device has no number").into());
            }
            (FileKind::Fifo, _) => Kind::Fifo,
            (FileKind::Socket, _) => Kind::Socket,
        };
        let mut xattrs: Vec<Xattr> =
            inode.xattrs()?.into_iter().map(|(name, value)| Xattr { name, value }).collect();
        xattrs.sort();
        xattrs.dedup_by(|later, first| later.name == first.name);
        Ok(of_attr(&attr, kind, xattrs))
    }

    /// The holes of a file, and the sum of its bytes.
    fn contents(&mut self, inode: &ext2_core::Inode) -> Result<Kind> {
        let size = inode.size();
        let block_size = inode.fs().geometry().block_size.bytes();
        let blocks = size.div_ceil(block_size);
        let mut holes: Vec<ByteSpan> = Vec::new();
        let mut crc = ContentCrc::new();
        let mut block = 0;
        while block < blocks {
            let mapping = inode.map(FileBlock::new(block), blocks - block)?;
            let offset = block.saturating_mul(block_size);
            block = mapping.end().get();
            let end = block.saturating_mul(block_size).min(size);
            if mapping.is_hole() {
                holes.push(ByteSpan { offset, length: end - offset });
                crc.update_zeros(end - offset);
                continue;
            }
            let Some(budget) = self.budget.checked_sub(mapping.count) else {
                let what = "the files up to this one have more blocks than the file system";
                return Err(Corrupt::new(Object::Inode(inode.nr()), what).into());
            };
            self.budget = budget;
            self.sum(inode, offset, end, &mut crc)?;
        }
        Ok(Kind::File { holes, crc: Some(crc.finish()) })
    }

    /// Adds the bytes `offset..end`, which end within the file, to a sum.
    fn sum(
        &mut self,
        inode: &ext2_core::Inode,
        mut offset: u64,
        end: u64,
        crc: &mut ContentCrc,
    ) -> Result<()> {
        self.buffer.resize(CHUNK, 0);
        while offset < end {
            let want = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
            let buffer = self.buffer.get_mut(..want).unwrap_or_default();
            let read = inode.read_at(offset, buffer)?;
            if read == 0 {
                // Somebody cut the file off meanwhile; its end reads as zeros.
                crc.update_zeros(end - offset);
                break;
            }
            crc.update(buffer.get(..read).unwrap_or_default());
            offset += read as u64;
        }
        Ok(())
    }
}

/// The line of an inode from its attributes.
fn of_attr(attr: &Attr, kind: Kind, xattrs: Vec<Xattr>) -> Inode {
    Inode {
        kind,
        mode: attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        size: Some(attr.size),
        nlink: Some(attr.links.into()),
        atime: Some(attr.atime.into()),
        mtime: Some(attr.mtime.into()),
        ctime: Some(attr.ctime.into()),
        crtime: attr.crtime.map(Time::from),
        xattrs,
        flags: AttributeFlags::from_inode_flags(attr.flags.bits()),
    }
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self { seconds: time.sec, nanoseconds: time.nsec }
    }
}

impl From<Time> for Timestamp {
    fn from(time: Time) -> Self {
        Self { sec: time.seconds, nsec: time.nanoseconds }
    }
}
