//! What a sync has returned for, while others sync, let go of files, or cannot write any more.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use blockdev::{Access, BlockDevice, Calls, Fault, Faulty, Media, RamDevice};
use e2dax_tests::slow::{Gate, Slow};
use ext2_core::{BlockSize, Closed, Corrupt, Error, Ext2, FileBlock, Object, OnError, OpenOptions, Unclean};
use ext2_dax::mmu::Sharing;
use ext2_dax::trace::{Event, Listener, Record};
use ext2_dax::{DaxFs, DaxOptions, File, Leased, Wait};
use ext2_image::mkfs::{self, Format, Fresh};

use crate::setup::{device, file, map, open};

const AT_LAST: Duration = Duration::from_secs(20);

fn slow() -> Arc<Slow<Arc<RamDevice>>> {
    Arc::new(Slow::new(device(16, Media::Persistent)))
}

/// A file of one page, all of which is durable, and the byte of the device at which it lies.
fn page(fs: &DaxFs) -> (File, u64) {
    let file = file(fs, b"f");
    file.write_at(0, &[1; 4096]).unwrap();
    fs.ext2().sync().unwrap();
    let block = file.inode().map(FileBlock::new(0), 1).unwrap().target.unwrap();
    (file, u64::from(block.get()) * 4096)
}

#[test]
fn a_sync_covers_what_came_back_from_a_lease_while_another_sync_writes_it_back() {
    let device = slow();
    let fs = open(device.clone());
    let (file, byte) = page(&fs);
    let lease = file.lease(0..4096, Access::Write).unwrap();
    let parts = lease.parts().unwrap();
    let Leased::Memory(memory) = parts[0].1 else { panic!("a hole") };
    memory.store_u64(64, 0x1122).unwrap();
    drop(parts);
    drop(lease);
    let (one, other) = (file.clone(), file.clone());
    device.while_kept(byte, move || one.sync().unwrap(), move || other.sync().unwrap());
    // Once each is enough.
    device.watch();
    file.sync().unwrap();
    assert!(!device.has_written(byte));
}

#[test]
fn what_comes_back_from_a_lease_while_a_sync_writes_the_same_memory_is_for_the_next_sync() {
    let device = slow();
    let fs = open(device.clone());
    let (file, byte) = page(&fs);
    let stored = |file: &File| drop(file.lease(0..4096, Access::Write).unwrap().parts().unwrap());
    stored(&file);
    let (told, let_go) = device.keep();
    let own = file.clone();
    let slow = Slow::<RamDevice>::thread(move || own.sync().unwrap());
    told.recv_timeout(AT_LAST).unwrap();
    stored(&file);
    let_go.send(()).unwrap();
    slow.join().unwrap();
    device.watch();
    file.sync().unwrap();
    assert!(device.has_written(byte));
}

/// Keeps a thread named `other` between the look at what is dirty and the writing of it.
#[derive(Debug)]
struct Between(Mutex<Option<Gate>>);

impl Listener for Between {
    fn record(&self, record: &Record) {
        let is_it =
            matches!(record.event, Event::WritebackRange { .. }) && thread::current().name() == Some("other");
        let gate = is_it.then(|| self.0.lock().unwrap().take()).flatten();
        if let Some((there, go)) = gate {
            there.send(()).unwrap();
            go.recv().unwrap();
        }
    }
}

#[test]
fn a_sync_covers_a_page_that_another_sync_has_begun_to_write_back() {
    let device = slow();
    let fs = open(device.clone());
    let (file, byte) = page(&fs);
    let mapped = map(&file, 4096, Sharing::Shared);
    mapped.store(0, 7).unwrap();
    let ((tell, told), (let_go, go)) = (mpsc::channel(), mpsc::channel());
    fs.tracer().listen(Some(Arc::new(Between(Mutex::new(Some((tell, go)))))));
    let (tell_returned, returned) = mpsc::channel();
    let own = file.clone();
    let other = thread::Builder::new().name("other".into()).spawn(move || {
        own.sync().unwrap();
        tell_returned.send(()).unwrap();
    });
    told.recv_timeout(AT_LAST).unwrap();
    let own = file.clone();
    let slow = {
        let (kept, let_write) = device.keep();
        let slow = Slow::<RamDevice>::thread(move || own.sync().unwrap());
        kept.recv_timeout(AT_LAST).unwrap();
        let_go.send(()).unwrap();
        if returned.recv_timeout(Duration::from_millis(300)).is_ok() {
            assert!(device.has_written(byte), "a sync returned before the page was written back");
        }
        let_write.send(()).unwrap();
        slow
    };
    slow.join().unwrap();
    other.unwrap().join().unwrap();
    assert!(device.has_written(byte));
    assert_eq!(file.pages().dirty_entries(), 0);
}

/// A file of twenty pages, all of which are durable.
struct Pages {
    file: File,
    _fs: DaxFs,
    device: Arc<Slow<Arc<RamDevice>>>,
    /// Where page 15 lies on the device.
    byte: u64,
    /// The block of pointers to the pages from the thirteenth on.
    indirect: u64,
}

impl Pages {
    fn new() -> Self {
        let device = slow();
        let fs = open(device.clone());
        let (file, _) = page(&fs);
        file.write_at(0, &[1; 20 * 4096]).unwrap();
        file.sync().unwrap();
        let block = |nr| u64::from(file.inode().map(FileBlock::new(nr), 1).unwrap().target.unwrap().get());
        let data: Vec<u64> = (0..20).map(block).collect();
        let indirect = (0..4096).find(|nr| !data.contains(nr) && is_indirect(&device, *nr, &data)).unwrap();
        Self { file, _fs: fs, device, byte: data[15] * 4096, indirect }
    }

