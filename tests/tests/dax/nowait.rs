//! A call that must not wait does not.

use std::sync::Arc;
use std::time::Duration;

use blockdev::Access;
use ext2_core::InodeFlags;
use ext2_core::plumbing::Plumbing;
use ext2_dax::Wait;
use ext2_dax::rw::Limits;
use ext2_dax::uio::{SliceSink, SliceSource};
use ext2_dax::{Errno, File, OpenFor};

use crate::setup::{file, finishes, fresh};

const NOWAIT: Limits<'_> = Limits { cancel: None, nowait: true };

fn read(file: &File, pos: u64, len: u64) -> Result<u64, Errno> {
    let mut buf = vec![0; len as usize];
    file.read_to(pos, len, &mut SliceSink::new(&mut buf), NOWAIT).map_err(|error| error.errno())
}

fn write(file: &File, pos: u64, bytes: &[u8]) -> Result<u64, Errno> {
    let len = bytes.len() as u64;
    file.write_from(pos, len, &mut SliceSource::new(bytes), NOWAIT).map_err(|error| error.errno())
}

#[test]
fn nothing_waits_for_who_reads_or_writes() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 8192]).unwrap();
    let file = Arc::new(file);
    let other = {
        let file = Arc::clone(&file);
        move |what, wanted: [Result<u64, Errno>; 2]| {
            let file = Arc::clone(&file);
            let got = finishes(what, move || [read(&file, 0, 10), write(&file, 0, b"x")]);
            assert_eq!(got, wanted, "{what}");
        }
    };
    let writing = file.inode().io_lock().write();
    other("beside a writer", [Err(Errno::AGAIN), Err(Errno::AGAIN)]);
    drop(writing);
    let reading = file.inode().io_lock().read();
    other("beside a reader", [Ok(10), Err(Errno::AGAIN)]);
    drop(reading);
    other("alone", [Ok(10), Ok(1)]);
}

#[test]
fn a_truncation_that_waits_for_a_lease_keeps_nobody_waiting() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 8192]).unwrap();
    let lease = file.lease(0..4096, Access::Read).unwrap();
    let cutter = {
        let file = file.clone();
        std::thread::spawn(move || file.truncate(0, Wait::Yes))
    };
    std::thread::sleep(Duration::from_millis(100));
    let reader = file.clone();
    let got = finishes("calls beside a truncation that waits", move || {
        let now = (read(&reader, 0, 10), write(&reader, 0, b"x"));
        // Nor those that may wait: whoever holds the lease may need them to come to an end.
        let later = (reader.write_at(9000, b"y"), reader.read_at(0, &mut [0; 10]), reader.sync());
        (now, later)
    });
    assert_eq!(got, ((Ok(10), Ok(1)), (Ok(1), Ok(10), Ok(()))));
    assert!(!cutter.is_finished());
    drop(lease);
    cutter.join().unwrap().unwrap();
}

#[test]
fn nothing_is_allocated_and_nothing_grows() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 100]).unwrap();
    assert_eq!(write(&file, 90, &[2; 20]), Ok(10), "what is inside the file is written");
    assert_eq!((write(&file, 100, &[2; 20]), file.size()), (Err(Errno::AGAIN), 100));
    assert_eq!(write(&file, 4096, &[2; 20]), Err(Errno::AGAIN), "the file would grow");
    file.truncate(20_000, Wait::Yes).unwrap();
    assert_eq!(write(&file, 8192, &[2; 20]), Err(Errno::AGAIN), "a block would be made");
    assert_eq!(write(&file, 0, &[2; 8192]), Ok(4096), "what is there is written");
    assert_eq!(write(&file, 0, &[]), Ok(0));
    assert_eq!((read(&file, 0, 30_000), file.inode().attr().blocks_512), (Ok(20_000), 8));
}

#[test]
fn where_nobody_can_tell_whether_it_waits_it_is_refused() {
    let (_device, fs) = fresh(16);
    // The path of buffer heads.
    let path = ext2_dax::DataPath::BufferHead(ext2_dax::buffer_head::HoleSize::InFull);
    let old = ext2_dax::DaxFs::new(fs.ext2().clone(), ext2_dax::DaxOptions { path, ..Default::default() });
    let old = file(&old, b"old");
    old.write_at(0, &[1; 100]).unwrap();
    assert_eq!((read(&old, 0, 10), write(&old, 0, b"x")), (Err(Errno::OPNOTSUPP), Err(Errno::OPNOTSUPP)));
    // Blocks of 1 KiB, which are copied through the device.
    let device = blockdev::RamDevice::new(4 << 20).unwrap();
    let format =
        ext2_image::mkfs::Format { block_size: ext2_core::BlockSize::new(1024), ..Default::default() };
    ext2_image::mkfs::format(&device, &format, ext2_image::mkfs::Fresh::Zeros).unwrap();
    let small = crate::setup::open(Arc::new(device));
    let inode = crate::setup::inode(small.ext2(), b"f");
    let small = File::open(&small, inode, OpenFor::Writing).unwrap();
    small.write_at(0, &[1; 100]).unwrap();
    assert_eq!((read(&small, 0, 10), write(&small, 0, b"x")), (Err(Errno::OPNOTSUPP), Err(Errno::OPNOTSUPP)));
    // Who wants to stop is heard there, too.
    let cancel = std::sync::atomic::AtomicBool::new(true);
    let limits = Limits { cancel: Some(&cancel), nowait: false };
    let stopped = small.read_to(0, 10, &mut SliceSink::new(&mut [0; 10]), limits);
    assert!(stopped.is_err_and(|error| error.is(Errno::INTR)));
}

#[test]
fn what_no_write_could_do_is_said_before_what_a_write_that_waits_could() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 100]).unwrap();
    for at in [fs.ext2().max_size(), u64::MAX] {
        assert_eq!(write(&file, at, b"x"), Err(Errno::FBIG));
    }
    assert_eq!(write(&file, 100, b"x"), Err(Errno::AGAIN));
    file.inode().set_flags(InodeFlags::IMMUTABLE).unwrap();
    assert_eq!((write(&file, 0, b"x"), write(&file, 100, b"x")), (Err(Errno::PERM), Err(Errno::PERM)));
}
