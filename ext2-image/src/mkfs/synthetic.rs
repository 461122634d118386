//! A disk that is what [`Plan::write`] would write, without writing it: structures in memory, and files where they are.
//!
//! # Invariants
//! 1. What is read is byte for byte the image that the same plan and contents give.
//! 2. A file that is not what it was when the disk was made (its size, its times, its inode) is an error for its own bytes, and
//!    never other bytes. What a file was is asked for again after each read of it.
//! 3. Memory grows with the structures: pages that are zero, and contents, take none.
//!
//! # Locking
//! `readers` is held to take a reader and to give it back, `told` to say that a file has changed; nobody holds both.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use blockdev::{BlockDevice, Extent};

use super::{Body, Contents, Error, NoContents, NodeId, Output, Plan, Report, Result, SourceFile, Stamp};

const PAGE: u64 = 4096;

/// Readers that are kept, each with a file open.
const READERS: usize = 16;

/// A part of a file, where it lies on the disk.
#[derive(Clone, Copy, Debug)]
struct Placed {
    offset: u64,
    from: u64,
    len: u64,
    node: NodeId,
}

/// Bytes of the disk that are of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The first byte of the disk.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// What they are.
    pub kind: SegmentKind,
}

/// What bytes of the disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentKind {
    /// Structures of the file system, and what they leave of a page: read them.
    Structures,
    /// Bytes of a file from `from` on: [`Synthetic::host_file`] has it.
    File {
        /// The file.
        node: NodeId,
        /// The first byte, counted in the file.
        from: u64,
    },
    /// Zeros.
    Zeros,
}

/// A reader of files, and which it has open.
struct Reader {
    contents: Box<dyn Contents + Send>,
    open: Option<NodeId>,
}

/// Readers that nobody uses at the moment.
struct Readers {
    /// Never taken: whoever finds no reader asks it for another.
    source: Box<dyn Contents + Send>,
    /// At most [`READERS`], who came back last at the end.
    kept: Vec<Reader>,
}

impl Readers {
    /// One that has `node` open, if there is one; else the one that was used longest ago, where there are as many as are kept, or
    /// a new one.
    fn take(&mut self, node: NodeId) -> Option<Reader> {
        let at = self.kept.iter().rposition(|reader| reader.open == Some(node));
        match at.or_else(|| (self.kept.len() >= READERS).then_some(0)) {
            Some(at) => Some(self.kept.remove(at)),
            None => self.source.another().map(|contents| Reader { contents, open: None }),
        }
    }

    fn give_back(&mut self, reader: Reader) {
        if self.kept.len() < READERS {
            self.kept.push(reader);
        }
    }
}

/// The disk. It is read-only; lay an overlay over it to write.
pub struct Synthetic {
    plan: Plan,
    report: Report,
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    /// Ascending, and apart.
    parts: Vec<Placed>,
    /// By node, of files that have parts.
    was: Vec<Option<Stamp>>,
    readers: Mutex<Readers>,
    /// Files that were said to have changed.
    told: Mutex<HashSet<NodeId>>,
}

impl std::fmt::Debug for Synthetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut all = f.debug_struct("Synthetic");
        all.field("bytes", &self.plan.bytes()).field("pages", &self.pages.len());
        all.field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}

/// Keeps what is written, and the places of the rest.
#[derive(Default)]
struct Capture {
    size: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    parts: Vec<Placed>,
}

impl Capture {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output for Capture {
    fn size(&self) -> u64 {
        self.size
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut kept = self.kept();
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let within = (at % PAGE) as usize;
            let (piece, after) = rest.split_at(rest.len().min(PAGE as usize - within));
            let is_zero = crate::zeros::is_zero(piece);
            // Nothing is written twice but zeros that others are to be put into.
            if !is_zero || kept.pages.contains_key(&(at / PAGE)) {
                let page = kept.pages.entry(at / PAGE).or_insert_with(|| Box::new([0; PAGE as usize]));
                page[within..within + piece.len()].copy_from_slice(piece);
            }
            (at, rest) = (at + piece.len() as u64, after);
        }
        Ok(())
    }

