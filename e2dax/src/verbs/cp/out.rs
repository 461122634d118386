//! Copying out of an image, to files of this machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ext2_core::{FileKind, Inode, InodeNr};
use ext2_image::{Found, Walk, WalkError};
use indicatif::ProgressBar;

use super::host::{HostDir, Owners, Xattr, set_all};
use crate::context::Context;
use crate::describe::{allocated, join};
use crate::failure::{Failure, Of, Result};
use crate::progress::bytes_bar;
use crate::target::Target;
use crate::text::{show, show_os};

/// Bytes moved at once.
const CHUNK: usize = 1 << 20;

/// Copies what `start` is, and with it everything below, to the name `name` in the directory `into`; without a name
/// what is in a directory goes into `into` itself.
pub(super) fn copy(
    context: &mut Context,
    target: &Target,
    start: &Inode,
    into: &Path,
    name: Option<&[u8]>,
) -> Result<()> {
    let base = HostDir::open(into).map_err(|error| Failure::host(into, error))?;
    let total = if crate::progress::is_seen() { sum(start) } else { 0 };
    let mut copy = Copy {
        target,
        base,
        into,
        open: Vec::new(),
        first_names: BTreeMap::new(),
        owners: Owners::of_caller(),
        bar: bytes_bar("copying", total),
        buffer: vec![0; CHUNK],
        refused: BTreeMap::new(),
    };
    let mut walk = Walk::new(start, target.path());
    while let Some(step) = walk.next() {
        let done = copy.step(step, name);
        if let Err(failure) = done {
            if failure.is_full() {
                return Err(failure);
            }
            copy.complain(context, &failure);
            // Without the directory there is no place for what is in it.
            walk.skip_below();
        }
    }
    let closed = copy.close(0);
    copy.bar.finish_and_clear();
    copy.tell_refused(context);
    closed
}

/// Bytes that are to be moved, about.
fn sum(start: &Inode) -> u64 {
    Walk::new(start, b"/").flatten().map(|found| allocated(&found.inode.attr())).sum()
}

/// A copy that is going on.
struct Copy<'a> {
    target: &'a Target,
    base: HostDir,
    into: &'a Path,
    /// The directories from the start to where the walk is.
    open: Vec<OpenDir>,
    /// Files with several names that were copied, and their path from `base`.
    first_names: BTreeMap<InodeNr, Vec<u8>>,
    owners: Owners,
    bar: ProgressBar,
    buffer: Vec<u8>,
    /// Attributes that the system did not take, and how often.
    refused: BTreeMap<Vec<u8>, u64>,
}

/// A directory whose attributes are set when everything in it is made.
struct OpenDir {
    dir: HostDir,
    /// From `base`.
    path: Vec<u8>,
    /// What its attributes are, and its path in the image, unless it is the caller's own.
    attributes: Option<(Vec<u8>, Inode)>,
}

