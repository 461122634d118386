//! L1 to L13: what is wrong in Linux's ext2 over DAX, a test each that says what Linux does and holds what we do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blockdev::{Access, BlockDevice, Calls, Fault, Faulty, RamDevice};
use e2dax_tests::dax::{map, read};
use e2dax_tests::oracle::{empty_device, small_device};
use ext2_core::{Ext2, FileKind, Follow, NewInode, OpenOptions};
use ext2_dax::Wait;
use ext2_dax::compat::{Growth, HoleIntoBadBuffer, Layouts, Publish, ReadFaults};
use ext2_dax::entry::{PAGE_SIZE, PMD_SIZE};
use ext2_dax::mmu::soft::{MapRequest, Signal, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::rw::Limits;
use ext2_dax::trace::{Event, EventLog};
use ext2_dax::uio::{Faulting, SliceSink, SliceSource};
use ext2_dax::{Compat, DaxFs, DaxOptions, File, Leased, OpenFor};

fn options(compat: Compat) -> DaxOptions {
    DaxOptions { compat, ..DaxOptions::default() }
}

fn open(device: Arc<dyn BlockDevice>, compat: Compat) -> (DaxFs, File) {
    let ext2 = Ext2::open(device, &OpenOptions::default()).unwrap();
    let new = NewInode { kind: FileKind::Regular, mode: 0o644, uid: 0, gid: 0, umask: 0, device: None };
    let inode = ext2.root().unwrap().create(b"f", &new).unwrap();
    let fs = DaxFs::new(ext2, options(compat));
    let file = File::open(&fs, inode, OpenFor::Writing).unwrap();
    (fs, file)
}

fn file(compat: Compat) -> File {
    open(empty_device(), compat).1
}

/// Appends two pages of which only the first can be read. Bytes that are in the file afterwards.
fn short_append(compat: Compat) -> Vec<u8> {
    let file = file(compat);
    let mut source = Faulting::new(SliceSource::new(&[7; 8192]), 4096);
    assert_eq!(file.write_from(0, 8192, &mut source, Limits::default()).unwrap(), 4096);
    assert_eq!(file.size(), 4096);
    read(&file, 0, 8192)
}

#[test]
fn l1_a_short_append_keeps_the_bytes_that_it_reported() {
    assert_eq!(short_append(Compat::FULL), [7; 4096]);
    // Linux reports them and reads zeros back.
    assert_eq!(short_append(Compat { publish: Publish::AtBegin, ..Compat::FULL }), [0; 4096]);
}

#[test]
fn l2_a_write_fault_that_fails_takes_no_lock_twice_and_no_block_back() {
    // Linux truncates in iomap_end under the lock that truncation needs: it waits for itself for ever.
    let device = Arc::new(Faulty::new(empty_device()));
    let (fs, file) = open(device.clone(), Compat::FULL);
    file.write_at(0, &[1; 100]).unwrap();
    let block = file.inode().map(ext2_core::FileBlock::new(0), 1).unwrap().target.unwrap();
    device.poison(fs.ext2().geometry().byte_of(block) / PAGE_SIZE).unwrap();
    let map = map(&file, PAGE_SIZE);
    assert_eq!(map.store(0, 2), Err(Signal::Bus));
    assert_eq!(file.inode().attr().blocks_512, 8);
    file.truncate(0, Wait::Yes).unwrap();
}

#[test]
fn l3_blocks_are_given_back_when_zeroing_them_fails() {
    // Linux leaks them: nothing points to them, and the bitmap says that they are taken.
    let device = Arc::new(Faulty::new(empty_device()));
    let (fs, file) =
        open(device.clone(), Compat { pmd_faults: ext2_dax::compat::PmdFaults::Never, ..Compat::FULL });
    file.truncate(PMD_SIZE, Wait::Yes).unwrap();
    let free = fs.ext2().statfs().unwrap().blocks_free;
    let map = map(&file, PMD_SIZE);
    device.arm(Fault::once(Calls::ZERO, 0));
    assert_eq!(map.store(0, 1), Err(Signal::Bus));
    assert_eq!(device.fired(), 1);
    device.disarm();
    assert_eq!(fs.ext2().statfs().unwrap().blocks_free, free);
    map.store(0, 1).unwrap();
    assert_eq!(fs.ext2().statfs().unwrap().blocks_free, free - 1);
}

#[test]
fn l4_truncation_waits_for_a_lease_or_is_refused() {
    let file = file(Compat::FULL);
    file.write_at(0, &[5; 8192]).unwrap();
    let lease = file.lease(0..8192, Access::Read).unwrap();
    assert_eq!(file.truncate(0, Wait::No).unwrap_err().errno().get(), 16);
    assert_eq!(file.punch_hole(4096, 4096, Wait::No).unwrap_err().errno().get(), 16);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            file.truncate(0, Wait::Yes).unwrap();
            done.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(!done.load(Ordering::SeqCst), "truncation did not wait for the lease");
        let parts = lease.parts().unwrap();
        let bytes: u64 = parts
            .iter()
            .map(|(_, part)| match part {
                Leased::Memory(memory) => {
                    let mut bytes = vec![0; memory.len() as usize];
                    memory.copy_out(0, &mut bytes).unwrap();
                    assert!(bytes.iter().all(|byte| *byte == 5));
                    memory.len()
                }
                Leased::Hole(len) => panic!("{len} bytes of hole"),
            })
            .sum();
        assert_eq!(bytes, 8192);
        drop(lease);
    });
    assert_eq!((done.load(Ordering::SeqCst), file.size()), (true, 0));

    // Linux frees the blocks under whoever uses them.
    let (_, linux) = open(empty_device(), Compat { layouts: Layouts::Ignored, ..Compat::FULL });
    linux.write_at(0, &[5; 8192]).unwrap();
    let _lease = linux.lease(0..8192, Access::Read).unwrap();
    linux.truncate(0, Wait::No).unwrap();
}

