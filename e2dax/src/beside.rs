//! Files that are made beside what is there under their name, and take its place when they are whole.
//!
//! Where nothing can be put in the place of what is there (a file that is mounted by itself, a folder that cannot be written to,
//! an open file behind `/dev/stdout`), the new file is made elsewhere, and its bytes are copied into what is there once it is whole.
//!
//! # Invariants
//! 1. Until a new file is whole, an old one of its name is as it was, also after a power cut; what fails leaves nothing
//!    half-made behind. (A copy into what is there that is broken off does, and says so.)
//! 2. What somebody uses is not written to.
//! 3. Nobody may do with a new file what he might not do with the old one, at any time.

mod like;
mod output;

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ext2_image::archive::nameless;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, SeekFrom, linkat, openat, seek};
use rustix::io::Errno;

use crate::failure::{Failure, Result};
use crate::interrupt::Partial;
use crate::target::WAIT;
use crate::text::show_os;

pub(crate) use output::{NewFile, Output};

/// The name that a file in the making gets when it is whole.
struct Name {
    path: PathBuf,
    /// What has it now.
    existing: Option<Metadata>,
    way: Way,
    /// Whether to wait for who uses what has it now.
    wait: bool,
}

/// How a file gets its name.
enum Way {
    /// It gets one beside the other, and then its own.
    Link,
    /// It has one already, which it changes for its own, and which is removed should a signal come.
    Rename(
        PathBuf,
        #[expect(dead_code, reason = "watches for a signal as long as it lives")] Option<Partial>,
    ),
    /// Its bytes are copied into what has the name.
    Copy,
}

/// A file that is to get the name `path`, which is that of a [`place`]: in the same folder, and without a name where the file
/// system has such files. `existing` is what has the name now, and could be [taken](take).
///
/// # Errors
/// The system's.
fn create(path: &Path, existing: Option<&Metadata>, wait: bool) -> io::Result<(File, Name)> {
    let name = |way| Name { path: path.into(), existing: existing.cloned(), way, wait };
    let elsewhere = || Ok((nameless(&std::env::temp_dir())?, name(Way::Copy)));
    // Whoever has the file open expects it there, and it may have no name.
    if existing.is_some() && is_descriptor(path) {
        return elsewhere();
    }
    // Who may not read the old one may not read the new one while it is made.
    let mode = Mode::from_raw_mode(existing.map_or(0o666, |found| found.mode() & 0o600));
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = openat(CWD, folder_of(path), flags | OFlags::TMPFILE, mode) {
        let file = File::from(file);
        // Else it could not be named.
        if std::fs::metadata(own_path(&file)).is_ok() {
            return Ok((file, name(Way::Link)));
        }
    }
    let made = with_temporary(path, |temporary| {
        Ok(openat(CWD, temporary, flags | OFlags::CREATE | OFlags::EXCL, mode)?)
    });
    match made {
        Ok((file, temporary)) => {
            let partial = Partial::removed(&temporary);
            Ok((file.into(), name(Way::Rename(temporary, Some(partial)))))
        }
        Err(_) if existing.is_some() => elsewhere(),
        Err(error) => Err(error),
    }
}

