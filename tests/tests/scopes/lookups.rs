//! All pointer trees of 4 pointers a block with up to four runs that end at an edge, and all lookups in them.

use ext2_format::{
    DeviceBlock, FileBlock, InodeNr, Result,
    map::{Pointers, SLOTS, Shape, Tree, lookup, lookup_one},
};

/// Pointers of an indirect block.
const FAN: u64 = 4;
/// Blocks that such a tree reaches.
const TOTAL: u64 = 12 + 4 + 16 + 64;
/// Where runs end: the ends of arrays of each level, and their neighbours.
const EDGES: [u64; 12] = [1, 11, 12, 13, 16, 17, 20, 31, 32, 36, 48, 92];
/// The first number that no block has.
const END: u32 = 1000;

/// What a run of a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A hole without anything below.
    Bare,
    /// A hole with empty indirect blocks.
    Hollow,
    /// Data, each run elsewhere on the device.
    Data,
}

const KINDS: [Kind; 3] = [Kind::Bare, Kind::Hollow, Kind::Data];

/// A tree: block `n` of those that are indirect lies at `END / 2 + n` of the device.
struct Made {
    root: [u32; SLOTS],
    indirect: Vec<[u32; FAN as usize]>,
}

impl Made {
    fn set(&mut self, shape: Shape, block: u64, kind: Kind, data: u32) {
        if kind == Kind::Bare {
            return;
        }
        let path = shape.path(block).expect("inside");
        let leaf = if kind == Kind::Data { data } else { 0 };
        if path.depth == 0 {
            self.root[path.slot] = leaf;
            return;
        }
        let mut at: Option<(usize, usize)> = None;
        for level in 1..=path.depth {
            let fresh = END / 2 + self.indirect.len() as u32;
            let pointer = self.pointer(at, path.slot);
            if *pointer == 0 {
                *pointer = fresh;
                self.indirect.push([0; FAN as usize]);
            }
            let number = (*self.pointer(at, path.slot) - END / 2) as usize;
            at = Some((number, shape.index(&path, level) as usize));
        }
        *self.pointer(at, path.slot) = leaf;
    }

    fn pointer(&mut self, at: Option<(usize, usize)>, slot: usize) -> &mut u32 {
        match at {
            None => &mut self.root[slot],
            Some((block, index)) => &mut self.indirect[block][index],
        }
    }
}

impl Pointers for Made {
    fn root(&self, slot: usize) -> u32 {
        self.root[slot]
    }

    fn read(&self, block: DeviceBlock, index: u64, into: &mut [u32]) -> Result<()> {
        let pointers = &self.indirect[(block.get() - END / 2) as usize];
        into.copy_from_slice(&pointers[index as usize..][..into.len()]);
        Ok(())
    }

    fn valid(&self, pointer: u32) -> Option<DeviceBlock> {
        DeviceBlock::new(pointer).filter(|_| pointer < END)
    }

    fn end(&self) -> u32 {
        END
    }
}

/// Makes each tree, and looks up each run that there is, from each block on and of each length that may matter. Gives the number of
/// trees and of lookups.
pub(crate) fn look_all() -> (u64, u64) {
    let (mut trees, mut lookups) = (0, 0);
    let mut ends = Vec::new();
    choose(&mut ends, 0, &mut |ends| {
        for code in 0..KINDS.len().pow(ends.len() as u32 + 1) {
            let kinds = (0..=ends.len() as u32).map(|nr| KINDS[code / KINDS.len().pow(nr) % KINDS.len()]);
            let kinds: Vec<Kind> = kinds.collect();
            lookups += look(ends, &kinds);
            trees += 1;
        }
    });
    (trees, lookups)
}

/// All choices of up to three edges.
fn choose(ends: &mut Vec<u64>, from: usize, each: &mut impl FnMut(&[u64])) {
    each(ends);
    if ends.len() == 3 {
        return;
    }
    for (nr, edge) in EDGES.iter().enumerate().skip(from) {
        ends.push(*edge);
        choose(ends, nr + 1, each);
        ends.pop();
    }
}

fn look(ends: &[u64], kinds: &[Kind]) -> u64 {
    let shape = Shape::new(FAN);
    let mut made = Made { root: [0; SLOTS], indirect: Vec::new() };
    let mut truth = [0; TOTAL as usize];
    let (mut data, mut start) = (10, 0);
    for (end, kind) in ends.iter().copied().chain([TOTAL]).zip(kinds) {
        // What follows a run of data is elsewhere.
        data += 3;
        for block in start..end {
            made.set(shape, block, *kind, data);
            if *kind == Kind::Data {
                truth[block as usize] = data;
                data += 1;
            }
        }
        start = end;
    }
    let tree = Tree { pointers: &made, shape, inode: InodeNr::ROOT, budget: 1 << 20 };
    let mut lookups = 0;
    for at in 0..TOTAL {
        let first = truth[at as usize];
        let next = |more: u64| if first == 0 { 0 } else { first + more as u32 };
        let longest = (1..).find(|&more| at + more >= TOTAL || truth[(at + more) as usize] != next(more));
        let longest = longest.expect("it ends with the tree");
        let what = || format!("block {at} with runs of {kinds:?} up to {ends:?}");
        for want in [1, 2, longest.max(2) - 1, longest, longest + 1, TOTAL - at] {
            let want = want.min(TOTAL - at);
            let found =
                lookup(&tree, FileBlock::new(at), want).unwrap_or_else(|error| panic!("{}: {error}", what()));
            assert_eq!(found.target, DeviceBlock::new(first), "{}", what());
            assert_eq!(found.count, longest.min(want), "{want} from {}", what());
            lookups += 1;
        }
        let one = lookup_one(&tree, FileBlock::new(at)).unwrap_or_else(|error| panic!("{}: {error}", what()));
        assert_eq!(one.map(|(target, _)| target), DeviceBlock::new(first), "{}", what());
        if let Some((_, Some(run))) = one {
            for (known, target) in (run.start..).zip(run.target..run.target + run.count) {
                assert_eq!(truth[known as usize], target, "block {known} by {}", what());
            }
        }
        lookups += 1;
    }
    lookups
}
