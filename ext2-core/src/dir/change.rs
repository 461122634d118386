//! Adding, replacing and removing names (Linux: `ext2_add_link`, `ext2_set_link`, `ext2_delete_entry`).
//!
//! Each becomes visible by one aligned store: the inode number of an entry that was not in use, or the
//! record length of the entry before. What that store reveals was written before, behind a fence.
//! All callers hold the directory's `io` lock exclusive.

use alloc::vec;
use alloc::vec::Vec;

use blockdev::BlockDevice;

use super::Index;
use super::lookup::Found;
use crate::balloc::{Blocks, Run};
use crate::error::{Error, Result, refuse};
use crate::fs::Fs;
use crate::inode::spare::Spare;
use crate::inode::{Cell, FileKind};
use crate::journal::Images;
use crate::order::{Barrier, Durable, Unlinked, Written};
use crate::raw::dirent_size;
use crate::{Errno, FileBlock, InodeFlags, InodeNr};
use ext2_format::dirent::{Slot, encode_rec_len, entry_bytes, slots};

/// An inode that a name may be made for: its contents and fields are durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) nr: InodeNr,
    pub(crate) kind: FileKind,
}

/// A place for a new entry in a directory.
pub(crate) enum Place {
    /// An entry that is not in use.
    Dead { at: u64 },
    /// The slack of an entry in use: it begins at `owner` and needs `used` of its `rec_len` bytes.
    Slack { owner: u64, used: usize, rec_len: usize },
}

impl Place {
    /// The byte of the directory at which the entry lies that is stored to.
    fn slot(&self) -> u64 {
        match *self {
            Self::Dead { at } => at,
            Self::Slack { owner, .. } => owner,
        }
    }
}

/// A place that was found for a name; dropping it gives the block back that was taken for it.
pub(crate) enum Room {
    /// In a block that is there.
    There {
        place: Place,
        /// The byte on the device of the entry that is stored to.
        slot: u64,
        /// The byte of the directory at which the block begins.
        start: u64,
        /// The most bytes that an entry could have in the block once the place is taken.
        room: usize,
    },
    /// In a new block, at byte `end` of the directory.
    New { end: u64, run: Run, blocks: Written<Blocks>, spare: Spare },
}

/// A store that was found to take a name away.
pub(crate) struct Removal {
    edit: Edit,
    /// The most bytes that an entry could have in the block then.
    room: usize,
    /// The byte of the directory at which the entry lies.
    at: u64,
}

/// One aligned store into an entry: its inode number or its record length.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Inode { at: u64, nr: u32 },
    RecLen { at: u64, stored: u16 },
}

impl Edit {
    fn inode(entry: u64, nr: u32) -> Self {
        Self::Inode { at: entry, nr }
    }

    fn rec_len(entry: u64, len: usize) -> Self {
        Self::RecLen { at: entry + 4, stored: encode_rec_len(len) }
    }

    fn store(self, dev: &dyn BlockDevice) -> Result<()> {
        match self {
            Self::Inode { at, nr } => dev.write_u32(at, nr)?,
            Self::RecLen { at, stored } => dev.write_u16(at, stored)?,
        }
        Ok(())
    }

    fn note(self, fs: &Fs, images: &mut Images) -> Result<()> {
        match self {
            Self::Inode { at, nr } => images.put(fs, at, &nr.to_le_bytes()),
            Self::RecLen { at, stored } => images.put(fs, at, &stored.to_le_bytes()),
        }
    }
}

/// A new entry: what is built first, what makes it visible, and where in the directory it lies.
struct Addition {
    built: (u64, Vec<u8>),
    publish: Edit,
    at: u64,
}

/// A place in a block, and what will be left there.
struct Fit {
    place: Place,
    /// The byte of the directory at which the block begins.
    start: u64,
    /// The most bytes that an entry could have in the block once the place is taken.
    room: usize,
}

impl Cell {
    pub(crate) fn type_byte(&self, kind: FileKind) -> u8 {
        if self.has_type() { kind.dirent_type() } else { 0 }
    }

