//! Crashes of a file system whose metadata goes through a log: every state of a disk that takes any part of what was
//! written since a flush is mended by `e2fsck -p` without a question, and by opening it; what a sync returned for is there.

#[path = "log/again.rs"]
mod again;
#[path = "log/closing.rs"]
mod closing;
#[path = "log/failing.rs"]
mod failing;
#[path = "log/gate.rs"]
mod gate;
#[path = "log/rights.rs"]
mod rights;
#[path = "log/within.rs"]
mod within;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use blockdev::crash::{BlockModel, CrashLimits, CrashState, FenceMeans, PmemModel, PmemOrder};
use blockdev::{BlockDevice, Media, Partition, RamDevice, RecordedOp, Recorder};
use e2dax_tests::small::{batched, complaint, file, image_of, logged, open_as};
use e2dax_tests::tree::{self, Tree};
use e2dax_tests::{Rng, Scratch, need_tools, tools};
use ext2_core::{Ext2, FileKind, Follow, NewInode, OpenOptions, RenameFlags, Wait, XattrSet};
use ext2_image::check::{Checker, Outcome};

/// What a file is known to hold, by its path, from the mark on that is its key.
type Promises = BTreeMap<u64, BTreeMap<String, Vec<u8>>>;

/// Changes of every kind, in rounds; each ends with a sync, and what it wrote to keep is promised from then on.
fn work(fs: &Ext2, recorder: &Recorder<RamDevice>, rounds: u64, promises: &mut Promises) {
    let root = fs.root().unwrap();
    let folder = NewInode::new(FileKind::Directory, 0o755);
    let (a, b) = (root.create(b"a", &folder).unwrap(), root.create(b"b", &folder).unwrap());
    let mut rng = Rng::new(rounds);
    let mut known = BTreeMap::new();
    for round in 0..rounds {
        // Blocks that one file gives up are another's soon after, and a directory's, and a file's again.
        let bytes = vec![round as u8 | 1; 1 + rng.below(30_000) as usize];
        let old = file(&a, "churned", &bytes);
        old.xattr_set(b"user.x", &bytes[..bytes.len().min(300)], XattrSet::Any).unwrap();
        a.unlink(b"churned").unwrap();
        drop(old);
        // A file that is not durably gone, and others where it lay, of which one goes again.
        if round > 0 {
            a.unlink(format!("own-{}", round - 1).as_bytes()).unwrap();
        }
        file(&a, "first", &[0xf1; 1000]);
        file(&a, "second", &[0xf2; 1000]);
        a.unlink(b"second").unwrap();
        file(&a, &format!("own-{round}"), &[round as u8; 20_000]);
        a.unlink(b"first").unwrap();
        let kept = file(&b, &format!("kept-{round}"), &bytes);
        // A directory from one parent to the other, back in the next round, with a file in it.
        let (from, to) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        if round == 0 {
            let moved = a.create(b"moved", &folder).unwrap();
            file(&moved, "inside", b"inside");
        }
        fs.rename(from, b"moved", to, b"moved", RenameFlags::empty()).unwrap();
        // Over another, with and without names of its own.
        let over = file(&a, "over", &bytes);
        fs.rename(&a, b"over", &b, b"target", RenameFlags::empty()).unwrap();
        over.truncate(rng.below(bytes.len() as u64), Wait::Yes).unwrap();
        a.symlink(b"link", &bytes[..bytes.len().min(200)], &NewInode::new(FileKind::Symlink, 0o777)).unwrap();
        a.unlink(b"link").unwrap();
        let many = a.create(b"many", &folder).unwrap();
        let count = if round == rounds / 2 { 400 } else { 3 };
        for n in 0..count {
            many.create(format!("{n}").as_bytes(), &folder).unwrap();
        }
        for n in 0..count {
            many.rmdir(format!("{n}").as_bytes()).unwrap();
        }
        drop(many);
        a.rmdir(b"many").unwrap();
        if round % 3 != 0 {
            kept.sync().unwrap();
        } else {
            fs.sync().unwrap();
        }
        known.insert(format!("/b/kept-{round}"), bytes);
        recorder.mark(round + 1);
        promises.insert(round + 1, known.clone());
        if round > 8 {
            // It is promised no more from now on: the next mark says so, and this one's moment is past.
            let gone = format!("kept-{}", round - 8);
            known.remove(&format!("/b/{gone}"));
            for later in promises.values_mut() {
                later.remove(&format!("/b/{gone}"));
            }
            b.unlink(gone.as_bytes()).unwrap();
        }
    }
}

