//! Where blocks and inodes go: each answer of the two placements, and each new inode, is compared with what the rule says, while
//! files grow side by side, have holes, are cut and removed.

mod asking;
mod inodes;
mod rule;
mod watched;
mod wishes;

use std::sync::Arc;

use blockdev::{BlockDevice, Partition, RamDevice};
use e2dax_tests::{Rng, need_tools, small::is_clean};
use ext2_core::{
    BlockSize, Errno, Ext2, FileBlock, FileKind, Inode, InodeFlags, InodeNr, NewInode, OpenOptions, Policy,
    Wait,
};
use ext2_image::mkfs::{self, Format, Fresh, Inodes};

use asking::Asking;
use inodes::Spread;
use rule::Counts;
use watched::Watched;

const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);
const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);

/// The bitmaps of a file system that was synced: whether each block of the device is free.
fn free_blocks(fs: &Ext2, device: &dyn BlockDevice) -> Vec<bool> {
    let geo = fs.geometry();
    let mut free = vec![false; geo.blocks_count as usize];
    for nr in geo.group_numbers() {
        let map = bitmap(fs, device, fs.descriptor(nr).expect("a descriptor").bg_block_bitmap.get());
        for bit in 0..geo.group_len(nr) {
            free[(geo.group_start(nr) + bit) as usize] = !map(bit);
        }
    }
    free
}

/// A bitmap on the device.
fn bitmap(fs: &Ext2, device: &dyn BlockDevice, block: u32) -> impl Fn(u32) -> bool {
    let mut bytes = vec![0; fs.geometry().block_size.len()];
    device.read_at(u64::from(block) * bytes.len() as u64, &mut bytes).expect("read");
    move |bit| bytes[bit as usize / 8] >> (bit % 8) & 1 == 1
}

/// So many groups of so many blocks of so many bytes, with 64 inodes each, and no block that is kept for root.
fn format_of(block: u64, blocks_per_group: u32, groups: u64) -> Format {
    Format {
        block_size: BlockSize::new(block),
        inodes: Inodes::Count(64 * groups),
        inode_size: 128,
        blocks_per_group: Some(blocks_per_group),
        reserved_percent: 0.0,
        ..Format::default()
    }
}

/// A file system whose placing is watched, and what is done to it.
struct World {
    fs: Ext2,
    device: Arc<dyn BlockDevice>,
    watched: Arc<Watched>,
    rng: Rng,
    dirs: Vec<Inode>,
    /// Files that have names, and those of them that are held.
    names: Vec<(usize, String)>,
    held: Vec<Inode>,
    serial: usize,
    block: u64,
}

impl World {
    /// A file system of so many groups of so many blocks, which begins so many bytes into its device.
    fn new(
        seed: u64,
        policy: Policy,
        block: u64,
        (blocks_per_group, groups): (u32, u64),
        shift: u64,
    ) -> Self {
        let len = u64::from(blocks_per_group) * groups * block;
        let memory = RamDevice::new(shift + len).expect("memory");
        let device: Arc<dyn BlockDevice> = Arc::new(Partition::new(memory, shift, len).expect("a partition"));
        mkfs::format(&*device, &format_of(block, blocks_per_group, groups), Fresh::Zeros).expect("made");
        let watched = Arc::new(Watched::new(policy));
        let asking = Arc::new(Asking::new(watched.clone(), seed));
        let options = OpenOptions { placement: Some(asking), ..OpenOptions::default() };
        let fs = Ext2::open(device.clone(), &options).expect("open");
        let dirs = vec![fs.root().expect("root")];
        let mut world = Self {
            fs,
            device,
            watched,
            rng: Rng::new(seed),
            dirs,
            names: Vec::new(),
            held: Vec::new(),
            serial: 0,
            block,
        };
        world.watched.begin(&world.fs, policy, &*world.device);
        world.settle(true);
        world
    }

