//! A block of attributes that several inodes use, as Linux makes them for inodes that have no room of their own.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use blockdev::{
    BlockDevice, Calls, Fault, Faulty, RamDevice, Recorder,
    crash::{CrashLimits, CrashState, PmemModel},
};
use e2dax_tests::{
    crash::Base,
    need_tools,
    small::{create, image, image_of, is_clean, mended, open, ram},
};
use ext2_core::{
    Errno, Ext2, FileKind, Follow, GroupNr, Inode, NewInode, OnError, OpenOptions, Wait, XattrSet,
};

use super::{DIR, FILE, refused};

const NAME: &[u8] = b"security.selinux";
const VALUE: &[u8] = b"system_u:object_r:etc_t:s0";

/// An image of ext2 in which inodes of these names share their attributes: files, and by their first letter directories,
/// links and pipes.
fn shared(names: &[&str]) -> Vec<u8> {
    shared_in("ext2", names)
}

fn shared_in(kind: &str, names: &[&str]) -> Vec<u8> {
    let device = ram(&image(&["-t", kind, "-I", "128"]));
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
    assert!(fs.statfs().expect("counted").blocks_free < 3);
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

/// A dead file whose attributes others use leads the list of orphans, and the file that is truncated follows it.
#[test]
fn whoever_opens_what_a_crash_left_of_a_truncation_behind_a_dead_sharer_leaves_what_e2fsck_mends() {
    need_tools!("mke2fs", "e2fsck");
    let device = RamDevice::from_bytes(&shared(&["a", "b", "c"])).expect("memory");
    let recorder = Arc::new(Recorder::new(device));
    let fs = Ext2::open(recorder.clone(), &OpenOptions::default()).expect("opened");
    let root = fs.root().expect("root");
    let file = root.create(b"long", &FILE).expect("created");
    file.write_all_at(0, &[2; 20_000]).expect("written");
    // No room for attributes of its own.
    let hog = root.create(b"hog", &FILE).expect("created");
    while hog.write_at(hog.size(), &[1; 1024]).is_ok() {}
    let dead = at(&fs, "a");
    root.unlink(b"a").expect("removed");
    // Whoever opens it has room for the journal of a moment.
    hog.truncate(0, Wait::Yes).expect("truncated");
    fs.sync().expect("synced");
    recorder.take();
    let base = recorder.inner().to_vec();
    file.truncate(5000, Wait::Yes).expect("truncated");
    let limits = CrashLimits { exhaustive: 4, edges: 2, pairs: 1, samples: 1, ..CrashLimits::default() };
    let (log, mut again) = (recorder.snapshot(), 0);
    let mut model = PmemModel::new(&base, &log);
    model.limits = limits;
    model.run(|state: &CrashState<'_>| {
        mended(state.image, "a crash");
        let device = Arc::new(Recorder::new(RamDevice::from_bytes(state.image).expect("memory")));
        drop(Ext2::open(device.clone(), &OpenOptions::default()).expect("opened"));
        mended(&device.inner().to_vec(), "an image that was opened after a crash");
        let log = device.snapshot();
        let mut model = PmemModel::new(state.image, &log);
        model.limits = limits;
        model.run(|state: &CrashState<'_>| {
            again += 1;
            // One of some: e2fsck costs a process.
            if again % 31 == 0 {
                mended(state.image, "a crash while what another left is opened");
            }
            ControlFlow::Continue(())
        });
        ControlFlow::Continue(())
    });
    assert!(again > 100, "{again} states");
    drop(dead);
}

#[test]
fn whoever_opens_what_a_crash_left_of_the_journal_of_a_moment_goes_on_and_it_is_gone() {
    let base = Base::shared(80, 128, 2).image;
    let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(&base).expect("memory")));
    let fs = Ext2::open(recorder.clone(), &OpenOptions::default()).expect("opened");
    let other = at(&fs, "t").xattrs().expect("read");
    at(&fs, "h").xattr_set(NAME, VALUE, XattrSet::Any).expect("set");
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
            assert_eq!(at(&fs, "t").xattrs().expect("read"), other);
            (at(&fs, "h").xattrs().expect("read"), fs)
        };
        let (first, fs) = read(&OpenOptions::read_only());
        drop(fs);
        let (found, fs) = read(&OpenOptions::default());
        assert_eq!(found, first, "who only reads sees the same");
        fs.close().expect("closed");
        let image = device.to_vec();
        let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().expect("4 bytes"));
        let (compat, incompat, journal) = (word(1024 + 0x5c) & 4, word(1024 + 0x60) & 4, word(1024 + 0xe0));
        assert_eq!((compat, incompat, journal), (0, 0, 0), "something of the journal is left");
        seen.insert(found.len());
        ControlFlow::Continue(())
    });
    println!("{states} states");
    assert!(states > 100 && seen.len() == 2, "{states} states, {seen:?}");
}

