//! Reads and writes that copy between the caller's buffer and the device's memory (`dax_iomap_rw`).
//!
//! # Invariants
//! 1. A read never returns a byte past `i_size`, and a write only stores to blocks that the file system
//!    said are mapped (point 4 of the mail).
//! 2. A translation of a hole goes away **after** the blocks under it became part of the file, before
//!    the call returns.
//! 3. What was moved is reported: an error counts only if nothing was moved.
//! 4. The caller holds the inode's `io_lock`, shared for reads, exclusive for writes; there is no other
//!    lock and no count of users (point 1 of the mail).

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use blockdev::{Access, DaxDevice, PmemSlice};
use ext2_core::sync::Mended;

use crate::compat::HoleIntoBadBuffer;
use crate::entry::{DevPage, PAGE_SIZE};
use crate::error::{BadMapping, Errno, Error, Result};
use crate::fault::{DaxInode, device_page, note_answer};
use crate::iomap::{Iomap, MapFlags, MapKind, OpFlags};
use crate::iter::{IomapIter, Step};
use crate::uio::{Sink, Source};

/// What ends a transfer early.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits<'a> {
    /// When set by another thread, the transfer stops before the next chunk (Linux: a fatal signal).
    pub cancel: Option<&'a AtomicBool>,
    /// Answer `EAGAIN` rather than wait for a lock or a block, or `EOPNOTSUPP` where nobody can tell (Linux:
    /// `RWF_NOWAIT`).
    pub nowait: bool,
}

impl Limits<'_> {
    fn flags(&self) -> OpFlags {
        if self.nowait { OpFlags::DAX | OpFlags::NOWAIT } else { OpFlags::DAX }
    }

    /// For a path on which nobody can promise not to wait.
    pub(crate) fn refuse_nowait(&self, why: &'static str) -> Result<()> {
        if self.nowait { Err(Error::refused(Errno::OPNOTSUPP, why)) } else { Ok(()) }
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self.cancel {
            Some(cancel) if cancel.load(Ordering::Relaxed) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }
}

/// Reads up to `len` bytes from byte `pos`; fewer at the end of the file or where `sink` refuses.
///
/// # Errors
/// Only when nothing was read: `BadAddress`, `Interrupted`, the device's (poison is `EIO`), the file
/// system's.
pub fn read<I: DaxInode + ?Sized>(
    inode: &I,
    pos: u64,
    len: u64,
    sink: &mut dyn Sink,
    limits: Limits<'_>,
) -> Result<u64> {
    transfer(inode, pos, len, limits.flags(), |iter| {
        let size = inode.size();
        let start = iter.pos();
        let end = start.saturating_add(iter.length()).min(size);
        let Some(iomap) = iter.iomap().filter(|_| start < end) else { return Moved::bytes(0) };
        match iomap.kind {
            MapKind::Hole | MapKind::Unwritten => zeros(inode, end - start, sink),
            MapKind::Mapped => {
                let mut at = start;
                while at < end {
                    match limits.check().and_then(|()| read_chunk(inode.memory(), iomap, at, end, sink)) {
                        Ok((chunk, moved)) => {
                            at += moved;
                            if at == start {
                                return Moved::failed(Error::BadAddress);
                            }
                            if moved < chunk {
                                break;
                            }
                        }
                        Err(error) => return Moved { bytes: at - start, failed: Some(error) },
                    }
                }
                Moved::bytes(at - start)
            }
            kind => Moved::failed(BadMapping::NotMapped(kind).into()),
        }
    })
}

/// What was moved of a mapping, and what ended that early.
struct Moved {
    bytes: u64,
    /// The buffer is past the bytes that did not move: it is not asked again.
    failed: Option<Error>,
}

impl Moved {
    fn bytes(bytes: u64) -> Self {
        Self { bytes, failed: None }
    }

    fn failed(error: Error) -> Self {
        Self { bytes: 0, failed: Some(error) }
    }
}

