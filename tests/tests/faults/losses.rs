//! A fence that fails may have lost what was stored before it: the image is marked, and whoever syncs is told.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use blockdev::{BlockDevice, Error, RamDevice, Result};
use e2dax_tests::small::create;
use ext2_core::{Closed, Ext2, Follow, OpenOptions, SetAttr, Unclean, Wait};
use ext2_image::mkfs::{self, Format, Fresh};

/// A file of a host: what is stored is seen at once, and is on the disk with a flush, which a fence is, too. One that fails says
/// so once, and what it should have written is not written any more.
#[derive(Debug)]
struct Host {
    cache: RamDevice,
    disk: RamDevice,
    dirty: Mutex<Vec<(u64, u64)>>,
    fails: AtomicBool,
}

impl Host {
    fn opened() -> (Arc<Self>, Ext2) {
        let [cache, disk] = [(); 2].map(|()| RamDevice::new(4 << 20).unwrap());
        let host = Self { cache, disk, dirty: Mutex::default(), fails: AtomicBool::new(false) };
        let format = Format { block_size: ext2_core::BlockSize::new(1024), ..Format::default() };
        mkfs::format(&host, &format, Fresh::Zeros).unwrap();
        host.flush().unwrap();
        let host = Arc::new(host);
        let fs = Ext2::open(host.clone(), &OpenOptions::default()).unwrap();
        (host, fs)
    }

    fn stored(&self, at: u64, len: usize) {
        self.dirty.lock().unwrap().push((at, len as u64));
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
        self.fence()
    }
}

#[test]
fn who_syncs_a_file_is_told_once_that_somebody_elses_fence_failed() {
    let (host, fs) = Host::opened();
    let [a, b] = ["a", "b"].map(|name| create(&fs, name));
    a.write_at(0, &[1; 4096]).unwrap();
    fs.sync().unwrap();
    a.write_at(0, &[2; 4096]).unwrap();
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
    // Who had let go of a file may have left something in it.
    fs.resolve("b", Follow::No).unwrap().sync().unwrap_err();
    fs.sync().unwrap_err();
    fs.sync().unwrap();
    assert!(host.is_marked());
    drop((a, later));
    assert_eq!(fs.close().unwrap(), Closed::Unclean(Unclean::Errors));
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
