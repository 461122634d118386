//! Files of an ext2 on memory that comes in pieces: leases, and who is told of what.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use blockdev::{Access, BlockDevice, Media};
use ext2_core::{BlockSize, Ext2, FileBlock, FileKind, NewInode, OpenOptions};
use ext2_dax::mmu::soft::{MapRequest, SoftMap, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing, VmFile};
use ext2_dax::trace::{Event, EventLog};
use ext2_dax::{DaxFs, DaxOptions, File, Leased, OpenFor, Wait};
use ext2_image::mkfs::{self, Format, Fresh};

use super::noted::Noted;
use super::told::{Plain, Told};

const P: u64 = 4096;

/// A file system with blocks of a page, on memory of which at most so many pages are one piece.
fn fresh(longest: u64) -> (Arc<Noted>, DaxFs) {
    fresh_on(longest, Media::Volatile)
}

fn fresh_on(longest: u64, media: Media) -> (Arc<Noted>, DaxFs) {
    let device = Arc::new(Noted::with_media(32 << 20, media));
    let format = Format { block_size: BlockSize::new(P), ..Format::default() };
    mkfs::format(&*device, &format, Fresh::Zeros).unwrap();
    device.longest.store(longest, Ordering::SeqCst);
    let shared: Arc<dyn BlockDevice> = device.clone();
    (device, DaxFs::new(Ext2::open(shared, &OpenOptions::default()).unwrap(), DaxOptions::default()))
}

fn file(fs: &DaxFs) -> File {
    let inode = fs.ext2().root().unwrap().create("f", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
    File::open(fs, inode, OpenFor::Writing).unwrap()
}

fn map(file: &File, len: u64) -> SoftMap {
    let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
    file.map(&SoftMmu::new(), &MapRequest { offset: 0, len, sharing, protection, colour: 0 }).unwrap()
}

/// The device's byte of a page of the file.
fn byte_of(file: &File, page: u64) -> u64 {
    u64::from(file.inode().map(FileBlock::new(page), 1).unwrap().target.unwrap().get()) * P
}

#[test]
fn a_lease_over_memory_in_pieces_gives_each_byte_once() {
    for longest in [1, 2, 3, u64::MAX] {
        let (_, fs) = fresh(longest);
        let file = file(&fs);
        let bytes: Vec<u8> = (0..7 * P).map(|at| (at % 251) as u8).collect();
        file.write_at(0, &bytes).unwrap();
        file.punch_hole(2 * P, P, Wait::Yes).unwrap();
        let (start, end) = (100, 7 * P - 9);
        let lease = file.lease(start..end, Access::Read).unwrap();
        let mut at = start;
        for (begin, part) in lease.parts().unwrap() {
            assert_eq!(begin, at, "pieces of {longest} pages");
            at += match part {
                Leased::Hole(len) => {
                    assert_eq!((begin, len), (2 * P, P));
                    len
                }
                Leased::Memory(memory) => {
                    let mut got = vec![0; memory.len() as usize];
                    memory.copy_out(0, &mut got).unwrap();
                    assert!(got == bytes[begin as usize..][..got.len()], "pieces of {longest} pages");
                    memory.len()
                }
            };
        }
        assert_eq!(at, end);
        // Those that may be kept are the same.
        let kept: Vec<_> =
            lease.owned_parts().unwrap().iter().map(|part| (part.start(), part.len())).collect();
        let (starts, lens): (Vec<u64>, Vec<u64>) = kept.into_iter().unzip();
        assert_eq!((starts[0], lens.iter().sum::<u64>()), (start, end - start));
    }
}

#[test]
fn what_a_lease_has_past_the_end_belongs_to_the_hole_before_it() {
    let (_, fs) = fresh(u64::MAX);
    let file = file(&fs);
    file.write_at(0, &[1; 10]).unwrap();
    file.truncate(3 * P + 7, Wait::Yes).unwrap();
    let lease = file.lease(0..10 * P, Access::Read).unwrap();
    let runs: Vec<_> =
        lease.runs().unwrap().iter().map(|run| (run.start, run.len, run.device_byte)).collect();
    assert_eq!(runs, [(0, P, Some(byte_of(&file, 0))), (P, 9 * P, None)]);
    // Where the file ends with data it is a hole of its own.
    file.write_at(3 * P, &[1; 7]).unwrap();
    let lease = file.lease(3 * P..10 * P, Access::Read).unwrap();
    let runs: Vec<_> =
        lease.runs().unwrap().iter().map(|run| (run.start, run.len, run.device_byte)).collect();
    assert_eq!(runs, [(3 * P, 7, Some(byte_of(&file, 3))), (3 * P + 7, 7 * P - 7, None)]);
}

#[test]
fn the_sync_of_a_lease_writes_back_its_pages_and_no_others() {
    let (device, fs) = fresh(u64::MAX);
    let file = file(&fs);
    file.write_at(0, &vec![1; 6 * P as usize]).unwrap();
    let map = map(&file, 6 * P);
    (0..6).for_each(|page| map.store(page * P, 2).unwrap());
    let lease = file.lease(P + 1..3 * P + 1, Access::Read).unwrap();
    device.written();
    lease.sync().unwrap();
    assert_eq!(device.written(), [1, 2, 3].map(|page| (byte_of(&file, page), P)));
    drop(lease);
    // What a lease may store to is written back to the byte.
    let lease = file.lease(5 * P + 7..6 * P - 9, Access::Write).unwrap();
    lease.parts().unwrap();
    lease.sync().unwrap();
    assert_eq!(device.written(), [(byte_of(&file, 5) + 7, P - 16), (byte_of(&file, 5), P)]);
}

#[test]
fn who_waits_for_a_lease_sleeps() {
    // The nanoseconds that this thread had a processor.
    let used = || -> Option<u64> {
        std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
    };
    if used().is_none() {
        eprintln!("skipped: the system does not tell what a thread used");
        return;
    }
    let (_, fs) = fresh(u64::MAX);
    let file = file(&fs);
    file.write_at(0, &[1; 8192]).unwrap();
    let lease = file.lease(0..P, Access::Read).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let before = used().unwrap();
            file.truncate(0, Wait::Yes).unwrap();
            used().unwrap() - before
        });
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(file.size(), 8192);
        drop(lease);
        let used = waits.join().unwrap();
        assert!(used < 20_000_000, "{used} ns of a processor");
    });
}

