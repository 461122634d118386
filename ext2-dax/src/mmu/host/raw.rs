//! What takes a promise of the caller: the one file with `unsafe` in it.

#![allow(unsafe_code)]

use std::sync::atomic::AtomicU64;

use super::HostMap;

impl HostMap {
    /// The mapping as a slice.
    ///
    /// # Safety
    /// As long as the slice lives, all of this holds:
    /// - the range ends before the end of the file, and nobody truncates the file, or the image, so that it does not; a load
    ///   past the end is `SIGBUS`;
    /// - nobody stores to these bytes: not this process through any mapping, not `write`, not another process that has the
    ///   image. A lease for reading ([`File::lease`](crate::File::lease)) keeps blocks in their places, and does not keep
    ///   writers away;
    /// - nothing punches holes into the range or moves its blocks, which changes what is behind the address.
    ///
    /// A read-only image, or a file that nobody else has, is where this can be promised.
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: the range is mapped as long as `self` lives, any byte is a `u8`, and the caller promises that it is all
        // there and does not change.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.bytes()) }
    }

    /// The 8 bytes at `offset` as an atomic word, which other processes may use as well. `None` at an offset that is not a
    /// multiple of 8, or outside.
    ///
    /// # Safety
    /// The page is one of the file as long as the reference lives, or the access is `SIGBUS`; it can be stored to, if it
    /// is. All other accesses to these bytes are atomic, or go through the file.
    #[must_use]
    pub unsafe fn atomic_u64(&self, offset: usize) -> Option<&AtomicU64> {
        let fits = offset.is_multiple_of(8) && offset.checked_add(8).is_some_and(|end| end <= self.bytes());
        let word = self.as_ptr().wrapping_add(offset).cast_mut().cast::<u64>();
        // SAFETY: inside the mapping, which begins at a page, and aligned; the caller promises the rest.
        fits.then(|| unsafe { AtomicU64::from_ptr(word) })
    }
}
