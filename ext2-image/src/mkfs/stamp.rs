//! What a file of the host was when it was looked at.

use rustix::fs::Stat;

/// A file of the host as it was at a moment: equal stamps are the same file with the same contents, as far as its device, inode,
/// size and times tell. What changes within the resolution of the host's clock and keeps the size has the same stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    seconds: [i64; 2],
    nanoseconds: [u32; 2],
}

impl Stamp {
    /// What an open file is now.
    ///
    /// # Errors
    /// When the host does not tell.
    pub fn of(file: &std::fs::File) -> std::io::Result<Self> {
        Ok(Self::from_stat(&rustix::fs::fstat(file)?))
    }

    pub(super) fn from_stat(found: &Stat) -> Self {
        // Hosts count nanoseconds in types of various widths.
        #[allow(clippy::useless_conversion)] // Some of them in this one.
        let nanoseconds = [found.st_mtime_nsec, found.st_ctime_nsec].map(|of| of.try_into().unwrap_or(0));
        Self {
            device: found.st_dev,
            inode: found.st_ino,
            size: u64::try_from(found.st_size).unwrap_or(0),
            seconds: [found.st_mtime, found.st_ctime],
            nanoseconds,
        }
    }
}
