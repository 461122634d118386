//! What a map says to the block, where runs end: where another begins, where arrays of pointers end, at the end of the file, and
//! where a device failed.

use std::sync::Arc;

use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice};
use e2dax_tests::small::{create, inode_at};
use ext2_core::{
    BlockSize, DeviceNr, Errno, Error, Ext2, FileBlock, FileKind, Follow, Inode, NewInode, OpenOptions, Wait,
};
use ext2_image::mkfs::{self, Format, Fresh};

const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);
const BLOCK: u64 = 1024;

fn formatted(block: u64) -> Arc<Faulty<RamDevice>> {
    let device = Arc::new(Faulty::new(RamDevice::new(4 << 20).expect("memory")));
    let format = Format { block_size: BlockSize::new(block), ..Format::default() };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    device
}

fn open(device: &Arc<Faulty<RamDevice>>) -> Ext2 {
    Ext2::open(device.clone(), &OpenOptions::default()).expect("open")
}

/// A file system with a file of which the device says that its pointers are these, and its size so many bytes; the blocks are
/// those of a larger file, each filled with its own number.
fn with_pointers(pointers: &[u32], size: u32) -> (Arc<Faulty<RamDevice>>, Ext2, Inode) {
    let device = formatted(BLOCK);
    let fs = open(&device);
    create(&fs, "other").write_at(0, &vec![1; 3 << 20]).expect("written");
    let at = inode_at(&fs, create(&fs, "file").nr());
    fs.close().expect("closed");
    for (slot, &pointer) in (0..).zip(pointers) {
        device.write_u32(at + 40 + 4 * slot, pointer).expect("stored");
    }
    device.write_u32(at + 4, size).expect("stored");
    for block in 1000..1100 {
        device.write_at(block * BLOCK, &[block as u8; BLOCK as usize]).expect("stored");
    }
    let fs = open(&device);
    let file = fs.resolve("file", Follow::No).expect("there");
    (device, fs, file)
}

#[test]
fn a_run_of_direct_pointers_is_as_long_as_they_are_in_a_row_and_no_longer_than_there_are() {
    // All in a row, with the block of pointers behind them; a break in each place; holes.
    let row: Vec<u32> = (1000..1013).collect();
    let mut maps = vec![row.clone()];
    for slot in 0..12 {
        let mut broken = row.clone();
        broken[slot] = 1050;
        maps.push(broken);
        let mut holed = row.clone();
        holed[slot] = 0;
        maps.push(holed);
    }
    for map in maps {
        let (_device, _fs, file) = with_pointers(&map, 12 * BLOCK as u32);
        for start in 0..12_usize {
            for count in 1..=12 - start {
                let first = map[start];
                let len = (0..count)
                    .take_while(|&nr| map[start + nr] == if first == 0 { 0 } else { first + nr as u32 })
                    .count();
                let found = file.map(FileBlock::new(start as u64), count as u64).expect("mapped");
                let target = found.target.map_or(0, |target| target.get());
                assert_eq!(
                    (found.count, target),
                    (len as u64, first),
                    "{count} blocks from {start} of {map:?}"
                );
            }
        }
    }
    // What the block of pointers lies in is none of the file's data.
    let (device, _fs, file) = with_pointers(&row, 13 * BLOCK as u32);
    device.write_at(1012 * BLOCK, &[0; BLOCK as usize]).expect("stored");
    for start in 0..12 {
        let found = file.map(FileBlock::new(start), 13 - start).expect("mapped");
        assert_eq!(found.count, 12 - start, "from {start}");
    }
}

#[test]
fn what_is_read_from_inside_of_a_block_ends_where_its_run_does() {
    let (_device, _fs, file) = with_pointers(&[1000, 1020, 0, 1040, 1041, 0], 6 * BLOCK as u32);
    let mut expected = Vec::new();
    for block in [1000_u32, 1020, 0, 1040, 1041, 0] {
        expected.extend([block as u8; BLOCK as usize]);
    }
    for at in (0..6 * BLOCK).step_by(101) {
        for len in [1, 300, 1024, 1500, 2600, 6000] {
            let mut got = vec![0xdd; len];
            let read = file.read_at(at, &mut got).expect("read");
            assert!(got[..read] == expected[at as usize..][..read], "{len} bytes at {at}");
            let pieces =
                file.with_pieces(at, len as u64, |pieces| pieces.iter().map(|piece| piece.len).sum::<u64>());
            assert_eq!(pieces.expect("mapped"), read as u64, "{len} bytes at {at}");
        }
    }
}

