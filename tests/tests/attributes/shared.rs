//! A block of attributes that several inodes use, as Linux makes them for inodes that have no room of their own.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use blockdev::{
    RamDevice, Recorder,
    crash::{CrashLimits, CrashState, PmemModel},
};
use e2dax_tests::{
    need_tools,
    small::{image, is_clean, open, ram},
};
use ext2_core::{Errno, Ext2, FileKind, Follow, GroupNr, Inode, NewInode, OpenOptions, XattrSet};

use super::{DIR, FILE, refused};

const NAME: &[u8] = b"security.selinux";
const VALUE: &[u8] = b"system_u:object_r:etc_t:s0";

/// An image in which inodes of these names share their attributes: files, and by their first letter directories, links and
/// pipes.
fn shared(names: &[&str]) -> Vec<u8> {
    let device = ram(&image(&["-t", "ext2", "-I", "128"]));
    let options = OpenOptions { share_xattrs: true, ..OpenOptions::default() };
    let fs = Ext2::open(device.clone(), &options).expect("opened");
    let root = fs.root().expect("root");
    for name in names {
        let made = match name.as_bytes()[0] {
            b'd' => root.create(name.as_bytes(), &DIR),
            b'l' => root.symlink(name.as_bytes(), b"to", &NewInode::new(FileKind::Symlink, 0o777)),
            b'p' => root.create(name.as_bytes(), &NewInode::new(FileKind::Fifo, 0o600)),
            _ => root.create(name.as_bytes(), &FILE),
        };
        made.expect("made").xattr_set(NAME, VALUE, XattrSet::Any).expect("set");
    }
    drop(root);
    fs.close().expect("closed");
    device.to_vec()
}

fn at(fs: &Ext2, name: &str) -> Inode {
    fs.resolve(name.as_bytes(), Follow::No).expect("there")
}

/// How many users the block of attributes of this name has, by what it says; 0 where there is none.
fn users(image: &[u8], name: &str) -> u32 {
    let fs = Ext2::open(ram(image), &OpenOptions::read_only()).expect("opened");
    let (nr, geo) = (at(&fs, name).nr().get(), fs.geometry());
    let table = fs.descriptor(GroupNr::new(0)).expect("read").bg_inode_table.get() as usize * 1024;
    let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().expect("4 bytes"));
    let block = word(table + (nr as usize - 1) * usize::from(geo.inode_size) + 104) as usize;
    if block == 0 { 0 } else { word(block * 1024 + 4) }
}

#[test]
fn sharers_of_every_kind_let_go_and_the_others_keep_what_they_have() {
    need_tools!("mke2fs", "e2fsck");
    let base = shared(&["f0", "f1", "f2", "f3", "l", "p", "d", "f4"]);
    assert_eq!(users(&base, "f2"), 8);
    assert!(is_clean(&base));
    let device = ram(&base);
    let fs = open(&device);
    let root = fs.root().expect("root");
    let held = [at(&fs, "f0"), at(&fs, "f3")];
    for name in ["f0", "l", "p", "f3"] {
        root.unlink(name).expect("removed");
    }
    root.rmdir("d").expect("removed");
    let changed = at(&fs, "f1");
    changed.xattr_set(NAME, b"another", XattrSet::Replace).expect("set");
    changed.xattr_remove(NAME).expect("removed");
    for file in &held {
        assert_eq!(file.xattr_get(NAME).expect("an open file keeps them"), VALUE);
    }
    for name in ["f2", "f4"] {
        assert_eq!(at(&fs, name).xattr_get(NAME).expect("there"), VALUE);
    }
    refused(changed.xattr_get(NAME), Errno::NODATA);
    drop((held, changed, root));
    fs.close().expect("closed");
    let image = device.to_vec();
    assert_eq!(users(&image, "f2"), 2);
    assert!(is_clean(&image));
}

