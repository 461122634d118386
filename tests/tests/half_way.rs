//! Changes of names that somebody or something gets in the way of: another thread, a device that fails, an image whose
//! counts a crash left wrong. No name may ever stand for an inode that is given away again.

#[path = "half_way/failing.rs"]
mod failing;
#[path = "half_way/fault.rs"]
mod fault;
#[path = "half_way/lock.rs"]
mod lock;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use blockdev::BlockDevice;
use e2dax_tests::{
    golden, need_tools,
    small::{image, is_clean, mended, open, ram},
    tools,
};
use ext2_core::{
    Errno, Error, Ext2, FileKind, Follow, GroupNr, InodeFlags, NewInode, OpenOptions, RenameFlags, SetAttr,
    Timestamp,
};

const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);
const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);
const FIFO: NewInode = NewInode::new(FileKind::Fifo, 0o644);

/// Where the count of links of an inode in the first group lies.
fn links_offset(fs: &Ext2, nr: u32) -> usize {
    let table = fs.descriptor(GroupNr::new(0)).expect("descriptor").bg_inode_table.get();
    let size = usize::from(fs.geometry().inode_size);
    table as usize * fs.geometry().block_size.len() + (nr as usize - 1) * size + 26
}

#[test]
fn a_link_made_while_the_last_name_goes_is_refused_or_keeps_the_file() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let (a, b) = (root.create(b"a", &DIR).expect("created"), root.create(b"b", &DIR).expect("created"));
    for round in 0..3000_u32 {
        let file = a.create(b"f", &FILE).expect("created");
        file.write_at(0, &round.to_le_bytes()).expect("written");
        let start = Barrier::new(2);
        let linked = thread::scope(|scope| {
            let link = scope.spawn(|| {
                start.wait();
                b.link(&file, b"g")
            });
            start.wait();
            a.unlink(b"f").expect("unlinked");
            link.join().expect("no panic")
        });
        match linked {
            Ok(()) => {
                assert_eq!(file.attr().links, 1);
                drop(file);
                let mut bytes = [0; 4];
                b.lookup(b"g").expect("alive").read_at(0, &mut bytes).expect("read");
                assert_eq!(u32::from_le_bytes(bytes), round);
                b.unlink(b"g").expect("unlinked");
            }
            Err(error) => assert!(error.is(Errno::NOENT), "{error}"),
        }
    }
    drop((root, a, b));
    fs.close().expect("closed");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    golden::write_sparse(&path, &device.to_vec()).expect("written");
    tools::e2fsck_fn(&path).expect("clean");
}

#[test]
fn a_directory_that_gets_another_parent_keeps_its_time_of_modification() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let (a, b) = (root.create(b"a", &DIR).expect("created"), root.create(b"b", &DIR).expect("created"));
    let moved = a.create(b"moved", &DIR).expect("created");
    let then = Timestamp { sec: 1000, nsec: 0 };
    moved.set_attr(&SetAttr { mtime: Some(then), ctime: Some(then), ..SetAttr::default() }).expect("set");
    fs.rename(&a, b"moved", &b, b"moved", RenameFlags::empty()).expect("renamed");
    assert_eq!(moved.attr().mtime, then);
    assert!(moved.attr().ctime > then);
}

#[test]
fn an_immutable_directory_keeps_its_names() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let dir = root.create(b"dir", &DIR).expect("created");
    dir.create(b"file", &FILE).expect("created");
    dir.create(b"sub", &DIR).expect("created");
    dir.set_flags(InodeFlags::IMMUTABLE).expect("set");
    let refused = |done: Result<(), Error>| assert!(done.expect_err("immutable").is(Errno::PERM));
    refused(dir.unlink(b"file"));
    refused(dir.rmdir(b"sub"));
    refused(fs.rename(&dir, b"file", &root, b"file", RenameFlags::empty()));
    assert!(dir.create(b"file", &FILE).expect_err("there").is(Errno::EXIST));
    assert!(dir.create(b"new", &FILE).expect_err("immutable").is(Errno::PERM));
}

