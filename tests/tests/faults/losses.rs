//! A fence that fails may have lost what was stored before it: the image is marked, and whoever syncs is told.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use blockdev::{BlockDevice, Error, RamDevice, Result};
use e2dax_tests::{Hook, small::create};
use ext2_core::{Closed, Ext2, Follow, Inode, OpenOptions, SetAttr, Unclean, Wait};
use ext2_image::mkfs::{self, Format, Fresh};

/// A file of a host: what is stored is seen at once, and is on the disk with a flush, which a fence is, too. One that fails says
/// so once, and what it should have written is not written any more.
#[derive(Debug)]
struct Host {
    cache: RamDevice,
    disk: RamDevice,
    dirty: Mutex<Vec<(u64, u64)>>,
    fails: AtomicBool,
    /// Before the next flush does its work.
    at_flush: Hook,
    /// After the next store of so many bytes.
    at_store: Hook,
    store_len: AtomicUsize,
}

impl Host {
    fn opened() -> (Arc<Self>, Ext2) {
        Self::opened_with(&OpenOptions::default())
    }

    fn opened_with(options: &OpenOptions) -> (Arc<Self>, Ext2) {
        let [cache, disk] = [(); 2].map(|()| RamDevice::new(16 << 20).unwrap());
        let host = Self {
            cache,
            disk,
            dirty: Mutex::default(),
            fails: AtomicBool::new(false),
            at_flush: Hook::default(),
            at_store: Hook::default(),
            store_len: AtomicUsize::new(0),
        };
        let format = Format { block_size: ext2_core::BlockSize::new(1024), ..Format::default() };
        mkfs::format(&host, &format, Fresh::Zeros).unwrap();
        host.flush().unwrap();
        let host = Arc::new(host);
        let fs = Ext2::open(host.clone(), options).unwrap();
        (host, fs)
    }

    fn stored(&self, at: u64, len: usize) {
        self.dirty.lock().unwrap().push((at, len as u64));
        if len == self.store_len.load(Ordering::SeqCst) {
            self.at_store.run();
        }
    }

    /// What a power cut leaves, opened.
    fn after_power_cut(&self) -> Ext2 {
        Ext2::open(RamDevice::from_bytes(&self.disk.to_vec()).unwrap(), &OpenOptions::default()).unwrap()
    }

    /// A write of somebody else's to this file, whose fence fails.
    fn loss_by(self: &Arc<Self>, other: &Inode) -> impl FnOnce() + Send + use<> {
        let (host, other) = (self.clone(), other.clone());
        let write = move || {
            host.fails.store(true, Ordering::SeqCst);
            other.write_at(other.size().next_multiple_of(1024), &[3; 1024]).unwrap_err();
        };
        || std::thread::spawn(write).join().unwrap()
    }

    fn is_marked(&self) -> bool {
        self.disk.to_vec()[1024 + 58] & 2 != 0
    }
}

impl BlockDevice for Host {
    e2dax_tests::forward!(cache: size, read_at);

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.cache.write_at(offset, buf)?;
        self.stored(offset, buf.len());
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.cache.zero(offset, len)?;
        self.stored(offset, len as usize);
        Ok(())
    }

    fn fence(&self) -> Result<()> {
        let dirty = std::mem::take(&mut *self.dirty.lock().unwrap());
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(Error::Io { op: "flush", offset: 0, errno: Some(5), message: "lost".into() });
        }
        for (at, len) in dirty {
            let mut bytes = vec![0; len as usize];
            self.cache.read_at(at, &mut bytes)?;
            self.disk.write_at(at, &bytes)?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.at_flush.run();
        self.fence()
    }
}

/// A file that is written anew since it was synced, and one that is empty.
fn written_anew(fs: &Ext2) -> [Inode; 2] {
    let [a, b] = ["a", "b"].map(|name| create(fs, name));
    a.write_at(0, &[1; 4096]).unwrap();
    fs.sync().unwrap();
    a.write_at(0, &[2; 4096]).unwrap();
    [a, b]
}