/// Of the inode of a journal that was made for a moment a crash may leave any words, and of the blocks that it leads through
/// none.
#[test]
fn whatever_words_a_crash_leaves_of_the_inode_of_a_journal_it_is_taken_away() {
    need_tools!("mke2fs", "e2fsck");
    let base = image(&["-t", "ext2", "-I", "128"]);
    let fs = Ext2::open(ram(&base), &OpenOptions::read_only()).expect("opened");
    let table = fs.descriptor(GroupNr::new(0)).expect("read").bg_inode_table.get() as usize * 1024;
    let inode = table + 7 * 128;
    let mut whole = [0; 128];
    let mut put = |at: usize, word: u32| whole[at..at + 4].copy_from_slice(&word.to_le_bytes());
    put(0, 0o100_600);
    put(4, 1024 * 1024);
    put(24, 1 << 16);
    put(28, 18);
    // Blocks that nobody has, and one that leads through garbage.
    (0..14).for_each(|slot| put(40 + 4 * slot, 3000 + slot as u32));
    put(100, u32::from_le_bytes(*b"e2dx"));
    let words = |mask: u16| (0..16).filter(move |word| mask >> word & 1 == 1);
    let alone = (0..16).map(|word| 1 << word);
    for mask in alone.clone().chain(alone.map(|word: u16| !word)).chain([0xff, 0xff00, 0x5555, 0xaaaa]) {
        let mut image = base.clone();
        for word in words(mask) {
            let of = word * 8..word * 8 + 8;
            image[inode + of.start..inode + of.end].copy_from_slice(&whole[of]);
        }
        image[3012 * 1024..3014 * 1024].fill(0xd5);
        image[1024 + 58] = 0;
        let device = ram(&image);
        open(&device).close().unwrap_or_else(|error| panic!("{mask:#x}: {error}"));
        let ended = device.to_vec();
        assert_eq!(ended[inode..inode + 128], [0; 128], "{mask:#x}");
        assert!(is_clean(&ended), "{mask:#x}");
    }
}

/// Whoever opens what a crash left beside a removed file that was open ends it: the list of truncations and the count of
/// users change together, or the next one who finds the file on the list would count it once more.
#[test]
fn a_crash_while_a_removed_sharer_is_ended_leaves_the_right_count() {
    need_tools!("mke2fs", "e2fsck", "debugfs");
    // As the driver of ext4 leaves one: without a name and without links, on the list.
    let clean = shared(&["a", "b", "c"]);
    let path = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(path.path(), &clean).expect("written");
    let nr = at(&Ext2::open(ram(&clean), &OpenOptions::read_only()).expect("opened"), "a").nr();
    for request in [
        "sif a links_count 0".into(),
        "unlink a".into(),
        format!("ssv last_orphan {nr}"),
        "ssv state 0".into(),
    ] {
        let run =
            std::process::Command::new("debugfs").args(["-w", "-R", &request]).arg(path.path()).output();
        assert!(run.is_ok_and(|run| run.status.success()), "{request}");
    }
    let base = std::fs::read(path.path()).expect("read");
    assert_eq!(users(&base, "b"), 3, "the removed file is still one of them");
    let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(&base).expect("memory")));
    let fs = Ext2::open(recorder.clone(), &OpenOptions::default()).expect("opened");
    fs.shut_down();
    assert_eq!(users(&recorder.inner().to_vec(), "b"), 2);
    let log = recorder.snapshot();
    let mut model = PmemModel::new(&base, &log);
    model.limits = CrashLimits { exhaustive: 32, edges: 12, pairs: 4, samples: 4, ..CrashLimits::default() };
    let (mut states, mut counts) = (0, BTreeSet::new());
    model.run(|state: &CrashState<'_>| {
        states += 1;
        let device = ram(state.image);
        open(&device).close().expect("closed");
        let ended = device.to_vec();
        assert_eq!(users(&ended, "b"), 2, "state {states}");
        if counts.insert((users(state.image, "b"), states % 40 == 0)) {
            mended(&ended, "what was ended");
            mended(state.image, "a state of the ending");
        }
        ControlFlow::Continue(())
    });
    assert!(states > 20, "{states}");
}

