//! Giving a file blocks (Linux: `ext2_get_blocks` with `create`).
//!
//! # Invariants
//! 1. A block is filled or zero on the media before any pointer to it is: the fence lies between.
//! 2. New indirect blocks are built whole before the one store that makes them reachable; the top pointer
//!    is written last.
//! 3. Blocks that are not published go back when their guard is dropped.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::spare::Spare;
use super::{Cell, FileKind, Inode};
use crate::balloc::{Blocks, Request, Role, Run, Window};
use crate::error::{Result, refuse};
use crate::map::{Mapping, Pointers};
use crate::order::{Durable, Unlinked, Written};
use crate::{DeviceBlock, Errno, FileBlock, GroupNr};

/// What a file remembers of its growth.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// The last block given: in the file, and on the device.
    last: Option<(u64, u32)>,
    window: Option<Window>,
}

impl Growth {
    /// Forgets where the file grew last: those blocks may be gone.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}

/// How blocks are wanted for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Zeroed and reachable when the call returns.
    Published,
    /// Reachable only once the caller has filled them: see [`Unpublished`].
    AfterFill,
    /// For a write fault that could map 2 MiB: a whole, aligned, contiguous run that fills the range, zeroed
    /// and reachable; where there is none, nothing is allocated and the answer is the hole.
    AlignedRun,
}

/// What a write found or got.
#[derive(Debug)]
pub struct WriteMapping {
    /// Hole only for [`Allocate::AlignedRun`]; otherwise mapped.
    pub mapping: Mapping,
    /// Whether the blocks are new.
    pub new: bool,
    /// New blocks that nothing points to yet.
    pub unpublished: Option<Unpublished>,
}

/// New blocks of a file that nothing points to yet. Their contents are undefined. Dropping it gives them
/// back; what was stored in them is then lost, and nothing else is.
#[derive(Debug)]
#[must_use = "dropping it gives the blocks back"]
pub struct Unpublished {
    inode: Inode,
    start: u64,
    run: Run,
    blocks: Blocks,
    spare: Spare,
}

impl Unpublished {
    /// Makes the blocks reachable that `written`, a byte range of the file, touches; the caller has
    /// filled that range, and the rest of those blocks is zeroed here. A fence separates contents and
    /// pointers. Blocks that `written` does not touch go back. Where somebody else gave the file a block
    /// meanwhile, the written bytes are copied into that one.
    ///
    /// # Errors
    /// `ENOSPC` for indirect blocks, the device's: nothing is reachable then, or a first part.
    pub fn publish(self, written: Range<u64>) -> Result<()> {
        let cell = &*self.inode.0;
        let size = cell.fs.geo.block_size;
        let own = self.start * size.bytes()..(self.start + u64::from(self.run.len)) * size.bytes();
        let written = written.start.max(own.start)..written.end.min(own.end);
        if written.is_empty() {
            return Ok(());
        }
        let first = size.block_of(written.start).get();
        let end = size.blocks_for(written.end);
        let device = |offset: u64| size.bytes() * u64::from(self.run.block(0)) + (offset - own.start);
        let (head, tail) = (first * size.bytes(), end * size.bytes());
        if head < written.start {
            cell.fs.dev.zero(device(head), written.start - head)?;
        }
        if written.end < tail {
            cell.fs.dev.zero(device(written.end), tail - written.end)?;
        }
        let Self { inode, start, run, blocks, mut spare } = self;
        let cell = &*inode.0;
        let part = |from: u64, to: u64| run.part((from - start) as u32, (to - from) as u32);
        let mut growth = cell.map.lock();
        // What nobody needs goes back when this is dropped; what is published is taken out of it.
        let mut rest = Blocks::new(&cell.fs);
        blocks.keep();
        for range in [(start, first), (end, start + u64::from(run.len))] {
            if let Some(part) = part(range.0, range.1) {
                rest.push(part);
            }
        }
        let mut at = first;
        while at < end {
            let there = match cell.map_blocks(FileBlock::new(at), end - at) {
                Ok(there) => there,
                Err(error) => {
                    part(at, end).into_iter().for_each(|part| rest.push(part));
                    return Err(error);
                }
            };
            let next = at + there.count;
            let Some(here) = part(at, next) else { break };
            let done = match there.target {
                None => {
                    let mut guard = Blocks::new(&cell.fs);
                    guard.push(here);
                    cell.publish(&mut growth, at, here, Written::new(guard), &mut spare)
                }
                Some(start) => {
                    rest.push(here);
                    let theirs = Run { start, len: here.len };
                    let range = written.start.max(at * size.bytes())..written.end.min(next * size.bytes());
                    let place =
                        |run: Run| u64::from(run.block(0)) * size.bytes() + (range.start - at * size.bytes());
                    cell.copy_on_device(place(here), place(theirs), range.end - range.start)
                }
            };
            if let Err(error) = done {
                part(next, end).into_iter().for_each(|part| rest.push(part));
                return Err(error);
            }
            at = next;
        }
        Ok(())
    }
}

