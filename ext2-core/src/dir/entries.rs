//! Listing a directory.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::block::slots;
use crate::InodeNr;
use crate::error::Result;
use crate::features::Incompat;
use crate::inode::{Cell, FileKind, Inode};

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The inode that it names.
    pub nr: InodeNr,
    /// The name, as bytes.
    pub name: Vec<u8>,
    /// The kind that the entry notes, where the file system has `filetype`.
    pub kind: Option<FileKind>,
    /// Where listing goes on after this entry: give it to [`Inode::entries`].
    pub next_cookie: u64,
}

/// The entries of a directory, `.` and `..` included. A block is read at a time; after an error in one
/// block the next one follows.
#[derive(Debug)]
pub struct Entries {
    dir: Inode,
    next: u64,
    ready: VecDeque<Result<DirEntry>>,
    buffer: Vec<u8>,
}

impl Cell {
    pub(crate) fn has_type(&self) -> bool {
        self.fs.sb.features.incompat.contains(Incompat::FILETYPE)
    }

    /// Reads the directory block that begins at byte `offset` into `buffer`, which is a block long.
    pub(crate) fn read_dir_block(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let at = self.device_offset(offset)?;
        if offset + buffer.len() as u64 > self.size() {
            return Err(self.corrupt(alloc::format!("size {} is not whole blocks", self.size())));
        }
        Ok(self.fs.dev.read_at(at, buffer)?)
    }
}

impl Inode {
    /// The entries of a directory from `cookie` on: 0 for all, otherwise
    /// [`next_cookie`](DirEntry::next_cookie) of the last entry seen. Entries that are made or removed
    /// meanwhile may or may not be seen; all others are seen exactly once.
    ///
    /// # Errors
    /// `ENOTDIR`.
    pub fn entries(&self, cookie: u64) -> Result<Entries> {
        self.need(FileKind::Directory)?;
        Ok(Entries { dir: self.clone(), next: cookie, ready: VecDeque::new(), buffer: Vec::new() })
    }
}

impl Entries {
    /// Reads the block in which `next` lies, and keeps its entries from there on.
    fn fill(&mut self) -> bool {
        let cell = &*self.dir.0;
        let len = cell.fs.geo.block_size.bytes();
        let _io = cell.io.read();
        if self.next >= cell.size() {
            return false;
        }
        let start = self.next - self.next % len;
        let from = self.next;
        self.next = start + len;
        if self.buffer.is_empty() {
            self.buffer = vec![0; len as usize];
        }
        if let Err(error) = cell.read_dir_block(start, &mut self.buffer) {
            self.ready.push_back(Err(error));
            return true;
        }
        let entries = slots(&self.buffer, cell.fs.geo.inodes_count, cell.has_type()).filter_map(|slot| {
            let slot = match slot {
                Ok(slot) => slot,
                Err(problem) => {
                    let what = alloc::format!("block at byte {start}: {problem}");
                    return Some(Err(cell.corrupt(what)));
                }
            };
            let (at, nr) = (start + slot.offset as u64, InodeNr::new(slot.inode)?);
            (at >= from).then(|| {
                Ok(DirEntry {
                    nr,
                    name: slot.name.to_vec(),
                    kind: FileKind::from_dirent(slot.file_type),
                    next_cookie: at + slot.rec_len as u64,
                })
            })
        });
        self.ready.extend(entries);
        true
    }
}

impl Iterator for Entries {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            if !self.fill() {
                return None;
            }
        }
        self.ready.pop_front()
    }
}
