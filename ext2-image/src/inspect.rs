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
//!
//! ```
//! use std::sync::Arc;
//!
//! use ext2_core::Ext2;
//! use ext2_image::fields::Layout;
//! use ext2_image::inspect::whose;
//!
//! let image = Arc::new(ext2_image::mkfs::in_memory(8 << 20)?);
//! let fs = Ext2::open(Arc::clone(&image), &Default::default())?;
//! fs.write("file", vec![1; 100_000])?;
//! let inode = fs.resolve("file", ext2_core::Follow::Yes)?.nr();
//! fs.close()?;
//!
//! // The superblock's block is the file system's; what holds the file leads back to its inode.
//! let layout = Layout::read(&image)?;
//! let blocks: Vec<u32> = (0..layout.geometry()?.blocks_count).collect();
//! let uses = whose(&image, &layout, &blocks, &mut |_, _| ())?;
//! assert!(uses.values().flatten().any(|one| one.inode() == Some(inode)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
