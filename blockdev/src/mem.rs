//! Loads and stores on memory that others may write at the same time: another thread, another process
//! that maps the same file, or the device itself.
//!
//! # Invariants
//! 1. No reference to such memory is ever made, and no ordinary Rust access either: every access is inline
//!    assembly, which the compiler must take for an arbitrary access and may neither repeat nor invent. Where there
//!    is no assembly for the target, and under Miri, it is a relaxed atomic. A torn value is the worst that a race can
//!    give.
//! 2. A copy of 2, 4 or (on machines of 64 bits) 8 bytes to or from an address that is a multiple of its length is one
//!    access.
//! 3. Nothing outside the given range is read or written; within it a byte may be loaded and stored twice.
//! 4. An access that the system refuses with a bus error is a [`Fault`], wherever a handler can resume it (see `fault`).
//!    A part of the range may have been copied then.
//!
//! # Proofs
//! All `unsafe` of the workspace that touches device memory is below this module, and each block says by which of
//! these promises it is sound: the caller's (a device checked the range against its size, and a [`PmemSlice`]
//! against its own), the owner's (the memory is mapped as long as the device lives, and a slice borrows the device), or
//! this module's (1 to 4).
//!
//! [`PmemSlice`]: crate::PmemSlice
//!
//! Accesses of different sizes to the same word do race in the letter of the memory model; as for every
//! user of shared mappings (vm-memory's volatile accesses are the same case), what we rely on is that each
//! compiles to the plain machine access, which assembly and relaxed atomics both promise.

use core::sync::atomic::Ordering;

mod fault;
mod word;

pub(crate) use fault::Fault;
#[cfg(feature = "std")]
pub(crate) use fault::WHY;
#[allow(unused_imports)]
pub(crate) use fault::may_fault;

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86_64;
#[cfg(all(target_arch = "x86_64", not(miri)))]
use x86_64 as arch;

// Tests run it everywhere.
#[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
#[cfg_attr(all(test, target_arch = "x86_64"), allow(dead_code))]
mod portable;
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
use portable as arch;

/// What a device's memory is, which decides what the best store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Media {
    /// RAM or page cache: caches are as good a place for a byte as any, and ordering is program order.
    Volatile,
    /// Memory that keeps its contents without power: a store counts once it has left the caches, and is
    /// ordered by a store fence.
    Persistent,
}

macro_rules! word {
    ($load:ident, $store:ident, $int:ty) => {
        /// One little-endian load.
        ///
        /// # Errors
        /// Where the page cannot be accessed.
        ///
        /// # Safety
        /// `src` is valid for reads of the type, shared or not, and a multiple of its size.
        #[inline(always)]
        pub(crate) unsafe fn $load(src: *const u8) -> Result<$int, Fault> {
            // SAFETY: the caller's promise.
            unsafe { word::$load(src) }.map(<$int>::from_le)
        }

        /// One little-endian store.
        ///
        /// # Errors
        /// Where the page cannot be accessed.
        ///
        /// # Safety
        /// `dst` is valid for writes of the type, shared or not, and a multiple of its size.
        #[inline(always)]
        pub(crate) unsafe fn $store(dst: *mut u8, value: $int) -> Result<(), Fault> {
            // SAFETY: the caller's promise.
            unsafe { word::$store(dst, value.to_le()) }
        }
    };
}

word!(load_u8, store_u8, u8);
word!(load_u16, store_u16, u16);
word!(load_u32, store_u32, u32);
word!(load_u64, store_u64, u64);

#[inline(always)]
fn is_aligned(ptr: *const u8, to: usize) -> bool {
    ptr.addr() & (to - 1) == 0
}

/// Copies out of shared memory.
///
/// # Errors
/// This one and those below: where a page cannot be accessed; a part may have been copied then.
///
/// # Safety
/// `src` is valid for reads of `dst.len()` bytes, shared or not.
#[inline]
pub(crate) unsafe fn copy_out(src: *const u8, dst: &mut [u8]) -> Result<(), Fault> {
    match dst.len() {
        // SAFETY: the caller's promise, and the alignment that was just asked.
        4 if is_aligned(src, 4) => dst.copy_from_slice(&unsafe { load_u32(src) }?.to_le_bytes()),
        // SAFETY: as above.
        2 if is_aligned(src, 2) => dst.copy_from_slice(&unsafe { load_u16(src) }?.to_le_bytes()),
        // SAFETY: as above.
        8 if is_aligned(src, 8) => dst.copy_from_slice(&unsafe { load_u64(src) }?.to_le_bytes()),
        // SAFETY: `dst` is an exclusive slice, valid for its own length; `src` is by the caller's promise.
        len => return unsafe { arch::copy_cold(dst.as_mut_ptr(), src, len) },
    }
    Ok(())
}

