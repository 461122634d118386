//! Lookup in a block map: what a range of a file is, in full.

use alloc::format;

use super::Mapping;
use super::path::{DIRECT, Path, SLOTS, Shape};
use crate::error::{Corrupt, Error, Object, Result};
use crate::{DeviceBlock, FileBlock, InodeNr};

/// Where the pointers of a block map are read from: an inode on a device, or trees of your own.
pub trait Pointers {
    /// The inode's pointers.
    fn root(&self, slot: usize) -> u32;

    /// Fills `into` with the pointers of indirect block `block` from `index` on.
    ///
    /// # Errors
    /// The device's.
    fn read(&self, block: DeviceBlock, index: u64, into: &mut [u32]) -> Result<()>;

    /// The pointer at `index` of indirect block `block`.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn read_one(&self, block: DeviceBlock, index: u64) -> Result<u32> {
        let mut one = [0];
        self.read(block, index, &mut one)?;
        Ok(one[0])
    }

    /// The block, if a pointer may name it.
    fn valid(&self, pointer: u32) -> Option<DeviceBlock>;

    /// The first number past all blocks that a pointer may name.
    fn end(&self) -> u32;
}

/// A block map and what bounds it.
#[derive(Debug)]
pub struct Tree<'p, P> {
    /// The pointers.
    pub pointers: &'p P,
    /// Pointers an indirect block.
    pub shape: Shape,
    /// Whose map it is, for errors.
    pub inode: InodeNr,
    /// Arrays of pointers that may be looked into for one answer.
    pub budget: u64,
}

/// Pointers read at a time, when few are likely to be needed.
pub(super) const WINDOW: usize = 128;

/// Pointers read at a time when all of a block are likely to be needed: 4 KiB.
const WIDE: usize = 1024;

/// Part of an answer: a hole or run that lies within one array of pointers.
struct Piece {
    target: Option<DeviceBlock>,
    count: u64,
    next: Next,
}

/// What is known of the block past a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The hole or run does not go on.
    Other,
    /// Nothing.
    Unknown,
}

impl Next {
    /// For a piece that ended after `count` of the `most` pointers that were looked at.
    fn after(count: u64, most: u64) -> Self {
        if count < most { Self::Other } else { Self::Unknown }
    }
}

/// A walk along a block map.
struct Walk<'t, 'p, P> {
    tree: &'t Tree<'p, P>,
    budget: u64,
    /// The indirect blocks of the second and third level that the walk passed last, so that it does not
    /// begin at the root again: each with the tree's depth and its number in its level.
    passed: [Option<(u32, u64, DeviceBlock)>; 2],
    /// Whether the answer is a hole so far: then arrays are read whole, since most of them are zeros.
    in_hole: bool,
}

/// The mapping of `count` blocks from `start`: as long as hole or run go on, and `count` at the most.
/// Past the last block that pointers reach there is nothing but hole. A `count` of 0 counts as 1.
/// Linux: `ext2_get_blocks` without `create`, but in full.
///
/// # Errors
/// `Corrupt` where a pointer is not valid or the budget is used up, those of [`Pointers`]. Where a part of the answer is known
/// before an error, that part is the answer.
pub fn lookup<P: Pointers>(tree: &Tree<'_, P>, start: FileBlock, count: u64) -> Result<Mapping> {
    let count = count.max(1);
    if start.get() >= tree.shape.max_blocks() {
        return Ok(Mapping { start, count, target: None });
    }
    let end = start.get().saturating_add(count);
    let mut walk = Walk { tree, budget: tree.budget, passed: [None; 2], in_hole: false };
    let mut at = start.get();
    let first = walk.piece(at, end)?;
    walk.in_hole = first.target.is_none();
    at += first.count;
    let mut known = first.next;
    while at < end && known == Next::Unknown {
        let next = match walk.piece(at, end) {
            Ok(next) => next,
            // What is known is a legal answer; the error comes to whoever asks for the rest.
            Err(_) => break,
        };
        let goes_on = match (first.target, next.target) {
            (None, None) => true,
            (Some(run), Some(next)) => run.checked_add(at - start.get()) == Some(next),
            _ => false,
        };
        if !goes_on {
            break;
        }
        at += next.count;
        known = next.next;
    }
    Ok(Mapping { start, count: at - start.get(), target: first.target })
}

