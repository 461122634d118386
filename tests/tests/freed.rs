//! Blocks that are nobody's: what the device is told of them, who may take the last ones, and how they are found again in an
//! image that was not unmounted cleanly.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::{
    Rng, need_tools,
    small::{Ram, image, is_clean, open, ram},
};
use ext2_core::{
    BlockSize, Errno, Ext2, FileKind, Follow, Inode, InodeNr, NewInode, OpenOptions, Wait, XattrSet,
    without_reserve,
};
use ext2_image::mkfs::{self, Format, Fresh};

const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);
const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);

/// A device that notes what it is told of bytes that are nobody's.
#[derive(Debug)]
struct Noted {
    inner: RamDevice,
    freed: Mutex<Vec<(u64, u64)>>,
    discarded: Mutex<Vec<(u64, u64)>>,
}

impl BlockDevice for Noted {
    e2dax_tests::forward!(inner: size, read_at, write_at, zero, fence, flush);

    fn discard(&self, offset: u64, len: u64) -> blockdev::Result<()> {
        self.discarded.lock().expect("held by nobody").push((offset, len));
        Ok(())
    }
    fn freed(&self, offset: u64, len: u64) {
        self.freed.lock().expect("held by nobody").push((offset, len));
    }
}

/// A file system of 4 MiB in groups of 512 blocks of 1024 bytes, of which so many percent are root's.
fn noted(reserved_percent: f64) -> (Arc<Noted>, Ext2) {
    let inner = RamDevice::new(4 << 20).expect("memory");
    let device = Arc::new(Noted { inner, freed: Mutex::default(), discarded: Mutex::default() });
    let format = Format {
        block_size: BlockSize::new(1024),
        blocks_per_group: Some(512),
        reserved_percent,
        ..Format::default()
    };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    (device, fs)
}

/// The blocks of some byte ranges, each once.
fn blocks(ranges: &[(u64, u64)]) -> BTreeSet<u64> {
    let mut all = BTreeSet::new();
    for &(offset, len) in ranges {
        assert!(offset.is_multiple_of(1024) && len.is_multiple_of(1024) && len > 0, "{offset}+{len}");
        for block in offset / 1024..(offset + len) / 1024 {
            assert!(all.insert(block), "block {block} twice");
        }
    }
    all
}

#[test]
fn the_device_is_told_of_each_block_that_a_file_gives_up() {
    let (device, fs) = noted(0.0);
    let root = fs.root().expect("root");
    let file = root.create(b"file", &FILE).expect("created");
    file.write_at(0, &vec![1; 700 << 10]).expect("written");
    let mut own = BTreeSet::new();
    for run in file.extents() {
        let run = run.expect("whole");
        let start = u64::from(run.target.expect("data").get());
        own.extend(start..start + run.count);
    }
    let free = fs.statfs().expect("counted").blocks_free;
    device.freed.lock().expect("held by nobody").clear();
    root.unlink(b"file").expect("unlinked");
    drop(file);
    let told = blocks(&device.freed.lock().expect("held by nobody"));
    assert!(own.is_subset(&told));
    // The indirect blocks, too.
    assert_eq!(fs.statfs().expect("counted").blocks_free - free, told.len() as u64);
}

