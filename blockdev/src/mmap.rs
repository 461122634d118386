//! An image file as memory.
//!
//! # Invariants
//! 1. The whole file is mapped, shared, for as long as the device lives, at a multiple of 2 MiB.
//! 2. No store is let through to a place for which the file has no room: see `backing`.
//! 3. With [`Durability::Strict`] on a file that is not persistent memory, a chunk is in `dirty` from after
//!    the store until it is on the media, and a fence does not return before another that took its bit.
//!
//! What no lock keeps away is somebody who truncates the file while it is mapped, and a file system that is full where
//! the file shares its blocks with a copy. An access that the system refuses is looked into, and becomes an error
//! that says why: see `sigbus` and `lost`.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use crate::image_file::ImageFile;
use crate::mem::{self, Media};
use crate::open::{io_error, open_file};
use crate::ram::FIRST_PFN;
use crate::range::{check, check_words, page_run};
use crate::sync::Mutex;
use crate::{
    Access, BackingFile, BlockDevice, Claim, DaxDevice, DeviceOptions, Durability, Error, LostPages,
    PAGE_SIZE, PmemSlice, Result, StoreData, StoreObserver, StorePath,
};

mod backing;
mod chunks;
mod lost;
mod region;
mod rented;

use backing::Backing;
use chunks::{CHUNK, Chunks, touched};
use region::Region;
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) use region::takes_sync;
use rented::Rented;

/// A mapped image file; persistent memory if the file is on a DAX file system.
///
/// | file | durability | `fence` | `flush` |
/// |---|---|---|---|
/// | `MAP_SYNC` works (DAX) | either | cache lines were written back; `sfence` | the same |
/// | page cache | [`Durability::Relaxed`] | program order | fdatasync |
/// | page cache | [`Durability::Strict`] | msync of what is dirty | fdatasync |
///
/// Opened read-only it is mapped for reading, and needs no write permission. A sparse file stays sparse:
/// blocks are allocated in 64 KiB chunks before the first store to each, or by the write itself if that is
/// larger, and [`Error::NoSpace`] says if there are none. A page that the system cannot supply all the same (the file was
/// truncated, the disk is full or fails) is an error of the call that met it, see [`sigbus`](crate::sigbus). Into page cache, the first writes of 64 KiB or more to a chunk go
/// through the file, and save the page faults. (On a file system that copies on write, such as btrfs, an allocation is no promise.)
///
/// ```
/// use blockdev::{BlockDevice, DeviceOptions, MmapDevice};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("image");
/// std::fs::write(&path, [0; 8192])?;
/// let device = MmapDevice::open(&path, &DeviceOptions::read_write())?;
/// device.write_at(4096, b"stored")?;
/// device.flush()?;
/// assert_eq!(&std::fs::read(&path)?[4096..4102], b"stored");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MmapDevice {
    /// `None` for an empty file, which cannot be mapped.
    region: Option<Region>,
    /// First byte of the region; dangling for an empty file.
    base: Base,
    file: ImageFile,
    size: u64,
    media: Media,
    read_only: bool,
    /// Whether a page that cannot be supplied is an error and not the end of the process.
    resumes: bool,
    /// Unset while the file has all of its blocks.
    backing: OnceLock<Backing>,
    dirty: Option<Dirty>,
    /// `None` for persistent memory, and where nothing is written.
    rented: Option<Rented>,
}

#[derive(Clone, Copy, Debug)]
struct Base(*mut u8);

// SAFETY: an address; what is behind it belongs to the region, and is only accessed through `mem`.
unsafe impl Send for Base {}
// SAFETY: as for `Send`.
unsafe impl Sync for Base {}

/// What a strict fence has to write out.
#[derive(Debug)]
struct Dirty {
    chunks: Chunks,
    /// Held while chunks are taken out and written, so that who finds them gone knows them durable.
    writing: Mutex<()>,
}

impl MmapDevice {
    /// Opens and maps the file at `path`; `options.kind` is ignored.
    ///
    /// # Errors
    /// `Io`, with `op` `lock` where somebody else holds it; `Unsupported` for a file larger than the
    /// address space.
    pub fn open(path: &Path, options: &DeviceOptions) -> Result<Self> {
        let (file, size) = open_file(path, options)?;
        let resumes = options.lost_pages == LostPages::Report && crate::sigbus::install();
        let region = if size == 0 { None } else { Some(Region::map(&file, size, !options.read_only)?) };
        let base = region.as_ref().map_or(core::ptr::dangling_mut(), Region::base);
        let media = region.as_ref().map_or(Media::Volatile, Region::media);
        let backing = if options.read_only { None } else { Backing::of(&file, size)? };
        let backing = backing.map_or_else(OnceLock::new, OnceLock::from);
        let strict = options.durability == Durability::Strict && media == Media::Volatile;
        let dirty = (strict && !options.read_only)
            .then(|| Dirty { chunks: Chunks::new(size), writing: Mutex::new(()) });
        // Under Miri the file is only a copy.
        let rented =
            (media == Media::Volatile && !options.read_only && !cfg!(miri)).then(|| Rented::new(size));
        let read_only = options.read_only;
        Ok(Self { region, base: Base(base), file, size, media, read_only, resumes, backing, dirty, rented })
    }

