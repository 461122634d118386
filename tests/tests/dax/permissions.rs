//! Who may store to a file is asked where access is given: when it is opened, mapped or leased.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use blockdev::{Access, BlockDevice, DeviceOptions, Media, MmapDevice, PmemSlice, RamDevice};
use ext2_core::{BlockSize, Closed, Ext2, Follow, InodeFlags, OpenOptions, Unclean};
use ext2_dax::Wait;
use ext2_dax::buffer_head::HoleSize;
use ext2_dax::mmu::soft::{MapRequest, Signal, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::rw::Limits;
use ext2_dax::uio::{SliceSource, Source};
use ext2_dax::{Compat, DataPath, DaxFs, DaxOptions, Errno, File, Flushing, Leased, OpenFor};
use ext2_image::mkfs::{self, Format, Fresh};

use crate::setup::{device, file, format, fresh, inode, map, open, request};

const PAGE: u64 = 4096;

fn refused<T>(done: Result<T, ext2_dax::Error>) -> Errno {
    done.map(drop).expect_err("refused").errno()
}

fn mapped(file: &File, sharing: Sharing) -> Result<(), Errno> {
    file.map(&SoftMmu::new(), &request(PAGE, sharing)).map(drop).map_err(|error| error.errno())
}

#[test]
fn an_immutable_file_is_opened_mapped_and_leased_for_reading_only() {
    for compat in [Compat::FULL, Compat::LINUX_6_1] {
        let (device, fs) = fresh(16);
        let fs = DaxFs::new(fs.ext2().clone(), DaxOptions { compat, ..DaxOptions::default() });
        let before = file(&fs, b"f");
        before.write_at(0, &[1; 8192]).unwrap();
        before.inode().set_flags(InodeFlags::IMMUTABLE).unwrap();
        let bytes = device.to_vec();
        let again = |open_for| File::open(&fs, before.inode().clone(), open_for);
        assert_eq!(refused(again(OpenFor::Writing)), Errno::PERM);
        assert_eq!(refused(again(OpenFor::Appending)), Errno::PERM);
        // Also who has it open already gets no memory to store to.
        assert_eq!(mapped(&before, Sharing::Shared), Err(Errno::PERM));
        assert_eq!(refused(before.lease(0..PAGE, Access::Write)), Errno::PERM);
        assert_eq!(refused(before.write_at(0, b"x")), Errno::PERM);
        assert_eq!(refused(before.truncate(0, Wait::Yes)), Errno::PERM);
        let reader = again(OpenFor::Reading).unwrap();
        assert_eq!(mapped(&reader, Sharing::Private), Ok(()));
        let lease = reader.lease(0..PAGE, Access::Read).unwrap();
        let Leased::Memory(memory) = lease.parts().unwrap()[0].1 else { panic!("a hole") };
        assert_eq!((memory.load_u8(0), memory.store_u8(0, 9)), (Ok(1), Err(blockdev::Error::ReadOnly)));
        assert!(device.to_vec() == bytes, "{compat:?}: the image changed");
    }
}

#[test]
fn an_append_only_file_grows_at_its_end_and_nowhere_else() {
    let (_device, fs) = fresh(16);
    let first = file(&fs, b"f");
    first.write_at(0, &[1; 100]).unwrap();
    first.inode().set_flags(InodeFlags::APPEND).unwrap();
    let again = |open_for| File::open(&fs, first.inode().clone(), open_for);
    assert_eq!(refused(again(OpenFor::Writing)), Errno::PERM);
    let log = again(OpenFor::Appending).unwrap();
    assert_eq!(log.write_at(7, b"two").unwrap(), 3);
    assert_eq!(log.write_at(0, b"three").unwrap(), 5);
    let mut bytes = [0; 200];
    assert_eq!(log.read_at(0, &mut bytes).unwrap(), 108);
    assert_eq!(&bytes[98..108], b"\x01\x01twothree");
    assert_eq!(mapped(&log, Sharing::Shared), Err(Errno::ACCES));
    assert_eq!(mapped(&log, Sharing::Private), Ok(()));
    // For reading neither, since a mapping can be made one to be stored to. Who opened it for reading never can.
    let for_reading = MapRequest { protection: Protection::ReadOnly, ..request(PAGE, Sharing::Shared) };
    for writer in [&log, &first] {
        assert_eq!(refused(writer.map(&SoftMmu::new(), &for_reading)), Errno::ACCES);
    }
    let reader = again(OpenFor::Reading).unwrap();
    assert_eq!(reader.map(&SoftMmu::new(), &for_reading).unwrap().load(1), Ok(1));
    assert_eq!(refused(log.lease(0..100, Access::Write)), Errno::ACCES);
    assert_eq!(refused(log.truncate(0, Wait::Yes)), Errno::PERM);
    assert_eq!(refused(log.zero_range(0, 10)), Errno::PERM);
    assert_eq!(refused(log.punch_hole(0, 10, Wait::Yes)), Errno::PERM);
    assert_eq!(log.size(), 108);
}

#[test]
fn who_opened_a_file_for_reading_stores_nothing() {
    let (device, fs) = fresh(16);
    let writer = file(&fs, b"f");
    writer.write_at(0, &[1; 8192]).unwrap();
    let reader = File::open(&fs, writer.inode().clone(), OpenFor::Reading).unwrap();
    let bytes = device.to_vec();
    assert_eq!(refused(reader.write_at(0, b"x")), Errno::BADF);
    assert_eq!(refused(reader.truncate(0, Wait::Yes)), Errno::BADF);
    assert_eq!(refused(reader.zero_range(0, 10)), Errno::BADF);
    assert_eq!(refused(reader.punch_hole(0, 8192, Wait::Yes)), Errno::BADF);
    assert_eq!(refused(reader.lease(0..PAGE, Access::Write)), Errno::ACCES);
    assert_eq!(mapped(&reader, Sharing::Shared), Err(Errno::ACCES));
    let private = map(&reader, PAGE, Sharing::Private);
    private.store(0, 7).unwrap();
    assert!(device.to_vec() == bytes, "the image changed");
}

#[test]
fn a_file_system_that_is_open_read_only_stores_nothing_though_its_device_is_writable() {
    let (device, fs) = fresh(16);
    file(&fs, b"f").write_at(0, &[1; 8192]).unwrap();
    assert_eq!(fs.ext2().clone().close(), Ok(Closed::Clean));
    drop(fs);
    let bytes = device.to_vec();
    let ext2 = Ext2::open(device.clone(), &OpenOptions::read_only()).unwrap();
    assert!(!device.is_read_only());
    let fs = DaxFs::new(ext2.clone(), DaxOptions::default());
    let inode = ext2.resolve(b"/f", Follow::Yes).unwrap();
    assert_eq!(refused(File::open(&fs, inode.clone(), OpenFor::Writing)), Errno::ROFS);
    assert_eq!(refused(File::open(&fs, inode.clone(), OpenFor::Appending)), Errno::ROFS);
    let reader = File::open(&fs, inode, OpenFor::Reading).unwrap();
    assert_eq!(refused(reader.lease(0..PAGE, Access::Write)), Errno::ACCES);
    assert_eq!(mapped(&reader, Sharing::Shared), Err(Errno::ACCES));
    let shared = MapRequest { protection: Protection::ReadOnly, ..request(PAGE, Sharing::Shared) };
    let map = reader.map(&SoftMmu::new(), &shared).unwrap();
    assert_eq!((map.load(0), map.store(0, 9)), (Ok(1), Err(Signal::Segv)));
    let lease = reader.lease(0..PAGE, Access::Read).unwrap();
    let Leased::Memory(memory) = lease.parts().unwrap()[0].1 else { panic!("a hole") };
    assert_eq!(memory.store_u64(0, 9), Err(blockdev::Error::ReadOnly));
    reader.sync().unwrap();
    drop((lease, map, reader, fs));
    assert_eq!(ext2.close(), Ok(Closed::ReadOnly));
    assert!(device.to_vec() == bytes, "the image changed");
}

#[test]
fn nothing_is_stored_through_a_mapping_after_close() {
    let (device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 8192]).unwrap();
    let (map, other) = (map(&file, 8192, Sharing::Shared), map(&file, 8192, Sharing::Shared));
    map.store(0, 5).unwrap();
    assert_eq!(fs.ext2().clone().close(), Ok(Closed::Clean));
    let bytes = device.to_vec();
    assert_eq!(map.store(0, 6), Err(Signal::Bus));
    assert_eq!(map.store(4096, 6), Err(Signal::Bus));
    assert_eq!(other.store(0, 6), Err(Signal::Bus));
    assert_eq!((map.load(0), other.load(0), map.load(4096)), (Ok(5), Ok(5), Ok(1)));
    assert_eq!(refused(file.write_at(0, b"x")), Errno::ROFS);
    assert_eq!(refused(file.lease(0..10, Access::Write)), Errno::ROFS);
    assert_eq!(mapped(&file, Sharing::Shared), Err(Errno::ROFS));
    assert!(device.to_vec() == bytes, "an image that is closed changed");
}

