//! Copying bytes to what is there already and stays what it is, and bytes that come out of a pipe.

use std::fs::{File, metadata};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use ext2_core::Inode;
use ext2_image::archive::nameless;

use crate::beside::is_descriptor;
use crate::failure::{Failure, Of, Result};
use crate::target::Target;

/// Bytes moved at once.
const CHUNK: usize = 1 << 20;

/// Whether a place is one that bytes go into: a device, a pipe, or what leads to an open file (`/dev/stdout`).
pub(super) fn takes_bytes(place: &Path) -> bool {
    let kind = metadata(place).map(|found| found.file_type());
    let is_sink = kind.is_ok_and(|kind| kind.is_block_device() || kind.is_char_device() || kind.is_fifo());
    is_sink || is_descriptor(place) && place.exists()
}

/// Copies the bytes of a file into `place`.
pub(super) fn pour(start: &Inode, target: &Target, place: &Path) -> Result<()> {
    let host = |error| Failure::host(place, error);
    let mut file = File::options().write(true).open(place).map_err(host)?;
    let (mut buffer, mut at) = (vec![0; CHUNK], 0);
    loop {
        let read = start.read_at(at, &mut buffer).of(|| target.name())?;
        if read == 0 {
            break;
        }
        file.write_all(buffer.get(..read).unwrap_or_default()).map_err(host)?;
        at += read as u64;
    }
    // A disk tells late what it could not take.
    if file.metadata().is_ok_and(|found| found.file_type().is_block_device()) {
        file.sync_all().map_err(host)?;
    }
    Ok(())
}

/// Reads a pipe to its end, into a file without a name.
pub(super) fn gather(pipe: &Path) -> Result<File> {
    let gathered = (|| {
        let mut file = nameless(&std::env::temp_dir())?;
        io::copy(&mut File::open(pipe)?, &mut file)?;
        Ok::<_, io::Error>(file)
    })();
    gathered.map_err(|error| Failure::host(pipe, error))
}

/// A path that leads to a file that is held.
pub(super) fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
