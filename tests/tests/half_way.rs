//! Changes of names that somebody or something gets in the way of: another thread, a device that fails, an image whose
//! counts a crash left wrong. No name may ever stand for an inode that is given away again.

use std::{
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice};
use e2dax_tests::{
    golden, need_tools,
    small::{image, is_clean, mended, open, open_faulty, ram},
    tools,
};
use ext2_core::plumbing::{Allocate, Plumbing};
use ext2_core::{
    Errno, Error, Ext2, FileBlock, FileKind, Follow, GroupNr, Inode, InodeFlags, NewInode, OpenOptions,
    RenameFlags, SetAttr, Timestamp, Wait,
};
use ext2_image::mkfs;

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
        let linked = std::thread::scope(|scope| {
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

/// A change that a device gets in the way of.
type Change = fn(&Ext2) -> Result<(), Error>;

const CHANGES: [(&str, Change); 8] = [
    ("create", |fs| fs.root()?.create(b"new", &FILE).map(drop)),
    ("mkdir", |fs| fs.root()?.create(b"new", &DIR).map(drop)),
    ("unlink", |fs| fs.root()?.unlink(b"file")),
    ("unlink of one of two", |fs| fs.root()?.unlink(b"twin")),
    ("rmdir", |fs| fs.root()?.rmdir(b"empty")),
    ("link", |fs| {
        let root = fs.root()?;
        root.link(&root.lookup(b"file")?, b"new")
    }),
    ("rename", |fs| {
        let root = fs.root()?;
        fs.rename(&root, b"file", &root.lookup(b"dir")?, b"new", RenameFlags::empty())
    }),
    ("rename over", |fs| {
        let root = fs.root()?;
        fs.rename(&root, b"file", &root, b"other", RenameFlags::empty())
    }),
];

#[test]
fn whatever_store_fails_no_name_stands_for_another_file() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    root.create(b"file", &FILE).expect("created").write_at(0, b"file").expect("written");
    root.create(b"other", &FILE).expect("created").write_at(0, b"other").expect("written");
    let twin = root.create(b"twin", &FILE).expect("created");
    twin.write_at(0, b"twin").expect("written");
    root.link(&twin, b"twin too").expect("linked");
    root.create(b"empty", &DIR).expect("created");
    root.create(b"dir", &DIR).expect("created");
    drop((root, twin));
    fs.close().expect("closed");
    let base = device.to_vec();
    for (what, change) in CHANGES {
        for after in 0.. {
            let (faulty, fs) = open_faulty(&base);
            faulty.arm(Fault::once(Calls::WRITE | Calls::FENCE, after));
            let done = change(&fs);
            let struck = faulty.fired() > 0;
            faulty.disarm();
            // Whoever comes next must not get what a name still stands for.
            let root = fs.root().expect("root");
            for nr in 0..4 {
                if let Ok(inode) = root.create(format!("next {nr}").as_bytes(), &FILE) {
                    let _ = inode.write_at(0, b"next");
                }
            }
            for name in [&b"file"[..], b"other", b"twin", b"twin too", b"dir/new"] {
                let Ok(inode) = fs.resolve(name, Follow::No) else { continue };
                let mut bytes = [0; 8];
                let read = inode.read_at(0, &mut bytes).expect("read");
                assert!(
                    !bytes[..read].starts_with(b"next"),
                    "{what}, store {after}: {name:?} is another file"
                );
            }
            drop(root);
            drop(fs);
            mended(&faulty.inner().to_vec(), &format!("{what} with store {after} failing ({done:?})"));
            if !struck {
                break;
            }
        }
    }
}

#[test]
fn a_file_cut_from_over_4_gib_to_less_is_never_shorter_than_it_will_be() {
    need_tools!("mke2fs");
    let device = ram(&image(&["-t", "ext2", "-O", "large_file"]));
    let fs = open(&device);
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    file.truncate((4 << 30) + 10, Wait::Yes).expect("grown");
    drop(file);
    fs.close().expect("closed");
    let base = device.to_vec();
    for after in 0.. {
        let (faulty, fs) = open_faulty(&base);
        let file = fs.resolve(b"f", Follow::No).expect("there");
        faulty.arm(Fault::from_then_on(Calls::WRITE | Calls::FENCE, after));
        let _ = file.truncate(2 << 30, Wait::Yes);
        let struck = faulty.fired() > 0;
        let left = ram(&faulty.inner().to_vec());
        let seen = Ext2::open(left, &OpenOptions::read_only()).expect("open");
        let size = seen.resolve(b"f", Follow::No).expect("there").size();
        assert!(size >= 2 << 30, "{size} bytes are left when store {after} is the last");
        if !struck {
            break;
        }
    }
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
fn an_error_before_anything_was_stored_does_not_end_all_writing() {
    need_tools!("mke2fs");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    root.create(b"file", &FILE).expect("created").write_at(0, b"file").expect("written");
    root.create(b"other", &FILE).expect("created").write_at(0, b"other").expect("written");
    root.link(&root.create(b"twin", &FILE).expect("created"), b"twin too").expect("linked");
    root.create(b"empty", &DIR).expect("created");
    root.create(b"dir", &DIR).expect("created");
    drop(root);
    fs.close().expect("closed");
    let base = device.to_vec();
    for (what, change) in CHANGES {
        for after in 0.. {
            let (faulty, fs) = open_faulty(&base);
            let before = faulty.inner().to_vec();
            faulty.arm(Fault::once(Calls::READ, after));
            let done = change(&fs);
            let struck = faulty.fired() > 0;
            faulty.disarm();
            // The mark of an error (at byte 58 of the superblock) is no part of the change.
            let mut left = faulty.inner().to_vec();
            left[1024 + 58] = before[1024 + 58];
            if done.is_err() && left == before {
                assert!(!fs.is_read_only(), "{what}: reading failed before the first store, {after}");
                change(&fs).unwrap_or_else(|error| panic!("{what}, again after read {after}: {error}"));
            }
            if !struck {
                break;
            }
        }
    }
}

#[test]
fn a_block_of_a_directory_that_cannot_be_read_fails_what_needs_it_and_nothing_else() {
    need_tools!("mke2fs");
    let device = ram(&image(&["-t", "ext2", "-b", "4096", "-N", "128"]));
    let fs = open(&device);
    let dir = fs.root().expect("root").create(b"d", &DIR).expect("created");
    // Six blocks, of which the last has the most room.
    let name = |nr: u32| format!("{nr:0>250}");
    let mut nr = 0;
    while dir.size() < 6 * 4096 {
        dir.create(name(nr).as_bytes(), &FIFO).expect("created");
        nr += 1;
    }
    drop(dir);
    fs.close().expect("closed");
    let faulty = Arc::new(Faulty::new(RamDevice::from_bytes(&device.to_vec()).expect("memory")));
    let fs = Ext2::open(faulty.clone(), &OpenOptions::default()).expect("open");
    let dir = fs.resolve(b"d", Follow::No).expect("there");
    // Its index is built now.
    dir.lookup_nr(b"none").expect_err("not there");
    let last = dir.map(FileBlock::new(5), 1).expect("mapped").target.expect("a block");
    faulty.poison(u64::from(last.get())).expect("poisoned");
    for (what, done) in [
        ("create", dir.create(name(nr).as_bytes(), &FILE).map(drop)),
        ("mkdir", dir.create(name(nr).as_bytes(), &DIR).map(drop)),
        ("unlink", dir.unlink(name(nr - 1).as_bytes())),
        ("rename", fs.rename(&dir, name(0).as_bytes(), &dir, name(nr).as_bytes(), RenameFlags::empty())),
    ] {
        assert!(matches!(done, Err(Error::Device(_))), "{what}: {done:?}");
        assert!(!fs.is_read_only(), "{what} ended all writing");
    }
    fs.root().expect("root").create(b"new", &FILE).expect("created");
    dir.unlink(name(1).as_bytes()).expect("unlinked");
    dir.create(b"in the place of 1", &FILE).expect("created");
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
    std::thread::scope(|scope| {
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

#[test]
fn a_rename_within_a_directory_waits_for_none_between_directories() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let [a, b, c] = [b"a", b"b", b"c"].map(|name| root.create(name, &DIR).expect("created"));
    a.create(b"f", &FILE).expect("created");
    c.create(b"f", &FILE).expect("created");
    let (done, answer) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let held = a.io_lock().write();
        scope.spawn(|| fs.rename(&a, b"f", &b, b"f", RenameFlags::empty()).expect("renamed"));
        // So that it is at the lock.
        std::thread::sleep(Duration::from_millis(100));
        scope.spawn(|| done.send(fs.rename(&c, b"f", &c, b"g", RenameFlags::empty())));
        let waited = answer.recv_timeout(Duration::from_secs(5));
        drop(held);
        waited.expect("it waits").expect("renamed");
    });
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
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
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
            (0..3).for_each(|_| std::thread::yield_now());
            lost += u32::from(root.rmdir("lost+found").is_err());
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(lost, 0, "directories are gone");
    });
    drop((root, dir));
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

/// On which a thread faults on the first page of a file while somebody else stores contents; then that fails the next time.
#[derive(Debug)]
struct Faults {
    inner: RamDevice,
    file: Mutex<Option<Inode>>,
    fails: AtomicBool,
}

impl BlockDevice for Faults {
    e2dax_tests::forward!(inner: size, read_at, write_at, zero, fence, flush);

    fn write_contents(&self, offset: u64, buf: &[u8]) -> blockdev::Result<()> {
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(blockdev::Error::NoSpace { offset });
        }
        let file = self.file.lock().expect("not poisoned").take();
        if let Some(file) = file {
            file.map_for_write(FileBlock::new(0), 1, Allocate::Fault).expect("mapped");
            self.fails.store(true, Ordering::SeqCst);
        }
        self.inner.write_at(offset, buf)
    }
}