    /// Before the first change of a directory with a hash tree: it is a plain one from now on.
    pub(super) fn drop_hash_tree(&self) -> Result<()> {
        let mut attrs = self.attrs.lock();
        if attrs.flags.contains(InodeFlags::INDEX) {
            let (known, flags) = (self.fs.losses.count(), attrs.flags.difference(InodeFlags::INDEX));
            let before = attrs.flags;
            let dropped = self.store_flags(&mut attrs, flags);
            dropped.and_then(|()| self.fs.fence_since(Barrier::HashTreeDropped, known)).inspect_err(
                |_| {
                    // It may be one yet: the next change drops it again.
                    attrs.flags = before;
                },
            )?;
        }
        Ok(())
    }

    /// Finds a place for a name that is not there yet. All that has to be read for it is read here, and a block is
    /// taken where the directory must grow, so that what fails has changed nothing.
    pub(crate) fn find_room(&self, name: &[u8]) -> Result<Room> {
        self.drop_hash_tree()?;
        let mut buffer = vec![0; self.fs.geo.block_size.len()];
        let fit = self.find_place(&self.dir.read(), dirent_size(name.len()), &mut buffer)?;
        if let Some(Fit { place, start, room }) = fit {
            let slot = self.device_offset(place.slot())?;
            return Ok(Room::There { place, slot, start, room });
        }
        let (len, end) = (self.block_bytes(), self.size());
        if end.saturating_add(len) > u64::from(u32::MAX) / 2 {
            return refuse(Errno::NOSPC, "the directory is as large as one can be");
        }
        if !self.map_blocks(FileBlock::new(end / len), 1)?.is_hole() {
            // A crash came after the pointer and before the size.
            self.free_past(end / len)?;
        }
        // Their bits in the bitmap are stored as they are taken.
        let known = self.fs.losses.count();
        let (start, blocks) = self.take_meta(self.fs.geo.group_start(self.home()))?;
        let (run, blocks, spare) = self.take_spare(end / len, Run { start, len: 1 }, blocks)?;
        let blocks = Written::since(known, blocks);
        Ok(Room::New { end, run, blocks, spare })
    }

    /// [`find_room`](Self::find_room) in a block that is there: where the directory must grow, it grows by an empty block
    /// first, which is a whole change of its own. A transaction can name only blocks that are there.
    pub(crate) fn find_room_there(&self, name: &[u8]) -> Result<Room> {
        let (end, run, blocks, mut spare) = match self.find_room(name)? {
            Room::New { end, run, blocks, spare } => (end, run, blocks, spare),
            there @ Room::There { .. } => return Ok(there),
        };
        let mut block = entry_bytes(0, self.fs.geo.block_size.len(), b"", 0);
        block.resize(self.fs.geo.block_size.len(), 0);
        let grown = {
            let mut index = self.dir.write();
            // A block past the size is e2fsck's to free, as a file's is.
            self.fs
                .may_lose(|| self.put_new_block(&mut index, &block, end, (run, blocks, &mut spare)))
                .inspect_err(|_| index.clear())
        };
        if grown.is_err() && self.size() > end {
            // Its size or pointer may be lost: nothing is to be put there, and the next who looks for room frees it.
            self.fs.whole(|| self.store_size(end))?;
        }
        grown.and_then(|()| self.find_room(name))
    }

    /// Adds a name for an inode in the place that was found for it. They share a fence: both are whole before the store
    /// that shows the name, which is durable when this returns. Nobody has changed the directory since.
    pub(crate) fn put_name(&self, name: &[u8], room: Room, inode: Written<Named>) -> Result<()> {
        self.put_entry(name, room, inode)?;
        self.touch_mtime();
        Ok(())
    }

