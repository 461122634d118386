//! How much of an image a repair reads, and how often.

use std::cell::Cell;
use std::sync::Arc;

use blockdev::{BlockDevice, Counted, RamDevice};
use ext2_core::{Ext2, FileKind, InodeNr, NewInode, OpenOptions};
use ext2_image::check::{self, Kind, Pass};
use ext2_image::fields::{Layout, Structure};
use ext2_image::inspect::poke;
use ext2_image::mkfs::{self, Format, Fresh};
use ext2_image::repair::{Changes, Options, Policy, Report, repair};

use crate::bench::NOW;

/// An image with many directories, and files that have indirect blocks.
fn image() -> Arc<Counted<RamDevice>> {
    let device = Arc::new(Counted::new(RamDevice::new(32 << 20).unwrap()));
    mkfs::format(&*device, &Format::default(), Fresh::Zeros).unwrap();
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    for nr in 0..200 {
        let name = format!("d{nr}");
        let dir = root.create(name.as_bytes(), &NewInode::new(FileKind::Directory, 0o755)).unwrap();
        let file = dir.create(b"file", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
        file.write_at(0, &[nr as u8; 70_000]).unwrap();
    }
    fs.close().unwrap();
    device
}

/// Gives a field of an inode another value.
fn set(device: &dyn BlockDevice, inode: u32, field: &str, value: &str) {
    let structure = Structure::Inode(InodeNr::new(inode).unwrap());
    poke(device, &Layout::read(device).unwrap(), structure, field, value, true).unwrap().unwrap();
}

/// Repairs an image, and says how often the tables of inodes were gone through.
fn repaired(device: &dyn BlockDevice, policy: Policy) -> (Report, Vec<Kind>, u32) {
    let looks = Cell::new(0);
    let progress = |progress: check::Progress| {
        looks.set(looks.get() + u32::from(progress.pass == Pass::Inodes && progress.done == progress.total));
    };
    let changes = Changes::new(device);
    let mut kinds = Vec::new();
    let options = Options { now: NOW, policy, progress: &progress };
    let report = repair(&changes, &options, &mut |finding| {
        kinds.push(finding.kind);
        true
    })
    .unwrap();
    changes.apply().unwrap();
    (report, kinds, looks.get())
}

fn assert_clean(device: &dyn BlockDevice) {
    let summary = check::check(device, &Default::default(), &mut |finding| println!("{finding}")).unwrap();
    assert!(summary.is_clean());
}

#[test]
fn an_image_whose_counts_are_wrong_is_gone_through_once() {
    for policy in [Policy::Asked, Policy::Preen] {
        let device = image();
        set(&*device, 2, "i_links_count", "7");
        // The count of free blocks of group 0, and a bit of its bitmap.
        let size = 1024 << device.read_u32(1024 + 24).unwrap();
        let descriptors = if size == 1024 { 2048 } else { size };
        let bitmap = u64::from(device.read_u32(descriptors).unwrap()) * size;
        device.write_u16(descriptors + 12, 3).unwrap();
        device.write_at(bitmap + 1, &[0]).unwrap();
        let (report, kinds, looks) = repaired(&*device, policy);
        for kind in [Kind::Links, Kind::BlocksMarkedFree, Kind::GroupFreeBlocks] {
            assert!(kinds.contains(&kind), "{kinds:?}");
        }
        assert!(report.clean && looks == 1, "{looks} looks: {report:?}");
        assert_clean(&*device);
        assert_eq!(repaired(&*device, policy).0.mended, 0, "a second repair has nothing to do");
    }
}

#[test]
fn a_clean_image_is_gone_through_once() {
    for policy in [Policy::Asked, Policy::Preen] {
        let device = image();
        let (report, kinds, looks) = repaired(&*device, policy);
        assert!(report.clean && kinds.is_empty() && looks == 1, "{looks} looks: {report:?}");
    }
}

#[test]
fn a_second_round_reads_indirect_blocks_and_directories_again_only_where_they_were_changed() {
    let device = image();
    device.reset();
    assert_clean(&*device);
    let once = device.reset().reads;
    // A number of blocks that is wrong is no count of what was found by it: the passes begin anew.
    set(&*device, 2, "i_blocks", "400");
    device.reset();
    let (report, kinds, looks) = repaired(&*device, Policy::Asked);
    let twice = device.reset().reads;
    assert!(report.clean && looks == 2, "{looks} looks: {report:?}");
    assert_eq!(kinds, [Kind::Blocks]);
    println!("{once} reads of a check, {twice} of a repair");
    assert!(twice < once + once / 4, "{once} reads of a check, {twice} of a repair");
    assert_clean(&*device);
}
