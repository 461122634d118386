//! What is done to an ext2 image as a whole, over the file system of `ext2-core`.
//!
//! Nothing here is needed to read or write a file. What needs no host (checking, manifests, `mkfs` in memory) is
//! `no_std` with `alloc`; what reads directories, archives and image files of the host needs the feature `std`.
//!
//! | module | is |
//! |---|---|
//! | [`mkfs`] | making images: from nothing, a directory, an archive, a manifest |
//! | `archive` | tar archives as trees: reading their members, one over the other (feature `archive`) |
//! | `oci` | container images as trees: layouts and `docker save` archives, their layers (feature `archive`) |
//! | `input` | all sources by their names, one or several one over the other (feature `archive`) |
//! | [`check`](mod@check) | whether an image is sound, and what `e2fsck -p` would mend |
//! | [`jbd2`] | replaying the journal of ext3 and ext4 |
//! | [`repair`](mod@repair) | mending all that a check finds, on changes that can be looked at first |
//! | [`manifest`] | an image as text, and what two images differ in |
//! | `copy` | trees out of an image, into one and within (feature `std`) |
//! | [`seal`] | hash trees by which the kernel (dm-verity) lets no changed byte be read |
//! | [`tar`] | an image as an archive |
//! | [`disk`] | a disk with partitions around an image |
//! | [`resize`] | growing and shrinking, as resize2fs does it |
//! | [`tune`] | changing what the superblock says |
//! | [`align`](mod@align) | moving files into whole units of 2 MiB |
//! | `sparsify` | giving back blocks of the image's file that hold nothing (feature `std`) |
//! | [`rewrite`] | what changes an image as a whole does it in one step, with a log |
//! | [`inspect`] | which block is whose, what was deleted, what a journal holds; single fields changed |
//! | [`foreign`] | files that are no ext2 image, by what they are |
//! | `packed` | images packed by gzip or zstd, to be looked at (feature `archive`) |
//! | [`fields`] | the structures of an image taken apart, field by field |
//! | `units`, `coverage` | which 2 MiB of a file a page of that size can map, and for whom |
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod align;
#[cfg(feature = "archive")]
pub mod archive;
mod capability;
pub mod check;
#[cfg(feature = "std")]
pub mod copy;
mod coverage;
mod crc;
pub mod disk;
pub mod fields;
#[cfg(feature = "std")]
mod file_range;
pub mod foreign;
#[cfg(feature = "std")]
mod host_time;
#[cfg(feature = "archive")]
pub mod input;
pub mod inspect;
pub mod jbd2;
mod joined;
mod kept_paths;
mod little;
pub mod manifest;
pub mod mkfs;
#[cfg(feature = "archive")]
pub mod oci;
#[cfg(feature = "archive")]
pub mod packed;
pub mod repair;
pub mod resize;
pub mod rewrite;
pub mod seal;
#[cfg(feature = "std")]
pub mod sparsify;
#[cfg(feature = "std")]
pub mod tar;
pub mod tune;
mod units;
mod zeros;

pub use capability::{capability_from_text, is_capability};
pub use coverage::{Coverage, array_ends_in_unit};
pub use ext2_core::{Found, Walk, WalkError};
#[cfg(feature = "std")]
pub use file_range::FileRange;
pub use kept_paths::{KeptPath, KeptPaths};
pub use units::{UNIT, UnitCounts, UnitRun, UnitState, Units};
