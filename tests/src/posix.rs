//! A file system in a few maps: what POSIX says happens, without disk, blocks counted all the same.
//!
//! The model knows which blocks of a file are there and which are holes, so that the manifest that it makes can be
//! compared with the one of an image to the last hole. Errors have the numbers and the precedence of Linux's VFS and
//! ext2.

use std::collections::{BTreeMap, BTreeSet};

use ext2_core::{Errno, RenameFlags};
use ext2_image::manifest::{
    AttributeFlags, ByteSpan, ContentCrc, Entry, Inode, Kind, Manifest, Node, Xattr, quote,
};

/// Number of a file of the model.
pub type Id = u64;

/// The root directory.
pub const ROOT: Id = 0;

/// What a model answers.
pub type Answer<T> = Result<T, Errno>;

/// Type and contents of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Size in bytes, and the blocks that are there.
    File(u64, BTreeMap<u64, Vec<u8>>),
    /// Names.
    Directory(BTreeMap<Vec<u8>, Id>),
    /// Target.
    Symlink(Vec<u8>),
    /// Device, FIFO or socket.
    Special(Kind),
}

/// A file of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Type and contents.
    pub contents: Contents,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Names of it; of a directory, subdirectories and its two own.
    pub links: u32,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Model {
    files: BTreeMap<Id, File>,
    block: u64,
    next: Id,
}

/// The longest name.
const NAME_MAX: usize = 255;

impl Model {
    /// An empty file system with blocks of so many bytes: the root and `lost+found`, as mke2fs leaves them.
    pub fn new(block: u64) -> Self {
        let directory = |mode, links, names| File {
            contents: Contents::Directory(names),
            mode,
            uid: 0,
            gid: 0,
            xattrs: BTreeMap::new(),
            links,
        };
        let root = directory(0o755, 3, BTreeMap::from([(b"lost+found".to_vec(), 1)]));
        let files = BTreeMap::from([(ROOT, root), (1, directory(0o700, 2, BTreeMap::new()))]);
        Self { files, block, next: 2 }
    }

    /// A file that is there.
    pub fn file(&self, id: Id) -> &File {
        &self.files[&id]
    }

    fn file_mut(&mut self, id: Id) -> &mut File {
        self.files.get_mut(&id).expect("the file of an id is there")
    }

    /// Attributes of a file, to change them.
    pub fn change(&mut self, id: Id) -> &mut File {
        self.file_mut(id)
    }

    /// The names in a directory.
    fn names(&self, dir: Id) -> &BTreeMap<Vec<u8>, Id> {
        match &self.file(dir).contents {
            Contents::Directory(names) => names,
            _ => panic!("the caller has a directory"),
        }
    }

    fn names_mut(&mut self, dir: Id) -> &mut BTreeMap<Vec<u8>, Id> {
        match &mut self.file_mut(dir).contents {
            Contents::Directory(names) => names,
            _ => panic!("the caller has a directory"),
        }
    }

    fn is_directory(&self, id: Id) -> bool {
        matches!(self.file(id).contents, Contents::Directory(_))
    }

    /// Every directory with its path, the root first.
    pub fn directories(&self) -> Vec<(Vec<u8>, Id)> {
        let mut found = vec![(Vec::new(), ROOT)];
        let mut at = 0;
        while let Some((path, dir)) = found.get(at).cloned() {
            for (name, id) in self.names(dir) {
                if self.is_directory(*id) {
                    found.push(([&path[..], b"/", name].concat(), *id));
                }
            }
            at += 1;
        }
        found
    }

    /// What a name leads to.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, `ENOENT`.
    pub fn lookup(&self, dir: Id, name: &[u8]) -> Answer<Id> {
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        self.names(dir).get(name).copied().ok_or(Errno::NOENT)
    }

