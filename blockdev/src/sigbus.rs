//! Bus errors of mapped images, as errors of the calls that met them.
//!
//! A page of a mapped file that the system cannot supply is a signal, `SIGBUS`, whose default ends the process. That is
//! so when somebody truncates the file, when a store needs a block (in a hole, or one that is shared with a copy made
//! by `cp --reflink`) and the file system is full, and when the disk below fails. This module makes an error of it:
//! the call that met it returns [`Error::Io`](crate::Error) with the page's offset, or
//! [`Error::Poisoned`](crate::Error) where the memory itself went bad.
//!
//! Opening a [`MmapDevice`](crate::MmapDevice) for which [`DeviceOptions::lost_pages`](crate::DeviceOptions) is
//! [`LostPages::Report`] installs the handler, once for the process. It acts on faults of this crate's own loads
//! and stores only, and hands every other signal to the handler that was there before: the standard library's for stack
//! overflows, or the program's. A mapping that a program uses by itself keeps its `SIGBUS`.
//!
//! # What a program has to know
//! - A handler that is installed later must hand on what it does not know, as every handler should; or it asks [`resume`]
//!   first. One that does neither gets the signal of these faults, too.
//! - A thread that blocks `SIGBUS` and meets such a fault ends the process: the kernel does not deliver it.
//! - The kernel does not fault, it refuses: an address of a mapped image that is given to a system call (`write`,
//!   `vmsplice`) makes that call fail with `EFAULT`, and `splice` from the file itself gives an error or fewer bytes.
//!   Programs that serve an image by such calls treat these as the errors that they are.
//! - The handler runs on the thread's alternate stack where it has one, allocates nothing and takes no lock.
//!
//! # Invariants
//! 1. The handler reads the table of `mem::fault`, which never changes, and what [`install`] left before it let the
//!    first signal in.
//! 2. It writes two registers of the thread that faulted, and only if the signal is a fault of the instruction at which
//!    this thread stands, and that is one of ours.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr::null;
use std::sync::OnceLock;

use libc::{SA_ONSTACK, SA_SIGINFO, SIG_DFL, SIG_IGN, SIGBUS, sigaction, siginfo_t};

/// What becomes of a page of a mapped image that the system cannot supply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LostPages {
    /// An error of the call that met it, by a handler of `SIGBUS` for the whole process: see [`sigbus`](self). On
    /// targets where that is not possible, as [`Signal`](Self::Signal).
    #[default]
    Report,
    /// The signal, which ends the process unless the program handles it. No handler is installed.
    Signal,
}

/// What was there before.
static PREVIOUS: OnceLock<sigaction> = OnceLock::new();

/// Whether a bus error can be made an error of the call here: Linux and Android on x86, x86-64, Arm, AArch64 and
/// RISC-V (64 bits).
#[must_use]
pub const fn is_possible() -> bool {
    thread::IS_KNOWN
}

/// Installs the handler, if it is not yet; whoever opens a [`MmapDevice`](crate::MmapDevice) has it installed anyway.
/// Gives false, and does nothing, where it is not [possible](is_possible) or the system refuses.
pub fn install() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        if !is_possible() {
            return false;
        }
        // What is there is noted before the first signal can ask for it. Two threads of which one installs a handler
        // of its own in between would lose that one; so it is looked at again.
        let Some(before) = current() else { return false };
        let _ = PREVIOUS.set(before);
        // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask.
        let mut ours: sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        ours.sa_sigaction = on_bus_error as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
        // SAFETY: `ours` is filled in, and the handler does what a signal handler may: see the invariants.
        let installed = unsafe { sigaction(SIGBUS, &ours, core::ptr::null_mut()) } == 0;
        if !installed {
            log::error!("no handler for bus errors: {}", std::io::Error::last_os_error());
        }
        installed
    })
}

