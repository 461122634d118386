//! The file behind a device, with the lock that keeps others out.
//!
//! # Locking
//! The advisory lock (`flock`) belongs to the open file, of which a child that is forked at that moment has a copy
//! until it runs its own program. So it is given up when the device goes, and does not wait for the last copy to be
//! closed: who closes an image can open it again at once, whatever other threads start.

use std::fs::File;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{FlockOperation, flock};

use crate::{Claim, Locking, Result};

/// An open file; unlocked and closed when it is dropped.
#[derive(Debug)]
pub(crate) struct ImageFile {
    file: File,
    is_locked: bool,
}

impl ImageFile {
    /// A file that may be locked.
    pub(crate) fn new(file: File, lock: Locking) -> Self {
        Self { file, is_locked: lock == Locking::Take }
    }

    /// Claims bytes of the file, and refuses what the kernel has mounted; who skipped the lock is not asked about that.
    pub(crate) fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        #[cfg(target_os = "linux")]
        if self.is_locked {
            crate::in_use::check_unused(&self.file, offset..offset.saturating_add(len))?;
        }
        Claim::of(self, offset, len)
    }

    /// Whether the file belongs to who runs this; to root, every file does.
    pub(crate) fn is_ours(&self) -> bool {
        let me = rustix::process::geteuid();
        me.is_root() || self.file.metadata().is_ok_and(|metadata| metadata.uid() == me.as_raw())
    }
}

impl Deref for ImageFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for ImageFile {
    fn drop(&mut self) {
        // A file that has no lock has none to lose; closing gives up the lock where this could not.
        let _ = flock(&self.file, FlockOperation::NonBlockingUnlock);
        #[cfg(target_os = "linux")]
        if self.is_locked {
            crate::machine_lock::release(&self.file);
        }
    }
}