    /// Makes a file under a new name.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, `EEXIST`, `ENOENT` where the directory is removed.
    pub fn create(
        &mut self,
        dir: Id,
        name: &[u8],
        contents: Contents,
        mode: u16,
        owner: (u32, u32),
    ) -> Answer<Id> {
        match self.lookup(dir, name) {
            Ok(_) => return Err(Errno::EXIST),
            Err(errno) if errno != Errno::NOENT => return Err(errno),
            Err(_) => {}
        }
        let id = self.next;
        self.next += 1;
        let is_directory = matches!(contents, Contents::Directory(_));
        let links = if is_directory { 2 } else { 1 };
        let mut file = File { contents, mode, uid: owner.0, gid: owner.1, xattrs: BTreeMap::new(), links };
        if self.file(dir).mode & 0o2000 != 0 {
            file.gid = self.file(dir).gid;
            file.mode |= if is_directory { 0o2000 } else { 0 };
        }
        self.files.insert(id, file);
        self.names_mut(dir).insert(name.to_vec(), id);
        if is_directory {
            self.file_mut(dir).links += 1;
        }
        Ok(id)
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, `EEXIST`, `EPERM` for a directory.
    pub fn link(&mut self, id: Id, dir: Id, name: &[u8]) -> Answer<()> {
        match self.lookup(dir, name) {
            Ok(_) => Err(Errno::EXIST),
            Err(errno) if errno != Errno::NOENT => Err(errno),
            Err(_) if self.is_directory(id) => Err(Errno::PERM),
            Err(_) => {
                self.names_mut(dir).insert(name.to_vec(), id);
                self.file_mut(id).links += 1;
                Ok(())
            }
        }
    }

    /// Removes a name of what is no directory. The file stays in the model, for who holds it open.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, `ENOENT`, `EISDIR`.
    pub fn unlink(&mut self, dir: Id, name: &[u8]) -> Answer<()> {
        let id = self.lookup(dir, name)?;
        if self.is_directory(id) {
            return Err(Errno::ISDIR);
        }
        self.names_mut(dir).remove(name);
        self.file_mut(id).links -= 1;
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, `ENOENT`, `ENOTDIR`, `ENOTEMPTY`.
    pub fn rmdir(&mut self, dir: Id, name: &[u8]) -> Answer<()> {
        let id = self.lookup(dir, name)?;
        if !self.is_directory(id) {
            return Err(Errno::NOTDIR);
        }
        if !self.names(id).is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.names_mut(dir).remove(name);
        self.file_mut(dir).links -= 1;
        self.file_mut(id).links = 0;
        Ok(())
    }

    /// Whether `id` is `below` or one of the directories above it.
    fn is_above(&self, id: Id, below: Id) -> bool {
        let inside = |dir: Id| {
            self.is_directory(dir) && self.names(dir).values().any(|child| self.is_above(*child, below))
        };
        id == below || inside(id)
    }

    /// Moves a name, or exchanges two.
    ///
    /// # Errors
    /// In the order of Linux: `ENOENT`, `EEXIST`, `EINVAL` for a directory into itself, `ENOTEMPTY`, `ENOTDIR`, `EISDIR`.
    pub fn rename(&mut self, from: (Id, &[u8]), to: (Id, &[u8]), flags: RenameFlags) -> Answer<()> {
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let old = self.lookup(from.0, from.1)?;
        if to.1.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let new = self.lookup(to.0, to.1).ok();
        if flags.contains(RenameFlags::NOREPLACE) && new.is_some() {
            return Err(Errno::EXIST);
        }
        if exchange && new.is_none() {
            return Err(Errno::NOENT);
        }
        if self.is_directory(old) && self.is_above(old, to.0) {
            return Err(Errno::INVAL);
        }
        if let Some(new) = new
            && self.is_directory(new)
            && self.is_above(new, from.0)
        {
            return Err(if exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        if new == Some(old) {
            return Ok(());
        }
        if let (Some(new), false) = (new, exchange) {
            match (self.is_directory(old), self.is_directory(new)) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !self.names(new).is_empty() => return Err(Errno::NOTEMPTY),
                _ => {}
            }
            if self.is_directory(new) {
                self.rmdir(to.0, to.1)?
            } else {
                self.unlink(to.0, to.1)?
            };
        }
        self.names_mut(from.0).remove(from.1);
        if self.is_directory(old) {
            self.file_mut(from.0).links -= 1;
            self.file_mut(to.0).links += 1;
        }
        if let (Some(new), true) = (new, exchange) {
            self.names_mut(from.0).insert(from.1.to_vec(), new);
            if self.is_directory(new) {
                self.file_mut(to.0).links -= 1;
                self.file_mut(from.0).links += 1;
            }
        }
        self.names_mut(to.0).insert(to.1.to_vec(), old);
        Ok(())
    }

    /// Size and blocks of a regular file.
    fn blocks(&mut self, id: Id) -> (&mut u64, &mut BTreeMap<u64, Vec<u8>>) {
        match &mut self.file_mut(id).contents {
            Contents::File(size, blocks) => (size, blocks),
            _ => panic!("the caller has a regular file"),
        }
    }

    /// Writes bytes; blocks come into being where they are touched.
    pub fn write(&mut self, id: Id, offset: u64, data: &[u8]) {
        let block = self.block;
        let (size, blocks) = self.blocks(id);
        for (at, byte) in (offset..).zip(data) {
            blocks.entry(at / block).or_insert_with(|| vec![0; index(block)])[index(at % block)] = *byte;
        }
        if !data.is_empty() {
            *size = (*size).max(offset + length(data));
        }
    }

    /// Sets the size; what is cut off comes back as zeros.
    pub fn truncate(&mut self, id: Id, new: u64) {
        let block = self.block;
        let (size, blocks) = self.blocks(id);
        blocks.retain(|nr, _| *nr < new.div_ceil(block));
        if new < *size
            && let Some(last) = blocks.get_mut(&(new / block))
        {
            last[index(new % block)..].fill(0);
        }
        *size = new;
    }

    /// Makes whole blocks of a range holes, and the rest of it zeros. A range that reaches past the end of the file
    /// covers the last block.
    pub fn punch(&mut self, id: Id, offset: u64, len: u64) {
        let block = self.block;
        let (size, blocks) = self.blocks(id);
        let end = match offset + len {
            end if end > *size => end.max(size.next_multiple_of(block)),
            end => end,
        };
        blocks.retain(|nr, _| nr * block < offset || (nr + 1) * block > end);
        for (nr, bytes) in blocks {
            let (start, stop) = (offset.max(nr * block), end.min((nr + 1) * block));
            if start < stop {
                bytes[index(start - nr * block)..index(stop - nr * block)].fill(0);
            }
        }
    }

    /// Bytes of a file from an offset on, up to its end.
    pub fn read(&self, id: Id, offset: u64, len: usize) -> Vec<u8> {
        let Contents::File(size, blocks) = &self.file(id).contents else {
            panic!("the caller has a regular file")
        };
        let end = (*size).min(offset.saturating_add(len.try_into().expect("a length fits")));
        let byte = |at: u64| blocks.get(&(at / self.block)).map_or(0, |bytes| bytes[index(at % self.block)]);
        (offset..end.max(offset)).map(byte).collect()
    }

    /// The whole tree as a manifest, without times and without sizes of directories.
    pub fn manifest(&self) -> Manifest {
        let mut names = vec![(b"/".to_vec(), ROOT)];
        for (path, dir) in self.directories() {
            names.extend(self.names(dir).iter().map(|(name, id)| ([&path[..], b"/", name].concat(), *id)));
        }
        names.sort_by_cached_key(|(path, _)| quote(path));
        let mut first: BTreeMap<Id, Vec<u8>> = BTreeMap::new();
        let mut entries = Vec::new();
        for (path, id) in names {
            let node = match first.get(&id) {
                Some(first) => Node::HardLink(first.clone()),
                None => {
                    first.insert(id, path.clone());
                    Node::Inode(self.inode(id))
                }
            };
            entries.push(Entry { path, node });
        }
        Manifest::new(entries).expect("the model is a tree")
    }

    /// The line of one file.
    fn inode(&self, id: Id) -> Inode {
        let file = self.file(id);
        let (kind, size) = match &file.contents {
            Contents::File(size, blocks) => (self.contents(*size, blocks), Some(*size)),
            Contents::Directory(_) => (Kind::Directory, None),
            Contents::Symlink(target) => (Kind::Symlink { target: target.clone() }, Some(length(target))),
            Contents::Special(kind) => (kind.clone(), Some(0)),
        };
        let xattrs =
            file.xattrs.iter().map(|(name, value)| Xattr { name: name.clone(), value: value.clone() });
        Inode {
            kind,
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
            size,
            nlink: Some(file.links),
            atime: None,
            mtime: None,
            ctime: None,
            crtime: None,
            xattrs: xattrs.collect(),
            flags: AttributeFlags::default(),
        }
    }

    /// Holes and sum of a file.
    fn contents(&self, size: u64, blocks: &BTreeMap<u64, Vec<u8>>) -> Kind {
        let mut crc = ContentCrc::new();
        let mut holes = Vec::new();
        let mut at = 0;
        let mut hole = |from: u64, to: u64, crc: &mut ContentCrc| {
            if from < to {
                holes.push(ByteSpan { offset: from, length: to - from });
                crc.update_zeros(to - from);
            }
        };
        for (nr, bytes) in blocks {
            let start = nr * self.block;
            hole(at, start, &mut crc);
            at = size.min(start + self.block);
            crc.update(&bytes[..index(at - start)]);
        }
        hole(at, size, &mut crc);
        Kind::File { holes, crc: Some(crc.finish()) }
    }

    /// Ids of all files that have a name.
    pub fn reachable(&self) -> BTreeSet<Id> {
        let inside = self
            .directories()
            .into_iter()
            .flat_map(|(_, dir)| self.names(dir).values().copied().collect::<Vec<_>>());
        inside.chain([ROOT]).collect()
    }
}

/// A number below the length of a buffer, as an index.
fn index(number: u64) -> usize {
    usize::try_from(number).expect("an index fits")
}

/// A length as a number of bytes of a file.
fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length fits")
}