impl<P: Pointers> Walk<'_, '_, P> {
    /// The hole or run from block `at`, up to the end of the array of pointers in which it is found and
    /// not past `end`; never empty.
    fn piece(&mut self, at: u64, end: u64) -> Result<Piece> {
        let want = end - at;
        let (tree, shape) = (self.tree, self.tree.shape);
        let Some(path) = shape.path(at) else {
            return Ok(Piece { target: None, count: want, next: Next::Unknown });
        };
        if path.depth == 0 {
            let mut window = [0; DIRECT as usize];
            let window = &mut window[..(DIRECT - at).min(want) as usize];
            for (pointer, slot) in window.iter_mut().zip(path.slot..) {
                *pointer = tree.pointers.root(slot);
            }
            let (target, count) = tree.head(window)?;
            return Ok(Piece { target, count, next: Next::after(count, window.len() as u64) });
        }
        let (mut level, mut indirect) = match self.passed_on(&path) {
            Some(passed) => passed,
            None => match tree.pointers.root(path.slot) {
                0 => {
                    let whole = shape.span(path.depth);
                    let count = (whole - path.within).min(want);
                    return Ok(Piece { target: None, count, next: Next::Unknown });
                }
                pointer => (1, tree.valid(pointer)?),
            },
        };
        loop {
            // Data blocks under one pointer of the indirect block at this level.
            let span = shape.span(path.depth - level);
            let index = shape.index(&path, level);
            self.budget = self.budget.checked_sub(1).ok_or_else(|| tree.endless())?;
            let left = shape.pointers() - index;
            if level == path.depth && !self.in_hole {
                return tree.leaf(indirect, index, left.min(want));
            }
            let within = path.within % span;
            let needed = (within + want).div_ceil(span).min(left);
            let (holes, pointer) = if self.in_hole && needed > 1 {
                tree.zeros(indirect, index, needed)?
            } else {
                match tree.pointers.read_one(indirect, index)? {
                    0 => {
                        let (more, pointer) = tree.zeros(indirect, index + 1, needed - 1)?;
                        (1 + more, pointer)
                    }
                    pointer => (0, pointer),
                }
            };
            if level == path.depth {
                let target = if holes == 0 { Some(tree.valid(pointer)?) } else { None };
                let next = Next::after(holes, needed);
                return Ok(Piece { target, count: holes.max(1), next });
            }
            // What ends the hole is where the next piece begins.
            let next = if pointer == 0 { None } else { tree.pointers.valid(pointer) };
            let passed = next.map(|block| (path.depth, path.within / span + holes, block));
            self.passed[level as usize - 1] = passed.or(self.passed[level as usize - 1]);
            if holes > 0 {
                let count = (holes * span - within).min(want);
                return Ok(Piece { target: None, count, next: Next::Unknown });
            }
            indirect = tree.valid(pointer)?;
            level += 1;
        }
    }

    /// The deepest indirect block on a path that the walk passed last, and its level.
    fn passed_on(&self, path: &Path) -> Option<(u32, DeviceBlock)> {
        (2..=path.depth).rev().find_map(|level| {
            let (depth, number, block) = self.passed[level as usize - 2]?;
            let own = path.within / self.tree.shape.span(path.depth - level + 1);
            (depth == path.depth && number == own).then_some((level, block))
        })
    }
}