impl Cell {
    /// Copies bytes from one place of the device to another.
    pub(crate) fn copy_on_device(&self, from: u64, to: u64, len: u64) -> Result<()> {
        let mut buffer = vec![0; len.min(1 << 16) as usize];
        let mut done = 0;
        while done < len {
            let part = &mut buffer[..(len - done).min(1 << 16) as usize];
            self.fs.dev.read_at(from + done, part)?;
            self.fs.dev.write_at(to + done, part)?;
            done += part.len() as u64;
        }
        Ok(())
    }

    /// The group of the inode.
    pub(crate) fn home(&self) -> GroupNr {
        self.fs.geo.group_of_inode(self.nr).map_or(GroupNr::new(0), |(group, _)| group)
    }

    /// The block that would be best for block `start` of the file (Linux: `ext2_find_goal`), and where the
    /// file's unit of 2 MiB around it begins on the device, if a part of it lies aligned already.
    fn goal(&self, growth: &Growth, start: u64) -> Result<(u32, Option<u32>)> {
        let place = &self.fs.writer()?.place;
        let unit = u64::from(place.unit());
        let unit_start = start - start % unit;
        let base_from = |logical: u64, block: u32| {
            let back = u32::try_from(logical - unit_start).ok()?;
            block.checked_sub(back).filter(|&base| base > 0 && place.is_aligned(base))
        };
        let left = match growth.last {
            Some((logical, block)) if logical + 1 == start => Some(block),
            _ if start > 0 => self.map_blocks(FileBlock::new(start - 1), 1)?.target.map(DeviceBlock::get),
            _ => None,
        };
        let mut base = left.filter(|_| start > unit_start).and_then(|block| base_from(start - 1, block));
        if base.is_none() && start > unit_start {
            let first = self.map_blocks(FileBlock::new(unit_start), start - unit_start)?;
            base = match first.target {
                Some(block) => base_from(unit_start, block.get()),
                // A hole at the unit's start; what follows it tells.
                None if first.end().get() < start => {
                    let next = self.map_blocks(first.end(), 1)?;
                    next.target.and_then(|block| base_from(next.start.get(), block.get()))
                }
                None => None,
            };
        }
        if base.is_none() && start + 1 < unit_start + unit {
            let next = self.map_blocks(FileBlock::new(start), unit_start + unit - start)?;
            if next.is_hole() && next.end().get() < unit_start + unit {
                let after = self.map_blocks(next.end(), 1)?;
                base = after.target.and_then(|block| base_from(after.start.get(), block.get()));
            }
        }
        let goal = left.map_or_else(
            || {
                let last = growth.last.map(|(_, block)| block);
                last.unwrap_or_else(|| self.fs.geo.group_start(self.home()))
            },
            |block| block.saturating_add(1),
        );
        Ok((goal, base))
    }

