//! Bitmaps and counts from the inodes: what an image needs that was not unmounted cleanly.
//!
//! The bits on disk were never ordered against anything, so they are not believed. What is rebuilt: which inodes have links,
//! which blocks they and the file system itself hold, how many directories there are. Names of inodes without links, which a
//! crash between the death of an inode and the end of its name leaves, are cleared, since the number will be given away
//! again. Counts of links are set to the names there are, since with too few of them an inode would be taken for dead while
//! it has a name. A truncation that was under way is ended. All else is e2fsck's: the image stays marked as not clean.
//!
//! # Invariants
//! 1. The work is bounded by the size of the image, whatever it says: an indirect block is walked once for each level
//!    that it is used at, a block of a directory is read once, and directories that claim more blocks than there are
//!    end it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::bitmap::Bitmap;
use ext2_format::dirent::slots;

use crate::error::{Corrupt, Object, Result};
use crate::fs::{Fs, super_at};
use crate::inode::{Cell, FileKind, Inode};
use crate::journal::Together;
use crate::map::{DIRECT, Pointers, SLOTS};
use crate::raw::{RawInode, RawInodeExtra, RawXattrHeader, XATTR_MAGIC};
use crate::sync::Mended;
use crate::{DeviceBlock, Errno, GroupNr, InodeNr};

/// What is found while all inodes are read.
#[derive(Default)]
struct Found {
    blocks: Vec<Bitmap>,
    inodes: Vec<Bitmap>,
    dirs: Vec<u32>,
    directories: Vec<InodeNr>,
    /// Of each inode with links: their count, and the names that were found.
    links: BTreeMap<InodeNr, (u16, u16)>,
    /// Indirect blocks that were walked, with the levels below them.
    walked: BTreeSet<(u32, u32)>,
    /// Blocks of directories that were read.
    read: BTreeSet<DeviceBlock>,
    /// Blocks that directories may still have.
    left: u32,
}

impl Fs {
    /// Rebuilds bitmaps and counts in memory. Nobody else uses the file system yet.
    pub(crate) fn rebuild(self: &Arc<Self>) -> Result<()> {
        log::warn!("the image was not unmounted cleanly: its bitmaps are rebuilt from its inodes");
        let groups = &self.writer()?.groups;
        let mut found = Found { left: self.geo.blocks_count, ..Found::default() };
        for nr in self.geo.group_numbers() {
            let mut blocks = Bitmap::new(self.geo.group_len(nr));
            for own in groups.get(nr).lock().own_blocks(self, nr) {
                blocks.fill(own, true);
            }
            let mut inodes = Bitmap::new(self.geo.inodes_per_group);
            if nr.get() == 0 || !Mended::ReservedGivenOut.is_back() {
                inodes.fill(0..self.geo.reserved_inodes(nr), true);
            }
            found.blocks.push(blocks);
            found.inodes.push(inodes);
            found.dirs.push(0);
        }
        for nr in self.geo.group_numbers() {
            self.scan_table(nr, &mut found)?;
        }
        for nr in core::mem::take(&mut found.directories) {
            self.clear_dangling(nr, &mut found)?;
        }
        self.count_names(&found)?;
        let (mut blocks, mut inodes, mut dirs) = (0, 0, 0);
        let maps = found.blocks.into_iter().zip(found.inodes).zip(found.dirs);
        for (nr, ((own_blocks, own_inodes), own_dirs)) in self.geo.group_numbers().zip(maps) {
            let mut group = groups.get(nr).lock();
            group.replace(own_blocks, own_inodes, own_dirs);
            blocks += u64::from(group.free_blocks);
            inodes += u64::from(group.free_inodes);
            dirs += u64::from(group.dirs);
            groups.free_blocks_of[nr.get() as usize].store(group.free_blocks, Ordering::Relaxed);
            groups.free_inodes_of[nr.get() as usize].store(group.free_inodes, Ordering::Relaxed);
        }
        groups.free_blocks.store(blocks, Ordering::Relaxed);
        groups.free_inodes.store(inodes, Ordering::Relaxed);
        groups.dirs.store(dirs, Ordering::Relaxed);
        // From here on no bitmap on the device has as free what is in use.
        groups.write(self)?;
        self.end_truncations()
    }

    fn scan_table(self: &Arc<Self>, group: GroupNr, found: &mut Found) -> Result<()> {
        let block_len = self.geo.block_size.len();
        let size = usize::from(self.geo.inode_size);
        let table = u64::from(self.descriptor(group)?.bg_inode_table.get());
        let mut buffer = vec![0; block_len];
        for block in 0..self.geo.inode_table_blocks() {
            self.dev.read_at((table + u64::from(block)) * block_len as u64, &mut buffer)?;
            for (place, bytes) in buffer.chunks_exact(size).enumerate() {
                let bit = block * (block_len / size) as u32 + place as u32;
                if let Some(nr) = self.geo.inode_at(group, bit).filter(|_| bit < self.geo.inodes_per_group) {
                    self.scan_inode(nr, bytes, found)?;
                }
            }
        }
        Ok(())
    }

