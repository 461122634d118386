//! Files in more pieces than the process may have mappings.

use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::host::{Faulting, HostMap, HostMmu, HostOptions};
use ext2_dax::{Errno, File, Wait};

use crate::setup::{
    Image, PAGE, UNIT, answered, image, loaded, need_faults, pattern, read, request, tracked, ways,
};

/// A file whose every page lies by itself.
fn in_pieces(image: &Image, pages: u64) -> File {
    let (file, other) = (image.file(b"f"), image.file(b"g"));
    for page in 0..pages {
        file.write_at(page * 2 * PAGE, &pattern(page)).unwrap();
        other.write_at(page * PAGE, &[1; 4096]).unwrap();
    }
    file
}

#[test]
fn beyond_the_budget_pages_take_turns_and_lose_nothing() {
    need_faults!();
    for way in answered() {
        let image = image(32);
        let file = in_pieces(&image, 200);
        let mmu = HostMmu::new(HostOptions { budget: 24, ..way }).unwrap();
        let map = file.map_host(&mmu, &request(400 * PAGE, Sharing::Shared)).unwrap();
        for round in 0..3_u8 {
            for page in 0..200 {
                map.store(page * 2 * PAGE + u64::from(round), 100 + round).unwrap();
            }
            for page in (0..200).rev() {
                let mut expected = pattern(page);
                (0..=round).for_each(|at| expected[usize::from(at)] = 100 + at);
                assert_eq!(loaded(&map, page * 2 * PAGE, 4096), expected, "{way:?} {page}");
            }
            assert!(mmu.mappings() <= 24, "{way:?}: {}", mmu.mappings());
        }
        let counters = mmu.counters();
        assert!(counters.evicted > 300 && counters.refused == 0, "{way:?} {counters:?}");
        let view = map.view().unwrap();
        assert!(view.mappings <= 26, "{way:?} {view:?}, {} of ours", mmu.mappings());
        assert_eq!(read(&file, 2 * PAGE, 3), [100, 101, 102]);
        drop((map, file));
        image.close();
    }
}

/// Who goes through a file in more pieces than may be mapped waits for many of them at once.
#[test]
fn beyond_the_budget_a_file_that_is_read_in_order_faults_for_many_runs_at_once() {
    need_faults!();
    let image = image(32);
    let (file, other) = (image.file(b"f"), image.file(b"g"));
    // Every other page first, so that those between them lie elsewhere.
    for page in (0..1600).step_by(2).chain((1..1600).step_by(2)) {
        file.write_at(page * PAGE, &pattern(page)).unwrap();
        if page.is_multiple_of(3) {
            other.write_at(page * PAGE, &[1; 4096]).unwrap();
        }
    }
    let mmu = HostMmu::new(HostOptions { budget: 400, ..answered()[0] }).unwrap();
    let map = file.map_host(&mmu, &request(1600 * PAGE, Sharing::Shared)).unwrap();
    let runs: u64 = map.explain().unwrap().iter().map(|unit| unit.runs).sum();
    for _ in 0..2 {
        for page in 0..1600 {
            assert_eq!(loaded(&map, page * PAGE, 4096), pattern(page), "page {page}");
        }
        assert!(mmu.mappings() <= 400, "{}", mmu.mappings());
    }
    let counters = mmu.counters();
    assert!(counters.evicted > 400, "{runs} runs were mapped ahead: {counters:?}");
    assert!(counters.faults < counters.evicted / 2, "{counters:?}");
    drop((map, file, other));
    image.close();
}

#[test]
fn every_page_of_a_run_that_was_cut_in_more_pieces_than_the_budget_has_can_be_touched() {
    need_faults!();
    for way in answered() {
        let image = image(16);
        let file = image.file(b"f");
        file.write_at(0, &[1; 100 * 4096]).unwrap();
        let mmu = HostMmu::new(HostOptions { budget: 24, ..way }).unwrap();
        let map = file.map_host(&mmu, &request(100 * PAGE, Sharing::Shared)).unwrap();
        for page in 0..100 {
            map.load(page * PAGE).unwrap();
        }
        for page in (0..100).step_by(2) {
            file.punch_hole(page * PAGE, PAGE, Wait::Yes).unwrap();
        }
        for page in 0..100 {
            assert_eq!(map.load(page * PAGE), Ok((page % 2) as u8), "{way:?} {page}");
        }
        drop((map, file));
        image.close();
    }
}