    /// Takes blocks for the file's data from block `start` on.
    fn take_data(&self, growth: &mut Growth, start: u64, count: u64) -> Result<(Run, Blocks)> {
        let place = &self.fs.writer()?.place;
        let (goal, unit_base) = self.goal(growth, start)?;
        let small = place.small_file_blocks(self.fs.geo.block_size.bytes());
        let role = match self.kind {
            FileKind::Regular => {
                Role::Data { logical: start, big: start.saturating_add(count) > small, unit_base }
            }
            _ => Role::Meta,
        };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let window = growth.window.clone();
        let (run, window) =
            self.fs.take(&Request { owner: self.nr, home: self.home(), goal, count, role, window })?;
        growth.window = window;
        let mut guard = Blocks::new(&self.fs);
        guard.push(run);
        Ok((run, guard))
    }

    /// Gives up what is reserved for the file's growth.
    pub(crate) fn discard_window(&self, growth: &mut Growth) {
        growth.last = None;
        if let Some(window) = growth.window.take()
            && let Err(error) = self.fs.release_window(&window)
        {
            log::debug!("inode {}: window kept: {error}", self.nr);
        }
    }

    /// Takes one block for metadata of this inode.
    pub(crate) fn take_meta(&self, goal: u32) -> Result<(DeviceBlock, Blocks)> {
        let request =
            Request { owner: self.nr, home: self.home(), goal, count: 1, role: Role::Meta, window: None };
        let (run, _) = self.fs.take(&request)?;
        let mut guard = Blocks::new(&self.fs);
        guard.push(run);
        Ok((run.start, guard))
    }

    /// Points block `start` of the file and those after it to a run, whose contents are written. The map
    /// has nothing there. One fence at least lies between contents and pointers.
    pub(crate) fn publish(
        &self,
        growth: &mut Growth,
        start: u64,
        run: Run,
        filled: Written<Blocks>,
        spare: &mut Spare,
    ) -> Result<()> {
        let guard = filled.fence(&*self.fs.dev)?.into_inner();
        let mut kept = Some(guard);
        let mut done = 0;
        while done < run.len {
            let at = start + u64::from(done);
            let rest = Run { start: run.start, len: run.len };
            let len = match self.publish_in_array(at, rest, done, spare) {
                Ok(len) => len,
                Err(error) => {
                    // What is reachable stays; the rest goes back.
                    if let Some(guard) = kept.take() {
                        guard.keep();
                    }
                    let mut back = Blocks::new(&self.fs);
                    if let Some(part) = run.part(done, run.len - done) {
                        back.push(part);
                    }
                    self.count_blocks(i64::from(done));
                    return Err(error);
                }
            };
            done += len;
        }
        if let Some(guard) = kept {
            guard.keep();
        }
        self.count_blocks(i64::from(run.len));
        growth.last = Some((start + u64::from(run.len) - 1, run.block(run.len - 1)));
        Ok(())
    }

