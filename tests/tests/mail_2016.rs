//! The six points of the mail of 26 August 2016 ("Re: [PATCH v2 2/9] ext2: tell DAX the size of allocation
//! holes"), one test each. Each ends with a mutant: the behaviour that the point speaks against, put
//! before the same check, which must refuse it.

#[allow(dead_code)] // shared with the tests of ext2-dax, which use more of it
#[path = "../../ext2-dax/tests/it/fake.rs"]
mod fake;
#[allow(dead_code)]
#[path = "../../ext2-dax/tests/it/noted.rs"]
mod noted;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use blockdev::{Access, BlockDevice, DaxDevice, PmemSlice};
use e2dax_tests::oracle::empty_device;
use ext2_core::{Ext2, FileKind, NewInode, OpenOptions};
use ext2_dax::Wait;
use ext2_dax::buffer_head::HoleSize;
use ext2_dax::entry::{Content, Order, PAGE_SIZE, PMD_SIZE};
use ext2_dax::fault::{DaxInode, Fallback, device_page};
use ext2_dax::iomap::{Iomap, MapFlags, MapKind};
use ext2_dax::mmu::soft::{MapRequest, Signal, SoftMap, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::rw::Limits;
use ext2_dax::trace::Event;
use ext2_dax::uio::Sink;
use ext2_dax::{Compat, DataPath, DaxFs, DaxOptions, File, OpenFor};
use fake::{Call, FakeFile};

fn ext2_file(options: DaxOptions) -> (DaxFs, File) {
    let ext2 = Ext2::open(empty_device(), &OpenOptions::default()).unwrap();
    let new = NewInode { kind: FileKind::Regular, mode: 0o644, uid: 0, gid: 0, umask: 0, device: None };
    let inode = ext2.root().unwrap().create(b"f", &new).unwrap();
    let fs = DaxFs::new(ext2, options);
    let file = File::open(&fs, inode, OpenFor::Writing).unwrap();
    (fs, file)
}

fn request(len: u64) -> MapRequest {
    MapRequest { offset: 0, len, sharing: Sharing::Shared, protection: Protection::ReadWrite, colour: 0 }
}

/// A buffer that, once bytes arrive, waits a while for another to have bytes arrive, too.
struct Meeting<'a> {
    inside: &'a AtomicUsize,
    met: &'a AtomicBool,
    patience: Duration,
}

impl Sink for Meeting<'_> {
    fn put(&mut self, from: &PmemSlice<'_>) -> ext2_dax::Result<u64> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        let start = Instant::now();
        while start.elapsed() < self.patience && !self.met.load(Ordering::SeqCst) {
            if self.inside.load(Ordering::SeqCst) == 2 {
                self.met.store(true, Ordering::SeqCst);
            }
            std::thread::yield_now();
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        Ok(from.len())
    }

    fn put_zeros(&mut self, len: u64) -> u64 {
        len
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> u64 {
        bytes.len() as u64
    }
}

/// How long to wait for what is not to come.
const SHORT: Duration = Duration::from_millis(300);

/// Whether two readers of one file are in the copy at the same time, where the first waits so long for the second.
fn readers_meet(file: &File, patience: Duration) -> bool {
    let (inside, met) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut sink = Meeting { inside: &inside, met: &met, patience };
                file.read_to(0, PAGE_SIZE, &mut sink, Limits::default()).unwrap();
            });
        }
    });
    met.load(Ordering::SeqCst)
}

/// "It also gets rid of the other warts of the DAX path due to pretending to be like direct I/O": no
/// DIO_LOCKING, no dio count; truncation is kept away by the file system's own lock.
#[test]
fn point_1_dax_does_not_pretend_to_be_direct_io() {
    let (fs, file) = ext2_file(DaxOptions::default());
    file.write_at(0, &[1; 4096]).unwrap();
    assert!(readers_meet(&file, Duration::from_secs(30)), "two readers exclude each other");
    assert_eq!(fs.asked().dio_counts, 0);
    assert_eq!(fs.asked().exclusive_locks, 1, "only the write had the inode for itself");

    // Truncation waits for a reader all the same.
    let (inside, met) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut sink = Meeting { inside: &inside, met: &met, patience: SHORT };
            file.read_to(0, PAGE_SIZE, &mut sink, Limits::default()).unwrap()
        });
        while inside.load(Ordering::SeqCst) == 0 && !reader.is_finished() {
            std::thread::yield_now();
        }
        file.truncate(0, Wait::Yes).unwrap();
        assert_eq!(inside.load(Ordering::SeqCst), 0, "a reader was inside when the file was truncated");
        assert_eq!(reader.join().unwrap(), PAGE_SIZE);
    });

    // The mutant is the old path.
    let path = DataPath::BufferHead(HoleSize::Untold);
    let (fs, old) = ext2_file(DaxOptions { path, ..DaxOptions::default() });
    old.write_at(0, &[1; 4096]).unwrap();
    assert!(!readers_meet(&old, SHORT));
    assert!(fs.asked().dio_counts > 0);
}

