//! Any text is a manifest or refused with a line; a manifest survives its text, and becomes a sound image or an error.
#![no_main]

use std::path::Path;

use e2dax_fuzz::build;
use ext2_core::Timestamp;
use ext2_image::manifest::parse;
use ext2_image::mkfs::source::{format_of_manifest, tree_of_manifest};
use ext2_image::mkfs::{Format, NoContents, Options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(manifest) = parse(text) else { return };
    let again = manifest.to_string();
    assert_eq!(parse(&again).as_ref(), Ok(&manifest));
    // No files: what has bytes is refused when it is read.
    let Ok(built) = tree_of_manifest(&manifest, Path::new("/nonexistent"), Timestamp::default()) else {
        return;
    };
    let mut format = Format::default();
    if format_of_manifest(&manifest, &mut format).is_ok() {
        let _ = build(built.tree, &format, &Options::default(), &mut NoContents);
    }
});