#[test]
fn a_write_that_meets_a_fault_and_cannot_be_copied_to_its_block_is_an_error() {
    let inner = mkfs::in_memory(4 << 20).expect("made");
    let device = Arc::new(Faults { inner, file: Mutex::default(), fails: AtomicBool::new(false) });
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    file.truncate(4096, Wait::Yes).expect("grown");
    *device.file.lock().expect("not poisoned") = Some(file.clone());
    let written = file.write_at(0, b"bytes");
    assert!(device.file.lock().expect("not poisoned").is_none() && !device.fails.load(Ordering::SeqCst));
    assert!(written.is_err(), "{written:?}");
    assert_eq!(file.write_at(0, b"bytes").expect("written"), 5);
    let mut there = [0; 5];
    file.read_exact_at(0, &mut there).expect("read");
    assert_eq!(&there, b"bytes");
}

/// Runs `changes` while a rename waits for the lock of `first`, having looked its names up.
fn while_it_waits(first: &Inode, rename: impl FnOnce() + Send, changes: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let held = first.io_lock().read();
        scope.spawn(rename);
        std::thread::sleep(Duration::from_millis(150));
        scope.spawn(changes).join().expect("no panic");
        drop(held);
    });
}

#[test]
fn a_rename_looks_again_at_names_that_changed_while_it_waited() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let [low, high] = ["low", "high"].map(|name| root.create(name, &DIR).expect("created"));
    assert!(low.nr() < high.nr());
    let rename = |from: &Inode, to: &Inode| {
        fs.rename(from, b"f", to, b"g", RenameFlags::empty()).expect("renamed");
    };
    // The old name is another file's by then.
    high.create("f", &FILE).expect("created").write_at(0, b"old").expect("written");
    while_it_waits(
        &low,
        || rename(&high, &low),
        || {
            high.unlink("f").expect("unlinked");
            high.create("f", &FILE).expect("created").write_at(0, b"new").expect("written");
        },
    );
    assert!(high.lookup("f").is_err());
    assert_eq!(
        (fs.read("low/g").expect("read"), low.lookup("g").expect("there").attr().links),
        (b"new".to_vec(), 1)
    );
    // The new name is there by then.
    low.create("f", &FILE).expect("created").write_at(0, b"moved").expect("written");
    let mut over = None;
    while_it_waits(&low, || rename(&low, &high), || over = Some(high.create("g", &FILE).expect("created")));
    assert_eq!(
        (over.map(|over| over.attr().links), fs.read("high/g").expect("read")),
        (Some(0), b"moved".to_vec())
    );
    assert!(low.lookup("f").is_err());
    assert_eq!(high.entries(0).expect("listed").count(), 3);
    drop((root, low, high));
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

