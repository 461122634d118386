//! A file of a host that loses what it could not write.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use blockdev::{BlockDevice, Error, RamDevice, Result};
use e2dax_tests::Hook;
use ext2_core::{BlockSize, Ext2, Inode, OpenOptions, SetAttr};
use ext2_image::mkfs::{self, Format, Fresh};

/// A file of a host: what is stored is seen at once, and is on the disk with a flush, which a fence is, too. One that fails says
/// so once, and what it should have written is not written any more.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) cache: RamDevice,
    pub(crate) disk: RamDevice,
    dirty: Mutex<Vec<(u64, u64)>>,
    pub(crate) fails: AtomicBool,
    /// Before the next flush does its work.
    pub(crate) at_flush: Hook,
    /// When a fence or flush has failed, before it says so.
    pub(crate) at_failed: Hook,
    /// After the next store of so many bytes, of any number where that is 0.
    pub(crate) at_store: Hook,
    pub(crate) store_len: AtomicUsize,
    /// How many such stores come before it.
    pub(crate) stores_before: AtomicUsize,
}

impl Host {
    pub(crate) fn opened() -> (Arc<Self>, Ext2) {
        Self::opened_with(&OpenOptions::default())
    }

    pub(crate) fn opened_with(options: &OpenOptions) -> (Arc<Self>, Ext2) {
        let host = Self::formatted(16);
        let fs = Ext2::open(host.clone(), options).unwrap();
        (host, fs)
    }

    /// A file of so many MiB, with an empty file system.
    pub(crate) fn formatted(mib: usize) -> Arc<Self> {
        let host = Self::of(&vec![0; mib << 20]);
        let format = Format { block_size: BlockSize::new(1024), ..Format::default() };
        mkfs::format(&host, &format, Fresh::Zeros).unwrap();
        host.flush().unwrap();
        Arc::new(host)
    }

    /// A file with these bytes, all of them on the disk.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let [cache, disk] = [(); 2].map(|()| RamDevice::from_bytes(bytes).unwrap());
        Self {
            cache,
            disk,
            dirty: Mutex::default(),
            fails: AtomicBool::new(false),
            at_flush: Hook::default(),
            at_failed: Hook::default(),
            at_store: Hook::default(),
            store_len: AtomicUsize::new(0),
            stores_before: AtomicUsize::new(0),
        }
    }

    fn stored(&self, at: u64, len: usize) {
        self.dirty.lock().unwrap().push((at, len as u64));
        let wanted = self.store_len.load(Ordering::SeqCst);
        let is_meant = self.at_store.is_set() && (wanted == 0 || wanted == len);
        let fewer = |before: usize| before.checked_sub(1);
        if is_meant && self.stores_before.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_err() {
            self.at_store.run();
        }
    }

    /// What a power cut leaves, opened.
    pub(crate) fn after_power_cut(&self) -> Ext2 {
        Ext2::open(RamDevice::from_bytes(&self.disk.to_vec()).unwrap(), &OpenOptions::default()).unwrap()
    }

    /// A write of somebody else's to this file, whose fence fails.
    pub(crate) fn loss_by(self: &Arc<Self>, other: &Inode) -> impl FnOnce() + Send + use<> {
        let (host, other) = (self.clone(), other.clone());
        let write = move || {
            host.fails.store(true, Ordering::SeqCst);
            other.write_at(other.size().next_multiple_of(1024), &[3; 1024]).unwrap_err();
        };
        || std::thread::spawn(write).join().unwrap()
    }

    /// A chmod of somebody else's, who waits for no lock that a change may hold and whose fence fails.
    pub(crate) fn loss_by_chmod(self: &Arc<Self>, other: &Inode) -> impl FnOnce() + Send + use<> {
        let (host, other) = (self.clone(), other.clone());
        let chmod = move || {
            host.fails.store(true, Ordering::SeqCst);
            other.set_attr(&SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap_err();
        };
        || std::thread::spawn(chmod).join().unwrap()
    }

    pub(crate) fn is_marked(&self) -> bool {
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
            self.at_failed.run();
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
