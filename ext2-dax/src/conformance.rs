//! What every file system behind [`IomapOps`](crate::iomap::IomapOps) must do, as one suite that anybody's can run.
//!
//! A file system that passes gives readers, writers and mappings the same bytes, none that are another file's, and keeps
//! what it reported. [`check`] goes through all rules, each on a fresh file; [`RULES`] names them one by one.
//!
//! ```text
//! #[test]
//! fn my_file_system_keeps_the_contract() {
//!     ext2_dax::conformance::check(|| MyFile::on_a_used_disk()).unwrap();
//! }
//! ```

use std::fmt;
use std::sync::Arc;

use crate::Wait;
use crate::entry::{PAGE_SIZE, PMD_PAGES, PMD_SIZE};
use crate::error::Result;
use crate::fault::DaxInode;
use crate::iomap::{MapKind, OpFlags};
use crate::iter::{IomapIter, Step};
use crate::mmu::soft::{MapRequest, Signal, SoftMap, SoftMmu};
use crate::mmu::{Protection, Sharing, VmFile};
use crate::rw::{self, Limits};
use crate::uio::{Faulting, SliceSink, SliceSource};

/// A file of the file system under test. Each that is made is empty and new, on a device with at least 16 MiB free, whose
/// free blocks hold bytes other than zero: what others left there.
pub trait Subject: DaxInode + VmFile + 'static {
    /// Sets the size, by way of [`take_pages`](crate::truncate::take_pages) where it becomes smaller.
    ///
    /// # Errors
    /// The file system's.
    fn set_size(&self, size: u64, wait: Wait) -> Result<()>;

    /// Pages of the device that are the file's data.
    fn data_pages(&self) -> u64;
}

/// A rule that is not kept, and how that showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The rule's name in [`RULES`].
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

impl std::error::Error for Broken {}

/// The names of the rules, in the order in which they are looked at.
pub const RULES: [&str; 12] = [
    "an answer covers the byte asked, and a hole is told in full",
    "looking allocates nothing",
    "a write raises the size to what was written, and no further",
    "no byte that nobody wrote is seen in a block that a write made",
    "a write that moved nothing leaves nothing to see",
    "a write that ends early keeps what it reported",
    "a block that a store fault made is zero but for the store, and the size stays",
    "a store fault of 2 MiB leaves a whole unit or one page",
    "who maps a hole sees what is written there later",
    "who maps a hole sees what is stored there later through another mapping",
    "what truncation takes is mapped by nobody, and growing shows zeros",
    "a private store stays private",
];

/// Looks at all rules.
///
/// # Errors
/// The first that is not kept.
pub fn check<S: Subject>(make: impl Fn() -> Arc<S>) -> Result<(), Broken> {
    let rules: [fn(&Arc<S>) -> Outcome; RULES.len()] = [
        answers,
        looking,
        size_follows,
        parts_of_blocks,
        nothing_moved,
        early_end,
        fault_is_zero,
        whole_or_one,
        write_under_hole,
        store_under_hole,
        truncation,
        private,
    ];
    for (rule, test) in RULES.into_iter().zip(rules) {
        test(&make()).map_err(|Said(what)| Broken { rule, what })?;
    }
    Ok(())
}

/// Why a rule is not kept.
struct Said(String);

type Outcome = Result<(), Said>;

impl<E: fmt::Debug> From<E> for Said
where
    E: std::error::Error,
{
    fn from(error: E) -> Self {
        Self(format!("{error:?}"))
    }
}

fn need(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Said(what())) }
}

fn same<T: PartialEq + fmt::Debug>(what: &str, got: T, wanted: T) -> Outcome {
    need(got == wanted, || format!("{what}: {got:?} instead of {wanted:?}"))
}

fn write<S: Subject>(file: &S, pos: u64, bytes: &[u8]) -> Result<u64> {
    rw::write(file, pos, bytes.len() as u64, &mut SliceSource::new(bytes), Limits::default())
}

