//! The table of the PC, and the one that keeps old tools off a GPT.

use super::layout::{Disk, SECTOR};
use crate::mkfs::{Output, Result};

/// Partitions that it has.
pub(super) const ENTRIES: usize = 4;

/// Heads and sectors of the disks that everybody pretends to have.
const HEADS: u64 = 255;
const SECTORS: u64 = 63;

/// The identifier of the disk.
pub(super) fn id(disk: &Disk) -> u32 {
    let [a, b, c, d, ..] = disk.id;
    // 0 is none.
    u32::from_le_bytes([a, b, c, d]).max(1)
}

/// Cylinder, head and sector of a sector; the last there is where it is too far.
fn chs(sector: u64) -> [u8; 3] {
    let cylinder = sector / (HEADS * SECTORS);
    if cylinder > 1023 {
        return [0xfe, 0xff, 0xff];
    }
    let (head, sector) = (sector / SECTORS % HEADS, sector % SECTORS + 1);
    // Within their 8, 6 and 10 bits.
    [head as u8, sector as u8 | (cylinder >> 2 & 0xc0) as u8, cylinder as u8]
}

fn entry(kind: u8, first: u64, sectors: u64) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[1..4].copy_from_slice(&chs(first));
    entry[4] = kind;
    entry[5..8].copy_from_slice(&chs(first + sectors - 1));
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    entry[8..12].copy_from_slice(&number(first));
    entry[12..].copy_from_slice(&number(sectors));
    entry
}

/// The first sector with these entries.
fn sector(id: u32, entries: impl Iterator<Item = [u8; 16]>) -> [u8; SECTOR as usize] {
    let mut bytes = [0; SECTOR as usize];
    bytes[440..444].copy_from_slice(&id.to_le_bytes());
    for (place, entry) in bytes[446..510].chunks_exact_mut(16).zip(entries) {
        place.copy_from_slice(&entry);
    }
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

/// Writes the table of a disk.
pub(super) fn write(disk: &Disk, out: &dyn Output) -> Result<()> {
    let entries = disk
        .parts
        .iter()
        .map(|placed| entry(placed.part.kind.byte, placed.offset / SECTOR, placed.len / SECTOR));
    out.write_at(0, &sector(id(disk), entries))
}

/// The sector in front of a GPT: one partition over all of the disk.
pub(super) fn protective(sectors: u64) -> [u8; SECTOR as usize] {
    let mut whole = entry(0xee, 1, sectors - 1);
    // From the second sector, by UEFI's rule.
    whole[1..4].copy_from_slice(&[0, 2, 0]);
    sector(0, core::iter::once(whole))
}
