//! Blocks that are nobody's: what the device is told of them, who may take the last ones, and how they are found again in an
//! image that was not unmounted cleanly.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice};
use e2dax_tests::{
    Rng, need_tools,
    small::{Ram, image, is_clean, open, ram},
};
use ext2_core::{
    BlockSize, Errno, Error, Ext2, FileBlock, FileKind, Follow, GroupNr, Inode, InodeNr, NewInode,
    OpenOptions, Wait, XattrSet, without_reserve,
};
use ext2_image::mkfs::{self, Format, Fresh, Inodes};

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

/// An image with a directory `dir` of so many blocks, of which each has three names of one FIFO; and where the directory's
/// inode lies.
fn with_directory(blocks: u64, more: &[&str]) -> (Vec<u8>, u64) {
    let device = ram(&image(more));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let dir = root.create("dir", &DIR).expect("created");
    let fifo = root.create("fifo", &NewInode::new(FileKind::Fifo, 0o644)).expect("created");
    let mut nr = 0;
    while dir.size() < blocks * 1024 || nr % 3 != 1 {
        dir.link(&fifo, format!("{nr:0250}")).expect("linked");
        nr += 1;
    }
    let at = inode_at(&fs, dir.nr());
    drop((root, dir, fifo));
    fs.close().expect("closed");
    (device.to_vec(), at)
}

#[test]
fn a_directory_that_lost_blocks_at_its_end_ends_before_them_and_one_with_other_holes_is_corrupt() {
    need_tools!("mke2fs");
    let (clean, at) = with_directory(3, &[]);
    // Blocks of which the pointers are gone, the size, and the size that the directory has then.
    let cases: [(&[u64], u32, Option<u32>); 11] = [
        (&[], 3, Some(3)),
        // The block came, and the size not yet.
        (&[], 2, Some(3)),
        (&[1, 2], 0, Some(1)),
        (&[2], 3, Some(2)),
        (&[1, 2], 3, Some(1)),
        // One that comes after the end is none of its.
        (&[1], 2, Some(1)),
        (&[0], 1, None),
        (&[0], 3, None),
        (&[1], 3, None),
        (&[0, 1], 3, None),
        (&[0, 1, 2], 3, None),
    ];
    for (gone, size, expected) in cases {
        let device = ram(&clean);
        for slot in gone {
            device.write_u32(at + 40 + 4 * slot, 0).expect("stored");
        }
        device.write_u32(at + 4, size * 1024).expect("stored");
        let device = ram(&unclean(device.to_vec(), &mut Rng::new(2)));
        let opened = Ext2::open(device.clone(), &OpenOptions::default());
        let is_corrupt = matches!(&opened, Err(Error::Corrupt(_)));
        let left = device.read_u32(at + 4).expect("read");
        assert_eq!(
            (is_corrupt, left),
            (expected.is_none(), expected.unwrap_or(size) * 1024),
            "{gone:?} of {size}"
        );
    }
}

#[test]
fn names_past_the_first_mebibyte_of_a_directory_count() {
    need_tools!("mke2fs", "e2fsck");
    let (clean, _) = with_directory(1100, &["-N", "128"]);
    let left = reopened(&unclean(clean.clone(), &mut Rng::new(3)));
    assert!(is_clean(&left));
    let links = |bytes: &[u8]| open(&ram(bytes)).resolve("fifo", Follow::No).expect("there").attr().links;
    assert_eq!(links(&left), links(&clean));
}

#[test]
fn a_directory_keeps_its_own_name_and_its_parent_s_whatever_they_name() {
    need_tools!("mke2fs");
    let (clean, at) = with_directory(1, &[]);
    let device = ram(&clean);
    let block = u64::from(device.read_u32(at + 40).expect("read")) * 1024;
    // Inodes without links: both names, and the one that follows them.
    for place in [0, 12, 24] {
        device.write_u32(block + place, 50).expect("stored");
    }
    let device = ram(&unclean(device.to_vec(), &mut Rng::new(4)));
    drop(open(&device));
    assert_eq!([0, 12, 24].map(|place| device.read_u32(block + place).expect("read")), [50, 50, 0]);
}

