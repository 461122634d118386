//! The manifest of a tree that the kernel shows: what our own reading of an image is compared with.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::OpenOptionsExt,
    },
    path::Path,
};

use ext2_image::manifest::{
    AttributeFlags, ByteSpan, ContentCrc, Entry, Inode, Kind, Manifest, Node, Time, Xattr, quote,
};
use rustix::{
    fs::{AtFlags, CWD, FileType, OFlags, Statx, StatxFlags, StatxTimestamp},
    io::Errno,
};

/// Walks the tree under `root`, which becomes `/`, without leaving its file system.
///
/// Whatever the kernel says is put down: sizes and link counts of directories as they are there, times to the
/// nanosecond, birth times where statx(2) gives them, holes as SEEK_HOLE finds them. Of files other than regular ones
/// and directories, which cannot be asked by ioctl, the flags are those that statx(2) shows.
///
/// # Errors
/// The first call that fails, with the path.
pub fn walk(root: &Path) -> io::Result<Manifest> {
    let device = stat(root).map(|found| (found.stx_dev_major, found.stx_dev_minor))?;
    let mut paths = vec![b"/".to_vec()];
    let mut pending = vec![b"/".to_vec()];
    while let Some(folder) = pending.pop() {
        for item in fs::read_dir(below(root, &folder)).map_err(|error| named(&folder, error))? {
            let name = item?.file_name().into_vec();
            let lead = if folder == b"/" { &b""[..] } else { &folder };
            let path = [lead, b"/", &name].concat();
            let found = stat(&below(root, &path)).map_err(|error| named(&path, error))?;
            let inside = (found.stx_dev_major, found.stx_dev_minor) == device;
            if inside && FileType::from_raw_mode(u32::from(found.stx_mode)) == FileType::Directory {
                pending.push(path.clone());
            }
            paths.push(path);
        }
    }
    // In the order of the manifest, so that the first name of an inode is the one that the manifest calls first.
    paths.sort_by_cached_key(|path| quote(path));
    let mut first_names: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut entries = Vec::with_capacity(paths.len());
    for path in paths {
        let place = below(root, &path);
        let found = stat(&place).map_err(|error| named(&path, error))?;
        let is_directory = FileType::from_raw_mode(u32::from(found.stx_mode)) == FileType::Directory;
        let node = match first_names.get(&found.stx_ino).filter(|_| !is_directory) {
            Some(first) => Node::HardLink(first.clone()),
            None => {
                first_names.insert(found.stx_ino, path.clone());
                Node::Inode(inode(&place, &found).map_err(|error| named(&path, error))?)
            }
        };
        entries.push(Entry { path, node });
    }
    Manifest::new(entries).map_err(|(path, why)| named(&path, io::Error::new(ErrorKind::InvalidData, why)))
}

/// The place of a path of the manifest in the host's tree.
fn below(root: &Path, path: &[u8]) -> std::path::PathBuf {
    root.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
}

/// An error with the path that it is about.
fn named(path: &[u8], error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", quote(path)))
}

/// statx(2) of the file itself.
fn stat(path: &Path) -> io::Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    Ok(rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted)?)
}

/// All attributes of one file.
fn inode(path: &Path, found: &Statx) -> io::Result<Inode> {
    let device = (found.stx_rdev_major, found.stx_rdev_minor);
    let kind = match FileType::from_raw_mode(u32::from(found.stx_mode)) {
        FileType::RegularFile => contents(path, found.stx_size)?,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink { target: fs::read_link(path)?.into_os_string().into_vec() },
        FileType::CharacterDevice => Kind::CharDevice { major: device.0, minor: device.1 },
        FileType::BlockDevice => Kind::BlockDevice { major: device.0, minor: device.1 },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => return Err(io::Error::new(ErrorKind::InvalidData, "unknown type of file")),
    };
    let flags = flags(path, &kind, found)?;
    Ok(Inode {
        mode: found.stx_mode & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        size: Some(found.stx_size),
        nlink: Some(found.stx_nlink),
        atime: Some(time(found.stx_atime)),
        mtime: Some(time(found.stx_mtime)),
        ctime: Some(time(found.stx_ctime)),
        crtime: (found.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| time(found.stx_btime)),
        xattrs: xattrs(path)?,
        flags,
        kind,
    })
}

/// A time of statx(2).
fn time(found: StatxTimestamp) -> Time {
    Time { seconds: found.tv_sec, nanoseconds: found.tv_nsec }
}

/// The holes of a file, and the sum of its bytes, of which only those outside holes are read.
fn contents(path: &Path, size: u64) -> io::Result<Kind> {
    let mut file = open(path)?;
    let mut holes = Vec::new();
    let mut crc = ContentCrc::new();
    let mut buffer = vec![0; 1 << 16];
    let mut offset = 0;
    while offset < size {
        let data = match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => data,
            Err(Errno::NXIO) => size,
            Err(error) => return Err(error.into()),
        };
        if data > offset {
            holes.push(ByteSpan { offset, length: data - offset });
            crc.update_zeros(data - offset);
        }
        if data >= size {
            break;
        }
        let end = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(data))?;
        file.seek(SeekFrom::Start(data))?;
        let mut left = end - data;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            file.read_exact(&mut buffer[..want])?;
            crc.update(&buffer[..want]);
            left -= u64::try_from(want).expect("a length of a buffer fits 64 bits");
        }
        offset = end;
    }
    Ok(Kind::File { holes, crc: Some(crc.finish()) })
}

/// Opens without touching the access time where that is allowed, and without waiting.
fn open(path: &Path) -> io::Result<File> {
    let flags = |flags: OFlags| i32::try_from(flags.bits()).expect("open flags fit");
    let mut options = File::options();
    options.read(true);
    options.custom_flags(flags(OFlags::NOATIME | OFlags::NONBLOCK | OFlags::NOFOLLOW));
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            options.custom_flags(flags(OFlags::NONBLOCK | OFlags::NOFOLLOW)).open(path)
        }
        result => result,
    }
}

/// Attribute flags, by ioctl where the type allows it.
fn flags(path: &Path, kind: &Kind, found: &Statx) -> io::Result<AttributeFlags> {
    if matches!(kind, Kind::File { .. } | Kind::Directory) {
        match rustix::fs::ioctl_getflags(open(path)?) {
            Ok(flags) => return Ok(AttributeFlags::from_inode_flags(flags.bits())),
            // A file system without such flags, tmpfs for one.
            Err(Errno::NOTTY | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // STATX_ATTR_COMPRESSED, IMMUTABLE, APPEND and NODUMP have the values of the flags of the inode.
    let shown = found.stx_attributes.bits() & 0x74;
    Ok(AttributeFlags::from_inode_flags(u32::try_from(shown).expect("the mask fits")))
}

/// Extended attributes, sorted by name.
fn xattrs(path: &Path) -> io::Result<Vec<Xattr>> {
    let mut names = vec![0_u8; 1 << 16];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut value = vec![0_u8; 1 << 16];
    let mut list = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..])?;
        list.push(Xattr { name: name.to_vec(), value: value[..length].to_vec() });
    }
    list.sort();
    Ok(list)
}