#[test]
fn close_says_what_it_achieved() {
    let (device, fs) = fresh(16);
    assert_eq!(fs.ext2().clone().close(), Ok(Closed::Clean));
    // A file without a name that somebody holds.
    let ext2 = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    let held = inode(&ext2, b"gone");
    ext2.root().unwrap().unlink(b"gone").unwrap();
    assert_eq!(ext2.clone().close(), Ok(Closed::Unclean(Unclean::FilesWithoutName)));
    drop((held, ext2));
    // Memory that is lent.
    let device = crate::setup::device(16, Media::Volatile);
    let fs = open(device.clone());
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 8192]).unwrap();
    let lease = file.lease(0..8192, Access::Write).unwrap();
    assert_eq!(lease.parts().unwrap().len(), 1);
    assert_eq!(fs.ext2().clone().close(), Ok(Closed::Unclean(Unclean::Leases)));
    assert_eq!(refused(lease.parts()), Errno::ROFS);
    drop((lease, file, fs));
    // It was not clean, so it does not become clean by being opened and closed, unless it was mended.
    let ext2 = Ext2::open(device, &OpenOptions::default()).unwrap();
    let closed = ext2.close().unwrap();
    assert!(matches!(closed, Closed::Clean | Closed::Unclean(Unclean::Before)), "{closed:?}");
}

