//! Moving blocks of a file that stays as it is: from where small files lie to a unit of its own.

use alloc::vec;
use alloc::vec::Vec;

use super::{Cell, FileKind};
use crate::balloc::{Blocks, Run};
use crate::error::{Result, refuse};
use crate::map::{Mapping, Pointers};
use crate::order::{Barrier, Unlinked, Written};
use crate::space::Taken;
use crate::{Errno, FileBlock};

impl Cell {
    /// Copies bytes from one place of the device to another.
    pub(crate) fn copy_on_device(&self, from: u64, to: u64, len: u64) -> Result<()> {
        let mut buffer = vec![0; len.min(1 << 16) as usize];
        let mut done = 0;
        while done < len {
            let part = &mut buffer[..(len - done).min(1 << 16) as usize];
            self.fs.dev.read_at(from + done, part)?;
            self.fs.dev.write_contents(to + done, part)?;
            done += part.len() as u64;
        }
        Ok(())
    }

    /// A file that was small and grows: moves the blocks of its first unit, that lie where small files
    /// do, to the start of an aligned unit of its own, which the file then fills.
    pub(super) fn move_to_unit(&self, start: u64, count: u64) -> Result<()> {
        let writer = self.fs.writer()?;
        let unit = u64::from(writer.place.unit());
        let size = self.fs.geo.block_size;
        let small = writer.place.small_file_blocks(size.bytes());
        let unit_start = start - start % unit;
        let grows = self.kind == FileKind::Regular
            && start > unit_start
            && start - unit_start <= small
            && start.saturating_add(count) > small;
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
        if self.space.get().is_some_and(|space| space.is_in_use(bytes.clone())) {
            return Ok(());
        }
        let moved = self.space.invalidate(bytes, Taken::Moved, &mut || self.move_blocks(unit_start, start));
        match moved {
            // Somebody holds the pages, or there is no unit: the blocks stay where they are.
            Err(error) if error.refuses(Errno::BUSY) || error.refuses(Errno::NOSPC) => Ok(()),
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
        let known = self.fs.losses.count();
        let Some(unit) = self.fs.take_unit(self.nr, goal)? else { return Ok(()) };
        let mut guard = Blocks::new(&self.fs);
        guard.push(unit);
        for mapping in &old {
            let to = u64::from(unit.block(0)) + (mapping.start.get() - from);
            let from = mapping.target.map_or(0, |block| self.fs.geo.byte_of(block));
            // What is written is not what cannot be read or copied: that stays where it is.
            if self.copy_on_device(from, to * size.bytes(), mapping.count * size.bytes()).is_err() {
                return Ok(());
            }
        }
        // From here on something may point to the unit, whatever the device answers.
        Written::since(known, guard).fence(Barrier::Moved, &*self.fs)?.into_inner().keep();
        let gone = self.fs.may_lose(|| {
            for mapping in &old {
                for nr in 0..mapping.count {
                    let logical = mapping.start.get() + nr;
                    self.replace_pointer(logical, unit.block((logical - from) as u32))?;
                }
            }
            Written::since(known, Unlinked).fence(Barrier::MovedAway, &*self.fs)
        })?;
        let mut outcome = Ok(());
        for mapping in &old {
            if let Some(start) = mapping.target {
                outcome = outcome.and(self.fs.free(&gone, Run { start, len: mapping.count as u32 }));
            }
        }
        // Of the unit only what was moved to is in use; the rest is the file's window.
        let mut spare = Blocks::new(&self.fs);
        let mut next = 0;
        for mapping in &old {
            let at = (mapping.start.get() - from) as u32;
            unit.part(next, at - next).into_iter().for_each(|part| spare.push(part));
            next = at + mapping.count as u32;
        }
        unit.part(next, unit.len - next).into_iter().for_each(|part| spare.push(part));
        drop(spare);
        growth.window = self.fs.reserve(self.nr, unit)?;
        growth.last = Some((to - 1, unit.block((to - 1 - from) as u32)));
        outcome
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
            let indirect = self.pointed(pointer)?;
            let index = shape.index(&path, level);
            if level == path.depth {
                return self.store_pointer(self.fs.geo.byte_of(indirect) + 4 * index, block);
            }
            let mut next = [0];
            self.read(indirect, index, &mut next)?;
            pointer = next[0];
        }
        Ok(())
    }
}
