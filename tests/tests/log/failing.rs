//! A device that fails once, or for good, while what a log keeps is brought to it: what was synced is there, and whoever goes on
//! afterwards does so, or is told that it cannot be.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice, Repeat};
use e2dax_tests::{
    Scratch, need_tools,
    small::{batched, file, image_of, logged, open_as},
    tree,
};
use ext2_core::plumbing::Plumbing as _;
use ext2_core::{Closed, Errno, Ext2, FileKind, NewInode, OnError, OpenOptions, Unclean, XattrSet};
use ext2_image::check::{Checker, Outcome};

/// The calls that fail.
const CALLS: [Calls; 2] = [Calls::READ, Calls::all()];
/// At how many of its calls it fails.
const MOST: u64 = 3;

/// In what the device fails.
#[derive(Clone, Copy, Debug)]
enum When {
    Sync,
    Close,
}

/// Brings it all to the device.
fn end(fs: &Ext2, when: When) -> ext2_core::Result<()> {
    match when {
        When::Sync => fs.sync(),
        When::Close => fs.clone().close().map(drop),
    }
}

/// A file that is promised, and what was changed since.
fn begin(base: &[u8], options: &OpenOptions) -> (Arc<Faulty<RamDevice>>, Ext2) {
    let device = Arc::new(Faulty::new(RamDevice::from_bytes(base).expect("memory")));
    let fs = Ext2::open(device.clone(), options).unwrap();
    assert!(fs.has_log());
    let root = fs.root().unwrap();
    file(&root, "promised", &[1; 3000]);
    fs.sync().unwrap();
    let dir = root.create(b"dir", &NewInode::new(FileKind::Directory, 0o755)).unwrap();
    file(&dir, "since", &[2; 20_000]);
    drop((root, dir));
    (device, fs)
}

/// Lets it fail, and goes on.
fn fail(base: &[u8], options: &OpenOptions, when: When, fault: Fault) -> Result<(), String> {
    let (device, fs) = begin(base, options);
    device.arm(fault);
    let done = end(&fs, when);
    if fault.repeat == Repeat::Once {
        device.disarm();
    }
    // As much as a log has blocks, so that whoever takes them is seen.
    let more = || {
        let inode = fs.root()?.create(b"more", &NewInode::new(FileKind::Regular, 0o644))?;
        inode.write_at(0, &[3; 1 << 20])
    };
    let more = more().is_ok_and(|len| len == 1 << 20);
    let closed = fs.close();
    device.disarm();
    let left = Arc::new(Scratch::new(device.inner().to_vec()));
    ext2_core::replay(&*left).map_err(|error| error.to_string())?;
    let mended = match Checker::new().mend(&*left, 1_700_000_000, &mut |_| {}) {
        Ok(Outcome::Clean) => 0,
        Ok(Outcome::Mended(findings)) => findings,
        other => return Err(format!("{other:?}; {done:?}, {more}, {closed:?}")),
    };
    let found = tree::read(left)?;
    let has = |path: &str, bytes: &[u8]| match found.get(path.as_bytes()) {
        Some(node) if node.content == bytes => Ok(()),
        _ => Err(format!("{path} is not there; {done:?}, {more}, {closed:?}")),
    };
    has("/promised", &[1; 3000])?;
    if done.is_ok() || closed.is_ok() {
        has("/dir/since", &[2; 20_000])?;
    }
    if closed == Ok(Closed::Clean) {
        if more {
            has("/more", &[3; 1 << 20])?;
        }
        if mended > 0 {
            return Err(format!("called clean, and {mended} findings: {done:?}, {more}"));
        }
    }
    Ok(())
}