    fn zero(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn refer(&self, offset: u64, node: NodeId, from: u64, len: u64) -> bool {
        self.kept().parts.push(Placed { offset, from, len, node });
        true
    }
}

impl Synthetic {
    /// The disk that `plan` and `contents` give. Nothing of a file is read, and none is opened that the contents know without that
    /// ([`Contents::stamp`]).
    ///
    /// # Errors
    /// As [`Plan::write`]; `Source` for contents that can only be read from front to back, and for a file that has to be opened
    /// and cannot be.
    pub fn new(plan: Plan, contents: &dyn Contents) -> Result<Self> {
        let (Some(source), Some(first)) = (contents.at_random(), contents.at_random()) else {
            return Err(Error::source(b"/", "its files can only be read from front to back"));
        };
        let capture = Capture { size: plan.bytes(), ..Capture::default() };
        let report = plan.write(&mut NoContents, &capture, &mut |_| ())?;
        let Kept { pages, mut parts } = capture.kept.into_inner().unwrap_or_else(PoisonError::into_inner);
        parts.sort_unstable_by_key(|part| part.offset);
        let mut reader = Reader { contents: first, open: None };
        let mut was: Vec<Option<Stamp>> = Vec::new();
        for part in &parts {
            let at = part.node.index();
            if was.len() <= at {
                was.resize(at + 1, None);
            }
            if was[at].is_none() {
                was[at] = reader.stamp(&plan, part.node)?;
            }
        }
        let readers = Mutex::new(Readers { source, kept: vec![reader] });
        let told = Mutex::new(HashSet::new());
        Ok(Self { plan, report, pages, parts, was, readers, told })
    }

    /// What was planned.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What is in it. Nothing was copied.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report
    }

    /// Bytes of structures that are held in memory.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// The path of a file of a segment, in the tree.
    #[must_use]
    pub fn path(&self, node: NodeId) -> Vec<u8> {
        self.plan.tree.path(node)
    }

    /// What all bytes of the disk are, in ascending order and without a gap.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let segment = self.segment(at, self.plan.bytes() - at)?;
            at += segment.len;
            Some(segment)
        })
    }

    /// What the bytes from `offset` are, at most `len` of them.
    fn segment(&self, offset: u64, len: u64) -> Option<Segment> {
        if len == 0 {
            return None;
        }
        let end = offset + len;
        let next = self.parts.partition_point(|part| part.offset + part.len <= offset);
        let stop = match self.parts.get(next) {
            Some(part) if part.offset <= offset => {
                let from = part.from + (offset - part.offset);
                let len = (part.offset + part.len).min(end) - offset;
                return Some(Segment { offset, len, kind: SegmentKind::File { node: part.node, from } });
            }
            part => part.map_or(end, |part| part.offset.min(end)),
        };
        let first = offset / PAGE;
        let mut pages = self.pages.range(first..).map(|(page, _)| *page);
        let (kind, until) = match pages.next() {
            Some(page) if page == first => {
                let run = pages.zip(first + 1..).take_while(|(page, wanted)| page == wanted).count() as u64;
                (SegmentKind::Structures, (first + 1 + run) * PAGE)
            }
            page => (SegmentKind::Zeros, page.map_or(stop, |page| page * PAGE)),
        };
        Some(Segment { offset, len: until.min(stop) - offset, kind })
    }

    /// A file of a segment as a file of the host, and the byte of it that is its first: to be mapped, or copied by the kernel.
    ///
    /// # Errors
    /// `Source` where it has changed since the disk was made, or lies in no file of the host as it is.
    pub fn host_file(&self, node: NodeId) -> Result<(std::fs::File, u64)> {
        self.with_file(node, |reader, plan| {
            // Whatever is promised of its bytes is looked into by who reads.
            reader.contents.read_at(0, &mut [])?;
            match reader.contents.host_file() {
                Some((file, base)) => {
                    Ok((file.try_clone().map_err(|error| failed(plan, node, error))?, base))
                }
                None => Err(failed(plan, node, "lies in no file of the host as it is")),
            }
        })
    }

    /// Asks of every file whether it is what it was, and gives the paths of those that are not.
    #[must_use]
    pub fn changed(&self) -> Vec<Vec<u8>> {
        let nodes =
            self.plan.tree.ids().filter(|node| self.was.get(node.index()).is_some_and(Option::is_some));
        let changed = nodes.filter(|&node| self.with_file(node, |_, _| Ok(())).is_err());
        changed.map(|node| self.plan.tree.path(node)).collect()
    }

    /// Does something with an open file, which is what it was before and after.
    fn with_file<T>(&self, node: NodeId, work: impl FnOnce(&mut Reader, &Plan) -> Result<T>) -> Result<T> {
        let lock = || self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = lock().take(node);
        let mut reader = taken.ok_or_else(|| failed(&self.plan, node, "cannot be opened by several"))?;
        let done = reader.open(&self.plan, node).and_then(|()| work(&mut reader, &self.plan));
        let same = reader.now().is_ok_and(|now| Some(now) == self.was.get(node.index()).copied());
        let result = match done {
            Ok(value) if same => Ok(value),
            other => {
                reader.close();
                let first = self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
                let error = match other {
                    Err(error) => error,
                    Ok(_) => failed(&self.plan, node, "has changed since the disk was made"),
                };
                if first {
                    log::error!("{error}");
                }
                Err(error)
            }
        };
        lock().give_back(reader);
        result
    }

    fn read_file(&self, node: NodeId, from: u64, buf: &mut [u8]) -> Result<()> {
        self.with_file(node, |reader, _| reader.contents.read_at(from, buf))
    }

    fn read_structures(&self, offset: u64, buf: &mut [u8]) {
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let within = (at % PAGE) as usize;
            let len = rest.len().min(PAGE as usize - within);
            let (piece, after) = rest.split_at_mut(len);
            match self.pages.get(&(at / PAGE)) {
                Some(page) => piece.copy_from_slice(&page[within..within + len]),
                None => piece.fill(0),
            }
            (at, rest) = (at + len as u64, after);
        }
    }
}

