//! What blocks held before, and what lies past the end of a file, is not seen when it becomes part of one, and is gone before
//! a crash could show it.

use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice, RecordedOp, Recorder, Stored};
use e2dax_tests::small::{create, inode_at};
use ext2_core::plumbing::{Allocate, Plumbing};
use ext2_core::{Barrier, BlockSize, Error, Ext2, FileBlock, Follow, Inode, OpenOptions, Wait};
use ext2_image::mkfs::{self, Format, Fresh};

const BLOCK: u64 = 1024;

type Device = Arc<Recorder<RamDevice>>;

/// A file system of 4 MiB on a device that was used before.
fn used() -> (Device, Ext2) {
    let device = RamDevice::new(4 << 20).expect("memory");
    device.write_at(0, &vec![0xee; 4 << 20]).expect("stored");
    let format = Format { block_size: BlockSize::new(BLOCK), ..Format::default() };
    mkfs::format(&device, &format, Fresh::Unknown).expect("made");
    // Blocks that are free afterwards hold what they held.
    let mut free = vec![0; 1 << 20];
    device.read_at(3 << 20, &mut free).expect("read");
    assert!(free.contains(&0xee));
    let device = Arc::new(Recorder::new(device));
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    (device, fs)
}

/// Where a block of a file lies on the device, in bytes.
fn place(file: &Inode, block: u64) -> u64 {
    let target = file.map(FileBlock::new(block), 1).expect("mapped").target.expect("data");
    u64::from(target.get()) * BLOCK
}

fn all_of(file: &Inode) -> Vec<u8> {
    let mut bytes = vec![0xdd; file.size() as usize];
    assert_eq!(file.read_at(0, &mut bytes).expect("read"), bytes.len());
    bytes
}

/// Fails where two contents differ, at the byte.
#[track_caller]
fn same(got: &[u8], expected: &[u8], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let at = got.iter().zip(expected).position(|(got, expected)| got != expected);
    assert_eq!(at, None, "{what}: the first byte that differs");
}

#[test]
fn beside_what_is_written_into_a_hole_all_reads_as_zeros() {
    for (at, len) in [(0, 1), (100, 5), (1023, 1), (1024, 1), (3000, 2000), (5000, 1144), (1, 9 << 10)] {
        let (_, fs) = used();
        let file = create(&fs, "file");
        file.truncate(30 << 10, Wait::Yes).expect("longer");
        file.write_at(at as u64, &vec![7; len]).expect("written");
        let mut expected = vec![0; 30 << 10];
        expected[at..at + len].fill(7);
        same(&all_of(&file), &expected, &format!("{len} bytes at {at}"));
    }
}

#[test]
fn blocks_that_a_call_or_a_fault_gives_a_file_are_zeros() {
    for how in [Allocate::Published, Allocate::Fault] {
        for count in [1, 3, 40] {
            let (_, fs) = used();
            let file = create(&fs, "file");
            file.truncate(60 << 10, Wait::Yes).expect("longer");
            let got = file.map_for_write(FileBlock::new(5), count, how).expect("blocks");
            assert_eq!((got.mapping.count, got.new), (count, true));
            same(&all_of(&file), &vec![0; 60 << 10], &format!("{count} blocks by {how:?}"));
        }
    }
}

#[test]
fn past_the_end_of_a_file_that_was_cut_its_last_block_is_zeros() {
    for size in [5000_u64, 1, 1023, 2047, 1025, 4096 + 512] {
        let (device, fs) = used();
        let file = create(&fs, "file");
        file.write_at(0, &[7; 6000]).expect("written");
        let at = place(&file, size / BLOCK);
        file.truncate(size, Wait::Yes).expect("cut");
        let mut block = vec![0xdd; BLOCK as usize];
        device.read_at(at, &mut block).expect("read");
        let mut expected = vec![0; BLOCK as usize];
        expected[..(size % BLOCK) as usize].fill(7);
        same(&block, &expected, &format!("a size of {size}"));
    }
}

/// A file whose map has six blocks, of which its size covers so many bytes; what lies past them is not zero.
fn cut_short(size: u32) -> (Device, Ext2, Inode) {
    let (device, fs) = used();
    let file = create(&fs, "file");
    file.write_at(0, &[7; 6 * BLOCK as usize]).expect("written");
    let at = inode_at(&fs, file.nr());
    drop(file);
    fs.close().expect("closed");
    device.write_u32(at + 4, size).expect("stored");
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    let file = fs.resolve("file", Follow::No).expect("there");
    (device, fs, file)
}

