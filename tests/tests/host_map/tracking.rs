//! Which pages were stored to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use blockdev::{BlockDevice, DaxDevice, MmapDevice};
use ext2_dax::fault::{FaultRequest, FaultResult};
use ext2_dax::mmu::host::{Faulting, Granularity, HostMap, HostMmu, HostOptions, StoresBy, Tracking};
use ext2_dax::mmu::soft::MapRequest;
use ext2_dax::mmu::{Sharing, VmFile};
use ext2_dax::{File, OpenFor, Wait};

use crate::setup::{
    Image, PAGE, UNIT, answered, image, image_in, need_faults, pattern, request, tracked, ways,
};

fn pages(map: &HostMap) -> Vec<u64> {
    let mut pages: Vec<u64> =
        map.take_stored().iter().flat_map(|run| run.first..run.first + run.count).collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}

fn stores_are_told_apart(way: HostOptions, image: Image) -> StoresBy {
    let file = image.file(b"f");
    for page in 0..1024 {
        file.write_at(page * PAGE, &pattern(page)).unwrap();
    }
    let mmu = HostMmu::new(way).unwrap();
    // At this colour no unit is one translation, whatever is tracked.
    let odd = MapRequest { colour: PAGE, ..request(2 * UNIT, Sharing::Shared) };
    let map = file.map_host(&mmu, &odd).unwrap();
    for page in 0..1024 {
        map.load(page * PAGE).unwrap();
    }
    assert_eq!(pages(&map), [0_u64; 0], "{way:?}");
    for page in [3, 4, 700] {
        map.store(page * PAGE, 1).unwrap();
        map.store(page * PAGE + 9, 2).unwrap();
    }
    assert_eq!(pages(&map), [3, 4, 700], "{way:?}");
    // What was told is protected again, and told again.
    map.store(4 * PAGE, 5).unwrap();
    assert_eq!(pages(&map), [4], "{way:?}");
    file.sync().unwrap();
    assert_eq!(pages(&map), [0_u64; 0], "{way:?}");
    // The system call's stores are found, and writes through the file are not the mapping's.
    let source = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&source, &[7; 9000], 0).unwrap();
    assert_eq!(map.read_from(9 * PAGE, 100, &source, 0).unwrap(), 100, "{way:?}");
    file.write_at(11 * PAGE, &[1; 100]).unwrap();
    assert_eq!(pages(&map), [9], "{way:?}");
    file.sync().unwrap();
    assert_eq!(map.read_from(30 * PAGE + 8, 20_000, &source, 10).unwrap(), 8990, "{way:?}");
    assert_eq!(pages(&map), [30, 31, 32], "{way:?}");
    assert_eq!(crate::setup::read(&file, 30 * PAGE + 7, 3), [pattern(30)[7], 7, 7]);
    // What is taken away and comes back begins anew.
    map.store(20 * PAGE, 1).unwrap();
    file.punch_hole(20 * PAGE, PAGE, Wait::Yes).unwrap();
    map.store(21 * PAGE, 1).unwrap();
    assert!(pages(&map).contains(&21), "{way:?}");
    file.sync().unwrap();
    map.store(20 * PAGE, 6).unwrap();
    assert_eq!(crate::setup::read(&file, 20 * PAGE, 2), [6, 0], "{way:?}");
    file.sync().unwrap();
    assert_eq!(pages(&map), [0_u64; 0], "{way:?}");
    let by = map.stores_by();
    drop((map, file));
    image.close();
    by
}

#[test]
fn stores_are_told_apart_by_pages_and_loads_are_none() {
    let mut all = Vec::new();
    for way in tracked() {
        all.push(stores_are_told_apart(way, image(32)));
    }
    // On a disk's file system userfaultfd tells of no stores.
    let disk = std::env::temp_dir();
    if HostMmu::features().faults {
        let way = HostOptions { tracking: Tracking::Pages, before_6_7: true, ..answered()[0] };
        all.push(stores_are_told_apart(way, image_in(&disk, 32)));
    }
    assert!(all.iter().all(|by| *by != StoresBy::Nobody), "{all:?}");
    assert!(all.contains(&StoresBy::Signals { units: false }), "{all:?}");
}

