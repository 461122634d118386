//! Units of 2 MiB and walks, on golden images and on images that others made.

use std::sync::Arc;

use blockdev::RamDevice;
use e2dax_tests::{golden, need_tools, tools};
use ext2_core::{Ext2, FileBlock, Follow, Inode, OpenOptions};
use ext2_image::{UNIT, UnitCounts, UnitState, Units, Walk};
use tempfile::tempdir;

fn open(name: &str) -> Ext2 {
    let device = RamDevice::from_bytes(&golden::image(name).file_system()).unwrap();
    Ext2::open(Arc::new(device), &OpenOptions::read_only()).unwrap()
}

/// The state of each unit, one by one.
fn states(inode: &Inode, bias: u64) -> Vec<UnitState> {
    let mut states = Vec::new();
    for run in Units::of(inode, bias) {
        let run = run.unwrap();
        assert_eq!(run.first, states.len() as u64, "runs follow each other");
        assert!(run.count > 0);
        states.extend(std::iter::repeat_n(run.state, usize::try_from(run.count).unwrap()));
    }
    states
}

/// An image by mke2fs of one file `/large` full of ones.
fn image_of_a_file(block_size: &str, size: usize) -> Ext2 {
    let folder = tempdir().unwrap();
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("large"), vec![1; size]).unwrap();
    let image = folder.path().join("image");
    let (image_text, tree_text) = (image.to_str().unwrap(), tree.to_str().unwrap());
    tools::run("mke2fs", &["-q", "-t", "ext2", "-b", block_size, "-d", tree_text, image_text, "16M"])
        .unwrap();
    let device = RamDevice::from_bytes(&std::fs::read(&image).unwrap()).unwrap();
    Ext2::open(Arc::new(device), &OpenOptions::read_only()).unwrap()
}

#[test]
fn a_hole_is_mapped_by_the_huge_zero_page_only_if_it_fills_the_unit() {
    let fs = open("two-mib");
    let file = |path: &[u8]| fs.resolve(path, Follow::No).unwrap();
    assert_eq!(states(&file(b"/hole"), 0), [UnitState::HugeZero]);
    assert_eq!(states(&file(b"/mixed"), 0), [UnitState::Hole, UnitState::HugeZero]);
}

#[test]
fn a_unit_is_mappable_only_where_its_run_lies_on_a_multiple_of_2_mib_of_memory() {
    need_tools!("mke2fs");
    let fs = image_of_a_file("4096", 4 << 20);
    let file = fs.resolve(b"/large", Follow::No).unwrap();
    // The first indirect block splits the run in unit 0; unit 1 is in one piece.
    let run = file.map(FileBlock::new(512), 512).unwrap();
    assert_eq!(run.count, 512);
    let start = u64::from(run.target.unwrap().get()) * 4096;
    let mut mappable = 0;
    for bias in [0, 4096, UNIT - start % UNIT, UNIT + 1, 1 << 20] {
        let aligned = (start + bias).is_multiple_of(UNIT);
        mappable += u32::from(aligned);
        let expected = if aligned { UnitState::Mappable } else { UnitState::Unaligned };
        assert_eq!(states(&file, bias), [UnitState::Fragmented, expected], "bias {bias}");
    }
    assert!(mappable > 0, "one of them was made to be");
}

#[test]
fn every_file_has_as_many_units_as_its_size_asks_for_however_large_it_is() {
    for name in ["sparse-huge", "sparse-triple", "two-mib", "block-64k"] {
        let fs = open(name);
        for found in Walk::new(&fs.root().unwrap(), b"/") {
            let found = found.unwrap();
            let counts = Units::of(&found.inode, 0).counts().unwrap();
            let size = found.inode.size();
            assert_eq!(counts.whole() + counts.past_eof, size.div_ceil(UNIT), "{name}: {:?}", found.path);
            assert_eq!(counts.whole(), size.div_ceil(4096) / (UNIT / 4096), "{name}: {:?}", found.path);
        }
    }
}

#[test]
fn blocks_that_are_not_one_run_are_fragmented_and_not_a_hole() {
    need_tools!("mke2fs");
    let fs = image_of_a_file("1024", 5 << 20);
    let large = fs.resolve(b"/large", Follow::No).unwrap();
    // mke2fs puts indirect blocks into the run, so that no unit of 2048 blocks of 1 KiB is in one piece.
    let counts = Units::of(&large, 0).counts().unwrap();
    assert_eq!(counts, UnitCounts { fragmented: 2, past_eof: 1, ..UnitCounts::default() });
}

#[test]
fn a_walk_finds_what_the_manifest_lists() {
    for image in golden::readable() {
        let fs = open(&image.name);
        let mut found: Vec<Vec<u8>> =
            Walk::new(&fs.root().unwrap(), b"/").map(|found| found.unwrap().path).collect();
        found.sort();
        let mut listed: Vec<_> = image.manifest().entries().iter().map(|entry| entry.path.clone()).collect();
        listed.sort();
        assert_eq!(found, listed, "{}", image.name);
    }
}
