//! What whoever maps the pages of a file is told of: which bytes go, come and are new, to the byte, and no more than that.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice};
use ext2_core::placement::{FreeSpace, Placed, Placement, Request, Which};
use ext2_core::plumbing::{AddressSpace, Allocate, Plumbing, Publisher, Stores, Taken};
use ext2_core::{
    BlockSize, Errno, Error, Ext2, FileBlock, FileKind, Inode, NewInode, OpenOptions, Result, Wait,
};
use ext2_image::mkfs::{self, Format, Fresh};

const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// Bytes go, and whether that change was made.
    Goes(Range<u64>, Taken, bool),
    /// It is waited for who leases them.
    Waits(Range<u64>),
    /// Blocks came.
    Came(Range<u64>, Publisher),
    /// The file is longer.
    Longer(Range<u64>),
    /// What was stored to them is to be written back.
    WrittenBack(Range<u64>),
}

use Told::{Came, Goes, Longer, Waits, WrittenBack};

/// Who maps the pages. It can refuse to let bytes go, once.
#[derive(Debug, Default)]
struct Pages {
    told: Mutex<Vec<Told>>,
    refuses: Mutex<Option<Errno>>,
}

impl Pages {
    fn of(file: &Inode) -> Arc<Self> {
        let pages = Arc::new(Self::default());
        let shared = Arc::clone(&pages);
        file.attach(move || shared);
        pages
    }

    fn note(&self, told: Told) {
        self.told.lock().expect("held by nobody").push(told);
    }

    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().expect("held by nobody"))
    }

    fn refuse(&self, errno: Errno) {
        *self.refuses.lock().expect("held by nobody") = Some(errno);
    }
}

impl AddressSpace for Pages {
    fn invalidate(
        &self,
        range: Range<u64>,
        why: Taken,
        change: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        if let Some(errno) = self.refuses.lock().expect("held by nobody").take() {
            self.note(Goes(range, why, false));
            return Err(Error::Caller(errno, "refused by a test"));
        }
        let done = change();
        self.note(Goes(range, why, done.is_ok()));
        done
    }

    fn wait_idle(&self, range: Range<u64>) -> Result<()> {
        self.note(Waits(range));
        Ok(())
    }

    fn published(&self, range: Range<u64>, by: Publisher) {
        self.note(Came(range, by));
    }

    fn grow(&self, range: Range<u64>, change: &mut dyn FnMut()) {
        self.note(Longer(range));
        change();
    }

    fn write_back(&self, range: Range<u64>) -> Result<()> {
        self.note(WrittenBack(range));
        Ok(())
    }

    fn stop_stores(&self) -> Stores {
        Stores::Ended
    }

    fn resume_stores(&self) {}
}

/// The first free blocks for everything; a file that grows past 8 KiB is moved to a unit of its own.
#[derive(Debug)]
struct Low;

impl Placement for Low {
    fn place<'s>(&self, space: &'s FreeSpace<'_>, _: &Request) -> Result<Option<Placed<'s>>> {
        let taken = space.search(1, space.groups(), Which::EvenReserved)?;
        Ok(taken.map(|taken| Placed { taken, window: None }))
    }

    fn small_file_bytes(&self) -> Option<u64> {
        Some(8 << 10)
    }
}

/// A file system of so many MiB in blocks of 1024 bytes.
fn fresh(mib: u64, placement: Option<Arc<dyn Placement>>) -> (Arc<Faulty<RamDevice>>, Ext2) {
    let device = Arc::new(Faulty::new(RamDevice::new(mib << 20).expect("memory")));
    let format = Format { block_size: BlockSize::new(1024), reserved_percent: 0.0, ..Format::default() };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    let fs = Ext2::open(device.clone(), &OpenOptions { placement, ..OpenOptions::default() }).expect("open");
    (device, fs)
}

