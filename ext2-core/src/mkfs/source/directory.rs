//! The tree of a directory of the host.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, openat, readlinkat, statx,
};
use rustix::io::Errno;

use super::folder::open_quietly;
use crate::manifest::ByteSpan;
use crate::mkfs::{Body, Error, NodeAttrs, NodeId, Result, Tree};
use crate::{DeviceNr, Timestamp};

/// Which of the host's times are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// The time of the last change stands for all four: the others change when a tree is copied or read.
    Modified,
    /// All as the host has them.
    All,
}

/// Which extended attributes are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xattrs {
    /// All.
    Keep,
    /// None.
    Drop,
}

/// Bytes of a list of attributes, and of a value (Linux: `XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 1 << 16;

/// Walks the directory `root` and gives its tree; `progress` hears how many files were found so far.
///
/// Contents come from [`Folder`](super::Folder). Hard links stay links, holes stay holes.
///
/// # Errors
/// `Source` for what cannot be read, `Entry` for what a tree cannot hold.
pub fn read_directory(
    root: &Path,
    times: Times,
    xattrs: Xattrs,
    progress: &mut dyn FnMut(usize),
) -> Result<Tree> {
    let mut walk = Walk { times, xattrs, links: HashMap::new(), buffer: Vec::new() };
    let shown = root.as_os_str().as_bytes();
    let top = Place { folder: CWD, name: root.as_os_str(), whole: root };
    let found = top.stat().map_err(|error| Error::source(shown, error))?;
    if FileType::from_raw_mode(found.stx_mode.into()) != FileType::Directory {
        return Err(Error::source(shown, "is not a directory"));
    }
    let mut tree = Tree::new(walk.attrs(top, &found, b"/")?);
    let mut pending: Vec<(PathBuf, NodeId)> = vec![(root.to_path_buf(), NodeId::ROOT)];
    while let Some((folder, parent)) = pending.pop() {
        let above = tree.path(parent);
        let failed = |error: Errno| Error::source(&above, std::io::Error::from(error));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Opened once: its files are found from it, not by their paths from the root again.
        let opened = openat(CWD, &folder, flags, Mode::empty()).map_err(failed)?;
        let mut whole = folder;
        for item in Dir::read_from(&opened).map_err(failed)? {
            let item = item.map_err(failed)?;
            let name = item.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            whole.push(OsStr::from_bytes(name));
            let place = Place { folder: opened.as_fd(), name: OsStr::from_bytes(name), whole: &whole };
            let path = [above.strip_suffix(b"/").unwrap_or(&above), b"/", name].concat();
            if let Some(node) = walk.file(&mut tree, place, parent, name, &path)? {
                pending.push((whole.clone(), node));
            }
            whole.pop();
        }
        progress(tree.len());
    }
    Ok(tree)
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

struct Walk {
    times: Times,
    xattrs: Xattrs,
    /// Files with several names, by device and inode.
    links: HashMap<(u32, u32, u64), NodeId>,
    buffer: Vec<u8>,
}

impl Walk {
    /// Adds a file; gives its node if it is a directory.
    fn file(
        &mut self,
        tree: &mut Tree,
        place: Place<'_>,
        parent: NodeId,
        name: &[u8],
        path: &[u8],
    ) -> Result<Option<NodeId>> {
        let failed = |error: std::io::Error| Error::source(path, error);
        let found = place.stat().map_err(failed)?;
        let kind = FileType::from_raw_mode(found.stx_mode.into());
        let id = (found.stx_dev_major, found.stx_dev_minor, found.stx_ino);
        let linked = found.stx_nlink > 1 && kind != FileType::Directory;
        if let Some(&first) = self.links.get(&id).filter(|_| linked) {
            tree.link(parent, name, first)?;
            return Ok(None);
        }
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
            FileType::Unknown => return Err(Error::source(path, "is of no kind that is known")),
        };
        let attrs = self.attrs(place, &found, path)?;
        let node = tree.add(parent, name, attrs, body)?;
        if linked {
            self.links.insert(id, node);
        }
        Ok((kind == FileType::Directory).then_some(node))
    }

    fn attrs(&mut self, place: Place<'_>, found: &Statx, path: &[u8]) -> Result<NodeAttrs> {
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
            attrs.xattrs = self.xattrs(place.whole).map_err(|error| Error::source(path, error))?;
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
