//! Holes: zeros that cost nothing, and what a store makes of them.

use blockdev::host_map::huge_zero_page;
use ext2_dax::Wait;
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::host::{Faulting, HostMmu, HostOptions, Why};
use ext2_dax::mmu::soft::Signal;

use crate::setup::{PAGE, UNIT, image, loaded, map, need_faults, pattern, read, request, ways};

#[test]
fn a_hole_reads_zeros_and_takes_no_block() {
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        file.truncate(8 * UNIT, Wait::Yes).unwrap();
        let free = image.fs.ext2().statfs().unwrap().blocks_free;
        let map = map(&file, way, 8 * UNIT, Sharing::Shared);
        for page in (0..8 * UNIT / PAGE).step_by(61) {
            assert_eq!(map.load(page * PAGE + 17), Ok(0), "{way:?}");
        }
        assert_eq!(image.fs.ext2().statfs().unwrap().blocks_free, free);
        assert!(file.extents().unwrap().is_empty());
        drop((map, file));
        image.close();
    }
}

#[test]
fn a_store_into_a_hole_gives_it_a_unit_or_a_page() {
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        file.truncate(3 * UNIT + 5 * PAGE, Wait::Yes).unwrap();
        let map = map(&file, way, 4 * UNIT, Sharing::Shared);
        assert_eq!(loaded(&map, UNIT, 4096), [0; 4096]);
        map.store(UNIT + 3 * PAGE + 1, 42).unwrap();
        // The last unit is not whole: a page.
        map.store(3 * UNIT + PAGE, 43).unwrap();
        assert_eq!(read(&file, UNIT + 3 * PAGE, 3), [0, 42, 0], "{way:?}");
        assert_eq!(
            (map.load(UNIT + 3 * PAGE), map.load(2 * UNIT - 1), map.load(3 * UNIT)),
            (Ok(0), Ok(0), Ok(0))
        );
        let extents = file.extents().unwrap();
        assert_eq!(extents, [UNIT..2 * UNIT, 3 * UNIT + PAGE..3 * UNIT + 2 * PAGE], "{way:?}");
        // A write into the hole is seen by who has it mapped, and read from, as a hole.
        assert_eq!(map.load(2 * UNIT + 7), Ok(0));
        file.write_at(2 * UNIT, &pattern(3)).unwrap();
        assert_eq!(loaded(&map, 2 * UNIT, 4096), pattern(3), "{way:?}");
        drop((map, file));
        image.close();
    }
}

/// The write ends the entry of 2 MiB that the hole has, and all translations of it have to end with it: nobody would tell
/// them of the store.
#[test]
fn a_store_beside_a_write_into_a_hole_of_2_mib_is_seen_by_who_has_looked_at_the_hole() {
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        file.truncate(3 * UNIT, Wait::Yes).unwrap();
        let [reader, writer] = [0, 1].map(|_| map(&file, way, 3 * UNIT, Sharing::Shared));
        assert_eq!((reader.load(UNIT + 5 * PAGE), writer.load(UNIT)), (Ok(0), Ok(0)));
        file.write_at(UNIT + 100 * PAGE, &pattern(100)).unwrap();
        for page in [5, 99, 101, 511] {
            writer.store(UNIT + page * PAGE + 9, 7).unwrap();
            assert_eq!(reader.load(UNIT + page * PAGE + 9), Ok(7), "{way:?}: page {page}");
        }
        drop((reader, writer, file));
        image.close();
    }
}