    /// Compares what the file system has with what the rule expected, and takes over what it has.
    fn settle(&mut self, is_changed: bool) {
        self.fs.sync().expect("synced");
        let free = free_blocks(&self.fs, &*self.device);
        let mut rule = self.watched.rule();
        if let Some(complaint) = rule.complaint.take() {
            panic!("{complaint}");
        }
        if rule.is_full {
            drop(rule);
            self.held.clear();
            self.fs.sync().expect("synced");
            let mut rule = self.watched.rule();
            rule.is_full = false;
            rule.windows.clear();
            rule.files.clear();
            rule.free = free_blocks(&self.fs, &*self.device);
            return;
        }
        if !is_changed {
            let other = rule.free.iter().zip(&free).position(|(expected, is)| expected != is);
            assert_eq!(other, None, "the first block that is wrongly free or taken");
        }
        rule.free = free;
        for file in &self.held {
            let map = map_of(file);
            let known = rule.files.entry(file.nr()).or_default();
            if !is_changed {
                assert_eq!(known.map, map, "the blocks of {:?}", file.nr());
            }
            known.map = map;
        }
    }

    fn create(&mut self, new: &NewInode) -> (usize, String) {
        let dir = self.rng.below(self.dirs.len() as u64) as usize;
        let name = format!("n{}", self.serial);
        self.serial += 1;
        self.fs.sync().expect("synced");
        let spread = Spread::of(&self.fs, &*self.device);
        // Linux spreads what is in the root, and where it is asked to.
        let is_top =
            self.dirs[dir].nr() == InodeNr::ROOT || self.dirs[dir].attr().flags.contains(InodeFlags::TOPDIR);
        let expected = spread.next(self.dirs[dir].nr(), new.kind == FileKind::Directory, is_top);
        match self.dirs[dir].create(name.as_bytes(), new) {
            Ok(inode) => {
                assert_eq!(
                    Some(inode.nr()),
                    expected,
                    "the number of a {:?} in {:?}",
                    new.kind,
                    self.dirs[dir].nr()
                );
                match new.kind {
                    FileKind::Directory => {
                        if self.rng.one_in(3) {
                            inode.set_flags(InodeFlags::TOPDIR).expect("set");
                        }
                        self.dirs.push(inode);
                    }
                    _ => self.hold(inode),
                }
            }
            Err(error) => assert!(error.is(Errno::NOSPC), "{error}"),
        }
        self.settle(new.kind == FileKind::Directory);
        (dir, name)
    }

    fn hold(&mut self, file: Inode) {
        if self.held.len() == 4 {
            let at = self.rng.below(4) as usize;
            self.let_go(at);
        }
        if !self.held.contains(&file) {
            self.held.push(file);
        }
    }

    fn let_go(&mut self, at: usize) {
        let file = self.held.swap_remove(at);
        self.watched.forget(file.nr());
    }

    /// A hole of a file: its end, or one before it, as far as the next block.
    fn write(&mut self, most: u64) {
        let Some(file) = self.pick() else { return };
        let map = map_of(&file);
        let end = file.size().div_ceil(self.block);
        let start = match self.rng.below(4) {
            0 => self.rng.below(end + 3000),
            _ => end,
        };
        if map.contains_key(&start) {
            return;
        }
        let hole_end = map.range(start..).next().map_or(u64::MAX, |(&at, _)| at);
        let len = (1 + self.rng.below(most)).min(hole_end - start);
        self.watched.begin_write(file.nr(), start + len);
        let bytes = vec![self.serial as u8; (len * self.block) as usize];
        match file.write_at(start * self.block, &bytes) {
            Ok(done) if done == bytes.len() => {}
            Ok(_) => self.watched.rule().is_full = true,
            Err(error) => assert!(error.is(Errno::NOSPC), "{error}"),
        }
        drop(file);
        self.settle(false);
    }

    fn pick(&mut self) -> Option<Inode> {
        let at = self.rng.below(self.held.len().max(1) as u64) as usize;
        self.held.get(at).cloned()
    }

    fn cut(&mut self) {
        let Some(file) = self.pick() else { return };
        if file.size() == 0 {
            return;
        }
        let at = self.rng.below(file.size());
        if self.rng.one_in(2) {
            file.truncate(at, Wait::Yes).expect("cut");
            self.watched.forget(file.nr());
        } else {
            let (at, len) = (at / self.block * self.block, 1 + self.rng.below(20));
            file.punch_hole(at, len * self.block, Wait::Yes).expect("punched");
            self.watched.forget_last(file.nr());
        }
        drop(file);
        self.settle(true);
    }