#[test]
fn an_inode_that_cannot_be_understood_is_not_taken_for_free() {
    need_tools!("mke2fs");
    for (what, field, value) in [("a mode of no kind", 0, 0o644), ("more than its room", 128, 132)] {
        let clean = used(&["-g", "1024"]);
        let device = ram(&clean);
        let at = {
            let fs = open(&device);
            inode_at(&fs, fs.resolve("d0/f1", Follow::No).expect("there").nr())
        };
        let device = ram(&clean);
        device.write_u16(at + field, value).expect("stored");
        let device = ram(&unclean(device.to_vec(), &mut Rng::new(5)));
        let opened = Ext2::open(device, &OpenOptions::default());
        assert!(matches!(opened, Err(Error::Corrupt(_))), "{what}");
    }
}

#[test]
fn bad_blocks_stay_taken_in_an_image_that_was_not_unmounted() {
    need_tools!("mke2fs", "e2fsck");
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("bad");
    std::fs::write(&list, "1500\n1501\n3000\n").expect("written");
    let clean = used(&["-g", "1024", "-l", list.to_str().expect("a path of ours")]);
    let left = reopened(&unclean(clean.clone(), &mut Rng::new(6)));
    assert!(groups(&left) == groups(&clean));
    assert!(is_clean(&left));
}

#[test]
fn a_file_without_a_name_keeps_its_links_and_its_blocks() {
    need_tools!("mke2fs");
    let clean = used(&["-g", "1024"]);
    let device = ram(&clean);
    let (at, dir) = {
        let fs = open(&device);
        let dir = fs.resolve("d0", Follow::No).expect("there");
        let at = inode_at(&fs, dir.lookup_nr("f1").expect("there"));
        let block = dir.map(FileBlock::new(0), 1).expect("mapped").target.expect("a block");
        (at, u64::from(block.get()) * 1024)
    };
    let device = ram(&clean);
    let mut block = [0; 1024];
    device.read_at(dir, &mut block).expect("read");
    let name = block.windows(2).position(|bytes| bytes == b"f1").expect("the name");
    device.write_u32(dir + name as u64 - 8, 0).expect("stored");
    let device = ram(&unclean(device.to_vec(), &mut Rng::new(7)));
    let free = open(&device).statfs().expect("counted");
    assert_eq!(device.read_u32(at + 24).expect("read") >> 16, 1);
    let before = open(&ram(&clean)).statfs().expect("counted");
    assert_eq!((free.blocks_free, free.files_free), (before.blocks_free, before.files_free));
}

#[test]
fn a_list_of_truncations_that_leads_in_a_circle_or_nowhere_is_corrupt() {
    need_tools!("mke2fs");
    let clean = used(&["-g", "1024"]);
    let (one, other) = {
        let fs = open(&ram(&clean));
        let nr = |path| fs.resolve(path, Follow::No).expect("there").nr();
        ((nr("d0/f1"), inode_at(&fs, nr("d0/f1"))), (nr("d0/f2"), inode_at(&fs, nr("d0/f2"))))
    };
    let (one_nr, other_nr) = (one.0.get(), other.0.get());
    for (first, next, last, is_good) in [
        (one_nr, other_nr, 0, true),
        (one_nr, one_nr, 0, false),
        (one_nr, other_nr, one_nr, false),
        (one_nr, other_nr, other_nr, false),
        (1_000_000, other_nr, 0, false),
        // A time, as it were.
        (one_nr, 1_000_000, 0, true),
    ] {
        let device = ram(&unclean(clean.clone(), &mut Rng::new(8)));
        device.write_u32(1024 + 232, first).expect("stored");
        device.write_u32(one.1 + 20, next).expect("stored");
        device.write_u32(other.1 + 20, last).expect("stored");
        let opened = Ext2::open(device, &OpenOptions::default());
        assert_eq!(opened.is_ok(), is_good, "{first}, {next}, {last}: {:?}", opened.err());
    }
}

