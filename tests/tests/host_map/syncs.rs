//! What is written back of what pointers stored, while others sync, while pages around are taken, and after the end.

use std::iter;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blockdev::crash::{CrashState, PmemModel};
use blockdev::{
    Access, BackingFile, BlockDevice, DaxDevice, DeviceOptions, Media, MmapDevice, PmemSlice, RamDevice,
    Recorder,
};
use e2dax_tests::slow::Slow;
use ext2_core::{Ext2, FileBlock, FileKind, NewInode, OpenOptions, SetAttr, Timestamp};
use ext2_dax::mmu::host::{Granularity, HostMap, HostMmu, HostOptions};
use ext2_dax::mmu::soft::{SoftMap, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing, VmFile};
use ext2_dax::{DaxFs, File, OpenFor, Wait};
use tempfile::NamedTempFile;

use crate::setup::{PAGE, UNIT, answered, format, need_faults, open, read, request, tracked, ways};

struct Watched {
    _path: NamedTempFile,
    device: Arc<Slow<MmapDevice>>,
    fs: DaxFs,
    file: File,
}

/// A file of so many bytes, all of which are durable.
fn watched(len: u64) -> Watched {
    let folder = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
    let path = tempfile::Builder::new().prefix("host-map").tempfile_in(folder).unwrap();
    path.as_file().set_len(32 << 20).unwrap();
    let device = MmapDevice::open(path.path(), &DeviceOptions::read_write()).unwrap();
    format(&device);
    let device = Arc::new(Slow::new(device));
    let fs = open(Arc::clone(&device) as Arc<dyn BlockDevice>);
    fs.ext2().write("f", vec![1; len as usize]).unwrap();
    let inode = fs.ext2().root().unwrap().lookup(b"f").unwrap();
    let file = File::open(&fs, inode, OpenFor::Writing).unwrap();
    fs.ext2().sync().unwrap();
    Watched { _path: path, device, fs, file }
}

impl Watched {
    fn byte_of(&self, page: u64) -> u64 {
        let block = self.file.inode().map(FileBlock::new(page), 1).unwrap().target.unwrap();
        u64::from(block.get()) * PAGE
    }
}

#[test]
fn a_sync_covers_what_was_stored_by_pointer_while_another_sync_writes_it_back() {
    for way in ways().into_iter().chain(tracked()) {
        let image = watched(4 * PAGE);
        let map =
            image.file.map_host(&HostMmu::new(way).unwrap(), &request(4 * PAGE, Sharing::Shared)).unwrap();
        map.store(PAGE, 7).unwrap();
        let (one, other) = (image.file.clone(), image.file.clone());
        image.device.while_kept(image.byte_of(1), move || one.sync().unwrap(), move || other.sync().unwrap());
    }
}

#[test]
fn a_sync_or_the_end_of_a_mapping_gives_the_file_the_time_of_what_was_stored_by_pointer() {
    for way in ways().into_iter().chain(tracked()) {
        for is_synced in [true, false] {
            let image = watched(4 * PAGE);
            let map = image
                .file
                .map_host(&HostMmu::new(way).unwrap(), &request(4 * PAGE, Sharing::Shared))
                .unwrap();
            // The page is there, and nothing is to be told of it any more.
            assert_eq!(map.load(PAGE), Ok(1));
            image.file.sync().unwrap();
            let long_ago = Timestamp { sec: 1000, nsec: 0 };
            let times = SetAttr { atime: Some(long_ago), mtime: Some(long_ago), ..SetAttr::default() };
            image.file.inode().set_attr(&times).unwrap();
            map.store(PAGE, 7).unwrap();
            if is_synced {
                map.msync(0, 4 * PAGE).unwrap();
            }
            drop(map);
            image.file.sync().unwrap();
            assert_ne!(image.file.inode().attr().mtime, long_ago, "{way:?}, synced: {is_synced}");
        }
    }
}

#[test]
fn what_was_stored_beside_pages_that_are_cut_off_is_still_to_be_written_back() {
    need_faults!();
    let pages = |way: &HostOptions| way.granularity == Granularity::Pages;
    for way in answered().into_iter().chain(tracked().into_iter().filter(pages)) {
        for punches in [false, true] {
            let image = watched(UNIT);
            let map =
                image.file.map_host(&HostMmu::new(way).unwrap(), &request(UNIT, Sharing::Shared)).unwrap();
            map.store(PAGE, 7).unwrap();
            image.file.sync().unwrap();
            map.store(PAGE, 8).unwrap();
            image.device.watch();
            if punches {
                image.file.punch_hole(UNIT / 2, UNIT / 4, Wait::Yes).unwrap();
            } else {
                image.file.truncate(UNIT / 2, Wait::Yes).unwrap();
            }
            image.file.sync().unwrap();
            assert!(image.device.has_written(image.byte_of(1)), "{way:?}, punched: {punches}");
        }
    }
}