    fn scan_inode(self: &Arc<Self>, nr: InodeNr, bytes: &[u8], found: &mut Found) -> Result<()> {
        let Some((group, bit)) = self.geo.group_of_inode(nr) else { return Ok(()) };
        let Ok((mut raw, rest)) = RawInode::read_from_prefix(bytes) else { return Ok(()) };
        let reserved = nr != InodeNr::ROOT && nr.get() < self.geo.first_ino;
        // Reserved inodes (bad blocks, room for descriptors, journal) hold blocks without links.
        if raw.i_links_count.get() == 0 && !(reserved && raw.i_blocks.get() != 0) {
            return Ok(());
        }
        // An inode of the old size has no bytes past the fields that all have.
        let (extra, _) = RawInodeExtra::read_from_prefix(rest).unwrap_or_default();
        if reserved && FileKind::from_mode(raw.i_mode.get()).is_none() {
            raw.i_mode = FileKind::Regular.mode_bits().into();
        }
        let cell = Cell::from_parts(self, (nr, self.inode_offset(nr)?), &raw, &extra)?;
        // Owners that a crash left on their way.
        cell.write_late()?;
        if let Some(inodes) = found.inodes.get_mut(group.get() as usize) {
            inodes.set(bit);
        }
        if !reserved {
            found.links.insert(nr, (raw.i_links_count.get(), 0));
        }
        if cell.kind == FileKind::Directory && !reserved {
            found.directories.push(nr);
            if let Some(dirs) = found.dirs.get_mut(group.get() as usize) {
                *dirs += 1;
            }
        }
        let Found { blocks, walked, .. } = found;
        let mut claim = |block: u32| {
            if let Some((group, bit)) = self.geo.group_of_block(block)
                && let Some(blocks) = blocks.get_mut(group.get() as usize)
            {
                blocks.set(bit);
            }
        };
        if raw.i_file_acl.get() != 0 {
            claim(raw.i_file_acl.get());
        }
        if let Some(translator) = self.translator(&raw) {
            claim(translator);
        }
        cell.walk_blocks(walked, &mut claim)
    }

    /// Stores the number of names as the count of links where they differ. What has no name is left to e2fsck.
    fn count_names(&self, found: &Found) -> Result<()> {
        for (&nr, &(links, names)) in &found.links {
            if names != 0 && names != links {
                log::warn!("inode {nr}: {links} links and {names} names, the names count");
                let at = core::mem::offset_of!(RawInode, i_links_count) as u64;
                self.dev.write_u16(self.inode_offset(nr)? + at, names)?;
            }
        }
        Ok(())
    }

    /// Clears the names in a directory whose inodes have no links, and counts the others.
    fn clear_dangling(self: &Arc<Self>, nr: InodeNr, found: &mut Found) -> Result<()> {
        let dir = self.inode(nr)?;
        let cell = &*dir.0;
        let len = self.geo.block_size.bytes();
        let mut buffer = vec![0; len as usize];
        for start in (0..u64::from(u32::MAX) / len).map(|block| block * len) {
            let rest = cell.size().saturating_sub(start) / len;
            let there = cell.map_blocks(self.geo.block_size.block_of(start), rest.max(1))?;
            let Some(device) = there.target else {
                // A crash left the size of a directory that grew, and not its block.
                return match rest {
                    0 => Ok(()),
                    _ if start > 0 && there.count == rest => cell.store_size(start),
                    _ => Err(cell.corrupt(format!("no block at byte {start} of the directory"))),
                };
            };
            let Some(left) = found.left.checked_sub(1) else {
                return Err(cell.corrupt("and those before it have more blocks than the file system"));
            };
            found.left = left;
            // What two directories have is one list of names all the same.
            if !found.read.insert(device) {
                continue;
            }
            self.dev.read_at(self.geo.byte_of(device), &mut buffer)?;
            if rest == 0 {
                // Or the block and not the size, which e2fsck sets right, so that its names are there again. What is no
                // such block is e2fsck's.
                let mut all = slots(&buffer, self.geo.inodes_count, cell.has_type());
                if all.any(|slot| slot.is_err()) {
                    return Ok(());
                }
                cell.store_size(start + len)?;
            }
            for slot in slots(&buffer, self.geo.inodes_count, cell.has_type()) {
                let slot = slot.map_err(|why| cell.corrupt(format!("block at byte {start}: {why}")))?;
                let Some(named) = InodeNr::new(slot.inode) else { continue };
                let alive = self.geo.group_of_inode(named).is_some_and(|(group, bit)| {
                    found.inodes.get(group.get() as usize).is_some_and(|inodes| inodes.is_set(bit))
                });
                if alive {
                    if let Some((_, names)) = found.links.get_mut(&named) {
                        *names = names.saturating_add(1);
                    }
                } else if slot.name != b"." && slot.name != b".." && !Mended::DanglingNamesStay.is_back() {
                    log::warn!(
                        "directory inode {nr}: a name of inode {named}, which has no links, is cleared"
                    );
                    self.dev.write_u32(self.geo.byte_of(device) + slot.offset as u64, 0)?;
                }
            }
        }
        // Their numbers and places are another's only behind the fence of a new name.
        Ok(())
    }

