//! Any bytes are a tar archive or refused with a reason; what one holds becomes a sound image.
#![no_main]

use std::fs::File;
use std::io::Write as _;

use e2dax_fuzz::build;
use ext2_image::archive::{Opened, read_opened};
use ext2_image::mkfs::source::Times;
use ext2_image::mkfs::{Format, Options};
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};

fuzz_target!(|bytes: &[u8]| {
    let mut file = File::from(memfd_create("archive", MemfdFlags::CLOEXEC).expect("memory"));
    file.write_all(bytes).expect("written");
    if let Ok(mut archive) = read_opened(Opened { file, len: bytes.len() as u64, is_device: false }, Some(Times::All)) {
        let _ = build(archive.tree, &Format::default(), &Options::default(), &mut archive.contents);
    }
});
