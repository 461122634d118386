//! A file has the blocks that were written to, the indirect blocks that lead to them, and no others, on all levels of its
//! trees: against a model that is a set of blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::{Rng, need_tools, small::is_clean};
use ext2_core::{BlockSize, Errno, Ext2, FileKind, Inode, NewInode, OpenOptions, Policy, Wait};
use ext2_format::map::KnownRun;
use ext2_image::mkfs::{self, Format, Fresh};

const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);

/// The file: what its blocks hold.
struct Model {
    len: u64,
    /// Pointers of an indirect block.
    pointers: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
    size: u64,
    /// Blocks that the trees reach, and a file may have.
    most: u64,
}

impl Model {
    /// The indirect blocks that lead to the blocks: for each level of each tree the places that are used.
    fn indirect(&self) -> u64 {
        let mut used = BTreeSet::new();
        for &block in self.blocks.keys() {
            let Some(mut within) = block.checked_sub(12) else { continue };
            let mut depth = 1;
            while within >= self.pointers.pow(depth) {
                within -= self.pointers.pow(depth);
                depth += 1;
            }
            used.extend((1..=depth).map(|level| (depth, level, within / self.pointers.pow(level))));
        }
        used.len() as u64
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        for (at, &byte) in (at..).zip(bytes) {
            let block = self.blocks.entry(at / self.len).or_insert_with(|| vec![0; self.len as usize]);
            block[(at % self.len) as usize] = byte;
        }
        self.size = self.size.max(at + bytes.len() as u64);
    }

    /// Zeroes what there is of some bytes.
    fn zero(&mut self, range: Range<u64>) {
        for (&block, bytes) in self
            .blocks
            .range_mut(range.start / self.len..range.end.div_ceil(self.len).max(range.start / self.len))
        {
            let start = block * self.len;
            let (from, to) =
                (range.start.max(start) - start, range.end.clamp(start, start + self.len) - start);
            bytes[from as usize..to as usize].fill(0);
        }
    }

    fn punch(&mut self, at: u64, len: u64) {
        let asked = at.saturating_add(len);
        let end = asked.min(self.size);
        if at >= end {
            return;
        }
        self.zero(at..end);
        // The last block goes whole where the hole reaches past the end of the file.
        let last = if asked > end { end.div_ceil(self.len) } else { end / self.len };
        let first = at.div_ceil(self.len);
        self.blocks.retain(|block, _| *block < first || *block >= last);
    }

    fn truncate(&mut self, size: u64) {
        self.blocks.retain(|block, _| block * self.len < size);
        if size < self.size {
            self.zero(size..size.next_multiple_of(self.len));
        }
        self.size = size;
    }

    fn compare(&self, file: &Inode, step: &str) {
        assert_eq!(file.size(), self.size, "{step}");
        let all = self.blocks.len() as u64 + self.indirect();
        assert_eq!(u64::from(file.attr().blocks_512), all * self.len / 512, "{step}");
        let mut there = Vec::new();
        for run in file.extents() {
            let run = run.expect("a whole map");
            there.extend(run.start.get()..run.end().get());
        }
        assert!(there.iter().eq(self.blocks.keys()), "{step}: {there:?}, not {:?}", self.blocks.keys());
    }

    /// Compares what lies around some byte.
    fn compare_bytes(&self, file: &Inode, at: u64, step: &str) {
        let mut got = vec![0xee; 3 * self.len as usize];
        let read = file.read_at(at, &mut got).expect("read") as u64;
        assert_eq!(read, self.size.saturating_sub(at).min(3 * self.len), "{step}");
        for (at, byte) in (at..at + read).zip(got) {
            let own = self.blocks.get(&(at / self.len)).map_or(0, |block| block[(at % self.len) as usize]);
            assert_eq!(byte, own, "byte {at} {step}");
        }
        let found = |done: ext2_core::Result<u64>| match done {
            Ok(at) => Some(at),
            Err(error) => {
                assert!(error.is(Errno::NXIO), "{error}");
                None
            }
        };
        let end = self.size.div_ceil(self.len);
        let data = self
            .blocks
            .range((at / self.len).min(end)..end)
            .next()
            .map(|(&block, _)| at.max(block * self.len));
        let inside = at < self.size;
        assert_eq!(found(file.seek_data(at)), data.filter(|_| inside), "data from {at} {step}");
        let hole = (at / self.len..end).find(|block| !self.blocks.contains_key(block));
        let hole = hole.map_or(self.size, |block| at.max(block * self.len));
        assert_eq!(found(file.seek_hole(at)), inside.then_some(hole), "hole from {at} {step}");
    }
}

/// A byte near one of the places where trees begin and end.
fn place(rng: &mut Rng, model: &Model) -> u64 {
    let pointers = model.pointers;
    let (second, third) = (12 + pointers, 12 + pointers + pointers * pointers);
    let block = *rng.pick(&[
        6,
        12,
        second,
        second + pointers,
        second + 7 * pointers,
        third,
        third + pointers,
        third + pointers * pointers,
        third + 3 * pointers * pointers + 5 * pointers,
        model.most - 5,
    ]);
    (block - 4 + rng.below(9)).min(model.most - 1) * model.len + rng.below(model.len)
}

