//! What is stored of an inode, in which order, and no more than that: its size, the note of its truncation, what is late, and
//! what is left of it when it is dead.

use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice, RecordedOp, Recorder, Stored};
use e2dax_tests::small::{create, inode_at};
use ext2_core::{
    Barrier, BlockSize, Closed, Ext2, FileKind, Follow, NewInode, OpenOptions, RoCompatFeatures, Unclean,
    Wait, XattrSet,
};
use ext2_image::mkfs::{self, Format, Fresh};

const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);

type Device = Arc<Recorder<RamDevice>>;

/// A file system of 4 MiB in blocks of so many bytes that says nothing of large files, and inodes of 128 bytes.
fn fresh(block: u64) -> (Device, Ext2) {
    let device = RamDevice::new(4 << 20).expect("memory");
    let mut features = Format::default_features();
    features.ro_compat.remove(RoCompatFeatures::LARGE_FILE);
    let format = Format { block_size: BlockSize::new(block), inode_size: 128, features, ..Format::default() };
    mkfs::format(&device, &format, Fresh::Zeros).expect("made");
    let device = Arc::new(Recorder::new(device));
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    (device, fs)
}

/// The words of 4 bytes that were stored at one of these places, and the fences with one of these names.
fn stored(log: &[RecordedOp], places: &[u64], fences: &[Barrier]) -> Vec<Result<(usize, u32), Barrier>> {
    log.iter()
        .filter_map(|op| match op {
            RecordedOp::Store { offset, data: Stored::Bytes(bytes), .. } => {
                let place = places.iter().position(|place| place == offset)?;
                Some(Ok((place, u32::from_le_bytes(bytes[..].try_into().expect("4 bytes")))))
            }
            RecordedOp::Fence(id) => {
                fences.iter().find(|barrier| barrier.tag() == id.tag).map(|&barrier| Err(barrier))
            }
            _ => None,
        })
        .collect()
}

const G: u64 = 1 << 30;

#[test]
fn the_larger_high_half_of_a_size_is_there_as_long_as_the_low_half_may_be_either() {
    use Barrier::{SizeLoweredHigh as Lowered, SizeRaisedHigh as Raised};
    const LOW: usize = 0;
    const HIGH: usize = 1;
    for (from, to, expected) in [
        (0, 5000, vec![Ok((LOW, 5000))]),
        (5000, 100, vec![Ok((LOW, 100))]),
        (3, 5 * G + 1, vec![Ok((HIGH, 1)), Err(Raised), Ok((LOW, (G + 1) as u32))]),
        (5 * G, 7 * G, vec![Ok((LOW, 3 << 30))]),
        (5 * G, 9 * G, vec![Ok((HIGH, 2)), Err(Raised), Ok((LOW, 1 << 30))]),
        (9 * G, 5 * G, vec![Ok((LOW, 1 << 30)), Err(Lowered), Ok((HIGH, 1))]),
        (5 * G, 7, vec![Ok((LOW, 7)), Err(Lowered), Ok((HIGH, 0))]),
        (7 * G, 6 * G, vec![Ok((LOW, 2 << 30))]),
    ] {
        let (device, fs) = fresh(4096);
        let file = create(&fs, "file");
        let at = inode_at(&fs, file.nr());
        file.truncate(from, Wait::Yes).expect("set");
        device.take();
        file.truncate(to, Wait::Yes).expect("set");
        assert_eq!(
            stored(&device.take(), &[at + 4, at + 108], &[Raised, Lowered]),
            expected,
            "{from} to {to}"
        );
        drop(file);
        fs.close().expect("closed");
        let fs = Ext2::open(device, &OpenOptions::read_only()).expect("open");
        assert_eq!(fs.resolve("file", Follow::No).expect("there").size(), to);
    }
}

#[test]
fn a_file_system_says_that_it_has_large_files_from_the_first_of_2_gib_on() {
    for (size, is_large) in [(1, false), (2 * G - 1, false), (2 * G, true), (4 * G, true), (5 * G, true)] {
        let (device, fs) = fresh(4096);
        create(&fs, "file").truncate(size, Wait::Yes).expect("set");
        fs.close().expect("closed");
        let said = device.read_u32(1024 + 100).expect("read") & RoCompatFeatures::LARGE_FILE.bits() != 0;
        assert_eq!(said, is_large, "{size} bytes");
    }
    // Nothing but a file is large.
    let (device, fs) = fresh(4096);
    let root = fs.root().expect("root");
    root.create("dir", &NewInode::new(FileKind::Directory, 0o755)).expect("created");
    root.symlink("link", "t".repeat(200), &FILE).expect("made");
    drop(root);
    fs.close().expect("closed");
    assert_eq!(device.read_u32(1024 + 100).expect("read") & RoCompatFeatures::LARGE_FILE.bits(), 0);
}

