//! Files that are made beside what is there under their name, and take its place when they are whole.
//!
//! # Invariants
//! 1. Until a new file is whole, an old one of its name is as it was, also after a power cut; what fails leaves nothing
//!    half-made behind.
//! 2. What somebody uses is not written to.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};

use crate::failure::{Failure, Result};
use crate::interrupt::Partial;
use crate::target::WAIT;
use crate::text::show_os;

/// The name that a file in the making gets when it is whole.
pub(crate) struct Name {
    path: PathBuf,
    /// What has it now.
    existing: Option<Metadata>,
    /// What the file is called until then, and who removes it should a signal come; none where it has no name.
    temporary: Option<(PathBuf, Option<Partial>)>,
}

/// A file that is to get the name `path`, which is no link: in the same folder, and without a name where the file system has
/// such files. `existing` is what has the name now.
///
/// # Errors
/// The system's.
pub(crate) fn create(path: &Path, existing: Option<&Metadata>) -> io::Result<(File, Name)> {
    let mut name = Name { path: path.into(), existing: existing.cloned(), temporary: None };
    let mode = Mode::from_raw_mode(0o666);
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = openat(CWD, folder_of(path), flags | OFlags::TMPFILE, mode) {
        return Ok((file.into(), name));
    }
    let temporary = name.temporary_path();
    let file = openat(CWD, &temporary, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
    let partial = Partial::removed(&temporary);
    name.temporary = Some((temporary, Some(partial)));
    Ok((file.into(), name))
}

impl Name {
    fn temporary_path(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().as_bytes();
        let mut own = OsString::from(".");
        // Room for what follows.
        own.push(OsStr::from_bytes(name.get(..200).unwrap_or(name)));
        own.push(format!(".{}", std::process::id()));
        folder_of(&self.path).join(own)
    }

    /// Gives the file, which is whole, its name, and of what had it the permissions and, where we may, the owner.
    ///
    /// # Errors
    /// The system's; what was there is there still.
    pub(crate) fn give_to(mut self, file: &File) -> io::Result<()> {
        if let Some(meta) = &self.existing {
            rustix::fs::fchmod(file, Mode::from_raw_mode(meta.mode() & 0o7777))?;
            // Only root may give files away; for others it is theirs.
            let _ = std::os::unix::fs::fchown(file, Some(meta.uid()), Some(meta.gid()));
            // Else a name could reach the disk before the bytes, and neither file be there after a power cut.
            file.sync_data()?;
        }
        if self.temporary.is_none() {
            let path = self.temporary_path();
            let own = format!("/proc/self/fd/{}", file.as_raw_fd());
            linkat(CWD, own.as_str(), CWD, &path, AtFlags::SYMLINK_FOLLOW)?;
            self.temporary = Some((path, None));
        }
        let Some((temporary, _)) = &self.temporary else { return Ok(()) };
        std::fs::rename(temporary, &self.path)?;
        self.temporary = None;
        Ok(())
    }
}

/// Nobody takes half a file for a whole one.
impl Drop for Name {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.temporary {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Opens what is there, and makes sure that nobody uses it for as long as it is open.
///
/// # Errors
/// Who uses it, unless `wait` says to wait for that; the system's.
pub(crate) fn take(path: &Path, existing: &Metadata, wait: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if existing.file_type().is_block_device() {
        // The kernel refuses one that is mounted or held.
        options.custom_flags(i32::try_from(OFlags::EXCL.bits()).unwrap_or_default());
    }
    let name = || show_os(path.as_os_str());
    let file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => Failure::new(name(), blockdev::explain_busy(path, error)),
        _ => Failure::host(path, error),
    })?;
    loop {
        let taken = blockdev::take_for_replacing(&file, path);
        match taken.map_err(|error| Failure::opening(name(), path, error)) {
            Err(failure) if wait && failure.is_locked() => std::thread::sleep(WAIT),
            taken => return taken.map(|()| file),
        }
    }
}

/// Where a name leads, through links, also where nothing is there; links in a circle are an error of whoever opens them.
pub(crate) fn behind_links(path: &Path) -> PathBuf {
    /// Links that the kernel follows (Linux: `MAXSYMLINKS`).
    const MOST: usize = 40;
    if let Ok(found) = std::fs::canonicalize(path) {
        return found;
    }
    let mut path = path.to_path_buf();
    for _ in 0..MOST {
        let Ok(to) = std::fs::read_link(&path) else { break };
        path = folder_of(&path).join(to);
    }
    path
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
