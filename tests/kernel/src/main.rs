//! A kernel without anything but a file system: it finds the disk of QEMU's RISC-V machine, opens the ext2 file system on
//! it read-only, prints the manifest of all files, and turns the machine off.
//!
//! It shows what [`ext2_core`] needs of whoever embeds it without an operating system: an allocator, and one method that
//! reads. `.ci/targets kernel` boots it on the test images and compares what it prints with their manifests.
//!
//! One hart, no interrupts, addresses are physical.

#![no_std]
#![no_main]

extern crate alloc;

mod disk;
mod machine;

use alloc::string::ToString;

use alloc::sync::Arc;

use blockdev::{BlockDevice, Partition, ReadDevice, partitions};
use ext2_core::{Ext2, OpenOptions};

/// What the first instructions lead to. The result is the machine's: QEMU ends with 0 or 1.
fn main() -> Result<(), alloc::boxed::Box<dyn core::error::Error>> {
    let disk = disk::Disk::find().ok_or("no disk")?;
    let size = disk.size();
    let disk: Arc<dyn BlockDevice> = Arc::new(ReadDevice::with_size(disk, size));
    let disk = match partitions(&*disk)?.first() {
        Some(first) => Arc::new(Partition::new(disk, first.offset, first.len)?),
        None => disk,
    };
    let fs = Ext2::open(disk, &OpenOptions::read_only())?;
    machine::print(&ext2_image::manifest::from_image(&fs)?.to_string());
    Ok(())
}
