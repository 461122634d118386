//! Finding a name in a directory (Linux: `ext2_find_entry`).

use alloc::vec;

use super::block::slots;
use super::{NAME_MAX, Slot};
use crate::error::{Result, refuse};
use crate::inode::{Cell, FileKind, Inode};
use crate::{Errno, InodeNr};

/// Blocks up to which a directory is searched without an index.
const SMALL: u64 = 4;

/// An entry that was found: where it is, and what it names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The byte offset of the entry in the directory.
    pub(crate) at: u64,
    pub(crate) nr: InodeNr,
    pub(crate) file_type: u8,
}

impl Cell {
    /// The entry of a name, if there is one. The caller holds the `io` lock.
    pub(crate) fn find(&self, name: &[u8]) -> Result<Option<Found>> {
        let len = self.fs.geo.block_size.bytes();
        let blocks = self.size() / len;
        let mut buffer = vec![0; len as usize];
        if blocks <= SMALL {
            for start in (0..blocks).map(|block| block * len) {
                if let Some(found) = self.find_in(start, &mut buffer, |slot| slot.is(name))? {
                    return Ok(Some(found));
                }
            }
            return Ok(None);
        }
        let candidates = {
            let mut index = self.dir.lock();
            self.build_index(&mut index, &mut buffer)?;
            index.candidates(name)
        };
        for at in candidates.into_iter().map(u64::from) {
            let found =
                self.find_in(at - at % len, &mut buffer, |slot| slot.is_at((at % len) as usize, name))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn find_in(
        &self,
        start: u64,
        buffer: &mut [u8],
        is: impl Fn(&Slot<'_>) -> bool,
    ) -> Result<Option<Found>> {
        self.read_dir_block(start, buffer)?;
        for slot in slots(buffer, self.fs.geo.inodes_count, self.has_type()) {
            let slot = slot.map_err(|why| self.corrupt(alloc::format!("block at byte {start}: {why}")))?;
            if is(&slot)
                && let Some(nr) = InodeNr::new(slot.inode)
            {
                let at = start + slot.offset as u64;
                return Ok(Some(Found { at, nr, file_type: slot.file_type }));
            }
        }
        Ok(None)
    }

    /// Builds the index if there is none. Broken blocks are left out, so that what is whole is found.
    pub(crate) fn build_index(&self, index: &mut super::Index, buffer: &mut [u8]) -> Result<()> {
        if index.is_built() {
            return Ok(());
        }
        let blocks = self.size() / buffer.len() as u64;
        let Ok(blocks) = u32::try_from(blocks) else {
            return Err(self.corrupt("directory is larger than a directory can be"));
        };
        index.begin();
        for block in 0..blocks {
            match self.read_dir_block(u64::from(block) * buffer.len() as u64, buffer) {
                Ok(()) => index.add_block(block, buffer, self.fs.geo.inodes_count),
                Err(crate::Error::Corrupt(_)) => {}
                Err(error) => {
                    index.clear();
                    return Err(error);
                }
            }
        }
        self.fs.indexes.built(self.nr, index.len());
        Ok(())
    }
}

impl Inode {
    /// The number of the inode that a name in this directory stands for.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ENAMETOOLONG`; `Corrupt`; the device's errors.
    pub fn lookup_nr(&self, name: &[u8]) -> Result<InodeNr> {
        self.need(FileKind::Directory)?;
        if name.len() > NAME_MAX {
            return refuse(Errno::NAMETOOLONG, "");
        }
        let _io = self.0.io.read();
        match self.0.find(name)? {
            Some(found) => Ok(found.nr),
            None => refuse(Errno::NOENT, ""),
        }
    }

    /// The inode that a name in this directory stands for. Linux: `ext2_lookup`.
    ///
    /// # Errors
    /// As [`lookup_nr`](Self::lookup_nr), and as [`Ext2::inode`](crate::Ext2::inode); an entry for a
    /// deleted inode is `Corrupt`.
    pub fn lookup(&self, name: &[u8]) -> Result<Inode> {
        let nr = self.lookup_nr(name)?;
        self.0.fs.inode(nr).map_err(|error| match error {
            error if error.is(Errno::STALE) => {
                self.0.corrupt(alloc::format!("has an entry for inode {nr}, which is deleted"))
            }
            error => error,
        })
    }
}