/// The promised files are there, whole, and files that were not have nothing of another's.
fn keeps(fs: &Ext2, promised: Option<&BTreeMap<String, Vec<u8>>>, state: &str) {
    let round = |name: &[u8]| std::str::from_utf8(name).ok()?.strip_prefix("own-")?.parse::<u8>().ok();
    for entry in fs.read_dir("/a").into_iter().flatten().map(|entry| entry.unwrap()) {
        let Some(round) = round(&entry.name) else { continue };
        let bytes = fs.inode(entry.nr).unwrap().read_all().unwrap();
        assert!(bytes.iter().all(|byte| *byte == round), "{state}: /a/own-{round} has bytes of another");
    }
    for (path, bytes) in promised.into_iter().flatten() {
        let inode = fs
            .resolve(path.as_bytes(), Follow::No)
            .unwrap_or_else(|error| panic!("{state}: {path}: {error}"));
        let mut there = vec![0; bytes.len() + 1];
        let len = inode.read_at(0, &mut there).unwrap();
        assert!(there[..len] == bytes[..], "{state}: {path}");
    }
}

/// Not forced: an image that is called clean has to be.
fn mended(image: &[u8], path: &Path, state: &str) {
    std::fs::write(path, image).unwrap();
    let output = tools::command("e2fsck").arg("-p").arg(path).output().unwrap();
    let is_mended = matches!(output.status.code(), Some(0 | 1));
    assert!(is_mended, "{state}: {}", tools::words(&output));
    tools::e2fsck_fn(path).unwrap_or_else(|error| panic!("{state}: after e2fsck -p: {error}"));
}

/// What a device takes stores as.
#[derive(Clone, Copy, Debug)]
enum Takes {
    /// Any part of the sectors since a flush.
    Sectors,
    /// As persistent memory.
    Memory(PmemOrder),
    /// The same, in a part that begins beside a page: no memory to who asks for it.
    Beside(PmemOrder),
}