fn read<S: Subject>(file: &S, pos: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0xa5; len];
    let got = rw::read(file, pos, len as u64, &mut SliceSink::new(&mut bytes), Limits::default())?;
    // OK to cast: at most `len`.
    bytes.truncate(got as usize);
    Ok(bytes)
}

fn map<S: Subject>(file: &Arc<S>, len: u64, sharing: Sharing) -> Result<SoftMap> {
    let file: Arc<dyn VmFile> = Arc::<S>::clone(file);
    let protection = Protection::ReadWrite;
    SoftMmu::new().map(file, &MapRequest { offset: 0, len, sharing, protection, colour: 0 })
}

fn died(signal: Signal) -> Said {
    Said(format!("an access inside the file died of {signal}"))
}

/// Kind and bytes from `pos` of one answer.
fn ask<S: Subject>(file: &S, pos: u64, len: u64) -> Result<(MapKind, u64), Said> {
    let mut iter = IomapIter::new(file, pos, len, OpFlags::DAX);
    if !iter.next()? {
        return Err(Said(format!("no answer for byte {pos}")));
    }
    let kind = iter.iomap().map_or(MapKind::Hole, |iomap| iomap.kind);
    let length = iter.length();
    iter.processed(Step::Done(length));
    Ok((kind, length))
}

fn answers<S: Subject>(file: &Arc<S>) -> Outcome {
    file.set_size(2 * PMD_SIZE, Wait::Yes)?;
    same("a hole of 4 MiB", ask(&**file, 0, 2 * PMD_SIZE)?, (MapKind::Hole, 2 * PMD_SIZE))?;
    write(&**file, 5 * PAGE_SIZE, &[1; PAGE_SIZE as usize])?;
    same("the hole before data", ask(&**file, 0, PMD_SIZE)?, (MapKind::Hole, 5 * PAGE_SIZE))?;
    same("within the hole", ask(&**file, PAGE_SIZE + 1, PMD_SIZE)?, (MapKind::Hole, 4 * PAGE_SIZE - 1))?;
    same("data", ask(&**file, 5 * PAGE_SIZE + 7, 100)?.0, MapKind::Mapped)?;
    let rest = PMD_SIZE - 6 * PAGE_SIZE;
    same("the hole after data", ask(&**file, 6 * PAGE_SIZE, rest)?, (MapKind::Hole, rest))
}

fn looking<S: Subject>(file: &Arc<S>) -> Outcome {
    file.set_size(PMD_SIZE, Wait::Yes)?;
    same("a hole read", read(&**file, 0, 10_000)?, vec![0; 10_000])?;
    same("a hole loaded", map(file, PMD_SIZE, Sharing::Shared)?.load(70_000).map_err(died)?, 0)?;
    ask(&**file, 0, PMD_SIZE)?;
    same("pages of data", file.data_pages(), 0)
}

fn size_follows<S: Subject>(file: &Arc<S>) -> Outcome {
    same("bytes written", write(&**file, 100, b"hello")?, 5)?;
    same("the size after 5 bytes at 100", file.size(), 105)?;
    write(&**file, 0, b"x")?;
    same("the size after a write inside", file.size(), 105)
}

fn parts_of_blocks<S: Subject>(file: &Arc<S>) -> Outcome {
    write(&**file, 100, b"hello")?;
    let mut wanted = vec![0; 100];
    wanted.extend(b"hello");
    same("the block's beginning", read(&**file, 0, 200)?, wanted.clone())?;
    file.set_size(3 * PAGE_SIZE, Wait::Yes)?;
    wanted.resize(3 * PAGE_SIZE as usize, 0);
    let got = read(&**file, 0, wanted.len())?;
    let wrong = got.iter().zip(&wanted).position(|(got, wanted)| got != wanted);
    need(wrong.is_none() && got.len() == wanted.len(), || {
        format!("after growth {} bytes, the first wrong one at {wrong:?}", got.len())
    })?;
    // Into the middle of a hole inside the file.
    write(&**file, PAGE_SIZE + 300, b"again")?;
    wanted[PAGE_SIZE as usize + 300..][..5].copy_from_slice(b"again");
    let got = read(&**file, 0, wanted.len())?;
    let wrong = got.iter().zip(&wanted).position(|(got, wanted)| got != wanted);
    need(wrong.is_none(), || format!("a write into a hole shows other bytes beside it, at {wrong:?}"))?;
    write(&**file, 5 * PAGE_SIZE + 10, &[7; 3 * PAGE_SIZE as usize])?;
    same("before a write past the end", read(&**file, 5 * PAGE_SIZE, 10)?, vec![0; 10])
}

