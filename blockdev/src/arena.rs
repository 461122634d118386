//! A device put together in memory: pieces of files, mapped where they lie, and bytes that lie nowhere else.
//!
//! # Invariants
//! 1. The range was reserved by one object, is readable as a whole at all times, and is unmapped when that object goes.
//! 2. A page is either memory of the process, which is stored to only by who has the arena to himself, or a page of a file,
//!    mapped for reading.
//! 3. What is mapped of files is what they are at the moment: whoever has to know that they have not changed asks them himself.
//!    A page that a file has no more is an error of the load that met it, by [`sigbus`](crate::sigbus).

use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use alloc::collections::BTreeMap;
use alloc::vec;

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::mem::{self, Media};
use crate::open::io_error;
use crate::ram::{FIRST_PFN, HUGE_PAGE};
use crate::range::{check, page_run};
use crate::{Access, BlockDevice, DaxDevice, Error, PmemSlice, Result};

/// Memory made of pieces of files and of bytes; a read-only device with DAX once it is complete. What nothing was put to is zero.
///
/// ```
/// use std::io::Write as _;
///
/// use blockdev::{Arena, BlockDevice as _};
///
/// let mut file = tempfile::tempfile()?;
/// file.write_all(&[7; 10_000])?;
/// let mut arena = Arena::new(1 << 20)?;
/// arena.copy(0, b"header")?;
/// // Two whole pages are mapped, the rest is copied.
/// assert_eq!(arena.map(8192, &file, 0, 10_000)?, 8192);
/// let mut found = [0; 3];
/// arena.read_at(8192 + 9_998, &mut found)?;
/// assert_eq!(found, [7, 7, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Arena {
    reserved: NonNull<c_void>,
    reserved_len: usize,
    /// The first byte, at a multiple of 2 MiB.
    base: NonNull<u8>,
    size: u64,
    /// Ranges of whole pages that are files': where each begins, and its length.
    mapped: BTreeMap<u64, u64>,
    /// A mapping that was refused may have left a gap, which another thread may have got: nothing is touched any more.
    broken: bool,
}

// SAFETY: the arena owns its mapping; what is behind it is only accessed through `mem`.
unsafe impl Send for Arena {}
// SAFETY: as for `Send`; by a shared reference it is only read.
unsafe impl Sync for Arena {}

impl Arena {
    /// Zeros, of which none takes memory.
    ///
    /// # Errors
    /// `Io` with `op` `map`; `Unsupported` for no bytes, or more than there are addresses.
    pub fn new(size: u64) -> Result<Self> {
        crate::sigbus::install();
        let unsupported = Error::Unsupported("an arena of no bytes, or of more than there are addresses");
        let len = usize::try_from(size).ok().filter(|&len| len > 0);
        let reserved_len = len.and_then(|len| len.checked_add(2 * HUGE_PAGE)).ok_or(unsupported.clone())?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping at a place of the kernel's choice touches nothing of ours.
        let reserved = unsafe { mmap_anonymous(null_mut(), reserved_len, prot, flags) };
        let reserved = reserved.map_err(|error| io_error("map", 0, error.into()))?;
        let reserved = NonNull::new(reserved).ok_or(unsupported)?;
        let skip = reserved.addr().get().wrapping_neg() & (HUGE_PAGE - 1);
        // SAFETY: `skip < HUGE_PAGE < reserved_len`.
        let base = unsafe { reserved.cast::<u8>().add(skip) };
        Ok(Self { reserved, reserved_len, base, size, mapped: BTreeMap::new(), broken: false })
    }

    /// Bytes of it that are files'.
    #[must_use]
    pub fn mapped(&self) -> u64 {
        self.mapped.values().sum()
    }

    /// The address of `offset`, where `len` bytes from there lie in the arena.
    fn at(&self, offset: u64, len: u64) -> Result<*mut u8> {
        check(offset, len, self.size)?;
        if self.broken {
            return Err(Error::Unsupported("an arena in which a mapping failed"));
        }
        // SAFETY: `offset <= size`, so that the pointer stays within, or one past, the range.
        Ok(unsafe { self.base.as_ptr().add(offset as usize) })
    }