#[test]
fn who_syncs_a_file_is_told_once_that_somebody_elses_fence_failed() {
    let (host, fs) = Host::opened();
    let [a, b] = written_anew(&fs);
    host.fails.store(true, Ordering::SeqCst);
    b.write_at(0, &[3; 4096]).unwrap_err();
    let later = create(&fs, "later");
    later.write_at(0, &[4; 4096]).unwrap();
    assert_eq!(a.sync().unwrap_err().errno(), ext2_core::Errno::IO);
    // Written again, it is there.
    a.write_at(0, &[2; 4096]).unwrap();
    a.sync().unwrap();
    // What was made since is no part of it.
    later.sync().unwrap();
    drop(b);
    // Who has let go of a file may have left something in it.
    fs.resolve("b", Follow::No).unwrap().sync().unwrap_err();
    fs.resolve("b", Follow::No).unwrap().sync().unwrap();
    fs.sync().unwrap_err();
    fs.sync().unwrap();
    assert!(host.is_marked());
    drop((a, later));
    assert_eq!(fs.close().unwrap(), Closed::Unclean(Unclean::Errors));
}

#[test]
fn a_file_that_nobody_held_is_told_once_however_often_it_is_opened() {
    let (host, fs) = Host::opened();
    let [a, kept, other] = ["a", "kept", "other"].map(|name| create(&fs, name));
    kept.write_at(0, &[1; 1024]).unwrap();
    fs.sync().unwrap();
    other.write_at(0, &[1; 1024]).unwrap();
    drop((kept, other));
    // A look keeps nothing from being told.
    assert_eq!(fs.metadata("other").unwrap().size, 1024);
    host.loss_by(&a)();
    let told = |name: &str, nr: u8| {
        let file = fs.resolve(name, Follow::No).unwrap();
        file.write_at(0, &[nr; 1024]).unwrap();
        file.sync().is_err()
    };
    assert_eq!([told("other", 1), told("other", 2), told("other", 3)], [true, false, false]);
    // One that is made of its number has lost nothing.
    fs.remove_file("other").unwrap();
    drop(create(&fs, "new"));
    assert_eq!([told("new", 1), told("new", 2)], [false, false]);
    fs.sync().unwrap_err();
    assert_eq!([told("kept", 1), told("kept", 2)], [false, false]);
}

#[test]
fn set_id_bits_that_are_taken_among_other_changes_are_waited_for_by_others() {
    let (host, fs) = Host::opened_with(&OpenOptions { log: true, ..OpenOptions::default() });
    let tool = tool(&fs);
    fs.together(|| tool.strip_setid()).unwrap();
    // Whoever is not within.
    tool.strip_setid().unwrap();
    tool.write_at(0, &[2; 1024]).unwrap();
    let left = RamDevice::from_bytes(&host.cache.to_vec()).unwrap();
    let again = Ext2::open(left, &OpenOptions::default()).unwrap();
    assert_eq!(again.resolve("tool", Follow::No).unwrap().attr().mode, 0o777);
}

#[test]
fn a_loss_while_a_file_is_synced_is_told_by_that_sync() {
    let (host, fs) = Host::opened();
    let [a, b] = written_anew(&fs);
    host.at_flush.set(host.loss_by(&b));
    a.sync().unwrap_err();
    assert_eq!(host.after_power_cut().read("a").unwrap()[0], 1);
    a.sync().unwrap();
}

#[test]
fn a_loss_in_the_birth_of_a_file_is_told_to_who_syncs_it() {
    let (host, fs) = Host::opened();
    let b = create(&fs, "b");
    fs.sync().unwrap();
    let size = usize::from(fs.superblock().inode_size);
    host.store_len.store(size, Ordering::SeqCst);
    host.at_store.set(host.loss_by(&b));
    let new = create(&fs, "new");
    assert!(!host.at_store.is_set());
    new.sync().unwrap_err();
}

/// A file that anybody may write to as its owner, durably.
fn tool(fs: &Ext2) -> Inode {
    let tool = create(fs, "tool");
    tool.write_at(0, &[1; 1024]).unwrap();
    tool.set_attr(&SetAttr { mode: Some(0o4777), ..SetAttr::default() }).unwrap();
    fs.sync().unwrap();
    tool
}

