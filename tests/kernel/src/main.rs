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
    let fs = match partitions(&*disk)?.as_slice() {
        [] => Ext2::open(disk, &OpenOptions::read_only())?,
        // The first that has a file system of ours.
        table => table
            .iter()
            .filter_map(|one| Partition::new(Arc::clone(&disk), one.offset, one.len).ok())
            .find_map(|part| Ext2::open(part, &OpenOptions::read_only()).ok())
            .ok_or("no partition has an ext2 file system")?,
    };
    machine::print(&ext2_image::manifest::from_image(&fs)?.to_string());
    Ok(())
}