#[test]
fn what_was_stored_to_a_file_that_cannot_move_is_still_to_be_written_back() {
    for way in ways().into_iter().chain(tracked()) {
        let image = watched(1 << 20);
        let fs = image.fs.ext2();
        let full = fs.root().unwrap().create(b"full", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
        while full.write_at(full.size(), &[2; 1 << 16]).is_ok() {}
        full.truncate(full.size() - 40 * PAGE, Wait::Yes).unwrap();
        fs.sync().unwrap();
        let map =
            image.file.map_host(&HostMmu::new(way).unwrap(), &request(1 << 20, Sharing::Shared)).unwrap();
        map.store(PAGE, 7).unwrap();
        image.device.watch();
        // Past the size of a small file, and no unit of 2 MiB is free.
        assert_eq!(image.file.write_at(1 << 20, b"more").unwrap(), 4, "{way:?}");
        image.file.sync().unwrap();
        assert!(image.device.has_written(image.byte_of(1)), "{way:?}");
    }
}

/// A file whose file system is closed between the look at its rights and its first mapping.
#[derive(Debug)]
struct Closing {
    file: File,
    fs: DaxFs,
    is_closed: AtomicBool,
}

impl VmFile for Closing {
    e2dax_tests::forward_file!(file: pages, memory, fault, has_huge_faults, huge_fault, msync, layout, end_page, stored);

    fn check_map(&self, sharing: Sharing, protection: Protection) -> ext2_dax::Result<()> {
        let checked = self.file.check_map(sharing, protection);
        if !self.is_closed.swap(true, Ordering::SeqCst) {
            let _ = self.fs.ext2().clone().close()?;
        }
        checked
    }
}

#[test]
fn a_mapping_that_is_made_while_the_file_system_is_closed_stores_nothing() {
    for way in ways().into_iter().chain(tracked()) {
        let image = watched(4 * PAGE);
        let closing =
            Closing { file: image.file.clone(), fs: image.fs.clone(), is_closed: AtomicBool::new(false) };
        let mapped = HostMmu::new(way).unwrap().map(Arc::new(closing), &request(4 * PAGE, Sharing::Shared));
        let Ok(map) = mapped else { continue };
        assert_eq!(map.load(PAGE), Ok(1), "{way:?}");
        assert!(map.store(PAGE, 7).is_err(), "{way:?}: a store reaches a file system that was closed");
        assert_eq!(read(&image.file, PAGE, 1), [1], "{way:?}");
    }
}

/// Persistent memory whose bytes are, as it says, those of a file: enough to be mapped.
#[derive(Debug)]
struct Pretends {
    memory: Recorder<RamDevice>,
    file: std::fs::File,
}

impl BlockDevice for Pretends {
    e2dax_tests::forward!(memory: size, read_at, write_at, zero, fence, flush);

    fn dax(&self) -> Option<&dyn DaxDevice> {
        Some(self)
    }

    fn backing_file(&self) -> Option<BackingFile<'_>> {
        Some(BackingFile { fd: self.file.as_fd(), offset: 0 })
    }
}

impl DaxDevice for Pretends {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> blockdev::Result<PmemSlice<'_>> {
        self.memory.dax().unwrap().direct_access(page, count, mode)
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> blockdev::Result<()> {
        self.memory.dax().unwrap().recovery_write(offset, buf)
    }

    fn write_back(&self, offset: u64, len: u64) -> blockdev::Result<()> {
        self.memory.dax().unwrap().write_back(offset, len)
    }

    fn pfn(&self, page: u64) -> u64 {
        self.memory.dax().unwrap().pfn(page)
    }
}

/// A mapping, in software or in this process.
enum Mapped {
    Soft(SoftMap),
    Host(HostMap),
}

impl Mapped {
    fn store(&self, at: u64, byte: u8) {
        match self {
            Self::Soft(map) => map.store(at, byte).unwrap(),
            Self::Host(map) => map.store(at, byte).unwrap(),
        }
    }
}

