//! What the kernel does with an image: asks the machine whether somebody else than a program writes to it.
//!
//! A file may be the backing file of a loop device, whole or in part, and that device, a partition of it or what the
//! device mapper makes of it may be mounted. A block device is asked for exclusively (`O_EXCL`), which the kernel
//! refuses where it is mounted, in whatever namespace, swapped to or held; then this module says by whom.
//!
//! # What is asked
//! | what | from |
//! |---|---|
//! | loop devices and their files | `/sys/block/loop*/loop/backing_file`, by device and inode of the file that the path leads to; with the right to open the device, by the numbers that the kernel itself has (`LOOP_GET_STATUS64`), so that a path of another namespace, a bind mount, a renamed or a removed file makes no difference |
//! | bytes of the file that they show | `offset` and `sizelimit` there, `start` and `size` of partitions |
//! | whether they are used | `/proc/self/mountinfo`, `/proc/swaps`, `holders`; with the right to open it, an exclusive open, which knows all namespaces |
//!
//! The other way round, who opens a loop device looks whether somebody has its file locked.
//!
//! A loop device that nobody uses is no reason to refuse. Whether it is used may not be known without the right to open
//! it: then it is taken for used. If moreover its path leads nowhere here, it is taken for the image's where it has the
//! image's size and somebody else has the image open, or, where that cannot be asked (`F_SETLEASE`), its name.
//!
//! # Invariants
//! Nothing here writes, mounts or waits. Where the machine does not answer (no `/sys`), nothing is known to be in use.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::ops::Range;

use rustix::fs::{OFlags, major, minor};
use rustix::io::Errno;

use crate::{Error, Result};

mod below;
mod table;

pub(crate) use below::{file_below, is_read_only};
use table::Tables;

const SECTOR: u64 = 512;

/// Refuses a range of bytes of an image that the kernel writes to.
///
/// # Errors
/// `InUse`, with the device and where it is mounted.
pub fn check_unused(image: &File, bytes: Range<u64>) -> Result<()> {
    let Ok(meta) = image.metadata() else { return Ok(()) };
    match System::default().user(&Image { file: image, meta }, &bytes) {
        Some(by) => Err(Error::InUse { by }),
        None => Ok(()),
    }
}

/// Who holds a block device that could not be opened exclusively, given its number.
pub(crate) fn holder(device: u64) -> String {
    let number = format!("{}:{}", major(device), minor(device));
    let system = System::default();
    let name = system.name_of(&number);
    let used = system.known_use(&system.tables(), &number, &name);
    used.unwrap_or_else(|| String::from("the kernel or another program holds it exclusively"))
}

/// The places to ask.
#[derive(Debug)]
struct System {
    sys: PathBuf,
    proc: PathBuf,
    dev: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}

/// The file that is asked about.
struct Image<'a> {
    file: &'a File,
    meta: fs::Metadata,
}

/// A loop device or a partition of one.
struct Part {
    name: String,
    /// `major:minor`.
    number: String,
    /// Its directory under `/sys`.
    dir: PathBuf,
    /// Which bytes of the image it shows.
    bytes: Range<u64>,
}

impl System {
    /// Who uses the range of the image.
    fn user(&self, image: &Image<'_>, bytes: &Range<u64>) -> Option<String> {
        let tables = self.tables();
        if let Some(by) = tables.user_of_file(&image.meta) {
            return Some(by);
        }
        let found = fs::read_dir(self.sys.join("block")).ok()?;
        let loops = found.flatten().filter(|entry| entry.file_name().as_bytes().starts_with(b"loop"));
        let mut loops: Vec<PathBuf> = loops.map(|entry| entry.path()).collect();
        loops.sort();
        loops.iter().find_map(|dir| self.user_of_loop(&tables, dir, image, bytes))
    }

    fn tables(&self) -> Tables {
        Tables::read(&self.proc)
    }

    fn user_of_loop(
        &self,
        tables: &Tables,
        dir: &Path,
        image: &Image<'_>,
        bytes: &Range<u64>,
    ) -> Option<String> {
        // None for a loop device that has no file.
        let backing = fs::read(dir.join("loop/backing_file")).ok()?;
        let name = dir.file_name()?.to_str()?;
        let offset = number(&dir.join("loop/offset")).unwrap_or(0);
        let limit = number(&dir.join("loop/sizelimit")).filter(|&limit| limit > 0);
        let sectors = number(&dir.join("size")).unwrap_or(0);
        if !self.is_file_of(name, &backing, offset, sectors, image) {
            return None;
        }
        let end = limit.map_or(u64::MAX, |limit| offset.saturating_add(limit));
        let whole = self.part(dir, offset..end)?;
        // A partition that is held makes the whole device held, so the partitions are asked first.
        let mut has_held = false;
        for part in self.partitions(dir, offset) {
            if let Some(by) = self.used(tables, &part) {
                if overlap(&part.bytes, bytes) {
                    return Some(by);
                }
                has_held = true;
            }
        }
        if !overlap(&whole.bytes, bytes) {
            return None;
        }
        if has_held { self.known_use(tables, &whole.number, &whole.name) } else { self.used(tables, &whole) }
    }