fn nothing_moved<S: Subject>(file: &Arc<S>) -> Outcome {
    let mut source = Faulting::new(SliceSource::new(&[9; 5000]), 0);
    let done = rw::write(&**file, 0, 5000, &mut source, Limits::default());
    need(done.is_err(), || format!("a write whose source cannot be read says {done:?}"))?;
    same("the size", file.size(), 0)?;
    file.set_size(8192, Wait::Yes)?;
    same("what is read then", read(&**file, 0, 8192)?, vec![0; 8192])
}

fn early_end<S: Subject>(file: &Arc<S>) -> Outcome {
    let bytes = vec![7; 5 * PAGE_SIZE as usize];
    let good = 2 * PAGE_SIZE + 100;
    let mut source = Faulting::new(SliceSource::new(&bytes), good);
    let done = rw::write(&**file, 0, bytes.len() as u64, &mut source, Limits::default())?;
    need(done > 0 && done <= good, || format!("{done} bytes are reported of {good} that could be read"))?;
    same("the size is what was reported", file.size(), done)?;
    same("what was reported", read(&**file, 0, bytes.len())?, vec![7; done as usize])?;
    file.set_size(bytes.len() as u64, Wait::Yes)?;
    let rest = read(&**file, done, bytes.len())?;
    need(rest.iter().all(|byte| *byte == 0), || "what was not written is not zero after growth".to_owned())
}

fn fault_is_zero<S: Subject>(file: &Arc<S>) -> Outcome {
    // Not a whole unit, so that the fault is one of 4 KiB.
    let size = 100 * PAGE_SIZE + 10;
    file.set_size(size, Wait::Yes)?;
    let map = map(file, size, Sharing::Shared)?;
    map.store(50 * PAGE_SIZE + 3, 9).map_err(died)?;
    same("the size", file.size(), size)?;
    same("pages of data after one byte", file.data_pages(), 1)?;
    let mut wanted = vec![0; PAGE_SIZE as usize];
    wanted[3] = 9;
    let mut got = vec![1; PAGE_SIZE as usize];
    map.load_bytes(50 * PAGE_SIZE, &mut got).map_err(|dead| died(dead.signal))?;
    need(got == wanted, || "the mapped page has bytes that nobody stored".to_owned())?;
    need(read(&**file, 50 * PAGE_SIZE, PAGE_SIZE as usize)? == wanted, || {
        "a read sees other bytes".to_owned()
    })
}

fn whole_or_one<S: Subject>(file: &Arc<S>) -> Outcome {
    file.set_size(2 * PMD_SIZE, Wait::Yes)?;
    // In the second unit a page is there, so that no unit of it can be made.
    write(&**file, PMD_SIZE + 7 * PAGE_SIZE, &[1; PAGE_SIZE as usize])?;
    let map = map(file, 2 * PMD_SIZE, Sharing::Shared)?;
    map.store(5 * PAGE_SIZE, 1).map_err(died)?;
    let first = file.data_pages() - 1;
    need(first == 1 || first == PMD_PAGES, || format!("{first} pages for one byte in a hole of 2 MiB"))?;
    need(map.mmu().counters().pmds == u64::from(first == PMD_PAGES), || {
        format!("{first} pages were allocated, and {} units are mapped", map.mmu().counters().pmds)
    })?;
    map.store(PMD_SIZE + 9 * PAGE_SIZE, 1).map_err(died)?;
    same("pages for one byte beside data", file.data_pages() - 1 - first, 1)?;
    let mut unit = vec![1; PMD_SIZE as usize];
    map.load_bytes(0, &mut unit).map_err(|dead| died(dead.signal))?;
    let stray = (0..).zip(&unit).find(|&(at, byte)| *byte != u8::from(at == 5 * PAGE_SIZE));
    need(stray.is_none(), || {
        format!("byte {} of the unit is not what was stored", stray.map_or(0, |(at, _)| at))
    })
}

