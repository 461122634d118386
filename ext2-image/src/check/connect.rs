//! Passes 3 and 4: whether every directory can be reached and every file has a name, and link counts.

use alloc::vec::Vec;
use core::mem::{offset_of, take};

use zerocopy::{FromZeros, IntoBytes};

use super::Pass;
use super::bits::Bits;
use super::finding::{Kind, Place};
use super::inodes::ROOT;
use super::layout::DIR_NLINK;
use super::run::{IMAGIC, Run, Step, TYPE, USED};
use ext2_core::raw::{GOOD_OLD_INODE_SIZE, RawInode, XATTR_MAGIC};

/// The most links that ext2 counts (Linux: `EXT2_LINK_MAX` as e2fsck has it).
const LINK_MAX: u16 = 65000;

impl Run<'_> {
    /// Checks that every directory is below the root, and that `..` names the one it is in.
    pub(crate) fn check_connections(&mut self) -> Step {
        let dirs = take(&mut self.s.dirs);
        let index = |inode: u32| dirs.binary_search_by_key(&inode, |dir| dir.inode).ok();
        let mut lost = Vec::new();
        let mut passed = Bits::default();
        let mut done = Bits::default();
        passed.reset(dirs.len() as u64);
        done.reset(dirs.len() as u64);
        for (start, dir) in dirs.iter().enumerate() {
            // Upwards to the root, a dead end, or what was passed before: each directory is passed once.
            // To come back to this very walk is to find a circle, which hangs on nothing.
            let above = |at: usize| {
                let dir = dirs.get(at).filter(|dir| dir.inode != ROOT)?;
                index(dir.parent)
            };
            let mut at = Some(start);
            while let Some(here) = at
                && !passed.set(here as u64)
            {
                at = above(here);
            }
            if let Some(here) = at
                && !done.get(here as u64)
                && let Some(dir) = dirs.get(here)
                && self.fault(Place::Inode(dir.inode), Kind::Unconnected)?
            {
                // The circle ends here: its name goes, and it gets one that can be reached.
                self.dev.write_u32(dir.entry_at, 0)?;
                lost.push((dir.inode, dir.dotdot_at));
            }
            let mut at = Some(start);
            while let Some(here) = at
                && !done.set(here as u64)
            {
                at = above(here);
            }
            let place = Place::Inode(dir.inode);
            if dir.parent == 0 && dir.inode != ROOT {
                if self.fault(place, Kind::Unconnected)? {
                    lost.push((dir.inode, dir.dotdot_at));
                }
            } else {
                let expected = if dir.inode == ROOT { ROOT } else { dir.parent };
                if dir.dotdot != expected && dir.dotdot != 0 {
                    let numbers = (Some(dir.dotdot.into()), Some(expected.into()));
                    if self.report(place, Kind::DotDotInode, numbers.0, numbers.1)? {
                        self.dev.write_u32(dir.dotdot_at, expected)?;
                        self.later.again = true;
                    }
                }
            }
            if start.is_multiple_of(4096) {
                self.tick(Pass::Connections, start as u64, dirs.len() as u64);
            }
        }
        self.s.dirs = dirs;
        for (inode, dotdot_at) in lost {
            self.connect(inode, 2, dotdot_at)?;
        }
        self.begin_anew()
    }

    /// Compares link counts with the names that were counted.
    pub(crate) fn check_links(&mut self) -> Step {
        let mut many = 0;
        for inode in 1..=self.geo.inodes_count {
            if inode == 1 || inode > ROOT && inode < self.geo.first_ino {
                continue;
            }
            let state = self.state(inode);
            if state & (USED | IMAGIC) != USED {
                continue;
            }
            let index = inode as usize - 1;
            let links = self.s.links.get(index).copied().unwrap_or(0);
            let mut counted = self.s.counted.get(index).copied().unwrap_or(0);
            let is_dir = state & TYPE == 2;
            if counted == 0 {
                if self.check_unattached(inode, state & TYPE)? {
                    continue;
                }
            } else {
                if is_dir && counted > LINK_MAX {
                    many = many.max(counted);
                    counted = 1;
                } else if is_dir && links == 1 && self.dir_mut(inode).is_some_and(|dir| dir.indexed) {
                    // It had more once, as ext4 counts; e2fsck calls it no fault.
                    continue;
                }
                let numbers = (Some(links.into()), Some(counted.into()));
                if links != counted && self.report(Place::Inode(inode), Kind::Links, numbers.0, numbers.1)? {
                    self.put_u16(inode, offset_of!(RawInode, i_links_count), counted)?;
                }
            }
            if inode.is_multiple_of(1 << 16) {
                self.tick(Pass::Links, inode.into(), self.geo.inodes_count.into());
            }
        }
        let has_feature = self.raw.s_feature_ro_compat.get() & DIR_NLINK != 0;
        if many > 0
            && !has_feature
            && self.report(Place::Superblock, Kind::ManyDirectories, Some(many.into()), None)?
        {
            self.set_feature_ro(DIR_NLINK)?;
        }
        self.begin_anew()
    }

    /// An inode without a name: an empty one is deleted. Whether that was done.
    fn check_unattached(&mut self, inode: u32, kind: u8) -> Step<bool> {
        let Some(offset) = self.inode_offset(inode) else { return Ok(true) };
        let mut raw = RawInode::new_zeroed();
        self.dev.read_at(offset, raw.as_mut_bytes())?;
        let mut has_attributes = false;
        if u64::from(self.geo.inode_size) > GOOD_OLD_INODE_SIZE {
            let mut extra = [0; 2];
            self.dev.read_at(offset + GOOD_OLD_INODE_SIZE, &mut extra)?;
            let at = GOOD_OLD_INODE_SIZE + u64::from(u16::from_le_bytes(extra));
            if at + 4 <= u64::from(self.geo.inode_size) {
                let mut magic = [0; 4];
                self.dev.read_at(offset + at, &mut magic)?;
                has_attributes = magic == XATTR_MAGIC.to_le_bytes();
            }
        }
        if raw.i_blocks.get() == 0 && !has_attributes && matches!(kind, 1 | 2) {
            if self.fault(Place::Inode(inode), Kind::UnattachedEmpty)? {
                self.clear_inode(inode)?;
            }
            return Ok(true);
        }
        // A directory without a name was reported as not connected.
        if kind != 2 && self.fault(Place::Inode(inode), Kind::Unattached)? {
            self.connect(inode, kind, 0)?;
        }
        Ok(true)
    }
}
