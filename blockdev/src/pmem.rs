//! A run of device memory that copies, and never lends a reference.
//!
//! # Invariants
//! 1. No `&[u8]` and no `&mut [u8]` over device memory exists anywhere: others (threads, processes, the
//!    media) change it at any time. See `mem` for what is done instead.
//! 2. Every store through a slice that a watching layer handed out passes its [`StoreObserver`] first, in
//!    the coordinates of the device that handed out the slice.

use core::fmt;
use core::marker::PhantomData;

use crate::mem::{self, Media};
use crate::range::check;
use crate::{Error, Result};

/// What a store puts into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreData<'d> {
    /// These bytes.
    Bytes(&'d [u8]),
    /// So many zero bytes.
    Zeros(u64),
}

impl StoreData<'_> {
    /// Bytes stored.
    pub fn len(&self) -> u64 {
        match *self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(len) => len,
        }
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which way a store takes to the media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StorePath {
    /// Past the caches, or written back at once: the next fence makes it durable.
    Bypassing,
    /// Through the caches: durable only after [`write_back`](crate::DaxDevice::write_back) and a fence,
    /// though it may reach the media at any earlier time.
    Cached,
}

/// A layer that wants to know of the stores made through slices that it handed out. Offsets are bytes of
/// that layer's device.
pub trait StoreObserver: Send + Sync {
    /// Called before the store; an error keeps it from happening.
    ///
    /// # Errors
    /// Whatever the layer makes of the store: an injected failure, or the error of a layer below.
    fn before_store(&self, offset: u64, data: StoreData<'_>, path: StorePath) -> Result<()>;

    /// Called after a store that [`before_store`](Self::before_store) let pass.
    fn after_store(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Called before `len` bytes are loaded.
    ///
    /// # Errors
    /// As for [`before_store`](Self::before_store).
    fn before_load(&self, offset: u64, len: u64) -> Result<()> {
        let _ = (offset, len);
        Ok(())
    }
}

/// A run of device memory: `len` bytes from byte `device_offset` of the device that handed it out.
///
/// It is a cursor-less window: every access names an offset in bytes from the start of the slice, is
/// checked against its length, and copies. Slices are `Copy`; all of them may be used at once.
///
/// Every access can also give `Io` with the offset on the device, where the page behind it cannot be supplied (see
/// `sigbus`), or `Poisoned`.
///
/// ```
/// use blockdev::{Access, BlockDevice, DaxDevice, RamDevice};
///
/// let ram = RamDevice::new(1 << 20)?;
/// let page = ram.direct_access(1, 1, Access::Write)?;
/// page.store_u32(8, 0x1234_5678)?;
/// let mut bytes = [0; 4];
/// ram.read_at(4096 + 8, &mut bytes)?;
/// assert_eq!(u32::from_le_bytes(bytes), 0x1234_5678);
/// # Ok::<(), blockdev::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct PmemSlice<'a> {
    ptr: *mut u8,
    len: usize,
    device_offset: u64,
    media: Media,
    writable: bool,
    observer: Option<&'a dyn StoreObserver>,
    memory: PhantomData<&'a ()>,
}

// SAFETY: a slice is an address with bounds; what is behind it is only accessed through `mem`, which is
// made for memory that many threads use at once, and the observer is `Sync` (so a reference to it is `Send`).
unsafe impl Send for PmemSlice<'_> {}
// SAFETY: as for `Send`; there is no interior state.
unsafe impl Sync for PmemSlice<'_> {}

impl fmt::Debug for PmemSlice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PmemSlice")
            .field("device_offset", &self.device_offset)
            .field("len", &self.len)
            .field("media", &self.media)
            .field("writable", &self.writable)
            .field("observed", &self.observer.is_some())
            .finish_non_exhaustive()
    }
}

