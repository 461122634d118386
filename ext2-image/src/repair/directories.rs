//! Repairs of the entries of directories. What e2fsck keeps of a broken block is kept, and what it gives up behind the
//! break is looked through for entries that follow each other to the end of the block.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use ext2_core::raw::{DIRENT_HEADER, dirent_size};
use ext2_core::rules::decode_rec_len;

use crate::check::inodes::ROOT;
use crate::check::run::{DirBlock, Run, Step, USED};
use crate::check::{Kind, Place};

/// What an entry says, whether it can be believed or not.
#[derive(Clone, Copy)]
pub(crate) struct Said {
    pub(crate) inode: u32,
    pub(crate) len: usize,
    pub(crate) name_len: usize,
}

/// Reads the head of an entry; `None` where the block ends in it.
pub(crate) fn said(bytes: &[u8], at: usize) -> Option<Said> {
    let head = bytes.get(at..)?.first_chunk::<8>()?;
    let [a, b, c, d, len_low, len_high, name_len, _] = *head;
    let len = decode_rec_len(u16::from_le_bytes([len_low, len_high]), bytes.len());
    Some(Said { inode: u32::from_le_bytes([a, b, c, d]), len, name_len: name_len.into() })
}

impl Said {
    /// Whether its length can be followed.
    pub(crate) fn fits(&self, room: usize) -> bool {
        self.len >= 12 && self.len.is_multiple_of(4) && self.len <= room && self.name_len + 8 <= self.len
    }
}

/// Sets the length of an entry.
pub(crate) fn put_len(bytes: &mut [u8], at: usize, len: usize) {
    // The whole of a block of 64 KiB is spelled as the largest number.
    let stored = u16::try_from(len).unwrap_or(u16::MAX);
    if let Some(field) = bytes.get_mut(at + 4..at + 6) {
        field.copy_from_slice(&stored.to_le_bytes());
    }
}

/// Writes an entry over what is at a place.
pub(crate) fn put_entry(bytes: &mut [u8], at: usize, len: usize, inode: u32, kind: u8, name: &[u8]) {
    let Some(entry) = bytes.get_mut(at..at + dirent_size(name.len())) else { return };
    entry.fill(0);
    let (head, rest) = entry.split_at_mut(DIRENT_HEADER);
    head[..4].copy_from_slice(&inode.to_le_bytes());
    // OK to cast: a name has at most 255 bytes.
    head[6] = name.len() as u8;
    head[7] = kind;
    rest[..name.len()].copy_from_slice(name);
    put_len(bytes, at, len);
}

