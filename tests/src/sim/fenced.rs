//! Memory that knows what was in it behind the last flush, or fence: what a disk is sure to have.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use blockdev::{BlockDevice, Calls, Claim, DaxDevice, Result};

use crate::{Hook, ShortRuns};

/// What a disk has, and which bytes of memory it gets with the next fence.
#[derive(Debug)]
struct Disk {
    bytes: Vec<u8>,
    dirty: Vec<(u64, u64)>,
}

/// Memory, and what was in it behind the last call of some kinds, where that is kept.
#[derive(Debug)]
pub(super) struct Fenced {
    ram: ShortRuns,
    kept: Mutex<Option<(Calls, Vec<u8>)>>,
    disk: Mutex<Option<Disk>>,
    /// In the midst of a change, and after how many more stores.
    between: Hook,
    stores_before: AtomicU64,
}

impl Fenced {
    pub(super) fn new(ram: ShortRuns) -> Self {
        Self {
            ram,
            kept: Mutex::new(None),
            disk: Mutex::new(None),
            between: Hook::default(),
            stores_before: AtomicU64::new(0),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Option<(Calls, Vec<u8>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is there now, and then behind each call of these kinds.
    pub(super) fn keep(&self, calls: Calls) {
        *self.kept() = Some((calls, self.to_vec()));
    }

    /// Ends that, and gives what was there behind the last one.
    pub(super) fn take_kept(&self) -> Vec<u8> {
        self.kept().take().map_or_else(|| self.to_vec(), |(_, bytes)| bytes)
    }

    fn disk(&self) -> MutexGuard<'_, Option<Disk>> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a disk from now on that has what is there, and gets what is stored (but through the memory) with each fence. After so
    /// many stores `between` is done.
    pub(super) fn begin_disk(&self, stores_before: u64, between: impl FnOnce() + Send + 'static) {
        *self.disk() = Some(Disk { bytes: self.to_vec(), dirty: Vec::new() });
        self.stores_before.store(stores_before, Ordering::SeqCst);
        self.between.set(between);
    }

    /// A fence has failed: the disk never gets what was stored.
    pub(super) fn lose(&self) {
        if let Some(disk) = &mut *self.disk() {
            disk.dirty.clear();
        }
    }

    /// What the disk has. None where nothing was done between.
    pub(super) fn take_disk(&self) -> Option<Vec<u8>> {
        let was_set = self.between.clear();
        self.disk().take().map(|disk| disk.bytes).filter(|_| !was_set)
    }

    fn stored(&self, at: u64, len: u64) {
        match &mut *self.disk() {
            Some(disk) => disk.dirty.push((at, len)),
            None => return,
        }
        let fewer = |before: u64| before.checked_sub(1);
        if self.stores_before.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_err() {
            self.between.run();
        }
    }

    /// The disk gets what was stored.
    fn written(&self) -> Result<()> {
        let Some(disk) = &mut *self.disk() else { return Ok(()) };
        for (at, len) in std::mem::take(&mut disk.dirty) {
            let place = disk.bytes.get_mut(at as usize..(at + len) as usize);
            place.map_or(Ok(()), |place| self.ram.read_at(at, place))?;
        }
        Ok(())
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.ram.ram.to_vec()
    }

    fn called(&self, call: Calls) {
        if let Some((calls, kept)) = &mut *self.kept()
            && calls.contains(call)
        {
            *kept = self.to_vec();
        }
    }
}

impl BlockDevice for Fenced {
    crate::forward!(ram: size, read_at);

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.ram.write_at(offset, buf)?;
        self.stored(offset, buf.len() as u64);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.ram.zero(offset, len)?;
        self.stored(offset, len);
        Ok(())
    }

    fn fence(&self) -> Result<()> {
        self.ram.fence()?;
        self.called(Calls::FENCE);
        self.written()
    }

    fn flush(&self) -> Result<()> {
        self.ram.flush()?;
        self.called(Calls::FLUSH);
        self.written()
    }

    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        self.ram.claim(offset, len)
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        self.ram.dax()
    }
}
