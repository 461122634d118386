//! The end of the file inside a mapping, and pages that are taken from it.

use ext2_core::RenameFlags;
use ext2_dax::Wait;
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::host::{Faulting, HostMmu, HostOptions};
use ext2_dax::mmu::soft::Signal;

use crate::setup::{PAGE, UNIT, answered, image, loaded, map, need_faults, pattern, read, request, ways};

#[test]
fn pages_that_are_cut_off_are_bus_errors_and_come_back_as_zeros() {
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        for page in 0..1024 {
            file.write_at(page * PAGE, &pattern(page)).unwrap();
        }
        let map = map(&file, way, 2 * UNIT, Sharing::Shared);
        map.store(700 * PAGE, 9).unwrap();
        assert_eq!(map.load(600 * PAGE), Ok(pattern(600)[0]));
        file.truncate(600 * PAGE + 10, Wait::Yes).unwrap();
        assert_eq!(loaded(&map, 600 * PAGE, 10), pattern(600)[..10]);
        assert_eq!(
            (map.load(601 * PAGE), map.store(700 * PAGE, 1)),
            (Err(Signal::Bus), Err(Signal::Bus)),
            "{way:?}"
        );
        assert_eq!(loaded(&map, 599 * PAGE, 4096), pattern(599));
        // What is stored behind the end is gone when the file grows.
        map.store(600 * PAGE + 20, 77).unwrap();
        file.truncate(2 * UNIT, Wait::Yes).unwrap();
        assert_eq!(loaded(&map, 600 * PAGE + 10, 100), [0; 100], "{way:?}");
        assert_eq!(loaded(&map, 700 * PAGE, 10), [0; 10]);
        map.store(700 * PAGE, 5).unwrap();
        assert_eq!(read(&file, 700 * PAGE, 2), [5, 0]);
        drop((map, file));
        image.close();
    }
}

#[test]
fn punched_pages_are_zeros_and_their_blocks_are_nobody_s_to_store_to() {
    for way in ways() {
        let image = image(32);
        let (file, other) = (image.file(b"f"), image.file(b"g"));
        for page in 0..512 {
            file.write_at(page * PAGE, &pattern(page)).unwrap();
        }
        let map = map(&file, way, UNIT, Sharing::Shared);
        map.store(9 * PAGE, 1).unwrap();
        file.punch_hole(8 * PAGE, 4 * PAGE, Wait::Yes).unwrap();
        assert_eq!(loaded(&map, 8 * PAGE, 4 * 4096), [0; 4 * 4096], "{way:?}");
        assert_eq!(loaded(&map, 12 * PAGE, 4096), pattern(12));
        // Somebody else has the blocks now.
        for page in 0..600 {
            other.write_at(page * PAGE, &[0xee; 4096]).unwrap();
        }
        map.store(9 * PAGE + 1, 3).unwrap();
        assert_eq!(loaded(&map, 8 * PAGE, 2 * 4096)[4096..4100], [0, 3, 0, 0]);
        assert!((0..600).all(|page| read(&other, page * PAGE, 4096) == [0xee; 4096]), "{way:?}");
        drop((map, file, other));
        image.close();
    }
}

#[test]
fn a_file_that_moves_into_aligned_units_keeps_every_byte_that_was_stored() {
    for way in ways() {
        let image = image(64);
        let (file, other) = (image.file(b"f"), image.file(b"g"));
        let map = map(&file, way, 2 * UNIT, Sharing::Shared);
        // Grown a page at a time beside another, so that it begins in pieces.
        for page in 0..512 {
            file.write_at(page * PAGE, &pattern(page)).unwrap();
            if page < 200 {
                other.write_at(page * PAGE, &[1; 4096]).unwrap();
            }
            map.store(page * PAGE, page as u8).unwrap();
        }
        for page in 0..512 {
            let mut expected = pattern(page);
            expected[0] = page as u8;
            assert_eq!(loaded(&map, page * PAGE, 4096), expected, "{way:?} {page}");
            assert_eq!(read(&file, page * PAGE, 4096), expected, "{way:?} {page}");
        }
        drop((map, file, other));
        image.close();
    }
}

#[test]
fn a_file_that_is_replaced_stays_mapped_until_nobody_maps_it() {
    for way in ways() {
        let image = image(16);
        let (file, other) = (image.file(b"f"), image.file(b"g"));
        file.write_at(0, &pattern(1)).unwrap();
        other.write_at(0, &pattern(2)).unwrap();
        let map = map(&file, way, PAGE, Sharing::Shared);
        let root = image.fs.ext2().root().unwrap();
        image.fs.ext2().rename(&root, b"g", &root, b"f", RenameFlags::empty()).unwrap();
        assert_eq!(loaded(&map, 0, 4096), pattern(1), "{way:?}");
        map.store(0, 9).unwrap();
        assert_eq!(read(&other, 0, 4096), pattern(2));
        drop((map, file, other, root));
        image.close();
    }
}

