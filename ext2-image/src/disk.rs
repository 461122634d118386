//! A disk around a file system: a partition table, with the partitions of boot loaders beside it.
//!
//! # Invariants
//! 1. Every partition begins at a multiple of 2 MiB, so that what is aligned in a file system is aligned on the disk.
//! 2. The same partitions and seed give the same table: nothing in it is random.
//! 3. What [`blockdev::partitions`] reads of a disk is what was written; other tools find nothing to complain of.
//!
//! The tables are written here and not by a crate: `blockdev` reads them by the same few structures, and crates for
//! writing draw random identifiers and rewrite what is there.
//!
//! ```
//! use blockdev::{Partition, RamDevice, partitions};
//! use ext2_image::disk::{Disk, Kind, Part, Table};
//! use ext2_image::mkfs::{DeviceOutput, Format, Fresh, format};
//!
//! let part = |name: &str, kind, bytes| Part { name: name.into(), kind, bytes };
//! let parts = vec![part("boot", Kind::EFI, 4 << 20), part("root", Kind::LINUX, 16 << 20)];
//! let disk = Disk::new(Table::Gpt, parts, b"a seed: 16 bytes", None)?;
//!
//! let device = RamDevice::new(disk.bytes)?;
//! disk.write(&DeviceOutput::new(&device, Fresh::Zeros))?;
//! let root = &disk.parts[1];
//! format(&Partition::new(&device, root.offset, root.len)?, &Format::default(), Fresh::Zeros)?;
//!
//! let found = partitions(&device)?;
//! assert_eq!((found[1].name.as_str(), found[1].offset), ("root", root.offset));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "std")]
mod copy;
mod gpt;
mod kind;
mod layout;
mod mbr;

#[cfg(feature = "std")]
pub use copy::copy;
pub use kind::{Kind, format_guid, parse_guid};
pub use layout::{Disk, Error, Part, Placed, Result, Table, next_start};
