//! Reads and writes that end early, over memory that comes in pieces.

use std::sync::atomic::{AtomicBool, Ordering};

use blockdev::{BlockDevice, PmemSlice};
use ext2_dax::compat::Compat;
use ext2_dax::error::{Error, Result};
use ext2_dax::iomap::{Iomap, MapFlags, MapKind};
use ext2_dax::rw::{Limits, read, write};
use ext2_dax::uio::{Faulting, SliceSink, SliceSource, Source};

use super::fake::{Call, FakeFile};

const P: u64 = 4096;

/// A file of four pages in a row, whose memory comes a page at a time.
fn file() -> std::sync::Arc<FakeFile> {
    let file = FakeFile::new(Compat::FULL);
    file.place(0, 4, 10);
    file.set_size(4 * P);
    file.device.longest.store(1, Ordering::SeqCst);
    file
}

fn begins(file: &FakeFile) -> usize {
    file.calls().iter().filter(|call| matches!(call, Call::Begin { .. })).count()
}

#[test]
fn one_mapping_is_asked_for_once_however_its_memory_comes() {
    let file = file();
    let bytes: Vec<u8> = (0..4 * P).map(|at| (at % 251) as u8).collect();
    assert_eq!(file.write(0, &bytes).unwrap(), 4 * P);
    assert_eq!(begins(&file), 1);
    let mut got = vec![0; 4 * P as usize];
    assert_eq!(file.read(0, &mut got).unwrap(), 4 * P);
    assert_eq!(begins(&file), 1);
    assert!(got == bytes);
}

#[test]
fn a_buffer_that_ends_in_the_middle_of_a_piece_ends_the_transfer() {
    for longest in [1, 4] {
        let file = file();
        file.device.longest.store(longest, Ordering::SeqCst);
        let bytes = vec![7; 4 * P as usize];
        let mut source = Faulting::new(SliceSource::new(&bytes), P + 5);
        assert_eq!(write(&*file, 3, 3 * P, &mut source, Limits::default()), Ok(P + 5));
        let mut buffer = vec![0; 4 * P as usize];
        let mut sink = Faulting::new(SliceSink::new(&mut buffer), P + 9);
        assert_eq!(read(&*file, 0, 4 * P, &mut sink, Limits::default()), Ok(P + 9));
        assert_eq!(buffer[2..4], [0, 7]);
        assert_eq!(buffer[(P + 7) as usize..(P + 9) as usize], [7, 0]);
    }
}

#[test]
fn a_buffer_that_ends_where_a_piece_does_ends_the_transfer() {
    let (file, bytes) = (file(), vec![7; 4 * P as usize]);
    let mut source = Faulting::new(SliceSource::new(&bytes), P);
    assert_eq!(write(&*file, 0, 4 * P, &mut source, Limits::default()), Ok(P));
    assert_eq!(write(&*file, 0, 4 * P, &mut source, Limits::default()), Err(Error::BadAddress));
    let mut buffer = vec![0; 4 * P as usize];
    let mut sink = Faulting::new(SliceSink::new(&mut buffer), P);
    assert_eq!(read(&*file, 0, 4 * P, &mut sink, Limits::default()), Ok(P));
    assert_eq!(read(&*file, 0, 4 * P, &mut sink, Limits::default()), Err(Error::BadAddress));
}

#[test]
fn what_was_moved_before_an_error_is_reported() {
    let file = file();
    file.write(0, &vec![1; 4 * P as usize]).unwrap();
    file.device.poison(12).unwrap();
    let mut buffer = vec![0; 4 * P as usize];
    assert_eq!(file.read(100, &mut buffer).unwrap(), 2 * P - 100);
    file.read(2 * P, &mut buffer).unwrap_err();
    // A part of the page that is lost does not heal it, the whole of it does.
    assert_eq!(file.write(P, &vec![2; P as usize + 10]).unwrap(), P);
    file.write(2 * P, &[2; 10]).unwrap_err();
    // Nor does more than was asked for, where the buffer has more.
    write(&*file, 2 * P, 10, &mut SliceSource::new(&[9; 2 * P as usize]), Limits::default()).unwrap_err();
    file.read(2 * P, &mut buffer).unwrap_err();
    assert_eq!(file.write(P + 10, &vec![3; 2 * P as usize]).unwrap(), 2 * P);
    let mut got = vec![0; 4 * P as usize];
    assert_eq!(file.read(0, &mut got).unwrap(), 4 * P);
    let edges = [P as usize + 9, P as usize + 10, 3 * P as usize + 9, 3 * P as usize + 10];
    assert_eq!(edges.map(|at| got[at]), [2, 3, 3, 1]);
}

/// A source that is cancelled when so much of it was taken.
struct Cancelled<'a>(u64, &'a AtomicBool);

impl Source for Cancelled<'_> {
    fn take(&mut self, to: &PmemSlice<'_>) -> Result<u64> {
        self.0 = self.0.saturating_sub(to.len());
        self.1.store(self.0 == 0, Ordering::Relaxed);
        Ok(to.len())
    }
    fn take_bytes(&mut self, buf: &mut [u8]) -> u64 {
        buf.len() as u64
    }
}

#[test]
fn a_transfer_that_is_cancelled_ends_after_the_piece_at_hand() {
    let (file, cancel) = (file(), AtomicBool::new(false));
    let limits = Limits { cancel: Some(&cancel), ..Limits::default() };
    assert_eq!(write(&*file, 0, 4 * P, &mut Cancelled(2 * P, &cancel), limits), Ok(2 * P));
    let again = write(&*file, 0, 4 * P, &mut Cancelled(2 * P, &cancel), limits);
    assert!(matches!(again, Err(Error::Interrupted)), "{again:?}");
    let mut buffer = vec![0; 10];
    let read = read(&*file, 0, 10, &mut SliceSink::new(&mut buffer), limits);
    assert!(matches!(read, Err(Error::Interrupted)), "{read:?}");
}

#[test]
fn a_write_goes_where_a_file_system_shares_blocks_and_nowhere_else() {
    let unwritten = MapKind::Unwritten;
    for (shared, addr, good) in [(true, true, true), (true, false, false), (false, true, false)] {
        let file = file();
        file.answer(move |_, _, _| {
            let mut map = Iomap::mapped(0, P, 20 * P);
            map.kind = unwritten;
            map.addr = map.addr.filter(|_| addr);
            map.flags.set(MapFlags::SHARED, shared);
            Some(Ok(map))
        });
        let done = file.write(10, b"bytes");
        assert_eq!(done.is_ok(), good, "{shared} {addr}: {done:?}");
        let mut there = [0; 5];
        file.device.read_at(20 * P + 10, &mut there).unwrap();
        assert_eq!(&there == b"bytes", good);
    }
}
