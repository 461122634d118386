//! iomap over the block map of ext2 (`ext2_iomap_begin`, `ext2_iomap_end`).
//!
//! # Invariants
//! 1. `begin` is answered in full for the range asked, holes and runs alike (`Holes::Full`).
//! 2. Only `WRITE` allocates. A fault's blocks are zero and reachable when `begin` returns; the blocks of
//!    a write call become reachable in `end`, when the bytes are in them, so that a block that is wholly
//!    written is never zeroed first.
//! 3. `i_size` rises in `end`, after the data, mapping by mapping: nothing reported is taken back.
//! 4. A fault never undoes (L2), and a fault of 2 MiB allocates a whole aligned run or nothing.

use ext2_core::{Allocate, Barrier, FileBlock, Mapping, Unpublished};

use crate::compat::{Holes, Publish};
use crate::entry::{PMD_PAGES, PMD_SIZE};
use crate::error::{Error, Result, errno};
use crate::fault::DaxInode;
use crate::file::FileInner;
use crate::iomap::{Iomap, IomapOps, MapFlags, MapKind, OpFlags};
use crate::trace::Event;

impl FileInner {
    /// The blocks that hold `len` bytes from `pos`.
    fn blocks_of(&self, pos: u64, len: u64) -> Result<(FileBlock, u64)> {
        let bytes = self.block_bytes();
        let too_far = || Error::refused(errno::EFBIG, "no file has a byte there");
        let end = pos.checked_add(len).ok_or_else(too_far)?;
        Ok((FileBlock::new(pos / bytes), end.div_ceil(bytes) - pos / bytes))
    }

    fn answer(&self, mapping: &Mapping) -> Iomap<Unpublished> {
        let bytes = self.block_bytes();
        let offset = mapping.start.get() * bytes;
        match mapping.target {
            None if self.compat().holes == Holes::OneBlock => Iomap::hole(offset, bytes),
            None => Iomap::hole(offset, mapping.count * bytes),
            Some(block) => {
                let mut iomap = Iomap::mapped(offset, mapping.count * bytes, self.byte_of(block));
                iomap.flags |= MapFlags::MERGED;
                iomap
            }
        }
    }

    /// How blocks for this operation are to be had.
    fn how(&self, len: u64, flags: OpFlags) -> Allocate {
        if !flags.contains(OpFlags::FAULT) {
            return match self.compat().publish {
                Publish::AfterData => Allocate::AfterFill,
                Publish::AtBegin => Allocate::Published,
            };
        }
        if len == PMD_SIZE { Allocate::AlignedRun } else { Allocate::Published }
    }

    /// Whether a run of blocks that is aligned within the device can be mapped by one PMD.
    fn device_is_aligned(&self) -> bool {
        DaxInode::memory(self).pfn(0).is_multiple_of(PMD_PAGES)
    }
}

impl IomapOps for FileInner {
    type Private = Unpublished;

    fn begin(&self, pos: u64, len: u64, flags: OpFlags) -> Result<Iomap<Unpublished>> {
        let (start, count) = self.blocks_of(pos, len)?;
        let how = self.how(len, flags);
        let lookup = !flags.contains(OpFlags::WRITE)
            || flags.contains(OpFlags::NOWAIT)
            || (how == Allocate::AlignedRun && !self.device_is_aligned());
        if lookup {
            let mapping = self.inode.map(start, count)?;
            self.counts().question(count, mapping.count);
            if flags.contains(OpFlags::WRITE | OpFlags::NOWAIT) && mapping.is_hole() {
                return Err(Error::refused(errno::EAGAIN, "blocks would have to be allocated"));
            }
            return Ok(self.answer(&mapping));
        }
        let got = self.inode.map_for_write(start, count, how)?;
        self.counts().question(count, got.mapping.count);
        let mut iomap = self.answer(&got.mapping);
        if got.new {
            iomap.flags |= MapFlags::NEW;
        }
        if flags.contains(OpFlags::FAULT) {
            // A store may follow at once: what leads to its page goes before it.
            Barrier::FaultReturned.fence(&*self.device)?;
            if !self.inode.is_map_durable() {
                iomap.flags |= MapFlags::DIRTY;
            }
        }
        iomap.private = got.unpublished;
        Ok(iomap)
    }

    fn end(&self, pos: u64, len: u64, written: u64, flags: OpFlags, iomap: Iomap<Unpublished>) -> Result<()> {
        if !flags.contains(OpFlags::WRITE) || flags.contains(OpFlags::FAULT) {
            return Ok(());
        }
        match self.compat().publish {
            Publish::AfterData => {
                if written < len && iomap.private.is_some() {
                    self.pages.emit(|| Event::Undo { pos: pos + written, len: len - written });
                }
                if written > 0 {
                    if let Some(unpublished) = iomap.private {
                        unpublished.publish(pos..pos + written)?;
                    }
                    self.inode.raise_size(pos + written, pos)?;
                }
            }
            Publish::AtBegin => {
                // Linux looks at the old size, and frees what earlier steps of this very call have
                // written (L1).
                if iomap.kind == MapKind::Mapped && written < len && pos + len > self.inode.size() {
                    let size = self.inode.size();
                    self.pages.emit(|| Event::Undo { pos: size, len: (pos + len) - size });
                    if let Err(error) = self.inode.free_past_size() {
                        log::warn!(target: "ext2_dax::iomap", "blocks of a failed write stay: {error}");
                    }
                }
            }
        }
        Ok(())
    }
}
