//! Names, by system calls.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use ext2_core::{DirEntry, FileKind, InodeNr, RenameFlags};
use rustix::{
    fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom},
    io::Result as Io,
};

use super::hands::{Done, Kernel, call, done, number, path_of, reopen};
use crate::sim::{
    Answer, Operation, Step, name,
    perform::{join, new_inode, target},
};

/// Bytes that are asked of a directory at once.
const LISTED: usize = 4096;

/// The mask of the process, which is one for all threads.
static MASK: Mutex<()> = Mutex::new(());

/// Makes something while the process has a mask.
fn masked<T>(mask: u16, work: impl FnOnce() -> T) -> T {
    let held = MASK.lock().unwrap_or_else(PoisonError::into_inner);
    let before = rustix::process::umask(Mode::from_raw_mode(mask.into()));
    let made = work();
    rustix::process::umask(before);
    drop(held);
    made
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) nr: u32,
    pub(super) name: Vec<u8>,
    pub(super) kind: Option<FileKind>,
    /// Where listing goes on after it.
    pub(super) next_cookie: u64,
}

impl From<&DirEntry> for Listed {
    fn from(entry: &DirEntry) -> Self {
        let (nr, name) = (entry.nr.get(), entry.name.as_bytes().to_vec());
        Self { nr, name, kind: entry.kind, next_cookie: entry.next_cookie }
    }
}

