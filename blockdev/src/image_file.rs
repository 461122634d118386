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

/// An open file; unlocked and closed when it is dropped.
#[derive(Debug)]
pub(crate) struct ImageFile(File);

impl ImageFile {
    /// A file that may be locked.
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }

    /// Whether the file belongs to who runs this; to root, every file does.
    pub(crate) fn is_ours(&self) -> bool {
        let me = rustix::process::geteuid();
        me.is_root() || self.0.metadata().is_ok_and(|metadata| metadata.uid() == me.as_raw())
    }
}

impl Deref for ImageFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for ImageFile {
    fn drop(&mut self) {
        // A file that has no lock has none to lose; closing gives up the lock where this could not.
        let _ = flock(&self.0, FlockOperation::NonBlockingUnlock);
    }
}
