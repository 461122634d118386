//! A disk around a file system: a partition table, with the partitions of boot loaders beside it.
//!
//! # Invariants
//! 1. Every partition begins at a multiple of 2 MiB, so that what is aligned in a file system is aligned on the disk.
//! 2. The same partitions and seed give the same table: nothing in it is random.
//! 3. What [`blockdev::partitions`] reads of a disk is what was written; other tools find nothing to complain of.
//!
//! The tables are written here and not by a crate: `blockdev` reads them by the same few structures, and crates for
//! writing draw random identifiers and rewrite what is there.

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
