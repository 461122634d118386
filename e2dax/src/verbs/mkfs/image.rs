//! Where a new file system goes: a file that is made beside the old one and takes its name when it is whole, a device,
//! or a part of either.
//!
//! # Invariants
//! 1. Until a new image is whole, an old one of its name is as it was; what fails leaves nothing half-made behind.
//! 2. What somebody uses is not written to.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use blockdev::Partition;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};

use crate::failure::{Failure, Of, Result};
use crate::target::{Place, WAIT};
use crate::text::show_os;

/// What the new file system is written to.
#[derive(Clone, Debug)]
pub(super) struct Where {
    /// The file or device.
    pub(super) path: PathBuf,
    place: Place,
    /// What is there: none for a new file.
    existing: Option<std::fs::Metadata>,
}

impl Where {
    /// Reads `IMG`, `IMG@OFFSET` or `IMG@pN`; a file that is named so as a whole comes first.
    ///
    /// # Errors
    /// What is neither a file nor a block device, and what makes no sense.
    pub(super) fn find(argument: &Path) -> Result<Self> {
        if argument == Path::new("-") {
            return Err(Failure::usage(
                argument.as_os_str(),
                "an image is written here and there, and cannot go to the standard output: name a file",
            ));
        }
        let bytes = argument.as_os_str().as_bytes();
        let mut found = (argument.to_path_buf(), Place::Whole);
        if !argument.exists()
            && let Some(at) = bytes.iter().rposition(|&byte| byte == b'@')
            && let Some(place) = Place::parse(bytes.get(at + 1..).unwrap_or_default())
        {
            let path = PathBuf::from(OsString::from(OsStr::from_bytes(&bytes[..at])));
            if path.exists() {
                found = (path, place);
            }
        }
        let (path, place) = found;
        if place == Place::Pfn {
            return Err(Failure::usage(
                argument.as_os_str(),
                "the header is made with the image: --pfn-header",
            ));
        }
        // A link leads to the file that is replaced, or made.
        let path = std::fs::canonicalize(&path).unwrap_or_else(|_| behind_links(path));
        let existing = match std::fs::metadata(&path) {
            Ok(meta) => Some(meta),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::host(&path, error)),
        };
        if let Some(meta) = &existing {
            let kind = meta.file_type();
            if !kind.is_file() && !kind.is_block_device() {
                let what = if kind.is_dir() { "is a directory" } else { "is no file and no block device" };
                return Err(Failure::text(show_os(path.as_os_str()), what));
            }
        }
        Ok(Self { path, place, existing })
    }

    pub(super) fn is_device(&self) -> bool {
        self.existing.as_ref().is_some_and(|meta| meta.file_type().is_block_device())
    }

    /// Whether it is a part of what is there.
    pub(super) fn is_part(&self) -> bool {
        self.place != Place::Whole
    }

    /// Whether it is a part of what is there, or a device: written in place, and of a size that is given.
    pub(super) fn is_in_place(&self) -> bool {
        self.is_part() || self.is_device()
    }

    /// Whether this is the file of these attributes.
    pub(super) fn is(&self, other: &std::fs::Metadata) -> bool {
        self.existing.as_ref().is_some_and(|meta| (meta.dev(), meta.ino()) == (other.dev(), other.ino()))
    }

    /// First byte and number of bytes of what is there; none for a new file.
    ///
    /// # Errors
    /// No such partition.
    pub(super) fn bounds(&self) -> Result<Option<(u64, u64)>> {
        if self.existing.is_none() {
            return Ok(None);
        }
        let name = || show_os(self.path.as_os_str());
        let open = || {
            blockdev::open_image(
                &self.path,
                &blockdev::DeviceOptions {
                    kind: blockdev::Backend::File,
                    ..blockdev::DeviceOptions::read_only()
                },
            )
        };
        match self.place {
            Place::Whole if self.is_device() => {
                use std::io::{Seek as _, SeekFrom};
                let size = File::open(&self.path).and_then(|mut file| file.seek(SeekFrom::End(0)));
                Ok(Some((0, size.map_err(|error| Failure::host(&self.path, error))?)))
            }
            Place::Whole | Place::Pfn => Ok(self.existing.as_ref().map(|meta| (0, meta.len()))),
            Place::Offset(offset) => {
                let part = Partition::from_offset(open().of(name)?, offset).of(name)?;
                Ok(Some((offset, blockdev::BlockDevice::size(&part))))
            }
            Place::Partition(number) => {
                let part = Partition::numbered(open().of(name)?, number).of(name)?;
                Ok(Some((part.offset(), blockdev::BlockDevice::size(&part))))
            }
        }
    }
}

