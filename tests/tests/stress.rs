//! Many threads on one file system: shared directories, random operations, and a watchdog. In debug builds the
//! order of locks is asserted at each acquisition.
//!
//! `E2DAX_STRESS_SECONDS=N` runs for N seconds instead of 1.

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

/// Errors that two threads at the same names give each other. None of them says that the image is broken, that an inode is
/// gone which a name led to, or that there is no room, of which there is plenty.
fn expected(error: &Error) -> bool {
    matches!(error, Error::Caller(..))
        && ["ENOENT", "EEXIST", "ENOTEMPTY", "EISDIR", "ENOTDIR", "EINVAL", "EPERM"]
            .contains(&error.errno().name())
}

fn step(fs: &Ext2, rng: &mut Rng) -> Result<(), Error> {
    let dirs = ["/a", "/b", "/a/c", "/b/d", "/a/c/e"];
    let dir = fs.resolve(rng.pick(&dirs).as_bytes(), Follow::Yes)?;
    let name = format!("n{}", rng.below(12));
    let name = name.as_bytes();
    let file = NewInode::new(FileKind::Regular, 0o644);
    match rng.below(15) {
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
        9 => {
            let mut entries = dir.entries(0)?;
            while let Some(entry) = entries.next() {
                entries.inode(&entry?)?;
            }
            Ok(())
        }
        13 => dir.lookup(b"..").map(drop),
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
    std::env::var("E2DAX_STRESS_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(1)
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

/// Runs `change` by itself, over and over, beside `look` in several threads, until the time is over or one of them says
/// what is wrong.
fn beside(change: impl Fn() -> Result<(), String> + Sync, look: impl Fn() -> Result<(), String> + Sync) {
    let over = AtomicBool::new(false);
    let wrong = Mutex::new(None);
    let until = Instant::now() + Duration::from_secs(seconds());
    let run = |work: &(dyn Fn() -> Result<(), String> + Sync)| {
        while !over.load(Ordering::Relaxed) {
            if let Err(what) = work() {
                wrong.lock().expect("a lock").get_or_insert(what);
                over.store(true, Ordering::Relaxed);
            }
            if Instant::now() > until {
                over.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(&change));
        for _ in 0..THREADS {
            scope.spawn(|| run(&look));
        }
    });
    if let Some(what) = wrong.into_inner().expect("a lock") {
        panic!("{what}");
    }
}

/// What an error that only tells of a missing name is worth: nothing.
fn but_for_no_name<T>(done: Result<T, Error>) -> Result<Option<T>, String> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(Error::Caller(ext2_core::Errno::NOENT, _)) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn a_lookup_beside_unlink_and_create_gives_the_file_of_that_name() {
    need_tools!("mke2fs");
    let fs = Ext2::open(image(16), &OpenOptions::default()).expect("a file system");
    let root = fs.root().expect("root");
    let make = |name: &[u8], mode| {
        root.create(name, &NewInode::new(FileKind::Regular, mode)).map_err(|error| error.to_string())?;
        root.unlink(name).map_err(|error| error.to_string())
    };
    let is_x = |inode: Option<ext2_core::Inode>| match inode {
        Some(inode) if inode.attr().mode != 0o600 => Err("the inode of another name".to_string()),
        _ => Ok(()),
    };
    beside(
        || make(b"x", 0o600).and_then(|()| make(b"y", 0o644)),
        || {
            is_x(but_for_no_name(root.lookup(b"x"))?)?;
            let mut entries = root.entries(0).map_err(|error| error.to_string())?;
            while let Some(entry) = entries.next() {
                let entry = entry.map_err(|error| error.to_string())?;
                if entry.name == b"x" {
                    is_x(entries.inode(&entry).map_err(|error| error.to_string())?)?;
                }
            }
            Ok(())
        },
    );
}

#[test]
fn a_rename_beside_unlink_and_create_finds_no_fault_in_a_sound_image() {
    need_tools!("mke2fs", "e2fsck");
    let device = image(16);
    let shared: Arc<dyn BlockDevice> = device.clone();
    let strict = OpenOptions { errors: Some(ext2_core::OnError::RemountRo), ..OpenOptions::default() };
    let fs = Ext2::open(shared, &strict).expect("open");
    let root = fs.root().expect("root");
    beside(
        || {
            but_for_no_name(root.create(b"x", &NewInode::new(FileKind::Regular, 0o600)))?;
            but_for_no_name(root.unlink(b"x")).map(drop)
        },
        || {
            if but_for_no_name(fs.rename(&root, b"x", &root, b"z", RenameFlags::empty()))?.is_some() {
                but_for_no_name(root.unlink(b"z"))?;
            }
            Ok(())
        },
    );
    assert!(!fs.is_read_only());
    drop(root);
    fs.close().expect("closed");
    fsck(&device);
}

#[test]
fn directories_that_are_removed_beside_each_other_and_looked_up_from_are_there_or_not() {
    need_tools!("mke2fs", "e2fsck");
    let device = image(16);
    let shared: Arc<dyn BlockDevice> = device.clone();
    let fs = Ext2::open(shared, &OpenOptions::default()).expect("open");
    let (root, dir) = (fs.root().expect("root"), NewInode::new(FileKind::Directory, 0o755));
    let away = root.create(b"away", &dir).expect("created");
    beside(
        || {
            let made = root.create(b"d", &dir).map_err(|error| error.to_string())?;
            match made.create(b"e", &dir) {
                Ok(_) => {}
                // Somebody removed it before it had anything in it.
                Err(error) if error.is(ext2_core::Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
            but_for_no_name(made.rmdir(b"e"))?;
            but_for_no_name(root.rmdir(b"d")).map(drop)
        },
        || {
            let Some(found) = but_for_no_name(root.lookup(b"d"))? else { return Ok(()) };
            if let Some(above) = but_for_no_name(found.lookup(b".."))?
                && above != root
            {
                return Err(format!("the parent is {above:?}"));
            }
            if let Some(below) = but_for_no_name(found.lookup(b"e"))? {
                // The walk up from the directory that is moved into meets ones that are removed.
                let moved = fs.rename(&away, b"none", &below, b"n", RenameFlags::empty());
                but_for_no_name(moved)?;
            }
            let remove = |dir: &ext2_core::Inode, name: &[u8]| match dir.rmdir(name) {
                Err(error) if error.is(ext2_core::Errno::NOTEMPTY) => Ok(None),
                done => but_for_no_name(done),
            };
            remove(&found, b"e")?;
            remove(&root, b"d").map(drop)
        },
    );
    drop((root, away));
    fs.close().expect("closed");
    fsck(&device);
}
