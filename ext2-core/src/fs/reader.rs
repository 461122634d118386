//! What a file system is that can only be read: what [`writer`](super) says of one that may be open for writing, without
//! any of it. Nothing of the writing half is compiled then.

use alloc::sync::Arc;

use blockdev::BlockDevice;

use super::{Closed, Ext2, Fs, OpenOptions};
use crate::Errno;
use crate::error::{Result, refuse};
use crate::inode::Cell;

impl Fs {
    /// Whether it was opened for writing.
    pub(crate) fn has_writer(&self) -> bool {
        false
    }

    /// Whether changes are refused.
    pub(super) fn is_read_only(&self) -> bool {
        true
    }

    /// Free blocks and inodes.
    pub(super) fn free_counts(&self) -> (u64, u64) {
        self.counts_of_superblock()
    }

    /// Nothing is late.
    pub(super) fn sync_all(&self) -> Result<()> {
        Ok(())
    }

    /// Nothing is to be written.
    pub(super) fn unmount(&self) -> Result<Closed> {
        Ok(Closed::ReadOnly)
    }
}

impl Cell {
    /// Nothing is to be written or freed.
    pub(crate) fn let_go(&self) {}
}

impl Ext2 {
    /// The device as it is after what a crash left in a log of ours, replayed in memory alone.
    pub(super) fn after_crash(
        dev: Arc<dyn BlockDevice>,
        options: &OpenOptions,
    ) -> Result<Arc<dyn BlockDevice>> {
        if !options.read_only {
            return refuse(Errno::ROFS, "this library was built to read only");
        }
        if options.replays() { crate::log::recovered(dev) } else { Ok(dev) }
    }

    pub(super) fn open_for_writing(_: Fs, _: &crate::raw::RawSuperblock, _: &OpenOptions) -> Result<Self> {
        refuse(Errno::ROFS, "this library was built to read only")
    }
}
