//! Bulk accesses in assembly.
//!
//! Measured on an AMD Zen 5 (4 KiB and 1 MiB, cached and not): 16-byte moves are within noise of `memcpy`
//! up to some KiB, `rep movsb` to an aligned target is as fast or faster above. Streaming stores to ordinary
//! memory win where the target is not in a cache (39 GB/s against 27, 1 MiB pieces of 256 MiB), lose where
//! it is (36 against 57), and where what was stored is read back (18 against 22); so they are kept for
//! persistent memory. `examples/device_speed.rs` measures again.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU8, Ordering};

use super::{Fault, may_fault, word};

mod fetch;

/// Bytes from which streaming stores beat stores and write-backs of the same lines.
pub(super) const STREAM_MIN: usize = 256;

/// Bytes from which the string instructions' start-up cost is repaid.
const STRING_MIN: usize = 2048;

const LINE: usize = 64;

/// Moves one byte.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of a byte.
#[inline(always)]
unsafe fn move_1(dst: *mut u8, src: *const u8) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    let byte = unsafe { word::load_u8(src) }?;
    // SAFETY: as above.
    unsafe { word::store_u8(dst, byte) }
}

/// Moves two bytes, which this processor does at any address.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of two bytes.
#[inline(always)]
unsafe fn move_2(dst: *mut u8, src: *const u8) -> Result<(), Fault> {
    // SAFETY: the caller's promise; the load is one instruction, which needs no alignment.
    let word = unsafe { word::load_u16(src) }?;
    // SAFETY: as above.
    unsafe { word::store_u16(dst, word) }
}

macro_rules! pair {
    ($name:ident, $class:ident, $load0:literal, $load1:literal, $store0:literal, $store1:literal) => {
        /// Moves the first and the last word of `len` bytes; they may overlap. Both are loaded before
        /// either is stored.
        ///
        /// # Safety
        /// `src` is valid for reads and `dst` for writes of `len` bytes, at least one word.
        #[inline(always)]
        unsafe fn $name(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
            let fault: usize;
            // SAFETY: two loads and two stores at the two ends of the caller's ranges.
            unsafe {
                asm!("7:", $load0, $load1, $store0, $store1, "8:", may_fault!(),
                     a = out($class) _, b = out($class) _, s = in(reg) src, d = in(reg) dst, n = in(reg) len,
                     inout("rax") 0_usize => fault, options(nostack, preserves_flags));
            }
            Fault::check(fault)
        }
    };
}

pair!(
    ends_4,
    reg,
    "mov {a:e}, dword ptr [{s}]",
    "mov {b:e}, dword ptr [{s} + {n} - 4]",
    "mov dword ptr [{d}], {a:e}",
    "mov dword ptr [{d} + {n} - 4], {b:e}"
);
pair!(
    ends_8,
    reg,
    "mov {a}, qword ptr [{s}]",
    "mov {b}, qword ptr [{s} + {n} - 8]",
    "mov qword ptr [{d}], {a}",
    "mov qword ptr [{d} + {n} - 8], {b}"
);
pair!(
    ends_16,
    xmm_reg,
    "movups {a}, [{s}]",
    "movups {b}, [{s} + {n} - 16]",
    "movups [{d}], {a}",
    "movups [{d} + {n} - 16], {b}"
);

/// Stores a byte over itself in one step: a store of somebody else's at the same moment is not undone.
///
/// # Safety
/// `at` is valid for reads and writes of a byte, shared or not.
#[cfg(feature = "std")]
pub(super) unsafe fn touch(at: *mut u8) -> Result<(), Fault> {
    let fault: usize;
    // SAFETY: the caller's promise; no byte changes.
    unsafe {
        asm!("7:", "lock or byte ptr [{at}], 0", "8:", may_fault!(), at = in(reg) at,
             inout("rax") 0_usize => fault, options(nostack));
    }
    Fault::check(fault)
}

