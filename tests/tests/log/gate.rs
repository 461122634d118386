//! A change that must be whole, on media that are slow: what others do meanwhile does not take the room that it needs in the
//! log, nor a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use blockdev::{BlockDevice, RamDevice, Result};
use e2dax_tests::{
    need_tools,
    small::{batched, file, image_of, logged, open_as},
};
use ext2_core::{Ext2, FileKind, Inode, NewInode, OpenOptions, RenameFlags, SetAttr, Wait};

/// A device on which the last read of a thread waits.
#[derive(Debug)]
struct Gated {
    inner: RamDevice,
    /// Whose reads count, and how many there are before the one that waits.
    who: Mutex<Option<(ThreadId, u64)>>,
    reads: AtomicU64,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gated {
    fn new(base: &[u8]) -> Self {
        let (reads, is_open) = (AtomicU64::new(0), Mutex::new(false));
        let inner = RamDevice::from_bytes(base).unwrap();
        Self { inner, who: Mutex::new(None), reads, is_open, opened: Condvar::new() }
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl BlockDevice for Gated {
    e2dax_tests::forward!(inner: size, write_at, zero, fence, flush);

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let last =
            self.who.lock().unwrap().filter(|(who, _)| *who == thread::current().id()).map(|(_, last)| last);
        if last.is_some_and(|last| self.reads.fetch_add(1, Ordering::SeqCst) + 1 == last) {
            drop(self.opened.wait_while(self.is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
        }
        self.inner.read_at(offset, buf)
    }
}

/// Replaces one file by another in a thread whose last read waits, if it is not 0; gives how many reads there were.
fn replace(base: &[u8], options: &OpenOptions, last: u64) -> u64 {
    let device = Arc::new(Gated::new(base));
    let fs = open_as(device.clone(), options);
    let root = fs.root().unwrap();
    let folder = NewInode::new(FileKind::Directory, 0o755);
    let (a, b) = (root.create(b"a", &folder).unwrap(), root.create(b"b", &folder).unwrap());
    file(&a, "new", b"new");
    file(&b, "old", b"old");
    let sparse = file(&root, "sparse", b"");
    fs.sync().unwrap();
    let (done, ended) = channel();
    let ending = done.clone();
    let (gate, whole) = (device.clone(), fs.clone());
    let renaming = thread::spawn(move || {
        *gate.who.lock().unwrap() = Some((thread::current().id(), last));
        whole.rename(&a, b"new", &b, b"old", RenameFlags::empty()).unwrap();
        drop((a, b));
        done.send(()).unwrap();
    });
    if last == 0 {
        renaming.join().unwrap();
        return device.reads.load(Ordering::SeqCst);
    }
    while device.reads.load(Ordering::SeqCst) < last {
        thread::yield_now();
    }
    // Each byte of it lies behind an indirect block of its own.
    let steps = Arc::new(AtomicU64::new(0));
    let counted = steps.clone();
    let writing = thread::spawn(move || {
        for at in 0..900 {
            sparse.write_at(at * (256 << 10), b"x").unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
        }
        drop(sparse);
        ending.send(()).unwrap();
    });
    let mut before = u64::MAX;
    while steps.load(Ordering::SeqCst) != before && !writing.is_finished() {
        before = steps.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(100));
    }
    device.open();
    for _ in 0..2 {
        ended.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("read {last}: nobody goes on"));
    }
    renaming.join().unwrap();
    writing.join().unwrap();
    drop(root);
    fs.close().unwrap();
    last
}

#[test]
fn a_rename_on_slow_media_does_not_wait_for_those_who_wait_for_it() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "12M");
    for options in [logged(), batched()] {
        let reads = replace(&base, &options, 0);
        assert!(reads > 2, "{reads}");
        for last in reads - 2..=reads {
            replace(&base, &options, last);
        }
    }
}

