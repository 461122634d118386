//! Repairing an image: everything that [`check`](mod@crate::check) finds is mended, on a journal of changes that can be
//! looked at before any of it is stored.
//!
//! The passes are those of the check; each finding has its repair where it is found. What takes blocks waits for the end of
//! its pass, when it is known which are free, and what changes what later passes are to see lets the passes begin anew. The
//! rounds end when one finds nothing, or mended only counts and bitmaps, which are then looked at once more. Of indirect blocks
//! and directories, a round reads again what was changed since the last.
//!
//! # Invariants
//! 1. Nothing is stored while it is being found out what to store ([`Changes`]). Storing has an order in which every prefix
//!    is an image that the same repair can be begun on anew.
//! 2. What can be read before can be read after, under its name or in `lost+found`. What e2fsck keeps is kept: where it
//!    deletes a file for what one indirect block says, that block goes; where it makes the image one of ext4 for a file
//!    with extents, the file gets a map.
//! 3. A second repair stores nothing.
//! 4. Memory is that of a check, of the changes, and at most 25 MiB for what a round leaves to the next.
//!
//! ```
//! use ext2_image::inspect::poke;
//! use ext2_image::fields::{Layout, Structure};
//! use ext2_image::repair::{Changes, Options, Policy, repair};
//!
//! // A link count that is too high, as a lesson breaks it.
//! let image = ext2_image::mkfs::in_memory(8 << 20)?;
//! let root = Structure::Inode(ext2_core::InodeNr::ROOT);
//! poke(&image, &Layout::read(&image)?, root, "i_links_count", "7", false)?.expect("a possible value");
//!
//! let changes = Changes::new(&image);
//! let options = Options { now: 0, policy: Policy::Asked, progress: &|_| () };
//! let report = repair(&changes, &options, &mut |finding| {
//!     println!("{finding}");
//!     true // "yes" to each question
//! })?;
//! assert!(report.clean && report.mended > 0);
//! assert!(!changes.list()?.is_empty(), "nothing is stored yet, and what would be can be looked at");
//! changes.apply()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod changes;
mod descriptors;
mod directories;
mod engine;
mod extents;
mod inodes;
mod journal;
mod layout;
mod lost_found;
mod take;
#[cfg(feature = "std")]
mod undo;

pub use changes::{Change, Changes, GRAIN};
pub use engine::{Options, Policy, Report, repair};
pub(crate) use extents::{Extents, has_extents};
pub use layout::{Backup, backup_in_block, find_backup, has_superblock, use_backup, with_its_size};
#[cfg(feature = "std")]
pub use undo::{UndoWriter, play};
