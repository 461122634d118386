//! What is stored anew of an inode after a loss: memory has it, and the media may not.
//!
//! What a file or directory consists of was on the media before anything pointed to it: blocks that are filled, indirect blocks, blocks
//! of a directory with their names. So a loss takes of it no more than single fields and pointers, and they go back in any order.

use alloc::vec;
use core::sync::atomic::Ordering;

use super::Cell;
use crate::DeviceBlock;
use crate::error::Result;
use crate::fs::change::Change;
use crate::map::{DIRECT, Pointers, SLOTS};
use crate::order::Barrier;
use crate::sync::Mended;

impl Cell {
    /// Whether the media may have less of the inode than memory.
    pub(super) fn may_have_lost(&self) -> bool {
        // A log takes nothing more after a loss.
        self.stored_anew.load(Ordering::SeqCst) != self.fs.losses.count() && !self.fs.is_logged()
    }

    /// Stores all that the inode has anew, once after each loss, whoever was told of it: fields, attributes, and the pointers to
    /// its blocks. It takes the `io` lock.
    pub(crate) fn store_lost(&self) -> Result<()> {
        if !self.may_have_lost() || self.fs.writer().is_err() {
            return Ok(());
        }
        let known = self.fs.losses.count();
        let _io = self.io.read();
        // One without a name is nothing that a crash could leave; with a first name it is stored anew.
        if self.attrs.lock().links > 0 {
            self.store_lost_rights()?;
            self.store_pointers_anew()?;
            self.store_body_anew()?;
        }
        self.stored_anew.store(known, Ordering::SeqCst);
        Ok(())
    }

    /// Makes what was stored to the inode durable, for who is told whether that may be lost.
    pub(crate) fn make_durable(&self, why: Barrier) -> Result<()> {
        let change = self.may_have_lost().then(|| Change::begin(&*self.fs));
        let stored = if matches!(change, Some(Ok(_))) { self.store_lost() } else { Ok(()) };
        // Also when an error ended all writing: what was stored before is to be durable. And who is told is told of all.
        let flushed = self.fs.flush_file(why, self.nr, &self.losses_told);
        stored.and(flushed)
    }

    /// Stores the inode itself anew, where a fence has lost something: as memory sees it on the device. Nobody changes size or
    /// attributes meanwhile.
    pub(crate) fn store_body_anew(&self) -> Result<()> {
        if self.fs.losses.count() == 0 || Mended::LossPassedBy.is_back() {
            return Ok(());
        }
        // Nobody stores a pointer or an attribute meanwhile.
        let _map = self.map.lock();
        let _attrs = self.attrs.lock();
        let mut body = vec![0; usize::from(self.fs.geo.inode_size)];
        self.fs.dev.read_at(self.offset, &mut body)?;
        self.fs.store_bytes(self.offset, &body)
    }

    /// Stores the pointers in indirect blocks anew.
    fn store_pointers_anew(&self) -> Result<()> {
        if !self.has_blocks() {
            return Ok(());
        }
        let _map = self.map.lock();
        // A broken map has no end.
        let mut left = self.fs.geo.blocks_count;
        // OK to cast: 12 of 15.
        (DIRECT as usize..SLOTS)
            .zip(1..)
            .try_for_each(|(slot, depth)| self.store_array_anew(self.root(slot), depth, &mut left))
    }

    /// Stores an indirect block anew, and those that it names: there are `depth` levels of them.
    fn store_array_anew(&self, pointer: u32, depth: u32, left: &mut u32) -> Result<()> {
        // What leads nowhere is nobody's to store to.
        let Some(block) = self.valid(pointer) else { return Ok(()) };
        let Some(less) = left.checked_sub(1) else {
            return Err(self.corrupt("the block map has more blocks than there are"));
        };
        *left = less;
        let mut words = vec![0; self.shape().pointers() as usize];
        if depth > 1 {
            self.read(block, 0, &mut words)?;
            words.iter().try_for_each(|pointer| self.store_array_anew(*pointer, depth - 1, left))?;
        }
        self.store_block_anew(block)
    }

    /// Stores a block of the file system's own anew, as memory sees it.
    fn store_block_anew(&self, block: DeviceBlock) -> Result<()> {
        let (at, mut bytes) = (self.fs.geo.byte_of(block), vec![0; self.fs.geo.block_size.len()]);
        self.fs.dev.read_at(at, &mut bytes)?;
        Ok(self.fs.dev.write_at(at, &bytes)?)
    }
}
