//! Blocks for a file where few are free: as many as fit together with what leads to them, or none.

use std::sync::Arc;

use blockdev::RamDevice;
use e2dax_tests::small::create;
use ext2_core::plumbing::{Allocate, Plumbing};
use ext2_core::{
    Acl, AclEntry, AclKind, AclTag, BlockSize, Errno, Ext2, FileBlock, OpenOptions, SetAttr, Wait, XattrSet,
};
use ext2_image::mkfs::{self, Format, Fresh};

/// A file system of so many MiB in blocks of 1024 bytes.
fn fresh(mib: u64) -> Ext2 {
    let device = Arc::new(RamDevice::new(mib << 20).expect("memory"));
    let format = Format { block_size: BlockSize::new(1024), reserved_percent: 0.0, ..Format::default() };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    Ext2::open(device, &OpenOptions::default()).expect("open")
}

fn free(fs: &Ext2) -> u64 {
    fs.statfs().expect("counted").blocks_free
}

/// Takes blocks until so many are free.
fn fill(fs: &Ext2, name: &str, left: u64) {
    let filler = create(fs, name);
    while free(fs) > left {
        let most = if free(fs) > left + 40 { free(fs) - left - 30 } else { 1 };
        filler.append(&vec![1; (most * 1024) as usize]).expect("written");
    }
    assert_eq!(free(fs), left);
}

#[test]
fn a_run_gives_up_as_many_of_its_blocks_as_lead_to_it() {
    // Where blocks are wanted and how many; then how many are free, and how many the file gets.
    for (start, count, cases) in [
        (0, 8, &[(8, Ok(8)), (5, Ok(5))][..]),
        (10, 8, &[(6, Ok(5))]),
        (12, 8, &[(9, Ok(8)), (8, Ok(7)), (5, Ok(4)), (2, Ok(1)), (1, Err(Errno::NOSPC))]),
        (268, 8, &[(6, Ok(4)), (3, Ok(1)), (2, Err(Errno::NOSPC))]),
        // Into a second block of pointers.
        (266, 6, &[(9, Ok(6))]),
        (518, 12, &[(15, Ok(12)), (14, Ok(9))]),
        (65_804, 8, &[(11, Ok(8)), (8, Ok(5)), (4, Ok(1)), (3, Err(Errno::NOSPC))]),
    ] {
        for &(left, got) in cases {
            let fs = fresh(2);
            let file = create(&fs, "file");
            fill(&fs, "filler", left);
            let done = file.map_for_write(FileBlock::new(start), count, Allocate::Published);
            let what = format!("{count} blocks from {start} with {left} free");
            match (done, got) {
                (Ok(done), Ok(got)) => {
                    assert_eq!((done.mapping.count, done.new), (got, true), "{what}");
                    let there = file.map(FileBlock::new(start), count).expect("mapped");
                    assert_eq!((there.count, there.target), (got, done.mapping.target), "{what}");
                }
                (Err(error), Err(errno)) => {
                    assert!(error.is(errno), "{what}: {error}");
                    assert_eq!(free(&fs), left, "{what}");
                }
                (done, got) => panic!("{what}: {done:?}, not {got:?}"),
            }
            // What was taken is the file's, and no more than that.
            assert_eq!(left - free(&fs), u64::from(file.attr().blocks_512) / 2, "{what}");
        }
    }
}

#[test]
fn a_unit_of_2_mib_that_is_free_without_the_blocks_that_lead_to_it_is_of_no_use() {
    const UNIT: u64 = 2048;
    // Nine blocks lead to the 2048: one to the first 256 past the direct ones, and eight to the other 1780.
    for (spare, is_got) in [(0, false), (1, false), (8, false), (9, true)] {
        let fs = fresh(8);
        let unit = create(&fs, "unit");
        let got = unit.map_for_write(FileBlock::new(0), UNIT, Allocate::AlignedRun).expect("a unit");
        assert_eq!((got.mapping.count, got.new), (UNIT, true));
        assert_eq!(u64::from(unit.attr().blocks_512) / 2, UNIT + 9);
        let file = create(&fs, "file");
        fill(&fs, "filler", 0);
        unit.truncate(UNIT * 1024, Wait::Yes).expect("longer");
        unit.truncate(0, Wait::Yes).expect("cut");
        assert_eq!(free(&fs), UNIT + 9);
        // From what is not whole, first.
        let rest = create(&fs, "rest");
        while free(&fs) > UNIT + spare {
            rest.append(&[1; 1024]).expect("written");
        }
        let left = free(&fs);
        let done = file.map_for_write(FileBlock::new(0), UNIT, Allocate::AlignedRun).expect("an answer");
        assert_eq!((done.new, done.mapping.is_hole()), (is_got, !is_got), "{spare} blocks to spare");
        assert_eq!(done.mapping.count, UNIT, "{spare} blocks to spare");
        assert_eq!(left - free(&fs), if is_got { UNIT + 9 } else { 0 }, "{spare} blocks to spare");
        assert_eq!(file.map(FileBlock::new(0), UNIT).expect("mapped").is_hole(), !is_got);
    }
}

#[test]
fn rights_of_a_file_with_an_access_list_can_be_taken_away_where_no_block_is_free() {
    let fs = fresh(2);
    let file = create(&fs, "file");
    let entries = [(AclTag::UserObj, 6), (AclTag::User(8), 6), (AclTag::GroupObj, 4), (AclTag::Mask, 6)];
    let entry = |(tag, permissions)| AclEntry { tag, permissions };
    let mut list: Vec<_> = entries.map(entry).to_vec();
    list.push(entry((AclTag::Other, 4)));
    file.set_acl(AclKind::Access, Some(&Acl::new(list).expect("a list"))).expect("set");
    file.xattr_set(b"user.beside", b"it", XattrSet::Any).expect("set");
    fill(&fs, "filler", 0);
    file.set_attr(&SetAttr { mode: Some(0o600), ..SetAttr::default() }).expect("no block is needed");
    let left = file.acl(AclKind::Access).expect("read").expect("a list");
    assert_eq!((left.mode(), file.attr().mode), (0o600, 0o600));
    file.xattr_set(b"user.beside", b"another value", XattrSet::Replace).expect("in its place");
    assert_eq!(file.xattr_get(b"user.beside").expect("read"), b"another value");
    file.xattr_set(b"user.new", &[1; 2000], XattrSet::Create).expect_err("does not fit in the block");
    let other = create(&fs, "other");
    assert!(other.xattr_set(b"user.new", b"x", XattrSet::Any).is_err_and(|error| error.is(Errno::NOSPC)));
}
