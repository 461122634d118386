//! Copies of a few KiB from memory that is probably in no cache.
//!
//! What such a copy costs is the wait for its first line, and the walk of the page tables before it. A processor looks
//! some hundred instructions ahead, and so at what is copied next, unless this copy is in the way: `rep movsb` is, and so
//! are moves of 16 bytes, of which a page takes 512. So the lines are asked for first, which waits for nothing, and
//! then copied by the widest moves that there are. Random pages of 4 KiB of a file of 1 GiB, with 120 instructions
//! between, on an AMD Zen 5: 767 ns by `rep movsb`, 721 by moves of 32 bytes, 691 by moves of 64. At 64 KiB
//! `rep movsb` is faster by a tenth.

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU8, Ordering};

use super::{LINE, copy, structured_features};
use crate::mem::{Fault, may_fault};

/// Bytes for which this is the best way.
pub(super) const FETCHED: RangeInclusive<usize> = 1024..=16384;

/// Bytes that one turn of a loop asks for; what it moves divides it.
const TURN: usize = 4 * LINE;

/// Copies between ranges that are the same or do not overlap.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of `len` bytes, shared or not; `len` is at least [`TURN`].
#[inline(never)]
pub(super) unsafe fn copy_fetched(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    let whole = len & !(TURN - 1);
    // SAFETY: the loop names each line of `0..whole`, which is not empty, of a range that may be read.
    unsafe {
        asm!(
            "2:",
            "prefetcht0 [{s} + {i}]",
            "prefetcht0 [{s} + {i} + 64]",
            "prefetcht0 [{s} + {i} + 128]",
            "prefetcht0 [{s} + {i} + 192]",
            "add {i}, 256",
            "cmp {i}, {n}",
            "jb 2b",
            s = in(reg) src, n = in(reg) whole, i = inout(reg) 0_usize => _,
            options(nostack, readonly)
        );
    }
    match Moves::detect() {
        // SAFETY: the processor has the moves; `whole` is not 0, a multiple of a turn, and at most `len`.
        Moves::Of64 => unsafe { copy_by_64(dst, src, whole) }?,
        // SAFETY: as above.
        Moves::Of32 => unsafe { copy_by_32(dst, src, whole) }?,
        // SAFETY: the caller's promise.
        Moves::Of16 => return unsafe { copy(dst, src, len) },
    }
    // Still inside: `whole <= len`.
    let (dst, src) = (dst.wrapping_add(whole), src.wrapping_add(whole));
    // SAFETY: what is left of both ranges.
    unsafe { copy(dst, src, len - whole) }
}

macro_rules! by_moves {
    ($name:ident, $a:literal, $b:literal, $c:literal, $d:literal, $bytes:literal) => {
        /// Copies with moves of one width.
        ///
        /// # Safety
        /// `src` is valid for reads and `dst` for writes of `len` bytes, shared or not; `len` is a multiple of
        /// [`TURN`], and not 0; the processor has the moves, and the system keeps their registers.
        #[inline(never)]
        unsafe fn $name(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
            let fault: usize;
            // SAFETY: the loop covers `0..len` of both ranges. All vector registers count as changed: the upper parts
            // of those that are not named are cleared at the end.
            unsafe {
                asm!(
                    "7:",
                    "2:",
                    concat!("vmovups ", $a, ", [{s} + rcx]"),
                    concat!("vmovups ", $b, ", [{s} + rcx + ", $bytes, "]"),
                    concat!("vmovups ", $c, ", [{s} + rcx + 2 * ", $bytes, "]"),
                    concat!("vmovups ", $d, ", [{s} + rcx + 3 * ", $bytes, "]"),
                    concat!("vmovups [{d} + rcx], ", $a),
                    concat!("vmovups [{d} + rcx + ", $bytes, "], ", $b),
                    concat!("vmovups [{d} + rcx + 2 * ", $bytes, "], ", $c),
                    concat!("vmovups [{d} + rcx + 3 * ", $bytes, "], ", $d),
                    concat!("add rcx, 4 * ", $bytes),
                    "cmp rcx, {n}",
                    "jb 2b",
                    "8:",
                    "vzeroupper",
                    may_fault!(),
                    s = in(reg) src, d = in(reg) dst, n = in(reg) len, inout("rcx") 0_usize => _,
                    inout("rax") 0_usize => fault, clobber_abi("sysv64"), options(nostack)
                );
            }
            Fault::check(fault)
        }
    };
}

by_moves!(copy_by_32, "ymm0", "ymm1", "ymm2", "ymm3", "32");
by_moves!(copy_by_64, "zmm0", "zmm1", "zmm2", "zmm3", "64");

/// The widest moves that the processor has and the system lets a program use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moves {
    Of16,
    Of32,
    Of64,
}

