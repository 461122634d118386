//! A part of a device as a device, and the tables that say where the parts are.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::range::{check, page_run};
use crate::{
    Access, BlockDevice, Claim, DaxDevice, Error, Extent, Media, PAGE_SIZE, PmemSlice, Result, StoreData,
    StoreObserver, StorePath,
};

mod gpt;
mod mbr;

/// Bytes `offset..offset + len` of `D`. DAX passes through where the offset is a multiple of a page; the
/// page frame numbers are then those of the whole device, so that a partition that does not begin at a
/// multiple of 2 MiB is seen not to.
#[derive(Debug)]
pub struct Partition<D> {
    inner: D,
    offset: u64,
    len: u64,
}

impl<D: BlockDevice> Partition<D> {
    /// The part of `len` bytes from `offset`.
    ///
    /// # Errors
    /// `OutOfRange` if `inner` does not have them.
    pub fn new(inner: D, offset: u64, len: u64) -> Result<Self> {
        check(offset, len, inner.size())?;
        Ok(Self { inner, offset, len })
    }

    /// Everything from byte `offset` on.
    ///
    /// # Errors
    /// `OutOfRange` if `inner` ends before `offset`.
    pub fn from_offset(inner: D, offset: u64) -> Result<Self> {
        let size = inner.size();
        check(offset, 0, size)?;
        Ok(Self { inner, offset, len: size - offset })
    }

    /// The partition with this number in the table of `inner`, counted as Linux does: 1 to 4 are the
    /// primary ones of an MBR, logical ones begin at 5.
    ///
    /// # Errors
    /// `BadTable` if there is none, `OutOfRange` if it reaches beyond the device, or what reading says.
    pub fn numbered(inner: D, index: u32) -> Result<Self> {
        let found = partitions(&inner)?.into_iter().find(|entry| entry.index == index);
        let entry = found.ok_or(Error::BadTable("there is no partition of this number"))?;
        Self::new(inner, entry.offset, entry.len)
    }

    /// The device below.
    pub fn into_inner(self) -> D {
        self.inner
    }

    /// First byte on the device below.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where a range of ours lies below. What lies in us cannot overflow there.
    #[inline]
    fn below(&self, offset: u64, len: u64) -> Result<u64> {
        check(offset, len, self.len)?;
        Ok(self.offset + offset)
    }

    fn memory(&self) -> Result<&dyn DaxDevice> {
        if !self.offset.is_multiple_of(PAGE_SIZE) {
            return Err(Error::Unsupported("DAX on a partition that does not begin at a page"));
        }
        self.inner.dax().ok_or(Error::Unsupported("DAX"))
    }

    fn observer_below(&self) -> Option<&dyn StoreObserver> {
        self.inner.dax().and_then(|dax| dax.observer())
    }

    /// An error from below in our offsets.
    fn translate(&self, error: Error) -> Error {
        let shift = |offset: u64| offset.saturating_sub(self.offset);
        match error {
            Error::Poisoned { offset } => Error::Poisoned { offset: shift(offset) },
            Error::NoSpace { offset } => Error::NoSpace { offset: shift(offset) },
            Error::Io { op, offset, errno, message } => {
                Error::Io { op, offset: shift(offset), errno, message }
            }
            other => other,
        }
    }
}

impl<D: BlockDevice> BlockDevice for Partition<D> {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let at = self.below(offset, buf.len() as u64)?;
        self.inner.read_at(at, buf).map_err(|error| self.translate(error))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let at = self.below(offset, buf.len() as u64)?;
        self.inner.write_at(at, buf).map_err(|error| self.translate(error))
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let at = self.below(offset, len)?;
        self.inner.zero(at, len).map_err(|error| self.translate(error))
    }

    fn fence(&self) -> Result<()> {
        self.inner.fence()
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        self.inner.claim(self.below(offset, len)?, len)
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn media(&self) -> Media {
        self.inner.media()
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        self.memory().ok().map(|_| self as &dyn DaxDevice)
    }

    #[cfg(feature = "std")]
    fn backing_file(&self) -> Option<crate::BackingFile<'_>> {
        let below = self.inner.backing_file()?;
        Some(crate::BackingFile { offset: below.offset.checked_add(self.offset)?, ..below })
    }

    fn is_in_place(&self, offset: u64, len: u64) -> bool {
        self.below(offset, len).is_ok_and(|at| self.inner.is_in_place(at, len))
    }

    fn extent(&self, offset: u64, len: u64) -> Result<(Extent, u64)> {
        self.inner.extent(self.below(offset, len)?, len).map_err(|error| self.translate(error))
    }

    fn populate(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.populate(self.below(offset, len)?, len)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.discard(self.below(offset, len)?, len)
    }

    fn read_u32(&self, offset: u64) -> Result<u32> {
        let at = self.below(offset, 4)?;
        self.inner.read_u32(at).map_err(|error| self.translate(error))
    }

    fn write_u32(&self, offset: u64, value: u32) -> Result<()> {
        let at = self.below(offset, 4)?;
        self.inner.write_u32(at, value).map_err(|error| self.translate(error))
    }

    fn write_words(&self, offset: u64, words: &[u32]) -> Result<()> {
        let at = self.below(offset, size_of_val(words) as u64)?;
        self.inner.write_words(at, words).map_err(|error| self.translate(error))
    }

    fn write_u16(&self, offset: u64, value: u16) -> Result<()> {
        let at = self.below(offset, 2)?;
        self.inner.write_u16(at, value).map_err(|error| self.translate(error))
    }
}