/// Crashes a workload everywhere. Gives the states, and those that e2fsck has mended.
fn crash(
    arguments: &[&str],
    size: &str,
    rounds: u64,
    by_e2fsck: usize,
    options: &OpenOptions,
    takes: Takes,
) -> (usize, usize) {
    let base = image_of(arguments, size);
    let (media, begin) = match takes {
        Takes::Sectors | Takes::Memory(PmemOrder::Program) => (Media::Volatile, 0),
        Takes::Memory(_) => (Media::Persistent, 0),
        Takes::Beside(_) => (Media::Persistent, 63 * 512),
    };
    let base = [vec![0xee; begin], base].concat();
    let ram = RamDevice::with_media(base.len() as u64, media).unwrap();
    ram.write_at(0, &base).unwrap();
    let recorder = Arc::new(Recorder::new(ram));
    let part = Partition::from_offset(recorder.clone(), begin as u64).unwrap();
    let fs = Ext2::open(part, options).unwrap();
    assert!(fs.has_log());
    let mut promises = Promises::new();
    work(&fs, &recorder, rounds, &mut promises);
    fs.close().unwrap();
    let log = recorder.take();
    let shm = Path::new("/dev/shm");
    let folder = tempfile::tempdir_in(if shm.is_dir() { shm.into() } else { std::env::temp_dir() }).unwrap();
    let path = folder.path().join("state");
    // The end is what it would have been without a log.
    let mut last = vec![0; base.len()];
    recorder.inner().read_at(0, &mut last).unwrap();
    std::fs::write(&path, &last[begin..]).unwrap();
    tools::e2fsck_fn(&path).unwrap();
    let limits = CrashLimits { exhaustive: 4, edges: 2, pairs: 1, samples: 2, ..CrashLimits::default() };
    let (mut states, mut asked) = (0, 0);
    let by_opening = if options.batch { by_e2fsck } else { 11 };
    let look = |state: &CrashState<'_>| {
        states += 1;
        let image = &state.image[begin..];
        let name =
            format!("state {states} before op {} after mark {:?}, {:?}", state.op, state.mark, state.choice);
        let promised = state.mark.and_then(|mark| promises.get(&mark));
        if states % by_e2fsck == 0 {
            asked += 1;
            mended(image, &path, &name);
            let fs = RamDevice::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
            keeps(&Ext2::open(Arc::new(fs), &OpenOptions::read_only()).unwrap(), promised, &name);
        }
        if states % by_opening == 0 {
            // Read as it is, then opened for writing and closed: the log is replayed, and nothing is wrong after it.
            let device: Arc<dyn BlockDevice> = Arc::new(RamDevice::from_bytes(image).unwrap());
            keeps(&Ext2::open(device.clone(), &OpenOptions::read_only()).unwrap(), promised, &name);
            let fs = Ext2::open(device.clone(), options).unwrap_or_else(|error| panic!("{name}: {error}"));
            keeps(&fs, promised, &name);
            file(&fs.root().unwrap(), "new", &[9; 5000]);
            fs.close().unwrap();
            if states % (3 * by_opening) == 0 {
                let mut image = vec![0; image.len()];
                device.read_at(0, &mut image).unwrap();
                mended(&image, &path, &format!("{name}, opened and closed"));
            }
        }
        ControlFlow::Continue(())
    };
    match takes {
        Takes::Sectors => {
            let mut model = BlockModel::new(&base, &log).fences(FenceMeans::Durable);
            model.limits = limits;
            model.run(look);
        }
        Takes::Memory(order) | Takes::Beside(order) => {
            let mut model = PmemModel::new(&base, &log).order(order);
            model.limits = limits;
            model.run(look);
        }
    }
    (states, asked)
}

#[test]
fn every_crash_of_a_logged_file_system_is_mended_without_a_question() {
    need_tools!("mke2fs", "e2fsck");
    let times: u64 = std::env::var("E2DAX_LOG_TIMES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for (arguments, size) in [
        (&["-t", "ext2", "-b", "1024", "-I", "128"][..], "12M"),
        (&["-t", "ext2", "-b", "4096", "-I", "256"], "40M"),
        (&["-t", "ext3", "-b", "1024", "-J", "size=1", "-I", "256"], "9M"),
    ] {
        let (states, asked) = crash(arguments, size, 5 * times, 29, &logged(), Takes::Sectors);
        println!("{arguments:?}: {states} states, {asked} mended by e2fsck");
        assert!(states > 60 && asked > 1);
    }
}

