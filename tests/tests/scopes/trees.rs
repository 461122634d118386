//! All pointer trees with blocks at some of the edges, and all that can be cut from them at an edge.

use std::{collections::BTreeMap, sync::Arc};

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::Scratch;
use ext2_core::{
    BlockSize, Ext2, FileBlock, FileKind, FixedClock, Inode, NewInode, OpenOptions, Timestamp, Wait,
};
use ext2_image::{
    check::{Checker, Options as CheckOptions},
    mkfs::{self, Format, Fresh, Inodes},
};

/// Bytes of a block.
const BLOCK: u64 = 1024;
/// Pointers of an indirect block.
const POINTERS: u64 = 256;
/// The first blocks under the indirect, the double and the triple indirect pointer, and the first that none reaches.
const IND: u64 = 12;
const DIND: u64 = IND + POINTERS;
const TIND: u64 = DIND + POINTERS * POINTERS;

/// Blocks that a tree has or has not: on both sides of where a pointer of the inode or of an indirect block ends.
const PLACES: [u64; 8] = [0, IND - 1, IND, DIND, DIND + POINTERS, TIND - 1, TIND, TIND + POINTERS * POINTERS];

/// What a file is, by its places: the byte that each block is full of up to some byte and from some byte on; zeros between.
type Blocks = BTreeMap<u64, (u64, u64)>;

/// What is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Truncate(u64),
    /// From a byte to a byte.
    Punch(u64, u64),
}

/// A byte that tells blocks apart.
fn byte_of(place: u64) -> u8 {
    1 + (place % 251) as u8
}

/// Indirect blocks that lead to these.
fn indirect_blocks(blocks: impl Iterator<Item = u64>) -> u64 {
    let mut known = std::collections::BTreeSet::new();
    for block in blocks {
        match block {
            0..IND => {}
            IND..DIND => _ = known.insert((1, 0)),
            DIND..TIND => known.extend([(2, 0), (3, (block - DIND) / POINTERS)]),
            _ => {
                let within = block - TIND;
                known.extend([(4, 0), (5, within / POINTERS / POINTERS), (6, within / POINTERS)]);
            }
        }
    }
    known.len() as u64
}

fn empty() -> Vec<u8> {
    let device = RamDevice::new(80 << 10).expect("memory");
    let format = Format {
        block_size: BlockSize::new(BLOCK),
        inode_size: 128,
        inodes: Inodes::Count(16),
        reserved_percent: 0.0,
        ..Format::default()
    };
    mkfs::format(&device, &format, Fresh::Zeros).expect("made");
    device.to_vec()
}

fn open(device: &Arc<Scratch>) -> Ext2 {
    let clock = Some(Arc::new(FixedClock(Timestamp::from_secs(1_700_000_000))) as _);
    Ext2::open(device.clone(), &OpenOptions { clock, ..OpenOptions::default() }).expect("opened")
}

/// The size of the file before anything is cut: past all places.
const SIZE: u64 = (PLACES[7] + 2) * BLOCK;

/// What is left, and the size.
fn expected(mut blocks: Blocks, cut: Cut) -> (Blocks, u64) {
    let (from, to, size) = match cut {
        Cut::Truncate(size) => (size, u64::MAX, size),
        Cut::Punch(from, to) => (from, to, SIZE),
    };
    blocks.retain(|place, _| place * BLOCK < from || (place + 1) * BLOCK > to);
    for (place, (end, begin)) in &mut blocks {
        let start = place * BLOCK;
        // The zeros in the middle.
        if from < start + BLOCK && to > start {
            (*end, *begin) = (from.max(start) - start, to.min(start + BLOCK) - start);
        }
    }
    (blocks, size)
}

/// Compares a file with what it should be.
fn compare(file: &Inode, (blocks, size): &(Blocks, u64)) -> Result<(), String> {
    let words = |error: ext2_core::Error| error.to_string();
    let mut found = Vec::new();
    for run in file.extents() {
        let run = run.map_err(words)?;
        found.extend(run.start.get()..run.end().get());
    }
    if !found.iter().eq(blocks.keys()) {
        return Err(format!("has blocks {found:?}, and should have {:?}", blocks.keys()));
    }
    let attr = file.attr();
    if attr.size != *size {
        return Err(format!("{} bytes, and should have {size}", attr.size));
    }
    for (place, (end, begin)) in blocks {
        let mut bytes = [0; BLOCK as usize];
        let got = file.read_at(place * BLOCK, &mut bytes).map_err(words)? as u64;
        let wanted = |at: u64| if at < *end || at >= *begin { byte_of(*place) } else { 0 };
        if got != (size - place * BLOCK).min(BLOCK) || !(0..got).all(|at| bytes[at as usize] == wanted(at)) {
            return Err(format!("{got} bytes of block {place} are not what they should be"));
        }
        // On the device the rest of the block is zero: a file that grows shows it.
        let target = file.map(FileBlock::new(*place), 1).map_err(words)?.target.ok_or("a hole")?;
        let fs = file.fs();
        fs.device()
            .read_at(u64::from(target.get()) * BLOCK, &mut bytes)
            .map_err(|error| error.to_string())?;
        if bytes[got as usize..].iter().any(|byte| *byte != 0) {
            return Err(format!("past the end block {place} is not zero"));
        }
    }
    Ok(())
}

