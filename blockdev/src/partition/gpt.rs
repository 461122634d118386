//! The table of UEFI: a header with a checksum, an array of entries with another, and both again at the end
//! of the disk.

use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{PartitionEntry, PartitionKind, read_raw};
use crate::{BlockDevice, Error, Result};

/// Bytes of entries that are read at most. Tools make 16 KiB of them.
const MAX_ENTRIES_LEN: u64 = 1 << 20;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 8],
    revision: U32,
    header_size: U32,
    /// CRC-32 of the first `header_size` bytes with this field 0.
    header_crc32: U32,
    reserved: U32,
    my_lba: U64,
    alternate_lba: U64,
    first_usable_lba: U64,
    last_usable_lba: U64,
    disk_guid: [u8; 16],
    entries_lba: U64,
    entry_count: U32,
    entry_size: U32,
    entries_crc32: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    kind: [u8; 16],
    guid: [u8; 16],
    first_lba: U64,
    /// Inclusive.
    last_lba: U64,
    attributes: U64,
    /// UTF-16, ended by 0 if shorter.
    name: [U16; 36],
}

const _: () = assert!(size_of::<RawHeader>() == 92 && size_of::<RawEntry>() == 128);

/// The entries of whichever copy is sound, the first one first. Sectors may be of 512 or 4096 bytes.
pub(super) fn read(device: &dyn BlockDevice) -> Result<Vec<PartitionEntry>> {
    let mut unread = None;
    for sector in [512, 4096] {
        let sectors = device.size() / sector;
        for lba in [1, sectors.saturating_sub(1)] {
            match read_copy(device, sector, lba) {
                Ok(Some(entries)) => {
                    if lba != 1 {
                        log::warn!("the first copy of the partition table is damaged, the backup is used");
                    }
                    return Ok(entries);
                }
                Ok(None) => {}
                // One that cannot be read is damaged, too; the other may be sound.
                Err(error) => drop(unread.get_or_insert(error)),
            }
        }
    }
    Err(unread.unwrap_or(Error::BadTable("both copies of the GPT are damaged")))
}

/// The copy whose header is at `lba`, `None` if it is not sound.
fn read_copy(device: &dyn BlockDevice, sector: u64, lba: u64) -> Result<Option<Vec<PartitionEntry>>> {
    let Some(header) = read_header(device, sector, lba)? else { return Ok(None) };
    let (count, size) = (u64::from(header.entry_count.get()), u64::from(header.entry_size.get()));
    // 32-bit factors.
    let len = count * size;
    if size < size_of::<RawEntry>() as u64 || !size.is_multiple_of(8) || len > MAX_ENTRIES_LEN {
        return Ok(None);
    }
    let Some(offset) = header.entries_lba.get().checked_mul(sector) else { return Ok(None) };
    if crate::range::check(offset, len, device.size()).is_err() {
        return Ok(None);
    }
    // OK to cast: both are at most `MAX_ENTRIES_LEN`.
    let mut bytes = alloc::vec![0; len as usize];
    device.read_at(offset, &mut bytes)?;
    if crc32fast::hash(&bytes) != header.entries_crc32.get() {
        return Ok(None);
    }
    let raw = bytes.chunks_exact(size as usize).filter_map(|bytes| RawEntry::ref_from_prefix(bytes).ok());
    Ok(Some((1..).zip(raw).filter_map(|(index, (raw, _))| raw.partition(index, sector)).collect()))
}

/// The header at `lba`, `None` if it is not sound.
fn read_header(device: &dyn BlockDevice, sector: u64, lba: u64) -> Result<Option<RawHeader>> {
    let offset = lba * sector;
    if lba == 0 || crate::range::check(offset, sector, device.size()).is_err() {
        return Ok(None);
    }
    let header: RawHeader = read_raw(device, offset)?;
    let header_size = u64::from(header.header_size.get());
    if &header.signature != b"EFI PART"
        || header.my_lba.get() != lba
        || !(size_of::<RawHeader>() as u64..=sector).contains(&header_size)
    {
        return Ok(None);
    }
    // OK to cast: at most a sector.
    let mut bytes = alloc::vec![0; header_size as usize];
    device.read_at(offset, &mut bytes)?;
    bytes[16..20].fill(0);
    Ok((crc32fast::hash(&bytes) == header.header_crc32.get()).then_some(header))
}

impl RawEntry {
    /// As a partition; `None` for an unused entry, or one of no possible place.
    fn partition(&self, index: u32, sector: u64) -> Option<PartitionEntry> {
        if self.kind == [0; 16] {
            return None;
        }
        let (first, last) = (self.first_lba.get(), self.last_lba.get());
        let len = last.checked_sub(first)?.checked_add(1)?.checked_mul(sector)?;
        let offset = first.checked_mul(sector)?;
        offset.checked_add(len)?;
        let name = self.name.iter().map(|unit| unit.get()).take_while(|&unit| unit != 0);
        let name = char::decode_utf16(name).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER));
        let name = name.collect::<String>();
        Some(PartitionEntry { index, offset, len, kind: PartitionKind::Gpt(self.kind), name })
    }
}
