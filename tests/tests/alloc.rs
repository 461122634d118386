//! Where blocks go, and that they all come back: whole units of 2 MiB for files that grow, short writes on a
//! full disk, the same free counts after a hundred rounds.
//!
//! `E2DAX_AGED_TIMES=N` churns the aged image until N times its capacity was written (default 2; the
//! figure in `docs/` is for 10).

use std::path::Path;
use std::sync::Arc;

use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice};
use e2dax_tests::{Rng, need_tools, tools};
use ext2_core::placement::{FreeSpace, Placed, Placement, Request};
use ext2_core::{
    BlockSize, Errno, Ext2, FileBlock, FileKind, Follow, GroupNr, Inode, NewInode, OnError, OpenOptions,
    Policy, Wait,
};
use ext2_dax::mmu::soft::{MapRequest, Signal, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
use ext2_image::mkfs::{self, Format, Fresh};
use ext2_image::{UnitCounts, Units, Walk};

const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);
const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);

/// A fresh image in memory, and the device to check it by.
fn fresh(mib: u64, extra: &[&str]) -> Arc<RamDevice> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    let size = format!("{mib}m");
    let mut args = vec!["-t", "ext2", "-b", "4096", "-I", "256"];
    args.extend(extra);
    args.extend([path.to_str().expect("a path of ours"), &size]);
    tools::mke2fs(&args);
    Arc::new(RamDevice::from_bytes(&std::fs::read(&path).expect("the image")).expect("memory"))
}

fn open(device: &Arc<RamDevice>, policy: Policy) -> Ext2 {
    let device: Arc<dyn BlockDevice> = device.clone();
    Ext2::open(device, &OpenOptions { policy, ..OpenOptions::default() }).expect("open")
}

fn fsck(device: &RamDevice) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    e2dax_tests::golden::write_sparse(&path, &device.to_vec()).expect("written");
    tools::e2fsck_fn(Path::new(&path)).unwrap_or_else(|said| panic!("{said}"));
}

fn write(file: &Inode, from: u64, to: u64, call: u64) {
    let buffer = vec![0x5a; call as usize];
    let mut at = from;
    while at < to {
        let len = call.min(to - at);
        assert_eq!(file.write_at(at, &buffer[..len as usize]).expect("written"), len as usize);
        at += len;
    }
}

fn count(fs: &Ext2) -> UnitCounts {
    let mut all = UnitCounts::default();
    for found in Walk::new(&fs.root().expect("root"), b"/") {
        let found = found.expect("a whole tree");
        if found.inode.kind() == FileKind::Regular {
            all += Units::of(&found.inode, 0).counts().expect("a whole map");
        }
    }
    all
}

#[test]
fn files_written_in_calls_of_any_size_lie_in_whole_units() {
    need_tools!("mke2fs", "e2fsck");
    let device = fresh(1024, &[]);
    let fs = open(&device, Policy::Aligned);
    let root = fs.root().expect("root");
    let sizes = [2u64, 7, 64];
    for (call, name) in [(4 << 10, "4k"), (64 << 10, "64k"), (1 << 20, "1m")] {
        for size in sizes {
            let file = root.create(format!("{size}m-by-{name}").as_bytes(), &FILE).expect("created");
            write(&file, 0, size << 20, call);
        }
        // Two writers by turns.
        let pair = [b'a', b'b'].map(|letter| {
            root.create(format!("turn-{name}-{}", letter as char).as_bytes(), &FILE).expect("created")
        });
        let mut at = 0;
        while at < 7 << 20 {
            for file in &pair {
                write(file, at, at + call, call);
            }
            at += call;
        }
    }
    let all = count(&fs);
    drop(root);
    fs.close().expect("closed");
    fsck(&device);
    assert_eq!(all.mappable, all.with_data(), "{all:?}");
    let expected: u64 = 3 * (sizes.iter().map(|size| size / 2).sum::<u64>() + 2 * 3);
    assert_eq!(all.mappable, expected, "{all:?}");
}