impl<P: Pointers> Tree<'_, P> {
    /// How many of `most` pointers of an indirect block are 0, from `index` on, and the one that ends them; 0 where
    /// none does.
    fn zeros(&self, block: DeviceBlock, index: u64, most: u64) -> Result<(u64, u32)> {
        if most <= WINDOW as u64 {
            self.zeros_by(block, index, most, &mut [0; WINDOW])
        } else {
            self.zeros_by(block, index, most, &mut [0; WIDE])
        }
    }

    fn zeros_by(&self, block: DeviceBlock, index: u64, most: u64, buffer: &mut [u32]) -> Result<(u64, u32)> {
        let mut done = 0;
        while done < most {
            let len = buffer.len().min(usize::try_from(most - done).unwrap_or(usize::MAX));
            let window = &mut buffer[..len];
            self.pointers.read(block, index + done, window)?;
            let zeros = leading_zeros(window);
            done += zeros as u64;
            if let Some(&pointer) = window.get(zeros) {
                return Ok((done, pointer));
            }
        }
        Ok((done, 0))
    }

    /// The hole or run at the start of `most` data pointers of an indirect block from `index` on.
    fn leaf(&self, block: DeviceBlock, index: u64, most: u64) -> Result<Piece> {
        if most == 1 {
            let (target, count) = self.head(&[self.pointers.read_one(block, index)?])?;
            return Ok(Piece { target, count, next: Next::Unknown });
        }
        let mut buffer = [0; WINDOW];
        let window = &mut buffer[..most.min(WINDOW as u64) as usize];
        self.pointers.read(block, index, window)?;
        let (target, mut count) = self.head(window)?;
        while count.is_multiple_of(WINDOW as u64) && count < most {
            let window = &mut buffer[..(most - count).min(WINDOW as u64) as usize];
            // What is known is a legal answer.
            let Ok(()) = self.pointers.read(block, index + count, window) else { break };
            let more = match target {
                None => leading_zeros(window) as u64,
                Some(run) => match run.checked_add(count) {
                    Some(next) => self.run(window, next.get()),
                    None => 0,
                },
            };
            if more == 0 {
                break;
            }
            count += more;
        }
        Ok(Piece { target, count, next: Next::after(count, most) })
    }

    /// The hole or run at the start of an array of data pointers.
    fn head(&self, window: &[u32]) -> Result<(Option<DeviceBlock>, u64)> {
        let first = window[0];
        if first == 0 {
            return Ok((None, leading_zeros(window) as u64));
        }
        let target = self.valid(first)?;
        Ok((Some(target), self.run(window, first)))
    }

    /// How many pointers at the start of `window` count up from `first`. A run that leaves the file system
    /// is cut where it does.
    pub(super) fn run(&self, window: &[u32], first: u32) -> u64 {
        const STEP: usize = 16;
        let counts_up = |pointers: &[u32], from: u32| {
            pointers.iter().zip(0..).fold(true, |so_far, (&own, nr)| so_far & (own == from.wrapping_add(nr)))
        };
        let mut len = 0;
        for step in window.chunks_exact(STEP) {
            if !counts_up(step, first.wrapping_add(len as u32)) {
                break;
            }
            len += STEP;
        }
        let rest = window.get(len..).unwrap_or_default().iter().zip(len..);
        len += rest.take_while(|&(&own, nr)| own == first.wrapping_add(nr as u32)).count();
        (len as u64).min(u64::from(self.pointers.end().saturating_sub(first)))
    }

    /// The block that a pointer names.
    pub(super) fn valid(&self, pointer: u32) -> Result<DeviceBlock> {
        self.pointers.valid(pointer).ok_or_else(|| {
            let what = format!("block map points to block {pointer}, outside the file system");
            Error::Corrupt(Corrupt::new(Object::Inode(self.inode), what))
        })
    }

    #[cold]
    fn endless(&self) -> Error {
        let what = "block map has more indirect blocks than the file system has blocks";
        Error::Corrupt(Corrupt::new(Object::Inode(self.inode), what))
    }
}

/// How many pointers at the start are 0.
fn leading_zeros(window: &[u32]) -> usize {
    const STEP: usize = 16;
    let steps = window.chunks_exact(STEP).take_while(|step| step.iter().fold(0, |all, own| all | own) == 0);
    let len = steps.count() * STEP;
    len + window.get(len..).unwrap_or_default().iter().take_while(|&&own| own == 0).count()
}

// Kept next to the lookup so that the two agree on what a path is.
const _: () = assert!(SLOTS == DIRECT as usize + 3);

#[cfg(test)]
mod tests {
    use super::super::around::lookup_one;
    use super::*;
    use crate::map::KnownRun;
    use alloc::collections::BTreeMap;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::cell::Cell;

    /// A map given as the set of its data blocks; indirect blocks are made up around them.
    struct Fake {
        shape: Shape,
        root: [u32; SLOTS],
        blocks: BTreeMap<u32, Vec<u32>>,
        reads: Cell<u64>,
    }

    const MAX: u32 = 1 << 20;

    impl Fake {
        fn new(pointers: u64) -> Self {
            Self {
                shape: Shape::new(pointers),
                root: [0; SLOTS],
                blocks: BTreeMap::new(),
                reads: Cell::new(0),
            }
        }

        /// Makes the way to `block`; `levels` of its indirect blocks, all for `u32::MAX`, then `data`.
        fn set(&mut self, block: u64, levels: u32, data: u32) {
            let path = self.shape.path(block).unwrap();
            if path.depth == 0 {
                self.root[path.slot] = data;
                return;
            }
            let mut at = (0, path.slot);
            for level in 1..=path.depth.min(levels) {
                let fresh = MAX / 2 + self.blocks.len() as u32;
                let pointer = match at.0 {
                    0 => &mut self.root[at.1],
                    parent => &mut self.blocks.get_mut(&parent).unwrap()[at.1],
                };
                if *pointer == 0 {
                    *pointer = fresh;
                    self.blocks.insert(fresh, vec![0; self.shape.pointers() as usize]);
                }
                let pointer = match at.0 {
                    0 => self.root[at.1],
                    parent => self.blocks[&parent][at.1],
                };
                at = (pointer, self.shape.index(&path, level) as usize);
            }
            if levels > path.depth {
                self.blocks.get_mut(&at.0).unwrap()[at.1] = data;
            }
        }

