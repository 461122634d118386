//! One mapping, or one end of a file, and several threads at it; and a file that is not this file system's.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use blockdev::{PmemSlice, RamDevice};
use ext2_core::{BlockSize, Errno, Ext2, OpenOptions};
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::soft::{Signal, SoftMmu};
use ext2_dax::rw::Limits;
use ext2_dax::trace::{Event, Listener, Record};
use ext2_dax::uio::Source;
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor, Result, Wait};
use ext2_image::mkfs::{self, Format, Fresh};

use crate::setup::{file, fresh, inode, map, open, request};

/// Who says that it is there, and waits to be let on.
type Gate = (mpsc::Sender<()>, mpsc::Receiver<()>);

/// Keeps the first fault of 4 KiB of a thread with this name from being handled.
#[derive(Debug)]
struct Delays(&'static str, Mutex<Option<Gate>>);

impl Listener for Delays {
    fn record(&self, record: &Record) {
        let is_first =
            matches!(record.event, Event::PteFault(..)) && thread::current().name() == Some(self.0);
        let gate = is_first.then(|| self.1.lock().unwrap().take()).flatten();
        if let Some((there, go)) = gate {
            there.send(()).unwrap();
            go.recv().unwrap();
        }
    }
}

#[test]
fn a_fault_that_comes_late_leaves_the_private_copy_that_another_thread_has_stored_to() {
    for stores in [false, true] {
        let (_device, fs) = fresh(16);
        let file = file(&fs, b"f");
        file.write_at(0, &[1; 8192]).unwrap();
        let map = Arc::new(map(&file, 8192, Sharing::Private));
        let ((tell, told), (let_go, go)) = (mpsc::channel(), mpsc::channel());
        fs.tracer().listen(Some(Arc::new(Delays("late", Mutex::new(Some((tell, go)))))));
        let own = Arc::clone(&map);
        let late = move || if stores { own.store(1, 9).map(|()| 9) } else { own.load(1) };
        let late = thread::Builder::new().name("late".into()).spawn(late).unwrap();
        told.recv_timeout(Duration::from_secs(20)).unwrap();
        map.store(0, 77).unwrap();
        let_go.send(()).unwrap();
        let there = late.join().unwrap().unwrap();
        assert_eq!((there, map.load(1)), (if stores { 9 } else { 1 }, Ok(there)));
        assert_eq!(map.load(0), Ok(77), "stored before {}", if stores { "a store" } else { "a load" });
        assert_eq!(map.mmu().counters().copies, 1 + u64::from(stores));
        let mut byte = [0];
        file.read_at(0, &mut byte).unwrap();
        assert_eq!(byte, [1]);
    }
}

#[test]
fn what_threads_append_to_a_file_lies_one_after_the_other() {
    const THREADS: u8 = 4;
    const TIMES: usize = 8000;
    for block in [1024, 4096] {
        let device = Arc::new(RamDevice::new(16 << 20).unwrap());
        let format = Format { block_size: BlockSize::new(block), ..Format::default() };
        mkfs::format(&*device, &format, Fresh::Zeros).unwrap();
        let fs = DaxFs::new(Ext2::open(device, &OpenOptions::default()).unwrap(), DaxOptions::default());
        assert_eq!(fs.is_dax(), block == 4096);
        let inode = inode(fs.ext2(), b"log");
        let append = |byte: u8| {
            let file = File::open(&fs, inode.clone(), OpenFor::Appending).unwrap();
            thread::spawn(move || {
                (0..TIMES).for_each(|_| assert_eq!(file.write_at(0, &[byte; 10]).unwrap(), 10))
            })
        };
        let threads: Vec<_> = (1..=THREADS).map(append).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let all = inode.read_all().unwrap();
        assert_eq!(all.len(), usize::from(THREADS) * TIMES * 10, "blocks of {block} bytes");
        assert!(all.chunks(10).all(|line| line.iter().all(|byte| *byte == line[0])));
    }
}

#[test]
fn a_file_of_another_file_system_is_refused() {
    let ((_one, fs), (_other, theirs)) = (fresh(16), fresh(16));
    let inode = inode(theirs.ext2(), b"f");
    inode.write_all_at(0, &[7; 10_000]).unwrap();
    for open_for in [OpenFor::Reading, OpenFor::Writing, OpenFor::Appending] {
        let refused = File::open(&fs, inode.clone(), open_for).unwrap_err();
        assert!(refused.is(Errno::XDEV), "{refused}");
        assert_eq!(File::open(&theirs, inode.clone(), open_for).unwrap().size(), 10_000);
    }
}

/// So many bytes of one kind; from the second piece on it waits to be let on.
struct Pieces {
    byte: u8,
    left: usize,
    taken: usize,
    gate: Option<Gate>,
}

impl Source for Pieces {
    fn take(&mut self, to: &PmemSlice<'_>) -> Result<u64> {
        let mut bytes = vec![0; to.len() as usize];
        let taken = self.take_bytes(&mut bytes);
        to.copy_in(0, &bytes[..taken as usize])?;
        Ok(taken)
    }

    fn take_bytes(&mut self, buf: &mut [u8]) -> u64 {
        if self.taken > 0
            && let Some((there, go)) = self.gate.take()
        {
            there.send(()).unwrap();
            let _ = go.recv_timeout(Duration::from_millis(500));
        }
        let len = buf.len().min(self.left);
        buf[..len].fill(self.byte);
        (self.left, self.taken) = (self.left - len, self.taken + len);
        len as u64
    }
}

#[test]
fn a_write_of_many_bytes_is_one_piece_also_where_the_device_is_no_memory() {
    const LEN: usize = 3 << 20;
    for (block, open_for) in [
        (1024, OpenFor::Appending),
        (4096, OpenFor::Appending),
        (1024, OpenFor::Writing),
        (4096, OpenFor::Writing),
    ] {
        let device = RamDevice::new(32 << 20).unwrap();
        let format = Format { block_size: BlockSize::new(block), ..Format::default() };
        mkfs::format(&device, &format, Fresh::Zeros).unwrap();
        let fs = open(Arc::new(device));
        let file = File::open(&fs, inode(fs.ext2(), b"f"), open_for).unwrap();
        let ((tell, there), (let_go, go)) = (mpsc::channel(), mpsc::channel());
        let write = |byte: u8, gate: Option<Gate>| {
            let file = file.clone();
            thread::spawn(move || {
                let mut source = Pieces { byte, left: LEN, taken: 0, gate };
                file.write_from(0, LEN as u64, &mut source, Limits::default()).unwrap()
            })
        };
        let first = write(1, Some((tell, go)));
        there.recv_timeout(Duration::from_secs(20)).unwrap();
        let second = write(2, None);
        thread::sleep(Duration::from_millis(200));
        // It may have waited long enough.
        let _ = let_go.send(());
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (LEN as u64, LEN as u64));
        let bytes = file.inode().read_all().unwrap();
        let pieces: Vec<_> =
            bytes.chunk_by(|one, other| one == other).map(|run| (run[0], run.len())).collect();
        let expected = if open_for == OpenFor::Appending { vec![(1, LEN), (2, LEN)] } else { vec![(2, LEN)] };
        assert_eq!(pieces, expected, "blocks of {block}, {open_for:?}");
    }
}

