//! iomap over the block map of ext2 (`ext2_iomap_begin`, `ext2_iomap_end`).
//!
//! # Invariants
//! 1. `begin` is answered in full for the range asked, holes and runs alike (`Holes::Full`).
//! 2. Only `WRITE` allocates. A fault's blocks are zero and reachable when `begin` returns; the blocks of
//!    a write call become reachable in `end`, when the bytes are in them, so that a block that is wholly
//!    written is never zeroed first.
//! 3. `i_size` rises in `end`, after the data, mapping by mapping: nothing reported is taken back.
//! 4. A fault never undoes (L2), and a fault of 2 MiB allocates a whole aligned run or nothing.
//! 5. Who maps a hole hears of blocks from ext2-core, whoever made them, when they are reachable.

use blockdev::Access;
use ext2_core::plumbing::{Allocate, Plumbing, Publisher, Unpublished};
use ext2_core::{Barrier, FileBlock, Mapping};

use crate::compat::{Holes, Publish, Runs, WriteBlocks};
use crate::entry::PAGE_SIZE;
use crate::error::{Errno, Error, Result};
use crate::fault::DaxInode;
use crate::file::FileInner;
use crate::iomap::{Iomap, IomapOps, MapFlags, MapKind, OpFlags};
use crate::trace::Event;

/// Bytes have signed 64-bit offsets; no file reaches past the last of them.
const MAX_BYTES: u64 = 1 << 63;

impl FileInner {
    /// The blocks that hold `len` bytes from `pos`, as far as files go.
    fn blocks_of(&self, pos: u64, len: u64, flags: OpFlags) -> Result<(FileBlock, u64)> {
        if pos >= MAX_BYTES {
            return Err(Error::refused(Errno::FBIG, "no file has a byte there"));
        }
        let bytes = self.block_bytes();
        let start = pos / bytes;
        let len = len.min(MAX_BYTES - pos);
        let counts_length =
            self.compat().write_blocks == WriteBlocks::Length && flags.contains(OpFlags::WRITE);
        let mut count = if counts_length { len.div_ceil(bytes) } else { (pos + len).div_ceil(bytes) - start };
        if self.compat().runs == Runs::OneArray {
            count = count.min(self.left_in_array(start));
        }
        Ok((FileBlock::new(start), count))
    }

    /// Blocks from block `start` of the file to the end of the array whose pointer names it (Linux:
    /// `blocks_to_boundary` and one).
    fn left_in_array(&self, start: u64) -> u64 {
        const DIRECT: u64 = 12;
        let pointers = self.block_bytes() / 4;
        match start.checked_sub(DIRECT) {
            None => DIRECT - start,
            Some(within) => pointers - within % pointers,
        }
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

    /// How this operation gets its blocks.
    fn how(&self, flags: OpFlags) -> Allocate {
        if !flags.contains(OpFlags::FAULT) {
            return match self.compat().publish {
                Publish::AfterData => Allocate::AfterFill,
                Publish::AtBegin => Allocate::Published,
            };
        }
        if flags.contains(OpFlags::UNIT) { Allocate::AlignedRun } else { Allocate::Fault }
    }

    /// Zeroes new pages that are poisoned and of which a write of the bytes `pos..end` fills only a part: they heal by being
    /// stored to whole, as Linux does with all new blocks.
    fn heal_ends(&self, iomap: &Iomap<Unpublished>, pos: u64, end: u64) -> Result<()> {
        for at in [pos, end].into_iter().filter(|at| !at.is_multiple_of(PAGE_SIZE)) {
            let page = (at - at % PAGE_SIZE).max(iomap.offset);
            let inside = iomap.end().is_some_and(|end| page < end);
            let Some(byte) = iomap.addr_of(page).filter(|_| inside) else { continue };
            let memory = DaxInode::memory(self).direct_access(byte / PAGE_SIZE, 1, Access::Write);
            if matches!(memory, Err(blockdev::Error::Poisoned { .. })) {
                self.device.zero_contents(byte, PAGE_SIZE)?;
            }
        }
        Ok(())
    }
}

impl IomapOps for FileInner {
    type Private = Unpublished;

