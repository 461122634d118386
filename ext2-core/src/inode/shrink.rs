//! Taking blocks away: truncate, punch, and the end of a deleted inode (Linux: `ext2_setsize`,
//! `ext2_truncate_blocks`, `ext2_evict_inode`).
//!
//! # Invariants
//! 1. Nobody maps the bytes that go while they go: [`AddressSpace::invalidate`](crate::plumbing::AddressSpace)
//!    surrounds the change.
//! 2. A truncation is noted in the superblock before anything of it is stored and struck out when all
//!    pointers are gone, so that e2fsck ends it after a crash; but not that of a file with a block of
//!    attributes, which loses its pointers before its size.
//! 3. The bytes from the new end to the end of its block are zeroed when a file shrinks, and all that is
//!    mapped of what becomes part of it without being written when it grows, and the rest of its last block when a
//!    write makes that part of it: what was stored past the end of file is never seen.
//! 4. Blocks are free only when their last pointer is durably gone.

use alloc::{vec, vec::Vec};
use core::ops::Range;

use super::cut::Detached;
use super::{Cell, FileKind, Inode};
use crate::error::{Error, Result, refuse};
use crate::fs::change::Change;
use crate::map::{DIRECT, Pointers, SLOTS};
use crate::order::{Barrier, Durable, Unlinked, Written};
use crate::space::Taken;
use crate::sync::{IoGuard, Mended};
use crate::{Errno, InodeFlags, Wait};

impl Cell {
    /// Zeroes what is mapped of the bytes `from..to`; holes stay holes. Returns the bytes that were zeroed.
    pub(crate) fn zero_mapped(&self, from: u64, to: u64) -> Result<u64> {
        let size = self.fs.geo.block_size;
        let (mut at, mut zeroed) = (from, 0);
        while at < to {
            let block = size.block_of(at);
            let mapping = self.map_blocks(block, size.blocks_for(to) - block.get())?;
            let stop = (mapping.end().get() * size.bytes()).min(to);
            if let Some(target) = mapping.target {
                zeroed += stop - at;
                if zeroed > u64::from(self.fs.geo.blocks_count) * size.bytes() {
                    return Err(self.corrupt("block map names more blocks than there are"));
                }
                let within = at - block.get() * size.bytes();
                self.fs.dev.zero_contents(self.fs.geo.byte_of(target) + within, stop - at)?;
            }
            at = stop;
        }
        Ok(zeroed)
    }

    /// Zeroes what lies past the end in its last block, up to byte `to`, which a write is about to make part of the file: a
    /// crash may show a size that covers it before it is written. The caller holds the `io` lock exclusive.
    pub(crate) fn clear_tail(&self, to: u64) -> Result<()> {
        let end = self.size();
        let tail = if end < to { self.mapped_tail(end)? } else { None };
        let Some((at, len)) = tail else { return Ok(()) };
        let mut tail = vec![0; len.min(to - end) as usize];
        self.fs.dev.read_at(at, &mut tail)?;
        let is_zero = tail.iter().all(|byte| *byte == 0);
        if is_zero { Ok(()) } else { self.zero_past_end(end, end + tail.len() as u64) }
    }

    /// Zeroes what lies past the end in the bytes `end..to`, which are about to become part of the file: what a mapping
    /// stored there, and blocks of a write that a crash or a failing device ended before the size rose.
    pub(crate) fn zero_past_end(&self, end: u64, to: u64) -> Result<()> {
        let known = self.fs.losses.count();
        if self.zero_mapped(end, to)? > 0 {
            self.fs.fence_since(Barrier::PastEndZeroed, known)?;
        }
        Ok(())
    }

    /// Sets the size. The caller holds the `io` lock exclusive.
    pub(crate) fn set_size(&self, size: u64) -> Result<()> {
        if size > self.fs.geo.max_file_size() {
            return refuse(Errno::FBIG, "larger than a file can be");
        }
        let old = self.size();
        if size > old {
            // Nothing is taken: nobody has to be kept away, and nobody is waited for.
            self.zero_past_end(old, size)?;
            self.lengthen(size)?;
        } else if size < old {
            let mut late = Ok(());
            self.space.invalidate(self.past(size), Taken::Truncated, &mut || {
                let done = self.shrink(size);
                // Once the file ends there its pages are gone, whatever fails after it.
                if self.size() > size {
                    return done;
                }
                late = done;
                Ok(())
            })?;
            if late.is_err() {
                // It is shorter all the same.
                self.touch_mtime();
                return late;
            }
        }
        self.touch_mtime();
        Ok(())
    }

