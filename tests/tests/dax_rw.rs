//! Read and write calls when something is in the way: poison, buffers that end, a caller that gives up or will not
//! wait, and a buffer that is a mapping of the very file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use blockdev::{Calls, Fault, Faulty, PmemSlice, RamDevice};
use e2dax_tests::dax::{map, read};
use e2dax_tests::oracle::empty_device;
use ext2_core::{Ext2, FileBlock, FileKind, NewInode, OpenOptions};
use ext2_dax::Wait;
use ext2_dax::entry::{PAGE_SIZE, PMD_SIZE};
use ext2_dax::mmu::soft::{Signal, SoftMap};
use ext2_dax::rw::Limits;
use ext2_dax::uio::{Faulting, Sink, SliceSink, SliceSource, Source};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};

struct Setup {
    device: Arc<Faulty<Arc<RamDevice>>>,
    fs: DaxFs,
    file: File,
}

fn setup() -> Setup {
    let device = Arc::new(Faulty::new(empty_device()));
    let ext2 = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    let new = NewInode { kind: FileKind::Regular, mode: 0o644, uid: 0, gid: 0, umask: 0, device: None };
    let inode = ext2.root().unwrap().create(b"f", &new).unwrap();
    let fs = DaxFs::new(ext2, DaxOptions::default());
    let file = File::open(&fs, inode, OpenFor::Writing).unwrap();
    Setup { device, fs, file }
}

/// Poisons the page of block `block` of the file.
fn poison(setup: &Setup, block: u64) {
    let target = setup.file.inode().map(FileBlock::new(block), 1).unwrap().target.unwrap();
    setup.device.poison(setup.fs.ext2().geometry().byte_of(target) / PAGE_SIZE).unwrap();
}

#[test]
fn readers_beside_a_writer_see_each_call_whole_and_nothing_of_other_files() {
    const LEN: usize = 3 * 4096;
    let setup = setup();
    let root = setup.fs.ext2().root().unwrap();
    let other = root.create(b"other", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut bytes = vec![0; LEN];
                while !done.load(Ordering::Relaxed) {
                    let got = setup.file.read_at(13 * PAGE_SIZE, &mut bytes).unwrap() as usize;
                    let first = bytes[..got].first().copied().unwrap_or(0);
                    assert!(bytes[..got].iter().all(|&byte| byte == first), "a call was seen in part");
                    assert!(first < 100, "another file's bytes");
                }
            });
        }
        // What the file gives up another file fills at once.
        for nr in 1..400_u64 {
            setup.file.write_at(13 * PAGE_SIZE, &[(nr % 100) as u8; LEN]).unwrap();
            match nr % 4 {
                0 => setup.file.truncate(0, Wait::Yes).unwrap(),
                1 => setup.file.punch_hole(13 * PAGE_SIZE, LEN as u64, Wait::Yes).unwrap(),
                _ => {}
            }
            other.write_at(0, &[200; 8 * 4096]).unwrap();
            if nr % 8 == 0 {
                other.truncate(0, ext2_core::Wait::Yes).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(read(&setup.file, 13 * PAGE_SIZE, LEN), [99; LEN]);
}

#[test]
fn poison_ends_a_read_before_it_and_is_eio_where_nothing_was_read() {
    let setup = setup();
    setup.file.write_at(0, &[1; 4 * 4096]).unwrap();
    poison(&setup, 2);
    assert_eq!(read(&setup.file, 0, 4 * 4096), [1; 2 * 4096]);
    assert_eq!(setup.file.read_at(2 * PAGE_SIZE, &mut [0; 10]).unwrap_err().errno().get(), 5);
    assert_eq!(read(&setup.file, 3 * PAGE_SIZE, 4096), [1; 4096]);
    assert_eq!(map(&setup.file, 4 * PAGE_SIZE).load(2 * PAGE_SIZE), Err(Signal::Bus));
}

#[test]
fn a_write_over_a_whole_poisoned_page_heals_it() {
    let setup = setup();
    setup.file.write_at(0, &[1; 3 * 4096]).unwrap();
    poison(&setup, 1);
    assert_eq!(setup.file.write_at(100, &[2; 2 * 4096]).unwrap(), 2 * 4096);
    assert_eq!(read(&setup.file, 100, 2 * 4096), [2; 2 * 4096]);
    assert_eq!(map(&setup.file, 3 * PAGE_SIZE).load(PAGE_SIZE), Ok(2));
}

#[test]
fn a_write_to_a_part_of_a_poisoned_page_is_refused() {
    let setup = setup();
    setup.file.write_at(0, &[1; 4096]).unwrap();
    poison(&setup, 0);
    assert_eq!(setup.file.write_at(10, &[2; 10]).unwrap_err().errno().get(), 5);
}

#[test]
fn buffers_that_end_half_way_move_what_there_is() {
    let Setup { file, .. } = setup();
    for good in 0..60 {
        let pos = PAGE_SIZE - 20 + good;
        let mut source = Faulting::new(SliceSource::new(&[9; 60]), good);
        let wrote =
            file.write_from(pos, 60, &mut source, Limits::default()).map_err(|error| error.errno().get());
        assert_eq!(wrote, if good == 0 { Err(14) } else { Ok(good) });
        let mut buf = [0; 60];
        let mut sink = Faulting::new(SliceSink::new(&mut buf), good);
        let got = file.read_to(pos, good, &mut sink, Limits::default()).unwrap();
        assert_eq!(got, good);
        assert!(buf[..good as usize].iter().all(|byte| *byte == 9));
    }
}

/// A source that asks to be cancelled after its first piece.
struct GivesUp<'a>(&'a AtomicBool);