/// Lines of code of this crate's sources that write a page mask out by hand.
fn masks(name: &str, text: &str) -> Vec<String> {
    let by_hand = ["!(PAGE_SIZE", "& (PAGE_SIZE", "0xfff", "4095", ">> 12", "<< 12"];
    let code = |line: &&str| !line.trim_start().starts_with("//");
    text.lines()
        .filter(code)
        .filter(|line| by_hand.iter().any(|mask| line.contains(mask)))
        .map(|line| format!("{name}: {line}"))
        .collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for item in std::fs::read_dir(dir).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../ext2-dax/src"), &mut found);
    found
}

/// The page that holds byte `pos`, by the definition: the page of the byte's own address.
fn finds_the_page(page: impl Fn(u64, u64, u64) -> u64) -> bool {
    (0..3 * PAGE_SIZE).step_by(509).all(|within| {
        [0, 1000, 4095].into_iter().all(|skew| {
            let (addr, offset) = (40 * PAGE_SIZE + skew, 7 * PAGE_SIZE + skew);
            let pos = offset + within;
            page(addr, offset, pos) * PAGE_SIZE + pos % PAGE_SIZE == addr + pos - offset
        })
    })
}

/// "I noticed that you used `~(PAGE_SIZE - 1)` in several places … instead of PAGE_MASK."
#[test]
fn point_2_one_helper_turns_an_offset_into_a_page() {
    let by_hand: Vec<String> =
        sources().iter().flat_map(|(path, text)| masks(&path.display().to_string(), text)).collect();
    assert!(by_hand.is_empty(), "{}", by_hand.join("\n"));
    let ours = |addr, offset, pos| {
        device_page(&Iomap::<()>::mapped(offset, 4 * PAGE_SIZE, addr), pos).unwrap().get()
    };
    assert!(finds_the_page(ours));
    // A mapping for which the expression cannot be right is refused.
    assert!(device_page(&Iomap::<()>::mapped(0, PAGE_SIZE, 512), 0).is_err());

    let masked_by_hand = |addr, offset, pos: u64| (addr + ((pos - offset) & !(PAGE_SIZE - 1))) / PAGE_SIZE;
    assert!(!finds_the_page(masked_by_hand));
    assert_eq!(masks("mutant", "let page = (addr & !(PAGE_SIZE - 1)) >> 12;").len(), 1);
}

/// The modules of this crate that a source names.
fn modules_named(text: &str) -> Vec<&str> {
    text.match_indices("crate::")
        .map(|(at, prefix)| {
            let rest = &text[at + prefix.len()..];
            &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
        })
        .collect()
}

fn knows_nothing_of_dax(text: &str) -> bool {
    modules_named(text).iter().all(|module| matches!(*module, "error" | "iomap" | "iter" | "map_kind"))
        && !text.contains("blockdev")
}

/// "It's kind of weird having iomap_dax_fault() in fs/dax.c but having iomap_dax_actor() and iomap_dax_rw()
/// in fs/iomap.c": the iterator is one thing, what DAX does with a mapping another.
#[test]
fn point_3_the_iterator_knows_nothing_of_dax() {
    let mut checked = 0;
    for (path, text) in sources() {
        let name = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("../ext2-dax/src")).unwrap();
        if ["iomap.rs", "iter.rs", "map_kind.rs"].iter().any(|file| name == Path::new(file)) {
            assert!(knows_nothing_of_dax(&text), "{}: {:?}", name.display(), modules_named(&text));
            checked += 1;
        }
    }
    assert_eq!(checked, 3);
    assert!(!knows_nothing_of_dax("use crate::iomap::Iomap;\nuse crate::fault::FaultResult;\n"));
}

