//! A file system that is one file, for what ext2 never says: an answer that is neither blocks nor a hole (point 4), and a
//! size that a fault gets wrong (point 5). The data path under it is the library's own.

use std::sync::Arc;

use blockdev::{BlockDevice, DaxDevice, RamDevice};
use ext2_dax::entry::{Order, PAGE_SIZE};
use ext2_dax::fault::{self, DaxInode, FaultRequest, FaultResult};
use ext2_dax::iomap::{Iomap, IomapOps, MapKind, OpFlags};
use ext2_dax::mapping::DaxMapping;
use ext2_dax::mmu::{Protection, Sharing, VmFile};
use ext2_dax::trace::{EventLog, InodeId, Tracer};
use ext2_dax::{Compat, Result, WaitTable, compat, rw, uio, writeback};

/// The device page that the file's first block is said to have.
pub(crate) const PAGE: u64 = 5;

/// The file: block 0 is what `kind` says, all others are holes.
#[derive(Debug)]
pub(crate) struct Toy {
    device: RamDevice,
    pages: Arc<DaxMapping>,
    compat: Compat,
    pub(crate) log: Arc<EventLog>,
    size: u64,
    /// Bytes by which the check of a fault is too generous.
    lenience: u64,
    kind: MapKind,
}

impl Toy {
    /// A file of `size` bytes.
    pub(crate) fn new(size: u64, lenience: u64, kind: MapKind) -> Result<Arc<Self>> {
        let (tracer, log) = (Arc::new(Tracer::new()), EventLog::new());
        tracer.listen(Some(Arc::clone(&log) as _));
        let id = InodeId { dev: (259, 0), ino: 12 };
        let device = RamDevice::new(16 * PAGE_SIZE)?;
        // What somebody else keeps there.
        device.write_at(PAGE * PAGE_SIZE, &[0x55; PAGE_SIZE as usize])?;
        Ok(Arc::new(Self {
            device,
            pages: Arc::new(DaxMapping::new(id, Arc::new(WaitTable::new()), tracer)),
            compat: Compat { pmd_faults: compat::PmdFaults::Never, ..Compat::FULL },
            log,
            size,
            lenience,
            kind,
        }))
    }

    /// A write by the library's path.
    pub(crate) fn write(&self, pos: u64, bytes: &[u8]) -> Result<u64> {
        rw::write(self, pos, bytes.len() as u64, &mut uio::SliceSource::new(bytes), rw::Limits::default())
    }

    /// The write of the mutant: it warns that the mapping is not mapped, and goes on.
    pub(crate) fn write_and_warn(&self, pos: u64, bytes: &[u8]) -> Result<u64> {
        let len = bytes.len() as u64;
        let map = self.begin(pos, len, OpFlags::WRITE)?;
        if let Some(addr) = map.addr_of(pos) {
            self.device.write_at(addr, bytes)?;
        }
        self.end(pos, len, len, OpFlags::WRITE, map)?;
        Ok(len)
    }

    /// The first byte of the block that was somebody else's.
    pub(crate) fn first_byte(&self) -> Result<u8> {
        let mut byte = [0];
        self.device.read_at(PAGE * PAGE_SIZE, &mut byte)?;
        Ok(byte[0])
    }
}

impl IomapOps for Toy {
    type Private = ();

    fn begin(&self, pos: u64, len: u64, _: OpFlags) -> Result<Iomap<()>> {
        let offset = pos - pos % PAGE_SIZE;
        let mut map = match offset {
            0 => Iomap::mapped(0, PAGE_SIZE, PAGE * PAGE_SIZE),
            _ => Iomap::hole(offset, (pos + len).next_multiple_of(PAGE_SIZE) - offset),
        };
        if offset == 0 {
            map.kind = self.kind;
        }
        Ok(map)
    }

    fn end(&self, _: u64, _: u64, _: u64, _: OpFlags, _: Iomap<()>) -> Result<()> {
        Ok(())
    }
}

impl DaxInode for Toy {
    fn pages(&self) -> &DaxMapping {
        &self.pages
    }

    fn memory(&self) -> &dyn DaxDevice {
        &self.device
    }

    /// The size that faults are checked against. With a lenience of 4095 the library's own check, `pos >= size`, is the one
    /// that the mail quotes: `pos >= i_size + PAGE_SIZE - 1`.
    fn size(&self) -> u64 {
        self.size + self.lenience
    }

    fn compat(&self) -> &Compat {
        &self.compat
    }

    fn sync_pages(&self, first: u64, last: u64) -> Result<()> {
        writeback::writeback_range(&self.pages, &self.device, first, last).map(|_| ())
    }
}

impl VmFile for Toy {
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

    fn huge_fault(&self, _: &FaultRequest<'_>) -> FaultResult {
        FaultResult::FALLBACK
    }

    fn msync(&self, first: u64, last: u64) -> Result<()> {
        self.sync_pages(first, last)
    }

    fn check_map(&self, _: Sharing, _: Protection) -> Result<()> {
        Ok(())
    }
}