#[test]
fn set_id_bits_whose_loss_failed_are_taken_again_before_anything_is_written() {
    for log in [true, false] {
        let (host, fs) = Host::opened_with(&OpenOptions { log, ..OpenOptions::default() });
        let tool = tool(&fs);
        host.fails.store(true, Ordering::SeqCst);
        tool.strip_setid().unwrap_err();
        let again = tool.strip_setid().and_then(|()| tool.write_at(0, &[2; 1024]));
        assert_eq!(again.is_ok(), !log, "{again:?}");
        drop(tool);
        let _ = fs.close();
        host.fence().unwrap();
        let left = host.after_power_cut();
        let mode = left.resolve("tool", Follow::No).unwrap().attr().mode;
        let is_new = left.read("tool").unwrap()[0] == 2;
        assert!(mode & 0o4000 == 0 || !is_new, "{mode:o}");
    }
}

#[test]
fn who_finds_set_id_bits_gone_waits_for_the_media_too() {
    let (host, fs) = Host::opened_with(&OpenOptions { log: true, ..OpenOptions::default() });
    let tool = tool(&fs);
    let (second, known, (tell, told)) = (tool.clone(), host.clone(), std::sync::mpsc::channel());
    // In the middle of the first one's commit.
    host.at_flush.set(move || {
        std::thread::spawn(move || {
            second.strip_setid().unwrap();
            second.write_at(0, &[2; 1024]).unwrap();
            // As a process leaves it that is killed.
            let left = RamDevice::from_bytes(&known.cache.to_vec()).unwrap();
            let again = Ext2::open(left, &OpenOptions::default()).unwrap();
            let mode = again.resolve("tool", Follow::No).unwrap().attr().mode;
            tell.send((mode, again.read("tool").unwrap()[0])).unwrap();
        });
        std::thread::sleep(std::time::Duration::from_millis(200));
    });
    tool.strip_setid().unwrap();
    assert_eq!(told.recv().unwrap(), (0o777, 2));
}

type Work = fn(&Ext2) -> ext2_core::Result<()>;

#[test]
fn an_image_is_marked_whichever_fence_fails() {
    fn rights(mode: u16) -> SetAttr {
        SetAttr { uid: Some(70_000), gid: Some(80_000), mode: Some(mode), ..SetAttr::default() }
    }
    let works: [(&str, Work); 7] = [
        ("write", |fs| fs.resolve("f", Follow::No)?.write_at(20 << 10, &[1; 3000]).map(drop)),
        ("grow", |fs| fs.resolve("f", Follow::No)?.truncate(9000, Wait::Yes)),
        ("shrink", |fs| fs.resolve("g", Follow::No)?.truncate(100, Wait::Yes)),
        ("chown", |fs| fs.resolve("f", Follow::No)?.set_attr(&rights(0o750))),
        ("strip", |fs| fs.resolve("s", Follow::No)?.strip_setid()),
        ("mkdir", |fs| fs.create_dir("n")),
        ("rename", |fs| fs.rename_path("f", "n")),
    ];
    for (name, work) in works {
        for nth in 0.. {
            let (host, fs) = Host::opened();
            fs.write("f", [5; 500]).unwrap();
            fs.write("g", [5; 60_000]).unwrap();
            create(&fs, "s").set_attr(&SetAttr { mode: Some(0o4755), ..SetAttr::default() }).unwrap();
            fs.sync().unwrap();
            let counted = Arc::new(Nth { host: host.clone(), left: Mutex::new(u64::MAX / 2) });
            fs.close().unwrap();
            let fs = Ext2::open(counted.clone(), &OpenOptions::default()).unwrap();
            *counted.left.lock().unwrap() = nth;
            let done = work(&fs);
            let left = std::mem::replace(&mut *counted.left.lock().unwrap(), u64::MAX / 2);
            // None failed.
            if left < u64::MAX / 4 {
                done.unwrap();
                assert!(nth > 0, "{name} makes no fence");
                break;
            }
            assert!(matches!(fs.close().unwrap(), Closed::Unclean(_)), "{name}, fence {nth}");
            assert!(host.is_marked(), "{name}, fence {nth}");
        }
    }
}

/// Of whose fences one fails.
#[derive(Debug)]
struct Nth {
    host: Arc<Host>,
    /// Fences before it; past it from the end down.
    left: Mutex<u64>,
}

impl BlockDevice for Nth {
    e2dax_tests::forward!(host: size, read_at, write_at, zero, flush);

    fn fence(&self) -> Result<()> {
        let mut left = self.left.lock().unwrap();
        *left = left.wrapping_sub(1);
        if *left == u64::MAX {
            self.host.fails.store(true, Ordering::SeqCst);
        }
        self.host.fence()
    }
}