impl Moves {
    #[inline]
    fn detect() -> Self {
        static FOUND: AtomicU8 = AtomicU8::new(0);
        match FOUND.load(Ordering::Relaxed) {
            1 => Self::Of16,
            2 => Self::Of32,
            3 => Self::Of64,
            _ => {
                let found = Self::ask();
                FOUND.store(found as u8 + 1, Ordering::Relaxed);
                found
            }
        }
    }

    #[cold]
    fn ask() -> Self {
        /// In leaf 1, `ecx`: the system keeps registers by `xsave`, and there is AVX.
        const OSXSAVE_AVX: u32 = 1 << 27 | 1 << 28;
        /// In `structured_features`.
        const AVX512F: u32 = 1 << 16;
        /// In `xcr0`: the system keeps registers of 32 bytes.
        const KEPT_32: u32 = 0x06;
        /// And those of 64.
        const KEPT_64: u32 = 0xe6;
        // `cpuid` became a safe function in newer toolchains.
        #[allow(unused_unsafe)]
        // SAFETY: every x86-64 has `cpuid` and its leaf 1.
        let one = unsafe { __cpuid(1) }.ecx;
        if one & OSXSAVE_AVX != OSXSAVE_AVX {
            return Self::Of16;
        }
        let kept: u32;
        // SAFETY: `xgetbv` is there, as the system uses `xsave`; register 0 is always among those it reads.
        unsafe {
            asm!("xgetbv", in("ecx") 0, out("eax") kept, out("edx") _,
                 options(nomem, nostack, preserves_flags));
        }
        if kept & KEPT_32 != KEPT_32 {
            Self::Of16
        } else if structured_features() & AVX512F == 0 || kept & KEPT_64 != KEPT_64 {
            Self::Of32
        } else {
            Self::Of64
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    fn source() -> Vec<u8> {
        (0..9000_u32).map(|nr| (nr * 7 % 251) as u8 + 1).collect()
    }

    #[test]
    fn a_copy_is_of_its_range_and_of_nothing_beside() {
        let source = source();
        for len in (TURN..2 * TURN + 70).chain([1024, 4095, 4096, 4097, 8191]) {
            for (from, to) in [(0, 0), (1, 16), (63, 0), (48, 5)] {
                let mut target = vec![0; to + len + 64];
                // SAFETY: both vectors have `len` bytes from there, and `len` is at least a turn.
                unsafe { copy_fetched(target[to..].as_mut_ptr(), source[from..].as_ptr(), len) }.unwrap();
                assert!(target[to..to + len] == source[from..from + len], "{len} bytes, {from} to {to}");
                assert!(target[..to].iter().chain(&target[to + len..]).all(|&byte| byte == 0), "{len}");
            }
        }
    }

    #[cfg(feature = "std")]
    #[test]
    fn a_page_that_is_lost_ends_moves_of_every_width_with_a_fault() {
        use crate::{Access, DaxDevice, DeviceOptions, MmapDevice};
        type Copy = unsafe fn(*mut u8, *const u8, usize) -> Result<(), Fault>;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, [7; 8192]).unwrap();
        let device = MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap();
        let lost = device.direct_access(0, 2, Access::Write).unwrap().as_ptr();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let mut kept = vec![1_u8; 8192];
        let widths: &[Copy] = match Moves::detect() {
            Moves::Of16 => &[copy_fetched],
            Moves::Of32 => &[copy_fetched, copy_by_32],
            Moves::Of64 => &[copy_fetched, copy_by_32, copy_by_64],
        };
        for copy in widths {
            // SAFETY: both have 8192 bytes, if not all of them are there; the processor has the moves.
            let out = unsafe { copy(kept.as_mut_ptr(), lost, 8192) };
            assert!(out.is_err_and(|fault| fault.is_in(lost, 8192)));
            // SAFETY: as above.
            let into = unsafe { copy(lost, kept.as_ptr(), 8192) };
            assert!(into.is_err_and(|fault| fault.is_in(lost, 8192)));
            // SAFETY: as above, and these are there.
            unsafe { copy(kept.as_mut_ptr(), lost, 4096) }.unwrap();
        }
    }

    #[test]
    fn narrower_moves_copy_as_the_widest_do() {
        if Moves::detect() == Moves::Of16 {
            return;
        }
        let source = source();
        let mut target = vec![0; 2 * TURN + 1];
        // SAFETY: both have as much, and the processor has the moves.
        unsafe { copy_by_32(target.as_mut_ptr(), source.as_ptr(), 2 * TURN) }.unwrap();
        assert_eq!(target[..2 * TURN], source[..2 * TURN]);
        assert_eq!(target[2 * TURN], 0);
    }
}
