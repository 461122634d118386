//! Sparse images of 8 GiB and 1 TiB: resized with bounded memory, in no time.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Instant;

use e2dax_tests::{memory, need_tools, tools};
use ext2_image::resize::Resize;
use ext2_image::rewrite::Options;

use crate::common::{MIB, contents, fill, open};

const GIB: u64 = 1 << 30;

fn resize(path: &Path, bytes: u64) {
    let len = std::fs::metadata(path).unwrap().len().max(bytes);
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
    let device = open(path);
    let begin = Instant::now();
    let plan = Resize::plan(&*device, bytes / 4096).unwrap();
    let done = plan.run(&*device, &Options::default()).unwrap();
    println!("{done:?}: {:?}", begin.elapsed());
    drop(device);
    OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

/// The most memory that this process had, in KiB.
fn peak() -> u64 {
    memory::of(std::process::id(), "VmHWM").expect("Linux tells of a process")
}

#[test]
fn large_sparse_images_grow_and_shrink_with_bounded_memory() {
    need_tools!("mke2fs", "e2fsck");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.img");
    File::create(&path).unwrap().set_len(8 * GIB).unwrap();
    // Few inodes, so that e2fsck is not what takes the time.
    tools::run("mke2fs", &["-q", "-F", "-t", "ext2", "-i", "1048576", path.to_str().unwrap()]).unwrap();
    fill(open(&path), 40 * MIB);
    let before = contents(open(&path));
    for bytes in [16 * GIB, 1024 * GIB, 5 * GIB] {
        resize(&path, bytes);
        if bytes < 100 * GIB || std::env::var_os("E2DAX_LONG").is_some() {
            tools::e2fsck_fn(&path).unwrap_or_else(|error| panic!("{bytes}: {error}"));
        }
        assert!(contents(open(&path)) == before, "{bytes}");
    }
    // Two bitmaps for each of 8192 groups are 64 MiB; the rest is this test's.
    println!("{} KiB at most", peak());
    assert!(peak() < 400 << 10, "{} KiB", peak());
}