/// One transaction stands at a time, and nobody else's store is undone or lost by it.
#[test]
fn many_who_let_go_at_once_beside_others_leave_the_right_count() {
    need_tools!("mke2fs", "e2fsck");
    let names: Vec<String> = (0..24).map(|nr| format!("{}{nr}", ["f", "d", "p"][nr % 3])).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (kind, log) in [("ext2", false), ("ext3", false), ("ext3", true)] {
        let base = shared_in(kind, &names);
        assert_eq!(users(&base, "f0"), 24, "{kind}");
        let device = ram(&base);
        let options = OpenOptions { log, ..OpenOptions::default() };
        let fs = Ext2::open(device.clone(), &options).expect("opened");
        std::thread::scope(|scope| {
            for (nr, mine) in names[1..23].chunks(6).enumerate() {
                let fs = &fs;
                scope.spawn(move || {
                    let root = fs.root().expect("root");
                    for name in mine {
                        at(fs, name)
                            .xattr_set(b"security.other", name.as_bytes(), XattrSet::Any)
                            .expect("set");
                        // In the same blocks of inodes, and with the superblock's list.
                        let other = root.create(format!("n{nr}{name}"), &FILE).expect("created");
                        other.write_at(0, &[7; 3000]).expect("written");
                        other.truncate(100, ext2_core::Wait::Yes).expect("cut");
                        other.sync().expect("synced");
                        match name.starts_with('d') {
                            true => root.rmdir(name).expect("removed"),
                            false => root.unlink(name).expect("removed"),
                        }
                    }
                });
            }
        });
        for name in [names[0], names[23]] {
            assert_eq!(at(&fs, name).xattr_get(NAME).expect("there"), VALUE);
        }
        fs.close().expect("closed");
        let image = device.to_vec();
        assert!(is_clean(&image), "{kind}");
        assert_eq!(users(&image, "f0"), 2, "{kind}");
        let fs = Ext2::open(ram(&image), &OpenOptions::read_only()).expect("opened");
        let made = fs.root().expect("root").entries(0).expect("listed").map(|entry| entry.expect("read"));
        let made: Vec<_> = made.filter(|entry| entry.name.as_bytes().starts_with(b"n")).collect();
        assert_eq!(made.len(), 22);
        assert!(made.iter().all(|entry| fs.inode(entry.nr).expect("there").size() == 100));
    }
}

#[test]
fn a_directory_that_shares_its_list_is_replaced_by_another_and_a_file_with_two_names_shares_until_the_last() {
    need_tools!("mke2fs", "e2fsck");
    let base = shared(&["d0", "d1", "f0", "f1"]);
    let device = ram(&base);
    let fs = open(&device);
    let root = fs.root().expect("root");
    fs.rename(&root, b"d1", &root, b"d0", ext2_core::RenameFlags::empty()).expect("renamed");
    root.link(&at(&fs, "f0"), b"f2").expect("linked");
    root.unlink("f0").expect("removed");
    fs.sync().expect("synced");
    assert_eq!(users(&device.to_vec(), "f1"), 3);
    root.unlink("f2").expect("removed");
    fs.sync().expect("synced");
    assert_eq!(users(&device.to_vec(), "f1"), 2);
    fs.rename(&root, b"d0", &at(&fs, "d0"), b"d1", ext2_core::RenameFlags::empty()).expect_err("into itself");
    drop(root);
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

/// Fences and bytes of a change.
fn cost(base: &[u8], change: impl Fn(&Ext2)) -> (u64, u64) {
    let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(base).expect("memory")));
    let fs = Ext2::open(recorder.clone(), &OpenOptions::default()).expect("opened");
    let fences = recorder.fences();
    change(&fs);
    let fences = recorder.fences() - fences;
    let log = recorder.snapshot();
    let stored = log.iter().map(|op| match op {
        blockdev::RecordedOp::Store { data, .. } => data.len(),
        _ => 0,
    });
    let stored = stored.sum();
    fs.shut_down();
    (fences, stored)
}

