//! A directory of this machine in which things are made, by single names only.
//!
//! # Invariants
//! Every name is one component: no `/`, no NUL, not `.` or `..`. Nothing here follows a link, so that nothing is ever
//! made outside the directory that was opened first, whatever an image says.
//! Owners, permissions and devices are set through the C library, so that a preloaded fakeroot or pseudo sees it.

use std::fs::{File, Permissions, set_permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::Path;
use std::vec::Vec;

use ext2_core::{Attr, FileKind};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, chownat, fsetxattr, fstat,
    futimens, linkat, makedev, mkdirat, mknodat, openat, setxattr, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::Xattr;
use super::host_file::is_file;

/// An open directory.
#[derive(Debug)]
pub(super) struct HostDir(OwnedFd);

/// The numbers of a file on this machine: of its device, and its own.
pub(super) type Identity = (u64, u64);

/// A file with several names that was made.
#[derive(Debug)]
pub(super) struct Linked {
    pub(super) identity: Identity,
    /// The file itself. While it is held, no other file gets its number.
    pub(super) held: Option<OwnedFd>,
}

/// A symbolic link, device, FIFO or socket that was made, held by a descriptor that has no effect on it.
#[derive(Debug)]
pub(super) struct Made(OwnedFd);

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
    pub(super) fn make_symlink(&self, name: &[u8], target: &[u8]) -> io::Result<Made> {
        self.replacing(name, || Ok(symlinkat(target, &self.0, single(name)?)?))?;
        self.made(name, FileType::Symlink)
    }

    /// Makes another name for a file that was made below `base`: of the file that is held; else of what its first name, which
    /// has the path `first_path` from there, leads to, where every directory on the way is entered by its name alone and what it
    /// leads to is looked at.
    pub(super) fn make_link(
        &self,
        name: &[u8],
        base: &Self,
        first_path: impl FnOnce() -> Vec<u8>,
        first: &Linked,
    ) -> io::Result<()> {
        if let Some(held) = &first.held {
            let path = std::format!("/proc/self/fd/{}", held.as_raw_fd());
            return self.replacing(name, || {
                Ok(linkat(CWD, &path, &self.0, single(name)?, AtFlags::SYMLINK_FOLLOW)?)
            });
        }
        let mut at = base.again()?;
        let path = first_path();
        let mut parts = path.split(|&byte| byte == b'/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_some() {
                at = Self(openat(&at.0, single(part)?, DIRECTORY.union(OFlags::NOFOLLOW), Mode::empty())?);
                continue;
            }
            self.replacing(name, || {
                Ok(linkat(&at.0, single(part)?, &self.0, single(name)?, AtFlags::empty())?)
            })?;
        }
        if !is_file(&self.0, name, first.identity)? {
            unlinkat(&self.0, name, AtFlags::empty())?;
            return Err(io::Error::other("its other name was replaced meanwhile"));
        }
        Ok(())
    }

    /// Makes a device, FIFO or socket.
    pub(super) fn make_node(&self, name: &[u8], attr: &Attr) -> io::Result<Made> {
        let kind = match attr.kind {
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Fifo => FileType::Fifo,
            _ => FileType::Socket,
        };
        let device = attr.device.map_or(0, |nr| makedev(nr.major, nr.minor));
        self.replacing(name, || {
            Ok(mknodat(&self.0, single(name)?, kind, Mode::RUSR.union(Mode::WUSR), device)?)
        })?;
        self.made(name, kind)
    }

    /// Takes hold of what was just made. Somebody may have put another thing there: of the same kind it is his to lose.
    fn made(&self, name: &[u8], kind: FileType) -> io::Result<Made> {
        let made = self.hold(name)?;
        if FileType::from_raw_mode(fstat(&made)?.st_mode) != kind {
            return Err(io::Error::other("was replaced meanwhile"));
        }
        Ok(Made(made))
    }

    /// Takes hold of what a name is, without any effect on it.
    pub(super) fn hold(&self, name: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
        Ok(openat(&self.0, single(name)?, flags, Mode::empty())?)
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
}

impl Made {
    /// Owner, attributes, permissions and times. Gives which file it is, and the names of the attributes that the system
    /// did not take.
    pub(super) fn set_all(
        &self,
        attr: &Attr,
        xattrs: &[Xattr],
        owners: Owners,
    ) -> io::Result<(Identity, Vec<Vec<u8>>)> {
        if owners == Owners::Keep {
            let (uid, gid) = (uid(attr).map(Uid::from_raw), gid(attr).map(Gid::from_raw));
            chownat(&self.0, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        // What has no call for such a descriptor goes through its name in /proc, which leads to the file that is held.
        let path = std::format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let refused = refused(xattrs, |xattr, value| setxattr(&path, xattr, value, XattrFlags::empty()));
        if attr.kind != FileKind::Symlink {
            set_permissions(&path, mode(attr, owners))?;
        }
        utimensat(&self.0, "", &times(attr), AtFlags::EMPTY_PATH)?;
        Ok((identity_of(&self.0)?, refused))
    }
}

impl AsFd for HostDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Which file a descriptor is of.
pub(super) fn identity_of(fd: impl AsFd) -> io::Result<Identity> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
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
fn uid(attr: &Attr) -> Option<u32> {
    (attr.uid != u32::MAX).then_some(attr.uid)
}

fn gid(attr: &Attr) -> Option<u32> {
    (attr.gid != u32::MAX).then_some(attr.gid)
}

fn mode(attr: &Attr, owners: Owners) -> Permissions {
    let kept = if owners == Owners::Keep { 0o7777 } else { 0o1777 };
    Permissions::from_mode(u32::from(attr.mode) & kept)
}

fn times(attr: &Attr) -> Timestamps {
    let time = |time: ext2_core::Timestamp| Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) };
    Timestamps { last_access: time(attr.atime), last_modification: time(attr.mtime) }
}

/// The names of the attributes that cannot be set.
fn refused(xattrs: &[Xattr], set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>) -> Vec<Vec<u8>> {
    let refused = xattrs.iter().filter(|(name, value)| set(name, value).is_err());
    refused.map(|(name, _)| name.clone()).collect()
}

/// Sets owner, extended attributes, permissions and times of an open file or directory, in the order in which none
/// undoes another. Gives which file it is, and the names of the attributes that the system did not take.
pub(super) fn set_all(
    fd: impl AsFd,
    attr: &Attr,
    xattrs: &[Xattr],
    owners: Owners,
) -> io::Result<(Identity, Vec<Vec<u8>>)> {
    let fd = fd.as_fd();
    if owners == Owners::Keep {
        fchown(fd, uid(attr), gid(attr))?;
    }
    let refused = refused(xattrs, |name, value| fsetxattr(fd, name, value, XattrFlags::empty()));
    File::from(fd.try_clone_to_owned()?).set_permissions(mode(attr, owners))?;
    futimens(fd, &times(attr))?;
    Ok((identity_of(fd)?, refused))
}
