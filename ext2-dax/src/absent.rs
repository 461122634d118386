//! The memory of a device that is none: every access is refused.

use blockdev::{Access, BlockDevice, DaxDevice, Error, PmemSlice, Result};

/// Stands where memory is asked of a device that has none.
#[derive(Debug)]
pub(crate) struct Absent;

pub(crate) static ABSENT: Absent = Absent;

fn refused<T>() -> Result<T> {
    Err(Error::Unsupported("DAX: it is not memory"))
}

impl BlockDevice for Absent {
    fn size(&self) -> u64 {
        0
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<()> {
        refused()
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<()> {
        refused()
    }

    fn zero(&self, _: u64, _: u64) -> Result<()> {
        refused()
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

impl DaxDevice for Absent {
    fn direct_access(&self, _: u64, _: u64, _: Access) -> Result<PmemSlice<'_>> {
        refused()
    }

    fn recovery_write(&self, _: u64, _: &[u8]) -> Result<()> {
        refused()
    }

    fn write_back(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }

    fn pfn(&self, page: u64) -> u64 {
        page
    }
}
