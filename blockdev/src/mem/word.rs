//! Single loads and stores, in the byte order of the machine.
//!
//! Assembly of one instruction where the target is known, so that a fault can be told from others (see `fault`);
//! relaxed atomics under Miri and on other targets. Both are one access, which is neither repeated nor invented.

use super::Fault;

#[cfg(known_words)]
macro_rules! words {
    ($register:tt: $($load:ident $store:ident $int:ident $class:ident $read:literal $write:literal)*) => {$(
        /// One load.
        ///
        /// # Safety
        /// `src` is valid for reads of the type, shared or not, and a multiple of its size.
        #[inline(always)]
        pub(super) unsafe fn $load(src: *const u8) -> Result<$int, Fault> {
            let value: usize;
            let fault: usize;
            // SAFETY: one load from where the caller says; see `fault` for what happens where it faults.
            unsafe {
                core::arch::asm!(
                    "7:", $read, "8:", super::may_fault!(),
                    value = out(reg) value, at = in(reg) src, inout($register) 0_usize => fault,
                    options(nostack, preserves_flags, readonly)
                );
            }
            // OK to cast: the load has filled the rest of the register with zeros.
            Fault::check(fault).map(|()| value as $int)
        }

        /// One store.
        ///
        /// # Safety
        /// `dst` is valid for writes of the type, shared or not, and a multiple of its size.
        #[inline(always)]
        pub(super) unsafe fn $store(dst: *mut u8, value: $int) -> Result<(), Fault> {
            let fault: usize;
            // SAFETY: one store to where the caller says; see `fault` for what happens where it faults.
            unsafe {
                core::arch::asm!(
                    "7:", $write, "8:", super::may_fault!(),
                    value = in($class) value as usize, at = in(reg) dst, inout($register) 0_usize => fault,
                    options(nostack, preserves_flags)
                );
            }
            Fault::check(fault)
        }
    )*};
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
words! { "rax":
    load_u8 store_u8 u8 reg "movzx {value:e}, byte ptr [{at}]" "mov byte ptr [{at}], {value:l}"
    load_u16 store_u16 u16 reg "movzx {value:e}, word ptr [{at}]" "mov word ptr [{at}], {value:x}"
    load_u32 store_u32 u32 reg "mov {value:e}, dword ptr [{at}]" "mov dword ptr [{at}], {value:e}"
    load_u64 store_u64 u64 reg "mov {value}, qword ptr [{at}]" "mov qword ptr [{at}], {value}"
}

#[cfg(all(target_arch = "x86", not(miri)))]
words! { "eax":
    load_u8 store_u8 u8 reg_abcd "movzx {value:e}, byte ptr [{at}]" "mov byte ptr [{at}], {value:l}"
    load_u16 store_u16 u16 reg "movzx {value:e}, word ptr [{at}]" "mov word ptr [{at}], {value:x}"
    load_u32 store_u32 u32 reg "mov {value:e}, dword ptr [{at}]" "mov dword ptr [{at}], {value:e}"
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
words! { "x0":
    load_u8 store_u8 u8 reg "ldrb {value:w}, [{at}]" "strb {value:w}, [{at}]"
    load_u16 store_u16 u16 reg "ldrh {value:w}, [{at}]" "strh {value:w}, [{at}]"
    load_u32 store_u32 u32 reg "ldr {value:w}, [{at}]" "str {value:w}, [{at}]"
    load_u64 store_u64 u64 reg "ldr {value}, [{at}]" "str {value}, [{at}]"
}

#[cfg(all(target_arch = "arm", not(miri)))]
words! { "r0":
    load_u8 store_u8 u8 reg "ldrb {value}, [{at}]" "strb {value}, [{at}]"
    load_u16 store_u16 u16 reg "ldrh {value}, [{at}]" "strh {value}, [{at}]"
    load_u32 store_u32 u32 reg "ldr {value}, [{at}]" "str {value}, [{at}]"
}

#[cfg(all(target_arch = "riscv64", not(miri)))]
words! { "a0":
    load_u8 store_u8 u8 reg "lbu {value}, 0({at})" "sb {value}, 0({at})"
    load_u16 store_u16 u16 reg "lhu {value}, 0({at})" "sh {value}, 0({at})"
    load_u32 store_u32 u32 reg "lwu {value}, 0({at})" "sw {value}, 0({at})"
    load_u64 store_u64 u64 reg "ld {value}, 0({at})" "sd {value}, 0({at})"
}

#[cfg(not(known_words))]
macro_rules! atomic_words {
    ($($load:ident $store:ident $int:ident $atomic:ident)*) => {$(
        /// One load.
        ///
        /// # Safety
        /// `src` is valid for reads of the type, shared or not, and a multiple of its size.
        #[inline(always)]
        pub(super) unsafe fn $load(src: *const u8) -> Result<$int, Fault> {
            // SAFETY: validity and alignment are the caller's promise; the memory is only accessed through
            // this module, so no non-atomic Rust access races with this one. A load from read-only memory
            // through an atomic of at most 8 bytes compiles to a plain load (std::sync::atomic, "Atomic
            // accesses to read-only memory").
            let atomic = unsafe { core::sync::atomic::$atomic::from_ptr(src.cast_mut().cast()) };
            Ok(atomic.load(core::sync::atomic::Ordering::Relaxed))
        }

        /// One store.
        ///
        /// # Safety
        /// `dst` is valid for writes of the type, shared or not, and a multiple of its size.
        #[inline(always)]
        pub(super) unsafe fn $store(dst: *mut u8, value: $int) -> Result<(), Fault> {
            // SAFETY: validity and alignment are the caller's promise; the memory is only accessed through
            // this module, so no non-atomic Rust access races with this one.
            let atomic = unsafe { core::sync::atomic::$atomic::from_ptr(dst.cast()) };
            atomic.store(value, core::sync::atomic::Ordering::Relaxed);
            Ok(())
        }
    )*};
}

#[cfg(not(known_words))]
atomic_words! {
    load_u8 store_u8 u8 AtomicU8
    load_u16 store_u16 u16 AtomicU16
    load_u32 store_u32 u32 AtomicU32
}

#[cfg(all(
    any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))),
    target_pointer_width = "64"
))]
atomic_words! { load_u64 store_u64 u64 AtomicU64 }

