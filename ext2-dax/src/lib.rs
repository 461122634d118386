//! The DAX path of ext2: file bytes are loads and stores on the device, found through `iomap_begin`,
//! mapped by page faults.
//!
//! It is the branch of history that Linux did not take. Linux converted ext2 to iomap in 2016 and then
//! dropped ext2's 2 MiB faults, because ext2 never told DAX how long a hole is and never aligned a
//! block. Here it does both.
//!
//! | module | Linux |
//! |---|---|
//! | [`iomap`], [`iter`] | include/linux/iomap.h, fs/iomap/iter.c; know nothing of DAX |
//! | [`File`], `ext2_iomap` | `ext2_dax_read_iter` and its siblings, `ext2_iomap_begin` |
//! | [`rw`], [`zero`] | `dax_iomap_rw`, `dax_zero_range`, `dax_truncate_page` |
//! | [`entry`], [`mapping`] | the entries in an inode's XArray, their lock bit and wait queues |
//! | [`fault`] | `dax_iomap_fault`: 4 KiB, 2 MiB, private copies, synchronous faults |
//! | [`writeback`] | `dax_writeback_mapping_range` |
//! | `vma`, `page_table` | `struct vm_area_struct`, and what a fault needs of a page table |
//! | [`mmu`] | mm/memory.c as far as DAX sees it; a page table in software |
//! | `buffer_head` (a feature) | the path of Linux 4.8 that iomap replaced |
//! | [`lease`], [`truncate`] | `dax_layout_busy_page`, `truncate_pagecache` |
//! | [`conformance`] | what a file system below has to do, as a suite |
//! | [`replay`] | scripts of operations, written down as the recordings of Linux are |
//! | [`trace`] | the `fs_dax` and `iomap` tracepoints |
//! | [`compat`] | every difference between this library and Linux 6.1 |
//!
//! Nothing above [`iomap`] parses a disk structure, and nothing here holds a reference to file bytes:
//! they are others' to change, so they are copied in and out.

mod absent;
mod asked;
#[cfg(feature = "buffer-head")]
pub mod buffer_head;
pub mod compat;
pub mod conformance;
#[cfg(feature = "buffer-head")]
mod dio;
pub mod entry;
pub mod error;
#[cfg(feature = "buffer-head")]
mod ext2_get_block;
mod ext2_iomap;
mod fallback;
pub mod fault;
mod fault_result;
mod file;
pub mod iomap;
pub mod iter;
pub mod lease;
mod leases;
mod map_kind;
pub mod mapping;
pub mod mmu;
mod page_table;
pub mod replay;
pub mod rw;
mod sync;
pub mod trace;
pub mod truncate;
pub mod uio;
mod vma;
mod volume;
mod wait;
pub mod writeback;
pub mod zero;

pub use asked::Asked;
pub use compat::Compat;
pub use error::{Errno, Error, Result};
pub use ext2_core::Wait;
pub use file::{File, Lease, Leased, LeasedPart, LeasedRun, OpenFor};
pub use volume::{DataPath, DaxFs, DaxOptions, Flushing};
pub use wait::WaitTable;
