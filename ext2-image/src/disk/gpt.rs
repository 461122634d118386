//! The table of UEFI (UEFI 2.10, 5.3): a header and an array of entries, and both again at the end of the disk.

use alloc::vec::Vec;

use super::layout::{Disk, SECTOR};
use super::mbr;
use crate::mkfs::{Output, Result};

/// Partitions that it has.
pub(super) const ENTRIES: usize = 128;
/// Units of UTF-16 of a name.
pub(super) const NAME_LEN: usize = 36;

/// Bytes of an entry.
const ENTRY_LEN: usize = 128;
/// Bytes of a header.
const HEADER_LEN: u32 = 92;
/// Sectors of the array.
const ARRAY: u64 = (ENTRIES * ENTRY_LEN) as u64 / SECTOR;
/// The first sector that partitions may have, and as many from the end.
const USABLE: u64 = 2 + ARRAY;

fn array(disk: &Disk) -> Vec<u8> {
    let mut bytes = alloc::vec![0; ENTRIES * ENTRY_LEN];
    for (entry, placed) in bytes.chunks_exact_mut(ENTRY_LEN).zip(&disk.parts) {
        let (first, last) = (placed.offset / SECTOR, (placed.offset + placed.len) / SECTOR - 1);
        entry[..16].copy_from_slice(&placed.part.kind.guid);
        entry[16..32].copy_from_slice(&placed.uuid);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        for (place, unit) in entry[56..].chunks_exact_mut(2).zip(placed.part.name.encode_utf16()) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
    }
    bytes
}

/// The header at sector `own`, the other being at `other` and the array at `array`.
fn header(disk: &Disk, own: u64, other: u64, array: u64, array_crc: u32) -> [u8; SECTOR as usize] {
    let sectors = disk.bytes / SECTOR;
    let mut bytes = [0; SECTOR as usize];
    let mut at = 0;
    let mut put = |field: &[u8]| {
        bytes[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    put(b"EFI PART");
    put(&0x0001_0000_u32.to_le_bytes());
    put(&HEADER_LEN.to_le_bytes());
    put(&[0; 8]);
    for sector in [own, other, USABLE, sectors - 1 - USABLE + 1] {
        put(&sector.to_le_bytes());
    }
    put(&disk.id);
    put(&array.to_le_bytes());
    put(&(ENTRIES as u32).to_le_bytes());
    put(&(ENTRY_LEN as u32).to_le_bytes());
    put(&array_crc.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..HEADER_LEN as usize]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Writes both copies.
pub(super) fn write(disk: &Disk, out: &dyn Output) -> Result<()> {
    let sectors = disk.bytes / SECTOR;
    let entries = array(disk);
    let crc = crc32fast::hash(&entries);
    let last = sectors - 1;
    out.write_at(0, &mbr::protective(sectors))?;
    out.write_at(SECTOR, &header(disk, 1, last, 2, crc))?;
    out.write_at(2 * SECTOR, &entries)?;
    out.write_at((last - ARRAY) * SECTOR, &entries)?;
    out.write_at(last * SECTOR, &header(disk, last, 1, last - ARRAY, crc))
}
