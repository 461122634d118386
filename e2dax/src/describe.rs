//! A file of an image described: the JSON object that `ls`, `stat` and `find` print, and the columns of `ls -l`.

use ext2_core::{Attr, FileKind, Inode, InodeFlags};

use crate::json::{Json, object};
use crate::text::{human, mode_letters, show, time_number, time_utc};

/// The name of a kind in JSON, and in `stat`.
pub(crate) fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::CharDevice => "char-device",
        FileKind::BlockDevice => "block-device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    }
}

/// Bytes that a file takes on the device, indirect blocks included.
pub(crate) fn allocated(attr: &Attr) -> u64 {
    u64::from(attr.blocks_512) * 512
}

/// The object that stands for a file. `path` is absolute.
pub(crate) fn file_json(path: &[u8], inode: &Inode, target: Option<&[u8]>) -> Json {
    let attr = inode.attr();
    let name = path.rsplit(|&byte| byte == b'/').next().filter(|name| !name.is_empty()).unwrap_or(b"/");
    let device = attr.device.map(|nr| object! { "major": nr.major, "minor": nr.minor });
    object! {
        "path": Json::bytes(path),
        "name": Json::bytes(name),
        "inode": attr.nr.get(),
        "type": kind_name(attr.kind),
        "mode": format!("{:04o}", attr.mode),
        "uid": attr.uid,
        "gid": attr.gid,
        "links": attr.links,
        "size": attr.size,
        "allocated": allocated(&attr),
        "atime": time_number(attr.atime),
        "mtime": time_number(attr.mtime),
        "ctime": time_number(attr.ctime),
        "crtime": attr.crtime.map(time_number),
        "flags": flag_letters(attr.flags),
        "generation": attr.generation,
        "target": target.map(Json::bytes),
        "device": device,
    }
}

/// Attribute flags as letters of `lsattr`.
pub(crate) fn flag_letters(flags: InodeFlags) -> String {
    flags.letters().collect()
}

/// The columns of `ls -l` before the name: mode, links, owner, group, size or device, time.
pub(crate) fn long_columns(attr: &Attr, is_human: bool) -> [String; 6] {
    let size = match attr.device {
        Some(nr) => format!("{},{}", nr.major, nr.minor),
        None if is_human => human(attr.size),
        None => attr.size.to_string(),
    };
    [
        mode_letters(attr.kind, attr.mode),
        attr.links.to_string(),
        attr.uid.to_string(),
        attr.gid.to_string(),
        size,
        time_utc(attr.mtime),
    ]
}

/// A name as `ls -l` and `tree` show it, with where a link leads.
pub(crate) fn name_and_target(name: &[u8], target: Option<&[u8]>) -> String {
    match target {
        Some(target) => format!("{} -> {}", show(name), show(target)),
        None => show(name),
    }
}

/// The target of a link, `None` of anything else.
pub(crate) fn link_target(inode: &Inode) -> ext2_core::Result<Option<Vec<u8>>> {
    if inode.kind() == FileKind::Symlink { inode.read_link().map(Some) } else { Ok(None) }
}

/// The path of a name in a directory.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    push_name(&mut path, name);
    path
}

/// Makes the path of a directory that of a name in it.
pub(crate) fn push_name(directory: &mut Vec<u8>, name: &[u8]) {
    if !directory.ends_with(b"/") {
        directory.push(b'/');
    }
    directory.extend_from_slice(name);
}

/// The name that a path ends in, if that is one: not of the root, nor of a path that ends in dots.
pub(crate) fn last_name(path: &[u8]) -> Option<&[u8]> {
    let name = path.rsplit(|&byte| byte == b'/').find(|name| !name.is_empty())?;
    (name != b"." && name != b"..").then_some(name)
}

/// What is before the last name of a path; `/` where nothing is.
pub(crate) fn parent_path(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    let trimmed = path.get(..end).unwrap_or_default();
    match trimmed.iter().rposition(|&byte| byte == b'/') {
        Some(slash) if slash > 0 => path.get(..slash).unwrap_or_default(),
        _ => b"/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_and_put_together() {
        assert_eq!(last_name(b"/a/b/"), Some(&b"b"[..]));
        assert_eq!(last_name(b"a/."), None);
        assert_eq!(last_name(b"//"), None);
        assert_eq!(parent_path(b"/a/b/"), b"/a");
        assert_eq!(parent_path(b"/a"), b"/");
        assert_eq!(parent_path(b"a"), b"/");
        assert_eq!(join(b"/", b"a"), b"/a");
        assert_eq!(join(b"/a", b"b"), b"/a/b");
    }
}
