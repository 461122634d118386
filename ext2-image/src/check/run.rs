//! One check: its device, what it knows so far, and how it reports.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use blockdev::BlockDevice;

use super::bits::Bits;
use super::finding::{Finding, Kind, Place, Preen};
use super::{Pass, Progress};
use ext2_core::raw::{RawGroupDesc, RawSuperblock};
use ext2_core::{Error, Geometry, Superblock};

/// Whether a check only looks, or does what `e2fsck -p` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Writes nothing and goes on past everything, as `e2fsck -n`.
    Look,
    /// Mends what needs no person and stops at what does.
    Mend,
}

/// Why a check does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// At a finding that needs a person, in [`Mode::Mend`].
    Halt(Finding),
    /// The layout is such that the rest cannot be read; it was reported.
    Unusable,
    /// The device failed, or the image is none that can be checked.
    Error(Error),
}

impl From<blockdev::Error> for Stop {
    fn from(error: blockdev::Error) -> Self {
        Self::Error(error.into())
    }
}

pub(super) type Step<T = ()> = Result<T, Stop>;

/// What an inode is, as far as later passes need it: the type of a directory entry for it in the low
/// bits, and these.
pub(super) const TYPE: u8 = 0x07;
/// In use.
pub(super) const USED: u8 = 0x10;
/// Has fields that make it unusable as what it says it is.
pub(super) const BAD: u8 = 0x20;
/// Not counted by links (AFS).
pub(super) const IMAGIC: u8 = 0x40;

/// A directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dir {
    pub(super) inode: u32,
    /// The directory that has an entry for it; 0 while none was seen.
    pub(super) parent: u32,
    /// The inode of its `..`; 0 while not seen.
    pub(super) dotdot: u32,
    /// Bytes of `i_size`.
    pub(super) indexed: bool,
}

/// A block of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirBlock {
    pub(super) inode: u32,
    pub(super) nr: u32,
    pub(super) block: u32,
}

/// A block of attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttributeBlock {
    pub(super) refcount: u32,
    pub(super) users: u32,
}

/// Memory of a check, kept between checks.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Blocks with a use.
    pub(super) found: Bits,
    /// Blocks of superblocks, descriptors, bitmaps and tables.
    pub(super) metadata: Bits,
    /// Indirect blocks that were walked; none is walked twice, so that no image makes the walk long.
    pub(super) walked: Bits,
    pub(super) descs: Vec<RawGroupDesc>,
    /// By inode − 1.
    pub(super) links: Vec<u16>,
    pub(super) counted: Vec<u16>,
    pub(super) state: Vec<u8>,
    /// In ascending order of inodes.
    pub(super) dirs: Vec<Dir>,
    /// In ascending order of inodes and numbers.
    pub(super) dir_blocks: Vec<DirBlock>,
    pub(super) attributes: BTreeMap<u32, AttributeBlock>,
    /// Inodes that are read at a time.
    pub(super) inodes: Vec<u8>,
    /// An indirect block for each level.
    pub(super) levels: [Vec<u8>; 3],
    pub(super) block: Vec<u8>,
    /// Hashes of the names of one directory, with their places.
    pub(super) names: Vec<(u64, u64)>,
}

/// One check at work.
pub(super) struct Run<'r> {
    pub(super) dev: &'r dyn BlockDevice,
    pub(super) mode: Mode,
    /// Seconds since 1970, for times of deletion.
    pub(super) now: u32,
    pub(super) sink: &'r mut dyn FnMut(&Finding),
    pub(super) progress: &'r dyn Fn(Progress),
    pub(super) raw: RawSuperblock,
    pub(super) sb: Superblock,
    pub(super) geo: Geometry,
    pub(super) s: &'r mut Scratch,
    /// Findings that are not remarks.
    pub(super) faults: u64,
    pub(super) large_files: bool,
}

