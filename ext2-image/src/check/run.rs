//! One check: its device, what it knows so far, and how it reports.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use blockdev::BlockDevice;

use super::bits::Bits;
use super::finding::{Finding, Kind, Place, Preen};
use super::memo::Memo;
use super::{Pass, Progress};
use ext2_core::raw::{RawGroupDesc, RawSuperblock};
use ext2_core::{Error, Geometry, Superblock};

/// Whether a check only looks, or does what `e2fsck -p` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Writes nothing and goes on past everything, as `e2fsck -n`.
    Look,
    /// Mends what needs no person and stops at what does.
    Mend,
    /// Mends everything that the one who is asked says yes to.
    Repair,
}

/// Why a check does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// At a finding that needs a person, in [`Mode::Mend`].
    Halt(Finding),
    /// The layout is such that the rest cannot be read; it was reported.
    Unusable,
    /// What was mended changes what later passes are to see: the passes begin anew.
    Again,
    /// The device failed, or the image is none that can be checked.
    Error(Error),
}

impl From<blockdev::Error> for Stop {
    fn from(error: blockdev::Error) -> Self {
        Self::Error(error.into())
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

pub(crate) type Step<T = ()> = Result<T, Stop>;

/// What an inode is, as far as later passes need it: the type of a directory entry for it in the low
/// bits, and these.
pub(crate) const TYPE: u8 = 0x07;
/// In use.
pub(crate) const USED: u8 = 0x10;
/// Has fields that make it unusable as what it says it is.
pub(crate) const BAD: u8 = 0x20;
/// Not counted by links (AFS).
pub(crate) const IMAGIC: u8 = 0x40;

/// A directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dir {
    pub(crate) inode: u32,
    /// The directory that has an entry for it; 0 while none was seen.
    pub(crate) parent: u32,
    /// The inode of its `..`; 0 while not seen.
    pub(crate) dotdot: u32,
    /// Whether it has the flag of a hash tree.
    pub(crate) indexed: bool,
    /// Where the entry lies by which `parent` has it, in bytes of the device.
    pub(crate) entry_at: u64,
    /// Where its `..` lies, in bytes of the device.
    pub(crate) dotdot_at: u64,
}

/// A block of a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirBlock {
    pub(crate) inode: u32,
    pub(crate) nr: u32,
    pub(crate) block: u32,
}

/// A block of attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttributeBlock {
    pub(crate) refcount: u32,
    pub(crate) users: u32,
}

/// A pointer to a block that has another use already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Double {
    /// Where the pointer lies, in bytes of the device.
    pub(crate) at: u64,
    pub(crate) block: u32,
    /// 0 for a pointer to data, otherwise how many levels of pointers are below.
    pub(crate) level: usize,
}

/// What is mended when a pass has seen everything: it takes blocks, and only then it is known which are free.
#[derive(Debug, Default)]
pub(crate) struct Later {
    pub(crate) doubles: Vec<Double>,
    /// Directories with holes.
    pub(crate) holes: Vec<u32>,
    pub(crate) resize_inode: bool,
    /// Inodes that have extents, where the file system has none.
    pub(crate) extents: crate::repair::Extents,
    /// By directory: which of its blocks is the first that may have room for a name, as an index.
    pub(crate) cursors: BTreeMap<u32, usize>,
    /// The directory for what has no name, the root where there is no room for one; 0 while not known.
    pub(crate) lost_found: u32,
    /// Whether the passes have to begin anew.
    pub(crate) again: bool,
    /// Whether there are tables that pass 1 did not read, since their groups said that they were never written.
    pub(crate) unread: bool,
    /// The next inode to be looked at when one is taken.
    pub(crate) next_inode: u32,
    /// The next block to be looked at when one is taken.
    pub(crate) next_block: u32,
    /// Whether no block was free any more. None becomes free before the passes begin anew.
    pub(crate) full: bool,
    /// Blocks that were taken.
    pub(crate) taken: u32,
    /// Findings that nobody wanted mended, or that could not be.
    pub(crate) left: u64,
}

