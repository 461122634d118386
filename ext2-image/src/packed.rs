//! Images that are packed by gzip or zstd, or lie in a qcow2 file, unpacked to be looked at.
//!
//! # Invariants
//! What is unpacked lies in a file without a name, with holes where the image has zeros, and goes with the process. The
//! last one is kept, so that looking twice unpacks once.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder as _, PermissiveImplicitOpenGate};

/// What tells one state of a file from another: device, inode, size, and time of change in nanoseconds.
type State = (u64, u64, u64, i128);

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
/// What is damaged or cut off, a backing file that is not there; no room for it in the folder for temporary files (`TMPDIR`).
pub fn unpack(path: &Path) -> io::Result<PathBuf> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let time = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    let state = (meta.dev(), meta.ino(), meta.len(), time);
    let place = |file: &File| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let mut last = LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((known, unpacked)) = &*last
        && *known == state
    {
        return Ok(place(unpacked));
    }
    let mut reader: Box<dyn Read> = match packer_of(path) {
        Some("qcow2") => Box::new(Disk::open(path)?),
        Some("gzip") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some(_) => Box::new(zstd::stream::read::Decoder::new(file)?),
        None => return Err(io::Error::other("is packed by nothing that is known")),
    };
    let mut unpacked = tempfile::tempfile()?;
    let (mut buffer, mut len) = (vec![0; CHUNK], 0_u64);
    loop {
        let got = fill(&mut *reader, &mut buffer)?;
        let bytes = buffer.get(..got).unwrap_or_default();
        if bytes.iter().any(|&byte| byte != 0) {
            unpacked.seek(SeekFrom::Start(len))?;
            unpacked.write_all(bytes)?;
        }
        len += got as u64;
        if got < CHUNK {
            break;
        }
    }
    unpacked.set_len(len)?;
    let path = place(&unpacked);
    *last = Some((state, unpacked));
    Ok(path)
}

/// A disk in a qcow2 file (versions 2 and 3, with its backing files), read from its front to its end.
struct Disk {
    access: FormatAccess<imago::file::File>,
    at: u64,
    bytes: Vec<u8>,
}

impl Disk {
    fn open(path: &Path) -> io::Result<Self> {
        let image = Qcow2::<imago::file::File>::builder_path(path);
        let image = image.open(PermissiveImplicitOpenGate::default())?;
        Ok(Self { access: FormatAccess::new(image), at: 0, bytes: Vec::new() })
    }
}

impl Read for Disk {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.access.size().saturating_sub(self.at);
        let len = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        if len == 0 {
            return Ok(0);
        }
        self.bytes.resize(len, 0);
        self.access.read(&mut self.bytes, self.at)?;
        buffer.get_mut(..len).unwrap_or_default().copy_from_slice(&self.bytes);
        self.at += len as u64;
        Ok(len)
    }
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
