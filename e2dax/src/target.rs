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
use ext2_core::{BlockSize, Errno, Error, Ext2, Follow, GroupNr, Inode, InodeNr, OpenOptions, SuperblockAt};
use ext2_image::UNIT;
use ext2_image::fields::Layout;
use ext2_image::mkfs::pfn;
use ext2_image::packed;
use ext2_image::repair::{Backup, backup_in_block, find_backup, has_superblock};

use crate::clock;
use crate::failure::{Failure, Of, Result};
use crate::kept;
use crate::text::{parse_bytes, show};

/// How images are opened, for all verbs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "How to open images")]
pub(crate) struct ImageOptions {
    /// What the image becomes: memory (with DAX), a file that is read and written by system calls, or a copy in RAM
    /// (what is written is lost)
    #[arg(long, global = true, value_name = "KIND", default_value = "mmap")]
    pub(crate) device: DeviceKind,

    /// Use a backup superblock: the first that is found where the primary one cannot be used (auto), that of a group
    /// (group:N), or in a block (BLOCK, or BLOCK:SIZE where the size of blocks is known)
    #[arg(long, global = true, value_name = "WHERE", value_parser = parse_superblock)]
    pub(crate) superblock: Option<SuperblockFrom>,

    /// What a power cut may do to an image that is being changed: nothing that e2fsck -p does not mend without a question
    /// (strict: each step reaches the disk before the next; ordered: many reach it together, through a log in the
    /// image), or anything (relaxed: the system writes as it likes). The default is strict, and ordered for copies
    #[arg(long, global = true, value_name = "HOW")]
    pub(crate) durability: Option<Durable>,

    /// Wait for whoever has the image open, in place of an error
    #[arg(long, global = true)]
    pub(crate) wait: bool,

    /// Read what can be read: an image that is cut off is opened, its superblock found in a backup, and cp and cat go on
    /// past what is missing and tell what it was
    #[arg(long, global = true)]
    pub(crate) rescue: bool,

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

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            device: DeviceKind::Mmap,
            superblock: None,
            durability: None,
            wait: false,
            rescue: false,
            ignore_journal: false,
        }
    }
}

impl ImageOptions {
    /// These, with what others say more.
    pub(crate) fn or(&self, others: &Self) -> Self {
        Self {
            device: if others.device == DeviceKind::Mmap { self.device } else { others.device },
            superblock: others.superblock.or(self.superblock),
            durability: others.durability.or(self.durability),
            wait: self.wait || others.wait,
            rescue: self.rescue || others.rescue,
            ignore_journal: self.ignore_journal || others.ignore_journal,
        }
    }

    /// Where the superblock lies that is asked for.
    ///
    /// # Errors
    /// When none is there.
    pub(crate) fn superblock_on(&self, device: &dyn BlockDevice, name: &str) -> Result<SuperblockAt> {
        match self.superblock {
            None => Ok(SuperblockAt::Primary),
            Some(from) => {
                from.place(device).ok_or_else(|| Failure::broken(name, "has no backup of a superblock there"))
            }
        }
    }

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

/// Which superblock is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SuperblockFrom {
    /// The primary one, or the first backup that is found.
    Auto,
    /// In a block, of the size that it says itself.
    Block(u32),
    /// At a place.
    At(SuperblockAt),
}

impl SuperblockFrom {
    /// Where it lies on a device; `None` where there is none.
    pub(crate) fn place(self, device: &dyn BlockDevice) -> Option<SuperblockAt> {
        let at = |backup: Backup| {
            let size = BlockSize::new(backup.block_size)?;
            Some(SuperblockAt::Block { block: u32::try_from(backup.block).ok()?, size })
        };
        match self {
            Self::At(at) => Some(at),
            Self::Auto if has_superblock(device) => Some(SuperblockAt::Primary),
            Self::Auto => find_backup(device).and_then(at),
            Self::Block(block) => backup_in_block(device, block.into()).and_then(at),
        }
    }

    /// The block in which it lies, for a place whose size of blocks is known or found.
    pub(crate) fn block(self, device: &dyn BlockDevice) -> Option<u64> {
        match self {
            Self::Auto => find_backup(device).map(|backup| backup.block),
            Self::Block(block) | Self::At(SuperblockAt::Block { block, .. }) => Some(block.into()),
            Self::At(SuperblockAt::Group(group)) => (0..=6u32).find_map(|log| {
                let size = 1024u64 << log;
                let block = u64::from(log == 0) + u64::from(group.get()) * size * 8;
                backup_in_block(device, block)
                    .filter(|backup| backup.block_size == size && backup.group == group.get())
                    .map(|backup| backup.block)
            }),
            Self::At(SuperblockAt::Primary) => None,
        }
    }
}