    fn begin(&self, pos: u64, len: u64, flags: OpFlags) -> Result<Iomap<Unpublished>> {
        let (start, count) = self.blocks_of(pos, len, flags)?;
        if !flags.contains(OpFlags::WRITE) || flags.contains(OpFlags::NOWAIT) {
            let mapping = self.inode.map(start, count)?;
            self.counts().question(count, mapping.count);
            if flags.contains(OpFlags::WRITE | OpFlags::NOWAIT) && mapping.is_hole() {
                return Err(Error::refused(Errno::AGAIN, "blocks would have to be allocated"));
            }
            if flags.contains(OpFlags::WRITE | OpFlags::NOWAIT) && self.inode.is_untold() {
                return Err(Error::refused(Errno::AGAIN, "who maps the hole that was there is being told"));
            }
            if flags.contains(OpFlags::FAULT) && !mapping.is_hole() {
                // What is mapped for a load may be stored to without another fault.
                self.inode.tell_found(pos..pos.saturating_add(len), Publisher::Fault);
            }
            return Ok(self.answer(&mapping));
        }
        let got = self.inode.map_for_write(start, count, self.how(flags))?;
        self.counts().question(count, got.mapping.count);
        let mut iomap = self.answer(&got.mapping);
        if flags.contains(OpFlags::FAULT) {
            // For a write the core tells whoever maps the hole, when the blocks are reachable.
            iomap.flags.set(MapFlags::NEW, got.new);
            // A store may follow at once: what leads to its page goes before it.
            self.inode.fence(Barrier::FaultReturned)?;
            if !self.inode.is_map_durable() {
                iomap.flags |= MapFlags::DIRTY;
            }
        }
        if got.unpublished.is_some() {
            self.heal_ends(&iomap, pos, pos.saturating_add(len))?;
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
                    let end = pos + written;
                    // Before the blocks are the file's: no size would cover them.
                    if end > self.fs.ext2().max_size() {
                        return Err(Error::refused(Errno::FBIG, "larger than a file can be"));
                    }
                    if let Some(unpublished) = iomap.private {
                        unpublished.publish(pos..end)?;
                    }
                    self.inode.raise_size(end, pos)?;
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

#[cfg(test)]
mod served;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blockdev::{BlockDevice, RamDevice};
    use ext2_core::{BlockSize, Ext2, FileKind, NewInode, OpenOptions};
    use ext2_image::mkfs::{self, Format, Fresh};

    use super::*;
    use crate::Wait;
    use crate::conformance::{Subject, check};
    use crate::{DaxFs, DaxOptions, File, OpenFor};

    impl Subject for FileInner {
        fn set_size(&self, size: u64, wait: Wait) -> Result<()> {
            Ok(self.inode.truncate(size, wait)?)
        }

        fn data_pages(&self) -> u64 {
            self.inode.extents().map(|extent| extent.expect("sound").count).sum()
        }
    }

    #[test]
    fn ext2_keeps_the_contract_of_iomap() {
        let new_file = || {
            // A disk that others have used.
            let device = RamDevice::new(24 << 20).unwrap();
            device.write_at(0, &vec![0xee; 24 << 20]).unwrap();
            let format = Format { block_size: BlockSize::new(4096), ..Format::default() };
            mkfs::format(&device, &format, Fresh::Unknown).unwrap();
            let ext2 = Ext2::open(Arc::new(device), &OpenOptions::default()).unwrap();
            let new = NewInode::new(FileKind::Regular, 0o644);
            let inode = ext2.root().unwrap().create(b"f", &new).unwrap();
            let fs = DaxFs::new(ext2, DaxOptions::default());
            File::open(&fs, inode, OpenFor::Writing).unwrap().0
        };
        check(new_file).unwrap();
    }
}
