//! Every call that a device can fail, in every kind of access: afterwards two address spaces and a read see the same
//! bytes, and go on doing so.

use std::sync::Arc;

use blockdev::{BlockDevice, Calls, Fault, Faulty, Media, RamDevice};
use ext2_core::{Errno, Ext2, FileBlock, OnError, OpenOptions};
use ext2_dax::Wait;
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::soft::{SoftMap, SoftMmu};
use ext2_dax::{DaxFs, DaxOptions, File};

use crate::setup::{file, format, fresh, map, request};

const PAGE: u64 = 4096;
const UNIT: u64 = 2 << 20;
/// One unit that is hole, one with data in its first pages, and a part of a third.
const SIZE: u64 = 2 * UNIT + 40 * PAGE;

/// Bytes of the device.
const BYTES: u64 = 12 << 20;

/// What of an image is not zero, by its byte.
type Image = Vec<(u64, Vec<u8>)>;

fn image() -> Image {
    let ram = RamDevice::new(BYTES).unwrap();
    format(&ram);
    let bytes = ram.to_vec();
    let pieces = (0..).step_by(4096).zip(bytes.chunks(4096));
    pieces.filter(|(_, piece)| **piece != [0; 4096]).map(|(at, piece)| (at, piece.to_vec())).collect()
}

struct Stage {
    device: Arc<Faulty<RamDevice>>,
    file: File,
    one: SoftMap,
    other: SoftMap,
}

impl Stage {
    fn new(image: &Image) -> Self {
        let ram = RamDevice::with_media(BYTES, Media::Persistent).unwrap();
        for (at, piece) in image {
            ram.write_at(*at, piece).unwrap();
        }
        let device = Arc::new(Faulty::new(ram));
        let options = OpenOptions { errors: Some(OnError::Continue), ..OpenOptions::default() };
        let fs = DaxFs::new(Ext2::open(device.clone(), &options).unwrap(), DaxOptions::default());
        let file = file(&fs, b"f");
        file.write_at(UNIT, &[1; 4 * PAGE as usize]).unwrap();
        file.truncate(SIZE, Wait::Yes).unwrap();
        let (one, other) = (map(&file, SIZE, Sharing::Shared), map(&file, SIZE, Sharing::Shared));
        Self { device, file, one, other }
    }
}

/// The pages that are looked at.
const LOOKED: [u64; 10] = [0, 1, 511, 512, 513, 516, 600, 1024, 1030, 1063];

type Act = fn(&Stage);

fn acts() -> Vec<(&'static str, Act)> {
    fn load(map: &SoftMap, page: u64) {
        let _ = map.load(page * PAGE);
    }
    vec![
        ("load of a hole", |stage| load(&stage.other, 1030)),
        ("load of a whole unit of hole", |stage| load(&stage.other, 5)),
        ("load of data", |stage| load(&stage.other, 513)),
        ("store to a hole", |stage| {
            let _ = stage.other.store(1030 * PAGE, 7);
        }),
        ("store to a hole beside data", |stage| {
            let _ = stage.other.store(600 * PAGE, 7);
        }),
        ("store to a whole unit of hole", |stage| {
            let _ = stage.other.store(PAGE, 7);
        }),
        ("store to data", |stage| {
            let _ = stage.other.store(513 * PAGE, 7);
        }),
        ("synchronous store to a hole", |stage| {
            let map = stage.file.map(&SoftMmu::new(), &request(SIZE, Sharing::Synchronous));
            let _ = map.map(|map| map.store(1030 * PAGE, 7));
        }),
        ("private store to data", |stage| {
            let _ = map(&stage.file, SIZE, Sharing::Private).store(513 * PAGE, 7);
        }),
        ("write into a hole", |stage| drop(stage.file.write_at(1030 * PAGE + 5, &[7; 5000]))),
        ("write into a hole, not mapped by pages", |stage| drop(stage.file.write_at(PAGE, &[7; 4096]))),
        ("write over data and hole", |stage| drop(stage.file.write_at(513 * PAGE, &[7; 50_000]))),
        ("write past the end", |stage| drop(stage.file.write_at(SIZE + 100, &[7; 5000]))),
        ("write of the file system's own", |stage| {
            drop(stage.file.inode().write_at(1030 * PAGE, &[7; 8192]));
        }),
        ("truncation", |stage| drop(stage.file.truncate(513 * PAGE + 10, Wait::Yes))),
        ("growth", |stage| drop(stage.file.truncate(SIZE + 100_000, Wait::Yes))),
        ("punch", |stage| drop(stage.file.punch_hole(513 * PAGE + 5, 8 * PAGE, Wait::Yes))),
        ("zero range", |stage| drop(stage.file.zero_range(513 * PAGE + 5, 8 * PAGE))),
        ("store and msync", |stage| {
            let _ = stage.other.store(513 * PAGE, 7);
            drop(stage.other.msync(0, SIZE));
        }),
        ("store and sync", |stage| {
            let _ = stage.other.store(1030 * PAGE, 7);
            drop(stage.file.sync());
        }),
    ]
}