/// Copies into shared memory with the cached stores of the processor.
///
/// # Safety
/// `dst` is valid for writes of `src.len()` bytes, shared or not.
#[inline]
pub(crate) unsafe fn copy_in_cached(dst: *mut u8, src: &[u8]) -> Result<(), Fault> {
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
pub(crate) unsafe fn copy_in(dst: *mut u8, src: &[u8], media: Media) -> Result<(), Fault> {
    if media == Media::Persistent && src.len() >= arch::STREAM_MIN {
        // SAFETY: `src` is a slice, valid for its own length; `dst` is by the caller's promise.
        return unsafe { arch::copy_streaming(dst, src.as_ptr(), src.len()) };
    }
    // SAFETY: the caller's promise.
    unsafe { copy_in_cached(dst, src) }?;
    if media == Media::Persistent {
        // SAFETY: the range was just written.
        unsafe { arch::write_back(dst, src.len()) }?;
    }
    Ok(())
}

/// Stores little-endian words one by one, so that a [`store_fence`] is all that is missing for the media.
///
/// # Safety
/// `dst` is valid for writes of `words`, shared or not, and a multiple of 4.
#[inline]
pub(crate) unsafe fn store_words(dst: *mut u8, words: &[u32], media: Media) -> Result<(), Fault> {
    for (nr, &word) in words.iter().enumerate() {
        // Still inside: the place of word `nr`.
        let at = dst.wrapping_add(4 * nr);
        // SAFETY: the caller's promise; 4 bytes further each time, so aligned as `dst` is.
        unsafe { store_u32(at, word) }?;
    }
    if media == Media::Persistent {
        // SAFETY: the range was just written.
        unsafe { arch::write_back(dst, size_of_val(words)) }?;
    }
    Ok(())
}

/// Copies between two places of shared memory, which may be the same memory but do not overlap in part.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of `len` bytes, shared or not.
#[inline]
pub(crate) unsafe fn copy_across(
    dst: *mut u8,
    src: *const u8,
    len: usize,
    media: Media,
) -> Result<(), Fault> {
    if media == Media::Persistent && len >= arch::STREAM_MIN {
        // SAFETY: the caller's promise.
        return unsafe { arch::copy_streaming(dst, src, len) };
    }
    // SAFETY: the caller's promise.
    unsafe { arch::copy(dst, src, len) }?;
    if media == Media::Persistent {
        // SAFETY: the range was just written.
        unsafe { arch::write_back(dst, len) }?;
    }
    Ok(())
}

/// Stores zeros so that a [`store_fence`] is all that is missing for the media.
///
/// # Safety
/// `dst` is valid for writes of `len` bytes, shared or not.
#[inline]
pub(crate) unsafe fn zero(dst: *mut u8, len: usize, media: Media) -> Result<(), Fault> {
    if media == Media::Persistent && len >= arch::STREAM_MIN {
        // SAFETY: the caller's promise.
        return unsafe { arch::zero_streaming(dst, len) };
    }
    const ZEROS: [u8; 64] = [0; 64];
    if len <= ZEROS.len() {
        // SAFETY: the caller's promise; the source is at least as long.
        unsafe { copy_in_cached(dst, &ZEROS[..len]) }?;
    } else {
        // SAFETY: the caller's promise.
        unsafe { arch::zero(dst, len) }?;
    }
    if media == Media::Persistent {
        // SAFETY: the range was just written.
        unsafe { arch::write_back(dst, len) }?;
    }
    Ok(())
}

/// Stores a byte over itself in one step, as a store that makes room for its page. False, and nothing is stored, where there is
/// no such instruction, or the page cannot be had.
///
/// # Safety
/// `at` is valid for reads and writes of a byte, shared or not.
#[cfg(feature = "std")]
pub(crate) unsafe fn touch(at: *mut u8) -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller's promise.
    let touched = unsafe { arch::touch(at) }.is_ok();
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let touched = {
        let _ = at;
        false
    };
    touched
}