        fn tree(&self) -> Tree<'_, Self> {
            Tree { pointers: self, shape: self.shape, inode: InodeNr::ROOT, budget: 1 << 20 }
        }
    }

    impl Pointers for Fake {
        fn root(&self, slot: usize) -> u32 {
            self.root[slot]
        }
        fn read(&self, block: DeviceBlock, index: u64, into: &mut [u32]) -> Result<()> {
            self.reads.set(self.reads.get() + 1);
            let from = index as usize;
            into.copy_from_slice(&self.blocks[&block.get()][from..from + into.len()]);
            Ok(())
        }
        fn valid(&self, pointer: u32) -> Option<DeviceBlock> {
            DeviceBlock::new(pointer).filter(|_| pointer < MAX)
        }
        fn end(&self) -> u32 {
            MAX
        }
    }

    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    /// Every start and every length of a map against a walk block by block.
    fn compare_with_brute_force(fake: &Fake, truth: &[u32]) {
        let tree = fake.tree();
        for (block, &pointer) in (0..).zip(truth) {
            let found = lookup_one(&tree, FileBlock::new(block)).unwrap();
            assert_eq!(found.map(|(target, _)| target), DeviceBlock::new(pointer), "{block}");
            let Some((_, Some(run))) = found else { continue };
            assert!((run.start..run.start + u64::from(run.count)).contains(&block), "{block}: {run:?}");
            for (known, target) in (run.start..).zip(run.target..run.target + run.count) {
                assert_eq!(truth[known as usize], target, "block {known} by a lookup of {block}");
            }
        }
        for start in 0..truth.len() {
            let mut longest = 1;
            while start + longest < truth.len() {
                let (first, here) = (truth[start], truth[start + longest]);
                let goes_on = if first == 0 { here == 0 } else { here == first + longest as u32 };
                if !goes_on {
                    break;
                }
                longest += 1;
            }
            for want in [1, 2, longest.saturating_sub(1).max(1), longest, longest + 1, truth.len() - start] {
                let want = want.min(truth.len() - start);
                let answer = lookup(&tree, FileBlock::new(start as u64), want as u64).unwrap();
                assert_eq!(answer.target, DeviceBlock::new(truth[start]), "{start}+{want}");
                assert_eq!(answer.count, longest.min(want) as u64, "{start}+{want} in {truth:?}");
            }
        }
    }

    #[test]
    fn every_answer_equals_a_walk_block_by_block_on_trees_of_all_depths() {
        for pointers in [4, 8] {
            let shape = Shape::new(pointers);
            let total = shape.max_blocks() as usize;
            for seed in 0..40 {
                let mut state = seed;
                let mut fake = Fake::new(pointers);
                let mut truth = vec![0; total];
                let mut at = 0;
                let mut data = 100;
                while at < total {
                    let len = 1 + (next(&mut state) % [3, 9, 40, 200][seed as usize % 4]) as usize;
                    let kind = next(&mut state) % 3;
                    for (block, cell) in truth.iter_mut().enumerate().skip(at).take(len) {
                        match kind {
                            // A hole with nothing, or with empty indirect blocks down to some level.
                            0 => {}
                            1 => fake.set(block as u64, (next(&mut state) % 4) as u32, 0),
                            _ => {
                                fake.set(block as u64, u32::MAX, data);
                                *cell = data;
                                data += 1;
                            }
                        }
                    }
                    at += len;
                    if next(&mut state).is_multiple_of(2) {
                        data += 7;
                    }
                }
                compare_with_brute_force(&fake, &truth);
            }
        }
    }

    #[test]
    fn holes_of_4_kib_blocks_have_the_length_that_the_subtree_formula_misses() {
        // Even slots of 512 blocks hold the end of a leaf array, so a formula that stops there never
        // answers a whole slot; ours does for each of them.
        for (block, levels) in
            [(0, 1), (512, 1), (512, 2), (1024, 1), (1536, 1), (1536, 2), (2048, 1), (2048, 2)]
        {
            let mut fake = Fake::new(1024);
            fake.set(block, levels, 0);
            fake.set(block + 512, u32::MAX, 77);
            let answer = lookup(&fake.tree(), FileBlock::new(block), 512).unwrap();
            assert_eq!((answer.count, answer.target), (512, None), "block {block}");
        }
    }

    #[test]
    fn a_hole_to_the_end_of_all_trees_is_one_answer_without_overflow() {
        for pointers in [256, 1024, 16384] {
            let fake = Fake::new(pointers);
            let answer = lookup(&fake.tree(), FileBlock::ZERO, u64::MAX).unwrap();
            assert_eq!(answer.count, u64::MAX);
            let last = FileBlock::new(Shape::new(pointers).max_blocks() - 1);
            assert_eq!(lookup(&fake.tree(), last, 1).unwrap().count, 1);
            assert_eq!(fake.reads.get(), 0);
        }
    }

    #[test]
    fn a_hole_of_a_tebibyte_under_a_missing_subtree_costs_at_most_four_reads() {
        let mut fake = Fake::new(1024);
        let tind = 1_049_612;
        fake.set(tind, u32::MAX, 9);
        let tebibyte = (1 << 40) / 4096;
        let answer = lookup(&fake.tree(), FileBlock::new(tind + (1 << 20)), tebibyte).unwrap();
        assert_eq!((answer.count, answer.target), (tebibyte, None));
        assert!(fake.reads.get() <= 4, "{} reads", fake.reads.get());
    }

    #[test]
    fn a_hole_of_a_tebibyte_that_ends_under_three_levels_costs_at_most_four_reads() {
        let mut fake = Fake::new(1024);
        let tebibyte = (1 << 40) / 4096;
        fake.set(0, u32::MAX, 9);
        fake.set(tebibyte, u32::MAX, 10);
        for start in [1, 1_049_612, 2_000_000] {
            fake.reads.set(0);
            let answer = lookup(&fake.tree(), FileBlock::new(start), tebibyte).unwrap();
            assert_eq!((answer.end().get(), answer.target), (tebibyte, None));
            assert!(fake.reads.get() <= 4, "{} reads from block {start}", fake.reads.get());
        }
    }

    #[test]
    fn a_lookup_of_one_block_follows_a_run_and_reads_one_line_where_there_is_none() {
        let mut fake = Fake::new(1024);
        (1036 + 100..1036 + 900).for_each(|block| fake.set(block, 9, 5000 + block as u32));
        fake.set(1036 + 50, 9, 7);
        let found = lookup_one(&fake.tree(), FileBlock::new(1036 + 300)).unwrap().unwrap();
        let run = KnownRun { start: 1036 + 100, count: 412, target: 6136 };
        assert_eq!(found, (DeviceBlock::new(6336).unwrap(), Some(run)));
        fake.reads.set(0);
        let found = lookup_one(&fake.tree(), FileBlock::new(1036 + 50)).unwrap().unwrap();
        assert_eq!(found.1, Some(KnownRun { start: 1086, count: 1, target: 7 }));
        assert_eq!(fake.reads.get(), 2);
    }

    #[test]
    fn a_tree_that_names_itself_is_corrupt_and_not_a_loop() {
        let mut fake = Fake::new(1024);
        fake.root[14] = 50;
        fake.blocks.insert(50, vec![50; 1024]);
        fake.blocks.get_mut(&50).unwrap()[0] = 0;
        let mut tree = fake.tree();
        tree.budget = 1000;
        let answer = lookup(&tree, FileBlock::new(1_049_612), 1 << 30);
        assert!(fake.reads.get() <= 1000);
        assert!(answer.is_ok_and(|mapping| mapping.count >= 1));
    }

    #[test]
    fn a_pointer_outside_the_file_system_is_corrupt_and_ends_a_run_before_it() {
        let mut fake = Fake::new(1024);
        for (block, data) in [(0, MAX - 2), (1, MAX - 1), (2, MAX)] {
            fake.set(block, 9, data);
        }
        let tree = fake.tree();
        assert_eq!(lookup(&tree, FileBlock::ZERO, 12).unwrap().count, 2);
        assert!(matches!(lookup(&tree, FileBlock::new(2), 1), Err(Error::Corrupt(_))));
    }

    #[test]
    fn a_path_is_only_as_deep_as_needed() {
        let path = Shape::new(8).path(12).unwrap();
        assert_eq!(path, Path { slot: 12, depth: 1, within: 0 });
    }
}