    /// The bytes that go when the file ends at `size`, to the end of its last block: what is leased past that stays.
    fn past(&self, size: u64) -> Range<u64> {
        let blocks = self.fs.geo.block_size;
        size..blocks.blocks_for(self.size()) * blocks.bytes()
    }

    /// Shrinks to `size`: all that must happen while nobody maps the pages.
    fn shrink(&self, size: u64) -> Result<()> {
        let first = self.fs.geo.block_size.blocks_for(size);
        let (writer, known) = (self.fs.writer()?, self.fs.losses.count());
        let mut detached = Detached::default();
        let gone = {
            let orphans = writer.orphan.lock();
            let mut growth = self.map.lock();
            self.discard_window(&mut growth);
            // All that has to be read is read before anything is stored: what is broken or cannot be read
            // leaves the file as it is.
            let cuts = self.plan_cuts(first, self.shape().max_blocks())?;
            let tail = self.mapped_tail(size)?;
            // Where it can be read it can be stored to.
            tail.map_or(Ok(()), |(at, _)| self.fs.dev.read_at(at, &mut [0]))?;
            // e2fsck ends the truncation of an inode that the superblock notes, but throws its block of
            // attributes away with it: such a file gets a hole at its end first, and then becomes shorter.
            // A file without a name is freed whole after a crash, and its time of deletion stays.
            let is_noted = {
                let attrs = self.attrs.lock();
                attrs.file_acl == 0 && attrs.links > 0
            };
            // What ends half-way is e2fsck's to end: the note has to stay, and nothing may take its place.
            let dev = &*self.fs.dev;
            let mut cut = || -> Result<_> {
                if let Some((at, len)) = tail {
                    dev.zero(at, len)?;
                }
                self.cut(&cuts, &mut detached)?;
                Ok(Written::since(known, Unlinked))
            };
            self.fs.whole(|| {
                if !is_noted {
                    let gone = cut()?.fence(Barrier::TailDetached, &*self.fs)?;
                    self.store_size(size)?;
                    return Ok(gone);
                }
                self.store_dtime(0)?;
                self.fs.list_orphan(&orphans, Some(self.nr))?;
                self.store_size(size)?;
                // From here on a crash ends in the new size; until then the bytes past it are as they were.
                self.fs.fence_since(Barrier::Truncated, known)?;
                let gone = cut()?.fence(Barrier::TruncationEnded, &*self.fs)?;
                self.fs.end_orphans(&orphans, None)?;
                Ok(gone)
            })?
        };
        self.free_detached(detached, &gone)
    }

    /// Where the bytes from `offset` to the end of its block lie on the device, and how many, if any and mapped.
    fn mapped_tail(&self, offset: u64) -> Result<Option<(u64, u64)>> {
        let size = self.fs.geo.block_size;
        let within = offset % size.bytes();
        if within == 0 {
            return Ok(None);
        }
        let target = self.map_blocks(size.block_of(offset), 1)?.target;
        Ok(target.map(|block| (self.fs.geo.byte_of(block) + within, size.bytes() - within)))
    }

    /// Ends a truncation that a crash left half done: frees what lies past the size.
    pub(crate) fn shrink_again(&self) -> Result<()> {
        self.shrink(self.size())
    }

    /// Frees blocks of the file from `first` on.
    pub(crate) fn free_past(&self, first: u64) -> Result<()> {
        let mut growth = self.map.lock();
        self.discard_window(&mut growth);
        let cuts = self.plan_cuts(first, self.shape().max_blocks())?;
        self.cut_and_free(&cuts)
    }

    /// Frees what lies past the last block that the size covers. The caller holds the `io` lock exclusive.
    pub(crate) fn free_past_size(&self) -> Result<()> {
        let end = self.past(self.size()).end;
        // What lies past the end of the file is nobody's: no page goes, and no lease is in the way.
        let first = self.fs.geo.block_size.block_of(end).get();
        self.space.invalidate(end..end, Taken::Truncated, &mut || self.free_past(first))
    }

