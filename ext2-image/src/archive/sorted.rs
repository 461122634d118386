//! The members of an archive in the order of a manifest, with memory that does not grow with them: sorted runs in files
//! without names, merged as they are read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::nameless;

/// Bytes of records that are sorted in memory, and then written as a run.
const RUN: usize = 16 << 20;
/// Bytes of a run that are read at once.
const BUFFER: usize = 64 << 10;
/// Bytes that a record takes besides its names, about.
const RECORD: usize = 80;

/// What a member is, as far as its place in the tree asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A directory.
    Directory,
    /// A directory that no member says, but in which one lies.
    Implied,
    /// Another name of what is told by `link`.
    HardLink,
    /// Anything else.
    Other,
}

impl What {
    const ALL: [Self; 4] = [Self::Directory, Self::Implied, Self::HardLink, Self::Other];

    pub(super) fn is_directory(self) -> bool {
        matches!(self, Self::Directory | Self::Implied)
    }
}

/// A member: by what it is sorted, and where it is found again. Ordered by path, and those of one path as they came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record {
    /// The path as a manifest prints it.
    pub(super) key: Box<[u8]>,
    /// Counted as they came.
    pub(super) nr: u64,
    /// The byte of the archive at which its headers begin.
    pub(super) at: u64,
    /// Which of the headers for all members goes for it.
    pub(super) global: u32,
    pub(super) what: What,
    /// Of a hard link: the path that it leads to, as a manifest prints it.
    pub(super) link: Box<[u8]>,
}

impl Record {
    fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        // OK to cast: a path of an archive has a mebibyte at most, four times as much when it is quoted.
        for bytes in [&self.key, &self.link] {
            out.write_all(&(bytes.len() as u32).to_le_bytes())?;
            out.write_all(bytes)?;
        }
        for number in [self.nr, self.at] {
            out.write_all(&number.to_le_bytes())?;
        }
        out.write_all(&self.global.to_le_bytes())?;
        out.write_all(&[self.what as u8])
    }

    /// The next one; none at the end.
    fn read(from: &mut dyn Read) -> io::Result<Option<Self>> {
        let mut length = [0; 4];
        if from.read(&mut length[..1])? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut length[1..])?;
        let key = bytes(from, length)?;
        from.read_exact(&mut length)?;
        let link = bytes(from, length)?;
        let (mut nr, mut at, mut global, mut what) = ([0; 8], [0; 8], [0; 4], [0; 1]);
        from.read_exact(&mut nr)?;
        from.read_exact(&mut at)?;
        from.read_exact(&mut global)?;
        from.read_exact(&mut what)?;
        let what = What::ALL.get(usize::from(what[0])).copied();
        Ok(Some(Self {
            key,
            link,
            nr: u64::from_le_bytes(nr),
            at: u64::from_le_bytes(at),
            global: u32::from_le_bytes(global),
            what: what.ok_or_else(|| io::Error::other("a temporary file was changed"))?,
        }))
    }
}

/// Bytes of which the length was read.
fn bytes(from: &mut dyn Read, length: [u8; 4]) -> io::Result<Box<[u8]>> {
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes.into_boxed_slice())
}

/// Takes records in any order.
#[derive(Debug)]
pub(super) struct Sorter {
    spool: PathBuf,
    run: usize,
    records: Vec<Record>,
    bytes: usize,
    files: Vec<Arc<File>>,
}

impl Sorter {
    /// Files without names go to the folder `spool`.
    pub(super) fn new(spool: &Path) -> Self {
        Self { spool: spool.into(), run: RUN, records: Vec::new(), bytes: 0, files: Vec::new() }
    }

    /// With runs of another length, in bytes.
    #[cfg(test)]
    pub(super) fn with_runs(self, run: usize) -> Self {
        Self { run, ..self }
    }

