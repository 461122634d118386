//! A device of memory that notes what is written back, gives its memory in runs of a few pages, and fails when it is told to.

use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use blockdev::{Access, BlockDevice, DaxDevice, Error, Media, PmemSlice, RamDevice, Result};

#[derive(Debug)]
pub(crate) struct Noted {
    inner: RamDevice,
    /// Pages of the longest run that is given.
    pub(crate) longest: AtomicU64,
    /// How often the device writes back before it fails.
    pub(crate) good: AtomicU64,
    written: Mutex<Vec<(u64, u64)>>,
    /// How often it was flushed.
    pub(crate) flushed: AtomicU64,
}

impl Noted {
    pub(crate) fn new(size: u64) -> Self {
        Self::with_media(size, Media::Volatile)
    }

    pub(crate) fn with_media(size: u64, media: Media) -> Self {
        let inner = RamDevice::with_media(size, media).unwrap();
        let (longest, good) = (AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX));
        Self { inner, longest, good, written: Mutex::new(Vec::new()), flushed: AtomicU64::new(0) }
    }

    /// What was written back since the last call, first bytes and lengths.
    pub(crate) fn written(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.written.lock().unwrap())
    }
}

impl Deref for Noted {
    type Target = RamDevice;
    fn deref(&self) -> &RamDevice {
        &self.inner
    }
}

impl BlockDevice for Noted {
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.inner.write_at(offset, buf)
    }
    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.zero(offset, len)
    }
    fn fence(&self) -> Result<()> {
        self.inner.fence()
    }
    fn flush(&self) -> Result<()> {
        self.flushed.fetch_add(1, Ordering::SeqCst);
        self.inner.flush()
    }
    fn dax(&self) -> Option<&dyn DaxDevice> {
        Some(self)
    }
}

impl DaxDevice for Noted {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        self.inner.direct_access(page, count.min(self.longest.load(Ordering::SeqCst)), mode)
    }
    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.inner.recovery_write(offset, buf)
    }
    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        let good = self.good.load(Ordering::SeqCst);
        if good == 0 {
            return Err(Error::Poisoned { offset });
        }
        self.good.store(good - 1, Ordering::SeqCst);
        self.written.lock().unwrap().push((offset, len));
        self.inner.write_back(offset, len)
    }
    fn pfn(&self, page: u64) -> u64 {
        self.inner.pfn(page)
    }
}
