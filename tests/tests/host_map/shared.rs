//! Shared mappings: one set of bytes for all who look.

use std::fs;
use std::sync::Arc;

use blockdev::{MmapDevice, Partition};
use e2dax_tests::need_tools;
use ext2_dax::mmu::host::{HostMmu, HostOptions};
use ext2_dax::mmu::soft::{Died, MapRequest, Signal};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{Errno, File, OpenFor};

use crate::setup::{PAGE, UNIT, image, loaded, map, open, pattern, read, request, ways};

#[test]
fn what_is_stored_is_read_and_what_is_written_is_loaded() {
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        for page in 0..8 {
            file.write_at(page * PAGE, &pattern(page)).unwrap();
        }
        let map = map(&file, way, 8 * PAGE, Sharing::Shared);
        for page in 0..8 {
            assert_eq!(loaded(&map, page * PAGE, 4096), pattern(page), "{way:?}");
        }
        map.try_store(3 * PAGE + 5, b"stored").unwrap();
        assert_eq!(read(&file, 3 * PAGE + 5, 6), b"stored");
        file.write_at(5 * PAGE - 2, b"written").unwrap();
        assert_eq!(loaded(&map, 5 * PAGE - 2, 7), b"written");
        // And it is the image itself that has it.
        let bytes = fs::read(image.path.path()).unwrap();
        assert!(bytes.windows(6).any(|window| window == b"stored"));
        file.sync().unwrap();
        drop((map, file));
        image.close();
    }
}

#[test]
fn any_part_at_any_colour_is_mapped() {
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        for page in 0..1200 {
            file.write_at(page * PAGE, &pattern(page)).unwrap();
        }
        let mmu = HostMmu::new(way).unwrap();
        for (offset, len, colour) in
            [(0, 3 * PAGE, PAGE), (PAGE, 1100 * PAGE, 0), (700 * PAGE, 1, 511 * PAGE), (5 * PAGE, UNIT, UNIT)]
        {
            let request = MapRequest { offset, colour, ..request(len, Sharing::Shared) };
            let map = file.map_host(&mmu, &request).unwrap();
            assert_eq!(map.vma().start % UNIT, (offset + colour) % UNIT);
            for page in 0..map.len() / PAGE {
                assert_eq!(
                    loaded(&map, page * PAGE, 4096),
                    pattern(offset / PAGE + page),
                    "{way:?} {offset}+{page}"
                );
            }
        }
        drop((mmu, file));
        image.close();
    }
}

#[test]
fn a_mapping_for_reading_takes_no_store() {
    for way in ways() {
        let image = image(16);
        let file = image.file(b"f");
        file.write_at(0, &pattern(1)).unwrap();
        let reader = File::open(&image.fs, file.inode().clone(), OpenFor::Reading).unwrap();
        let mmu = HostMmu::new(way).unwrap();
        let refused = reader.map_host(&mmu, &request(PAGE, Sharing::Shared)).unwrap_err();
        assert!(refused.is(Errno::ACCES));
        let request = MapRequest { protection: Protection::ReadOnly, ..request(2 * PAGE, Sharing::Shared) };
        let map = reader.map_host(&mmu, &request).unwrap();
        assert_eq!(map.try_store(1, b"no"), Err(Died { signal: Signal::Segv, done: 0 }));
        assert_eq!(map.store(3 * PAGE, 1), Err(Signal::Segv));
        assert_eq!(map.load(2 * PAGE), Err(Signal::Segv));
        assert_eq!(loaded(&map, 0, 4096), pattern(1));
        // The kernel is refused as well.
        let source = fs::File::open(image.path.path()).unwrap();
        assert!(map.read_from(0, 16, &source, 0).unwrap_err().to_string().contains("Bad address"));
        drop((map, reader, file));
        image.close();
    }
}