    /// Takes the blocks of a byte range away and zeroes its ends, inside the file. The caller holds the `io` lock exclusive.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let asked = offset.saturating_add(len);
        let end = asked.min(self.size());
        if offset >= end {
            return Ok(());
        }
        let size = self.fs.geo.block_size;
        let (first, last) = (size.blocks_for(offset), size.block_of(end).get());
        // The file's last block goes whole when the range reaches past the end of the file (Linux: `ext4_punch_hole`).
        let last = if asked > end { size.blocks_for(end) } else { last };
        self.space.invalidate(offset..end, Taken::Punched, &mut || {
            if first > last {
                return self.zero_mapped(offset, end).map(drop);
            }
            let mut growth = self.map.lock();
            let cuts = if first < last { self.plan_cuts(first, last)? } else { Vec::new() };
            self.zero_mapped(offset, first * size.bytes())?;
            self.zero_mapped(last * size.bytes(), end)?;
            growth.forget();
            self.cut_and_free(&cuts)
        })?;
        self.touch_mtime();
        Ok(())
    }

    /// Frees all that a dead inode holds, and its number. Its names are durably gone.
    pub(crate) fn evict(&self) -> Result<()> {
        // It was stored that it has no links before its last name went, behind fences, so its pointers count for
        // nothing, and its blocks may go before them.
        let gone = Durable::already(Unlinked);
        if !self.leave_orphans()? {
            return Ok(());
        }
        let mut freed = 0;
        if self.has_blocks() {
            let mut growth = self.map.lock();
            self.discard_window(&mut growth);
            let mut all = Detached::default();
            for slot in 0..SLOTS {
                match self.root(slot) {
                    0 => {}
                    pointer if slot < DIRECT as usize => all.data(pointer),
                    pointer => all.subtree(pointer, (slot - DIRECT as usize) as u32),
                }
            }
            self.free_all(&gone, all, &mut freed)?;
        }
        self.drop_xattr_block(&gone)?;
        self.drop_translator(&gone)?;
        for slot in 0..SLOTS {
            if self.root(slot) != 0 {
                self.store_root(slot, 0)?;
            }
        }
        self.store_size(0)?;
        {
            let mut attrs = self.attrs.lock();
            attrs.blocks_512 = 0;
            attrs.late = true;
        }
        self.write_late()?;
        self.fs.free_inode(&gone, self.nr, self.kind)
    }

    /// Sees to it that an inode that is about to die does not share its attributes: it gets its own. Where there is no room
    /// for that it is put in the list of orphans: the block has a user less from the death on, and says so when the inode is
    /// freed. One at a time: another that dies meanwhile is in no list.
    pub(crate) fn join_orphans(&self) -> Result<()> {
        if !self.shares_xattrs()? || self.unshare_xattrs()? {
            return Ok(());
        }
        if !matches!(self.kind, FileKind::Regular | FileKind::Directory) {
            return Ok(());
        }
        let mut orphans = self.fs.writer()?.orphan.lock();
        let is_listed = self.fs.list_dead(&mut orphans, self.nr, self.offset)?;
        self.attrs.lock().is_orphan = is_listed;
        Ok(())
    }

    /// Takes a dead inode out of the list of orphans, and with it a user from its block of attributes: two stores, with
    /// nothing between them. Where the device fails it may still be in the list, with all that it has: then that is left to
    /// e2fsck, and the image is not marked as one with errors, since e2fsck passes over the list of such an image.
    fn leave_orphans(&self) -> Result<bool> {
        if !self.attrs.lock().is_orphan {
            return Ok(true);
        }
        let mut orphans = self.fs.writer()?.orphan.lock();
        match self.leave_shared_xattrs(&mut orphans) {
            Err(error @ Error::Device(_)) if orphans.dead.is_some() => {
                log::error!("inode {} is left to e2fsck: {error}", self.nr);
                self.fs.leave_unsettled();
                return Ok(false);
            }
            done => done?,
        }
        self.attrs.lock().is_orphan = false;
        self.store_dtime(self.fs.time_of_death(self.fs.clock.now()))?;
        Ok(true)
    }

    /// What is left to do when the last holder lets go.
    pub(crate) fn let_go(&self) {
        let (dead, late) = {
            let attrs = self.attrs.lock();
            (attrs.links == 0, attrs.late)
        };
        let change = Change::begin(&*self.fs);
        if change.is_err() && (dead || late) {
            self.fs.leave_unsettled();
        }
        let done = match (&change, dead) {
            (Ok(_), true) => {
                if self.kind == FileKind::Directory {
                    self.fs.indexes.forget(self.nr);
                }
                self.evict()
            }
            (Err(_), true) => Ok(()),
            // What was stored through mappings that are gone, also where nothing else is written any more.
            (_, false) => {
                self.discard_window(&mut self.map.lock());
                self.leave_rights();
                let pages = self.space.get().map_or(Ok(()), |space| space.write_back(0..u64::MAX));
                // Of what was changed since a loss: a sync of the whole finds it gone.
                let lost = if change.is_ok() && late { self.store_lost() } else { Ok(()) };
                let late = if change.is_ok() { self.write_late() } else { Ok(()) };
                // Nobody tries again: it is lost, and who syncs the file or the whole later is told.
                for error in [pages, lost, late].iter().filter_map(|done| done.as_ref().err()) {
                    self.fs.note_loss(error);
                }
                Ok(())
            }
        };
        if let Err(error) = done {
            self.fs.found_broken(&error);
        }
    }

    /// Refuses changes of the contents that the attribute flags forbid. Under the `io` lock, as they are set: once that has
    /// returned nothing changes any more.
    pub(crate) fn check_changeable(&self) -> Result<()> {
        let flags = self.attrs.lock().flags;
        if flags.intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND) {
            return refuse(Errno::PERM, "the file is immutable or append-only");
        }
        Ok(())
    }

    /// Refuses changes that an append-only inode suffers and an immutable one does not. Under the `io` lock, too.
    pub(crate) fn check_mutable(&self) -> Result<()> {
        if self.attrs.lock().flags.contains(InodeFlags::IMMUTABLE) {
            return refuse(Errno::PERM, "the file is immutable");
        }
        Ok(())
    }

    /// Takes the `io` lock for a change that the attribute flags may forbid.
    ///
    /// # Errors
    /// As [`check_changeable`](Self::check_changeable).
    pub(crate) fn io_to_change(&self) -> Result<IoGuard<'_>> {
        let is_early = Mended::FlagsLookedAtFirst.is_back();
        if is_early {
            self.check_changeable()?;
        }
        let io = self.io.write();
        if !is_early {
            self.check_changeable()?;
        }
        Ok(io)
    }
}

