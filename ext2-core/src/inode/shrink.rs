//! Taking blocks away: truncate, punch, and the end of a deleted inode (Linux: `ext2_setsize`,
//! `ext2_truncate_blocks`, `ext2_evict_inode`).
//!
//! # Invariants
//! 1. Nobody maps the bytes that go while they go: [`AddressSpace::invalidate`](crate::AddressSpace)
//!    surrounds the change.
//! 2. A truncation is noted in the superblock before anything of it is stored and struck out when all
//!    pointers are gone, so that e2fsck ends it after a crash; but not that of a file with a block of
//!    attributes, which loses its pointers before its size.
//! 3. The bytes from the new end to the end of its block are zeroed when a file shrinks, and all that is
//!    mapped of what becomes part of it without being written when it grows: what was stored past the end
//!    of file is never seen.
//! 4. Blocks are free only when their last pointer is durably gone.

use alloc::vec;
use alloc::vec::Vec;

use super::{Cell, FileKind, Inode};
use crate::balloc::Run;
use crate::error::{Corrupt, Error, Object, Result, refuse};
use crate::map::{DIRECT, Pointers, SLOTS};
use crate::order::{Durable, Unlinked, Written};
use crate::{DeviceBlock, Errno, InodeFlags, Wait};

/// Subtrees and runs that nothing points to any more.
#[derive(Debug, Default)]
struct Detached {
    /// An indirect block, and how many levels of indirect blocks are under it (0: its pointers are data).
    subtrees: Vec<(u32, u32)>,
    runs: Vec<(u32, u32)>,
}

/// What is left in an indirect block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Pointers.
    Something,
    /// None: it is of no use any more.
    Nothing,
}

impl Detached {
    fn data(&mut self, block: u32) {
        match self.runs.last_mut() {
            Some((start, len)) if start.checked_add(*len) == Some(block) => *len += 1,
            _ => self.runs.push((block, 1)),
        }
    }