#[test]
fn after_the_file_system_is_closed_nothing_is_stored() {
    for way in ways() {
        let image = image(16);
        let file = image.file(b"f");
        file.write_at(0, &pattern(1)).unwrap();
        let map = map(&file, way, 2 * PAGE, Sharing::Shared);
        map.store(0, 9).unwrap();
        let _ = image.fs.ext2().clone().close().unwrap();
        assert_eq!(map.store(0, 10), Err(Signal::Bus), "{way:?}");
        assert_eq!(map.load(0), Ok(9));
    }
}

#[test]
fn images_in_partitions_are_mapped_where_a_partition_begins_with_a_page() {
    for way in ways() {
        let disk = tempfile::Builder::new().tempfile_in("/dev/shm").unwrap();
        disk.as_file().set_len(40 << 20).unwrap();
        let device = Arc::new(MmapDevice::open(disk.path(), &blockdev::DeviceOptions::read_write()).unwrap());
        for (start, works) in [(UNIT, true), (3 * PAGE, true), (63 * 512, false)] {
            let part = Partition::new(Arc::clone(&device), start, 16 << 20).unwrap();
            crate::setup::format(&part);
            let fs = open(Arc::new(part));
            let new = ext2_core::NewInode::new(ext2_core::FileKind::Regular, 0o644);
            let file =
                File::open(&fs, fs.ext2().root().unwrap().create(b"f", &new).unwrap(), OpenFor::Writing)
                    .unwrap();
            file.write_at(PAGE, &pattern(4)).unwrap();
            let mapped = file.map_host(&HostMmu::new(way).unwrap(), &request(3 * PAGE, Sharing::Shared));
            match mapped {
                Ok(map) => {
                    assert!(works, "{start}");
                    assert_eq!(loaded(&map, PAGE, 4096), pattern(4), "{start}");
                    map.store(PAGE, 200).unwrap();
                    assert_eq!(read(&file, PAGE, 1), [200]);
                }
                Err(error) => assert!(!works && error.is(Errno::OPNOTSUPP), "{start}: {error}"),
            }
        }
    }
}

#[test]
fn images_without_a_file_of_the_host_are_refused_by_name() {
    let device = Arc::new(blockdev::RamDevice::new(16 << 20).unwrap());
    crate::setup::format(&*device);
    let fs = open(device);
    let new = ext2_core::NewInode::new(ext2_core::FileKind::Regular, 0o644);
    let file =
        File::open(&fs, fs.ext2().root().unwrap().create(b"f", &new).unwrap(), OpenFor::Writing).unwrap();
    let mmu = HostMmu::new(HostOptions::default()).unwrap();
    let refused = file.map_host(&mmu, &request(PAGE, Sharing::Shared)).unwrap_err();
    assert!(
        refused.is(Errno::OPNOTSUPP) && refused.to_string().contains("not one file of the host"),
        "{refused}"
    );
}

#[test]
fn blocks_that_are_no_pages_are_refused_by_name() {
    need_tools!("mke2fs");
    let disk = tempfile::Builder::new().tempfile_in("/dev/shm").unwrap();
    e2dax_tests::tools::mke2fs(&[
        "-q".as_ref(),
        "-F".as_ref(),
        "-b1024".as_ref(),
        disk.path().as_os_str(),
        "8M".as_ref(),
    ]);
    let fs = open(Arc::new(MmapDevice::open(disk.path(), &blockdev::DeviceOptions::read_write()).unwrap()));
    let new = ext2_core::NewInode::new(ext2_core::FileKind::Regular, 0o644);
    let file =
        File::open(&fs, fs.ext2().root().unwrap().create(b"f", &new).unwrap(), OpenFor::Writing).unwrap();
    let mmu = HostMmu::new(HostOptions::default()).unwrap();
    let refused = file.map_host(&mmu, &request(PAGE, Sharing::Shared)).unwrap_err();
    assert!(refused.is(Errno::OPNOTSUPP) && refused.to_string().contains("smaller than a page"), "{refused}");
}