/// Memory of a check, kept between checks.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Blocks with a use.
    pub(crate) found: Bits,
    /// Blocks of superblocks, descriptors, bitmaps and tables.
    pub(crate) metadata: Bits,
    /// Indirect blocks that were walked; none is walked twice, so that no image makes the walk long.
    pub(crate) walked: Bits,
    pub(crate) descs: Vec<RawGroupDesc>,
    /// By inode − 1.
    pub(crate) links: Vec<u16>,
    pub(crate) counted: Vec<u16>,
    pub(crate) state: Vec<u8>,
    /// In ascending order of inodes.
    pub(crate) dirs: Vec<Dir>,
    /// In ascending order of inodes and numbers.
    pub(crate) dir_blocks: Vec<DirBlock>,
    pub(crate) attributes: BTreeMap<u32, AttributeBlock>,
    /// Inodes that are read at a time.
    pub(crate) inodes: Vec<u8>,
    /// An indirect block for each level.
    pub(crate) levels: [Vec<u8>; 3],
    pub(crate) block: Vec<u8>,
    /// Hashes of the names of one directory, with their places.
    pub(crate) names: Vec<(u64, u64)>,
    /// Blocks in which extents lie, or lay when the repair began.
    pub(crate) nodes: BTreeSet<u32>,
    pub(crate) memo: Memo,
}

/// Says whether bytes were changed: from which on, and how many.
pub(crate) type Changed<'c> = dyn Fn(u64, u64) -> bool + 'c;

/// One check at work.
pub(crate) struct Run<'r> {
    pub(crate) dev: &'r dyn BlockDevice,
    pub(crate) mode: Mode,
    /// Seconds since 1970, for times of deletion; more than there are inodes.
    pub(crate) now: u32,
    /// Is told of a finding; in [`Mode::Repair`] it says whether to mend it.
    pub(crate) sink: &'r mut dyn FnMut(&Finding) -> bool,
    pub(crate) progress: &'r dyn Fn(Progress),
    pub(crate) raw: RawSuperblock,
    pub(crate) sb: Superblock,
    pub(crate) geo: Geometry,
    pub(crate) s: &'r mut Scratch,
    /// In a round of a repair: whether anything within a range of bytes was changed, in this round or another.
    pub(crate) changed: Option<&'r Changed<'r>>,
    /// Findings that are not remarks.
    pub(crate) faults: u64,
    /// All findings.
    pub(crate) reports: u64,
    pub(crate) large_files: bool,
    pub(crate) later: Later,
}

