//! Loads and stores on memory that others may write at the same time: another thread, another process
//! that maps the same file, or the device itself.
//!
//! # Invariants
//! 1. No reference to such memory is ever made, and no ordinary Rust access either: bulk copies are inline
//!    assembly (which the compiler must take for an arbitrary access and may neither repeat nor invent),
//!    and single loads and stores are relaxed atomics. Where there is no assembly for the target, and
//!    under Miri, bulk copies are atomics too. A torn value is the worst that a race can give.
//! 2. A copy of 2, 4 or 8 bytes to or from an address that is a multiple of its length is one access.
//! 3. Nothing outside the given range is read or written; within it a byte may be stored twice with the
//!    same value.
//!
//! Accesses of different sizes to the same word do race in the letter of the memory model; as for every
//! user of shared mappings (vm-memory's volatile accesses are the same case), what we rely on is that each
//! compiles to the plain machine access, which assembly and relaxed atomics both promise.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86_64;
#[cfg(all(target_arch = "x86_64", not(miri)))]
use x86_64 as arch;

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod portable;
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
use portable as arch;

/// What a device's memory is, which decides what the best store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// RAM or page cache: caches are as good a place for a byte as any, and ordering is program order.
    Volatile,
    /// Memory that keeps its contents without power: a store counts once it has left the caches, and is
    /// ordered by a store fence.
    Persistent,
}

macro_rules! word {
    ($load:ident, $store:ident, $int:ty, $atomic:ty) => {
        /// One little-endian load.
        ///
        /// # Safety
        /// `src` is valid for reads of the type, shared or not, and a multiple of its size.
        #[inline(always)]
        pub(crate) unsafe fn $load(src: *const u8) -> $int {
            // SAFETY: validity and alignment are the caller's promise; the memory is only accessed through
            // this module, so no non-atomic Rust access races with this one. A load from read-only memory
            // through an atomic of at most 8 bytes compiles to a plain load (std::sync::atomic, "Atomic
            // accesses to read-only memory").
            let atomic = unsafe { <$atomic>::from_ptr(src.cast_mut().cast()) };
            <$int>::from_le(atomic.load(Ordering::Relaxed))
        }

        /// One little-endian store.
        ///
        /// # Safety
        /// `dst` is valid for writes of the type, shared or not, and a multiple of its size.
        #[inline(always)]
        pub(crate) unsafe fn $store(dst: *mut u8, value: $int) {
            // SAFETY: validity and alignment are the caller's promise; the memory is only accessed through
            // this module, so no non-atomic Rust access races with this one.
            let atomic = unsafe { <$atomic>::from_ptr(dst.cast()) };
            atomic.store(value.to_le(), Ordering::Relaxed);
        }
    };
}

word!(load_u8, store_u8, u8, AtomicU8);
word!(load_u16, store_u16, u16, AtomicU16);
word!(load_u32, store_u32, u32, AtomicU32);
word!(load_u64, store_u64, u64, AtomicU64);

#[inline(always)]
fn is_aligned(ptr: *const u8, to: usize) -> bool {
    ptr.addr() & (to - 1) == 0
}

/// Copies out of shared memory.
///
/// # Safety
/// `src` is valid for reads of `dst.len()` bytes, shared or not.
#[inline]
pub(crate) unsafe fn copy_out(src: *const u8, dst: &mut [u8]) {
    match dst.len() {
        // SAFETY: the caller's promise, and the alignment that was just asked.
        4 if is_aligned(src, 4) => dst.copy_from_slice(&unsafe { load_u32(src) }.to_le_bytes()),
        // SAFETY: as above.
        2 if is_aligned(src, 2) => dst.copy_from_slice(&unsafe { load_u16(src) }.to_le_bytes()),
        // SAFETY: as above.
        8 if is_aligned(src, 8) => dst.copy_from_slice(&unsafe { load_u64(src) }.to_le_bytes()),
        // SAFETY: `dst` is an exclusive slice, valid for its own length; `src` is by the caller's promise.
        len => unsafe { arch::copy(dst.as_mut_ptr(), src, len) },
    }
}

