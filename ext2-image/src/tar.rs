//! An image, or a part of it, as a tar archive: in the PAX format (POSIX.1-2001), with what ext2 knows of a file.
//!
//! # Invariants
//! 1. The same tree gives the same bytes: members come parents first, names in the order of their bytes; nothing of the
//!    time, the user or the machine goes in. An archive of a whole image also says what the image was like, in a comment
//!    that [`crate::input`] reads, so that the image of it is that image.
//! 2. It holds every name, link, hole, time with its nanoseconds, owner, attribute and flag. A socket is the exception,
//!    which no archive holds: it is left out, and told of.
//! 3. Memory is bounded by the names with several links and the runs of data of one file. An image whose files share
//!    blocks is refused, so that an archive has no more data than the image.
//!
//! Fields that a plain header holds are there; PAX records are written only for what it does not hold, in the spelling
//! of GNU tar (`SCHILY.xattr`, `SCHILY.acl`, sparse files of version 1.0) and bsdtar (`SCHILY.fflags`,
//! `LIBARCHIVE.creationtime`).
//!
//! ```
//! use ext2_core::{Ext2, OpenOptions};
//!
//! let fs = Ext2::open(ext2_image::mkfs::in_memory(4 << 20)?, &OpenOptions::default())?;
//! fs.write("motd", "welcome")?;
//! let mut archive = Vec::new();
//! ext2_image::tar::write(&fs.root()?, b"/", &mut archive, &mut |_| ())?;
//! assert!(archive.windows(7).any(|bytes| bytes == b"welcome"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod acl;
mod contents;
mod header;
mod image;
mod member;
mod records;
mod write;

#[cfg(feature = "archive")]
pub(crate) use image::image_of_comment;
pub use write::{Error, LeftOut, Report, Result, write};
