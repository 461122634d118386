//! Lookup of one block, and of the run around it: what most readers ask.

use super::KnownRun;
use super::lookup::{Pointers, Tree, WINDOW};
use crate::error::Result;
use crate::{DeviceBlock, FileBlock};

/// Pointers that a lookup of one block reads: a cache line.
const LINE: usize = 16;

/// Pointers, aligned within their array, among which a lookup of one block follows the run that it found.
const REACH: u64 = 512;

/// The device block of one block of the file, if it has one, and the run around that as far as it costs little to
/// know: what is read is a cache line of the last array, and more only where the run goes on past it.
///
/// # Errors
/// As for [`lookup`](super::lookup).
pub fn lookup_one<P: Pointers>(
    tree: &Tree<'_, P>,
    at: FileBlock,
) -> Result<Option<(DeviceBlock, Option<KnownRun>)>> {
    let Some(path) = tree.shape.path(at.get()) else { return Ok(None) };
    let mut pointer = tree.pointers.root(path.slot);
    for level in 1..=path.depth {
        if pointer == 0 {
            return Ok(None);
        }
        let (indirect, index) = (tree.valid(pointer)?, tree.shape.index(&path, level));
        if level == path.depth {
            let found = tree.around(indirect, index, at.get())?;
            return Ok(found.map(|(target, run)| (target, Some(run))));
        }
        pointer = tree.pointers.read_one(indirect, index)?;
    }
    match pointer {
        0 => Ok(None),
        pointer => Ok(Some((tree.valid(pointer)?, None))),
    }
}

impl<P: Pointers> Tree<'_, P> {
    /// The block that data pointer `index` of an indirect block names, and the run around it within [`REACH`]; the
    /// pointer is that of block `at` of the file.
    #[inline]
    fn around(&self, block: DeviceBlock, index: u64, at: u64) -> Result<Option<(DeviceBlock, KnownRun)>> {
        let mut line = [0; LINE];
        let from = index - index % LINE as u64;
        let line = &mut line[..LINE.min(self.shape.pointers() as usize)];
        self.pointers.read(block, from, line)?;
        let here = (index - from) as usize;
        let pointer = line[here];
        if pointer == 0 {
            return Ok(None);
        }
        let target = self.valid(pointer)?;
        let (mut before, mut after) =
            (self.run_before(&line[..here], pointer), self.run(&line[here..], pointer));
        if after == (line.len() - here) as u64 {
            after += self.follow(block, index + after, pointer.saturating_add(after as u32));
        }
        if before == here as u64 {
            before += self.follow_back(block, from, pointer - before as u32);
        }
        let run =
            KnownRun { start: at - before, count: (before + after) as u32, target: pointer - before as u32 };
        Ok(Some((target, run)))
    }

    /// How many pointers from `index` on, within [`REACH`], count up from `first`. No error matters: what is known
    /// is a legal answer.
    fn follow(&self, block: DeviceBlock, index: u64, first: u32) -> u64 {
        let most = index.next_multiple_of(REACH).min(self.shape.pointers()) - index;
        let (mut buffer, mut done) = ([0; WINDOW], 0);
        while done < most {
            let window = &mut buffer[..(most - done).min(WINDOW as u64) as usize];
            let Some(next) = first.checked_add(done as u32) else { break };
            let Ok(()) = self.pointers.read(block, index + done, window) else { break };
            let more = self.run(window, next);
            done += more;
            if more < window.len() as u64 {
                break;
            }
        }
        done
    }

    /// How many pointers before `index`, within [`REACH`], count up to the one before `next`.
    fn follow_back(&self, block: DeviceBlock, index: u64, next: u32) -> u64 {
        let most = index % REACH;
        let (mut buffer, mut done) = ([0; WINDOW], 0);
        while done < most {
            let window = &mut buffer[..(most - done).min(WINDOW as u64) as usize];
            let Ok(()) = self.pointers.read(block, index - done - window.len() as u64, window) else { break };
            let more = self.run_before(window, next - done as u32);
            done += more;
            if more < window.len() as u64 {
                break;
            }
        }
        done
    }

    /// How many pointers at the end of `window` count up to the one before `next`, as far as they are valid.
    fn run_before(&self, window: &[u32], next: u32) -> u64 {
        let down =
            (1..).map(|nr| next.checked_sub(nr).filter(|&pointer| self.pointers.valid(pointer).is_some()));
        window.iter().rev().zip(down).take_while(|(own, wanted)| Some(**own) == *wanted).count() as u64
    }
}