/// A rename in a thread of its own whose read of this number waits, if it is not 0; gives how many there were.
fn rename_in(
    device: &Arc<Gated>,
    fs: &Ext2,
    dir: &Inode,
    last: u64,
) -> (thread::JoinHandle<ext2_core::Result<()>>, u64) {
    let (gate, whole, dir) = (device.clone(), fs.clone(), dir.clone());
    let renaming = thread::spawn(move || {
        *gate.who.lock().unwrap() = Some((thread::current().id(), last));
        whole.rename(&dir, b"new", &dir, b"old", RenameFlags::empty())
    });
    while device.reads.load(Ordering::SeqCst) < last || last == 0 && !renaming.is_finished() {
        thread::yield_now();
    }
    (renaming, device.reads.load(Ordering::SeqCst))
}

/// A file system with a directory in which one file can replace another.
fn with_two_names(base: &[u8], options: &OpenOptions) -> (Arc<Gated>, Ext2, Inode) {
    let device = Arc::new(Gated::new(base));
    let fs = open_as(device.clone(), options);
    let dir = fs.root().unwrap().create("d", &NewInode::new(FileKind::Directory, 0o755)).unwrap();
    file(&dir, "new", b"new");
    file(&dir, "old", b"old");
    (device, fs, dir)
}

/// The log gets as full as it may be by a write, while so many inodes wait for the commit; a sync stores late times of the directory
/// then, under a lock that the rename wants.
fn fill_beside(base: &[u8], last: u64, inodes: usize) -> u64 {
    let (device, fs, dir) = with_two_names(base, &logged());
    let root = fs.root().unwrap();
    let gone = file(&root, "gone", &vec![1; 9 << 20]);
    let large = file(&root, "large", b"");
    // Eight of them lie in a block.
    let others: Vec<_> = (0..inodes * 8).map(|nr| file(&root, &format!("{nr}"), b"")).collect();
    drop(gone);
    (0..2).for_each(|_| fs.sync().unwrap());
    file(&dir, "touched", b"");
    root.unlink("gone").unwrap();
    for other in others.iter().step_by(8) {
        other.set_attr(&SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    }
    let (renaming, reads) = rename_in(&device, &fs, &dir, last);
    if last == 0 {
        return reads;
    }
    let (done, ended) = channel();
    let written = done.clone();
    thread::spawn(move || written.send(large.write_at(0, &vec![2; 9 << 20]).map(drop)));
    thread::sleep(Duration::from_millis(80));
    let whole = fs.clone();
    thread::spawn(move || done.send(whole.sync()));
    thread::sleep(Duration::from_millis(60));
    device.open();
    for _ in 0..2 {
        let each = ended.recv_timeout(Duration::from_secs(60));
        each.unwrap_or_else(|_| panic!("{inodes} inodes, read {last}: nobody goes on")).unwrap();
    }
    renaming.join().unwrap().unwrap();
    reads
}

#[test]
fn a_rename_on_slow_media_a_write_that_fills_the_log_and_a_sync_do_not_wait_for_each_other() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-I", "128", "-N", "1024"], "16M");
    for inodes in 8..=10 {
        let reads = fill_beside(&base, 0, inodes);
        for last in [reads - 5, reads - 3, reads - 1] {
            fill_beside(&base, last, inodes);
        }
    }
}

#[test]
fn changes_that_belong_together_and_outgrow_the_log_wait_for_a_rename_on_slow_media() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-I", "128", "-N", "1024"], "16M");
    for options in [logged(), batched()] {
        let round = |last| {
            let (device, fs, dir) = with_two_names(&base, &options);
            let large = file(&fs.root().unwrap(), "large", &vec![1; 9 << 20]);
            (0..2).for_each(|_| fs.sync().unwrap());
            let (renaming, reads) = rename_in(&device, &fs, &dir, last);
            if last == 0 {
                return reads;
            }
            let whole = fs.clone();
            let changing = thread::spawn(move || {
                whole.together(|| {
                    large.truncate(0, Wait::Yes)?;
                    large.write_all_at(0, &vec![2; 9 << 20])
                })
            });
            // Longer than who waits for others does so at most.
            thread::sleep(Duration::from_millis(500));
            device.open();
            assert_eq!((renaming.join().unwrap(), changing.join().unwrap()), (Ok(()), Ok(())));
            assert_eq!(fs.sync(), Ok(()), "{options:?}, read {last} of {reads}");
            reads
        };
        let reads = round(0);
        for last in [reads - 7, reads - 4, reads - 1] {
            round(last);
        }
    }
}

