//! Disks in qcow2 files (versions 2 and 3), with the files behind them.
//!
//! # Invariants
//! The header of an image is not believed: the files that it names are opened through [`Gate`] alone, for reading, and a
//! chain of them that has no end (an image that names itself) ends here.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use imago::format::gate::ImplicitOpenGate;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, Mapping, Storage, StorageOpenOptions};

use super::{Backing, CHUNK, put};

/// Images behind each other at most (QEMU: 200).
const CHAIN_MAX: u32 = 100;
/// Bytes of a disk at most: no ext2 has more blocks than 2^32, nor larger ones than 64 KiB.
const DISK_MAX: u64 = 1 << 48;

/// How an error begins that is about a file that may not be opened.
pub(super) const REFUSED: &str = "refused to open";

/// Copies the disk in the qcow2 file at `path` into an empty file, with holes where it has nothing.
pub(super) fn copy(path: &Path, backing: Backing, unpacked: &mut File) -> io::Result<()> {
    let gate = Gate::new(path, backing)?;
    let image = Qcow2::<imago::file::File>::builder_path(path).open(gate)?;
    let access = FormatAccess::new(image);
    let size = access.size();
    if size > DISK_MAX {
        return Err(io::Error::other(format!("has a disk of {size} bytes: more than any ext2 has")));
    }
    unpacked.set_len(size)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let (mapping, run) = access.get_mapping(at, size - at)?;
        let end = at.saturating_add(run).min(size);
        if end == at || matches!(mapping, Mapping::Eof { .. }) {
            break;
        }
        if !matches!(mapping, Mapping::Zero { .. }) {
            let mut from = at;
            while from < end {
                let len = usize::try_from(end - from).unwrap_or(CHUNK).min(CHUNK);
                let bytes = buffer.get_mut(..len).unwrap_or_default();
                access.read(&mut *bytes, from)?;
                put(unpacked, from, bytes)?;
                from += len as u64;
            }
        }
        at = end;
    }
    Ok(())
}

/// Decides about each file that an image names.
#[derive(Clone, Debug)]
struct Gate {
    /// The folder in which they have to lie, without links in its path; `None`: anywhere.
    folder: Option<PathBuf>,
    depth: u32,
}

impl Gate {
    fn new(path: &Path, backing: Backing) -> io::Result<Self> {
        let folder = match backing {
            Backing::Anywhere => None,
            Backing::Beside => path.canonicalize()?.parent().map(Path::to_path_buf),
        };
        Ok(Self { folder, depth: 0 })
    }

    /// Whether a file may be opened.
    fn check(&self, path: &Path) -> io::Result<()> {
        let denied = |what: &str| {
            let text = format!("{REFUSED} {}, which {what}", path.display());
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        };
        let Some(folder) = &self.folder else { return Ok(()) };
        // Looked at before it is opened: opening a device or a FIFO may do something.
        let place = path.canonicalize()?;
        if !place.starts_with(folder) {
            return denied("does not lie in its folder");
        }
        if !place.metadata()?.is_file() {
            return denied("is no regular file");
        }
        Ok(())
    }
}

impl ImplicitOpenGate<imago::file::File> for Gate {
    fn open_format<F: FormatDriverBuilder<imago::file::File>>(
        &mut self,
        builder: F,
    ) -> io::Result<FormatAccess<imago::file::File>> {
        if self.depth >= CHAIN_MAX {
            return Err(io::Error::other(format!("more than {CHAIN_MAX} images are behind each other")));
        }
        let below = Self { depth: self.depth + 1, ..self.clone() };
        Ok(FormatAccess::new(builder.open(below)?))
    }

    fn open_storage(&mut self, builder: StorageOpenOptions) -> io::Result<imago::file::File> {
        if let Some(path) = builder.get_filename() {
            self.check(path)?;
        }
        imago::file::File::open(builder.write(false))
    }
}
