//! Making a new file as the one that it replaces: owner, permissions, access list and label.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

use rustix::fs::{Mode, XattrFlags, fchmod, fremovexattr, fsetxattr, getxattr};
use rustix::io::Errno;

/// The list of who may do what with a file.
const ACCESS_LIST: &str = "system.posix_acl_access";
/// Who may do what by the rules of SELinux.
const LABEL: &str = "security.selinux";

/// Set-user-ID and set-group-ID.
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;

/// Gives a file, which only its owner has rights in, the owner and the rights of the one at `path`, as far as we may; where we may
/// not, nobody gets rights by it that he had not.
///
/// # Errors
/// The system's.
pub(super) fn make(file: &File, path: &Path, old: &Metadata) -> io::Result<()> {
    // First: a change of the owner takes the set-id bits away. Only root may give files away, and others only to a group of theirs.
    if fchown(file, Some(old.uid()), Some(old.gid())).is_err() {
        let _ = fchown(file, None, Some(old.gid()));
    }
    let new = file.metadata()?;
    let (is_owner, is_group) = (new.uid() == old.uid(), new.gid() == old.gid());
    let mut mode = old.mode() & 0o7777;
    if !is_owner {
        mode &= !SET_UID;
    }
    if !is_group {
        // Who was in the group is one of all others now, and who is in the new one was one of them.
        let both = mode >> 3 & mode & 0o007;
        mode = mode & !SET_GID & !0o077 | both << 3 | both;
    }
    if let Ok(label) = attribute(path, LABEL) {
        // Where the rules do not let us, the new file has what they give it.
        let _ = fsetxattr(file, LABEL, &label, XattrFlags::empty());
    }
    let list = attribute(path, ACCESS_LIST);
    let is_kept = match &list {
        // Part of it is about the group.
        Ok(list) => is_group && fsetxattr(file, ACCESS_LIST, list, XattrFlags::empty()).is_ok(),
        // It has none, or nobody has one there.
        Err(Errno::NODATA | Errno::OPNOTSUPP) => true,
        Err(_) => false,
    };
    if !(is_kept && list.is_ok()) {
        // The folder may give new files a list, in which the bits of the group would mean more than they did.
        let removed = fremovexattr(file, ACCESS_LIST);
        let is_away = matches!(removed, Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP));
        if !is_kept || !is_away {
            // A list may also deny what all others may.
            mode &= !0o077;
        }
    }
    Ok(fchmod(file, Mode::from_raw_mode(mode))?)
}

/// An attribute of the file at a path.
fn attribute(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 64 << 10];
    let len = getxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}
