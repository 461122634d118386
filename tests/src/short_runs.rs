//! Memory of which no more than so many pages are given at a time, so that a transfer ends in the middle where one of them fails.

use blockdev::{Access, BlockDevice, Claim, DaxDevice, PmemSlice, RamDevice, Result};

/// Memory that is given in runs of `most` pages at most.
#[derive(Debug)]
pub struct ShortRuns {
    /// The memory.
    pub ram: RamDevice,
    /// Pages of a run.
    pub most: u64,
}

impl BlockDevice for ShortRuns {
    crate::forward!(ram: size, read_at, write_at, zero, fence, flush);

    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        self.ram.claim(offset, len)
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        Some(self)
    }
}

impl DaxDevice for ShortRuns {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        self.ram.direct_access(page, count.min(self.most), mode)
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.ram.recovery_write(offset, buf)
    }

    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        self.ram.write_back(offset, len)
    }

    fn pfn(&self, page: u64) -> u64 {
        self.ram.pfn(page)
    }
}
