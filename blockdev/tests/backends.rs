//! The conformance suite over every backend and the layers that need nothing more, and what is particular
//! to files.

#![cfg(feature = "std")]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::{
    Access, Backend, BlockDevice, CacheOptions, Cached, Counted, DaxDevice, DeviceOptions, Durability, Error,
    FileDevice, Locking, Media, MmapDevice, Overlay, Partition, RamDevice, ReadOnly, conformance, open_image,
};
use tempfile::TempDir;

const SIZE: u64 = (1 << 20) + 1234;

fn image(dir: &TempDir, size: u64) -> PathBuf {
    let path = dir.path().join("image");
    File::create(&path).unwrap().set_len(size).unwrap();
    path
}

fn strict() -> DeviceOptions {
    DeviceOptions { durability: Durability::Strict, ..DeviceOptions::read_write() }
}

#[test]
fn ram_device_conforms() {
    conformance::check(&RamDevice::new(SIZE).unwrap());
    conformance::check(&RamDevice::new(4 << 20).unwrap());
    conformance::check(&RamDevice::with_media(SIZE, Media::Persistent).unwrap());
}

#[test]
fn file_device_conforms() {
    let dir = TempDir::new().unwrap();
    conformance::check(&FileDevice::open(&image(&dir, SIZE), &DeviceOptions::read_write()).unwrap());
    let strict = FileDevice::open(&image(&dir, SIZE), &strict()).unwrap();
    conformance::check(&strict);
}

#[test]
fn mmap_device_conforms_on_sparse_and_full_files() {
    let dir = TempDir::new().unwrap();
    let path = image(&dir, SIZE);
    conformance::check(&MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap());
    conformance::check(&MmapDevice::open(&path, &strict()).unwrap());
    fs::write(&path, vec![7; SIZE as usize]).unwrap();
    conformance::check(&MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap());
}

#[test]
fn what_is_discarded_of_a_mapped_file_gives_its_room_back_and_is_stored_to_again() {
    const SIZE: u64 = 4 << 20;
    let dir = TempDir::new().unwrap();
    for options in [DeviceOptions::read_write(), strict()] {
        for sparse in [true, false] {
            let path = image(&dir, SIZE);
            if !sparse {
                fs::write(&path, vec![5; SIZE as usize]).unwrap();
            }
            let device = MmapDevice::open(&path, &options).unwrap();
            device.write_at(0, &vec![7; SIZE as usize]).unwrap();
            device.flush().unwrap();
            let room = || fs::metadata(&path).unwrap().blocks() * 512;
            assert!(room() >= SIZE);
            // Not of chunks that it has a part of only, and nothing of what lies around.
            device.discard((1 << 20) - 1000, (2 << 20) + 2000).unwrap();
            let left = room();
            if left >= SIZE {
                eprintln!("no holes can be punched here");
                return;
            }
            assert!(left < (2 << 20) + (1 << 19), "{left} bytes are left");
            let mut around = [0; 8192];
            for offset in [(1 << 20) - 8192, 3 << 20] {
                device.read_at(offset, &mut around).unwrap();
                assert_eq!(around, [7; 8192]);
            }
            // In pieces that take the mapping and such as take the file, and through a slice.
            device.write_at((1 << 20) + 10, b"small").unwrap();
            device.write_at((1 << 20) + (128 << 10), &vec![8; 300 << 10]).unwrap();
            device.dax().unwrap().direct_access(512, 1, Access::Write).unwrap().copy_in(0, b"slice").unwrap();
            assert!(room() > left);
            device.flush().unwrap();
            let file = File::open(&path).unwrap();
            let found = |offset: u64, len: usize| {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, offset).unwrap();
                bytes
            };
            assert_eq!(found((1 << 20) + 10, 5), b"small");
            assert_eq!(found((1 << 20) + (128 << 10), 300 << 10), vec![8; 300 << 10]);
            assert_eq!(found(2 << 20, 5), b"slice");
            assert_eq!(device.discard(SIZE, 1), Err(Error::OutOfRange { offset: SIZE, len: 1, size: SIZE }));
        }
    }
}