/// Files of mixed sizes are made and deleted until so many times the capacity was written.
fn churn(policy: Policy, times: u64) -> (f64, u64) {
    let mib = 512;
    let device = fresh(mib, &["-N", "16384"]);
    let fs = open(&device, policy);
    let root = fs.root().expect("root");
    let dirs: Vec<Inode> =
        (0..8).map(|nr| root.create(format!("d{nr}").as_bytes(), &DIR).expect("created")).collect();
    let mut rng = Rng::new(7);
    let mut files: Vec<(usize, String)> = Vec::new();
    let (mut written, mut serial) = (0, 0);
    let capacity = mib << 20;
    while written < times * capacity {
        let stat = fs.statfs().expect("statfs");
        let used = 1.0 - stat.blocks_free as f64 / stat.blocks as f64;
        if used > 0.75 {
            let (dir, name) = files.swap_remove(rng.below(files.len() as u64) as usize);
            dirs[dir].unlink(name.as_bytes()).expect("unlinked");
            continue;
        }
        let size = match rng.below(10) {
            0..=4 => 1 + rng.below(64 << 10),
            5..=7 => (64 << 10) + rng.below(2 << 20),
            _ => (2 << 20) + rng.below(14 << 20),
        };
        let dir = rng.below(dirs.len() as u64) as usize;
        let name = format!("f{serial}");
        serial += 1;
        let file = dirs[dir].create(name.as_bytes(), &FILE).expect("created");
        write(&file, 0, size, *rng.pick(&[4 << 10, 64 << 10, 1 << 20]));
        written += size;
        files.push((dir, name));
    }
    let all = count(&fs);
    drop((root, dirs));
    fs.close().expect("closed");
    fsck(&device);
    (all.mappable as f64 / all.with_data() as f64, all.with_data())
}

#[test]
fn an_aged_image_keeps_most_units_mappable() {
    need_tools!("mke2fs", "e2fsck");
    let times = std::env::var("E2DAX_AGED_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(2);
    let (aligned, units) = churn(Policy::Aligned, times);
    let (goal, goal_units) = churn(Policy::Goal, times);
    println!(
        "aged {times} times the capacity at 75 %: units mappable: Aligned {:.1} % of {units}, Goal {:.1} % of {goal_units}",
        aligned * 100.0,
        goal * 100.0
    );
    assert!(aligned > 0.5 && aligned > goal, "aligned {aligned}, goal {goal}");
}

#[test]
fn a_full_disk_gives_short_writes_and_takes_nothing_for_good() {
    need_tools!("mke2fs", "e2fsck");
    let device = fresh(16, &[]);
    let fs = open(&device, Policy::Aligned);
    let root = fs.root().expect("root");
    let before = fs.statfs().expect("statfs");
    for round in 0..100 {
        let mut nr = 0;
        let full = 'fill: loop {
            let file = root.create(format!("r{nr}").as_bytes(), &FILE).expect("created");
            let mut at = 0;
            while at < 3 << 20 {
                let len = 1 + (at * 7 + round) % 150_000;
                match file.write_at(at, &vec![nr as u8; len as usize]) {
                    Ok(wrote) if wrote as u64 == len => at += len,
                    Ok(wrote) => {
                        // Short: what was reported is there.
                        assert_eq!(file.size(), at + wrote as u64);
                        at += wrote as u64;
                    }
                    Err(error) => {
                        assert_eq!(error.errno(), Errno::NOSPC);
                        assert_eq!(file.size(), at);
                        break 'fill nr + 1;
                    }
                }
            }
            nr += 1;
        };
        assert_eq!(
            fs.statfs().expect("statfs").blocks_free,
            0,
            "round {round}: all that there is can be used"
        );
        for nr in 0..full {
            root.unlink(format!("r{nr}").as_bytes()).expect("unlinked");
        }
        assert_eq!(fs.statfs().expect("statfs"), before, "round {round}");
    }
    drop(root);
    fs.close().expect("closed");
    fsck(&device);
}

#[test]
fn reserved_blocks_are_left_alone_when_asked() {
    need_tools!("mke2fs", "e2fsck");
    let device = fresh(16, &["-m", "10"]);
    let shared: Arc<dyn BlockDevice> = device.clone();
    let fs =
        Ext2::open(shared, &OpenOptions { keep_reserved: true, ..OpenOptions::default() }).expect("open");
    let reserved = u64::from(fs.superblock().reserved_blocks);
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    let mut at = 0;
    while let Ok(wrote) = file.write_at(at, &[1; 65536]) {
        at += wrote as u64;
    }
    let stat = fs.statfs().expect("statfs");
    assert_eq!((stat.blocks_available, stat.blocks_free), (0, reserved));
    drop(file);
    fs.close().expect("closed");
    fsck(&device);
}

