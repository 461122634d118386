//! The manifest of an archive, with memory for what is open and not for its members.
//!
//! An archive is in no order, and a manifest is in that of its paths. So the members are listed first, and the list is
//! [sorted](super::sorted) on disk; then each member is read again where it lies, when its turn has come.
//!
//! That is possible for archives as programs write them. One whose tree depends on the order of its members (a path that
//! leads through a symbolic link, a file in place of a directory, hard links to what is replaced) or that has access
//! lists in words is put together in memory by [`Merge`](super::Merge), as `mkfs` does it.
//!
//! # Invariants
//! Both ways give the same entries. Memory of the first is that of the longest chain of names, of a run that is sorted, and of the
//! names of files with several.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::member::{Data, MemberKind, Members};
use super::merge::{kept, parts};
use super::pax::Extended;
use super::sorted::{Record, Records, Sorted, Sorter, What};
use super::{Opened, open, read_opened};
use crate::manifest::{Entry, Inode, Kind, Node, TreeEntries, inode_of_attrs, quote, sum_of_spans, unquote};
use crate::mkfs::source::Times;
use crate::mkfs::{Alike, Error, NodeAttrs, Result, Warnings};
use ext2_core::Timestamp;

/// Headers for all members that are remembered: one archive has one.
const GLOBALS_MAX: usize = 1000;
/// Names of files with several that are remembered.
const LINKS_MAX: usize = 1 << 22;

/// The entries of an archive in the order of a manifest, each file read as it comes.
#[derive(Debug)]
pub struct ArchiveEntries(Way);

#[derive(Debug)]
enum Way {
    Sorted(Box<SortedEntries>),
    Tree(Box<TreeEntries>),
}

impl ArchiveEntries {
    /// Of the archive at `path` (`-`: the standard input); what is packed, and the list of members, lie in files without
    /// names in the folder `spool`. Which `times` are taken is as [`read`](super::read) has it.
    ///
    /// # Errors
    /// `Source` and `Entry`.
    pub fn open(path: &Path, spool: &Path, times: Option<Times>) -> Result<Self> {
        let opened = open(path, spool).map_err(|error| Error::source(b"", error))?;
        Self::of(opened, spool, times)
    }

    /// As [`open`](Self::open), of an archive that is open.
    ///
    /// # Errors
    /// `Source` and `Entry`.
    pub fn of(opened: Opened, spool: &Path, times: Option<Times>) -> Result<Self> {
        let failed = |error: io::Error| Error::source(b"", error);
        if let Some(listed) = List::of(&opened, spool).map_err(failed)? {
            let records = listed.sorted.records(Some(&listed.implied)).map_err(failed)?;
            let (file, len) = (opened.file, opened.len);
            let times = times.unwrap_or(if listed.is_of_image { Times::All } else { Times::Modified });
            let entries = SortedEntries { file, len, times, records, listed, buffer: Vec::new() };
            return Ok(Self(Way::Sorted(Box::new(entries))));
        }
        let read = read_opened(opened, times)?;
        Ok(Self(Way::Tree(Box::new(TreeEntries::new(read.tree, Box::new(read.contents))?))))
    }

    /// What the entries do not have of the archive, or have otherwise.
    #[must_use]
    pub fn warnings(&self) -> &Warnings {
        match &self.0 {
            Way::Sorted(entries) => &entries.listed.warnings,
            Way::Tree(entries) => entries.tree().warnings(),
        }
    }

    /// Whether the members are read where they lie, and no tree of them is in memory.
    #[must_use]
    pub fn is_streamed(&self) -> bool {
        matches!(self.0, Way::Sorted(_))
    }
}

impl Iterator for ArchiveEntries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Way::Sorted(entries) => entries.next_entry().transpose(),
            Way::Tree(entries) => entries.next(),
        }
    }
}

/// A file with several names.
#[derive(Clone, Debug)]
struct Shared {
    /// The member that has its attributes and bytes.
    record: Record,
    /// Its first name, once that was given.
    first: Option<Vec<u8>>,
}

/// A hard link's name, and what it leads to.
type Link = (Box<[u8]>, Box<[u8]>);

/// What is known of an archive before its members are read.
#[derive(Debug)]
struct List {
    sorted: Sorted,
    /// Directories that no member says.
    implied: Sorted,
    globals: Vec<Extended>,
    /// Whether the archive says that it was made of an image.
    is_of_image: bool,
    /// Of each name of a file with several, which of `shared` it is.
    names: HashMap<Box<[u8]>, usize>,
    shared: Vec<Shared>,
    /// What is lost of members, and what a person should know about the archive as a whole.
    warnings: Warnings,
}