/// The image in the making.
pub(super) struct Image {
    pub(super) file: File,
    /// The byte of the file at which it begins.
    pub(super) base: u64,
    /// Whether what is there may be anything but zeros.
    pub(super) is_in_place: bool,
    path: PathBuf,
    existing: Option<std::fs::Metadata>,
    /// The name that it has until it is whole; none where it has none.
    temporary: Option<PathBuf>,
}

impl Image {
    /// Opens what is written to: from byte `start` on, the file system from byte `base` on.
    ///
    /// # Errors
    /// What is not empty without `force`, what is in use, and the system's.
    pub(super) fn create(place: &Where, start: u64, base: u64, force: bool, wait: bool) -> Result<Self> {
        let path = &place.path;
        if place.existing.is_some() && !force && !is_empty(path, start) {
            return Err(Failure::text(show_os(path.as_os_str()), "is not empty: --force replaces it"));
        }
        let mut image = Self {
            file: File::open("/dev/null").map_err(|error| Failure::host(Path::new("/dev/null"), error))?,
            base,
            is_in_place: place.is_in_place(),
            path: path.clone(),
            existing: place.existing.clone(),
            temporary: None,
        };
        if place.existing.is_some() {
            let mut options = OpenOptions::new();
            options.read(true).write(true);
            if place.is_device() {
                // The kernel refuses one that is mounted or held.
                options.custom_flags(i32::try_from(OFlags::EXCL.bits()).unwrap_or_default());
            }
            let file = options.open(path).map_err(|error| match error.kind() {
                io::ErrorKind::ResourceBusy => {
                    Failure::new(show_os(path.as_os_str()), blockdev::explain_busy(path, error))
                }
                _ => Failure::host(path, error),
            })?;
            // Not before it is known that nobody uses what is there.
            loop {
                let taken = blockdev::take_for_replacing(&file, path);
                match taken.map_err(|error| Failure::opening(show_os(path.as_os_str()), path, error)) {
                    Err(failure) if wait && failure.is_locked() => std::thread::sleep(WAIT),
                    taken => break taken?,
                }
            }
            if place.is_in_place() {
                image.file = file;
                return Ok(image);
            }
        }
        image.beside().map_err(|error| Failure::host(path, error))?;
        Ok(image)
    }

    /// A file in the same folder, without a name where the file system has such files.
    fn beside(&mut self) -> io::Result<()> {
        let folder = folder_of(&self.path);
        let mode = Mode::from_raw_mode(0o666);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(file) = openat(CWD, folder, flags | OFlags::TMPFILE, mode) {
            self.file = file.into();
            return Ok(());
        }
        let path = self.temporary_name();
        self.file = openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL, mode)?.into();
        self.temporary = Some(path);
        Ok(())
    }

    fn temporary_name(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        let mut own = OsString::from(".");
        // Room for what follows.
        own.push(OsStr::from_bytes(&name.as_bytes()[..name.len().min(200)]));
        own.push(format!(".{}", std::process::id()));
        folder_of(&self.path).join(own)
    }

    /// Gives the image, which is whole, its name.
    ///
    /// # Errors
    /// The system's; what was there is there still.
    pub(super) fn publish(mut self) -> io::Result<()> {
        if self.is_in_place {
            return Ok(());
        }
        if let Some(meta) = &self.existing {
            let mode = Mode::from_raw_mode(meta.mode() & 0o7777);
            rustix::fs::fchmod(&self.file, mode)?;
            // Only root may give files away; for others it is theirs.
            let _ = std::os::unix::fs::fchown(&self.file, Some(meta.uid()), Some(meta.gid()));
        }
        if self.temporary.is_none() {
            let path = self.temporary_name();
            let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(CWD, own.as_str(), CWD, &path, AtFlags::SYMLINK_FOLLOW)?;
            self.temporary = Some(path);
        }
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        let moved = std::fs::rename(&temporary, &self.path);
        if moved.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        moved
    }
}

/// Nobody takes half an image for a whole one.
impl Drop for Image {
    fn drop(&mut self) {
        if let Some(path) = &self.temporary {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What a link leads to although nothing is there; links in a circle are an error of whoever opens them.
fn behind_links(mut path: PathBuf) -> PathBuf {
    /// Links that the kernel follows (Linux: `MAXSYMLINKS`).
    const MOST: usize = 40;
    for _ in 0..MOST {
        let Ok(to) = std::fs::read_link(&path) else { break };
        path = folder_of(&path).join(to);
    }
    path
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether nothing is lost when an image is made from byte `start` of this file on: it has no byte, or none but zeros
/// at its beginning.
fn is_empty(path: &Path, start: u64) -> bool {
    let mut bytes = vec![0; 1 << 16];
    let read = File::open(path).and_then(|file| file.read_at(&mut bytes, start));
    read.is_ok_and(|len| bytes.iter().take(len).all(|&byte| byte == 0))
}
