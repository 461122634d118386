//! Who waits for a lock: for whom, for how long, and that the names are looked up again when it is had.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::{
    need_tools,
    small::{image, is_clean, open, ram},
};
use ext2_core::plumbing::Plumbing;
use ext2_core::{Errno, Ext2, Follow, Inode, OpenOptions, RenameFlags};

use super::{DIR, FILE, links_offset};

#[test]
fn a_rename_within_a_directory_waits_for_none_between_directories() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let [a, b, c] = [b"a", b"b", b"c"].map(|name| root.create(name, &DIR).expect("created"));
    a.create(b"f", &FILE).expect("created");
    c.create(b"f", &FILE).expect("created");
    let (done, answer) = channel();
    thread::scope(|scope| {
        let held = a.io_lock().write();
        scope.spawn(|| fs.rename(&a, b"f", &b, b"f", RenameFlags::empty()).expect("renamed"));
        // So that it is at the lock.
        thread::sleep(Duration::from_millis(100));
        scope.spawn(|| done.send(fs.rename(&c, b"f", &c, b"g", RenameFlags::empty())));
        let waited = answer.recv_timeout(Duration::from_secs(5));
        drop(held);
        waited.expect("it waits").expect("renamed");
    });
}

/// Runs `changes` while a rename waits for the lock of `first`, having looked its names up.
fn while_it_waits(first: &Inode, rename: impl FnOnce() + Send, changes: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let held = first.io_lock().read();
        scope.spawn(rename);
        thread::sleep(Duration::from_millis(150));
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
            let (done, answer) = channel();
            let file = file.clone();
            thread::spawn(move || {
                drop(file.io_lock().write());
                done.send(())
            });
            answer.recv_timeout(Duration::from_secs(5)).expect("the file is held");
        },
    );
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
    thread::scope(|scope| {
        while_it_waits(
            &other,
            || fs.rename(&parent, b"one", &parent, b"other", RenameFlags::EXCHANGE).expect("exchanged"),
            || {
                while one.io_lock().try_read().is_some() {
                    thread::yield_now();
                }
                scope.spawn(|| parent.rmdir("one").expect("removed"));
                // So that it has looked the name up.
                thread::sleep(Duration::from_millis(150));
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
    at: AtomicU64,
    came: Barrier,
    go: Barrier,
}

impl BlockDevice for Held {
    e2dax_tests::forward!(inner: size, write_at, zero, fence, flush);

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> blockdev::Result<()> {
        let at = self.at.load(Ordering::Relaxed);
        if (offset..offset + buf.len() as u64).contains(&at) {
            self.at.store(u64::MAX, Ordering::Relaxed);
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
    held.at.store(at, Ordering::Relaxed);
    (held, fs)
}

#[test]
fn a_lookup_holds_the_directory_until_it_has_the_inode() {
    need_tools!("mke2fs");
    let (held, fs) = held_up();
    let dir = fs.resolve("dir", Follow::No).expect("there");
    let (done, answer) = channel();
    thread::scope(|scope| {
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
    let (done, answer) = channel();
    thread::scope(|scope| {
        scope.spawn(|| fs.rename(&dir, b"f", &other, b"f", RenameFlags::empty()).expect("renamed"));
        held.came.wait();
        for (dir, name) in [(&root, "lost+found"), (&root, "one"), (&other, "lost+found"), (&other, "one")] {
            let done = done.clone();
            scope.spawn(move || {
                dir.create(name, &DIR).expect("created");
                done.send((dir.nr(), name))
            });
        }
        let mut first = BTreeSet::new();
        let wait = |found: usize| Duration::from_millis(if found < 3 { 5000 } else { 150 });
        while let Ok(done) = answer.recv_timeout(wait(first.len())) {
            first.insert(done);
        }
        held.go.wait();
        assert_eq!(first, [(root.nr(), "one"), (other.nr(), "lost+found"), (other.nr(), "one")].into());
    });
    assert!(root.lookup("lost+found").is_ok());
}
