//! Directories: entries in blocks, lookup, listing.
//!
//! # Invariants
//! 1. A directory is a sequence of whole blocks, each filled exactly by its entries; a block that is not
//!    is [`Corrupt`](crate::Error::Corrupt), and what lies in other blocks is still read.
//! 2. The index in memory never decides: a name found through it is compared with the entry on the
//!    device.
//! 3. A cookie is the byte offset at which listing goes on. Entries move only where a block is packed, and then in
//!    order; a cookie follows them (see `ext2_cache::Moves`), so that a listing sees every entry that is there from its
//!    start to its end exactly once.
//!
//! # Locking
//! Lookup and listing hold the directory's `io` lock shared until they have the inode; changes hold it exclusive. A name that was found lately
//! is looked up without it (see `places`).

#[cfg(feature = "write")]
mod change;
mod entries;
mod index;
mod lookup;
#[cfg(feature = "write")]
mod rename;

#[cfg(feature = "write")]
pub(crate) use change::{Named, Removal, Room};
pub use entries::{DirEntry, Entries};
pub(crate) use ext2_cache::{Moves, Places};
pub(crate) use index::{Index, Indexes, Shared as SharedIndex};
#[cfg(feature = "write")]
pub(crate) use lookup::Found;

/// The longest name, in bytes (Linux: `EXT2_NAME_LEN`).
pub(crate) const NAME_MAX: usize = 255;