#[test]
fn what_was_kept_back_goes_out_although_an_error_was_found() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-e", "remount-ro"], "12M");
    let device = Arc::new(Scratch::new(base));
    let fs = open_as(device.clone(), &batched());
    file(&fs.root().unwrap(), "before", &[1; 3000]);
    let error = fs.root().unwrap().lookup(b"before").unwrap().lookup(b"x").unwrap_err();
    fs.note_broken(&error);
    assert!(fs.is_read_only());
    assert_eq!(fs.close().unwrap(), Closed::Unclean(Unclean::Errors));
    ext2_core::replay(&*device).unwrap();
    assert!(matches!(Checker::new().mend(&*device, 1_700_000_000, &mut |_| {}).unwrap(), Outcome::Mended(_)));
    assert_eq!(tree::read(device).unwrap()[&b"/before"[..]].content, [1; 3000]);
}

#[test]
fn a_device_that_fails_while_a_log_goes_out_costs_nothing_that_was_promised() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "12M");
    let mut problems = Vec::new();
    let mut faults = 0;
    for (options, when) in
        [batched(), logged()].iter().flat_map(|options| [(options, When::Sync), (options, When::Close)])
    {
        for calls in CALLS {
            let (device, fs) = begin(&base, options);
            device.arm(Fault::once(calls, u64::MAX));
            end(&fs, when).unwrap();
            let count = device.counted();
            device.disarm();
            drop(fs);
            assert!(count > 0, "{when:?}: {count}");
            for after in (0..count).step_by(count.div_ceil(MOST) as usize) {
                let faults_of = [Fault::once(calls, after), Fault::from_then_on(calls, after)];
                for fault in faults_of.into_iter().take(if calls == Calls::READ { 1 } else { 2 }) {
                    faults += 1;
                    if let Err(problem) = fail(&base, options, when, fault) {
                        problems.push(format!("batch {}, {when:?}, {fault:?}: {problem}", options.batch));
                    }
                }
            }
        }
    }
    println!("{faults} faults");
    let first: Vec<_> = problems.iter().take(20).collect();
    assert!(first.is_empty(), "{} problems: {first:#?}", problems.len());
}

/// What a commit still has as a file's is nobody else's to store to, however many syncs follow one that failed.
#[test]
fn after_a_commit_that_failed_no_file_shows_what_was_stored_to_another() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "64"], "16M");
    for after in 0.. {
        let device = Arc::new(Faulty::new(RamDevice::from_bytes(&base).unwrap()));
        let fs = open_as(device.clone(), &logged());
        let root = fs.root().unwrap();
        file(&root, "removed", &vec![1; 3 << 20]);
        // Twice, so that it is in its place.
        (0..2).for_each(|_| fs.sync().unwrap());
        root.unlink("removed").unwrap();
        device.arm(Fault::once(Calls::WRITE | Calls::FLUSH, after));
        let failed = fs.sync();
        let fired = device.fired() > 0;
        device.disarm();
        if !fired {
            assert!(after > 3 && failed.is_ok());
            break;
        }
        let synced = [fs.sync(), fs.sync()];
        let written = [0, 1, 2, 3, 4].map(|nr| fs.write(format!("{nr}"), vec![2; 2 << 20]));
        // The power fails.
        let left =
            Ext2::open(RamDevice::from_bytes(&device.inner().to_vec()).unwrap(), &OpenOptions::default());
        let others = match left.unwrap().read("removed") {
            Ok(bytes) => bytes.iter().filter(|byte| **byte != 1).count(),
            Err(_) => 0,
        };
        assert_eq!(others, 0, "call {after}: {failed:?}, {synced:?}, {written:?}");
    }
}