    /// Whether the file is page cache or persistent memory.
    pub fn media(&self) -> Media {
        self.media
    }

    /// The address of `offset` when `len` bytes from there lie in the device.
    #[inline(always)]
    fn at(&self, offset: u64, len: u64) -> Result<*mut u8> {
        check(offset, len, self.size)?;
        // SAFETY: `offset <= size`, so the pointer stays within, or one past, the region.
        Ok(unsafe { self.base.0.add(offset as usize) })
    }

    /// As [`at`](Self::at), with the right and the room to store.
    #[inline]
    fn at_for_store(&self, offset: u64, len: u64) -> Result<*mut u8> {
        let at = self.at(offset, len)?;
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        if let Some(backing) = self.backing.get()
            && len > 0
        {
            backing.ensure(&self.file, offset, len, |at| self.touch(at))?;
        }
        Ok(at)
    }

    /// Stores a byte over itself in one step. False where that is not possible, or might end the process.
    fn touch(&self, offset: u64) -> bool {
        // SAFETY: `at` finds the byte to lie in the region; who makes room may store.
        self.resumes && self.at(offset, 1).is_ok_and(|at| unsafe { mem::touch(at) })
    }

    /// Notes that the range was stored to.
    #[inline]
    fn stored(&self, offset: u64, len: u64) {
        if let Some(dirty) = &self.dirty
            && len > 0
        {
            touched(offset, len).for_each(|chunk| dirty.chunks.insert(chunk));
        }
    }

    /// Waits until the file is on the media, with its size and block map.
    fn sync_file(&self) -> Result<()> {
        match &self.region {
            Some(region) if !self.read_only => region.sync_all(&self.file),
            _ => Ok(()),
        }
    }

    /// Writes by a system call, where that is cheaper: see `rented`. Gives false, and has written nothing, elsewhere.
    fn write_through_file(&self, offset: u64, buf: &[u8]) -> Result<bool> {
        let Some(rented) = &self.rented else { return Ok(false) };
        check(offset, buf.len() as u64, self.size)?;
        let by_file = rented.by_file(offset, buf.len() as u64);
        // A write would make a file longer that somebody truncated; the map gives the error.
        if (by_file || self.backing.get().is_some()) && self.is_shorter_than(offset + buf.len() as u64) {
            return Ok(false);
        }
        if let Some(backing) = self.backing.get()
            && backing.write(&self.file, offset, buf)?
        {
            return Ok(true);
        }
        if by_file {
            // A chunk that has no room could be made a hole meanwhile.
            self.at_for_store(offset, buf.len() as u64)?;
            self.file.write_all_at(buf, offset).map_err(|error| io_error("write", offset, error))?;
        }
        Ok(by_file)
    }

    /// Zeros through the map.
    fn store_zeros(&self, offset: u64, len: u64) -> Result<()> {
        let at = self.at(offset, len)?;
        // SAFETY: `at` found the bytes to lie in the region; the callers asked for the right and the room.
        // OK to cast: at most the size, which was mapped.
        unsafe { mem::zero(at, len as usize, self.media) }
            .or_else(|fault| self.zeros_lost(fault, offset, len))
    }
}

impl AsFd for MmapDevice {
    /// The file, whose byte 0 is the device's.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl BlockDevice for MmapDevice {
    #[inline]
    fn size(&self) -> u64 {
        self.size
    }