/// Opens a name without using what it leads to.
pub(super) fn open_path(dir: impl AsFd, name: &[u8]) -> Io<OwnedFd> {
    fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

impl Kernel {
    /// Does it, if it is about names.
    pub(super) fn attempt(&mut self, step: &Step) -> Done {
        use Operation as O;
        match &step.operation {
            O::Root { to } => {
                let root = call(open_path(self.root(), b"."))?;
                self.take(*to, root)
            }
            O::Lookup { dir, name: nr, to } => {
                let found = self.find(*dir, &name(*nr))?;
                self.take(*to, found)
            }
            O::LookupNr { dir, name: nr } => {
                let found = self.find(*dir, &name(*nr))?;
                Ok(Answer::Number(number(&call(fs::fstat(found))?).into()))
            }
            O::ByNumber { of, to } => {
                let again = call(rustix::io::fcntl_dupfd_cloexec(self.hand(*of)?, 0))?;
                self.take(*to, again)
            }
            O::Resolve { path, follow, to } => {
                let flags = if *follow { OFlags::empty() } else { OFlags::NOFOLLOW };
                let found = self.resolve(&join(*path), flags)?;
                self.take(*to, found)
            }
            O::ResolveParent { path, to } => {
                let found = self.resolve(&[b"/", &name(path[0])[..]].concat(), OFlags::DIRECTORY)?;
                self.take(*to, found)
            }
            O::Create { dir, name: nr, kind, mode, umask, to } => {
                let new = new_inode(step.actor, *kind, *mode, *umask);
                let mode = Mode::from_raw_mode(new.mode.into());
                let kind = match kind {
                    FileKind::Directory => FileType::Directory,
                    FileKind::Regular => FileType::RegularFile,
                    FileKind::Fifo => FileType::Fifo,
                    FileKind::Socket => FileType::Socket,
                    FileKind::CharDevice => FileType::CharacterDevice,
                    FileKind::BlockDevice => FileType::BlockDevice,
                    FileKind::Symlink => FileType::Symlink,
                };
                let device = new.device.map_or(0, |device| fs::makedev(device.major, device.minor));
                let (dir, name) = (self.hand(*dir)?, name(*nr));
                call(masked(*umask, || match kind {
                    FileType::Directory => fs::mkdirat(dir, &*name, mode),
                    kind => fs::mknodat(dir, &*name, kind, mode, device),
                }))?;
                let made = call(open_path(dir, &name))?;
                self.take(*to, made)
            }
            O::Symlink { dir, name: nr, target: at, len, to } => {
                let (dir, name) = (self.hand(*dir)?, name(*nr));
                call(fs::symlinkat(&*target(*at, *len), dir, &*name))?;
                let made = call(open_path(dir, &name))?;
                self.take(*to, made)
            }
            O::Tmpfile { dir, mode, to } => {
                let (dir, mode) = (self.hand(*dir)?, Mode::from_raw_mode((*mode).into()));
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                let made = call(masked(0o022, || fs::openat(dir, ".", flags, mode)))?;
                let made = call(reopen(made, OFlags::PATH))?;
                self.take(*to, made)
            }
            O::Link { of, dir, name: nr } => {
                let (of, dir) = (self.hand(*of)?, self.hand(*dir)?);
                done(fs::linkat(of, "", dir, &*name(*nr), AtFlags::EMPTY_PATH))
            }
            O::Unlink { dir, name: nr } => {
                done(fs::unlinkat(self.hand(*dir)?, &*name(*nr), AtFlags::empty()))
            }
            O::Rmdir { dir, name: nr } => {
                done(fs::unlinkat(self.hand(*dir)?, &*name(*nr), AtFlags::REMOVEDIR))
            }
            O::Rename { dir, name: from, to_dir, to_name, flags } => {
                let (old, new) = (self.hand(*dir)?, self.hand(*to_dir)?);
                let mut how = fs::RenameFlags::empty();
                how.set(fs::RenameFlags::NOREPLACE, flags.contains(RenameFlags::NOREPLACE));
                how.set(fs::RenameFlags::EXCHANGE, flags.contains(RenameFlags::EXCHANGE));
                done(fs::renameat_with(old, &*name(*from), new, &*name(*to_name), how))
            }
            O::ReadLink { of } => {
                let target = call(fs::readlinkat(self.hand(*of)?, "", Vec::new()))?;
                Ok(Answer::Bytes(target.into_bytes()))
            }
            O::BeginListing { dir, listing } => {
                let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = call(fs::openat(self.hand(*dir)?, ".", flags, Mode::empty()))?;
                self.held.listings[usize::from(*listing)] = Some((opened, 0));
                Ok(Answer::Done)
            }
            O::LetGo { of } => {
                self.hand(*of)?;
                self.held.hands[usize::from(*of)] = None;
                Ok(Answer::Done)
            }
            _ => self.attempt_attributes(step),
        }
    }

    /// What a name leads to. Above the root there is nothing.
    fn find(&self, dir: u8, name: &[u8]) -> Result<OwnedFd, Answer> {
        let dir = self.hand(dir)?;
        let is_root = number(&call(fs::fstat(dir))?) == InodeNr::ROOT.get();
        call(open_path(dir, if is_root && name == b".." { b"." } else { name }))
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Answer> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        call(fs::openat2(self.root(), path, flags, Mode::empty(), ResolveFlags::IN_ROOT))
    }

    /// Goes on listing, by so many entries at most, and says whether there are more.
    pub(super) fn list(&mut self, slot: usize, count: usize) -> Result<(Vec<Listed>, bool), Answer> {
        let Some((dir, cookie)) = &mut self.held.listings[slot] else { return Err(Answer::Nothing) };
        let (some, more) = call(entries(&*dir, *cookie, count))?;
        *cookie = some.last().map_or(*cookie, |entry| entry.next_cookie);
        Ok((some, more))
    }
}

/// So many entries of an open directory from a cookie on, and whether there are more.
pub(super) fn entries(dir: impl AsFd, cookie: u64, count: usize) -> Io<(Vec<Listed>, bool)> {
    fs::seek(&dir, SeekFrom::Start(cookie))?;
    let mut buffer = [MaybeUninit::uninit(); LISTED];
    let mut raw = RawDir::new(&dir, &mut buffer);
    let mut some = Vec::new();
    while some.len() < count {
        let Some(entry) = raw.next() else { return Ok((some, false)) };
        let entry = entry?;
        some.push(Listed {
            nr: u32::try_from(entry.ino()).expect("inodes of ext2 have 32 bits"),
            name: entry.file_name().to_bytes().to_vec(),
            kind: match entry.file_type() {
                FileType::RegularFile => Some(FileKind::Regular),
                FileType::Directory => Some(FileKind::Directory),
                FileType::Symlink => Some(FileKind::Symlink),
                FileType::Fifo => Some(FileKind::Fifo),
                FileType::Socket => Some(FileKind::Socket),
                FileType::CharacterDevice => Some(FileKind::CharDevice),
                FileType::BlockDevice => Some(FileKind::BlockDevice),
                FileType::Unknown => None,
            },
            next_cookie: entry.next_entry_cookie(),
        });
    }
    Ok((some, true))
}

/// The names of what a path descriptor has, opened for reading its entries.
pub(super) fn listed(dir: impl AsFd) -> Io<Vec<Listed>> {
    let opened = fs::openat(CWD, path_of(&dir), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    entries(opened, 0, usize::MAX).map(|(all, _)| all)
}