impl<D: BlockDevice> DaxDevice for Partition<D> {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        let (offset, len) = page_run(page, count, self.len)?;
        // OK to add: the last page holds a byte of the device below.
        let below = self.memory()?.direct_access(page + self.offset / PAGE_SIZE, count, mode);
        let slice = below.map_err(|error| self.translate(error))?;
        // Our last page may be shorter than the one below.
        let slice = slice.subslice(0, slice.len().min(len))?;
        slice.reissue(offset, self.observer())
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let at = self.below(offset, buf.len() as u64)?;
        self.memory()?.recovery_write(at, buf).map_err(|error| self.translate(error))
    }

    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        self.memory()?.write_back(self.below(offset, len)?, len)
    }

    fn pfn(&self, page: u64) -> u64 {
        let page = page.saturating_add(self.offset / PAGE_SIZE);
        self.inner.dax().map_or(page, |dax| dax.pfn(page))
    }

    fn observer(&self) -> Option<&dyn StoreObserver> {
        self.observer_below().map(|_| self as &dyn StoreObserver)
    }
}

/// Passes on what is observed, in the offsets of the device below.
impl<D: BlockDevice> StoreObserver for Partition<D> {
    fn before_store(&self, offset: u64, data: StoreData<'_>, path: StorePath) -> Result<()> {
        let at = self.below(offset, data.len())?;
        self.observer_below().map_or(Ok(()), |below| below.before_store(at, data, path))
    }

    fn after_store(&self, offset: u64, len: u64) {
        if let (Some(below), Ok(at)) = (self.observer_below(), self.below(offset, len)) {
            below.after_store(at, len);
        }
    }

    fn before_load(&self, offset: u64, len: u64) -> Result<()> {
        let at = self.below(offset, len)?;
        self.observer_below().map_or(Ok(()), |below| below.before_load(at, len))
    }
}

/// What a partition table says that a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PartitionKind {
    /// The type byte of an MBR: 0x83 for Linux.
    Mbr(u8),
    /// The type GUID of a GPT, in the order of its bytes on the disk.
    Gpt([u8; 16]),
}

impl fmt::Display for PartitionKind {
    /// `0x83`, or the GUID as it is usually written, in which the first three groups are little-endian.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mbr(kind) => write!(f, "{kind:#04x}"),
            Self::Gpt(guid) => {
                const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
                for (place, at) in ORDER.into_iter().enumerate() {
                    if [4, 6, 8, 10].contains(&place) {
                        f.write_str("-")?;
                    }
                    write!(f, "{:02x}", guid[at])?;
                }
                Ok(())
            }
        }
    }
}

/// One entry of a partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionEntry {
    /// Its number, as Linux counts.
    pub index: u32,
    /// First byte. What the table says: [`Partition::new`] finds whether the device has it.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// What it is for.
    pub kind: PartitionKind,
    /// Its name; empty in an MBR.
    pub name: String,
}

/// The partitions that the device's table names, in the order of their numbers; none if there is no table.
///
/// An MBR with its extended and logical partitions, or a GPT, whose backup at the end of the device is used
/// where the first copy is damaged. Empty entries, and those whose place is no number of bytes, are left
/// out.
///
/// # Errors
/// `BadTable` for a GPT of which both copies are damaged, or what reading says.
pub fn partitions(device: &dyn BlockDevice) -> Result<Vec<PartitionEntry>> {
    match mbr::read(device)? {
        mbr::Table::None => Ok(Vec::new()),
        mbr::Table::Entries(entries) => Ok(entries),
        mbr::Table::Protective => gpt::read(device),
    }
}

/// Reads a raw structure.
fn read_raw<T: zerocopy::FromBytes + zerocopy::IntoBytes>(
    device: &dyn BlockDevice,
    offset: u64,
) -> Result<T> {
    let mut raw = T::new_zeroed();
    device.read_at(offset, raw.as_mut_bytes())?;
    Ok(raw)
}
