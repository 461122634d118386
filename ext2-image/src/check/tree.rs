//! The block tree of an inode: every block claimed, counted, and for a directory noted.

use core::mem::offset_of;

use super::finding::{Kind, Place};
use super::memo::{Mapped, Pointers};
use super::run::{DirBlock, Mode, Run, Step};
use ext2_core::raw::RawInode;

/// `EXT2_OS_HURD` in `s_creator_os`.
pub(crate) const HURD: u32 = 1;

/// What the walk of a tree gives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    /// Blocks, indirect ones included.
    pub(crate) blocks: u64,
    /// One past the last block of the file that is mapped; 0 for none.
    pub(crate) end: u64,
    /// For a directory: the block of the file up to which holes were noted.
    noted: u64,
}

/// What kind of file is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Directory,
    Regular,
    Symlink,
    /// The resize inode, whose blocks but one are metadata already.
    Resize,
    /// The inode of bad blocks, which claims nothing that is in use.
    BadBlocks,
}

/// A pointer in a block map.
#[derive(Clone, Copy)]
struct Pointer {
    /// Where it lies, in bytes of the device.
    at: u64,
    block: u32,
    /// 0 for one to data, otherwise how many levels of pointers are below.
    level: usize,
}

impl Run<'_> {
    /// Walks the block map of an inode.
    pub(crate) fn walk_tree(&mut self, nr: u32, inode: &RawInode, owner: Owner) -> Step<Walk> {
        let mut walk = Walk::default();
        if self.sb.creator_os == HURD && !matches!(owner, Owner::Resize | Owner::BadBlocks) {
            self.claim_translator(nr, inode.i_osd1.get())?;
        }
        let map = self.inode_offset(nr).unwrap_or(0) + offset_of!(RawInode, i_block) as u64;
        let pointers = self.geo.block_size.pointers();
        let mut first = 0;
        for (slot, block) in inode.i_block.iter().enumerate() {
            let level = slot.saturating_sub(11);
            if block.get() != 0 {
                let at = map + slot as u64 * 4;
                self.visit(nr, owner, Pointer { at, block: block.get(), level }, first, &mut walk)?;
            }
            first += pointers.pow(level as u32);
        }
        Ok(walk)
    }

    /// Claims the block of a translator of the Hurd (`h_i_translator`), which is not among those that `i_blocks` counts.
    fn claim_translator(&mut self, nr: u32, block: u32) -> Step {
        if block == 0 {
            return Ok(());
        }
        let field = offset_of!(RawInode, i_osd1);
        if !self.is_block(block) {
            if self.report(Place::Inode(nr), Kind::IllegalBlock, Some(block.into()), None)? {
                self.put_u32(nr, field, 0)?;
            }
            return Ok(());
        }
        let at = self.inode_offset(nr).unwrap_or(0) + field as u64;
        self.claim(nr, block, at, 0).map(drop)
    }

    /// Visits a pointer that is for the block `first` of the file.
    fn visit(&mut self, nr: u32, owner: Owner, pointer: Pointer, first: u64, walk: &mut Walk) -> Step {
        let Pointer { at, block, level } = pointer;
        if block == 0 {
            return Ok(());
        }
        if !self.is_block(block) {
            let kind = if owner == Owner::BadBlocks { Kind::BadBlocksIllegal } else { Kind::IllegalBlock };
            if self.report(Place::Inode(nr), kind, Some(block.into()), None)? {
                self.dev.write_u32(at, 0)?;
            }
            return Ok(());
        }
        if level == 0 && self.is_too_big(owner, first, walk) {
            if self.report(Place::Inode(nr), Kind::TooBig, Some(first), None)? {
                self.dev.write_u32(at, 0)?;
            }
            return Ok(());
        }
        let mut read = None;
        if level > 0 && self.mode == Mode::Repair && self.may_be_garbage(block, owner) {
            let pointers = self.pointers_in(block)?;
            if self.is_garbage(&pointers) {
                self.done_with(&pointers);
                // What it points to is lost, what the rest of the file has is not.
                if self.report(Place::Inode(nr), Kind::IllegalBlock, Some(block.into()), None)? {
                    self.dev.write_u32(at, 0)?;
                }
                return Ok(());
            }
            read = Some(pointers);
        }
        let fresh = match owner {
            Owner::Resize if level != 2 => true,
            Owner::BadBlocks => {
                if self.s.metadata.get(block.into())
                    && self.report(Place::Inode(nr), Kind::BadBlocksMetadata, Some(block.into()), None)?
                {
                    // It is used all the same, and the rest of the list stays.
                    self.dev.write_u32(at, 0)?;
                    return Ok(());
                }
                self.s.found.set(block.into());
                true
            }
            _ => self.claim(nr, block, at, level)?,
        };
        walk.blocks += 1;
        if level > 0 {
            // Inside metadata there is no tree: the resize inode was checked with the layout.
            if owner == Owner::Resize {
                return self.count_spare(block, level, walk);
            }
            // What lies in metadata is not mended as pointers: the file gets a copy first, and that is looked at again.
            if !fresh && self.mode == Mode::Repair && self.s.metadata.get(block.into()) {
                if let Some(pointers) = &read {
                    self.done_with(pointers);
                }
                return Ok(());
            }
            return self.descend(nr, owner, pointer, first, walk, read);
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

    /// Visits what an indirect block points to, which was `read` already or is read now.
    fn descend(
        &mut self,
        nr: u32,
        owner: Owner,
        from: Pointer,
        first: u64,
        walk: &mut Walk,
        read: Option<Pointers>,
    ) -> Step {
        let Pointer { block, level, .. } = from;
        if self.s.walked.set(block.into()) {
            if let Some(pointers) = &read {
                self.done_with(pointers);
            }
            return Ok(());
        }
        let pointers = match read {
            Some(pointers) => pointers,
            None => self.pointers_in(block)?,
        };
        let span = self.geo.block_size.pointers().pow(level as u32 - 1);
        for run in 0.. {
            let Some(Mapped { index, block: below, len }) = self.run_of(&pointers, run) else { break };
            let start = first + u64::from(index) * span;
            if level == 1 && owner == Owner::Regular && self.claim_run(below, len, walk) {
                walk.end = start + u64::from(len);
                continue;
            }
            for more in 0..len {
                let at = self.byte_of(block) + u64::from(index + more) * 4;
                let below = Pointer { at, block: below + more, level: level - 1 };
                self.visit(nr, owner, below, start + u64::from(more) * span, walk)?;
            }
        }
        self.done_with(&pointers);
        Ok(())
    }

    /// Claims a run of blocks with data of a regular file, if there is nothing to be said about any of them.
    fn claim_run(&mut self, block: u32, len: u32, walk: &mut Walk) -> bool {
        let most = 1u64 << (41 - self.geo.block_size.log2());
        let is_plain = self.is_block(block)
            && self.is_block(block + (len - 1))
            && walk.blocks + u64::from(len) < most
            && self.s.found.set_if_clear(block.into(), len.into());
        walk.blocks += if is_plain { u64::from(len) } else { 0 };
        is_plain
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
            if self.report(place, Kind::DirectoryHole, Some(noted), None)?
                && !self.later.holes.ends_with(&[nr])
            {
                self.later.holes.push(nr);
            }
        }
        Ok(())
    }

    /// Whether it is worth a look whether an indirect block was overwritten.
    fn may_be_garbage(&self, block: u32, owner: Owner) -> bool {
        !matches!(owner, Owner::Resize | Owner::BadBlocks) && !self.s.walked.get(block.into())
    }
}
