//! Passes 3 and 4: whether every directory can be reached and every file has a name, and link counts.

use alloc::vec::Vec;
use core::mem::{offset_of, take};

use zerocopy::{FromZeros, IntoBytes};

use super::Pass;
use super::bits::Bits;
use super::finding::{Kind, Place};
use super::inodes::ROOT;
use super::run::{IMAGIC, Mode, Run, Step, TYPE, USED};
use super::superblock::DIR_NLINK;
use ext2_core::raw::{GOOD_OLD_INODE_SIZE, RawInode, XATTR_MAGIC};

/// The most links that ext2 counts (Linux: `EXT2_LINK_MAX` as e2fsck has it).
const LINK_MAX: u16 = 65000;

impl Run<'_> {
    /// Checks that every directory is below the root, and that `..` names the one it is in.
    pub(crate) fn check_connections(&mut self) -> Step {
        let dirs = take(&mut self.s.dirs);
        let index = |inode: u32| dirs.binary_search_by_key(&inode, |dir| dir.inode).ok();
        let (mut lost, mut moved) = (Vec::new(), Vec::new());
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
                self.recount(dir.inode, -1);
                lost.push(dir.inode);
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
                    lost.push(dir.inode);
                }
            } else {
                let expected = if dir.inode == ROOT { ROOT } else { dir.parent };
                if dir.dotdot != expected && dir.dotdot != 0 {
                    let numbers = (Some(dir.dotdot.into()), Some(expected.into()));
                    if self.report(place, Kind::DotDotInode, numbers.0, numbers.1)? {
                        moved.push((dir.inode, expected));
                    }
                }
            }
            if start.is_multiple_of(4096) {
                self.tick(Pass::Connections, start as u64, dirs.len() as u64);
            }
        }
        self.s.dirs = dirs;
        for (inode, parent) in moved {
            self.set_parent(inode, parent)?;
        }
        for inode in lost {
            self.connect(inode, 2)?;
        }
        self.begin_anew()
    }

    /// Lets the `..` of a directory name its parent, and counts that.
    pub(crate) fn set_parent(&mut self, inode: u32, parent: u32) -> Step {
        let Some(dir) = self.dir_mut(inode) else { return Ok(()) };
        let (before, at) = (dir.dotdot, dir.dotdot_at);
        if at == 0 {
            return Ok(());
        }
        if inode != ROOT {
            dir.parent = parent;
        }
        dir.dotdot = parent;
        self.dev.write_u32(at, parent)?;
        self.recount(before, -1);
        self.recount(parent, 1);
        Ok(())
    }

    /// Counts names that an inode has gained or lost since its directory was read.
    pub(crate) fn recount(&mut self, inode: u32, by: i16) {
        let index = (inode as usize).checked_sub(1);
        if let Some(count) = index.and_then(|index| self.s.counted.get_mut(index)) {
            *count = count.saturating_add_signed(by);
        }
    }

    /// Compares link counts with the names that were counted.
    pub(crate) fn check_links(&mut self) -> Step {
        let mut many = 0;
        if self.mode == Mode::Repair {
            // Names that are given now change the counts of directories that come before.
            let mut next = ROOT;
            while let Some(inode) = self.next_known(next) {
                next = inode.wrapping_add(1);
                if let Some((_, 0, kind)) = self.links_of(inode) {
                    self.check_unattached(inode, kind)?;
                }
            }
        }
        let (mut next, mut told) = (ROOT, 0);
        while let Some(inode) = self.next_known(next) {
            next = inode.wrapping_add(1);
            if inode >> 16 != told {
                told = inode >> 16;
                self.tick(Pass::Links, inode.into(), self.geo.inodes_count.into());
            }
            let Some((links, mut counted, kind)) = self.links_of(inode) else { continue };
            let is_dir = kind == 2;
            if counted == 0 {
                if self.mode != Mode::Repair {
                    self.check_unattached(inode, kind)?;
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
                    if let Some(links) = self.s.links.get_mut(inode as usize - 1) {
                        *links = counted;
                    }
                }
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

    /// The links of an inode as it says and as they were counted, and the type of its entries; `None` where they do not count.
    fn links_of(&self, inode: u32) -> Option<(u16, u16, u8)> {
        let state = self.state(inode);
        let counts = inode == ROOT || inode >= self.geo.first_ino;
        if !counts || state & (USED | IMAGIC) != USED {
            return None;
        }
        let of = |table: &[u16]| table.get(inode as usize - 1).copied().unwrap_or(0);
        Some((of(&self.s.links), of(&self.s.counted), state & TYPE))
    }

    /// An inode without a name: an empty one is deleted, another gets a name.
    fn check_unattached(&mut self, inode: u32, kind: u8) -> Step {
        let Some(offset) = self.inode_offset(inode) else { return Ok(()) };
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
            return Ok(());
        }
        // A directory without a name was reported as not connected.
        if kind != 2 && self.fault(Place::Inode(inode), Kind::Unattached)? {
            self.connect(inode, kind)?;
        }
        Ok(())
    }
}
