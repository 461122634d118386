//! Copying files of this machine into an image.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ext2_core::{DeviceNr, FileKind, Inode, Timestamp, Wait};
use indicatif::ProgressBar;
use rustix::fs::{SeekFrom, lgetxattr, llistxattr, major, minor, seek};
use rustix::io::Errno;

use super::host::Xattr;
use super::image::{Like, finish, make_dir, make_file, make_link, make_symlink, store};
use crate::context::Context;
use crate::describe::join;
use crate::failure::{Failure, Of, Result};
use crate::progress::{bytes_bar, is_seen};
use crate::target::Target;
use crate::verbs::chown::Owner;

/// Bytes moved at once: one unit of 2 MiB.
const CHUNK: usize = 2 << 20;

/// Copies `source`, and what is in it if it is a directory, to `name` in `into`; without a name what is in the
/// directory goes into `into` itself. `path` is the path of `into` in the image, for messages.
pub(super) fn copy(
    context: &mut Context,
    target: &Target,
    source: &Path,
    into: &Inode,
    path: &[u8],
    name: Option<&[u8]>,
    owner: Option<Owner>,
) -> Result<()> {
    let total = if is_seen() { sum(source) } else { 0 };
    let mut copy = Copy {
        target,
        owner,
        first_names: BTreeMap::new(),
        bar: bytes_bar("copying", total),
        buffer: vec![0; CHUNK],
        directories: Vec::new(),
    };
    let start = Job {
        source: source.to_owned(),
        parent: into.clone(),
        path: path.to_vec(),
        name: name.map(<[u8]>::to_vec),
    };
    let mut jobs = vec![start];
    while let Some(job) = jobs.pop() {
        match copy.one(&job) {
            Ok(mut inside) => jobs.append(&mut inside),
            Err(failure) if failure.is_full() => return Err(failure),
            Err(failure) => copy.bar.suspend(|| context.complain(&failure)),
        }
    }
    // The innermost first: making what is in a directory changed its times.
    for (inode, like, path) in copy.directories.iter().rev() {
        context.or_complain(finish(inode, like).of(|| target.name_of(path)))?;
    }
    copy.bar.finish_and_clear();
    Ok(())
}

/// Bytes that are to be moved, about.
fn sum(source: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(source) else { return 0 };
    if !meta.is_dir() {
        return meta.blocks() * 512;
    }
    let Ok(entries) = fs::read_dir(source) else { return 0 };
    entries.flatten().map(|entry| sum(&entry.path())).sum()
}

/// A file that is to be copied.
struct Job {
    source: PathBuf,
    parent: Inode,
    /// Of the parent, in the image.
    path: Vec<u8>,
    name: Option<Vec<u8>>,
}

/// A copy that is going on.
struct Copy<'a> {
    target: &'a Target,
    owner: Option<Owner>,
    /// Files with several names, by device and inode number of this machine.
    first_names: BTreeMap<(u64, u64), Inode>,
    bar: ProgressBar,
    buffer: Vec<u8>,
    /// Directories that were made, whose attributes are set at the end.
    directories: Vec<(Inode, Like, Vec<u8>)>,
}