    /// [`put_name`](Self::put_name), and the times of the directory stay.
    pub(crate) fn put_entry(&self, name: &[u8], room: Room, inode: Written<Named>) -> Result<()> {
        let mut index = self.dir.write();
        let done = match room {
            Room::There { place, slot, start, room } => {
                let edit = self.edit_to_add(name, *inode.get(), &place, slot);
                self.put_in_block(&edit, inode).map(|()| {
                    index.insert(name, edit.at as u32);
                    index.set_room((start / self.block_bytes()) as u32, room);
                })
            }
            Room::New { end, run, blocks, mut spare } => {
                self.put_in_new_block(&mut index, name, inode, end, (run, blocks, &mut spare))
            }
        };
        done.inspect_err(|error| {
            if matches!(error, Error::Device(_)) {
                // The name may be there or not: what is on the device decides.
                index.clear();
            }
        })?;
        drop(index);
        self.fs.indexes.keep_within(self.nr);
        Ok(())
    }

    fn put_in_block(&self, edit: &Addition, inode: Written<Named>) -> Result<()> {
        let known = inode.known();
        self.fs.dev.write_at(edit.built.0, &edit.built.1)?;
        let built = inode.and(edit.publish).fence(Barrier::EntryBuilt, &*self.fs)?;
        built.into_inner().1.store(&*self.fs.dev)?;
        self.fs.fence_since(Barrier::NamePublished, known)
    }

    /// What a new entry in a place is made of; `slot` is where that begins on the device.
    fn edit_to_add(&self, name: &[u8], named: Named, place: &Place, slot: u64) -> Addition {
        let kind = self.type_byte(named.kind);
        match *place {
            Place::Dead { at } => {
                let bytes = entry_bytes(0, 0, name, kind);
                // All but the inode number and the record length, which stays.
                let built = (slot + 6, bytes.get(6..).unwrap_or_default().to_vec());
                Addition { built, publish: Edit::inode(slot, named.nr.get()), at }
            }
            Place::Slack { owner, used, rec_len } => {
                let built = (slot + used as u64, entry_bytes(named.nr.get(), rec_len - used, name, kind));
                Addition { built, publish: Edit::rec_len(slot, used), at: owner + used as u64 }
            }
        }
    }

    /// Notes in `images` what adding a name would change. `false` where the directory would have to grow.
    pub(crate) fn plan_to_add(&self, images: &mut Images, name: &[u8], named: Named) -> Result<bool> {
        self.drop_hash_tree()?;
        let mut buffer = vec![0; self.fs.geo.block_size.len()];
        let Some(fit) = self.find_place(&self.dir.read(), dirent_size(name.len()), &mut buffer)? else {
            return Ok(false);
        };
        let edit = self.edit_to_add(name, named, &fit.place, self.device_offset(fit.place.slot())?);
        images.put(&self.fs, edit.built.0, &edit.built.1)?;
        edit.publish.note(&self.fs, images)?;
        Ok(true)
    }

    /// Notes in `images` what removing a name would change.
    pub(crate) fn plan_to_remove(&self, images: &mut Images, found: &Found) -> Result<()> {
        self.drop_hash_tree()?;
        self.edit_to_remove(found, Some(images))?.0.note(&self.fs, images)
    }

    /// Notes in `images` what pointing a name to another inode would change.
    pub(crate) fn plan_to_replace(&self, images: &mut Images, found: &Found, named: Named) -> Result<()> {
        self.drop_hash_tree()?;
        let at = self.device_offset(found.at)?;
        Edit::inode(at, named.nr.get()).note(&self.fs, images)?;
        images.put(&self.fs, at + 7, &[self.type_byte(named.kind)])
    }

    /// The number of blocks, of a directory that is to be changed.
    ///
    /// # Errors
    /// `Corrupt` where the size is not whole blocks (what lies in the last one would be lost), or of more than there are.
    pub(crate) fn dir_blocks(&self) -> Result<u64> {
        let (size, len) = (self.size(), self.block_bytes());
        if !size.is_multiple_of(len) {
            return Err(self.corrupt(alloc::format!("size {size} is not whole blocks")));
        }
        self.check_dir_len(size / len).map(|()| size / len)
    }

