//! Copying out of an image, to files of the host.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::vec::Vec;

use ext2_core::{FileKind, Inode, InodeNr};

use super::host_dir::{HostDir, Linked, Owners, identity_of, set_all};
use super::problem::{At, LeftOut};
use super::{CHUNK, Observer, Problem, first, join};
use crate::kept_paths::{KeptPath, KeptPaths};
use crate::{Found, Walk, WalkError};

/// Copies what `start` is, and with it everything below, to the name `name` in the directory `into` of the host; without a
/// name what is in a directory goes into `into` itself. `path` is the path of `start` in the image. Owners are kept where
/// the caller is root; else everything is the caller's, and set-id bits are left out.
///
/// # Errors
/// What ends the copy: `into` cannot be opened, a file system is full, the attributes of directories cannot be set. All else
/// goes to `observer`.
pub fn extract(
    start: &Inode,
    path: &[u8],
    into: &Path,
    name: Option<&[u8]>,
    observer: &mut dyn Observer,
) -> Result<(), Problem> {
    let shown = into.as_os_str().as_bytes();
    let base = HostDir::open(into).destination(shown)?;
    let mut copy = Copy {
        base,
        into: shown,
        observer,
        open: Vec::new(),
        path: Vec::new(),
        source: Vec::new(),
        first_names: BTreeMap::new(),
        kept: KeptPaths::default(),
        owners: Owners::of_caller(),
        buffer: Vec::new(),
        left_out: LeftOut::default(),
    };
    let mut walk = Walk::new(start, path);
    while let Some(step) = walk.next() {
        if let Err(problem) = copy.step(step, name) {
            if problem.is_full() {
                return Err(problem);
            }
            copy.observer.problem(problem);
            // Without the directory there is no place for what is in it.
            walk.skip_below();
        }
    }
    let closed = copy.close(0);
    copy.left_out.tell(copy.observer);
    closed
}

/// Bytes that [`extract`] will move, about; what cannot be read counts nothing.
#[must_use]
pub fn extract_size(start: &Inode) -> u64 {
    let files = Walk::new(start, b"/").flatten();
    files.map(|found| u64::from(found.inode.attr().blocks_512) * 512).sum()
}

/// Files with several names that are held open: fewer than descriptors that a process has, with room for the depth of a
/// tree.
const HELD: usize = 256;

/// A copy that is going on.
struct Copy<'a> {
    base: HostDir,
    into: &'a [u8],
    observer: &'a mut dyn Observer,
    /// The directories from the start to where the walk is.
    open: Vec<OpenDir>,
    /// The path of the innermost of them, from `base`, and in the image. They begin with those of the others.
    path: Vec<u8>,
    source: Vec<u8>,
    /// Files with several names that were copied, and where the first is, from `base`.
    first_names: BTreeMap<InodeNr, (KeptPath, Linked)>,
    kept: KeptPaths,
    owners: Owners,
    buffer: Vec<u8>,
    left_out: LeftOut,
}

/// A directory whose attributes are set when everything in it is made.
struct OpenDir {
    dir: HostDir,
    /// How much of the copy's path is its own.
    len: usize,
    /// What its attributes are, and how much of the path in the image is its own, unless it is the caller's own.
    attributes: Option<(usize, Inode)>,
}