/// Two loads: machines of 32 bits have none of 8 bytes, or not one that is like the others.
///
/// # Safety
/// `src` is valid for reads of 8 bytes, shared or not, and a multiple of 4.
#[cfg(not(target_pointer_width = "64"))]
pub(super) unsafe fn load_u64(src: *const u8) -> Result<u64, Fault> {
    // SAFETY: the caller's promise.
    let first = unsafe { load_u32(src) }?;
    // SAFETY: as above, for the second half.
    let second = unsafe { load_u32(src.wrapping_add(4)) }?;
    let (low, high) = if cfg!(target_endian = "little") { (first, second) } else { (second, first) };
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// Two stores, as [`load_u64`] is two loads.
///
/// # Safety
/// `dst` is valid for writes of 8 bytes, shared or not, and a multiple of 4.
#[cfg(not(target_pointer_width = "64"))]
pub(super) unsafe fn store_u64(dst: *mut u8, value: u64) -> Result<(), Fault> {
    // OK to cast: the two halves.
    let (low, high) = (value as u32, (value >> 32) as u32);
    let (first, second) = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
    // SAFETY: the caller's promise.
    unsafe { store_u32(dst, first) }?;
    // SAFETY: as above, for the second half.
    unsafe { store_u32(dst.wrapping_add(4), second) }
}

/// One load of a machine word.
///
/// # Safety
/// `src` is valid for reads of a word, shared or not, and a multiple of its size.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
pub(super) unsafe fn load_word(src: *const u8) -> Result<usize, Fault> {
    #[cfg(target_pointer_width = "64")]
    // SAFETY: the caller's promise. OK to cast: of the same size.
    let word = unsafe { load_u64(src) }? as usize;
    #[cfg(not(target_pointer_width = "64"))]
    // SAFETY: the caller's promise. OK to cast: of the same size.
    let word = unsafe { load_u32(src) }? as usize;
    Ok(word)
}

/// One store of a machine word.
///
/// # Safety
/// `dst` is valid for writes of a word, shared or not, and a multiple of its size.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
pub(super) unsafe fn store_word(dst: *mut u8, word: usize) -> Result<(), Fault> {
    #[cfg(target_pointer_width = "64")]
    // SAFETY: the caller's promise. OK to cast: of the same size.
    let stored = unsafe { store_u64(dst, word as u64) };
    #[cfg(not(target_pointer_width = "64"))]
    // SAFETY: the caller's promise. OK to cast: of the same size.
    let stored = unsafe { store_u32(dst, word as u32) };
    stored
}
