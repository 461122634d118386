//! Copying trees out of an image, into one, and within.
//!
//! [`extract`] makes files of the host from files of an image, [`insert`] the reverse, [`duplicate`] copies from an image
//! into an image, often the same. Holes stay holes, files with several names keep them, and kinds, permissions, owners,
//! times and extended attributes are copied.
//!
//! # Invariants
//! 1. On the host every step goes through an open directory, by one name, and follows no link: whatever an image says, and
//!    whatever somebody swaps meanwhile, nothing is read or made outside the tree that the caller named.
//! 2. What is read of a file of the host (kind, attributes, bytes) comes from one file: it is opened once, and what is
//!    opened again is compared with it.
//! 3. A file that cannot be copied does not keep the others from it: an [`Observer`] is told, and the copy goes on. A file
//!    system that is full ends it.
//! 4. Nothing is left out in silence: attributes that the other side does not take are told.
//!
//! No locks of its own.
//!
//! ```
//! use ext2_core::{Ext2, OpenOptions};
//!
//! let fs = Ext2::open(ext2_image::mkfs::in_memory(4 << 20)?, &OpenOptions::default())?;
//! fs.write("motd", "welcome")?;
//! let folder = tempfile::tempdir()?;
//! let mut problems = Vec::<String>::new();
//! ext2_image::copy::extract(&fs.root()?, b"/", folder.path(), None, &mut problems)?;
//! assert_eq!(std::fs::read(folder.path().join("motd"))?, b"welcome");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod duplicate;
mod extract;
mod host_dir;
mod host_file;
mod insert;
mod like;
mod problem;

pub use duplicate::duplicate;
pub use extract::{extract, extract_size};
pub use insert::{insert, insert_size};
pub use problem::{Cause, Observer, Place, Problem};

use ext2_core::Inode;

/// Bytes moved at once: one unit of 2 MiB.
const CHUNK: usize = 2 << 20;

/// An extended attribute: its name and its value.
type Xattr = (alloc::vec::Vec<u8>, alloc::vec::Vec<u8>);

/// To whom copies in an image belong; what is not said is taken from the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

/// A place in an image that a copy goes to.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The directory.
    pub directory: &'a Inode,
    /// Its path, for messages.
    pub path: &'a [u8],
    /// The name of the copy; without one, what is in the source goes into the directory itself.
    pub name: Option<&'a [u8]>,
    /// To whom copies belong.
    pub owner: Owner,
}

/// The path of a name in a directory.
fn join(directory: &[u8], name: &[u8]) -> alloc::vec::Vec<u8> {
    let slash: &[u8] = if directory.is_empty() || directory.ends_with(b"/") { b"" } else { b"/" };
    [directory, slash, name].concat()
}

/// The first bytes of a buffer, which is as long as was needed so far: most files are small.
fn first(buffer: &mut alloc::vec::Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    buffer.get_mut(..len).unwrap_or_default()
}
