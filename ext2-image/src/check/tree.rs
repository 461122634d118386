//! The block tree of an inode: every block claimed, counted, and for a directory noted.

use core::mem::take;

use super::finding::{Kind, Place};
use super::layout::pointer;
use super::run::{DirBlock, Run, Step};
use ext2_core::raw::RawInode;

/// `EXT2_OS_HURD` in `s_creator_os`.
pub(super) const HURD: u32 = 1;

/// What the walk of a tree gives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walk {
    /// Blocks, indirect ones included.
    pub(super) blocks: u64,
    /// One past the last block of the file that is mapped; 0 for none.
    pub(super) end: u64,
    /// For a directory: the block of the file up to which holes were noted.
    noted: u64,
}

/// What kind of file is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Directory,
    Regular,
    Symlink,
    /// The resize inode, whose blocks but one are metadata already.
    Resize,
    /// The inode of bad blocks, which claims nothing that is in use.
    BadBlocks,
}

impl Run<'_> {
    /// Walks the block map of an inode.
    pub(super) fn walk_tree(&mut self, nr: u32, inode: &RawInode, owner: Owner) -> Step<Walk> {
        let mut walk = Walk::default();
        if self.sb.creator_os == HURD && !matches!(owner, Owner::Resize | Owner::BadBlocks) {
            self.claim_translator(nr, inode.i_osd1.get())?;
        }
        let pointers = self.geo.block_size.pointers();
        let mut first = 0;
        for (slot, block) in inode.i_block.iter().enumerate() {
            let level = slot.saturating_sub(11);
            let span = pointers.pow(level as u32);
            self.visit(nr, owner, block.get(), first, level, &mut walk)?;
            first += span;
        }
        Ok(walk)
    }

    /// Claims the block of a translator of the Hurd (`h_i_translator`), which is not among those that `i_blocks` counts.
    fn claim_translator(&mut self, nr: u32, block: u32) -> Step {
        if block == 0 {
            return Ok(());
        }
        if !self.is_block(block) {
            self.report(Place::Inode(nr), Kind::IllegalBlock, Some(block.into()), None)?;
            return Ok(());
        }
        self.claim(nr, block).map(drop)
    }

    /// Visits a pointer at a level, 0 for one to data, that is for the block `first` of the file.
    fn visit(
        &mut self,
        nr: u32,
        owner: Owner,
        block: u32,
        first: u64,
        level: usize,
        walk: &mut Walk,
    ) -> Step {
        if block == 0 {
            return Ok(());
        }
        if !self.is_block(block) {
            let kind = if owner == Owner::BadBlocks { Kind::BadBlocksIllegal } else { Kind::IllegalBlock };
            self.report(Place::Inode(nr), kind, Some(block.into()), None)?;
            return Ok(());
        }
        if level == 0 && self.is_too_big(owner, first, walk) {
            self.report(Place::Inode(nr), Kind::TooBig, Some(first), None)?;
            return Ok(());
        }
        let fresh = match owner {
            Owner::Resize if level != 2 => true,
            Owner::BadBlocks => {
                self.s.found.set(block.into());
                true
            }
            _ => self.claim(nr, block)?,
        };
        walk.blocks += 1;
        if level > 0 {
            // Inside metadata there is no tree: the resize inode was checked with the layout.
            if owner == Owner::Resize {
                return self.count_resize(block, level, walk);
            }
            return self.descend(nr, owner, block, first, level, walk);
        }
        walk.end = first + 1;
        if owner == Owner::Directory {
            self.note_holes(nr, walk.noted, first)?;
            walk.noted = first + 1;
            // A block that two claim is read once: the list stays as short as the image is.
            if fresh {
                // OK to cast: `is_too_big` keeps directories below 2^31 bytes.
                self.s.dir_blocks.push(DirBlock { inode: nr, nr: first as u32, block });
            }
        }
        Ok(())
    }

    /// Visits what an indirect block points to.
    fn descend(
        &mut self,
        nr: u32,
        owner: Owner,
        block: u32,
        first: u64,
        level: usize,
        walk: &mut Walk,
    ) -> Step {
        if self.s.walked.set(block.into()) {
            return Ok(());
        }
        let Some(slot) = self.s.levels.get_mut(level - 1) else { return Ok(()) };
        let mut buffer = take(slot);
        self.read_block(block, &mut buffer)?;
        let pointers = self.geo.block_size.pointers();
        let span = pointers.pow(level as u32 - 1);
        for index in 0..pointers {
            let below = pointer(&buffer, index as usize);
            if below != 0 {
                self.visit(nr, owner, below, first + index * span, level - 1, walk)?;
            }
        }
        if let Some(slot) = self.s.levels.get_mut(level - 1) {
            *slot = buffer;
        }
        Ok(())
    }

    /// Counts the blocks below the double indirect block of the resize inode.
    fn count_resize(&mut self, block: u32, level: usize, walk: &mut Walk) -> Step {
        if self.s.walked.set(block.into()) {
            return Ok(());
        }
        let Some(slot) = self.s.levels.get_mut(level - 1) else { return Ok(()) };
        let mut buffer = take(slot);
        self.read_block(block, &mut buffer)?;
        for index in 0..self.geo.block_size.pointers() {
            let below = pointer(&buffer, index as usize);
            if below != 0 {
                walk.blocks += 1;
                walk.end = walk.end.max(1);
                if level > 1 && self.is_block(below) {
                    self.count_resize(below, level - 1, walk)?;
                }
            }
        }
        if let Some(slot) = self.s.levels.get_mut(level - 1) {
            *slot = buffer;
        }
        Ok(())
    }

    /// Whether a block of a file lies past what its kind may have.
    fn is_too_big(&self, owner: Owner, first: u64, walk: &Walk) -> bool {
        let log = self.geo.block_size.log2();
        let most = 1u64 << (41 - log);
        match owner {
            Owner::Directory => first > 1 << (31 - log) || walk.blocks + 1 >= most,
            Owner::Regular => walk.blocks + 1 >= most,
            Owner::Symlink => first > 0,
            Owner::Resize | Owner::BadBlocks => false,
        }
    }

    /// Reports the blocks from `noted` up to `first` that a directory does not have.
    fn note_holes(&mut self, nr: u32, noted: u64, first: u64) -> Step {
        if noted < first {
            let place = Place::Entry { directory: nr, block: noted, offset: 0 };
            self.report(place, Kind::DirectoryHole, Some(noted), None)?;
        }
        Ok(())
    }
}
