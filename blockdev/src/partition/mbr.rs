//! The table in the first sector of a PC's disk.
//!
//! Logical partitions are a chain of further tables in an extended partition; the chain is followed for a
//! bounded number of links, whatever it says.

use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{PartitionEntry, PartitionKind, read_raw};
use crate::{BlockDevice, Result};

/// Bytes of the sectors that an MBR counts in.
const SECTOR: u64 = 512;

/// Links of a chain that are followed.
const MAX_LOGICAL: u32 = 256;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawTable {
    boot_code: [u8; 446],
    entries: [RawEntry; 4],
    /// 0xaa55.
    signature: U16,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    /// 0 or 0x80.
    status: u8,
    first_chs: [u8; 3],
    kind: u8,
    last_chs: [u8; 3],
    /// In sectors, from the table's own (or the extended partition's) first.
    first: U32,
    sectors: U32,
}

const _: () = assert!(size_of::<RawTable>() == 512);

/// What the first sector is.
pub(super) enum Table {
    None,
    Entries(Vec<PartitionEntry>),
    /// Only there to keep old tools off a GPT.
    Protective,
}

impl RawTable {
    /// A boot sector of a file system ends in the same two bytes; its code seldom looks like entries.
    fn is_table(&self) -> bool {
        self.signature.get() == 0xaa55 && self.entries.iter().all(|entry| entry.status & 0x7f == 0)
    }
}

impl RawEntry {
    fn is_empty(&self) -> bool {
        self.kind == 0 || self.sectors.get() == 0
    }

    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    /// As a partition, `base` being the sector that it counts from. Two 32-bit numbers of sectors are
    /// within 64 bits of bytes.
    fn partition(&self, index: u32, base: u64) -> PartitionEntry {
        PartitionEntry {
            index,
            offset: (base + u64::from(self.first.get())) * SECTOR,
            len: u64::from(self.sectors.get()) * SECTOR,
            kind: PartitionKind::Mbr(self.kind),
            name: String::new(),
        }
    }
}

pub(super) fn read(device: &dyn BlockDevice) -> Result<Table> {
    if device.size() < SECTOR {
        return Ok(Table::None);
    }
    let table: RawTable = read_raw(device, 0)?;
    if !table.is_table() {
        return Ok(Table::None);
    }
    if table.entries.iter().any(|entry| entry.kind == 0xee) {
        return Ok(Table::Protective);
    }
    let mut found = Vec::new();
    let mut extended = None;
    for (index, entry) in (1..).zip(table.entries.iter()) {
        if entry.is_empty() {
            continue;
        }
        found.push(entry.partition(index, 0));
        if entry.is_extended() && extended.is_none() {
            extended = Some(u64::from(entry.first.get()));
        }
    }
    if let Some(start) = extended {
        read_logical(device, start, &mut found)?;
    }
    Ok(Table::Entries(found))
}

/// Follows the chain of tables in the extended partition that begins at sector `start`.
fn read_logical(device: &dyn BlockDevice, start: u64, found: &mut Vec<PartitionEntry>) -> Result<()> {
    let mut at = start;
    let mut index = 5;
    for _ in 0..MAX_LOGICAL {
        if at * SECTOR > device.size().saturating_sub(SECTOR) {
            log::warn!("the chain of logical partitions leaves the device at sector {at}");
            return Ok(());
        }
        let table: RawTable = read_raw(device, at * SECTOR)?;
        if !table.is_table() {
            log::warn!("the chain of logical partitions breaks at sector {at}");
            return Ok(());
        }
        let mut next = None;
        for entry in table.entries.iter().filter(|entry| !entry.is_empty()) {
            if entry.is_extended() {
                next = next.or(Some(start + u64::from(entry.first.get())));
            } else {
                found.push(entry.partition(index, at));
                index += 1;
            }
        }
        match next {
            // A link to itself or back would only show the same again.
            Some(next) if next > at => at = next,
            _ => return Ok(()),
        }
    }
    Ok(())
}