    pub(super) fn push(&mut self, record: Record) -> io::Result<()> {
        self.bytes += RECORD + record.key.len() + record.link.len();
        self.records.push(record);
        if self.bytes >= self.run { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        self.records.sort_unstable();
        let file = nameless(&self.spool)?;
        let mut out = BufWriter::with_capacity(BUFFER, &file);
        self.records.iter().try_for_each(|record| record.write(&mut out))?;
        out.flush()?;
        drop(out);
        self.files.push(Arc::new(file));
        (self.bytes, self.records) = (0, Vec::new());
        Ok(())
    }

    /// All that were pushed, in order. Few stay in memory.
    pub(super) fn finish(mut self) -> Sorted {
        self.records.sort_unstable();
        Sorted { files: self.files, rest: self.records.into() }
    }
}

/// Records in order, to be read as often as one likes.
#[derive(Clone, Debug)]
pub(super) struct Sorted {
    files: Vec<Arc<File>>,
    rest: Arc<[Record]>,
}

impl Sorted {
    /// From the first record on, those of `more` in their places.
    pub(super) fn records(&self, more: Option<&Self>) -> io::Result<Records> {
        let mut sources = Vec::new();
        for sorted in std::iter::once(self).chain(more) {
            let file = |file: &Arc<File>| {
                let from = FileFrom { file: Arc::clone(file), at: 0 };
                Source::File(BufReader::with_capacity(BUFFER, from))
            };
            sources.extend(sorted.files.iter().map(file));
            sources.push(Source::Memory(Arc::clone(&sorted.rest), 0));
        }
        let mut records = Records { heap: BinaryHeap::new(), sources };
        for source in 0..records.sources.len() {
            records.refill(source)?;
        }
        Ok(records)
    }
}

/// A run.
#[derive(Debug)]
enum Source {
    File(BufReader<FileFrom>),
    Memory(Arc<[Record]>, usize),
}

/// Runs that are merged.
#[derive(Debug)]
pub(super) struct Records {
    heap: BinaryHeap<Reverse<(Record, usize)>>,
    sources: Vec<Source>,
}

impl Records {
    fn refill(&mut self, source: usize) -> io::Result<()> {
        let next = match self.sources.get_mut(source) {
            Some(Source::File(file)) => Record::read(file)?,
            Some(Source::Memory(records, at)) => {
                *at += 1;
                records.get(*at - 1).cloned()
            }
            None => None,
        };
        self.heap.extend(next.map(|record| Reverse((record, source))));
        Ok(())
    }

    /// The next record.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        let Some(Reverse((record, source))) = self.heap.pop() else { return Ok(None) };
        self.refill(source)?;
        Ok(Some(record))
    }

    /// The next path: the last record that came for it, and what came before that.
    pub(super) fn next_path(&mut self) -> io::Result<Option<(Record, Seen)>> {
        let Some(mut last) = self.next()? else { return Ok(None) };
        let mut seen = Seen::default();
        seen.add(last.what);
        while self.heap.peek().is_some_and(|Reverse((record, _))| record.key == last.key) {
            if let Some(later) = self.next()? {
                seen.add(later.what);
                last = later;
            }
        }
        Ok(Some((last, seen)))
    }
}

/// What came for a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Members.
    pub(super) count: u64,
    /// A directory among them.
    pub(super) has_directory: bool,
    /// Something else among them.
    pub(super) has_other: bool,
}

impl Seen {
    fn add(&mut self, what: What) {
        self.count += 1;
        self.has_directory |= what.is_directory();
        self.has_other |= !what.is_directory();
    }
}

/// A file read from a place of its own.
#[derive(Debug)]
struct FileFrom {
    file: Arc<File>,
    at: u64,
}

impl Read for FileFrom {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buf, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_on_disk_are_merged_in_order() {
        let record = |nr: u64| {
            let key = format!("/{:04}", nr * 7919 % 1000).into_bytes().into();
            let link = if nr.is_multiple_of(3) { b"/x".as_slice() } else { b"" };
            let what = What::ALL[nr as usize % 4];
            Record { key, nr, at: nr * 512, global: nr as u32 % 5, what, link: link.into() }
        };
        for run in [3000, 20_000, RUN] {
            let mut sorter = Sorter::new(&std::env::temp_dir()).with_runs(run);
            (0..1500).for_each(|nr| sorter.push(record(nr)).unwrap());
            let sorted = sorter.finish();
            let mut wanted: Vec<Record> = (0..1500).map(record).collect();
            wanted.sort();
            for _ in 0..2 {
                let mut records = sorted.records(None).unwrap();
                let found: Vec<Record> = std::iter::from_fn(|| records.next().unwrap()).collect();
                assert_eq!(found, wanted);
            }
            let mut records = sorted.records(Some(&sorted)).unwrap();
            let paths: Vec<_> = std::iter::from_fn(|| records.next_path().unwrap()).collect();
            assert_eq!(paths.len(), 1000);
            assert!(paths.iter().all(|(last, seen)| last.nr >= 500 && seen.count >= 2));
        }
    }
}