impl Copy<'_> {
    /// One file. Gives what is in it, the first last.
    fn one(&mut self, job: &Job) -> Result<Vec<Job>> {
        let host = |error: io::Error| Failure::host(&job.source, error);
        // What the caller names is followed when it stands for what is in it.
        let meta = match job.name {
            Some(_) => fs::symlink_metadata(&job.source),
            None => fs::metadata(&job.source),
        };
        let meta = meta.map_err(host)?;
        let Some(name) = &job.name else {
            return inside(&job.source, &job.parent, &job.path);
        };
        let path = join(&job.path, name);
        let of = || self.target.name_of(&path);
        if meta.nlink() > 1
            && !meta.is_dir()
            && let Some(first) = self.first_names.get(&(meta.dev(), meta.ino()))
        {
            make_link(&job.parent, name, first).of(of)?;
            return Ok(Vec::new());
        }
        let mut like = like(&job.source, &meta).map_err(host)?;
        if let Some(owner) = self.owner {
            like.uid = owner.uid.unwrap_or(like.uid);
            like.gid = owner.gid.unwrap_or(like.gid);
        }
        let inode = match like.kind {
            FileKind::Directory => {
                let inode = make_dir(&job.parent, name, &like).of(of)?;
                let jobs = inside(&job.source, &inode, &path)?;
                self.directories.push((inode, like, path));
                return Ok(jobs);
            }
            FileKind::Symlink => {
                let target = fs::read_link(&job.source).map_err(host)?;
                make_symlink(&job.parent, name, target.as_os_str().as_bytes(), &like).of(of)?
            }
            _ => make_file(&job.parent, name, &like).of(of)?,
        };
        if like.kind == FileKind::Regular {
            self.fill(&job.source, &inode, &path)?;
        }
        finish(&inode, &like).of(|| self.target.name_of(&path))?;
        if meta.nlink() > 1 {
            self.first_names.insert((meta.dev(), meta.ino()), inode);
        }
        Ok(Vec::new())
    }

    /// Moves the bytes of a file, run by run, so that its holes stay holes.
    fn fill(&mut self, source: &Path, inode: &Inode, path: &[u8]) -> Result<()> {
        let host = |error: io::Error| Failure::host(source, error);
        let file = File::open(source).map_err(host)?;
        let size = file.metadata().map_err(host)?.len();
        let mut at = 0;
        while let Some(run) = next_data(&file, at, size).map_err(host)? {
            at = run.start;
            while at < run.end {
                // To the next multiple, so that the pieces are units. OK to cast: at most the buffer's length.
                let want = (CHUNK as u64 - at % CHUNK as u64).min(run.end - at) as usize;
                let part = self.buffer.get_mut(..want).unwrap_or_default();
                let read = file.read_at(part, at).map_err(host)?;
                if read == 0 {
                    return Err(Failure::text(
                        source.display().to_string(),
                        "became shorter while it was read",
                    ));
                }
                store(inode, at, part.get(..read).unwrap_or_default()).of(|| self.target.name_of(path))?;
                at += read as u64;
                self.bar.inc(read as u64);
            }
        }
        if inode.size() < size {
            inode.truncate(size, Wait::Yes).of(|| self.target.name_of(path))?;
        }
        Ok(())
    }
}

/// What is in a directory of this machine, the first name last.
fn inside(source: &Path, parent: &Inode, path: &[u8]) -> Result<Vec<Job>> {
    let host = |error: io::Error| Failure::host(source, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(source).map_err(host)? {
        names.push(entry.map_err(host)?.file_name());
    }
    names.sort_by(|a, b| b.cmp(a));
    let job = |name: std::ffi::OsString| Job {
        source: source.join(&name),
        parent: parent.clone(),
        path: path.to_vec(),
        name: Some(name.as_bytes().to_vec()),
    };
    Ok(names.into_iter().map(job).collect())
}

/// The next run of data from `at` on, before `size`.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<std::ops::Range<u64>>> {
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

/// What a copy of a file of this machine is to be like.
fn like(path: &Path, meta: &Metadata) -> io::Result<Like> {
    let kind = meta.file_type();
    let kind = if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_symlink() {
        FileKind::Symlink
    } else if kind.is_char_device() {
        FileKind::CharDevice
    } else if kind.is_block_device() {
        FileKind::BlockDevice
    } else if kind.is_fifo() {
        FileKind::Fifo
    } else if kind.is_socket() {
        FileKind::Socket
    } else {
        FileKind::Regular
    };
    let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice)
        .then(|| DeviceNr { major: major(meta.rdev()), minor: minor(meta.rdev()) });
    // OK to cast: nanoseconds of a second are below 10^9, a mode has 12 bits below its kind.
    let time = |sec, nsec: i64| Timestamp { sec, nsec: nsec.clamp(0, 999_999_999) as u32 };
    Ok(Like {
        kind,
        mode: (meta.mode() & 0o7777) as u16,
        uid: meta.uid(),
        gid: meta.gid(),
        atime: time(meta.atime(), meta.atime_nsec()),
        mtime: time(meta.mtime(), meta.mtime_nsec()),
        device,
        xattrs: xattrs(path)?,
    })
}

/// The extended attributes that ext2 can hold. `security.selinux` is this machine's and not the file's.
fn xattrs(path: &Path) -> io::Result<Vec<Xattr>> {
    let mut names = vec![0; 64 << 10];
    let len = match llistxattr(path, &mut names) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut all = Vec::new();
    for name in names.get(..len).unwrap_or_default().split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let bytes = name.to_bytes();
        let known = [&b"user."[..], b"trusted.", b"security.", b"system.posix_acl_"];
        if bytes == b"security.selinux" || !known.iter().any(|prefix| bytes.starts_with(prefix)) {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        match lgetxattr(path, OsStr::from_bytes(bytes), &mut value) {
            Ok(len) => {
                value.truncate(len);
                all.push((bytes.to_vec(), value));
            }
            // Gone meanwhile, or not ours to read.
            Err(Errno::NODATA | Errno::ACCESS | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}
