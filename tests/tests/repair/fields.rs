//! Superblocks whose fields contradict each other where no backup says what they were, and what they name that cannot stay.

use std::{fs, path::Path, sync::Arc};

use e2dax_tests::{Scratch, crash, need_tools, tools, tree};
use ext2_core::{Ext2, FileKind, NewInode};
use ext2_image::check::{Checker, Kind, Options, Place};

use crate::{
    bench::{Bench, repair_all},
    kinds::{base, debugfs, repaired},
};

/// Where the superblock lies, in bytes.
const SUPER: usize = 1024;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn a_field_of_the_only_superblock_gets_back_what_the_others_say() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    // One group: there is no backup.
    let bytes = fs::read(base(&bench, &["-b", "4096"])).unwrap();
    let wanted = tree::read(Arc::new(Scratch::new(bytes.clone()))).unwrap();
    let per_group = word(&bytes, SUPER + 40);
    let spare = word(&bytes, SUPER + 204);
    for (what, fields, kind) in [
        ("fewer inodes than are reserved", &[(0, 1)][..], Kind::InodeCount),
        ("no inodes", &[(0, 0)], Kind::InodeCount),
        ("a bitmap that ends within a byte", &[(32, 0x5fe7)], Kind::BlocksPerGroup),
        ("groups that no bitmap has room for", &[(32, 0x8008)], Kind::BlocksPerGroup),
        ("groups without blocks", &[(32, 0), (36, 0)], Kind::BlocksPerGroup),
        ("fragments that are no blocks", &[(36, 0x1238)], Kind::FragmentsPerGroup),
        ("an inode more in each group", &[(40, per_group + 1)], Kind::InodesPerGroup),
        ("groups without inodes", &[(40, 0)], Kind::InodesPerGroup),
        ("blocks of another size", &[(24, 1)], Kind::BlockSize),
        ("blocks of an impossible size", &[(24, 99)], Kind::BlockSize),
        ("a first block that is not counted", &[(20, 1)], Kind::FirstDataBlock),
        ("spare descriptors where the bitmaps are", &[(204, spare + (2 << 16))], Kind::SpareDescriptors),
        ("more spare descriptors than have a number", &[(204, 0x7fff << 16)], Kind::SpareDescriptors),
        ("a journal that is none", &[(224, 13)], Kind::JournalLeft),
        ("a journal in an inode past the last", &[(224, 99_999)], Kind::JournalLeft),
        (
            "orphans without a file of them",
            &[(100, word(&bytes, SUPER + 100) | 0x1_0000)],
            Kind::OrphansPresent,
        ),
    ] {
        let mut broken = bytes.clone();
        for &(at, value) in fields {
            put(&mut broken, SUPER + at, value);
        }
        let (found, kinds) = repaired(&bench, broken, what);
        assert_eq!(kinds.first(), Some(&kind), "{what}: {kinds:?}");
        assert!(found == wanted, "{what}: {:?}", found.keys());
    }
}

#[test]
fn a_feature_that_no_file_has_keeps_no_image_from_being_mended() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &["-b", "4096"]);
    debugfs(&path, "sif d/f links_count 9\n");
    let bytes = fs::read(&path).unwrap();
    for (at, feature) in [(96, 0x1_0000), (96, 0x8000), (100, 0x8000)] {
        let mut broken = bytes.clone();
        let features = word(&broken, SUPER + at) | feature;
        put(&mut broken, SUPER + at, features);
        let device = Scratch::new(broken);
        let report = repair_all(&device).unwrap();
        assert!(report.clean && report.mended == 1, "{report:?}");
        let mended = device.to_vec();
        assert_eq!(word(&mended, SUPER + at), features);
        fs::write(&path, mended).unwrap();
        tools::e2fsck_fn(&path).unwrap();
    }
    // A file that has it keeps the image from being looked at.
    fs::write(&path, &bytes).unwrap();
    debugfs(&path, "sif d/f flags 0x800\n");
    let mut used = fs::read(&path).unwrap();
    let features = word(&used, SUPER + 96) | 0x1_0000;
    put(&mut used, SUPER + 96, features);
    assert!(repair_all(&Scratch::new(used)).unwrap_err().contains("encrypt"));
}

/// The block of spare descriptors' numbers that the resize inode has.
fn double(path: &Path) -> u32 {
    let said = tools::run("debugfs", &["-c", "-R", "stat <7>", path.to_str().unwrap()]).unwrap();
    let said = String::from_utf8(said).unwrap();
    said.split("(DIND):").nth(1).unwrap().split(',').next().unwrap().trim().parse().unwrap()
}

