//! Walking a tree that others change meanwhile.

use std::sync::Arc;

use blockdev::RamDevice;
use ext2_core::{Ext2, FileKind, NewInode, OpenOptions};
use ext2_image::Walk;
use ext2_image::mkfs::{self, Format, Fresh};

#[test]
fn a_name_that_went_and_whose_number_is_another_file_s_is_passed_over() {
    let device = Arc::new(RamDevice::new(1 << 20).unwrap());
    mkfs::format(&*device, &Format::default(), Fresh::Zeros).unwrap();
    let fs = Ext2::open(device, &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    let new = |mode| NewInode::new(FileKind::Regular, mode);
    let dir = root.create(b"d", &NewInode::new(FileKind::Directory, 0o755)).unwrap();
    dir.create(b"a", &new(0o600)).unwrap();
    let old = dir.create(b"b", &new(0o600)).unwrap().nr();

    let mut walk = Walk::new(&dir, b"/d");
    let paths = |walk: &mut Walk, count| -> Vec<Vec<u8>> {
        walk.take(count).map(|found| found.unwrap().path).collect()
    };
    assert_eq!(paths(&mut walk, 2), [&b"/d"[..], b"/d/a"]);
    dir.unlink(b"b").unwrap();
    let other = root.create(b"other", &new(0o644)).unwrap();
    assert_eq!(other.nr(), old, "the case is that the number is given again");
    assert_eq!(paths(&mut walk, 9), Vec::<Vec<u8>>::new());
}
