//! A script of file operations on a sound image, by both data paths and both sets of behaviour: nothing panics, and the
//! image is clean afterwards.
#![no_main]

use std::sync::{Arc, OnceLock};

use blockdev::RamDevice;
use e2dax_tests::golden::testdata;
use ext2_image::check::{Options as CheckOptions, check};
use ext2_core::{Ext2, OpenOptions};
use ext2_dax::replay::{Player, Script};
use ext2_dax::{Compat, DaxFs, DaxOptions};
use libfuzzer_sys::fuzz_target;

fn base() -> &'static [u8] {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    BASE.get_or_init(|| e2dax_tests::golden::gunzip(&testdata().join("linux-6.1/images/base-4m.img.gz")))
}

fuzz_target!(|text: &[u8]| {
    let Ok(script) = Script::parse(text) else { return };
    for compat in [Compat::FULL, Compat::LINUX_6_1] {
        let device = Arc::new(RamDevice::from_bytes(base()).expect("memory"));
        let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("a sound image");
        let mut player = Player::new(DaxFs::new(fs.clone(), DaxOptions { compat, ..DaxOptions::default() }));
        player.play(&script, |_| {});
        drop(player);
        fs.close().expect("closed");
        let summary = check(&*device, &CheckOptions::default(), &mut |_| {}).expect("checked");
        assert!(summary.is_clean(), "{summary:?}");
    }
});
