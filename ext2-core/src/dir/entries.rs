//! Listing a directory.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::error::Result;
use crate::features::IncompatFeatures;
use crate::inode::{Cell, FileKind, Inode};
use crate::sync::Glance;
use crate::{Errno, InodeNr, Name};
use ext2_cache::cookie;
use ext2_format::dirent::slot;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirEntry {
    /// The inode that it names.
    pub nr: InodeNr,
    /// The name.
    pub name: Name,
    /// The kind that the entry notes, where the file system has `filetype`.
    pub kind: Option<FileKind>,
    /// Where listing goes on after this entry: give it to [`Inode::entries`]. It stays good while entries come and go.
    pub next_cookie: u64,
}

/// The entries of a directory, `.` and `..` included. A block is read at a time; after an error in one
/// block the next one follows.
#[derive(Debug)]
pub struct Entries {
    dir: Inode,
    /// Where to begin, until the first block is read.
    cookie: Option<u64>,
    /// Entries before this byte were asked for before.
    from: u64,
    /// Where the block in `buffer` begins, and the next one.
    block: u64,
    next: u64,
    buffer: Vec<u8>,
    /// The next entry in `buffer`; its length where there is none.
    at: usize,
    /// When the block was read, and how often entries had moved by then.
    read: Option<Glance>,
    moves: u64,
    /// Where the blocks lie that were read since the directory was last changed.
    seen: BTreeSet<u64>,
}

impl Cell {
    pub(crate) fn has_type(&self) -> bool {
        self.fs.sb.features.incompat.contains(IncompatFeatures::FILETYPE)
    }

    pub(super) fn block_bytes(&self) -> u64 {
        self.fs.geo.block_size.bytes()
    }

    /// Refuses so many blocks, if they are more than there are: a map whose pointers lead back into it may have any number.
    pub(super) fn check_dir_len(&self, blocks: u64) -> Result<()> {
        let is_too_long = blocks > self.fs.geo.blocks_count.into();
        if is_too_long { Err(self.corrupt("has more blocks than the file system")) } else { Ok(()) }
    }

    /// Where a byte of the directory lies on the device.
    pub(super) fn device_offset(&self, at: u64) -> Result<u64> {
        let len = self.block_bytes();
        match self.map_blocks(self.fs.geo.block_size.block_of(at), 1)?.target {
            Some(block) => Ok(self.fs.geo.byte_of(block) + at % len),
            None => Err(self.corrupt(alloc::format!("no block at byte {at} of the directory"))),
        }
    }

    /// Reads the directory block that begins at byte `offset` into `buffer`, which is a block long. Gives the byte of the device
    /// at which it lies.
    pub(crate) fn read_dir_block(&self, offset: u64, buffer: &mut [u8]) -> Result<u64> {
        let at = self.device_offset(offset)?;
        if offset + buffer.len() as u64 > self.size() {
            return Err(self.corrupt(alloc::format!("size {} is not whole blocks", self.size())));
        }
        self.fs.dev.read_at(at, buffer)?;
        Ok(at)
    }
}

impl Inode {
    /// The entries of a directory from `cookie` on: 0 for all, otherwise [`next_cookie`](DirEntry::next_cookie) of the last
    /// entry seen. Entries that are made or removed meanwhile may or may not be seen; all others are seen exactly once.
    ///
    /// # Errors
    /// `ENOTDIR`.
    pub fn entries(&self, cookie: u64) -> Result<Entries> {
        self.need(FileKind::Directory)?;
        Ok(Entries {
            dir: self.clone(),
            cookie: Some(cookie),
            from: 0,
            block: 0,
            next: 0,
            buffer: Vec::new(),
            at: 0,
            read: None,
            moves: 0,
            seen: BTreeSet::new(),
        })
    }
}

impl Entries {
    /// The inode of an entry that this listing gave, taken while the directory is held: the one that its name stands for
    /// by now, or none where the name is gone. The entry's number alone may be another file's already.
    ///
    /// # Errors
    /// As [`Inode::lookup`].
    pub fn inode(&self, entry: &DirEntry) -> Result<Option<Inode>> {
        let dir = &self.dir;
        if let Some(read) = self.read
            && dir.0.io.unchanged(read)
            && let Ok(inode) = dir.of_entry(&entry.name, entry.nr)
            && dir.0.io.unchanged(read)
        {
            return Ok(Some(inode));
        }
        match dir.lookup(&entry.name) {
            Ok(inode) => Ok(Some(inode)),
            Err(error) if error.refuses(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the block in which `next` lies; none after the last.
    fn fill(&mut self) -> Option<Result<()>> {
        let cell = &*self.dir.0;
        let len = cell.fs.geo.block_size.bytes();
        let _io = cell.io.read();
        if !self.read.is_some_and(|read| cell.io.unchanged(read)) {
            self.seen.clear();
        }
        (self.read, self.moves) = (cell.io.glance(), cell.moves.count());
        if let Some(cookie) = self.cookie.take() {
            self.from = cell.moves.byte_of(cookie);
            self.next = self.from;
        }
        if self.next >= cell.size() {
            return None;
        }
        if let Err(error) = cell.check_dir_len(self.next / len + 1) {
            self.next = u64::MAX;
            return Some(Err(error));
        }
        self.block = self.next - self.next % len;
        self.next = self.block + len;
        self.buffer.resize(cell.fs.geo.block_size.len(), 0);
        self.at = self.buffer.len();
        match cell.read_dir_block(self.block, &mut self.buffer) {
            Ok(at) if !self.seen.insert(at) => {
                self.next = u64::MAX;
                let what = alloc::format!("block at byte {} is one that it has before", self.block);
                return Some(Err(cell.corrupt(what)));
            }
            Ok(_) => self.at = 0,
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(()))
    }

    /// The next entry in use of the block that was read.
    fn next_in_block(&mut self) -> Option<Result<DirEntry>> {
        let cell = &*self.dir.0;
        while self.at < self.buffer.len() {
            let at = self.block + self.at as u64;
            let slot = match slot(&self.buffer, self.at, cell.fs.geo.inodes_count, cell.has_type()) {
                Ok(slot) => slot,
                Err(problem) => {
                    self.at = self.buffer.len();
                    let what = alloc::format!("block at byte {}: {problem}", self.block);
                    return Some(Err(cell.corrupt(what)));
                }
            };
            self.at += slot.rec_len;
            let Some(nr) = InodeNr::new(slot.inode).filter(|_| at >= self.from) else { continue };
            return Some(Ok(DirEntry {
                nr,
                name: slot.name.into(),
                kind: FileKind::from_dirent(slot.file_type),
                next_cookie: cookie(at + slot.rec_len as u64, self.moves),
            }));
        }
        None
    }
}

impl Iterator for Entries {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.next_in_block() {
                return Some(entry);
            }
            if let Err(error) = self.fill()? {
                return Some(Err(error));
            }
        }
    }
}