#[test]
fn growth_is_told_to_all_who_map_the_file_by_pages() {
    let (_, fs) = fresh(u64::MAX);
    let file = file(&fs);
    file.write_at(0, &[1; 10]).unwrap();
    let told = [Told::ahead(false), Told::ahead(true)];
    told.iter().for_each(|one| VmFile::pages(&file).attach(one.clone()));
    file.write_at(20, &[1; 10]).unwrap();
    file.truncate(5 * P + 1, Wait::Yes).unwrap();
    file.truncate(3 * P, Wait::Yes).unwrap();
    file.truncate(3 * P, Wait::Yes).unwrap();
    file.truncate(5 * P, Wait::Yes).unwrap();
    for one in told {
        let grown: Vec<_> = one.all().into_iter().filter(|event| event.0 == "grown").collect();
        assert_eq!(grown, [("grown", 0, 1), ("grown", 0, 6), ("grown", 3, 5)]);
    }
}

#[test]
fn stores_end_with_the_file_system_whoever_maps_the_file() {
    let (_, fs) = fresh(u64::MAX);
    let file = file(&fs);
    file.write_at(0, &[1; 4096]).unwrap();
    let told = Told::ahead(true);
    VmFile::pages(&file).attach(told.clone());
    let plain = Told::ahead(false);
    VmFile::pages(&file).attach(Arc::new(Plain(plain.clone())));
    let map = map(&file, P);
    map.store(0, 2).unwrap();
    fs.ext2().clone().close().unwrap();
    assert!(told.all().iter().any(|event| event.0 == "stop"));
    assert!(plain.all().contains(&("protect", 0, u64::MAX)));
    map.store(0, 3).unwrap_err();
    assert_eq!(map.load(0), Ok(2));
}

/// Whether what a small file had was moved when it grew, while `hold` holds something of it.
fn moves<T>(hold: impl FnOnce(&File) -> T) -> bool {
    let (_, fs) = fresh(u64::MAX);
    let file = file(&fs);
    file.write_at(0, &vec![1; 1 << 19]).unwrap();
    let before = byte_of(&file, 0);
    let held = hold(&file);
    file.write_at(1 << 19, &vec![2; 4 << 20]).unwrap();
    let after = byte_of(&file, 0);
    drop(held);
    // Moved, it begins a unit of 2 MiB; the second unit does in any case.
    assert_eq!(before != after, after.is_multiple_of(2 << 20));
    assert!(byte_of(&file, 512).is_multiple_of(2 << 20));
    let mut all = vec![0; (1 << 19) + (4 << 20)];
    assert_eq!(file.read_at(0, &mut all).unwrap(), all.len() as u64);
    assert!(all.iter().enumerate().all(|(at, byte)| *byte == if at < 1 << 19 { 1 } else { 2 }));
    before != after
}