/// An image, not unmounted, with two dead files on the list of truncations and a third that lives, which share one block of
/// attributes that has this magic number and counts so many users; and where that block and the dead inodes lie.
fn with_dead_users(clean: &[u8], magic: u32, count: u32) -> (Vec<u8>, u64, [u64; 2]) {
    let device = ram(clean);
    let fs = open(&device);
    let root = fs.root().expect("root");
    let files = ["before", "one", "other", "alive"].map(|name| root.create(name, &FILE).expect("created"));
    files[0].append(&vec![0xa5; 1 << 20]).expect("written");
    files[3].xattr_set(b"user.one", &[7; 300], XattrSet::Any).expect("set");
    let numbers = [1, 2].map(|nr: usize| files[nr].nr().get());
    let at = files.each_ref().map(|file| inode_at(&fs, file.nr()));
    for name in ["one", "other"] {
        root.unlink(name).expect("unlinked");
    }
    drop((root, files));
    fs.close().expect("closed");
    let block = device.read_u32(at[3] + 104).expect("read");
    device.write_u32(u64::from(block) * 1024, magic).expect("stored");
    device.write_u32(u64::from(block) * 1024 + 4, count).expect("stored");
    for (nr, next) in [(1, numbers[1]), (2, 0)] {
        device.write_u16(at[nr], 0o100_644).expect("stored");
        device.write_u32(at[nr] + 20, next).expect("stored");
        device.write_u32(at[nr] + 104, block).expect("stored");
    }
    device.write_u32(1024 + 232, numbers[0]).expect("stored");
    // What nothing reads may not change either.
    device.write_at(at[0] + 200, &[0xa5; 56]).expect("stored");
    (device.to_vec(), u64::from(block) * 1024, [at[1], at[2]])
}

/// Whether the bitmap of the first group, the only one, has a block as taken.
fn is_taken(bytes: &[u8], block: usize) -> bool {
    let map = bytes[2048..].first_chunk().map_or(0, |map| u32::from_le_bytes(*map)) as usize * 1024;
    bytes[map + (block - 1) / 8] >> ((block - 1) % 8) & 1 == 1
}

#[test]
fn a_dead_file_gives_up_its_share_of_a_block_of_attributes_and_changes_nothing_else() {
    need_tools!("mke2fs");
    const MAGIC: u32 = 0xea02_0000;
    let base = image(&[]);
    for (magic, count, expected) in
        [(MAGIC, 3, 1), (MAGIC, 2, 1), (MAGIC, 1, 1), (MAGIC, 0, 0), (MAGIC + 1, 3, 3), (MAGIC + 1, 1, 1)]
    {
        let (mut bytes, block, dead) = with_dead_users(&base, magic, count);
        bytes[1024 + 58..1024 + 60].fill(0);
        let device = ram(&bytes);
        drop(open(&device));
        assert_eq!(device.read_u32(block + 4).expect("read"), expected, "{magic:x}, {count}");
        let mut left = device.to_vec();
        // But for the superblock, the descriptors and bitmaps, the count, and the ends of the list.
        let geo = open(&ram(&base)).geometry().clone();
        assert_eq!(geo.group_numbers().len(), 1);
        let maps =
            open(&ram(&base)).descriptor(geo.group_numbers().next().expect("one")).expect("a descriptor");
        let maps = [maps.bg_block_bitmap.get(), maps.bg_inode_bitmap.get()].map(|map| map as usize * 1024);
        let count_of_users = block as usize + 4..block as usize + 8;
        let changed = [1024..3072, maps[0]..maps[0] + 1024, maps[1]..maps[1] + 1024, count_of_users]
            .into_iter()
            .chain(dead.map(|at| at as usize + 20..at as usize + 24));
        for range in changed {
            left[range.clone()].copy_from_slice(&bytes[range]);
        }
        let other = (0..left.len())
            .find(|&at| left[at] != bytes[at] && (at / 1024 == 0 || is_taken(&bytes, at / 1024)));
        assert_eq!(other, None, "{magic:x}, {count}: the first byte that changed");
    }
}

#[test]
fn an_image_with_a_journal_is_not_opened_where_anything_of_it_cannot_be_read() {
    need_tools!("mke2fs");
    let base = image(&["-j", "-J", "size=1"]);
    let (mut bytes, block, _) = with_dead_users(&base, 0xea02_0000, 3);
    bytes[1024 + 58..1024 + 60].fill(0);
    for after in 0.. {
        let faulty = Arc::new(Faulty::new(RamDevice::from_bytes(&bytes).expect("memory")));
        faulty.arm(Fault::once(Calls::READ, after));
        let opened = Ext2::open(faulty.clone(), &OpenOptions::default());
        if faulty.fired() == 0 {
            opened.expect("open");
            assert!(after > 50, "{after} reads");
            assert_eq!(faulty.inner().read_u32(block + 4).expect("read"), 1);
            break;
        }
        assert!(matches!(opened, Err(Error::Device(_))), "read {after} fails");
    }
}