#[test]
fn a_device_is_open_for_writing_once() {
    let (device, fs) = fresh(16);
    let second = Ext2::open(device.clone(), &OpenOptions::default());
    assert!(second.expect_err("refused").is(Errno::BUSY));
    // Who only reads may look, and after a close the next may write.
    Ext2::open(device.clone(), &OpenOptions::read_only()).unwrap();
    fs.ext2().clone().close().unwrap();
    let second = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    assert!(Ext2::open(device.clone(), &OpenOptions::default()).expect_err("refused").is(Errno::BUSY));
    drop(second);
    Ext2::open(device, &OpenOptions::default()).unwrap().close().unwrap();
}

#[test]
fn a_synchronous_mapping_is_given_on_persistent_memory_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    std::fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
    let on_disk = Arc::new(MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap());
    format(&*on_disk);
    let (ram, pmem) = (device(16, Media::Volatile), device(16, Media::Persistent));
    let devices: [(Arc<dyn BlockDevice>, _); 3] =
        [(on_disk, Err(Errno::OPNOTSUPP)), (ram, Err(Errno::OPNOTSUPP)), (pmem.clone(), Ok(()))];
    for (device, wanted) in devices {
        let fs = open(device);
        let file = file(&fs, b"f");
        file.truncate(8192, Wait::Yes).unwrap();
        assert_eq!(mapped(&file, Sharing::Synchronous), wanted);
        drop(file);
        fs.ext2().clone().close().unwrap();
    }
    // A user may claim less than the device says.
    let ext2 = Ext2::open(pmem, &OpenOptions::default()).unwrap();
    let fs = DaxFs::new(ext2, DaxOptions { media: Flushing::NeedsFlush, ..DaxOptions::default() });
    assert_eq!(mapped(&file(&fs, b"g"), Sharing::Synchronous), Err(Errno::OPNOTSUPP));
    // No fault fences on the path of buffer heads.
    let path = DataPath::BufferHead(HoleSize::InFull);
    let fs = DaxFs::new(fs.ext2().clone(), DaxOptions { path, ..DaxOptions::default() });
    assert_eq!(mapped(&file(&fs, b"h"), Sharing::Synchronous), Err(Errno::OPNOTSUPP));
}

