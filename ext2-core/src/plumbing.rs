//! What the layer that moves a file's bytes needs of an inode, and nobody else. **Unstable**: it changes without a new
//! major version, and each call trusts its caller with an invariant. A wrong one makes files whose contents are
//! another's, or waits for itself for ever.
//!
//! `ext2-dax` is the user. Everybody else has [`Inode::read_at`], [`Inode::write_at`], [`Inode::truncate`] and the
//! calls beside them, which need no trust.

use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::Ordering;

pub use crate::inode::{Allocate, Unpublished, WriteMapping};
pub use crate::space::{AddressSpace, Publisher, Stores, Taken};
pub use crate::sync::{Glance, IoGuard, IoLock, IoReadGuard};

use crate::error::Result;
use crate::fs::{Fs, change::Change};
use crate::{Barrier, FileBlock, Inode};

/// Stores to a file, until it is dropped: an image is not called clean meanwhile.
#[derive(Debug)]
#[must_use = "dropping it says that the stores have ended"]
pub struct Storing<'f>(#[expect(dead_code, reason = "it is there to be dropped")] Change<&'f Fs>);

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::Inode {}
}

/// The calls below the file interface.
pub trait Plumbing: sealed::Sealed {
    /// The address space of this inode, made by `make` if nobody attached one before. All who hold the inode share it,
    /// and whatever changes its map calls it. The first one waits for whoever changes the contents at this moment: the caller
    /// does not hold the [`io_lock`](Self::io_lock). `make` is run under a lock: it takes no other.
    fn attach(&self, make: impl FnOnce() -> Arc<dyn AddressSpace>) -> Arc<dyn AddressSpace>;

    /// The lock over the contents (Linux: `i_rwsem`). All calls of [`Inode`] that read or change contents take it
    /// themselves: whoever holds it must call none of them.
    fn io_lock(&self) -> &IoLock;

    /// A piece of a write, as by [`write_at`](Inode::write_at), without waiting for room in a log. The caller holds the
    /// [`io_lock`](Self::io_lock) exclusive, from the first piece to the last.
    ///
    /// # Errors
    /// As for `write_at`.
    fn write_piece(&self, offset: u64, data: &[u8]) -> Result<usize>;

    /// Writes bytes that a cache of pages took before the attribute flags forbade that; otherwise as
    /// [`write_at`](Inode::write_at).
    ///
    /// # Errors
    /// As for `write_at`, but for those of the attribute flags.
    fn write_taken(&self, offset: u64, data: &[u8]) -> Result<usize>;

    /// What `count` blocks from `start` are, with blocks where there were none: one mapping, at most `count` blocks.
    /// The caller holds the [`io_lock`](Self::io_lock) exclusive for [`Allocate::AfterFill`] and
    /// [`Allocate::Published`]; a fault holds the entry of the pages and what keeps truncation out.
    ///
    /// # Errors
    /// `ENOSPC`, `EFBIG`, `EROFS`; `Corrupt`, the device's errors.
    fn map_for_write(&self, start: FileBlock, count: u64, how: Allocate) -> Result<WriteMapping>;

    /// Whether another may be giving the file blocks at this moment that not all who map the hole have been told of.
    fn is_untold(&self) -> bool;

    /// Tells who maps the bytes of `range` of blocks there that another is just giving the file: for who has found them, and lets
    /// somebody store to them past a call.
    fn tell_found(&self, range: Range<u64>, by: Publisher);

    /// Removes an attribute that gives rights (`security.capability`): no crash shows it beside what is stored afterwards, also
    /// where an earlier removal may have been lost. Linux: `file_remove_privs`.
    ///
    /// # Errors
    /// `ENODATA` where there is none, nor may be on the media any more; as [`Inode::xattr_remove`], but append-only files
    /// suffer it.
    fn take_xattr(&self, name: &[u8]) -> Result<()>;

    /// As [`Inode::strip_setid`], and takes set-group-ID also where the group may not execute the file, as a write by somebody
    /// outside of the group does. Append-only files suffer it. Linux: `setattr_should_drop_sgid`.
    ///
    /// # Errors
    /// The device's.
    fn strip_all_setid(&self) -> Result<()>;

