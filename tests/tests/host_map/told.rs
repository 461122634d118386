//! Several mappings of a file, of which one was told of a change and the next was not yet; and the moment at which a file becomes
//! longer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blockdev::{Access, BackingFile, BlockDevice, DaxDevice, DeviceOptions, MmapDevice};
use e2dax_tests::{Hook, memory};
use ext2_core::{BlockSize, FileBlock, FileKind, NewInode};
use ext2_dax::buffer_head::HoleSize;
use ext2_dax::mapping::{PrivateCopies, Translations};
use ext2_dax::mmu::host::HostOptions;
use ext2_dax::mmu::soft::SoftMmu;
use ext2_dax::mmu::{Sharing, VmFile};
use ext2_dax::trace::{Event, Listener, Record};
use ext2_dax::{DataPath, DaxFs, DaxOptions, File, OpenFor, Wait};
use ext2_image::mkfs::{self, Format, Fresh};

use crate::setup::{Image, PAGE, answered, image, map, need_faults, open, request, ways};

/// How long somebody is let in who may have to wait.
const LET_IN: Duration = Duration::from_millis(300);

/// One that maps the file as well, and lets a guest in when it is told.
#[derive(Debug, Default)]
struct Between {
    published: Hook,
    told: Hook,
    grown: Hook,
}

impl Between {
    /// One who maps `file`, until [`leave`](Self::leave).
    fn attach(file: &File) -> Arc<Self> {
        let between = Arc::new(Self::default());
        VmFile::pages(file).attach(between.clone());
        between
    }

    fn leave(self: Arc<Self>, file: &File) {
        let attached: Arc<dyn Translations> = self;
        VmFile::pages(file).detach(&attached);
    }
}

/// What a guest who is let in at `moment` sees while `change` is made: he has a thread of his own, and may have to wait until all
/// were told.
fn seen<T: Send + 'static>(
    moment: &Hook,
    guest: impl FnOnce() -> T + Send + 'static,
    change: impl FnOnce(),
) -> Option<T> {
    let (note, noted) = channel();
    moment.set(move || {
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let seen = guest();
            let _ = tell.send(());
            let _ = note.send(seen);
        });
        let _ = told.recv_timeout(LET_IN);
    });
    change();
    // Nobody would answer where he was not let in.
    if moment.is_set() { None } else { noted.recv().ok() }
}

impl Translations for Between {
    fn zap(&self, _: u64, _: u64, _: PrivateCopies) {}
    fn write_protect(&self, _: u64, _: u64) {}
    fn maps_ahead(&self) -> bool {
        true
    }
    fn published(&self, _: u64, _: u64) {
        self.published.run();
    }
    fn told(&self, _: u64, _: u64) {
        self.told.run();
    }
    fn grown(&self, _: u64, _: u64) {
        self.grown.run();
    }
}

/// Every way to map, with each of the paths that faults go.
fn ways_and_paths() -> impl Iterator<Item = (HostOptions, DataPath)> {
    let both = |way| [DataPath::Iomap, DataPath::BufferHead(HoleSize::InFull)].map(|path| (way, path));
    ways().into_iter().flat_map(both)
}

/// A new file whose faults go this path.
fn file_by(image: &Image, path: DataPath) -> File {
    let fs = DaxFs::new(image.fs.ext2().clone(), DaxOptions { path, ..DaxOptions::default() });
    File::open(&fs, image.inode(b"f"), OpenFor::Writing).unwrap()
}

#[test]
fn a_thread_sees_its_own_store_through_another_mapping_of_the_file() {
    for (way, path) in ways_and_paths() {
        let image = image(32);
        let file = file_by(&image, path);
        file.truncate(4 * PAGE, Wait::Yes).unwrap();
        let one = Arc::new(map(&file, way, 4 * PAGE, Sharing::Shared));
        let between = Between::attach(&file);
        let other = Arc::new(map(&file, way, 4 * PAGE, Sharing::Shared));
        assert_eq!((one.load(PAGE), other.load(PAGE)), (Ok(0), Ok(0)));
        let (by_one, by_other) = (one.clone(), other.clone());
        let store = move || {
            // A load first: what it maps can be stored to without a fault.
            let _ = by_one.load(PAGE);
            (by_one.store(PAGE, 9), by_other.load(PAGE))
        };
        let write = || assert_eq!(file.write_at(PAGE, &[1]), Ok(1));
        let seen = seen(&between.published, store, write);
        // The write may come after the store.
        assert!(matches!(seen, Some((Ok(()), Ok(9 | 1)))), "{way:?}, {path:?}: {seen:?}");
        assert_eq!(one.load(PAGE), other.load(PAGE), "{way:?}, {path:?}");
        between.leave(&file);
        drop((one, other, file));
        image.close();
    }
}

