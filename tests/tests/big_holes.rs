//! What a long hole costs on a real image: a handful of metadata reads, however long it is.

use std::sync::Arc;

use blockdev::{BlockDevice, Counted, RamDevice};
use e2dax_tests::{need_tools, tools};
use ext2_core::{Ext2, FileBlock, FileKind, NewInode, OpenOptions, Wait};

/// Blocks of a tebibyte.
const TEBIBYTE: u64 = (1 << 40) / 4096;
/// The first block under the triple indirect pointer, with blocks of 4 KiB.
const TIND: u64 = 12 + 1024 + 1024 * 1024;

#[test]
fn a_hole_of_a_tebibyte_under_a_missing_subtree_is_answered_with_at_most_four_reads() {
    need_tools!("mke2fs");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    tools::mke2fs(&["-t", "ext2", "-b", "4096", path.to_str().expect("a path of ours"), "16m"]);
    let bytes = std::fs::read(&path).expect("the image");
    let device = Arc::new(Counted::new(RamDevice::from_bytes(&bytes).expect("memory")));
    let shared: Arc<dyn BlockDevice> = device.clone();
    let fs = Ext2::open(shared, &OpenOptions::default()).expect("open");
    let file = fs
        .root()
        .expect("root")
        .create(b"sparse", &NewInode::new(FileKind::Regular, 0o644))
        .expect("created");
    file.truncate(fs.max_size(), Wait::Yes).expect("sparse");
    // The tree is there, with one block at its start: what follows hangs under pointers that are missing.
    file.write_at(TIND * 4096, b"x").expect("written");
    let start = FileBlock::new(TIND + 1024 * 1024);
    let before = device.snapshot();
    let answer = file.map(start, TEBIBYTE).expect("mapped");
    let reads = device.snapshot().since(&before).reads;
    assert_eq!((answer.count, answer.target), (TEBIBYTE, None));
    assert!(reads <= 4, "{reads} reads");
}