/// An image of groups of 512 blocks, of which the third has its bitmaps and its table of inodes in its middle; with the first of
/// their blocks.
fn with_structures_in_the_middle() -> (Vec<u8>, u32) {
    let device = Arc::new(RamDevice::new(4 << 20).expect("memory"));
    let format = Format {
        block_size: BlockSize::new(1024),
        blocks_per_group: Some(512),
        reserved_percent: 0.0,
        ..Format::default()
    };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    let geo = open(&device).geometry().clone();
    let third = GroupNr::new(2);
    let (start, len) = (geo.group_start(third) as usize, 2 + geo.inode_table_blocks() as usize);
    assert_eq!(geo.group_overhead(third), 0);
    let mut bytes = device.to_vec();
    bytes.copy_within(start * 1024..(start + len) * 1024, (start + 200) * 1024);
    for field in 0..3 {
        let at = 2048 + 2 * 32 + 4 * field;
        let place = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        assert_eq!(place as usize, start + field);
        bytes[at..at + 4].copy_from_slice(&(place + 200).to_le_bytes());
    }
    (bytes, start as u32 + 200)
}

#[test]
fn blocks_before_the_structures_of_a_group_and_at_its_start_are_files_as_all_others() {
    need_tools!("e2fsck");
    let (bytes, structures) = with_structures_in_the_middle();
    // What is where is found anew, with the first block of the group free.
    let left = reopened(&unclean(bytes, &mut Rng::new(9)));
    assert!(is_clean(&left));
    let start = structures - 200;
    // A file that is one run over the start of the group, and one that ends where the structures begin.
    let (mut is_over_start, mut is_before) = (false, false);
    for skip in 0..24 {
        let device = ram(&left);
        let fs = open(&device);
        let root = fs.root().expect("root");
        // The directory has room for all names.
        (0..400).for_each(|nr| drop(root.create(format!("f{nr}"), &FILE).expect("created")));
        (0..400).for_each(|nr| root.unlink(format!("f{nr}")).expect("unlinked"));
        let free = fs.statfs().expect("counted").blocks_free;
        // Blocks before them, so that the files begin elsewhere each time.
        let before = root.create("before", &FILE).expect("created");
        before.append(&vec![1; skip << 10]).expect("written");
        let mut nr = 0;
        let mut files = Vec::new();
        while fs.statfs().expect("counted").blocks_free > 0 {
            let file = root.create(format!("f{nr}"), &FILE).expect("created");
            while file.size() < 12 << 10 && file.append(&[2; 1024]).is_ok() {}
            files.push(file);
            nr += 1;
        }
        for file in &files {
            for run in file.extents() {
                let run = run.expect("whole");
                let first = run.target.expect("data").get();
                is_over_start |= first < start && first + run.count as u32 > start;
                is_before |= first + run.count as u32 == structures;
            }
        }
        drop((before, files));
        root.unlink("before").expect("unlinked");
        (0..nr).for_each(|nr| root.unlink(format!("f{nr}")).expect("unlinked"));
        drop(root);
        assert_eq!(fs.statfs().expect("counted").blocks_free, free);
        fs.close().expect("closed");
        let mut left = device.to_vec();
        assert_eq!(left[1024 + 58] & 2, 0, "marked as broken");
        left[1024 + 58] |= 1;
        assert!(skip % 8 != 0 || is_clean(&left));
    }
    assert!(is_over_start && is_before);
}