#[test]
fn a_directory_is_not_killed_by_a_rename_over_it_that_is_refused() {
    need_tools!("mke2fs");
    let device = ram(&image(&["-t", "ext3", "-J", "size=1"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let (a, b) = (root.create(b"a", &DIR).expect("created"), root.create(b"b", &DIR).expect("created"));
    a.create(b"d", &DIR).expect("created");
    b.create(b"d", &DIR).expect("created");
    drop((root, a, b));
    fs.close().expect("closed");
    let mut bytes = device.to_vec();
    // A journal of three blocks, which no transaction fits in.
    let mark = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4];
    let journal =
        (0..bytes.len()).step_by(1024).find(|&at| bytes[at..].starts_with(&mark)).expect("a journal");
    bytes[journal + 16..journal + 20].copy_from_slice(&3_u32.to_be_bytes());
    let shared: Arc<dyn BlockDevice> = ram(&bytes);
    let options = OpenOptions { strict_rename: true, ..OpenOptions::default() };
    let fs = Ext2::open(shared, &options).expect("open");
    let at = |path: &[u8]| fs.resolve(path, Follow::No).expect("there");
    let done = fs.rename(&at(b"a"), b"d", &at(b"b"), b"d", RenameFlags::empty());
    assert!(done.expect_err("no safe way").is(Errno::XDEV));
    assert_eq!(at(b"b/d").attr().links, 2);
    at(b"b/d").create(b"alive", &FILE).expect("created");
}

#[test]
fn counts_of_links_that_a_crash_left_too_low_do_not_cost_a_file() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let file = root.create(b"f", &FILE).expect("created");
    file.write_at(0, b"kept").expect("written");
    root.link(&file, b"g").expect("linked");
    fs.sync().expect("synced");
    // As if power failed now, with one link less on the media.
    let mut bytes = device.to_vec();
    bytes[links_offset(&fs, file.nr().get())] = 1;
    let device = ram(&bytes);
    let fs = open(&device);
    let root = fs.root().expect("root");
    root.unlink(b"f").expect("unlinked");
    root.create(b"next", &FILE).expect("created").write_at(0, b"next").expect("written");
    let mut read = [0; 4];
    root.lookup(b"g").expect("alive").read_at(0, &mut read).expect("read");
    assert_eq!(&read, b"kept");
    drop(root);
    drop(fs);
    mended(&device.to_vec(), "a file with one of two names");
}

#[test]
fn an_image_is_not_marked_clean_while_a_file_without_a_name_is_held() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    file.write_at(0, &[1; 5000]).expect("written");
    fs.root().expect("root").unlink(b"f").expect("unlinked");
    fs.clone().close().expect("closed");
    drop((file, fs));
    assert_eq!(device.to_vec()[1024 + 58] & 1, 0, "marked as clean");
    mended(&device.to_vec(), "a file that was open without a name");
}

#[test]
fn a_file_gets_a_first_name_but_none_after_its_last() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let file = root.tmpfile(&FILE).expect("made");
    root.link(&file, b"f").expect("linked");
    root.unlink(b"f").expect("unlinked");
    assert!(root.link(&file, b"f").expect_err("gone").is(Errno::NOENT));
}

#[test]
fn a_rename_over_a_file_leaves_the_times_of_lost_and_found() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let lost = root.lookup(b"lost+found").expect("there");
    let then = Timestamp { sec: 1000, nsec: 0 };
    lost.set_attr(&SetAttr { mtime: Some(then), ctime: Some(then), ..SetAttr::default() }).expect("set");
    for (name, flags) in [(b"a", RenameFlags::empty()), (b"a", RenameFlags::EXCHANGE)] {
        root.create(name, &FILE).expect("created");
        if root.lookup(b"b").is_err() {
            root.create(b"b", &FILE).expect("created");
        }
        fs.rename(&root, name, &root, b"b", flags).expect("renamed");
        assert_eq!((lost.attr().mtime, lost.attr().ctime), (then, then));
    }
}

#[test]
fn lost_and_found_may_go_while_files_are_replaced() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let dir = root.create(b"d", &DIR).expect("created");
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..1000 {
                // Refused while the name of a file that is being replaced is in it.
                match root.rmdir(b"lost+found") {
                    Ok(()) => drop(root.create(b"lost+found", &DIR).expect("created")),
                    Err(error) => assert!(error.is(Errno::NOTEMPTY), "{error}"),
                }
            }
        });
        for _ in 0..1000 {
            dir.create(b"a", &FILE).expect("created");
            match dir.lookup_nr(b"b") {
                Ok(_) => {}
                Err(error) if error.is(Errno::NOENT) => drop(dir.create(b"b", &FILE).expect("created")),
                Err(error) => panic!("{error}"),
            }
            fs.rename(&dir, b"a", &dir, b"b", RenameFlags::empty()).expect("renamed");
        }
    });
    drop((root, dir));
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

/// A rename makes a `lost+found` for a moment. Whoever gives that name to a directory of their own meanwhile keeps it.
#[test]
fn a_directory_that_takes_the_place_of_a_shelter_stays() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    root.rmdir("lost+found").expect("empty");
    let dir = root.create("dir", &DIR).expect("created");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for name in ["new", "old"] {
                    drop(dir.create(name, &FILE));
                }
                fs.rename(&dir, b"new", &dir, b"old", RenameFlags::empty()).expect("renamed");
            }
        });
        let mut lost = 0;
        for _ in 0..600 {
            root.create("own", &DIR).expect("created");
            fs.rename(&root, b"own", &root, b"lost+found", RenameFlags::empty()).expect("renamed");
            (0..3).for_each(|_| thread::yield_now());
            lost += u32::from(root.rmdir("lost+found").is_err());
        }
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(lost, 0, "directories are gone");
    });
    drop((root, dir));
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}
