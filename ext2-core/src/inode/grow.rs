//! Giving a file blocks (Linux: `ext2_get_blocks` with `create`).
//!
//! # Invariants
//! 1. A block is filled or zero on the media before any pointer to it is: the fence lies between.
//! 2. New indirect blocks are built whole before the one store that makes them reachable; the top pointer is written last.
//! 3. Blocks that are not published go back when their guard is dropped.

use super::{Cell, FileKind, Inode, Unpublished};
use crate::balloc::{Blocks, Request, Role, Run, Window};
use crate::error::{Result, refuse};
use crate::fs::change::OwnedChange;
use crate::map::Mapping;
use crate::order::Written;
use crate::space::Publisher;
use crate::{DeviceBlock, Errno, FileBlock, GroupNr};

/// What a file remembers of its growth.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// The last block given: in the file, and on the device.
    pub(super) last: Option<(u64, u32)>,
    pub(super) window: Option<Window>,
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
    /// By a call that writes: zeroed and reachable when it returns.
    Published,
    /// Reachable only once the caller has filled them: see [`Unpublished`].
    AfterFill,
    /// By a write fault of one page, which holds the page's entry: zeroed and reachable when the call returns.
    Fault,
    /// By a write fault that could map 2 MiB, and holds the entry of the unit: a whole, aligned, contiguous run that fills the range, zeroed
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

impl Cell {
    /// The group of the inode.
    pub(crate) fn home(&self) -> GroupNr {
        self.fs.geo.group_of_inode(self.nr).map_or(GroupNr::new(0), |(group, _)| group)
    }

    /// The block that would be best for block `start` of the file (Linux: `ext2_find_goal`), and where the file's unit of 2 MiB
    /// around it begins on the device, if a part of it lies aligned already.
    pub(super) fn goal(&self, growth: &Growth, start: u64) -> Result<(u32, Option<u32>)> {
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

    /// The mapping of `count` blocks from `start`, with blocks where there were none. One mapping of at most `count` blocks.
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
        let by = match how {
            Allocate::AfterFill | Allocate::Published => Publisher::Call,
            Allocate::Fault | Allocate::AlignedRun => Publisher::Fault,
        };
        // Nothing changes then, and who could take the blocks away is kept out by the caller.
        if let Some(target) = self.known_run(start, count.max(1)) {
            let mapping = Mapping { start, count: count.max(1), target: Some(target) };
            self.space.found(self.bytes_of(start, mapping.count), by);
            return Ok(WriteMapping { mapping, new: false, unpublished: None });
        }
        if how == Allocate::AfterFill {
            self.move_to_unit(start.get(), count)?;
        }
        let telling = (how != Allocate::AfterFill).then(|| self.space.tell());
        let got = self.allocate(inode, start, count, how);
        let told = match &got {
            Ok(got) if !got.new => {
                if self.space.is_untold(telling.as_ref()) {
                    got.mapping.count
                } else {
                    0
                }
            }
            // They are told of when they are filled and reachable.
            _ if how == Allocate::AfterFill => 0,
            Ok(got) => got.mapping.count,
            // A part may be reachable, and who maps the hole that was there has to see it.
            Err(_) => count,
        };
        if told > 0 {
            self.space.published(self.bytes_of(start, told), by);
        }
        got
    }

    /// The bytes of `count` blocks from `start` on.
    fn bytes_of(&self, start: FileBlock, count: u64) -> core::ops::Range<u64> {
        let bytes = self.fs.geo.block_size.bytes();
        start.get().saturating_mul(bytes)..start.get().saturating_add(count).saturating_mul(bytes)
    }

    /// Does what [`map_for_write`](Self::map_for_write) does where blocks are not known to be there.
    fn allocate(&self, inode: &Inode, start: FileBlock, count: u64, how: Allocate) -> Result<WriteMapping> {
        let known = self.fs.losses.count();
        let mut growth = self.map.lock();
        let there = self.look_up(start, count.max(1))?;
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
            Err(error) if how == Allocate::AlignedRun && error.refuses(Errno::NOSPC) => {
                return Ok(WriteMapping { mapping: there, new: false, unpublished: None });
            }
            Err(error) => return Err(error),
        };
        let mapping = Mapping { start, count: run.len.into(), target: Some(run.start) };
        if how == Allocate::AfterFill {
            // Until they are published the next request must not be given the same goal.
            growth.last = Some((start.get() + u64::from(run.len) - 1, run.block(run.len - 1)));
            let change = OwnedChange::begin(self.fs.clone())?;
            let unpublished = Unpublished {
                inode: inode.clone(),
                start: start.get(),
                run,
                blocks: guard,
                spare,
                known,
                change,
            };
            return Ok(WriteMapping { mapping, new: true, unpublished: Some(unpublished) });
        }
        let size = self.fs.geo.block_size;
        self.fs.dev.zero_contents(self.fs.geo.byte_of(run.start), u64::from(run.len) << size.log2())?;
        self.publish(&mut growth, start.get(), run, Written::since(known, guard), &mut { spare })?;
        Ok(WriteMapping { mapping, new: true, unpublished: None })
    }
}

impl Inode {
    /// Whether all that leads to the file's blocks is durable, or will be with the data: here always, since every pointer and
    /// size is stored behind a fence and a flush of the device takes it along. This is what lets a mapping be synchronous
    /// (Linux: `MAP_SYNC`, which its ext2 never offered).
    #[must_use]
    pub fn is_map_durable(&self) -> bool {
        true
    }
}