impl Source for GivesUp<'_> {
    fn take(&mut self, to: &PmemSlice<'_>) -> ext2_dax::Result<u64> {
        self.0.store(true, Ordering::Relaxed);
        to.copy_in(0, &vec![5; to.len() as usize])?;
        Ok(to.len())
    }

    fn take_bytes(&mut self, buf: &mut [u8]) -> u64 {
        buf.fill(5);
        buf.len() as u64
    }
}

#[test]
fn a_caller_that_gives_up_keeps_what_was_moved() {
    let Setup { file, .. } = setup();
    // Two mappings: blocks that are there, and blocks that are not.
    file.write_at(0, &[1; 4096]).unwrap();
    let cancel = AtomicBool::new(false);
    let limits = Limits { cancel: Some(&cancel), nowait: false };
    assert_eq!(file.write_from(0, 3 * 4096, &mut GivesUp(&cancel), limits).unwrap(), 4096);
    assert_eq!(file.size(), 4096);
    assert_eq!(file.write_from(0, 10, &mut GivesUp(&cancel), limits).unwrap_err().errno().get(), 4);
    assert_eq!(read(&file, 0, 10), [5; 10]);
}

#[test]
fn a_caller_that_will_not_wait_is_not_given_blocks() {
    let Setup { file, .. } = setup();
    file.write_at(0, &[1; 4096]).unwrap();
    let limits = Limits { cancel: None, nowait: true };
    let write = |pos, len: usize| {
        let bytes = vec![2; len];
        let done = file.write_from(pos, len as u64, &mut SliceSource::new(&bytes), limits);
        done.map_err(|error| error.errno().get())
    };
    assert_eq!(write(0, 4096), Ok(4096));
    assert_eq!(write(4096, 10), Err(11));
    assert_eq!(write(0, 8192), Ok(4096), "what could be done without waiting was");
    assert_eq!(file.inode().attr().blocks_512, 8);
}

/// A buffer in a mapping.
struct Mapped<'a> {
    map: &'a SoftMap,
    pos: u64,
}

impl Source for Mapped<'_> {
    fn take(&mut self, to: &PmemSlice<'_>) -> ext2_dax::Result<u64> {
        let mut bytes = vec![0; to.len() as usize];
        let taken = self.take_bytes(&mut bytes);
        to.copy_in(0, &bytes[..taken as usize])?;
        Ok(taken)
    }

    fn take_bytes(&mut self, buf: &mut [u8]) -> u64 {
        let taken = self.map.load_bytes(self.pos, buf).map_or_else(|died| died.done, |()| buf.len() as u64);
        self.pos += taken;
        taken
    }
}

impl Sink for Mapped<'_> {
    fn put(&mut self, from: &PmemSlice<'_>) -> ext2_dax::Result<u64> {
        let mut bytes = vec![0; from.len() as usize];
        from.copy_out(0, &mut bytes)?;
        Ok(self.put_bytes(&bytes))
    }

    fn put_zeros(&mut self, len: u64) -> u64 {
        self.put_bytes(&vec![0; len as usize])
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> u64 {
        let put =
            self.map.store_bytes(self.pos, bytes).map_or_else(|died| died.done, |()| bytes.len() as u64);
        self.pos += put;
        put
    }
}