#[test]
fn a_change_of_shared_attributes_costs_seven_fences_more_at_most() {
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

/// A file that dies while somebody holds it leaves the block that it shares; where there is no room for one of its own it does
/// when it is let go, and the list of orphans says so until then.
#[test]
fn a_sharer_that_dies_has_attributes_of_its_own_or_is_in_the_list_of_orphans_until_it_is_let_go() {
    need_tools!("mke2fs", "e2fsck");
    for is_full in [false, true] {
        let device = ram(&shared(&["a", "b", "c"]));
        let fs = open(&device);
        let root = fs.root().expect("root");
        let hog = root.create(b"hog", &FILE).expect("created");
        while is_full && hog.write_at(hog.size(), &[1; 1024]).is_ok() {}
        let dead = at(&fs, "a");
        let (nr, geo) = (dead.nr().get(), fs.geometry());
        let table = u64::from(fs.descriptor(GroupNr::new(0)).expect("read").bg_inode_table.get()) * 1024;
        let inode = table + u64::from(nr - 1) * u64::from(geo.inode_size);
        // The list of orphans, and the time of deletion, which is the next one of the list for who is in it.
        let listed = || [1024 + 232, inode + 20].map(|at| device.read_u32(at).expect("read"));
        root.unlink(b"a").expect("removed");
        let [first, next] = listed();
        if is_full {
            assert_eq!((first, next, users(&device.to_vec(), "b")), (nr, 0, 3));
        } else {
            assert_eq!((first, users(&device.to_vec(), "b")), (0, 2));
            assert!(next > 0, "no time of deletion");
        }
        assert_eq!(dead.xattr_get(NAME).expect("an open file keeps them"), VALUE);
        drop(dead);
        let [first, time] = listed();
        assert_eq!((first, users(&device.to_vec(), "b")), (0, 2));
        assert!(time > 0, "no time of deletion");
        drop((root, hog));
        fs.close().expect("closed");
        assert!(is_clean(&device.to_vec()));
    }
}

/// One call fails when the last holder of a dead sharer lets go, and writing goes on: the next truncation would take
/// the place of an inode at the head of the list that memory does not know there.
#[test]
fn a_dead_sharer_that_a_failing_device_does_not_end_is_left_to_e2fsck() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-I", "128", "-N", "64", "-m", "0"], "256k");
    let options =
        OpenOptions { share_xattrs: true, errors: Some(OnError::Continue), ..OpenOptions::default() };
    for calls in [Calls::READ, Calls::WRITE, Calls::FENCE] {
        let mut nth = 0;
        loop {
            let device = Arc::new(Faulty::new(RamDevice::from_bytes(&base).expect("memory")));
            let fs = Ext2::open(device.clone(), &options).expect("opened");
            let [a, b, c] = ["a", "b", "c"].map(|name| create(&fs, name));
            [&a, &b].iter().for_each(|file| file.xattr_set(NAME, VALUE, XattrSet::Any).expect("set"));
            c.write_at(0, &[1; 8192]).expect("written");
            // No room for attributes of its own.
            let fill = create(&fs, "fill");
            while fill.append(&[9; 1024]).is_ok() {}
            fs.root().expect("root").unlink("a").expect("removed");
            let head = device.inner().read_u32(1024 + 0xe8).expect("read");
            assert_eq!(head, a.nr().get(), "it is in the list");
            device.arm(Fault::once(calls, nth));
            drop(a);
            let is_done = device.fired() == 0;
            device.disarm();
            let cut = c.truncate(100, Wait::Yes);
            assert!(cut.is_ok() || fs.is_read_only(), "{calls:?} {nth}: {cut:?}");
            drop((b, c, fill));
            drop(fs.close());
            mended(&device.inner().to_vec(), &format!("{calls:?} {nth}"));
            if is_done {
                break;
            }
            nth += 1;
        }
        assert!(nth > 0, "{calls:?}");
        println!("{nth} of {calls:?}");
    }
}