#[test]
fn a_thread_sees_its_own_store_through_a_mapping_in_software_beside_a_store_fault() {
    for (way, path) in ways_and_paths() {
        let image = image(32);
        let file = file_by(&image, path);
        file.truncate(4 * PAGE, Wait::Yes).unwrap();
        let soft = Arc::new(file.map(&SoftMmu::new(), &request(4 * PAGE, Sharing::Shared)).unwrap());
        assert_eq!(soft.load(PAGE), Ok(0));
        let [one, other] = [(); 2].map(|()| Arc::new(map(&file, way, 4 * PAGE, Sharing::Shared)));
        let between = Between::attach(&file);
        let (by_one, by_soft) = (one.clone(), soft.clone());
        let store = move || (by_one.store(PAGE, 9), by_soft.load(PAGE));
        let seen = seen(&between.told, store, || other.store(PAGE + 1, 5).unwrap());
        assert!(matches!(seen, Some((Ok(()), Ok(9)))), "{way:?}, {path:?}: {seen:?}");
        between.leave(&file);
        drop((one, other, soft, file));
        image.close();
    }
}

#[test]
fn a_thread_sees_its_own_store_to_a_page_that_it_loaded_beside_a_write() {
    need_faults!();
    let [extents, pages, _] = answered();
    let image = image(32);
    let file = image.file(b"f");
    file.truncate(4 * PAGE, Wait::Yes).unwrap();
    let between = Between::attach(&file);
    let other = Arc::new(map(&file, extents, 4 * PAGE, Sharing::Shared));
    assert_eq!(other.load(PAGE), Ok(0));
    let one = Arc::new(map(&file, pages, 4 * PAGE, Sharing::Shared));
    let (by_one, by_other) = (one.clone(), other.clone());
    let store = move || {
        let _ = by_one.load(PAGE);
        (by_one.store(PAGE, 9), by_other.load(PAGE))
    };
    let write = || assert_eq!(file.write_at(PAGE, &[1]), Ok(1));
    let seen = seen(&between.published, store, write);
    assert!(matches!(seen, Some((Ok(()), Ok(9 | 1)))), "{seen:?}");
    assert_eq!(one.load(PAGE), other.load(PAGE));
    between.leave(&file);
    drop((one, other, file));
    image.close();
}

#[test]
fn at_every_moment_of_growth_who_sees_the_size_can_load_what_it_covers() {
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        file.write_at(0, &[1; 4096]).unwrap();
        let first = Arc::new(map(&file, way, 4 * PAGE, Sharing::Shared));
        let between = Between::attach(&file);
        let last = Arc::new(map(&file, way, 4 * PAGE, Sharing::Shared));
        let (also, both) = (file.clone(), [first.clone(), last.clone()]);
        let look = move || {
            let end = also.size() - 1;
            both.map(|map| map.load(end))
        };
        let grow = || assert_eq!(file.write_at(PAGE, &[7; 4096]), Ok(4096));
        let seen = seen(&between.grown, look, grow);
        assert!(seen.is_some_and(|seen| seen.iter().all(Result::is_ok)), "{way:?}: {seen:?}");
        assert_eq!([&first, &last].map(|map| map.load(2 * PAGE - 1)), [Ok(7); 2], "{way:?}");
        between.leave(&file);
        drop((first, last, file));
        image.close();
    }
}

#[test]
fn who_follows_a_file_that_grows_by_its_size_meets_no_bus_error() {
    const PAGES: u64 = 2000;
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        file.write_at(0, &[1; 4096]).unwrap();
        let map = map(&file, way, PAGES * PAGE, Sharing::Shared);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let follower = scope.spawn(|| {
                let mut last = 0;
                while !is_over.load(Ordering::SeqCst) {
                    let size = file.size();
                    if size != last {
                        last = size;
                        map.load(size - 1).unwrap_or_else(|signal| panic!("{way:?}: {signal:?} at {size}"));
                    }
                }
            });
            for page in 1..PAGES {
                file.write_at(page * PAGE, &[7; 4096]).unwrap();
            }
            is_over.store(true, Ordering::SeqCst);
            follower.join().unwrap();
        });
        drop((map, file));
        image.close();
    }
}

/// MiB that the process had in memory at most.
fn peak() -> u64 {
    memory::of(std::process::id(), "VmHWM").expect("Linux tells of a process") / 1024
}

