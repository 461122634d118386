//! Taking pointers away: first it is found out which, then each goes by one store; what they led to is free behind a fence.
//!
//! # Invariants
//! 1. Nothing is stored while it is found out: what is broken or cannot be read leaves the file as it was.
//! 2. A block is given back only when the store that took its pointer away was answered. One whose store failed is
//!    neither the file's nor free for certain: the image is marked for a check.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::Cell;
use crate::DeviceBlock;
use crate::balloc::Run;
use crate::error::{Corrupt, Object, Result};
use crate::map::{DIRECT, Pointers, SLOTS};
use crate::order::{Barrier, Durable, Unlinked, Written};

/// Where a pointer lies.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In the inode: its index.
    Root(usize),
    /// In an indirect block: its byte on the device.
    Indirect(u64),
}

/// What a pointer leads to.
#[derive(Clone, Copy, Debug)]
enum Gone {
    /// A block of data, or an indirect block in which nothing is left.
    Block(u32),
    /// An indirect block with all that is under it, and how many levels of indirect blocks that is (0: its pointers are data).
    Subtree(u32, u32),
}

/// A pointer that is to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    place: Place,
    gone: Gone,
}

/// Subtrees and runs that nothing points to any more.
#[derive(Debug, Default)]
pub(super) struct Detached {
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
    /// Adds a block.
    pub(super) fn data(&mut self, block: u32) {
        match self.runs.last_mut() {
            Some((start, len)) if start.checked_add(*len) == Some(block) => *len += 1,
            _ => self.runs.push((block, 1)),
        }
    }

    /// Adds an indirect block with what is under it.
    pub(super) fn subtree(&mut self, block: u32, below: u32) {
        self.subtrees.push((block, below));
    }

    fn is_empty(&self) -> bool {
        self.subtrees.is_empty() && self.runs.is_empty()
    }
}

impl Cell {
    /// Finds the pointers to blocks `from..to` of the file, in the order in which they are to go.
    pub(super) fn plan_cuts(&self, from: u64, to: u64) -> Result<Vec<Cut>> {
        let shape = self.shape();
        let mut cuts = Vec::new();
        // The trees first, the deepest of them before the others: a crash between leaves a shorter file.
        for slot in (DIRECT as usize..SLOTS).rev() {
            let depth = (slot - 11) as u32;
            let start = DIRECT + (1..depth).map(|below| shape.span(below)).sum::<u64>();
            let pointer = self.root(slot);
            let (low, high) = (from.max(start), to.min(start + shape.span(depth)));
            if pointer == 0 || low >= high {
                continue;
            }
            let place = Place::Root(slot);
            if low == start && high == start + shape.span(depth) {
                cuts.push(Cut { place, gone: Gone::Subtree(pointer, depth - 1) });
            } else if self.plan_cuts_in(pointer, depth - 1, low - start..high - start, &mut cuts)?
                == Left::Nothing
            {
                cuts.push(Cut { place, gone: Gone::Block(pointer) });
            }
        }
        for slot in (from..to.min(DIRECT)).rev() {
            let pointer = self.root(slot as usize);
            if pointer != 0 {
                cuts.push(Cut { place: Place::Root(slot as usize), gone: Gone::Block(pointer) });
            }
        }
        Ok(cuts)
    }