/// A file of `there` bytes, which are durable, gets a page more and is stored to there, through a synchronous mapping that is
/// made before or after. States of the media behind that in which the size does not cover it, or it has no block, and all states.
fn lost(way: Option<HostOptions>, there: u64, is_mapped_before: bool) -> (u64, u64) {
    let ram = RamDevice::with_media(2 << 20, Media::Persistent).unwrap();
    format(&ram);
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.set_len(2 << 20).unwrap();
    let device = Arc::new(Pretends { memory: Recorder::new(ram), file });
    let fs = open(device.clone());
    let new = NewInode::new(FileKind::Regular, 0o644);
    let inode = fs.ext2().root().unwrap().create(b"f", &new).unwrap();
    let file = File::open(&fs, inode, OpenFor::Writing).unwrap();
    file.write_at(0, &vec![1; there as usize]).unwrap();
    fs.ext2().sync().unwrap();
    device.memory.take();
    let base = device.memory.inner().to_vec();
    let make = || {
        let asked = request(2 * PAGE, Sharing::Synchronous);
        match way {
            None => Mapped::Soft(file.map(&SoftMmu::new(), &asked).unwrap()),
            Some(way) => Mapped::Host(file.map_host(&HostMmu::new(way).unwrap(), &asked).unwrap()),
        }
    };
    let before = is_mapped_before.then(make);
    if let Some(map) = &before {
        map.store(0, 1);
    }
    file.write_at(there, &[1; 4096]).unwrap();
    let map = before.unwrap_or_else(make);
    map.store(there, 7);
    // Whoever has the mapping writes the line back and fences, and relies on it.
    device.memory.mark(1);
    fs.ext2().sync().unwrap();
    let log = device.memory.snapshot();
    let (mut seen, mut lost) = (0, 0);
    PmemModel::new(&base, &log).run(|state: &CrashState<'_>| {
        if state.mark.is_some() {
            seen += 1;
            let image = Arc::new(RamDevice::from_bytes(state.image).unwrap());
            let fs = Ext2::open(image, &OpenOptions::read_only()).unwrap();
            let inode = fs.root().unwrap().lookup(b"f").unwrap();
            let has_block = !inode.map(FileBlock::new(there / PAGE), 1).unwrap().is_hole();
            lost += u64::from(inode.size() < there + PAGE || !has_block);
        }
        ControlFlow::Continue(())
    });
    assert!(seen > 0);
    (lost, seen)
}

/// In software; mapped here, in each way.
fn all_ways() -> Vec<Option<HostOptions>> {
    iter::once(None).chain(ways().into_iter().map(Some)).collect()
}

#[test]
fn block_map_and_size_are_durable_before_the_first_store_to_a_synchronous_mapping() {
    for way in all_ways() {
        let (lost, seen) = lost(way, 0, false);
        assert_eq!(lost, 0, "{way:?}: of {seen}");
    }
}

#[test]
fn the_size_of_a_file_that_grows_is_durable_before_a_store_to_a_synchronous_mapping_that_was_there() {
    let mut wrong = Vec::new();
    for way in all_ways() {
        // A page more is mapped, or a part of one that is.
        for there in [PAGE, 100] {
            let (lost, seen) = lost(way, there, true);
            if lost > 0 {
                wrong.push(format!("{way:?}, {there} bytes: lost in {lost} of {seen} states"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Persistent memory that can be mapped, and a file in it of one page.
fn persistent() -> File {
    let ram = RamDevice::with_media(8 << 20, Media::Persistent).unwrap();
    format(&ram);
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.set_len(8 << 20).unwrap();
    let fs = open(Arc::new(Pretends { memory: Recorder::new(ram), file }));
    let new = NewInode::new(FileKind::Regular, 0o644);
    let file =
        File::open(&fs, fs.ext2().root().unwrap().create(b"f", &new).unwrap(), OpenFor::Writing).unwrap();
    file.write_at(0, &[1; 4096]).unwrap();
    file
}

#[test]
fn a_file_with_a_synchronous_mapping_grows_and_shrinks_while_others_map_it() {
    for way in ways() {
        let file = persistent();
        let asked = request(64 * PAGE, Sharing::Synchronous);
        let map = file.map_host(&HostMmu::new(way).unwrap(), &asked).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let soft = SoftMmu::new();
                for _ in 0..2_000 {
                    drop(file.map(&soft, &request(PAGE, Sharing::Shared)).unwrap());
                }
            });
            for _ in 0..10 {
                for page in 1..32 {
                    file.write_at(page * PAGE, &[2; 4096]).unwrap();
                }
                file.truncate(PAGE, Wait::Yes).unwrap();
            }
        });
        drop(map);
    }
}

#[test]
fn what_is_copied_into_persistent_memory_by_a_mapping_is_written_back() {
    for way in ways() {
        let file = persistent();
        for (sharing, media) in [
            (Sharing::Synchronous, Media::Persistent),
            (Sharing::Shared, Media::Persistent),
            // A copy of a page is in memory.
            (Sharing::Private, Media::Volatile),
        ] {
            let asked = request(PAGE, sharing);
            let map = file.map_host(&HostMmu::new(way).unwrap(), &asked).unwrap();
            let memory = map.slice(0, PAGE).unwrap();
            assert_eq!(memory.media(), media, "{way:?} {sharing:?}");
            memory.copy_in(8, &[7; 100]).unwrap();
            memory.zero(200, 100).unwrap();
            assert_eq!(map.load(107), Ok(7), "{way:?} {sharing:?}");
        }
    }
}
