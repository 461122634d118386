//! What the device is told of blocks that are nobody's, and who may take the last of them.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::Hook;
use ext2_core::{BlockSize, Closed, Errno, Ext2, Inode, OpenOptions, Unclean, without_reserve};
use ext2_image::mkfs::{self, Format, Fresh};

use super::FILE;

/// A device that notes what it is told of bytes that are nobody's.
#[derive(Debug)]
struct Noted {
    inner: RamDevice,
    freed: Mutex<Vec<(u64, u64)>>,
    discarded: Mutex<Vec<(u64, u64)>>,
}

impl BlockDevice for Noted {
    e2dax_tests::forward!(inner: size, read_at, write_at, zero, fence, flush);

    fn discard(&self, offset: u64, len: u64) -> blockdev::Result<()> {
        self.discarded.lock().expect("held by nobody").push((offset, len));
        Ok(())
    }
    fn freed(&self, offset: u64, len: u64) {
        self.freed.lock().expect("held by nobody").push((offset, len));
    }
}

/// A file system of 4 MiB in groups of 512 blocks of 1024 bytes, of which so many percent are root's.
fn noted(reserved_percent: f64) -> (Arc<Noted>, Ext2) {
    let inner = RamDevice::new(4 << 20).expect("memory");
    let device = Arc::new(Noted { inner, freed: Mutex::default(), discarded: Mutex::default() });
    let format = Format {
        block_size: BlockSize::new(1024),
        blocks_per_group: Some(512),
        reserved_percent,
        ..Format::default()
    };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    (device, fs)
}

/// The blocks of some byte ranges, each once.
fn blocks(ranges: &[(u64, u64)]) -> BTreeSet<u64> {
    let mut all = BTreeSet::new();
    for &(offset, len) in ranges {
        assert!(offset.is_multiple_of(1024) && len.is_multiple_of(1024) && len > 0, "{offset}+{len}");
        for block in offset / 1024..(offset + len) / 1024 {
            assert!(all.insert(block), "block {block} twice");
        }
    }
    all
}

#[test]
fn the_device_is_told_of_each_block_that_a_file_gives_up() {
    let (device, fs) = noted(0.0);
    let root = fs.root().expect("root");
    let file = root.create(b"file", &FILE).expect("created");
    file.write_at(0, &vec![1; 700 << 10]).expect("written");
    let mut own = BTreeSet::new();
    for run in file.extents() {
        let run = run.expect("whole");
        let start = u64::from(run.target.expect("data").get());
        own.extend(start..start + run.count);
    }
    let free = fs.statfs().expect("counted").blocks_free;
    device.freed.lock().expect("held by nobody").clear();
    root.unlink(b"file").expect("unlinked");
    drop(file);
    let told = blocks(&device.freed.lock().expect("held by nobody"));
    assert!(own.is_subset(&told));
    // The indirect blocks, too.
    assert_eq!(fs.statfs().expect("counted").blocks_free - free, told.len() as u64);
}

#[test]
fn trim_discards_the_free_runs_of_the_range_that_are_long_enough() {
    let (device, fs) = noted(0.0);
    let root = fs.root().expect("root");
    // Holes of all sizes among what is taken.
    let files: Vec<Inode> = (0..40)
        .map(|nr| {
            let file = root.create(format!("f{nr}"), &FILE).expect("created");
            file.write_at(0, &vec![1; (1 + nr % 9) << 10]).expect("written");
            file
        })
        .collect();
    drop(files);
    (0..40).step_by(2).for_each(|nr| root.unlink(format!("f{nr}")).expect("unlinked"));
    fs.sync().expect("synced");
    let geo = fs.geometry().clone();
    let is_free = |block: u32| -> bool {
        let Some((group, bit)) = geo.group_of_block(block) else { return false };
        let map = fs.descriptor(group).expect("a descriptor").bg_block_bitmap.get();
        let mut byte = [0];
        device.read_at(u64::from(map) * 1024 + u64::from(bit / 8), &mut byte).expect("read");
        byte[0] >> (bit % 8) & 1 == 0
    };
    for range in [0..u32::MAX, 1..geo.blocks_count, 600..1500, 513..1025, 700..701, 90..91] {
        for least in [0, 1, 2, 5, 100] {
            // Runs end where groups do.
            let mut expected = BTreeSet::new();
            for group in geo.group_numbers() {
                let start = geo.group_start(group);
                let end = start + geo.group_len(group);
                let mut at = start.max(range.start);
                while at < end.min(range.end) {
                    let mut len = 0;
                    while at + len < end.min(range.end) && is_free(at + len) {
                        len += 1;
                    }
                    if len >= least.max(1) {
                        expected.extend(u64::from(at)..u64::from(at + len));
                    }
                    at += len.max(1);
                }
            }
            device.discarded.lock().expect("held by nobody").clear();
            let trimmed = fs.trim(range.clone(), least).expect("trimmed");
            let told = blocks(&device.discarded.lock().expect("held by nobody"));
            assert_eq!(told, expected, "{range:?}, runs of {least}");
            assert_eq!(trimmed, told.len() as u64);
        }
    }
}

#[test]
fn what_is_kept_for_root_is_taken_only_on_behalf_of_root() {
    let (_, fs) = noted(10.0);
    let reserved = u64::from(fs.superblock().reserved_blocks);
    assert!(reserved > 100);
    let file = fs.root().expect("root").create(b"file", &FILE).expect("created");
    let fill = || {
        loop {
            match file.append(&[1; 16 << 10]) {
                Ok(_) => {}
                Err(error) => break assert!(error.is(Errno::NOSPC), "{error}"),
            }
        }
    };
    without_reserve(fill);
    assert_eq!(fs.statfs().expect("counted").blocks_free, reserved);
    // Also after one who did not come back.
    std::panic::catch_unwind(|| without_reserve(|| panic!("out of here"))).expect_err("it panics");
    without_reserve(|| without_reserve(|| ()));
    file.append(&[1; 16 << 10]).expect("root may");
    fill();
    assert_eq!(fs.statfs().expect("counted").blocks_free, 0);
}

/// A device on which something is done in the midst of its next discard.
#[derive(Debug)]
struct Hooked {
    inner: RamDevice,
    at_discard: Hook,
}

impl BlockDevice for Hooked {
    e2dax_tests::forward!(inner: size, read_at, write_at, zero, fence, flush);

    fn discard(&self, _: u64, _: u64) -> blockdev::Result<()> {
        self.at_discard.run();
        Ok(())
    }
}

#[test]
fn an_image_that_is_closed_in_the_midst_of_a_trim_is_not_called_clean_and_the_trim_ends() {
    let inner = RamDevice::new(16 << 20).expect("memory");
    let format = Format { block_size: BlockSize::new(1024), ..Format::default() };
    mkfs::format(&inner, &format, Fresh::Zeros).expect("made");
    let device = Arc::new(Hooked { inner, at_discard: Hook::default() });
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    let (tell, told) = channel();
    let seen = fs.clone();
    device.at_discard.set(move || {
        tell.send(()).expect("somebody waits");
        // Until the close has begun.
        while !seen.is_read_only() {
            std::thread::yield_now();
        }
    });
    let other = fs.clone();
    let trim = std::thread::spawn(move || other.trim(0..u32::MAX, 1));
    told.recv().expect("something is discarded");
    assert_eq!(fs.close(), Ok(Closed::Unclean(Unclean::ChangesUnderWay)));
    // The other group is left.
    assert!(trim.join().expect("no panic").is_err_and(|error| error.is(Errno::ROFS)));
}