impl Inode {
    /// Sets the size in bytes. A shorter file gives its blocks back; a longer one gets a hole. Waits for
    /// whoever holds pages that go, or is refused. Linux: `ext2_setsize`.
    ///
    /// # Errors
    /// `EFBIG`, `EPERM` for an immutable or append-only file, `EBUSY` when told not to wait, `EISDIR`,
    /// `EINVAL`, `EROFS`; `Corrupt`, the device's errors.
    pub fn truncate(&self, size: u64, wait: Wait) -> Result<()> {
        self.need(FileKind::Regular)?;
        let taken = || self.0.past(size);
        self.0.space.patiently(taken, wait, || {
            self.0.fs.change(|| {
                let _io = self.0.io_to_change()?;
                self.0.set_size(size)
            })
        })
    }

    /// Makes a byte range a hole, as far as it covers whole blocks, and zeroes its ends; the size stays. A range that
    /// reaches past the end of the file covers the file's last block. Linux has this for ext4 (`FALLOC_FL_PUNCH_HOLE`); its ext2 refuses.
    ///
    /// # Errors
    /// As [`truncate`](Self::truncate).
    pub fn punch_hole(&self, offset: u64, len: u64, wait: Wait) -> Result<()> {
        self.need(FileKind::Regular)?;
        // As far as the file goes: what is leased past its end stays.
        let taken = || offset..offset.saturating_add(len).min(self.size());
        self.0.space.patiently(taken, wait, || {
            self.0.fs.change(|| {
                let _io = self.0.io_to_change()?;
                self.0.punch(offset, len)
            })
        })
    }

    /// Makes a byte range read as zeros: what is mapped of it is zeroed in place, holes stay holes, and
    /// the part past the end of the file is left out. No block is taken, so that nobody is waited for.
    ///
    /// # Errors
    /// As [`truncate`](Self::truncate), without `EBUSY`.
    pub fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        self.need(FileKind::Regular)?;
        self.0.fs.change(|| {
            let _io = self.0.io_to_change()?;
            let cell = &*self.0;
            let end = offset.saturating_add(len).min(cell.size());
            if offset >= end {
                return Ok(());
            }
            cell.zero_mapped(offset, end)?;
            cell.touch_mtime();
            Ok(())
        })
    }

    /// `fallocate`: punching a hole is done; what ext2 has no way to store (blocks that are allocated but
    /// read as zeros, collapsing, inserting) is refused.
    ///
    /// # Errors
    /// `EOPNOTSUPP`; `EINVAL` for a length of 0; as [`punch_hole`](Self::punch_hole).
    pub fn fallocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        const ZERO_RANGE: u32 = 0x10;
        if len == 0 {
            return refuse(Errno::INVAL, "a length of 0");
        }
        match mode {
            mode if mode == PUNCH_HOLE | KEEP_SIZE => self.punch_hole(offset, len, Wait::Yes),
            mode if mode == ZERO_RANGE | KEEP_SIZE => self.zero_range(offset, len),
            _ => refuse(Errno::OPNOTSUPP, "ext2 cannot keep blocks that are allocated and not written"),
        }
    }
}