/// What a writer does with a mapping that is not mapped: its error number, and whether memory changed.
fn meets_unmapped(kind: MapKind, write: impl Fn(&FakeFile) -> i32) -> (i32, bool) {
    let file = FakeFile::new(Compat::FULL);
    file.device.write_at(5 * PAGE_SIZE, &[7; 16]).unwrap();
    file.answer(move |_, _, _| {
        let addr = (kind != MapKind::Hole).then_some(5 * PAGE_SIZE);
        let mut map = Iomap::hole(0, PAGE_SIZE);
        (map.kind, map.addr) = (kind, addr);
        Some(Ok(map))
    });
    let errno = write(&file);
    let mut bytes = [0; 16];
    file.device.read_at(5 * PAGE_SIZE, &mut bytes).unwrap();
    let ends: Vec<Call> = file.calls().into_iter().filter(|call| matches!(call, Call::End { .. })).collect();
    assert_eq!(ends, [Call::End { pos: 0, len: 16, written: 0 }], "one end, with nothing written");
    (errno, bytes != [7; 16])
}

/// "If we hit this we should bail with -EIO, yea? Otherwise we could write to unmapped space or something
/// horrible."
#[test]
fn point_4_a_write_to_what_is_not_mapped_is_eio() {
    for kind in [MapKind::Hole, MapKind::Delalloc, MapKind::Unwritten, MapKind::Inline] {
        let write = |file: &FakeFile| file.write(0, &[1; 16]).unwrap_err().errno().get();
        assert_eq!(meets_unmapped(kind, write), (5, false), "{kind:?}");

        // By a fault it is SIGBUS, and no page is left in use.
        let file = FakeFile::new(Compat { pmd_faults: ext2_dax::compat::PmdFaults::Never, ..Compat::FULL });
        file.set_size(PAGE_SIZE);
        file.answer(move |_, _, _| {
            let mut map = Iomap::hole(0, PAGE_SIZE);
            map.kind = kind;
            Some(Ok(map))
        });
        let map = SoftMmu::new().map(file.clone(), &request(PAGE_SIZE)).unwrap();
        assert_eq!(map.store(0, 1), Err(Signal::Bus));
        let entries = DaxInode::pages(&*file).entries();
        assert!(entries.iter().all(|entry| !entry.locked && entry.content == Content::Empty));
    }
    // Shared blocks are copied before they are written, so there they may be unwritten.
    let file = FakeFile::new(Compat::FULL);
    file.answer(|_, _, _| {
        let mut map = Iomap::mapped(0, PAGE_SIZE, 5 * PAGE_SIZE);
        (map.kind, map.flags) = (MapKind::Unwritten, MapFlags::SHARED);
        Some(Ok(map))
    });
    assert_eq!(file.write(0, &[1; 16]).unwrap(), 16);

    // The mutant warns, and goes on.
    let mutant = |file: &FakeFile| {
        use ext2_dax::iomap::{IomapOps, OpFlags};
        let map = file.begin(0, 16, OpFlags::WRITE).unwrap();
        if let Some(addr) = map.addr {
            let page = file.device.direct_access(addr / PAGE_SIZE, 1, Access::Write).unwrap();
            page.copy_in(0, &[1; 16]).unwrap();
        }
        file.end(0, 16, 0, OpFlags::WRITE, map).unwrap();
        0
    };
    assert_ne!(meets_unmapped(MapKind::Unwritten, mutant), (5, false));
}

/// Sizes of files, pages, and whether the page is past the end.
const EOF_CASES: [(u64, u64, bool); 14] = [
    (0, 0, true),
    (1, 0, false),
    (1, 1, true),
    (4095, 0, false),
    (4095, 1, true),
    (4096, 0, false),
    (4096, 1, true),
    (4097, 1, false),
    (4097, 2, true),
    (4098, 2, true),
    (8192, 1, false),
    (8192, 2, true),
    (1 << 41, (1 << 29) - 1, false),
    (1 << 41, 1 << 29, true),
];

fn agrees_about_eof(is_past: impl Fn(u64, u64) -> bool) -> bool {
    EOF_CASES.iter().all(|&(size, page, past)| is_past(size, page) == past)
}

/// "So, I think the test should just be: if (pos >= i_size_read(inode))". The mail's sum is off by two
/// (8191, not 8193); its conclusion stands.
#[test]
fn point_5_the_first_page_past_the_end_is_sigbus() {
    let fault = |size: u64, page: u64| {
        let file = FakeFile::new(Compat::FULL);
        file.set_size(size);
        let request = MapRequest { offset: page * PAGE_SIZE, ..request(PAGE_SIZE) };
        let map = SoftMmu::new().map(file.clone(), &request).unwrap();
        let died = map.load(0) == Err(Signal::Bus);
        assert!(!died || DaxInode::pages(&*file).pages() == 0, "an entry was made past the end");
        died
    };
    assert!(agrees_about_eof(fault));
    // The old check, in pages, is the same.
    assert!(agrees_about_eof(|size, page| page >= size.div_ceil(PAGE_SIZE)));

    let as_the_mail_quotes_it = |size: u64, page: u64| page * PAGE_SIZE >= size + PAGE_SIZE - 1;
    assert!(!agrees_about_eof(as_the_mail_quotes_it));
    assert!(!as_the_mail_quotes_it(4096, 1), "the mail's own example");
}

