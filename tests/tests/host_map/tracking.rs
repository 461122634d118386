//! Which pages were stored to.

use ext2_dax::Wait;
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::host::{HostMmu, HostOptions, Tracking};

use crate::setup::{PAGE, UNIT, answered, image, need_faults, pattern, request};

fn pages(map: &ext2_dax::mmu::host::HostMap) -> Vec<u64> {
    let mut pages: Vec<u64> =
        map.take_stored().iter().flat_map(|run| run.first..run.first + run.count).collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}

#[test]
fn stores_are_told_apart_by_pages_and_loads_are_none() {
    need_faults!();
    if !HostMmu::features().stores {
        e2dax_tests::skip!("the kernel does not track stores");
    }
    for way in answered() {
        let image = image(32);
        let file = image.file(b"f");
        for page in 0..1024 {
            file.write_at(page * PAGE, &pattern(page)).unwrap();
        }
        let mmu = HostMmu::new(HostOptions { tracking: Tracking::Pages, ..way }).unwrap();
        let map = file.map_host(&mmu, &request(2 * UNIT, Sharing::Shared)).unwrap();
        for page in 0..1024 {
            map.load(page * PAGE).unwrap();
        }
        assert_eq!(pages(&map), [0_u64; 0], "{way:?}");
        for page in [3, 4, 700] {
            map.store(page * PAGE, 1).unwrap();
        }
        assert_eq!(pages(&map), [3, 4, 700], "{way:?}");
        file.sync().unwrap();
        assert_eq!(pages(&map), [0_u64; 0], "{way:?}");
        // The system call's stores are found, and writes through the file are not the mapping's.
        let source = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&source, &[7; 100], 0).unwrap();
        map.read_from(9 * PAGE, 100, &source, 0).unwrap();
        file.write_at(11 * PAGE, &[1; 100]).unwrap();
        assert_eq!(pages(&map), [9], "{way:?}");
        // What is taken away and comes back begins anew.
        map.store(20 * PAGE, 1).unwrap();
        file.punch_hole(20 * PAGE, PAGE, Wait::Yes).unwrap();
        map.store(21 * PAGE, 1).unwrap();
        assert!(pages(&map).contains(&21));
        file.sync().unwrap();
        drop((map, file));
        image.close();
    }
}

#[test]
fn a_store_through_a_mapping_that_is_gone_is_still_to_be_written_back() {
    need_faults!();
    for way in answered() {
        let image = image(16);
        let file = image.file(b"f");
        file.write_at(0, &[0; 4 * 4096]).unwrap();
        file.sync().unwrap();
        let time = file.inode().attr().mtime;
        let mmu = HostMmu::new(HostOptions { tracking: Tracking::Pages, ..way }).unwrap();
        let map = file.map_host(&mmu, &request(4 * PAGE, Sharing::Shared)).unwrap();
        map.store(PAGE, 5).unwrap();
        drop(map);
        let again = file.map_host(&mmu, &request(4 * PAGE, Sharing::Shared)).unwrap();
        assert_eq!(again.load(PAGE), Ok(5));
        assert!(file.inode().attr().mtime >= time);
        file.sync().unwrap();
        drop((again, file));
        image.close();
    }
}