/// Walks `len` bytes from `pos` and does `body` with each mapping. Bytes done, or why there are none.
fn transfer<I: DaxInode + ?Sized>(
    inode: &I,
    pos: u64,
    len: u64,
    flags: OpFlags,
    mut body: impl FnMut(&IomapIter<'_, I>) -> Moved,
) -> Result<u64> {
    let mut failed = None;
    let mut iter = IomapIter::new(inode, pos, len, flags);
    let mut fresh: Option<Range<u64>> = None;
    let walked = loop {
        let more = iter.next();
        // `next` has ended the mapping before, so its blocks are in the file now: whoever still maps
        // the hole that was there must look again.
        if let Some(pages) = fresh.take() {
            inode.pages().invalidate(pages.start, pages.end);
        }
        match more {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
        let moved = match failed.take() {
            Some(error) => Moved::failed(error),
            None => body(&iter),
        };
        let step = match moved {
            Moved { bytes: 0, failed: Some(error) } => Step::Failed(error),
            Moved { bytes, failed: error } => {
                failed = error.filter(|_| !Mended::AskedAgain.is_back());
                Step::Done(bytes)
            }
        };
        let (start, end) = (iter.pos(), iter.pos() + iter.length());
        if let Some(iomap) = iter.iomap() {
            note_answer(inode, start, pos.saturating_add(len) - start, flags, iomap);
            if iomap.flags.contains(MapFlags::NEW) {
                fresh = Some(start / PAGE_SIZE..end.div_ceil(PAGE_SIZE));
            }
        }
        iter.processed(step);
    };
    match (iter.pos() - pos, walked) {
        (0, Err(error)) => Err(error),
        (done, _) => Ok(done),
    }
}

fn zeros<I: DaxInode + ?Sized>(inode: &I, len: u64, sink: &mut dyn Sink) -> Moved {
    match sink.put_zeros(len) {
        0 if inode.compat().hole_into_bad_buffer == HoleIntoBadBuffer::Fault => {
            Moved::failed(Error::BadAddress)
        }
        moved => Moved::bytes(moved),
    }
}

/// Moves what lies in one run of memory: bytes that there were, and bytes that moved.
fn read_chunk<P>(
    device: &dyn DaxDevice,
    iomap: &Iomap<P>,
    at: u64,
    end: u64,
    sink: &mut dyn Sink,
) -> Result<(u64, u64)> {
    let page = device_page(iomap, at)?;
    let run = run(device, page, at, end, Access::Read)?;
    Ok((run.len(), sink.put(&run)?))
}

/// The memory of file bytes `at..end`, or of as much as is one run.
fn run<'d>(
    device: &'d dyn DaxDevice,
    page: DevPage,
    at: u64,
    end: u64,
    access: Access,
) -> blockdev::Result<PmemSlice<'d>> {
    let within = at % PAGE_SIZE;
    let pages = (within + (end - at)).div_ceil(PAGE_SIZE);
    let run = device.direct_access(page.get(), pages, access)?;
    run.subslice(within, (run.len() - within).min(end - at))
}

/// Writes up to `len` bytes at byte `pos`; fewer where `source` refuses or space ends.
///
/// # Errors
/// Only when nothing was written: as for [`read`], and what the file system says of allocation.
pub fn write<I: DaxInode + ?Sized>(
    inode: &I,
    pos: u64,
    len: u64,
    source: &mut dyn Source,
    limits: Limits<'_>,
) -> Result<u64> {
    let flags = limits.flags() | OpFlags::WRITE;
    transfer(inode, pos, len, flags, |iter| {
        let start = iter.pos();
        let end = start.saturating_add(iter.length());
        let Some(iomap) = iter.iomap() else { return Moved::bytes(0) };
        let shared = iomap.flags.contains(MapFlags::SHARED) && iomap.addr.is_some();
        if iomap.kind != MapKind::Mapped && !shared {
            log::error!(target: "ext2_dax::rw", "a write at byte {start} met {:?}", iomap.kind);
            return Moved::failed(BadMapping::NotMapped(iomap.kind).into());
        }
        let mut at = start;
        while at < end {
            match limits.check().and_then(|()| write_chunk(inode.memory(), iomap, at, end, source)) {
                Ok((_, 0)) if at == start => return Moved::failed(Error::BadAddress),
                Ok((chunk, moved)) => {
                    at += moved;
                    if moved < chunk {
                        break;
                    }
                }
                Err(error) => return Moved { bytes: at - start, failed: Some(error) },
            }
        }
        Moved::bytes(at - start)
    })
}

/// Stores what fits into one run of memory. Over poison the bytes go through the device's recovery,
/// which heals the pages that are wholly written.
fn write_chunk<P>(
    device: &dyn DaxDevice,
    iomap: &Iomap<P>,
    at: u64,
    end: u64,
    source: &mut dyn Source,
) -> Result<(u64, u64)> {
    let page = device_page(iomap, at)?;
    match run(device, page, at, end, Access::Write) {
        Ok(run) => Ok((run.len(), source.take(&run)?)),
        Err(blockdev::Error::Poisoned { .. }) => {
            let run = run_of_recovery(device, page, at, end)?;
            // OK to cast: at most a page.
            let mut bytes = vec![0; run as usize];
            let taken = source.take_bytes(&mut bytes);
            // OK to cast: at most the buffer's length.
            bytes.truncate(taken as usize);
            if !bytes.is_empty() {
                device.recovery_write(page.byte() + at % PAGE_SIZE, &bytes)?;
            }
            Ok((run, taken))
        }
        Err(error) => Err(error.into()),
    }
}

/// Bytes of `at..end` within one poisoned page.
fn run_of_recovery(device: &dyn DaxDevice, page: DevPage, at: u64, end: u64) -> Result<u64> {
    device.direct_access(page.get(), 1, Access::Recovery)?;
    Ok((PAGE_SIZE - at % PAGE_SIZE).min(end - at))
}