#[test]
fn a_block_that_is_not_a_file_s_or_is_free_is_not_freed_with_a_file() {
    need_tools!("mke2fs");
    let clean = {
        let device = ram(&image(&["-g", "1024"]));
        let fs = open(&device);
        fs.root()
            .expect("root")
            .create("file", &FILE)
            .expect("created")
            .append(&[1; 10 << 10])
            .expect("written");
        fs.close().expect("closed");
        device.to_vec()
    };
    let fs = open(&ram(&clean));
    let file = fs.resolve("file", Follow::No).expect("there");
    let (at, geo) = (inode_at(&fs, file.nr()), fs.geometry().clone());
    let first = file.map(FileBlock::new(0), 1).expect("mapped").target.expect("a block").get();
    let group = fs.descriptor(GroupNr::new(1)).expect("a descriptor");
    let table = group.bg_inode_table.get();
    let own = [
        geo.group_start(GroupNr::new(1)),
        group.bg_block_bitmap.get(),
        group.bg_inode_bitmap.get(),
        table,
        table + geo.inode_table_blocks() - 1,
    ];
    let map = u64::from(fs.descriptor(GroupNr::new(0)).expect("a descriptor").bg_block_bitmap.get()) * 1024;
    drop((fs, file));
    let bit = |device: &Ram, block: u32| {
        let (group, bit) = geo.group_of_block(block).expect("a group");
        let map = 2048 + 32 * u64::from(group.get());
        let mut byte = [0];
        let map = u64::from(device.read_u32(map).expect("read")) * 1024;
        device.read_at(map + u64::from(bit / 8), &mut byte).expect("read");
        byte[0] >> (bit % 8) & 1 == 1
    };
    let removed = |device: &Ram| {
        let fs = open(device);
        fs.root().expect("root").unlink("file").expect("unlinked");
        drop(fs);
        device.to_vec()[1024 + 58] & 2 == 2
    };
    assert!(!removed(&ram(&clean)));
    for block in own {
        for slot in [0, 5, 9] {
            let device = ram(&clean);
            device.write_u32(at + 40 + 4 * slot, block).expect("stored");
            assert!(removed(&device), "block {block} as block {slot}: nothing is said");
            assert!(bit(&device, block), "block {block} as block {slot} is free");
        }
    }
    for slot in [0, 4, 9] {
        let device = ram(&clean);
        let (_, bit) = geo.group_of_block(first + slot).expect("a group");
        let mut byte = [0];
        device.read_at(map + u64::from(bit / 8), &mut byte).expect("read");
        assert!(byte[0] >> (bit % 8) & 1 == 1);
        device.write_at(map + u64::from(bit / 8), &[byte[0] & !(1 << (bit % 8))]).expect("stored");
        let free = device.read_u32(2048 + 12).expect("read") as u16;
        device.write_u16(2048 + 12, free + 1).expect("stored");
        assert!(removed(&device), "block {slot} was free already: nothing is said");
    }
}

#[test]
fn what_is_taken_is_stored_in_the_bitmaps_and_nowhere_else() {
    need_tools!("mke2fs");
    let mut bytes = image(&["-g", "1024"]);
    bytes[..1024].fill(0xa5);
    let device = ram(&bytes);
    let fs = open(&device);
    let root = fs.root().expect("root");
    for nr in 0..20 {
        root.create(format!("f{nr}"), &FILE).expect("created").append(&[1; 3000]).expect("written");
    }
    drop(root);
    fs.close().expect("closed");
    assert!(device.to_vec()[..1024].iter().all(|&byte| byte == 0xa5));
}

#[test]
fn what_a_table_has_past_the_last_inode_of_its_group_is_no_inode() {
    let device = Arc::new(RamDevice::new(2 << 20).expect("memory"));
    let format = Format {
        block_size: BlockSize::new(4096),
        inodes: Inodes::Count(128),
        inode_size: 128,
        blocks_per_group: Some(256),
        ..Format::default()
    };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    let table = {
        let fs = open(&device);
        assert_eq!(fs.geometry().inodes_per_group, 64);
        u64::from(fs.descriptor(GroupNr::new(0)).expect("a descriptor").bg_inode_table.get())
    };
    // Two blocks have room for 64, and each group has 48.
    device.write_u32(1024, 96).expect("stored");
    device.write_u32(1024 + 40, 48).expect("stored");
    device.write_u16(1024 + 58, 0).expect("stored");
    for index in 48..64 {
        let at = table * 4096 + index * 128;
        device.write_u16(at, 0o100_644).expect("stored");
        device.write_u16(at + 26, 1).expect("stored");
    }
    let fs = open(&device);
    // Ten are reserved, and one is that of lost+found.
    let free = fs.statfs().expect("counted").files_free;
    assert_eq!((fs.geometry().inodes_per_group, free), (48, 96 - 11));
    let root = fs.root().expect("root");
    let taken = (0..).take_while(|nr| root.create(format!("f{nr}"), &FILE).is_ok()).count() as u64;
    assert_eq!(taken, free);
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
