//! Bytes from the image to the kernel's reader by splice(2): as pages of the image's file, without a copy of ours.
//!
//! # Invariants
//! 1. A pipe is empty between requests: what goes wrong half-way throws it away.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};

/// Pages that a pipe is made for, a power of two: the largest request in pieces of the smallest block, and the header.
const WANTED: usize = 1024;
/// Pages that everybody may have (`/proc/sys/fs/pipe-max-size`).
const ALLOWED: usize = 256;

/// A pipe that holds one reply.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    room: usize,
}

impl Pipe {
    /// Made as large as this user may.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let page = rustix::param::page_size();
        // Who has too many pipes may make none larger; replies that do not fit are copied.
        let room = fcntl_setpipe_size(&write, WANTED * page)
            .or_else(|_| fcntl_setpipe_size(&write, ALLOWED * page))
            .or_else(|_| fcntl_getpipe_size(&write))?
            / page;
        Ok(Self { read, write, room })
    }

    /// How many pages it holds, each whole or in part.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When they do not fit.
    pub(crate) fn put(&self, bytes: &[u8]) -> io::Result<()> {
        match rustix::io::write(&self.write, bytes)? {
            len if len == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Adds `len` bytes of `file` from `offset`.
    ///
    /// # Errors
    /// The file's, or when they do not fit.
    pub(crate) fn put_from(&self, file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
        let (mut at, end) = (offset, offset.saturating_add(len));
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            if splice(file, Some(&mut at), &self.write, None, left, SpliceFlags::NONBLOCK)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Sends all that it holds, `len` bytes, as one message.
    ///
    /// # Errors
    /// The receiver's.
    pub(crate) fn send(&self, to: BorrowedFd<'_>, len: usize) -> rustix::io::Result<()> {
        splice(self.read.as_fd(), None, to, None, len, SpliceFlags::empty()).map(|_| ())
    }
}