    /// Ends the truncations that the superblock lists, and the deaths; the last first, so that a crash leaves a list.
    fn end_truncations(self: &Arc<Self>) -> Result<()> {
        const DTIME: u64 = core::mem::offset_of!(RawInode, i_dtime) as u64;
        let (mut list, mut seen) = (Vec::new(), BTreeSet::new());
        let mut next = InodeNr::new(self.sb.last_orphan);
        while let Some(nr) = next {
            if !seen.insert(nr) || self.geo.group_of_inode(nr).is_none() {
                let what = format!("list of truncations leads to inode {nr}");
                return Err(Corrupt::new(Object::Superblock, what).into());
            }
            let at = self.inode_offset(nr)?;
            list.push((nr, at));
            // The next one of the list, which others (ext3) make longer than one. Or a time: a crash may bring an end of the
            // list back that a file had left before it died, and e2fsck goes no further either.
            next = InodeNr::new(self.dev.read_u32(at + DTIME)?);
            next = next.filter(|nr| self.geo.group_of_inode(*nr).is_some());
        }
        while let Some((nr, at)) = list.pop() {
            let named_by = list.last().copied();
            self.writer()?.orphan.lock().dead = named_by;
            let mut raw = RawInode::new_zeroed();
            self.dev.read_at(at, raw.as_mut_bytes())?;
            if raw.i_links_count.get() == 0 {
                self.drop_user(&raw, named_by.map_or(super_at!(s_last_orphan), |(_, at)| at + DTIME))?;
            } else {
                let inode: Inode = self.inode(nr)?;
                if inode.kind() == FileKind::Regular {
                    inode.0.shrink_again()?;
                }
            }
            // Durably: one that names another, and is in no list, is for a person to mend.
            self.list_orphan(&self.writer()?.orphan.lock(), None)?;
        }
        Ok(())
    }

    /// The block of attributes of a dead inode has a user less, and the list of truncations, whose last word lies at `end`, ends
    /// before it: together, since whoever finds the inode on the list takes a user away.
    fn drop_user(self: &Arc<Self>, raw: &RawInode, end: u64) -> Result<()> {
        let is_counted =
            matches!(FileKind::from_mode(raw.i_mode.get()), Some(FileKind::Regular | FileKind::Directory));
        let Some(block) = self.geo.data_block(raw.i_file_acl.get()).filter(|_| is_counted) else {
            return Ok(());
        };
        let at = self.geo.byte_of(block) + core::mem::offset_of!(RawXattrHeader, h_refcount) as u64;
        let magic = self.dev.read_u32(self.geo.byte_of(block))?;
        let count = self.dev.read_u32(at)?;
        if count < 2 || magic != XATTR_MAGIC {
            return Ok(());
        }
        match Together::find(self) {
            Ok(Some(together)) => {
                let _journal = together.inode();
                together.store(self, &[(at, count - 1), (end, 0)])
            }
            // Without a journal a crash in between is for a person to settle.
            Err(error) if !error.refuses(Errno::NOSPC) => Err(error),
            Ok(None) | Err(_) => {
                self.dev.write_u32(at, count - 1)?;
                self.store_u32(end, 0)
            }
        }
    }
}

impl Cell {
    /// Every block that the inode holds, indirect ones included, but for what lies under those that were `walked`, at the
    /// same level, before.
    fn walk_blocks(&self, walked: &mut BTreeSet<(u32, u32)>, claim: &mut dyn FnMut(u32)) -> Result<()> {
        if !self.has_blocks() {
            return Ok(());
        }
        let mut left: Vec<(u32, u32)> = Vec::new();
        for slot in 0..SLOTS {
            match self.root(slot) {
                0 => {}
                pointer if slot < DIRECT as usize => claim(pointer),
                pointer => left.push((pointer, (slot - DIRECT as usize) as u32)),
            }
        }
        let mut pointers = vec![0; self.shape().pointers() as usize];
        while let Some((block, below)) = left.pop() {
            let valid = self.pointed(block)?;
            claim(block);
            if !walked.insert((block, below)) {
                continue;
            }
            self.read(valid, 0, &mut pointers)?;
            for &pointer in pointers.iter().filter(|&&pointer| pointer != 0) {
                match below {
                    0 => claim(pointer),
                    _ => left.push((pointer, below - 1)),
                }
            }
        }
        Ok(())
    }
}
