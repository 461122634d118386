//! Looking into an image, and changing single fields of it: which block is whose, what the groups hold, what was deleted,
//! what a journal holds.
//!
//! Everything works on the device and not on an open file system, so that an image that cannot be opened can be looked at,
//! and nothing is found that memory knows better.
//!
//! # Invariants
//! No image makes a walk long: an indirect block is entered once for each inode, and a walk over all inodes enters no more
//! of them than the file system has blocks, twice. A structure is read where it lies inside the file system, and all else
//! is passed over.

mod deleted;
mod journal;
mod pointers;
mod poke;
mod role;
mod space;
mod table;
mod whose;

pub use deleted::{Deleted, deleted, revive};
pub use journal::{JournalBlock, journal};
pub use pointers::{Budget, Step, pointers, read_inode, visit};
pub use poke::{Poked, Refused, poke, poke_bit};
pub use role::{content_of, structure_of};
pub use space::{GroupSpace, bad_blocks, group_space, is_set};
pub use whose::{Use, whose};
