//! Indirect blocks taken ahead: what publishing a run will need is there before the run is filled, so
//! that a full disk is noticed while nothing is lost by it.

use alloc::vec::Vec;

use super::Cell;
use crate::balloc::{Blocks, Run};
use crate::error::Result;
use crate::map::{DIRECT, Path, Pointers};
use crate::{DeviceBlock, Errno};

/// Blocks for metadata that nothing points to yet; what is left when it is dropped goes back.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<(DeviceBlock, Blocks)>);

impl Spare {
    /// One of them.
    pub(crate) fn pop(&mut self) -> Option<(DeviceBlock, Blocks)> {
        self.0.pop()
    }
}

impl Cell {
    /// Takes what publishing `run` at block `start` of the file will need, where the map has nothing.
    /// Where that much is not free the run gives up its last blocks for it.
    ///
    /// # Errors
    /// `ENOSPC` when not even one block of data and its indirect blocks fit.
    pub(crate) fn take_spare(&self, start: u64, run: Run, guard: Blocks) -> Result<(Run, Blocks, Spare)> {
        let (mut run, mut guard) = (run, guard);
        loop {
            let need = self.missing_indirects(start, u64::from(run.len))?;
            match self.try_spare(need, run.start.get()) {
                Ok(spare) => return Ok((run, guard, spare)),
                Err(error) if error.refuses(Errno::NOSPC) && run.len > 1 => {
                    let less = run.len - need.clamp(1, run.len - 1);
                    guard.keep();
                    let mut back = Blocks::new(&self.fs);
                    run.part(less, run.len - less).into_iter().for_each(|part| back.push(part));
                    run.len = less;
                    guard = Blocks::new(&self.fs);
                    guard.push(run);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn try_spare(&self, count: u32, goal: u32) -> Result<Spare> {
        let mut spare = Spare::default();
        for _ in 0..count {
            spare.0.push(self.take_meta(goal)?);
        }
        Ok(spare)
    }

    /// Indirect blocks that are missing on the way to blocks `start..start + count` of the file.
    fn missing_indirects(&self, start: u64, count: u64) -> Result<u32> {
        let shape = self.shape();
        let (mut at, end) = (start, start.saturating_add(count));
        let mut last: Option<Path> = None;
        let mut missing = 0;
        while at < end {
            let Some(path) = shape.path(at) else { break };
            if path.depth == 0 {
                at = DIRECT;
                continue;
            }
            for level in self.levels_there(&path)? + 1..=path.depth {
                // Two arrays share the indirect block of a level when all above agrees.
                let span = shape.span(path.depth - level + 1);
                let node = |path: &Path| (path.slot, path.within / span);
                missing += u32::from(last.as_ref().is_none_or(|last| node(last) != node(&path)));
            }
            at += shape.pointers() - shape.index(&path, path.depth);
            last = Some(path);
        }
        Ok(missing)
    }

    /// How many levels of indirect blocks there are on the way.
    fn levels_there(&self, path: &Path) -> Result<u32> {
        let shape = self.shape();
        let mut pointer = self.root(path.slot);
        for level in 1..=path.depth {
            if pointer == 0 {
                return Ok(level - 1);
            }
            let block = self.pointed(pointer)?;
            let mut next = [0];
            if level < path.depth {
                self.read(block, shape.index(path, level), &mut next)?;
            }
            pointer = next[0];
        }
        Ok(path.depth)
    }
}