    /// Finds the pointers that go inside an indirect block: `range` counts data blocks under it. Says whether any are left;
    /// a block without pointers is for the caller to take away (Linux: `all_zeroes` in `ext2_find_shared`).
    fn plan_cuts_in(&self, block: u32, below: u32, range: Range<u64>, cuts: &mut Vec<Cut>) -> Result<Left> {
        let block = self.pointed(block)?;
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
            let place = Place::Indirect(self.fs.geo.byte_of(block) + 4 * index);
            let (low, high) = (range.start.max(index * span), range.end.min((index + 1) * span));
            if low == index * span && high == (index + 1) * span {
                let gone = match below {
                    0 => Gone::Block(pointer),
                    _ => Gone::Subtree(pointer, below - 1),
                };
                cuts.push(Cut { place, gone });
            } else {
                let within = low - index * span..high - index * span;
                match self.plan_cuts_in(pointer, below - 1, within, cuts)? {
                    Left::Something => left = Left::Something,
                    Left::Nothing => cuts.push(Cut { place, gone: Gone::Block(pointer) }),
                }
            }
        }
        Ok(left)
    }

    /// Takes the pointers away. What they led to is in `detached`, also after an error: all but the one whose
    /// store failed, and those after it, which stay.
    pub(super) fn cut(&self, cuts: &[Cut], detached: &mut Detached) -> Result<()> {
        for cut in cuts {
            match cut.place {
                Place::Root(slot) => self.store_root(slot, 0)?,
                Place::Indirect(at) => self.store_pointer(at, 0)?,
            }
            match cut.gone {
                Gone::Block(block) => detached.data(block),
                Gone::Subtree(block, below) => detached.subtree(block, below),
            }
        }
        Ok(())
    }

    /// Takes the pointers away and frees what they led to; after an error, what it can.
    pub(super) fn cut_and_free(&self, cuts: &[Cut]) -> Result<()> {
        let (known, mut detached) = (self.fs.losses.count(), Detached::default());
        let cut = self.fs.may_lose(|| self.cut(cuts, &mut detached));
        if detached.is_empty() {
            return cut;
        }
        let gone = Written::since(known, Unlinked).fence(Barrier::Punched, &*self.fs);
        let freed = gone.and_then(|gone| self.free_detached(detached, &gone));
        cut.and(freed)
    }

    /// Frees what was detached.
    pub(super) fn free_detached(&self, detached: Detached, gone: &Durable<Unlinked>) -> Result<()> {
        let mut freed = 0;
        let done = self.fs.may_lose(|| self.free_all(gone, detached, &mut freed));
        self.count_blocks(-freed);
        done
    }

    /// Frees runs and subtrees. What is broken or cannot be read among them is reported at the end; the rest is freed.
    pub(super) fn free_all(
        &self,
        gone: &Durable<Unlinked>,
        detached: Detached,
        freed: &mut i64,
    ) -> Result<()> {
        let mut outcome = Ok(());
        let mut free = |start: u32, len: u32| {
            let Some(start) = DeviceBlock::new(start) else { return Ok(()) };
            self.fs.free(gone, Run { start, len })?;
            *freed += i64::from(len);
            Ok(())
        };
        for (start, len) in detached.runs {
            outcome = outcome.and(free(start, len));
        }
        let mut left = detached.subtrees;
        let mut pointers = vec![0; self.shape().pointers() as usize];
        let mut budget = self.fs.geo.blocks_count;
        while let Some((block, below)) = left.pop() {
            let valid = match self.pointed(block) {
                Ok(valid) => valid,
                Err(error) => {
                    outcome = outcome.and(Err(error));
                    continue;
                }
            };
            if let Err(error) = self.read(valid, 0, &mut pointers) {
                outcome = outcome.and(Err(error));
                continue;
            }
            // No more than there are, data included: each is tried to be freed.
            let data =
                if below > 0 { 0 } else { pointers.iter().filter(|&&pointer| pointer != 0).count() as u32 };
            budget = match budget.checked_sub(1 + data) {
                Some(budget) => budget,
                None => {
                    let what = "block map leads into itself";
                    return outcome.and(Err(Corrupt::new(Object::Inode(self.nr), what).into()));
                }
            };
            if below > 0 {
                left.extend(
                    pointers.iter().filter(|&&pointer| pointer != 0).map(|&pointer| (pointer, below - 1)),
                );
            } else {
                let mut runs = Detached::default();
                pointers.iter().filter(|&&pointer| pointer != 0).for_each(|&pointer| runs.data(pointer));
                for (start, len) in runs.runs {
                    outcome = outcome.and(free(start, len));
                }
            }
            outcome = outcome.and(free(block, 1));
        }
        outcome
    }
}
