//! The block map of a new file: indirect blocks counted beforehand, filled front to back, and written once.
//!
//! # Invariants
//! 1. [`indirect_blocks`] counts exactly the blocks that [`MapWriter`] asks for.
//! 2. At most one indirect block of each level is in memory.

use alloc::vec;
use alloc::vec::Vec;

use super::Result;
use ext2_core::rules::{DIRECT, SLOTS, Shape};

/// The first block of the tree of `depth` levels, and the part of blocks `start..end` that hangs in it, counted from
/// there.
fn part(shape: Shape, depth: u32, start: u64, end: u64) -> (u64, u64, u64) {
    let base = DIRECT + (1..depth).map(|below| shape.span(below)).sum::<u64>();
    let limit = base + shape.span(depth);
    (base, start.clamp(base, limit) - base, end.clamp(base, limit) - base)
}

/// How many indirect blocks a file needs whose data is in `runs` of blocks (first, count), ascending and apart.
pub(crate) fn indirect_blocks(shape: Shape, runs: impl Iterator<Item = (u64, u64)>) -> u64 {
    let mut last = [[None; 4]; 4];
    let mut sum = 0;
    for (start, count) in runs {
        for depth in 1..=3 {
            let (_, from, to) = part(shape, depth, start, start + count);
            if from == to {
                continue;
            }
            for level in 1..=depth {
                let span = shape.span(depth + 1 - level);
                let (a, b) = (from / span, (to - 1) / span);
                let seen = &mut last[depth as usize][level as usize];
                sum += b - a + u64::from(*seen != Some(a));
                *seen = Some(b);
            }
        }
    }
    sum
}

/// Where indirect blocks come from and go to.
pub(super) trait Indirect {
    /// The next block for one.
    fn next(&mut self) -> Result<u32>;
    /// Writes one that is complete.
    fn write(&mut self, block: u32, bytes: &[u8]) -> Result<()>;
}

/// An indirect block that is being filled.
#[derive(Debug)]
struct Open {
    depth: u32,
    /// Which of its level it is.
    id: u64,
    block: u32,
    bytes: Vec<u8>,
}

/// The map of one file in the making.
#[derive(Debug)]
pub(super) struct MapWriter {
    shape: Shape,
    /// The inode's pointers.
    pub(super) root: [u32; SLOTS],
    /// The open block of each level, 1 first.
    open: [Option<Open>; 3],
}

impl MapWriter {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, root: [0; SLOTS], open: [None, None, None] }
    }

    /// Maps `count` blocks from `start` to those from `target`. Calls come in ascending order.
    pub(super) fn set(
        &mut self,
        start: u64,
        target: u32,
        count: u64,
        indirect: &mut impl Indirect,
    ) -> Result<()> {
        let end = start + count;
        for block in start..end.min(DIRECT) {
            self.root[block as usize] = target + (block - start) as u32;
        }
        for depth in 1..=3 {
            let (base, mut from, to) = part(self.shape, depth, start, end);
            while from < to {
                let array_end = (from / self.shape.pointers() + 1) * self.shape.pointers();
                let stop = to.min(array_end);
                let first = target + (base + from - start) as u32;
                let index = (from % self.shape.pointers()) as usize;
                let leaf = self.leaf(depth, from, indirect)?;
                let slots = leaf.chunks_exact_mut(4).skip(index);
                for (slot, pointer) in slots.zip(first..).take((stop - from) as usize) {
                    slot.copy_from_slice(&pointer.to_le_bytes());
                }
                from = stop;
            }
        }
        Ok(())
    }

    /// The leaf array of the tree's block `within`, opened with all above it where it is not open.
    fn leaf(&mut self, depth: u32, within: u64, indirect: &mut impl Indirect) -> Result<&mut [u8]> {
        for level in 1..=depth {
            let id = within / self.shape.span(depth + 1 - level);
            let slot = level as usize - 1;
            if self.open[slot].as_ref().is_some_and(|open| open.depth == depth && open.id == id) {
                continue;
            }
            self.close(slot, indirect)?;
            let block = indirect.next()?;
            let bytes = vec![0; self.shape.pointers() as usize * 4];
            self.open[slot] = Some(Open { depth, id, block, bytes });
            match slot.checked_sub(1).and_then(|above| self.open[above].as_mut()) {
                Some(above) => {
                    let at = (id % self.shape.pointers()) as usize * 4;
                    above.bytes[at..at + 4].copy_from_slice(&block.to_le_bytes());
                }
                None => self.root[11 + depth as usize] = block,
            }
        }
        match &mut self.open[depth as usize - 1] {
            Some(leaf) => Ok(&mut leaf.bytes),
            None => unreachable!("the loop has opened it"),
        }
    }

    /// Writes the open blocks from a level downwards.
    fn close(&mut self, from: usize, indirect: &mut impl Indirect) -> Result<()> {
        for open in self.open.iter_mut().skip(from).filter_map(Option::take) {
            indirect.write(open.block, &open.bytes)?;
        }
        Ok(())
    }

    /// Writes what is open, and gives the inode's pointers.
    pub(super) fn finish(mut self, indirect: &mut impl Indirect) -> Result<[u32; SLOTS]> {
        self.close(0, indirect)?;
        Ok(self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    #[derive(Default)]
    struct Memory {
        next: u32,
        blocks: BTreeMap<u32, Vec<u8>>,
    }

    impl Indirect for Memory {
        fn next(&mut self) -> Result<u32> {
            self.next += 1;
            Ok(self.next)
        }
        fn write(&mut self, block: u32, bytes: &[u8]) -> Result<()> {
            assert!(self.blocks.insert(block, bytes.to_vec()).is_none(), "block {block} is written once");
            Ok(())
        }
    }

    fn lookup(shape: Shape, root: &[u32; SLOTS], memory: &Memory, block: u64) -> u32 {
        let path = shape.path(block).unwrap();
        let mut at = root[path.slot];
        for level in 1..=path.depth {
            if at == 0 {
                return 0;
            }
            let index = shape.index(&path, level) as usize * 4;
            at = u32::from_le_bytes(memory.blocks[&at][index..index + 4].try_into().unwrap());
        }
        at
    }

    #[test]
    fn maps_with_holes_read_back_and_take_as_many_indirect_blocks_as_counted() {
        let shape = Shape::new(4);
        let all = [(0, 96), (3, 5), (11, 2), (16, 1), (31, 2), (50, 46), (95, 1), (12, 4)];
        for gap in 0..60 {
            for (start, count) in all {
                let mut runs = vec![(start, count)];
                let second = start + count + gap;
                if second < shape.max_blocks() {
                    runs.push((second, 1));
                }
                let mut memory = Memory::default();
                let mut map = MapWriter::new(shape);
                for &(start, count) in &runs {
                    map.set(start, 1000 + start as u32, count, &mut memory).unwrap();
                }
                let root = map.finish(&mut memory).unwrap();
                let counted = indirect_blocks(shape, runs.iter().copied());
                assert_eq!(counted, u64::from(memory.next), "{runs:?}");
                assert_eq!(counted, memory.blocks.len() as u64, "{runs:?}");
                for block in 0..shape.max_blocks() {
                    let mapped = runs.iter().any(|&(start, count)| (start..start + count).contains(&block));
                    let expected = if mapped { 1000 + block as u32 } else { 0 };
                    assert_eq!(lookup(shape, &root, &memory, block), expected, "{runs:?} block {block}");
                }
            }
        }
    }
}