#[test]
fn a_truncation_is_noted_but_for_files_with_a_block_of_attributes_and_those_without_a_name() {
    use Barrier::{OrphanListed, TailDetached, Truncated, TruncationEnded};
    let fences = [OrphanListed, TailDetached, Truncated, TruncationEnded];
    for (has_attributes, is_dead) in [(false, false), (true, false), (false, true), (true, true)] {
        let (device, fs) = fresh(1024);
        let file = create(&fs, "file");
        file.write_at(0, &[1; 20_000]).expect("written");
        if has_attributes {
            file.xattr_set(b"user.one", &[7; 100], XattrSet::Any).expect("set");
        }
        if is_dead {
            fs.root().expect("root").unlink("file").expect("unlinked");
        }
        // The note, the time of deletion, the size, and a pointer that goes.
        let at = inode_at(&fs, file.nr());
        let places = [1024 + 232, at + 20, at + 4, at + 40 + 4 * 11];
        device.take();
        file.truncate(5000, Wait::Yes).expect("cut");
        let expected = if has_attributes || is_dead {
            vec![Ok((3, 0)), Err(TailDetached), Ok((2, 5000))]
        } else {
            vec![
                Ok((1, 0)),
                Ok((0, file.nr().get())),
                Err(OrphanListed),
                Ok((2, 5000)),
                Err(Truncated),
                Ok((3, 0)),
                Err(TruncationEnded),
                Ok((0, 0)),
            ]
        };
        let what = format!("attributes: {has_attributes}, dead: {is_dead}");
        assert_eq!(stored(&device.take(), &places, &fences), expected, "{what}");
    }
}

#[test]
fn whoever_only_read_leaves_nothing_to_store() {
    let (device, fs) = fresh(1024);
    create(&fs, "file").write_at(0, &[1; 3000]).expect("written");
    fs.sync().expect("synced");
    let file = fs.resolve("file", Follow::No).expect("there");
    file.read_at(0, &mut [0; 100]).expect("read");
    device.take();
    drop(file);
    assert_eq!(device.take(), []);
    // What changed is stored once.
    let file = fs.resolve("file", Follow::No).expect("there");
    file.touch_modified();
    file.sync().expect("synced");
    assert!(device.take().iter().any(|op| matches!(op, RecordedOp::Store { .. })));
    file.sync().expect("synced");
    drop(file);
    assert!(!device.take().iter().any(|op| matches!(op, RecordedOp::Store { .. })));
}

#[test]
fn an_inode_that_goes_when_nothing_is_stored_any_more_is_not_settled() {
    // Whether it is dead, whether its times are late.
    for (is_dead, is_late) in [(false, false), (true, false), (false, true), (true, true)] {
        let (_, fs) = fresh(1024);
        let file = create(&fs, "file");
        if is_dead {
            fs.root().expect("root").unlink("file").expect("unlinked");
        }
        fs.sync().expect("synced");
        if is_late {
            file.touch_modified();
        }
        fs.shut_down();
        drop(file);
        let is_settled = fs.close().expect("closed") != Closed::Unclean(Unclean::FilesWithoutName);
        assert_eq!(is_settled, !is_dead && !is_late, "dead: {is_dead}, late: {is_late}");
    }
}

#[test]
fn a_dead_inode_has_no_blocks_and_no_pointers() {
    let (device, fs) = fresh(1024);
    let free = fs.statfs().expect("counted").blocks_free;
    let file = create(&fs, "file");
    // Direct blocks, and trees of one, two and three levels.
    for block in [0, 11, 12, 267, 268, 65_803, 65_804, 200_000] {
        file.write_at(block * 1024, b"a").expect("written");
    }
    let at = inode_at(&fs, file.nr());
    let words = || -> Vec<u32> {
        [4, 20, 28]
            .into_iter()
            .chain((0..15).map(|slot| 40 + 4 * slot))
            .map(|of| device.read_u32(at + of).expect("read"))
            .collect()
    };
    assert!([0, 11, 12, 13, 14].iter().all(|slot| words()[3 + slot] != 0));
    fs.root().expect("root").unlink("file").expect("unlinked");
    device.take();
    drop(file);
    let left = words();
    assert!(left[1] != 0, "no time of deletion");
    assert_eq!((left[0], &left[2..]), (0, &[0; 16][..]));
    assert_eq!(fs.statfs().expect("counted").blocks_free, free);
    // Pointers that are 0 are not stored to.
    let roots = at + 40..at + 100;
    let stores = device
        .take()
        .iter()
        .filter(|op| matches!(op, RecordedOp::Store { offset, .. } if roots.contains(offset)))
        .count();
    assert_eq!(stores, 5);
}
