//! Private mappings: what is stored is nobody else's.

use ext2_dax::Wait;
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::soft::{Signal, SoftMmu};

use crate::setup::{PAGE, UNIT, image, loaded, map, pattern, read, request, ways};

#[test]
fn what_is_stored_stays_private_and_what_is_not_follows_the_file() {
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        for page in 0..8 {
            file.write_at(page * PAGE, &pattern(page)).unwrap();
        }
        file.truncate(UNIT + 16 * PAGE, Wait::Yes).unwrap();
        let map = map(&file, way, UNIT + 16 * PAGE, Sharing::Private);
        map.store(2 * PAGE, 200).unwrap();
        assert_eq!(map.load(100 * PAGE), Ok(0));
        map.store(100 * PAGE + 1, 201).unwrap();
        map.store(UNIT + PAGE, 202).unwrap();
        assert_eq!(
            (read(&file, 2 * PAGE, 1), read(&file, UNIT + PAGE, 1)),
            (vec![pattern(2)[0]], vec![0]),
            "{way:?}"
        );
        // The file changes: copies do not, the rest does.
        file.write_at(2 * PAGE, &[1; 4096]).unwrap();
        file.write_at(3 * PAGE, &[2; 4096]).unwrap();
        file.write_at(100 * PAGE, &[3; 2 * 4096]).unwrap();
        assert_eq!((map.load(2 * PAGE), map.load(3 * PAGE)), (Ok(200), Ok(2)), "{way:?}");
        assert_eq!((map.load(100 * PAGE + 1), map.load(101 * PAGE)), (Ok(201), Ok(3)), "{way:?}");
        // A hole takes what was the file's; a copy stays.
        file.punch_hole(2 * PAGE, 2 * PAGE, Wait::Yes).unwrap();
        assert_eq!(
            (map.load(2 * PAGE), map.load(2 * PAGE + 1), map.load(3 * PAGE)),
            (Ok(200), Ok(pattern(2)[1]), Ok(0)),
            "{way:?}"
        );
        // The end takes both.
        file.truncate(PAGE, Wait::Yes).unwrap();
        assert_eq!(
            (map.load(2 * PAGE), map.load(UNIT + PAGE)),
            (Err(Signal::Bus), Err(Signal::Bus)),
            "{way:?}"
        );
        file.truncate(4 * PAGE, Wait::Yes).unwrap();
        assert_eq!(loaded(&map, 2 * PAGE, 4096), [0; 4096], "{way:?}");
        assert_eq!(loaded(&map, 0, 4096), pattern(0));
        drop((map, file));
        image.close();
    }
}

/// The kernel would copy all of the huge zero page.
#[test]
fn a_store_into_a_hole_of_2_mib_makes_one_page_private_and_the_rest_follows_the_file() {
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        file.truncate(3 * UNIT, Wait::Yes).unwrap();
        let map = map(&file, way, 3 * UNIT, Sharing::Private);
        assert_eq!(map.load(UNIT + 7 * PAGE), Ok(0));
        map.store(UNIT + 3 * PAGE, 200).unwrap();
        map.store(2 * UNIT - 1, 201).unwrap();
        for page in [0, 2, 4, 300, 510] {
            file.write_at(UNIT + page * PAGE, &pattern(page)).unwrap();
            assert_eq!(loaded(&map, UNIT + page * PAGE, 4096), pattern(page), "{way:?}: page {page}");
        }
        file.write_at(UNIT + 3 * PAGE, &[5; 4096]).unwrap();
        assert_eq!((map.load(UNIT + 3 * PAGE), map.load(2 * UNIT - 1)), (Ok(200), Ok(201)), "{way:?}");
        drop((map, file));
        image.close();
    }
}

