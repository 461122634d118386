//! What lookups in an ext2 file system found lately, for readers that take no lock, and runs of blocks.
//!
//! | | says | Linux |
//! |---|---|---|
//! | [`Runs`] | where blocks of a file lie on the device | the extent status tree of ext4 |
//! | [`Places`] | at which bytes of a directory names may lie | the dcache |
//! | [`Moves`] | where entries of a directory went that a listing had yet to give | – |
//! | [`RunSet`] | which blocks were given up and may come back | the revoke table of jbd2 |
//!
//! # Invariants
//! 1. What is found here is true, or is looked at before it is used.
//! 2. What was found before something changed is never believed, however late it is kept.
//!
//! # Locking
//! None: see the modules.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod moves;
mod places;
mod run_set;
mod runs;

pub use moves::{Move, Moves, cookie};
pub use places::Places;
pub use run_set::RunSet;
pub use runs::{Runs, Ticket};
