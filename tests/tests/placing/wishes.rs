//! What a placement is asked for, request by request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use blockdev::RamDevice;
use ext2_core::placement::{FreeSpace, Placed, Placement, Request, Role, Which};
use ext2_core::plumbing::{Allocate, Plumbing};
use ext2_core::{BlockSize, Ext2, FileBlock, Inode, OpenOptions, Policy, Result};
use ext2_image::mkfs::{self, Format, Fresh};

use crate::{FILE, map_of};

/// Notes the goal of each request for a file's data, how many blocks are wanted, and whether the file is big; and where the
/// file's unit begins. Can be told to answer with the first free blocks.
#[derive(Debug)]
struct Notes {
    inner: Arc<dyn Placement>,
    wishes: Mutex<Vec<(u32, u32, bool)>>,
    unit_base: Mutex<Option<u32>>,
    is_low: AtomicBool,
}

impl Notes {
    fn take(&self) -> Vec<(u32, u32, bool)> {
        std::mem::take(&mut *self.wishes.lock().expect("held by nobody"))
    }
}

impl Placement for Notes {
    fn place<'s>(&self, space: &'s FreeSpace<'_>, request: &Request) -> Result<Option<Placed<'s>>> {
        if let Role::Data { big, unit_base, .. } = request.role {
            self.wishes.lock().expect("held by nobody").push((request.goal, request.count, big));
            *self.unit_base.lock().expect("held by nobody") = unit_base;
        }
        if self.is_low.load(Ordering::Relaxed) {
            let taken = space.search(1, space.groups(), Which::EvenReserved)?;
            return Ok(taken.map(|taken| Placed { taken, window: None }));
        }
        self.inner.place(space, request)
    }

    fn small_file_bytes(&self) -> Option<u64> {
        self.inner.small_file_bytes()
    }
}

/// A new file in a file system of 8 MiB with blocks of 1024 bytes.
fn noted() -> (Arc<Notes>, Ext2, Inode) {
    let device = Arc::new(RamDevice::new(8 << 20).expect("memory"));
    let format = Format { block_size: BlockSize::new(1024), ..Format::default() };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    let notes = Arc::new(Notes {
        inner: Policy::Aligned.placement(),
        wishes: Mutex::default(),
        unit_base: Mutex::default(),
        is_low: AtomicBool::new(false),
    });
    let options = OpenOptions { placement: Some(notes.clone()), ..OpenOptions::default() };
    let fs = Ext2::open(device, &options).expect("open");
    let file = fs.root().expect("root").create("file", &FILE).expect("created");
    (notes, fs, file)
}

fn write(file: &Inode, at: u64, count: u64) {
    file.write_at(at * 1024, &vec![1; (count * 1024) as usize]).expect("written");
}

#[test]
fn a_block_is_wished_for_after_the_one_before_it_or_else_where_the_file_grew_last() {
    for (at, comes_after) in [(4, true), (5, false), (6, false), (7, false), (20, false)] {
        let (notes, _fs, file) = noted();
        write(&file, 0, 4);
        let last = map_of(&file)[&3];
        notes.take();
        write(&file, at, 1);
        assert_eq!(notes.take(), [(last + u32::from(comes_after), 1, false)], "block {at}");
    }
}

#[test]
fn blocks_that_are_not_filled_yet_are_followed_by_those_that_are_wished_for_next() {
    let (notes, _fs, file) = noted();
    let _io = file.io_lock().write();
    let first = file.map_for_write(FileBlock::new(0), 4, Allocate::AfterFill).expect("blocks");
    assert_eq!(first.mapping.count, 4);
    notes.take();
    let last = first.mapping.target.expect("blocks").get() + 3;
    for (nr, at) in (0..).zip([4, 5, 6]) {
        let next = file.map_for_write(FileBlock::new(at), 1, Allocate::AfterFill).expect("a block");
        assert_eq!((next.mapping.count, notes.take()), (1, vec![(last + 1 + nr, 1, false)]), "block {at}");
    }
}

#[test]
fn a_file_is_big_from_the_first_block_past_1_mib_on() {
    for (at, count, is_big) in
        [(0, 1024, false), (0, 1025, true), (1023, 1, false), (1023, 2, true), (1024, 1, true)]
    {
        let (notes, _fs, file) = noted();
        write(&file, at, count);
        let wishes = notes.take();
        assert!(!wishes.is_empty());
        assert_eq!(wishes[0].2, is_big, "{count} blocks at {at}");
    }
}

#[test]
fn a_file_s_unit_is_where_its_nearest_blocks_lie_before_or_after_within_the_unit() {
    const UNIT: u64 = 2048;
    // What is written to units of the file's own, what elsewhere, what then, and whose unit that is wished to be in.
    for (own, low, at, expected) in [
        (&[(0, 1025)][..], None, 1025, Some(0)),
        (&[(0, 1025)], None, 1100, Some(0)),
        (&[(0, 1025)], Some(1500), 1100, Some(0)),
        (&[(0, 1025)], Some(1500), 2000, Some(0)),
        (&[(1000, 1025)], None, 5, Some(1000)),
        (&[(1000, 1025)], None, 999, Some(1000)),
        (&[(1000, 1025)], None, UNIT - 1, Some(1000)),
        // A small file has no unit.
        (&[(1000, 10)], None, 0, None),
        // In the next unit.
        (&[(UNIT, 1025)], None, 5, None),
        (&[(UNIT, 1025)], None, UNIT - 1, None),
        (&[(3 * UNIT, 1025), (UNIT, 1025)], None, 5, None),
        (&[(3 * UNIT, 1025), (UNIT, 1025)], None, UNIT - 1, None),
        (&[(0, 1025), (UNIT - 10, 10)], None, UNIT, None),
    ] {
        let (notes, _fs, file) = noted();
        own.iter().for_each(|&(at, count)| write(&file, at, count));
        if let Some(at) = low {
            notes.is_low.store(true, Ordering::Relaxed);
            write(&file, at, 1);
            notes.is_low.store(false, Ordering::Relaxed);
        }
        let expected = expected.map(|block| map_of(&file)[&block] - block as u32);
        write(&file, at, 1);
        let base = *notes.unit_base.lock().expect("held by nobody");
        assert_eq!(base, expected, "block {at} after {own:?} and {low:?}");
    }
}

#[test]
fn what_describes_the_file_system_is_in_the_way_of_a_unit() {
    let (notes, _fs, file) = noted();
    notes.is_low.store(true, Ordering::Relaxed);
    write(&file, 0, 1);
    // The block of the device with the same number: as if the unit began with the first one of all.
    let next = u64::from(map_of(&file)[&0]) + 1;
    write(&file, next, 1);
    assert_eq!(u64::from(map_of(&file)[&next]), next);
    write(&file, next + 1, 1);
    assert_eq!(*notes.unit_base.lock().expect("held by nobody"), None);
}