#[test]
fn a_store_to_a_mapping_that_goes_meanwhile_is_a_segv_after_few_faults() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.truncate(8192, Wait::Yes).unwrap();
    let mmu = SoftMmu::new();
    let mapped = file.map(&mmu, &request(8192, Sharing::Shared)).unwrap();
    let at = mapped.vma().start;
    let ((tell, told), (let_go, go)) = (mpsc::channel(), mpsc::channel());
    fs.tracer().listen(Some(Arc::new(Delays("late", Mutex::new(Some((tell, go)))))));
    let own = Arc::clone(&mmu);
    let late = thread::Builder::new().name("late".into()).spawn(move || own.store(at, 1)).unwrap();
    told.recv_timeout(Duration::from_secs(20)).unwrap();
    drop(mapped);
    let_go.send(()).unwrap();
    assert_eq!(late.join().unwrap(), Err(Signal::Segv));
    let counters = mmu.counters();
    assert!(counters.pte_faults + counters.pmd_faults < 10, "{counters:?}");
}

#[test]
fn the_end_of_a_file_as_a_hole_lies_no_earlier_than_the_byte_that_is_asked() {
    let (_device, fs) = fresh(16);
    let inode = inode(fs.ext2(), b"f");
    thread::scope(|scope| {
        let cutter = scope.spawn(|| {
            for _ in 0..30_000 {
                inode.write_all_at(0, &[1; 8192]).unwrap();
                inode.truncate(100, Wait::Yes).unwrap();
            }
        });
        while !cutter.is_finished() {
            match inode.seek_hole(5000) {
                Ok(at) => assert_eq!(at, 8192),
                Err(error) => assert!(error.is(Errno::NXIO), "{error}"),
            }
        }
    });
}