    /// Whether the media may have other rights than memory, and attributes that give some, since a fence or flush has failed.
    fn may_have_lost_rights(&self) -> bool;

    /// Counts stores to the file as one change, from before the first until after the last. Waits for room in a log first: where
    /// there is one the caller holds no lock.
    ///
    /// # Errors
    /// `EROFS`.
    fn begin_storing(&self) -> Result<Storing<'_>>;

    /// Flushes the device, for whoever makes the file durable. Where that fails, what was stored before may be lost, and the
    /// image is marked for a check.
    ///
    /// # Errors
    /// The device's, and those of [`sync`](Inode::sync).
    fn flush(&self, barrier: Barrier) -> Result<()>;

    /// Makes what was stored before durable no later than what is stored after; where that fails it is as where a flush does.
    ///
    /// # Errors
    /// The device's.
    fn fence(&self, barrier: Barrier) -> Result<()>;

    /// Raises the size to `end` bytes if it is smaller, after bytes from `written_from` on were stored; what is mapped
    /// between the old end and that is zeroed first. Takes no page away and waits for no lease. The caller holds the
    /// [`io_lock`](Self::io_lock) exclusive.
    ///
    /// # Errors
    /// `EFBIG` past the largest size of a file, `EROFS`, the device's.
    fn raise_size(&self, end: u64, written_from: u64) -> Result<()>;

    /// Zeroes from byte `offset` to the end of its block, where that is mapped (Linux: `dax_truncate_page`). The caller
    /// holds the [`io_lock`](Self::io_lock) exclusive.
    ///
    /// # Errors
    /// `EFBIG`, `EROFS`, the device's.
    fn zero_block_tail(&self, offset: u64) -> Result<()>;

    /// Zeroes what lies past the end of the file in its last block, up to byte `to`, the end of a write that comes next: no
    /// crash shows it then. The caller holds the [`io_lock`](Self::io_lock) exclusive.
    ///
    /// # Errors
    /// `EROFS`; `Corrupt`, the device's.
    fn clear_tail(&self, to: u64) -> Result<()>;

    /// Frees what lies past the last block that the size covers, and leaves the tail of that block as it is. The caller
    /// holds the [`io_lock`](Self::io_lock) exclusive. Linux: `ext2_truncate_blocks` at `i_size`, as
    /// `ext2_write_failed` calls it.
    ///
    /// # Errors
    /// `Corrupt`, the device's errors.
    fn free_past_size(&self) -> Result<()>;

    /// What [`check_write`](Inode::check_write) and [`touch_modified`](Inode::touch_modified) do, without waiting for
    /// anybody, for as much as lies inside the file: for a write that must not wait (Linux: `RWF_NOWAIT`).
    ///
    /// # Errors
    /// `EAGAIN` where somebody changes attributes at this moment, or the file would have to grow; as for `check_write`.
    fn try_begin_write(&self, offset: u64, len: u64) -> Result<Option<u64>>;

    /// Whether the contents may be stored to through memory that is given now, by a mapping or a lease: the file system
    /// is open for writing, and no flag of the inode forbids it. Linux: `mmap` and `may_open`.
    ///
    /// # Errors
    /// `EROFS`; `EPERM` for an immutable file, `EACCES` for one that only grows at its end.
    fn check_store(&self) -> Result<()>;
}

impl Plumbing for Inode {
    fn attach(&self, make: impl FnOnce() -> Arc<dyn AddressSpace>) -> Arc<dyn AddressSpace> {
        if let Some(there) = self.0.space.get() {
            return there.clone();
        }
        // Whoever takes blocks away asks once who maps them, and holds this lock exclusive until they are gone.
        let _io = (!crate::sync::Mended::LateAttach.is_back()).then(|| self.0.io.read());
        self.0.space.get_or_attach(make)
    }

    #[inline]
    fn io_lock(&self) -> &IoLock {
        &self.0.io
    }

    fn write_piece(&self, offset: u64, data: &[u8]) -> Result<usize> {
        self.need(crate::FileKind::Regular)?;
        self.0.fs.change_further(|| self.write_held(offset, data))
    }

