//! Writing contents by copying through the device, and the size that follows.

use super::{Allocate, Attrs, Cell, FileKind, Inode};
use crate::error::{Result, refuse};
use crate::fs::change::Change;
use crate::order::Barrier;
use crate::{AclKind, Errno, InodeFlags, Timestamp};

/// What to change of an inode's attributes; what is `None` stays.
///
/// ```
/// use ext2_core::{Ext2, Follow, OpenOptions, SetAttr};
///
/// let fs = Ext2::open(ext2_image::mkfs::in_memory(4 << 20)?, &OpenOptions::default())?;
/// fs.write("file", "")?;
/// let file = fs.resolve("file", Follow::Yes)?;
/// file.set_attr(&SetAttr { mode: Some(0o600), uid: Some(1000), ..SetAttr::default() })?;
/// assert_eq!((file.attr().mode, file.attr().uid), (0o600, 1000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// The lower 12 bits of the mode.
    pub mode: Option<u16>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// Last read.
    pub atime: Option<Timestamp>,
    /// Last change of the contents.
    pub mtime: Option<Timestamp>,
    /// Last change of the inode; `None` for now. For tools that restore a tree.
    pub ctime: Option<Timestamp>,
    /// When it was made, where the inode has room for it. For tools that restore a tree.
    pub crtime: Option<Timestamp>,
}

impl Cell {
    /// Changes mode and owners, and the access list with the mode. The caller holds the `io` lock exclusive.
    fn set_rights(&self, change: &SetAttr) -> Result<()> {
        if change.mode.is_none() && change.uid.is_none() && change.gid.is_none() {
            return Ok(());
        }
        self.store_lost_rights()?;
        let known = self.fs.losses.count();
        let mode = change.mode.map(|mode| mode & 0o7777);
        if let Some(mode) = mode
            && let Some(acl) = self.acl(AclKind::Access)?
        {
            self.rights_taken.note(self.set_acl_below(&acl.with_mode(mode), mode))?;
        }
        let mut attrs = self.attrs.lock();
        let changed = Attrs {
            mode: mode.unwrap_or(attrs.mode),
            uid: change.uid.unwrap_or(attrs.uid),
            gid: change.gid.unwrap_or(attrs.gid),
            ..*attrs
        };
        self.store_rights(&mut attrs, &changed)?;
        // The access list, too.
        self.rights_taken.note(self.fs.none_since(known))
    }

    /// Raises the size to `end` if it is smaller; what is mapped between the old end and `written_from` is
    /// zeroed first. Callers that moved data hold the `io` lock exclusive.
    pub(crate) fn raise_size(&self, end: u64, written_from: u64) -> Result<()> {
        let old = self.size();
        if end <= old {
            return Ok(());
        }
        // After an error what was written stays past the end, where e2fsck wants no block.
        self.fs.may_lose(|| {
            // What lies past the end of file is not part of the file; what was just written is.
            if written_from > old {
                self.zero_past_end(old, written_from)?;
            }
            self.lengthen(end)
        })
    }

