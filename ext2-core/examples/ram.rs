//! Reading a file of an image that lies in memory, as a kernel or boot loader does: nothing here but `main` needs `std`.
//!
//! `cargo run -p ext2-core --example ram`

use blockdev::ReadDevice;
use ext2_core::{Ext2, OpenOptions, Result};

/// The first bytes of a file, in a buffer of the caller's.
fn read_start(image: &'static [u8], path: &str, buf: &mut [u8]) -> Result<usize> {
    let fs = Ext2::open(ReadDevice::new(image)?, &OpenOptions::read_only())?;
    let file = fs.resolve(path, ext2_core::Follow::Yes)?;
    file.read_at(0, buf)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    // An image, such as a boot loader finds behind itself.
    let device = ext2_image::mkfs::in_memory(1 << 20)?;
    let fs = Ext2::open(std::sync::Arc::new(device), &OpenOptions::default())?;
    fs.create_dir_all("boot")?;
    fs.write("boot/cmdline", "root=/dev/pmem0 ro")?;
    let device = fs.device().clone();
    fs.close()?;
    let mut image = vec![0; device.size() as usize];
    device.read_at(0, &mut image)?;

    let mut buf = [0; 64];
    let len = read_start(image.leak(), "/boot/cmdline", &mut buf)?;
    assert_eq!(&buf[..len], b"root=/dev/pmem0 ro");
    println!("{}", String::from_utf8_lossy(&buf[..len]));
    Ok(())
}