#[test]
fn every_crash_of_changes_that_were_kept_back_is_mended_without_a_question() {
    need_tools!("mke2fs", "e2fsck");
    let times: u64 = std::env::var("E2DAX_LOG_TIMES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    // So many blocks that e2fsck makes a journal of its own where it finds half of one.
    let small = ["-t", "ext2", "-b", "1024", "-I", "128", "-N", "1024"];
    let large = ["-t", "ext2", "-b", "4096", "-I", "256", "-N", "1024"];
    for (arguments, size, takes, by_e2fsck) in [
        (&small, "2M", Takes::Sectors, 29),
        (&large, "8M", Takes::Sectors, 29),
        (&small, "2M", Takes::Memory(PmemOrder::Lines), 97),
        (&small, "2M", Takes::Memory(PmemOrder::Words), 97),
        (&small, "2M", Takes::Memory(PmemOrder::Program), 1499),
        (&small, "2M", Takes::Beside(PmemOrder::Words), 97),
    ] {
        let (states, asked) = crash(arguments, size, 2 * times, by_e2fsck, &batched(), takes);
        println!("{arguments:?}, {takes:?}: {states} states, {asked} mended by e2fsck");
        assert!(states > 30 && asked > 0);
    }
}

/// All bytes of a device.
fn bytes_of(device: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0; device.size() as usize];
    device.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_kept_back_is_nowhere_on_the_media_and_then_all_of_it() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "12M");
    let device = Arc::new(Recorder::new(RamDevice::from_bytes(&base).unwrap()));
    // Nothing is stored by opening, by a change of names, and by a close after which nothing has changed.
    let fs = Ext2::open(device.clone(), &batched()).unwrap();
    assert!(fs.has_log() && device.take().is_empty());
    let free = fs.statfs().unwrap().blocks_free;
    let root = fs.root().unwrap();
    root.create(b"d", &NewInode::new(FileKind::Directory, 0o755)).unwrap();
    assert_eq!(fs.statfs().unwrap().blocks_free, free - 1);
    root.rmdir(b"d").unwrap();
    assert!(bytes_of(&*device) == base);
    drop(root);
    drop(fs);
    // Of the first, the time of the root is all that changed; of one that changes nothing, nothing.
    let before = bytes_of(&*device);
    Ext2::open(device.clone(), &batched()).unwrap().close().unwrap();
    assert!(bytes_of(&*device) == before);
    device.take();
    // Many changes take four flushes and no fence.
    let fs = Ext2::open(device.clone(), &batched()).unwrap();
    let root = fs.root().unwrap();
    for n in 0..100 {
        file(&root, &format!("f{n}"), &[n; 1500]);
    }
    drop(root);
    fs.close().unwrap();
    let log = device.take();
    let waits = log.iter().filter(|op| matches!(op, RecordedOp::Flush(_) | RecordedOp::Fence(_)));
    assert_eq!(waits.count(), 4);
    assert_eq!(complaint(&bytes_of(&*device)), None);
}

#[test]
fn blocks_that_are_kept_free_for_a_log_are_there_for_who_needs_them() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-m", "0"], "4M");
    let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
    let fs = Ext2::open(device.clone(), &batched()).unwrap();
    assert!(fs.has_log());
    let free = fs.statfs().unwrap().blocks_free;
    let full = file(&fs.root().unwrap(), "full", b"");
    let mut size = 0;
    while let Ok(written @ 1..) = full.write_at(size, &[7; 4096]) {
        size += written as u64;
    }
    // All but the blocks that lead to the others.
    assert!(size / 1024 + 32 > free && !fs.has_log(), "{size} bytes in {free} blocks");
    assert_eq!(fs.statfs().unwrap().blocks_free, 0);
    drop(full);
    fs.close().unwrap();
    assert_eq!(complaint(&bytes_of(&*device)), None);
}

#[test]
fn a_log_with_a_journal_of_its_own_for_each_commit_takes_more_than_one_holds() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "12M");
    let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
    let fs = Ext2::open(device.clone(), &batched()).unwrap();
    let root = fs.root().unwrap();
    for n in 0..2000 {
        root.create(format!("{n}").as_bytes(), &NewInode::new(FileKind::Directory, 0o755)).unwrap();
    }
    drop(root);
    fs.close().unwrap();
    assert_eq!(complaint(&bytes_of(&*device)), None);
    let fs = Ext2::open(device, &OpenOptions::read_only()).unwrap();
    assert_eq!(fs.root().unwrap().entries(0).unwrap().count(), 2003);
}

#[test]
fn a_log_goes_round_and_is_gone_when_the_image_is_closed() {
    need_tools!("mke2fs", "e2fsck", "dumpe2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "12M");
    let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
    let options = logged();
    let free = Ext2::open(device.clone(), &OpenOptions::read_only()).unwrap().statfs().unwrap().blocks_free;
    let fs = Ext2::open(device.clone(), &options).unwrap();
    let root = fs.root().unwrap();
    // Some thousand blocks of log in a log of a thousand.
    for n in 0..300 {
        let inode = file(&root, "f", &[n as u8; 3000]);
        inode.sync().unwrap();
        drop(inode);
        root.unlink(b"f").unwrap();
        if n % 10 == 0 {
            assert!(fs.has_uncommitted());
            fs.sync().unwrap();
            assert!(!fs.has_uncommitted());
        }
    }
    drop(root);
    fs.close().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut bytes = vec![0; base.len()];
    device.read_at(0, &mut bytes).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    tools::e2fsck_fn(&path).unwrap();
    let head = tools::run("dumpe2fs", &["-h", path.to_str().unwrap()]).unwrap();
    assert!(!String::from_utf8_lossy(&head).contains("has_journal"));
    let fs = Ext2::open(device, &OpenOptions::read_only()).unwrap();
    assert_eq!(fs.statfs().unwrap().blocks_free, free);
}

#[test]
fn an_image_without_room_for_a_log_does_without() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "2M");
    let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
    let fs = Ext2::open(device, &logged()).unwrap();
    assert!(!fs.has_log());
    file(&fs.root().unwrap(), "f", &[1; 100]);
    fs.close().unwrap();
}