/// Stores behind the new end while a file is cut there, over and over. Whether such a byte is seen when
/// it grows.
fn a_store_is_seen_past_the_end(compat: Compat) -> bool {
    let file = file(compat);
    file.write_at(0, &[1; 4096]).unwrap();
    let map = map(&file, PAGE_SIZE);
    map.store(0, 1).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                map.store(300, 9).unwrap();
            }
        });
        for _ in 0..50 {
            file.truncate(100, Wait::Yes).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    map.store(200, 9).unwrap();
    file.truncate(4096, Wait::Yes).unwrap();
    read(&file, 100, 3996).contains(&9)
}

#[test]
fn l5_and_l6_bytes_stored_past_the_end_are_never_seen_when_the_file_grows() {
    assert!(!a_store_is_seen_past_the_end(Compat::FULL));
    assert!(a_store_is_seen_past_the_end(Compat { growth: Growth::KeepTail, ..Compat::FULL }));

    // The same when a write past the end makes it grow; what is written into the same page stays.
    let file = file(Compat::FULL);
    file.write_at(0, &[1; 100]).unwrap();
    map(&file, PAGE_SIZE).store(200, 9).unwrap();
    file.write_at(2048, &[3]).unwrap();
    let bytes = read(&file, 0, 4096);
    assert_eq!((bytes.len(), bytes[99], bytes[200], bytes[2048]), (2049, 1, 0, 3));
}

#[test]
fn l7_a_hole_read_into_a_bad_buffer_is_efault_and_not_the_end_of_the_file() {
    let into_bad_buffer = |compat| {
        let file = file(compat);
        file.truncate(0x10000, Wait::Yes).unwrap();
        let mut buf = [0; 8192];
        let mut sink = Faulting::new(SliceSink::new(&mut buf), 0);
        file.read_to(0, 8192, &mut sink, Limits::default()).map_err(|error| error.errno().get())
    };
    assert_eq!(into_bad_buffer(Compat::FULL), Err(14));
    let linux = Compat { hole_into_bad_buffer: HoleIntoBadBuffer::EndOfFile, ..Compat::FULL };
    assert_eq!(into_bad_buffer(linux), Ok(0));
}

#[test]
fn l8_a_synchronous_mapping_of_persistent_memory_needs_no_sync() {
    // Linux computes the flag that synchronous mappings need and overwrites it; it refuses the mapping.
    let empty = empty_device();
    let device = Arc::new(RamDevice::with_media(empty.size(), blockdev::Media::Persistent).unwrap());
    device.write_at(0, &empty.to_vec()).unwrap();
    let (_fs, file) = open(device.clone(), Compat::FULL);
    file.truncate(PAGE_SIZE, Wait::Yes).unwrap();
    let (sharing, protection) = (Sharing::Synchronous, Protection::ReadWrite);
    let request = MapRequest { offset: 0, len: PAGE_SIZE, sharing, protection, colour: 0 };
    let map = file.map(&SoftMmu::new(), &request).unwrap();
    map.store(7, 42).unwrap();
    let copy: Arc<dyn BlockDevice> = Arc::new(RamDevice::from_bytes(&device.to_vec()).unwrap());
    let after = Ext2::open(copy, &OpenOptions::default()).unwrap();
    let mut bytes = [0; 8];
    after.resolve(b"/f", Follow::Yes).unwrap().read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes[7], 42);
    let refused = open(empty_device(), Compat::LINUX_6_1).1.map(&SoftMmu::new(), &request);
    assert_eq!(refused.unwrap_err().errno().get(), 95);
}

