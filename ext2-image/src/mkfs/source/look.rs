//! One folder of the host: what its files are, apart from any tree.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Statx, StatxAttributes, StatxFlags, fgetxattr,
    flistxattr, fstat, lgetxattr, llistxattr, major, minor, openat, readlinkat, statat, statx,
};
use rustix::io::Errno;

use super::folder::open_quietly;
use super::kept::{LARGEST, Room};
use super::which::{Times, Xattrs};
use crate::host_time::host_time;
use crate::manifest::ByteSpan;
use crate::mkfs::{Body, Error, NodeAttrs, Result, Stamp, XattrList};
use ext2_core::rules::XattrName;
use ext2_core::{DeviceNr, Timestamp};

/// Bytes of a list of attributes, and of a value (Linux: `XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 1 << 16;

/// Attributes of `statx` and the bits of `i_flags` that they stand for.
const FLAGS: [(StatxAttributes, u32); 3] =
    [(StatxAttributes::IMMUTABLE, 0x10), (StatxAttributes::APPEND, 0x20), (StatxAttributes::NODUMP, 0x40)];

/// A file as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: Vec<u8>,
    pub(super) attrs: NodeAttrs,
    pub(super) body: Body,
    /// Device and inode of a file with several names.
    pub(super) linked: Option<(u64, u64)>,
    /// How many names it has.
    pub(super) links: u64,
    /// Names of attributes that an ext2 cannot hold.
    pub(super) lost: Vec<Vec<u8>>,
    /// All bytes of a small file, where they are to be kept.
    pub(super) bytes: Option<Box<[u8]>>,
    /// Of a file that can be opened, as far as its mode tells, what it was.
    pub(super) stamp: Option<Stamp>,
}

/// Looks at files.
pub(super) struct Look<'r> {
    times: Times,
    xattrs: Xattrs,
    buffer: Vec<u8>,
    /// How much of small files may be kept; without it none is opened.
    room: Option<&'r Room>,
    /// Whose files can be opened if their mode lets the owner.
    me: u32,
}

/// A file of the host.
#[derive(Clone, Copy)]
struct Place<'a> {
    folder: BorrowedFd<'a>,
    /// Its name in the folder.
    name: &'a OsStr,
    /// Its path, for the calls that take nothing else.
    whole: &'a Path,
    /// The file itself, opened: then it is asked and not its name, which is looked up but once.
    opened: Option<&'a File>,
}

impl<'r> Look<'r> {
    pub(super) fn new(times: Times, xattrs: Xattrs) -> Self {
        Self::keeping(times, xattrs, None)
    }

    /// Which reads small files too, as far as there is room.
    pub(super) fn keeping(times: Times, xattrs: Xattrs, room: Option<&'r Room>) -> Self {
        Self { times, xattrs, buffer: Vec::new(), room, me: rustix::process::geteuid().as_raw() }
    }

