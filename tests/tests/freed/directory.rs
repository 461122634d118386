//! What a rebuild of an unclean image makes of directories: their ends, their holes, and the names in them.

use blockdev::BlockDevice;
use e2dax_tests::{
    Rng, need_tools,
    small::{image, inode_at, is_clean, open, ram},
};
use ext2_core::{Error, Ext2, FileKind, Follow, NewInode, OpenOptions};

use super::{DIR, reopened, unclean};

/// An image with a directory `dir` of so many blocks, of which each has three names of one FIFO; and where the directory's
/// inode lies.
fn with_directory(blocks: u64, more: &[&str]) -> (Vec<u8>, u64) {
    let device = ram(&image(more));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let dir = root.create("dir", &DIR).expect("created");
    let fifo = root.create("fifo", &NewInode::new(FileKind::Fifo, 0o644)).expect("created");
    let mut nr = 0;
    while dir.size() < blocks * 1024 || nr % 3 != 1 {
        dir.link(&fifo, format!("{nr:0250}")).expect("linked");
        nr += 1;
    }
    let at = inode_at(&fs, dir.nr());
    drop((root, dir, fifo));
    fs.close().expect("closed");
    (device.to_vec(), at)
}

#[test]
fn a_directory_that_lost_blocks_at_its_end_ends_before_them_and_one_with_other_holes_is_corrupt() {
    need_tools!("mke2fs");
    let (clean, at) = with_directory(3, &[]);
    // Blocks of which the pointers are gone, the size, and the size that the directory has then.
    let cases: [(&[u64], u32, Option<u32>); 11] = [
        (&[], 3, Some(3)),
        // The block came, and the size not yet.
        (&[], 2, Some(3)),
        (&[1, 2], 0, Some(1)),
        (&[2], 3, Some(2)),
        (&[1, 2], 3, Some(1)),
        // One that comes after the end is none of its.
        (&[1], 2, Some(1)),
        (&[0], 1, None),
        (&[0], 3, None),
        (&[1], 3, None),
        (&[0, 1], 3, None),
        (&[0, 1, 2], 3, None),
    ];
    for (gone, size, expected) in cases {
        let device = ram(&clean);
        for slot in gone {
            device.write_u32(at + 40 + 4 * slot, 0).expect("stored");
        }
        device.write_u32(at + 4, size * 1024).expect("stored");
        let device = ram(&unclean(device.to_vec(), &mut Rng::new(2)));
        let opened = Ext2::open(device.clone(), &OpenOptions::default());
        let is_corrupt = matches!(&opened, Err(Error::Corrupt(_)));
        let left = device.read_u32(at + 4).expect("read");
        assert_eq!(
            (is_corrupt, left),
            (expected.is_none(), expected.unwrap_or(size) * 1024),
            "{gone:?} of {size}"
        );
    }
}

#[test]
fn names_past_the_first_mebibyte_of_a_directory_count() {
    need_tools!("mke2fs", "e2fsck");
    let (clean, _) = with_directory(1100, &["-N", "128"]);
    let left = reopened(&unclean(clean.clone(), &mut Rng::new(3)));
    assert!(is_clean(&left));
    let links = |bytes: &[u8]| open(&ram(bytes)).resolve("fifo", Follow::No).expect("there").attr().links;
    assert_eq!(links(&left), links(&clean));
}

#[test]
fn a_directory_keeps_its_own_name_and_its_parent_s_whatever_they_name() {
    need_tools!("mke2fs");
    let (clean, at) = with_directory(1, &[]);
    let device = ram(&clean);
    let block = u64::from(device.read_u32(at + 40).expect("read")) * 1024;
    // Inodes without links: both names, and the one that follows them.
    for place in [0, 12, 24] {
        device.write_u32(block + place, 50).expect("stored");
    }
    let device = ram(&unclean(device.to_vec(), &mut Rng::new(4)));
    drop(open(&device));
    assert_eq!([0, 12, 24].map(|place| device.read_u32(block + place).expect("read")), [50, 50, 0]);
}