fn exercise(seed: u64, len: u64, policy: Policy) {
    let mut rng = Rng::new(seed);
    let device = Arc::new(RamDevice::new(8 << 20).expect("memory"));
    let format = Format { block_size: BlockSize::new(len), ..Format::default() };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    let shared: Arc<dyn BlockDevice> = device.clone();
    let options = OpenOptions { policy, ..OpenOptions::default() };
    let mut fs = Ext2::open(shared.clone(), &options).expect("open");
    let mut file = fs.root().expect("root").create(b"file", &FILE).expect("created");
    let pointers = len / 4;
    let reached = 12 + pointers + pointers.pow(2) + pointers.pow(3);
    let most = reached.min(fs.geometry().max_file_size() / len);
    let mut model = Model { len, pointers, blocks: BTreeMap::new(), size: 0, most };
    let free = fs.statfs().expect("counted").blocks_free;
    for step in 0..250 {
        let at = place(&mut rng, &model);
        let what = match rng.below(9) {
            0..=3 => {
                // Not always to the end of a block, and often over several.
                let len = (1 + rng.below(6 * len)).min(model.most * len - at);
                let mut bytes = vec![0; len as usize];
                rng.fill(&mut bytes);
                assert_eq!(file.write_at(at, &bytes).expect("written"), bytes.len());
                model.write(at, &bytes);
                format!("after step {step}: {len} bytes written at {at}")
            }
            4 | 5 => {
                let end = if rng.one_in(2) { at + rng.below(12 * len) } else { place(&mut rng, &model) };
                let hole = end.saturating_sub(at).max(1);
                file.punch_hole(at, hole, Wait::Yes).expect("punched");
                model.punch(at, hole);
                format!("after step {step}: {hole} bytes punched at {at}")
            }
            6 if !rng.one_in(3) => {
                let zeros = 1 + rng.below(5 * len);
                file.zero_range(at, zeros).expect("zeroed");
                model.zero(
                    at.min(model.size)..at.saturating_add(zeros).min(model.size).max(at.min(model.size)),
                );
                format!("after step {step}: {zeros} bytes zeroed at {at}")
            }
            6 => {
                drop(file);
                fs.close().expect("closed");
                assert!(step % 2 == 0 || is_clean(&device.to_vec()), "after step {step}");
                fs = Ext2::open(shared.clone(), &options).expect("open");
                file = fs.root().expect("root").lookup(b"file").expect("there");
                format!("after step {step}: opened again")
            }
            7 => {
                drop(file);
                file = fs.root().expect("root").lookup(b"file").expect("there");
                format!("after step {step}: taken again")
            }
            _ => {
                file.truncate(at, Wait::Yes).expect("truncated");
                model.truncate(at);
                format!("after step {step}: truncated to {at}")
            }
        };
        model.compare(&file, &what);
        let used = model.blocks.len() as u64 + model.indirect();
        assert_eq!(fs.statfs().expect("counted").blocks_free, free - used, "{what}");
        model.compare_bytes(&file, at.saturating_sub(len), &what);
        let elsewhere = place(&mut rng, &model);
        model.compare_bytes(&file, elsewhere, &what);
    }
    // All of it goes with the file.
    fs.root().expect("root").unlink(b"file").expect("unlinked");
    drop(file);
    assert_eq!(fs.statfs().expect("counted").blocks_free, free);
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

#[test]
fn a_file_has_the_blocks_that_lead_to_its_bytes_and_no_others_with_blocks_of_1024_bytes() {
    need_tools!("e2fsck");
    for (seed, policy) in [(0, Policy::Aligned), (1, Policy::Goal), (2, Policy::Aligned)] {
        exercise(seed, 1024, policy);
    }
}

#[test]
fn a_file_has_the_blocks_that_lead_to_its_bytes_and_no_others_with_blocks_of_4096_bytes() {
    need_tools!("e2fsck");
    for (seed, policy) in [(3, Policy::Aligned), (4, Policy::Goal)] {
        exercise(seed, 4096, policy);
    }
}

#[test]
fn two_known_runs_are_one_where_they_touch_and_agree() {
    let runs = || {
        (0..7_u64).flat_map(|start| {
            (1..4).flat_map(move |count| (8..16).map(move |target| KnownRun { start, count, target }))
        })
    };
    for (one, other) in runs().flat_map(|one| runs().map(move |other| (one, other))) {
        let end = |run: KnownRun| run.start + u64::from(run.count);
        let agree = u64::from(one.target) + other.start == u64::from(other.target) + one.start;
        let touch = one.start <= end(other) && other.start <= end(one);
        let start = one.start.min(other.start);
        let expected = (agree && touch).then(|| KnownRun {
            start,
            count: (end(one).max(end(other)) - start) as u32,
            target: one.target.min(other.target),
        });
        assert_eq!(one.joined(other), expected, "{one:?} {other:?}");
    }
}