impl Run<'_> {
    /// The type byte for an inode of a kind, where entries have one.
    pub(crate) fn type_byte(&self, kind: u8) -> u8 {
        if self.sb.features.incompat.contains(ext2_core::IncompatFeatures::FILETYPE) { kind } else { 0 }
    }

    /// The block of a directory that has nothing.
    pub(crate) fn empty_directory(&self, own: u32, parent: u32) -> Vec<u8> {
        let mut bytes = vec![0; self.block_len()];
        let rest = bytes.len() - 12;
        put_entry(&mut bytes, 0, 12, own, self.type_byte(2), b".");
        put_entry(&mut bytes, 12, rest, parent, self.type_byte(2), b"..");
        bytes
    }

    /// Whether an entry names a file that is there, by a name that can be.
    fn is_good(&self, bytes: &[u8], at: usize, room: usize) -> bool {
        let Some(said) = said(bytes, at) else { return false };
        let name = bytes.get(at + 8..at + 8 + said.name_len).unwrap_or_default();
        !name.is_empty()
            && said.name_len + 8 <= room
            && room >= 12
            && said.inode >= self.geo.first_ino
            && self.state(said.inode) & USED != 0
            && !matches!(name, b"." | b"..")
            && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
    }

    /// Where to go on behind a broken entry, and how many good entries are found from there.
    fn resume(&self, bytes: &[u8], broken: usize, least: usize) -> (usize, u32) {
        let end = bytes.len();
        // From the end: how many good entries there are when one goes on at each multiple of 4.
        let mut best = vec![0u32; (end - broken) / 4 + 1];
        let index = |at: usize| (at - broken) / 4;
        for at in (broken..end.saturating_sub(7)).step_by(4).collect::<Vec<_>>().into_iter().rev() {
            let follows = said(bytes, at).filter(|said| said.fits(end - at));
            let value = match follows {
                Some(said) => {
                    let good = u32::from(self.is_good(bytes, at, said.len));
                    good + best.get(index(at + said.len)).copied().unwrap_or(0)
                }
                None => best.get(index(at + 4)).copied().unwrap_or(0),
            };
            if let Some(slot) = best.get_mut(index(at)) {
                *slot = value;
            }
        }
        let value = |at: usize| best.get(index(at)).copied().unwrap_or(0);
        let most = (broken + least..end).step_by(4).map(value).max().unwrap_or(0);
        if most == 0 {
            return (end, 0);
        }
        // Where the entry itself says that the next one is, as long as nothing is lost by that.
        let own = said(bytes, broken).map(|said| broken + said.len);
        if let Some(next) =
            own.filter(|next| (next - broken).is_multiple_of(4) && (broken + least..end).contains(next))
            && value(next) == most
        {
            return (next, most);
        }
        let next = (broken + least..end).step_by(4).find(|&at| value(at) == most).unwrap_or(end);
        (next, most)
    }

    /// Mends a block at an entry that is broken, and gives the place at which to go on.
    pub(crate) fn salvage(
        &mut self,
        block: &DirBlock,
        bytes: &mut [u8],
        broken: usize,
        before: Option<usize>,
    ) -> Step<usize> {
        let end = bytes.len();
        let least = if before.is_some() { 4 } else { 12 };
        let (skip_to, found) = self.resume(bytes, broken, least);
        let named = said(bytes, broken).filter(|said| said.name_len > 0);
        let own = named.map_or(0, |said| dirent_size(said.name_len));
        let keeps = own > 0 && broken + own <= end && self.is_good(bytes, broken, own);
        let (keep_to, behind) = if keeps { self.resume(bytes, broken, own) } else { (end, 0) };
        let next = if keeps && behind + 1 >= found {
            put_len(bytes, broken, keep_to - broken);
            broken
        } else if let Some(before) = before {
            put_len(bytes, before, skip_to - before);
            skip_to
        } else {
            put_entry(bytes, broken, skip_to - broken, 0, 0, b"");
            broken
        };
        self.dev.write_at(self.byte_of(block.block), bytes)?;
        Ok(next)
    }

    /// Makes the first block of a directory begin with `.` and `..`; its other names stay as far as there is room.
    pub(crate) fn mend_first_entries(&mut self, block: &DirBlock, bytes: &mut [u8]) -> Step {
        let end = bytes.len();
        let is = |bytes: &[u8], at: usize, name: &[u8]| {
            said(bytes, at).filter(|said| {
                said.fits(end - at)
                    && said.inode != 0
                    && said.name_len == name.len()
                    && bytes.get(at + 8..at + 8 + name.len()) == Some(name)
            })
        };
        let first = is(bytes, 0, b".").filter(|first| first.len < end);
        let second = first.and_then(|first| is(bytes, first.len, b".."));
        let (kind, offset) = match (first, second) {
            (Some(first), Some(_)) if first.len <= 24 => return Ok(()),
            (Some(_), Some(_)) => (Kind::DotLong, 0),
            (Some(first), None) => (Kind::DotDotMissing, first.len),
            (None, _) => (Kind::DotMissing, 0),
        };
        // OK to cast: within a block.
        let place = Place::Entry { directory: block.inode, block: 0, offset: offset as u32 };
        if !self.fault(place, kind)? {
            return Ok(());
        }
        let (mut parent, mut kept) = (ROOT, Vec::new());
        let mut at = 0;
        while at + 8 < end {
            let Some(here) = said(bytes, at) else { break };
            let name = bytes.get(at + 8..at + 8 + here.name_len).unwrap_or_default();
            let next = if here.fits(end - at) { at + here.len } else { self.resume(bytes, at, 4).0 };
            if name == b".." && here.inode != 0 && here.inode <= self.geo.inodes_count {
                parent = here.inode;
            } else if self.is_good(bytes, at, next - at) {
                let kind = bytes.get(at + 7).copied().unwrap_or(0);
                kept.push((here.inode, kind, name.to_vec()));
            }
            at = next;
        }
        let mut fresh = self.empty_directory(block.inode, parent);
        let (mut last, mut at) = (12, 24);
        for (inode, kind, name) in kept {
            let len = dirent_size(name.len());
            if at + len > end {
                // It gets a name in lost+found.
                continue;
            }
            put_len(&mut fresh, last, at - last);
            put_entry(&mut fresh, at, end - at, inode, kind, &name);
            (last, at) = (at, at + len);
        }
        bytes.copy_from_slice(&fresh);
        self.drop_index(block.inode)?;
        Ok(self.dev.write_at(self.byte_of(block.block), bytes)?)
    }

    /// Gives names that a directory has twice another: `NAME~0` and so on; of two that name the same file one goes.
    pub(crate) fn mend_duplicates(
        &mut self,
        dir: &[DirBlock],
        names: &[(u64, u64)],
        buffer: &mut Vec<u8>,
    ) -> Step {
        // All names of the directory, once one has to be told from them, and the number to go on with.
        let mut used: Option<BTreeSet<Vec<u8>>> = None;
        let mut next = 0;
        for same in names.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
            let mut seen: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
            for &(_, key) in same {
                let Some((place, name)) = self.name_at(dir, key, buffer)? else { continue };
                // OK to cast: the low half is an offset in a block.
                let offset = (key & 0xffff) as usize;
                let Some(here) = said(buffer, offset) else { continue };
                let Some(inode) = seen.get(&name) else {
                    seen.insert(name, here.inode);
                    continue;
                };
                if !self.report_entry(place, Kind::DuplicateName, None, None, &name)? {
                    continue;
                }
                let Ok(at) = dir.binary_search_by_key(&(key >> 16), |block| block.nr.into()) else {
                    continue;
                };
                let Some(block) = dir.get(at).map(|block| block.block) else { continue };
                if *inode == here.inode {
                    buffer.get_mut(offset..offset + 4).unwrap_or_default().fill(0);
                } else {
                    let kind = buffer.get(offset + 7).copied().unwrap_or(0);
                    if used.is_none() {
                        used = Some(self.all_names(dir, buffer.len())?);
                    }
                    let used = used.get_or_insert_default();
                    let name = other_name(&name, here.len - 8, used, &mut next);
                    put_entry(buffer, offset, here.len, here.inode, kind, &name);
                    used.insert(name);
                }
                self.dev.write_at(self.byte_of(block), buffer)?;
                self.drop_index(dir.first().map_or(0, |block| block.inode))?;
                self.later.again = true;
            }
        }
        Ok(())
    }

    /// The names of a directory.
    fn all_names(&self, dir: &[DirBlock], block_len: usize) -> Step<BTreeSet<Vec<u8>>> {
        let mut bytes = vec![0; block_len];
        let mut names = BTreeSet::new();
        for block in dir {
            self.dev.read_at(self.byte_of(block.block), &mut bytes)?;
            let mut at = 0;
            while let Some(here) = said(&bytes, at).filter(|here| here.fits(block_len - at)) {
                names.insert(bytes.get(at + 8..at + 8 + here.name_len).unwrap_or_default().to_vec());
                at += here.len;
            }
        }
        Ok(names)
    }
}

/// A name like another, of at most `room` bytes, that is not among the used ones. `next` is the number that is tried first.
fn other_name(name: &[u8], room: usize, used: &BTreeSet<Vec<u8>>, next: &mut u64) -> Vec<u8> {
    loop {
        let suffix = format!("~{next}");
        *next += 1;
        let most = room.min(255).saturating_sub(suffix.len());
        let mut other = name.get(..name.len().min(most)).unwrap_or_default().to_vec();
        other.extend_from_slice(suffix.as_bytes());
        // Hundreds of thousands of names of one byte would not have room for their numbers: they keep the last digits.
        other = other.split_off(other.len().saturating_sub(room.min(255)));
        if !used.contains(&other) || *next > 1 << 24 {
            return other;
        }
    }
}
