//! Any text is a script of operations or refused with a line.
#![no_main]

use ext2_dax::replay::Script;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let _ = Script::parse(text);
});
