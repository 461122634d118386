//! `mount -o remount`: the kernel's part of a mount that is up.

use std::io;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::mount::MountFlags;

use crate::options::{Atime, MountOptions};

/// Changes how the kernel lets programs use the mount at `dir`: for reading only or for writing, with or without access
/// times, programs, device files, set-id bits. What was refused before stays refused. All else is as it was mounted.
///
/// # Errors
/// `EINVAL` where nothing is mounted through FUSE, `EPERM` for who is not root. An image that was mounted for reading only
/// refuses writes all the same.
pub fn remount(dir: &Path, options: &MountOptions) -> io::Result<()> {
    let dir = dir.canonicalize()?;
    if !is_fuse(&dir)? {
        return Err(rustix::io::Errno::INVAL.into());
    }
    let now = rustix::fs::statvfs(&dir)?.f_flag;
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOSUID, options.nosuid || now.contains(StatVfsMountFlags::NOSUID));
    flags.set(MountFlags::NODEV, options.nodev || now.contains(StatVfsMountFlags::NODEV));
    flags.set(MountFlags::NOEXEC, options.noexec || now.contains(StatVfsMountFlags::NOEXEC));
    flags.set(MountFlags::SYNCHRONOUS, options.sync);
    flags.set(MountFlags::DIRSYNC, options.dirsync);
    flags |= match options.atime {
        Atime::Never => MountFlags::NOATIME,
        Atime::Relative => MountFlags::RELATIME,
        Atime::RelativeFiles => MountFlags::RELATIME | MountFlags::NODIRATIME,
        Atime::Always => MountFlags::STRICTATIME,
    };
    Ok(rustix::mount::mount_remount(&dir, flags, c"")?)
}

/// Whether the topmost mount at a place is one through FUSE.
fn is_fuse(dir: &Path) -> io::Result<bool> {
    use std::os::unix::ffi::OsStrExt as _;
    let table = std::fs::read("/proc/self/mounts")?;
    let place: Vec<u8> = dir
        .as_os_str()
        .as_bytes()
        .iter()
        .flat_map(|&byte| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            byte => vec![byte],
        })
        .collect();
    let mut found = false;
    for line in table.split(|byte| *byte == b'\n') {
        let mut words = line.split(|byte| *byte == b' ').skip(1);
        if words.next() == Some(place.as_slice()) {
            found = words.next().is_some_and(|kind| kind.starts_with(b"fuse"));
        }
    }
    Ok(found)
}
