//! Copying from an image into an image, often the same.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use ext2_core::{Errno, FileKind, Inode, InodeNr, Wait};

use super::like::{Like, finish, make_dir, make_file, make_link, make_symlink, store};
use super::problem::At;
use super::{CHUNK, Destination, Observer, Problem, join};
use crate::{Found, Walk, WalkError};

/// Copies `start`, whose path is `path`, and what is below it, to `into`.
///
/// # Errors
/// What ends the copy: a directory that would go into itself (`EINVAL`), a file system that is full, directories whose
/// attributes cannot be set. All else goes to `observer`.
pub fn duplicate(
    start: &Inode,
    path: &[u8],
    into: &Destination<'_>,
    observer: &mut dyn Observer,
) -> Result<(), Problem> {
    refuse_into_itself(start, into)?;
    let mut copy = Copy { into, observer, open: Vec::new(), path: Vec::new(), first_names: BTreeMap::new() };
    let mut walk = Walk::new(start, path);
    while let Some(step) = walk.next() {
        if let Err(problem) = copy.step(step) {
            if problem.is_full() {
                return Err(problem);
            }
            copy.observer.problem(problem);
            walk.skip_below();
        }
    }
    copy.close(0)
}

/// A copy that is in what is copied would never end.
fn refuse_into_itself(start: &Inode, into: &Destination<'_>) -> Result<(), Problem> {
    let mut at = into.directory.clone();
    let mut seen = BTreeSet::new();
    if start.kind() != FileKind::Directory || start.fs() != at.fs() {
        return Ok(());
    }
    loop {
        if at.nr() == start.nr() {
            let error = ext2_core::Error::Caller(Errno::INVAL, "a directory cannot be copied into itself");
            return Err(error).destination(into.path);
        }
        let above = at.lookup(b"..").destination(into.path)?;
        // The root is above itself; on a broken image others may be, and the walk will say so.
        if !seen.insert(above.nr()) {
            return Ok(());
        }
        at = above;
    }
}

/// A copy that is going on.
struct Copy<'a> {
    into: &'a Destination<'a>,
    observer: &'a mut dyn Observer,
    open: Vec<OpenDir>,
    /// The path of the innermost of them, which begins with those of the others.
    path: Vec<u8>,
    first_names: BTreeMap<InodeNr, Inode>,
}

/// A directory whose attributes are set when everything in it is made.
struct OpenDir {
    inode: Inode,
    /// How much of the copy's path is its own.
    len: usize,
    like: Option<Like>,
}

impl Copy<'_> {
    fn step(&mut self, step: Result<Found, WalkError>) -> Result<(), Problem> {
        let found = step.map_err(|error| (error.path, error.error));
        let found = found.or_else(|(path, error)| Err(error).source(&path))?;
        self.close(found.depth)?;
        let name = if found.depth == 0 { self.into.name } else { Some(found.name()) };
        let Some(name) = name else {
            self.path = self.into.path.to_vec();
            self.open.push(OpenDir { inode: self.into.directory.clone(), len: self.path.len(), like: None });
            return Ok(());
        };
        let (parent, path) = match self.open.last() {
            Some(parent) => (&parent.inode, join(self.path.get(..parent.len).unwrap_or_default(), name)),
            None => (self.into.directory, join(self.into.path, name)),
        };
        if let Some(first) = self.first_names.get(&found.inode.nr()) {
            return make_link(parent, name, first).destination(&path);
        }
        let like = Like::inode(&found.inode).source(&found.path)?.owned_by(self.into.owner);
        let inode = match like.kind {
            FileKind::Directory => {
                let inode = make_dir(parent, name, &like).destination(&path)?;
                self.open.push(OpenDir { inode, len: path.len(), like: Some(like) });
                self.path = path;
                return Ok(());
            }
            FileKind::Symlink => {
                let target = found.inode.read_link().source(&found.path)?;
                make_symlink(parent, name, &target, &like).destination(&path)?
            }
            _ => {
                // Replacing a file by itself would lose it.
                if parent.lookup(name).is_ok_and(|there| there == found.inode) {
                    return Err(std::io::Error::other("is the file itself")).destination(&path);
                }
                make_file(parent, name, &like).destination(&path)?
            }
        };
        if like.kind == FileKind::Regular {
            self.fill(&found, &inode, &path)?;
        }
        finish(&inode, &like).destination(&path)?;
        if found.inode.attr().links > 1 {
            self.first_names.insert(found.inode.nr(), inode);
        }
        Ok(())
    }

    /// Moves the bytes of a file, run by run, so that its holes stay holes.
    fn fill(&mut self, found: &Found, copy: &Inode, path: &[u8]) -> Result<(), Problem> {
        let (inode, size) = (&found.inode, found.inode.size());
        let block = inode.fs().geometry().block_size.bytes();
        // OK to cast: no more than the constant.
        let mut buffer = std::vec![0; (CHUNK as u64).min(size) as usize];
        for run in inode.extents() {
            let run = run.source(&found.path)?;
            let (mut at, end) = (run.start.get() * block, (run.end().get() * block).min(size));
            while at < end {
                let want = (CHUNK as u64 - at % CHUNK as u64).min(end - at);
                // OK to cast: at most the buffer's length.
                let part = buffer.get_mut(..want as usize).unwrap_or_default();
                let read = inode.read_at(at, part).source(&found.path)?;
                if read == 0 {
                    break;
                }
                store(copy, at, part.get(..read).unwrap_or_default()).destination(path)?;
                at += read as u64;
                self.observer.moved(read as u64);
            }
        }
        if copy.size() < size {
            copy.truncate(size, Wait::Yes).destination(path)?;
        }
        Ok(())
    }

    /// Ends all directories from a depth on.
    fn close(&mut self, depth: usize) -> Result<(), Problem> {
        let mut first = Ok(());
        while self.open.len() > depth {
            let Some(done) = self.open.pop() else { break };
            if let Some(like) = &done.like {
                let path = self.path.get(..done.len).unwrap_or_default();
                first = first.and(finish(&done.inode, like).destination(path));
            }
        }
        first
    }
}
