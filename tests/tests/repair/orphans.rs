//! The list of orphans of an image that somebody made up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use blockdev::{BlockDevice, RamDevice};
use ext2_core::{BlockSize, Ext2, FileKind, NewInode, OpenOptions};
use ext2_image::check;
use ext2_image::fields::{Layout, Structure};
use ext2_image::inspect::poke;
use ext2_image::mkfs::{self, Format, Fresh};

use crate::bench::{NOW, repair_all};

#[test]
fn an_indirect_block_that_all_pointers_of_an_orphan_lead_to_is_gone_through_once() {
    const BLOCK: u64 = 8192;
    let device = Arc::new(RamDevice::new(16 << 20).unwrap());
    let format = Format { block_size: BlockSize::new(BLOCK), ..Format::default() };
    mkfs::format(&*device, &format, Fresh::Zeros).unwrap();
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    let file = fs.root().unwrap().create(b"f", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
    file.write_at(0, &[7; 8192]).unwrap();
    let (nr, block) = (file.nr(), file.extents().next().unwrap().unwrap().target.unwrap().get());
    fs.close().unwrap();
    drop(file);
    // Each of its pointers leads back to it: there are 2^33 ways through it, and all below the size stays.
    device.write_at(u64::from(block) * BLOCK, &block.to_le_bytes().repeat(2048)).unwrap();
    let layout = Layout::read(&*device).unwrap();
    let set = |structure, field: &str, value: String| {
        poke(&*device, &layout, structure, field, &value, true).unwrap().unwrap();
    };
    set(Structure::Inode(nr), "i_block[0]", "0".into());
    set(Structure::Inode(nr), "i_block[14]", block.to_string());
    set(Structure::Inode(nr), "i_size_high", "8191".into());
    set(Structure::Superblock(ext2_core::GroupNr::new(0)), "s_last_orphan", nr.get().to_string());
    let started = Instant::now();
    check::mend(&*device, NOW, &mut |_| ()).unwrap();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(repair_all(&*device).unwrap().clean);
}
