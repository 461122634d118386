//! Places in images: `IMG`, `IMG:/path`, `IMG@OFFSET:/path`, `IMG@pN:/path`, `IMG@dax:/path`; and how images are opened.
//!
//! All of it is bytes. A `:` or `@` may be part of a file's name: the longest part of the argument that is a file of
//! this machine is the image.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::{BlockDevice, PAGE_SIZE, Partition};
use clap::{Args, ValueEnum};
use ext2_core::{BlockSize, Ext2, Follow, GroupNr, Inode, OpenOptions, SuperblockAt};
use ext2_image::UNIT;
use ext2_image::mkfs::pfn;

use crate::clock;
use crate::failure::{Failure, Of, Result};
use crate::text::{parse_bytes, show};

/// How images are opened, for all verbs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "How to open images")]
pub(crate) struct ImageOptions {
    /// What the image becomes: memory (with DAX), a file that is read and written by system calls, or a copy in RAM
    /// (what is written is lost)
    #[arg(long, global = true, value_name = "KIND", default_value = "mmap")]
    pub(crate) device: DeviceKind,

    /// Use a backup superblock: that of a group (group:N), or in a block of a known size (BLOCK:SIZE)
    #[arg(long, global = true, value_name = "WHERE", value_parser = parse_superblock)]
    pub(crate) superblock: Option<SuperblockAt>,

    /// What a power cut may do to an image that is being changed: nothing that e2fsck -p does not mend without a question
    /// (strict: each step reaches the disk before the next; ordered: many reach it together, through a log in the
    /// image), or anything (relaxed: the system writes as it likes). The default is strict, and ordered for copies
    #[arg(long, global = true, value_name = "HOW")]
    pub(crate) durability: Option<Durable>,

    /// Read an image whose journal needs recovery, as it is without the journal
    #[arg(long, global = true)]
    pub(crate) ignore_journal: bool,
}

/// What a power cut may do to an image that is being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durable {
    /// Each step reaches the disk before the next
    Strict,
    /// Changes reach it together, through a log in the image
    Ordered,
    /// The system writes as it likes
    Relaxed,
}

impl ImageOptions {
    /// What a fence is to mean on the device.
    pub(crate) fn durability(&self) -> blockdev::Durability {
        match self.durability {
            Some(Durable::Relaxed) => blockdev::Durability::Relaxed,
            None | Some(Durable::Strict | Durable::Ordered) => blockdev::Durability::Strict,
        }
    }
}

/// What an image becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceKind {
    /// Memory, with DAX
    Mmap,
    /// System calls, no DAX
    File,
    /// A copy in RAM
    Ram,
}

fn parse_superblock(text: &str) -> Result<SuperblockAt, String> {
    let (left, right) = text.split_once(':').ok_or("neither group:N nor BLOCK:SIZE")?;
    let number = |text: &str| text.parse::<u32>().map_err(|error| format!("{text}: {error}"));
    if left == "group" {
        return Ok(SuperblockAt::Group(GroupNr::new(number(right)?)));
    }
    let size =
        BlockSize::new(u64::from(number(right)?)).ok_or("a block has 1024 to 65536 bytes, a power of two")?;
    Ok(SuperblockAt::Block { block: number(left)?, size })
}

/// What to do with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Look at it. Needs no write permission and changes no byte.
    Read,
    /// Change it.
    Write,
}

/// Where in the file the file system begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At its beginning.
    Whole,
    /// At a byte, up to the end.
    Offset(u64),
    /// In a partition, counted from 1.
    Partition(u32),
    /// Behind the header of an nvdimm namespace.
    Pfn,
}

impl Place {
    /// What stands behind an `@`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if text == "dax" {
            return Some(Self::Pfn);
        }
        match text.strip_prefix('p') {
            Some(number) => number.parse().ok().map(Self::Partition),
            None => parse_bytes(text).ok().map(Self::Offset),
        }
    }
}

/// A place in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The file of this machine.
    pub(crate) image: PathBuf,
    place: Place,
    /// The byte at which the file system begins, once it is open.
    offset: Cell<u64>,
    /// The path inside, as given; empty for the root.
    path: Vec<u8>,
}