    /// A place for an entry of `need` bytes.
    fn find_place(&self, index: &Index, need: usize, buffer: &mut [u8]) -> Result<Option<Fit>> {
        // Also where the index says where there is room.
        let (len, blocks) = (self.block_bytes(), self.dir_blocks()?);
        if index.is_built() {
            return match index.block_with_room(need as u32) {
                Some(block) => self.place_in(u64::from(block) * len, need, buffer),
                None => Ok(None),
            };
        }
        for start in (0..blocks).map(|block| block * len) {
            if let Some(found) = self.place_in(start, need, buffer)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn place_in(&self, start: u64, need: usize, buffer: &mut [u8]) -> Result<Option<Fit>> {
        self.read_dir_block(start, buffer)?;
        let mut found = None;
        let mut room = 0;
        for slot in slots(buffer, self.fs.geo.inodes_count, self.has_type()) {
            // Nothing is added to a block that is broken anywhere.
            let slot = slot.map_err(|why| self.corrupt(alloc::format!("block at byte {start}: {why}")))?;
            let mut left = slot.slack();
            if found.is_none() && left >= need {
                found = Some(place_of(&slot, start));
                left -= need;
            }
            room = room.max(left);
        }
        Ok(found.map(|place| Fit { place, start, room }))
    }

    /// Adds a name in a new block at the directory's end, at byte `end`.
    fn put_in_new_block(
        &self,
        index: &mut Index,
        name: &[u8],
        inode: Written<Named>,
        end: u64,
        (run, blocks, spare): (Run, Written<Blocks>, &mut Spare),
    ) -> Result<()> {
        let (len, named) = (self.block_bytes(), *inode.get());
        let mut block = vec![0; len as usize];
        let bytes = entry_bytes(named.nr.get(), block.len(), name, self.type_byte(named.kind));
        if let Some(head) = block.get_mut(..bytes.len()) {
            head.copy_from_slice(&bytes);
        }
        // One fence is for the inode and for the block.
        let filled = inode.with(blocks).map(|(_, blocks)| blocks);
        self.put_new_block(index, &block, end, (run, filled, spare))
    }

    /// Adds a block at the directory's end, at byte `end`.
    fn put_new_block(
        &self,
        index: &mut Index,
        block: &[u8],
        end: u64,
        (run, filled, spare): (Run, Written<Blocks>, &mut Spare),
    ) -> Result<()> {
        let (len, known) = (self.block_bytes(), filled.known());
        self.fs.dev.write_at(self.fs.geo.byte_of(run.start), block)?;
        // Contents, fence, pointer.
        self.publish(&mut self.map.lock(), end / len, run, filled, spare)?;
        // With the size alone a crash leaves a directory that e2fsck makes as long as its blocks.
        self.store_size(end + len)?;
        if index.is_built() {
            index.add_block((end / len) as u32, block, self.fs.geo.inodes_count);
        }
        self.fs.fence_since(Barrier::DirectoryGrown, known)
    }

    /// Finds the store that takes a name away. All that has to be read for it is read here.
    pub(crate) fn find_removal(&self, found: &Found) -> Result<Removal> {
        self.drop_hash_tree()?;
        let (edit, room) = self.edit_to_remove(found, None)?;
        Ok(Removal { edit, room, at: found.at })
    }

    /// Takes a name away; what it named may be used anew once the answer is durable. Nobody has changed the
    /// directory since the store was found.
    pub(crate) fn remove_name(&self, name: &[u8], removal: &Removal) -> Result<Durable<Unlinked>> {
        let gone = self.remove_entry(name, removal)?;
        self.touch_mtime();
        Ok(gone)
    }

    /// [`remove_name`](Self::remove_name), and the times of the directory stay.
    pub(crate) fn remove_entry(&self, name: &[u8], removal: &Removal) -> Result<Durable<Unlinked>> {
        let mut index = self.dir.write();
        let known = self.fs.losses.count();
        let stored = removal.edit.store(&*self.fs.dev);
        let gone =
            stored.and_then(|()| Written::since(known, Unlinked).fence(Barrier::NameRemoved, &*self.fs));
        // After an error the name may be there or not: what is on the device decides.
        let gone = gone.inspect_err(|_| index.clear())?;
        index.remove(name, removal.at as u32);
        index.set_room((removal.at / self.block_bytes()) as u32, removal.room);
        Ok(gone)
    }

    /// The one store that takes an entry away: the entry before it grows over it, or, for the first of a
    /// block, its inode number goes. And the most bytes that an entry could have in the block then. The block is as it will
    /// be in `images`, where it is there.
    fn edit_to_remove(&self, found: &Found, images: Option<&Images>) -> Result<(Edit, usize)> {
        let len = self.block_bytes();
        let start = found.at - found.at % len;
        let mut buffer = vec![0; len as usize];
        let at = self.read_dir_block(start, &mut buffer)?;
        if let Some(images) = images {
            images.look(at, &mut buffer);
        }
        let mut before: Option<(usize, usize)> = None;
        let mut own = None;
        // The slack of the entry before, and the most of all others.
        let (mut slack, mut room) = (0, 0);
        let mut whole = true;
        for slot in slots(&buffer, self.fs.geo.inodes_count, self.has_type()) {
            match slot {
                Ok(slot) if start + slot.offset as u64 == found.at => own = Some(slot.rec_len),
                Ok(slot) if own.is_some() => room = room.max(slot.slack()),
                Ok(slot) => {
                    room = room.max(slack);
                    slack = slot.slack();
                    before = Some((slot.offset, slot.rec_len));
                }
                Err(why) if own.is_none() => {
                    return Err(self.corrupt(alloc::format!("block at byte {start}: {why}")));
                }
                // Nothing is added to a broken block.
                Err(_) => whole = false,
            }
        }
        let Some(own) = own else {
            return Err(self.corrupt("an entry moved while it was removed"));
        };
        let edit = match before {
            Some((offset, rec_len)) => {
                Edit::rec_len(self.device_offset(start + offset as u64)?, rec_len + own)
            }
            None => Edit::inode(self.device_offset(found.at)?, 0),
        };
        Ok((edit, if whole { room.max(slack + own) } else { 0 }))
    }

    /// Points a name to another inode, by one store. Where the kinds differ the type byte is unknown for
    /// the moment, since a wrong one stops e2fsck.
    pub(crate) fn replace_name(&self, found: &Found, inode: Written<Named>) -> Result<Durable<Unlinked>> {
        let gone = self.replace_entry(found, inode)?;
        self.touch_mtime();
        Ok(gone)
    }

    /// Points `..` to another directory. What is in the directory does not change, and so its times do not.
    pub(crate) fn replace_parent(&self, parent: Named) -> Result<Durable<Unlinked>> {
        match self.find(b"..")? {
            Some(found) => self.replace_entry(&found, Written::since(self.fs.losses.count(), parent)),
            None => Err(self.corrupt("has no entry for its parent")),
        }
    }

    fn replace_entry(&self, found: &Found, inode: Written<Named>) -> Result<Durable<Unlinked>> {
        self.drop_hash_tree()?;
        let (at, known) = (self.device_offset(found.at)?, inode.known());
        let kind = self.type_byte(inode.get().kind);
        let differs = kind != found.file_type;
        if differs {
            self.fs.dev.write_at(at + 7, &[0])?;
        }
        let named = inode.fence(Barrier::NameReplacing, &*self.fs)?.into_inner();
        self.fs.dev.write_u32(at, named.nr.get())?;
        let gone = Written::since(known, Unlinked).fence(Barrier::NameReplaced, &*self.fs)?;
        if differs {
            self.fs.dev.write_at(at + 7, &[kind])?;
        }
        Ok(gone)
    }
}

fn place_of(slot: &Slot<'_>, start: u64) -> Place {
    let at = start + slot.offset as u64;
    match slot.inode {
        0 => Place::Dead { at },
        _ => Place::Slack { owner: at, used: dirent_size(slot.name.len()), rec_len: slot.rec_len },
    }
}
