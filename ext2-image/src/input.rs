//! What goes into a new image, from whatever people have: nothing, a directory, an archive, a container image, a
//! manifest, or several of them one over the other.
//!
//! # Invariants
//! 1. One source gives the tree that it has. Several are layers: each is applied over those before it, by the rules of
//!    the OCI image specification, whiteouts included.
//! 2. What a source has and an image cannot hold is a [warning](crate::mkfs::Tree::warnings); so are whiteouts where
//!    there is nothing below that they could hide.
//! 3. Names of users and groups are the image's own, never the host's.

mod owner;
mod read;
mod source;
mod whiteout;

pub use owner::{Owner, OwnerMap};
pub use read::{Failed, Input, Kind, Reading};
pub use source::Source;
