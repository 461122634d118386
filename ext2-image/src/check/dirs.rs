//! Pass 2: the entries of every directory.

use alloc::collections::BTreeSet;
use core::mem::take;

use zerocopy::FromBytes;

use super::Pass;
use super::finding::{Kind, Place};
use super::inodes::ROOT;
use super::run::{BAD, DirBlock, Mode, Run, Step, TYPE, USED};
use ext2_core::IncompatFeatures;
use ext2_core::raw::RawDirentHeader;

/// An entry, as far as its length could be believed.
struct Entry<'b> {
    place: Place,
    /// Of the entry on the device, in bytes.
    at: u64,
    header: RawDirentHeader,
    name: &'b [u8],
    /// What follows the name.
    after: u8,
    /// The number of the entry in its directory: 0, 1, and 2 for all others.
    ordinal: u8,
}

impl Run<'_> {
    /// Checks all directories.
    pub(crate) fn check_directories(&mut self) -> Step {
        let blocks = take(&mut self.s.dir_blocks);
        let mut buffer = take(&mut self.s.block);
        let mut names = take(&mut self.s.names);
        let total = blocks.len() as u64;
        let mut done = 0;
        for dir in blocks.chunk_by(|a, b| a.inode == b.inode) {
            names.clear();
            let inode = dir.first().map_or(0, |block| block.inode);
            // One with holes is reported, and gets no tree.
            let is_whole = dir.last().is_some_and(|last| last.nr as usize + 1 == dir.len());
            let indexed = is_whole && self.dir_mut(inode).is_some_and(|dir| dir.indexed);
            done += dir.len() as u64;
            self.tick(Pass::Directories, done, total);
            if self.recall_names(dir, indexed) {
                continue;
            }
            let begun = self.begin_names();
            let mut tree = indexed.then(|| self.begin_tree(inode, dir.len() as u32));
            for (index, block) in dir.iter().enumerate() {
                if index == 0 && block.nr != 0 {
                    // The hole in the first block was reported; there is no '.'.
                    self.note_no_dot(block.inode)?;
                }
                self.read_block(block.block, &mut buffer)?;
                if block.nr == 0 && self.mode == Mode::Repair {
                    self.mend_first_entries(block, &mut buffer)?;
                }
                self.check_dir_block(block, &mut buffer, &mut names)?;
                if let Some(tree) = &mut tree {
                    self.take_into_tree(tree, block.nr, &buffer)?;
                }
            }
            if let Some(tree) = tree {
                self.finish_tree(tree)?;
            }
            self.check_duplicates(dir, &mut names, &mut buffer)?;
            self.end_names(dir, indexed, begun);
        }
        self.s.block = buffer;
        self.s.names = names;
        self.s.dir_blocks = blocks;
        self.begin_anew()
    }

    fn note_no_dot(&mut self, inode: u32) -> Step {
        self.fault(Place::Entry { directory: inode, block: 0, offset: 0 }, Kind::DotMissing)?;
        Ok(())
    }

    fn check_dir_block(
        &mut self,
        block: &DirBlock,
        bytes: &mut [u8],
        names: &mut alloc::vec::Vec<(u64, u64)>,
    ) -> Step {
        let start = u64::from(block.block) << self.geo.block_size.log2();
        let mut offset = 0;
        let mut before = None;
        let mut ordinal = if block.nr == 0 { 0 } else { 2 };
        while offset < bytes.len() {
            // OK to cast: a block has at most 64 KiB.
            let place =
                Place::Entry { directory: block.inode, block: block.nr.into(), offset: offset as u32 };
            let rest = bytes.get(offset..).unwrap_or_default();
            let Ok((header, after)) = RawDirentHeader::read_from_prefix(rest) else {
                if self.fault(place, Kind::EntryBroken)? {
                    self.salvage(block, bytes, offset, before)?;
                }
                return Ok(());
            };
            let len = ext2_core::rules::decode_rec_len(header.rec_len.get(), bytes.len());
            let name_len = usize::from(header.name_len);
            if len > rest.len() || len < 12 || !len.is_multiple_of(4) || name_len + 8 > len {
                if !self.report(place, Kind::EntryBroken, Some(len as u64), None)? {
                    return Ok(());
                }
                offset = self.salvage(block, bytes, offset, before)?;
                continue;
            }
            let name = after.get(..name_len).unwrap_or_default();
            let next = after.get(name_len).copied().unwrap_or(0);
            let at = start + offset as u64;
            let entry = Entry { place, at, header, name, after: next, ordinal };
            if self.check_entry(block.inode, &entry, len)? {
                // OK to cast: place within a directory below 4 GiB.
                let key = u64::from(block.nr) << 16 | offset as u64;
                names.push((fingerprint(name), key));
            }
            before = Some(offset);
            offset += len;
            ordinal = ordinal.saturating_add(1).min(2);
        }
        Ok(())
    }

    /// Checks an entry; whether its name counts.
    fn check_entry(&mut self, dir: u32, entry: &Entry<'_>, len: usize) -> Step<bool> {
        let mut inode = entry.header.inode.get();
        match entry.ordinal {
            0 if self.check_dot(dir, entry, len)? => inode = dir,
            0 => {}
            1 => self.check_dotdot(dir, entry)?,
            _ if inode == dir && self.entry_fault(entry, Kind::EntrySelf)? => {
                return self.clear_entry(dir, entry);
            }
            _ => {}
        }
        if inode == 0 {
            return Ok(false);
        }
        if inode != ROOT && inode < self.geo.first_ino || inode > self.geo.inodes_count {
            if self.report_entry(entry.place, Kind::EntryInode, Some(inode.into()), None, entry.name)? {
                return self.clear_entry(dir, entry);
            }
            return Ok(false);
        }
        if entry.ordinal > 1 {
            let kind = match entry.name {
                b"." | b".." => Some(Kind::EntryDot),
                _ if inode == ROOT => Some(Kind::EntryRoot),
                b"" => Some(Kind::EntryEmptyName),
                _ => None,
            };
            if let Some(kind) = kind
                && self.entry_fault(entry, kind)?
            {
                return self.clear_entry(dir, entry);
            }
        }
        if self.is_unwritten(inode) {
            let found = Some(inode.into());
            if self.report_entry(entry.place, Kind::EntryUnwritten, found, None, entry.name)? {
                // The table is read in full in the next round.
                self.believe_all_written((inode - 1) / self.geo.inodes_per_group)?;
                (self.later.again, self.later.unread) = (true, true);
            }
        }
        if self.later.unread && self.state(inode) & USED == 0 {
            // What it names is not known before the passes begin anew.
            return Ok(false);
        }
        if self.state(inode) & USED == 0 {
            let found = Some(inode.into());
            if self.report_entry(entry.place, Kind::EntryUnused, found, None, entry.name)? {
                return self.clear_entry(dir, entry);
            }
        }
        if entry.name.iter().any(|&byte| byte == b'/' || byte == 0)
            && self.entry_fault(entry, Kind::EntryName)?
        {
            for (at, _) in (0..).zip(entry.name).filter(|(_, byte)| matches!(byte, b'/' | 0)) {
                self.dev.write_at(entry.at + 8 + at, b".")?;
            }
            // The name that it has now may be one that is there.
            self.later.again = true;
        }
        self.check_type(entry, inode)?;
        if entry.ordinal > 1 && self.is_directory(inode) {
            let parent = match self.dir_mut(inode) {
                Some(child) if child.parent == 0 => {
                    child.parent = dir;
                    child.entry_at = entry.at;
                    0
                }
                Some(child) => child.parent,
                None => 0,
            };
            if parent != 0 {
                let (found, expected) = (Some(inode.into()), None);
                if self.report_entry(entry.place, Kind::EntryDirectory, found, expected, entry.name)? {
                    return self.clear_entry(dir, entry);
                }
            }
        }
        if let Some(count) = self.s.counted.get_mut(inode as usize - 1) {
            *count = count.saturating_add(1);
        }
        self.note_name(inode, entry.at, entry.ordinal);
        Ok(true)
    }

    /// Whether an inode lies where its group says that the table was never written.
    fn is_unwritten(&self, inode: u32) -> bool {
        let index = inode - 1;
        index % self.geo.inodes_per_group >= self.written(index / self.geo.inodes_per_group).1
    }

    fn entry_fault(&mut self, entry: &Entry<'_>, kind: Kind) -> Step<bool> {
        self.report_entry(entry.place, kind, None, None, entry.name)
    }

    /// Takes the inode of an entry away: the name is none any more. That of `..` becomes the root, until it is known
    /// better.
    fn clear_entry(&mut self, dir: u32, entry: &Entry<'_>) -> Step<bool> {
        if self.mode == Mode::Repair && entry.ordinal == 1 {
            self.dev.write_u32(entry.at, ROOT)?;
            self.recount(ROOT, 1);
            if let Some(dir) = self.dir_mut(dir) {
                dir.dotdot = ROOT;
            }
            return Ok(true);
        }
        self.dev.write_u32(entry.at, 0)?;
        Ok(false)
    }

    /// Checks the first entry; whether its inode was set right.
    fn check_dot(&mut self, dir: u32, entry: &Entry<'_>, len: usize) -> Step<bool> {
        let inode = entry.header.inode.get();
        // In a repair the names of the first two were set right before, where that was wanted.
        if inode == 0 || entry.name != b"." {
            self.entry_fault(entry, Kind::DotMissing)?;
        } else if entry.after != 0 && self.entry_fault(entry, Kind::DotEnd)? {
            self.dev.write_at(entry.at + 9, &[0])?;
        }
        if len > 24 {
            self.report(entry.place, Kind::DotLong, Some(len as u64), Some(12))?;
        }
        if inode != dir && self.report(entry.place, Kind::DotInode, Some(inode.into()), Some(dir.into()))? {
            self.dev.write_u32(entry.at, dir)?;
            return Ok(true);
        }
        Ok(false)
    }

    fn check_dotdot(&mut self, dir: u32, entry: &Entry<'_>) -> Step {
        let inode = entry.header.inode.get();
        if inode == 0 || entry.name != b".." {
            self.entry_fault(entry, Kind::DotDotMissing)?;
            return Ok(());
        }
        if entry.after != 0 {
            if !self.entry_fault(entry, Kind::DotEnd)? {
                return Ok(());
            }
            self.dev.write_at(entry.at + 10, &[0])?;
        }
        if let Some(dir) = self.dir_mut(dir) {
            dir.dotdot = inode;
            dir.dotdot_at = entry.at;
        }
        Ok(())
    }

    /// The type byte of an entry for an inode.
    fn check_type(&mut self, entry: &Entry<'_>, inode: u32) -> Step {
        let found = entry.header.file_type;
        if !self.sb.features.incompat.contains(IncompatFeatures::FILETYPE) {
            if found != 0 && self.entry_fault(entry, Kind::EntryTypeSet)? {
                self.dev.write_at(entry.at + 7, &[0])?;
            }
            return Ok(());
        }
        let state = self.state(inode);
        let is_plain = matches!(state & TYPE, 1 | 2);
        let expected = if state & BAD != 0 && !is_plain { 0 } else { state & TYPE };
        if found == expected {
            return Ok(());
        }
        let kind = if found == 0 { Kind::EntryTypeUnset } else { Kind::EntryType };
        let numbers = (Some(found.into()), Some(expected.into()));
        if self.report_entry(entry.place, kind, numbers.0, numbers.1, entry.name)? {
            self.dev.write_at(entry.at + 7, &[expected])?;
        }
        Ok(())
    }

    /// Looks for names that a directory has twice, and tells the first. The fingerprints find candidates, which are read again
    /// and compared: names that are different may have one fingerprint.
    fn check_duplicates(
        &mut self,
        dir: &[DirBlock],
        names: &mut [(u64, u64)],
        buffer: &mut alloc::vec::Vec<u8>,
    ) -> Step {
        names.sort_unstable();
        if self.mode == Mode::Repair {
            return self.mend_duplicates(dir, names, buffer);
        }
        for same in names.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
            let mut seen = BTreeSet::new();
            for &(_, key) in same {
                let Some((place, name)) = self.name_at(dir, key, buffer)? else { continue };
                if let Some(name) = seen.replace(name) {
                    self.report_entry(place, Kind::DuplicateName, None, None, &name)?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The name at a place in a directory.
    pub(crate) fn name_at(
        &mut self,
        dir: &[DirBlock],
        key: u64,
        buffer: &mut alloc::vec::Vec<u8>,
    ) -> Step<Option<(Place, alloc::vec::Vec<u8>)>> {
        let (nr, offset) = (key >> 16, key & 0xffff);
        let Ok(at) = dir.binary_search_by_key(&nr, |block| block.nr.into()) else { return Ok(None) };
        let Some(block) = dir.get(at) else { return Ok(None) };
        self.read_block(block.block, buffer)?;
        let rest = buffer.get(offset as usize..).unwrap_or_default();
        let Ok((header, after)) = RawDirentHeader::read_from_prefix(rest) else { return Ok(None) };
        let name = after.get(..header.name_len.into()).unwrap_or_default();
        let place = Place::Entry { directory: block.inode, block: nr, offset: offset as u32 };
        Ok(Some((place, name.to_vec())))
    }
}

/// 64 bits that are the same for the same name, and nearly never for others (FNV-1a).
fn fingerprint(name: &[u8]) -> u64 {
    name.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