#[test]
fn a_store_that_could_map_2_mib_leaves_reserved_blocks_alone_when_asked() {
    need_tools!("mke2fs");
    let device = fresh(32, &["-m", "20"]);
    let options = OpenOptions { keep_reserved: true, ..OpenOptions::default() };
    let fs = Ext2::open(device, &options).expect("open");
    let inode = fs.root().expect("root").create(b"mapped", &FILE).expect("created");
    let file =
        File::open(&DaxFs::new(fs.clone(), DaxOptions::default()), inode, OpenFor::Writing).expect("open");
    // A block past the first 2 MiB, so that their indirect block is there.
    file.write_at(3 << 20, b"x").expect("written");
    let full = fs.root().expect("root").create(b"full", &FILE).expect("created");
    let mut at = 0;
    while let Ok(wrote) = full.write_at(at, &[1; 65536]) {
        at += wrote as u64;
    }
    let before = fs.statfs().expect("statfs");
    assert_eq!(before.blocks_available, 0);
    let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
    let request = MapRequest { offset: 0, len: 2 << 20, sharing, protection, colour: 0 };
    let map = file.map(&SoftMmu::new(), &request).expect("mapped");
    assert_eq!(map.store(0, 7), Err(Signal::Bus), "what a write is refused a store is not given");
    assert_eq!(fs.statfs().expect("statfs"), before);
}

#[test]
fn a_file_with_a_page_that_cannot_be_read_still_grows() {
    need_tools!("mke2fs");
    let device = fresh(32, &[]);
    let fs = open(&device, Policy::Aligned);
    let inode = fs.root().expect("root").create(b"f", &FILE).expect("created");
    // The last length at which a file is small: what it has moves into a unit of its own when it grows.
    assert_eq!(inode.write_at(0, &vec![1; 1 << 20]).expect("written"), 1 << 20);
    let block = inode.map(FileBlock::new(7), 1).expect("mapped").target.expect("a block");
    device.poison(block.get().into()).expect("poisoned");
    let free = fs.statfs().expect("statfs").blocks_free;
    assert_eq!(inode.write_at(1 << 20, b"more").expect("what is written is not what cannot be read"), 4);
    assert_eq!(free - fs.statfs().expect("statfs").blocks_free, 1);
    let mut byte = [0];
    assert!(inode.read_at(7 * 4096, &mut byte).is_err());
    assert_eq!(inode.read_at(8 * 4096, &mut byte).expect("read"), 1);
    assert_eq!(byte, [1]);
}

#[test]
fn a_file_is_not_cut_within_a_page_that_cannot_be_stored_to_and_nothing_else_comes_of_it() {
    need_tools!("mke2fs", "e2fsck");
    let device = fresh(16, &[]);
    let fs = open(&device, Policy::Aligned);
    let root = fs.root().expect("root");
    let inode = root.create(b"f", &FILE).expect("created");
    inode.write_all_at(0, &[1; 3 * 4096]).expect("written");
    let block = inode.map(FileBlock::new(1), 1).expect("mapped").target.expect("a block");
    device.poison(block.get().into()).expect("poisoned");
    assert!(inode.truncate(5000, Wait::Yes).is_err());
    assert!(!fs.is_read_only(), "a page of one file ended all writing");
    assert_eq!(inode.size(), 3 * 4096);
    inode.truncate(4096, Wait::Yes).expect("what goes is not stored to");
    root.create(b"other", &FILE).expect("created");
    drop((inode, root));
    assert_eq!(fs.close().expect("closed"), ext2_core::Closed::Clean);
    fsck(&device);
}

#[test]
fn one_store_into_a_hole_costs_one_block_and_its_indirect_blocks() {
    need_tools!("mke2fs", "e2fsck");
    let device = fresh(64, &[]);
    let fs = open(&device, Policy::Aligned);
    let file = fs.root().expect("root").create(b"sparse", &FILE).expect("created");
    file.truncate(1 << 40, Wait::Yes).expect("sparse");
    file.write_at(700 << 30, b"x").expect("written");
    assert_eq!(file.attr().blocks_512, 4 * 8, "one block under three levels");
    drop(file);
    fs.close().expect("closed");
    fsck(&device);
}

#[test]
fn a_directory_of_many_names_costs_the_same_for_each() {
    need_tools!("mke2fs", "e2fsck");
    let device = fresh(256, &["-N", "110000"]);
    let fs = open(&device, Policy::Aligned);
    let dir = fs.root().expect("root").create(b"dir", &DIR).expect("created");
    let names: Vec<String> =
        (0..100_000u32).map(|nr| format!("{:x}-{nr}", nr.wrapping_mul(2_654_435_761))).collect();
    for name in &names {
        dir.create(name.as_bytes(), &FILE).expect("created");
    }
    assert_eq!(dir.entries(0).expect("entries").count(), names.len() + 2);
    for name in names.iter().step_by(7) {
        fs.resolve(format!("/dir/{name}").as_bytes(), Follow::Yes).expect("found");
    }
    // A name that goes leaves room for one that comes: the directory does not grow.
    let size = dir.size();
    for name in names.iter().step_by(2) {
        dir.unlink(name.as_bytes()).expect("unlinked");
    }
    for name in names.iter().step_by(2) {
        dir.create(name.as_bytes(), &FILE).expect("created again");
    }
    assert!(dir.size() <= size + size / 100, "{} and then {size}", dir.size());
    for name in &names {
        dir.unlink(name.as_bytes()).expect("unlinked");
    }
    drop(dir);
    fs.root().expect("root").rmdir(b"dir").expect("empty");
    fs.close().expect("closed");
    fsck(&device);
}