#[test]
fn a_file_system_that_is_shut_down_is_as_its_last_sync_left_it() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "12M");
    let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
    let options = logged();
    let fs = Ext2::open(device.clone(), &options).unwrap();
    let root = fs.root().unwrap();
    file(&root, "kept", b"kept").sync().unwrap();
    file(&root, "lost", b"lost");
    fs.shut_down();
    assert!(root.create(b"refused", &NewInode::new(FileKind::Regular, 0o644)).is_err());
    drop(root);
    // It cannot be closed cleanly any more, and says so.
    let _ = fs.close();
    let fs = Ext2::open(device, &OpenOptions::read_only()).unwrap();
    keeps(&fs, Some(&BTreeMap::from([("/kept".to_owned(), b"kept".to_vec())])), "after the shutdown");
    assert!(fs.resolve(b"/lost", Follow::No).is_err());
}

#[test]
fn a_file_system_that_is_closed_stores_nothing_when_it_is_shut_down_after_all() {
    let device = Arc::new(ext2_image::mkfs::in_memory(64 << 20).unwrap());
    for options in [OpenOptions::default(), logged(), batched()] {
        let fs = open_as(device.clone(), &options);
        let other = fs.clone();
        assert_eq!(fs.close(), Ok(ext2_core::Closed::Clean));
        let closed = device.to_vec();
        other.shut_down();
        assert!(closed == device.to_vec());
    }
}

/// Parts of what is given up are taken and given up again before a commit.
#[test]
fn what_a_crash_may_bring_back_is_not_stored_over_however_often_parts_of_it_are_given_up() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "12M");
    for options in [logged(), batched()] {
        let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
        let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
        file(&fs.root().unwrap(), "large", &[0xaa; 100 << 10]);
        fs.close().unwrap();
        let fs = Ext2::open(device.clone(), &options).unwrap();
        assert!(fs.has_log());
        let root = fs.root().unwrap();
        root.unlink("large").unwrap();
        for n in 0..30_u8 {
            file(&root, &format!("{n}"), &vec![n; 1 + usize::from(n) * 700]);
            if n % 3 > 0 {
                root.unlink(format!("{}", n - n % 3)).unwrap_or_default();
                root.unlink(format!("{n}")).unwrap();
            }
        }
        file(&root, "last", &[3; 60 << 10]);
        fs.shut_down();
        drop(root);
        let _ = fs.close();
        let large = Ext2::open(device, &OpenOptions::read_only()).unwrap().read("large").unwrap();
        assert!(large.len() == 100 << 10 && large.iter().all(|byte| *byte == 0xaa), "bytes of another file");
    }
}