/// Such an entry goes whole when a part of it is punched or cut off, and its translations with it.
#[test]
fn pages_beside_those_that_are_taken_from_an_entry_of_2_mib_follow_the_file_and_can_be_stored_to() {
    for (way, cut) in ways().into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let image = image(32);
        let file = image.file(b"f");
        file.write_at(0, &vec![1; 2 * UNIT as usize]).unwrap();
        // Somebody else has an entry of 2 MiB.
        let soft = file.map(&SoftMmu::new(), &request(2 * UNIT, Sharing::Shared)).unwrap();
        soft.store(UNIT, 2).unwrap();
        assert_eq!(soft.mmu().counters().pmd_fallbacks, 0);
        let [private, shared] =
            [Sharing::Private, Sharing::Shared].map(|sharing| map(&file, way, 2 * UNIT, sharing));
        assert_eq!((private.load(UNIT), shared.load(UNIT)), (Ok(2), Ok(2)));
        if cut {
            file.truncate(UNIT + 100 * PAGE, Wait::Yes).unwrap();
        } else {
            file.punch_hole(UNIT + 50 * PAGE, PAGE, Wait::Yes).unwrap();
        }
        for page in [0, 49, 51, 99] {
            let at = UNIT + page * PAGE;
            file.write_at(at, &pattern(page)).unwrap();
            assert_eq!(
                (loaded(&private, at, 4096), loaded(&shared, at, 4096)),
                (pattern(page), pattern(page)),
                "{way:?}, {cut}: page {page}"
            );
            assert_eq!((private.store(at, 7), shared.store(at + 1, 8)), (Ok(()), Ok(())), "{way:?}, {cut}");
            assert_eq!((read(&file, at, 2), private.load(at)), (vec![pattern(page)[0], 8], Ok(7)));
        }
        drop((private, shared, soft, file));
        image.close();
    }
}

#[test]
fn copies_stay_when_the_file_moves_or_is_changed_by_any_call_and_go_with_its_end() {
    for way in ways() {
        let image = image(64);
        let file = image.file(b"f");
        for page in (0..11).filter(|page| *page != 5) {
            file.inode().write_at(page * PAGE, &[1; 4096]).unwrap();
        }
        file.truncate(2 * UNIT, Wait::Yes).unwrap();
        let private = map(&file, way, 2 * UNIT, Sharing::Private);
        let shared = map(&file, way, 2 * UNIT, Sharing::Shared);
        private.store(5 * PAGE, 77).unwrap();
        private.store(2 * PAGE, 78).unwrap();
        private.store(UNIT + 9 * PAGE, 79).unwrap();
        let copies = |what: &str| {
            let seen = (private.load(5 * PAGE), private.load(2 * PAGE), private.load(UNIT + 9 * PAGE));
            assert_eq!(seen, (Ok(77), Ok(78), Ok(79)), "{way:?}: after {what}");
        };
        file.write_at(5 * PAGE, &[2; 4096]).unwrap();
        copies("a write under one");
        shared.store(UNIT + 9 * PAGE + 1, 3).unwrap();
        copies("a store under one");
        // The first blocks move to a unit of their own.
        file.write_at(11 * PAGE, &vec![3; 1500 << 10]).unwrap();
        copies("a move");
        assert_eq!((private.load(PAGE), private.load(11 * PAGE)), (Ok(1), Ok(3)), "{way:?}");
        file.zero_range(0, 1 << 20).unwrap();
        copies("zeroing");
        assert_eq!(private.load(PAGE), Ok(0), "{way:?}");
        file.inode().punch_hole(0, 2 * UNIT, Wait::Yes).unwrap();
        copies("a punch");
        assert_eq!((private.load(12 * PAGE), private.load(UNIT + 8 * PAGE)), (Ok(0), Ok(0)), "{way:?}");
        file.truncate(3 * UNIT, Wait::Yes).unwrap();
        copies("growth");
        file.truncate(3 * PAGE, Wait::Yes).unwrap();
        assert_eq!((private.load(2 * PAGE), private.load(5 * PAGE)), (Ok(78), Err(Signal::Bus)), "{way:?}");
        file.truncate(2 * UNIT, Wait::Yes).unwrap();
        let seen = (private.load(2 * PAGE), private.load(5 * PAGE), private.load(UNIT + 9 * PAGE));
        assert_eq!(seen, (Ok(78), Ok(0), Ok(0)), "{way:?}: the end took two");
        drop((private, shared, file));
        image.close();
    }
}
