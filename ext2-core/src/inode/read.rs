//! Reading contents by copying through the device.

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::{Cell, FileKind, Inode};
use crate::Errno;
use crate::error::{Result, refuse};

/// Bytes of the place of the pointers, in which a link's target lies that is shorter.
pub(crate) const FAST_SYMLINK_MAX: usize = 60;

/// Bytes of a file that lie together on the device, or that are a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The byte of [`Ext2::device`](crate::Ext2::device) at which they begin; `None` for a hole. What lies below that device
    /// has them there, too, where it says [`is_in_place`](blockdev::BlockDevice::is_in_place): a log may keep them back.
    pub device_byte: Option<u64>,
    /// How many.
    pub len: u64,
}

impl Cell {
    /// The piece at byte `at`, no further than byte `end`, which is behind it.
    fn piece(&self, at: u64, end: u64) -> Result<Piece> {
        let block_size = self.fs.geo.block_size;
        let first = block_size.block_of(at);
        let last = block_size.block_of(end - 1);
        let mapping = self.map(first, last.get() - first.get() + 1)?;
        let within = at - first.get() * block_size.bytes();
        let device_byte = mapping.target.map(|block| self.fs.geo.byte_of(block) + within);
        Ok(Piece { device_byte, len: (mapping.count * block_size.bytes() - within).min(end - at) })
    }

    /// Reads contents from `offset` without a lock: up to the end of `buf` or of the file.
    pub(crate) fn read_unlocked(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let end = self.size().min(offset.saturating_add(buf.len() as u64));
        let mut at = offset;
        while at < end {
            let Piece { device_byte, len } = self.piece(at, end)?;
            let done = (at - offset) as usize;
            // OK to index: done + len is at most end - offset, which is at most buf.len().
            let part = &mut buf[done..done + len as usize];
            match device_byte {
                Some(byte) => self.fs.dev.read_at(byte, part)?,
                None => part.fill(0),
            }
            at += len;
        }
        Ok(end.saturating_sub(offset) as usize)
    }

    /// The target of a symbolic link.
    pub(crate) fn link_target(&self) -> Result<Vec<u8>> {
        let size = self.size();
        if size == 0 || size > self.fs.geo.block_size.bytes() {
            return Err(self.corrupt("link target is empty or longer than a block"));
        }
        if self.is_fast_symlink() {
            let words = self.root.iter().flat_map(|word| word.load(Ordering::Acquire).to_le_bytes());
            return Ok(words.take(size as usize).collect());
        }
        let mut target = vec![0; size as usize];
        self.read_unlocked(0, &mut target)?;
        Ok(target)
    }
}

impl Inode {
    /// Reads from byte `offset` of a regular file, by copying through the device. Returns the bytes
    /// read: fewer than `buf` holds only at the file's end. Holes read as zeros.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL` for what is no regular file; `Corrupt`; the device's errors.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.need(FileKind::Regular)?;
        let _io = self.0.io.read();
        self.0.read_unlocked(offset, buf)
    }

    /// Calls `take` with where the bytes `offset..offset + len` of a regular file are, as far as the file goes, and
    /// keeps them there until it returns: nobody frees them, though others may store to them. `take` must not change
    /// the file.
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at).
    pub fn with_pieces<T>(&self, offset: u64, len: u64, take: impl FnOnce(&[Piece]) -> T) -> Result<T> {
        self.need(FileKind::Regular)?;
        let _io = self.0.io.read();
        let end = self.0.size().min(offset.saturating_add(len));
        let (mut pieces, mut at) = (Vec::new(), offset);
        let mut budget = u64::from(self.0.fs.geo.blocks_count) * self.0.fs.geo.block_size.bytes();
        while at < end {
            let piece = self.0.piece(at, end)?;
            budget = self.0.spend(budget, piece.device_byte.is_none(), piece.len)?;
            pieces.push(piece);
            at += piece.len;
        }
        Ok(take(&pieces))
    }

    /// The target of a symbolic link, as bytes.
    ///
    /// # Errors
    /// `EINVAL` for what is no link; `Corrupt`; the device's errors.
    pub fn read_link(&self) -> Result<Vec<u8>> {
        if self.0.kind != FileKind::Symlink {
            return refuse(Errno::INVAL, "not a symbolic link");
        }
        self.0.link_target()
    }
}
