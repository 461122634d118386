//! QEMU's `virt` machine: where it begins, how it prints, how it ends, and what memory there is.

use alloc::string::ToString;
use core::arch::global_asm;
use core::panic::PanicInfo;

use linked_list_allocator::LockedHeap;

/// The serial line (NS16550): a byte stored here is sent.
const SERIAL: *mut u8 = 0x1000_0000 as *mut u8;
/// The test device: ends QEMU.
const POWER: *mut u32 = 0x10_0000 as *mut u32;
/// What it takes for "all is well", and for an exit with code 1.
const PASS: u32 = 0x5555;
const FAIL: u32 = 1 << 16 | 0x3333;

#[global_allocator]
static HEAP: LockedHeap = LockedHeap::empty();

// The machine begins at the first byte of memory in machine mode. Other harts sleep; the unit for floating point is switched
// on, since the compiler may use its registers; memory that has to begin as zero is zeroed.
global_asm!(
    ".section .text.start",
    ".globl start",
    "start:",
    "csrr t0, mhartid",
    "1: beqz t0, 2f",
    "wfi",
    "j 1b",
    "2: li t0, 0x2000",
    "csrs mstatus, t0",
    "la sp, stack_top",
    "la t0, bss_start",
    "la t1, bss_end",
    "3: bgeu t0, t1, 4f",
    "sd zero, 0(t0)",
    "addi t0, t0, 8",
    "j 3b",
    "4: j begin",
);

unsafe extern "C" {
    static mut heap_start: u8;
    static heap_end: u8;
}

#[unsafe(no_mangle)]
extern "C" fn begin() -> ! {
    let (start, end) = (&raw mut heap_start, &raw const heap_end);
    // SAFETY: the linker script gives this range to nobody else, and it is given once: `begin` runs once.
    unsafe { HEAP.lock().init(start, end.addr() - start.addr()) };
    match crate::main() {
        Ok(()) => end_with(PASS),
        Err(error) => {
            print("error: ");
            print(&error.to_string());
            print("\n");
            end_with(FAIL)
        }
    }
}

/// Sends text over the serial line.
pub fn print(text: &str) {
    for byte in text.bytes() {
        // SAFETY: the serial line's register on this machine, which takes any byte.
        unsafe { SERIAL.write_volatile(byte) };
    }
}

fn end_with(code: u32) -> ! {
    // SAFETY: the test device's register on this machine.
    unsafe { POWER.write_volatile(code) };
    loop {
        core::hint::spin_loop();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    print(&info.to_string());
    print("\n");
    end_with(FAIL)
}