/// Who else maps the hole has to be told first. Nobody does, and so nothing is taken away and looked up again.
#[test]
fn the_only_mapping_of_a_file_goes_from_a_hole_to_its_block_in_one_step() {
    need_faults!();
    let image = image(32);
    let file = image.file(b"f");
    file.truncate(64 * PAGE, Wait::Yes).unwrap();
    let mmu =
        HostMmu::new(HostOptions { faulting: Faulting::Userfaultfd, ..HostOptions::default() }).unwrap();
    let map = file.map_host(&mmu, &request(64 * PAGE, Sharing::Shared)).unwrap();
    map.store(3 * PAGE, 1).unwrap();
    file.write_at(5 * PAGE, &pattern(5)).unwrap();
    assert_eq!(
        (loaded(&map, 5 * PAGE, 4096), map.load(3 * PAGE), map.load(4 * PAGE)),
        (pattern(5), Ok(1), Ok(0))
    );
    assert_eq!((mmu.counters().faults, mmu.counters().revoked), (1, 0));
    let other = file.map_host(&mmu, &request(64 * PAGE, Sharing::Shared)).unwrap();
    map.store(7 * PAGE, 2).unwrap();
    assert_eq!((other.load(7 * PAGE), mmu.counters().revoked), (Ok(2), 2));
    drop((map, other, file));
    image.close();
}

#[test]
fn a_hole_of_a_unit_is_the_huge_zero_page() {
    need_faults!();
    if !huge_zero_page() {
        e2dax_tests::skip!("no huge zero page");
    }
    let image = image(32);
    let file = image.file(b"f");
    file.truncate(4 * UNIT, Wait::Yes).unwrap();
    let mmu =
        HostMmu::new(HostOptions { faulting: Faulting::Userfaultfd, ..HostOptions::default() }).unwrap();
    let map = file.map_host(&mmu, &request(4 * UNIT, Sharing::Shared)).unwrap();
    let faults = mmu.counters().faults;
    for page in 0..4 * UNIT / PAGE {
        assert_eq!(map.load(page * PAGE), Ok(0));
    }
    assert_eq!(mmu.counters().faults, faults, "the kernel serves it alone");
    let kinds = map.page_kinds().unwrap();
    assert!(kinds.iter().all(|run| run.kind.zero && run.kind.huge && run.kind.present), "{kinds:?}");
    assert_eq!(kinds.iter().map(|run| run.end - run.start).sum::<u64>(), 4 * UNIT);
    assert_eq!(map.view().unwrap().resident, 0, "zero pages are nobody's");
    // A store of which the file makes a unit takes that one away; the rest stay.
    map.store(UNIT, 1).unwrap();
    let units = map.explain().unwrap();
    assert_eq!((units[0].why, units[2].why, units[3].why), (Why::Huge, Why::Huge, Why::Huge));
    assert_eq!((units[0].zero, units[1].zero, units[1].data), (512, 0, 512));
    drop((map, file));
    image.close();
}

#[test]
fn without_anybody_to_answer_a_hole_is_stored_to_by_try_store() {
    let image = image(16);
    let file = image.file(b"f");
    file.truncate(4 * PAGE, Wait::Yes).unwrap();
    let way = HostOptions { faulting: Faulting::Eager, ..HostOptions::default() };
    let map = map(&file, way, 8 * PAGE, Sharing::Shared);
    map.try_store(PAGE - 3, b"across").unwrap();
    assert_eq!(read(&file, PAGE - 3, 6), b"across");
    assert_eq!(map.store(4 * PAGE, 1), Err(Signal::Bus));
    drop((map, file));
    image.close();
}

#[test]
fn a_store_for_which_there_is_no_block_is_a_bus_error_until_there_is_one() {
    for way in ways() {
        let image = image(16);
        let (file, ballast) = (image.file(b"f"), image.file(b"ballast"));
        file.truncate(UNIT, Wait::Yes).unwrap();
        let map = map(&file, way, UNIT, Sharing::Shared);
        assert_eq!(map.load(5 * PAGE), Ok(0));
        let mut at = 0;
        while let Ok(done) = ballast.write_at(at, &vec![1; 1 << 20])
            && done > 0
        {
            at += done;
        }
        assert_eq!(map.store(5 * PAGE, 1), Err(Signal::Bus), "{way:?}");
        ballast.truncate(0, Wait::Yes).unwrap();
        // The page is refused for a moment, and then asked for again.
        let stored = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            map.store(5 * PAGE, 1).is_ok()
        });
        assert!(stored, "{way:?}");
        assert_eq!(read(&file, 5 * PAGE, 2), [1, 0]);
        drop((map, file, ballast));
        image.close();
    }
}
