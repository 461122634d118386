//! Doing what a script says.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use ext2_core::{FileKind, Inode, InodeNr};

use super::mapped::{AddressSpace, Mapped};
use super::namespace;
use super::parse::{Line, MapMode, Op, Script};
use super::pattern::{CrcSink, PatternSource};
use crate::Wait;
use crate::entry::PAGE_SIZE;
use crate::error::{Errno, Error, Result};
use crate::file::{File, OpenFor};
use crate::mmu::Protection;
use crate::mmu::soft::{MapRequest, Signal, SoftMap, SoftMmu};
use crate::rw::Limits;
use crate::trace::{EventLog, Record, oracle};
use crate::uio::Faulting;
use crate::volume::DaxFs;

/// What an operation came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Number of the operation, from 1.
    pub number: usize,
    /// How it was written.
    pub text: String,
    /// What it gave: `ok`, `n=4096`, `errno=28`, `signal=SIGBUS`, …
    pub result: String,
    /// What it caused, in order.
    pub events: Vec<Record>,
}

impl Outcome {
    /// Appends the lines of the recordings' format: the result, and under it, if `events` are wanted,
    /// those that the kernel has, too.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write_oracle(&self, out: &mut impl Write, events: Events) -> fmt::Result {
        writeln!(out, "op {} {} => {}", self.number, self.text, self.result)?;
        if events == Events::Shown {
            for line in self.events.iter().filter_map(|record| oracle::line(&record.event)) {
                writeln!(out, "    {line}")?;
            }
        }
        Ok(())
    }
}

/// Whether events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Events {
    /// Under the operation that caused them.
    Shown,
    /// Not.
    Hidden,
}

/// A program and the kernel under it: what stays from one operation to the next.
#[derive(Debug)]
pub struct Player {
    fs: DaxFs,
    log: Arc<EventLog>,
    mmu: AddressSpace,
    maps: BTreeMap<String, Mapped>,
    /// Mappings whose names were given to others; they live on, as in a process that forgot them.
    forgotten: Vec<Mapped>,
    /// The inode cache: pages of a file outlive the calls that brought them in.
    files: BTreeMap<InodeNr, File>,
    played: usize,
}

/// The longest transfer of one system call: Linux's `MAX_RW_COUNT`.
const LONGEST_TRANSFER: u64 = 0x7fff_f000;

/// What an operation gives when it is done.
enum Done {
    Ok,
    Text(String),
    Died(Signal),
}

impl Player {
    /// A program on `fs`. Events of the file system go to this player from now on.
    #[must_use]
    pub fn new(fs: DaxFs) -> Self {
        Self::with(fs, AddressSpace::Soft(SoftMmu::new()))
    }

    /// As [`new`](Self::new); what is mapped is mapped into this process.
    #[cfg(all(target_os = "linux", not(miri), not(loom)))]
    #[must_use]
    pub fn with_host(fs: DaxFs, mmu: Arc<crate::mmu::host::HostMmu>) -> Self {
        Self::with(fs, AddressSpace::Host(mmu))
    }

    fn with(fs: DaxFs, mmu: AddressSpace) -> Self {
        let log = EventLog::new();
        fs.tracer().listen(Some(Arc::clone(&log) as _));
        Self { fs, log, mmu, maps: BTreeMap::new(), forgotten: Vec::new(), files: BTreeMap::new(), played: 0 }
    }

    /// The address space of the program, where it is a page table in software.
    #[must_use]
    pub fn mmu(&self) -> Option<&Arc<SoftMmu>> {
        self.mmu.soft()
    }

    /// The file system of the program.
    #[must_use]
    pub fn fs(&self) -> &DaxFs {
        &self.fs
    }

