//! The files of the feature `quota`, which say what each user and each group uses: inodes 3 and 4.
//!
//! Such a file is a tree of blocks of 1 KiB, four levels of 256 numbers deep, by the bytes of the id; the leaves hold entries
//! (Linux: `fs/quota/quota_tree.c`, version 1). What an entry says of use is compared with the inodes, and set right in its
//! place; limits stay. An id that has files and no entry is named and left.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use zerocopy::FromBytes;

use super::finding::{Kind, Place};
use super::inodes::ROOT;
use super::run::{Run, Step, USED};
use super::superblock::QUOTA;
use crate::little::{long, word};
use ext2_core::raw::{RawInode, SUPERBLOCK_OFFSET};

/// Where the superblock names the inodes of users and of groups (`s_usr_quota_inum`, `s_grp_quota_inum`), the numbers they
/// have, and how their files begin.
const KINDS: [(u64, u32, u32); 2] =
    [(SUPERBLOCK_OFFSET + 576, 3, 0xd9c0_1f11), (SUPERBLOCK_OFFSET + 580, 4, 0xd9c0_1927)];
/// Of a block of the file, of the head of a leaf, and of an entry, in bytes.
const BLOCK: u64 = 1024;
const HEAD: usize = 16;
const ENTRY: usize = 72;
/// The version of the file, and the block of the tree's root.
const VERSION: u32 = 1;
const TREE: u32 = 1;
/// Levels of the tree above the leaves.
const LEVELS: u32 = 4;
/// Where an entry says how many inodes and bytes are used.
const INODES: u64 = 24;
const SPACE: u64 = 48;

/// Inodes and bytes.
type Usage = (u64, u64);

/// The blocks of the image that a file lies in, by their number in the file.
type Blocks = BTreeMap<u64, u32>;

impl Run<'_> {
    /// Compares what the files of quota say with what the inodes use.
    pub(crate) fn check_quota(&mut self) -> Step {
        if self.sb.features.ro_compat.bits() & QUOTA == 0 {
            return Ok(());
        }
        let usage = self.usage()?;
        for ((field, nr, magic), usage) in KINDS.into_iter().zip(usage) {
            let named = self.dev.read_u32(field)?;
            // What is elsewhere nobody writes, and e2fsck moves it.
            if named != nr {
                continue;
            }
            self.check_quota_file(nr, magic, usage)?;
        }
        Ok(())
    }

    /// What each user and each group uses.
    fn usage(&mut self) -> Step<[BTreeMap<u32, Usage>; 2]> {
        let mut usage = [BTreeMap::<u32, Usage>::new(), BTreeMap::new()];
        let mut bytes = [0; size_of::<RawInode>()];
        let mut next = ROOT;
        while let Some(nr) = self.next_known(next) {
            next = nr.wrapping_add(1);
            if self.state(nr) & USED == 0 || nr != ROOT && nr < self.geo.first_ino {
                continue;
            }
            let Some(offset) = self.inode_offset(nr) else { continue };
            self.dev.read_at(offset, &mut bytes)?;
            let Ok(raw) = RawInode::ref_from_bytes(&bytes) else { continue };
            let id = |low: u16, high: u16| u32::from(high) << 16 | u32::from(low);
            let ids = [id(raw.i_uid.get(), raw.i_uid_high.get()), id(raw.i_gid.get(), raw.i_gid_high.get())];
            for (usage, id) in usage.iter_mut().zip(ids) {
                let used = usage.entry(id).or_default();
                used.0 += 1;
                used.1 += u64::from(raw.i_blocks.get()) * 512;
            }
        }
        Ok(usage)
    }

    fn check_quota_file(&mut self, nr: u32, magic: u32, mut usage: BTreeMap<u32, Usage>) -> Step {
        let file = self.mapped(nr)?.into_iter().map(|(number, _, block)| (number, block)).collect();
        let Some(entries) = self.quota_entries(&file, magic)? else {
            self.fault(Place::Inode(nr), Kind::QuotaFile)?;
            self.later.left += 1;
            return Ok(());
        };
        let mut wrong = Vec::new();
        for (id, at, said) in entries {
            let used = usage.remove(&id).unwrap_or_default();
            if used != said {
                wrong.push((at, used));
            }
        }
        // What has no entry.
        let missing = usage.len();
        let count = (wrong.len() + missing) as u64;
        if count != 0 && self.report(Place::Inode(nr), Kind::QuotaUsage, Some(count), Some(0))? {
            for (at, (inodes, space)) in wrong {
                self.dev.write_at(at + INODES, &inodes.to_le_bytes())?;
                self.dev.write_at(at + SPACE, &space.to_le_bytes())?;
            }
            self.later.left += missing as u64;
        }
        Ok(())
    }

    /// The entries of a file: the id, where the entry lies in bytes of the device, and what it says. `None` where it is no
    /// such file.
    fn quota_entries(&self, file: &Blocks, magic: u32) -> Step<Option<Vec<(u32, u64, Usage)>>> {
        let Some((head, _)) = self.quota_block(file, 0)? else { return Ok(None) };
        if word(&head, 0) != magic || word(&head, 4) != VERSION {
            return Ok(None);
        }
        let mut found = Vec::new();
        // No block is looked at twice, so that no file makes this long.
        let mut seen = BTreeSet::from([0, TREE]);
        let mut pending = vec![(TREE, 0)];
        while let Some((nr, level)) = pending.pop() {
            let Some((bytes, at)) = self.quota_block(file, nr)? else { return Ok(None) };
            if level < LEVELS {
                for below in bytes.chunks_exact(4).map(|number| word(number, 0)) {
                    if below != 0 && seen.insert(below) {
                        pending.push((below, level + 1));
                    }
                }
                continue;
            }
            let entries = bytes.get(HEAD..).unwrap_or_default().chunks_exact(ENTRY);
            for (index, entry) in entries.enumerate() {
                if entry.iter().any(|&byte| byte != 0) {
                    let said = (long(entry, INODES as usize), long(entry, SPACE as usize));
                    found.push((word(entry, 0), at + (HEAD + index * ENTRY) as u64, said));
                }
            }
        }
        Ok(Some(found))
    }

    /// A block of a file, and where it lies; `None` where the file has none there.
    fn quota_block(&self, file: &Blocks, nr: u32) -> Step<Option<([u8; BLOCK as usize], u64)>> {
        let at = u64::from(nr) * BLOCK;
        let log = self.geo.block_size.log2();
        let Some(&block) = file.get(&(at >> log)) else { return Ok(None) };
        let offset = self.byte_of(block) + (at & (self.geo.block_size.bytes() - 1));
        let mut bytes = [0; BLOCK as usize];
        self.dev.read_at(offset, &mut bytes)?;
        Ok(Some((bytes, offset)))
    }
}