    fn remove(&mut self) {
        if self.names.is_empty() {
            return;
        }
        let at = self.rng.below(self.names.len() as u64) as usize;
        let (dir, name) = self.names.swap_remove(at);
        if let Ok(file) = self.dirs[dir].lookup(name.as_bytes()) {
            let held = self.held.iter().position(|held| *held == file);
            drop(file);
            if let Some(held) = held {
                self.let_go(held);
            }
            self.dirs[dir].unlink(name.as_bytes()).expect("unlinked");
            self.settle(true);
        }
    }

    fn step(&mut self, most: u64) {
        match self.rng.below(20) {
            0..=2 => {
                let named = self.create(&FILE);
                self.names.push(named);
            }
            3 => drop(self.create(&DIR)),
            4 => self.cut(),
            5 | 6 => self.remove(),
            7 if !self.held.is_empty() => {
                let at = self.rng.below(self.held.len() as u64) as usize;
                self.let_go(at);
                self.settle(true);
            }
            _ => self.write(most),
        }
    }

    /// Ends it; gives what was compared.
    fn end(self) -> Counts {
        let Self { fs, device, watched, dirs, held, .. } = self;
        drop((dirs, held));
        fs.close().expect("closed");
        let mut bytes = vec![0; device.size() as usize];
        device.read_at(0, &mut bytes).expect("read");
        assert!(is_clean(&bytes));
        watched.rule().counts
    }
}

fn map_of(file: &Inode) -> std::collections::BTreeMap<u64, u32> {
    let mut map = std::collections::BTreeMap::new();
    let (mut at, end) = (0, file.size().div_ceil(file.fs().geometry().block_size.bytes()));
    while at < end {
        let run = file.map(FileBlock::new(at), end - at).expect("a whole map");
        if let Some(target) = run.target {
            map.extend((at..at + run.count).zip(target.get()..));
        }
        at = run.end().get();
    }
    map
}

/// Under Linux's rule: with so many groups of so many blocks of 1024 bytes.
fn under_goal(seed: u64, groups: (u32, u64)) -> Counts {
    let mut world = World::new(seed, Policy::Goal, 1024, groups, 0);
    (0..250).for_each(|_| world.step(40));
    let counts = world.end();
    assert!(counts.answers > 50, "{counts:?}");
    counts
}

/// Under the rule of whole units: with blocks of so many bytes, on a device that begins so far off an aligned place.
fn under_aligned(seed: u64, block: u64, groups: (u32, u64), shift: u64) -> Counts {
    let mut world = World::new(seed, Policy::Aligned, block, groups, shift);
    (0..200).for_each(|_| world.step((1 << 19) / block));
    let counts = world.end();
    assert!(counts.answers > 50, "{counts:?}");
    counts
}

#[test]
fn goal_puts_blocks_where_linux_does_in_many_groups() {
    need_tools!("e2fsck");
    under_goal(0, (512, 8));
    under_goal(2, (512, 8));
}

#[test]
fn goal_puts_blocks_where_linux_does_where_windows_grow_large() {
    need_tools!("e2fsck");
    under_goal(1, (1024, 4));
}

#[test]
fn goal_takes_what_is_kept_for_others_on_a_full_disk() {
    need_tools!("e2fsck");
    let counts: Counts = [(256, 3), (512, 2), (512, 2), (512, 1)]
        .into_iter()
        .zip(3..)
        .map(|(groups, seed)| under_goal(seed, groups))
        .sum();
    assert!(counts.from_others > 0, "{counts:?}");
}

#[test]
fn aligned_moves_a_file_that_grows_to_a_unit_of_its_own() {
    need_tools!("e2fsck");
    assert!(under_aligned(0, 4096, (1024, 8), 0).moves > 2);
}

#[test]
fn aligned_finds_units_on_a_device_that_begins_off_an_aligned_place() {
    need_tools!("e2fsck");
    under_aligned(1, 4096, (1536, 6), 5 << 16);
    under_aligned(7, 4096, (4096, 2), 3 << 16);
}

#[test]
fn aligned_finds_units_in_groups_that_are_not_whole_units() {
    need_tools!("e2fsck");
    under_aligned(2, 2048, (2560, 5), 0);
    under_aligned(3, 1024, (8192, 3), 7 << 18);
}

