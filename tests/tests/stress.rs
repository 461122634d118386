//! Many threads on one file system: shared directories, random operations, and a watchdog. In debug builds the
//! order of locks is asserted at each acquisition.
//!
//! `E2DAX_STRESS_SECONDS=N` runs for N seconds instead of 3.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::{Rng, need_tools, tools};
use ext2_core::{Error, Ext2, FileKind, Follow, NewInode, OpenOptions, RenameFlags, Wait};

const THREADS: u64 = 6;
/// Seconds without a finished operation of some thread after which it counts as stuck.
const STUCK: u64 = 60;

fn image(mib: u64) -> Arc<RamDevice> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    let size = format!("{mib}m");
    tools::mke2fs(&["-t", "ext2", "-b", "4096", "-I", "256", path.to_str().expect("a path of ours"), &size]);
    Arc::new(RamDevice::from_bytes(&std::fs::read(&path).expect("the image")).expect("memory"))
}

/// Errors that two threads at the same names give each other.
fn expected(error: &Error) -> bool {
    ["ENOENT", "EEXIST", "ENOTEMPTY", "EISDIR", "ENOTDIR", "EINVAL", "ENOSPC", "EMLINK", "EPERM", "ESTALE", "EBUSY"]
        .contains(&error.errno().name())
        // A name that was found and whose inode went before it could be opened.
        || error.to_string().contains("which is deleted")
}

fn step(fs: &Ext2, rng: &mut Rng) -> Result<(), Error> {
    let dirs = ["/a", "/b", "/a/c", "/b/d", "/a/c/e"];
    let dir = fs.resolve(rng.pick(&dirs).as_bytes(), Follow::Yes)?;
    let name = format!("n{}", rng.below(12));
    let name = name.as_bytes();
    let file = NewInode::new(FileKind::Regular, 0o644);
    match rng.below(14) {
        0 | 1 => dir.create(name, &file).map(drop),
        2 => dir.create(name, &NewInode::new(FileKind::Directory, 0o755)).map(drop),
        3 => dir.unlink(name),
        4 => dir.rmdir(name),
        5 => dir.symlink(name, b"/a/n1", &NewInode::new(FileKind::Symlink, 0o777)).map(drop),
        6 => {
            let other = fs.resolve(rng.pick(&dirs).as_bytes(), Follow::Yes)?;
            let target = other.lookup(format!("n{}", rng.below(12)).as_bytes())?;
            dir.link(&target, name)
        }
        7 | 8 => {
            let other = fs.resolve(rng.pick(&dirs).as_bytes(), Follow::Yes)?;
            let flags = *rng.pick(&[RenameFlags::empty(), RenameFlags::NOREPLACE, RenameFlags::EXCHANGE]);
            fs.rename(&dir, name, &other, format!("n{}", rng.below(12)).as_bytes(), flags)
        }
        9 => dir.entries(0)?.try_for_each(|entry| entry.map(drop)),
        10 => dir.lookup(name)?.truncate(rng.below(300_000), Wait::Yes),
        11 => dir.lookup(name)?.punch_hole(rng.below(100_000), rng.below(100_000), Wait::Yes),
        12 => {
            let mut buffer = vec![0; 50_000];
            dir.lookup(name)?.read_at(rng.below(200_000), &mut buffer).map(drop)
        }
        _ => {
            let bytes = vec![rng.below(256) as u8; 1 + rng.below(80_000) as usize];
            dir.lookup(name)?.write_at(rng.below(200_000), &bytes).map(drop)
        }
    }
}

fn fsck(device: &RamDevice) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    e2dax_tests::golden::write_sparse(&path, &device.to_vec()).expect("written");
    tools::e2fsck_fn(Path::new(&path)).unwrap_or_else(|said| panic!("{said}"));
}