/// Copies between ranges that are the same or do not overlap.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of `len` bytes, shared or not.
#[inline]
pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    match len {
        0 => Ok(()),
        // SAFETY: one byte.
        1 => unsafe { move_1(dst, src) },
        2 | 3 => {
            // SAFETY: at least two bytes.
            unsafe { move_2(dst, src) }?;
            if len == 2 {
                return Ok(());
            }
            // Still inside: the third byte of both ranges.
            let (dst, src) = (dst.wrapping_add(2), src.wrapping_add(2));
            // SAFETY: one byte.
            unsafe { move_1(dst, src) }
        }
        // SAFETY: at least four bytes.
        4..=7 => unsafe { ends_4(dst, src, len) },
        // SAFETY: at least eight bytes.
        8..=15 => unsafe { ends_8(dst, src, len) },
        // SAFETY: at least sixteen bytes, at most twice that.
        16..=32 => unsafe { ends_16(dst, src, len) },
        // SAFETY: at least 33 bytes.
        33..STRING_MIN => unsafe { copy_moves(dst, src, len) },
        // SAFETY: the caller's promise.
        _ => unsafe { copy_string(dst, src, len) },
    }
}

/// As [`copy`], from memory that is probably in no cache.
///
/// # Safety
/// As for [`copy`].
#[inline]
pub(super) unsafe fn copy_cold(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    if fetch::FETCHED.contains(&len) {
        // SAFETY: the caller's promise, and as many bytes as are asked for at least.
        unsafe { fetch::copy_fetched(dst, src, len) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { copy(dst, src, len) }
    }
}

/// Copies with 16-byte moves.
///
/// # Safety
/// As for [`copy`], and `len` is at least 16.
#[inline]
unsafe fn copy_moves(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    let whole = len & !(LINE - 1);
    if whole > 0 {
        let fault: usize;
        // SAFETY: the loop covers `0..whole` of both ranges, `whole` being a multiple of what it moves.
        unsafe {
            asm!(
                "7:",
                "2:",
                "movups {a}, [{s} + {i}]",
                "movups {b}, [{s} + {i} + 16]",
                "movups {c}, [{s} + {i} + 32]",
                "movups {e}, [{s} + {i} + 48]",
                "movups [{d} + {i}], {a}",
                "movups [{d} + {i} + 16], {b}",
                "movups [{d} + {i} + 32], {c}",
                "movups [{d} + {i} + 48], {e}",
                "add {i}, 64",
                "cmp {i}, {n}",
                "jb 2b",
                "8:",
                may_fault!(),
                s = in(reg) src, d = in(reg) dst, n = in(reg) whole, i = inout(reg) 0_usize => _,
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, e = out(xmm_reg) _,
                inout("rax") 0_usize => fault, options(nostack)
            );
        }
        Fault::check(fault)?;
    }
    let mut at = whole;
    while len - at > 16 {
        // Still inside: 16 bytes are left at `at`.
        let (dst, src) = (dst.wrapping_add(at), src.wrapping_add(at));
        // SAFETY: as above.
        unsafe { ends_16(dst, src, 16) }?;
        at += 16;
    }
    if at < len {
        // Still inside: `len >= 16`, so the last 16 bytes lie in both ranges.
        let (dst, src) = (dst.wrapping_add(len - 16), src.wrapping_add(len - 16));
        // SAFETY: as above.
        return unsafe { ends_16(dst, src, 16) };
    }
    Ok(())
}

/// Copies with `rep movsb`, to a target brought to a line boundary first (it is half as fast elsewhere).
///
/// # Safety
/// As for [`copy`], and `len` is at least [`STRING_MIN`].
#[inline]
unsafe fn copy_string(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    let head = dst.addr().wrapping_neg() & (LINE - 1);
    if head > 0 {
        // SAFETY: 64 bytes at the start, which `len` has.
        unsafe { copy_moves(dst, src, LINE) }?;
    }
    // Still inside: `head < 64 <= len`.
    let (dst, src) = (dst.wrapping_add(head), src.wrapping_add(head));
    let fault: usize;
    // SAFETY: the direction flag is clear on entry to an asm block; the rest of both ranges is `len - head`.
    unsafe {
        asm!("7:", "rep movsb", "8:", may_fault!(),
             inout("rcx") len - head => _, inout("rdi") dst => _, inout("rsi") src => _,
             inout("rax") 0_usize => fault, options(nostack, preserves_flags));
    }
    Fault::check(fault)
}

/// Stores zeros with `rep stosb`, to a target brought to a line boundary first.
///
/// # Safety
/// `dst` is valid for writes of `len` bytes, shared or not; `len` is at least 64.
#[inline]
pub(super) unsafe fn zero(dst: *mut u8, len: usize) -> Result<(), Fault> {
    const ZEROS: [u8; LINE] = [0; LINE];
    let head = dst.addr().wrapping_neg() & (LINE - 1);
    if head > 0 {
        // SAFETY: 64 bytes at the start, which `len` has.
        unsafe { copy_moves(dst, ZEROS.as_ptr(), LINE) }?;
    }
    // SAFETY: `head < 64 <= len`.
    let dst = unsafe { dst.add(head) };
    let fault: usize;
    // SAFETY: the direction flag is clear on entry to an asm block; the rest of the range is `len - head`. The fault
    // register's zero is what is stored.
    unsafe {
        asm!("7:", "rep stosb", "8:", may_fault!(),
             inout("rcx") len - head => _, inout("rdi") dst => _,
             inout("rax") 0_usize => fault, options(nostack, preserves_flags));
    }
    Fault::check(fault)
}

/// Copies with streaming stores; the bytes before and after whole lines are stored and written back.
///
/// Streaming stores are outside the order that the rest of the program relies on: a lock that is released
/// after one may be seen free before it. So a store fence ends them here.
///
/// # Safety
/// As for [`copy`], and `len` is at least [`STREAM_MIN`].
pub(super) unsafe fn copy_streaming(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    let head = dst.addr().wrapping_neg() & (LINE - 1);
    // SAFETY: `head < 64 <= len`.
    unsafe { copy(dst, src, head) }?;
    // SAFETY: the same bytes.
    unsafe { write_back(dst, head) }?;
    let (dst, src, len) = (dst.wrapping_add(head), src.wrapping_add(head), len - head);
    let whole = len & !(LINE - 1);
    if whole > 0 {
        let fault: usize;
        // SAFETY: the loop covers `0..whole` of both ranges, and `dst` is a multiple of 64 as movntdq asks.
        unsafe {
            asm!(
                "7:",
                "2:",
                "movups {a}, [{s} + {i}]",
                "movups {b}, [{s} + {i} + 16]",
                "movups {c}, [{s} + {i} + 32]",
                "movups {e}, [{s} + {i} + 48]",
                "movntdq [{d} + {i}], {a}",
                "movntdq [{d} + {i} + 16], {b}",
                "movntdq [{d} + {i} + 32], {c}",
                "movntdq [{d} + {i} + 48], {e}",
                "add {i}, 64",
                "cmp {i}, {n}",
                "jb 2b",
                "8:",
                "sfence",
                may_fault!(),
                s = in(reg) src, d = in(reg) dst, n = in(reg) whole, i = inout(reg) 0_usize => _,
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, e = out(xmm_reg) _,
                inout("rax") 0_usize => fault, options(nostack)
            );
        }
        Fault::check(fault)?;
    }
    // Still inside: `whole <= len`.
    let (dst, src) = (dst.wrapping_add(whole), src.wrapping_add(whole));
    // SAFETY: what is left of both ranges.
    unsafe { copy(dst, src, len - whole) }?;
    // SAFETY: the same bytes.
    unsafe { write_back(dst, len - whole) }
}

/// Stores zeros with streaming stores, as [`copy_streaming`] copies.
///
/// # Safety
/// As for [`zero`], and `len` is at least [`STREAM_MIN`].
pub(super) unsafe fn zero_streaming(dst: *mut u8, len: usize) -> Result<(), Fault> {
    const ZEROS: [u8; LINE] = [0; LINE];
    let head = dst.addr().wrapping_neg() & (LINE - 1);
    // SAFETY: `head < 64 <= len`, and as long as the source.
    unsafe { copy(dst, ZEROS.as_ptr(), head) }?;
    // SAFETY: the same bytes.
    unsafe { write_back(dst, head) }?;
    let (dst, len) = (dst.wrapping_add(head), len - head);
    let whole = len & !(LINE - 1);
    if whole > 0 {
        let fault: usize;
        // SAFETY: the loop covers `0..whole` of the range, and `dst` is a multiple of 64 as movntdq asks.
        unsafe {
            asm!(
                "pxor {a}, {a}",
                "7:",
                "2:",
                "movntdq [{d} + {i}], {a}",
                "movntdq [{d} + {i} + 16], {a}",
                "movntdq [{d} + {i} + 32], {a}",
                "movntdq [{d} + {i} + 48], {a}",
                "add {i}, 64",
                "cmp {i}, {n}",
                "jb 2b",
                "8:",
                "sfence",
                may_fault!(),
                d = in(reg) dst, n = in(reg) whole, i = inout(reg) 0_usize => _, a = out(xmm_reg) _,
                inout("rax") 0_usize => fault, options(nostack)
            );
        }
        Fault::check(fault)?;
    }
    // SAFETY: `whole <= len`.
    let dst = unsafe { dst.add(whole) };
    // SAFETY: what is left of the range, shorter than the source.
    unsafe { copy(dst, ZEROS.as_ptr(), len - whole) }?;
    // SAFETY: the same bytes.
    unsafe { write_back(dst, len - whole) }
}

/// Writes back the lines that hold the range, with the best instruction that the processor has.
///
/// # Safety
/// `ptr` is valid for reads of `len` bytes, shared or not.
pub(super) unsafe fn write_back(ptr: *const u8, len: usize) -> Result<(), Fault> {
    if len == 0 {
        return Ok(());
    }
    let how = CacheLine::detect();
    let first = ptr.addr() & !(LINE - 1);
    let last = (ptr.addr() + (len - 1)) & !(LINE - 1);
    let mut line = first;
    loop {
        let at = ptr.with_addr(line);
        // SAFETY: every line holds a byte of the range, so it is mapped; the instructions do not change it.
        unsafe { how.write_back(at) }?;
        if line == last {
            return Ok(());
        }
        line += LINE;
    }
}

/// Waits for streaming stores and write-backs before later stores.
pub(super) fn store_fence() {
    // SAFETY: `sfence` touches no memory; as it is no `nomem` block the compiler moves no store across.
    unsafe { asm!("sfence", options(nostack, preserves_flags)) };
}

/// What `cpuid` says in `ebx` of leaf 7; nothing where there is no such leaf.
fn structured_features() -> u32 {
    // `cpuid` became a safe function in newer toolchains.
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 has `cpuid` and its leaf 0.
    let leaves = unsafe { __cpuid(0) }.eax;
    if leaves < 7 {
        return 0;
    }
    #[allow(unused_unsafe)]
    // SAFETY: leaf 7 was just found to exist.
    let seven = unsafe { __cpuid_count(7, 0) };
    seven.ebx
}

/// The instruction that writes a cache line back.
#[derive(Clone, Copy)]
enum CacheLine {
    /// Keeps the line cached.
    Clwb,
    /// Evicts it, unordered.
    ClflushOpt,
    /// Evicts it, one after the other; every x86-64 has it.
    Clflush,
}

impl CacheLine {
    #[inline]
    fn detect() -> Self {
        static FOUND: AtomicU8 = AtomicU8::new(0);
        match FOUND.load(Ordering::Relaxed) {
            1 => return Self::Clflush,
            2 => return Self::ClflushOpt,
            3 => return Self::Clwb,
            _ => {}
        }
        let bits = structured_features();
        let (code, found) = match (bits & 1 << 24 != 0, bits & 1 << 23 != 0) {
            (true, _) => (3, Self::Clwb),
            (false, true) => (2, Self::ClflushOpt),
            (false, false) => (1, Self::Clflush),
        };
        FOUND.store(code, Ordering::Relaxed);
        found
    }

    /// # Safety
    /// `line` lies in mapped memory, and the processor has the instruction.
    #[inline(always)]
    unsafe fn write_back(self, line: *const u8) -> Result<(), Fault> {
        macro_rules! by {
            ($instruction:literal) => {{
                let fault: usize;
                // SAFETY: the caller's promise; the contents do not change.
                unsafe {
                    asm!("7:", $instruction, "8:", may_fault!(), line = in(reg) line,
                         inout("rax") 0_usize => fault, options(nostack, preserves_flags));
                }
                Fault::check(fault)
            }};
        }
        match self {
            Self::Clwb => by!("clwb [{line}]"),
            Self::ClflushOpt => by!("clflushopt [{line}]"),
            Self::Clflush => by!("clflush [{line}]"),
        }
    }
}
