//! Modes, owners, times, flags and extended attributes, by system calls.

use std::os::fd::{AsFd, BorrowedFd};

use ext2_core::{Acl, AclKind, Attr, DeviceNr, FileKind, InodeFlags, InodeNr, StatFs, Timestamp};
use rustix::{
    fs::{self, AtFlags, CWD, Gid, IFlags, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::{Errno, Result as Io},
};

use super::hands::{Done, Kernel, call, done, kind, number, path_of, reopen};
use crate::sim::{
    Answer, Operation, Step,
    operation::xattr_name,
    perform::{acl, acl_name},
};

/// The largest value of an attribute.
const VALUE_MAX: usize = 65_536;

/// The space there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) block_size: u64,
    pub(super) blocks: u64,
    pub(super) blocks_free: u64,
    pub(super) blocks_available: u64,
    pub(super) files: u64,
    pub(super) files_free: u64,
    pub(super) name_max: u64,
}

impl From<StatFs> for Space {
    fn from(space: StatFs) -> Self {
        Self {
            block_size: space.block_size,
            blocks: space.blocks,
            blocks_free: space.blocks_free,
            blocks_available: space.blocks_available,
            files: space.files,
            files_free: space.files_free,
            name_max: space.name_max.into(),
        }
    }
}

impl Kernel {
    /// Does it, if it is about attributes.
    pub(super) fn attempt_attributes(&mut self, step: &Step) -> Done {
        use Operation as O;
        match &step.operation {
            O::Stat { of } => call(attr(self.hand(*of)?)).map(|attr| Answer::Attr(Box::new(attr))),
            O::Chmod { of, mode } => done(chmod(self.hand(*of)?, *mode)),
            O::Chown { of, uid, gid, mode } => {
                let of = self.hand(*of)?;
                if uid.is_some() || gid.is_some() || mode.is_none() {
                    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                    call(fs::chownat(of, "", uid, gid, AtFlags::EMPTY_PATH))?;
                }
                mode.map_or(Ok(Answer::Done), |mode| done(chmod(of, mode)))
            }
            O::SetTimes { of, atime, mtime } => {
                let time = |seconds: &Option<i64>| match seconds {
                    Some(seconds) => Timespec { tv_sec: *seconds, tv_nsec: 0 },
                    None => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
                };
                done(set_times(self.hand(*of)?, time(atime), time(mtime)))
            }
            O::Touch { of } => {
                let now = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW };
                done(set_times(self.hand(*of)?, now, now))
            }
            O::SetFlags { of, flags } => done(set_flags(self.hand(*of)?, *flags)),
            O::SetXattr { of, name, value, how } => {
                let how =
                    [XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE][usize::from(*how) % 3];
                let path = path_of(&self.hand(*of)?);
                done(fs::setxattr(path, xattr_name(*name), &value.bytes(0), how))
            }
            O::RemoveXattr { of, name } => {
                done(fs::removexattr(path_of(&self.hand(*of)?), xattr_name(*name)))
            }
            O::GetXattr { of, name } => call(xattr(self.hand(*of)?, xattr_name(*name))).map(Answer::Bytes),
            O::ListXattrs { of } => call(xattr_names(self.hand(*of)?)).map(Answer::Names),
            O::Xattrs { of } => call(xattrs(self.hand(*of)?)).map(Answer::Xattrs),
            O::SetAcl { of, which, acl: bits } => {
                let path = path_of(&self.hand(*of)?);
                done(match bits.map(acl) {
                    Some(list) => fs::setxattr(path, acl_name(*which), &list.to_user(), XattrFlags::empty()),
                    None => fs::removexattr(path, acl_name(*which)),
                })
            }
            O::Acl { of, which } => call(list(self.hand(*of)?, *which)).map(Answer::Acl),
            O::Sync { of } => {
                let of = self.hand(*of)?;
                let stat = call(fs::fstat(of))?;
                if matches!(kind(&stat), FileKind::Regular | FileKind::Directory) {
                    done(fs::fsync(call(reopen(of, OFlags::RDONLY))?))
                } else {
                    self.sync_all()
                }
            }
            O::SyncAll => self.sync_all(),
            _ => self.attempt_contents(step),
        }
    }

    fn sync_all(&self) -> Done {
        done(fs::syncfs(call(reopen(self.root(), OFlags::RDONLY))?))
    }

    /// The space there is.
    pub(super) fn space(&self) -> Result<Space, Answer> {
        let stat = call(fs::fstatvfs(self.root()))?;
        Ok(Space {
            block_size: stat.f_bsize,
            blocks: stat.f_blocks,
            blocks_free: stat.f_bfree,
            blocks_available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            name_max: stat.f_namemax,
        })
    }
}