#[test]
fn a_small_file_that_grows_moves_to_a_unit_unless_its_blocks_are_in_use() {
    assert!(moves(|_| ()));
    assert!(!moves(|file| {
        let map = map(file, 1 << 19);
        map.load(127 * P).unwrap();
        map
    }));
    assert!(!moves(|file| file.lease(0..1, Access::Read).unwrap()));
    // In use, but not what would move.
    assert!(moves(|file| {
        file.truncate(8 << 20, Wait::Yes).unwrap();
        let map = map(file, 8 << 20);
        map.load(6 << 20).unwrap();
        map
    }));
    assert!(moves(|file| file.lease(1 << 19..8 << 20, Access::Read).unwrap()));
}

#[test]
fn a_store_into_a_hole_is_told_of_its_page_to_who_maps_ahead() {
    let (_, fs) = fresh(u64::MAX);
    let file = file(&fs);
    file.truncate(10 * P, Wait::Yes).unwrap();
    let told = Told::ahead(true);
    VmFile::pages(&file).attach(told.clone());
    let map = map(&file, 10 * P);
    map.store(4 * P + 5, 1).unwrap();
    let published = |told: &Told| -> Vec<_> {
        told.all()
            .into_iter()
            .filter(|event| event.0 == "published")
            .map(|event| (event.1, event.2))
            .collect()
    };
    assert_eq!(published(&told), [(4, 5)]);
    // The block is there.
    map.store(4 * P + 6, 1).unwrap();
    assert_eq!(published(&told), []);
    file.write_at(6 * P + 1, &vec![1; P as usize]).unwrap();
    assert_eq!(published(&told), [(6, 8)]);
}

#[test]
fn a_synchronous_store_of_an_ext2_waits_for_nothing() {
    let (_, fs) = fresh_on(u64::MAX, Media::Persistent);
    let file = file(&fs);
    file.truncate(10 * P, Wait::Yes).unwrap();
    let log = EventLog::new();
    fs.tracer().listen(Some(log.clone()));
    let (sharing, protection) = (Sharing::Synchronous, Protection::ReadWrite);
    let request = MapRequest { offset: 0, len: 10 * P, sharing, protection, colour: 0 };
    let map = file.map(&SoftMmu::new(), &request).unwrap();
    map.store(4 * P + 5, 1).unwrap();
    let events = log.take();
    assert!(events.iter().any(|record| matches!(record.event, Event::PteFaultDone(..))));
    assert!(!events.iter().any(|record| matches!(record.event, Event::InsertPfnMkwrite(..))));
}

#[test]
fn who_punches_waits_for_a_lease_of_the_page_in_which_the_hole_ends() {
    let (_, fs) = fresh(u64::MAX);
    let file = file(&fs);
    file.write_at(0, &vec![1; 4 * P as usize]).unwrap();
    let lease = file.lease(P..2 * P, Access::Read).unwrap();
    std::thread::scope(|scope| {
        let punches = scope.spawn(|| file.inode().punch_hole(0, P + 1, Wait::Yes));
        std::thread::sleep(Duration::from_millis(30));
        assert!(!punches.is_finished());
        drop(lease);
        punches.join().unwrap().unwrap();
    });
    let mut all = vec![9; 4 * P as usize];
    file.read_at(0, &mut all).unwrap();
    let zeros = all.iter().take_while(|byte| **byte == 0).count() as u64;
    assert_eq!(zeros, P + 1);
}

#[test]
fn a_sync_flushes_the_device() {
    let (device, fs) = fresh(u64::MAX);
    let file = file(&fs);
    file.write_at(0, &[1; 10]).unwrap();
    let flushed = || device.flushed.swap(0, Ordering::SeqCst);
    flushed();
    file.sync().unwrap();
    assert!(flushed() > 0);
    file.inode().sync().unwrap();
    assert!(flushed() > 0);
    fs.ext2().sync().unwrap();
    assert!(flushed() > 0);
    file.read_at(0, &mut [0; 10]).unwrap();
    assert_eq!(flushed(), 0);
}
