//! Private mappings: what is stored is nobody else's.

use ext2_dax::Wait;
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::soft::Signal;

use crate::setup::{PAGE, UNIT, image, loaded, map, pattern, read, ways};

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