    /// Stores the pointers of one array, from block `at` of the file on; they name the run from its
    /// `done`-th block on. Returns how many.
    fn publish_in_array(&self, at: u64, run: Run, done: u32, spare: &mut Spare) -> Result<u32> {
        let shape = self.shape();
        let Some(path) = shape.path(at) else {
            return refuse(Errno::FBIG, "no pointer reaches that far");
        };
        let left = run.len - done;
        if path.depth == 0 {
            let len = left.min((crate::map::DIRECT - at) as u32);
            for nr in 0..len {
                self.store_root(path.slot + nr as usize, run.block(done + nr))?;
            }
            return Ok(len);
        }
        let leaf_index = shape.index(&path, path.depth);
        let len = left.min((shape.pointers() - leaf_index) as u32);
        // Down to the deepest indirect block that is there.
        let mut parent = None;
        let mut pointer = self.root(path.slot);
        let mut level = 1;
        while pointer != 0 && level <= path.depth {
            let Some(block) = self.valid(pointer) else {
                return Err(self.corrupt(alloc::format!(
                    "block map points to block {pointer}, outside the file system"
                )));
            };
            parent = Some((block, shape.index(&path, level)));
            level += 1;
            if level <= path.depth {
                let mut next = [0];
                self.read(block, shape.index(&path, level - 1), &mut next)?;
                pointer = next[0];
            }
        }
        if level > path.depth
            && let Some((leaf, index)) = parent
        {
            self.store_pointers(leaf, index, run, done, len)?;
            return Ok(len);
        }
        // Levels `level..=depth` are missing: built from the leaf upwards, then pointed to.
        let mut guard = Blocks::new(&self.fs);
        let mut child = None;
        for missing in (level..=path.depth).rev() {
            let (block, taken) = spare.pop().map_or_else(|| self.take_meta(run.block(0)), Ok)?;
            taken.keep();
            guard.push(Run { start: block, len: 1 });
            let mut bytes = vec![0; self.fs.geo.block_size.len()];
            let index = shape.index(&path, missing) as usize;
            match child {
                None => {
                    for nr in 0..len {
                        put_pointer(&mut bytes, index + nr as usize, run.block(done + nr));
                    }
                }
                Some(child) => put_pointer(&mut bytes, index, child),
            }
            self.fs.dev.write_at(self.fs.geo.byte_of(block), &bytes)?;
            child = Some(block.get());
        }
        let top: Durable<(Blocks, u32)> = match child {
            Some(child) => Written::new((guard, child)).fence(&*self.fs.dev)?,
            None => return Err(self.corrupt("block map changed while it was read")),
        };
        self.point_to(path.slot, parent, &top)?;
        let (guard, _) = top.into_inner();
        self.count_blocks(i64::from(path.depth - level + 1));
        guard.keep();
        Ok(len)
    }

    /// Makes a subtree reachable: one store of 4 bytes.
    fn point_to(
        &self,
        slot: usize,
        parent: Option<(DeviceBlock, u64)>,
        top: &Durable<(Blocks, u32)>,
    ) -> Result<()> {
        match parent {
            None => self.store_root(slot, top.get().1),
            Some((block, index)) => {
                Ok(self.fs.dev.write_u32(self.fs.geo.byte_of(block) + 4 * index, top.get().1)?)
            }
        }
    }

    fn store_pointers(&self, leaf: DeviceBlock, index: u64, run: Run, done: u32, len: u32) -> Result<()> {
        let offset = self.fs.geo.byte_of(leaf) + 4 * index;
        for nr in 0..len {
            self.fs.dev.write_u32(offset + 4 * u64::from(nr), run.block(done + nr))?;
        }
        Ok(())
    }

