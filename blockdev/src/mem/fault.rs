//! Accesses that the system refuses, as errors.
//!
//! A load or store of a mapped file is a bus error (`SIGBUS`) where the page cannot be supplied: the file was
//! truncated, its file system is full, its disk does not read. Every access of device memory is assembly of ours, so
//! which instructions those are is known, and the handler in `sigbus` can resume behind them. It is what the kernel
//! does with its exception tables (Linux: `asm-generic/extable.h`).
//!
//! # Invariants
//! 1. Each piece of assembly that touches device memory notes itself in the section `blockdev_faults`: the addresses of
//!    its labels `7` (first instruction that may fault) and `8` (behind the last), both relative to where they are
//!    noted, so that nothing has to be relocated. Copies of the code that the compiler makes note themselves too.
//! 2. Such a piece has a *fault register*, 0 before the access. Resuming means: the fault register takes a
//!    [`Fault`], and the program goes on at label `8`. All that the piece may change is an output or a clobber
//!    of it, so what the compiler keeps in registers is right at `8` whichever instruction faulted.
//! 3. Nothing else is resumed: not a load of the program's own, not a mapping that a program uses itself.
//!
//! The assembler's local labels and a section that the linker brackets with `__start_` and `__stop_` need ELF; the
//! registers of a thread that faulted are known for Linux. Elsewhere the table is not written, and a page that cannot
//! be supplied ends the process as it does with any mapping.

use alloc::string::String;
use core::num::NonZeroUsize;

use crate::{Error, PAGE_SIZE};

/// Notes the instructions between the labels `7` and `8` before it.
#[cfg(resumes_faults)]
macro_rules! may_fault {
    () => {
        // Allocated and kept (R), since nothing refers to it by name.
        ".pushsection blockdev_faults, \"aR\"\n.balign 4\n.long 7b - .\n.long 8b - .\n.popsection"
    };
}

/// Where nobody resumes, nothing is noted.
#[cfg(not(resumes_faults))]
#[allow(unused_macros)]
macro_rules! may_fault {
    () => {
        ""
    };
}

#[allow(unused_imports)]
pub(crate) use may_fault;

/// A page that could not be accessed: its address, and in the bits below a page why (the system's `si_code`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault(NonZeroUsize);

/// Bits of a [`Fault`] that say why.
pub(crate) const WHY: usize = PAGE_SIZE as usize - 1;

/// `BUS_MCEERR_AR`: the memory lost what it held.
const POISONED: usize = 4;

const EIO: i32 = 5;
const EFAULT: i32 = 14;

impl Fault {
    /// What a fault register holds after an access; only where accesses may fault.
    #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
    #[inline(always)]
    pub(super) fn check(register: usize) -> Result<(), Self> {
        match NonZeroUsize::new(register) {
            None => Ok(()),
            Some(fault) => Err(Self(fault)),
        }
    }

    /// The first byte of `len` at `at` that could not be accessed; none where the fault was elsewhere: in what was
    /// copied to or from there.
    fn place_in(self, at: *const u8, len: usize) -> Option<usize> {
        let page = self.0.get() & !WHY;
        let inside = page.saturating_sub(at.addr());
        (inside < len && at.addr() <= page | WHY).then_some(inside)
    }

    /// Whether the memory itself is bad.
    pub(crate) fn is_poison(self) -> bool {
        self.0.get() & WHY == POISONED
    }

    /// Whether the fault lies in the `len` bytes at `at`.
    pub(crate) fn is_in(self, at: *const u8, len: usize) -> bool {
        self.place_in(at, len).is_some()
    }

    /// As an error of an access of the `len` bytes at `at`, which are those from `offset` of a device.
    #[cold]
    pub(crate) fn error(self, op: &'static str, at: *const u8, len: usize, offset: u64) -> Error {
        let (offset, errno, what) = match self.place_in(at, len) {
            Some(inside) if self.is_poison() => {
                return Error::Poisoned { offset: (offset + inside as u64) & !(PAGE_SIZE - 1) };
            }
            Some(inside) => (
                offset + inside as u64,
                EIO,
                "this page of the image is not available: the file was truncated, is on a full file system, or cannot \
                 be read",
            ),
            None => (offset, EFAULT, "the caller's own buffer is not available"),
        };
        Error::Io { op, offset, errno: Some(errno), message: String::from(what) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(address: usize, why: usize) -> Fault {
        Fault::check(address & !WHY | why).unwrap_err()
    }

    #[test]
    fn a_fault_names_the_first_byte_of_the_range_in_the_page() {
        let at = core::ptr::without_provenance::<u8>(0x10_0800);
        let offset = |fault: Fault| match fault.error("load", at, 0x3000, 5 << 20) {
            Error::Io { offset, errno, .. } => (offset, errno),
            other => panic!("{other:?}"),
        };
        assert_eq!(offset(fault(0x10_0fff, 2)), (5 << 20, Some(EIO)), "the page in which the range begins");
        assert_eq!(offset(fault(0x10_1000, 2)), ((5 << 20) + 0x800, Some(EIO)));
        assert_eq!(offset(fault(0x10_37ff, 2)), ((5 << 20) + 0x2800, Some(EIO)), "the page in which it ends");
        assert_eq!(offset(fault(0x10_4000, 2)), (5 << 20, Some(EFAULT)), "the page behind");
        assert_eq!(offset(fault(0x0f_f000, 2)), (5 << 20, Some(EFAULT)), "the page before");
        let poisoned = fault(0x10_1000, 4).error("load", at, 0x3000, 0x800);
        assert_eq!(poisoned, Error::Poisoned { offset: 0x1000 });
    }
}
