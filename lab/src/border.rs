//! The border to the page: a few functions of WebAssembly. Requests and answers are JSON ([`crate::api`]); an image comes
//! and goes as plain bytes.
//!
//! # Invariants
//! 1. The page calls from one thread, and keeps no pointer past its next call.
//! 2. A panic leaves its message where [`lab_panic`] finds it; the module is then not used any more.

use std::cell::RefCell;

use crate::api::Lab;

thread_local! {
    static LAB: RefCell<Lab> = RefCell::new(Lab::new());
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Where the page puts `len` bytes for the next call.
// SAFETY: no other symbol of the module has this name.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn lab_input(len: usize) -> *mut u8 {
    INPUT.with_borrow_mut(|input| {
        input.clear();
        input.resize(len, 0);
        input.as_mut_ptr()
    })
}

/// Answers the request that was put there. The length of the answer; it lies at [`lab_output`].
// SAFETY: no other symbol of the module has this name.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn lab_call() -> usize {
    let note = |info: &std::panic::PanicHookInfo<'_>| PANIC.with_borrow_mut(|text| *text = info.to_string());
    std::panic::set_hook(Box::new(note));
    let request = INPUT.take();
    let answer = LAB.with_borrow_mut(|lab| lab.call(&request));
    put(answer)
}

/// Takes what was put there as the bytes of an image, plain.
// SAFETY: no other symbol of the module has this name.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn lab_image() {
    let bytes = INPUT.take();
    LAB.with_borrow_mut(|lab| lab.take_image(bytes));
}

/// Puts the bytes of the image where answers lie; how many.
// SAFETY: no other symbol of the module has this name.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn lab_image_back() -> usize {
    put(LAB.with_borrow(Lab::image))
}

/// Where the last answer lies.
// SAFETY: no other symbol of the module has this name.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn lab_output() -> *const u8 {
    OUTPUT.with_borrow(|output| output.as_ptr())
}

/// Puts the message of the last panic where answers lie; its length, 0 for none.
// SAFETY: no other symbol of the module has this name.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn lab_panic() -> usize {
    put(PANIC.take().into_bytes())
}

fn put(bytes: Vec<u8>) -> usize {
    OUTPUT.with_borrow_mut(|output| {
        *output = bytes;
        output.len()
    })
}