/// The same mapping, with and without a kernel that has what came with Linux 6.7.
#[test]
fn capabilities_say_who_tells_stores_apart() {
    let by = |way| HostMmu::new(way).unwrap().capabilities().tracking;
    let eager = HostOptions { faulting: Faulting::Eager, ..HostOptions::default() };
    assert_eq!(by(eager), StoresBy::Signals { units: false });
    need_faults!();
    assert_eq!(by(HostOptions { before_6_7: true, ..answered()[0] }), StoresBy::Faults);
    let by_kernel = by(HostOptions { before_6_7: false, ..answered()[0] }) == StoresBy::Kernel;
    assert_eq!(by_kernel, HostMmu::features().stores);
}

/// A run that is aligned in the image and in the mapping is stored to as DAX has it: as one entry.
#[test]
fn entries_of_2_mib_are_stored_to_as_a_whole_and_pages_of_others_one_by_one() {
    for way in tracked().into_iter().filter(|way| way.tracking == Tracking::Entries) {
        let image = image(32);
        let file = image.file(b"f");
        for unit in 0..2 {
            file.write_at(unit * UNIT, &vec![1; UNIT as usize]).unwrap();
        }
        file.punch_hole(UNIT + 40 * PAGE, PAGE, Wait::Yes).unwrap();
        file.sync().unwrap();
        let map = file.map_host(&HostMmu::new(way).unwrap(), &request(2 * UNIT, Sharing::Shared)).unwrap();
        map.store(7 * PAGE, 2).unwrap();
        map.store(UNIT + 9 * PAGE, 2).unwrap();
        let expected: Vec<u64> = (0..512).chain([512 + 9]).collect();
        assert_eq!(pages(&map), expected, "{way:?}");
        drop((map, file));
        image.close();
    }
}

/// A mapped image that can be told to fail when all is to be durable.
#[derive(Debug)]
struct Failing {
    inner: MmapDevice,
    fails: AtomicBool,
}

impl BlockDevice for Failing {
    e2dax_tests::forward!(inner: size, read_at, write_at, zero, fence);

    fn flush(&self) -> blockdev::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(blockdev::Error::io("flush", 0, std::io::Error::from_raw_os_error(5)));
        }
        self.inner.flush()
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        self.inner.dax()
    }

    fn backing_file(&self) -> Option<blockdev::BackingFile<'_>> {
        self.inner.backing_file()
    }
}

/// Where an image cannot be closed its mappings are as they were: data can be stored to, and so can holes, or not.
#[test]
fn stores_go_on_where_closing_failed_and_each_page_keeps_its_rights() {
    for way in ways().into_iter().chain(tracked()) {
        let path = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        path.as_file().set_len(16 << 20).unwrap();
        let inner = MmapDevice::open(path.path(), &blockdev::DeviceOptions::read_write()).unwrap();
        crate::setup::format(&inner);
        let device = Arc::new(Failing { inner, fails: AtomicBool::new(false) });
        let fs = crate::setup::open(Arc::clone(&device) as Arc<dyn BlockDevice>);
        fs.ext2().write("f", "").unwrap();
        let inode = fs.ext2().root().unwrap().lookup(b"f").unwrap();
        let file = File::open(&fs, inode, OpenFor::Writing).unwrap();
        file.write_at(0, &[1; 3 * 4096]).unwrap();
        file.truncate(5 * PAGE, Wait::Yes).unwrap();
        file.sync().unwrap();
        let map = file.map_host(&HostMmu::new(way).unwrap(), &request(5 * PAGE, Sharing::Shared)).unwrap();
        map.store(0, 2).unwrap();
        device.fails.store(true, Ordering::SeqCst);
        assert!(fs.ext2().clone().close().is_err(), "{way:?}");
        device.fails.store(false, Ordering::SeqCst);
        map.store(1, 3).unwrap();
        map.store(PAGE, 3).unwrap();
        let source = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&source, &[7; 100], 0).unwrap();
        // The kernel's store into a hole: nobody answers, or the block comes, and is never lost.
        match map.read_from(3 * PAGE, 100, &source, 0) {
            Ok(read) => assert_eq!((read, crate::setup::read(&file, 3 * PAGE, 2)), (100, vec![7, 7])),
            Err(error) => assert!(error.is(ext2_dax::Errno::FAULT), "{way:?}: {error}"),
        }
        map.store(4 * PAGE, 4).unwrap();
        if way.tracking == Tracking::Pages {
            assert!(pages(&map).starts_with(&[0, 1]), "{way:?}");
        }
        assert_eq!(crate::setup::read(&file, 0, 3), [2, 3, 1], "{way:?}");
        assert_eq!(crate::setup::read(&file, 4 * PAGE, 2), [4, 0], "{way:?}");
        drop((map, file));
        let ext2 = fs.ext2().clone();
        drop(fs);
        let _ = ext2.close().unwrap();
    }
}

