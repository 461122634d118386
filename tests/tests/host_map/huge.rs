//! Pages of 2 MiB: an aligned unit of the image is one translation of the process, where the host can.

use std::fs::File as HostFile;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use blockdev::MmapDevice;
use e2dax_tests::mount::with_huge_tmpfs;
use ext2_dax::Wait;
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::host::{HostMap, HostMmu, HostUnit, Tracking, Why};
use ext2_dax::mmu::soft::MapRequest;
use ext2_dax::{File, OpenFor};

use crate::setup::{Image, PAGE, UNIT, image, image_in, loaded, map, open, pattern, request, tracked, ways};

const UNITS: u64 = 4;

/// A file of four whole units, and bytes that say which.
fn of_units(image: &Image) -> File {
    let file = image.file(b"f");
    for unit in 0..UNITS {
        file.write_at(unit * UNIT, &vec![unit as u8 + 1; UNIT as usize]).unwrap();
    }
    file
}

fn touch(map: &HostMap) {
    assert!((0..map.len() / PAGE).all(|page| map.load(page * PAGE).is_ok()));
}

/// Bytes by translations of 2 MiB as /proc/self/smaps has them and as `explain` has them.
fn huge(map: &HostMap) -> (u64, u64) {
    let units = map.explain().unwrap();
    (map.view().unwrap().huge(), units.iter().map(|unit| unit.huge * PAGE).sum())
}

fn whys(units: &[HostUnit]) -> Vec<Why> {
    units.iter().map(|unit| unit.why).collect()
}

#[test]
fn on_a_tmpfs_with_huge_pages_a_unit_is_one_translation() {
    let done = with_huge_tmpfs(96, |folder| {
        // Those that track pages do without.
        for way in ways().into_iter().filter(|way| way.tracking != Tracking::Pages) {
            let image = image_in(folder, 32);
            let file = of_units(&image);
            let mapped = map(&file, way, UNITS * UNIT, Sharing::Shared);
            touch(&mapped);
            assert_eq!(huge(&mapped), (UNITS * UNIT, UNITS * UNIT), "{way:?}: {:#?}", mapped.explain());
            assert_eq!(mapped.view().unwrap().shmem_huge, UNITS * UNIT, "{way:?}");
            assert!(whys(&mapped.explain().unwrap()).iter().all(|why| *why == Why::Huge), "{way:?}");
            // Stores and syncs leave them whole.
            mapped.store(UNIT + 5, 77).unwrap();
            file.sync().unwrap();
            mapped.store(UNIT + 6, 78).unwrap();
            assert_eq!(huge(&mapped), (UNITS * UNIT, UNITS * UNIT), "{way:?}");
            // A page that goes takes one unit apart and no other; the blocks of the rest are where they were.
            file.punch_hole(2 * UNIT + 8 * PAGE, PAGE, Wait::Yes).unwrap();
            touch(&mapped);
            let units = mapped.explain().unwrap();
            assert_eq!(whys(&units), [Why::Huge, Why::Huge, Why::Pieces, Why::Huge], "{way:?}");
            assert_eq!(huge(&mapped), ((UNITS - 1) * UNIT, (UNITS - 1) * UNIT), "{way:?}");
            assert_eq!(loaded(&mapped, 2 * UNIT + 7 * PAGE, 4096), [3; 4096]);
            assert_eq!(loaded(&mapped, 2 * UNIT + 8 * PAGE, 4096), [0; 4096]);
            // At another colour no unit can be one.
            let odd = MapRequest { colour: PAGE, ..request(UNITS * UNIT, Sharing::Shared) };
            let other = file.map_host(&HostMmu::new(way).unwrap(), &odd).unwrap();
            touch(&other);
            assert_eq!(huge(&other), (0, 0), "{way:?}");
            assert!(whys(&other.explain().unwrap()).iter().all(|why| *why == Why::Colour), "{way:?}");
            drop((mapped, other, file));
            image.close();
        }
    });
    if let Err(why) = done {
        e2dax_tests::skip!("{why}");
    }
}

/// What DAX has an entry for is protected as one, and the kernel keeps it one.
#[test]
fn entries_that_are_tracked_stay_translations_of_2_mib() {
    let done = with_huge_tmpfs(96, |folder| {
        for way in tracked().into_iter().filter(|way| way.tracking == Tracking::Entries) {
            let image = image_in(folder, 32);
            let file = of_units(&image);
            let mapped = map(&file, way, UNITS * UNIT, Sharing::Shared);
            touch(&mapped);
            for round in 0..3 {
                mapped.store(UNIT + 5 * PAGE + round, 77).unwrap();
                let stored = mapped.take_stored();
                let runs: Vec<_> = stored.iter().map(|run| (run.first, run.count)).collect();
                assert_eq!(runs, [(UNIT / PAGE, UNIT / PAGE)], "{way:?}");
                file.sync().unwrap();
                assert_eq!(mapped.take_stored(), [], "{way:?}");
                assert_eq!(huge(&mapped), (UNITS * UNIT, UNITS * UNIT), "{way:?}: {:#?}", mapped.explain());
            }
            drop((mapped, file));
            image.close();
        }
    });
    if let Err(why) = done {
        e2dax_tests::skip!("{why}");
    }
}

