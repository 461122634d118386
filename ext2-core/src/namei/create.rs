//! New inodes and new names.

use alloc::sync::Arc;
use alloc::vec;
use core::sync::atomic::Ordering;

use zerocopy::{FromZeros, IntoBytes};

use super::shelter::LOST_FOUND;
use super::{LINK_MAX, Times, check_name};
use crate::balloc::{Blocks, Run};
use crate::dir::Named;
use crate::error::{Error, Result, refuse};
use crate::inode::{Attrs, Cell, DeviceNr, FAST_SYMLINK_MAX, FileKind, Inode};
use crate::order::Written;
use crate::raw::{GOOD_OLD_INODE_SIZE, RawInode, RawInodeExtra, U32};
use crate::sync::Mended;
use crate::{AclKind, Errno, InodeFlags, InodeNr};

/// What a new inode is to be.
///
/// ```
/// use ext2_core::{Ext2, FileKind, NewInode, OpenOptions};
///
/// let fs = Ext2::open(ext2_image::mkfs::in_memory(4 << 20)?, &OpenOptions::default())?;
/// let new = NewInode { uid: 1000, ..NewInode::new(FileKind::Regular, 0o644) };
/// let file = fs.root()?.create("file", &new)?;
/// file.write_all_at(0, b"bytes")?;
/// assert_eq!((file.attr().uid, file.size()), (1000, 5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewInode {
    /// Its kind.
    pub kind: FileKind,
    /// The lower 12 bits of the mode, before the mask.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group; a directory with the set-group-id bit gives its own instead.
    pub gid: u32,
    /// Permissions that are taken away, unless the directory has a default access control list.
    pub umask: u16,
    /// The device, of a device file.
    pub device: Option<DeviceNr>,
}

impl NewInode {
    /// An inode of root's, without a mask.
    #[must_use]
    pub const fn new(kind: FileKind, mode: u16) -> Self {
        Self { kind, mode, uid: 0, gid: 0, umask: 0, device: None }
    }
}

/// Flags that a new inode takes over from its directory (Linux: `EXT2_FL_INHERITED`).
const INHERITED: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x200 | 0x400 | 0x4000 | 0x8000 | 0x1_0000;
/// Those of them that are for directories only.
const FOR_DIRECTORIES: u32 = 0x1_0000 | 0x2_0000;
/// Those of them that are for inodes that are neither directory nor file.
const FOR_OTHERS: u32 = 0x40 | 0x80;

/// Bytes of extra fields that a new inode has where there is room.
const EXTRA_ISIZE: u64 = size_of::<RawInodeExtra>() as u64;

/// The contents that a new inode is born with.
enum Payload<'p> {
    None,
    Device(DeviceNr),
    FastLink(&'p [u8]),
    /// One block with these bytes; the size of the inode.
    Block(&'p [u8], u64),
}

/// A number that is taken for an inode, given back unless it is kept.
struct Number {
    fs: Arc<crate::fs::Fs>,
    nr: InodeNr,
    kind: FileKind,
    kept: bool,
}

impl Drop for Number {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.fs.release_inode(self.nr, self.kind)
        {
            log::error!("an inode number could not be given back");
            self.fs.found_broken(&error);
        }
    }
}

impl Inode {
    /// Makes a file, directory, FIFO, socket or device file. Linux: `ext2_create`, `ext2_mkdir`, `ext2_mknod`.
    ///
    /// # Errors
    /// `EEXIST`, `ENOSPC` for blocks or inodes, `EMLINK` for a directory in a directory of 32,000, `ENAMETOOLONG`, `EINVAL`
    /// for a link or a device without a number, `ENOTDIR`, `EPERM`, `EROFS`; `Corrupt`, the device's errors.
    pub fn create(&self, name: impl AsRef<[u8]>, new: &NewInode) -> Result<Self> {
        let name = name.as_ref();
        let payload = match (new.kind, new.device) {
            (FileKind::Symlink, _) => return refuse(Errno::INVAL, "a link needs a target"),
            (FileKind::CharDevice | FileKind::BlockDevice, None) => {
                return refuse(Errno::INVAL, "a device file needs a device number");
            }
            (FileKind::CharDevice | FileKind::BlockDevice, Some(nr)) => Payload::Device(nr),
            _ => Payload::None,
        };
        // A rename makes one for a moment, under this lock.
        let is_place = self.nr() == InodeNr::ROOT && name == LOST_FOUND;
        let writer = if is_place { self.0.fs.writer().ok() } else { None };
        let _rename = writer.map(|writer| writer.rename.lock());
        self.make(name, new, &payload, Times::Change)
    }