impl List {
    /// None where the archive has to be put together in memory; what is wrong with it is told there.
    fn of(opened: &Opened, spool: &Path) -> io::Result<Option<Self>> {
        let members = Members::new(&opened.file, opened.len);
        let mut members = if opened.is_device { members.until_end_mark() } else { members };
        let (mut sorter, mut globals, mut links) = (Sorter::new(spool), Vec::new(), Vec::new());
        let (mut seen, mut is_of_image, mut warnings) = (None, None, Warnings::default());
        let mut alike = Alike::default();
        for nr in 0.. {
            if seen != Some(members.globals()) {
                seen = Some(members.globals());
                globals.push(members.global().clone());
            }
            let at = members.at();
            let Ok(found) = members.next_member() else { return Ok(None) };
            let Some(member) = found else { break };
            if *is_of_image.get_or_insert(members.image().is_some()) != members.image().is_some() {
                return Ok(None);
            }
            let Some(key) = key(&member.path) else { return Ok(None) };
            let (what, link) = match &member.kind {
                MemberKind::Directory => (What::Directory, Box::default()),
                MemberKind::HardLink(target) => match self::key(target) {
                    Some(target) if target != key => (What::HardLink, target),
                    _ => return Ok(None),
                },
                _ => (What::Other, Box::default()),
            };
            if !member.acls.is_empty() || globals.len() > GLOBALS_MAX || links.len() > LINKS_MAX {
                return Ok(None);
            }
            member.lost.into_iter().for_each(|lost| warnings.add(&member.path, lost));
            if what == What::HardLink {
                links.push((key.clone(), link.clone()));
            } else {
                let lost = &mut |lost| warnings.add(&member.path, lost);
                kept(member.attrs, Times::All, &mut alike, lost);
            }
            let global = globals.len() as u32 - 1; // at most a thousand
            sorter.push(Record { key, nr, at, global, what, link })?;
        }
        let sorted = sorter.finish();
        let Some(implied) = implied(&sorted, spool, !links.is_empty())? else { return Ok(None) };
        members.notes().iter().for_each(|note| warnings.note(note.as_str()));
        let is_of_image = is_of_image.unwrap_or(false);
        let (names, shared) = (HashMap::new(), Vec::new());
        let mut list = Self { sorted, implied, globals, is_of_image, names, shared, warnings };
        Ok(list.share(links)?.then_some(list))
    }

    /// Finds what links lead to; false where one leads to nothing, or to a directory.
    fn share(&mut self, links: Vec<Link>) -> io::Result<bool> {
        if links.is_empty() {
            return Ok(true);
        }
        let targets: HashMap<&[u8], &[u8]> =
            links.iter().map(|(name, target)| (&**name, &**target)).collect();
        let mut roots: HashSet<&[u8]> = HashSet::new();
        let mut pairs = Vec::with_capacity(links.len());
        for (name, target) in &links {
            let (mut root, mut steps) = (&**target, 0);
            while let Some(&next) = targets.get(root) {
                (root, steps) = (next, steps + 1);
                // Links in a circle, or a chain that nobody writes.
                if steps > 1000 {
                    return Ok(false);
                }
            }
            roots.insert(root);
            pairs.push((name, root));
        }
        let mut records = self.sorted.records(None)?;
        while let Some((record, _)) = records.next_path()? {
            if roots.contains(&*record.key) {
                if record.what.is_directory() {
                    return Ok(false);
                }
                self.names.insert(record.key.clone(), self.shared.len());
                self.shared.push(Shared { record, first: None });
            }
        }
        for (name, root) in pairs {
            let Some(&nr) = self.names.get(root) else { return Ok(false) };
            self.names.insert(name.clone(), nr);
        }
        Ok(true)
    }
}

/// A path as a manifest prints it; none for one that leads out of the archive or cannot be in a file system.
fn key(path: &[u8]) -> Option<Box<[u8]>> {
    let parts = parts(path).ok()?;
    if parts.iter().any(|part| part.len() > 255 || part.contains(&0)) {
        return None;
    }
    let whole = [b"/", parts.join(&b'/').as_slice()].concat();
    Some(quote(&whole).into_bytes().into())
}

/// The directories that no member says. None where the tree depends on the order of the members.
fn implied(sorted: &Sorted, spool: &Path, has_links: bool) -> io::Result<Option<Sorted>> {
    let mut implied = Sorter::new(spool);
    let mut add = |key: &[u8]| {
        let what = What::Implied;
        implied.push(Record { key: key.into(), nr: 0, at: 0, global: 0, what, link: Box::default() })
    };
    // Paths that may have something below them still, each below or beside (`/a`, `/a-b`) the one before, so that the path
    // that is looked at begins with all of them: how long they are; and whether they are directories.
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut before: Box<[u8]> = b"/".as_slice().into();
    let mut records = sorted.records(None)?;
    while let Some((record, seen)) = records.next_path()? {
        let is_directory = record.what.is_directory();
        // A name that comes twice is a new file; what other names of it lead to then depends on when they came.
        let is_replaced = seen.has_other && seen.count > 1;
        if is_replaced && (seen.has_directory || has_links) {
            return Ok(None);
        }
        let key = &record.key;
        if open.is_empty() {
            if &**key != b"/" {
                add(b"/")?;
            } else if !is_directory {
                return Ok(None);
            }
            open.push((1, true));
            if &**key == b"/" {
                continue;
            }
        }
        while open.last().is_some_and(|&(len, _)| is_past(&before, len, key)) {
            open.pop();
        }
        // From the innermost directory outwards, until one is known.
        let mut missing = Vec::new();
        let mut above = parent(key);
        loop {
            match open.iter().rev().find(|(len, _)| *len == above.len()) {
                Some((_, true)) => break,
                Some((_, false)) => return Ok(None),
                None => missing.push(above),
            }
            above = parent(above);
        }
        for directory in missing.into_iter().rev() {
            add(directory)?;
            open.push((directory.len(), true));
        }
        open.push((key.len(), is_directory));
        before = record.key;
    }
    if open.is_empty() {
        add(b"/")?;
    }
    Ok(Some(implied.finish()))
}

