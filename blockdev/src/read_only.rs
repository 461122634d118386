//! A device that refuses every store.

use crate::{Access, BlockDevice, Claim, DaxDevice, Error, Extent, Media, PmemSlice, Result, StoreObserver};

/// `D` without the right to write: writes, zeros and discards answer [`Error::ReadOnly`], and DAX gives
/// out slices for loading only. `fence` and `flush` succeed, there being nothing to order.
#[derive(Debug)]
pub struct ReadOnly<D> {
    inner: D,
}

impl<D> ReadOnly<D> {
    /// The layer over `inner`.
    pub fn new(inner: D) -> Self {
        Self { inner }
    }

    /// The device below.
    pub fn into_inner(self) -> D {
        self.inner
    }
}

impl<D: BlockDevice> ReadOnly<D> {
    /// Refuses, but with the range's own error where that is wrong too.
    fn refuse(&self, offset: u64, len: u64) -> Result<()> {
        crate::range::check(offset, len, self.inner.size())?;
        Err(Error::ReadOnly)
    }

    fn memory(&self) -> Result<&dyn DaxDevice> {
        self.inner.dax().ok_or(Error::Unsupported("DAX"))
    }
}

impl<D: BlockDevice> BlockDevice for ReadOnly<D> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.refuse(offset, buf.len() as u64)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.refuse(offset, len)
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        self.refuse(offset, len)?;
        Err(Error::ReadOnly)
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn media(&self) -> Media {
        self.inner.media()
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        self.inner.dax().map(|_| self as &dyn DaxDevice)
    }

    fn is_in_place(&self, offset: u64, len: u64) -> bool {
        self.inner.is_in_place(offset, len)
    }

    fn extent(&self, offset: u64, len: u64) -> Result<(Extent, u64)> {
        self.inner.extent(offset, len)
    }

    fn populate(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.populate(offset, len)
    }

    #[cfg(feature = "std")]
    fn backing_file(&self) -> Option<crate::BackingFile<'_>> {
        self.inner.backing_file()
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.refuse(offset, len)
    }

    fn read_u32(&self, offset: u64) -> Result<u32> {
        self.inner.read_u32(offset)
    }
}

impl<D: BlockDevice> DaxDevice for ReadOnly<D> {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        match mode {
            Access::Read => Ok(self.memory()?.direct_access(page, count, mode)?.read_only()),
            Access::Write | Access::Recovery => {
                crate::range::page_run(page, count, self.inner.size())?;
                Err(Error::ReadOnly)
            }
        }
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.refuse(offset, buf.len() as u64)
    }

    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        crate::range::check(offset, len, self.inner.size())
    }

    fn pfn(&self, page: u64) -> u64 {
        self.inner.dax().map_or(page, |dax| dax.pfn(page))
    }

    fn observer(&self) -> Option<&dyn StoreObserver> {
        self.inner.dax().and_then(|dax| dax.observer())
    }
}