macro_rules! word_access {
    ($load:ident, $store:ident, $int:ty, $bytes:literal, $bits:literal) => {
        #[doc = concat!("One little-endian ", $bits, "-bit load at a multiple of ", $bytes, ".")]
        ///
        /// # Errors
        /// `OutOfRange`; `Unsupported` where the address is not a multiple of the width.
        #[inline]
        pub fn $load(&self, offset: u64) -> Result<$int> {
            let at = self.word(offset, $bytes)?;
            if let Some(observer) = self.observer {
                observer.before_load(self.device_offset + offset, $bytes)?;
            }
            // SAFETY: `word` found the bytes to lie in the slice, whose memory is valid by the contract of
            // `from_raw_parts`, and the address to be aligned.
            unsafe { mem::$load(at) }.map_err(|fault| self.fault(fault, "load", at, $bytes))
        }

        #[doc = concat!("One little-endian ", $bits, "-bit store at a multiple of ", $bytes, ", through")]
        /// the caches: it needs a write-back of its line before a fence makes it durable.
        ///
        /// # Errors
        /// `OutOfRange`; `ReadOnly` for a slice had for reading; `Unsupported` where the address is not a
        /// multiple of the width; what the observer says.
        #[inline]
        pub fn $store(&self, offset: u64, value: $int) -> Result<()> {
            let at = self.word(offset, $bytes)?;
            self.announce(offset, StoreData::Bytes(&value.to_le_bytes()), StorePath::Cached)?;
            // SAFETY: `word` found the bytes to lie in the slice, whose memory is valid, and writable as
            // `announce` asked, by the contract of `from_raw_parts`; the address is aligned.
            unsafe { mem::$store(at, value) }.map_err(|fault| self.fault(fault, "store", at, $bytes))?;
            self.stored(offset, $bytes);
            Ok(())
        }
    };
}

impl<'a> PmemSlice<'a> {
    /// A slice of the memory at `ptr`, which is byte `device_offset` of its device.
    ///
    /// # Safety
    /// For `'a`, `ptr..ptr + len` is mapped, readable, and writable if `access` is not
    /// [`Access::Read`](crate::Access), and nobody in this process accesses it other than by atomics or
    /// assembly. `device_offset + len` does not overflow.
    pub unsafe fn from_raw_parts(
        ptr: *mut u8,
        len: usize,
        device_offset: u64,
        media: Media,
        access: crate::Access,
    ) -> Self {
        let writable = access != crate::Access::Read;
        Self { ptr, len, device_offset, media, writable, observer: None, memory: PhantomData }
    }

    /// The same memory as another device's: `device_offset` is where it begins on that device, `observer`
    /// who is told of the stores, and has to tell the observer there was before. For layers.
    ///
    /// # Errors
    /// `OutOfRange` if the slice would reach past the last byte that a device can have.
    pub fn reissue(self, device_offset: u64, observer: Option<&'a dyn StoreObserver>) -> Result<Self> {
        check(device_offset, self.len as u64, u64::MAX)?;
        Ok(Self { device_offset, observer, ..self })
    }