/// Writes the cache lines of the range back towards persistent memory.
///
/// # Safety
/// `ptr` is valid for reads of `len` bytes, shared or not.
#[inline]
pub(crate) unsafe fn write_back(ptr: *const u8, len: usize) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    unsafe { arch::write_back(ptr, len) }
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

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    /// Lengths at and around every change of code path, and some of everything else.
    fn lens() -> impl Iterator<Item = usize> {
        (0..=200).chain([255, 256, 257, 319, 320, 321, 511, 777, 2047, 2048, 2049, 2111, 2112, 4096, 5000])
    }

    fn source(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + 1) as u8 | 1).collect()
    }

    /// Has `store` write `len` bytes at every alignment into a field of 0xaa, and looks at all of the field.
    fn stores_exactly(mut store: impl FnMut(*mut u8, &[u8]), expected: impl Fn(usize) -> u8) {
        let (mut field, mut wanted) = (vec![0xaa_u8; 5400], vec![0xaa_u8; 5400]);
        let source = source(5100);
        let stored: Vec<u8> = (0..5100).map(expected).collect();
        for len in lens() {
            for skew in [0, 1, 3, 4, 8, 15, 16, 31, 32, 60, 63, 64, 65] {
                field.fill(0xaa);
                let at = field.as_mut_ptr().wrapping_add(128 + skew);
                store(at, &source[..len]);
                wanted.fill(0xaa);
                wanted[128 + skew..][..len].copy_from_slice(&stored[..len]);
                // The whole field at once: comparing byte by byte takes ten times as long.
                if field != wanted {
                    let place = field.iter().zip(&wanted).position(|(is, want)| is != want);
                    panic!("{len} bytes skewed by {skew}: byte {place:?}");
                }
            }
        }
    }

    #[test]
    fn every_way_to_store_stores_these_bytes_and_no_others() {
        let expected = |at: usize| (at * 7 + 1) as u8 | 1;
        for media in [Media::Volatile, Media::Persistent] {
            // SAFETY: the field has room for the source behind `dst`, and is ours alone.
            stores_exactly(|dst, src| unsafe { copy_in(dst, src, media) }.unwrap(), expected);
            // SAFETY: as above.
            stores_exactly(
                |dst, src| unsafe { copy_across(dst, src.as_ptr(), src.len(), media) }.unwrap(),
                expected,
            );
            // SAFETY: as above.
            stores_exactly(|dst, src| unsafe { zero(dst, src.len(), media) }.unwrap(), |_| 0);
        }
        // SAFETY: as above.
        stores_exactly(|dst, src| unsafe { copy_in_cached(dst, src) }.unwrap(), expected);
        // SAFETY: as above.
        stores_exactly(|dst, src| unsafe { portable::copy(dst, src.as_ptr(), src.len()) }.unwrap(), expected);
        // SAFETY: as above.
        stores_exactly(|dst, src| unsafe { portable::zero(dst, src.len()) }.unwrap(), |_| 0);
        store_fence(Media::Persistent);
    }

    #[test]
    fn copying_out_reads_every_length_at_every_alignment() {
        let source = source(5200);
        for len in lens() {
            for skew in 0..66 {
                let mut buf = vec![0; len];
                // SAFETY: `skew + len` is at most the source's length.
                unsafe { copy_out(source.as_ptr().wrapping_add(skew), &mut buf) }.unwrap();
                assert!(buf == source[skew..skew + len], "{len} bytes skewed by {skew}");
            }
        }
    }

    #[test]
    fn an_array_of_words_is_stored_where_it_belongs_and_nowhere_else() {
        let mut field = [0xaaaa_aaaa_u32; 100];
        let words: Vec<u32> = (1..=70).map(|nr| nr * 0x0101_0101).collect();
        for (media, first) in [(Media::Volatile, 3), (Media::Persistent, 16)] {
            field.fill(0xaaaa_aaaa);
            let at = field.as_mut_ptr().wrapping_add(first).cast();
            // SAFETY: the field has room for the words from `first` on, and is ours alone; its words are aligned.
            unsafe { store_words(at, &words, media) }.unwrap();
            for (place, word) in field.iter().map(|word| u32::from_le(*word)).enumerate() {
                let inside = place.checked_sub(first).and_then(|place| words.get(place));
                assert_eq!(word, *inside.unwrap_or(&0xaaaa_aaaa), "{place}");
            }
        }
    }

    #[test]
    fn words_are_little_endian() {
        let mut word = 0_u64;
        let at = (&raw mut word).cast::<u8>();
        // SAFETY: `word` is aligned to 8, and only used through `at` here.
        unsafe { store_u64(at, 0x0807_0605_0403_0201) }.unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { load_u8(at) }, Ok(1));
        // SAFETY: as above; a multiple of 2.
        assert_eq!(unsafe { load_u16(at.wrapping_add(2)) }, Ok(0x0403));
        // SAFETY: as above; a multiple of 4.
        assert_eq!(unsafe { load_u32(at.wrapping_add(4)) }, Ok(0x0807_0605));
    }
}