/// What a store that was told may do meanwhile: its page goes, and comes back.
#[test]
fn pages_that_go_while_they_are_stored_to_lose_nothing_and_kill_nobody() {
    for way in tracked() {
        let image = image(16);
        let file = image.file(b"f");
        file.write_at(0, &[0; 4 * 4096]).unwrap();
        let map = file.map_host(&HostMmu::new(way).unwrap(), &request(4 * PAGE, Sharing::Shared)).unwrap();
        let over = AtomicBool::new(false);
        let counted = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut count = 0_u64;
                while !over.load(Ordering::SeqCst) {
                    count += 1;
                    map.try_store(8, &count.to_le_bytes()).unwrap();
                    map.try_store(PAGE, &count.to_le_bytes()).unwrap();
                }
                count
            });
            for _ in 0..150 {
                file.sync().unwrap();
                let _ = map.take_stored();
                file.punch_hole(PAGE, PAGE, Wait::Yes).unwrap();
            }
            over.store(true, Ordering::SeqCst);
            writer.join().unwrap()
        });
        assert_eq!(crate::setup::read(&file, 8, 8), counted.to_le_bytes(), "{way:?}");
        drop((map, file));
        image.close();
    }
}

#[test]
fn a_store_through_a_mapping_that_is_gone_is_still_to_be_written_back() {
    for way in tracked() {
        let image = image(16);
        let file = image.file(b"f");
        file.write_at(0, &[0; 4 * 4096]).unwrap();
        file.sync().unwrap();
        let time = file.inode().attr().mtime;
        let mmu = HostMmu::new(way).unwrap();
        let map = file.map_host(&mmu, &request(4 * PAGE, Sharing::Shared)).unwrap();
        map.store(PAGE, 5).unwrap();
        drop(map);
        let again = file.map_host(&mmu, &request(4 * PAGE, Sharing::Shared)).unwrap();
        assert_eq!(again.load(PAGE), Ok(5));
        assert!(file.inode().attr().mtime >= time);
        file.sync().unwrap();
        drop((again, file));
        image.close();
    }
}

/// A file whose first store into a hole finds no block, and a moment later another has given it one.
#[derive(Debug)]
struct Refused {
    file: File,
    /// Says that the fault is refused, and waits.
    meet: Arc<Barrier>,
    is_over: AtomicBool,
}

impl VmFile for Refused {
    e2dax_tests::forward_file!(file: pages, memory, huge_fault, msync, layout, end_page, stored, check_map);

    fn fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        if self.is_over.swap(true, Ordering::SeqCst) {
            return self.file.fault(request);
        }
        self.meet.wait();
        self.meet.wait();
        FaultResult::SIGBUS
    }

    fn has_huge_faults(&self) -> bool {
        false
    }
}

#[test]
fn what_was_stored_to_a_page_before_another_was_refused_it_is_still_to_be_written_back() {
    // Who answers faults is busy with the one that is refused: the other's store must not wait for him.
    let by_others = |way: &HostOptions| way.tracking == Tracking::Entries || !way.before_6_7;
    let extents = |way: &HostOptions| {
        way.faulting == Faulting::Userfaultfd && way.granularity == Granularity::Extents && by_others(way)
    };
    for way in tracked().into_iter().filter(extents) {
        let image = image(16);
        let file = image.file(b"f");
        file.truncate(8 * PAGE, Wait::Yes).unwrap();
        let meet = Arc::new(Barrier::new(2));
        let refused =
            Refused { file: file.clone(), meet: Arc::clone(&meet), is_over: AtomicBool::new(false) };
        let mmu = HostMmu::new(way).unwrap();
        let map = mmu.map(Arc::new(refused), &request(8 * PAGE, Sharing::Shared)).unwrap();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| map.store(0, 5));
            meet.wait();
            file.write_at(0, &[1; 4096]).unwrap();
            file.sync().unwrap();
            map.store(100, 7).unwrap();
            meet.wait();
            let _bus_error = first.join().unwrap();
        });
        assert!(pages(&map).contains(&0), "{way:?}");
        assert_eq!(crate::setup::read(&file, 100, 1), [7], "{way:?}");
        drop((map, mmu, file));
        image.close();
    }
}
