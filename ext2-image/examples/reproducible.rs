//! The same directory gives the same bytes, whenever and by whomever the image is made.
//!
//! `cargo run -p ext2-image --example reproducible [DIR]`

use std::path::{Path, PathBuf};

use blockdev::RamDevice;
use ext2_core::Timestamp;
use ext2_image::mkfs::source::{Folder, Times, Xattrs, read_directory};
use ext2_image::mkfs::{DeviceOutput, Format, Fresh, NodeAttrs, Options, Plan};

/// The image of a directory, in memory. Every file is root's, and every time that of the release.
fn image(dir: &Path, released: Timestamp) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut tree = read_directory(dir, Times::Modified, Xattrs::Drop, &mut |_| ())?;
    tree.for_each_attrs(|attrs| *attrs = NodeAttrs::new(attrs.mode, (0, 0), released));
    let format = Format { created: released, ..Format::default() }.identified(&mut tree, b"my-appliance")?;
    let plan = Plan::new(tree, &format, &Options::default())?;
    let device = RamDevice::new(plan.bytes())?;
    plan.write(&mut Folder::new(dir), &DeviceOutput::new(&device, Fresh::Zeros), &mut |_| ())?;
    Ok(device.to_vec())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")), PathBuf::from);
    let released = Timestamp::from_secs(1_700_000_000);
    let (first, second) = (image(&dir, released)?, image(&dir, released)?);
    assert!(first == second, "two builds of one directory differ");
    println!("{} bytes, the same twice", first.len());
    Ok(())
}