#[test]
fn aligned_takes_broken_units_and_all_else_on_a_full_disk() {
    need_tools!("e2fsck");
    let counts: Counts = [4, 5, 6].map(|seed| under_aligned(seed, 4096, (1024, 2), 0)).into_iter().sum();
    assert!(counts.from_others > 0, "{counts:?}");
}

/// A file system of 4096 bytes a block in groups of so many blocks, with this placement; none of its blocks is kept for root.
fn plain(blocks_per_group: u32, groups: u64, options: &OpenOptions) -> (Arc<RamDevice>, Ext2) {
    let device = Arc::new(RamDevice::new(u64::from(blocks_per_group) * groups * 4096).expect("memory"));
    mkfs::format(&*device, &format_of(4096, blocks_per_group, groups), Fresh::Zeros).expect("made");
    let fs = Ext2::open(device.clone(), options).expect("open");
    (device, fs)
}

/// Where the blocks of a file begin, and whether that is an aligned place and they are one run.
fn is_one_aligned_run(fs: &Ext2, device: &RamDevice, file: &Inode) -> bool {
    let blocks = file.size().div_ceil(4096);
    let run = file.map(FileBlock::new(0), blocks).expect("mapped");
    let pfn = device.dax().expect("memory").pfn(run.target.expect("data").get().into());
    assert_eq!(fs.geometry().block_size.bytes(), 4096);
    run.count == blocks && pfn.is_multiple_of(512)
}

#[test]
fn a_unit_in_which_somebody_keeps_a_block_is_not_whole_and_what_is_kept_is_kept_from_its_first_block_on() {
    let keeping = Arc::new(asking::Keeping::default());
    let options = OpenOptions { placement: Some(keeping.clone()), ..OpenOptions::default() };
    let (_device, fs) = plain(4096, 1, &options);
    let root = fs.root().expect("root");
    for file in ["one", "other"].map(|name| root.create(name, &FILE).expect("created")).iter() {
        file.write_at(0, &[1; 4096]).expect("written");
        keeping.check();
    }
}

#[test]
fn a_small_file_is_moved_to_the_last_unit_that_is_free_and_to_one_that_was_freed() {
    let (device, fs) = plain(1024, 4, &OpenOptions::default());
    let root = fs.root().expect("root");
    let [small, other, filler] =
        ["small", "other", "filler"].map(|name| root.create(name, &FILE).expect("created"));
    let left = || fs.statfs().expect("counted").blocks_free;
    small.append(&vec![1; 1 << 20]).expect("written");
    other.append(&vec![1; 1 << 20]).expect("written");
    while left() > 0 {
        filler.append(&vec![2; (left().clamp(1, 256) * 4096) as usize]).map(drop).unwrap_or(());
    }
    assert!(!is_one_aligned_run(&fs, &device, &small) && !is_one_aligned_run(&fs, &device, &other));
    // No unit is free: what grows stays where it is.
    assert!(small.append(&[1]).expect_err("full").is(Errno::NOSPC));
    // Then one is, and nothing besides.
    let is_unit = |unit: &u64| {
        let run = filler.map(FileBlock::new(unit * 512), 512).expect("mapped");
        run.count == 512 && run.target.is_some()
    };
    let unit = (0..filler.size() / (2 << 20)).find(is_unit).expect("a unit");
    filler.punch_hole(unit * (2 << 20), 2 << 20, Wait::Yes).expect("punched");
    assert_eq!(left(), 512);
    small.append(&[1; 4096]).expect("written");
    assert!(is_one_aligned_run(&fs, &device, &small), "not moved");
    assert!(!is_one_aligned_run(&fs, &device, &other));
}

#[test]
fn every_block_of_many_groups_is_given_before_a_disk_is_full() {
    for policy in [Policy::Aligned, Policy::Goal] {
        let options = OpenOptions { policy, ..OpenOptions::default() };
        for start in [0, 2 << 20] {
            let (_device, fs) = plain(256, 12, &options);
            let file = fs.root().expect("root").create("file", &FILE).expect("created");
            let mut at = start;
            while let Ok(done) = file.write_at(at, &[1; 16 << 10]) {
                at += done as u64;
            }
            assert_eq!(fs.statfs().expect("counted").blocks_free, 0, "{policy:?} from {start}");
            // What comes free far from where a file would like to be is its, too.
            let far = file.map(FileBlock::new(at / 4096 - 40), 1).expect("mapped").target.expect("data");
            assert!(fs.geometry().group_of_block(far.get()).is_some_and(|(group, _)| group.get() > 8));
            file.punch_hole(at - (40 << 12), 8 << 12, Wait::Yes).expect("punched");
            let other = fs.root().expect("root").create("other", &FILE).expect("created");
            let done = other.write_at(start, &[1; 6 << 12]).expect("written");
            assert_eq!(done, 6 << 12, "{policy:?} from {start}");
        }
    }
}

