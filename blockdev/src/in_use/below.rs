//! What lies below a block device: the file of a loop device, and whether the device can be written to at all.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use alloc::format;

use rustix::fs::{major, minor};

use super::{System, loop_file, number};

impl System {
    fn dir_of(&self, device: u64) -> PathBuf {
        self.sys.join("dev/block").join(format!("{}:{}", major(device), minor(device)))
    }

    /// The file of the loop device with this number, or of the one that it is a partition of, opened for reading. `None` for
    /// others, and where the path leads elsewhere or to nothing here.
    fn file_below(&self, device: u64) -> Option<File> {
        let own = self.dir_of(device);
        // The kernel follows the link before it goes up.
        let whole = [own.join("loop"), own.join("../loop")].into_iter().find(|dir| dir.exists())?;
        let path = fs::read(whole.join("backing_file")).ok()?;
        let path = path.strip_suffix(b"\n").unwrap_or(&path);
        let file = File::open(Path::new(std::ffi::OsStr::from_bytes(path))).ok()?;
        let name = fs::canonicalize(whole.join("..")).ok()?;
        let known = File::open(self.dev.join(name.file_name()?)).ok().and_then(|device| loop_file(&device));
        let found = file.metadata().ok()?;
        // Who may not ask the device goes by the path.
        known.is_none_or(|known| known == (found.dev(), found.ino())).then_some(file)
    }
}

/// The file of a loop device, given its number; see [`System::file_below`].
pub(crate) fn file_below(device: u64) -> Option<File> {
    System::default().file_below(device)
}

/// Whether the kernel refuses writes to a block device, given its number. Linux: `bdev_read_only`.
pub(crate) fn is_read_only(device: u64) -> bool {
    number(&System::default().dir_of(device).join("ro")) == Some(1)
}