    #[inline]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let at = self.at(offset, buf.len() as u64)?;
        if let Some(backing) = self.backing.get()
            && backing.load_allocates(offset, buf.len() as u64)
        {
            return self.file.read_exact_at(buf, offset).map_err(|error| io_error("read", offset, error));
        }
        // SAFETY: `at` found the bytes to lie in the region, which is mapped for reading.
        unsafe { mem::copy_out(at, buf) }.or_else(|fault| self.load_lost(fault, offset, buf))
    }

    #[inline]
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        if buf.len() as u64 >= CHUNK && self.write_through_file(offset, buf)? {
            self.stored(offset, buf.len() as u64);
            return Ok(());
        }
        let at = self.at_for_store(offset, buf.len() as u64)?;
        // SAFETY: `at_for_store` found the bytes to lie in the region, mapped for writing and with room.
        unsafe { mem::copy_in(at, buf, self.media) }.or_else(|fault| self.store_lost(fault, offset, buf))?;
        self.stored(offset, buf.len() as u64);
        Ok(())
    }

    fn write_words(&self, offset: u64, words: &[u32]) -> Result<()> {
        check_words(offset, words, self.size)?;
        let len = size_of_val(words) as u64;
        let at = self.at_for_store(offset, len)?;
        // SAFETY: `at_for_store` found the bytes to lie in the region, mapped for writing and with room; it is
        // aligned, as the offset is.
        unsafe { mem::store_words(at, words, self.media) }
            .or_else(|fault| self.words_lost(fault, offset, words))?;
        self.stored(offset, len);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        check(offset, len, self.size)?;
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        if len == 0 {
            return Ok(());
        }
        match self.backing.get() {
            None => self.store_zeros(offset, len)?,
            Some(backing) => {
                let touch = |at| self.touch(at);
                backing
                    .zero(&self.file, (offset, len), touch, |offset, len| self.store_zeros(offset, len))?;
                if self.media == Media::Persistent && len >= PAGE_SIZE {
                    // A hole is the file system's metadata, which no cache line write-back makes durable.
                    self.sync_file()?;
                }
            }
        }
        self.stored(offset, len);
        Ok(())
    }

    #[inline]
    fn fence(&self) -> Result<()> {
        mem::store_fence(self.media);
        let (Some(dirty), Some(region)) = (&self.dirty, &self.region) else { return Ok(()) };
        let _writing = dirty.writing.lock();
        dirty.chunks.drain(|run| region.sync(&self.file, run.start * CHUNK, (run.end - run.start) * CHUNK))
    }

    fn flush(&self) -> Result<()> {
        mem::store_fence(self.media);
        match self.media {
            Media::Persistent => Ok(()),
            Media::Volatile => self.sync_file(),
        }
    }

    /// Gives back the room of a file in chunks of 64 KiB.
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        check(offset, len, self.size)?;
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        if len == 0 {
            return Ok(());
        }
        if self.backing.get().is_none() && !self.file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            // A device needs no room that could be missing.
            return crate::file::discard(&self.file, offset, len);
        }
        self.backing.get_or_init(|| Backing::full(&self.file, self.size)).discard(&self.file, offset, len)
    }

    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        check(offset, len, self.size)?;
        self.file.claim(offset, len)
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn backing_file(&self) -> Option<BackingFile<'_>> {
        Some(BackingFile { fd: self.file.as_fd(), offset: 0 })
    }

    /// Page cache only, and where the kernel tells this process what is in memory: the file is open for writing, or its
    /// owner's or root's.
    fn populate(&self, offset: u64, len: u64) -> Result<()> {
        check(offset, len, self.size)?;
        if let Some(region) = &self.region
            && self.media == Media::Volatile
            && (!self.read_only || self.file.is_ours())
        {
            region.populate(offset, len);
        }
        Ok(())
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        Some(self)
    }
}

impl DaxDevice for MmapDevice {
    /// A run for storing is given its room in the file now, so it may be shorter than asked where the
    /// file system is full.
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        let (offset, mut len) = page_run(page, count, self.size)?;
        let needs_room = match (self.backing.get(), mode) {
            (Some(backing), Access::Read) => backing.load_allocates(offset, len),
            (_, mode) => mode != Access::Read,
        };
        let at = if needs_room {
            match self.at_for_store(offset, len) {
                Err(Error::NoSpace { .. }) if len > PAGE_SIZE => {
                    len = PAGE_SIZE;
                    self.at_for_store(offset, len)?
                }
                at => at?,
            }
        } else {
            self.at(offset, len)?
        };
        // SAFETY: the run lies in the region, which lives as long as `self` is borrowed, is mapped for
        // writing and has room where `mode` asks for it, and is accessed only through `mem`.
        let slice = unsafe { PmemSlice::from_raw_parts(at, len as usize, offset, self.media, mode) };
        match &self.dirty {
            None => Ok(slice),
            Some(_) => slice.reissue(offset, Some(self)),
        }
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.write_at(offset, buf)
    }

    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        let at = self.at(offset, len)?;
        if self.media == Media::Persistent {
            // SAFETY: `at` found the bytes to lie in the region.
            unsafe { mem::write_back(at, len as usize) }
                .map_err(|fault| fault.error("flush", at, len as usize, offset))?;
        }
        self.stored(offset, len);
        Ok(())
    }

    #[inline]
    fn pfn(&self, page: u64) -> u64 {
        FIRST_PFN.saturating_add(page)
    }

    fn observer(&self) -> Option<&dyn StoreObserver> {
        self.dirty.as_ref().map(|_| self as &dyn StoreObserver)
    }
}

/// Only for strict durability: stores through slices are dirt too.
impl StoreObserver for MmapDevice {
    fn before_store(&self, _offset: u64, _data: StoreData<'_>, _path: StorePath) -> Result<()> {
        Ok(())
    }

    fn after_store(&self, offset: u64, len: u64) {
        self.stored(offset, len);
    }
}