/// Faults (2 MiB, 4 KiB) and questions that loading 2 MiB of hole takes; and why it fell back.
fn load_a_hole(compat: Compat) -> (u64, u64, usize, Vec<Fallback>) {
    let file = FakeFile::new(compat);
    file.set_size(PMD_SIZE);
    let map = SoftMmu::new().map(file.clone(), &request(PMD_SIZE)).unwrap();
    map.load_bytes(0, &mut vec![1; PMD_SIZE as usize]).unwrap();
    let counters = map.mmu().counters();
    let begins = file.calls().iter().filter(|call| matches!(call, Call::Begin { .. })).count();
    (counters.pmd_faults, counters.pte_faults, begins, fallbacks(&file))
}

fn fallbacks(file: &FakeFile) -> Vec<Fallback> {
    let reason = |event: Event| match event {
        Event::Fallback { reason, .. } => Some(reason),
        _ => None,
    };
    file.log.take().iter().filter_map(|record| reason(record.event)).collect()
}

fn map_of(file: &Arc<FakeFile>) -> SoftMap {
    SoftMmu::new().map(file.clone(), &request(PMD_SIZE)).unwrap()
}

/// "The current PMD logic requires us to know the size of the hole. This is important so that we can fault
/// in a huge zero page if we have a 2 MiB hole. It's fine if that 2 MiB page then gets fragmented into 4k
/// DAX allocations when we start to do writes, but the path the other way doesn't work."
#[test]
fn point_6_the_size_of_a_hole_decides_what_can_be_mapped() {
    // A 2 MiB hole: one fault, one question, one entry.
    assert_eq!(load_a_hole(Compat::FULL), (1, 0, 1, vec![]));

    // It is fragmented into 4 KiB when a write comes.
    let file = FakeFile::new(Compat::FULL);
    file.set_size(PMD_SIZE);
    let map = map_of(&file);
    map.load(0).unwrap();
    let huge = DaxInode::pages(&*file).entries();
    assert_eq!((huge.len(), huge[0].order, huge[0].content), (1, Order::Pmd, Content::Zero));
    file.write(3 * PAGE_SIZE, &[9; 4096]).unwrap();
    assert_eq!((map.load(3 * PAGE_SIZE), map.load(4 * PAGE_SIZE)), (Ok(9), Ok(0)));
    assert!(DaxInode::pages(&*file).entries().iter().all(|entry| entry.order == Order::Pte));

    // The other way does not work: a 4 KiB entry keeps the unit small, without a question, until it goes.
    let file = FakeFile::new(Compat::FULL);
    file.set_size(PMD_SIZE);
    let small = SoftMmu::new().map(file.clone(), &request(PAGE_SIZE)).unwrap();
    small.load(0).unwrap();
    fallbacks(&file);
    let large = map_of(&file);
    large.load(0).unwrap();
    assert_eq!(fallbacks(&file), [Fallback::Conflict]);
    DaxInode::pages(&*file).invalidate(0, 512);
    let again = map_of(&file);
    again.load(0).unwrap();
    assert_eq!(again.mmu().counters().pmds, 1);

    // The same on ext2, and for read(2): one question for a hole of 1 GiB.
    let (fs, file) = ext2_file(DaxOptions::default());
    file.truncate(1 << 30, Wait::Yes).unwrap();
    let read = |file: &File| file.read_to(0, 1 << 30, &mut Nothing, Limits::default()).unwrap();
    assert_eq!(read(&file), 1 << 30);
    assert_eq!(fs.asked().calls, 1);

    // The mutant answers one block, whatever was asked.
    let one_block = Compat { holes: ext2_dax::compat::Holes::OneBlock, ..Compat::FULL };
    assert_eq!(load_a_hole(one_block), (1, 512, 513, vec![Fallback::TooShort]));
    let (fs, file) = ext2_file(DaxOptions { compat: one_block, ..DaxOptions::default() });
    file.truncate(1 << 30, Wait::Yes).unwrap();
    read(&file);
    assert_eq!(fs.asked().calls, 1 << 18);
}

/// A buffer that takes everything and keeps nothing.
struct Nothing;

impl Sink for Nothing {
    fn put(&mut self, from: &PmemSlice<'_>) -> ext2_dax::Result<u64> {
        Ok(from.len())
    }

    fn put_zeros(&mut self, len: u64) -> u64 {
        len
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> u64 {
        bytes.len() as u64
    }
}