    /// Makes `lost+found` in the root, for a moment. The caller holds the lock of renames.
    pub(super) fn create_lost_found(&self) -> Result<Self> {
        self.make(LOST_FOUND, &NewInode::new(FileKind::Directory, 0o700), &Payload::None, Times::Keep)
    }

    /// Makes a symbolic link. Linux: `ext2_symlink`.
    ///
    /// # Errors
    /// As [`create`](Self::create); `ENOENT` for an empty target, `EINVAL` for one with a 0, `ENAMETOOLONG` for one that
    /// does not fit in a block.
    pub fn symlink(&self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>, new: &NewInode) -> Result<Self> {
        let (name, target) = (name.as_ref(), target.as_ref());
        if target.is_empty() {
            return refuse(Errno::NOENT, "an empty target");
        }
        if target.contains(&0) {
            return refuse(Errno::INVAL, "a target with a 0, at which every reader would end it");
        }
        if target.len() as u64 >= self.0.fs.geo.block_size.bytes().min(4096) {
            return refuse(Errno::NAMETOOLONG, "the target is longer than a block");
        }
        let new = NewInode { kind: FileKind::Symlink, mode: 0o777, umask: 0, ..*new };
        if target.len() < FAST_SYMLINK_MAX {
            return self.make(name, &new, &Payload::FastLink(target), Times::Change);
        }
        let mut block = target.to_vec();
        block.resize(self.0.fs.geo.block_size.len(), 0);
        self.make(name, &new, &Payload::Block(&block, target.len() as u64), Times::Change)
    }

    fn make(&self, name: &[u8], new: &NewInode, payload: &Payload<'_>, times: Times) -> Result<Self> {
        self.change_to_add(name, || {
            let _io = self.0.io.write();
            if self.0.find(name)?.is_some() {
                return refuse(Errno::EXIST, "");
            }
            self.0.check_insertable()?;
            let is_dir = new.kind == FileKind::Directory;
            if is_dir && self.0.attrs.lock().links >= LINK_MAX {
                return refuse(Errno::MLINK, "a directory has at most 32000 links");
            }
            let room = self.0.find_room(name)?;
            let (inode, born) = self.bear(new, payload, times == Times::Change)?;
            self.0.fs.whole(|| {
                if is_dir {
                    // Counted before the name: too many is mended without a question, and so is too few.
                    self.0.count_link_and(times, 1)?;
                }
                let named = match times {
                    Times::Change => self.0.put_name(name, room, born),
                    Times::Keep => self.0.put_entry(name, room, born),
                };
                if let Err(error) = named {
                    if is_dir {
                        self.0.count_link_and(times, -1)?;
                    }
                    // With no links it is evicted when the handle goes.
                    return Err(error);
                }
                let mut attrs = inode.0.attrs.lock();
                inode.0.store_links(&mut attrs, if is_dir { 2 } else { 1 })
            })?;
            Ok(inode)
        })
    }

    /// Runs a change that makes a name. Where nothing may be changed, what is wrong with the name is told first. Linux:
    /// `filename_create`.
    fn change_to_add<T>(&self, name: &[u8], change: impl FnOnce() -> Result<T>) -> Result<T> {
        self.need_dir()?;
        check_name(name)?;
        self.0.fs.change(change).map_err(|error| {
            match error.refuses(Errno::ROFS).then(|| self.lookup_nr(name)) {
                Some(Ok(_)) => Error::Caller(Errno::EXIST, ""),
                _ => error,
            }
        })
    }

