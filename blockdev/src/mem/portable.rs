//! Bulk accesses made of words, for targets that have no better ones of ours and for Miri.

use core::sync::atomic::{Ordering, fence};

use super::Fault;
use super::word::{load_u8, load_word, store_u8, store_word};

/// Bytes from which streaming would pay; there is none here.
pub(super) const STREAM_MIN: usize = usize::MAX;

const WORD: usize = size_of::<usize>();

/// Copies word by word where both sides allow it, else byte by byte.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of `len` bytes, shared or not.
pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    let mut at = 0;
    while at < len {
        // Still inside: `at < len`, so both stay inside the caller's ranges.
        let (to, from) = (dst.wrapping_add(at), src.wrapping_add(at));
        if len - at >= WORD && to.addr().is_multiple_of(WORD) && from.addr().is_multiple_of(WORD) {
            // SAFETY: a whole word is left, and it is aligned.
            let word = unsafe { load_word(from) }?;
            // SAFETY: as above.
            unsafe { store_word(to, word) }?;
            at += WORD;
        } else {
            // SAFETY: one byte is left; bytes have no alignment.
            let byte = unsafe { load_u8(from) }?;
            // SAFETY: as above.
            unsafe { store_u8(to, byte) }?;
            at += 1;
        }
    }
    Ok(())
}

/// As [`copy`].
///
/// # Safety
/// As for [`copy`].
pub(super) unsafe fn copy_cold(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    unsafe { copy(dst, src, len) }
}

/// Stores zeros.
///
/// # Safety
/// `dst` is valid for writes of `len` bytes, shared or not.
pub(super) unsafe fn zero(dst: *mut u8, len: usize) -> Result<(), Fault> {
    let mut at = 0;
    while at < len {
        // SAFETY: `at < len`, so the pointer stays inside the caller's range.
        let to = unsafe { dst.add(at) };
        if len - at >= WORD && to.addr().is_multiple_of(WORD) {
            // SAFETY: a whole aligned word is left.
            unsafe { store_word(to, 0) }?;
            at += WORD;
        } else {
            // SAFETY: one byte is left.
            unsafe { store_u8(to, 0) }?;
            at += 1;
        }
    }
    Ok(())
}

/// As [`copy`].
///
/// # Safety
/// As for [`copy`].
pub(super) unsafe fn copy_streaming(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    unsafe { copy(dst, src, len) }
}

/// As [`zero`].
///
/// # Safety
/// As for [`zero`].
pub(super) unsafe fn zero_streaming(dst: *mut u8, len: usize) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    unsafe { zero(dst, len) }
}

/// No cache control is known for this target; [`crate::MmapDevice`] never calls its memory persistent here.
///
/// # Safety
/// None needed; the signature is that of the other targets.
pub(super) unsafe fn write_back(_ptr: *const u8, _len: usize) -> Result<(), Fault> {
    Ok(())
}

/// A full fence.
pub(super) fn store_fence() {
    fence(Ordering::SeqCst);
}
