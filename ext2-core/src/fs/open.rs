//! Opening a file system.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::AtomicU32;

use blockdev::BlockDevice;
use zerocopy::{FromZeros, IntoBytes};

use super::table::InodeTable;
use super::{Ext2, Fs};
use crate::clock::Clock;
use crate::dir::Indexes;
use crate::error::{Corrupt, Object, Result, refuse};
use crate::inode::FileKind;
use crate::raw::{MAGIC, RawSuperblock, SUPERBLOCK_OFFSET};
use crate::{BlockSize, Errno, Geometry, GroupNr, OnError, Superblock};

/// Groups whose inode tables are known by heart: more than 4 TiB of small blocks have. Images with more are made up, by a device
/// that says it is large; the descriptors of those past it are read each time.
const TABLES_KNOWN: u32 = 1 << 20;

/// Which copy of the superblock to open with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SuperblockAt {
    /// The one at byte 1024.
    #[default]
    Primary,
    /// The backup of a group, looked for at each block size in turn.
    Group(GroupNr),
    /// A backup in a block of a known size (as `e2fsck -b BLOCK -B SIZE`).
    Block {
        /// The block's number.
        block: u32,
        /// Its size.
        size: BlockSize,
    },
}

/// How to open a file system. The default is read-write, with the primary superblock; without the feature `write` that is
/// refused with `EROFS`, and what says how to write has no effect.
///
/// ```
/// use std::sync::Arc;
///
/// use ext2_core::{Ext2, FixedClock, OpenOptions, Timestamp};
///
/// let release = Timestamp::from_secs(1_700_000_000);
/// let options = OpenOptions { clock: Some(Arc::new(FixedClock(release))), ..OpenOptions::default() };
/// let fs = Ext2::open(ext2_image::mkfs::in_memory(4 << 20)?, &options)?;
/// fs.write("file", "the same bytes each time")?;
/// assert_eq!(fs.metadata("file")?.mtime, release);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct OpenOptions {
    /// Write nothing, not even to the superblock.
    pub read_only: bool,
    /// Which superblock.
    pub superblock: SuperblockAt,
    /// Open read-only although the journal needs recovery, and see the state before it.
    pub ignore_journal: bool,
    /// What to do on errors; `None` for what the superblock says.
    pub errors: Option<OnError>,
    /// How blocks are placed, unless `placement` says it.
    #[cfg(feature = "write")]
    pub policy: crate::Policy,
    /// How blocks are placed, by a policy of the caller's own.
    #[cfg(feature = "write")]
    pub placement: Option<Arc<dyn crate::placement::Placement>>,
    /// Bytes by which the device's first byte lies past an address aligned to 2 MiB, for a device that
    /// does not know; a memory device's page frame numbers are asked.
    pub device_offset: u64,
    /// Refuse with `EXDEV` to move a directory where a crash in the middle could need a human.
    pub strict_rename: bool,
    /// Let inodes with equal attributes share a block. Saves space, and costs a transaction for each change of such a
    /// block. A new inode has its own until its attributes change when it has a name.
    pub share_xattrs: bool,
    /// Leave the blocks that are reserved for root alone.
    pub keep_reserved: bool,
    /// Bring changes to the media together, through a log: the journal that the image has, or one that is made for as long
    /// as it is open, where there is plenty of room. Fences cost nothing then, and a flush brings all that
    /// was done; a crash leaves the image as it was at some commit, with what was flushed. Without room for a log each
    /// fence is the device's. What does without: a file system that is read through [`DaxDevice`](blockdev::DaxDevice),
    /// since what a log holds is not in the device's memory.
    pub log: bool,
    /// Keep changes back, and bring them to the media as one when somebody asks for durability, at the latest by
    /// [`close`](crate::Ext2::close): a log that is there for each commit alone. Opening stores nothing and waits for nothing;
    /// until the first commit the image is the clean one that it was, and a close after which nothing has changed leaves its
    /// bytes as they are. A commit takes four flushes; there are several where changes outgrow a sixteenth of the image or an
    /// eighth of its free blocks. For one who changes much and then goes; a [`log`](Self::log) is for who stays.
    /// It is a `log` where the image has a journal or was not clean, or has little room.
    pub batch: bool,
    /// Where the present comes from; `None` for the system's clock (without `std`: 1970).
    pub clock: Option<Arc<dyn Clock>>,
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("read_only", &self.read_only)
            .field("superblock", &self.superblock)
            .field("ignore_journal", &self.ignore_journal)
            .finish_non_exhaustive()
    }
}

impl OpenOptions {
    /// Read-only, with the primary superblock.
    #[must_use]
    pub fn read_only() -> Self {
        Self { read_only: true, ..Self::default() }
    }

    /// Whether what a crash left in a log of ours is replayed.
    pub(super) fn replays(&self) -> bool {
        !self.ignore_journal && self.superblock == SuperblockAt::Primary
    }