impl Target {
    /// Reads an argument.
    ///
    /// # Errors
    /// When no part of it is a file.
    pub(crate) fn parse(argument: &OsStr) -> Result<Self> {
        if let Some(target) = Self::find(argument) {
            return Ok(target);
        }
        let bytes = argument.as_bytes();
        let image =
            bytes.iter().position(|&byte| byte == b':').and_then(|colon| bytes.get(..colon)).unwrap_or(bytes);
        let path = Path::new(OsStr::from_bytes(image));
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Err(Failure::text(show(image), "is a directory and not an image")),
            Ok(_) => Err(Failure::text(show(image), "is not an image")),
            Err(error) => Err(Failure::host(path, error)),
        }
    }

    /// Reads an argument that may just as well name a file of this machine: an image only with a `:`.
    pub(crate) fn parse_inside(argument: &OsStr) -> Option<Self> {
        let target = Self::find(argument)?;
        argument
            .as_bytes()
            .get(target.image.as_os_str().len()..)
            .is_some_and(|rest| rest.contains(&b':'))
            .then_some(target)
    }

    /// The longest part before a `:` (or all of it) that is an image.
    fn find(argument: &OsStr) -> Option<Self> {
        let bytes = argument.as_bytes();
        let colons = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
        std::iter::once(bytes.len()).chain(colons).find_map(|cut| {
            let (image, rest) = bytes.split_at_checked(cut)?;
            let path = rest.get(1..).unwrap_or_default();
            let file = |name: &[u8], place| {
                let image = PathBuf::from(OsString::from_vec(name.to_vec()));
                let is_file = std::fs::metadata(&image).is_ok_and(|meta| !meta.is_dir());
                is_file.then(|| Self { image, place, offset: Cell::new(0), path: path.to_vec() })
            };
            file(image, Place::Whole).or_else(|| {
                let at = image.iter().rposition(|&byte| byte == b'@')?;
                file(image.get(..at)?, Place::parse(image.get(at + 1..)?)?)
            })
        })
    }

    /// Whether both are the same file system of the same file.
    pub(crate) fn is_same_image(&self, other: &Self) -> bool {
        self.place == other.place && (self.image == other.image || is_same_file(&self.image, &other.image))
    }

    /// The path inside, from the root.
    pub(crate) fn path(&self) -> &[u8] {
        if self.path.is_empty() { b"/" } else { &self.path }
    }

    /// The same image with another path.
    pub(crate) fn with_path(&self, path: &[u8]) -> Self {
        Self { path: path.to_vec(), ..self.clone() }
    }

    /// `IMG:/path` for messages.
    pub(crate) fn name(&self) -> String {
        self.name_of(self.path())
    }

    /// `IMG:path` for messages about another path of the image.
    pub(crate) fn name_of(&self, path: &[u8]) -> String {
        format!("{}:{}", self.image_name(), show(path))
    }

    /// The image for messages.
    pub(crate) fn image_name(&self) -> String {
        let image = show(self.image.as_os_str().as_bytes());
        match self.place {
            Place::Whole => image,
            Place::Offset(offset) => format!("{image}@{offset}"),
            Place::Partition(number) => format!("{image}@p{number}"),
            Place::Pfn => format!("{image}@dax"),
        }
    }

    /// Whether what is behind the file system ends where the image ends, so that it grows with it.
    pub(crate) fn can_grow(&self) -> bool {
        !matches!(self.place, Place::Partition(_))
            && std::fs::metadata(&self.image).is_ok_and(|meta| meta.is_file())
    }

    /// Whether the file system has a file of this machine for itself, from its first byte on.
    pub(crate) fn is_whole_file(&self) -> bool {
        self.place == Place::Whole && std::fs::metadata(&self.image).is_ok_and(|meta| meta.is_file())
    }

    /// The byte of the image at which the file system begins, once it is open.
    pub(crate) fn offset(&self) -> u64 {
        self.offset.get()
    }

    /// How many bytes behind a multiple of 2 MiB of memory the file system begins: by the page frames of a device
    /// that is memory, by the place in the image of any other.
    pub(crate) fn bias(&self, device: &dyn BlockDevice) -> u64 {
        let offset = match device.dax() {
            Some(dax) => dax.pfn(0).wrapping_mul(PAGE_SIZE),
            None => self.offset.get(),
        };
        offset % UNIT
    }

    /// The device in which the file system lies.
    pub(crate) fn open_device(
        &self,
        options: &ImageOptions,
        mode: Mode,
        durability: blockdev::Durability,
    ) -> Result<Arc<dyn BlockDevice>> {
        let kind = match options.device {
            DeviceKind::Mmap => blockdev::Backend::Mmap,
            DeviceKind::File => blockdev::Backend::File,
            DeviceKind::Ram => blockdev::Backend::Ram,
        };
        let how = match mode {
            Mode::Read => blockdev::DeviceOptions::read_only(),
            Mode::Write => blockdev::DeviceOptions::read_write(),
        };
        let whole = blockdev::open_image(&self.image, &blockdev::DeviceOptions { kind, durability, ..how })
            .map_err(|error| {
            match error {
                // These are about the file as a whole and name it themselves.
                blockdev::Error::Io { op: op @ ("open" | "lock" | "map"), message, .. } => {
                    let own = format!("{}: ", self.image.display());
                    let message = message.strip_prefix(own.as_str()).unwrap_or(&message);
                    Failure::text(self.image_name(), format!("{op}: {message}"))
                }
                other => Failure::new(self.image_name(), other),
            }
        })?;
        let part = match self.place {
            Place::Whole => return Ok(whole),
            Place::Offset(offset) => Partition::from_offset(whole, offset),
            Place::Partition(number) => Partition::numbered(whole, number),
            Place::Pfn => {
                let found =
                    pfn::find(&whole).map_err(|error| Failure::text(self.image_name(), error.to_string()))?;
                let none = || Failure::text(self.image_name(), "has no header of an nvdimm namespace");
                Partition::from_offset(whole, found.ok_or_else(none)?.data_offset)
            }
        };
        let part = part.of(|| self.image_name())?;
        self.offset.set(part.offset());
        Ok(Arc::new(part))
    }

    /// The file system.
    pub(crate) fn open(&self, options: &ImageOptions, mode: Mode) -> Result<Ext2> {
        let device = self.open_device(options, mode, options.durability())?;
        self.open_on(device, options, mode, false)
    }

    /// The file system on its device; with `log`, its changes reach the disk together.
    pub(crate) fn open_on(
        &self,
        device: Arc<dyn BlockDevice>,
        options: &ImageOptions,
        mode: Mode,
        log: bool,
    ) -> Result<Ext2> {
        let how = OpenOptions {
            read_only: mode == Mode::Read,
            superblock: options.superblock.unwrap_or_default(),
            ignore_journal: options.ignore_journal,
            device_offset: self.offset.get(),
            log,
            clock: clock::fixed()?,
            ..OpenOptions::default()
        };
        Ext2::open(device.clone(), &how).map_err(|error| match self.hint(&*device, &error) {
            _ if matches!(error, ext2_core::Error::Incompatible(_))
                && ext2_image::rewrite::is_unfinished(&*device).unwrap_or(false) =>
            {
                let what = "a change of the whole image was interrupted: run that again, or anything that changes the \
                            image (e2dax touch -c IMG:/), and it is carried out";
                Failure::broken(self.image_name(), what)
            }
            Some(hint) => Failure::broken(self.image_name(), hint),
            None => Failure::new(self.image_name(), error),
        })
    }

    /// Where else to look, when there is no file system at the beginning but a partition table.
    fn hint(&self, device: &dyn BlockDevice, error: &ext2_core::Error) -> Option<String> {
        if !matches!(error, ext2_core::Error::Corrupt(_)) || self.place != Place::Whole {
            return None;
        }
        let found = blockdev::partitions(device).ok().filter(|found| !found.is_empty())?;
        let numbers: Vec<String> = found.iter().map(|entry| format!("p{}", entry.index)).collect();
        let image = self.image_name();
        Some(format!("{error}; it has partitions: try {image}@{}", numbers.join(&format!(" or {image}@"))))
    }

    /// The file system and what the path leads to.
    pub(crate) fn resolve(
        &self,
        options: &ImageOptions,
        mode: Mode,
        follow: Follow,
    ) -> Result<(Ext2, Inode)> {
        let fs = self.open(options, mode)?;
        let inode = fs.resolve(self.path(), follow).of(|| self.name())?;
        Ok((fs, inode))
    }
}

/// Whether two paths of this machine lead to one file.
fn is_same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    id(a).is_some_and(|a| Some(a) == id(b))
}
