//! A directory of this machine in which things are made, by single names only.
//!
//! # Invariants
//! Every name is one component: no `/`, no NUL, not `.` or `..`. Nothing here follows a link, so that nothing is ever
//! made outside the directory that was opened first, whatever an image says.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ext2_core::{Attr, FileKind};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, chownat, fchmod, fchown, fsetxattr,
    futimens, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

/// An open directory.
#[derive(Debug)]
pub(super) struct HostDir(OwnedFd);

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A name that is one component.
fn single(name: &[u8]) -> io::Result<&[u8]> {
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no name of a file"));
    }
    Ok(name)
}

impl HostDir {
    /// The directory that the caller names; links in its path are followed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, DIRECTORY, Mode::empty())?))
    }

    /// The same directory once more.
    pub(super) fn again(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Makes a directory, or goes into the one that is there, but never through a link.
    pub(super) fn make_dir(&self, name: &[u8]) -> io::Result<Self> {
        match mkdirat(&self.0, single(name)?, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self(openat(&self.0, name, DIRECTORY.union(OFlags::NOFOLLOW), Mode::empty())?))
    }

    /// Makes an empty file. A file or link that is there is replaced; one of its other names keeps what it has.
    pub(super) fn make_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL);
        let flags = flags.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
        let make =
            || openat(&self.0, single(name)?, flags, Mode::RUSR.union(Mode::WUSR)).map_err(io::Error::from);
        self.replacing(name, make).map(File::from)
    }

    /// Makes a symbolic link.
    pub(super) fn make_symlink(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        self.replacing(name, || Ok(symlinkat(target, &self.0, single(name)?)?))
    }

    /// Makes another name for a file below `base`, whose path from there is `existing`.
    pub(super) fn make_link(&self, name: &[u8], base: &Self, existing: &[u8]) -> io::Result<()> {
        self.replacing(name, || Ok(linkat(&base.0, existing, &self.0, single(name)?, AtFlags::empty())?))
    }

    /// Makes a device, FIFO or socket.
    pub(super) fn make_node(&self, name: &[u8], attr: &Attr) -> io::Result<()> {
        let kind = match attr.kind {
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Fifo => FileType::Fifo,
            _ => FileType::Socket,
        };
        let device = attr.device.map_or(0, |nr| makedev(nr.major, nr.minor));
        self.replacing(name, || {
            Ok(mknodat(&self.0, single(name)?, kind, Mode::RUSR.union(Mode::WUSR), device)?)
        })
    }

    /// Makes something, after removing what is in its place unless that is a directory.
    fn replacing<T>(&self, name: &[u8], make: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match make() {
            Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {
                unlinkat(&self.0, single(name)?, AtFlags::empty())?;
                make()
            }
            other => other,
        }
    }

    /// Owner, attributes, permissions and times of what has no descriptor of its own: a link, or what
    /// [`make_node`](Self::make_node) made. Gives the names of the attributes that the system did not take.
    pub(super) fn set_all(
        &self,
        name: &[u8],
        attr: &Attr,
        xattrs: &[Xattr],
        owners: Owners,
    ) -> io::Result<Vec<Vec<u8>>> {
        let name = single(name)?;
        if owners == Owners::Keep {
            chownat(&self.0, name, uid(attr), gid(attr), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        // There is no lsetxattrat: the path leads through our own descriptor, and the call does not follow links.
        let path = [format!("/proc/self/fd/{}/", self.0.as_raw_fd()).as_bytes(), name].concat();
        let refused = refused(xattrs, |xattr, value| lsetxattr(&path, xattr, value, XattrFlags::empty()));
        if attr.kind != FileKind::Symlink {
            // The kernel's fchmodat follows links: look once more at what there is.
            let there = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(there.st_mode) != FileType::Symlink {
                rustix::fs::chmodat(&self.0, name, mode(attr, owners), AtFlags::empty())?;
            }
        }
        utimensat(&self.0, name, &times(attr), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(refused)
    }
}

impl AsFd for HostDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether owners are kept, which only root may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// As in the image.
    Keep,
    /// Everything belongs to the caller; set-id bits are not copied, because they would mean another user.
    Caller,
}

impl Owners {
    /// What the caller may do.
    pub(super) fn of_caller() -> Self {
        if rustix::process::geteuid().is_root() { Self::Keep } else { Self::Caller }
    }
}

/// An id that the system takes: all ones stand for "leave it".
fn uid(attr: &Attr) -> Option<Uid> {
    (attr.uid != u32::MAX).then(|| Uid::from_raw(attr.uid))
}

fn gid(attr: &Attr) -> Option<Gid> {
    (attr.gid != u32::MAX).then(|| Gid::from_raw(attr.gid))
}

fn mode(attr: &Attr, owners: Owners) -> Mode {
    let kept = if owners == Owners::Keep { 0o7777 } else { 0o1777 };
    Mode::from_raw_mode(u32::from(attr.mode) & kept)
}

fn times(attr: &Attr) -> Timestamps {
    let time = |time: ext2_core::Timestamp| Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) };
    Timestamps { last_access: time(attr.atime), last_modification: time(attr.mtime) }
}

/// An extended attribute: its name and its value.
pub(super) type Xattr = (Vec<u8>, Vec<u8>);

/// The names of the attributes that cannot be set.
fn refused(xattrs: &[Xattr], set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>) -> Vec<Vec<u8>> {
    let refused = xattrs.iter().filter(|(name, value)| set(name, value).is_err());
    refused.map(|(name, _)| name.clone()).collect()
}

/// Sets owner, extended attributes, permissions and times of an open file or directory, in the order in which none
/// undoes another. Gives the names of the attributes that the system did not take.
pub(super) fn set_all(
    fd: impl AsFd,
    attr: &Attr,
    xattrs: &[Xattr],
    owners: Owners,
) -> io::Result<Vec<Vec<u8>>> {
    let fd = fd.as_fd();
    if owners == Owners::Keep {
        fchown(fd, uid(attr), gid(attr))?;
    }
    let refused = refused(xattrs, |name, value| fsetxattr(fd, name, value, XattrFlags::empty()));
    fchmod(fd, mode(attr, owners))?;
    futimens(fd, &times(attr))?;
    Ok(refused)
}