    /// Refuses a range in which a page of a file lies.
    fn check_unmapped(&self, offset: u64, len: u64) -> Result<()> {
        let before = self.mapped.range(..offset.saturating_add(len)).next_back();
        if before.is_some_and(|(at, mapped)| at + mapped > offset) { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Puts bytes to an offset.
    ///
    /// # Errors
    /// `OutOfRange`; `ReadOnly` where a page of a file lies.
    pub fn copy(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check_unmapped(offset, bytes.len() as u64)?;
        let at = self.at(offset, bytes.len() as u64)?;
        // SAFETY: `at` found the bytes to lie in the range, and none of them in a page that is a file's.
        unsafe { mem::copy_in(at, bytes, Media::Volatile) }
            .map_err(|fault| fault.error("store", at, bytes.len(), offset))
    }

    /// Puts `len` bytes of a file, from its byte `from` on, to an offset: pages that lie in it as they lie in the file are mapped,
    /// the others are copied. Gives the number of bytes that are mapped.
    ///
    /// # Errors
    /// `OutOfRange`; `ReadOnly` where a page of a file lies already; `Io` with `op` `map` or `read`.
    pub fn map(&mut self, offset: u64, file: &File, from: u64, len: u64) -> Result<u64> {
        check(offset, len, self.size)?;
        let page = rustix::param::page_size() as u64;
        let (first, last) = (offset.next_multiple_of(page), (offset + len) / page * page);
        if offset % page != from % page || first >= last {
            self.copy_from(offset, file, from, len)?;
            return Ok(0);
        }
        self.copy_from(offset, file, from, first - offset)?;
        self.map_pages(first, file, from + (first - offset), last - first)?;
        self.copy_from(last, file, from + (last - offset), offset + len - last)?;
        Ok(last - first)
    }

    fn copy_from(&mut self, offset: u64, file: &File, from: u64, len: u64) -> Result<()> {
        let mut buf = vec![0; len.min(1 << 20) as usize];
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(buf.len() as u64) as usize;
            let bytes = buf.get_mut(..piece).unwrap_or_default();
            let read = file.read_exact_at(bytes, from + done);
            read.map_err(|error| io_error("read", offset + done, error))?;
            self.copy(offset + done, buf.get(..piece).unwrap_or_default())?;
            done += piece as u64;
        }
        Ok(())
    }

    /// Maps whole pages.
    fn map_pages(&mut self, offset: u64, file: &File, from: u64, len: u64) -> Result<()> {
        self.check_unmapped(offset, len)?;
        let at = self.at(offset, len)?.cast();
        let failed = |error: rustix::io::Errno| io_error("map", offset, error.into());
        // OK to cast: `at` found it to lie in memory.
        let bytes = len as usize;
        // What can be refused is asked for elsewhere first, where it does no harm.
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing of ours.
        let probe = unsafe { mmap(null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, file, from) };
        // SAFETY: mapped just now, and shown to nobody.
        unsafe { munmap(probe.map_err(failed)?, bytes) }.map_err(failed)?;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: `at..at + bytes` lies in what we reserved, so that it replaces only that; no slice of it is held, since the
        // arena is borrowed alone.
        let done = unsafe { mmap(at, bytes, ProtFlags::READ, flags, file, from) };
        self.broken = done.is_err();
        done.map_err(failed)?;
        self.mapped.insert(offset, len);
        Ok(())
    }
}

impl BlockDevice for Arena {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let at = self.at(offset, buf.len() as u64)?;
        // SAFETY: `at` found the bytes to lie in the range, which is mapped for reading.
        unsafe { mem::copy_out(at, buf) }.map_err(|fault| fault.error("load", at, buf.len(), offset))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.zero(offset, buf.len() as u64)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        check(offset, len, self.size)?;
        Err(Error::ReadOnly)
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        Some(self)
    }
}

impl DaxDevice for Arena {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        let (offset, len) = page_run(page, count, self.size)?;
        if mode != Access::Read {
            return Err(Error::ReadOnly);
        }
        let at = self.at(offset, len)?;
        // SAFETY: the run lies in the range, which lives as long as `self` is borrowed and is mapped for reading; it is accessed
        // only through `mem`.
        Ok(unsafe { PmemSlice::from_raw_parts(at, len as usize, offset, Media::Volatile, mode) })
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.write_at(offset, buf)
    }

    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        check(offset, len, self.size)
    }

    fn pfn(&self, page: u64) -> u64 {
        FIRST_PFN.saturating_add(page)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.broken {
            return;
        }
        // SAFETY: reserved by us, mapped by nobody else, and every slice's borrow has ended.
        let unmapped = unsafe { munmap(self.reserved.as_ptr(), self.reserved_len) };
        if let Err(error) = unmapped {
            log::error!("an arena stays mapped: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use alloc::vec::Vec;

    use super::*;
    use crate::conformance;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn pieces_at_every_offset_are_as_in_the_file() {
        let page = rustix::param::page_size();
        let bytes: Vec<u8> = (0..4 * page).map(|at| (at.wrapping_mul(40_503) >> 8) as u8).collect();
        let file = file(&bytes);
        for (offset, from, len) in [
            (0, 0, 4 * page),
            (0, 1, 3 * page),
            (7, 7, 3 * page),
            (page, 0, page),
            (9, 9, 100),
            (page - 1, page - 1, page + 2),
        ] {
            let mut arena = Arena::new(8 * page as u64).unwrap();
            let mapped = arena.map(offset as u64, &file, from as u64, len as u64).unwrap();
            assert_eq!((mapped as usize % page, arena.mapped()), (0, mapped));
            let mut wanted = vec![0; 8 * page];
            wanted[offset..offset + len].copy_from_slice(&bytes[from..from + len]);
            let mut found = vec![1; 8 * page];
            arena.read_at(0, &mut found).unwrap();
            assert!(found == wanted, "{offset} {from} {len}");
            conformance::check_read_only(&arena);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_the_rest_stays() {
        let page = rustix::param::page_size() as u64;
        let file = file(&vec![3; 2 * page as usize]);
        let mut arena = Arena::new(4 * page).unwrap();
        assert_eq!(arena.map(page, &file, 0, 2 * page).unwrap(), 2 * page);
        // Over a page of a file, outside, of a directory, and past the end of the file.
        assert_eq!(arena.copy(page, b"x"), Err(Error::ReadOnly));
        assert_eq!(arena.map(2 * page, &file, 0, page), Err(Error::ReadOnly));
        assert!(matches!(arena.copy(4 * page, b"x"), Err(Error::OutOfRange { .. })));
        assert!(matches!(arena.map(3 * page, &file, 0, 2 * page), Err(Error::OutOfRange { .. })));
        let folder = File::open("/").unwrap();
        assert!(matches!(arena.map(0, &folder, 0, page), Err(Error::Io { op: "map", .. })));
        assert!(matches!(arena.map(0, &file, 2 * page, 1), Err(Error::Io { op: "read", .. })));
        file.set_len(page).unwrap();
        let mut found = [0; 1];
        arena.read_at(page, &mut found).unwrap();
        assert_eq!(found, [3]);
        if crate::sigbus::is_possible() {
            assert!(matches!(arena.read_at(2 * page, &mut found), Err(Error::Io { op: "load", .. })));
        }
        assert!(Arena::new(0).is_err() && Arena::new(u64::MAX).is_err());
    }
}
