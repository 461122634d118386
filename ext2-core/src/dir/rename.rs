//! Renaming within one block of a directory, by one store.

use alloc::vec;
use alloc::vec::Vec;

use super::block::slots;
use super::change::{Named, encode_rec_len, entry_bytes};
use super::lookup::Found;
use super::moves::Move;
use crate::balloc::Run;
use crate::error::Result;
use crate::inode::Cell;
use crate::order::{Barrier, Unlinked, Written};
use crate::raw::dirent_size;
use crate::{Errno, FileBlock};

impl Cell {
    /// Renames within one block of the directory: a copy of the block with the old name gone and the new
    /// one there replaces it, by one store of its pointer. Where the name needs room that only packing gives, the other
    /// entries move, and cookies with them. `None` where the new name does not fit, or there is
    /// no block for the copy.
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
        let (fresh, places) = rebuild(&buffer, start, found.at, &kept, self);
        let (block, guard) = match self.take_meta(self.fs.geo.group_start(self.home())) {
            Err(error) if error.refuses(Errno::NOSPC) => return Ok(None),
            taken => taken?,
        };
        self.fs.dev.write_at(self.fs.geo.byte_of(block), &fresh)?;
        let guard = Written::new(guard).fence(Barrier::DirectoryCopied, &*self.fs.dev)?.into_inner();
        let Some(previous) = self.map_blocks(FileBlock::new(logical), 1)?.target else {
            return Err(self.corrupt("a block of the directory is gone"));
        };
        // The block's entries may move: begin anew.
        self.dir.write().clear();
        if let Some(places) = places {
            self.moves.push(Move { start, end: start + len, places });
        }
        // From here on something may point to the copy, whatever the device answers.
        guard.keep();
        let gone = self.fs.whole(|| {
            let mut growth = self.map.lock();
            growth.forget();
            self.replace_pointer(logical, block.get())?;
            Written::new(Unlinked).fence(Barrier::DirectoryFlipped, &*self.fs.dev)
        })?;
        self.touch_mtime();
        self.fs.free(&gone, Run { start: previous, len: 1 })?;
        Ok(Some(()))
    }
}

/// The block `old` without the entry at `gone` and with the last of `kept` in a place of its own: in slack if there is
/// enough. Otherwise the entries are packed, in their order, and the answer says where those lay and lie that stay.
fn rebuild(
    old: &[u8],
    start: u64,
    gone: u64,
    kept: &[(u32, u8, Vec<u8>)],
    cell: &Cell,
) -> (Vec<u8>, Option<Vec<(u32, u32)>>) {
    let Some(((inode, kind, name), stay)) = kept.split_last() else { return (old.to_vec(), None) };
    let need = dirent_size(name.len());
    // Offset, length, and bytes in use of what stays; that which is removed is slack of the one before.
    let mut layout: Vec<(usize, usize, usize)> = Vec::new();
    for slot in slots(old, cell.fs.geo.inodes_count, true).map_while(Result::ok) {
        let removed = start + slot.offset as u64 == gone;
        match layout.last_mut() {
            Some(before) if removed => before.1 += slot.rec_len,
            _ => layout.push((
                slot.offset,
                slot.rec_len,
                if removed || slot.inode == 0 { 0 } else { dirent_size(slot.name.len()) },
            )),
        }
    }
    let put = |block: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        if let Some(place) = block.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    if let Some(&(offset, rec_len, used)) = layout.iter().find(|(_, rec_len, used)| rec_len - used >= need) {
        let mut block = old.to_vec();
        for &(offset, rec_len, used) in &layout {
            put(&mut block, offset + 4, &encode_rec_len(rec_len).to_le_bytes());
            if used == 0 {
                put(&mut block, offset, &[0; 4]);
            }
        }
        put(&mut block, offset + used, &entry_bytes(*inode, rec_len - used, name, *kind));
        if used > 0 {
            put(&mut block, offset + 4, &encode_rec_len(used).to_le_bytes());
        }
        return (block, None);
    }
    let mut packed = Vec::with_capacity(old.len());
    // A block has at most 64 KiB.
    let stayed = layout.iter().filter(|(.., used)| *used > 0).map(|(offset, ..)| *offset as u32);
    let mut places = Vec::with_capacity(stay.len());
    for ((inode, kind, name), before) in stay.iter().zip(stayed) {
        places.push((before, packed.len() as u32));
        packed.extend(entry_bytes(*inode, dirent_size(name.len()), name, *kind));
    }
    packed.extend(entry_bytes(*inode, old.len() - packed.len(), name, *kind));
    packed.resize(old.len(), 0);
    (packed, Some(places))
}
