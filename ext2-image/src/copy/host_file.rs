//! A file of the host that is copied from: held open, so that kind, attributes and bytes are one file's.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::string::String;
use std::vec::Vec;

use ext2_core::{DeviceNr, FileKind};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fstat, getxattr, lgetxattr, listxattr,
    llistxattr, major, minor, openat, readlinkat, seek, statat,
};
use rustix::io::Errno;

use super::{Xattr, like::Like};
use crate::host_time::host_time;

/// A file, held by a descriptor that reads nothing and has no effect on devices and pipes (Linux: `O_PATH`).
#[derive(Debug)]
pub(super) struct HostFile {
    handle: OwnedFd,
    stat: Stat,
}

/// A directory that is open for reading.
#[derive(Debug)]
pub(super) struct HostFolder(OwnedFd);

const HOLD: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Bytes of a list of attributes, and of a value (Linux: `XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 64 << 10;
/// Bytes that are mostly enough for them.
const XATTR_MOSTLY: usize = 256;

/// Prefixes of attributes that ext2 can hold.
const KNOWN: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system.posix_acl_"];

impl HostFile {
    /// What the caller names. `follow`: a link at its end stands for what it leads to.
    pub(super) fn named(path: &Path, follow: bool) -> io::Result<Self> {
        let flags = if follow { HOLD } else { HOLD.union(OFlags::NOFOLLOW) };
        Self::of(openat(CWD, path, flags, Mode::empty())?)
    }

    /// A name in a directory; a link is itself.
    pub(super) fn within(folder: &HostFolder, name: &CStr) -> io::Result<Self> {
        Self::of(openat(&folder.0, name, HOLD.union(OFlags::NOFOLLOW), Mode::empty())?)
    }

    fn of(handle: OwnedFd) -> io::Result<Self> {
        let stat = fstat(&handle)?;
        Ok(Self { handle, stat })
    }

    pub(super) fn kind(&self) -> FileKind {
        match FileType::from_raw_mode(self.stat.st_mode) {
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::CharacterDevice => FileKind::CharDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            _ => FileKind::Regular,
        }
    }

    /// What names the file on this machine, if it has several names there.
    pub(super) fn several_names(&self) -> Option<(u64, u64)> {
        (self.stat.st_nlink > 1 && self.kind() != FileKind::Directory).then(|| self.identity())
    }

    /// What names the file on this machine.
    pub(super) fn identity(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }

    /// Bytes that are to be moved, about.
    pub(super) fn allocated(&self) -> u64 {
        // OK to cast: no file has a negative count of blocks.
        if self.kind() == FileKind::Directory { 0 } else { self.stat.st_blocks as u64 * 512 }
    }

    /// The same file by its name in `/proc`: for what has no call that takes a descriptor of this sort.
    fn proc_path(&self) -> String {
        std::format!("/proc/self/fd/{}", self.handle.as_raw_fd())
    }

    /// The path of a symbolic link, as long as the link is there: a preloaded pseudo takes the name in /proc for what the link
    /// leads to.
    fn link_path(&self) -> Option<CString> {
        if self.kind() != FileKind::Symlink {
            return None;
        }
        let path = readlinkat(CWD, self.proc_path(), Vec::new()).ok()?;
        let there = statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        ((there.st_dev, there.st_ino) == self.identity()).then_some(path)
    }

    /// The file once more, for reading. Nothing is followed: the descriptor is the file.
    fn reopen(&self, more: OFlags) -> io::Result<OwnedFd> {
        // Through /proc a descriptor is opened as what it is; NOFOLLOW would refuse the name there itself.
        let flags = READ.difference(OFlags::NOFOLLOW).union(more);
        let open = openat(CWD, self.proc_path(), flags, Mode::empty())?;
        let found = fstat(&open)?;
        if (found.st_dev, found.st_ino) != self.identity() {
            return Err(io::Error::other("was replaced while it was read"));
        }
        Ok(open)
    }

    /// The bytes of a regular file.
    pub(super) fn contents(&self) -> io::Result<File> {
        self.reopen(OFlags::empty()).map(File::from)
    }

    /// The names in a directory.
    pub(super) fn folder(&self) -> io::Result<HostFolder> {
        self.reopen(OFlags::DIRECTORY).map(HostFolder)
    }

    /// Where a link leads.
    pub(super) fn link_target(&self) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&self.handle, "", Vec::new())?.into_bytes())
    }

    /// What a copy is to be like, and the names of attributes that are left out.
    pub(super) fn like(&self) -> io::Result<(Like, Vec<Vec<u8>>)> {
        let (kind, stat) = (self.kind(), &self.stat);
        let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice)
            .then(|| DeviceNr { major: major(stat.st_rdev), minor: minor(stat.st_rdev) });
        let (xattrs, left_out) = self.xattrs()?;
        let like = Like {
            kind,
            // OK to cast: a mode has 12 bits below its kind.
            mode: (stat.st_mode & 0o7777) as u16,
            uid: stat.st_uid,
            gid: stat.st_gid,
            atime: host_time(stat.st_atime, stat.st_atime_nsec),
            mtime: host_time(stat.st_mtime, stat.st_mtime_nsec),
            device,
            xattrs,
        };
        Ok((like, left_out))
    }

    /// The extended attributes that ext2 can hold, and the names of the others.
    fn xattrs(&self) -> io::Result<(Vec<Xattr>, Vec<Vec<u8>>)> {
        // The name in /proc leads to the file that is held, be it a link itself.
        let held = self.proc_path();
        let link = self.link_path();
        let names = match whole(|names| match &link {
            Some(path) => llistxattr(path, names),
            None => listxattr(&held, names),
        }) {
            Ok(names) => names,
            Err(Errno::OPNOTSUPP) => return Ok((Vec::new(), Vec::new())),
            Err(error) => return Err(error.into()),
        };
        let (mut all, mut left_out) = (Vec::new(), Vec::new());
        for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            if !KNOWN.iter().any(|prefix| name.starts_with(prefix)) {
                left_out.push(name.to_vec());
                continue;
            }
            let got = whole(|value| match &link {
                Some(path) => lgetxattr(path, name, value),
                None => getxattr(&held, name, value),
            });
            match got {
                Ok(value) => all.push((name.to_vec(), value)),
                // Gone meanwhile.
                Err(Errno::NODATA) => {}
                Err(Errno::ACCESS | Errno::PERM) => left_out.push(name.to_vec()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((all, left_out))
    }
}

/// All that a call gives that fills a buffer and says `ERANGE` where that is too short: most attributes are short.
fn whole(ask: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = std::vec![0; XATTR_MOSTLY];
    let len = match ask(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(XATTR_MAX, 0);
            ask(&mut buffer)?
        }
        asked => asked?,
    };
    buffer.truncate(len);
    Ok(buffer)
}

impl HostFolder {
    /// The names, in the order of their bytes, without `.` and `..`.
    pub(super) fn names(&self) -> io::Result<Vec<std::ffi::CString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Whether a name in a directory is the file of these numbers.
pub(super) fn is_file(folder: impl AsFd, name: &[u8], identity: (u64, u64)) -> io::Result<bool> {
    let there = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((there.st_dev, there.st_ino) == identity)
}

/// The next run of data from `at` on, before `size`.
pub(super) fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<Range<u64>>> {
    if at >= size {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(at..size)),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start)).unwrap_or(size).min(size);
    Ok((start < end).then_some(start..end))
}