    /// Makes a file without a name. It is gone when the last holder lets go, unless it was
    /// [linked](Self::link). Linux: `ext2_tmpfile`.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn tmpfile(&self, new: &NewInode) -> Result<Self> {
        self.need_dir()?;
        self.0.fs.change(|| {
            let _io = self.0.io.write();
            self.0.check_insertable()?;
            let new = NewInode { kind: FileKind::Regular, ..*new };
            let inode = self.bear(&new, &Payload::None, true)?.0;
            inode.0.attrs.lock().linkable = true;
            Ok(inode)
        })
    }

    /// Writes a new inode without links. Linux: `ext2_new_inode`. One that is no `heir` has the mode, the owners and the flags
    /// that are asked for, whatever its directory hands down.
    fn bear(&self, new: &NewInode, payload: &Payload<'_>, heir: bool) -> Result<(Self, Written<Named>)> {
        let (fs, kind) = (&self.0.fs, new.kind);
        let known = fs.losses.count();
        let mut parent = *self.0.attrs.lock();
        if !heir {
            (parent.mode, parent.flags) = (0, InodeFlags::empty());
        }
        let top = self.nr() == InodeNr::ROOT || parent.flags.contains(InodeFlags::TOPDIR);
        let nr = fs.take_inode(kind, self.nr(), top)?;
        let mut number = Number { fs: fs.clone(), nr, kind, kept: false };
        let default = if heir && kind != FileKind::Symlink { self.0.acl(AclKind::Default)? } else { None };
        let mut mode = new.mode & 0o7777;
        let mut acl = None;
        match &default {
            Some(list) => {
                let own = list.for_new(mode);
                mode = mode & !0o777 | own.mode();
                acl = (!own.is_mode()).then_some(own);
            }
            None => mode &= !(new.umask & 0o777),
        }
        let mut gid = new.gid;
        if parent.mode & 0o2000 != 0 {
            gid = parent.gid;
            if kind == FileKind::Directory {
                mode |= 0o2000;
            }
        }
        let mask = match kind {
            FileKind::Directory => !0,
            FileKind::Regular => !FOR_DIRECTORIES,
            _ => FOR_OTHERS,
        };
        let flags = parent.flags.bits() & INHERITED & mask;

        let first;
        let contents = match payload {
            Payload::Block(bytes, size) => Some((*bytes, *size)),
            _ if kind == FileKind::Directory => {
                let kind = self.0.type_byte(kind);
                first = ext2_format::dirent::first_block(
                    fs.geo.block_size.len(),
                    nr.get(),
                    self.nr().get(),
                    kind,
                );
                Some((&first[..], first.len() as u64))
            }
            _ => None,
        };
        let mut block = None;
        let mut guard = Blocks::new(fs);
        if let Some((bytes, _)) = contents {
            let start = fs.geo.group_of_inode(nr).map_or(0, |(group, _)| fs.geo.group_start(group));
            let (own, taken) = self.0.take_meta(start)?;
            taken.keep();
            guard.push(Run { start: own, len: 1 });
            fs.dev.write_at(fs.geo.byte_of(own), bytes)?;
            block = Some(own);
        }
        let size = match payload {
            Payload::FastLink(target) => target.len() as u64,
            _ => contents.map_or(0, |(_, size)| size),
        };

        // The body, dead: no links, and a time of deletion.
        let now = fs.clock.now();
        let mut raw = RawInode::new_zeroed();
        let mut extra = RawInodeExtra::new_zeroed();
        let room = u64::from(fs.geo.inode_size) - GOOD_OLD_INODE_SIZE;
        let has_extra = room >= EXTRA_ISIZE;
        let (seconds, high) = now.encode(has_extra);
        raw.i_mode = (mode | kind.mode_bits()).into();
        raw.i_uid = (new.uid as u16).into();
        raw.i_uid_high = ((new.uid >> 16) as u16).into();
        raw.i_gid = (gid as u16).into();
        raw.i_gid_high = ((gid >> 16) as u16).into();
        raw.i_size = (size as u32).into();
        raw.i_atime = seconds.into();
        raw.i_ctime = seconds.into();
        raw.i_mtime = seconds.into();
        raw.i_dtime = fs.time_of_death(now).into();
        if fs.is_hurd() {
            // The author, whom the owner may differ from later.
            raw.i_reserved2 = new.uid.into();
        }
        raw.i_flags = flags.into();
        raw.i_generation = fs.writer()?.next_generation().into();
        match payload {
            Payload::Device(device) => {
                let [old, new] = device.encode();
                raw.i_block[0] = old.into();
                raw.i_block[1] = new.into();
            }
            Payload::FastLink(target) => {
                let mut bytes = [0; FAST_SYMLINK_MAX];
                bytes.iter_mut().zip(*target).for_each(|(to, from)| *to = *from);
                for (word, bytes) in raw.i_block.iter_mut().zip(bytes.chunks_exact(4)) {
                    let mut four = [0; 4];
                    four.copy_from_slice(bytes);
                    *word = U32::from_bytes(four);
                }
            }
            _ => {
                if let Some(block) = block {
                    raw.i_block[0] = block.get().into();
                    raw.i_blocks = ((fs.geo.block_size.bytes() / 512) as u32).into();
                }
            }
        }
        if has_extra {
            extra.i_extra_isize = (EXTRA_ISIZE as u16).into();
            extra.i_ctime_extra = high.into();
            extra.i_mtime_extra = high.into();
            extra.i_atime_extra = high.into();
            extra.i_crtime = seconds.into();
            extra.i_crtime_extra = high.into();
        }
        let mut body = vec![0; usize::from(fs.geo.inode_size)];
        let parts = raw.as_bytes().iter().chain(extra.as_bytes().iter());
        body.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        let offset = fs.inode_offset(nr)?;
        if fs.table.is_held(nr) {
            // Before anything of it is written over. The bit stays, so that the number is found by nobody again.
            number.kept = true;
            return Err(self.0.corrupt(alloc::format!(
                "is to get inode {nr}, which is in use, and the bitmap says that it is free"
            )));
        }
        fs.store_bytes(offset, &body)?;

        // What was known of a former directory of this number.
        fs.indexes.forget(nr);
        let cell = Cell::from_parts(fs, (nr, offset), &raw, &extra)?;
        // What was lost since its number was taken may be a part of it.
        fs.losses.note_new(nr, known);
        cell.losses_told.store(known, Ordering::SeqCst);
        cell.stored_anew.store(known, Ordering::SeqCst);
        cell.rights_taken.are_whole(known);
        let mut is_new = false;
        let inode = fs.inode_or(nr, || {
            is_new = true;
            Ok(cell)
        })?;
        // From here on the handle owns number and block: with no links both go when it does.
        number.kept = true;
        guard.keep();
        if !is_new {
            return Err(inode.0.corrupt("is in use, and the bitmap of inodes says that it is free"));
        }
        if let Some(acl) = &acl {
            inode.0.set_acl(AclKind::Access, Some(acl))?;
        }
        if let Some(list) = default.filter(|_| kind == FileKind::Directory) {
            inode.0.set_acl(AclKind::Default, Some(&list))?;
        }
        let born = Written::since(known, inode.0.as_named());
        Ok((inode, born))
    }

    /// Makes another name, in this directory, for an inode. Linux: `ext2_link`.
    ///
    /// # Errors
    /// `EPERM` for a directory or what cannot be changed, `EMLINK` at 32,000 names, `EXDEV` for an inode
    /// of another file system, `ENOENT` for a file whose last name is gone; as [`create`](Self::create).
    pub fn link(&self, target: &Self, name: impl AsRef<[u8]>) -> Result<()> {
        self.link_as(target, name.as_ref())
    }

    fn link_as(&self, target: &Self, name: &[u8]) -> Result<()> {
        if !Arc::ptr_eq(&self.0.fs, &target.0.fs) {
            return refuse(Errno::XDEV, "");
        }
        self.change_to_add(name, || {
            if target.kind() == FileKind::Directory {
                // Linux looks the new name up first; the lock is not held twice over one directory.
                return match self.lookup_nr(name) {
                    Ok(_) => refuse(Errno::EXIST, ""),
                    Err(error) if !error.refuses(Errno::NOENT) => Err(error),
                    Err(_) => refuse(Errno::PERM, "a directory has one name"),
                };
            }
            let _io = self.0.io.write();
            let _target_io = target.0.io.write();
            if self.0.find(name)?.is_some() {
                return refuse(Errno::EXIST, "");
            }
            self.0.check_insertable()?;
            target.0.check_changeable()?;
            let Attrs { links, linkable, .. } = *target.0.attrs.lock();
            if links >= LINK_MAX {
                return refuse(Errno::MLINK, "an inode has at most 32000 names");
            }
            if links == 0 && !linkable {
                return refuse(Errno::NOENT, "the last name of the file is gone");
            }
            let room = self.0.find_room(name)?;
            let known = self.0.fs.losses.count();
            self.0.fs.whole(|| {
                if links == 0 {
                    // A file without a name gets its first: its times, the name, then the count.
                    target.0.store_body_anew()?;
                    if !Mended::LateTimesForgotten.is_back() {
                        target.0.write_late()?;
                    }
                    let born = Written::since(known, target.0.as_named());
                    self.0.put_name(name, room, born)?;
                    return target.0.count_link(1);
                }
                target.0.count_link(1)?;
                let counted = Written::since(known, target.0.as_named());
                self.0.put_name(name, room, counted).or_else(|error| {
                    target.0.count_link(-1)?;
                    Err(error)
                })
            })
        })
    }
}
