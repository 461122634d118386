//! A fence that fails may have lost what was stored before it: the image is marked, and whoever syncs is told.

use std::sync::{Arc, Mutex, atomic::Ordering, mpsc};

use blockdev::{BlockDevice, Calls, Fault, Faulty, Media, RamDevice, Result};
use e2dax_tests::{dax, small::create};
use ext2_core::{
    BlockSize, Closed, Errno, Ext2, FileKind, Follow, Inode, NewInode, OnError, OpenOptions, SetAttr,
    Timestamp, Unclean, Wait,
};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
use ext2_image::mkfs::{self, Format, Fresh};

use crate::host::Host;

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
    assert_eq!(a.sync().unwrap_err().errno(), Errno::IO);
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
    let new = fs.root().unwrap().tmpfile(&NewInode::new(FileKind::Regular, 0o600)).unwrap();
    assert!(!host.at_store.is_set());
    new.sync().unwrap_err();
}

#[test]
fn a_loss_in_the_birth_of_a_file_with_a_name_ends_it() {
    let (host, fs) = Host::opened();
    let b = create(&fs, "b");
    fs.sync().unwrap();
    host.store_len.store(usize::from(fs.superblock().inode_size), Ordering::SeqCst);
    host.at_store.set(host.loss_by(&b));
    fs.root().unwrap().create("new", &NewInode::new(FileKind::Regular, 0o600)).unwrap_err();
    assert!(!host.at_store.is_set());
    host.fence().unwrap();
    host.after_power_cut().resolve("new", Follow::No).unwrap_err();
}

/// The device has failed, and who asked it does not know yet.
#[test]
fn who_syncs_a_file_waits_for_a_fence_that_has_failed_and_not_said_so() {
    let (host, fs) = Host::opened();
    let [a, b] = written_anew(&fs);
    let (tell, told) = mpsc::channel();
    host.at_failed.set(move || {
        std::thread::spawn(move || tell.send(a.sync().is_ok()).unwrap());
        // Long enough for it to return, where it does not wait.
        std::thread::sleep(std::time::Duration::from_millis(200));
    });
    host.fails.store(true, Ordering::SeqCst);
    b.write_at(0, &[3; 4096]).unwrap_err();
    let is_durable = told.recv().unwrap();
    assert!(!is_durable);
    assert_eq!(host.after_power_cut().read("a").unwrap()[0], 1);
}

#[test]
fn of_two_who_hold_one_file_the_first_who_syncs_it_is_told_of_a_loss() {
    let (host, fs) = Host::opened();
    let [a, b] = written_anew(&fs);
    let other = fs.resolve("a", Follow::No).unwrap();
    host.loss_by(&b)();
    a.sync().unwrap_err();
    other.sync().unwrap();
}

#[test]
fn a_birth_that_began_before_a_loss_takes_nothing_back_that_was_told_since() {
    let (host, fs) = Host::opened();
    let [a, b, c] = ["a", "b", "c"].map(|name| create(&fs, name));
    fs.sync().unwrap();
    host.loss_by(&c)();
    // A second loss in the midst of the birth, of which somebody is told before that has ended.
    host.store_len.store(usize::from(fs.superblock().inode_size), Ordering::SeqCst);
    let loss = host.loss_by(&c);
    host.at_store.set(move || {
        loss();
        std::thread::spawn(move || b.sync().unwrap_err()).join().unwrap();
    });
    let root = fs.root().unwrap();
    let new = root.tmpfile(&NewInode::new(FileKind::Regular, 0o600)).unwrap();
    assert!(!host.at_store.is_set());
    root.link(&new, "new").unwrap();
    fs.resolve("b", Follow::No).unwrap().sync().unwrap();
    drop(new);
    fs.resolve("new", Follow::No).unwrap().sync().unwrap_err();
    drop(a);
}

#[test]
fn what_the_last_holder_could_not_write_back_is_told_to_who_syncs_the_file_or_the_whole() {
    for is_whole in [false, true] {
        let ram = RamDevice::with_media(12 << 20, Media::Persistent).unwrap();
        let format = Format { block_size: BlockSize::new(4096), ..Format::default() };
        mkfs::format(&ram, &format, Fresh::Zeros).unwrap();
        let device = Arc::new(Faulty::new(ram));
        let options = OpenOptions { errors: Some(OnError::Continue), ..OpenOptions::default() };
        let ext2 = Ext2::open(device.clone(), &options).unwrap();
        let inode = create(&ext2, "f");
        inode.write_at(0, &[1; 4096]).unwrap();
        ext2.sync().unwrap();
        let fs = DaxFs::new(ext2.clone(), DaxOptions::default());
        let file = File::open(&fs, inode.clone(), OpenFor::Writing).unwrap();
        let map = dax::map(&file, 4096);
        map.store(100, 7).unwrap();
        let atime = Timestamp::from_secs(1_000_000);
        inode.set_attr(&SetAttr { atime: Some(atime), ..SetAttr::default() }).unwrap();
        device.arm(Fault::once(Calls::WRITE_BACK, 0));
        drop((map, file, inode));
        assert_eq!(device.fired(), 1);
        let again = ext2.resolve("f", Follow::No).unwrap();
        // What is late is written all the same.
        assert_eq!(again.attr().atime, atime);
        let synced = || if is_whole { ext2.sync() } else { again.sync() };
        synced().unwrap_err();
        synced().unwrap();
    }
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