fn create(fs: &Ext2, name: &str) -> (Inode, Arc<Pages>) {
    let file = fs.root().expect("root").create(name, &FILE).expect("created");
    let pages = Pages::of(&file);
    (file, pages)
}

/// The blocks that a file has: each with the block of the device.
fn blocks(file: &Inode) -> Vec<(u64, u32)> {
    let run = |run: Result<ext2_core::Mapping>| {
        let run = run.expect("whole");
        (run.start.get()..run.end().get()).zip(run.target.expect("data").get()..)
    };
    file.extents().flat_map(run).collect()
}

#[test]
fn who_maps_a_file_is_told_of_the_bytes_that_change_and_of_no_others() {
    let (_, fs) = fresh(4, None);
    let (file, pages) = create(&fs, "file");
    file.write_at(0, &[1; 100]).expect("written");
    assert_eq!(pages.take(), [Came(0..1024, Publisher::Call), Longer(0..100)]);
    // Up to the old end, and one byte past it.
    file.write_at(50, &[2; 50]).expect("written");
    assert_eq!(pages.take(), []);
    file.write_at(50, &[2; 51]).expect("written");
    assert_eq!(pages.take(), [Longer(100..101)]);
    file.raise_size(200, 150).expect("raised");
    file.raise_size(200, 200).expect("as it is");
    assert_eq!(pages.take(), [Longer(101..200)]);
    file.truncate(20_480, Wait::Yes).expect("longer");
    file.truncate(20_480, Wait::Yes).expect("as it is");
    assert_eq!(pages.take(), [Longer(200..20_480)]);
    // Into a hole, from one byte to another.
    file.write_at(5 * 1024 + 100, &[3; 1024]).expect("written");
    assert_eq!(pages.take(), [Came(5 * 1024..7 * 1024, Publisher::Call)]);
    let got = file.map_for_write(FileBlock::new(8), 3, Allocate::Published).expect("mapped");
    assert!(got.new && got.mapping.count == 3);
    assert_eq!(pages.take(), [Came(8 * 1024..11 * 1024, Publisher::Call)]);
    file.map_for_write(FileBlock::new(14), 1, Allocate::Fault).expect("mapped");
    assert_eq!(pages.take(), [Came(14 * 1024..15 * 1024, Publisher::Fault)]);
    file.punch_hole(14 * 1024 + 1, 1024, Wait::Yes).expect("punched");
    assert_eq!(pages.take(), [Goes(14 * 1024 + 1..15 * 1024 + 1, Taken::Punched, true)]);
    file.truncate(3000, Wait::Yes).expect("shorter");
    assert_eq!(pages.take(), [Goes(3000..20_480, Taken::Truncated, true)]);
    file.free_past_size().expect("freed");
    // No page; only whoever looks at the map is kept away.
    assert_eq!(pages.take(), [Goes(3072..3072, Taken::Truncated, true)]);
    file.sync().expect("synced");
    assert_eq!(pages.take(), [WrittenBack(0..u64::MAX)]);
    drop(file);
    assert_eq!(pages.take(), [WrittenBack(0..u64::MAX)]);
}

#[test]
fn blocks_that_are_there_are_not_told_of() {
    let (device, fs) = fresh(4, None);
    let (file, _) = create(&fs, "file");
    file.write_at(20 * 1024, &[1; 1024]).expect("written");
    drop(file);
    fs.close().expect("closed");
    // Nothing is known of it now.
    let fs = Ext2::open(device, &OpenOptions::default()).expect("open");
    let file = fs.root().expect("root").lookup("file").expect("there");
    let pages = Pages::of(&file);
    assert_eq!(file.known_run(FileBlock::new(20), 1), None);
    let got = file.map_for_write(FileBlock::new(20), 1, Allocate::Published).expect("mapped");
    assert!(!got.new && !got.mapping.is_hole());
    assert_eq!(pages.take(), []);
}