    /// A hole or a truncation that was to take page 15 fails: without the block of pointers nobody knows what would go.
    fn are_not_taken(&self, punches: bool) {
        self.device.inner().poison(self.indirect).unwrap();
        let done = match punches {
            true => self.file.punch_hole(14 * 4096, 3 * 4096, Wait::Yes),
            false => self.file.truncate(14 * 4096, Wait::Yes),
        };
        assert!(done.is_err());
        self.device.inner().heal(self.indirect);
    }
}

/// Whether a block begins with a pointer to the thirteenth of these.
fn is_indirect(device: &Slow<Arc<RamDevice>>, nr: u64, data: &[u64]) -> bool {
    device.read_u32(nr * 4096).is_ok_and(|word| u64::from(word) == data[12])
}

#[test]
fn pages_that_a_truncation_or_a_hole_was_to_take_and_failed_keep_what_was_stored_to_them() {
    for punches in [false, true] {
        let pages = Pages::new();
        let Pages { file, device, byte, .. } = &pages;
        let mapped = map(file, 20 * 4096, Sharing::Shared);
        mapped.store(15 * 4096, 7).unwrap();
        let private = map(file, 20 * 4096, Sharing::Private);
        private.store(16 * 4096, 9).unwrap();
        device.watch();
        pages.are_not_taken(punches);
        file.sync().unwrap();
        assert!(device.has_written(*byte), "punched: {punches}");
        assert_eq!((file.size(), mapped.load(15 * 4096)), (20 * 4096, Ok(7)));
        assert_eq!(private.load(16 * 4096), Ok(9), "a private copy went with a page that stayed");
        // And what went is not written back.
        file.sync().unwrap();
        mapped.store(15 * 4096, 8).unwrap();
        file.truncate(14 * 4096, Wait::Yes).unwrap();
        device.watch();
        file.sync().unwrap();
        assert!(!device.has_written(*byte));
    }
}

#[test]
fn a_sync_of_all_covers_a_file_that_its_last_holder_is_letting_go_of() {
    let device = slow();
    let fs = open(device.clone());
    let (file, byte) = page(&fs);
    let mapped = map(&file, 4096, Sharing::Shared);
    mapped.store(0, 7).unwrap();
    drop(mapped);
    let ext2 = fs.ext2().clone();
    device.while_kept(byte, move || drop(file), move || ext2.sync().unwrap());
}

#[test]
fn what_a_mapping_stored_is_written_back_when_its_file_is_let_go_after_an_error_ended_all_writing() {
    let device = slow();
    let options = OpenOptions { errors: Some(OnError::RemountRo), ..OpenOptions::default() };
    let fs = DaxFs::new(Ext2::open(device.clone(), &options).unwrap(), DaxOptions::default());
    let (file, byte) = page(&fs);
    let mapped = map(&file, 4096, Sharing::Shared);
    mapped.store(0, 7).unwrap();
    fs.ext2().note_broken(&Error::Corrupt(Corrupt::new(Object::Superblock, "a test")));
    assert!(fs.ext2().is_read_only());
    device.watch();
    drop((mapped, file));
    fs.ext2().sync().unwrap();
    assert!(device.has_written(byte), "a sync returned, and what was stored before is not written back");
}

#[test]
fn a_sync_covers_pages_that_a_hole_was_to_take_and_failed_while_it_ran() {
    for truncates in [false, true] {
        let pages = Pages::new();
        let Pages { file, device, byte, .. } = &pages;
        let mapped = map(file, 20 * 4096, Sharing::Shared);
        mapped.store(0, 7).unwrap();
        mapped.store(15 * 4096, 7).unwrap();
        device.watch();
        // A sync, at work on the first page.
        let (kept, let_write) = device.keep();
        let own = file.clone();
        let sync = Slow::<RamDevice>::thread(move || own.sync().unwrap());
        kept.recv_timeout(AT_LAST).unwrap();
        // A change that takes the other page, fails, and leaves it where it is.
        pages.are_not_taken(!truncates);
        let_write.send(()).unwrap();
        sync.join().unwrap();
        assert_eq!(mapped.load(15 * 4096), Ok(7));
        assert!(
            device.has_written(*byte),
            "truncates: {truncates}: a sync returned, and what was stored before it began is not written back"
        );
    }
}

/// What was stored before it may be lost, structures too.
#[test]
fn a_flush_that_failed_is_noted_in_the_image_whoever_asked_for_it() {
    for by in ["file", "mapping", "lease"] {
        let device = Arc::new(Faulty::new(RamDevice::new(8 << 20).unwrap()));
        mkfs::format(
            &*device,
            &Format { block_size: BlockSize::new(4096), ..Format::default() },
            Fresh::Unknown,
        )
        .unwrap();
        let ext2 = Ext2::open(Arc::clone(&device) as Arc<dyn BlockDevice>, &OpenOptions::default()).unwrap();
        let fs = DaxFs::new(ext2.clone(), DaxOptions::default());
        let file = file(&fs, b"f");
        file.write_at(0, &[1; 8192]).unwrap();
        let map = map(&file, 8192, Sharing::Shared);
        map.store(5, 7).unwrap();
        let lease = file.lease(0..8192, Access::Write).unwrap();
        device.arm(Fault::once(Calls::FLUSH, 0));
        let synced = match by {
            "file" => file.sync(),
            "mapping" => map.msync(0, 8192),
            _ => lease.sync(),
        };
        device.disarm();
        assert!(synced.is_err(), "{by}");
        drop((lease, map, file, fs));
        assert_eq!(ext2.close(), Ok(Closed::Unclean(Unclean::Errors)), "{by}");
    }
}