#[test]
fn leases_keep_their_pages_while_mappings_are_there_too() {
    for way in ways() {
        let image = image(16);
        let file = image.file(b"f");
        for page in 0..4 {
            file.write_at(page * PAGE, &pattern(page)).unwrap();
        }
        let map = map(&file, way, 4 * PAGE, Sharing::Shared);
        let lease = file.lease(PAGE..2 * PAGE, blockdev::Access::Read).unwrap();
        assert!(file.truncate(0, Wait::No).unwrap_err().is(ext2_dax::Errno::BUSY));
        assert_eq!(loaded(&map, 0, 4096), pattern(0), "a refusal takes nothing");
        map.store(PAGE, 99).unwrap();
        let parts = lease.parts().unwrap();
        let ext2_dax::Leased::Memory(memory) = parts[0].1 else { panic!("data") };
        assert_eq!(memory.load_u8(0).unwrap(), 99, "{way:?}");
        drop(parts);
        drop(lease);
        file.truncate(PAGE, Wait::No).unwrap();
        assert_eq!(map.load(PAGE), Err(Signal::Bus));
        drop((map, file));
        image.close();
    }
}

#[test]
fn system_calls_move_bytes_straight_in_and_out() {
    need_faults!();
    for way in answered() {
        let image = image(16);
        let file = image.file(b"f");
        file.write_at(0, &[1; 3 * 4096]).unwrap();
        file.truncate(UNIT, Wait::Yes).unwrap();
        let mmu = HostMmu::new(way).unwrap();
        let map = file.map_host(&mmu, &request(UNIT, Sharing::Shared)).unwrap();
        let source = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&source, &[7; 8192], 0).unwrap();
        // What is not there yet is served to the kernel only with the right to it.
        if way.granularity == ext2_dax::mmu::host::Granularity::Pages
            && !mmu.capabilities().features.kernel_faults
        {
            let _ = (map.load(PAGE), map.load(2 * PAGE));
        }
        assert_eq!(map.read_from(PAGE + 100, 5000, &source, 0).unwrap(), 5000, "{way:?}");
        assert_eq!(read(&file, PAGE + 100, 5000), [7; 5000]);
        let sink = tempfile::tempfile().unwrap();
        assert_eq!(map.write_to(PAGE + 50, 100, &sink, 0).unwrap(), 100);
        // A hole is read by the kernel as by anybody; a store of the kernel's to it waits, where it may.
        assert_eq!(map.load(100 * PAGE), Ok(0));
        assert_eq!(map.write_to(100 * PAGE, 100, &sink, 0).unwrap(), 100);
        let stored = map.read_from(100 * PAGE, 8, &source, 0);
        match mmu.capabilities().features.kernel_faults {
            true => assert_eq!((stored.unwrap(), read(&file, 100 * PAGE, 8)), (8, vec![7; 8]), "{way:?}"),
            false => assert!(stored.unwrap_err().to_string().contains("Bad address"), "{way:?}"),
        }
        drop((map, file));
        image.close();
    }
}

#[test]
fn an_eager_mapping_of_a_file_that_grows_by_a_hole_can_be_read() {
    let image = image(16);
    let file = image.file(b"f");
    let map = map(
        &file,
        HostOptions { faulting: Faulting::Eager, ..HostOptions::default() },
        UNIT,
        Sharing::Shared,
    );
    assert_eq!(map.load(0), Err(Signal::Bus));
    file.truncate(100, Wait::Yes).unwrap();
    assert_eq!((map.load(50), map.load(PAGE)), (Ok(0), Err(Signal::Bus)));
    drop((map, file));
    image.close();
}

#[test]
fn numbers_at_their_edges_are_errors_and_no_panic() {
    let edges =
        [0, 1, 4095, 4096, 1 << 32, 1 << 47, 1 << 52, (1 << 63) - 4096, 1 << 63, u64::MAX - 4095, u64::MAX];
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        file.write_at(0, &[1; 8192]).unwrap();
        let map = map(&file, way, 8192, Sharing::Shared);
        let (sink, mmu) = (tempfile::tempfile().unwrap(), map.mmu());
        for a in edges {
            let inside = |len: u64| a.checked_add(len).is_some_and(|end| end <= 8192);
            assert_eq!(map.load(a).is_ok(), inside(1), "{a}");
            assert_eq!(map.store(a, 1).is_ok(), inside(1), "{a}");
            assert_eq!(map.try_load(a, &mut [0; 8]).is_ok(), inside(8), "{a}");
            for b in edges {
                assert_eq!(map.slice(a, b).is_ok(), inside(b), "{a} {b}");
                assert!(map.read_from(a, b, &sink, a).is_ok() || !inside(b), "{a} {b}");
                assert!(map.write_to(a, b, &sink, a).is_err() || inside(b), "{a} {b}");
                assert!(
                    map.msync(a, b).is_err() || (a.is_multiple_of(PAGE) && b <= 8192 || b == 0),
                    "{a} {b}"
                );
                let asked =
                    ext2_dax::mmu::soft::MapRequest { offset: a, colour: 0, ..request(b, Sharing::Shared) };
                if b < 1 << 40 {
                    // Past the end of the file there is nothing, and nothing is allocated.
                    let made = file.map_host(mmu, &asked);
                    assert!(made.as_ref().map_or(true, |made| made.load(0).is_ok() == (a < 8192)), "{a} {b}");
                } else {
                    drop(file.map_host(mmu, &asked));
                }
            }
            sink.set_len(0).unwrap();
        }
        assert_eq!(file.size(), 8192);
        drop((map, file));
        image.close();
    }
}