#[test]
fn a_change_waits_for_the_bytes_that_it_takes() {
    let (_, fs) = fresh(4, None);
    let (file, pages) = create(&fs, "file");
    file.write_at(0, &[1; 9000]).expect("written");
    pages.take();
    pages.refuse(Errno::BUSY);
    file.punch_hole(1000, 3001, Wait::Yes).expect("punched");
    let punched = |done| Goes(1000..4001, Taken::Punched, done);
    assert_eq!(pages.take(), [punched(false), Waits(1000..4001), punched(true)]);
    pages.refuse(Errno::BUSY);
    file.truncate(77, Wait::Yes).expect("cut");
    let cut = |done| Goes(77..9 * 1024, Taken::Truncated, done);
    assert_eq!(pages.take(), [cut(false), Waits(77..9 * 1024), cut(true)]);
    pages.refuse(Errno::BUSY);
    let error = file.truncate(7, Wait::No).expect_err("refused");
    assert!(error.is(Errno::BUSY), "{error}");
}

#[test]
fn once_a_file_ends_before_them_its_pages_are_gone_whatever_fails_after_it() {
    let mut seen = [false; 2];
    for after in 0.. {
        let (device, fs) = fresh(4, None);
        let (file, pages) = create(&fs, "file");
        file.write_at(0, &[1; 20 << 10]).expect("written");
        pages.take();
        device.arm(Fault::once(Calls::WRITE | Calls::FENCE | Calls::ZERO, after));
        let done = file.truncate(5000, Wait::Yes);
        let struck = device.fired() > 0;
        device.disarm();
        if !struck {
            done.expect("cut");
            break;
        }
        done.expect_err("the device failed");
        let is_cut = file.size() == 5000;
        seen[usize::from(is_cut)] = true;
        assert_eq!(pages.take(), [Goes(5000..20 << 10, Taken::Truncated, is_cut)], "call {after}");
    }
    assert_eq!(seen, [true; 2]);
}

/// Writes so many blocks from one of a file on.
fn write(file: &Inode, at: u64, count: u64) -> Result<usize> {
    file.write_at(at * 1024, &vec![at as u8 + 1; (count * 1024) as usize])
}

#[test]
fn a_small_file_moves_when_it_grows_past_what_is_small_and_only_what_lies_before_the_write() {
    const UNIT: u64 = 2048;
    // What is there, what is written, and what moves.
    for (there, (at, count), moves) in [
        (&[(0, 8)][..], (8, 1), Some(0..8)),
        (&[(0, 7)], (7, 1), None),
        (&[(0, 7)], (7, 2), Some(0..7)),
        (&[(0, 8)], (9, 1), None),
        (&[(0, 2), (3, 5)], (6, 20), Some(0..6)),
        (&[(2, 1)], (8, 3), Some(0..8)),
        (&[(UNIT, 4)], (UNIT + 4, 5), Some(UNIT..UNIT + 4)),
        (&[(UNIT, 4)], (UNIT + 4, 4), Some(UNIT..UNIT + 4)),
    ] {
        let (_, fs) = fresh(16, Some(Arc::new(Low)));
        let (file, pages) = create(&fs, "file");
        for &(at, count) in there {
            write(&file, at, count).expect("written");
        }
        let before = blocks(&file);
        pages.take();
        write(&file, at, count).expect("written");
        let gone: Vec<_> = pages.take().into_iter().filter(|told| matches!(told, Goes(..))).collect();
        let expected =
            moves.clone().map(|moves| Goes(moves.start * 1024..moves.end * 1024, Taken::Moved, true));
        assert_eq!(gone, Vec::from_iter(expected), "{there:?}, a write of {at}+{count}");
        let after = blocks(&file);
        for (block, place) in before {
            let is_moved = moves.as_ref().is_some_and(|moves| moves.contains(&block));
            assert_eq!(
                !after.contains(&(block, place)),
                is_moved,
                "block {block} of {there:?}, {at}+{count}"
            );
            let mut bytes = [0; 1024];
            file.read_at(block * 1024, &mut bytes).expect("read");
            let mut writes = there.iter().copied().chain([(at, count)]);
            let own = writes.rfind(|(at, count)| (*at..at + count).contains(&block)).expect("written");
            assert_eq!(bytes, [own.0 as u8 + 1; 1024], "block {block} of {there:?}");
        }
    }
}

