//! Copying files of the host into an image.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::vec::Vec;

use ext2_core::{FileKind, Inode, Wait};

use super::host_file::{HostFile, HostFolder, next_data};
use super::like::{Like, finish, make_dir, make_file, make_link, make_symlink, store};
use super::problem::{At, LeftOut};
use super::{CHUNK, Destination, Observer, Problem, first, join};
use crate::kept_paths::{KeptPath, KeptPaths};

/// Copies `source`, and what is in it if it is a directory, to `into`; without a name there, what is in the directory goes
/// into the directory of `into` itself. `follow`: a link at the end of `source` stands for what it leads to; other links are
/// copied as links.
///
/// # Errors
/// What ends the copy: `source` cannot be opened, or a file system is full. All else goes to `observer`.
pub fn insert(
    source: &Path,
    follow: bool,
    into: &Destination<'_>,
    observer: &mut dyn Observer,
) -> Result<(), Problem> {
    let shown = source.as_os_str().as_bytes();
    // Without a name the source stands for what is in it.
    let start = HostFile::named(source, follow || into.name.is_none()).source(shown)?;
    let mut copy = Copy {
        into,
        observer,
        first_names: BTreeMap::new(),
        buffer: Vec::new(),
        directories: Vec::new(),
        kept: KeptPaths::default(),
        left_out: LeftOut::default(),
    };
    let (directory, path) = (into.directory.clone(), into.path.to_vec());
    let mut jobs = match into.name {
        None => inside(&start, shown, &directory, &path)?,
        Some(name) => {
            copy.one(&start, shown, &directory, join(&path, name), name).or_else(|p| copy.go_on(p))?
        }
    };
    drop(start);
    while let Some(job) = jobs.pop() {
        let name = job.name.as_bytes();
        let source = join(&job.source, name);
        let done = HostFile::within(&job.folder, &job.name).source(&source);
        let done = done.and_then(|file| copy.one(&file, &source, &job.parent, join(&job.path, name), name));
        jobs.append(&mut done.or_else(|problem| copy.go_on(problem))?);
    }
    // The innermost first: making what is in a directory changed its times.
    for (inode, like, path) in std::mem::take(&mut copy.directories).iter().rev() {
        let path = copy.kept.path(*path);
        finish(inode, like).destination(&path).or_else(|problem| copy.go_on(problem).map(drop))?;
    }
    copy.left_out.tell(copy.observer);
    Ok(())
}

/// Bytes that [`insert`] will move, about; what cannot be read counts nothing.
#[must_use]
pub fn insert_size(source: &Path) -> u64 {
    let Ok(start) = HostFile::named(source, true) else { return 0 };
    let mut total = start.allocated();
    let mut folders: Vec<Arc<HostFolder>> = start.folder().ok().map(Arc::new).into_iter().collect();
    while let Some(folder) = folders.pop() {
        for name in folder.names().unwrap_or_default() {
            let Ok(file) = HostFile::within(&folder, &name) else { continue };
            total += file.allocated();
            if file.kind() == FileKind::Directory {
                folders.extend(file.folder().ok().map(Arc::new));
            }
        }
    }
    total
}

/// A file that is to be copied.
struct Job {
    /// The directory it is in, and the path of that.
    folder: Arc<HostFolder>,
    source: Arc<[u8]>,
    name: CString,
    /// Where it goes, and the path of that.
    parent: Inode,
    path: Arc<[u8]>,
}

/// A copy that is going on.
struct Copy<'a> {
    into: &'a Destination<'a>,
    observer: &'a mut dyn Observer,
    /// Files with several names, by device and inode number of the host.
    first_names: BTreeMap<(u64, u64), Inode>,
    buffer: Vec<u8>,
    /// Directories that were made, whose attributes are set at the end.
    directories: Vec<(Inode, Like, KeptPath)>,
    kept: KeptPaths,
    left_out: LeftOut,
}

impl Copy<'_> {
    /// Tells of a file that is not copied; a full file system ends the copy.
    fn go_on(&mut self, problem: Problem) -> Result<Vec<Job>, Problem> {
        if problem.is_full() {
            return Err(problem);
        }
        self.observer.problem(problem);
        Ok(Vec::new())
    }

    /// One file. Gives what is in it, the first last.
    fn one(
        &mut self,
        file: &HostFile,
        source: &[u8],
        parent: &Inode,
        path: Vec<u8>,
        name: &[u8],
    ) -> Result<Vec<Job>, Problem> {
        let (device, number) = file.identity();
        if file.kind() == FileKind::Regular && self.observer.leaves_out(source, device, number) {
            return Ok(Vec::new());
        }
        let several = file.several_names();
        if let Some(first) = several.and_then(|identity| self.first_names.get(&identity)) {
            make_link(parent, name, first).destination(&path)?;
            return Ok(Vec::new());
        }
        let (like, left_out) = file.like().source(source)?;
        self.left_out.add(left_out);
        let like = like.owned_by(self.into.owner);
        let inode = match like.kind {
            FileKind::Directory => {
                let inode = make_dir(parent, name, &like).destination(&path)?;
                let jobs = inside(file, source, &inode, &path);
                self.directories.push((inode, like, self.kept.keep(&path)));
                return jobs;
            }
            FileKind::Symlink => {
                let target = file.link_target().source(source)?;
                make_symlink(parent, name, &target, &like).destination(&path)?
            }
            _ => make_file(parent, name, &like).destination(&path)?,
        };
        if like.kind == FileKind::Regular {
            self.fill(file, source, &inode, &path)?;
        }
        finish(&inode, &like).destination(&path)?;
        if let Some(identity) = several {
            self.first_names.insert(identity, inode);
        }
        Ok(Vec::new())
    }

    /// Moves the bytes of a file, run by run, so that its holes stay holes.
    fn fill(&mut self, file: &HostFile, source: &[u8], inode: &Inode, path: &[u8]) -> Result<(), Problem> {
        use std::os::unix::fs::FileExt as _;
        let file = file.contents().source(source)?;
        let size = file.metadata().source(source)?.len();
        let mut at = 0;
        while let Some(run) = next_data(&file, at, size).source(source)? {
            at = run.start;
            while at < run.end {
                // To the next multiple, so that the pieces are units. OK to cast: at most the buffer's length.
                let want = (CHUNK as u64 - at % CHUNK as u64).min(run.end - at) as usize;
                let part = first(&mut self.buffer, want);
                let read = file.read_at(part, at).source(source)?;
                if read == 0 {
                    return Err(io::Error::other("became shorter while it was read")).source(source);
                }
                store(inode, at, part.get(..read).unwrap_or_default()).destination(path)?;
                at += read as u64;
                self.observer.moved(read as u64);
            }
        }
        if inode.size() < size {
            inode.truncate(size, Wait::Yes).destination(path)?;
        }
        Ok(())
    }
}

/// What is in a directory of the host, the first name last.
fn inside(directory: &HostFile, source: &[u8], parent: &Inode, path: &[u8]) -> Result<Vec<Job>, Problem> {
    let folder = Arc::new(directory.folder().source(source)?);
    let (source, path): (Arc<[u8]>, Arc<[u8]>) = (source.into(), path.into());
    let names = folder.names().source(&source)?;
    let job = |name| Job {
        folder: Arc::clone(&folder),
        source: Arc::clone(&source),
        name,
        parent: parent.clone(),
        path: Arc::clone(&path),
    };
    Ok(names.into_iter().rev().map(job).collect())
}
