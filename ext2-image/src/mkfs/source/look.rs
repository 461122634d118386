//! One folder of the host: what its files are, apart from any tree.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, openat, readlinkat, statx,
};
use rustix::io::Errno;

use super::directory::{Times, Xattrs};
use super::folder::open_quietly;
use crate::manifest::ByteSpan;
use crate::mkfs::{Body, Error, NodeAttrs, Result};
use ext2_core::{DeviceNr, Timestamp};

/// Bytes of a list of attributes, and of a value (Linux: `XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 1 << 16;

/// A file as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: Vec<u8>,
    pub(super) attrs: NodeAttrs,
    pub(super) body: Body,
    /// Device and inode of a file with several names.
    pub(super) linked: Option<(u32, u32, u64)>,
}

/// Looks at files.
pub(super) struct Look {
    times: Times,
    xattrs: Xattrs,
    buffer: Vec<u8>,
}

/// A file of the host.
#[derive(Clone, Copy)]
struct Place<'a> {
    folder: BorrowedFd<'a>,
    /// Its name in the folder.
    name: &'a OsStr,
    /// Its path, for the calls that take nothing else.
    whole: &'a Path,
}

impl Look {
    pub(super) fn new(times: Times, xattrs: Xattrs) -> Self {
        Self { times, xattrs, buffer: Vec::new() }
    }

    /// The attributes of a folder, the first of a tree.
    pub(super) fn at_root(&mut self, root: &Path) -> Result<NodeAttrs> {
        let shown = root.as_os_str().as_bytes();
        let place = Place { folder: CWD, name: root.as_os_str(), whole: root };
        let found = place.stat().map_err(|error| Error::source(shown, error))?;
        if FileType::from_raw_mode(found.stx_mode.into()) != FileType::Directory {
            return Err(Error::source(shown, "is not a directory"));
        }
        self.attrs(place, &found, &|| b"/".to_vec())
    }

    /// Tells `each` of every file in the folder `folder`, which in messages is called `shown`.
    pub(super) fn list(&mut self, folder: &Path, shown: &[u8], each: &mut dyn FnMut(Found)) -> Result<()> {
        let failed = |error: Errno| Error::source(shown, std::io::Error::from(error));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Opened once: its files are found from it, not by their paths from the root again.
        let opened = openat(CWD, folder, flags, Mode::empty()).map_err(failed)?;
        let mut whole = folder.to_path_buf();
        for item in Dir::read_from(&opened).map_err(failed)? {
            let item = item.map_err(failed)?;
            let name = item.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            whole.push(OsStr::from_bytes(name));
            let place = Place { folder: opened.as_fd(), name: OsStr::from_bytes(name), whole: &whole };
            let path = || [shown.strip_suffix(b"/").unwrap_or(shown), b"/", name].concat();
            each(self.at(place, name, &path)?);
            whole.pop();
        }
        Ok(())
    }

    fn at(&mut self, place: Place<'_>, name: &[u8], path: &dyn Fn() -> Vec<u8>) -> Result<Found> {
        let failed = |error: std::io::Error| Error::source(&path(), error);
        let found = place.stat().map_err(failed)?;
        let kind = FileType::from_raw_mode(found.stx_mode.into());
        let device = DeviceNr { major: found.stx_rdev_major, minor: found.stx_rdev_minor };
        let body = match kind {
            FileType::RegularFile => {
                Body::File { size: found.stx_size, data: place.holes(&found).map_err(failed)?, handle: 0 }
            }
            FileType::Directory => Body::Directory,
            FileType::Symlink => {
                let target = readlinkat(place.folder, place.name, Vec::new());
                Body::Symlink(target.map_err(|error| failed(error.into()))?.into_bytes().into())
            }
            FileType::CharacterDevice => Body::CharDevice(device),
            FileType::BlockDevice => Body::BlockDevice(device),
            FileType::Fifo => Body::Fifo,
            FileType::Socket => Body::Socket,
            FileType::Unknown => return Err(Error::source(&path(), "is of no kind that is known")),
        };
        let id = (found.stx_dev_major, found.stx_dev_minor, found.stx_ino);
        let linked = (found.stx_nlink > 1 && kind != FileType::Directory).then_some(id);
        Ok(Found { name: name.to_vec(), attrs: self.attrs(place, &found, path)?, body, linked })
    }

    fn attrs(&mut self, place: Place<'_>, found: &Statx, path: &dyn Fn() -> Vec<u8>) -> Result<NodeAttrs> {
        let mtime = time(found.stx_mtime);
        let mut attrs = NodeAttrs::new(found.stx_mode & 0o7777, (found.stx_uid, found.stx_gid), mtime);
        if self.times == Times::All {
            attrs.atime = time(found.stx_atime);
            attrs.ctime = time(found.stx_ctime);
            if found.stx_mask & StatxFlags::BTIME.bits() != 0 {
                attrs.crtime = time(found.stx_btime);
            }
        }
        if self.xattrs == Xattrs::Keep {
            attrs.xattrs = self.xattrs(place.whole).map_err(|error| Error::source(&path(), error))?;
        }
        Ok(attrs)
    }

    fn xattrs(&mut self, place: &Path) -> std::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        // Asked for the length first: the kernel takes as much memory as it is offered, and few files have any.
        match rustix::fs::llistxattr(place, &mut [0; 0][..]) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        self.buffer.resize(XATTR_MAX, 0);
        let len = rustix::fs::llistxattr(place, &mut self.buffer[..])?;
        let names: Vec<Vec<u8>> = self.buffer[..len].split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
        let mut all = Vec::new();
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            let len = rustix::fs::lgetxattr(place, OsStr::from_bytes(&name), &mut self.buffer[..])?;
            all.push((name, self.buffer[..len].to_vec()));
        }
        Ok(all)
    }
}

fn time(found: StatxTimestamp) -> Timestamp {
    Timestamp { sec: found.tv_sec, nsec: found.tv_nsec }
}

impl Place<'_> {
    fn stat(&self) -> std::io::Result<Statx> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        Ok(statx(self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW, wanted)?)
    }

    /// Where the data of a file is, if it has holes. Only a file with fewer blocks than bytes is opened for it.
    fn holes(&self, found: &Statx) -> std::io::Result<Option<Box<[ByteSpan]>>> {
        if found.stx_blocks.saturating_mul(512) >= found.stx_size {
            return Ok(None);
        }
        data_spans(&File::from(open_quietly(self.folder, self.name)?), found.stx_size)
    }
}

/// Where the data of a file of `size` bytes is; `None` where there is no hole, or no telling.
fn data_spans(file: &File, size: u64) -> std::io::Result<Option<Box<[ByteSpan]>>> {
    use rustix::fs::{SeekFrom, seek};
    let mut spans = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let hole = seek(file, SeekFrom::Hole(data)).unwrap_or(size).min(size);
        if hole > data {
            spans.push(ByteSpan { offset: data, length: hole - data });
        }
        at = hole.max(at + 1);
    }
    let whole = matches!(spans.as_slice(), [span] if span.offset == 0 && span.length == size);
    Ok((!whole).then(|| spans.into()))
}
