//! Making file systems: empty ones of any geometry, and such that hold a tree of files.
//!
//! [`Format`] says what a file system is to be like; [`Layout`] is where everything of it lies, by arithmetic alone.
//! A [`Tree`] holds names and attributes; a [`Plan`] settles which block and inode is whose; [`Plan::write`] writes it
//! front to back, taking the bytes of files from [`Contents`] and putting them into an [`Output`].
//!
//! # Invariants
//! 1. The same tree, format and options give the same bytes, whatever the order in which files came, the time, the
//!    user and the number of threads.
//! 2. Nothing is tried: the size is computed, and what was planned has room.
//! 3. The result is clean for e2fsck, and its geometry is that of mke2fs for the same arguments.
//!
//! No locks that a caller would see. Several threads look at the files of a directory of the host ([`source`]), and
//! several read files and write them, where their contents can be read by several.

mod contents;
#[cfg(feature = "std")]
mod crew;
mod difference;
mod dirs;
mod error;
mod format;
mod groups;
#[cfg(feature = "std")]
mod host;
mod identity;
mod job;
mod jobs;
mod layout;
mod lost;
mod map;
mod options;
mod output;
pub mod pfn;
mod plan;
#[cfg(feature = "std")]
pub mod source;
mod space;
#[cfg(feature = "std")]
mod stamp;
#[cfg(feature = "std")]
mod synthetic;
mod tree;
mod warning;
mod write;
mod writer;
mod xattr;
mod xattr_list;

pub use contents::{Contents, MemoryContents, MemoryFile, NoContents, SourceFile};
pub use difference::{FirstDifference, first_difference};
pub use error::{Error, Result};
pub use format::{Format, Inodes, Revision};
#[cfg(feature = "std")]
pub use host::FileOutput;
pub use identity::{identity, identity_of_seed};
pub use layout::Layout;
pub(crate) use map::indirect_blocks;
pub use options::{AlignChoice, LostAndFound, Options, Size, Spare};
pub use output::{DeviceOutput, Fresh, Output};
pub use plan::Plan;
pub use space::{Align, Needs};
#[cfg(feature = "std")]
pub use stamp::Stamp;
#[cfg(feature = "std")]
pub use synthetic::{Segment, SegmentKind, Synthetic};
pub use tree::{Body, NodeAttrs, NodeId, Tree};
pub use warning::{Warning, Warnings};
pub use write::Report;
pub use xattr::attribute_lost;
pub(crate) use xattr_list::Alike;
pub use xattr_list::{Xattr, XattrList};

/// An empty file system of `bytes` bytes in memory: a place to try things. Blocks have 4096 bytes, so that files can be
/// mapped, but 1024 below 1 MiB.
///
/// ```
/// let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(1 << 20)?, &Default::default())?;
/// fs.create_dir_all("/var/log")?;
/// fs.write("/var/log/boot", "up")?;
/// assert_eq!(fs.read_to_string("var/log/boot")?, "up");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`format()`]; the device's where there is no memory.
pub fn in_memory(bytes: u64) -> Result<blockdev::RamDevice> {
    let device = blockdev::RamDevice::new(bytes)?;
    let block_size = ext2_core::BlockSize::new(4096).filter(|_| bytes >= 1 << 20);
    format(&device, &Format { block_size, ..Format::default() }, Fresh::Zeros)?;
    Ok(device)
}

/// Makes an empty file system that fills `device`, as mke2fs does.
///
/// # Errors
/// As [`Plan::new`] and [`Plan::write`].
pub fn format(device: &dyn blockdev::BlockDevice, format: &Format, fresh: Fresh) -> Result<Report> {
    let size = device.size();
    let format = Format { block_size: Some(format.block_size_for(size)), ..format.clone() };
    let root = NodeAttrs::new(0o755, format.root_owner, format.created);
    let options = Options { size: Size::Bytes(size), align: AlignChoice::Off, ..Options::default() };
    let plan = Plan::new(Tree::new(root), &format, &options)?;
    plan.write(&mut NoContents, &DeviceOutput::new(device, fresh), &mut |_| ())
}