#[test]
fn a_full_image_that_lost_its_resize_inode_gives_up_the_feature_and_no_file() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &["-O", "resize_inode", "-m", "0"]);
    let device = Arc::new(Scratch::new(fs::read(&path).unwrap()));
    let image = Ext2::open(device.clone(), &crash::options()).unwrap();
    let rest = image.root().unwrap().create(b"rest", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
    let mut at = 0;
    for step in [1 << 20, 64 << 10, 1 << 10] {
        while rest.write_at(at, &vec![b'r'; step]).is_ok_and(|written| written == step) {
            at += step as u64;
        }
    }
    drop(rest);
    // What was too little for a block and one of pointers to it.
    for nr in b'0'..b'4' {
        let last =
            image.root().unwrap().create([b'r', nr], &NewInode::new(FileKind::Regular, 0o644)).unwrap();
        let _ = last.write_at(0, &[b'l'; 1 << 10]);
    }
    image.close().unwrap();
    fs::write(&path, device.to_vec()).unwrap();
    // The block that the resize inode had is a file's now, and there is no other.
    let double = double(&path);
    debugfs(&path, &format!("sif d/f block[5] {double}\nsif d/f size 6144\nsif d/f blocks 12\nclri <7>\n"));
    let bytes = fs::read(&path).unwrap();
    let before = tree::read(Arc::new(Scratch::new(bytes.clone()))).unwrap();
    let (after, kinds) = repaired(&bench, bytes, "a full image");
    assert!(kinds.contains(&Kind::ResizeInode), "{kinds:?}");
    assert!(before == after, "{:?} {:?}", before.keys(), after.keys());
    let bytes = fs::read(bench.path("repaired.img")).unwrap();
    assert_eq!((word(&bytes, SUPER + 92) & 0x10, word(&bytes, SUPER + 204) >> 16), (0, 0));
}

#[test]
fn a_journal_that_is_a_file_with_a_name_becomes_the_hidden_one() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &["-t", "ext3"]);
    fs::write(bench.path("journal"), b"in its place comes the journal").unwrap();
    debugfs(&path, &format!("write {} d/journal\n", bench.path("journal").display()));
    let mut bytes = fs::read(&path).unwrap();
    let before = tree::read(Arc::new(Scratch::new(bytes.clone()))).unwrap();
    let said = tools::run("debugfs", &["-c", "-R", "stat d/journal", path.to_str().unwrap()]).unwrap();
    let said = String::from_utf8(said).unwrap();
    let nr: u32 = said.split_whitespace().nth(1).unwrap().parse().unwrap();
    let size = usize::from(u16::from_le_bytes(bytes[SUPER + 88..SUPER + 90].try_into().unwrap()));
    let table = word(&bytes, 2048 + 8) as usize * 1024;
    let at = |nr: u32| table + (nr as usize - 1) * size;
    bytes.copy_within(at(8)..at(9), at(nr));
    bytes[at(8)..at(9)].fill(0);
    put(&mut bytes, SUPER + 0xe0, nr);
    let (after, kinds) = repaired(&bench, bytes, "a journal with a name");
    assert!(kinds.contains(&Kind::JournalInode), "{kinds:?}");
    let mut wanted = before;
    let had = wanted.len();
    wanted.retain(|name, _| !name.ends_with(b"journal"));
    assert_eq!(wanted.len() + 1, had);
    assert!(wanted.keys().eq(after.keys()), "{:?}", after.keys());
    let bytes = fs::read(bench.path("repaired.img")).unwrap();
    assert_eq!((word(&bytes, SUPER + 0xe0), word(&bytes, SUPER + 92) & 4), (8, 4));
}

/// The size of the resize inode that e2fsck -n calls wrong, and what it should be.
fn size_that_e2fsck_finds(path: &Path) -> Option<(u64, u64)> {
    let said = tools::e2fsck_fn(path).err()?;
    let (_, rest) = said.split_once("Inode 7, i_size is ").unwrap_or_else(|| panic!("{said}"));
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
    let mut next = || numbers.next().unwrap().parse().unwrap();
    Some((next(), next()))
}

#[test]
fn the_size_of_the_resize_inode_is_what_e2fsck_counts() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let mut wrong = 0;
    for layout in [
        &["-b", "1024"][..],
        &["-b", "1024", "-g", "1024"],
        &["-b", "1024", "-g", "1024", "-O", "sparse_super2"],
        &["-b", "2048", "-g", "1024"],
        &["-b", "4096"],
        &["-b", "4096", "-g", "512"],
    ] {
        let path = base(&bench, layout);
        let whole = fs::read(&path).unwrap();
        let blocks = 1 << word(&whole, SUPER + 24);
        for size in [
            0,
            1,
            blocks << 10,
            400_000,
            35_000_000,
            67_383_296,
            4_299_210_752,
            1 << 32,
            (1 << 32) + 1,
            1 << 34,
            1 << 40,
            4_402_345_721_856,
            4_402_345_721_857,
            u64::MAX >> 1,
        ] {
            debugfs(&path, &format!("sif <7> size {size}\n"));
            let bytes = fs::read(&path).unwrap();
            let what = format!("{layout:?}: {size}");
            let mut ours = None;
            let look =
                Checker::new().check(&Scratch::new(bytes.clone()), &Options::default(), &mut |finding| {
                    if (finding.place, finding.kind) == (Place::Inode(7), Kind::Size) {
                        ours = finding.found.zip(finding.expected);
                    }
                });
            let theirs = size_that_e2fsck_finds(&path);
            assert_eq!(ours, theirs, "{what}");
            assert_eq!(look.unwrap().is_clean(), theirs.is_none(), "{what}");
            let (_, kinds) = repaired(&bench, bytes, &what);
            assert_eq!(kinds.is_empty(), theirs.is_none(), "{what}: {kinds:?}");
            wrong += usize::from(theirs.is_some());
        }
    }
    assert!(wrong > 40, "{wrong}");
}
