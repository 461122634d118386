//! Whoever changes a file's map reaches those who map its pages, by whatever door he comes.

use ext2_core::Wait;
use ext2_dax::mmu::Sharing;

use crate::setup::{file, fresh, map};

const PAGE: u64 = 4096;

#[test]
fn a_write_of_the_file_system_s_own_is_seen_by_who_maps_the_hole() {
    for size in [8192, 4 << 20] {
        let (_device, fs) = fresh(32);
        let file = file(&fs, b"f");
        file.truncate(size, Wait::Yes).unwrap();
        let maps = [map(&file, size, Sharing::Shared), map(&file, size, Sharing::Shared)];
        for map in &maps {
            assert_eq!(map.load(0), Ok(0));
        }
        file.inode().write_at(0, &[9; 4096]).unwrap();
        for map in &maps {
            assert_eq!((map.load(0), map.load(4096)), (Ok(9), Ok(0)), "a size of {size}");
        }
        // And what is stored through one of them then is in the file.
        maps[0].store(10, 8).unwrap();
        let mut bytes = [0; 11];
        file.inode().read_at(0, &mut bytes).unwrap();
        assert_eq!((bytes[9], bytes[10], maps[1].load(10)), (9, 8, Ok(8)));
    }
}

#[test]
fn private_copies_stay_unless_the_file_ends_before_them() {
    let (_device, fs) = fresh(64);
    let file = file(&fs, b"f");
    for page in (0..11).filter(|page| *page != 5) {
        file.inode().write_at(page * PAGE, &[1; 4096]).unwrap();
    }
    file.truncate(4 << 20, Wait::Yes).unwrap();
    let private = map(&file, 4 << 20, Sharing::Private);
    private.store(5 * PAGE, 77).unwrap();
    private.store(2 * PAGE, 78).unwrap();
    private.load(3 << 20).unwrap();
    file.write_at(5 * PAGE, &[2; 4096]).unwrap();
    assert_eq!(
        (private.load(5 * PAGE), private.load(2 * PAGE)),
        (Ok(77), Ok(78)),
        "after a write under them"
    );
    // The file grows, and its first blocks move to a unit of their own.
    file.write_at(11 * PAGE, &vec![3; 1500 << 10]).unwrap();
    assert_eq!((private.load(5 * PAGE), private.load(2 * PAGE)), (Ok(77), Ok(78)), "after a move");
    file.punch_hole(0, 8 * PAGE, Wait::Yes).unwrap();
    assert_eq!((private.load(5 * PAGE), private.load(2 * PAGE)), (Ok(77), Ok(78)), "after a punch");
    assert_eq!(private.load(PAGE), Ok(0), "what was not copied is a hole");
    file.zero_range(0, 1 << 20).unwrap();
    file.inode().punch_hole(0, 1 << 20, Wait::Yes).unwrap();
    assert_eq!((private.load(5 * PAGE), private.load(2 * PAGE)), (Ok(77), Ok(78)), "after zeroing");
    file.truncate(3 * PAGE, Wait::Yes).unwrap();
    assert_eq!(private.load(2 * PAGE), Ok(78), "inside the file");
    assert_eq!(private.load(5 * PAGE), Err(ext2_dax::mmu::soft::Signal::Bus), "past its end");
    file.truncate(4 << 20, Wait::Yes).unwrap();
    assert_eq!((private.load(2 * PAGE), private.load(5 * PAGE)), (Ok(78), Ok(0)), "truncation took the copy");
}

#[test]
fn a_private_copy_past_the_end_goes_though_nothing_else_of_the_file_is_mapped() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 3 * PAGE as usize]).unwrap();
    let private = map(&file, 3 * PAGE, Sharing::Private);
    private.store(PAGE + 7, 77).unwrap();
    file.punch_hole(PAGE, 2 * PAGE, Wait::Yes).unwrap();
    assert_eq!(private.load(PAGE + 7), Ok(77), "after a punch");
    file.truncate(1000, Wait::Yes).unwrap();
    assert_eq!(private.load(PAGE + 7), Err(ext2_dax::mmu::soft::Signal::Bus), "past the end");
    file.truncate(3 * PAGE, Wait::Yes).unwrap();
    assert_eq!(private.load(PAGE + 7), Ok(0), "the file grew again");
}

