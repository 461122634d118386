//! A log that is full, or waited for, while changes belong together: in one thread, and beside others.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::{
    need_tools,
    small::{batched, complaint, file, image_of, logged, open_as},
    tree,
};
use ext2_core::{Closed, Ext2, FileKind, Follow, NewInode, OpenOptions, RenameFlags, SetAttr};

#[test]
fn changes_that_belong_together_and_outgrow_the_log_are_committed_in_parts_and_nothing_is_lost() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "4096"], "16M");
    for options in [logged(), batched()] {
        let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
        let fs = open_as(device.clone(), &options);
        file(&fs.root().unwrap(), "other", &[1; 3000]);
        fs.together(|| {
            for nr in 0..1200 {
                fs.root()?.create(format!("{nr}"), &NewInode::new(FileKind::Directory, 0o755))?;
            }
            Ok(())
        })
        .unwrap();
        fs.sync().unwrap();
        assert_eq!(fs.close(), Ok(Closed::Clean));
        assert_eq!(complaint(&device.to_vec()), None);
        let there = tree::read(device).unwrap();
        assert_eq!(there[&b"/other"[..]].content, [1; 3000]);
        assert!((0..1200).all(|nr| there.contains_key(format!("/{nr}").as_bytes())));
    }
}

/// Contents that go to blocks which were given up before go through the log as well.
#[test]
fn contents_that_outgrow_the_log_within_changes_that_belong_together_are_committed_in_parts() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "64"], "16M");
    for options in [logged(), batched()] {
        let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
        let fs = open_as(device.clone(), &options);
        let root = fs.root().unwrap();
        file(&root, "file", &vec![1; 9 << 20]);
        fs.sync().unwrap();
        file(&root, "after the last commit", &[1; 3000]);
        fs.together(|| fs.write("file", vec![2; 9 << 20])).unwrap();
        assert_eq!(fs.sync(), Ok(()), "{options:?}");
        drop(root);
        assert_eq!(fs.close(), Ok(Closed::Clean));
        assert_eq!(complaint(&device.to_vec()), None);
        let again = RamDevice::from_bytes(&device.to_vec()).unwrap();
        let there = tree::read(device).unwrap();
        assert_eq!(there[&b"/after the last commit"[..]].content, [1; 3000]);
        let again = Ext2::open(again, &OpenOptions::read_only()).unwrap();
        assert!(again.read("file").unwrap() == vec![2; 9 << 20], "{options:?}");
    }
}

/// A commit of fewer blocks than are stored at once.
#[test]
fn a_small_batch_takes_contents_that_go_to_blocks_which_were_given_up() {
    need_tools!("mke2fs", "e2fsck");
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "16", "-m", "0"], "1100k");
        let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
        let fs = open_as(device.clone(), &batched());
        assert!(fs.has_log());
        fs.write("file", vec![1; 400 << 10]).unwrap();
        fs.sync().unwrap();
        fs.write("file", vec![2; 400 << 10]).unwrap();
        assert_eq!(fs.close(), Ok(Closed::Clean));
        done.send(complaint(&device.to_vec())).unwrap();
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok(None));
}

#[test]
fn threads_that_fill_the_image_of_a_batch_are_told_of_no_room_where_there_is_none() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "512", "-m", "0"], "16M");
    for round in 0..20 {
        let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
        let fs = &open_as(device.clone(), &batched());
        let fills = |thread: usize| {
            (0..).find_map(|nr| {
                let refused = fs.write(format!("{thread}-{nr}"), vec![1; 200 << 10]).err()?;
                Some((fs.statfs().unwrap().blocks_free, refused))
            })
        };
        let told = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|nr| scope.spawn(move || fills(nr))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(told.len(), 4);
        assert!(told.iter().all(|(free, _)| *free < 300), "round {round}: {told:?}");
    }
}

/// It is refused, and that is no error of the device's, which would end all writing here.
#[test]
fn a_sync_of_a_file_within_changes_that_belong_together_breaks_nothing() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "64", "-e", "remount-ro"], "16M");
    let fs = open_as(RamDevice::from_bytes(&base).unwrap(), &logged());
    let inode = file(&fs.root().unwrap(), "file", b"x");
    fs.together(|| inode.sync()).unwrap_err();
    assert_eq!((fs.write("after", "x"), fs.sync()), (Ok(()), Ok(())));
    drop(inode);
    assert_eq!(fs.close(), Ok(Closed::Clean));
}

/// A commit waits for a moment between them, and those that come later let it go first.
#[test]
fn a_sync_ends_beside_changes_that_belong_together_one_after_the_other() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "64"], "16M");
    let fs = &open_as(RamDevice::from_bytes(&base).unwrap(), &logged());
    let root = fs.root().unwrap();
    let is_over = &AtomicBool::new(false);
    thread::scope(|scope| {
        for nr in 0..3 {
            let dir = root.create(format!("{nr}"), &NewInode::new(FileKind::Directory, 0o755)).unwrap();
            let own = file(&dir, "a", b"x");
            scope.spawn(move || {
                let names = [b"a", b"b"];
                for round in (0..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                    let [from, to] = [names[round % 2], names[1 - round % 2]];
                    fs.rename(&dir, from, &dir, to, RenameFlags::empty()).unwrap();
                    // Longer than others wait between two of them.
                    let held = fs.together(|| {
                        thread::sleep(Duration::from_millis(2));
                        own.set_attr(&SetAttr { mode: Some(0o600), ..SetAttr::default() })
                    });
                    held.unwrap();
                }
            });
        }
        let (done, is_done) = mpsc::channel();
        scope.spawn(move || {
            (0..20).for_each(|_| fs.sync().unwrap());
            let _ = done.send(());
        });
        let ended = is_done.recv_timeout(Duration::from_secs(30));
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(ended, Ok(()));
    });
}

