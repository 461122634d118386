//! A file system of one's own under the DAX path: one file, whose blocks lie where a table in memory says.
//!
//! It answers `begin` and `end`, and gets reads, writes, mappings and page faults for that.
//!
//! `cargo run -p ext2-dax --example own_file_system`

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use blockdev::{BlockDevice, DaxDevice, RamDevice};
use ext2_dax::entry::Order;
use ext2_dax::fault::{self, DaxInode, FaultRequest, FaultResult};
use ext2_dax::iomap::{Iomap, IomapOps, MapFlags, OpFlags};
use ext2_dax::mapping::DaxMapping;
use ext2_dax::mmu::soft::{MapRequest, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing, VmFile};
use ext2_dax::trace::{InodeId, Tracer};
use ext2_dax::uio::{SliceSink, SliceSource};
use ext2_dax::{Errno, Error, Result, WaitTable, rw, writeback};

/// Bytes of a block, which is a page.
const BLOCK: u64 = 4096;

#[derive(Debug, Default)]
struct Map {
    /// Block of the file to block of the device.
    blocks: BTreeMap<u64, u64>,
    size: u64,
}

#[derive(Debug)]
struct OneFile {
    device: RamDevice,
    pages: Arc<DaxMapping>,
    map: Mutex<Map>,
}

impl OneFile {
    fn new(bytes: u64) -> Result<Arc<Self>> {
        let id = InodeId { dev: (1, 1), ino: 1 };
        let pages = DaxMapping::new(id, Arc::new(WaitTable::new()), Arc::new(Tracer::new()));
        let device = RamDevice::new(bytes)?;
        Ok(Arc::new(Self { device, pages: Arc::new(pages), map: Mutex::default() }))
    }

    fn map(&self) -> std::sync::MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IomapOps for OneFile {
    type Private = ();

    fn begin(&self, pos: u64, len: u64, flags: OpFlags) -> Result<Iomap> {
        let (mut map, block) = (self.map(), pos / BLOCK);
        if let Some(&at) = map.blocks.get(&block) {
            return Ok(Iomap::mapped(block * BLOCK, BLOCK, at * BLOCK));
        }
        if !flags.contains(OpFlags::WRITE) {
            // The hole in full, up to the next block or what was asked for.
            let asked = pos.saturating_add(len).div_ceil(BLOCK);
            let end = map.blocks.range(block..).next().map_or(asked, |(&next, _)| next);
            return Ok(Iomap::hole(block * BLOCK, (end - block) * BLOCK));
        }
        let at = map.blocks.len() as u64;
        if (at + 1) * BLOCK > self.device.size() {
            return Err(Error::refused(Errno::NOSPC, "no block is left"));
        }
        // A block is zero before it can be reached.
        self.device.zero(at * BLOCK, BLOCK)?;
        map.blocks.insert(block, at);
        let mut fresh = Iomap::mapped(block * BLOCK, BLOCK, at * BLOCK);
        fresh.flags |= MapFlags::NEW;
        Ok(fresh)
    }

    fn end(&self, pos: u64, _: u64, written: u64, flags: OpFlags, _: Iomap) -> Result<()> {
        if flags.contains(OpFlags::WRITE) && !flags.contains(OpFlags::FAULT) && written > 0 {
            let mut map = self.map();
            map.size = map.size.max(pos + written);
        }
        Ok(())
    }
}

impl DaxInode for OneFile {
    fn pages(&self) -> &DaxMapping {
        &self.pages
    }

    fn memory(&self) -> &dyn DaxDevice {
        &self.device
    }

    fn size(&self) -> u64 {
        self.map().size
    }

    fn sync_pages(&self, first: u64, last: u64) -> Result<()> {
        writeback::writeback_range(&self.pages, &self.device, first, last)?;
        Ok(self.device.flush()?)
    }
}

impl VmFile for OneFile {
    fn pages(&self) -> &Arc<DaxMapping> {
        &self.pages
    }

    fn memory(&self) -> &dyn DaxDevice {
        &self.device
    }

    fn fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        fault::handle(self, request, Order::Pte)
    }

    fn has_huge_faults(&self) -> bool {
        false
    }

    fn huge_fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        fault::handle(self, request, Order::Pmd)
    }

    fn msync(&self, first: u64, last: u64) -> Result<()> {
        self.sync_pages(first, last)
    }

    fn check_map(&self, _: Sharing, _: Protection) -> Result<()> {
        Ok(())
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let file = OneFile::new(1 << 20)?;
    rw::write(&*file, 5 * BLOCK, 5, &mut SliceSource::new(b"hello"), rw::Limits::default())?;
    let mut buf = [1; 5];
    rw::read(&*file, 100, 5, &mut SliceSink::new(&mut buf), rw::Limits::default())?;
    assert_eq!(buf, [0; 5], "a hole reads as zeros");

    // The same file as memory.
    let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
    let request = MapRequest { offset: 0, len: 6 * BLOCK, sharing, protection, colour: 0 };
    let mapping = SoftMmu::new().map(file.clone(), &request)?;
    mapping.store(0, b'!').map_err(|signal| signal.to_string())?;
    let mut hello = [0; 5];
    mapping.load_bytes(5 * BLOCK, &mut hello).map_err(|died| format!("{died:?}"))?;
    assert_eq!(&hello, b"hello");
    mapping.msync(0, 6 * BLOCK)?;
    println!("{} blocks for 2 that were touched", file.map().blocks.len());
    Ok(())
}
