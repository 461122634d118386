//! The operations of a script that name files: all but reads, writes and mappings.

use ext2_core::{Ext2, FileKind, Follow, Inode, NewInode, RenameFlags};

use crate::error::Result;

/// The path from the root.
fn absolute(path: &str) -> Vec<u8> {
    let mut absolute = vec![b'/'];
    absolute.extend_from_slice(path.as_bytes());
    absolute
}

/// The inode at `path`, symlinks followed.
pub(super) fn find(fs: &Ext2, path: &str) -> Result<Inode> {
    Ok(fs.resolve(absolute(path), Follow::Yes)?)
}

fn parent<T>(fs: &Ext2, path: &str, then: impl FnOnce(&Inode, &[u8]) -> ext2_core::Result<T>) -> Result<T> {
    let path = absolute(path);
    let (dir, name) = fs.resolve_parent(&path)?;
    Ok(then(&dir, name)?)
}

/// What the caller, root with a umask of 022, makes.
fn new(kind: FileKind, mode: u16) -> NewInode {
    NewInode { kind, mode, uid: 0, gid: 0, umask: 0o022, device: None }
}

pub(super) fn create(fs: &Ext2, path: &str) -> Result<()> {
    parent(fs, path, |dir, name| dir.create(name, &new(FileKind::Regular, 0o644)).map(|_| ()))
}

pub(super) fn mkdir(fs: &Ext2, path: &str) -> Result<()> {
    parent(fs, path, |dir, name| dir.create(name, &new(FileKind::Directory, 0o755)).map(|_| ()))
}

pub(super) fn symlink(fs: &Ext2, target: &str, path: &str) -> Result<()> {
    let link = new(FileKind::Symlink, 0o777);
    parent(fs, path, |dir, name| dir.symlink(name, target.as_bytes(), &link).map(|_| ()))
}

pub(super) fn rmdir(fs: &Ext2, path: &str) -> Result<()> {
    parent(fs, path, |dir, name| dir.rmdir(name))
}

pub(super) fn unlink(fs: &Ext2, path: &str) -> Result<()> {
    parent(fs, path, |dir, name| dir.unlink(name))
}

pub(super) fn link(fs: &Ext2, from: &str, to: &str) -> Result<()> {
    let target = fs.resolve(absolute(from), Follow::No)?;
    parent(fs, to, |dir, name| dir.link(&target, name))
}

pub(super) fn rename(fs: &Ext2, from: &str, to: &str) -> Result<()> {
    let (from, to) = (absolute(from), absolute(to));
    let (old_dir, old) = fs.resolve_parent(&from)?;
    let (new_dir, new) = fs.resolve_parent(&to)?;
    Ok(fs.rename(&old_dir, old, &new_dir, new, RenameFlags::empty())?)
}

/// What `stat` prints.
pub(super) fn stat(inode: &Inode) -> String {
    let attr = inode.attr();
    let kind = match attr.kind {
        FileKind::Fifo => 0o1,
        FileKind::CharDevice => 0o2,
        FileKind::Directory => 0o4,
        FileKind::BlockDevice => 0o6,
        FileKind::Regular => 0o10,
        FileKind::Symlink => 0o12,
        FileKind::Socket => 0o14,
    };
    let mode = kind * 0o10000 + u32::from(attr.mode);
    format!("size={} blocks={} nlink={} mode={mode:o}", attr.size, attr.blocks_512, attr.links)
}