#[test]
fn past_the_end_of_a_file_there_is_no_data_wherever_in_a_block_it_ends() {
    // Two blocks of hole, one of data that is cut by the end or lies behind it.
    for (size, data) in [(2048, None), (2047, None), (1025, None), (2049, Some(2048)), (3071, Some(2048))] {
        let (_device, _fs, file) = with_pointers(&[0, 0, 1000, 1001, 1002], size);
        let found = match file.seek_data(0) {
            Ok(at) => Some(at),
            Err(error) => {
                assert!(error.is(Errno::NXIO), "{error}");
                None
            }
        };
        assert_eq!(found, data, "{size} bytes");
        let runs: Vec<_> =
            file.extents().map(|run| run.map(|run| (run.start.get(), run.count)).expect("whole")).collect();
        assert_eq!(runs, data.map(|_| (2, 1)).into_iter().collect::<Vec<_>>(), "{size} bytes");
    }
}

#[test]
fn what_has_no_blocks_has_no_map_whatever_lies_in_the_place_of_the_pointers() {
    let device = formatted(BLOCK);
    let fs = open(&device);
    let root = fs.root().expect("root");
    // A number of a device, which would be that of a block, too.
    let number = DeviceNr { major: 0, minor: 100 };
    let device_file = NewInode { device: Some(number), ..NewInode::new(FileKind::CharDevice, 0o600) };
    for inode in [
        root.create("device", &device_file).expect("made"),
        root.symlink("link", "a target", &FILE).expect("made"),
        root.create("pipe", &NewInode::new(FileKind::Fifo, 0o600)).expect("made"),
    ] {
        for count in [1, 5] {
            let found = inode.map(FileBlock::new(0), count).expect("mapped");
            assert_eq!((found.count, found.target), (count, None), "{inode:?}");
        }
        assert_eq!(inode.known_run(FileBlock::new(0), 1), None, "{inode:?}");
    }
}

#[test]
fn a_run_is_pointed_to_whole_however_long_it_is() {
    // As many pointers as are stored at once, and one more or less; where a block of pointers is there already.
    for count in [1, 2, 255, 256, 257, 300, 512, 513, 514] {
        let device = formatted(4096);
        let fs = open(&device);
        let file = create(&fs, "file");
        file.write_at(12 * 4096, b"a").expect("written");
        let bytes: Vec<u8> = (0..count * 4096).map(|at: usize| (at / 4096 % 251) as u8 + 1).collect();
        assert_eq!(file.write_at(13 * 4096, &bytes).expect("written"), bytes.len());
        let runs: u64 = file.extents().map(|run| run.expect("whole").count).sum();
        assert_eq!(runs, count as u64 + 1);
        let mut got = vec![0; bytes.len()];
        file.read_at(13 * 4096, &mut got).expect("read");
        assert!(got == bytes, "{count} blocks");
    }
}

#[test]
fn a_hole_up_to_where_a_broken_tree_begins_is_made_and_one_into_it_is_not() {
    let device = formatted(BLOCK);
    let fs = open(&device);
    let file = create(&fs, "file");
    for block in [0, 11, 12, 267, 268] {
        file.write_at(block * BLOCK, &[1; BLOCK as usize]).expect("written");
    }
    let at = inode_at(&fs, file.nr());
    drop(file);
    fs.close().expect("closed");
    // The tree of two levels begins outside of the file system.
    device.write_u32(at + 40 + 4 * 13, 1 << 30).expect("stored");
    let fs = open(&device);
    let file = fs.resolve("file", Follow::No).expect("there");
    file.punch_hole(0, 268 * BLOCK, Wait::Yes).expect("punched");
    assert_eq!(
        file.attr().blocks_512,
        3 * 2,
        "the block that the tree of two levels begins with, and its two"
    );
    let error = file.punch_hole(0, 269 * BLOCK, Wait::Yes).expect_err("broken");
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
}

