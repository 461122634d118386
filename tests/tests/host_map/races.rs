//! Pages taken away while threads use them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ext2_dax::Wait;
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::host::{Faulting, HostMmu, HostOptions, Tracking};

use crate::setup::{PAGE, UNIT, answered, image, map, need_faults, request, tracked, ways};

fn rounds() -> u64 {
    std::env::var("E2DAX_REVOKES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

/// Page 0 belongs to a writer who counts in it, page 1 never changes, page 2 is punched and written again by turns: what
/// was punched is never seen again, and no zero is seen where none was.
#[test]
fn nobody_sees_a_byte_that_was_taken_nor_a_zero_that_was_not_there_and_no_store_is_lost() {
    need_faults!();
    // By protection there is something to race with.
    let by_protection = |way: &HostOptions| {
        let is_tracked = way.before_6_7 || way.tracking == Tracking::Entries;
        is_tracked && way.faulting == Faulting::Userfaultfd && !way.user_only
    };
    for way in answered().into_iter().chain(tracked().into_iter().filter(by_protection)) {
        let image = image(32);
        let file = image.file(b"f");
        file.write_at(0, &vec![0x11; 3 * 4096]).unwrap();
        file.write_at(0, &[0; 8]).unwrap();
        let mmu = HostMmu::new(way).unwrap();
        let map = file.map_host(&mmu, &request(3 * PAGE, Sharing::Shared)).unwrap();
        let (over, least) = (AtomicBool::new(false), AtomicU64::new(0));
        let (stored, looks) = (AtomicU64::new(0), AtomicU64::new(0));
        let memory = map.slice(0, map.len()).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let count = memory.load_u64(0).unwrap() + 1;
                    memory.store_u64(0, count).unwrap();
                    stored.fetch_add(1, Ordering::SeqCst);
                }
            });
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    assert_eq!(memory.load_u64(PAGE + 800).unwrap(), 0x1111_1111_1111_1111);
                    let floor = least.load(Ordering::SeqCst);
                    let seen = memory.load_u64(2 * PAGE + 64).unwrap();
                    assert!(
                        seen == 0 || seen == 0x1111_1111_1111_1111 || seen >= floor,
                        "{seen} after {floor}"
                    );
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
            let work = thread::Builder::new().spawn_scoped(scope, || {
                for round in 1..=rounds() {
                    file.write_at(2 * PAGE, &round.to_le_bytes().repeat(512)).unwrap();
                    assert_eq!(memory.load_u64(2 * PAGE).unwrap(), round);
                    if round.is_multiple_of(16) {
                        file.sync().unwrap();
                    }
                    file.punch_hole(2 * PAGE, PAGE, Wait::Yes).unwrap();
                    least.store(round + 1, Ordering::SeqCst);
                    assert_eq!(memory.load_u64(2 * PAGE).unwrap(), 0, "{way:?}");
                }
            });
            let done = work.unwrap().join();
            over.store(true, Ordering::SeqCst);
            done.unwrap();
        });
        assert_eq!(memory.load_u64(0).unwrap(), stored.load(Ordering::SeqCst), "{way:?}");
        assert!(looks.load(Ordering::Relaxed) > 0 && mmu.counters().revoked >= rounds(), "{way:?}");
        drop((map, file));
        image.close();
    }
}

#[test]
fn pages_that_take_turns_lose_no_store_of_threads() {
    need_faults!();
    let [extents, pages, _] = answered();
    for way in [extents, pages] {
        let image = image(32);
        let (file, other) = (image.file(b"f"), image.file(b"g"));
        for page in 0..64 {
            file.write_at(page * 2 * PAGE, &[0; 4096]).unwrap();
            other.write_at(page * PAGE, &[1; 4096]).unwrap();
        }
        let mmu = HostMmu::new(HostOptions { budget: 16, ..way }).unwrap();
        let map = file.map_host(&mmu, &request(128 * PAGE, Sharing::Shared)).unwrap();
        let memory = map.slice(0, map.len()).unwrap();
        let each = rounds() / 10;
        thread::scope(|scope| {
            for thread in 0..2 {
                scope.spawn(move || {
                    for round in 0..each {
                        let at = (round * 7 + thread) % 64 * 2 * PAGE + 8 * thread;
                        memory.store_u64(at, memory.load_u64(at).unwrap() + 1).unwrap();
                    }
                });
            }
        });
        let sum: u64 =
            (0..64).flat_map(|page| [0, 8].map(|at| memory.load_u64(page * 2 * PAGE + at).unwrap())).sum();
        assert_eq!(sum, 2 * each, "{way:?}");
        assert!(mmu.counters().evicted > 0);
        drop((map, file, other));
        image.close();
    }
}

#[test]
fn threads_that_store_into_one_hole_at_once_share_its_blocks() {
    need_faults!();
    for way in answered() {
        let image = image(32);
        let file = image.file(b"f");
        file.truncate(3 * UNIT, Wait::Yes).unwrap();
        let mmu = HostMmu::new(way).unwrap();
        let maps = [0, 1].map(|_| file.map_host(&mmu, &request(3 * UNIT, Sharing::Shared)).unwrap());
        thread::scope(|scope| {
            for (thread, map) in (0..4_u64).zip(maps.iter().cycle()) {
                scope.spawn(move || {
                    for page in 0..600 {
                        map.store(page * 2 * PAGE + thread, thread as u8 + 1).unwrap();
                    }
                });
            }
        });
        for page in 0..600 {
            assert_eq!(crate::setup::read(&file, page * 2 * PAGE, 5), [1, 2, 3, 4, 0], "{way:?} {page}");
        }
        drop((maps, file));
        image.close();
    }
}

/// Where it were a signal, nothing would be left of this test.
#[test]
fn a_store_beside_a_close_is_an_error_at_most() {
    for way in ways().into_iter().chain(tracked()) {
        for _ in 0..10 {
            let image = image(16);
            let file = image.file(b"f");
            file.write_at(0, &[1; 16 * 4096]).unwrap();
            let map = map(&file, way, 16 * PAGE, Sharing::Shared);
            let ext2 = image.fs.ext2().clone();
            thread::scope(|scope| {
                scope.spawn(|| {
                    (0..).take_while(|round| map.try_store(round % 16 * PAGE, &[2; 4096]).is_ok()).count()
                });
                thread::sleep(Duration::from_millis(5));
                assert!(ext2.close().is_ok());
            });
            drop((map, file, image));
        }
    }
}