#[test]
fn trim_discards_the_free_runs_of_the_range_that_are_long_enough() {
    let (device, fs) = noted(0.0);
    let root = fs.root().expect("root");
    // Holes of all sizes among what is taken.
    let files: Vec<Inode> = (0..40)
        .map(|nr| {
            let file = root.create(format!("f{nr}"), &FILE).expect("created");
            file.write_at(0, &vec![1; (1 + nr % 9) << 10]).expect("written");
            file
        })
        .collect();
    drop(files);
    (0..40).step_by(2).for_each(|nr| root.unlink(format!("f{nr}")).expect("unlinked"));
    fs.sync().expect("synced");
    let geo = fs.geometry().clone();
    let is_free = |block: u32| -> bool {
        let Some((group, bit)) = geo.group_of_block(block) else { return false };
        let map = fs.descriptor(group).expect("a descriptor").bg_block_bitmap.get();
        let mut byte = [0];
        device.read_at(u64::from(map) * 1024 + u64::from(bit / 8), &mut byte).expect("read");
        byte[0] >> (bit % 8) & 1 == 0
    };
    for range in [0..u32::MAX, 1..geo.blocks_count, 600..1500, 513..1025, 700..701, 90..91] {
        for least in [0, 1, 2, 5, 100] {
            // Runs end where groups do.
            let mut expected = BTreeSet::new();
            for group in geo.group_numbers() {
                let start = geo.group_start(group);
                let end = start + geo.group_len(group);
                let mut at = start.max(range.start);
                while at < end.min(range.end) {
                    let mut len = 0;
                    while at + len < end.min(range.end) && is_free(at + len) {
                        len += 1;
                    }
                    if len >= least.max(1) {
                        expected.extend(u64::from(at)..u64::from(at + len));
                    }
                    at += len.max(1);
                }
            }
            device.discarded.lock().expect("held by nobody").clear();
            let trimmed = fs.trim(range.clone(), least).expect("trimmed");
            let told = blocks(&device.discarded.lock().expect("held by nobody"));
            assert_eq!(told, expected, "{range:?}, runs of {least}");
            assert_eq!(trimmed, told.len() as u64);
        }
    }
}

#[test]
fn what_is_kept_for_root_is_taken_only_on_behalf_of_root() {
    let (_, fs) = noted(10.0);
    let reserved = u64::from(fs.superblock().reserved_blocks);
    assert!(reserved > 100);
    let file = fs.root().expect("root").create(b"file", &FILE).expect("created");
    let fill = || {
        loop {
            match file.append(&[1; 16 << 10]) {
                Ok(_) => {}
                Err(error) => break assert!(error.is(Errno::NOSPC), "{error}"),
            }
        }
    };
    without_reserve(fill);
    assert_eq!(fs.statfs().expect("counted").blocks_free, reserved);
    // Also after one who did not come back.
    std::panic::catch_unwind(|| without_reserve(|| panic!("out of here"))).expect_err("it panics");
    without_reserve(|| without_reserve(|| ()));
    file.append(&[1; 16 << 10]).expect("root may");
    fill();
    assert_eq!(fs.statfs().expect("counted").blocks_free, 0);
}

/// Where an inode lies on the device.
fn inode_at(fs: &Ext2, nr: InodeNr) -> u64 {
    let (group, index) = fs.geometry().group_of_inode(nr).expect("a group");
    let table = u64::from(fs.descriptor(group).expect("a descriptor").bg_inode_table.get());
    table * fs.geometry().block_size.bytes() + u64::from(index) * u64::from(fs.geometry().inode_size)
}

/// Bitmaps and counts of all groups.
fn groups(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>, [u16; 3])> {
    let fs = Ext2::open(ram(bytes), &OpenOptions::read_only()).expect("open");
    let block = |nr: u32| bytes[nr as usize * 1024..][..1024].to_vec();
    fs.geometry()
        .group_numbers()
        .map(|nr| {
            let group = fs.descriptor(nr).expect("a descriptor");
            let counts = [
                group.bg_free_blocks_count.get(),
                group.bg_free_inodes_count.get(),
                group.bg_used_dirs_count.get(),
            ];
            (block(group.bg_block_bitmap.get()), block(group.bg_inode_bitmap.get()), counts)
        })
        .collect()
}

/// An image with files of all kinds and sizes, which was unmounted.
fn used(more: &[&str]) -> Vec<u8> {
    let device = ram(&image(more));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let mut rng = Rng::new(5);
    for nr in 0..4 {
        let dir = root.create(format!("d{nr}"), &DIR).expect("created");
        for nr in 0..5 {
            let file = dir.create(format!("f{nr}"), &FILE).expect("created");
            // Some with trees of three levels.
            for at in [0, 13 << 10, 300 << 10, 70_000 << 10] {
                file.write_at(at + rng.below(5 << 10), &vec![1; 1 + rng.below(9 << 10) as usize])
                    .expect("written");
            }
            if nr == 2 {
                file.xattr_set(b"user.one", &[7; 300], XattrSet::Any).expect("set");
                root.link(&file, format!("another{}", file.nr())).expect("linked");
            }
        }
        dir.symlink("long", "t".repeat(200), &FILE).expect("made");
        dir.symlink("short", "t", &FILE).expect("made");
    }
    root.unlink("d1/f0").expect_err("a name, no path");
    fs.resolve("d1", Follow::No).expect("there").unlink("f0").expect("unlinked");
    drop(root);
    fs.close().expect("closed");
    device.to_vec()
}