#[test]
fn what_a_crash_may_bring_back_is_not_given_to_the_host() {
    need_tools!("mke2fs", "e2fsck");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let make = || tools::mke2fs(&["-t", "ext2", "-b", "1024", path.to_str().unwrap(), "12M"]);
    let open = |log: bool| {
        let device = blockdev::FileDevice::open(&path, &blockdev::DeviceOptions::read_write()).unwrap();
        Ext2::open(device, &OpenOptions { log, ..OpenOptions::default() }).unwrap()
    };
    let bytes = vec![7; 200_000];
    for given_back in [false, true] {
        make();
        let fs = open(true);
        let root = fs.root().unwrap();
        let inode = file(&root, "f", &bytes);
        fs.sync().unwrap();
        let runs: Vec<_> = inode.extents().map(|extent| extent.unwrap()).collect();
        root.unlink(b"f").unwrap();
        drop(inode);
        if given_back {
            // Makes it durable that the file is gone.
            assert!(fs.trim(0..u32::MAX, 1).unwrap() > 8000);
        } else {
            for run in &runs {
                let block = u64::from(run.target.unwrap().get());
                fs.device().discard(block * 1024, run.count * 1024).unwrap();
            }
        }
        fs.shut_down();
        drop(root);
        let _ = fs.close();
        let fs = open(false);
        match fs.resolve(b"/f", Follow::No) {
            Ok(inode) => {
                let mut found = vec![0; bytes.len()];
                inode.read_at(0, &mut found).unwrap();
                assert!(!given_back && found == bytes);
            }
            Err(error) => assert!(given_back, "{error}"),
        }
        fs.close().unwrap();
        let holes =
            std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap()) * 512 < 1 << 20;
        assert!(!given_back || holes, "the host has its room back");
        tools::e2fsck_fn(&path).unwrap();
    }
}

/// Whether an image says that a journal has to be replayed.
fn needs_recovery(image: &[u8]) -> bool {
    let word = |at: usize| u32::from_le_bytes(image[1024 + at..1024 + at + 4].try_into().unwrap());
    word(0x5c) & 4 != 0 && word(0x60) & 4 != 0
}

/// What becomes of an image that is replayed, and mended.
fn replayed(image: &[u8]) -> Tree {
    let device = Arc::new(Scratch::new(image.to_vec()));
    ext2_core::replay(&*device).unwrap();
    let outcome = Checker::new().mend(&*device, 1_700_000_000, &mut |_| {}).unwrap();
    assert!(!matches!(outcome, Outcome::Halts(_)), "{outcome:?}");
    tree::read(device).unwrap()
}

/// Attributes that come to be shared change in a journal that is made for the moment. The table of inodes has its inode in the
/// same block as those that its transaction changes.
#[test]
fn a_replay_during_which_the_power_fails_is_done_again() {
    let base = Arc::new(ext2_image::mkfs::in_memory(1 << 20).unwrap());
    let fs = Ext2::open(base.clone(), &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    for name in ["a", "b"] {
        file(&root, name, b"before").xattr_set(b"user.x", b"one", XattrSet::Any).unwrap();
    }
    drop(root);
    fs.close().unwrap();
    let base = base.to_vec();
    let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(&base).unwrap()));
    let sharing = OpenOptions { share_xattrs: true, ..OpenOptions::default() };
    let fs = Ext2::open(recorder.clone(), &sharing).unwrap();
    for name in ["a", "b"] {
        let file = fs.resolve(name, Follow::No).unwrap();
        file.xattr_set(b"user.x", b"two", XattrSet::Any).unwrap();
    }
    fs.close().unwrap();
    let (mut firsts, mut seconds, mut last) = (0, 0, None);
    PmemModel::new(&base, &recorder.snapshot()).order(PmemOrder::Lines).run(|first: &CrashState<'_>| {
        // One of each moment.
        if !needs_recovery(first.image) || last.replace(first.op) == Some(first.op) {
            return ControlFlow::Continue(());
        }
        firsts += 1;
        let once = replayed(first.image);
        let again = Arc::new(Recorder::new(RamDevice::from_bytes(first.image).unwrap()));
        ext2_core::replay(&*again).unwrap();
        let stores = again.snapshot();
        let mut model = PmemModel::new(first.image, &stores).order(PmemOrder::Program);
        model.limits = CrashLimits { exhaustive: 8, edges: 4, pairs: 0, samples: 0, seed: 1 };
        model.run(|second: &CrashState<'_>| {
            seconds += 1;
            assert_eq!(replayed(second.image), once, "{} then {}", first.op, second.op);
            ControlFlow::Continue(())
        });
        ControlFlow::Continue(())
    });
    assert!(firsts > 0 && seconds > firsts, "{firsts} states, {seconds} of a replay");
}