pub(crate) fn parse_superblock(text: &str) -> Result<SuperblockFrom, String> {
    let number = |text: &str| text.parse::<u32>().map_err(|error| format!("{text}: {error}"));
    if text == "auto" {
        return Ok(SuperblockFrom::Auto);
    }
    let Some((left, right)) = text.split_once(':') else {
        return number(text)
            .map(SuperblockFrom::Block)
            .map_err(|_| "none of auto, group:N, BLOCK and BLOCK:SIZE".to_owned());
    };
    if left == "group" {
        return Ok(SuperblockFrom::At(SuperblockAt::Group(GroupNr::new(number(right)?))));
    }
    let size =
        BlockSize::new(u64::from(number(right)?)).ok_or("a block has 1024 to 65536 bytes, a power of two")?;
    Ok(SuperblockFrom::At(SuperblockAt::Block { block: number(left)?, size }))
}

/// Between two looks whether an image is free.
const WAIT: std::time::Duration = std::time::Duration::from_millis(50);

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

/// A device that is looked at byte by byte.
pub(crate) struct Raw {
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) layout: Layout,
    _claim: Option<blockdev::Claim>,
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
        if let Some(inside) = Self::in_shell(argument) {
            return Ok(inside);
        }
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

    /// Reads an argument of a verb that is about all of an image.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); a path inside the image, which the verb would pass over.
    pub(crate) fn parse_image(argument: &OsStr) -> Result<Self> {
        if let Some(image) = kept::image().filter(|_| argument == ":") {
            return Ok(image);
        }
        let target = Self::parse(argument)?;
        if target.path.iter().any(|&byte| byte != b'/') {
            let what =
                format!("this verb is about all of an image; give {} without a path", target.image_name());
            return Err(Failure::usage(argument, what));
        }
        Ok(target)
    }

    /// In a shell, an argument as a path of its image: with a colon before it, or without, where it does not name another
    /// image.
    fn in_shell(argument: &OsStr) -> Option<Self> {
        let bytes = argument.as_bytes();
        match bytes.strip_prefix(b":") {
            Some(path) => kept::target(path),
            None if bytes.contains(&b':')
                && kept::directory().is_some()
                && Self::find(argument).is_some() =>
            {
                None
            }
            None => kept::target(bytes),
        }
    }

    /// Reads an argument that may just as well name a file of this machine: an image only with a `:`.
    pub(crate) fn parse_inside(argument: &OsStr) -> Option<Self> {
        if let [b':' | b'<', ..] = argument.as_bytes()
            && let Some(inside) = Self::in_shell(argument)
        {
            return Some(inside);
        }
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
        kept::make_way(self);
        let kind = match options.device {
            DeviceKind::Mmap => blockdev::Backend::Mmap,
            DeviceKind::File => blockdev::Backend::File,
            DeviceKind::Ram => blockdev::Backend::Ram,
        };
        let how = match mode {
            Mode::Read => blockdev::DeviceOptions::read_only(),
            Mode::Write => blockdev::DeviceOptions::read_write(),
        };
        let unpacked = self.unpacked(mode)?;
        let file = unpacked.as_deref().unwrap_or(&self.image);
        let how = blockdev::DeviceOptions { kind, durability, ..how };
        let failed = |error| match error {
            // These are about the file as a whole and name it themselves.
            blockdev::Error::Io { op: op @ ("open" | "lock" | "map"), message, .. } => {
                let own = format!("{}: ", self.image.display());
                let message = message.strip_prefix(own.as_str()).unwrap_or(&message);
                Failure::text(self.image_name(), format!("{op}: {message}"))
            }
            other => Failure::new(self.image_name(), other),
        };
        let whole = loop {
            match blockdev::open_image(file, &how).map_err(failed) {
                Err(failure) if options.wait && failure.is_locked() => std::thread::sleep(WAIT),
                opened => break opened?,
            }
        };
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
        if mode == Mode::Read
            && let Some(fs) = kept::file_system(self, None)?
        {
            return Ok(fs);
        }
        let device = self.open_device(options, mode, options.durability())?;
        self.open_on(device, options, mode, false)
    }

    /// The device as it is and where its structures lie, for verbs that look at bytes; an image that cannot be opened can be
    /// looked at too. For writing, nobody else may have it in use.
    pub(crate) fn open_raw(&self, options: &ImageOptions, mode: Mode) -> Result<Raw> {
        let device = self.open_device(options, mode, options.durability())?;
        let name = || self.image_name();
        let claim = match mode {
            Mode::Write => Some(device.claim(0, device.size()).of(name)?),
            Mode::Read => None,
        };
        let layout = Layout::read(&*device).of(name)?;
        // A broken superblock can be looked at; what is another kind of file has none.
        if let Err(error) = layout.superblock()
            && ext2_image::foreign::recognise(&*device).is_some()
        {
            return Err(self.failure(&*device, error));
        }
        Ok(Raw { device, layout, _claim: claim })
    }

    /// The file system on its device; with `log`, its changes reach the disk together.
    pub(crate) fn open_on(
        &self,
        device: Arc<dyn BlockDevice>,
        options: &ImageOptions,
        mode: Mode,
        log: bool,
    ) -> Result<Ext2> {
        let (device, from) = match mode {
            Mode::Read if options.rescue => {
                let from = options.superblock.or(Some(SuperblockFrom::Auto));
                (ext2_image::repair::with_its_size(device), from)
            }
            _ => (device, options.superblock),
        };
        let superblock = ImageOptions { superblock: from, ..options.clone() }
            .superblock_on(&*device, &self.image_name())?;
        if mode == Mode::Write && superblock != SuperblockAt::Primary {
            let text = "is changed only by its primary superblock; check -y writes that back from a backup";
            return Err(Failure::text(self.image_name(), text));
        }
        let how = OpenOptions {
            read_only: mode == Mode::Read,
            superblock,
            ignore_journal: options.ignore_journal || options.rescue && mode == Mode::Read,
            device_offset: self.offset.get(),
            log,
            clock: clock::fixed()?,
            ..OpenOptions::default()
        };
        Ext2::open(device.clone(), &how).map_err(|error| self.failure(&*device, error))
    }

    /// An error of the image, with what the file is instead where it is none.
    pub(crate) fn failure(&self, device: &dyn BlockDevice, error: ext2_core::Error) -> Failure {
        match self.hint(device, &error) {
            Some(hint) => Failure::broken(self.image_name(), hint),
            None => Failure::new(self.image_name(), error),
        }
    }

    /// The image as it is read: what is packed is unpacked into a file that goes with this process.
    fn unpacked(&self, mode: Mode) -> Result<Option<PathBuf>> {
        let Some(packer) = packed::packer_of(&self.image) else { return Ok(None) };
        let name = || self.image_name();
        if mode == Mode::Write {
            let what = format!("is packed by {packer}, and can only be looked at; unpack it to change it");
            return Err(Failure::text(name(), what));
        }
        packed::unpack(&self.image)
            .map(Some)
            .map_err(|error| Failure::text(name(), format!("cannot be unpacked ({packer}): {error}")))
    }

    /// What the file is instead, when there is no ext2 in it: another kind of file, or a disk with partitions.
    fn hint(&self, device: &dyn BlockDevice, error: &ext2_core::Error) -> Option<String> {
        if let ext2_core::Error::Incompatible(ext2_core::Incompatible::Feature(_)) = error {
            return Some(format!("{error}; {}", ext2_image::foreign::EXT4));
        }
        if !matches!(error, ext2_core::Error::Corrupt(_)) {
            return None;
        }
        if let Some(kind) = ext2_image::foreign::recognise(device) {
            return Some(format!("is no ext2 image but {}; {}", kind.name, kind.advice));
        }
        if self.place != Place::Whole {
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
        let inode = self.find_in(&fs, follow).of(|| self.name())?;
        Ok((fs, inode))
    }

    /// The inode that the path begins with, as `<12>`, and the rest of the path. A file of that name is `/<12>`.
    fn by_number(&self) -> Option<(InodeNr, &[u8])> {
        let inside = self.path.strip_prefix(b"<")?;
        let end = inside.iter().position(|&byte| byte == b'>')?;
        let (digits, rest) = (inside.get(..end)?, inside.get(end + 1..)?);
        let is_whole = rest.is_empty() || rest.starts_with(b"/");
        let nr = std::str::from_utf8(digits).ok()?.parse().ok().and_then(InodeNr::new)?;
        is_whole.then_some((nr, rest))
    }

    /// The number of the inode that is named by nothing else: `<12>`.
    pub(crate) fn number(&self) -> Option<InodeNr> {
        self.by_number().filter(|(_, rest)| rest.is_empty()).map(|(nr, _)| nr)
    }

    /// What the path leads to in an open file system.
    pub(crate) fn find_in(&self, fs: &Ext2, follow: Follow) -> ext2_core::Result<Inode> {
        match self.by_number() {
            Some((nr, b"")) => fs.inode(nr),
            Some((nr, rest)) => fs.resolve_from(fs.inode(nr)?, rest, follow),
            None => fs.resolve(self.path(), follow),
        }
    }

    /// The directory in which the last name of the path lies or would lie, and that name.
    pub(crate) fn parent_in(&self, fs: &Ext2) -> ext2_core::Result<(Inode, &[u8])> {
        match self.by_number() {
            Some((_, b"")) => Err(Error::Caller(Errno::INVAL, "an inode by its number has no name")),
            Some((nr, rest)) => {
                let start = rest.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
                let (above, name) = rest.split_at(start);
                Ok((fs.resolve_from(fs.inode(nr)?, above, Follow::Yes)?, name))
            }
            None => fs.resolve_parent(self.path()),
        }
    }
}

/// Whether two paths of this machine lead to one file.
fn is_same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    id(a).is_some_and(|a| Some(a) == id(b))
}
