//! Renaming within one block of a directory, by one store.

use alloc::vec;
use alloc::vec::Vec;

use super::change::Named;
use super::lookup::Found;
use crate::balloc::Run;
use crate::error::Result;
use crate::inode::Cell;
use crate::order::{Barrier, Unlinked, Written};
use crate::raw::dirent_size;
use crate::sync::Mended;
use crate::{Errno, FileBlock};
use ext2_cache::Move;
use ext2_format::dirent::{rebuild, slots};

impl Cell {
    /// Renames within one block of the directory: a copy of the block with the old name gone and the new one there replaces
    /// it, by one store of its pointer. Where the name needs room that only packing gives, the other entries move, and
    /// cookies with them. `None` where the new name does not fit, or there is no block for the copy.
    pub(crate) fn rename_in_block(&self, found: &Found, new: &[u8], named: Named) -> Result<Option<()>> {
        self.drop_hash_tree()?;
        let len = self.block_bytes();
        let start = found.at - found.at % len;
        let logical = start / len;
        let mut buffer = vec![0; len as usize];
        self.read_dir_block(start, &mut buffer)?;
        let mut kept: Vec<(u32, u8, Vec<u8>)> = Vec::new();
        for slot in slots(&buffer, self.fs.geo.inodes_count, self.has_type()) {
            let slot = slot.map_err(|why| self.corrupt(alloc::format!("block at byte {start}: {why}")))?;
            if slot.inode != 0 && start + slot.offset as u64 != found.at {
                kept.push((slot.inode, slot.file_type, slot.name.to_vec()));
            }
        }
        kept.push((named.nr.get(), self.type_byte(named.kind), new.to_vec()));
        let need: usize = kept.iter().map(|(_, _, name)| dirent_size(name.len())).sum();
        if need > len as usize {
            return Ok(None);
        }
        let (fresh, places) = rebuild(&buffer, (found.at - start) as usize, self.fs.geo.inodes_count, &kept);
        let known = self.fs.losses.count();
        let (block, guard) = match self.take_meta(self.fs.geo.group_start(self.home())) {
            Err(error) if error.refuses(Errno::NOSPC) => return Ok(None),
            taken => taken?,
        };
        self.fs.dev.write_at(self.fs.geo.byte_of(block), &fresh)?;
        let guard = Written::since(known, guard).fence(Barrier::DirectoryCopied, &*self.fs)?.into_inner();
        let Some(previous) = self.map_blocks(FileBlock::new(logical), 1)?.target else {
            return Err(self.corrupt("a block of the directory is gone"));
        };
        // The block's entries may move: begin anew.
        self.dir.write().clear();
        if let Some(places) = places.filter(|_| !Mended::CookiesMove.is_back()) {
            self.moves.push(Move { start, end: start + len, places });
        }
        // From here on something may point to the copy, whatever the device answers.
        guard.keep();
        let gone = self.fs.whole(|| {
            let mut growth = self.map.lock();
            growth.forget();
            self.replace_pointer(logical, block.get())?;
            Written::since(known, Unlinked).fence(Barrier::DirectoryFlipped, &*self.fs)
        })?;
        self.touch_mtime();
        self.fs.free(&gone, Run { start: previous, len: 1 })?;
        Ok(Some(()))
    }
}
