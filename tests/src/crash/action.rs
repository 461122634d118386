//! The operations of crash workloads.

use std::cell::RefCell;

use blockdev::Access;
use ext2_core::plumbing::{Allocate, Plumbing};
use ext2_core::{
    Acl, AclEntry, AclKind, AclTag, Errno, Error, Ext2, FileBlock, FileKind, Follow, Inode, NewInode,
    RenameFlags, SetAttr, Timestamp, Wait, XattrSet,
};
use ext2_dax::{
    DaxFs, DaxOptions, File, Leased, OpenFor,
    mmu::{
        Protection, Sharing,
        soft::{MapRequest, SoftMmu},
    },
};

/// One operation on the tree that [`Base`](super::Base) makes. Paths are absolute; offsets and lengths are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the call of its name
pub enum Action {
    Create(&'static str),
    Mkdir(&'static str),
    Rmdir(&'static str),
    Symlink(&'static str, usize),
    Mknod(&'static str),
    Link(&'static str, &'static str),
    Unlink(&'static str),
    Rename(&'static str, &'static str),
    Exchange(&'static str, &'static str),
    Write {
        path: &'static str,
        offset: u64,
        len: usize,
        seed: u8,
    },
    Truncate {
        path: &'static str,
        size: u64,
    },
    Punch {
        path: &'static str,
        offset: u64,
        len: u64,
    },
    Zero {
        path: &'static str,
        offset: u64,
        len: u64,
    },
    SetXattr {
        path: &'static str,
        len: usize,
        seed: u8,
    },
    RemoveXattr(&'static str),
    Chmod(&'static str, u16),
    Chown {
        path: &'static str,
        uid: u32,
        gid: u32,
    },
    /// Mode and owners by one call.
    SetRights {
        path: &'static str,
        mode: u16,
        uid: u32,
        gid: u32,
    },
    /// An access list that names user 7, and takes the mode with it.
    SetAcl(&'static str, u16),
    RemoveAcl(&'static str),
    /// Takes the set-id bits away, as a write by a user does.
    StripSetid(&'static str),
    /// Last read, and last change of the contents: seconds and nanoseconds.
    SetTimes(&'static str, [(i64, u32); 2]),
    /// A write by somebody who is not root: set-id bits go first.
    WriteByUser {
        path: &'static str,
        offset: u64,
        len: usize,
        seed: u8,
    },
    /// Opens it, and keeps it open.
    Hold(&'static str),
    /// Closes all that is kept open.
    LetGo,
    /// A write through the DAX layer.
    DaxWrite {
        path: &'static str,
        offset: u64,
        len: usize,
        seed: u8,
    },
    /// Stores through a mapping, inside the file.
    Store {
        path: &'static str,
        offset: u64,
        len: usize,
        seed: u8,
    },
    /// The same, and an msync.
    StoreSynced {
        path: &'static str,
        offset: u64,
        len: usize,
        seed: u8,
    },
    /// Stores through a lease, of what is mapped of the range.
    StoreLeased {
        path: &'static str,
        offset: u64,
        len: usize,
        seed: u8,
    },
    /// The same, and a sync of the lease.
    StoreLeasedSynced {
        path: &'static str,
        offset: u64,
        len: usize,
        seed: u8,
    },
    /// A large write begins, which moves what the file had to blocks of its own; before a byte of it is stored another
    /// file gets an attribute, and then the write is given up.
    Overtaken {
        path: &'static str,
        len: u64,
        other: &'static str,
        seed: u8,
    },
    Fsync(&'static str),
    Sync,
    /// A clean unmount; nothing can be changed after it.
    Close,
}

impl Action {
    /// The file whose bytes it changes.
    pub fn data_of(&self) -> Option<&'static str> {
        match self {
            Self::Write { path, .. }
            | Self::WriteByUser { path, .. }
            | Self::Truncate { path, .. }
            | Self::Punch { path, .. }
            | Self::Zero { path, .. }
            | Self::DaxWrite { path, .. }
            | Self::Store { path, .. }
            | Self::StoreSynced { path, .. }
            | Self::StoreLeased { path, .. }
            | Self::StoreLeasedSynced { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The file whose mode, owners or access list it changes.
    pub fn rights_of(&self) -> Option<&'static str> {
        match self {
            Self::Chmod(path, _)
            | Self::Chown { path, .. }
            | Self::SetRights { path, .. }
            | Self::SetAcl(path, _)
            | Self::RemoveAcl(path)
            | Self::StripSetid(path)
            | Self::WriteByUser { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The path that it replaces, or puts something else in the place of: what was there is kept in `lost+found` meanwhile.
    pub fn replaces(&self) -> Option<&'static str> {
        match self {
            Self::Rename(_, to) | Self::Exchange(_, to) => Some(to),
            _ => None,
        }
    }

    /// Whether a file may let go of a block of attributes by it.
    pub fn may_leave_attributes(&self) -> bool {
        matches!(
            self,
            Self::SetXattr { .. }
                | Self::RemoveXattr(_)
                | Self::SetAcl(..)
                | Self::RemoveAcl(_)
                | Self::Unlink(_)
                | Self::Rename(..)
                | Self::LetGo
        )
    }

    /// Whether a directory may go to another parent.
    pub fn may_move_directory(&self) -> bool {
        let parent = |path: &'static str| path.rsplit_once('/').map(|(parent, _)| parent);
        matches!(self, Self::Rename(from, to) | Self::Exchange(from, to) if parent(from) != parent(to))
    }

    /// The file that it is about, for an fsync after it.
    pub fn target(&self) -> Option<&'static str> {
        match self {
            Self::Create(path) | Self::Mkdir(path) | Self::Symlink(path, _) | Self::Mknod(path) => Some(path),
            Self::Link(_, path) | Self::Rename(_, path) | Self::Exchange(_, path) => Some(path),
            Self::SetXattr { path, .. } | Self::RemoveXattr(path) | Self::SetTimes(path, _) => Some(path),
            Self::Overtaken { other, .. } => Some(other),
            Self::Hold(_) | Self::LetGo => None,
            Self::Unlink(_) | Self::Rmdir(_) | Self::Fsync(_) | Self::Sync | Self::Close => None,
            _ => self.data_of().or_else(|| self.rights_of()),
        }
    }
}

/// The bytes that a write of this seed puts at an offset; none is 0 or that of stale blocks.
pub fn bytes_of(seed: u8, offset: u64, len: usize) -> Vec<u8> {
    let byte = |at: u64| 1 + ((at / 3 + u64::from(seed) * 31 + at % 3 * 67) % 200) as u8;
    (0..len as u64).map(|at| byte(offset + at)).collect()
}

/// A file or directory made by default.
fn new(kind: FileKind) -> NewInode {
    let mode = if kind == FileKind::Directory { 0o755 } else { 0o644 };
    NewInode { kind, mode, uid: 0, gid: 0, umask: 0, device: None }
}

fn at(fs: &Ext2, path: &str) -> Result<Inode, Error> {
    fs.resolve(path.as_bytes(), Follow::No)
}

fn make(fs: &Ext2, path: &str, kind: FileKind) -> Result<(), Error> {
    let (dir, name) = fs.resolve_parent(path.as_bytes())?;
    dir.create(name, &new(kind)).map(|_| ())
}

fn rename(fs: &Ext2, from: &str, to: &str, flags: RenameFlags) -> Result<(), Error> {
    let (old_dir, old) = fs.resolve_parent(from.as_bytes())?;
    let (new_dir, new) = fs.resolve_parent(to.as_bytes())?;
    fs.rename(&old_dir, old, &new_dir, new, flags)
}

/// The name of the attribute that an inode gets: only files and directories have those of users.
fn attribute(inode: &Inode) -> &'static [u8] {
    if inode.kind() == FileKind::Symlink { b"trusted.k" } else { b"user.k" }
}

/// An error of the DAX layer, or a signal: which one makes no difference here.
fn of_dax<E>(_: E) -> Error {
    Error::Caller(Errno::IO, "DAX")
}

fn store(fs: &Ext2, path: &str, offset: u64, data: &[u8], is_synced: bool) -> Result<(), Error> {
    let fs = DaxFs::new(fs.clone(), DaxOptions::default());
    let file = File::open(&fs, at(fs.ext2(), path)?, OpenFor::Writing).map_err(of_dax)?;
    let size = file.size();
    if offset + data.len() as u64 > size {
        return Err(Error::Caller(Errno::INVAL, "past the end"));
    }
    let request = MapRequest {
        offset: 0,
        len: size,
        sharing: Sharing::Shared,
        protection: Protection::ReadWrite,
        colour: 0,
    };
    let map = file.map(&SoftMmu::new(), &request).map_err(of_dax)?;
    map.store_bytes(offset, data).map_err(of_dax)?;
    if is_synced {
        map.msync(0, size).map_err(of_dax)?;
    }
    Ok(())
}

fn store_leased(fs: &Ext2, path: &str, offset: u64, data: &[u8], is_synced: bool) -> Result<(), Error> {
    let fs = DaxFs::new(fs.clone(), DaxOptions::default());
    let file = File::open(&fs, at(fs.ext2(), path)?, OpenFor::Writing).map_err(of_dax)?;
    let lease = file.lease(offset..offset + data.len() as u64, Access::Write).map_err(of_dax)?;
    for (start, part) in lease.parts().map_err(of_dax)? {
        if let Leased::Memory(memory) = part {
            let from = usize::try_from(start - offset).expect("within the data");
            let len = usize::try_from(memory.len()).expect("within the data");
            memory.copy_in_cached(0, &data[from..from + len]).map_err(of_dax)?;
        }
    }
    if is_synced {
        lease.sync().map_err(of_dax)?;
    }
    Ok(())
}

thread_local! {
    /// What workloads of this thread keep open.
    static HELD: RefCell<Vec<Inode>> = const { RefCell::new(Vec::new()) };
}

/// Closes what the workload of this thread keeps open.
pub(super) fn let_go() {
    // Outside the cell: closing does work.
    let held = HELD.take();
    drop(held);
}

/// A list with a user of his own, whose mask is the group's bits of the mode.
fn access_list(mode: u16) -> Option<Acl> {
    let entry = |tag, permissions| AclEntry { tag, permissions };
    Acl::new(vec![
        entry(AclTag::UserObj, mode >> 6 & 7),
        entry(AclTag::User(7), 7),
        entry(AclTag::GroupObj, 4),
        entry(AclTag::Mask, mode >> 3 & 7),
        entry(AclTag::Other, mode & 7),
    ])
}

/// Does it.
///
/// # Errors
/// Those of the file system; an operation that makes no sense at the time is one.
pub fn perform(fs: &Ext2, action: &Action) -> Result<(), Error> {
    match action {
        Action::Create(path) => make(fs, path, FileKind::Regular),
        Action::Mkdir(path) => make(fs, path, FileKind::Directory),
        Action::Mknod(path) => make(fs, path, FileKind::Fifo),
        Action::Symlink(path, len) => {
            let (dir, name) = fs.resolve_parent(path.as_bytes())?;
            dir.symlink(name, b"t/".repeat(len / 2), &new(FileKind::Symlink)).map(|_| ())
        }
        Action::Link(from, to) => {
            let target = at(fs, from)?;
            let (dir, name) = fs.resolve_parent(to.as_bytes())?;
            dir.link(&target, name)
        }
        Action::Unlink(path) => {
            let (dir, name) = fs.resolve_parent(path.as_bytes())?;
            dir.unlink(name)
        }
        Action::Rmdir(path) => {
            let (dir, name) = fs.resolve_parent(path.as_bytes())?;
            dir.rmdir(name)
        }
        Action::Rename(from, to) => rename(fs, from, to, RenameFlags::empty()),
        Action::Exchange(from, to) => rename(fs, from, to, RenameFlags::EXCHANGE),
        Action::Write { path, offset, len, seed } => {
            let data = bytes_of(*seed, *offset, *len);
            at(fs, path)?.write_at(*offset, &data).map(|_| ())
        }
        Action::Truncate { path, size } => at(fs, path)?.truncate(*size, Wait::Yes),
        Action::Punch { path, offset, len } => at(fs, path)?.punch_hole(*offset, *len, Wait::Yes),
        Action::Zero { path, offset, len } => at(fs, path)?.zero_range(*offset, *len),
        Action::SetXattr { path, len, seed } => {
            let inode = at(fs, path)?;
            inode.xattr_set(attribute(&inode), &bytes_of(*seed, 0, *len), XattrSet::Any)
        }
        Action::RemoveXattr(path) => {
            let inode = at(fs, path)?;
            inode.xattr_remove(attribute(&inode))
        }
        Action::Chmod(path, mode) => {
            at(fs, path)?.set_attr(&SetAttr { mode: Some(*mode), ..SetAttr::default() })
        }
        Action::Chown { path, uid, gid } => {
            at(fs, path)?.set_attr(&SetAttr { uid: Some(*uid), gid: Some(*gid), ..SetAttr::default() })
        }
        Action::SetRights { path, mode, uid, gid } => at(fs, path)?.set_attr(&SetAttr {
            mode: Some(*mode),
            uid: Some(*uid),
            gid: Some(*gid),
            ..SetAttr::default()
        }),
        Action::SetAcl(path, mode) => at(fs, path)?.set_acl(AclKind::Access, access_list(*mode).as_ref()),
        Action::StripSetid(path) => at(fs, path)?.strip_setid(),
        Action::RemoveAcl(path) => at(fs, path)?.xattr_remove(b"system.posix_acl_access"),
        Action::SetTimes(path, times) => {
            let [atime, mtime] = times.map(|(sec, nsec)| Some(Timestamp { sec, nsec }));
            at(fs, path)?.set_attr(&SetAttr { atime, mtime, ..SetAttr::default() })
        }
        Action::WriteByUser { path, offset, len, seed } => {
            let inode = at(fs, path)?;
            inode.strip_setid()?;
            inode.write_at(*offset, &bytes_of(*seed, *offset, *len)).map(|_| ())
        }
        Action::Hold(path) => {
            let inode = at(fs, path)?;
            HELD.with_borrow_mut(|held| held.push(inode));
            Ok(())
        }
        Action::LetGo => {
            let_go();
            Ok(())
        }
        Action::DaxWrite { path, offset, len, seed } => {
            let dax = DaxFs::new(fs.clone(), DaxOptions::default());
            let file = File::open(&dax, at(fs, path)?, OpenFor::Writing).map_err(of_dax)?;
            let data = bytes_of(*seed, *offset, *len);
            file.write_at(*offset, &data).map(|_| ()).map_err(of_dax)
        }
        Action::Store { path, offset, len, seed } => {
            store(fs, path, *offset, &bytes_of(*seed, *offset, *len), false)
        }
        Action::StoreSynced { path, offset, len, seed } => {
            store(fs, path, *offset, &bytes_of(*seed, *offset, *len), true)
        }
        Action::StoreLeased { path, offset, len, seed } => {
            store_leased(fs, path, *offset, &bytes_of(*seed, *offset, *len), false)
        }
        Action::StoreLeasedSynced { path, offset, len, seed } => {
            store_leased(fs, path, *offset, &bytes_of(*seed, *offset, *len), true)
        }
        Action::Overtaken { path, len, other, seed } => {
            let (file, other) = (at(fs, path)?, at(fs, other)?);
            let size = fs.geometry().block_size;
            let (from, to) = (size.blocks_for(file.size()), size.blocks_for(file.size() + len));
            let begun = file.map_for_write(FileBlock::new(from), to - from, Allocate::AfterFill)?;
            other.xattr_set(attribute(&other), &bytes_of(*seed, 0, 100), XattrSet::Any)?;
            drop(begun);
            Ok(())
        }
        Action::Fsync(path) => at(fs, path)?.sync(),
        Action::Sync => fs.sync(),
        Action::Close => fs.clone().close().map(drop),
    }
}
