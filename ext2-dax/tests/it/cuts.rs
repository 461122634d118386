//! Pages that are taken from a file where an entry of 2 MiB reaches past them: what stays of it.

use std::sync::Arc;

use ext2_dax::Wait;
use ext2_dax::compat::{Compat, Layouts};
use ext2_dax::entry::PMD_SIZE;
use ext2_dax::fault::DaxInode;
use ext2_dax::mmu::soft::{MapRequest, SoftMap, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing, VmFile};
use ext2_dax::trace::Event;
use ext2_dax::truncate::{Taken, take_pages};

use super::fake::FakeFile;

const P: u64 = 4096;

/// A file of four units of 2 MiB that lie aligned, the first three of them stored to through one translation each.
fn stored() -> (Arc<FakeFile>, SoftMap) {
    let file = FakeFile::new(Compat::FULL);
    file.set_size(4 * PMD_SIZE);
    file.place(0, 2048, 512);
    let request = MapRequest {
        offset: 0,
        len: 4 * PMD_SIZE,
        sharing: Sharing::Shared,
        protection: Protection::ReadWrite,
        colour: 0,
    };
    let map = SoftMmu::new().map(file.clone(), &request).unwrap();
    (0..3).for_each(|unit| map.store(unit * PMD_SIZE + 7, 1).unwrap());
    assert_eq!((map.mmu().counters().pmds, DaxInode::pages(&*file).dirty_entries()), (3, 3));
    drop(file.log.take());
    (file, map)
}

/// The units that taking the pages of some bytes writes back, by their first pages, and those that are dirty after it.
fn written_and_dirty(bytes: std::ops::Range<u64>) -> (Vec<u64>, Vec<u64>) {
    let (file, map) = stored();
    let pages = VmFile::pages(&*file);
    take_pages(pages, &*file.device, bytes, Wait::Yes, Layouts::Broken, Taken::Truncated, || ()).unwrap();
    let one = |event: Event| match event {
        Event::WritebackOne { pgoff, .. } => Some(pgoff),
        _ => None,
    };
    let mut written: Vec<u64> = file.log.take().iter().filter_map(|record| one(record.event)).collect();
    written.sort_unstable();
    let dirty = pages.entries().iter().filter(|entry| entry.dirty).map(|entry| entry.index).collect();
    assert_eq!(map.mmu().counters().pte_faults, 0);
    (written, dirty)
}

#[test]
fn a_unit_of_which_a_part_stays_is_written_back_before_its_entry_goes() {
    // The end of the first unit, and all of the second.
    assert_eq!(written_and_dirty(PMD_SIZE - 3 * P..2 * PMD_SIZE), (vec![0], vec![1024]));
    // All of the first, and the beginning of the second.
    assert_eq!(written_and_dirty(0..PMD_SIZE + 3 * P), (vec![512], vec![1024]));
    // The beginning of the first.
    assert_eq!(written_and_dirty(0..3 * P), (vec![0], vec![512, 1024]));
    // The middle of the last that was stored to, and up to the end.
    assert_eq!(written_and_dirty(2 * PMD_SIZE + 5 * P..4 * PMD_SIZE), (vec![1024], vec![0, 512]));
}

#[test]
fn units_that_go_whole_are_not_written_back() {
    assert_eq!(written_and_dirty(0..PMD_SIZE), (vec![], vec![512, 1024]));
    assert_eq!(written_and_dirty(PMD_SIZE..2 * PMD_SIZE), (vec![], vec![0, 1024]));
}

#[test]
fn what_was_stored_to_is_not_invalidated() {
    let (file, _map) = stored();
    let pages = VmFile::pages(&*file);
    pages.invalidate(0, 4 * PMD_SIZE / P);
    assert_eq!((pages.entries().len(), pages.dirty_entries()), (3, 3));
}
