//! What several targets ask of an image that was made: it is sound, and everything in it can be read.

use std::sync::Arc;

use blockdev::RamDevice;
use e2dax_tests::exercise::try_everything;
use ext2_image::check::{Options as CheckOptions, check};
use ext2_image::mkfs::{Contents, DeviceOutput, Error, Format, Fresh, Options, Plan, Tree};
use ext2_core::{Ext2, OpenOptions};

/// Larger images are planned and not written, in bytes.
pub const LARGEST: u64 = 12 << 20;

/// Plans an image of a tree and, where it is small, writes it to memory, checks it and reads it to the end.
///
/// # Panics
/// Where the image that was made is not sound.
pub fn build(
    tree: Tree,
    format: &Format,
    options: &Options,
    contents: &mut dyn Contents,
) -> Result<(), Error> {
    let plan = Plan::new(tree, format, options)?;
    let bytes = plan.bytes();
    if bytes > LARGEST {
        return Ok(());
    }
    let device = Arc::new(RamDevice::new(bytes).expect("memory"));
    plan.write(contents, &DeviceOutput::new(&*device, Fresh::Zeros), &mut |_| ())?;
    let mut findings = String::new();
    let summary =
        check(&*device, &CheckOptions::default(), &mut |finding| findings += &format!("{finding}\n"))
            .expect("checked");
    assert!(summary.is_clean(), "{format:?}, {options:?}: {findings}");
    try_everything(&Ext2::open(device, &OpenOptions::read_only()).expect("what was made opens"));
    Ok(())
}
