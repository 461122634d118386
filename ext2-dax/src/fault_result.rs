//! What a fault came to (Linux: `vm_fault_t`, same bits).

use std::fmt;

use bitflags::bitflags;

bitflags! {
    /// The outcome of a page fault, in the kernel's bits.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FaultResult: u32 {
        /// No memory for the page, its entry or its table.
        const OOM = 0x1;
        /// The access dies: past the end of the file, or the data cannot be read.
        const SIGBUS = 0x2;
        /// Blocks were allocated.
        const MAJOR = 0x4;
        /// The page's memory is poisoned.
        const HWPOISON = 0x10;
        /// As `HWPOISON`, of a large page.
        const HWPOISON_LARGE = 0x20;
        /// The access is not allowed.
        const SIGSEGV = 0x40;
        /// The translation is in place (or somebody else's is): try the access again.
        const NOPAGE = 0x100;
        /// A page is returned locked.
        const LOCKED = 0x200;
        /// Locks were dropped: do the fault again.
        const RETRY = 0x400;
        /// Not at this size: try 4 KiB.
        const FALLBACK = 0x800;
        /// A private copy was made.
        const DONE_COW = 0x1000;
        /// Metadata has to be made durable before the page may be mapped writable.
        const NEEDDSYNC = 0x2000;
        /// The outcomes that count as errors.
        const ERROR = 0x1 | 0x2 | 0x40 | 0x10 | 0x20 | 0x800;
    }
}

const NAMES: [(FaultResult, &str); 12] = [
    (FaultResult::OOM, "OOM"),
    (FaultResult::SIGBUS, "SIGBUS"),
    (FaultResult::MAJOR, "MAJOR"),
    (FaultResult::HWPOISON, "HWPOISON"),
    (FaultResult::HWPOISON_LARGE, "HWPOISON_LARGE"),
    (FaultResult::SIGSEGV, "SIGSEGV"),
    (FaultResult::NOPAGE, "NOPAGE"),
    (FaultResult::LOCKED, "LOCKED"),
    (FaultResult::RETRY, "RETRY"),
    (FaultResult::FALLBACK, "FALLBACK"),
    (FaultResult::DONE_COW, "DONE_COW"),
    (FaultResult::NEEDDSYNC, "NEEDDSYNC"),
];

impl FaultResult {
    /// Whether it is one of the error outcomes.
    #[must_use]
    pub fn is_error(self) -> bool {
        self.intersects(Self::ERROR)
    }
}

/// The kernel's form: names in the order of the bits, `|` between them; nothing for no bit.
impl fmt::Display for FaultResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (bit, name) in NAMES {
            if self.contains(bit) {
                if !first {
                    f.write_str("|")?;
                }
                f.write_str(name)?;
                first = false;
            }
        }
        Ok(())
    }
}
