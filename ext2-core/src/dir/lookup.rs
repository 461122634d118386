//! Finding a name in a directory (Linux: `ext2_find_entry`).

use alloc::collections::BTreeSet;
use alloc::vec;

use zerocopy::FromBytes;

use super::index::hash;
use super::{Index, NAME_MAX};
use crate::error::{Result, refuse};
use crate::inode::{Cell, FileKind, Inode};
use crate::raw::{DIRENT_HEADER, RawDirentHeader, dirent_size};
use crate::sync::{Glance, Mended};
use crate::{Errno, InodeNr};
use ext2_format::dirent::{Slot, decode_rec_len, slots};

/// Blocks up to which a directory is first searched without an index.
const SMALL: u64 = 4;

/// An entry that was found: where it is, and what it names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The byte offset of the entry in the directory.
    pub(crate) at: u64,
    pub(crate) nr: InodeNr,
    #[cfg_attr(not(feature = "write"), allow(dead_code))] // who removes or replaces the name asks for it
    pub(crate) file_type: u8,
}

impl Cell {
    /// The entry of a name, if there is one. The caller holds the `io` lock.
    pub(crate) fn find(&self, name: &[u8]) -> Result<Option<Found>> {
        {
            let index = self.dir.read();
            if index.is_built() {
                let found = self.find_by(&index, name)?;
                if let (Some(found), Some(now)) = (found, self.io.glance()) {
                    self.places.note(|| hash(name), found.at, self.size(), now);
                }
                return Ok(found);
            }
        }
        let len = self.fs.geo.block_size.bytes();
        // No more than there are, as for `check_dir_len`.
        let blocks = (self.size() / len).min(self.fs.geo.blocks_count.into());
        let mut buffer = vec![0; len as usize];
        let by_index = {
            let mut index = self.dir.write();
            if index.pays(blocks > SMALL) && self.build_index(&mut index, blocks as u32, &mut buffer)? {
                Some(self.find_by(&index, name))
            } else {
                None
            }
        };
        if let Some(found) = by_index {
            self.fs.indexes.keep_within(self.nr);
            return found;
        }
        for start in (0..blocks).map(|block| block * len) {
            if let Some(found) = self.find_in(start, &mut buffer, |slot| slot.is(name))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The entry of a name that was found lately, without a lock, and the time at which it was there: it counts for
    /// nothing more than a number once somebody has changed the directory.
    fn find_known(&self, name: &[u8]) -> Option<(Found, Glance)> {
        let glance = self.io.glance()?;
        let found =
            self.places.find(|| hash(name), glance).find_map(|at| self.entry_at(at, name).ok().flatten())?;
        self.io.unchanged(glance).then_some((found, glance))
    }

    /// Finds a name by the index: what lies there on the device decides.
    fn find_by(&self, index: &Index, name: &[u8]) -> Result<Option<Found>> {
        for at in index.candidates(name).map(u64::from) {
            let found = self.entry_at(at, name)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The entry at byte `at` of the directory, if it is one of this name.
    fn entry_at(&self, at: u64, name: &[u8]) -> Result<Option<Found>> {
        let len = self.fs.geo.block_size.len();
        let within = (at % len as u64) as usize;
        let mut buffer = [0; DIRENT_HEADER + NAME_MAX];
        let Some(bytes) = buffer.get_mut(..DIRENT_HEADER + name.len()) else { return Ok(None) };
        if within + bytes.len() > len {
            return Ok(None);
        }
        let block = self.fs.geo.block_size.block_of(at);
        let Some(block) = self.map(block, 1)?.target else {
            return Err(self.corrupt(alloc::format!("no block at byte {at} of the directory")));
        };
        self.fs.dev.read_at(self.fs.geo.byte_of(block) + within as u64, bytes)?;
        let Ok((header, own)) = RawDirentHeader::read_from_prefix(bytes) else { return Ok(None) };
        let rec_len = decode_rec_len(header.rec_len.get(), len);
        let whole = rec_len >= dirent_size(name.len()) && rec_len <= len - within;
        let named = usize::from(header.name_len) == name.len() && own == name;
        let (true, true, Some(nr)) = (whole, named, InodeNr::new(header.inode.get())) else {
            return Ok(None);
        };
        if nr.get() > self.fs.geo.inodes_count {
            return Err(self.corrupt(alloc::format!("entry at byte {at} is for inode {nr}, past the last")));
        }
        let file_type = if self.has_type() { header.file_type } else { 0 };
        Ok(Some(Found { at, nr, file_type }))
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

    /// Builds the index if there is none, and says whether there is one now. Broken blocks of a large
    /// directory are left out, so that what is whole is found; a small one is not indexed then.
    fn build_index(&self, index: &mut Index, blocks: u32, buffer: &mut [u8]) -> Result<bool> {
        if index.is_built() {
            return Ok(true);
        }
        index.begin();
        let mut seen = BTreeSet::new();
        for block in 0..blocks {
            let start = u64::from(block) * buffer.len() as u64;
            let whole = match self.read_dir_block(start, buffer) {
                // What a map names again has nothing that is not found in its first place.
                Ok(at) if !seen.insert(at) => continue,
                Ok(_) => index.add_block(block, buffer, self.fs.geo.inodes_count),
                Err(crate::Error::Corrupt(_)) => false,
                Err(error) => {
                    index.clear();
                    return Err(error);
                }
            };
            if !whole && u64::from(blocks) <= SMALL {
                index.clear();
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Inode {
    /// The number of the inode that a name in this directory stands for. It is no handle: once this has returned, the
    /// name may be gone and the number another file's. [`lookup`](Self::lookup) gives the inode itself.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ENAMETOOLONG`; `Corrupt`; the device's errors.
    pub fn lookup_nr(&self, name: impl AsRef<[u8]>) -> Result<InodeNr> {
        let name = name.as_ref();
        self.check_searched(name)?;
        if let Some((found, _)) = self.0.find_known(name) {
            return Ok(found.nr);
        }
        let _io = self.0.io.read();
        match self.0.find(name)? {
            Some(found) => Ok(found.nr),
            None => refuse(Errno::NOENT, ""),
        }
    }

    /// The inode that a name in this directory stands for. The directory is held until the inode is, so that it is the
    /// one that had the name at some time during the call. Linux: `ext2_lookup`, under `i_rwsem`.
    ///
    /// # Errors
    /// As [`lookup_nr`](Self::lookup_nr), and as [`Ext2::inode`](crate::Ext2::inode); an entry for a deleted inode or
    /// for a reserved one is `Corrupt`.
    pub fn lookup(&self, name: impl AsRef<[u8]>) -> Result<Self> {
        self.lookup_bytes(name.as_ref())
    }

    fn lookup_bytes(&self, name: &[u8]) -> Result<Self> {
        self.check_searched(name)?;
        if let Some((found, glance)) = self.0.find_known(name)
            && let Ok(inode) = self.of_entry(name, found.nr)
            && (self.0.io.unchanged(glance) || Mended::LookupLetsGo.is_back())
        {
            return Ok(inode);
        }
        let io = self.0.io.read();
        let found = self.0.find(name)?;
        let _io = Some(io).filter(|_| !Mended::LookupLetsGo.is_back());
        match found {
            Some(found) => self.of_entry(name, found.nr),
            None => refuse(Errno::NOENT, ""),
        }
    }

    fn check_searched(&self, name: &[u8]) -> Result<()> {
        self.need(FileKind::Directory)?;
        if name.len() > NAME_MAX {
            return refuse(Errno::NAMETOOLONG, "");
        }
        Ok(())
    }

    /// The inode `nr` of an entry of this directory. The caller holds the directory's `io` lock, or looks afterwards whether
    /// anybody changed it: an entry that is there keeps its inode alive, and its number from being another's.
    pub(crate) fn of_entry(&self, name: &[u8], nr: InodeNr) -> Result<Self> {
        let cell = &*self.0;
        let is_dots = name == b"." || name == b"..";
        // Linux: `ext2_get_inode`, which refuses all that are reserved but the root; that has no name but these.
        if nr.get() < cell.fs.geo.first_ino && !(nr == InodeNr::ROOT && is_dots) {
            return Err(cell.corrupt(alloc::format!("has an entry for inode {nr}, which is reserved")));
        }
        if name == b".." && cell.attrs.lock().links == 0 {
            // It is not in its parent any more, which may be gone.
            return refuse(Errno::NOENT, "the directory is removed");
        }
        cell.fs.inode(nr).map_err(|error| match error {
            error if error.refuses(Errno::STALE) => {
                cell.corrupt(alloc::format!("has an entry for inode {nr}, which is deleted"))
            }
            error => error,
        })
    }
}