#[test]
fn files_with_blocks_of_every_size_are_cut_in_each_tree() {
    for block in [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
        let device = Arc::new(RamDevice::new(16 << 20).expect("memory"));
        let format = Format { block_size: BlockSize::new(block), ..Format::default() };
        mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
        let fs = Ext2::open(device, &OpenOptions::default()).expect("open");
        let free = fs.statfs().expect("counted").blocks_free;
        let file = create(&fs, "file");
        let pointers = block / 4;
        let starts = [0, 12, 12 + pointers, 12 + pointers + pointers * pointers];
        let most = fs.geometry().max_file_size() / block;
        for &start in starts.iter().filter(|start| **start + 1 < most) {
            for at in [start, start + 1] {
                file.write_at(at * block, b"a").expect("written");
            }
        }
        for &start in starts.iter().rev().filter(|start| **start + 1 < most) {
            file.truncate((start + 1) * block, Wait::Yes).expect("cut");
            let last = file.extents().last().expect("a run").expect("whole");
            assert_eq!(last.end().get(), start + 1, "blocks of {block} bytes");
        }
        file.truncate(0, Wait::Yes).expect("cut");
        assert_eq!(fs.statfs().expect("counted").blocks_free, free, "blocks of {block} bytes");
    }
}

#[test]
fn a_link_is_as_long_as_a_block_at_most() {
    for (size, is_good) in [(60, true), (1023, true), (1024, true), (1025, false), (0, false)] {
        let device = formatted(BLOCK);
        let fs = open(&device);
        let link = fs.root().expect("root").symlink("link", "t".repeat(200), &FILE).expect("made");
        let at = inode_at(&fs, link.nr());
        drop(link);
        fs.close().expect("closed");
        device.write_u32(at + 4, size).expect("stored");
        let fs = open(&device);
        let target = fs.resolve("link", Follow::No).expect("there").read_link();
        match target {
            Ok(target) => assert!(is_good && target.len() == size as usize, "{size} bytes"),
            Err(error) => assert!(!is_good && matches!(error, Error::Corrupt(_)), "{size} bytes: {error}"),
        }
    }
}

#[test]
fn a_write_goes_on_behind_what_leads_to_its_first_blocks_when_a_call_of_the_device_failed() {
    const AT: u64 = 10 * BLOCK + 100;
    let bytes: Vec<u8> = (0..6000_u32).map(|at| (at % 250) as u8 + 1).collect();
    let mut pieces = Vec::new();
    for after in 0.. {
        let device = formatted(BLOCK);
        let fs = open(&device);
        let file = create(&fs, "file");
        device.arm(Fault::once(Calls::WRITE | Calls::ZERO | Calls::FENCE, after));
        let done = file.write_at(AT, &bytes);
        let struck = device.fired() > 0;
        device.disarm();
        match done {
            Ok(len) => {
                assert_eq!((len, file.size()), (6000, AT + 6000), "call {after}");
                let mut got = vec![0xdd; 6000];
                file.read_at(AT, &mut got).expect("read");
                assert_eq!(got.iter().zip(&bytes).position(|(got, byte)| got != byte), None, "call {after}");
                pieces.push(file.extents().next().expect("a run").expect("whole").count);
            }
            // What is reachable lies past the end.
            Err(_) => assert_eq!(file.size(), 0, "call {after}"),
        }
        if !struck {
            break;
        }
    }
    // Calls failed behind the first pointer and behind the second, and at last none.
    pieces.dedup();
    assert_eq!(pieces, [1, 2, 6]);
}

#[test]
fn a_hole_takes_the_blocks_that_it_covers_and_no_others_in_each_tree() {
    // Around the ends of blocks of pointers: of the inode and the first tree, in the second, in the third at two levels.
    for middle in
        [12_i64, 268, 268 + 256, 268 + 3 * 256, 65_804, 65_804 + 256, 65_804 + 65_536, 65_804 + 65_536 + 512]
    {
        let all = middle - 10..middle + 10;
        let punches = [
            (-10, 10),
            (-9, 9),
            (-5, 0),
            (-5, 3),
            (-1, 1),
            (0, 5),
            (2, 4),
            (-4, -2),
            (0, 10),
            (-10, 0),
            (9, 10),
        ];
        for (from, to) in punches {
            let fs = open(&formatted(BLOCK));
            let file = create(&fs, "file");
            file.write_at(all.start as u64 * BLOCK, &vec![7; 20 * BLOCK as usize]).expect("written");
            file.truncate(all.end as u64 * BLOCK + 5, Wait::Yes).expect("longer");
            let hole = middle + from..middle + to;
            file.punch_hole(hole.start as u64 * BLOCK, (to - from) as u64 * BLOCK, Wait::Yes)
                .expect("punched");
            let mut left = Vec::new();
            for run in file.extents() {
                let run = run.expect("whole");
                left.extend(run.start.get() as i64..run.end().get() as i64);
            }
            let expected: Vec<i64> = all.clone().filter(|block| !hole.contains(block)).collect();
            assert_eq!(left, expected, "{hole:?} of {all:?}");
        }
    }
}