fn write_under_hole<S: Subject>(file: &Arc<S>) -> Outcome {
    file.set_size(PMD_SIZE, Wait::Yes)?;
    let map = map(file, PMD_SIZE, Sharing::Shared)?;
    same("the hole", map.load(8192).map_err(died)?, 0)?;
    write(&**file, 8192, &[5; 100])?;
    same("loaded after the write", map.load(8192 + 99).map_err(died)?, 5)?;
    same("loaded beside it", map.load(8192 + 100).map_err(died)?, 0)
}

fn store_under_hole<S: Subject>(file: &Arc<S>) -> Outcome {
    let size = 40 * PAGE_SIZE;
    file.set_size(size, Wait::Yes)?;
    let (one, other) = (map(file, size, Sharing::Shared)?, map(file, size, Sharing::Shared)?);
    same("the hole", one.load(0).map_err(died)?, 0)?;
    other.store(0, 6).map_err(died)?;
    same("loaded through the first mapping", one.load(0).map_err(died)?, 6)?;
    other.msync(0, size)?;
    same("dirty entries after msync", DaxInode::pages(&**file).dirty_entries(), 0)?;
    one.store(1, 7).map_err(died)?;
    need(DaxInode::pages(&**file).dirty_entries() > 0, || {
        "a store after msync leaves nothing dirty".to_owned()
    })
}

fn truncation<S: Subject>(file: &Arc<S>) -> Outcome {
    write(&**file, 0, &[1; 4 * PAGE_SIZE as usize])?;
    let map = map(file, 4 * PAGE_SIZE, Sharing::Shared)?;
    map.store(3 * PAGE_SIZE, 2).map_err(died)?;
    file.set_size(PAGE_SIZE + 10, Wait::Yes)?;
    same("a page past the end", map.load(3 * PAGE_SIZE), Err(Signal::Bus))?;
    same("pages of data", file.data_pages(), 2)?;
    // The last page stays mapped, and what is stored past the end must not be seen when the file grows.
    map.store(PAGE_SIZE + 100, 3).map_err(died)?;
    file.set_size(4 * PAGE_SIZE, Wait::Yes)?;
    let got = read(&**file, PAGE_SIZE, 3 * PAGE_SIZE as usize)?;
    let mut wanted = vec![1; 10];
    wanted.resize(3 * PAGE_SIZE as usize, 0);
    need(got == wanted, || {
        let at = got.iter().zip(&wanted).position(|(got, wanted)| got != wanted);
        format!("after growth, {} bytes, the first wrong one at {at:?}", got.len())
    })?;
    same("the page again", map.load(3 * PAGE_SIZE).map_err(died)?, 0)
}

fn private<S: Subject>(file: &Arc<S>) -> Outcome {
    write(&**file, 0, &[1; PAGE_SIZE as usize])?;
    let (mine, theirs) = (map(file, PAGE_SIZE, Sharing::Private)?, map(file, PAGE_SIZE, Sharing::Shared)?);
    mine.store(0, 9).map_err(died)?;
    same("loaded by others", theirs.load(0).map_err(died)?, 1)?;
    write(&**file, 0, &[2; 10])?;
    same("loaded by who stored", mine.load(0).map_err(died)?, 9)?;
    same("read", read(&**file, 0, 1)?, vec![2])
}
