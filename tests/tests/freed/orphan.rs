//! What a rebuild of an unclean image makes of the list of truncations: files that are cut, and files that are dead.

use std::sync::Arc;

use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice};
use e2dax_tests::{
    Rng, need_tools,
    small::{image, inode_at, is_clean, open, ram},
};
use ext2_core::{Error, Ext2, Follow, OpenOptions, Wait, XattrSet};

use super::{FILE, after, unclean, used};

#[test]
fn a_truncation_that_the_superblock_lists_is_ended() {
    need_tools!("mke2fs", "e2fsck");
    const LAST_ORPHAN: u64 = 1024 + 232;
    const SIZE: u64 = (302 << 10) + 500;
    let (device, fs) = after(|device, at| {
        let nr = |path: &str| {
            let fs = Ext2::open(device.clone(), &OpenOptions::read_only()).expect("open");
            fs.resolve(path, Follow::No).expect("there").nr().get()
        };
        // The list leads from one file to another, and a time ends it.
        device.write_u32(LAST_ORPHAN, nr("d0/f1")).expect("stored");
        device.write_u32(at("d0/f1") + 20, nr("d0/f3")).expect("stored");
        device.write_u32(at("d0/f1") + 4, SIZE as u32).expect("stored");
        device.write_u32(at("d0/f3") + 4, 0).expect("stored");
    });
    let before = open(&ram(&used(&["-g", "1024"])));
    let blocks = |fs: &Ext2, path: &str| -> Vec<u64> {
        let file = fs.resolve(path, Follow::No).expect("there");
        file.extents()
            .flat_map(|run| run.map(|run| run.start.get()..run.end().get()).expect("whole"))
            .collect()
    };
    for (path, size) in [("d0/f1", SIZE), ("d0/f3", 0)] {
        let file = fs.resolve(path, Follow::No).expect("there");
        let mut expected = blocks(&before, path);
        expected.retain(|block| block * 1024 < size);
        assert_eq!((file.size(), blocks(&fs, path)), (size, expected), "{path}");
        file.truncate(size + 5000, Wait::Yes).expect("grown");
        let mut rest = vec![1; 5000];
        file.read_at(size, &mut rest).expect("read");
        assert!(rest.iter().all(|&byte| byte == 0), "{path}");
    }
    assert_eq!(device.read_u32(LAST_ORPHAN).expect("read"), 0);
    fs.close().expect("closed");
    let mut left = device.to_vec();
    left[1024 + 58] |= 1;
    assert!(is_clean(&left));
}

#[test]
fn a_list_of_truncations_that_leads_in_a_circle_or_nowhere_is_corrupt() {
    need_tools!("mke2fs");
    let clean = used(&["-g", "1024"]);
    let (one, other) = {
        let fs = open(&ram(&clean));
        let nr = |path| fs.resolve(path, Follow::No).expect("there").nr();
        ((nr("d0/f1"), inode_at(&fs, nr("d0/f1"))), (nr("d0/f2"), inode_at(&fs, nr("d0/f2"))))
    };
    let (one_nr, other_nr) = (one.0.get(), other.0.get());
    for (first, next, last, is_good) in [
        (one_nr, other_nr, 0, true),
        (one_nr, one_nr, 0, false),
        (one_nr, other_nr, one_nr, false),
        (one_nr, other_nr, other_nr, false),
        (1_000_000, other_nr, 0, false),
        // A time, as it were.
        (one_nr, 1_000_000, 0, true),
    ] {
        let device = ram(&unclean(clean.clone(), &mut Rng::new(8)));
        device.write_u32(1024 + 232, first).expect("stored");
        device.write_u32(one.1 + 20, next).expect("stored");
        device.write_u32(other.1 + 20, last).expect("stored");
        let opened = Ext2::open(device, &OpenOptions::default());
        assert_eq!(opened.is_ok(), is_good, "{first}, {next}, {last}: {:?}", opened.err());
    }
}