    /// The attributes of a folder, the first of a tree.
    ///
    /// Gives the names of attributes that an ext2 cannot hold, too.
    pub(super) fn at_root(&mut self, root: &Path) -> Result<(NodeAttrs, Vec<Vec<u8>>)> {
        let shown = root.as_os_str().as_bytes();
        // What a link leads to, not the link.
        let root = &root.join(".");
        let place = Place { folder: CWD, name: root.as_os_str(), whole: root, opened: None };
        let found = place.stat().map_err(|error| Error::source(shown, error))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return Err(Error::source(shown, "is not a directory"));
        }
        let mut lost = Vec::new();
        let attrs = self.attrs(place, &found, &mut lost).map_err(|error| Error::source(b"/", error))?;
        Ok((attrs, lost))
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
            let place = OsStr::from_bytes(name);
            whole.push(place);
            // What cannot be opened is looked at all the same; whoever wants its contents says why not.
            let is_file = self.room.is_some() && item.file_type() == FileType::RegularFile;
            let file = if is_file { open_quietly(&opened, place).ok().map(File::from) } else { None };
            let place = Place { folder: opened.as_fd(), name: place, whole: &whole, opened: file.as_ref() };
            let path = || [shown.strip_suffix(b"/").unwrap_or(shown), b"/", name].concat();
            each(self.at(place, name, &path)?);
            whole.pop();
        }
        Ok(())
    }

    /// The names in a folder, and which are folders themselves.
    pub(super) fn names(&self, folder: &Path, shown: &[u8]) -> Result<Vec<(Vec<u8>, bool)>> {
        let failed = |error: Errno| Error::source(shown, std::io::Error::from(error));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, folder, flags, Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        for item in Dir::read_from(&opened).map_err(failed)? {
            let item = item.map_err(failed)?;
            let name = item.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match item.file_type() {
                FileType::Unknown => {
                    let found = statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                    FileType::from_raw_mode(found.st_mode)
                }
                kind => kind,
            };
            names.push((name.to_bytes().to_vec(), kind == FileType::Directory));
        }
        Ok(names)
    }

    /// A file of a folder that is open; `whole` is its path.
    pub(super) fn one(&mut self, folder: BorrowedFd<'_>, whole: &Path, shown: &[u8]) -> Result<Found> {
        let name = whole.file_name().unwrap_or_default();
        let place = Place { folder, name, whole, opened: None };
        self.at(place, name.as_bytes(), &|| shown.to_vec())
    }

    fn at(&mut self, place: Place<'_>, name: &[u8], path: &dyn Fn() -> Vec<u8>) -> Result<Found> {
        let failed = |error: std::io::Error| Error::source(&path(), error);
        let found = place.stat().map_err(failed)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if place.opened.is_some() && kind != FileType::RegularFile {
            // Its name is another file's since it was listed; or a preload says so (a device that it has as a file).
            return self.at(Place { opened: None, ..place }, name, path);
        }
        let mut bytes = None;
        let device = DeviceNr { major: major(found.st_rdev), minor: minor(found.st_rdev) };
        let body = match kind {
            FileType::RegularFile => {
                let size = u64::try_from(found.st_size).unwrap_or(0);
                let data = place.holes(&found, size).map_err(failed)?;
                if data.is_none() {
                    bytes = self.bytes(place, size);
                }
                Body::File { size, data, handle: 0 }
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
        let id = (found.st_dev, found.st_ino);
        // The width of the count differs between hosts.
        #[allow(clippy::useless_conversion)] // Other machines count in fewer bits.
        let links = u64::try_from(found.st_nlink).unwrap_or(u64::MAX);
        let linked = (links > 1 && kind != FileType::Directory).then_some(id);
        let mut lost = Vec::new();
        let attrs = self.attrs(place, &found, &mut lost).map_err(failed)?;
        let stamp =
            (kind == FileType::RegularFile && self.may_read(&found)).then(|| Stamp::from_stat(&found));
        Ok(Found { name: name.to_vec(), attrs, body, linked, links, lost, bytes, stamp })
    }

    /// The bytes of a small file that is open, while there is room for them. None where it is not what it was: whoever reads
    /// it finds that out.
    fn bytes(&self, place: Place<'_>, size: u64) -> Option<Box<[u8]>> {
        let (file, size) = (place.opened?, usize::try_from(size).ok()?);
        if size == 0 || size > LARGEST || !self.room?.take(size) {
            return None;
        }
        // One more than there should be: what has grown is not taken for whole.
        let mut buffer = [0; LARGEST + 1];
        let read = file.read_at(buffer.get_mut(..size + 1)?, 0).ok()?;
        (read == size).then(|| buffer.get(..size).unwrap_or_default().into())
    }

    /// Whether the mode of a file lets this process read it, whatever groups it is in and whatever else it may do.
    fn may_read(&self, found: &Stat) -> bool {
        found.st_mode & 0o444 == 0o444 || (found.st_mode & 0o400 != 0 && found.st_uid == self.me)
    }

    fn attrs(
        &mut self,
        place: Place<'_>,
        found: &Stat,
        lost: &mut Vec<Vec<u8>>,
    ) -> std::io::Result<NodeAttrs> {
        let mtime = host_time(found.st_mtime, found.st_mtime_nsec);
        let mode = (found.st_mode & 0o7777) as u16; // 12 bits
        let mut attrs = NodeAttrs::new(mode, (found.st_uid, found.st_gid), mtime);
        if self.times == Times::All {
            attrs.atime = host_time(found.st_atime, found.st_atime_nsec);
            attrs.ctime = host_time(found.st_ctime, found.st_ctime_nsec);
            attrs.crtime = place.birth().unwrap_or(mtime);
        }
        if matches!(FileType::from_raw_mode(found.st_mode), FileType::RegularFile | FileType::Directory) {
            attrs.flags = place.flags();
        }
        if self.xattrs == Xattrs::Keep {
            attrs.xattrs = self.xattrs(place, lost)?;
        }
        Ok(attrs)
    }

    /// The attributes that an ext2 can hold; of the others the names.
    fn xattrs(&mut self, place: Place<'_>, lost: &mut Vec<Vec<u8>>) -> std::io::Result<XattrList> {
        // A small buffer first: the kernel takes as much memory as it is offered, and few files have many. (An empty
        // one would not do: rustix answers 0 for it, whatever there is.)
        let mut small = [0; 256];
        let names = match place.list(&mut small) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(XattrList::default()),
            Ok(len) => small.get(..len).unwrap_or_default().to_vec(),
            Err(Errno::RANGE) => {
                self.buffer.resize(XATTR_MAX, 0);
                let len = place.list(&mut self.buffer)?;
                self.buffer.get(..len).unwrap_or_default().to_vec()
            }
            Err(error) => return Err(error.into()),
        };
        self.buffer.resize(XATTR_MAX, 0);
        let mut all = Vec::new();
        for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            if XattrName::parse(name).is_err() {
                lost.push(name.to_vec());
                continue;
            }
            match place.value(OsStr::from_bytes(name), &mut self.buffer) {
                Ok(len) => all.push((name.to_vec(), self.buffer.get(..len).unwrap_or_default().to_vec())),
                // Taken away since they were listed.
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(all.into())
    }
}

impl Place<'_> {
    /// By `fstatat`, which every preload that pretends other owners or devices answers; not all know `statx`.
    fn stat(&self) -> std::io::Result<Stat> {
        Ok(match self.opened {
            Some(file) => fstat(file)?,
            None => statat(self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW)?,
        })
    }

    fn statx(&self, what: StatxFlags) -> rustix::io::Result<Statx> {
        match self.opened {
            Some(file) => statx(file, c"", AtFlags::EMPTY_PATH, what),
            None => statx(self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW, what),
        }
    }

    /// The names of its attributes, one behind the other.
    fn list(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self.opened {
            Some(file) => flistxattr(file, buffer),
            None => llistxattr(self.whole, buffer),
        }
    }

    /// The value of an attribute.
    fn value(&self, name: &OsStr, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self.opened {
            Some(file) => fgetxattr(file, name, buffer),
            None => lgetxattr(self.whole, name, buffer),
        }
    }

    /// The attribute flags that the host tells of every file without opening it, as bits of `i_flags` (chattr's `i`, `a`
    /// and `d`).
    fn flags(&self) -> u32 {
        let Ok(found) = self.statx(StatxFlags::empty()) else { return 0 };
        FLAGS
            .iter()
            .filter(|(told, _)| found.stx_attributes.contains(*told))
            .fold(0, |all, (_, bit)| all | bit)
    }

    /// When the file was made, where the host knows it.
    fn birth(&self) -> Option<Timestamp> {
        let found = self.statx(StatxFlags::BTIME).ok()?;
        let known = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        known.then(|| host_time(found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
    }

    /// Where the data of a file is, if it has holes. Only a file with fewer blocks than bytes is opened for it.
    fn holes(&self, found: &Stat, size: u64) -> std::io::Result<Option<Box<[ByteSpan]>>> {
        if u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(512) >= size {
            return Ok(None);
        }
        match self.opened {
            Some(file) => data_spans(file, size),
            None => data_spans(&File::from(open_quietly(self.folder, self.name)?), size),
        }
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