/// Whether a path comes behind all that is below the one of the first `len` bytes of the path before it.
fn is_past(before: &[u8], len: usize, key: &[u8]) -> bool {
    // What is below `/a` begins with `/a/`, and `0` follows the slash.
    len > 1 && (key.get(..len) != before.get(..len) || key.get(len).is_some_and(|&next| next >= b'0'))
}

/// The path of the directory in which a path lies.
fn parent(key: &[u8]) -> &[u8] {
    match key.iter().rposition(|&byte| byte == b'/') {
        None | Some(0) => b"/",
        Some(slash) => key.get(..slash).unwrap_or_default(),
    }
}

/// The first way.
#[derive(Debug)]
struct SortedEntries {
    file: File,
    len: u64,
    times: Times,
    records: Records,
    listed: List,
    buffer: Vec<u8>,
}

impl SortedEntries {
    fn next_entry(&mut self) -> Result<Option<Entry>> {
        let next = self.records.next_path().map_err(|error| Error::source(b"", error))?;
        let Some((record, _)) = next else { return Ok(None) };
        let path = std::str::from_utf8(&record.key).ok().and_then(unquote).unwrap_or_default();
        if record.what == What::Implied {
            let attrs = NodeAttrs::new(0o755, (0, 0), Timestamp::default());
            let inode = inode_of_attrs(&attrs, None, Kind::Directory);
            return Ok(Some(Entry { path, node: Node::Inode(inode) }));
        }
        let mut from = record;
        if let Some(&nr) = self.listed.names.get(&from.key)
            && let Some(shared) = self.listed.shared.get_mut(nr)
        {
            if let Some(first) = &shared.first {
                return Ok(Some(Entry { path, node: Node::HardLink(first.clone()) }));
            }
            shared.first = Some(path.clone());
            from = shared.record.clone();
        }
        let inode = self.inode(&path, &from)?;
        Ok(Some(Entry { path, node: Node::Inode(inode) }))
    }

    /// Reads a member again.
    fn inode(&mut self, path: &[u8], record: &Record) -> Result<Inode> {
        let global = self.listed.globals.get(record.global as usize).cloned().unwrap_or_default();
        let members = Members::new(&self.file, self.len);
        let mut members = members.from(record.at, global, self.listed.is_of_image);
        let changed = || Error::source(path, "the archive has changed since it was listed");
        let member = members.next_member()?.ok_or_else(changed)?;
        // What is lost was told when it was listed.
        let attrs = kept(member.attrs, self.times, &mut Alike::default(), &mut |_| ());
        let (size, kind) = match member.kind {
            MemberKind::Directory => (None, Kind::Directory),
            MemberKind::Symlink(target) => (Some(target.len() as u64), Kind::Symlink { target }),
            MemberKind::CharDevice(nr) => (None, Kind::CharDevice { major: nr.major, minor: nr.minor }),
            MemberKind::BlockDevice(nr) => (None, Kind::BlockDevice { major: nr.major, minor: nr.minor }),
            MemberKind::Fifo => (None, Kind::Fifo),
            MemberKind::HardLink(_) => return Err(changed()),
            MemberKind::File(data) => {
                let failed = |error: io::Error| Error::source(path, error);
                let (file, buffer) = (&self.file, &mut self.buffer);
                match &data {
                    &Data::Whole { at, size } => {
                        let mut read = |from: u64, bytes: &mut [u8]| {
                            file.read_exact_at(bytes, at + from).map_err(failed)
                        };
                        (Some(size), sum_of_spans(size, None, buffer, &mut read)?)
                    }
                    Data::Sparse(map) => {
                        let mut read =
                            |from: u64, bytes: &mut [u8]| map.read_at(file, from, bytes).map_err(failed);
                        (Some(map.size()), sum_of_spans(map.size(), Some(&map.data()), buffer, &mut read)?)
                    }
                }
            }
        };
        Ok(inode_of_attrs(&attrs, size, kind))
    }
}

#[cfg(test)]
mod tests;