    /// The same memory without the right to store.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { writable: false, ..self }
    }

    /// Bytes.
    #[inline]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Whether there is no byte.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Byte of the device at which the slice begins.
    #[inline]
    pub fn device_offset(&self) -> u64 {
        self.device_offset
    }

    /// What kind of memory it is.
    #[inline]
    pub fn media(&self) -> Media {
        self.media
    }

    /// The address, for those who map this memory elsewhere or give it to a system call. Stores made through it pass
    /// no observer. An access by other means than this crate's is a bus error where the page cannot be supplied; a system
    /// call gives `EFAULT` there.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// The `len` bytes from `offset` as a slice of their own.
    ///
    /// # Errors
    /// `OutOfRange`.
    #[inline]
    pub fn subslice(&self, offset: u64, len: u64) -> Result<Self> {
        let ptr = self.at(offset, len)?;
        // OK to cast: `len` is at most `self.len`.
        Ok(Self { ptr, len: len as usize, device_offset: self.device_offset + offset, ..*self })
    }

    /// Fills `buf` from byte `offset`.
    ///
    /// # Errors
    /// `OutOfRange`, before anything is copied.
    #[inline]
    pub fn copy_out(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let at = self.at(offset, buf.len() as u64)?;
        if let Some(observer) = self.observer {
            observer.before_load(self.device_offset + offset, buf.len() as u64)?;
        }
        // SAFETY: `at` found the bytes to lie in the slice, whose memory is valid by the contract of
        // `from_raw_parts`.
        unsafe { mem::copy_out(at, buf) }.map_err(|fault| self.fault(fault, "load", at, buf.len()))
    }

    /// Stores `buf` at byte `offset`, past the caches or written back at once: a fence is all that it needs.
    ///
    /// # Errors
    /// `OutOfRange`, `ReadOnly`, what the observer says; each before anything is stored.
    #[inline]
    pub fn copy_in(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let at = self.at(offset, buf.len() as u64)?;
        self.announce(offset, StoreData::Bytes(buf), StorePath::Bypassing)?;
        // SAFETY: `at` found the bytes to lie in the slice, whose memory is valid, and writable as
        // `announce` asked, by the contract of `from_raw_parts`.
        unsafe { mem::copy_in(at, buf, self.media) }
            .map_err(|fault| self.fault(fault, "store", at, buf.len()))?;
        self.stored(offset, buf.len() as u64);
        Ok(())
    }

    /// Stores `buf` at byte `offset` through the caches, as a store to a mapping does: it needs a write-back of
    /// its lines before a fence makes it durable.
    ///
    /// # Errors
    /// As for [`copy_in`](Self::copy_in).
    #[inline]
    pub fn copy_in_cached(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let at = self.at(offset, buf.len() as u64)?;
        self.announce(offset, StoreData::Bytes(buf), StorePath::Cached)?;
        // SAFETY: as in `copy_in`.
        unsafe { mem::copy_in_cached(at, buf) }.map_err(|fault| self.fault(fault, "store", at, buf.len()))?;
        self.stored(offset, buf.len() as u64);
        Ok(())
    }

    /// Stores all of `source` at `offset`, as [`copy_in`](Self::copy_in) does. The two may be the same
    /// memory; if they overlap in part the result is a mix of old and new bytes.
    ///
    /// # Errors
    /// As for [`copy_in`](Self::copy_in), and what `source`'s observer says.
    pub fn copy_from_slice_of(&self, offset: u64, source: &PmemSlice<'_>) -> Result<()> {
        if self.observer.is_some() || source.observer.is_some() {
            return self.copy_watched(offset, source);
        }
        let at = self.at(offset, source.len())?;
        self.writable()?;
        // SAFETY: `at` found the target to lie in this slice, which is writable; the source is the whole of
        // the other one; both are valid by the contract of `from_raw_parts`.
        unsafe { mem::copy_across(at, source.ptr, source.len, self.media) }.map_err(|fault| {
            if fault.is_in(source.ptr, source.len) {
                source.fault(fault, "load", source.ptr, source.len)
            } else {
                self.fault(fault, "store", at, source.len)
            }
        })
    }

    /// Copies by way of a buffer, so that an observer can be shown the bytes that will be stored.
    fn copy_watched(&self, offset: u64, source: &PmemSlice<'_>) -> Result<()> {
        self.at(offset, source.len())?;
        let mut buf = [0; 1024];
        let mut done = 0;
        while done < source.len() {
            // OK to cast: at most the buffer's length.
            let piece = &mut buf[..(source.len() - done).min(1024) as usize];
            source.copy_out(done, piece)?;
            self.copy_in(offset + done, piece)?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    /// Stores zeros in `offset..offset + len`, as [`copy_in`](Self::copy_in) stores bytes.
    ///
    /// # Errors
    /// As for [`copy_in`](Self::copy_in).
    #[inline]
    pub fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let at = self.at(offset, len)?;
        self.announce(offset, StoreData::Zeros(len), StorePath::Bypassing)?;
        // SAFETY: as in `copy_in`; OK to cast, as `len` is at most `self.len`.
        unsafe { mem::zero(at, len as usize, self.media) }
            .map_err(|fault| self.fault(fault, "store", at, len as usize))?;
        self.stored(offset, len);
        Ok(())
    }

    word_access!(load_u8, store_u8, u8, 1, "8");
    word_access!(load_u16, store_u16, u16, 2, "16");
    word_access!(load_u32, store_u32, u32, 4, "32");
    word_access!(load_u64, store_u64, u64, 8, "64");

    /// The address of `offset` when `len` bytes from there lie in the slice.
    #[inline]
    fn at(&self, offset: u64, len: u64) -> Result<*mut u8> {
        check(offset, len, self.len as u64)?;
        // SAFETY: `offset <= self.len`, so the pointer stays within, or one past, the slice's memory.
        Ok(unsafe { self.ptr.add(offset as usize) })
    }

    /// The error of an access of `len` bytes at `at`, which lie in the slice.
    #[cold]
    fn fault(&self, fault: mem::Fault, op: &'static str, at: *const u8, len: usize) -> Error {
        let offset = self.device_offset + (at.addr() - self.ptr.addr()) as u64;
        fault.error(op, at, len, offset)
    }

    #[inline]
    fn word(&self, offset: u64, bytes: usize) -> Result<*mut u8> {
        let at = self.at(offset, bytes as u64)?;
        if at.addr() & (bytes - 1) == 0 {
            Ok(at)
        } else {
            Err(Error::Unsupported("an unaligned word access"))
        }
    }

    #[inline]
    fn writable(&self) -> Result<()> {
        if self.writable { Ok(()) } else { Err(Error::ReadOnly) }
    }

    #[inline]
    fn announce(&self, offset: u64, data: StoreData<'_>, path: StorePath) -> Result<()> {
        self.writable()?;
        match self.observer {
            None => Ok(()),
            Some(observer) => observer.before_store(self.device_offset + offset, data, path),
        }
    }

    #[inline]
    fn stored(&self, offset: u64, len: u64) {
        if let Some(observer) = self.observer {
            observer.after_store(self.device_offset + offset, len);
        }
    }
}