/// All see the same at the pages that are looked at.
fn agree(stage: &Stage, what: &str) {
    for page in LOOKED.into_iter().filter(|page| page * PAGE < stage.file.size()) {
        let mut byte = [0xa5];
        assert_eq!(stage.file.read_at(page * PAGE, &mut byte), Ok(1), "{what}: page {page}");
        let seen = (stage.one.load(page * PAGE), stage.other.load(page * PAGE));
        assert_eq!(seen, (Ok(byte[0]), Ok(byte[0])), "{what}: page {page}");
    }
}

fn once(image: &Image, name: &str, act: Act, calls: Calls, after: u64) -> (u64, u64) {
    let stage = Stage::new(image);
    // One address space has looked already, at holes too.
    for page in LOOKED {
        stage.one.load(page * PAGE).unwrap();
    }
    stage.device.arm(Fault::once(calls, after));
    act(&stage);
    let counted = (stage.device.counted(), stage.device.fired());
    stage.device.disarm();
    let what = format!("{name}, {calls:?} {after} failed");
    agree(&stage, &what);
    // Whatever is done now, all see it.
    for page in LOOKED.into_iter().filter(|page| (page + 1) * PAGE <= stage.file.size()) {
        if stage.file.write_at(page * PAGE, &[9; 10]).is_ok() {
            assert_eq!(stage.one.load(page * PAGE), Ok(9), "{what}: page {page} after a write");
        }
        if stage.one.store(page * PAGE, 8).is_ok() {
            assert_eq!(stage.other.load(page * PAGE), Ok(8), "{what}: page {page} after a store");
        }
    }
    agree(&stage, &what);
    let entries = stage.file.pages().entries();
    assert!(entries.iter().all(|entry| !entry.locked), "{what}: {entries:?}");
    counted
}

#[test]
fn whatever_call_fails_entries_and_map_agree() {
    let image = image();
    let kinds = [
        Calls::READ,
        Calls::WRITE,
        Calls::ZERO,
        Calls::FENCE,
        Calls::FLUSH,
        Calls::DIRECT_ACCESS,
        Calls::WRITE_BACK,
        Calls::STORE,
        Calls::LOAD,
    ];
    let mut struck = std::collections::BTreeMap::<_, u64>::new();
    for (name, act) in acts() {
        for calls in kinds {
            let (counted, _) = once(&image, name, act, calls, u64::MAX);
            for after in 0..counted {
                let (_, fired) = once(&image, name, act, calls, after);
                *struck.entry(format!("{calls:?}")).or_default() += fired;
            }
        }
    }
    println!("calls that failed: {struck:?}");
    assert!(struck.values().all(|count| *count > 0) && struck.len() >= 7, "{struck:?}");
}

#[test]
fn a_new_block_that_is_poisoned_is_healed_by_whoever_gets_it_however_little_is_written() {
    // The part that is written: at the start, in the middle, at the end, over the edge of two blocks.
    for (at, len) in [(0, 100), (1000, 100), (PAGE - 100, 100), (PAGE - 100, 200), (5, 2 * PAGE)] {
        for through_inode in [false, true] {
            let (device, fs) = fresh(16);
            let file = file(&fs, b"f");
            file.write_at(0, &[1; 4 * PAGE as usize]).unwrap();
            let first = file.inode().map(FileBlock::new(0), 4).unwrap().target.unwrap().get();
            file.truncate(0, Wait::Yes).unwrap();
            fs.ext2().sync().unwrap();
            // Free blocks.
            (first..first + 4).for_each(|block| device.poison(block.into()).unwrap());
            let bytes = vec![2; len as usize];
            let what = format!("{len} bytes at {at}, through the inode: {through_inode}");
            if through_inode {
                assert_eq!(file.inode().write_at(at, &bytes).unwrap() as u64, len, "{what}");
            } else {
                assert_eq!(file.write_at(at, &bytes), Ok(len), "{what}");
            }
            let there = file.inode().map(FileBlock::new(at / PAGE), 1).unwrap().target.unwrap().get();
            assert!((first..first + 4).contains(&there), "{what}: it has other blocks");
            let expected: Vec<u8> = [vec![0; at as usize], bytes].concat();
            assert!(file.inode().read_all().unwrap() == expected, "{what}");
            // A part of a block that the file has is as bad as ever.
            device.poison(there.into()).unwrap();
            assert!(
                file.write_at(at - at % PAGE, &[3; 10]).is_err_and(|error| error.is(Errno::IO)),
                "{what}"
            );
        }
    }
}