/// The name by which a descriptor can be opened or linked.
fn own_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Makes something under a name beside `path` that nothing has, be it left over from somebody who was killed.
fn with_temporary<T>(path: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(T, PathBuf)> {
    /// Names that are tried.
    const MOST: u32 = 1000;
    let name = path.file_name().unwrap_or_default().as_bytes();
    // Room for what follows.
    let name = OsStr::from_bytes(name.get(..200).unwrap_or(name));
    let mut nr = 0;
    loop {
        let mut own = OsString::from(".");
        own.push(name);
        own.push(format!(".{}", std::process::id()));
        if nr > 0 {
            own.push(format!(".{nr}"));
        }
        let temporary = folder_of(path).join(own);
        match make(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && nr < MOST => nr += 1,
            made => return made.map(|made| (made, temporary)),
        }
    }
}

impl Name {
    /// Gives the file, which is whole, its name, and of what had it the permissions and, where we may, the owner.
    ///
    /// # Errors
    /// The system's; what was there is there still, or the message says otherwise.
    fn give_to(mut self, file: &File) -> Result<()> {
        if matches!(self.way, Way::Copy) {
            let there = self.take()?;
            return self.copy(file, &there);
        }
        match self.put(file) {
            // Something is mounted there, or it is not ours to take away: but we may write to it.
            Err(error) if is_held(&error) && self.existing.is_some() => match self.take() {
                Ok(there) => self.copy(file, &there),
                Err(failure) if failure.is_locked() => Err(failure),
                Err(_) => Err(Failure::host(&self.path, error)),
            },
            put => put.map_err(|error| Failure::host(&self.path, error)),
        }
    }

    /// Puts the file in the place of what has its name.
    fn put(&mut self, file: &File) -> io::Result<()> {
        if let Some(meta) = &self.existing {
            like::make(file, &self.path, meta)?;
            // Else a name could reach the disk before the bytes, and neither file be there after a power cut.
            file.sync_data()?;
        }
        if matches!(self.way, Way::Link) {
            let own = own_path(file);
            let ((), temporary) = with_temporary(&self.path, |temporary| {
                Ok(linkat(CWD, own.as_str(), CWD, temporary, AtFlags::SYMLINK_FOLLOW)?)
            })?;
            self.way = Way::Rename(temporary, None);
        }
        let Way::Rename(temporary, _) = &self.way else { return Ok(()) };
        std::fs::rename(temporary, &self.path)?;
        self.way = Way::Copy;
        Ok(())
    }

    /// What has its name, for writing. Whoever may change the folder may have put a link to a file of ours there since.
    fn take(&self) -> Result<File> {
        let host = |error: io::Error| Failure::host(&self.path, error);
        let existing = self.existing.as_ref().ok_or_else(|| host(io::ErrorKind::NotFound.into()))?;
        let there = take(&self.path, existing, self.wait)?;
        let found = there.metadata().map_err(host)?;
        if (found.dev(), found.ino()) != (existing.dev(), existing.ino()) {
            let what = "was replaced by something else meanwhile, and is left alone";
            return Err(Failure::text(show_os(self.path.as_os_str()), what));
        }
        Ok(there)
    }

    /// Copies the file into what has its name.
    fn copy(&self, file: &File, there: &File) -> Result<()> {
        let partial = Partial::named(&self.path);
        let copied = copy(file, there);
        drop(partial);
        copied.map_err(|error| {
            let text = Failure::host(&self.path, error).to_string();
            Failure::text(String::new(), format!("{text}; what is in it is not whole"))
        })
    }
}

/// Whether a name cannot be given because of what has it or where it is.
fn is_held(error: &io::Error) -> bool {
    let held = [Errno::BUSY, Errno::PERM, Errno::ACCESS, Errno::ROFS];
    held.iter().any(|held| error.raw_os_error() == Some(held.raw_os_error()))
}

/// Copies all of a file into another, its holes as holes.
fn copy(from: &File, to: &File) -> io::Result<()> {
    const CHUNK: usize = 256 << 10;
    let len = from.metadata()?.len();
    to.set_len(0)?;
    to.set_len(len)?;
    let (mut buffer, mut at) = (vec![0; CHUNK], 0);
    while at < len {
        // A file system that knows no holes has data everywhere.
        at = match seek(from, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            found => found.unwrap_or(at),
        };
        let read = from.read_at(&mut buffer, at)?;
        if read == 0 {
            break;
        }
        to.write_all_at(buffer.get(..read).unwrap_or_default(), at)?;
        at += read as u64;
    }
    to.sync_data()
}

/// Nobody takes half a file for a whole one.
impl Drop for Name {
    fn drop(&mut self) {
        if let Way::Rename(path, _) = &self.way {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Opens what is there, and makes sure that nobody uses it for as long as it is open.
///
/// # Errors
/// Who uses it, unless `wait` says to wait for that; the system's.
fn take(path: &Path, existing: &Metadata, wait: bool) -> Result<File> {
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

/// Where a name leads, through links, also where nothing is there; links in a circle are an error of whoever opens them. What
/// leads to an open file of a process stays as it is: that file may have no name any more.
fn place(path: &Path) -> PathBuf {
    if is_descriptor(path) {
        return path.to_path_buf();
    }
    if let Ok(found) = std::fs::canonicalize(path) {
        return found;
    }
    follow(path).last().unwrap_or_else(|| path.to_path_buf())
}

/// Whether a name leads to an open file of a process, as `/dev/stdout` does.
pub(crate) fn is_descriptor(path: &Path) -> bool {
    follow(path).any(|path| {
        let folder = std::fs::canonicalize(folder_of(&path));
        folder.is_ok_and(|folder| folder.starts_with("/proc") && folder.ends_with("fd"))
    })
}

/// A path, and those that it leads to through links at its end.
fn follow(path: &Path) -> impl Iterator<Item = PathBuf> {
    /// Links that the kernel follows (Linux: `MAXSYMLINKS`).
    const MOST: usize = 40;
    let next = |path: &PathBuf| Some(folder_of(path).join(std::fs::read_link(path).ok()?));
    std::iter::successors(Some(path.to_path_buf()), next).take(MOST + 1)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn nobody_else_may_read_what_takes_the_place_of_a_file_while_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old");
        write(&path, "old").unwrap();
        for mode in [0o600, 0o644, 0o444, 0o060] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let existing = std::fs::metadata(&path).unwrap();
            let (file, name) = create(&path, Some(&existing), false).unwrap();
            let while_made = file.metadata().unwrap().mode() & 0o7777;
            assert_eq!(while_made, mode & 0o600);
            name.give_to(&file).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn what_took_the_place_of_a_file_meanwhile_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("old"), folder.path().join("other"));
        for file in [&path, &other] {
            write(file, "old").unwrap();
        }
        let existing = std::fs::metadata(&path).unwrap();
        let name =
            || Name { path: path.clone(), existing: Some(existing.clone()), way: Way::Copy, wait: false };
        let new = nameless(folder.path()).unwrap();
        new.write_all_at(b"new", 0).unwrap();
        name().give_to(&new).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(name().give_to(&new).is_err());
        assert_eq!(std::fs::read(&other).unwrap(), b"old");
    }

    #[test]
    fn a_name_that_leads_to_an_open_file_is_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let (link, file) = (folder.path().join("link"), folder.path().join("file"));
        write(&file, "").unwrap();
        std::os::unix::fs::symlink("/proc/self/fd/0", &link).unwrap();
        assert!(is_descriptor(Path::new("/dev/stdout")) && is_descriptor(Path::new("/dev/fd/1")));
        assert!(
            is_descriptor(&link) && !is_descriptor(&file) && !is_descriptor(Path::new("/proc/self/maps"))
        );
        assert_eq!(place(&link), link);
    }
}
