//! Any text is a manifest or refused with a line; a manifest survives its text.
#![no_main]

use ext2_core::manifest::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(manifest) = parse(text) {
        let again = manifest.to_string();
        assert_eq!(parse(&again).as_ref(), Ok(&manifest));
    }
});