#[test]
fn on_a_full_disk_a_sharer_can_be_removed_and_its_attributes_not_set() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&shared(&["a", "b", "c", "e"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let hog = root.create(b"hog", &FILE).expect("created");
    while hog.write_at(hog.size(), &[1; 1024]).is_ok() {}
    assert_eq!(fs.statfs().expect("counted").blocks_free, 0);
    let file = at(&fs, "a");
    fs.sync().expect("synced");
    let before = device.to_vec();
    refused(file.xattr_set(NAME, b"another", XattrSet::Any), Errno::NOSPC);
    assert!(device.to_vec() == before, "something changed");
    assert_eq!(file.xattr_get(NAME).expect("there"), VALUE);
    file.xattr_remove(NAME).expect("removed");
    root.unlink(b"b").expect("removed");
    assert_eq!(at(&fs, "c").xattr_get(NAME).expect("there"), VALUE);
    drop((file, hog, root));
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

#[test]
fn whoever_opens_what_a_crash_left_of_the_journal_of_a_moment_goes_on_and_it_is_gone() {
    need_tools!("mke2fs", "e2fsck");
    let base = shared(&["a", "b"]);
    let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(&base).expect("memory")));
    let fs = Ext2::open(recorder.clone(), &OpenOptions::default()).expect("opened");
    at(&fs, "a").xattr_set(NAME, b"another", XattrSet::Any).expect("set");
    fs.shut_down();
    let log = recorder.snapshot();
    let (mut seen, mut states) = (BTreeSet::new(), 0);
    let mut model = PmemModel::new(&base, &log);
    model.limits = CrashLimits { exhaustive: 32, edges: 12, pairs: 4, samples: 4, ..CrashLimits::default() };
    model.run(|state: &CrashState<'_>| {
        states += 1;
        let device = ram(state.image);
        let read = |options: &OpenOptions| {
            let fs = Ext2::open(device.clone(), options).unwrap_or_else(|error| panic!("{error}"));
            let value = at(&fs, "a").xattr_get(NAME).expect("there");
            assert_eq!(at(&fs, "b").xattr_get(NAME).expect("there"), VALUE);
            (value, fs)
        };
        let (first, fs) = read(&OpenOptions::read_only());
        drop(fs);
        let (value, fs) = read(&OpenOptions::default());
        assert_eq!(value, first, "who only reads sees the same");
        fs.close().expect("closed");
        let image = device.to_vec();
        let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().expect("4 bytes"));
        let (compat, incompat, journal) = (word(1024 + 0x5c) & 4, word(1024 + 0x60) & 4, word(1024 + 0xe0));
        assert_eq!((compat, incompat, journal), (0, 0, 0), "something of the journal is left");
        assert_eq!(users(&image, "b"), if value == VALUE { 2 } else { 1 });
        seen.insert(value);
        ControlFlow::Continue(())
    });
    println!("{states} states");
    assert!(states > 100 && seen.len() == 2, "{states} states, {seen:?}");
}

/// Fences and bytes of a change.
fn cost(base: &[u8], change: impl Fn(&Ext2)) -> (u64, u64) {
    let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(base).expect("memory")));
    let fs = Ext2::open(recorder.clone(), &OpenOptions::default()).expect("opened");
    let fences = recorder.fences();
    change(&fs);
    let fences = recorder.fences() - fences;
    let stored = recorder.snapshot().iter().map(|op| match op {
        blockdev::RecordedOp::Store { data, .. } => data.len(),
        _ => 0,
    });
    let stored = stored.sum();
    fs.shut_down();
    (fences, stored)
}

#[test]
fn a_change_of_shared_attributes_costs_six_fences_more() {
    need_tools!("mke2fs");
    let (alone, two) = (shared(&["a"]), shared(&["a", "b"]));
    let set = |fs: &Ext2| at(fs, "a").xattr_set(NAME, b"another", XattrSet::Any).expect("set");
    let remove = |fs: &Ext2| fs.root().expect("root").unlink(b"a").expect("removed");
    for (what, change) in [("set", &set as &dyn Fn(&Ext2)), ("unlink", &remove)] {
        let (alone, two) = (cost(&alone, change), cost(&two, change));
        println!("{what}: {} fences and {} bytes alone, {} and {} shared", alone.0, alone.1, two.0, two.1);
        assert!(two.0 <= alone.0 + 7, "{what}: {} fences", two.0);
    }
}