#[test]
fn layers_conform() {
    conformance::check(&Counted::new(RamDevice::new(SIZE).unwrap()));
    conformance::check(&Counted::new(Counted::new(RamDevice::new(SIZE).unwrap())));
    let device: Arc<dyn BlockDevice> = Arc::new(RamDevice::new(SIZE).unwrap());
    conformance::check(&device);
    conformance::check(&Counted::new(Arc::clone(&device)));
    conformance::check(&&*device);
    conformance::check_read_only(&ReadOnly::new(device));
}

#[test]
fn files_open_read_only_refuse_stores() {
    let dir = TempDir::new().unwrap();
    let path = image(&dir, SIZE);
    for kind in [Backend::Mmap, Backend::File, Backend::Ram] {
        let options = DeviceOptions { kind, ..DeviceOptions::read_only() };
        conformance::check_read_only(&*open_image(&path, &options).unwrap());
    }
}

#[test]
fn every_kind_opens_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    let path = image(&dir, SIZE);
    File::options().write(true).open(&path).unwrap().write_all_at(b"same bytes", 300_000).unwrap();
    for kind in [Backend::Mmap, Backend::File, Backend::Ram] {
        let device = open_image(&path, &DeviceOptions { kind, ..DeviceOptions::read_write() }).unwrap();
        let mut buf = [0; 12];
        device.read_at(299_999, &mut buf).unwrap();
        assert_eq!(&buf, b"\0same bytes\0");
        assert_eq!(device.size(), SIZE);
    }
}

#[test]
fn an_empty_file_is_an_empty_device() {
    let dir = TempDir::new().unwrap();
    let device = MmapDevice::open(&image(&dir, 0), &DeviceOptions::read_write()).unwrap();
    assert_eq!(device.size(), 0);
    assert!(matches!(device.write_at(0, &[1]), Err(Error::OutOfRange { .. })));
    assert!(device.direct_access(0, 1, Access::Read).is_err());
    device.flush().unwrap();
}

