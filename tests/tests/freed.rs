//! Blocks that are nobody's: what the device is told of them, who may take the last ones, and how they are found again in an
//! image that was not unmounted cleanly.

#[path = "freed/device.rs"]
mod device;
#[path = "freed/directory.rs"]
mod directory;
#[path = "freed/orphan.rs"]
mod orphan;

use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::{
    Rng, need_tools,
    small::{Ram, image, inode_at, is_clean, open, ram},
};
use ext2_core::{
    BlockSize, Errno, Error, Ext2, FileBlock, FileKind, FixedClock, Follow, GroupNr, InodeNr, NewInode,
    OpenOptions, Timestamp, XattrSet,
};
use ext2_image::mkfs::{self, Format, Fresh, Inodes};

const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);
const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);

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

#[test]
fn an_image_with_large_blocks_that_was_not_unmounted_is_opened_whatever_its_spare_descriptors_say() {
    need_tools!("mke2fs", "e2fsck");
    // The inode that holds them is as long as two levels of pointers reach, which no file is with blocks of 32 KiB.
    for block in ["16384", "32768", "65536"] {
        let device = ram(&e2dax_tests::small::image_of(&["-b", block, "-O", "resize_inode"], "32m"));
        let fs = open(&device);
        fs.write("file", "bytes").expect("written");
        fs.sync().expect("synced");
        // Killed.
        let fs = open(&ram(&device.to_vec()));
        assert_eq!(fs.read("file").expect("read"), b"bytes", "blocks of {block}");
        assert!(fs.inode(InodeNr::new(7).expect("not zero")).is_ok(), "blocks of {block}");
    }
}

#[test]
fn a_time_of_deletion_is_no_inode_s_number_however_early_the_clock_says_it_is() {
    need_tools!("e2fsck");
    for early in [0, 1, 1000] {
        let device = Arc::new(RamDevice::new(4 << 20).expect("memory"));
        let created = Timestamp::from_secs(1_700_000_000);
        mkfs::format(&*device, &Format { created, ..Format::default() }, Fresh::Zeros).expect("made");
        let at = |seconds| {
            let clock = Some(Arc::new(FixedClock(Timestamp::from_secs(seconds))) as _);
            let shared: Arc<dyn BlockDevice> = device.clone();
            Ext2::open(shared, &OpenOptions { clock, ..OpenOptions::default() }).expect("open")
        };
        let fs = at(early);
        let root = fs.root().expect("root");
        // One number is for the file that comes later.
        let names = ["a", "b", "c"];
        drop(names.map(|name| root.create(name, &FILE).expect("created")));
        for name in names {
            root.unlink(name).expect("removed");
        }
        drop(root);
        fs.close().expect("closed");
        assert!(is_clean(&device.to_vec()), "removed {early} seconds after 1970");
        // The clock is right now: e2fsck takes dates of the superblock that are early for a sign of a clock that is wrong.
        let fs = at(1_700_000_100);
        fs.write("later", "bytes").expect("written");
        fs.close().expect("closed");
        assert!(is_clean(&device.to_vec()), "removed {early} seconds after 1970, and used later");
    }
}
