//! A tar archive as a tree: plain, gzip or zstd, from a file or the standard input.
//!
//! Contents are read from the archive where they lie; a packed archive and one that cannot be sought in are unpacked
//! first into a file without a name beside the image.

mod members;
mod sparse;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ext2_image::mkfs::Tree;

use crate::failure::{Failure, Result};
use crate::text::show_os;

pub(super) use members::TarContents;

/// Reads the names and attributes of the archive at `path`, unpacked beside `image` where it is packed.
pub(super) fn read(path: &Path, image: &Path) -> Result<(Tree, TarContents)> {
    let failed =
        |error: Box<dyn std::error::Error>| Failure::text(show_os(path.as_os_str()), error.to_string());
    members::read(open(path, image).map_err(|error| failed(error.into()))?).map_err(failed)
}

/// What makes the bytes of an archive of the bytes of its packed form.
type Unpack = fn(Box<dyn Read>) -> io::Result<Box<dyn Read>>;

/// The archive as a file that can be sought in, unpacked.
fn open(path: &Path, image: &Path) -> io::Result<File> {
    let standard = path == Path::new("-");
    let mut source: Box<dyn Read> =
        if standard { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    let mut start = Vec::new();
    source.by_ref().take(512).read_to_end(&mut start)?;
    let packed: Option<Unpack> = match start.as_slice() {
        [0x1f, 0x8b, ..] => Some(|source| Ok(Box::new(flate2::read::MultiGzDecoder::new(source)))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Some(|source| Ok(Box::new(zstd::stream::read::Decoder::new(source)?)))
        }
        _ => None,
    };
    if packed.is_none() && !standard && std::fs::metadata(path)?.is_file() {
        return File::open(path);
    }
    let whole: Box<dyn Read> = Box::new(io::Cursor::new(start).chain(source));
    let mut whole = match packed {
        Some(unpack) => unpack(whole)?,
        None => whole,
    };
    let folder = image.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut spool = nameless(folder)?;
    io::copy(&mut whole, &mut spool)?;
    Ok(spool)
}

/// A file without a name.
fn nameless(folder: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match openat(CWD, folder, flags | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        // A file system that has no such files: make one with a name and take the name away.
        Err(_) => {
            let path = folder.join(format!(".e2dax-{}", std::process::id()));
            let file = openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)?;
            std::fs::remove_file(&path)?;
            Ok(file.into())
        }
    }
}
