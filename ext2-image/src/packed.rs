//! Images that are packed by gzip or zstd, or lie in a qcow2 file, unpacked to be looked at.
//!
//! # Invariants
//! 1. What is unpacked lies in a file without a name, with holes where the image has zeros, and goes with the process. The
//!    last one is kept, so that looking twice unpacks once.
//! 2. A qcow2 file names the files behind it, and may come from anybody: they are opened for reading, and only where
//!    [`Backing`] allows it.

mod qcow2;

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Which files a qcow2 file may name as those behind it (its backing files, and a file with its data).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// Regular files in the folder of the qcow2 file, or below it, wherever links in their paths lead.
    #[default]
    Beside,
    /// Any: for images that are trusted. QEMU opens them like this.
    Anywhere,
}

/// What tells one state of a file from another: device, inode, size, and time of change in nanoseconds; and which files it
/// was allowed to name.
type State = (u64, u64, u64, i128, Backing);

/// The file that was unpacked last.
static LAST: Mutex<Option<(State, File)>> = Mutex::new(None);

/// Bytes that are looked at at once for being zeros.
const CHUNK: usize = 64 << 10;

/// What a file is packed by, where it can be unpacked here: `gzip`, `zstd` or `qcow2`.
#[must_use]
pub fn packer_of(path: &Path) -> Option<&'static str> {
    let mut mark = [0; 4];
    // A FIFO or a device that has nothing to say would be waited for.
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    File::open(path).ok()?.read_exact(&mut mark).ok()?;
    match mark {
        [0x1f, 0x8b, 8, _] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd] => Some("zstd"),
        [b'Q', b'F', b'I', 0xfb] => Some("qcow2"),
        _ => None,
    }
}

/// Unpacks an image, and gives a path that leads to it for as long as the process lives and unpacks no other.
///
/// # Errors
/// What is damaged or cut off; a backing file that is not there, or that `backing` does not allow (`PermissionDenied`); no
/// room for it in the folder for temporary files (`TMPDIR`).
pub fn unpack(path: &Path, backing: Backing) -> io::Result<PathBuf> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let time = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    let state = (meta.dev(), meta.ino(), meta.len(), time, backing);
    let place = |file: &File| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let mut last = LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((known, unpacked)) = &*last
        && *known == state
    {
        return Ok(place(unpacked));
    }
    let mut unpacked = tempfile::tempfile()?;
    match packer_of(path) {
        Some("qcow2") => qcow2::copy(path, backing, &mut unpacked)?,
        Some("gzip") => copy(&mut flate2::read::MultiGzDecoder::new(file), &mut unpacked)?,
        Some(_) => copy(&mut zstd::stream::read::Decoder::new(file)?, &mut unpacked)?,
        None => return Err(io::Error::other("is packed by nothing that is known")),
    }
    let path = place(&unpacked);
    *last = Some((state, unpacked));
    Ok(path)
}

/// Whether [`unpack`] failed because [`Backing`] does not allow a file.
#[must_use]
pub fn is_refused(error: &io::Error) -> bool {
    error.to_string().contains(qcow2::REFUSED)
}

/// Writes all that is read, with holes in place of zeros.
fn copy(reader: &mut dyn Read, unpacked: &mut File) -> io::Result<()> {
    let (mut buffer, mut len) = (vec![0; CHUNK], 0_u64);
    loop {
        let got = fill(reader, &mut buffer)?;
        put(unpacked, len, buffer.get(..got).unwrap_or_default())?;
        len += got as u64;
        if got < CHUNK {
            return unpacked.set_len(len);
        }
    }
}

/// Writes bytes at an offset, unless they are all zero.
fn put(unpacked: &mut File, at: u64, bytes: &[u8]) -> io::Result<()> {
    if crate::zeros::is_zero(bytes) {
        return Ok(());
    }
    unpacked.seek(SeekFrom::Start(at))?;
    unpacked.write_all(bytes)
}

/// Reads until the buffer is full or nothing is left.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
