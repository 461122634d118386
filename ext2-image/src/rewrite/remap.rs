//! Finding all that points to a block or an inode that moves, and pointing it to the new place.
//!
//! All inodes are looked at in the order of their tables, and every indirect block once. That each moved block is found as
//! often as it has to be is what shows that the bitmaps can be believed: a block that nobody points to, or one that somebody
//! points to although it is marked free, ends the rewrite. So they are looked at once before anything is written, and changed when
//! the blocks have been copied.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use ext2_core::raw::RawInode;
use ext2_core::rules::decode_rec_len;
use ext2_core::{CompatFeatures, Corrupt, Errno, Error, GroupNr, InodeNr, Object, Result};
use zerocopy::{FromBytes, IntoBytes};

use super::{Draft, Moves, Step};

/// The inode of the list of bad blocks, of the spare descriptors, and of the journal.
const BAD_BLOCKS: u32 = 1;
const RESIZE: u32 = 7;
const JOURNAL: u32 = 8;
/// `i_mode`: the type, and some of them.
const TYPE: u16 = 0o170_000;
const REGULAR: u16 = 0o100_000;
const DIRECTORY: u16 = 0o040_000;
const SYMLINK: u16 = 0o120_000;
/// `s_creator_os` of the Hurd, whose inodes have a block more.
const HURD: u32 = 1;
/// Blocks of an inode table that are read at a time.
const TABLE_BYTES: usize = 256 << 10;

/// Inodes that get another number.
pub(crate) type Numbers = BTreeMap<u32, u32>;

/// One look through all inodes.
pub(super) struct Remap<'r, 'd> {
    draft: &'r mut Draft<'d>,
    moves: &'r Moves,
    numbers: &'r Numbers,
    /// Moved blocks that were found.
    found: u64,
    /// Moved blocks of attributes, which several inodes may share.
    shared: BTreeSet<u32>,
    /// Indirect blocks that were walked, by bits: none is walked twice, so that no image makes the walk long.
    walked: Vec<u8>,
    /// Blocks of the directory that is looked at.
    directory: Vec<u32>,
    levels: [Vec<u8>; 3],
}

fn corrupt<T>(inode: u32, what: alloc::string::String) -> Result<T> {
    let object = InodeNr::new(inode).map_or(Object::Superblock, Object::Inode);
    Err(Corrupt::new(object, what).into())
}

impl Draft<'_> {
    /// Looks at all that inodes point to, before anything is written to blocks that are marked free: none of them is in use.
    pub(crate) fn look(&mut self) -> Result<()> {
        self.remap(&Moves::default(), &Numbers::new())
    }

    /// Points everything to the new places of blocks and the new numbers of inodes. The blocks have been copied.
    pub(crate) fn remap(&mut self, moves: &Moves, numbers: &Numbers) -> Result<()> {
        let walked = alloc::vec![0; (self.old.geo.blocks_count / 8) as usize + 1];
        let mut remap = Remap {
            walked,
            draft: self,
            moves,
            numbers,
            found: 0,
            shared: BTreeSet::new(),
            directory: Vec::new(),
            levels: Default::default(),
        };
        remap.inodes()?;
        let found = remap.found;
        if found != moves.blocks() {
            let what = format!(
                "{} blocks have to move, and {found} of them are in use by files: check and repair the image first",
                moves.blocks()
            );
            return Err(Corrupt::new(Object::Superblock, what).into());
        }
        Ok(())
    }
}