    /// The mapping of `count` blocks from `start`, with blocks where there were none. One mapping of at
    /// most `count` blocks.
    pub(crate) fn map_for_write(
        &self,
        inode: &Inode,
        start: FileBlock,
        count: u64,
        how: Allocate,
    ) -> Result<WriteMapping> {
        let end = start.get().saturating_add(count.max(1));
        if end > self.shape().max_blocks() {
            return refuse(Errno::FBIG, "no pointer reaches that far");
        }
        if how == Allocate::AfterFill {
            self.move_to_unit(start.get(), count)?;
        }
        let mut growth = self.map.lock();
        let there = self.map_blocks(start, count)?;
        if !there.is_hole() {
            return Ok(WriteMapping { mapping: there, new: false, unpublished: None });
        }
        let (run, guard) = if how == Allocate::AlignedRun {
            let unit = u64::from(self.fs.writer()?.place.unit());
            let fits = count == unit && there.count == unit && start.get().is_multiple_of(unit);
            let (goal, _) = self.goal(&growth, start.get())?;
            let run = if fits { self.fs.take_unit(self.nr, goal)? } else { None };
            let Some(run) = run else {
                return Ok(WriteMapping { mapping: there, new: false, unpublished: None });
            };
            let mut guard = Blocks::new(&self.fs);
            guard.push(run);
            (run, guard)
        } else {
            self.take_data(&mut growth, start.get(), there.count)?
        };
        let whole = run.len;
        let (run, guard, spare) = match self.take_spare(start.get(), run, guard) {
            Ok(taken) if how != Allocate::AlignedRun || taken.0.len == whole => taken,
            // A run that is not whole is of no use there.
            Ok(_) => return Ok(WriteMapping { mapping: there, new: false, unpublished: None }),
            Err(error) if how == Allocate::AlignedRun && error.is(Errno::NOSPC) => {
                return Ok(WriteMapping { mapping: there, new: false, unpublished: None });
            }
            Err(error) => return Err(error),
        };
        let mapping = Mapping { start, count: run.len.into(), target: Some(run.start) };
        if how == Allocate::AfterFill {
            // Until they are published the next request must not be given the same goal.
            growth.last = Some((start.get() + u64::from(run.len) - 1, run.block(run.len - 1)));
            let unpublished =
                Unpublished { inode: inode.clone(), start: start.get(), run, blocks: guard, spare };
            return Ok(WriteMapping { mapping, new: true, unpublished: Some(unpublished) });
        }
        let size = self.fs.geo.block_size;
        self.fs.dev.zero(self.fs.geo.byte_of(run.start), u64::from(run.len) << size.log2())?;
        self.publish(&mut growth, start.get(), run, Written::new(guard), &mut { spare })?;
        Ok(WriteMapping { mapping, new: true, unpublished: None })
    }

    /// A file that was small and grows: moves the blocks of its first unit, that lie where small files
    /// do, to the start of an aligned unit of its own, which the file then fills.
    fn move_to_unit(&self, start: u64, count: u64) -> Result<()> {
        let writer = self.fs.writer()?;
        let unit = u64::from(writer.place.unit());
        let size = self.fs.geo.block_size;
        let small = writer.place.small_file_blocks(size.bytes());
        let unit_start = start - start % unit;
        let grows = self.kind == FileKind::Regular
            && start > unit_start
            && start - unit_start <= small
            && start.saturating_add(count) > small
            && start.saturating_add(count) > unit_start;
        if !grows {
            return Ok(());
        }
        {
            let growth = self.map.lock();
            if self.goal(&growth, start)?.1.is_some() {
                return Ok(());
            }
        }
        let bytes = unit_start * size.bytes()..start * size.bytes();
        let moved =
            self.space.invalidate(bytes, crate::Wait::No, &mut || self.move_blocks(unit_start, start));
        match moved {
            // Somebody holds the pages, or there is no unit: the blocks stay where they are.
            Err(error) if error.is(Errno::BUSY) || error.is(Errno::NOSPC) => Ok(()),
            other => other,
        }
    }