#[test]
fn beside_a_mapping_that_has_all_of_the_budget_another_can_be_touched() {
    need_faults!();
    for way in answered() {
        let image = image(16);
        let (greedy, other) = (in_pieces(&image, 60), image.file(b"o"));
        other.write_at(0, &[2; 4 * 4096]).unwrap();
        let mmu = HostMmu::new(HostOptions { budget: 24, ..way }).unwrap();
        let first = greedy.map_host(&mmu, &request(120 * PAGE, Sharing::Shared)).unwrap();
        (0..60).for_each(|page| assert_eq!(first.load(page * 2 * PAGE), Ok(pattern(page)[0])));
        let second = other.map_host(&mmu, &request(4 * PAGE, Sharing::Shared)).unwrap();
        assert_eq!((second.load(0), second.store(PAGE, 3)), (Ok(2), Ok(())), "{way:?}");
        assert_eq!(first.load(118 * PAGE), Ok(pattern(59)[0]), "{way:?}");
        drop((first, second, greedy, other));
        image.close();
    }
}

#[test]
fn an_eager_mapping_beyond_the_budget_is_refused_by_name() {
    let image = image(16);
    let file = in_pieces(&image, 50);
    let mmu = HostMmu::new(HostOptions { faulting: Faulting::Eager, budget: 24, ..HostOptions::default() })
        .unwrap();
    let refused = file.map_host(&mmu, &request(100 * PAGE, Sharing::Shared)).unwrap_err();
    assert!(refused.is(Errno::NOMEM) && refused.to_string().contains("max_map_count"), "{refused}");
    assert_eq!((mmu.mappings(), file.pages().mappings()), (0, 0));
    drop(file);
    image.close();
}

#[test]
fn contiguous_blocks_are_one_mapping_however_they_were_faulted_in() {
    need_faults!();
    let [_, pages, _] = answered();
    let image = image(16);
    let file = image.file(b"f");
    file.write_at(0, &vec![3; 64 * 4096]).unwrap();
    let mmu = HostMmu::new(pages).unwrap();
    let map = file.map_host(&mmu, &request(64 * PAGE, Sharing::Shared)).unwrap();
    for page in (0..64).step_by(2).chain((1..64).step_by(2)) {
        assert_eq!(map.load(page * PAGE), Ok(3));
    }
    let extents = file.extents().unwrap().len() as u64;
    assert!(mmu.mappings() <= 2 * extents + 1, "{} for {extents}", mmu.mappings());
    assert!(map.view().unwrap().mappings <= 4, "{:?}", map.view());
    drop((map, file));
    image.close();
}

/// Whether the kernel has no more mappings (VMAs) than are counted, which the budget is about.
#[track_caller]
fn assert_all_are_counted(mmu: &HostMmu, map: &HostMap) {
    // What was stored to is apart where a handler of signals finds stores, until it is written back.
    let _stored = map.take_stored();
    let (view, counted) = (map.view().unwrap(), mmu.mappings());
    assert!(view.mappings <= counted, "{view:?}, {counted} are counted");
}

#[test]
fn each_unit_of_a_hole_that_is_touched_counts_as_the_kernel_has_it() {
    let image = image(16);
    let file = image.file(b"f");
    file.truncate(600 * UNIT, Wait::Yes).unwrap();
    for way in ways() {
        let mmu = HostMmu::new(HostOptions { budget: 64, ..way }).unwrap();
        let map = file.map_host(&mmu, &request(600 * UNIT, Sharing::Shared)).unwrap();
        for unit in (0..600).rev() {
            assert_eq!(map.load(unit * UNIT), Ok(0));
        }
        assert_all_are_counted(&mmu, &map);
        assert!(mmu.mappings() <= 64, "{way:?}: {}", mmu.mappings());
    }
    drop(file);
    image.close();
}

#[test]
fn a_file_that_is_cut_page_by_page_is_one_mapping_past_its_end() {
    let image = image(16);
    for way in ways() {
        let file = image.file(format!("{way:?}").as_bytes());
        file.truncate(200 * PAGE, Wait::Yes).unwrap();
        let mmu = HostMmu::new(way).unwrap();
        let map = file.map_host(&mmu, &request(200 * PAGE, Sharing::Shared)).unwrap();
        for page in (0..200).rev() {
            file.truncate(page * PAGE, Wait::Yes).unwrap();
            let _bus_error = map.load(page * PAGE).unwrap_err();
        }
        assert_eq!((mmu.mappings(), map.view().unwrap().mappings), (1, 1), "{way:?}");
    }
    image.close();
}