/// The image as a crash may leave it: not clean, and with any bitmaps and counts.
fn unclean(mut bytes: Vec<u8>, rng: &mut Rng) -> Vec<u8> {
    let fs = Ext2::open(ram(&bytes), &OpenOptions::read_only()).expect("open");
    for nr in fs.geometry().group_numbers() {
        let group = fs.descriptor(nr).expect("a descriptor");
        for map in [group.bg_block_bitmap.get(), group.bg_inode_bitmap.get()] {
            rng.fill(&mut bytes[map as usize * 1024..][..1024]);
        }
        rng.fill(&mut bytes[2048 + 32 * nr.get() as usize + 12..][..6]);
    }
    bytes[1024 + 12..1024 + 20].fill(0);
    bytes[1024 + 58..1024 + 60].fill(0);
    bytes
}

fn reopened(bytes: &[u8]) -> Vec<u8> {
    let device = ram(bytes);
    let fs = open(&device);
    fs.close().expect("closed");
    let mut left = device.to_vec();
    // It asks for a check all the same.
    left[1024 + 58] |= 1;
    left
}

#[test]
fn bitmaps_and_counts_of_an_unclean_image_are_what_its_inodes_make_them() {
    need_tools!("mke2fs", "e2fsck");
    let mut rng = Rng::new(9);
    for more in [
        &["-g", "1024"][..],
        &["-g", "1024", "-I", "128", "-O", "^resize_inode"],
        &["-g", "512", "-N", "96", "-O", "^filetype"],
        &["-j", "-J", "size=1", "-g", "2048"],
    ] {
        let clean = used(more);
        assert!(is_clean(&clean), "{more:?}");
        for _ in 0..2 {
            let left = reopened(&unclean(clean.clone(), &mut rng));
            let (expected, found) = (groups(&clean), groups(&left));
            for (nr, (expected, found)) in expected.iter().zip(&found).enumerate() {
                assert_eq!(found.2, expected.2, "{more:?}: counts of group {nr}");
                assert!(found == expected, "{more:?}: bitmaps of group {nr}");
            }
            assert!(is_clean(&left), "{more:?}");
        }
    }
}

/// What becomes of an image that was not unmounted after `change` was made to the device; and the file system that it is then.
fn after(change: impl FnOnce(&Ram, &dyn Fn(&str) -> u64)) -> (Ram, Ext2) {
    let clean = used(&["-g", "1024"]);
    let device = ram(&clean);
    {
        let fs = Ext2::open(device.clone(), &OpenOptions::read_only()).expect("open");
        change(&device, &|path| inode_at(&fs, fs.resolve(path, Follow::No).expect("there").nr()));
    }
    let device = ram(&unclean(device.to_vec(), &mut Rng::new(1)));
    let fs = open(&device);
    (device, fs)
}

#[test]
fn a_name_of_an_inode_without_links_goes_and_its_blocks_are_free() {
    need_tools!("mke2fs", "e2fsck");
    let (device, fs) = after(|device, at| {
        for path in ["d0/f1", "d3/long"] {
            device.write_u16(at(path) + 26, 0).expect("stored");
            device.write_u32(at(path) + 20, 1_000_000).expect("stored");
        }
    });
    let free = fs.statfs().expect("counted");
    for (dir, name) in [("d0", "f1"), ("d3", "long")] {
        let dir = fs.resolve(dir, Follow::No).expect("there");
        assert!(dir.lookup(name).expect_err("gone").is(Errno::NOENT));
        // The others are there.
        assert!(dir.lookup("f2").is_ok() && dir.lookup(".").is_ok() && dir.lookup("..").is_ok());
    }
    fs.close().expect("closed");
    let mut left = device.to_vec();
    left[1024 + 58] |= 1;
    assert!(is_clean(&left));
    let all = open(&ram(&used(&["-g", "1024"]))).statfs().expect("counted");
    assert_eq!(free.files_free, all.files_free + 2);
    assert!(free.blocks_free > all.blocks_free + 8);
}

