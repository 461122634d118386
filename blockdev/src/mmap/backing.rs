//! Room in the file before a store to it.
//!
//! A store to a hole of a mapped file makes the file system allocate in a page fault, and a full one makes an error of
//! that in the middle of the store. So every chunk is given its blocks before anybody may store to it, and the
//! system call that does so says that there is no room before anything is stored.
//!
//! On tmpfs a load from a hole of a mapped file allocates too. There, reads of a chunk without room go
//! through the file, and slices for loading are given room like those for storing. A file opened read-only
//! cannot be given room; reads of it go through the file when the map fails.
//!
//! What is not known beforehand is met in the store: blocks that the file shares with a copy of it, and a folio of page
//! cache larger than a chunk over a hole, made by somebody's read-ahead. See `lost` for what becomes of it.
//!
//! # Invariants
//! 1. A chunk in `backed` has blocks for every byte of the file in it, and stays so while it is mapped, unless what it
//!    holds is discarded.
//! 2. A hole is only punched into chunks that are not in `backed`, under the lock that adding takes: nobody
//!    has been allowed to store there.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate};
use rustix::io::Errno;

use super::chunks::{CHUNK, Chunks, touched};
use crate::open::io_error;
use crate::sync::Mutex;
use crate::{PAGE_SIZE, Result};

/// Which chunks of a mapped file are known to have room.
#[derive(Debug)]
pub(super) struct Backing {
    backed: Chunks,
    /// Serialises the system calls; see invariant 2.
    filling: Mutex<()>,
    size: u64,
    loads_allocate: bool,
}

/// Whether the file is on a tmpfs.
pub(super) fn is_tmpfs(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    {
        const TMPFS_MAGIC: u64 = 0x0102_1994;
        rustix::fs::fstatfs(file).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(TMPFS_MAGIC))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        false
    }
}

impl Backing {
    /// `None` for a file that has all of its blocks, or a device that needs none.
    pub(super) fn of(file: &File, size: u64) -> Result<Option<Self>> {
        let metadata = file.metadata().map_err(|error| io_error("open", 0, error))?;
        // Either alone may lie: blocks of metadata count as well, and a file system that does not know its
        // holes names none. Holes are looked for last: that can take milliseconds.
        let has_no_hole = || {
            metadata.blocks().saturating_mul(512) >= size
                && rustix::fs::seek(file, SeekFrom::Hole(0)) == Ok(size)
        };
        if !metadata.is_file() || has_no_hole() {
            return Ok(None);
        }
        let loads_allocate = is_tmpfs(file);
        Ok(Some(Self { backed: Chunks::new(size), filling: Mutex::new(()), size, loads_allocate }))
    }

    /// Of a file that has all of its blocks.
    pub(super) fn full(file: &File, size: u64) -> Self {
        let backed = Chunks::new(size);
        (0..size.div_ceil(CHUNK)).for_each(|chunk| backed.insert(chunk));
        Self { backed, filling: Mutex::new(()), size, loads_allocate: is_tmpfs(file) }
    }

    /// Gives back the room of the whole chunks in the range, which nobody stores to meanwhile.
    pub(super) fn discard(&self, file: &File, offset: u64, len: u64) -> Result<()> {
        let end = offset + len;
        let (first, end) = (offset.div_ceil(CHUNK), if end == self.size { end } else { end / CHUNK * CHUNK });
        let start = first * CHUNK;
        if start < end {
            let _filling = self.filling.lock();
            touched(start, end - start).for_each(|chunk| self.backed.remove(chunk));
            crate::file::discard(file, start, end - start)?;
        }
        Ok(())
    }

    /// Whether a load from the range, which lies in the file, could need room that there is not.
    #[inline]
    pub(super) fn load_allocates(&self, offset: u64, len: u64) -> bool {
        self.loads_allocate && len > 0 && !touched(offset, len).all(|chunk| self.backed.contains(chunk))
    }

    /// Makes room for `offset..offset + len`, which lies in the file and is not empty; `touch` stores a byte over itself in
    /// one step, or gives false.
    #[inline]
    pub(super) fn ensure(
        &self,
        file: &File,
        offset: u64,
        len: u64,
        touch: impl Fn(u64) -> bool,
    ) -> Result<()> {
        if touched(offset, len).all(|chunk| self.backed.contains(chunk)) {
            return Ok(());
        }
        self.fill(file, offset, len, touch)
    }