    fn is_empty(&self) -> bool {
        self.subtrees.is_empty() && self.runs.is_empty()
    }
}

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
                self.fs.dev.zero(self.fs.geo.byte_of(target) + within, stop - at)?;
            }
            at = stop;
        }
        Ok(zeroed)
    }

    /// Zeroes from `offset` to the end of its block.
    pub(crate) fn zero_tail(&self, offset: u64) -> Result<()> {
        let size = self.fs.geo.block_size.bytes();
        self.zero_mapped(offset, offset.next_multiple_of(size)).map(drop)
    }

    /// Zeroes what lies past the end in the bytes `end..to`, which are about to become part of the file: what a
    /// mapping stored behind the end, and blocks of a write that a crash or a failing device ended before
    /// the size rose.
    pub(crate) fn zero_past_end(&self, end: u64, to: u64) -> Result<()> {
        if self.zero_mapped(end, to)? > 0 {
            self.fs.dev.fence()?;
        }
        Ok(())
    }

    /// Sets the size. The caller holds the `io` lock exclusive.
    pub(crate) fn set_size(&self, size: u64, wait: Wait) -> Result<()> {
        if size > self.fs.geo.max_file_size() {
            return refuse(Errno::FBIG, "larger than a file can be");
        }
        let old = self.size();
        if size >= old {
            if size > old {
                self.space.invalidate(old..size, wait, &mut || {
                    self.zero_past_end(old, size)?;
                    self.store_size(size)
                })?;
            }
        } else {
            self.space.invalidate(size..u64::MAX, wait, &mut || self.shrink(size))?;
        }
        self.touch_mtime();
        Ok(())
    }

    /// Shrinks to `size`: all that must happen while nobody maps the pages.
    fn shrink(&self, size: u64) -> Result<()> {
        let first = self.fs.geo.block_size.blocks_for(size);
        let writer = self.fs.writer()?;
        let detached = {
            let _orphan = writer.orphan.lock();
            let mut growth = self.map.lock();
            self.discard_window(&mut growth);
            // e2fsck ends the truncation of an inode that the superblock notes, but throws its block of
            // attributes away with it: such a file gets a hole at its end first, and then becomes shorter.
            // A file without a name is freed whole after a crash, and its time of deletion stays.
            let is_noted = {
                let attrs = self.attrs.lock();
                attrs.file_acl == 0 && attrs.links > 0
            };
            // What ends half-way is e2fsck's to end: the note has to stay, and nothing may take its place.
            self.fs.whole(|| {
                let mut detached = None;
                if is_noted {
                    self.store_dtime(0)?;
                    self.fs.store_orphan(self.nr.get())?;
                    self.fs.dev.fence()?;
                } else {
                    detached = Some(self.detach(first, self.shape().max_blocks()));
                    self.fs.dev.fence()?;
                }
                self.zero_tail(size)?;
                self.store_size(size)?;
                self.fs.dev.fence()?;
                match detached {
                    Some(detached) => detached,
                    None => {
                        let detached = self.detach(first, self.shape().max_blocks());
                        if !matches!(detached, Err(Error::Device(_))) {
                            self.fs.dev.fence()?;
                            self.fs.store_orphan(0)?;
                        }
                        detached
                    }
                }
            })?
        };
        self.free_detached(detached)
    }

    /// Ends a truncation that a crash left half done: frees what lies past the size.
    pub(crate) fn shrink_again(&self) -> Result<()> {
        self.shrink(self.size())
    }

    /// Takes the pointers to blocks `from..to` of the file away.
    fn detach(&self, from: u64, to: u64) -> Result<Detached> {
        let shape = self.shape();
        let mut detached = Detached::default();
        // The trees first, the deepest of them before the others: a crash between leaves a shorter file.
        for slot in (DIRECT as usize..SLOTS).rev() {
            let depth = (slot - 11) as u32;
            let start = DIRECT + (1..depth).map(|below| shape.span(below)).sum::<u64>();
            let pointer = self.root(slot);
            let (low, high) = (from.max(start), to.min(start + shape.span(depth)));
            if pointer == 0 || low >= high {
                continue;
            }
            if low == start && high == start + shape.span(depth) {
                self.store_root(slot, 0)?;
                detached.subtrees.push((pointer, depth - 1));
            } else if self.detach_in(pointer, depth - 1, low - start..high - start, &mut detached)?
                == Left::Nothing
            {
                self.store_root(slot, 0)?;
                detached.data(pointer);
            }
        }
        for slot in (from..to.min(DIRECT)).rev() {
            let pointer = self.root(slot as usize);
            if pointer != 0 {
                self.store_root(slot as usize, 0)?;
                detached.data(pointer);
            }
        }
        Ok(detached)
    }

    /// Takes pointers away inside an indirect block: `range` counts data blocks under it. Says whether any
    /// are left; a block without pointers is for the caller to take away (Linux: `all_zeroes` in
    /// `ext2_find_shared`).
    fn detach_in(
        &self,
        block: u32,
        below: u32,
        range: core::ops::Range<u64>,
        out: &mut Detached,
    ) -> Result<Left> {
        let Some(block) = self.valid(block) else {
            return Err(
                self.corrupt(alloc::format!("block map points to block {block}, outside the file system"))
            );
        };
        let shape = self.shape();
        let span = shape.span(below);
        let (first, end) = (range.start / span, range.end.div_ceil(span));
        let mut pointers = vec![0; shape.pointers() as usize];
        self.read(block, 0, &mut pointers)?;
        let mut left = Left::Nothing;
        for (index, pointer) in (0..).zip(pointers) {
            if pointer == 0 {
                continue;
            }
            if index < first || index >= end {
                left = Left::Something;
                continue;
            }
            let (low, high) = (range.start.max(index * span), range.end.min((index + 1) * span));
            if low == index * span && high == (index + 1) * span {
                self.fs.dev.write_u32(self.fs.geo.byte_of(block) + 4 * index, 0)?;
                match below {
                    0 => out.data(pointer),
                    _ => out.subtrees.push((pointer, below - 1)),
                }
            } else {
                let within = low - index * span..high - index * span;
                match self.detach_in(pointer, below - 1, within, out)? {
                    Left::Something => left = Left::Something,
                    Left::Nothing => {
                        self.fs.dev.write_u32(self.fs.geo.byte_of(block) + 4 * index, 0)?;
                        out.data(pointer);
                    }
                }
            }
        }
        Ok(left)
    }

    /// Frees what was detached: behind a fence.
    fn free_detached(&self, detached: Detached) -> Result<()> {
        if detached.is_empty() {
            return Ok(());
        }
        let gone = Written::new(Unlinked).fence(&*self.fs.dev)?;
        let mut freed = 0;
        let done = self.free_all(&gone, detached, &mut freed);
        self.count_blocks(-freed);
        done
    }

    /// Frees runs and subtrees. Something broken among them is reported at the end; the rest is freed.
    fn free_all(&self, gone: &Durable<Unlinked>, detached: Detached, freed: &mut i64) -> Result<()> {
        let mut outcome = Ok(());
        let mut free = |start: u32, len: u32| {
            let Some(start) = DeviceBlock::new(start) else { return };
            match self.fs.free(gone, Run { start, len }) {
                Ok(()) => *freed += i64::from(len),
                Err(error) => outcome = Err(error),
            }
        };
        for (start, len) in detached.runs {
            free(start, len);
        }
        let mut left = detached.subtrees;
        let mut pointers = vec![0; self.shape().pointers() as usize];
        let mut budget = self.fs.geo.blocks_count;
        while let Some((block, below)) = left.pop() {
            let Some(valid) = self.valid(block) else {
                let what = alloc::format!("block map points to block {block}, outside the file system");
                outcome = Err(self.corrupt(what));
                break;
            };
            budget = match budget.checked_sub(1) {
                Some(budget) => budget,
                None => {
                    outcome = Err(Corrupt::new(Object::Inode(self.nr), "block map leads into itself").into());
                    break;
                }
            };
            self.read(valid, 0, &mut pointers)?;
            if below > 0 {
                left.extend(
                    pointers.iter().filter(|&&pointer| pointer != 0).map(|&pointer| (pointer, below - 1)),
                );
            } else {
                let mut runs = Detached::default();
                pointers.iter().filter(|&&pointer| pointer != 0).for_each(|&pointer| runs.data(pointer));
                runs.runs.into_iter().for_each(|(start, len)| free(start, len));
            }
            free(block, 1);
        }
        outcome
    }

    /// Frees blocks of the file from `first` on.
    pub(crate) fn free_past(&self, first: u64) -> Result<()> {
        let detached = {
            let mut growth = self.map.lock();
            self.discard_window(&mut growth);
            self.detach(first, self.shape().max_blocks())?
        };
        self.free_detached(detached)
    }

    /// Takes the blocks of a byte range away and zeroes its ends, inside the file. The caller holds the
    /// `io` lock exclusive.
    pub(crate) fn punch(&self, offset: u64, len: u64, wait: Wait) -> Result<()> {
        let end = offset.saturating_add(len).min(self.size());
        if offset >= end {
            return Ok(());
        }
        let size = self.fs.geo.block_size;
        let (first, last) = (size.blocks_for(offset), size.block_of(end).get());
        // The file's last block goes whole when the range reaches the end of the file.
        let last = if end == self.size() { size.blocks_for(end) } else { last };
        self.space.invalidate(offset..end, wait, &mut || {
            if first > last
                || size.block_of(offset) == size.block_of(end - 1) && first != size.block_of(offset).get()
            {
                return self.zero_mapped(offset, end).map(drop);
            }
            self.zero_mapped(offset, first * size.bytes())?;
            self.zero_mapped(last * size.bytes(), end)?;
            if first >= last {
                return Ok(());
            }
            let detached = {
                let mut growth = self.map.lock();
                growth.forget();
                self.detach(first, last)?
            };
            self.free_detached(detached)
        })?;
        self.touch_mtime();
        Ok(())
    }

    /// Frees all that a dead inode holds, and its number. Its names are durably gone.
    pub(crate) fn evict(&self) -> Result<()> {
        // A dead inode's pointers count for nothing, so its blocks may go before them.
        let gone = Written::new(Unlinked).fence(&*self.fs.dev)?;
        let mut freed = 0;
        if self.has_blocks() {
            let mut growth = self.map.lock();
            self.discard_window(&mut growth);
            let mut all = Detached::default();
            for slot in 0..SLOTS {
                match self.root(slot) {
                    0 => {}
                    pointer if slot < DIRECT as usize => all.data(pointer),
                    pointer => all.subtrees.push((pointer, (slot - DIRECT as usize) as u32)),
                }
            }
            self.free_all(&gone, all, &mut freed)?;
        }
        self.drop_xattr_block(&gone)?;
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

    /// What is left to do when the last holder lets go.
    pub(crate) fn let_go(&self) {
        if self.fs.writer().is_err() {
            return;
        }
        let dead = self.attrs.lock().links == 0;
        let done = if dead {
            if self.kind == FileKind::Directory {
                self.fs.indexes.forget(self.nr);
            }
            self.evict()
        } else {
            let mut growth = self.map.lock();
            self.discard_window(&mut growth);
            drop(growth);
            // What was stored through mappings that are gone: nobody will know of it any more.
            let pages = self.space.get().map_or(Ok(()), |space| space.write_back(0..u64::MAX));
            pages.and_then(|()| self.write_late())
        };
        if let Err(error) = done {
            self.fs.found_broken(&error);
        }
    }

    /// Refuses changes of the contents that the attribute flags forbid.
    pub(crate) fn check_changeable(&self) -> Result<()> {
        let flags = self.attrs.lock().flags;
        if flags.intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND) {
            return refuse(Errno::PERM, "the file is immutable or append-only");
        }
        Ok(())
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
        self.0.fs.change(|| {
            self.0.check_changeable()?;
            let _io = self.0.io.write();
            self.0.set_size(size, wait)
        })
    }

    /// Makes a byte range a hole, as far as it covers whole blocks, and zeroes its ends; the size stays.
    /// Linux has this for ext4 (`FALLOC_FL_PUNCH_HOLE`); its ext2 refuses.
    ///
    /// # Errors
    /// As [`truncate`](Self::truncate).
    pub fn punch_hole(&self, offset: u64, len: u64, wait: Wait) -> Result<()> {
        self.need(FileKind::Regular)?;
        self.0.fs.change(|| {
            self.0.check_changeable()?;
            let _io = self.0.io.write();
            self.0.punch(offset, len, wait)
        })
    }

    /// Makes a byte range read as zeros: what is mapped of it is zeroed in place, holes stay holes, and
    /// the part past the end of the file is left out.
    ///
    /// # Errors
    /// As [`truncate`](Self::truncate).
    pub fn zero_range(&self, offset: u64, len: u64, wait: Wait) -> Result<()> {
        self.need(FileKind::Regular)?;
        self.0.fs.change(|| {
            self.0.check_changeable()?;
            let _io = self.0.io.write();
            let cell = &*self.0;
            let end = offset.saturating_add(len).min(cell.size());
            if offset >= end {
                return Ok(());
            }
            cell.space.invalidate(offset..end, wait, &mut || cell.zero_mapped(offset, end).map(drop))?;
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
            mode if mode == ZERO_RANGE | KEEP_SIZE => self.zero_range(offset, len, Wait::Yes),
            _ => refuse(Errno::OPNOTSUPP, "ext2 cannot keep blocks that are allocated and not written"),
        }
    }
}

impl Inode {
    /// Frees what lies past the last block that the size covers, and leaves the tail of that block as it
    /// is. The caller holds the [`io_lock`](Self::io_lock) exclusive. Linux: `ext2_truncate_blocks` at
    /// `i_size`, as `ext2_write_failed` calls it.
    ///
    /// # Errors
    /// `Corrupt`, the device's errors.
    pub fn free_past_size(&self) -> Result<()> {
        let cell = &*self.0;
        cell.fs.change(|| {
            let first = cell.fs.geo.block_size.blocks_for(cell.size());
            cell.space.invalidate(cell.size()..u64::MAX, Wait::Yes, &mut || cell.free_past(first))
        })
    }
}