/// Contents go past the log: without a commit to come they would be there beside rights that were taken before.
#[test]
fn after_a_commit_that_failed_nothing_is_changed_any_more() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "64"], "16M");
    for (errors, options) in [OnError::Continue, OnError::RemountRo]
        .into_iter()
        .flat_map(|errors| [logged(), batched()].map(|options| (errors, options)))
    {
        let device = Arc::new(Faulty::new(RamDevice::from_bytes(&base).unwrap()));
        let fs = open_as(device.clone(), &OpenOptions { errors: Some(errors), ..options });
        let tool = file(&fs.root().unwrap(), "tool", &[1; 4096]);
        tool.xattr_set(b"security.capability", b"cap", XattrSet::Any).unwrap();
        (0..2).for_each(|_| fs.sync().unwrap());
        device.arm(Fault::once(Calls::FLUSH, 0));
        tool.take_xattr(b"security.capability").unwrap_err();
        assert_eq!(device.fired(), 1);
        device.disarm();
        let written = [0, 1].map(|_| tool.write_at(0, &[2; 4096]).unwrap_err().errno());
        let made = fs.write("made", [3; 10]).unwrap_err().errno();
        let synced = [tool.sync(), fs.sync()].map(|synced| synced.unwrap_err().errno());
        let last = if errors == OnError::RemountRo { Errno::ROFS } else { Errno::IO };
        assert_eq!((written, made, synced), ([Errno::IO, last], last, [Errno::IO; 2]), "{errors:?}");
        assert_eq!(fs.is_read_only(), errors == OnError::RemountRo);
        assert!(fs.close().unwrap_err().is(Errno::IO));
        let left = RamDevice::from_bytes(&device.inner().to_vec()).unwrap();
        assert_eq!(Ext2::open(left, &OpenOptions::default()).unwrap().read("tool").unwrap(), [1; 4096]);
    }
}

/// A device of which one flush fails, and takes what was stored since the one before it along. Where it is the next, whoever
/// waits for that may go on first.
#[derive(Debug)]
struct Losing {
    inner: RamDevice,
    flushes: AtomicU64,
    fails: u64,
    durable: Mutex<Vec<u8>>,
    meets: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl BlockDevice for Losing {
    e2dax_tests::forward!(inner: size, read_at, write_at, zero, fence);

    fn flush(&self) -> blockdev::Result<()> {
        let nr = self.flushes.fetch_add(1, Ordering::SeqCst) + 1;
        if nr == self.fails {
            self.inner.write_at(0, &self.durable.lock().unwrap())?;
            return Err(blockdev::Error::Unsupported("a flush that fails"));
        }
        *self.durable.lock().unwrap() = self.inner.to_vec();
        if nr + 1 == self.fails
            && let Some((tell, go)) = &*self.meets.lock().unwrap()
        {
            tell.send(()).unwrap();
            go.recv().unwrap();
        }
        Ok(())
    }
}

/// Fills the image of a batch until that is given up; before this flush, which fails, another thread stores to a file. Gives
/// how many flushes there were.
fn give_up(base: &[u8], fails: u64) -> u64 {
    let ((tell, told), (go, gone)) = (channel(), channel());
    let device = Arc::new(Losing {
        inner: RamDevice::from_bytes(base).unwrap(),
        flushes: AtomicU64::new(0),
        fails,
        durable: Mutex::new(base.to_vec()),
        meets: Mutex::new(Some((tell, gone))),
    });
    let fs = open_as(device.clone(), &batched());
    let kept = file(&fs.root().unwrap(), "kept", &[1; 4096]);
    (0..2).for_each(|_| fs.sync().unwrap());
    let own = kept.clone();
    let other = thread::spawn(move || {
        if told.recv().is_ok() {
            own.write_at(0, &[2; 4096]).unwrap();
            go.send(()).unwrap();
        }
    });
    (0..).find(|nr| fs.write(format!("{nr}"), vec![1; 100 << 10]).is_err() || !fs.has_log());
    let flushes = device.flushes.load(Ordering::SeqCst);
    *device.meets.lock().unwrap() = None;
    other.join().unwrap();
    if fails != u64::MAX {
        let synced = (kept.sync(), fs.sync());
        let durable = RamDevice::from_bytes(&device.durable.lock().unwrap()).unwrap();
        let left = Ext2::open(durable, &OpenOptions::read_only()).unwrap().read("kept").unwrap();
        assert!(synced.0.is_err() && synced.1.is_err() || left == [2; 4096], "flush {fails}: {synced:?}");
    }
    flushes
}

#[test]
fn a_flush_that_fails_as_a_batch_is_given_up_is_told_to_who_stored_before_it() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "512", "-m", "0"], "16M");
    let flushes = give_up(&base, u64::MAX);
    for fails in flushes - 2..=flushes {
        give_up(&base, fails);
    }
}