#[test]
fn a_hole_that_is_cut_off_or_punched_takes_no_memory() {
    const LEN: u64 = 2 << 30;
    for way in ways() {
        for sharing in [Sharing::Shared, Sharing::Private] {
            let image = image(32);
            let file = image.file(b"f");
            file.truncate(LEN, Wait::Yes).unwrap();
            let map = map(&file, way, LEN, sharing);
            assert_eq!(map.load(LEN - 1), Ok(0));
            let before = peak();
            file.punch_hole(0, LEN, Wait::Yes).unwrap();
            assert_eq!(map.load(LEN - 1), Ok(0));
            file.truncate(0, Wait::Yes).unwrap();
            assert!(map.load(0).is_err(), "{way:?}");
            let more = peak() - before;
            assert!(more < 512, "{more} MiB for a hole, {way:?}, {sharing:?}");
            drop((map, file));
            image.close();
        }
    }
}

#[test]
fn what_is_punched_or_cut_off_under_mappings_is_what_the_file_has_then() {
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        let bytes: Vec<u8> = (0..16).flat_map(|page| [page + 1; PAGE as usize]).collect();
        file.write_at(0, &bytes).unwrap();
        let maps = [(); 2].map(|()| map(&file, way, 16 * PAGE, Sharing::Shared));
        maps.iter().for_each(|map| map.store(3 * PAGE, 99).unwrap());
        file.punch_hole(2 * PAGE + 10, 4 * PAGE, Wait::Yes).unwrap();
        file.truncate(9 * PAGE + 7, Wait::Yes).unwrap();
        let mut now = vec![0; 9 * PAGE as usize + 7];
        file.read_exact_at(0, &mut now).unwrap();
        for map in &maps {
            let mut seen = vec![0; now.len()];
            map.try_load(0, &mut seen).unwrap();
            let differ: Vec<_> = (0..now.len()).filter(|at| seen[*at] != now[*at]).collect();
            assert!(differ.is_empty(), "{way:?}: bytes from {:?} to {:?}", differ.first(), differ.last());
            assert!(map.load(10 * PAGE).is_err(), "{way:?}");
        }
        for map in &maps {
            // A hole that is stored to again, and the page in which the file ends.
            map.store(4 * PAGE, 5).unwrap();
            map.store(9 * PAGE, 6).unwrap();
        }
        assert_eq!(maps.each_ref().map(|map| (map.load(4 * PAGE), map.load(9 * PAGE))), [(Ok(5), Ok(6)); 2]);
        drop((maps, file));
        image.close();
    }
}

/// Stops whoever tells, once, before he tells anybody.
#[derive(Debug)]
struct Stop {
    is_armed: AtomicBool,
    reached: Mutex<Sender<()>>,
    go: Mutex<Receiver<()>>,
}

impl Stop {
    /// One, what it says when somebody is stopped, and what lets him go.
    fn new() -> (Arc<Self>, Receiver<()>, Sender<()>) {
        let ((reached, is_reached), (go, may_go)) = (channel(), channel());
        let stop =
            Self { is_armed: AtomicBool::new(true), reached: Mutex::new(reached), go: Mutex::new(may_go) };
        (Arc::new(stop), is_reached, go)
    }
}

impl Listener for Stop {
    fn record(&self, record: &Record) {
        if matches!(record.event, Event::Invalidate { .. }) && self.is_armed.swap(false, Ordering::SeqCst) {
            self.reached.lock().unwrap().send(()).unwrap();
            self.go.lock().unwrap().recv().unwrap();
        }
    }
}

/// Maps the file in memory and looks at its page 3, so that whoever changes it has an entry to take away.
fn look(file: &File) {
    let soft = file.map(&SoftMmu::new(), &request(4 * PAGE, Sharing::Shared)).unwrap();
    soft.load(3 * PAGE).unwrap();
}

#[test]
fn a_thread_that_maps_the_file_anew_sees_its_own_store_through_another_mapping() {
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        file.truncate(4 * PAGE, Wait::Yes).unwrap();
        let other = map(&file, way, 4 * PAGE, Sharing::Shared);
        assert_eq!(other.load(PAGE), Ok(0));
        look(&file);
        let (stop, is_stopped, go) = Stop::new();
        image.fs.tracer().listen(Some(stop));
        let seen = std::thread::scope(|scope| {
            scope.spawn(|| file.write_at(PAGE, &[1]).unwrap());
            is_stopped.recv().unwrap();
            let one = map(&file, way, 4 * PAGE, Sharing::Shared);
            let seen = (one.store(PAGE, 9), other.load(PAGE));
            go.send(()).unwrap();
            seen
        });
        image.fs.tracer().listen(None);
        assert_eq!(seen, (Ok(()), Ok(9)), "{way:?}");
        drop((other, file));
        image.close();
    }
}

/// A mapped image that stops, once, who reads a block for the second time.
#[derive(Debug)]
struct Pausing {
    inner: MmapDevice,
    block: AtomicU64,
    passed: AtomicBool,
    reached: Mutex<Sender<()>>,
    go: Mutex<Receiver<()>>,
}