/// Works on a file system behind a log of each kind, and closes it: e2fsck finds nothing then.
fn behind_each_log(size: &str, work: impl Fn(Ext2)) {
    let base = image_of(&["-t", "ext2", "-b", "1024"], size);
    for options in [logged(), batched()] {
        let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
        work(Ext2::open(device.clone(), &options).unwrap());
        assert!(e2dax_tests::small::is_clean(&device.to_vec()));
    }
}

/// More of them than a commit usually has, so that one is due in the middle.
#[test]
fn changes_that_belong_together_do_not_wait_for_the_commit_that_waits_for_them() {
    need_tools!("mke2fs", "e2fsck");
    behind_each_log("12M", |fs| {
        let (done, ended) = channel();
        let changing = thread::spawn(move || {
            let root = fs.root().unwrap();
            let made = fs.together(|| {
                let new = NewInode::new(FileKind::Directory, 0o755);
                (0..350).try_for_each(|nr| root.create(format!("d{nr}"), &new).map(drop))
            });
            done.send(()).unwrap();
            drop(root);
            made.and_then(|()| fs.close())
        });
        ended.recv_timeout(Duration::from_secs(60)).expect("they wait for themselves");
        changing.join().unwrap().unwrap();
    });
}

/// What a file gave up and gets again goes through the log: more than it holds, by one who has the lock that the others wait
/// for, as a rename behind a whiteout does.
#[test]
fn changes_that_belong_together_and_a_file_that_is_larger_than_the_log_wait_for_each_other_in_turn() {
    need_tools!("mke2fs", "e2fsck");
    behind_each_log("24M", |fs| {
        let root = fs.root().unwrap();
        let large = file(&root, "f", &vec![1; 4 << 20]);
        fs.sync().unwrap();
        let is_over = Arc::new(AtomicU64::new(0));
        let (done, ended) = channel();
        let (over, finished, own) = (is_over.clone(), done.clone(), fs.clone());
        thread::spawn(move || {
            for round in 0..12_u8 {
                large.truncate(0, Wait::Yes).unwrap();
                large.write_all_at(0, &vec![round; 4 << 20]).unwrap();
                if round % 3 == 0 {
                    large.sync().unwrap();
                }
            }
            over.store(1, Ordering::SeqCst);
            drop((large, own));
            finished.send(0).unwrap();
        });
        let own = fs.clone();
        thread::spawn(move || {
            let mut renames = 0;
            while is_over.load(Ordering::SeqCst) == 0 || renames % 2 == 1 {
                let (from, to) = if renames % 2 == 0 { (b"f", b"g") } else { (b"g", b"f") };
                own.together(|| own.rename(&root, from, &root, to, RenameFlags::empty())).unwrap();
                renames += 1;
            }
            drop((root, own));
            done.send(renames).unwrap();
        });
        let both: Vec<u64> = (0..2)
            .map(|_| ended.recv_timeout(Duration::from_secs(60)).expect("they wait for each other"))
            .collect();
        assert!(both.iter().sum::<u64>() > 1, "{both:?}");
        assert_eq!(fs.read("f").unwrap(), vec![11; 4 << 20]);
        fs.close().unwrap();
    });
}

#[test]
fn a_sync_within_changes_that_belong_together_is_refused_and_the_changes_go_on() {
    need_tools!("mke2fs", "e2fsck");
    behind_each_log("12M", |fs| {
        let (done, ended) = channel();
        thread::spawn(move || {
            let root = fs.root().unwrap();
            let synced = fs.together(|| {
                let made = file(&root, "f", b"bytes");
                Ok((made.sync().is_err(), fs.sync().is_err()))
            });
            done.send(synced).unwrap();
            fs.sync().unwrap();
            assert_eq!(fs.read("f").unwrap(), b"bytes");
            drop(root);
            fs.close().unwrap();
            done.send(Ok((true, true))).unwrap();
        });
        for _ in 0..2 {
            let answer = ended.recv_timeout(Duration::from_secs(30)).expect("it waits for itself");
            assert_eq!(answer.unwrap(), (true, true));
        }
    });
}