/// How `SIGBUS` is handled now.
fn current() -> Option<sigaction> {
    let mut now = MaybeUninit::uninit();
    // SAFETY: the pointer is good for one `sigaction`, which the call fills in.
    let asked = unsafe { sigaction(SIGBUS, null(), now.as_mut_ptr()) };
    // SAFETY: filled in, as the call succeeded.
    (asked == 0).then(|| unsafe { now.assume_init() })
}

/// For handlers of `SIGBUS` of a program's own: if the signal is a fault of this crate's loads and stores, makes the
/// thread go on with an error when the handler returns, and gives true. The handler then returns at once.
///
/// It may be called in a signal handler, and needs no [`install`].
///
/// # Safety
/// `info` and `context` are what the kernel gave a handler with `SA_SIGINFO`, in that handler.
pub unsafe fn resume(info: *const siginfo_t, context: *mut c_void) -> bool {
    if !is_possible() || info.is_null() || context.is_null() {
        return false;
    }
    // SAFETY: the caller's promise.
    let info = unsafe { &*info };
    // Faults that the kernel found with the instruction; not a signal that somebody sent, and not the news that memory
    // which nobody asked for went bad (`BUS_MCEERR_AO`).
    if !(1..=4).contains(&info.si_code) {
        return false;
    }
    // SAFETY: `SIGBUS` with these codes has an address.
    let address = unsafe { info.si_addr() }.addr();
    // OK to cast: 1 to 4, as was asked.
    let fault = address & !crate::mem::WHY | info.si_code as usize;
    // SAFETY: the caller's promise.
    unsafe { thread::resume(context, fault) }
}

/// The handler.
extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: these are what the kernel gave.
    if unsafe { resume(info, context) } {
        return;
    }
    // SAFETY: these are what the kernel gave for this signal, and what was installed for it before.
    unsafe { hand_on(signal, info, context, PREVIOUS.get()) };
}

