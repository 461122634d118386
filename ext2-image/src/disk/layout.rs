//! Where partitions lie, and writing the table around them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::kind::Kind;
use super::{gpt, mbr};
use crate::UNIT;
use crate::mkfs::{Output, identity_of_seed};

/// `Result` of laying out a disk.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why a disk cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub(super) String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Error {}

/// Bytes of a sector, in which tables count.
pub(super) const SECTOR: u64 = 512;

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// That of UEFI: 128 partitions.
    Gpt,
    /// That of the PC: 4 partitions, within the first 2 TiB.
    Mbr,
}

/// A partition that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name, at most 36 units of UTF-16; an MBR has none.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// Bytes that it has at least.
    pub bytes: u64,
}

/// A partition in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What was wanted.
    pub part: Part,
    /// The first byte, a multiple of 2 MiB.
    pub offset: u64,
    /// Bytes, a multiple of 4096.
    pub len: u64,
    /// Its UUID, in the order of bytes on the disk; not stored in an MBR.
    pub uuid: [u8; 16],
}

/// A disk that is laid out, but not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Which table.
    pub table: Table,
    /// The partitions, in the order in which they lie; the first has number 1.
    pub parts: Vec<Placed>,
    /// Bytes of the disk.
    pub bytes: u64,
    /// The identifier of the disk, in the order of bytes on it; an MBR has the first four.
    pub id: [u8; 16],
}

/// Where the partition begins that follows one that ends at byte `end`; 0 for the first.
#[must_use]
pub fn next_start(end: u64) -> u64 {
    end.max(1).checked_next_multiple_of(UNIT).unwrap_or(u64::MAX - UNIT + 1)
}

/// Bytes at the end of a disk for the copy of the table.
const TAIL: u64 = 1 << 20;

impl Disk {
    /// Lays out partitions in this order on a disk of `room` bytes, or on one that is as large as they need. Identifiers
    /// derive from `seed`.
    ///
    /// # Errors
    /// Too many partitions, no room, a name that is too long.
    pub fn new(table: Table, parts: Vec<Part>, seed: &[u8; 16], room: Option<u64>) -> Result<Self> {
        let most = match table {
            Table::Gpt => gpt::ENTRIES,
            Table::Mbr => mbr::ENTRIES,
        };
        if parts.len() > most {
            return Err(Error(format!(
                "{} partitions are too many: the table has room for {most}",
                parts.len()
            )));
        }
        let id = |purpose: &str| {
            let seed = [seed.as_slice(), purpose.as_bytes()].concat();
            let mut uuid = identity_of_seed(&seed).0;
            // The version is in the high byte of the third group, which lies last on the disk.
            uuid.swap(6, 7);
            uuid
        };
        let mut placed = Vec::new();
        let mut end = 0_u64;
        for (nr, part) in (1..).zip(parts) {
            if part.name.encode_utf16().count() > gpt::NAME_LEN {
                return Err(Error(format!(
                    "{}: the name has more than {} letters",
                    part.name,
                    gpt::NAME_LEN
                )));
            }
            let too_large = || Error(format!("{}: {} bytes do not fit a disk", part.name, part.bytes));
            let len = part.bytes.max(1).checked_next_multiple_of(4096).ok_or_else(too_large)?;
            let offset = next_start(end);
            end = offset.checked_add(len).filter(|&end| end < 1 << 62).ok_or_else(too_large)?;
            if table == Table::Mbr && end > u64::from(u32::MAX) * SECTOR {
                return Err(Error(format!(
                    "{}: ends past the 2 TiB that an MBR counts: use a GPT",
                    part.name
                )));
            }
            let uuid = id(&format!("partition {nr}"));
            placed.push(Placed { part, offset, len, uuid });
        }
        // Whole units, so that a disk can be memory too.
        let needed = next_start(end.max(UNIT) + TAIL);
        let bytes = match room {
            None => needed,
            Some(room) if room >= end.saturating_add(TAIL) => room - room % SECTOR,
            Some(room) => {
                let needed = end.saturating_add(TAIL);
                return Err(Error(format!("the disk has {room} bytes: {needed} are needed")));
            }
        };
        Ok(Self { table, parts: placed, bytes, id: id("disk") })
    }

    /// Bytes that a single partition may have that begins at byte `start` of a disk of `room` bytes.
    #[must_use]
    pub fn room_from(start: u64, room: u64) -> u64 {
        let left = room.saturating_sub(start).saturating_sub(TAIL);
        left - left % 4096
    }

    /// What Linux calls a partition in `root=PARTUUID=`; counted from 0.
    #[must_use]
    pub fn part_uuid(&self, index: usize) -> String {
        match (self.table, self.parts.get(index)) {
            (Table::Gpt, Some(placed)) => super::format_guid(&placed.uuid),
            (Table::Mbr, _) => format!("{:08x}-{:02x}", mbr::id(self), index + 1),
            (Table::Gpt, None) => String::new(),
        }
    }

    /// Writes the table. The partitions are not touched.
    ///
    /// # Errors
    /// The output's.
    pub fn write(&self, out: &dyn Output) -> crate::mkfs::Result<()> {
        match self.table {
            Table::Gpt => gpt::write(self, out),
            Table::Mbr => mbr::write(self, out),
        }
    }
}