#[test]
fn zeros_are_seen_through_mappings_which_stay() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 8192]).unwrap();
    let map = map(&file, 8192, Sharing::Shared);
    map.store(100, 2).unwrap();
    let faults = map.mmu().counters().pte_faults;
    file.zero_range(50, 5000).unwrap();
    assert_eq!((map.load(100), map.load(49), map.load(5050)), (Ok(0), Ok(1), Ok(1)));
    map.store(100, 3).unwrap();
    file.sync().unwrap();
    let mut bytes = [9; 101];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!((bytes[99], bytes[100]), (0, 3));
    assert_eq!(map.mmu().counters().pte_faults, faults + 1, "the second page, and no other");
}

#[test]
fn threads_that_do_everything_at_once_agree_in_the_end() {
    use std::sync::atomic::{AtomicU64, Ordering};
    const SIZE: u64 = 6 << 20;
    let (device, fs) = fresh(96);
    let (mine, other) = (file(&fs, b"f"), file(&fs, b"g"));
    let maps: Vec<_> = (0..3).map(|_| map(&mine, SIZE, Sharing::Shared)).collect();
    let seed = AtomicU64::new(1);
    for round in 0..4 {
        std::thread::scope(|scope| {
            for (nr, map_of) in maps.iter().enumerate() {
                let (mine, other, seed) = (&mine, &other, &seed);
                scope.spawn(move || {
                    let mut state = seed.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let mut below = |limit: u64| {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        state % limit
                    };
                    let mark = nr as u8 + 1;
                    for _ in 0..40 {
                        let pos = below(SIZE - 300_000);
                        match below(13) {
                            0 => mine.truncate(below(SIZE), Wait::Yes).unwrap(),
                            1 => mine.truncate(SIZE, Wait::Yes).unwrap(),
                            2 => mine.punch_hole(pos, below(3 << 20), Wait::Yes).unwrap(),
                            3 => mine.zero_range(pos, below(1 << 16)).unwrap(),
                            4 => drop(mine.write_at(pos, &vec![mark; 1 + below(300_000) as usize])),
                            5 => drop(mine.inode().write_at(pos, &vec![mark; 1 + below(100_000) as usize])),
                            6 => drop(other.write_at(pos, &vec![0xee; 1 + below(300_000) as usize])),
                            7 => other.truncate(0, Wait::Yes).unwrap(),
                            8 => map_of.msync(0, SIZE).unwrap(),
                            9 => mine.sync().unwrap(),
                            10 => {
                                for at in 0..20 {
                                    let _ = map_of.store(pos + at * PAGE, mark + 0x10);
                                }
                            }
                            11 => {
                                let private = map(mine, SIZE, Sharing::Private);
                                for at in 0..20 {
                                    let _ = private.store(pos + at * PAGE, 0x77);
                                }
                            }
                            _ => drop(map_of.load_bytes(pos, &mut vec![0; 200_000])),
                        }
                    }
                });
            }
        });
        let size = mine.size().min(SIZE);
        let mut truth = vec![0; size as usize];
        assert_eq!(mine.read_at(0, &mut truth).unwrap(), size);
        assert!(!truth.contains(&0xee) && !truth.contains(&0x77), "bytes of another file, round {round}");
        for (nr, map) in maps.iter().enumerate() {
            let mut seen = vec![1; size as usize];
            map.load_bytes(0, &mut seen).unwrap();
            let at = truth.iter().zip(&seen).position(|(truth, seen)| truth != seen);
            assert_eq!(at, None, "round {round}: mapping {nr} sees another byte than a read");
        }
    }
    drop((maps, mine, other));
    fs.ext2().clone().close().unwrap();
    drop(fs);
    assert!(e2dax_tests::small::is_clean(&device.to_vec()));
}