/// Without anybody's leave: the kernel makes huge pages of small ones when it is asked to.
#[test]
fn small_pages_of_the_host_become_units_when_the_kernel_is_asked() {
    for way in ways() {
        let image = image(32);
        let file = of_units(&image);
        let mapped = map(&file, way, UNITS * UNIT, Sharing::Shared);
        touch(&mapped);
        let before = huge(&mapped);
        assert_eq!(before.0, before.1, "{way:?}");
        let done = mapped.collapse().unwrap();
        if before.0 == 0 && done == 0 {
            e2dax_tests::skip!("the kernel makes no pages of 2 MiB of a tmpfs's");
        }
        assert_eq!(before.0 + done * UNIT, UNITS * UNIT, "{way:?}: {:#?}", mapped.explain());
        touch(&mapped);
        assert_eq!(huge(&mapped), (UNITS * UNIT, UNITS * UNIT), "{way:?}: {:#?}", mapped.explain());
        for unit in 0..UNITS {
            assert_eq!(loaded(&mapped, unit * UNIT + 3 * PAGE, 4096), [unit as u8 + 1; 4096], "{way:?}");
        }
        // It is the image still.
        mapped.store(UNIT + 9, 99).unwrap();
        assert_eq!(crate::setup::read(&file, UNIT + 8, 3), [2, 99, 2], "{way:?}");
        assert_eq!(mapped.collapse().unwrap(), 0, "{way:?}: all is done");
        drop((mapped, file));
        image.close();
    }
}

/// On a disk's file system: where the page cache has large folios they are mapped as such.
#[test]
fn on_a_disk_s_file_system_explain_says_what_smaps_says() {
    let folder = std::env::temp_dir();
    for way in ways() {
        let image = image_in(&folder, 32);
        let file = of_units(&image);
        file.write_at(9 * PAGE, &pattern(9)).unwrap();
        drop(file);
        let path = forget(image);
        let device = MmapDevice::open(path.path(), &blockdev::DeviceOptions::read_write()).unwrap();
        let fs = open(Arc::new(device));
        let file =
            File::open(&fs, fs.ext2().root().unwrap().lookup(b"f").unwrap(), OpenFor::Writing).unwrap();
        let mapped = map(&file, way, UNITS * UNIT, Sharing::Shared);
        touch(&mapped);
        let (smaps, explained) = huge(&mapped);
        assert_eq!(smaps, explained, "{way:?}: {:#?}", mapped.explain());
        assert_eq!(loaded(&mapped, 9 * PAGE, 4096), pattern(9), "{way:?}");
        let is_small = smaps == 0;
        drop((mapped, file));
        Image { path, fs }.close();
        if is_small {
            e2dax_tests::skip!("{}: the host's file system has no pages of 2 MiB", folder.display());
        }
    }
}

/// Closes an image and makes the host's kernel forget its pages, so that it reads them anew as it likes best.
fn forget(image: Image) -> tempfile::NamedTempFile {
    let Image { path, fs } = image;
    let ext2 = fs.ext2().clone();
    drop(fs);
    let _ = ext2.close().unwrap();
    path.as_file().sync_all().unwrap();
    let whole = HostFile::open(path.path()).unwrap();
    rustix::fs::fadvise(&whole, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    path
}

/// What the kernel has for the page at a byte of the mapping: the number of its page, and its flags
/// (Documentation/admin-guide/mm/pagemap.rst). Both are root's to see.
fn physical(map: &HostMap, at: u64) -> Option<(u64, u64)> {
    let word = |path: &str, nr: u64| {
        let mut word = [0; 8];
        HostFile::open(Path::new(path)).ok()?.read_exact_at(&mut word, nr * 8).ok()?;
        // /proc has words as the machine has them, which is one of little endian here.
        Some(u64::from_le_bytes(word))
    };
    let address = map.as_ptr().addr() as u64 + at;
    let page = word("/proc/self/pagemap", address / PAGE)? & ((1 << 55) - 1);
    (page > 0).then_some(())?;
    Some((page, word("/proc/kpageflags", page)?))
}

/// `KPF_THP` and `KPF_ZERO_PAGE`.
const HUGE_AND_ZERO: u64 = 1 << 22 | 1 << 24;

#[test]
fn every_unit_of_a_hole_is_the_one_huge_zero_page_of_the_machine() {
    if !blockdev::host_map::huge_zero_page() || !cfg!(target_endian = "little") {
        e2dax_tests::skip!("no huge zero page");
    }
    for way in ways() {
        let image = image(16);
        let file = image.file(b"f");
        file.truncate(UNITS * UNIT, Wait::Yes).unwrap();
        let mapped = map(&file, way, UNITS * UNIT, Sharing::Shared);
        touch(&mapped);
        let Some((first, _)) = physical(&mapped, 0) else {
            e2dax_tests::skip!("which pages are mapped is for root to see");
        };
        for page in (0..UNITS * UNIT / PAGE).step_by(37) {
            let (number, flags) = physical(&mapped, page * PAGE).unwrap();
            assert_eq!(number, first + page % (UNIT / PAGE), "{way:?}: page {page}");
            assert_eq!(flags & HUGE_AND_ZERO, HUGE_AND_ZERO, "{way:?}: page {page}: {flags:#x}");
        }
        let counted = std::fs::read_to_string("/proc/vmstat").unwrap();
        let counted = counted.lines().find_map(|line| line.strip_prefix("thp_zero_page_alloc "));
        assert!(counted.is_some_and(|count| count.trim() != "0"), "{counted:?}");
        drop((mapped, file));
        image.close();
    }
}