/// Asks for so many blocks at each place.
#[derive(Debug)]
struct AtMost(u32);

impl Placement for AtMost {
    fn place<'s>(&self, space: &'s FreeSpace<'_>, _: &Request) -> ext2_core::Result<Option<Placed<'s>>> {
        for block in space.group_blocks(GroupNr::new(0)) {
            if let Some(taken) = space.take_at(block, self.0)? {
                return Ok(Some(Placed { taken, window: None }));
            }
        }
        Ok(None)
    }
}

#[test]
fn a_placement_that_asks_for_no_blocks_gets_none() {
    need_tools!("mke2fs", "e2fsck");
    for most in [0, 1, u32::MAX] {
        let device = fresh(4, &[]);
        let options = OpenOptions { placement: Some(Arc::new(AtMost(most))), ..OpenOptions::default() };
        let fs = Ext2::open(device.clone(), &options).expect("open");
        let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
        match file.write_at(0, &[1; 20_000]) {
            Ok(written) => assert_eq!((most > 0, written), (true, 20_000)),
            Err(error) => assert!(most == 0 && error.is(Errno::NOSPC), "{error}"),
        }
        drop(file);
        fs.close().expect("closed");
        fsck(&device);
    }
}

/// What comes of two files that grow, where a call of the device fails once, as one of them is given a unit: whether the other
/// lies in a whole unit, how many units a file gets afterwards, and whether a call failed. None where writing ended.
fn grow_beside_a_fault(after: u64) -> Option<(UnitCounts, UnitCounts, bool)> {
    let ram = RamDevice::new(24 << 20).expect("memory");
    let format = Format { block_size: BlockSize::new(4096), reserved_percent: 0.0, ..Format::default() };
    mkfs::format(&ram, &format, Fresh::Zeros).expect("made");
    let device = Arc::new(Faulty::new(ram));
    let options = OpenOptions { errors: Some(OnError::Continue), ..OpenOptions::default() };
    let fs = Ext2::open(device.clone(), &options).expect("open");
    let root = fs.root().expect("root");
    let new = |name: &str| root.create(name.as_bytes(), &FILE).expect("created");
    let (one, other) = (new("one"), new("other"));
    write(&one, 0, 3 << 20, 1 << 20);
    device.arm(Fault::once(Calls::WRITE, after));
    // The rest of a unit, and a part of the next.
    let _ = one.write_at(3 << 20, &vec![1; 2 << 20]);
    let has_failed = device.fired() > 0;
    device.disarm();
    if fs.is_read_only() {
        return None;
    }
    // The other takes the unit that is free again, and has half of it when the first gives up what it kept.
    one.punch_hole(2 << 20, 2 << 20, Wait::Yes).expect("punched");
    write(&other, 0, 3 << 19, 3 << 19);
    write(&one, 8 << 20, (8 << 20) + 4096, 4096);
    // Small files fill what is broken, but not what is kept.
    (0..6).for_each(|nr| write(&new(&format!("small{nr}")), 0, 1 << 19, 1 << 19));
    write(&other, 3 << 19, 2 << 20, 1 << 19);
    let units = |inode: &Inode| Units::of(inode, 0).counts().expect("a whole map");
    let whole = units(&other);
    for nr in 0..6 {
        root.unlink(format!("small{nr}").as_bytes()).expect("unlinked");
    }
    drop((one, other));
    ["one", "other"].into_iter().for_each(|name| root.unlink(name.as_bytes()).expect("unlinked"));
    // All that there is; a failure may have lost a block.
    let (last, call) = (new("last"), vec![1; 1 << 20]);
    while last.write_at(last.size(), &call).is_ok_and(|written| written == call.len()) {}
    Some((whole, units(&last), has_failed))
}

#[test]
fn a_file_that_is_refused_blocks_keeps_no_unit_and_gives_up_none_of_another_s() {
    let (whole, units, _) = grow_beside_a_fault(u64::MAX).expect("nothing failed");
    assert_eq!(whole.mappable, 1);
    for after in 0.. {
        let Some((same, as_many, has_failed)) = grow_beside_a_fault(after) else { continue };
        assert_eq!((same, as_many.mappable), (whole, units.mappable), "call {after}");
        if !has_failed {
            break;
        }
    }
}
