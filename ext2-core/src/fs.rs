//! A file system that is open.
//!
//! # Invariants
//! 1. Geometry and features never change while it is open.
//! 2. Read-only: no byte of the device is written. Without the feature `write` there is nothing else.

/// Byte of the device at which a field of the primary superblock lies.
macro_rules! super_at {
    ($field:ident) => {
        $crate::raw::SUPERBLOCK_OFFSET + core::mem::offset_of!($crate::raw::RawSuperblock, $field) as u64
    };
}
pub(crate) use super_at;

#[cfg(feature = "write")]
pub(crate) mod change;
mod close;
#[cfg(feature = "write")]
mod loss;
#[cfg(feature = "write")]
mod mount;
mod open;
#[cfg(feature = "write")]
pub(crate) mod orphans;
#[cfg(not(feature = "write"))]
mod reader;
mod statfs;
#[cfg(feature = "write")]
mod stores;
mod table;
#[cfg(feature = "write")]
pub(crate) mod writer;

pub use close::{Closed, Unclean};
pub use open::{OpenOptions, SuperblockAt};
pub use statfs::StatFs;

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use blockdev::BlockDevice;
use zerocopy::FromZeros;

use crate::dir::Indexes;
use crate::error::{Corrupt, Object, Result};
use crate::inode::Inode;
use crate::raw::RawGroupDesc;
use crate::{Geometry, GroupNr, InodeNr, Superblock};

/// A file system that is open. Cloning it is cheap; the last holder, inodes included, closes it.
///
/// ```
/// use ext2_core::{Closed, Ext2, OpenOptions};
///
/// let fs = Ext2::open(ext2_image::mkfs::in_memory(4 << 20)?, &OpenOptions::default())?;
/// fs.create_dir_all("srv/www")?;
/// fs.write("srv/www/index.html", "<h1>it works</h1>")?;
/// for found in fs.walk("/srv")? {
///     let found = found?;
///     println!("{:?} {} bytes", found.inode.kind(), found.inode.size());
/// }
/// println!("{} of {} blocks are free", fs.statfs()?.blocks_free, fs.statfs()?.blocks); assert_eq!(fs.close()?, Closed::Clean);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Ext2(pub(crate) Arc<Fs>);

/// What all holders share.
pub(crate) struct Fs {
    pub(crate) dev: Arc<dyn BlockDevice>,
    pub(crate) geo: Geometry,
    /// The superblock as it was when the file system was opened.
    pub(crate) sb: Superblock,
    pub(crate) super_group: GroupNr,
    pub(crate) table: table::InodeTable,
    /// The first block of each group's inode table; 0 where the descriptor was not read yet. Tables never move.
    pub(crate) inode_tables: Vec<AtomicU32>,
    pub(crate) indexes: Indexes,
    #[cfg(feature = "write")]
    pub(crate) clock: Arc<dyn crate::Clock>,
    /// The log that metadata goes through, where that was asked for: it is `dev`, then.
    #[cfg(feature = "write")]
    pub(crate) log: Option<Arc<crate::log::Logged>>,
    /// Fences and flushes that failed.
    #[cfg(feature = "write")]
    pub(crate) losses: loss::Losses,
    /// Inodes that were let go while set-id bits that were taken from them may have been gone in the log alone.
    #[cfg(feature = "write")]
    pub(crate) rights_in_log: crate::sync::Mutex<alloc::collections::BTreeSet<crate::InodeNr>>,
    /// Attribute blocks that may be shared, by their hash.
    #[cfg(feature = "write")]
    pub(crate) shared_xattrs: crate::sync::Mutex<crate::xattr::Shared>,
    /// Shared by who stores into the tables of inodes or the superblock; exclusive while a transaction holds such blocks.
    #[cfg(feature = "write")]
    pub(crate) stores: crate::sync::RwLock<()>,
    /// Present when the file system is open for writing.
    #[cfg(feature = "write")]
    pub(crate) writer: Option<writer::Writer>,
}

impl Fs {
    /// Reads the descriptor of a group, and checks that its places lie inside the file system.
    pub(crate) fn descriptor(&self, group: GroupNr) -> Result<RawGroupDesc> {
        let mut desc = RawGroupDesc::new_zeroed();
        let offset = self.geo.descriptor_offset(group, self.super_group);
        self.dev.read_at(offset, zerocopy::IntoBytes::as_mut_bytes(&mut desc))?;
        self.geo.check_descriptor(group, &desc)?;
        Ok(desc)
    }

    /// Where an inode lies on the device, in bytes.
    pub(crate) fn inode_offset(&self, nr: InodeNr) -> Result<u64> {
        let Some((group, index)) = self.geo.group_of_inode(nr) else {
            let what = format!("inode {nr} is past the last of {}", self.geo.inodes_count);
            return Err(Corrupt::new(Object::Inode(nr), what).into());
        };
        let table = u64::from(self.inode_table(group)?);
        Ok(table * self.geo.block_size.bytes() + u64::from(index) * u64::from(self.geo.inode_size))
    }

    /// The first block of a group's inode table.
    fn inode_table(&self, group: GroupNr) -> Result<u32> {
        let known = self.inode_tables.get(group.get() as usize);
        match known.map_or(0, |table| table.load(Ordering::Relaxed)) {
            0 => {
                let table = self.descriptor(group)?.bg_inode_table.get();
                if let Some(known) = known {
                    known.store(table, Ordering::Relaxed);
                }
                Ok(table)
            }
            table => Ok(table),
        }
    }
}

impl Ext2 {
    pub(crate) fn from_fs(fs: Arc<Fs>) -> Self {
        Self(fs)
    }

    /// The superblock as it was when the file system was opened.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.0.sb
    }

    /// The layout.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.0.geo
    }

    /// The device under it.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.0.dev
    }

    /// The largest size that a file can have, in bytes.
    #[must_use]
    pub fn max_size(&self) -> u64 {
        self.0.geo.max_file_size()
    }

    /// The descriptor of a group, as it lies on the device.
    ///
    /// # Errors
    /// `Corrupt` when a bitmap or the inode table lies outside the file system; the device's errors.
    pub fn descriptor(&self, group: GroupNr) -> Result<RawGroupDesc> {
        self.0.descriptor(group)
    }

    /// The root directory.
    ///
    /// # Errors
    /// As [`inode`](Self::inode).
    pub fn root(&self) -> Result<Inode> {
        self.inode(InodeNr::ROOT)
    }

    /// The inode of a number, from memory if somebody holds it. Linux: `ext2_iget`.
    ///
    /// # Errors
    /// `ESTALE` for a deleted inode; `Corrupt`, where the file system is open for writing also for one without links that
    /// is not deleted; the device's errors.
    pub fn inode(&self, nr: InodeNr) -> Result<Inode> {
        self.0.inode(nr)
    }
}

impl fmt::Debug for Fs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fs").field("device", &self.dev).field("geometry", &self.geo).finish_non_exhaustive()
    }
}

impl PartialEq for Ext2 {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Ext2 {}

impl fmt::Debug for Ext2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ext2")
            .field("device", &self.0.dev)
            .field("geometry", &self.0.geo)
            .finish_non_exhaustive()
    }
}