impl Remap<'_, '_> {
    fn inodes(&mut self) -> Result<()> {
        let geo = self.draft.old.geo.clone();
        let (size, per_group) = (usize::from(geo.inode_size), geo.inodes_per_group);
        let per_block = geo.block_size.len() / size;
        let (mut bitmap, mut table) = (Vec::new(), Vec::new());
        let blocks_at_once = (TABLE_BYTES / geo.block_size.len()).max(1);
        for group in 0..geo.groups {
            let desc = self.draft.old.descs[group as usize];
            self.draft.watch.tick(
                Step::Inodes,
                u64::from(group) * u64::from(per_group),
                geo.inodes_count.into(),
            )?;
            self.draft.read_old(desc.bg_inode_bitmap.get(), &mut bitmap)?;
            let used =
                |bit: u32| bitmap.get((bit / 8) as usize).is_some_and(|byte| byte >> (bit % 8) & 1 != 0);
            let at_once = (blocks_at_once * per_block) as u32;
            for first in (0..per_group).step_by(at_once as usize) {
                let last = (first + at_once).min(per_group);
                if !(first..last).any(used) {
                    continue;
                }
                table.resize((last - first) as usize * size, 0);
                let at = self.draft.byte_of(desc.bg_inode_table.get()) + u64::from(first) * size as u64;
                self.draft.dev.read_at(at, &mut table)?;
                for (bit, record) in (first..last).zip(table.chunks_exact_mut(size)) {
                    if used(bit) {
                        self.inode(group * per_group + bit + 1, record)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks at an inode, and stores it where it changes.
    fn inode(&mut self, nr: u32, record: &mut [u8]) -> Result<()> {
        let Ok((mut raw, _)) = RawInode::read_from_prefix(record) else { return Ok(()) };
        let is_spare =
            nr == RESIZE && self.draft.old.sb.features.compat.contains(CompatFeatures::RESIZE_INODE);
        let mut changed = false;
        self.directory.clear();
        if is_spare {
            // What it holds are spare descriptors, which are laid out anew; only the block that leads to them is its own.
            changed |= self.single(nr, &mut raw.i_block[13])?;
        } else {
            changed |= self.contents(nr, &mut raw)?;
        }
        let target = self.numbers.get(&nr).copied();
        if changed || target.is_some() {
            if let Some(place) = record.get_mut(..size_of::<RawInode>()) {
                place.copy_from_slice(raw.as_bytes());
            }
            self.store(target.unwrap_or(nr), record)?;
        }
        if nr == JOURNAL && self.draft.raw.s_jnl_backup_type == 1 {
            // The copy of the journal's map in the superblock.
            for (copy, word) in self.draft.raw.s_jnl_blocks.iter_mut().zip(raw.i_block) {
                *copy = word;
            }
        }
        if raw.i_mode.get() & TYPE == DIRECTORY && !self.numbers.is_empty() {
            self.names(nr)?;
        }
        Ok(())
    }

    /// Stores an inode in its place in the new table.
    fn store(&mut self, nr: u32, record: &[u8]) -> Result<()> {
        let geo = &self.draft.geo;
        let Some((group, bit)) = InodeNr::new(nr).and_then(|nr| geo.group_of_inode(nr)) else {
            return corrupt(nr, "no such inode in the new image".into());
        };
        let at = u64::from(bit) * u64::from(geo.inode_size);
        let table = self.draft.descs[group.get() as usize].bg_inode_table.get();
        // OK to cast: within a group.
        let block = table + (at >> geo.block_size.log2()) as u32;
        let within = (at & (geo.block_size.bytes() - 1)) as usize;
        self.draft.patch(block, within, record)
    }

    /// All blocks of a file.
    fn contents(&mut self, nr: u32, raw: &mut RawInode) -> Result<bool> {
        let mode = raw.i_mode.get() & TYPE;
        let mut changed = false;
        let acl = raw.i_file_acl.get();
        if acl != 0
            && mode != 0
            && let Some(to) = self.target(nr, acl)?
        {
            raw.i_file_acl.set(to);
            changed = true;
            if self.shared.insert(acl) {
                self.found += 1;
            }
        }
        if self.draft.old.raw.s_creator_os.get() == HURD && raw.i_osd1.get() != 0 {
            changed |= self.single(nr, &mut raw.i_osd1)?;
        }
        let own = if acl != 0 { self.draft.geo.block_size.bytes() / 512 } else { 0 };
        let has_blocks = match mode {
            REGULAR | DIRECTORY => true,
            SYMLINK => u64::from(raw.i_blocks.get()) != own,
            _ => nr == BAD_BLOCKS || nr == JOURNAL,
        };
        if !has_blocks {
            return Ok(changed);
        }
        let before = self.found;
        for slot in 0..15 {
            let mut pointer = raw.i_block[slot];
            let new = match slot {
                0..12 => self.single(nr, &mut pointer)?,
                depth => self.tree(nr, &mut pointer, depth - 11, mode == DIRECTORY)?,
            };
            if slot < 12 && mode == DIRECTORY && raw.i_block[slot].get() != 0 {
                self.directory.push(raw.i_block[slot].get());
            }
            raw.i_block[slot] = pointer;
            changed |= new;
        }
        if nr == BAD_BLOCKS && self.found != before {
            let what = "blocks of the list of bad blocks are in the way, which cannot move";
            return Err(Error::Caller(Errno::OPNOTSUPP, what));
        }
        Ok(changed)
    }

    /// Where a block goes, if it does.
    fn target(&self, nr: u32, block: u32) -> Result<Option<u32>> {
        if self.draft.old.geo.data_block(block).is_none() {
            return corrupt(nr, format!("points to block {block}, outside the file system"));
        }
        if !self.draft.space.is_used_before(block)? {
            return corrupt(
                nr,
                format!("has block {block}, which is marked free: check and repair the image first"),
            );
        }
        Ok(self.moves.get(block))
    }

    /// A pointer to a block that leads no further.
    fn single(&mut self, nr: u32, pointer: &mut ext2_core::raw::U32) -> Result<bool> {
        let block = pointer.get();
        if block == 0 {
            return Ok(false);
        }
        let Some(to) = self.target(nr, block)? else { return Ok(false) };
        self.found += 1;
        pointer.set(to);
        Ok(true)
    }

    /// A pointer to an indirect block with `depth` levels, 1 to 3, below the pointer.
    fn tree(
        &mut self,
        nr: u32,
        pointer: &mut ext2_core::raw::U32,
        depth: usize,
        is_directory: bool,
    ) -> Result<bool> {
        let block = pointer.get();
        if block == 0 {
            return Ok(false);
        }
        let target = self.target(nr, block)?;
        if let Some(byte) = self.walked.get_mut((block / 8) as usize) {
            if *byte >> (block % 8) & 1 != 0 {
                return corrupt(
                    nr,
                    format!("indirect block {block} is used twice: check and repair the image first"),
                );
            }
            *byte |= 1 << (block % 8);
        }
        let mut bytes = core::mem::take(&mut self.levels[depth - 1]);
        self.draft.read_old(block, &mut bytes)?;
        let mut changed = false;
        for slot in bytes.chunks_exact_mut(4) {
            let Ok(word) = <[u8; 4]>::try_from(&*slot) else { continue };
            if word == [0; 4] {
                continue;
            }
            let mut word = ext2_core::raw::U32::from_bytes(word);
            if depth == 1 && is_directory {
                self.directory.push(word.get());
            }
            let new = match depth {
                1 => self.single(nr, &mut word)?,
                _ => self.tree(nr, &mut word, depth - 1, is_directory)?,
            };
            if new {
                slot.copy_from_slice(&word.to_bytes());
                changed = true;
            }
        }
        if changed {
            self.draft.put(target.unwrap_or(block), &bytes)?;
        }
        self.levels[depth - 1] = bytes;
        if let Some(to) = target {
            self.found += 1;
            pointer.set(to);
        }
        Ok(target.is_some())
    }

    /// The entries of the directory whose blocks were found: the new numbers of inodes.
    fn names(&mut self, nr: u32) -> Result<()> {
        let blocks = core::mem::take(&mut self.directory);
        let mut bytes = Vec::new();
        for &block in &blocks {
            self.draft.read_old(block, &mut bytes)?;
            let (mut at, mut changed) = (0, false);
            while let Some(entry) = bytes.get_mut(at..at + 8) {
                let inode = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
                let len =
                    decode_rec_len(u16::from_le_bytes([entry[4], entry[5]]), self.draft.geo.block_size.len());
                if let Some(to) = self.numbers.get(&inode) {
                    entry[..4].copy_from_slice(&to.to_le_bytes());
                    changed = true;
                }
                if len < 8 {
                    return corrupt(nr, format!("an entry of block {block} is {len} bytes long"));
                }
                at += len;
            }
            if changed {
                self.draft.put(self.moves.get(block).unwrap_or(block), &bytes)?;
            }
        }
        self.directory = blocks;
        Ok(())
    }
}

impl Draft<'_> {
    /// Gives the used inodes of groups that go numbers in those that stay, and says which are which.
    pub(crate) fn renumber(&mut self) -> Result<Numbers> {
        let mut numbers = Numbers::new();
        let (geo, per_group) = (self.old.geo.clone(), self.old.geo.inodes_per_group);
        let (mut to_group, mut to_bit, mut to_bitmap) = (0, 0, Vec::new());
        let mut bitmap = Vec::new();
        let mut is_loaded = false;
        for group in self.geo.groups..geo.groups {
            self.read_old(self.old.descs[group as usize].bg_inode_bitmap.get(), &mut bitmap)?;
            let table = self.byte_of(self.old.descs[group as usize].bg_inode_table.get());
            for bit in 0..per_group {
                if bitmap.get((bit / 8) as usize).is_none_or(|byte| byte >> (bit % 8) & 1 == 0) {
                    continue;
                }
                let to = loop {
                    if to_group >= self.geo.groups {
                        let what = "the new size has too few inodes";
                        return Err(Error::Caller(Errno::NOSPC, what));
                    }
                    if !is_loaded {
                        let place = self.descs[to_group as usize].bg_inode_bitmap.get();
                        self.read(place, &mut to_bitmap)?;
                        is_loaded = true;
                        to_bit = self.geo.reserved_inodes(GroupNr::new(to_group));
                    }
                    if to_bit >= per_group {
                        let place = self.descs[to_group as usize].bg_inode_bitmap.get();
                        self.put(place, &to_bitmap)?;
                        (to_group, is_loaded) = (to_group + 1, false);
                        continue;
                    }
                    let byte = &mut to_bitmap[(to_bit / 8) as usize];
                    let mask = 1 << (to_bit % 8);
                    to_bit += 1;
                    if *byte & mask == 0 {
                        *byte |= mask;
                        break to_group * per_group + to_bit;
                    }
                };
                let mut mode = [0; 2];
                self.dev.read_at(table + u64::from(bit) * u64::from(geo.inode_size), &mut mode)?;
                let desc = &mut self.descs[to_group as usize];
                desc.bg_free_inodes_count.set(desc.bg_free_inodes_count.get().saturating_sub(1));
                if u16::from_le_bytes(mode) & TYPE == DIRECTORY {
                    desc.bg_used_dirs_count.set(desc.bg_used_dirs_count.get().saturating_add(1));
                }
                numbers.insert(group * per_group + bit + 1, to);
            }
        }
        if is_loaded {
            let place = self.descs[to_group as usize].bg_inode_bitmap.get();
            self.put(place, &to_bitmap)?;
        }
        Ok(numbers)
    }
}