impl BlockDevice for Pausing {
    e2dax_tests::forward!(inner: size, write_at, zero, fence, flush);

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> blockdev::Result<()> {
        let is_it = offset / PAGE == self.block.load(Ordering::SeqCst);
        if is_it && self.passed.swap(true, Ordering::SeqCst) {
            self.block.store(u64::MAX, Ordering::SeqCst);
            self.reached.lock().unwrap().send(()).unwrap();
            self.go.lock().unwrap().recv().unwrap();
        }
        self.inner.read_at(offset, buf)
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        self.inner.dax()
    }

    fn backing_file(&self) -> Option<BackingFile<'_>> {
        self.inner.backing_file()
    }
}

/// The block of a page of a file.
fn block_of(file: &File, page: u64) -> Option<u32> {
    file.inode().map(FileBlock::new(page), 1).unwrap().target.map(|block| block.get())
}

/// Whoever takes a lease tells of blocks that another has just given the file. Meanwhile its array of pointers is punched away,
/// if nobody keeps that from happening, and another file stores what leads to a third one's block in its place.
#[test]
fn who_takes_a_lease_beside_a_punch_maps_no_block_of_another_file() {
    need_faults!();
    let path = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    path.as_file().set_len(12 << 20).unwrap();
    let inner = MmapDevice::open(path.path(), &DeviceOptions::read_write()).unwrap();
    let format = Format { block_size: BlockSize::new(4096), reserved_percent: 0.0, ..Format::default() };
    mkfs::format(&inner, &format, Fresh::Unknown).unwrap();
    let ((reached, is_reading), (go_read, may_read)) = (channel(), channel());
    let (block, passed) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
    let device =
        Arc::new(Pausing { inner, block, passed, reached: Mutex::new(reached), go: Mutex::new(may_read) });
    let fs = open(device.clone());
    let create = |name: &[u8]| {
        let new = NewInode::new(FileKind::Regular, 0o644);
        let inode = fs.ext2().root().unwrap().create(name, &new).unwrap();
        File::open(&fs, inode, OpenFor::Writing).unwrap()
    };
    let (file, secret, filler) = (create(b"f"), create(b"secret"), create(b"g"));
    secret.write_at(0, &[0x5e; 4096]).unwrap();
    // It has its arrays of pointers.
    for page in [12, 1036, 2060] {
        filler.write_at(page * PAGE, &[1; 4096]).unwrap();
    }
    let victim = block_of(&secret, 0).unwrap();
    file.truncate(1024 * PAGE, Wait::Yes).unwrap();
    file.write_at(700 * PAGE, &[7; 4096]).unwrap();
    let data = block_of(&file, 700).unwrap();
    // The array of pointers of pages 12 to 1035.
    let is_array = |block: &u64| {
        let mut bytes = [0; 4096];
        device.read_at(block * PAGE, &mut bytes).unwrap();
        bytes[688 * 4..689 * 4] == data.to_le_bytes() && bytes[..688 * 4].iter().all(|byte| *byte == 0)
    };
    let array = (0..device.size() / PAGE).find(is_array).unwrap();
    let mapped = map(&file, answered()[0], 600 * PAGE, Sharing::Shared);
    assert_eq!(mapped.load(100 * PAGE), Ok(0));
    look(&file);
    let lease = file.lease(100 * PAGE..101 * PAGE, Access::Write).unwrap();
    let (stop, is_telling, go_tell) = Stop::new();
    fs.tracer().listen(Some(stop));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| file.write_all_at(650 * PAGE, &[1]).unwrap());
        is_telling.recv().unwrap();
        device.block.store(array, Ordering::SeqCst);
        let leaser = scope.spawn(|| lease.runs().unwrap());
        is_reading.recv().unwrap();
        go_tell.send(()).unwrap();
        let (tell, told) = channel();
        let (file, filler) = (&file, &filler);
        let puncher = scope.spawn(move || {
            // Where the write has told of its blocks, if it need not wait to do so.
            std::thread::sleep(LET_IN);
            file.punch_hole(600 * PAGE, 424 * PAGE, Wait::Yes).unwrap();
            let words = victim.to_le_bytes().repeat(1024);
            let _ = (0..).take_while(|page| filler.write_at(page * PAGE, &words).is_ok()).last();
            let _ = tell.send(());
        });
        let _ = told.recv_timeout(Duration::from_secs(2));
        go_read.send(()).unwrap();
        for thread in [writer, puncher] {
            thread.join().unwrap();
        }
        leaser.join().unwrap();
    });
    fs.tracer().listen(None);
    assert_eq!(mapped.load(100 * PAGE), Ok(0));
    // What is stored there goes to the file, or nowhere where no block is left.
    let _ = mapped.store(100 * PAGE, 1);
    let mut bytes = [0; 4096];
    secret.read_exact_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0x5e; 4096]);
}
