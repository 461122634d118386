//! Block and persistent-memory devices, and layers over them. Knows nothing of any file system.
//!
//! A [`BlockDevice`] is read and written at byte offsets through `&self`; a device that is memory also
//! answers [`BlockDevice::dax`], and gives its pages as [`PmemSlice`]s, which copy and never lend
//! a `&[u8]` of memory that others write.
//!
//! | backend | is | DAX |
//! |---|---|---|
//! | [`RamDevice`] | the process's own memory, with pages that can be poisoned | yes |
//! | `MmapDevice` | an image file, or a file on a DAX file system, mapped | yes |
//! | `FileDevice` | an image file or block special file by positional I/O | no |
//! | [`ReadDevice`] | anything that can be read at an offset: a slice, a file, a type of your own | no |
//!
//! | layer | does |
//! |---|---|
//! | [`ReadOnly`] | refuses every store |
//! | [`Cached`] | holds blocks of a slow device in memory, and writes them back in order |
//! | [`Counted`] | counts calls and bytes |
//! | [`Partition`] | a part of a device, found by offset or in a table |
//! | [`Overlay`] | keeps what is written in memory, above a device that stays as it is |
//! | `FileOverlay` | the same, in a file that can be opened again |
//! | [`Recorder`] | logs stores, write-backs, fences and flushes, for the models in `crash` |
//! | [`Faulty`] | fails the n-th call, tears writes, poisons pages |
//!
//! A layer is a device over a device and passes DAX through where it can. Devices behind `&`, `Box` and
//! `Arc` are devices, so layers stack over borrowed, owned and shared ones alike.
//!
//! ```
//! use blockdev::{Access, BlockDevice, Counted, DaxDevice, Partition, RamDevice};
//!
//! let disk = Counted::new(RamDevice::new(1 << 20)?);
//! let part = Partition::new(&disk, 8192, 65536)?;
//! part.write_at(100, b"by a call")?;
//! let memory = part.direct_access(0, 1, Access::Write)?;
//! memory.copy_in(103, b"or a store")?;
//! part.flush()?;
//! let mut buf = [0; 13];
//! disk.read_at(8192 + 100, &mut buf)?;
//! assert_eq!(&buf, b"by or a store");
//! assert_eq!((disk.snapshot().writes, disk.snapshot().stores), (1, 1));
//! # Ok::<(), blockdev::Error>(())
//! ```
//!
//! Devices of your own are tested by `conformance`, the suite that those of this crate pass. A device that is opened for
//! writing by a file system is [claimed](BlockDevice::claim), so that a second one does not destroy its work; `in_use` asks what
//! the kernel does with an image, and `sigbus` makes errors of pages of a mapped image that cannot be supplied.
//!
//! Without the `std` feature the crate is `no_std` with `alloc` and has what needs no operating system; `crash` comes with a
//! feature of its own.
#![cfg_attr(not(feature = "crash"), no_std)]
// This crate is where raw memory and system calls live; each block proves itself.
#![allow(unsafe_code)]

extern crate alloc;

#[cfg(all(feature = "std", not(miri)))]
mod arena;
mod cached;
mod claim;
#[cfg(feature = "std")]
pub mod conformance;
mod counted;
#[cfg(feature = "crash")]
pub mod crash;
mod cut_off;
mod device;
mod error;
mod faulty;
#[cfg(feature = "std")]
mod file;
mod forward;
#[cfg(all(feature = "std", target_os = "linux", not(miri)))]
pub mod host_map;
#[cfg(feature = "std")]
mod image_file;
#[cfg(all(feature = "std", target_os = "linux"))]
pub mod in_use;
#[cfg(all(feature = "std", target_os = "linux"))]
mod lock_holder;
#[cfg(all(feature = "std", target_os = "linux"))]
mod machine_lock;
mod mem;
#[cfg(feature = "std")]
mod mmap;
#[cfg(feature = "std")]
mod open;
mod overlay;
#[cfg(feature = "std")]
mod overlay_file;
mod partition;
mod patched;
mod pmem;
mod poison;
mod ram;
mod range;
mod read_only;
mod reader;
mod recorder;
mod shared;
#[cfg(feature = "std")]
pub mod sigbus;
mod sync;

#[cfg(all(feature = "std", not(miri)))]
pub use arena::Arena;
pub use cached::{CacheOptions, CacheStats, Cached};
pub use claim::Claim;
pub use counted::{Counted, Counts};
pub use cut_off::CutOff;
#[cfg(feature = "std")]
pub use device::BackingFile;
pub use device::{Access, BlockDevice, DaxDevice, Extent, PAGE_SIZE};
pub use error::{Error, Result};
pub use faulty::{Calls, Fault, FaultError, Faulty, Repeat, Tear};
#[cfg(feature = "std")]
pub use file::FileDevice;
pub use mem::Media;
#[cfg(feature = "std")]
pub use mmap::MmapDevice;
#[cfg(feature = "std")]
pub use open::{Backend, DeviceOptions, Durability, Locking, explain_busy, open_image, take_for_replacing};
pub use overlay::Overlay;
#[cfg(feature = "std")]
pub use overlay_file::FileOverlay;
pub use partition::{Partition, PartitionEntry, PartitionKind, partitions};
pub use patched::Patched;
pub use pmem::{PmemSlice, StoreData, StoreObserver, StorePath};
pub use ram::RamDevice;
pub use read_only::ReadOnly;
pub use reader::{ReadAt, ReadDevice};
pub use recorder::{FenceId, RecordedOp, Recorder, Stored};
pub use shared::shared;
#[cfg(feature = "std")]
pub use sigbus::LostPages;

/// The examples of the page run as tests.
#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../../docs/your-own-device.md")]
struct YourOwnDevice;