/// Where it is cut: at the beginning, inside, and at the end of each place.
fn edges() -> Vec<u64> {
    let mut edges: Vec<u64> = PLACES
        .iter()
        .flat_map(|place| [place * BLOCK, place * BLOCK + 100, (place + 1) * BLOCK])
        .chain([SIZE])
        .collect();
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// Cuts each tree at each edge, and between each two. Gives the number of cuts.
pub(crate) fn cut_all() -> u64 {
    let edges = edges();
    let between = |(nr, from): (usize, &u64)| {
        let from = *from;
        edges[nr + 1..].iter().map(move |to| Cut::Punch(from, *to))
    };
    let punches = edges.iter().enumerate().flat_map(between);
    let cuts: Vec<Cut> = edges.iter().map(|edge| Cut::Truncate(*edge)).chain(punches).collect();
    let base = empty();
    let mut checker = Checker::new();
    let mut done = 0;
    for chosen in 0..1 << PLACES.len() {
        let places =
            PLACES.iter().enumerate().filter(|(nr, _)| chosen >> nr & 1 == 1).map(|(_, place)| *place);
        let blocks: Blocks = places.map(|place| (place, (BLOCK, BLOCK))).collect();
        let device = Arc::new(Scratch::new(base.clone()));
        let fs = open(&device);
        let free = fs.statfs().expect("known").blocks_free;
        let file =
            fs.root().expect("a root").create("f", &NewInode::new(FileKind::Regular, 0o644)).expect("made");
        for place in blocks.keys() {
            let put = file.write_at(place * BLOCK, &[byte_of(*place); BLOCK as usize]).expect("written");
            assert_eq!(put as u64, BLOCK);
        }
        file.truncate(SIZE, Wait::Yes).expect("longer");
        drop(file);
        fs.close().expect("closed");
        device.keep();
        for &cut in &cuts {
            let went = cut_one(&device, &mut checker, &blocks, cut, free);
            went.unwrap_or_else(|words| panic!("{:?}, {cut:?}: {words}", blocks.keys()));
            device.restore();
            done += 1;
        }
    }
    done
}

fn cut_one(
    device: &Arc<Scratch>,
    checker: &mut Checker,
    blocks: &Blocks,
    cut: Cut,
    free: u64,
) -> Result<(), String> {
    let words = |error: ext2_core::Error| error.to_string();
    let wanted = expected(blocks.clone(), cut);
    let fs = open(device);
    let file = fs.root().and_then(|root| root.lookup("f")).map_err(words)?;
    match cut {
        Cut::Truncate(size) => file.truncate(size, Wait::Yes),
        Cut::Punch(from, to) => file.punch_hole(from, to - from, Wait::Yes),
    }
    .map_err(words)?;
    compare(&file, &wanted)?;
    let used = wanted.0.len() as u64 + indirect_blocks(wanted.0.keys().copied());
    let left = fs.statfs().map_err(words)?.blocks_free;
    if left + used != free {
        return Err(format!("{left} of {free} blocks are free, and {used} should be used"));
    }
    drop(file);
    fs.close().map_err(words)?;
    let mut first = None;
    let mut sink = |finding: &ext2_image::check::Finding| first = first.take().or(Some(finding.to_string()));
    checker.check(&**device, &CheckOptions::default(), &mut sink).map_err(words)?;
    if let Some(first) = first {
        return Err(format!("check: {first}"));
    }
    let again =
        Ext2::open(device.clone() as Arc<dyn BlockDevice>, &OpenOptions::read_only()).map_err(words)?;
    let file = again.root().and_then(|root| root.lookup("f")).map_err(words)?;
    compare(&file, &wanted).map_err(|words| format!("opened again: {words}"))
}