fn seconds() -> u64 {
    std::env::var("E2DAX_STRESS_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(3)
}

#[test]
fn threads_in_shared_directories_leave_a_clean_image() {
    need_tools!("mke2fs", "e2fsck");
    let device = image(64);
    let shared: Arc<dyn BlockDevice> = device.clone();
    let fs = Ext2::open(shared, &OpenOptions::default()).expect("open");
    for dir in ["/a", "/b", "/a/c", "/b/d", "/a/c/e"] {
        let (parent, name) = fs.resolve_parent(dir.as_bytes()).expect("parent");
        parent.create(name, &NewInode::new(FileKind::Directory, 0o755)).expect("created");
    }
    let progress: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
    let over = AtomicBool::new(false);
    let surprise = Mutex::new(None);
    std::thread::scope(|scope| {
        for (nr, steps) in progress.iter().enumerate() {
            let (fs, over, surprise) = (&fs, &over, &surprise);
            scope.spawn(move || {
                let mut rng = Rng::new(nr as u64 + 1);
                while !over.load(Ordering::Relaxed) {
                    if let Err(error) = step(fs, &mut rng)
                        && !expected(&error)
                    {
                        surprise.lock().expect("a lock").get_or_insert(error);
                        return;
                    }
                    steps.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(seconds());
        let mut last: BTreeMap<usize, (u64, Instant)> = BTreeMap::new();
        while Instant::now() < until && surprise.lock().expect("a lock").is_none() {
            std::thread::sleep(Duration::from_millis(50));
            for (nr, steps) in progress.iter().enumerate() {
                let now = steps.load(Ordering::Relaxed);
                let (seen, since) = *last.entry(nr).or_insert((now, Instant::now()));
                if seen != now {
                    last.insert(nr, (now, Instant::now()));
                } else if since.elapsed() > Duration::from_secs(STUCK) {
                    // A deadlock holds the threads for good: nothing to join.
                    eprintln!("thread {nr} is stuck after {now} operations");
                    std::process::abort();
                }
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    if let Some(error) = surprise.into_inner().expect("a lock") {
        panic!("{error} ({:?})", error.errno());
    }
    let done: u64 = progress.iter().map(|steps| steps.load(Ordering::Relaxed)).sum();
    println!("{done} operations by {THREADS} threads");
    fs.close().expect("closed");
    fsck(&device);
}

#[test]
fn writers_of_different_files_do_not_mix_bytes_or_blocks() {
    need_tools!("mke2fs", "e2fsck");
    let device = image(128);
    let shared: Arc<dyn BlockDevice> = device.clone();
    let fs = Ext2::open(shared, &OpenOptions::default()).expect("open");
    let root = fs.root().expect("root");
    std::thread::scope(|scope| {
        for nr in 0..THREADS as u8 {
            let root = &root;
            scope.spawn(move || {
                let file = root
                    .create(format!("f{nr}").as_bytes(), &NewInode::new(FileKind::Regular, 0o644))
                    .expect("created");
                for at in (0..12u64 << 20).step_by(37_000) {
                    file.write_at(at, &vec![nr + 1; 37_000]).expect("written");
                }
            });
        }
    });
    for nr in 0..THREADS as u8 {
        let file = root.lookup(format!("f{nr}").as_bytes()).expect("there");
        let mut bytes = vec![0; file.size() as usize];
        file.read_at(0, &mut bytes).expect("read");
        assert!(bytes.iter().all(|&byte| byte == nr + 1), "file {nr}");
    }
    drop(root);
    fs.close().expect("closed");
    fsck(&device);
}

#[test]
fn a_file_unlinked_while_it_is_open_lives_until_its_last_holder_lets_go() {
    need_tools!("mke2fs", "e2fsck");
    let device = image(16);
    let shared: Arc<dyn BlockDevice> = device.clone();
    let fs = Ext2::open(shared, &OpenOptions::default()).expect("open");
    let root = fs.root().expect("root");
    let before = fs.statfs().expect("statfs");
    let file = root.create(b"f", &NewInode::new(FileKind::Regular, 0o644)).expect("created");
    file.write_at(0, &[7; 300_000]).expect("written");
    root.unlink(b"f").expect("unlinked");
    let mut bytes = vec![0; 300_000];
    assert_eq!(file.read_at(0, &mut bytes).expect("read"), bytes.len());
    assert!(bytes.iter().all(|&byte| byte == 7));
    file.write_at(300_000, &[8; 100_000]).expect("still a file");
    assert!(fs.statfs().expect("statfs").blocks_free < before.blocks_free);
    let nr = file.nr();
    drop(file);
    assert_eq!(fs.statfs().expect("statfs"), before);
    assert_eq!(fs.inode(nr).expect_err("gone").errno().name(), "ESTALE");
    drop(root);
    fs.close().expect("closed");
    fsck(&device);
}

#[test]
fn a_name_that_is_looked_up_all_the_time_is_found_until_it_is_removed_and_not_after() {
    need_tools!("mke2fs");
    let fs = Ext2::open(image(16), &OpenOptions::default()).expect("a file system");
    let dir = fs.root().and_then(|root| root.create(b"d", &NewInode::new(FileKind::Directory, 0o755)));
    let dir = dir.expect("a directory");
    let file = NewInode::new(FileKind::Regular, 0o644);
    let stays: Vec<String> = (0..300).map(|nr| format!("stays{nr}")).collect();
    for name in &stays {
        dir.create(name.as_bytes(), &file).expect("a file");
    }
    let gone =
        |name: &str| dir.lookup_nr(name.as_bytes()).is_err_and(|error| error.errno().name() == "ENOENT");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for name in &stays {
                        assert!(dir.lookup_nr(name.as_bytes()).is_ok(), "{name}");
                    }
                }
            });
        }
        for nr in 0..2000 {
            let (first, second) = (format!("first{nr}"), format!("second{nr}"));
            let made = dir.create(first.as_bytes(), &file).expect("a file").nr();
            (0..20).for_each(|_| assert_eq!(dir.lookup_nr(first.as_bytes()).ok(), Some(made)));
            fs.rename(&dir, first.as_bytes(), &dir, second.as_bytes(), RenameFlags::empty())
                .expect("a rename");
            assert!(gone(&first), "{first} is still found");
            (0..20).for_each(|_| assert_eq!(dir.lookup_nr(second.as_bytes()).ok(), Some(made)));
            dir.unlink(second.as_bytes()).expect("an unlink");
            assert!(gone(&second), "{second} is still found");
        }
        done.store(true, Ordering::Relaxed);
    });
}