fn failed(plan: &Plan, node: NodeId, what: impl core::fmt::Display) -> Error {
    Error::source(&plan.tree.path(node), what)
}

fn source_file(plan: &Plan, node: NodeId) -> Result<SourceFile<'_>> {
    match *plan.tree.body(node) {
        Body::File { size, handle, .. } => Ok(SourceFile { tree: &plan.tree, node, size, handle }),
        _ => Error::format("a part of what is no file is to be read"),
    }
}

impl Reader {
    fn open(&mut self, plan: &Plan, node: NodeId) -> Result<()> {
        if self.open == Some(node) {
            return Ok(());
        }
        self.close();
        self.contents.open(&source_file(plan, node)?)?;
        self.open = Some(node);
        Ok(())
    }

    /// What the file in which those of `node` lie was when the tree was made, or is now; none as for [`now`](Self::now).
    fn stamp(&mut self, plan: &Plan, node: NodeId) -> Result<Option<Stamp>> {
        if let Some(stamp) = self.contents.stamp(&source_file(plan, node)?) {
            return Ok(Some(stamp));
        }
        self.open(plan, node)?;
        self.now().map_err(|error| failed(plan, node, error))
    }

    fn close(&mut self) {
        if self.open.take().is_some() {
            self.contents.abandon();
        }
    }

    /// What the file is now in which the open file lies; none for contents that lie in no file, and do not change.
    fn now(&self) -> std::io::Result<Option<Stamp>> {
        self.contents.lies_in().map(Stamp::of).transpose()
    }
}

impl BlockDevice for Synthetic {
    fn size(&self) -> u64 {
        self.plan.bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> blockdev::Result<()> {
        let size = self.size();
        let len = buf.len() as u64;
        if len > size || offset > size - len {
            return Err(blockdev::Error::OutOfRange { offset, len, size });
        }
        let (mut at, mut rest) = (offset, buf);
        while let Some(segment) = self.segment(at, rest.len() as u64) {
            // OK to cast: at most the buffer's length.
            let (piece, after) = rest.split_at_mut(segment.len as usize);
            match segment.kind {
                SegmentKind::Structures => self.read_structures(at, piece),
                SegmentKind::Zeros => piece.fill(0),
                SegmentKind::File { node, from } => {
                    self.read_file(node, from, piece).map_err(|error| blockdev::Error::Io {
                        op: "read",
                        offset: at,
                        errno: Some(rustix::io::Errno::IO.raw_os_error()),
                        message: error.to_string(),
                    })?;
                }
            }
            (at, rest) = (at + segment.len, after);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> blockdev::Result<()> {
        self.zero(offset, buf.len() as u64)
    }

    fn zero(&self, offset: u64, len: u64) -> blockdev::Result<()> {
        let size = self.size();
        if len > size || offset > size - len {
            return Err(blockdev::Error::OutOfRange { offset, len, size });
        }
        Err(blockdev::Error::ReadOnly)
    }

    fn fence(&self) -> blockdev::Result<()> {
        Ok(())
    }

    fn flush(&self) -> blockdev::Result<()> {
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn discard(&self, offset: u64, len: u64) -> blockdev::Result<()> {
        self.zero(offset, len)
    }

    fn extent(&self, offset: u64, len: u64) -> blockdev::Result<(Extent, u64)> {
        let size = self.size();
        if len > size || offset > size - len {
            return Err(blockdev::Error::OutOfRange { offset, len, size });
        }
        let Some(first) = self.segment(offset, len) else { return Ok((Extent::Data, len)) };
        let is_hole = |segment: &Segment| segment.kind == SegmentKind::Zeros;
        let (hole, mut run) = (is_hole(&first), first.len);
        // A bounded look ahead: an answer may be short.
        for _ in 0..64 {
            match self.segment(offset + run, len - run) {
                Some(next) if is_hole(&next) == hole => run += next.len,
                _ => break,
            }
        }
        Ok((if hole { Extent::Hole } else { Extent::Data }, run))
    }
}

#[cfg(not(miri))]
mod arena;
#[cfg(test)]
mod tests;