#[test]
fn pages_between_units_are_one_mapping_with_them() {
    need_faults!();
    let image = image(256);
    let file = image.file(b"f");
    for unit in 0..60 {
        file.write_at(unit * UNIT, &vec![1; UNIT as usize]).unwrap();
    }
    for way in answered() {
        let mmu = HostMmu::new(way).unwrap();
        let map = file.map_host(&mmu, &request(60 * UNIT, Sharing::Shared)).unwrap();
        for unit in (0..60).step_by(2) {
            map.load(unit * UNIT).unwrap();
            file.punch_hole(unit * UNIT + PAGE, PAGE, Wait::Yes).unwrap();
            map.store(unit * UNIT + PAGE, 1).unwrap();
        }
        for page in 0..60 * UNIT / PAGE {
            assert_eq!(map.load(page * PAGE), Ok(1));
        }
        assert_all_are_counted(&mmu, &map);
        assert!(mmu.mappings() < 10, "{way:?}: {}", mmu.mappings());
    }
    drop(file);
    image.close();
}

#[test]
fn what_was_touched_around_a_run_that_goes_keeps_nothing_apart() {
    need_faults!();
    let image = image(16);
    let file = image.file(b"f");
    file.truncate(1600 * PAGE, Wait::Yes).unwrap();
    for page in (0..1600).step_by(4) {
        file.write_at(page * PAGE, &pattern(page)).unwrap();
    }
    for way in answered() {
        let mmu = HostMmu::new(HostOptions { budget: 200, ..way }).unwrap();
        let map = file.map_host(&mmu, &request(1600 * PAGE, Sharing::Shared)).unwrap();
        for part in 0..20 {
            // Data, then a page of each hole between.
            for page in (part * 80..part * 80 + 80).step_by(4) {
                assert_eq!(map.load(page * PAGE), Ok(pattern(page)[0]));
            }
            for page in (part * 80 + 2..part * 80 + 76).step_by(4) {
                assert_eq!(map.load(page * PAGE), Ok(0));
            }
            assert_all_are_counted(&mmu, &map);
        }
    }
    drop(file);
    image.close();
}

/// Each thread waits for two things, that its page is mapped and that it may be stored to, and another's page takes its place.
#[test]
fn threads_that_store_take_turns_in_a_mapping_that_has_room_for_one_of_them() {
    need_faults!();
    const STORES: u64 = 1000;
    for way in answered().into_iter().chain(tracked()).filter(|way| way.faulting == Faulting::Userfaultfd) {
        let image = image(16);
        let (greedy, other, gap) = (in_pieces(&image, 60), image.file(b"o"), image.file(b"h"));
        for page in 0..8 {
            other.write_at(page * 2 * PAGE, &[2; 4096]).unwrap();
            gap.write_at(page * PAGE, &[1; 4096]).unwrap();
        }
        let mmu = HostMmu::new(HostOptions { budget: 24, ..way }).unwrap();
        let first = greedy.map_host(&mmu, &request(120 * PAGE, Sharing::Shared)).unwrap();
        (0..60).for_each(|page| assert_eq!(first.load(page * 2 * PAGE), Ok(pattern(page)[0])));
        let second = other.map_host(&mmu, &request(16 * PAGE, Sharing::Shared)).unwrap();
        let before = mmu.counters().faults;
        let faults = std::thread::scope(|scope| {
            let threads = [0, 1].map(|thread| {
                let second = &second;
                scope.spawn(move || {
                    for round in 0..STORES {
                        let page = (round % 4 * 2 + thread) * 2;
                        second.store(page * PAGE + thread, round as u8).unwrap();
                    }
                })
            });
            while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                if mmu.counters().faults - before > 100 * STORES {
                    // Or they would never end.
                    greedy.truncate(0, Wait::Yes).unwrap();
                    break;
                }
                std::thread::yield_now();
            }
            mmu.counters().faults - before
        });
        assert!(faults <= 100 * STORES, "{way:?}: {faults} faults for {STORES} stores of two threads");
        drop((first, second, greedy, other, gap));
        image.close();
    }
}