    #[cold]
    fn fill(&self, file: &File, offset: u64, len: u64, touch: impl Fn(u64) -> bool) -> Result<()> {
        let _filling = self.filling.lock();
        self.runs_without(offset, len, |start, end| {
            // Whole chunks, whatever part of them was asked for.
            let start = start / CHUNK * CHUNK;
            let end = end.next_multiple_of(CHUNK).min(self.size);
            allocate(file, start, end - start, &touch)?;
            touched(start, end - start).for_each(|chunk| self.backed.insert(chunk));
            Ok(())
        })
    }

    /// Writes to a range that has no room yet by a system call: the file system takes the bytes with the blocks, and
    /// need not clear these first. Gives false, and writes nothing, if a part of the range has room or it is less
    /// than a chunk.
    pub(super) fn write(&self, file: &File, offset: u64, buf: &[u8]) -> Result<bool> {
        let len = buf.len() as u64;
        let has_room = || touched(offset, len).any(|chunk| self.backed.contains(chunk));
        if len < CHUNK || has_room() {
            return Ok(false);
        }
        let _filling = self.filling.lock();
        if has_room() {
            return Ok(false);
        }
        file.write_all_at(buf, offset).map_err(|error| io_error("write", offset, error))?;
        // The chunks at both ends may have room for a part only.
        let is_whole =
            |chunk: &u64| chunk * CHUNK >= offset && ((chunk + 1) * CHUNK).min(self.size) <= offset + len;
        touched(offset, len).filter(is_whole).for_each(|chunk| self.backed.insert(chunk));
        Ok(true)
    }

    /// Makes zeros of the range, by holes where no room has been made yet, and by `store` elsewhere.
    pub(super) fn zero(
        &self,
        file: &File,
        (offset, len): (u64, u64),
        touch: impl Fn(u64) -> bool,
        mut store: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let mut at = offset;
        let end = offset + len;
        while at < end {
            // A run of chunks that are all backed, or all not.
            let backed = self.backed.contains(at / CHUNK);
            let mut stop = at;
            while stop < end && self.backed.contains(stop / CHUNK) == backed {
                stop = (stop / CHUNK + 1).saturating_mul(CHUNK).min(end);
            }
            if backed || !self.punch(file, at, stop - at)? {
                self.ensure(file, at, stop - at, &touch)?;
                store(at, stop - at)?;
            }
            at = stop;
        }
        Ok(())
    }

    /// Punches the range if that is worth a system call, still without room, and possible.
    fn punch(&self, file: &File, offset: u64, len: u64) -> Result<bool> {
        if len < PAGE_SIZE {
            return Ok(false);
        }
        let _filling = self.filling.lock();
        if touched(offset, len).any(|chunk| self.backed.contains(chunk)) {
            return Ok(false);
        }
        crate::file::punch(file, offset, len)
    }

    /// Calls `visit(start, end)` for each run of bytes in the range whose chunks have no room.
    fn runs_without(
        &self,
        offset: u64,
        len: u64,
        mut visit: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let mut run = None;
        for chunk in touched(offset, len) {
            if self.backed.contains(chunk) {
                if let Some(start) = run.take() {
                    visit(start * CHUNK, chunk * CHUNK)?;
                }
            } else if run.is_none() {
                run = Some(chunk);
            }
        }
        match run {
            Some(start) => visit(start * CHUNK, offset + len),
            None => Ok(()),
        }
    }
}

/// Gives the range its blocks without changing a byte.
fn allocate(file: &File, offset: u64, len: u64, touch: impl Fn(u64) -> bool) -> Result<()> {
    match rustix::io::retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, offset, len)) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => allocate_by_storing(file, offset, len, touch),
        Err(error) => Err(io_error("allocate", offset, error.into())),
    }
}

/// Gives the range its blocks by storing one byte of each page over itself. Who maps the file by himself, as a real mapping or a
/// virtual machine does, may store to the page at that moment: so it is done in one step where there is one.
fn allocate_by_storing(file: &File, offset: u64, len: u64, touch: impl Fn(u64) -> bool) -> Result<()> {
    let mut byte = [0];
    let mut at = offset;
    while at < offset + len {
        if !touch(at) {
            file.read_exact_at(&mut byte, at).map_err(|error| io_error("allocate", at, error))?;
            file.write_all_at(&byte, at).map_err(|error| io_error("allocate", at, error))?;
        }
        at += PAGE_SIZE;
    }
    Ok(())
}