#[test]
fn each_refusal_says_its_reason() {
    let (_device, fs) = fresh(16);
    let empty = file(&fs, b"empty");
    let none = empty.map(&SoftMmu::new(), &request(0, Sharing::Shared)).expect_err("refused");
    assert!(none.is(Errno::INVAL) && none.to_string().contains("empty"), "{none}");
    // Blocks of 1 KiB on memory.
    let device = RamDevice::new(4 << 20).unwrap();
    let format = Format { block_size: BlockSize::new(1024), ..Format::default() };
    mkfs::format(&device, &format, Fresh::Zeros).unwrap();
    let small = open(Arc::new(device));
    let file = file(&small, b"f");
    file.write_at(0, &[1; 5000]).unwrap();
    for error in [
        file.map(&SoftMmu::new(), &request(PAGE, Sharing::Shared)).expect_err("refused"),
        file.lease(0..10, Access::Read).expect_err("refused"),
    ] {
        assert!(error.is(Errno::OPNOTSUPP) && error.to_string().contains("4096"), "{error}");
    }
}

#[test]
fn an_error_keeps_its_number_from_crate_to_crate() {
    for number in 1..=133 {
        let Some(errno) = Errno::new(number) else { continue };
        let error = ext2_dax::Error::refused(errno, "why");
        assert_eq!((error.errno(), error.is(errno)), (errno, true));
        let core = ext2_core::Error::from(error.clone());
        assert_eq!((core.errno(), core.is(errno)), (errno, true), "{core}");
        assert_eq!(ext2_dax::Error::from(core).errno(), errno);
        assert_eq!(std::io::Error::from(error).raw_os_error(), Some(number));
    }
    let full = ext2_dax::Error::Device(blockdev::Error::NoSpace { offset: 0 });
    assert!(full.is(Errno::NOSPC) && ext2_core::Error::from(full).is(Errno::NOSPC));
}

/// Bytes that come late: `take` says that it is there, and waits to be let on.
struct Late<'a> {
    gate: Sender<()>,
    go: Receiver<()>,
    inner: SliceSource<'a>,
}

impl Source for Late<'_> {
    fn take(&mut self, to: &PmemSlice<'_>) -> ext2_dax::Result<u64> {
        self.gate.send(()).unwrap();
        self.go.recv_timeout(Duration::from_secs(20)).unwrap();
        self.inner.take(to)
    }

    fn take_bytes(&mut self, buf: &mut [u8]) -> u64 {
        self.inner.take_bytes(buf)
    }
}

#[test]
fn a_write_that_is_under_way_beside_a_close_reaches_no_image_that_is_called_clean() {
    let (device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 4096]).unwrap();
    fs.ext2().sync().unwrap();
    let ((gate, there), (let_go, go)) = (channel(), channel());
    let own = file.clone();
    let writer = thread::spawn(move || {
        let mut late = Late { gate, go, inner: SliceSource::new(&[7; 4096]) };
        own.write_from(0, 4096, &mut late, Limits::default())
    });
    there.recv().unwrap();
    let closed = fs.ext2().clone().close().unwrap();
    // The next who opens the image gives the blocks to another file.
    let second = Ext2::open(device.clone(), &OpenOptions::default());
    if let Ok(second) = &second {
        second.root().unwrap().unlink(b"f").unwrap();
        for nr in 0..4000 {
            let name = format!("g{nr}");
            if second.write(name.as_str(), vec![2; 4096]).is_err() {
                break;
            }
        }
        second.sync().unwrap();
    }
    let_go.send(()).unwrap();
    let wrote = writer.join().unwrap();
    let overwritten = second.iter().flat_map(|second| {
        (0..4000)
            .filter_map(|nr| second.read(format!("g{nr}").as_str()).ok())
            .filter(|bytes| bytes.contains(&7))
    });
    let overwritten = overwritten.count();
    assert!(
        closed != Closed::Clean && overwritten == 0,
        "close said {closed:?}, the write {wrote:?}, and {overwritten} files of who opened the image next have its bytes"
    );
}
