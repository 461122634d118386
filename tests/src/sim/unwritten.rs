//! Persistent memory that knows which of its lines were stored to and not written back, so that it can be said of each sync
//! whether it returned too early. Where lines are written back another thread goes on, half of the time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use blockdev::{
    Access, BlockDevice, DaxDevice, Media, PmemSlice, RamDevice, Result, StoreData, StoreObserver, StorePath,
};
use ext2_core::sync::turn;

/// Bytes of a line.
const LINE: u64 = 64;

/// The memory.
#[derive(Debug)]
pub(super) struct Unwritten {
    inner: RamDevice,
    lines: Mutex<Lines>,
}

/// The lines that are in the processor's cache alone, as far as one knows, with the number of the last store to each.
#[derive(Debug, Default)]
struct Lines {
    stores: u64,
    write_backs: u64,
    last: BTreeMap<u64, u64>,
}

impl Unwritten {
    /// Memory with these bytes.
    pub(super) fn new(image: &[u8]) -> Self {
        let inner = RamDevice::with_media(image.len() as u64, Media::Persistent).expect("memory");
        inner.write_at(0, image).expect("memory is written");
        Self { inner, lines: Mutex::default() }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of stores so far.
    pub(super) fn stores(&self) -> u64 {
        self.lines().stores
    }

    /// The byte of a line that one of the first `stores` stores went to, and none after it, and that was not written back.
    pub(super) fn of_first(&self, stores: u64) -> Option<u64> {
        self.lines().last.iter().find(|(_, nr)| **nr <= stores).map(|(line, _)| line * LINE)
    }

    fn written(&self, offset: u64, len: u64) {
        let mut lines = self.lines();
        let (first, after) = (offset / LINE, (offset + len).div_ceil(LINE));
        lines.last.retain(|line, _| !(first..after).contains(line));
    }
}

impl BlockDevice for Unwritten {
    crate::forward!(inner: size, read_at, fence, flush);

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.inner.write_at(offset, buf)?;
        self.written(offset, buf.len() as u64);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.zero(offset, len)?;
        self.written(offset, len);
        Ok(())
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        Some(self)
    }
}

impl DaxDevice for Unwritten {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        let slice = self.inner.direct_access(page, count, mode)?;
        slice.reissue(slice.device_offset(), Some(self))
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.inner.recovery_write(offset, buf)
    }

    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        let is_odd = {
            let mut lines = self.lines();
            lines.write_backs += 1;
            !lines.write_backs.is_multiple_of(2)
        };
        // In half of them another thread does go on, as far as it can.
        if !is_odd || !turn::stuck() {
            turn::pass();
        }
        self.inner.write_back(offset, len)?;
        self.written(offset, len);
        Ok(())
    }

    fn pfn(&self, page: u64) -> u64 {
        self.inner.pfn(page)
    }

    fn observer(&self) -> Option<&dyn StoreObserver> {
        Some(self)
    }
}

impl StoreObserver for Unwritten {
    fn before_store(&self, offset: u64, data: StoreData<'_>, path: StorePath) -> Result<()> {
        if path == StorePath::Cached && !data.is_empty() {
            let mut lines = self.lines();
            lines.stores += 1;
            let nr = lines.stores;
            let all = offset / LINE..(offset + data.len()).div_ceil(LINE);
            lines.last.extend(all.map(|line| (line, nr)));
        }
        Ok(())
    }
}