#[test]
fn blocks_that_somebody_holds_stay_where_they_are_and_the_write_is_done() {
    for (errno, is_done) in [(Errno::BUSY, true), (Errno::NOSPC, true), (Errno::PERM, false)] {
        let (_, fs) = fresh(16, Some(Arc::new(Low)));
        let (file, pages) = create(&fs, "file");
        write(&file, 0, 6).expect("written");
        let before = blocks(&file);
        pages.take();
        pages.refuse(errno);
        let done = write(&file, 6, 6);
        assert_eq!(pages.take()[0], Goes(0..6 * 1024, Taken::Moved, false), "{errno}");
        assert_eq!(done.is_ok(), is_done, "{errno}: {done:?}");
        assert_eq!(blocks(&file)[..6], before, "{errno}");
    }
}

/// Blocks are taken for a write, others come to some of its bytes before it publishes them: what was written is copied there.
#[test]
fn what_is_written_goes_into_the_blocks_that_a_fault_gave_the_file_meanwhile() {
    // The bytes that are written, and the blocks that the fault gives.
    for (written, fault) in [
        (2 * 1024 + 100..102 * 1024 - 50, (20, 75)),
        (2 * 1024 + 100..102 * 1024 - 50, (2, 1)),
        (2 * 1024 + 100..102 * 1024 - 50, (99, 3)),
        (2 * 1024..102 * 1024, (3, 70)),
    ] {
        let (device, fs) = fresh(4, None);
        let (file, _) = create(&fs, "file");
        // The indirect block is there, so that nothing else comes behind what the fault gets.
        file.write_at(150 << 10, &[0]).expect("written");
        let io = file.io_lock().write();
        let got = file.map_for_write(FileBlock::new(2), 100, Allocate::AfterFill).expect("blocks");
        let (mapping, unpublished) = (got.mapping, got.unpublished.expect("blocks to fill"));
        assert_eq!(mapping.count, 100);
        let pattern: Vec<u8> = (0..100 << 10).map(|at: usize| (at % 251) as u8 + 1).collect();
        let place = u64::from(mapping.target.expect("blocks").get()) * 1024;
        // Also past the written bytes, which is not to be seen.
        device.write_at(place, &pattern).expect("filled");
        let (at, count) = fault;
        let theirs = file.map_for_write(FileBlock::new(at), count, Allocate::Fault).expect("blocks");
        assert_eq!((theirs.mapping.count, theirs.new), (count, true));
        let theirs = theirs.mapping.target.expect("blocks").get();
        let behind = u64::from(theirs) * 1024 + count * 1024;
        let beside = |device: &dyn BlockDevice| {
            let mut bytes = vec![0; 64 << 10];
            device.read_at(behind, &mut bytes).expect("read");
            bytes
        };
        device.write_at(behind, &[0xee; 64 << 10]).expect("stored");
        unpublished.publish(written.clone()).expect("published");
        drop(io);
        assert!(beside(&*device) == vec![0xee; 64 << 10], "{written:?}: more is copied than was written");
        for nr in at..at + count {
            assert!(blocks(&file).contains(&(nr, theirs + (nr - at) as u32)), "block {nr}");
        }
        let mut bytes = vec![0; 150 << 10];
        file.read_at(0, &mut bytes).expect("read");
        for (at, byte) in (0..).zip(bytes) {
            let expected = if written.contains(&at) { pattern[at as usize - 2048] } else { 0 };
            assert_eq!(byte, expected, "byte {at} of {written:?}");
        }
    }
}
