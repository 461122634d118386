//! Blocks of descriptors that were written over in part.

use std::{fs, sync::Arc};

use e2dax_tests::{Scratch, need_tools, tools, tree};
use ext2_image::check::Kind;

use crate::bench::Bench;
use crate::kinds::{debugfs, repaired};

/// Where a field of a group's descriptor lies, in bytes.
fn field(group: usize, field: usize) -> usize {
    2048 + group * 32 + field
}

const INODE_BITMAP: usize = 4;
const TABLE: usize = 8;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// An image with files in the tables of many groups.
fn of_many_tables(bench: &Bench, more: &[&str]) -> Vec<u8> {
    let path = bench.path("many.img");
    fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
    let mut args = vec!["-b", "1024", "-g", "2048", "-N", "128"];
    args.extend(more);
    args.push(path.to_str().unwrap());
    tools::mke2fs(&args);
    let mut commands = String::new();
    for nr in 0..60 {
        let from = bench.path(&format!("f{nr}"));
        fs::write(&from, format!("the bytes of file {nr}")).unwrap();
        commands += &format!("write {} f{nr}\n", from.display());
    }
    debugfs(&path, &commands);
    tools::e2fsck_fn(&path).unwrap();
    fs::read(&path).unwrap()
}

#[test]
fn what_looks_like_a_descriptor_beside_broken_ones_gives_way_to_a_backup() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    for more in [&[][..], &["-O", "uninit_bg"], &["-O", "meta_bg,^resize_inode"]] {
        let bytes = of_many_tables(&bench, more);
        let wanted = tree::read(Arc::new(Scratch::new(bytes.clone()))).unwrap();
        let mut shifted = bytes.clone();
        // In front of the broken one, and behind it.
        for group in [2, 4] {
            put(&mut shifted, field(group, TABLE), word(&bytes, field(group, TABLE)) + 20);
        }
        let mut swapped = bytes.clone();
        for (to, from) in [(0, INODE_BITMAP), (INODE_BITMAP, 0)] {
            put(&mut swapped, field(2, to), word(&bytes, field(2, from)));
        }
        for (what, mut broken) in [("shifted", shifted), ("swapped", swapped)] {
            put(&mut broken, field(3, TABLE), 0);
            let (found, kinds) = repaired(&bench, broken, what);
            assert!(kinds.contains(&Kind::DescriptorDiffers), "{what} {more:?}: {kinds:?}");
            assert!(found == wanted, "{what} {more:?}: {:?}", found.keys());
        }
    }
}

#[test]
fn descriptors_beside_a_broken_one_stay_where_no_backup_is_whole() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let bytes = of_many_tables(&bench, &[]);
    let wanted = tree::read(Arc::new(Scratch::new(bytes.clone()))).unwrap();
    let mut broken = bytes.clone();
    put(&mut broken, field(3, TABLE), 0);
    // Each backup has lost another group, and has one of its tables elsewhere.
    for (holder, lost) in [(1, 4), (3, 5), (5, 6), (7, 4)] {
        let at = |group: usize| ((1 + holder * 2048 + 1) * 1024) + group * 32 + TABLE;
        put(&mut broken, at(lost), 0);
        put(&mut broken, at(2), word(&bytes, at(2)) + 20);
    }
    let (found, kinds) = repaired(&bench, broken, "no whole backup");
    assert!(!kinds.contains(&Kind::DescriptorDiffers), "{kinds:?}");
    assert!(found == wanted, "{:?}", found.keys());
}

#[test]
fn names_of_inodes_that_a_stale_descriptor_calls_unwritten_are_all_counted() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = bench.path("stale.img");
    fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
    let args = ["-b", "1024", "-g", "2048", "-N", "128", "-O", "uninit_bg"];
    tools::mke2fs(&[&args[..], &[path.to_str().unwrap()]].concat());
    let from = bench.path("from");
    fs::write(&from, "bytes").unwrap();
    // The first group has 16 inodes, and three of them are free then.
    let mut commands = "mkdir a\nmkdir b\n".to_owned();
    for name in ["x", "y", "z", "a/1", "a/2", "b/1", "b/2"] {
        commands += &format!("write {} {name}\n", from.display());
    }
    debugfs(&path, &commands);
    tools::e2fsck_fn(&path).unwrap();
    let wanted = tree::read(Arc::new(Scratch::new(fs::read(&path).unwrap()))).unwrap();
    // As a backup has it from when the group was empty.
    debugfs(&path, "set_bg 1 itable_unused 16\nset_bg 1 flags 3\nset_bg 1 checksum calc\n");
    let (found, kinds) = repaired(&bench, fs::read(&path).unwrap(), "stale");
    assert!(kinds.contains(&Kind::EntryUnwritten) && !kinds.contains(&Kind::Unattached), "{kinds:?}");
    assert!(found == wanted, "{:?}", found.keys());
}

#[test]
fn files_without_names_in_a_group_that_a_stale_backup_calls_unwritten_are_kept() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = bench.path("stale.img");
    fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
    let args = ["-b", "1024", "-g", "2048", "-N", "128", "-O", "uninit_bg"];
    tools::mke2fs(&[&args[..], &[path.to_str().unwrap()]].concat());
    let empty = fs::read(&path).unwrap();
    let from = bench.path("from");
    fs::write(&from, "bytes").unwrap();
    // The first group has 16 inodes, and four of them are free then.
    let mut commands = "mkdir a\n".to_owned();
    for name in ["w", "x", "y", "z", "a/1", "a/2"] {
        commands += &format!("write {} {name}\n", from.display());
    }
    debugfs(&path, &(commands + "clri a\n"));
    let mut bytes = fs::read(&path).unwrap();
    // The backups are as they were made, as a kernel leaves them.
    for holder in [1, 3, 5, 7] {
        let at = (1 + holder * 2048 + 1) * 1024;
        bytes[at..at + 1024].copy_from_slice(&empty[at..at + 1024]);
    }
    bytes[2048..3072].fill(0);
    let (found, kinds) = repaired(&bench, bytes, "stale");
    assert_eq!(kinds.iter().filter(|&&kind| kind == Kind::Unattached).count(), 2, "{kinds:?}");
    assert!(found.len() >= 8, "{:?}", found.keys());
}