impl Run<'_> {
    /// Reports, and says whether to mend it.
    pub(crate) fn report(
        &mut self,
        place: Place,
        kind: Kind,
        found: Option<u64>,
        expected: Option<u64>,
    ) -> Step<bool> {
        self.report_entry(place, kind, found, expected, &[])
    }

    /// Reports without numbers, and says whether to mend it.
    pub(crate) fn fault(&mut self, place: Place, kind: Kind) -> Step<bool> {
        self.report(place, kind, None, None)
    }

    /// Reports about the entry of a name, and says whether to mend it.
    pub(crate) fn report_entry(
        &mut self,
        place: Place,
        kind: Kind,
        found: Option<u64>,
        expected: Option<u64>,
        name: &[u8],
    ) -> Step<bool> {
        let finding = Finding { place, kind, found, expected, name: name.to_vec() };
        self.reports += 1;
        if !kind.is_remark() {
            self.faults += 1;
        }
        let wanted = (self.sink)(&finding);
        match (self.mode, kind.preen()) {
            (Mode::Repair, _) => {
                self.later.left += u64::from(!wanted);
                Ok(wanted)
            }
            (Mode::Look, _) => Ok(false),
            (Mode::Mend, Preen::Mends) => Ok(true),
            (Mode::Mend, Preen::Halts) => Err(Stop::Halt(finding)),
        }
    }

    /// Says how far a pass is.
    pub(crate) fn tick(&self, pass: Pass, done: u64, total: u64) {
        (self.progress)(Progress { pass, done, total });
    }

    /// Whether a block may have a use: it is in a group.
    pub(crate) fn is_block(&self, block: u32) -> bool {
        // 0 says that there is none, also where the superblock lies in it.
        block != 0 && block >= self.geo.first_data_block && block < self.geo.blocks_count
    }

    /// Bytes of a block.
    pub(crate) fn block_len(&self) -> usize {
        self.geo.block_size.len()
    }

    /// Reads a block that [`is_block`](Self::is_block) into a buffer, which becomes as long.
    pub(crate) fn read_block(&self, block: u32, buffer: &mut Vec<u8>) -> Step {
        buffer.resize(self.block_len(), 0);
        Ok(self.dev.read_at(u64::from(block) << self.geo.block_size.log2(), buffer)?)
    }

    /// Marks a block as used by an inode, and reports a second use. `at` is where the pointer lies, `level` is how many
    /// levels of pointers are below the block.
    pub(crate) fn claim(&mut self, inode: u32, block: u32, at: u64, level: usize) -> Step<bool> {
        if self.s.found.set(block.into()) {
            if self.report(Place::Inode(inode), Kind::DoubleUse, Some(block.into()), None)? {
                self.later.doubles.push(Double { at, block, level });
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// What is known of an inode.
    pub(crate) fn state(&self, inode: u32) -> u8 {
        (inode as usize).checked_sub(1).and_then(|index| self.s.state.get(index)).copied().unwrap_or(0)
    }

    pub(crate) fn set_state(&mut self, inode: u32, state: u8) {
        if let Some(slot) = (inode as usize).checked_sub(1).and_then(|index| self.s.state.get_mut(index)) {
            *slot = state;
        }
    }

    /// The first inode from one on of which anything is known. Most of a large file system are in no use.
    pub(crate) fn next_known(&self, from: u32) -> Option<u32> {
        let at = (from as usize).checked_sub(1)?;
        let rest = self.s.state.get(at..)?;
        let skipped = rest.chunks(64).take_while(|piece| crate::zeros::is_zero(piece)).count() * 64;
        let ahead = rest.get(skipped..)?.iter().position(|&state| state != 0)?;
        // OK to cast: an index of an inode.
        Some((at + skipped + ahead) as u32 + 1)
    }

    pub(crate) fn is_directory(&self, inode: u32) -> bool {
        self.state(inode) & (USED | TYPE) == USED | 2
    }

    /// Where an inode lies, in bytes.
    pub(crate) fn inode_offset(&self, inode: u32) -> Option<u64> {
        let index = inode.checked_sub(1)?;
        let desc = self.s.descs.get((index / self.geo.inodes_per_group) as usize)?;
        let table = u64::from(desc.bg_inode_table.get()) << self.geo.block_size.log2();
        Some(table + u64::from(index % self.geo.inodes_per_group) * u64::from(self.geo.inode_size))
    }

    /// Stores a field of an inode, at its offset in the structure.
    pub(crate) fn put_u16(&self, inode: u32, field: usize, value: u16) -> Step {
        match self.inode_offset(inode) {
            Some(offset) => Ok(self.dev.write_u16(offset + field as u64, value)?),
            None => Ok(()),
        }
    }

    /// Stores a field of an inode, at its offset in the structure.
    pub(crate) fn put_u32(&self, inode: u32, field: usize, value: u32) -> Step {
        match self.inode_offset(inode) {
            Some(offset) => Ok(self.dev.write_u32(offset + field as u64, value)?),
            None => Ok(()),
        }
    }

    /// Deletes an inode that has no blocks: no flags, no links, deleted now.
    pub(crate) fn clear_inode(&mut self, inode: u32) -> Step {
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
    pub(crate) fn dir_mut(&mut self, inode: u32) -> Option<&mut Dir> {
        let at = self.s.dirs.binary_search_by_key(&inode, |dir| dir.inode).ok()?;
        self.s.dirs.get_mut(at)
    }

    /// Inodes, in use and in all.
    pub(crate) fn count_inodes(&self) -> (u64, u64) {
        let used = self.s.state.iter().filter(|&&state| state & USED != 0).count();
        (used as u64, self.geo.inodes_count.into())
    }

    /// Blocks, in use and in all. What lies before the first group counts as used, as with e2fsck.
    pub(crate) fn count_blocks(&self) -> (u64, u64) {
        let before = u64::from(self.geo.first_data_block);
        (self.s.found.count() + before, self.geo.blocks_count.into())
    }
}