impl Copy<'_> {
    /// One file of the walk.
    fn step(&mut self, step: Result<Found, WalkError>, name: Option<&[u8]>) -> Result<()> {
        let found = step.map_err(|error| Failure::new(self.target.name_of(&error.path), error.error))?;
        self.close(found.depth)?;
        let name = if found.depth == 0 { name } else { Some(found.name()) };
        let Some(name) = name else {
            let dir = self.base.again().map_err(|error| Failure::host(self.into, error))?;
            self.open.push(OpenDir { dir, path: Vec::new(), attributes: None });
            return Ok(());
        };
        let (parent, path) = match self.open.last() {
            Some(parent) if !parent.path.is_empty() => (&parent.dir, join(&parent.path, name)),
            Some(parent) => (&parent.dir, name.to_vec()),
            None => (&self.base, name.to_vec()),
        };
        let host = |error: io::Error| Failure::new(self.host_name(&path), error);
        let attr = found.inode.attr();
        if attr.kind == FileKind::Directory {
            let dir = parent.make_dir(name).map_err(host)?;
            self.open.push(OpenDir { dir, path, attributes: Some((found.path, found.inode)) });
            return Ok(());
        }
        if let Some(first) = self.first_names.get(&attr.nr) {
            return parent.make_link(name, &self.base, first).map_err(host);
        }
        match attr.kind {
            FileKind::Regular => {
                let file = parent.make_file(name).map_err(host)?;
                self.fill(&found, &file, &path)?;
                self.finish(&found.path, &found.inode, &file, &path)?;
            }
            FileKind::Symlink => {
                let target = found.inode.read_link().of(|| self.target.name_of(&found.path))?;
                let xattrs = found.inode.xattrs().of(|| self.target.name_of(&found.path))?;
                parent.make_symlink(name, &target).map_err(host)?;
                let refused = parent.set_all(name, &attr, &xattrs, self.owners).map_err(host)?;
                count(&mut self.refused, refused);
            }
            _ => {
                let xattrs = found.inode.xattrs().of(|| self.target.name_of(&found.path))?;
                parent.make_node(name, &attr).map_err(host)?;
                let refused = parent.set_all(name, &attr, &xattrs, self.owners).map_err(host)?;
                count(&mut self.refused, refused);
            }
        }
        if attr.links > 1 {
            self.first_names.insert(attr.nr, path);
        }
        Ok(())
    }

    /// Moves the bytes of a file, run by run, so that its holes stay holes.
    fn fill(&mut self, found: &Found, file: &File, path: &[u8]) -> Result<()> {
        let (inode, size) = (&found.inode, found.inode.size());
        file.set_len(size).of(|| self.host_name(path))?;
        let block = inode.fs().geometry().block_size.bytes();
        for run in inode.extents() {
            let run = run.of(|| self.target.name_of(&found.path))?;
            let (mut at, end) = (run.start.get() * block, (run.end().get() * block).min(size));
            while at < end {
                // OK to cast: at most the buffer's length.
                let want = (end - at).min(CHUNK as u64) as usize;
                let part = self.buffer.get_mut(..want).unwrap_or_default();
                let read = inode.read_at(at, part).of(|| self.target.name_of(&found.path))?;
                if read == 0 {
                    break;
                }
                let part = self.buffer.get(..read).unwrap_or_default();
                file.write_all_at(part, at).of(|| self.host_name(path))?;
                at += read as u64;
                self.bar.inc(read as u64);
            }
        }
        Ok(())
    }

    /// Attributes of a file or directory that is filled.
    fn finish(
        &mut self,
        image_path: &[u8],
        inode: &Inode,
        fd: impl std::os::fd::AsFd,
        path: &[u8],
    ) -> Result<()> {
        let xattrs: Vec<Xattr> = inode.xattrs().of(|| self.target.name_of(image_path))?;
        let refused = set_all(fd, &inode.attr(), &xattrs, self.owners).of(|| self.host_name(path))?;
        count(&mut self.refused, refused);
        Ok(())
    }

    /// Ends all directories from a depth on.
    fn close(&mut self, depth: usize) -> Result<()> {
        let mut first = Ok(());
        while self.open.len() > depth {
            let Some(done) = self.open.pop() else { break };
            if let Some((image_path, inode)) = &done.attributes {
                first = first.and(self.finish(image_path, inode, &done.dir, &done.path));
            }
        }
        first
    }

    fn host_name(&self, path: &[u8]) -> String {
        format!("{}/{}", show_os(self.into.as_os_str()).trim_end_matches('/'), show(path))
    }

    fn complain(&self, context: &mut Context, failure: &Failure) {
        self.bar.suspend(|| context.complain(failure));
    }

    /// Says which attributes could not be kept, once.
    fn tell_refused(&self, context: &Context) {
        for (name, count) in &self.refused {
            let into = show_os(self.into.as_os_str());
            context.note(&format!("{into}: the system did not take {} of {count} files", show(name)));
        }
    }
}

fn count(counts: &mut BTreeMap<Vec<u8>, u64>, names: Vec<Vec<u8>>) {
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
}
