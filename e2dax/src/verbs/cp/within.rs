//! Copying from an image into an image, often the same.

use std::collections::{BTreeMap, BTreeSet};

use ext2_core::{Errno, FileKind, Inode, InodeNr, Wait};
use ext2_image::{Found, Walk, WalkError};

use super::image::{Like, finish, make_dir, make_file, make_link, make_symlink, store};
use crate::context::Context;
use crate::describe::join;
use crate::failure::{Failure, Of, Result};
use crate::target::Target;
use crate::verbs::chown::Owner;

/// Bytes moved at once: one unit of 2 MiB.
const CHUNK: u64 = 2 << 20;

/// Where a copy goes: a directory, its path for messages, and the new name; without a name what is in a directory
/// goes into this one.
pub(super) struct Into<'a> {
    pub(super) target: &'a Target,
    pub(super) directory: Inode,
    pub(super) path: Vec<u8>,
    pub(super) name: Option<&'a [u8]>,
    pub(super) owner: Option<Owner>,
}

/// Copies `start` of `source`, and what is below it.
pub(super) fn copy(context: &mut Context, source: &Target, start: &Inode, into: &Into<'_>) -> Result<()> {
    refuse_into_itself(start, into)?;
    let mut copy = Copy { source, into, open: Vec::new(), first_names: BTreeMap::new() };
    let mut walk = Walk::new(start, source.path());
    while let Some(step) = walk.next() {
        if let Err(failure) = copy.step(step) {
            if failure.is_full() {
                return Err(failure);
            }
            context.complain(&failure);
            walk.skip_below();
        }
    }
    copy.close(0)
}

/// A copy that is in what is copied would never end.
fn refuse_into_itself(start: &Inode, into: &Into<'_>) -> Result<()> {
    let mut at = into.directory.clone();
    let mut seen = BTreeSet::new();
    if start.kind() != FileKind::Directory || start.fs() != at.fs() {
        return Ok(());
    }
    loop {
        if at.nr() == start.nr() {
            let error = ext2_core::Error::Caller(Errno::INVAL, "a directory cannot be copied into itself");
            return Err(error).of(|| into.target.name_of(&into.path));
        }
        let above = at.lookup(b"..").of(|| into.target.name_of(&into.path))?;
        // The root is above itself; on a broken image others may be, and the walk will say so.
        if !seen.insert(above.nr()) {
            return Ok(());
        }
        at = above;
    }
}

/// A copy that is going on.
struct Copy<'a> {
    source: &'a Target,
    into: &'a Into<'a>,
    open: Vec<OpenDir>,
    first_names: BTreeMap<InodeNr, Inode>,
}

/// A directory whose attributes are set when everything in it is made.
struct OpenDir {
    inode: Inode,
    path: Vec<u8>,
    like: Option<Like>,
}

impl Copy<'_> {
    fn step(&mut self, step: Result<Found, WalkError>) -> Result<()> {
        let found = step.map_err(|error| Failure::new(self.source.name_of(&error.path), error.error))?;
        self.close(found.depth)?;
        let name = if found.depth == 0 { self.into.name } else { Some(found.name()) };
        let Some(name) = name else {
            let (inode, path) = (self.into.directory.clone(), self.into.path.clone());
            self.open.push(OpenDir { inode, path, like: None });
            return Ok(());
        };
        let (parent, path) = match self.open.last() {
            Some(parent) => (&parent.inode, join(&parent.path, name)),
            None => (&self.into.directory, join(&self.into.path, name)),
        };
        let from = || self.source.name_of(&found.path);
        let to = || self.into.target.name_of(&path);
        if let Some(first) = self.first_names.get(&found.inode.nr()) {
            return make_link(parent, name, first).of(to);
        }
        let like = self.like(&found.inode).of(from)?;
        let inode = match like.kind {
            FileKind::Directory => {
                let inode = make_dir(parent, name, &like).of(to)?;
                self.open.push(OpenDir { inode, path, like: Some(like) });
                return Ok(());
            }
            FileKind::Symlink => {
                let target = found.inode.read_link().of(from)?;
                make_symlink(parent, name, &target, &like).of(to)?
            }
            _ => {
                // Replacing a file by itself would lose it.
                if parent.lookup(name).is_ok_and(|there| there == found.inode) {
                    return Err(Failure::text(to(), "is the file itself"));
                }
                make_file(parent, name, &like).of(to)?
            }
        };
        if like.kind == FileKind::Regular {
            self.fill(&found, &inode, &path)?;
        }
        finish(&inode, &like).of(|| self.into.target.name_of(&path))?;
        if found.inode.attr().links > 1 {
            self.first_names.insert(found.inode.nr(), inode);
        }
        Ok(())
    }

    fn like(&self, inode: &Inode) -> ext2_core::Result<Like> {
        let attr = inode.attr();
        let owner = self.into.owner.unwrap_or(Owner { uid: None, gid: None });
        Ok(Like {
            kind: attr.kind,
            mode: attr.mode,
            uid: owner.uid.unwrap_or(attr.uid),
            gid: owner.gid.unwrap_or(attr.gid),
            atime: attr.atime,
            mtime: attr.mtime,
            device: attr.device,
            xattrs: inode.xattrs()?,
        })
    }

    /// Moves the bytes of a file, run by run, so that its holes stay holes.
    fn fill(&self, found: &Found, copy: &Inode, path: &[u8]) -> Result<()> {
        let from = || self.source.name_of(&found.path);
        let to = || self.into.target.name_of(path);
        let (inode, size) = (&found.inode, found.inode.size());
        let block = inode.fs().geometry().block_size.bytes();
        let mut buffer = vec![0; usize::try_from(CHUNK.min(size)).unwrap_or_default()];
        for run in inode.extents() {
            let run = run.of(from)?;
            let (mut at, end) = (run.start.get() * block, (run.end().get() * block).min(size));
            while at < end {
                let want = (CHUNK - at % CHUNK).min(end - at);
                // OK to cast: at most the buffer's length.
                let part = buffer.get_mut(..want as usize).unwrap_or_default();
                let read = inode.read_at(at, part).of(from)?;
                if read == 0 {
                    break;
                }
                store(copy, at, part.get(..read).unwrap_or_default()).of(to)?;
                at += read as u64;
            }
        }
        if copy.size() < size {
            copy.truncate(size, Wait::Yes).of(to)?;
        }
        Ok(())
    }

    /// Ends all directories from a depth on.
    fn close(&mut self, depth: usize) -> Result<()> {
        let mut first = Ok(());
        while self.open.len() > depth {
            let Some(done) = self.open.pop() else { break };
            if let Some(like) = &done.like {
                first = first.and(finish(&done.inode, like).of(|| self.into.target.name_of(&done.path)));
            }
        }
        first
    }
}