#[test]
fn a_buffer_may_be_a_mapping_of_the_very_range_and_fault_in_the_middle_of_the_copy() {
    let Setup { file, .. } = setup();
    file.truncate(PMD_SIZE, Wait::Yes).unwrap();
    file.write_at(0, &[7; 3 * 4096]).unwrap();
    let map = map(&file, PMD_SIZE);
    // Bytes of the file, by the mapping, to another place of the file where there is a hole.
    let mut source = Mapped { map: &map, pos: 0 };
    assert_eq!(file.write_from(100_000, 12_288, &mut source, Limits::default()).unwrap(), 12_288);
    assert_eq!(read(&file, 100_000, 12_288), [7; 12_288]);
    // From a hole into itself: the copy faults on the page that is being given a block.
    let mut source = Mapped { map: &map, pos: 400_000 };
    assert_eq!(file.write_from(400_000, 5000, &mut source, Limits::default()).unwrap(), 5000);
    assert_eq!(read(&file, 400_000, 5000), [0; 5000]);
    // Read into a mapping: the stores allocate while the reader is inside.
    let mut sink = Mapped { map: &map, pos: 600_000 };
    assert_eq!(file.read_to(0, 12_288, &mut sink, Limits::default()).unwrap(), 12_288);
    assert_eq!(read(&file, 600_000, 12_288), [7; 12_288]);
}

/// A source that stores to a page of the file through a mapping, while that page is being written.
struct StoresToo<'a> {
    map: &'a SoftMap,
    at: u64,
    once: AtomicU64,
}

impl Source for StoresToo<'_> {
    fn take(&mut self, to: &PmemSlice<'_>) -> ext2_dax::Result<u64> {
        if self.once.fetch_add(1, Ordering::Relaxed) == 0 {
            self.map.store(self.at, 0xaa).unwrap();
        }
        to.copy_in(0, &vec![3; to.len() as usize])?;
        Ok(to.len())
    }

    fn take_bytes(&mut self, buf: &mut [u8]) -> u64 {
        buf.fill(3);
        buf.len() as u64
    }
}

#[test]
fn a_store_that_allocates_under_a_write_keeps_its_block_and_both_keep_their_bytes() {
    let Setup { fs, file, .. } = setup();
    file.truncate(0x10000, Wait::Yes).unwrap();
    let map = map(&file, 0x10000);
    let free = fs.ext2().statfs().unwrap().blocks_free;
    let mut source = StoresToo { map: &map, at: 0x2000 + 4000, once: AtomicU64::new(0) };
    assert_eq!(file.write_from(0x2000, 100, &mut source, Limits::default()).unwrap(), 100);
    assert_eq!(read(&file, 0x2000, 100), [3; 100]);
    assert_eq!((map.load(0x2000), map.load(0x2000 + 4000)), (Ok(3), Ok(0xaa)));
    assert_eq!(fs.ext2().statfs().unwrap().blocks_free, free - 1, "one block, not two");
}

#[test]
fn a_device_that_fails_while_blocks_are_published_gives_no_block_to_two_files() {
    let Setup { device, fs, file } = setup();
    file.truncate(1 << 20, Wait::Yes).unwrap();
    let count = || {
        let used = fs.ext2().statfs().unwrap().blocks_free;
        (used, u64::from(file.inode().attr().blocks_512 / 8))
    };
    for after in 0..6 {
        let (free, held) = count();
        device.arm(Fault::once(Calls::WRITE | Calls::ZERO | Calls::FENCE, after));
        let done = file.write_at(0x80000 + after * 0x10000 + 10, &[1; 9000]);
        device.disarm();
        let (free_now, held_now) = count();
        let (taken, kept) = (free - free_now, held_now - held);
        // When the store of a pointer fails, nobody knows whether it is there: the blocks are rather lost, until e2fsck
        // finds them, than given away again. What works loses nothing.
        assert!(taken >= kept, "after {after}: {taken} taken, {kept} kept: {done:?}");
        assert!(done.is_err() || taken == kept, "after {after}: {taken} taken, {kept} kept: {done:?}");
    }
}

#[test]
fn what_a_device_would_not_write_back_is_dirty_until_it_does() {
    let Setup { device, fs: _fs, file } = setup();
    file.write_at(0, &[1; 8192]).unwrap();
    file.sync().unwrap();
    let map = map(&file, 8192);
    map.store(5, 2).unwrap();
    let dirty = || file.pages().dirty_entries();
    assert_eq!(dirty(), 1);
    device.arm(Fault::once(Calls::WRITE_BACK, 0));
    assert!(file.sync().is_err());
    device.disarm();
    assert_eq!(dirty(), 1);
    file.sync().unwrap();
    assert_eq!(dirty(), 0);
}