    /// The files in the inode cache, by inode number.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.files.values()
    }

    /// The mappings that have names, by name, where they are a page table in software.
    pub fn maps(&self) -> impl Iterator<Item = (&str, &SoftMap)> {
        self.maps.iter().filter_map(|(name, map)| Some((name.as_str(), map.soft()?)))
    }

    /// Plays a whole script and shows `each` outcome.
    pub fn play(&mut self, script: &Script, mut each: impl FnMut(&Outcome)) {
        for line in &script.lines {
            each(&self.step(line));
        }
    }

    /// Plays one operation.
    pub fn step(&mut self, line: &Line) -> Outcome {
        self.played += 1;
        let result = match self.run(&line.op) {
            Ok(Done::Ok) => "ok".to_owned(),
            Ok(Done::Text(text)) => text,
            Ok(Done::Died(signal)) => format!("signal={signal}"),
            Err(error) => {
                log::debug!(target: "ext2_dax::replay", "{}: {error}", line.text);
                format!("errno={}", error.errno().get())
            }
        };
        Outcome { number: self.played, text: line.text.clone(), result, events: self.log.take() }
    }

    fn run(&mut self, op: &Op) -> Result<Done> {
        let fs = self.fs.ext2().clone();
        match op {
            Op::Create { path } => namespace::create(&fs, path)?,
            Op::Mkdir { path } => namespace::mkdir(&fs, path)?,
            Op::Symlink { target, path } => namespace::symlink(&fs, target, path)?,
            Op::Link { from, to } => namespace::link(&fs, from, to)?,
            Op::Rmdir { path } => namespace::rmdir(&fs, path)?,
            Op::Unlink { path } => {
                namespace::unlink(&fs, path)?;
                self.forget_deleted();
            }
            Op::Rename { from, to } => {
                namespace::rename(&fs, from, to)?;
                self.forget_deleted();
            }
            Op::Stat { path } => return Ok(Done::Text(namespace::stat(&namespace::find(&fs, path)?))),
            Op::Write { path, pos, len, seed, good } => return self.write(path, *pos, *len, *seed, *good),
            Op::Read { path, pos, len, good } => return self.read(path, *pos, *len, *good),
            Op::Truncate { path, size } => {
                let size = signed(*size)?;
                self.file(path)?.truncate(size, Wait::Yes)?;
            }
            Op::Fsync { path } => {
                let inode = namespace::find(&fs, path)?;
                match inode.kind() {
                    FileKind::Regular => self.file(path)?.sync()?,
                    _ => inode.sync()?,
                }
            }
            Op::Fallocate { path, pos, len, .. } => {
                let (_, len) = (signed(*pos)?, signed(*len)?);
                if len == 0 {
                    return Err(Error::refused(Errno::INVAL, "nothing to allocate"));
                }
                self.file(path)?;
                // What every mounted ext2 answers. Holes are punched by a call of its own.
                return Err(Error::refused(Errno::OPNOTSUPP, "ext2 has no fallocate"));
            }
            Op::Fiemap { path } => return self.fiemap(path),
            // A negative offset lies past the end, as Linux compares it (`generic_file_llseek_size`).
            Op::SeekHole { path, pos } => {
                return Ok(Done::Text(format!("off={}", self.file(path)?.seek_hole(*pos)?)));
            }
            Op::SeekData { path, pos } => {
                return Ok(Done::Text(format!("off={}", self.file(path)?.seek_data(*pos)?)));
            }
            Op::Map { name, path, pos, len, kind, delta } => {
                self.map(name, path, *pos, *len, *kind, *delta)?;
            }
            Op::Unmap { name } => {
                self.map_named(name)?;
                self.maps.remove(name);
                self.forget_deleted();
            }
            Op::Load { name, pos } => {
                return Ok(match self.map_named(name)?.load(*pos) {
                    Ok(byte) => Done::Text(format!("byte={byte:02x}")),
                    Err(signal) => Done::Died(signal),
                });
            }
            Op::Store { name, pos, value } => {
                return Ok(self.map_named(name)?.store(*pos, *value).map_or_else(Done::Died, |()| Done::Ok));
            }
            Op::Touch { name, pos, len } => return touch(self.map_named(name)?, *pos, *len),
            Op::Mcrc { name, pos, len } => return mcrc(self.map_named(name)?, *pos, *len),
            Op::Msync { name, pos, len } => self.map_named(name)?.msync(*pos, *len)?,
        }
        Ok(Done::Ok)
    }

    /// The file at `path`, from the inode cache if it is there.
    fn file(&mut self, path: &str) -> Result<File> {
        let inode = namespace::find(self.fs.ext2(), path)?;
        self.file_of(inode)
    }

    fn file_of(&mut self, inode: Inode) -> Result<File> {
        if let Some(file) = self.files.get(&inode.nr()) {
            return Ok(file.clone());
        }
        let nr = inode.nr();
        let file = File::open(&self.fs, inode, OpenFor::Writing)?;
        self.files.insert(nr, file.clone());
        Ok(file)
    }

    /// Lets go of files that have no name any more; who still maps them keeps them.
    fn forget_deleted(&mut self) {
        self.files.retain(|_, file| file.inode().attr().links > 0);
    }

    fn map_named(&self, name: &str) -> Result<&Mapped> {
        self.maps.get(name).ok_or(Error::refused(Errno::INVAL, "no mapping has this name"))
    }

    fn write(&mut self, path: &str, pos: u64, len: u64, seed: u64, good: Option<u64>) -> Result<Done> {
        let file = self.file(path)?;
        let len = transfer(pos, len)?;
        let pattern = PatternSource::new(pos, len, seed);
        let done = match good {
            None => file.write_from(pos, len, &mut { pattern }, Limits::default()),
            Some(good) => file.write_from(pos, len, &mut Faulting::new(pattern, good), Limits::default()),
        }?;
        Ok(Done::Text(format!("n={done}")))
    }

    fn read(&mut self, path: &str, pos: u64, len: u64, good: Option<u64>) -> Result<Done> {
        let file = self.file(path)?;
        let len = transfer(pos, len)?;
        Ok(Done::Text(match good {
            None => {
                let mut sink = CrcSink::default();
                let done = file.read_to(pos, len, &mut sink, Limits::default())?;
                format!("n={done} crc={:08x}", sink.crc())
            }
            Some(good) => {
                let mut sink = Faulting::new(CrcSink::default(), good);
                format!("n={}", file.read_to(pos, len, &mut sink, Limits::default())?)
            }
        }))
    }

    fn fiemap(&mut self, path: &str) -> Result<Done> {
        if namespace::find(self.fs.ext2(), path)?.kind() == FileKind::Directory {
            return Err(Error::refused(Errno::OPNOTSUPP, "ext2 has no FIEMAP of directories"));
        }
        let extents = self.file(path)?.extents()?;
        let mut text = format!("extents={}", extents.len());
        for range in extents {
            text.push_str(&format!(" {}:{}", range.start, range.end - range.start));
        }
        Ok(Done::Text(text))
    }

    fn map(&mut self, name: &str, path: &str, pos: u64, len: u64, kind: MapMode, delta: u64) -> Result<()> {
        let inode = namespace::find(self.fs.ext2(), path)?;
        if inode.kind() == FileKind::Directory && kind.protection == Protection::ReadOnly {
            return Err(Error::refused(Errno::NODEV, "a directory cannot be mapped"));
        }
        let cached = self.file_of(inode.clone())?;
        let file = match kind.protection {
            Protection::ReadOnly => File::open(&self.fs, inode, OpenFor::Reading)?,
            Protection::ReadWrite => cached,
        };
        let request = MapRequest {
            offset: pos,
            len,
            sharing: kind.sharing,
            protection: kind.protection,
            colour: delta,
        };
        let map = self.mmu.map(&file, &request)?;
        self.forgotten.extend(self.maps.insert(name.to_owned(), map));
        Ok(())
    }
}