#[test]
fn a_count_of_links_is_that_of_the_names_and_one_of_a_file_without_a_name_stays() {
    need_tools!("mke2fs", "e2fsck");
    let (device, fs) = after(|device, at| {
        device.write_u16(at("d0/f1") + 26, 5).expect("stored");
        device.write_u16(at("d0/f2") + 26, 1).expect("stored");
        device.write_u16(at("d2") + 26, 9).expect("stored");
    });
    let links = |path: &str| fs.resolve(path, Follow::No).expect("there").attr().links;
    assert_eq!([links("d0/f1"), links("d0/f2"), links("d0/f3"), links("d2"), links("/")], [1, 2, 1, 2, 7]);
    fs.close().expect("closed");
    let mut left = device.to_vec();
    left[1024 + 58] |= 1;
    assert!(is_clean(&left));
}

#[test]
fn a_truncation_that_the_superblock_lists_is_ended() {
    need_tools!("mke2fs", "e2fsck");
    const LAST_ORPHAN: u64 = 1024 + 232;
    const SIZE: u64 = (302 << 10) + 500;
    let (device, fs) = after(|device, at| {
        let nr = |path: &str| {
            let fs = Ext2::open(device.clone(), &OpenOptions::read_only()).expect("open");
            fs.resolve(path, Follow::No).expect("there").nr().get()
        };
        // The list leads from one file to another, and a time ends it.
        device.write_u32(LAST_ORPHAN, nr("d0/f1")).expect("stored");
        device.write_u32(at("d0/f1") + 20, nr("d0/f3")).expect("stored");
        device.write_u32(at("d0/f1") + 4, SIZE as u32).expect("stored");
        device.write_u32(at("d0/f3") + 4, 0).expect("stored");
    });
    let before = open(&ram(&used(&["-g", "1024"])));
    let blocks = |fs: &Ext2, path: &str| -> Vec<u64> {
        let file = fs.resolve(path, Follow::No).expect("there");
        file.extents()
            .flat_map(|run| run.map(|run| run.start.get()..run.end().get()).expect("whole"))
            .collect()
    };
    for (path, size) in [("d0/f1", SIZE), ("d0/f3", 0)] {
        let file = fs.resolve(path, Follow::No).expect("there");
        let mut expected = blocks(&before, path);
        expected.retain(|block| block * 1024 < size);
        assert_eq!((file.size(), blocks(&fs, path)), (size, expected), "{path}");
        file.truncate(size + 5000, Wait::Yes).expect("grown");
        let mut rest = vec![1; 5000];
        file.read_at(size, &mut rest).expect("read");
        assert!(rest.iter().all(|&byte| byte == 0), "{path}");
    }
    assert_eq!(device.read_u32(LAST_ORPHAN).expect("read"), 0);
    fs.close().expect("closed");
    let mut left = device.to_vec();
    left[1024 + 58] |= 1;
    assert!(is_clean(&left));
}

#[test]
fn what_linux_keeps_where_the_hurd_has_a_translator_is_no_block_of_a_file() {
    need_tools!("mke2fs", "e2fsck");
    const BLOCK: u32 = 4090;
    let clean = used(&["-g", "1024"]);
    let bit = (BLOCK - 1) as usize % 1024;
    assert_eq!(groups(&clean)[3].0[bit / 8] >> (bit % 8) & 1, 0, "the block is free");
    let (_, fs) = after(|device, at| device.write_u32(at("d0/f1") + 36, BLOCK).expect("stored"));
    let all = open(&ram(&clean)).statfs().expect("counted");
    assert_eq!(fs.statfs().expect("counted").blocks_free, all.blocks_free);
}