/// Its thread does not wait for the commit, which waits for it.
#[test]
fn a_file_system_is_shut_down_within_changes_that_belong_together_while_another_thread_syncs() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "64"], "16M");
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let fs = &open_as(RamDevice::from_bytes(&base).unwrap(), &logged());
        thread::scope(|scope| {
            fs.together(|| {
                fs.write("file", "x")?;
                let syncs = scope.spawn(|| fs.sync());
                thread::sleep(Duration::from_millis(100));
                fs.shut_down();
                assert!(syncs.join().unwrap().is_err());
                Ok(())
            })
        })
        .unwrap();
        done.send(()).unwrap();
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok(()));
}

/// Whoever lets a commit go first does so for a while: the commit may wait for it.
#[test]
fn changes_that_belong_together_wait_for_a_thread_that_renames_while_another_syncs() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "64"], "16M");
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let fs = &open_as(RamDevice::from_bytes(&base).unwrap(), &logged());
        let root = &fs.root().unwrap();
        file(root, "a", b"a");
        thread::scope(|scope| {
            fs.together(|| {
                fs.write("file", "x")?;
                scope.spawn(|| fs.sync().unwrap());
                thread::sleep(Duration::from_millis(100));
                scope.spawn(|| fs.rename(root, b"a", root, b"b", RenameFlags::empty())).join().unwrap()
            })
        })
        .unwrap();
        done.send(()).unwrap();
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok(()));
}

/// A device that takes its time for a flush.
#[derive(Debug)]
struct SlowFlush {
    inner: RamDevice,
    millis: AtomicU64,
}

impl BlockDevice for SlowFlush {
    e2dax_tests::forward!(inner: size, read_at, write_at, zero, fence);

    fn flush(&self) -> blockdev::Result<()> {
        thread::sleep(Duration::from_millis(self.millis.load(Ordering::SeqCst)));
        self.inner.flush()
    }
}

fn slow(base: &[u8]) -> (Arc<SlowFlush>, Ext2) {
    let inner = RamDevice::from_bytes(base).unwrap();
    let device = Arc::new(SlowFlush { inner, millis: AtomicU64::new(0) });
    let fs = open_as(device.clone(), &batched());
    assert!(fs.has_log());
    (device, fs)
}

#[test]
fn changes_that_belong_together_and_fill_the_log_wait_for_a_commit_on_slow_media() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "256", "-m", "0"], "1100k");
    let (device, fs) = slow(&base);
    fs.write("before", "x").unwrap();
    device.millis.store(200, Ordering::SeqCst);
    thread::scope(|scope| {
        let syncs = scope.spawn(|| fs.sync());
        thread::sleep(Duration::from_millis(60));
        let made = fs.together(|| {
            let root = fs.root()?;
            (0..100).try_for_each(|nr| {
                root.create(format!("{nr}"), &NewInode::new(FileKind::Directory, 0o755)).map(drop)
            })
        });
        assert_eq!((made, syncs.join().unwrap(), fs.sync()), (Ok(()), Ok(()), Ok(())));
    });
    assert_eq!(fs.close(), Ok(Closed::Clean));
    assert_eq!(complaint(&device.inner.to_vec()), None);
}

#[test]
fn a_rename_that_needs_a_block_which_a_batch_keeps_gets_it_beside_a_thread_that_syncs() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "512", "-m", "0"], "4M");
    // All but so many blocks are taken; the last would have the log given up.
    let full = |most: u64| {
        let (device, fs) = slow(&base);
        let root = fs.root().unwrap();
        let dir = root.create("dir", &NewInode::new(FileKind::Directory, 0o755)).unwrap();
        // Three of them fill a block.
        for nr in 0..3 {
            file(&dir, &String::from(char::from(b'a' + nr)).repeat(250), b"");
        }
        file(&root, "small", b"");
        let large = file(&root, "large", b"");
        let mut taken = 0;
        while fs.has_log() && taken < most {
            large.write_at(taken * 1024, &[1; 1024]).unwrap();
            taken += 1;
        }
        drop((root, dir, large));
        (device, fs, taken)
    };
    let (_, _, taken) = full(u64::MAX);
    let (device, fs, _) = full(taken - 1);
    device.millis.store(30, Ordering::SeqCst);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope
            .spawn(|| (0..).take_while(|_| !is_over.load(Ordering::SeqCst)).for_each(|_| fs.sync().unwrap()));
        thread::sleep(Duration::from_millis(100));
        let (root, dir) = (fs.root().unwrap(), fs.resolve("dir", Follow::No).unwrap());
        let renamed = fs.rename(&root, b"small", &dir, &[b'k'; 250], RenameFlags::empty());
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(renamed, Ok(()));
    });
}