    fn write_taken(&self, offset: u64, data: &[u8]) -> Result<usize> {
        self.need(crate::FileKind::Regular)?;
        self.0.fs.change(|| {
            let _io = self.0.io.write();
            self.write_held_under(crate::InodeFlags::empty(), offset, data)
        })
    }

    fn map_for_write(&self, start: FileBlock, count: u64, how: Allocate) -> Result<WriteMapping> {
        self.need(crate::FileKind::Regular)?;
        self.0.fs.change(|| self.0.map_for_write(self, start, count, how))
    }

    fn is_untold(&self) -> bool {
        self.0.space.is_untold(None)
    }

    fn tell_found(&self, range: Range<u64>, by: Publisher) {
        self.0.space.found(range, by);
    }

    fn take_xattr(&self, name: &[u8]) -> Result<()> {
        self.take_right(name)
    }

    fn strip_all_setid(&self) -> Result<()> {
        self.strip_all_setid()
    }

    fn may_have_lost_rights(&self) -> bool {
        self.0.may_have_lost_rights()
    }

    fn begin_storing(&self) -> Result<Storing<'_>> {
        self.0.fs.make_room()?;
        Ok(Storing(Change::begin(&*self.0.fs)?))
    }

    fn flush(&self, barrier: Barrier) -> Result<()> {
        // Before it is called an error of the device's.
        self.0.fs.refuse_within()?;
        self.0.make_durable(barrier)
    }

    fn fence(&self, barrier: Barrier) -> Result<()> {
        if !self.0.space.is_synchronous() {
            return self.0.fs.fence(barrier);
        }
        // What leads to the page may have been stored long before.
        self.0.fs.fence_since(barrier, self.0.losses_told.load(Ordering::SeqCst))
    }

    fn raise_size(&self, end: u64, written_from: u64) -> Result<()> {
        self.need(crate::FileKind::Regular)?;
        if end <= self.size() {
            return Ok(());
        }
        if end > self.0.fs.geo.max_file_size() {
            return crate::error::refuse(crate::Errno::FBIG, "larger than a file can be");
        }
        self.0.fs.change(|| self.0.raise_size(end, written_from.min(end)))
    }

    fn zero_block_tail(&self, offset: u64) -> Result<()> {
        self.need(crate::FileKind::Regular)?;
        if offset > self.0.fs.geo.max_file_size() {
            return crate::error::refuse(crate::Errno::FBIG, "larger than a file can be");
        }
        let end = offset.next_multiple_of(self.0.fs.geo.block_size.bytes());
        self.0.fs.change(|| self.0.zero_mapped(offset, end).map(drop))
    }

    fn clear_tail(&self, to: u64) -> Result<()> {
        if to <= self.size() { Ok(()) } else { self.0.fs.change(|| self.0.clear_tail(to)) }
    }

    fn free_past_size(&self) -> Result<()> {
        self.need(crate::FileKind::Regular)?;
        self.0.fs.change(|| self.0.free_past_size())
    }

    fn try_begin_write(&self, offset: u64, len: u64) -> Result<Option<u64>> {
        self.0.fs.change(|| {
            let Some(mut attrs) = self.0.attrs.try_lock() else {
                return crate::error::refuse(crate::Errno::AGAIN, "the attributes are being changed");
            };
            let len = self.check_write_flags(offset, len, attrs.flags)?;
            let len = len.map(|len| len.min(self.size().saturating_sub(offset)));
            if len == Some(0) {
                return crate::error::refuse(crate::Errno::AGAIN, "the file would have to grow");
            }
            let now = self.0.fs.clock.now();
            (attrs.mtime, attrs.ctime, attrs.late) = (now, now, true);
            Ok(len)
        })
    }

    fn check_store(&self) -> Result<()> {
        if self.fs().is_read_only() && !crate::sync::Mended::RightsOfTheDevice.is_back() {
            return crate::error::refuse(crate::Errno::ROFS, "the file system is read-only");
        }
        let flags = self.attr().flags;
        if flags.contains(crate::InodeFlags::IMMUTABLE) {
            return crate::error::refuse(crate::Errno::PERM, "the file is immutable");
        }
        if flags.contains(crate::InodeFlags::APPEND) {
            return crate::error::refuse(crate::Errno::ACCES, "the file is append-only: write at its end");
        }
        Ok(())
    }
}
