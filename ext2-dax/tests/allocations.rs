//! What faults allocate. A program of its own: every allocation of its threads is counted.

use std::sync::Arc;

use allocation_counter::measure;
use blockdev::RamDevice;
use ext2_core::{BlockSize, Ext2, FileKind, NewInode, OpenOptions};
use ext2_dax::Wait;
use ext2_dax::entry::{PAGE_SIZE, PMD_PAGES, PMD_SIZE};
use ext2_dax::mmu::soft::{MapRequest, SoftMap, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
use ext2_image::mkfs::{self, Format, Fresh};

/// Bytes of the large file.
const LARGE: u64 = 64 * PMD_SIZE;

/// A file system in memory, where a file has `data` bytes of data and then a hole up to `size`.
fn file(data: u64, size: u64) -> File {
    let device = Arc::new(RamDevice::new(LARGE + (32 << 20)).unwrap());
    let format = Format { block_size: BlockSize::new(PAGE_SIZE), ..Format::default() };
    mkfs::format(&*device, &format, Fresh::Zeros).unwrap();
    let fs = DaxFs::new(Ext2::open(device, &OpenOptions::default()).unwrap(), DaxOptions::default());
    let inode = fs.ext2().root().unwrap().create(b"file", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
    let file = File::open(&fs, inode, OpenFor::Writing).unwrap();
    assert_eq!(file.write_at(0, &vec![7; data as usize]).unwrap(), data);
    file.truncate(size, Wait::Yes).unwrap();
    file
}

/// A mapping of all of a file; with a `colour` that is no multiple of 2 MiB only pages are mapped.
fn map(file: &File, colour: u64) -> SoftMap {
    let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
    let request = MapRequest { offset: 0, len: file.size(), sharing, protection, colour };
    file.map(&SoftMmu::new(), &request).unwrap()
}

/// Faults that were handled in the mapping's address space; those of 2 MiB that fell back to a page count once.
fn faults(map: &SoftMap) -> u64 {
    let counters = map.mmu().counters();
    counters.pte_faults + counters.pmd_faults - counters.pmd_fallbacks
}

/// How often memory is allocated while `work` takes `expected` faults.
fn allocations(map: &SoftMap, expected: u64, work: impl FnOnce()) -> u64 {
    let before = faults(map);
    let counted = measure(work).count_total;
    assert_eq!(faults(map) - before, expected, "faults");
    counted
}

/// Takes the first `pages` pages from all who map them; what is clean is forgotten as well.
fn zap(file: &File, pages: u64) {
    file.pages().invalidate(0, pages);
}

#[test]
fn the_counter_sees_an_allocation() {
    assert_eq!(measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}

#[test]
fn a_load_that_faults_again_allocates_nothing() {
    let sizes = [("a page", PAGE_SIZE, PAGE_SIZE, 1), ("2 MiB", 0, PMD_SIZE, PMD_PAGES)];
    for (what, colour, step, pages) in sizes {
        for (where_, data) in [("data", 4 * PMD_SIZE), ("a hole", 0)] {
            let file = file(data, 4 * PMD_SIZE);
            let map = map(&file, colour);
            let load = || {
                (0..3).for_each(|nr| assert_eq!(map.load(nr * step).unwrap(), if data > 0 { 7 } else { 0 }))
            };
            load();
            for round in 0..3 {
                zap(&file, 3 * pages);
                assert_eq!(allocations(&map, 3, load), 0, "{what} of {where_}, round {round}");
            }
            // Nor does an access that faults no more.
            assert_eq!(allocations(&map, 0, load), 0, "{what} of {where_}");
        }
    }
}

#[test]
fn a_store_that_faults_again_allocates_nothing() {
    for (what, colour, step) in [("a page", PAGE_SIZE, PAGE_SIZE), ("2 MiB", 0, PMD_SIZE)] {
        let file = file(4 * PMD_SIZE, 4 * PMD_SIZE);
        let map = map(&file, colour);
        let load = || (0..3).for_each(|nr| assert!(map.load(nr * step).is_ok()));
        let store = || (0..3).for_each(|nr| map.store(nr * step, 1).unwrap());
        load();
        // What is mapped for loads is made writable.
        assert_eq!(allocations(&map, 3, store), 0, "{what}, loaded before");
        for round in 0..3 {
            // Write-back makes it clean and read-only again.
            map.msync(0, 4 * PMD_SIZE).unwrap();
            assert_eq!(allocations(&map, 3, store), 0, "{what}, written back, round {round}");
        }
        map.msync(0, 4 * PMD_SIZE).unwrap();
        zap(&file, 4 * PMD_PAGES);
        assert_eq!(allocations(&map, 3, store), 0, "{what}, taken away");
    }
}

#[test]
fn another_mapping_of_pages_in_use_allocates_its_own_tables_alone() {
    let file = file(LARGE, LARGE);
    let (first, second) = (map(&file, PAGE_SIZE), map(&file, PAGE_SIZE));
    let load =
        |map: &SoftMap| (0..LARGE).step_by(PAGE_SIZE as usize).for_each(|at| assert!(map.load(at).is_ok()));
    load(&first);
    let counted = allocations(&second, LARGE / PAGE_SIZE, || load(&second));
    // A table for each 2 MiB, of which there is one more for the colour, and nodes of 5 and more of them.
    let tables = LARGE / PMD_SIZE + 1;
    assert!(counted <= tables + tables / 5 + 3, "{counted} allocations for {tables} tables");
}

#[test]
fn faulting_a_large_file_in_allocates_tables_and_nodes_of_the_tree_of_entries() {
    let file = file(LARGE, LARGE);
    // A node that was split has 5 entries or more; nodes above the leaves as well.
    let nodes = |trees: u64, entries: u64| trees + entries / 5 + entries / 25;
    let tables = LARGE / PMD_SIZE + 1;
    for (what, colour, step) in [("pages", PAGE_SIZE, PAGE_SIZE), ("units of 2 MiB", 0, PMD_SIZE)] {
        zap(&file, LARGE / PAGE_SIZE);
        let map = map(&file, colour);
        let entries = LARGE / step;
        let counted = allocations(&map, entries, || {
            (0..LARGE).step_by(step as usize).for_each(|at| assert!(map.load(at).is_ok()));
        });
        let most = nodes(16, entries) + nodes(1, tables) + if step == PAGE_SIZE { tables } else { 0 };
        println!("{what}: {counted} allocations for {entries} faults, {most} at most");
        assert!(counted <= most, "{what}: {counted} allocations for {entries} faults");
    }
}

#[test]
fn a_store_that_gives_a_hole_blocks_allocates_a_list_of_them_and_nodes() {
    // What is taken for the file is listed until it is the file's; a unit of 2 MiB is found through the group's windows.
    let sizes = [("a page", PAGE_SIZE, PAGE_SIZE, 2000, 2), ("2 MiB", 0, PMD_SIZE, LARGE / PMD_SIZE, 6)];
    for (what, colour, step, count, each) in sizes {
        for loaded in [false, true] {
            let file = file(0, LARGE);
            let map = map(&file, colour);
            if loaded {
                (0..count).for_each(|nr| assert_eq!(map.load(nr * step).unwrap(), 0));
            }
            let counted =
                allocations(&map, count, || (0..count).for_each(|nr| map.store(nr * step, 1).unwrap()));
            println!("{what}, loaded before: {loaded}: {counted} allocations for {count} faults");
            assert!(counted <= each * count, "{what}, loaded before: {loaded}: {counted} allocations");
        }
    }
}