/// Copies into shared memory with the cached stores of the processor.
///
/// # Safety
/// `dst` is valid for writes of `src.len()` bytes, shared or not.
#[inline]
pub(crate) unsafe fn copy_in_cached(dst: *mut u8, src: &[u8]) {
    match *src {
        // SAFETY: the caller's promise, and the alignment that was just asked.
        [a, b, c, d] if is_aligned(dst, 4) => unsafe { store_u32(dst, u32::from_le_bytes([a, b, c, d])) },
        // SAFETY: as above.
        [a, b] if is_aligned(dst, 2) => unsafe { store_u16(dst, u16::from_le_bytes([a, b])) },
        [a, b, c, d, e, f, g, h] if is_aligned(dst, 8) => {
            // SAFETY: as above.
            unsafe { store_u64(dst, u64::from_le_bytes([a, b, c, d, e, f, g, h])) }
        }
        // SAFETY: `src` is a slice, valid for its own length; `dst` is by the caller's promise.
        _ => unsafe { arch::copy(dst, src.as_ptr(), src.len()) },
    }
}

/// Copies into shared memory so that a [`store_fence`] is all that is missing for the media.
///
/// # Safety
/// `dst` is valid for writes of `src.len()` bytes, shared or not.
#[inline]
pub(crate) unsafe fn copy_in(dst: *mut u8, src: &[u8], media: Media) {
    if media == Media::Persistent && src.len() >= arch::STREAM_MIN {
        // SAFETY: `src` is a slice, valid for its own length; `dst` is by the caller's promise.
        unsafe { arch::copy_streaming(dst, src.as_ptr(), src.len()) };
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { copy_in_cached(dst, src) };
    if media == Media::Persistent {
        // SAFETY: the range was just written.
        unsafe { arch::write_back(dst, src.len()) };
    }
}

/// Copies between two places of shared memory, which may be the same memory but do not overlap in part.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of `len` bytes, shared or not.
#[inline]
pub(crate) unsafe fn copy_across(dst: *mut u8, src: *const u8, len: usize, media: Media) {
    if media == Media::Persistent && len >= arch::STREAM_MIN {
        // SAFETY: the caller's promise.
        unsafe { arch::copy_streaming(dst, src, len) };
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { arch::copy(dst, src, len) };
    if media == Media::Persistent {
        // SAFETY: the range was just written.
        unsafe { arch::write_back(dst, len) };
    }
}

/// Stores zeros so that a [`store_fence`] is all that is missing for the media.
///
/// # Safety
/// `dst` is valid for writes of `len` bytes, shared or not.
#[inline]
pub(crate) unsafe fn zero(dst: *mut u8, len: usize, media: Media) {
    if media == Media::Persistent && len >= arch::STREAM_MIN {
        // SAFETY: the caller's promise.
        unsafe { arch::zero_streaming(dst, len) };
        return;
    }
    const ZEROS: [u8; 64] = [0; 64];
    if len <= ZEROS.len() {
        // SAFETY: the caller's promise; the source is at least as long.
        unsafe { copy_in_cached(dst, &ZEROS[..len]) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { arch::zero(dst, len) };
    }
    if media == Media::Persistent {
        // SAFETY: the range was just written.
        unsafe { arch::write_back(dst, len) };
    }
}

/// Writes the cache lines of the range back towards persistent memory.
///
/// # Safety
/// `ptr` is valid for reads of `len` bytes, shared or not.
#[cfg(feature = "std")]
#[inline]
pub(crate) unsafe fn write_back(ptr: *const u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { arch::write_back(ptr, len) };
}

/// Orders every store, streaming store and write-back before it against those after it.
#[inline]
pub(crate) fn store_fence(media: Media) {
    match media {
        // Volatile memory is read back through the same caches: program order is enough, and only the
        // compiler must be kept from moving stores.
        Media::Volatile => core::sync::atomic::fence(Ordering::Release),
        Media::Persistent => arch::store_fence(),
    }
}