#[test]
fn between_the_old_end_and_a_write_behind_it_all_reads_as_zeros() {
    for (size, at) in [(100, 3000), (1024, 2048), (0, 5000), (2000, 2001), (1500, 1500), (1500, 6500)] {
        let (_, _fs, file) = cut_short(size as u32);
        file.write_at(at as u64, b"written").expect("written");
        let mut expected = vec![0; at];
        expected[..size].fill(7);
        expected.extend(b"written");
        same(&all_of(&file), &expected, &format!("{size} bytes, a write at {at}"));
        // And without one.
        let (_, _fs, file) = cut_short(size as u32);
        file.truncate(at as u64, Wait::Yes).expect("longer");
        same(&all_of(&file), &expected[..at], &format!("{size} bytes, longer by {}", at - size));
    }
}

/// What a store or a fence is, for comparing.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Zeros: at which byte past the start of the block, and how many.
    Zeros(u64, u64),
    /// Bytes of the file.
    Data(u64, usize),
    Fence,
}

/// What was done to a block, and the fences for it.
fn steps(log: &[RecordedOp], block: u64) -> Vec<Step> {
    let of_block = |at: u64| (block..block + BLOCK).contains(&at);
    log.iter()
        .filter_map(|op| match op {
            RecordedOp::Store { offset, data, .. } if of_block(*offset) => Some(match data {
                Stored::Zeros(len) => Step::Zeros(offset - block, *len),
                Stored::Bytes(bytes) => Step::Data(offset - block, bytes.len()),
            }),
            RecordedOp::Fence(id) if id.tag == Barrier::PastEndZeroed.tag() => Some(Step::Fence),
            _ => None,
        })
        .collect()
}

#[test]
fn past_the_end_all_is_zero_and_fenced_before_a_write_is_stored_over_it_and_no_more_than_that() {
    use Step::{Data, Fence, Zeros};
    // What lies past the end, where and how much is written, and what is done to the block.
    for (past, (at, len), expected) in [
        (&[9_u8; 924][..], (100, 1), vec![Zeros(100, 1), Fence, Data(100, 1)]),
        (&[9; 924], (100, 10), vec![Zeros(100, 10), Fence, Data(100, 10)]),
        (&[9; 924], (100, 3000), vec![Zeros(100, 924), Fence, Data(100, 924)]),
        (&[0, 0, 9, 0], (100, 10), vec![Zeros(100, 10), Fence, Data(100, 10)]),
        (&[0, 0, 9, 0], (100, 2), vec![Data(100, 2)]),
        (&[0; 924], (100, 10), vec![Data(100, 10)]),
        (&[9; 924], (40, 60), vec![Data(40, 60)]),
        (&[9; 924], (40, 61), vec![Zeros(100, 1), Fence, Data(40, 61)]),
        (&[9; 924], (40, 5), vec![Data(40, 5)]),
    ] {
        let (device, fs) = used();
        let file = create(&fs, "file");
        file.write_at(0, &[7; 100]).expect("written");
        let block = place(&file, 0);
        // As a program stores through a mapping.
        device.inner().write_at(block + 100, past).expect("stored");
        device.take();
        file.write_at(at, &vec![5; len]).expect("written");
        let log = device.take();
        assert_eq!(steps(&log, block), expected, "a write of {at}+{len} where {:?} lies", &past[..4]);
    }
}

#[test]
fn a_map_that_names_more_blocks_than_there_are_ends_growth_and_one_that_names_as_many_does_not() {
    let (device, fs, file) = cut_short(0);
    let (places, inode): (Vec<_>, _) =
        ((0..4).map(|block| place(&file, block)).collect(), inode_at(&fs, file.nr()));
    drop(file);
    fs.close().expect("closed");
    // Blocks of pointers one after another, which lead to one block of data, as the tree of three levels.
    for pair in places.windows(2) {
        device.write_words(pair[0], &[(pair[1] / BLOCK) as u32; 256]).expect("stored");
    }
    device.zero(inode + 40, 60).expect("stored");
    device.write_u32(inode + 40 + 4 * 14, (places[0] / BLOCK) as u32).expect("stored");
    let fs = Ext2::open(device, &OpenOptions::default()).expect("open");
    let file = fs.resolve("file", Follow::No).expect("there");
    // From inside of a block: what was zeroed is at no time as much as all blocks are.
    let start = (12 + 256 + 256 * 256) * BLOCK + 100;
    file.truncate(start, Wait::Yes).expect("a hole, and a part of a block");
    file.truncate(start + (4 << 20), Wait::Yes).expect("as many as there are");
    let start = start + (4 << 20);
    let error = file.truncate(start + 6000 * BLOCK, Wait::Yes).expect_err("too many blocks");
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    assert_eq!(file.size(), start);
}