    /// Writes contents: the caller holds the `io` lock exclusive. Returns the bytes written; fewer than
    /// asked only when an error came after the first byte.
    pub(crate) fn write_unlocked(&self, inode: &Inode, offset: u64, data: &[u8]) -> Result<usize> {
        let size = self.fs.geo.block_size;
        let mut done = 0;
        while done < data.len() {
            let rest = data.get(done..).unwrap_or_default();
            match self.write_mapping(inode, offset + done as u64, rest, size) {
                Ok(len) => done += len,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        self.touch_mtime();
        Ok(done)
    }

    /// Writes as much as one mapping takes.
    fn write_mapping(&self, inode: &Inode, at: u64, data: &[u8], size: crate::BlockSize) -> Result<usize> {
        let first = size.block_of(at);
        let within = at - first.get() * size.bytes();
        let count = size.blocks_for(within + data.len() as u64);
        let got = self.map_for_write(inode, first, count, Allocate::AfterFill)?;
        let Some(target) = got.mapping.target else {
            return Err(self.corrupt("no block came of a write"));
        };
        let mut room = (got.mapping.count * size.bytes() - within).min(data.len() as u64) as usize;
        let part = data.get(..room).unwrap_or_default();
        let (dev, byte) = (&*self.fs.dev, self.fs.geo.byte_of(target));
        let put = || dev.write_contents(byte + within, part);
        match put() {
            Err(blockdev::Error::Poisoned { .. }) if got.unpublished.is_some() => {
                // New blocks are nobody's yet: zeroed whole they heal.
                dev.zero_contents(byte, size.blocks_for(within + room as u64) * size.bytes())
                    .and_then(|()| put())
            }
            done => done,
        }?;
        if let Some(unpublished) = got.unpublished
            && let Err(error) = unpublished.publish(at..at + room as u64)
        {
            // A first part may be reachable: that much is written, and has to be inside the file.
            let reached = self.map_blocks(first, count)?;
            // Blocks that somebody else gave the file meanwhile do not have the bytes.
            if reached.target != Some(target) {
                return Err(error);
            }
            room = room.min((reached.count * size.bytes() - within) as usize);
        }
        self.raise_size(at + room as u64, at)?;
        Ok(room)
    }
}

impl Inode {
    /// Writes at byte `offset`, by copying through the device; the file grows as needed. Returns the
    /// bytes written: fewer than `data` holds when the device fills up on the way.
    ///
    /// # Errors
    /// `ENOSPC` with nothing written, `EFBIG` at the largest size, `EPERM` for an immutable file and for
    /// an append-only one anywhere but at its end, `EISDIR`, `EINVAL`, `EROFS`; `Corrupt`, the device's.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<usize> {
        self.write_where(data, |_| offset)
    }

    /// Writes at the end of the file, wherever that is when its turn comes (Linux: `O_APPEND`).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn append(&self, data: &[u8]) -> Result<usize> {
        self.write_where(data, Self::size)
    }

    /// Writes at the byte that `offset` says under the inode's lock.
    fn write_where(&self, data: &[u8], offset: impl FnOnce(&Self) -> u64) -> Result<usize> {
        self.need(FileKind::Regular)?;
        self.0.fs.change(|| {
            let _io = self.0.io.write();
            self.write_held(offset(self), data)
        })
    }

    /// Writes at byte `offset`, as a part of a change. The caller holds the `io` lock exclusive.
    pub(crate) fn write_held(&self, offset: u64, data: &[u8]) -> Result<usize> {
        let flags = self.0.attrs.lock().flags;
        self.write_held_under(flags, offset, data)
    }

    /// What [`write_held`](Self::write_held) does, to an inode with these flags.
    pub(crate) fn write_held_under(&self, flags: InodeFlags, offset: u64, data: &[u8]) -> Result<usize> {
        let Some(len) = self.check_write_flags(offset, data.len() as u64, flags)? else { return Ok(0) };
        self.0.clear_tail(offset + len)?;
        // OK to cast: at most the length of the slice.
        self.0.write_unlocked(self, offset, data.get(..len as usize).unwrap_or(data))
    }

    /// How many of `len` bytes at `offset` may be written: what fits below the largest size. `None` for an empty write.
    /// Linux: `generic_write_checks`.
    ///
    /// # Errors
    /// `EFBIG` at or past the largest size, `EPERM` by the attribute flags.
    pub fn check_write(&self, offset: u64, len: u64) -> Result<Option<u64>> {
        let flags = self.0.attrs.lock().flags;
        self.check_write_flags(offset, len, flags)
    }

    /// What [`check_write`](Self::check_write) does, for an inode with these flags.
    pub(crate) fn check_write_flags(&self, offset: u64, len: u64, flags: InodeFlags) -> Result<Option<u64>> {
        if len == 0 {
            return Ok(None);
        }
        if flags.contains(InodeFlags::IMMUTABLE)
            || flags.contains(InodeFlags::APPEND) && offset != self.size()
        {
            return refuse(Errno::PERM, "the file is immutable or append-only");
        }
        let max = self.0.fs.geo.max_file_size();
        if offset >= max {
            return refuse(Errno::FBIG, "past the largest size of a file");
        }
        Ok(Some(len.min(max - offset)))
    }