    /// Moves blocks `from..to` of the file to the start of a free aligned unit. Each pointer changes in one
    /// store, from a block with the contents to another with the same.
    fn move_blocks(&self, from: u64, to: u64) -> Result<()> {
        let mut growth = self.map.lock();
        let size = self.fs.geo.block_size;
        let mut old: Vec<Mapping> = Vec::new();
        let mut at = from;
        while at < to {
            let mapping = self.map_blocks(FileBlock::new(at), to - at)?;
            at = mapping.end().get();
            if !mapping.is_hole() {
                old.push(mapping);
            }
        }
        let goal = growth.last.map_or_else(|| self.fs.geo.group_start(self.home()), |(_, block)| block);
        self.discard_window(&mut growth);
        let Some(unit) = self.fs.take_unit(self.nr, goal)? else { return Ok(()) };
        let mut guard = Blocks::new(&self.fs);
        guard.push(unit);
        for mapping in &old {
            let to = u64::from(unit.block(0)) + (mapping.start.get() - from);
            let from = mapping.target.map_or(0, |block| self.fs.geo.byte_of(block));
            self.copy_on_device(from, to * size.bytes(), mapping.count * size.bytes())?;
        }
        let unit_blocks = Written::new(guard).fence(&*self.fs.dev)?.into_inner();
        for mapping in &old {
            for nr in 0..mapping.count {
                let logical = mapping.start.get() + nr;
                self.replace_pointer(logical, unit.block((logical - from) as u32))?;
            }
        }
        let gone = Written::new(Unlinked).fence(&*self.fs.dev)?;
        for mapping in &old {
            if let Some(start) = mapping.target {
                self.fs.free(&gone, Run { start, len: mapping.count as u32 })?;
            }
        }
        // Of the unit only what was moved to is in use; the rest is the file's window.
        unit_blocks.keep();
        let mut used = vec![false; unit.len as usize];
        for mapping in &old {
            for nr in 0..mapping.count {
                if let Some(used) = used.get_mut((mapping.start.get() - from + nr) as usize) {
                    *used = true;
                }
            }
        }
        let mut spare = Blocks::new(&self.fs);
        for (nr, _) in used.iter().enumerate().filter(|(_, used)| !**used) {
            if let Some(part) = unit.part(nr as u32, 1) {
                spare.push(part);
            }
        }
        drop(spare);
        growth.window = self.fs.reserve(self.nr, unit)?;
        growth.last = Some((to - 1, unit.block((to - 1 - from) as u32)));
        Ok(())
    }

    /// Changes the pointer of a block that is mapped.
    pub(crate) fn replace_pointer(&self, logical: u64, block: u32) -> Result<()> {
        let shape = self.shape();
        let Some(path) = shape.path(logical) else {
            return refuse(Errno::FBIG, "no pointer reaches that far");
        };
        if path.depth == 0 {
            return self.store_root(path.slot, block);
        }
        let mut pointer = self.root(path.slot);
        for level in 1..=path.depth {
            let Some(indirect) = self.valid(pointer) else {
                return Err(self.corrupt(alloc::format!(
                    "block map points to block {pointer}, outside the file system"
                )));
            };
            let index = shape.index(&path, level);
            if level == path.depth {
                return Ok(self.fs.dev.write_u32(self.fs.geo.byte_of(indirect) + 4 * index, block)?);
            }
            let mut next = [0];
            self.read(indirect, index, &mut next)?;
            pointer = next[0];
        }
        Ok(())
    }
}

fn put_pointer(block: &mut [u8], index: usize, pointer: u32) {
    if let Some(place) = block.get_mut(4 * index..4 * index + 4) {
        place.copy_from_slice(&pointer.to_le_bytes());
    }
}

impl Inode {
    /// What `count` blocks from `start` are, with blocks where there were none: one mapping, at most
    /// `count` blocks. The caller holds the [`io_lock`](Self::io_lock) for
    /// [`Allocate::AfterFill`], as a write does; a fault holds what keeps truncation out.
    ///
    /// # Errors
    /// `ENOSPC`, `EFBIG`, `EROFS`; `Corrupt`, the device's errors.
    pub fn map_for_write(&self, start: FileBlock, count: u64, how: Allocate) -> Result<WriteMapping> {
        self.need(FileKind::Regular)?;
        self.0.fs.change(|| self.0.map_for_write(self, start, count, how))
    }

    /// Whether all that leads to the file's blocks is durable, or will be with the data: here always,
    /// since every pointer and size is stored behind a fence and a flush of the device takes it along.
    /// This is what lets a mapping be synchronous (Linux: `MAP_SYNC`, which its ext2 never offered).
    #[must_use]
    pub fn is_map_durable(&self) -> bool {
        true
    }
}