/// Makes a directory in each of these, compares its number with what the rule says, and removes it.
fn probe(fs: &Ext2, device: &RamDevice, root: &Inode, dir: &Inode, what: &str) {
    for (parent, is_top) in [(root, true), (dir, false)] {
        fs.sync().expect("synced");
        let expected = Spread::of(fs, device).next(parent.nr(), true, is_top);
        match parent.create("probe", &DIR) {
            Ok(made) => assert_eq!(Some(made.nr()), expected, "in {}, {what}", parent.nr()),
            Err(error) => {
                assert!(error.is(Errno::NOSPC), "{error}");
                continue;
            }
        }
        parent.rmdir("probe").expect("removed");
    }
}

#[test]
fn directories_go_where_the_rule_says_while_groups_run_out_of_inodes_and_blocks() {
    let options = OpenOptions::default();
    let (device, mut fs) = plain(256, 4, &options);
    // In the end two groups are poor in blocks; of the others the one that comes first has more directories, and fewer than
    // there are on an average.
    let root = fs.root().expect("root");
    // Each to another group: that of the one before is poor then.
    let tops = ["d0", "d1", "d2"].map(|name| {
        let top = root.create(name, &DIR).expect("created");
        top.create("large", &FILE).expect("created").append(&vec![1; 200 << 12]).expect("written");
        top
    });
    tops.iter().for_each(|top| top.unlink("large").expect("unlinked"));
    let group = |dir: &Inode| fs.geometry().group_of_inode(dir.nr()).expect("a group").0.get();
    assert_eq!(tops.each_ref().map(group), [2, 1, 3]);
    for (top, count) in tops.iter().zip([14, 3, 0]) {
        for nr in 0..count {
            top.create(format!("s{nr}"), &DIR).expect("created");
            probe(&fs, &device, &root, top, &format!("with {nr} directories more"));
        }
    }
    for dir in [&root, &tops[0]] {
        dir.create("large", &FILE).expect("created").append(&vec![1; 200 << 12]).expect("written");
        probe(&fs, &device, &root, &tops[0], "with a large file");
    }
    drop((root, tops));
    // Counts are read, and found, as they were kept.
    for clean in [true, false] {
        fs.close().expect("closed");
        if !clean {
            device.write_u16(1024 + 58, 0).expect("stored");
        }
        fs = Ext2::open(device.clone(), &options).expect("open");
        let root = fs.root().expect("root");
        probe(&fs, &device, &root, &root.lookup("d1").expect("there"), &format!("clean: {clean}"));
    }
    let root = fs.root().expect("root");
    root.unlink("large").expect("unlinked");
    root.lookup("d0").expect("there").unlink("large").expect("unlinked");
    for name in ["d0", "d1"] {
        let dir = root.lookup(name).expect("there");
        let file = dir.create("file", &FILE).expect("created");
        for nr in 0..230 {
            file.append(&[1; 4096]).expect("written");
            probe(&fs, &device, &root, &dir, &format!("with {nr} blocks in {name}"));
        }
        file.truncate(0, Wait::Yes).expect("cut");
    }
    let dir = root.lookup("d2").expect("there");
    for nr in 0.. {
        fs.sync().expect("synced");
        let expected = Spread::of(&fs, &*device).next(dir.nr(), false, false);
        match dir.create(format!("f{nr}"), &FILE) {
            Ok(made) => assert_eq!(Some(made.nr()), expected),
            Err(error) => {
                assert!(error.is(Errno::NOSPC) && expected.is_none(), "{error}");
                break;
            }
        }
        probe(&fs, &device, &root, &dir, &format!("with {nr} files"));
    }
}
