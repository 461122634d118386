//! Persistent memory that knows which of its lines were stored to and not written back, so that it can be said of each sync
//! whether it returned too early. Where lines are written back another thread goes on, half of the time.

use std::{
    collections::BTreeMap,
    mem::offset_of,
    sync::{Mutex, MutexGuard, PoisonError},
};

use blockdev::{
    Access, BlockDevice, DaxDevice, Media, PmemSlice, RamDevice, Result, StoreData, StoreObserver, StorePath,
};
use ext2_core::{Ext2, Inode, raw::RawInode, sync::turn};

/// Bytes of a line.
const LINE: u64 = 64;

/// The memory.
#[derive(Debug)]
pub(super) struct Unwritten {
    inner: RamDevice,
    lines: Mutex<Lines>,
    /// Where pointers of files lie, in bytes, and how many bytes a block has.
    pointers: Mutex<(Vec<u64>, u64)>,
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
        Self { inner, lines: Mutex::default(), pointers: Mutex::default() }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of stores so far.
    pub(super) fn stores(&self) -> u64 {
        self.lines().stores
    }

    /// Asks from now on about blocks of these inodes alone, by the pointers in themselves.
    pub(super) fn watch(&self, inodes: &[Inode], fs: &Ext2) -> ext2_core::Result<()> {
        let geometry = fs.geometry();
        let block = geometry.block_size.bytes();
        let mut places = Vec::new();
        for inode in inodes {
            let Some((group, index)) = geometry.group_of_inode(inode.nr()) else { continue };
            let table = u64::from(fs.descriptor(group)?.bg_inode_table.get()) * block;
            let inode = table + u64::from(index) * u64::from(geometry.inode_size);
            places.extend((0..12).map(|nr| inode + offset_of!(RawInode, i_block) as u64 + 4 * nr));
        }
        *self.pointers.lock().unwrap_or_else(PoisonError::into_inner) = (places, block);
        Ok(())
    }

    /// A byte of a line that one of the first `stores` stores went to, and none after it, that was not written back, and that a file
    /// has: what a hole has taken is nobody's.
    pub(super) fn of_first(&self, stores: u64) -> Option<u64> {
        let (places, block) = &*self.pointers.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks: Vec<u64> =
            places.iter().filter_map(|at| self.inner.read_u32(*at).ok()).map(u64::from).collect();
        let lines = self.lines();
        let mut unwritten = lines.last.iter().filter(|(_, nr)| **nr <= stores).map(|(line, _)| line * LINE);
        unwritten.find(|byte| blocks.contains(&(byte / block)))
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
