//! Block and persistent-memory devices, and layers over them. Knows nothing of any file system.
//!
//! A [`BlockDevice`] is read and written at byte offsets through `&self`; a device that is memory also
//! answers [`BlockDevice::dax`], and its pages can be had as [`PmemSlice`]s, which copy and never lend
//! a `&[u8]` of memory that others write.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod device;
mod error;
mod pmem;

pub use device::{Access, BlockDevice, DaxDevice, PAGE_SIZE};
pub use error::{Error, Result};
pub use pmem::PmemSlice;