/// A number that a system call takes as a signed offset.
fn signed(value: u64) -> Result<u64> {
    match i64::try_from(value) {
        Ok(_) => Ok(value),
        Err(_) => Err(Error::refused(Errno::INVAL, "the number is negative")),
    }
}

/// The bytes that one `pread` or `pwrite` moves at most.
fn transfer(pos: u64, len: u64) -> Result<u64> {
    let end = pos.checked_add(len).filter(|end| i64::try_from(*end).is_ok());
    match end {
        Some(_) => Ok(len.min(LONGEST_TRANSFER)),
        None => Err(Error::refused(Errno::INVAL, "the range has no signed offsets")),
    }
}

/// Loads one byte of each page.
fn touch(map: &Mapped, pos: u64, len: u64) -> Result<Done> {
    let mut sum = 0_u64;
    let mut at = 0;
    while at < len {
        match map.load(pos.saturating_add(at)) {
            Ok(byte) => sum += u64::from(byte),
            Err(signal) => return Ok(Done::Died(signal)),
        }
        at = at.saturating_add(PAGE_SIZE);
    }
    Ok(Done::Text(format!("sum={sum}")))
}

/// Loads everything.
fn mcrc(map: &Mapped, pos: u64, len: u64) -> Result<Done> {
    let mut crc = crc32fast::Hasher::new();
    let mut buf = [0; PAGE_SIZE as usize];
    let mut at = 0;
    while at < len {
        // OK to cast: at most a page.
        let piece = &mut buf[..(len - at).min(PAGE_SIZE) as usize];
        if let Err(died) = map.load_bytes(pos.saturating_add(at), piece) {
            return Ok(Done::Died(died.signal));
        }
        crc.update(piece);
        at += piece.len() as u64;
    }
    Ok(Done::Text(format!("crc={:08x}", crc.finalize())))
}
