//! The kernel's file system, with what the actor holds of it.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use ext2_core::FileKind;
use ext2_dax::OpenFor;
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, Stat},
    io::Result as Io,
};

use super::{attributes::Space, maps::Map, names::Listed};
use crate::{
    mount::Mounted,
    sim::{
        Answer, HANDS, Operation, Step,
        operation::{FILES, LISTINGS, MAPS},
    },
};

/// What the kernel gave.
#[derive(Clone, Debug)]
pub(super) enum Given {
    /// What the library would give as well.
    Answer(Answer),
    /// Space.
    Space(Space),
    /// Entries, and whether there are more.
    Entries(Vec<Listed>, bool),
}

impl Given {
    /// In a few words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Answer(answer) => answer.words(),
            other => format!("{other:?}"),
        }
    }
}

/// A step that ends with an answer, or with a refusal or nothing to do it with.
pub(super) type Done = Result<Answer, Answer>;

/// What a call gave, as an answer where it refused.
pub(super) fn call<T>(result: Io<T>) -> Result<T, Answer> {
    result.map_err(|errno| Answer::Refused(errno.into()))
}

/// The same where nothing is given.
pub(super) fn done<T>(result: Io<T>) -> Done {
    call(result).map(|_| Answer::Done)
}

/// What the actor holds: descriptors.
#[derive(Debug)]
pub(super) struct Held {
    /// Opened with `O_PATH`.
    pub(super) hands: Vec<Option<OwnedFd>>,
    pub(super) files: Vec<Option<(OwnedFd, OpenFor)>>,
    pub(super) maps: Vec<Option<Map>>,
    /// Directories with where listing goes on.
    pub(super) listings: Vec<Option<(OwnedFd, u64)>>,
}

impl Held {
    fn new() -> Self {
        fn none<T>(count: u8) -> Vec<Option<T>> {
            (0..count).map(|_| None).collect()
        }
        Self { hands: none(HANDS), files: none(FILES), maps: none(MAPS), listings: none(LISTINGS) }
    }
}

/// A mount of the kernel's, and one process that uses it.
#[derive(Debug)]
pub(super) struct Kernel {
    image: PathBuf,
    fs_type: &'static str,
    options: String,
    /// Nothing only while it is mounted anew.
    mounted: Option<Mounted>,
    root: Option<OwnedFd>,
    pub(super) held: Held,
}

impl Kernel {
    /// Mounts an image, with options of mount(8) besides the usual ones.
    ///
    /// # Errors
    /// What mount(8) says.
    pub(super) fn new(image: PathBuf, fs_type: &'static str, options: &str) -> Result<Self, String> {
        let options = format!("loop,nodev,noatime{options}");
        let mut kernel = Self { image, fs_type, options, mounted: None, root: None, held: Held::new() };
        kernel.mount(false)?;
        Ok(kernel)
    }

    fn mount(&mut self, read_only: bool) -> Result<(), String> {
        let access = if read_only { "ro" } else { "rw" };
        let mounted = Mounted::with(&self.image, self.fs_type, &format!("{access},{}", self.options))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, mounted.folder(), flags, Mode::empty());
        (self.root, self.mounted) = (Some(root.map_err(|errno| errno.to_string())?), Some(mounted));
        Ok(())
    }

    /// Lets go of everything and unmounts.
    pub(super) fn unmount(&mut self) {
        self.held = Held::new();
        self.root = None;
        self.mounted = None;
    }

    /// The same, and mounts again.
    ///
    /// # Errors
    /// What mount(8) says.
    pub(super) fn remount(&mut self, read_only: bool) -> Result<(), String> {
        self.unmount();
        self.mount(read_only)
    }

    /// The root directory.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_ref().expect("it is mounted").as_fd()
    }

    /// Does it.
    pub(super) fn perform(&mut self, step: &Step) -> Given {
        Given::Answer(match step.operation {
            Operation::Remount { read_only } => match self.remount(read_only) {
                Ok(()) => Answer::Done,
                Err(words) => Answer::Broken(words),
            },
            Operation::Exit => {
                self.held = Held::new();
                Answer::Done
            }
            Operation::StatFs => match self.space() {
                Ok(space) => return Given::Space(space),
                Err(answer) => answer,
            },
            Operation::List { listing, count } => match self.list(listing.into(), count.into()) {
                Ok((entries, more)) => return Given::Entries(entries, more),
                Err(answer) => answer,
            },
            _ => self.attempt(step).unwrap_or_else(|answer| answer),
        })
    }

    /// What a hand holds.
    pub(super) fn hand(&self, hand: u8) -> Result<BorrowedFd<'_>, Answer> {
        self.held
            .hands
            .get(usize::from(hand))
            .and_then(Option::as_ref)
            .map(AsFd::as_fd)
            .ok_or(Answer::Nothing)
    }

    /// An open file.
    pub(super) fn file(&self, file: u8) -> Result<BorrowedFd<'_>, Answer> {
        let slot = self.held.files.get(usize::from(file)).and_then(Option::as_ref);
        slot.map(|(file, _)| file.as_fd()).ok_or(Answer::Nothing)
    }

    /// Takes something in hand.
    pub(super) fn take(&mut self, to: u8, taken: OwnedFd) -> Done {
        let stat = call(rustix::fs::fstat(&taken))?;
        self.held.hands[usize::from(to)] = Some(taken);
        Ok(Answer::Inode(number(&stat), kind(&stat)))
    }
}

impl Drop for Kernel {
    /// What is held goes before what it is held of.
    fn drop(&mut self) {
        self.unmount();
    }
}

/// The number of an inode.
pub(super) fn number(stat: &Stat) -> u32 {
    u32::try_from(stat.st_ino).expect("inodes of ext2 have 32 bits")
}

/// The kind of an inode.
pub(super) fn kind(stat: &Stat) -> FileKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::Regular,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Unknown => panic!("the kernel knows the kind"),
    }
}

/// The path that leads to what a descriptor has, whatever that is.
pub(super) fn path_of(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Opens what a descriptor has once more.
pub(super) fn reopen(fd: impl AsFd, flags: OFlags) -> Io<OwnedFd> {
    rustix::fs::openat(CWD, path_of(&fd), flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
}