    /// The contents were changed now: `mtime` and `ctime`. Nothing changes where nothing may be written.
    pub fn touch_modified(&self) {
        if self.0.fs.writer().is_ok() {
            self.0.touch_mtime();
        }
    }

    /// The contents were read now: `atime`, unless the inode asks to leave it alone.
    pub fn touch_accessed(&self) {
        if self.0.fs.writer().is_err() {
            return;
        }
        let now = self.0.fs.clock.now();
        let mut attrs = self.0.attrs.lock();
        if !attrs.flags.contains(InodeFlags::NOATIME) {
            attrs.atime = now;
            attrs.late = true;
        }
    }

    /// Changes attributes. Linux: `ext2_setattr`; the caller decides who may. A time that the inode has no room for is the
    /// nearest that it has.
    ///
    /// # Errors
    /// `EPERM` for an immutable or append-only inode, `EROFS`, the device's.
    pub fn set_attr(&self, change: &SetAttr) -> Result<()> {
        self.0.fs.change(|| {
            let _io = self.0.io_to_change()?;
            self.0.set_rights(change)?;
            let now = self.0.fs.clock.now();
            let mut attrs = self.0.attrs.lock();
            attrs.atime = change.atime.unwrap_or(attrs.atime);
            attrs.mtime = change.mtime.unwrap_or(attrs.mtime);
            attrs.ctime = change.ctime.unwrap_or(now);
            attrs.crtime = attrs.crtime.map(|crtime| change.crtime.unwrap_or(crtime));
            attrs.late = true;
            Ok(())
        })
    }

    /// Sets the times of the last read and the last change of the contents to now, which an append-only file
    /// suffers. Linux: `utimes` without times (`ATTR_TOUCH`).
    ///
    /// # Errors
    /// `EPERM` for an immutable inode, `EROFS`.
    pub fn touch(&self) -> Result<()> {
        self.0.fs.change(|| {
            let _io = self.0.io.write();
            self.0.check_mutable()?;
            let now = self.0.fs.clock.now();
            let mut attrs = self.0.attrs.lock();
            (attrs.atime, attrs.mtime, attrs.ctime) = (now, now, now);
            attrs.late = true;
            Ok(())
        })
    }

    /// Sets the attribute flags that `chattr` may set; the others stay. Linux: `ext2_fileattr_set`.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for immutable or append-only what is no file or directory (e2fsck takes that away); `EROFS`, the device's.
    pub fn set_flags(&self, flags: InodeFlags) -> Result<()> {
        self.0.fs.change(|| {
            if flags.intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND)
                && !matches!(self.0.kind, FileKind::Regular | FileKind::Directory)
            {
                return refuse(Errno::OPNOTSUPP, "only files and directories are immutable or append-only");
            }
            let _io = self.0.io.write();
            {
                let mut attrs = self.0.attrs.lock();
                let kept = attrs.flags.difference(InodeFlags::MODIFIABLE);
                self.0.store_flags(&mut attrs, kept | (flags & InodeFlags::MODIFIABLE))?;
            }
            self.0.touch_ctime();
            Ok(())
        })
    }

    /// Makes the inode durable: contents, attributes, and every name it had when the call began. Linux:
    /// `ext2_fsync`, which leaves out names, bitmaps and counts.
    ///
    /// # Errors
    /// The device's; `EIO` once for each file where a fence or a flush that was made for something else has failed since it was
    /// opened: what was stored to it before may be lost.
    pub fn sync(&self) -> Result<()> {
        // Before it is called an error of the device's.
        self.0.fs.refuse_within()?;
        if let Some(space) = self.0.space.get() {
            space.write_back(0..u64::MAX)?;
        }
        if self.0.fs.writer.is_some() {
            if let Ok(_change) = Change::begin(&*self.0.fs) {
                self.0.write_late()?;
            }
            self.0.make_durable(Barrier::FileSynced)?;
        }
        Ok(())
    }
}