/// Changes a mode.
pub(super) fn chmod(of: BorrowedFd<'_>, mode: u16) -> Io<()> {
    fs::chmodat(CWD, path_of(&of), Mode::from_raw_mode(mode.into()), AtFlags::empty())
}

fn set_times(of: BorrowedFd<'_>, last_access: Timespec, last_modification: Timespec) -> Io<()> {
    let times = Timestamps { last_access, last_modification };
    fs::utimensat(CWD, path_of(&of), &times, AtFlags::empty())
}

/// Sets the times to what they are, which is a change of the inode.
pub(super) fn set_times_again(of: BorrowedFd<'_>) -> Io<()> {
    let stat = fs::fstat(of)?;
    let atime = Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec };
    let mtime = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec };
    set_times(of, atime, mtime)
}

/// Sets when the contents were last changed.
pub(super) fn set_modified(of: BorrowedFd<'_>, mtime: Timestamp) -> Io<()> {
    let kept = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT };
    set_times(of, kept, Timespec { tv_sec: mtime.sec, tv_nsec: mtime.nsec.into() })
}

/// Notes that the contents were changed now.
pub(super) fn touch_modified(of: BorrowedFd<'_>) -> Io<()> {
    let kept = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT };
    set_times(of, kept, Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW })
}

/// Gives something these attributes, and no other.
pub(super) fn put_xattrs(of: BorrowedFd<'_>, wanted: &[(Vec<u8>, Vec<u8>)]) -> Io<()> {
    for name in xattr_names(of)? {
        if !wanted.iter().any(|(own, _)| *own == name) {
            fs::removexattr(path_of(&of), &*name)?;
        }
    }
    for (name, value) in wanted {
        fs::setxattr(path_of(&of), &**name, value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Changes the flags of a file or directory.
pub(super) fn set_flags(of: BorrowedFd<'_>, flags: u32) -> Io<()> {
    fs::ioctl_setflags(reopen(of, OFlags::RDONLY)?, IFlags::from_bits_retain(flags))
}

/// Does something to what may not be changed: its flags are taken away for as long.
pub(super) fn while_changeable(of: BorrowedFd<'_>, work: impl FnOnce(BorrowedFd<'_>) -> Io<()>) -> Io<()> {
    let kept = fs::ioctl_getflags(reopen(of, OFlags::RDONLY)?)?;
    let held = kept & (IFlags::IMMUTABLE | IFlags::APPEND);
    if held.is_empty() {
        return work(of);
    }
    set_flags(of, (kept - held).bits())?;
    work(of)?;
    set_flags(of, kept.bits())
}

/// All that the kernel tells of an inode; flags only of files and directories.
pub(super) fn attr(of: BorrowedFd<'_>) -> Io<Attr> {
    let stat = fs::fstat(of)?;
    let kind = kind(&stat);
    let time = |sec: i64, nsec: i64| Timestamp { sec, nsec: u32::try_from(nsec).expect("below a second") };
    let flags = match kind {
        FileKind::Regular | FileKind::Directory => fs::ioctl_getflags(reopen(of, OFlags::RDONLY)?)?.bits(),
        _ => 0,
    };
    let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice)
        .then(|| DeviceNr { major: fs::major(stat.st_rdev), minor: fs::minor(stat.st_rdev) });
    Ok(Attr {
        nr: InodeNr::new(number(&stat)).expect("not zero"),
        kind,
        mode: (stat.st_mode & 0o7777) as u16,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size.unsigned_abs(),
        links: u16::try_from(stat.st_nlink).expect("links of ext2 have 16 bits"),
        blocks_512: u32::try_from(stat.st_blocks).expect("the image is small"),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: None,
        flags: InodeFlags::from_bits_retain(flags),
        generation: 0,
        device,
    })
}

/// The value of an attribute.
pub(super) fn xattr(of: impl AsFd, name: &[u8]) -> Io<Vec<u8>> {
    let mut value = vec![0; VALUE_MAX];
    let len = fs::getxattr(path_of(&of), name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

/// The names of the attributes, sorted.
fn xattr_names(of: impl AsFd) -> Io<Vec<Vec<u8>>> {
    let mut names = vec![0; VALUE_MAX];
    let len = fs::listxattr(path_of(&of), &mut names[..])?;
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
    names.sort();
    Ok(names)
}

/// The attributes with their values, sorted.
pub(super) fn xattrs(of: BorrowedFd<'_>) -> Io<Vec<(Vec<u8>, Vec<u8>)>> {
    xattr_names(of)?.into_iter().map(|name| xattr(of, &name).map(|value| (name, value))).collect()
}

/// An access control list.
fn list(of: BorrowedFd<'_>, which: AclKind) -> Io<Option<Acl>> {
    match xattr(of, acl_name(which)) {
        Ok(bytes) => Ok(Acl::from_user(&bytes)),
        Err(Errno::NODATA) => Ok(None),
        Err(errno) => Err(errno),
    }
}