impl Copy<'_> {
    /// One file of the walk.
    fn step(&mut self, step: Result<Found, WalkError>, name: Option<&[u8]>) -> Result<(), Problem> {
        let found = step.map_err(|error| (error.path, error.error));
        let found = found.or_else(|(path, error)| Err(error).source(&path))?;
        self.close(found.depth)?;
        let name = if found.depth == 0 { name } else { Some(found.name()) };
        let Some(name) = name else {
            let dir = self.base.again().destination(self.into)?;
            self.open.push(OpenDir { dir, len: 0, attributes: None });
            return Ok(());
        };
        let (parent, path) = match self.open.last() {
            Some(parent) => (&parent.dir, join(self.path.get(..parent.len).unwrap_or_default(), name)),
            None => (&self.base, name.to_vec()),
        };
        let shown = join(self.into, &path);
        let attr = found.inode.attr();
        if attr.kind == FileKind::Directory {
            let dir = parent.make_dir(name).destination(&shown)?;
            let attributes = Some((found.path.len(), found.inode));
            self.open.push(OpenDir { dir, len: path.len(), attributes });
            (self.path, self.source) = (path, found.path);
            return Ok(());
        }
        if let Some((kept, first)) = self.first_names.get(&attr.nr) {
            let first_path = || self.kept.path(*kept);
            return parent.make_link(name, &self.base, first_path, first).destination(&shown);
        }
        let xattrs = xattrs_of(&mut *self.observer, &found.inode, &found.path)?;
        let (identity, refused) = match attr.kind {
            FileKind::Regular => {
                let file = parent.make_file(name).destination(&shown)?;
                self.fill(&found, &file, &shown)?;
                set_all(&file, &attr, &xattrs, self.owners).destination(&shown)?
            }
            FileKind::Symlink => {
                let target = found.inode.read_link().source(&found.path)?;
                let link = parent.make_symlink(name, &target).destination(&shown)?;
                link.set_all(&attr, &xattrs, self.owners).destination(&shown)?
            }
            _ => {
                let node = parent.make_node(name, &attr).destination(&shown)?;
                node.set_all(&attr, &xattrs, self.owners).destination(&shown)?
            }
        };
        self.left_out.add(refused);
        if attr.links > 1 {
            // Held while there are not many: a descriptor each.
            let parent = self.open.last().map_or(&self.base, |open| &open.dir);
            let held = if self.first_names.len() < HELD { parent.hold(name).ok() } else { None };
            let held = held.filter(|held| identity_of(held).is_ok_and(|found| found == identity));
            self.first_names.insert(attr.nr, (self.kept.keep(&path), Linked { identity, held }));
        }
        Ok(())
    }

    /// Moves what can be read of a file, and tells how much could not.
    fn rescue(&mut self, found: &Found, file: &File, shown: &[u8]) -> Result<(), Problem> {
        let (inode, size) = (&found.inode, found.inode.size());
        file.set_len(size).destination(shown)?;
        let block = inode.fs().geometry().block_size.bytes();
        let mut buffer = std::vec![0; block as usize];
        let (mut missing, mut first) = (0, None);
        for run in inode.extents() {
            let run = match run.source(&found.path) {
                Ok(run) => run,
                // What lies behind a broken indirect block nobody can find.
                Err(problem) => {
                    self.observer.problem(problem);
                    break;
                }
            };
            for at in (run.start.get() * block..(run.end().get() * block).min(size)).step_by(buffer.len()) {
                match inode.read_at(at, &mut buffer) {
                    Ok(read) => {
                        file.write_all_at(buffer.get(..read).unwrap_or_default(), at).destination(shown)?;
                        self.observer.moved(read as u64);
                    }
                    Err(error) => {
                        missing += block.min(size - at);
                        first.get_or_insert((at, error));
                    }
                }
            }
        }
        if let Some((at, error)) = first {
            let what = std::format!("{missing} of {size} bytes are missing, from byte {at} on: {error}");
            let problem = Err(std::io::Error::other(what)).source(&found.path);
            problem.unwrap_or_else(|problem: Problem| self.observer.problem(problem));
        }
        Ok(())
    }

    /// Moves the bytes of a file, run by run, so that its holes stay holes.
    fn fill(&mut self, found: &Found, file: &File, shown: &[u8]) -> Result<(), Problem> {
        if self.observer.rescues() {
            return self.rescue(found, file, shown);
        }
        let (inode, size) = (&found.inode, found.inode.size());
        file.set_len(size).destination(shown)?;
        let block = inode.fs().geometry().block_size.bytes();
        for run in inode.extents() {
            let run = run.source(&found.path)?;
            let (mut at, end) = (run.start.get() * block, (run.end().get() * block).min(size));
            while at < end {
                // OK to cast: at most `CHUNK`.
                let want = (end - at).min(CHUNK as u64) as usize;
                let part = first(&mut self.buffer, want);
                let read = inode.read_at(at, part).source(&found.path)?;
                if read == 0 {
                    break;
                }
                let part = self.buffer.get(..read).unwrap_or_default();
                file.write_all_at(part, at).destination(shown)?;
                at += read as u64;
                self.observer.moved(read as u64);
            }
        }
        Ok(())
    }

    /// Ends all directories from a depth on.
    fn close(&mut self, depth: usize) -> Result<(), Problem> {
        let mut first = Ok(());
        while self.open.len() > depth {
            let Some(done) = self.open.pop() else { break };
            if let Some((source, inode)) = &done.attributes {
                first = first.and(self.finish(*source, inode, &done));
            }
        }
        first
    }

    /// Attributes of a directory that is filled.
    fn finish(&mut self, source: usize, inode: &Inode, done: &OpenDir) -> Result<(), Problem> {
        let source = self.source.get(..source).unwrap_or_default();
        let xattrs = xattrs_of(&mut *self.observer, inode, source)?;
        let shown = join(self.into, self.path.get(..done.len).unwrap_or_default());
        let (_, refused) = set_all(&done.dir, &inode.attr(), &xattrs, self.owners).destination(&shown)?;
        self.left_out.add(refused);
        Ok(())
    }
}

/// The extended attributes of a file; none where they cannot be read and what can is rescued.
fn xattrs_of(observer: &mut dyn Observer, inode: &Inode, path: &[u8]) -> Result<Vec<super::Xattr>, Problem> {
    match inode.xattrs().source(path) {
        Err(problem) if observer.rescues() => {
            observer.problem(problem);
            Ok(Vec::new())
        }
        xattrs => xattrs,
    }
}