#[test]
fn a_rename_that_waits_for_a_directory_holds_no_file() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let file = root.create("f", &FILE).expect("created");
    let dir = root.create("d", &DIR).expect("created");
    assert!(file.nr() < dir.nr());
    dir.link(&file, "f").expect("linked");
    while_it_waits(
        &dir,
        || fs.rename(&dir, b"f", &dir, b"g", RenameFlags::empty()).expect("renamed"),
        || {
            let (done, answer) = std::sync::mpsc::channel();
            let file = file.clone();
            std::thread::spawn(move || {
                drop(file.io_lock().write());
                done.send(())
            });
            answer.recv_timeout(Duration::from_secs(5)).expect("the file is held");
        },
    );
}

#[test]
fn a_device_that_is_gone_while_a_directory_moves_in_a_transaction_leaves_it_in_one_place() {
    need_tools!("mke2fs", "e2fsck");
    const INCOMPAT: usize = 1024 + 96;
    let device = ram(&image(&["-t", "ext3", "-J", "size=1"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let (a, b) = (root.create("a", &DIR).expect("created"), root.create("b", &DIR).expect("created"));
    a.create("d", &DIR).expect("created").create("inside", &FILE).expect("created");
    b.create("empty", &DIR).expect("created");
    b.create("file", &FILE).expect("created");
    drop((root, a, b));
    fs.close().expect("closed");
    let base = device.to_vec();
    for (name, flags) in [
        ("new", RenameFlags::empty()),
        ("empty", RenameFlags::empty()),
        ("empty", RenameFlags::EXCHANGE),
        ("file", RenameFlags::EXCHANGE),
    ] {
        let mut replayed = 0;
        for after in 0.. {
            let (faulty, fs) = open_faulty(&base);
            let at = |path: &str| fs.resolve(path, Follow::No).expect("there");
            let (a, b) = (at("a"), at("b"));
            faulty.arm(Fault::from_then_on(Calls::WRITE | Calls::FENCE, after));
            let done = fs.rename(&a, b"d", &b, name.as_bytes(), flags);
            let struck = faulty.fired() > 0;
            drop((a, b, fs));
            let left = faulty.inner().to_vec();
            if !struck {
                done.expect("renamed");
                break;
            }
            // Where there is something to replay.
            if left[INCOMPAT] & 4 == 0 {
                continue;
            }
            replayed += 1;
            // One of four, since e2fsck takes its time.
            if replayed % 4 != 1 {
                continue;
            }
            let what = format!("{name}, {flags:?}, store {after}");
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("image");
            golden::write_sparse(&path, &left).expect("written");
            tools::e2fsck_p(&path).unwrap_or_else(|said| panic!("{what} needs a human: {said}"));
            let fs = open(&ram(&std::fs::read(&path).expect("read")));
            let is_dir = |path: &str| match fs.resolve(path, Follow::No) {
                Ok(inode) => (inode.kind() == FileKind::Directory).to_string(),
                Err(_) => "none".to_owned(),
            };
            let inside =
                ["a/d/inside", &format!("b/{name}/inside")].map(|path| fs.resolve(path, Follow::No).is_ok());
            assert!(inside[0] != inside[1], "{what}: {inside:?}");
            // What it replaced or changed places with is where it was, or gone, or there.
            let (old, new) = (is_dir("a/d"), is_dir(&format!("b/{name}")));
            let expected = match (inside[0], name, flags == RenameFlags::EXCHANGE) {
                (true, "new", _) => ["true", "none"],
                (true, "file", _) => ["true", "false"],
                (true, ..) => ["true", "true"],
                (false, _, false) => ["none", "true"],
                (false, "file", _) => ["false", "true"],
                (false, ..) => ["true", "true"],
            };
            assert_eq!([&old[..], &new[..]], expected, "{what}");
        }
        assert!(replayed > 8, "{name}: {replayed}");
    }
}

/// Somebody renames a directory between the moment at which a removal looks its name up and the one at which it has the locks.
#[test]
fn a_removal_of_a_directory_looks_again_at_a_name_that_changed_while_it_waited() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let [one, other, parent] =
        ["one", "other", "parent"].map(|name| root.create(name, &DIR).expect("created"));
    for name in ["one", "other"] {
        fs.rename(&root, name.as_bytes(), &parent, name.as_bytes(), RenameFlags::empty()).expect("renamed");
    }
    // The locks are taken in this order.
    assert!(one.nr() < other.nr() && other.nr() < parent.nr());
    std::thread::scope(|scope| {
        while_it_waits(
            &other,
            || fs.rename(&parent, b"one", &parent, b"other", RenameFlags::EXCHANGE).expect("exchanged"),
            || {
                while one.io_lock().try_read().is_some() {
                    std::thread::yield_now();
                }
                scope.spawn(|| parent.rmdir("one").expect("removed"));
                // So that it has looked the name up.
                std::thread::sleep(Duration::from_millis(150));
            },
        );
    });
    assert!(parent.lookup("one").expect_err("removed").is(Errno::NOENT));
    assert_eq!(parent.lookup("other").expect("there"), one);
    assert_eq!([&one, &other, &parent].map(|dir| dir.attr().links), [2, 0, 3]);
    drop((root, one, other, parent));
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

/// A device that holds up one read of a place, and tells that it came.
#[derive(Debug)]
struct Held {
    inner: RamDevice,
    /// The place, while it is held up.
    at: std::sync::atomic::AtomicU64,
    came: Barrier,
    go: Barrier,
}

impl BlockDevice for Held {
    e2dax_tests::forward!(inner: size, write_at, zero, fence, flush);

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> blockdev::Result<()> {
        let at = self.at.load(std::sync::atomic::Ordering::Relaxed);
        if (offset..offset + buf.len() as u64).contains(&at) {
            self.at.store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
            self.came.wait();
            self.go.wait();
        }
        self.inner.read_at(offset, buf)
    }
}

/// A file system of a device that holds up the read of an inode, `dir/f`, with a directory `dir` and another, `other`.
fn held_up() -> (Arc<Held>, Ext2) {
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let dir = root.create("dir", &DIR).expect("created");
    root.create("other", &DIR).expect("created");
    let nr = dir.create("f", &FILE).expect("created").nr();
    let at = links_offset(&fs, nr.get()) as u64;
    root.rmdir("lost+found").expect("empty");
    drop((root, dir));
    fs.close().expect("closed");
    let held = Arc::new(Held {
        inner: RamDevice::from_bytes(&device.to_vec()).expect("memory"),
        at: u64::MAX.into(),
        came: Barrier::new(2),
        go: Barrier::new(2),
    });
    let fs = Ext2::open(held.clone(), &OpenOptions::default()).expect("open");
    held.at.store(at, std::sync::atomic::Ordering::Relaxed);
    (held, fs)
}

#[test]
fn a_lookup_holds_the_directory_until_it_has_the_inode() {
    need_tools!("mke2fs");
    let (held, fs) = held_up();
    let dir = fs.resolve("dir", Follow::No).expect("there");
    let (done, answer) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| dir.lookup("f").expect("there"));
        held.came.wait();
        scope.spawn(|| {
            dir.create("g", &FILE).expect("created");
            done.send(())
        });
        let early = answer.recv_timeout(Duration::from_millis(150));
        held.go.wait();
        early.expect_err("the directory changed while a name was looked up");
        answer.recv_timeout(Duration::from_secs(5)).expect("created");
    });
}

#[test]
fn only_who_makes_lost_and_found_in_the_root_waits_for_renames_between_directories() {
    need_tools!("mke2fs");
    let (held, fs) = held_up();
    let root = fs.root().expect("root");
    let [dir, other] = ["dir", "other"].map(|name| root.lookup(name).expect("there"));
    let (done, answer) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| fs.rename(&dir, b"f", &other, b"f", RenameFlags::empty()).expect("renamed"));
        held.came.wait();
        for (dir, name) in [(&root, "lost+found"), (&root, "one"), (&other, "lost+found"), (&other, "one")] {
            let done = done.clone();
            scope.spawn(move || {
                dir.create(name, &DIR).expect("created");
                done.send((dir.nr(), name))
            });
        }
        let mut first = std::collections::BTreeSet::new();
        let wait = |found: usize| Duration::from_millis(if found < 3 { 5000 } else { 150 });
        while let Ok(done) = answer.recv_timeout(wait(first.len())) {
            first.insert(done);
        }
        held.go.wait();
        assert_eq!(first, [(root.nr(), "one"), (other.nr(), "lost+found"), (other.nr(), "one")].into());
    });
    assert!(root.lookup("lost+found").is_ok());
}