impl Run<'_> {
    /// Reports, and says whether to mend it.
    pub(super) fn report(
        &mut self,
        place: Place,
        kind: Kind,
        found: Option<u64>,
        expected: Option<u64>,
    ) -> Step<bool> {
        self.report_entry(place, kind, found, expected, &[])
    }

    /// Reports without numbers, and says whether to mend it.
    pub(super) fn fault(&mut self, place: Place, kind: Kind) -> Step<bool> {
        self.report(place, kind, None, None)
    }

    /// Reports about the entry of a name, and says whether to mend it.
    pub(super) fn report_entry(
        &mut self,
        place: Place,
        kind: Kind,
        found: Option<u64>,
        expected: Option<u64>,
        name: &[u8],
    ) -> Step<bool> {
        let finding = Finding { place, kind, found, expected, name: name.to_vec() };
        if !kind.is_remark() {
            self.faults += 1;
        }
        (self.sink)(&finding);
        match (self.mode, kind.preen()) {
            (Mode::Look, _) => Ok(false),
            (Mode::Mend, Preen::Mends) => Ok(true),
            (Mode::Mend, Preen::Halts) => Err(Stop::Halt(finding)),
        }
    }

    /// Says how far a pass is.
    pub(super) fn tick(&self, pass: Pass, done: u64, total: u64) {
        (self.progress)(Progress { pass, done, total });
    }

    /// Whether a block may have a use: it is in a group.
    pub(super) fn is_block(&self, block: u32) -> bool {
        block >= self.geo.first_data_block && block < self.geo.blocks_count
    }

    /// Bytes of a block.
    pub(super) fn block_len(&self) -> usize {
        self.geo.block_size.len()
    }

    /// Reads a block that [`is_block`](Self::is_block) into a buffer, which becomes as long.
    pub(super) fn read_block(&self, block: u32, buffer: &mut Vec<u8>) -> Step {
        buffer.resize(self.block_len(), 0);
        Ok(self.dev.read_at(u64::from(block) << self.geo.block_size.log2(), buffer)?)
    }

    /// Marks a block as used by an inode, and reports a second use.
    pub(super) fn claim(&mut self, inode: u32, block: u32) -> Step<bool> {
        if self.s.found.set(block.into()) {
            self.report(Place::Inode(inode), Kind::DoubleUse, Some(block.into()), None)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// What is known of an inode.
    pub(super) fn state(&self, inode: u32) -> u8 {
        (inode as usize).checked_sub(1).and_then(|index| self.s.state.get(index)).copied().unwrap_or(0)
    }

    pub(super) fn set_state(&mut self, inode: u32, state: u8) {
        if let Some(slot) = (inode as usize).checked_sub(1).and_then(|index| self.s.state.get_mut(index)) {
            *slot = state;
        }
    }

    pub(super) fn is_directory(&self, inode: u32) -> bool {
        self.state(inode) & (USED | TYPE) == USED | 2
    }

    /// Where an inode lies, in bytes.
    pub(super) fn inode_offset(&self, inode: u32) -> Option<u64> {
        let index = inode.checked_sub(1)?;
        let desc = self.s.descs.get((index / self.geo.inodes_per_group) as usize)?;
        let table = u64::from(desc.bg_inode_table.get()) << self.geo.block_size.log2();
        Some(table + u64::from(index % self.geo.inodes_per_group) * u64::from(self.geo.inode_size))
    }

    /// Stores a field of an inode, at its offset in the structure.
    pub(super) fn put_u16(&self, inode: u32, field: usize, value: u16) -> Step {
        match self.inode_offset(inode) {
            Some(offset) => Ok(self.dev.write_u16(offset + field as u64, value)?),
            None => Ok(()),
        }
    }

    /// Stores a field of an inode, at its offset in the structure.
    pub(super) fn put_u32(&self, inode: u32, field: usize, value: u32) -> Step {
        match self.inode_offset(inode) {
            Some(offset) => Ok(self.dev.write_u32(offset + field as u64, value)?),
            None => Ok(()),
        }
    }

    /// Deletes an inode that has no blocks: no flags, no links, deleted now.
    pub(super) fn clear_inode(&mut self, inode: u32) -> Step {
        use core::mem::offset_of;
        self.put_u32(inode, offset_of!(ext2_core::raw::RawInode, i_flags), 0)?;
        self.put_u16(inode, offset_of!(ext2_core::raw::RawInode, i_links_count), 0)?;
        self.put_u32(inode, offset_of!(ext2_core::raw::RawInode, i_dtime), self.now)?;
        self.set_state(inode, 0);
        if let Some(links) = (inode as usize).checked_sub(1).and_then(|index| self.s.links.get_mut(index)) {
            *links = 0;
        }
        Ok(())
    }

    /// The record of a directory.
    pub(super) fn dir_mut(&mut self, inode: u32) -> Option<&mut Dir> {
        let at = self.s.dirs.binary_search_by_key(&inode, |dir| dir.inode).ok()?;
        self.s.dirs.get_mut(at)
    }

    /// Inodes, in use and in all.
    pub(super) fn count_inodes(&self) -> (u64, u64) {
        let used = self.s.state.iter().filter(|&&state| state & USED != 0).count();
        (used as u64, self.geo.inodes_count.into())
    }

    /// Blocks, in use and in all. What lies before the first group counts as used, as with e2fsck.
    pub(super) fn count_blocks(&self) -> (u64, u64) {
        let before = u64::from(self.geo.first_data_block);
        (self.s.found.count() + before, self.geo.blocks_count.into())
    }
}
