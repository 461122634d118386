//! The entry tree: what is found, what gives way to what, who waits for whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ext2_dax::WaitTable;
use ext2_dax::entry::{Content, Order, PAGE_SIZE, PMD_PAGES};
use ext2_dax::mapping::{DaxMapping, GrabError};
use ext2_dax::trace::{InodeId, Tracer};

fn mapping() -> Arc<DaxMapping> {
    Arc::new(DaxMapping::new(
        InodeId { dev: (259, 3), ino: 77 },
        Arc::new(WaitTable::new()),
        Arc::new(Tracer::new()),
    ))
}

#[test]
fn a_grabbed_entry_is_locked_and_empty_and_is_unlocked_when_dropped() {
    let pages = mapping();
    let entry = pages.grab(5, Order::Pte).unwrap();
    assert_eq!((entry.index(), entry.order(), entry.content()), (5, Order::Pte, Content::Empty));
    assert!(pages.entries()[0].locked);
    drop(entry);
    assert!(!pages.entries()[0].locked);
    assert_eq!(pages.pages(), 1);
}

#[test]
fn two_megabytes_are_one_entry_of_512_pages() {
    let pages = mapping();
    drop(pages.grab(1000, Order::Pmd).unwrap());
    assert_eq!(pages.entries()[0].index, 512);
    assert_eq!(pages.pages(), 512);
}

#[test]
fn a_small_entry_is_a_conflict_for_a_large_one_even_when_locked() {
    let pages = mapping();
    let held = pages.grab(600, Order::Pte).unwrap();
    assert_eq!(pages.grab(512, Order::Pmd).err(), Some(GrabError::Conflict));
    drop(held);
    assert_eq!(pages.grab(1023, Order::Pmd).err(), Some(GrabError::Conflict));
    assert!(pages.grab(1024, Order::Pmd).is_ok());
}

#[test]
fn a_large_entry_minds_no_small_one_beside_its_unit() {
    let pages = mapping();
    drop(pages.grab(511, Order::Pte).unwrap());
    drop(pages.grab(1024, Order::Pte).unwrap());
    assert_eq!(pages.grab(700, Order::Pmd).unwrap().index(), 512);
}

#[test]
fn each_page_of_a_unit_is_a_conflict_for_it() {
    for page in [512, 513, 1022, 1023] {
        let pages = mapping();
        drop(pages.grab(page, Order::Pte).unwrap());
        assert_eq!(pages.grab(700, Order::Pmd).err(), Some(GrabError::Conflict), "page {page}");
    }
}

#[test]
fn a_file_has_pages_as_far_as_bytes_have_numbers() {
    let (pages, last) = (mapping(), u64::MAX / PAGE_SIZE - PMD_PAGES);
    for order in [Order::Pte, Order::Pmd] {
        assert_eq!(pages.grab(last + 1, order).err(), Some(GrabError::OutOfRange));
        assert_eq!(pages.grab(u64::MAX, order).err(), Some(GrabError::OutOfRange));
    }
    assert_eq!(pages.grab(last, Order::Pte).unwrap().index(), last);
    assert_eq!(pages.inode(), InodeId { dev: (259, 3), ino: 77 });
}

#[test]
fn an_empty_large_entry_gives_way_to_a_small_one() {
    let pages = mapping();
    drop(pages.grab(512, Order::Pmd).unwrap());
    let entry = pages.grab(700, Order::Pte).unwrap();
    assert_eq!((entry.index(), entry.order()), (700, Order::Pte));
    drop(entry);
    assert_eq!(pages.pages(), 1);
}

#[test]
fn invalidation_removes_clean_entries_that_touch_the_range() {
    let pages = mapping();
    drop(pages.grab(512, Order::Pmd).unwrap());
    drop(pages.grab(3, Order::Pte).unwrap());
    pages.invalidate(1023, 1024);
    assert_eq!(pages.entries().len(), 1);
    pages.invalidate(0, 3);
    assert_eq!(pages.entries().len(), 1);
    pages.invalidate(3, 4);
    assert_eq!((pages.entries().len(), pages.pages()), (0, 0));
}

/// Starts `wanted` in a thread and checks that it does not come back until `held` is dropped.
fn waits<T>(pages: &Arc<DaxMapping>, held: T, wanted: impl FnOnce(&DaxMapping) + Send) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wanted(pages);
            done.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(Duration::from_millis(30));
        assert!(!done.load(Ordering::SeqCst), "it did not wait");
        drop(held);
    });
    assert!(done.load(Ordering::SeqCst));
}

#[test]
fn who_wants_a_page_of_a_locked_large_entry_waits_for_that_entry() {
    let pages = mapping();
    let other = Arc::clone(&pages);
    let held = other.grab(512, Order::Pmd).unwrap();
    waits(&pages, held, |pages| drop(pages.grab(777, Order::Pte).unwrap()));
}

#[test]
fn invalidation_waits_for_a_locked_entry() {
    let pages = mapping();
    let other = Arc::clone(&pages);
    let held = other.grab(3, Order::Pte).unwrap();
    waits(&pages, held, |pages| pages.invalidate(0, 10));
    assert_eq!(pages.pages(), 0);
}

#[test]
fn all_who_wait_for_one_entry_get_it_in_turn() {
    let pages = mapping();
    let total = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..200_u64 {
                    let order = if round % 3 == 0 { Order::Pmd } else { Order::Pte };
                    if let Ok(entry) = pages.grab(512 + round % 4, order) {
                        assert!(!total.swap(true, Ordering::SeqCst) || entry.order() == Order::Pte);
                        total.store(false, Ordering::SeqCst);
                    }
                    if round % 5 == 0 {
                        pages.invalidate(512, 1024);
                    }
                }
            });
        }
    });
    assert!(pages.entries().iter().all(|entry| !entry.locked));
}