/// An image, not unmounted, with two dead files on the list of truncations and a third that lives, which share one block of
/// attributes that has this magic number and counts so many users; and where that block and the dead inodes lie.
fn with_dead_users(clean: &[u8], magic: u32, count: u32) -> (Vec<u8>, u64, [u64; 2]) {
    let device = ram(clean);
    let fs = open(&device);
    let root = fs.root().expect("root");
    let files = ["before", "one", "other", "alive"].map(|name| root.create(name, &FILE).expect("created"));
    files[0].append(&vec![0xa5; 1 << 20]).expect("written");
    files[3].xattr_set(b"user.one", &[7; 300], XattrSet::Any).expect("set");
    let numbers = [1, 2].map(|nr: usize| files[nr].nr().get());
    let at = files.each_ref().map(|file| inode_at(&fs, file.nr()));
    for name in ["one", "other"] {
        root.unlink(name).expect("unlinked");
    }
    drop((root, files));
    fs.close().expect("closed");
    let block = device.read_u32(at[3] + 104).expect("read");
    device.write_u32(u64::from(block) * 1024, magic).expect("stored");
    device.write_u32(u64::from(block) * 1024 + 4, count).expect("stored");
    for (nr, next) in [(1, numbers[1]), (2, 0)] {
        device.write_u16(at[nr], 0o100_644).expect("stored");
        device.write_u32(at[nr] + 20, next).expect("stored");
        device.write_u32(at[nr] + 104, block).expect("stored");
    }
    device.write_u32(1024 + 232, numbers[0]).expect("stored");
    // What nothing reads may not change either.
    device.write_at(at[0] + 200, &[0xa5; 56]).expect("stored");
    (device.to_vec(), u64::from(block) * 1024, [at[1], at[2]])
}

/// Whether the bitmap of the first group, the only one, has a block as taken.
fn is_taken(bytes: &[u8], block: usize) -> bool {
    let map = bytes[2048..].first_chunk().map_or(0, |map| u32::from_le_bytes(*map)) as usize * 1024;
    bytes[map + (block - 1) / 8] >> ((block - 1) % 8) & 1 == 1
}

#[test]
fn a_dead_file_gives_up_its_share_of_a_block_of_attributes_and_changes_nothing_else() {
    need_tools!("mke2fs");
    const MAGIC: u32 = 0xea02_0000;
    let base = image(&[]);
    for (magic, count, expected) in
        [(MAGIC, 3, 1), (MAGIC, 2, 1), (MAGIC, 1, 1), (MAGIC, 0, 0), (MAGIC + 1, 3, 3), (MAGIC + 1, 1, 1)]
    {
        let (mut bytes, block, dead) = with_dead_users(&base, magic, count);
        bytes[1024 + 58..1024 + 60].fill(0);
        let device = ram(&bytes);
        drop(open(&device));
        assert_eq!(device.read_u32(block + 4).expect("read"), expected, "{magic:x}, {count}");
        let mut left = device.to_vec();
        // But for the superblock, the descriptors and bitmaps, the count, and the ends of the list.
        let geo = open(&ram(&base)).geometry().clone();
        assert_eq!(geo.group_numbers().len(), 1);
        let maps =
            open(&ram(&base)).descriptor(geo.group_numbers().next().expect("one")).expect("a descriptor");
        let maps = [maps.bg_block_bitmap.get(), maps.bg_inode_bitmap.get()].map(|map| map as usize * 1024);
        let count_of_users = block as usize + 4..block as usize + 8;
        let changed = [1024..3072, maps[0]..maps[0] + 1024, maps[1]..maps[1] + 1024, count_of_users]
            .into_iter()
            .chain(dead.map(|at| at as usize + 20..at as usize + 24));
        for range in changed {
            left[range.clone()].copy_from_slice(&bytes[range]);
        }
        let other = (0..left.len())
            .find(|&at| left[at] != bytes[at] && (at / 1024 == 0 || is_taken(&bytes, at / 1024)));
        assert_eq!(other, None, "{magic:x}, {count}: the first byte that changed");
    }
}

#[test]
fn an_image_with_a_journal_is_not_opened_where_anything_of_it_cannot_be_read() {
    need_tools!("mke2fs");
    let base = image(&["-j", "-J", "size=1"]);
    let (mut bytes, block, _) = with_dead_users(&base, 0xea02_0000, 3);
    bytes[1024 + 58..1024 + 60].fill(0);
    for after in 0.. {
        let faulty = Arc::new(Faulty::new(RamDevice::from_bytes(&bytes).expect("memory")));
        faulty.arm(Fault::once(Calls::READ, after));
        let opened = Ext2::open(faulty.clone(), &OpenOptions::default());
        if faulty.fired() == 0 {
            opened.expect("open");
            assert!(after > 50, "{after} reads");
            assert_eq!(faulty.inner().read_u32(block + 4).expect("read"), 1);
            break;
        }
        assert!(matches!(opened, Err(Error::Device(_))), "read {after} fails");
    }
}