#[test]
fn what_is_no_image_is_refused_with_its_path() {
    let dir = TempDir::new().unwrap();
    for path in [dir.path(), Path::new("/nonexistent/image"), Path::new("/dev/null")] {
        for kind in [Backend::Mmap, Backend::File, Backend::Ram] {
            let error = open_image(path, &DeviceOptions { kind, ..DeviceOptions::read_only() }).unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }
}

#[test]
fn a_second_writer_is_kept_out_by_the_lock() {
    let dir = TempDir::new().unwrap();
    let path = image(&dir, SIZE);
    let first = MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    for options in [DeviceOptions::read_write(), DeviceOptions::read_only()] {
        let error = FileDevice::open(&path, &options).unwrap_err();
        assert!(matches!(error, Error::Io { op: "lock", .. }), "{error:?}");
    }
    let unlocked = DeviceOptions { lock: Locking::Skip, ..DeviceOptions::read_only() };
    FileDevice::open(&path, &unlocked).unwrap();
    drop(first);
    let reader = FileDevice::open(&path, &DeviceOptions::read_only()).unwrap();
    FileDevice::open(&path, &DeviceOptions::read_only()).unwrap();
    FileDevice::open(&path, &DeviceOptions::read_write()).unwrap_err();
    drop(reader);
    FileDevice::open(&path, &DeviceOptions::read_write()).unwrap();
}

#[test]
fn the_lock_goes_with_the_device_though_a_child_of_another_thread_has_a_copy_of_the_file() {
    let dir = TempDir::new().unwrap();
    let path = image(&dir, SIZE);
    // What a child has between its fork and its own program.
    let mapped = MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    let copy = mapped.as_fd().try_clone_to_owned().unwrap();
    drop(mapped);
    let file = FileDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    let second_copy = file.as_fd().try_clone_to_owned().unwrap();
    drop(file);
    FileDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    drop((copy, second_copy));
}

#[test]
fn a_sparse_image_stays_sparse_under_reads_and_zeros() {
    let dir = TempDir::new().unwrap();
    let path = image(&dir, 64 << 20);
    let device = MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    let blocks = || fs::metadata(&path).unwrap().blocks() * 512;
    let mut buf = vec![1; 1 << 20];
    device.read_at(5 << 20, &mut buf).unwrap();
    device.zero(0, 64 << 20).unwrap();
    device.direct_access(0, 16384, Access::Read).unwrap().copy_out(9 << 20, &mut buf).unwrap();
    assert_eq!(blocks(), 0);
    device.write_at(20 << 20, &[1]).unwrap();
    assert!((1..=64 << 10).contains(&blocks()), "{} bytes for one byte stored", blocks());
    device.direct_access((30 << 20) / 4096, 1, Access::Write).unwrap();
    assert!(blocks() <= 128 << 10);
    device.zero(0, 64 << 20).unwrap();
    device.read_at(20 << 20, &mut buf[..1]).unwrap();
    assert_eq!(buf[0], 0);
}

#[test]
fn large_writes_to_holes_and_small_stores_beside_them_are_one_contents() {
    for options in [DeviceOptions::read_write(), strict()] {
        let dir = TempDir::new().unwrap();
        let path = image(&dir, SIZE);
        let device = MmapDevice::open(&path, &options).unwrap();
        let mut expected = vec![0; usize::try_from(SIZE).unwrap()];
        let mut write = |offset: usize, len: usize, byte: u8| {
            device.write_at(offset as u64, &vec![byte; len]).unwrap();
            expected[offset..offset + len].fill(byte);
        };
        // Neither end is a chunk's, then beside it, over it, and up to the end of the device.
        write(100_000, 300_000, 1);
        write(99_000, 1000, 2);
        write(400_000, 1, 3);
        write(90_000, 400_000, 4);
        write(150_000, 70_000, 5);
        write(SIZE as usize - 200_000, 200_000, 6);
        device.fence().unwrap();
        let mut found = vec![0; expected.len()];
        device.read_at(0, &mut found).unwrap();
        assert!(found == expected);
        device.flush().unwrap();
        drop(device);
        assert!(fs::read(&path).unwrap() == expected);
    }
}

#[test]
fn what_a_map_stored_is_in_the_file() {
    let dir = TempDir::new().unwrap();
    let path = image(&dir, SIZE);
    for options in [DeviceOptions::read_write(), strict()] {
        let device = MmapDevice::open(&path, &options).unwrap();
        device.write_at(70_000, b"stored").unwrap();
        let slice = device.direct_access(100, 1, Access::Write).unwrap();
        slice.store_u32(0, 0x6465_7061).unwrap();
        device.write_back(100 * 4096, 4).unwrap();
        device.fence().unwrap();
        device.flush().unwrap();
        let file = fs::read(&path).unwrap();
        assert_eq!(&file[70_000..70_006], b"stored");
        assert_eq!(&file[409_600..409_604], b"aped");
        device.zero(0, SIZE).unwrap();
    }
}

#[test]
fn counts_are_what_was_asked() {
    let device = Counted::new(RamDevice::new(SIZE).unwrap());
    device.read_at(0, &mut [0; 100]).unwrap();
    device.read_u32(8).unwrap();
    device.write_u16(8, 1).unwrap();
    device.zero(0, 5000).unwrap();
    device.fence().unwrap();
    device.flush().unwrap();
    let slice = device.direct_access(0, 2, Access::Write).unwrap();
    slice.copy_in(0, &[0; 50]).unwrap();
    slice.load_u64(0).unwrap();
    device.write_back(0, 50).unwrap();
    let counts = device.snapshot();
    assert_eq!((counts.reads, counts.read_bytes, counts.small_reads), (2, 104, 1));
    assert_eq!((counts.writes, counts.written_bytes, counts.small_writes), (1, 2, 1));
    assert_eq!((counts.zeros, counts.zeroed_bytes), (1, 5000));
    assert_eq!((counts.fences, counts.flushes, counts.direct_accesses), (1, 1, 1));
    assert_eq!((counts.stores, counts.stored_bytes, counts.loads, counts.loaded_bytes), (1, 50, 1, 8));
    assert_eq!((counts.write_backs, counts.written_back_bytes), (1, 50));
    device.fence().unwrap();
    assert_eq!(device.snapshot().since(&counts).fences, 1);
    assert_eq!(device.reset().fences, 2);
    assert_eq!(device.snapshot(), blockdev::Counts::default());
}

/// Bytes of a file that are mapped here, page by page.
#[cfg(all(target_os = "linux", not(miri)))]
fn mapped(path: &Path) -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
    let resident = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
    resident.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
#[cfg(all(target_os = "linux", not(miri)))]
fn populating_maps_what_is_in_memory_and_makes_no_room() {
    if std::env::var_os("E2DAX_EMULATED").is_some() {
        eprintln!("skipped: qemu-user says yes to MADV_POPULATE_READ and does nothing");
        return;
    }
    const PART: u64 = 1 << 20;
    let shm = Path::new("/dev/shm");
    let places = [Some(std::env::temp_dir()), shm.is_dir().then(|| shm.to_path_buf())];
    for place in places.into_iter().flatten() {
        let dir = tempfile::tempdir_in(place).unwrap();
        let path = image(&dir, 8 * PART);
        File::options().write(true).open(&path).unwrap().write_all_at(&[7; PART as usize], PART).unwrap();
        let blocks = || fs::metadata(&path).unwrap().blocks();
        let before = blocks();
        for options in [DeviceOptions::read_write(), DeviceOptions::read_only()] {
            let device = MmapDevice::open(&path, &options).unwrap();
            assert_eq!(mapped(&path), 0);
            Partition::new(&device, 4096, 2 * PART + 100).unwrap().populate(77, 2 * PART).unwrap();
            assert_eq!(mapped(&path), PART, "{options:?}");
            device.populate(0, 8 * PART).unwrap();
            let mut page = [0; 4096];
            device.read_at(2 * PART - 4096, &mut page).unwrap();
            assert_eq!((mapped(&path), page), (PART, [7; 4096]), "{options:?}");
        }
        assert_eq!(blocks(), before);
    }
}

#[test]
fn the_file_behind_a_device_holds_what_was_written_at_once() {
    let dir = TempDir::new().unwrap();
    let open = |kind| {
        open_image(&image(&dir, 1 << 20), &DeviceOptions { kind, ..DeviceOptions::read_write() }).unwrap()
    };
    for kind in [Backend::File, Backend::Mmap] {
        let device = Partition::new(open(kind), 8192, 900_000).unwrap();
        // Of many sizes, the large ones often enough to go every way there is.
        for (round, len) in (1..=8_u8).flat_map(|round| [(round, 5), (round, 4096), (round, 150_000)]) {
            let at = u64::from(round) * 1000;
            device.write_at(at, &vec![round; len]).unwrap();
            let file = device.backing_file().unwrap();
            let mut found = vec![0; len];
            let read = rustix::io::pread(file.fd, &mut found, file.offset + at).unwrap();
            assert!(read == len && found.iter().all(|byte| *byte == round), "{kind:?}, {len} bytes");
        }
        let shown = ReadOnly::new(device);
        assert_eq!(shown.backing_file().unwrap().offset, 8192);
        assert!(
            Counted::new(&shown).backing_file().is_none(),
            "what is counted does not go around the counter"
        );
    }
    assert!(RamDevice::new(SIZE).unwrap().backing_file().is_none());
    assert!(Overlay::new(open(Backend::Mmap)).unwrap().backing_file().is_none());
    assert!(Cached::new(open(Backend::File), CacheOptions::default()).unwrap().backing_file().is_none());
}