/// Hands a signal that is not ours to the handler that was there before.
///
/// # Safety
/// `info` and `context` are what the kernel gave a handler of `signal`, in that handler; `previous` was installed for it.
pub(crate) unsafe fn hand_on(
    signal: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
    previous: Option<&sigaction>,
) {
    let handler = previous.map_or(SIG_DFL, |previous| previous.sa_sigaction);
    // SAFETY: the kernel's, or null.
    let is_sent = unsafe { info.as_ref() }.is_some_and(|info| info.si_code <= 0);
    match (handler, previous) {
        // The kernel does not let a fault be ignored either.
        (SIG_IGN, _) if is_sent => {}
        (SIG_DFL | SIG_IGN, _) | (_, None) => by_default(signal, is_sent),
        (handler, Some(previous)) if previous.sa_flags & SA_SIGINFO != 0 => {
            // SAFETY: a handler with this flag is a function of this kind, and it was installed for this signal.
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                unsafe { core::mem::transmute(handler) };
            handler(signal, info, context);
        }
        (handler, Some(_)) => {
            // SAFETY: a handler without the flag is a function of this kind.
            let handler: extern "C" fn(c_int) = unsafe { core::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// Lets the signal do what it does without a handler: a fault happens again when the handler returns, and one that was
/// sent is sent again.
fn by_default(signal: c_int, is_sent: bool) {
    // SAFETY: all zeros is a valid `sigaction`, and stands for the default.
    let default: sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: as above; the call may be made in a signal handler.
    unsafe { sigaction(signal, &default, core::ptr::null_mut()) };
    if is_sent {
        // SAFETY: may be called in a signal handler; delivered when this one returns.
        unsafe { libc::raise(signal) };
    }
}

/// The registers of a thread that faulted.
#[cfg(resumes_faults)]
mod thread {
    use core::ffi::c_void;

    use libc::ucontext_t;

    pub(super) const IS_KNOWN: bool = true;

    /// The instructions of one piece of assembly, relative to the fields themselves.
    #[repr(C)]
    struct Entry {
        first: i32,
        behind: i32,
    }

    unsafe extern "C" {
        // The linker's names for the two ends of the section.
        static __start_blockdev_faults: Entry;
        static __stop_blockdev_faults: Entry;
    }

    /// Where the program goes on if the instruction at `pc` is one of ours.
    fn behind(pc: usize) -> Option<usize> {
        // An entry for nothing, so that the section is there whatever else is linked.
        // SAFETY: no instruction at all.
        unsafe {
            core::arch::asm!("7:", "8:", crate::mem::may_fault!(), options(nomem, nostack, preserves_flags))
        };
        let mut at = &raw const __start_blockdev_faults;
        let stop = &raw const __stop_blockdev_faults;
        while at < stop {
            // SAFETY: between the two ends the section is made of entries: nobody else writes to a section of this name.
            let entry = unsafe { &*at };
            let absolute =
                |field: &i32| core::ptr::from_ref(field).addr().wrapping_add_signed(*field as isize);
            let behind = absolute(&entry.behind);
            if (absolute(&entry.first)..behind).contains(&pc) {
                return Some(behind);
            }
            at = at.wrapping_add(1);
        }
        None
    }

    /// If the thread stands at an instruction of ours: moves it behind, with the fault in the fault register.
    ///
    /// # Safety
    /// `context` is what the kernel gave a signal handler, in that handler.
    pub(super) unsafe fn resume(context: *mut c_void, fault: usize) -> bool {
        // SAFETY: the caller's promise: the kernel's context, which nobody else uses meanwhile.
        let context = unsafe { &mut *context.cast::<ucontext_t>() };
        let (pc, register) = registers(context);
        // OK to cast, here and below: registers are as wide as addresses.
        let Some(behind) = behind(*pc as usize) else { return false };
        *pc = behind as _;
        *register = fault as _;
        true
    }

    /// The program counter, and the register that `mem` uses for faults.
    #[cfg(target_arch = "x86_64")]
    fn registers(context: &mut ucontext_t) -> (&mut i64, &mut i64) {
        const { assert!(libc::REG_RAX < libc::REG_RIP) };
        let (low, high) = context.uc_mcontext.gregs.split_at_mut(libc::REG_RIP as usize);
        (&mut high[0], &mut low[libc::REG_RAX as usize])
    }

    #[cfg(target_arch = "x86")]
    fn registers(context: &mut ucontext_t) -> (&mut i32, &mut i32) {
        const { assert!(libc::REG_EAX < libc::REG_EIP) };
        let (low, high) = context.uc_mcontext.gregs.split_at_mut(libc::REG_EIP as usize);
        (&mut high[0], &mut low[libc::REG_EAX as usize])
    }

    #[cfg(target_arch = "aarch64")]
    fn registers(context: &mut ucontext_t) -> (&mut u64, &mut u64) {
        (&mut context.uc_mcontext.pc, &mut context.uc_mcontext.regs[0])
    }

    #[cfg(target_arch = "arm")]
    fn registers(context: &mut ucontext_t) -> (&mut libc::c_ulong, &mut libc::c_ulong) {
        (&mut context.uc_mcontext.arm_pc, &mut context.uc_mcontext.arm_r0)
    }

    #[cfg(target_arch = "riscv64")]
    fn registers(context: &mut ucontext_t) -> (&mut libc::c_ulong, &mut libc::c_ulong) {
        // Register 0 is always zero, so its place holds the program counter; `a0` is register 10.
        let (low, high) = context.uc_mcontext.__gregs.split_at_mut(10);
        (&mut low[0], &mut high[0])
    }
}

/// Elsewhere nothing is resumed.
#[cfg(not(resumes_faults))]
mod thread {
    use core::ffi::c_void;

    pub(super) const IS_KNOWN: bool = false;

    /// # Safety
    /// None needed; the signature is that of the other targets.
    pub(super) unsafe fn resume(_context: *mut c_void, _fault: usize) -> bool {
        false
    }
}