#[test]
fn l9_what_statfs_leaves_out_is_counted_anew_each_time() {
    // Linux keeps the overhead it once computed, and 0 if that was the first answer.
    let (fs, _) = open(small_device(), Compat::FULL);
    let ext2 = fs.ext2();
    let first = ext2.statfs().unwrap();
    let all = u64::from(ext2.geometry().blocks_count);
    assert!(first.blocks_free <= first.blocks && first.blocks < all, "{first:?} of {all}");
    // One group of 1024 blocks: superblock, descriptors, two bitmaps and the inode table are not for files.
    assert_eq!((all, all - first.blocks), (1024, 68));
    assert_eq!(ext2.statfs().unwrap(), first);
}

#[test]
fn l10_a_2_mib_fault_says_why_it_fell_back() {
    // Linux hides the file system's error behind FALLBACK and asks a second time; we ask a second time,
    // too, but the reason is told.
    let (fs, file) = open(empty_device(), Compat::FULL);
    let log = EventLog::new();
    fs.tracer().listen(Some(log.clone()));
    file.truncate(PMD_SIZE - 1, Wait::Yes).unwrap();
    map(&file, PMD_SIZE).load(0).unwrap();
    let reasons: Vec<String> = log
        .take()
        .iter()
        .filter_map(|record| match record.event {
            Event::Fallback { reason, .. } => Some(reason.to_string()),
            _ => None,
        })
        .collect();
    // The last page is part of the file, so the unit is there whole; a hole of 2 MiB it is.
    assert_eq!(reasons, [] as [&str; 0]);
    file.truncate(PMD_SIZE - PAGE_SIZE, Wait::Yes).unwrap();
    map(&file, PMD_SIZE).load(0).unwrap();
    assert!(log.take().iter().any(|record| record.event.name() == "e2dax_fallback"));
}

#[test]
fn l11_a_reader_beside_a_growing_file_sees_whole_data_only() {
    // Linux publishes the first pointer of a run and stores the others without the lock.
    let file = file(Compat::FULL);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for at in 0..200_u64 {
                file.write_at(at * 20_000, &[at as u8; 20_000]).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        let map = map(&file, 4_000_000_u64.next_multiple_of(PAGE_SIZE));
        while !done.load(Ordering::SeqCst) {
            let size = file.size();
            for at in (0..size).step_by(10_007) {
                assert_eq!(map.load(at), Ok((at / 20_000) as u8), "byte {at} of {size}");
            }
        }
    });
}

#[test]
fn l12_what_fsync_returned_for_survives_and_is_not_given_away() {
    // Linux leaves bitmaps out of fsync: after a crash the blocks may look free until e2fsck was run.
    let device = small_device();
    let (fs, file) = open(device.clone(), Compat::FULL);
    file.write_at(0, &[7; 100_000]).unwrap();
    file.sync().unwrap();
    let crashed: Arc<dyn BlockDevice> = Arc::new(RamDevice::from_bytes(&device.to_vec()).unwrap());
    drop((fs, file));
    let ext2 = Ext2::open(crashed, &OpenOptions::default()).unwrap();
    let root = ext2.root().unwrap();
    let new = NewInode { kind: FileKind::Regular, mode: 0o644, uid: 0, gid: 0, umask: 0, device: None };
    let filler = root.create(b"filler", &new).unwrap();
    assert!(filler.write_at(0, &vec![1; 4 << 20]).unwrap() < 4 << 20, "the disk is full");
    let mut bytes = vec![0; 100_000];
    root.lookup(b"f").unwrap().read_at(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
}

#[test]
fn l13_only_what_was_stored_to_is_dirty() {
    let dirty = |compat| {
        let file = file(compat);
        file.truncate(PMD_SIZE, Wait::Yes).unwrap();
        let map = map(&file, 4 * PAGE_SIZE);
        for page in 0..4 {
            map.load(page * PAGE_SIZE).unwrap();
        }
        map.store(PAGE_SIZE, 1).unwrap();
        file.pages().dirty_entries()
    };
    assert_eq!(dirty(Compat::FULL), 1);
    assert_eq!(dirty(Compat { read_faults: ReadFaults::Dirty, ..Compat::FULL }), 4);
}