    /// Whether a loop device shows this image.
    fn is_file_of(&self, name: &str, backing: &[u8], offset: u64, sectors: u64, image: &Image<'_>) -> bool {
        let id = (image.meta.dev(), image.meta.ino());
        // The kernel itself knows best.
        if let Ok(device) = File::open(self.dev.join(name))
            && let Some(found) = loop_file(&device)
        {
            return found == id;
        }
        let path = backing.strip_suffix(b"\n").unwrap_or(backing);
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        match fs::metadata(path) {
            Ok(found) => (found.dev(), found.ino()) == id,
            // A path of another namespace, or none any more.
            Err(_) if image.meta.len().saturating_sub(offset) / SECTOR != sectors => false,
            Err(_) => is_open_elsewhere(image.file).unwrap_or_else(|| {
                let own = fs::read_link(self.proc.join("self/fd").join(image.file.as_raw_fd().to_string()));
                own.is_ok_and(|own| own.file_name() == path.file_name())
            }),
        }
    }

    fn part(&self, dir: &Path, bytes: Range<u64>) -> Option<Part> {
        let name = dir.file_name()?.to_str()?.to_string();
        let number = fs::read_to_string(dir.join("dev")).ok()?.trim().to_string();
        Some(Part { name, number, dir: dir.to_path_buf(), bytes })
    }

    fn partitions(&self, dir: &Path, offset: u64) -> Vec<Part> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let parts = entries.filter(|path| path.join("partition").exists());
        let place = |path: &Path| {
            let start = number(&path.join("start"))?.checked_mul(SECTOR)?.checked_add(offset)?;
            let end = start.checked_add(number(&path.join("size"))?.checked_mul(SECTOR)?)?;
            self.part(path, start..end)
        };
        parts.filter_map(|path| place(&path)).collect()
    }

    /// What a device is used for, or may be.
    fn used(&self, tables: &Tables, part: &Part) -> Option<String> {
        if let Some(by) = self.known_use(tables, &part.number, &part.name) {
            return Some(by);
        }
        if let Some(by) = holders(&part.dir) {
            return Some(format!("/dev/{} is used by {by}", part.name));
        }
        let excl = i32::try_from(OFlags::EXCL.bits()).unwrap_or(0);
        match File::options().read(true).custom_flags(excl).open(self.dev.join(&part.name)) {
            Ok(_) => None,
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                Some(format!("/dev/{} holds it, and is mounted or used elsewhere", part.name))
            }
            Err(error) if is_gone(&error) => None,
            Err(_) => Some(format!(
                "/dev/{0} holds it, and may be mounted (losetup -d /dev/{0} detaches it, root can tell)",
                part.name
            )),
        }
    }

    /// What the tables of this namespace say of a device.
    fn known_use(&self, tables: &Tables, number: &str, name: &str) -> Option<String> {
        if let Some(at) = tables.mounted_at(number) {
            return Some(format!("/dev/{name} is mounted on {at}"));
        }
        if tables.is_swap(&self.dev.join(name)) {
            return Some(format!("/dev/{name} is swap space"));
        }
        holders(&self.sys.join("dev/block").join(number)).map(|by| format!("/dev/{name} is used by {by}"))
    }

    /// The name of a block device.
    fn name_of(&self, number: &str) -> String {
        let link = fs::read_link(self.sys.join("dev/block").join(number));
        let name = link.ok().and_then(|link| Some(link.file_name()?.to_str()?.to_string()));
        name.unwrap_or_else(|| format!("block/{number}"))
    }
}

/// Devices made of this one, by name.
fn holders(dir: &Path) -> Option<String> {
    let entries = fs::read_dir(dir.join("holders")).ok()?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The device was given back meanwhile.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NXIO.raw_os_error())
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// A file that holds one decimal number.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Device and inode of the file of a loop device, from the kernel.
fn loop_file(device: &File) -> Option<(u64, u64)> {
    const LOOP_GET_STATUS64: u32 = 0x4c05;
    /// `struct loop_info64` in words; the first two are the device and the inode.
    const WORDS: usize = 29;
    let mut info = [0_u64; WORDS];
    // SAFETY: the call fills in at most a `struct loop_info64`, which is as large as the array; a device that is no loop
    // device refuses it.
    let asked = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, info.as_mut_ptr()) };
    (asked == 0).then_some((info[0], info[1]))
}

/// Whether a file that we have open for writing is open somewhere else, too: nobody but the only holder gets a lease of
/// it. None where leases are refused: the file is somebody else's, or its file system has none.
fn is_open_elsewhere(file: &File) -> Option<bool> {
    /// Of the kernel's interface; `libc` does not have it for every library.
    const F_SETSIG: i32 = 10;
    let fd = file.as_raw_fd();
    // Who opens the file meanwhile makes the kernel tell us; by a signal that does nothing, in place of one that kills.
    // SAFETY: `fd` is open, and these commands take a number.
    let told = unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) };
    if told != 0 {
        return None;
    }
    // SAFETY: as above.
    let leased = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) };
    let refused = io::Error::last_os_error().raw_os_error();
    // SAFETY: as above; gives up what was just taken, or nothing.
    unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
    match leased {
        0 => Some(false),
        _ if refused == Some(Errno::AGAIN.raw_os_error()) => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