    #[cfg(feature = "write")]
    fn clock(&self) -> Arc<dyn Clock> {
        match &self.clock {
            Some(clock) => clock.clone(),
            #[cfg(feature = "std")]
            None => Arc::new(crate::SystemClock),
            #[cfg(not(feature = "std"))]
            None => Arc::new(crate::FixedClock(crate::Timestamp::default())),
        }
    }
}

/// Reads the superblock at a byte offset.
pub(super) fn read_super(dev: &dyn BlockDevice, offset: u64) -> Result<RawSuperblock> {
    let mut raw = RawSuperblock::new_zeroed();
    if offset.checked_add(size_of::<RawSuperblock>() as u64).is_none_or(|end| end > dev.size()) {
        let what = format!("a device of {} bytes has none at byte {offset}", dev.size());
        return Err(Corrupt::new(Object::Superblock, what).into());
    }
    dev.read_at(offset, raw.as_mut_bytes())?;
    Ok(raw)
}

/// Finds the superblock that the options ask for.
fn find_super(dev: &dyn BlockDevice, at: SuperblockAt) -> Result<RawSuperblock> {
    match at {
        SuperblockAt::Primary => read_super(dev, SUPERBLOCK_OFFSET),
        SuperblockAt::Block { block, size } => read_super(dev, u64::from(block) * size.bytes()),
        SuperblockAt::Group(group) => {
            let sizes: Vec<BlockSize> = (0..=6).filter_map(BlockSize::from_s_log_block_size).collect();
            for size in sizes {
                let first = u64::from(size.bytes() == 1024);
                let block = first + u64::from(group.get()) * size.bytes() * 8;
                match read_super(dev, block.saturating_mul(size.bytes())) {
                    Ok(raw)
                        if raw.s_magic.get() == MAGIC
                            && BlockSize::from_s_log_block_size(raw.s_log_block_size.get()) == Some(size)
                            && (raw.s_rev_level.get() == 0
                                || u32::from(raw.s_block_group_nr.get()) == group.get()) =>
                    {
                        return Ok(raw);
                    }
                    _ => {}
                }
            }
            let what = format!("no backup found at the start of group {group}");
            Err(Corrupt::new(Object::Superblock, what).into())
        }
    }
}

impl Ext2 {
    /// Opens the file system on a device, which may be shared: an `Arc` of a device is one too.
    ///
    /// # Errors
    /// `Corrupt` when there is none or it contradicts itself, `Incompatible` when it uses what is not
    /// supported (by name), the device's errors; `EBUSY` when the device is open for writing already, or the
    /// kernel writes to it.
    pub fn open(dev: impl BlockDevice + 'static, options: &OpenOptions) -> Result<Self> {
        Self::open_shared(blockdev::shared(dev), options)
    }

    fn open_shared(dev: Arc<dyn BlockDevice>, options: &OpenOptions) -> Result<Self> {
        // What a crash left in our log comes first.
        let dev = Self::after_crash(dev, options)?;
        let raw = find_super(&*dev, options.superblock)?;
        let sb = Superblock::from_raw(&raw, dev.size(), options.ignore_journal)?;
        let geo = Geometry::new(&sb);
        let super_group = match options.superblock {
            SuperblockAt::Primary => GroupNr::new(0),
            SuperblockAt::Group(group) => group,
            SuperblockAt::Block { block, .. } => {
                geo.group_of_block(block).map_or(GroupNr::new(0), |(group, _)| group)
            }
        };
        if !options.read_only {
            sb.features.check_writable()?;
            if options.superblock != SuperblockAt::Primary {
                return refuse(Errno::INVAL, "a backup superblock can only be opened read-only");
            }
        }
        let mut fs = Fs {
            #[cfg(feature = "write")]
            losses: super::loss::Losses::new(),
            #[cfg(feature = "write")]
            rights_in_log: crate::sync::Mutex::new(
                crate::sync::Rank::Leaf,
                alloc::collections::BTreeSet::new(),
            ),
            dev,
            geo,
            sb,
            super_group,
            table: InodeTable::new(),
            inode_tables: Vec::new(),
            indexes: Indexes::new(),
            #[cfg(feature = "write")]
            clock: options.clock(),
            #[cfg(feature = "write")]
            log: None,
            #[cfg(feature = "write")]
            shared_xattrs: crate::sync::Mutex::new(crate::sync::Rank::Leaf, crate::xattr::Shared::new()),
            #[cfg(feature = "write")]
            stores: crate::sync::RwLock::new(crate::sync::Rank::Stores, ()),
            #[cfg(feature = "write")]
            writer: None,
        };
        fs.inode_tables.resize_with(fs.geo.groups.min(TABLES_KNOWN) as usize, AtomicU32::default);
        if options.read_only {
            let ext2 = Self(Arc::new(fs));
            ext2.check_root()?;
            return Ok(ext2);
        }
        Self::open_for_writing(fs, &raw, options)
    }

    pub(super) fn check_root(&self) -> Result<()> {
        let root = self.root()?;
        if root.kind() != FileKind::Directory || root.size() == 0 {
            return Err(
                Corrupt::new(Object::Inode(root.nr()), "the root is not a directory with contents").into()
            );
        }
        Ok(())
    }
}
