//! Places in images: `IMG`, `IMG:/path`, `IMG@OFFSET:/path`, `IMG@pN:/path`, `IMG@dax:/path`; and opening them.
//!
//! All of it is bytes. A `:` or `@` may be part of a file's name: the longest part of the argument that is a file of
//! this machine is the image.

mod options;
mod superblock;

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::{BlockDevice, PAGE_SIZE, Partition};
use ext2_core::{Errno, Error, Ext2, Follow, Inode, InodeNr, OpenOptions, SuperblockAt};
use ext2_image::UNIT;
use ext2_image::fields::Layout;
use ext2_image::mkfs::pfn;
use ext2_image::packed;

use crate::clock;
use crate::context::note;
use crate::failure::{Failure, Of, Result};
use crate::kept;
use crate::remote;
use crate::text::{parse_bytes, show};

pub(crate) use options::{DeviceKind, Durable, ImageOptions};
pub(crate) use superblock::{SuperblockFrom, parse_superblock};

/// Between two looks whether an image is free.
pub(crate) const WAIT: std::time::Duration = std::time::Duration::from_millis(50);

/// What to do with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Look at it. Needs no write permission and changes no byte.
    Read,
    /// Look at single structures of it, which are read at once, each by itself: whoever writes meanwhile, each is as it was
    /// at some moment. So somebody may have the image open for writing.
    Glance,
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
    claim: Option<Arc<blockdev::Claim>>,
    /// It belongs to a shell, which makes all changes durable when it closes it.
    is_kept: bool,
}

impl Raw {
    /// After a change.
    pub(crate) fn end_of_poke(&self) -> blockdev::Result<()> {
        if self.is_kept { Ok(()) } else { self.device.flush() }
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
    /// Whether it was opened although somebody has it open for writing.
    beside_writer: Cell<bool>,
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

    fn new(image: PathBuf, place: Place, path: &[u8]) -> Self {
        let (offset, beside_writer) = (Cell::new(0), Cell::new(false));
        Self { image, place, offset, beside_writer, path: path.to_vec() }
    }

    /// The longest part before a `:` (or all of it) that is an image.
    fn find(argument: &OsStr) -> Option<Self> {
        if remote::is_remote(argument) {
            return Some(Self::remote(argument.as_bytes()));
        }
        let bytes = argument.as_bytes();
        let colons = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
        std::iter::once(bytes.len()).chain(colons).find_map(|cut| {
            let (image, rest) = bytes.split_at_checked(cut)?;
            let path = rest.get(1..).unwrap_or_default();
            let file = |name: &[u8], place| {
                let image = PathBuf::from(OsString::from_vec(name.to_vec()));
                let is_file = std::fs::metadata(&image).is_ok_and(|meta| !meta.is_dir());
                is_file.then(|| Self::new(image, place, path))
            };
            file(image, Place::Whole).or_else(|| {
                let at = image.iter().rposition(|&byte| byte == b'@')?;
                file(image.get(..at)?, Place::parse(image.get(at + 1..)?)?)
            })
        })
    }

    /// What names an image of another machine.
    fn remote(argument: &[u8]) -> Self {
        let (image, rest) = argument.split_at_checked(remote::end(argument)).unwrap_or((argument, b""));
        let path = rest.get(1..).unwrap_or_default().to_vec();
        let at = image.iter().rposition(|&byte| byte == b'@').unwrap_or(image.len());
        let placed = image.get(at + 1..).and_then(Place::parse);
        let (image, place) = match placed {
            Some(place) => (image.get(..at).unwrap_or(image), place),
            None => (image, Place::Whole),
        };
        Self::new(PathBuf::from(OsString::from_vec(image.to_vec())), place, &path)
    }

    /// Whether both are the same file system of the same file.
    pub(crate) fn is_same_image(&self, other: &Self) -> bool {
        self.place == other.place && (self.image == other.image || is_same_file(&self.image, &other.image))
    }

    /// Whether the file system is looked for at the beginning of the image.
    pub(crate) fn is_whole(&self) -> bool {
        self.place == Place::Whole
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
        let whole = if remote::is_remote(self.image.as_os_str()) {
            remote::open(self.image.as_os_str(), options.device(), mode, durability)?
        } else {
            self.open_file(options, mode, durability)?
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

    /// The image as a whole, where it is a file of this machine.
    fn open_file(
        &self,
        options: &ImageOptions,
        mode: Mode,
        durability: blockdev::Durability,
    ) -> Result<Arc<dyn BlockDevice>> {
        kept::make_way(self);
        let kind = match options.device() {
            DeviceKind::Mmap => blockdev::Backend::Mmap,
            DeviceKind::File => blockdev::Backend::File,
            DeviceKind::Ram => blockdev::Backend::Ram,
        };
        let how = match mode {
            Mode::Read | Mode::Glance => blockdev::DeviceOptions::read_only(),
            Mode::Write => blockdev::DeviceOptions::read_write(),
        };
        let unpacked = self.unpacked(options, mode)?;
        let file = unpacked.as_deref().unwrap_or(&self.image);
        let how = blockdev::DeviceOptions { kind, durability, ..how };
        let failed = |error| Failure::opening(self.image_name(), &self.image, error);
        loop {
            match blockdev::open_image(file, &how).map_err(failed) {
                Err(failure) if options.wait && failure.is_locked() => std::thread::sleep(WAIT),
                Err(failure) if mode == Mode::Glance && failure.is_locked() => {
                    let who = failure.holder().unwrap_or("somebody has the image open");
                    let name = self.image_name();
                    self.beside_writer.set(true);
                    note(&format!("{name}: {who}; this is what has reached the image so far"));
                    // Not mapped: it may be cut off meanwhile.
                    let (kind, lock) = (blockdev::Backend::File, blockdev::Locking::Skip);
                    let how = blockdev::DeviceOptions { kind, lock, ..blockdev::DeviceOptions::read_only() };
                    return blockdev::open_image(file, &how).map_err(failed);
                }
                opened => return opened,
            }
        }
    }

    /// The file system.
    pub(crate) fn open(&self, options: &ImageOptions, mode: Mode) -> Result<Ext2> {
        if mode != Mode::Write
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
            Mode::Write => Some(Arc::new(device.claim(0, device.size()).of(name)?)),
            Mode::Read | Mode::Glance => None,
        };
        let layout = Layout::read(&*device).of(name)?;
        // A broken superblock can be looked at; what is another kind of file has none.
        if let Err(error) = layout.superblock()
            && ext2_image::foreign::recognise(&*device).is_some()
        {
            return Err(self.failure(&*device, error));
        }
        Ok(Raw { device, layout, claim, is_kept: false })
    }

    /// As [`open_raw`](Self::open_raw) for writing; in a shell, which pokes once and again, the device stays open.
    pub(crate) fn open_to_poke(&self, options: &ImageOptions) -> Result<Raw> {
        if let Some(device) = kept::device(self) {
            // Read anew: it may be what was changed.
            let layout = Layout::read(&*device).of(|| self.image_name())?;
            return Ok(Raw { device, layout, claim: None, is_kept: true });
        }
        // Whoever pokes in a shell does it many times.
        let many = kept::directory().is_some().then(|| options.by_calls());
        let raw = self.open_raw(many.as_ref().unwrap_or(options), Mode::Write)?;
        let is_kept = kept::keep(self, &raw.device, raw.claim.as_ref());
        Ok(Raw { is_kept, ..raw })
    }

    /// The file system on its device; with `batch`, its changes reach the disk together.
    pub(crate) fn open_on(
        &self,
        device: Arc<dyn BlockDevice>,
        options: &ImageOptions,
        mode: Mode,
        batch: bool,
    ) -> Result<Ext2> {
        let (device, from) = match mode {
            Mode::Read | Mode::Glance if options.rescue => {
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
            read_only: mode != Mode::Write,
            superblock,
            // Whoever has it open for writing has a journal that is in use.
            ignore_journal: options.ignore_journal
                || options.rescue && mode != Mode::Write
                || self.beside_writer.get(),
            device_offset: self.offset.get(),
            batch,
            clock: clock::fixed()?,
            ..OpenOptions::default()
        };
        Ext2::open(device.clone(), &how).map_err(|error| self.failure(&*device, error))
    }

    /// An error of the image, with what the file is instead where it is none.
    pub(crate) fn failure(&self, device: &dyn BlockDevice, error: ext2_core::Error) -> Failure {
        match self.hint(device, &error) {
            _ if matches!(error, ext2_core::Error::Incompatible(_))
                && ext2_image::rewrite::is_unfinished(device).unwrap_or(false) =>
            {
                let what = "a change of the whole image was interrupted: run that again, or anything that changes the \
                            image (e2dax touch -c IMG:/), and it is carried out";
                Failure::broken(self.image_name(), what)
            }
            Some(hint) => Failure::broken(self.image_name(), hint),
            None => Failure::new(self.image_name(), error),
        }
    }

    /// The image as it is read: what is packed is unpacked into a file that goes with this process.
    fn unpacked(&self, options: &ImageOptions, mode: Mode) -> Result<Option<PathBuf>> {
        let Some(packer) = packed::packer_of(&self.image) else { return Ok(None) };
        let name = || self.image_name();
        if mode == Mode::Write {
            let what = format!("is packed by {packer}, and can only be looked at; unpack it to change it");
            return Err(Failure::text(name(), what));
        }
        packed::unpack(&self.image, options.backing()).map(Some).map_err(|error| {
            let is_refused = !options.allow_backing && packed::is_refused(&error);
            let advice = if is_refused { "; --allow-backing opens it" } else { "" };
            Failure::text(name(), format!("cannot be unpacked ({packer}): {error}{advice}"))
        })
    }

    /// What the file is instead, when there is no ext2 in it: another kind of file, or a disk with partitions.
    fn hint(&self, device: &dyn BlockDevice, error: &ext2_core::Error) -> Option<String> {
        if let ext2_core::Error::Incompatible(ext2_core::Incompatible::Feature(_)) = error {
            return Some(format!("{error}; {}", ext2_image::foreign::EXT4));
        }
        // No byte of a superblock.
        if device.size() <= ext2_core::raw::SUPERBLOCK_OFFSET && self.place == Place::Whole {
            return Some(match device.size() {
                0 => "is an empty file and not an ext2 image; e2dax mkfs makes one".into(),
                size => format!("is too small for an ext2 image: it has {size} bytes"),
            });
        }
        if !matches!(error, ext2_core::Error::Corrupt(_)) {
            return None;
        }
        if let Some(kind) = ext2_image::foreign::recognise(device) {
            return Some(format!("is not an ext2 image but {}; {}", kind.name, kind.advice));
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

    /// As [`find_in`](Self::find_in), of what is to be changed: not what the file system keeps for itself in an inode.
    pub(crate) fn find_to_change(&self, fs: &Ext2, follow: Follow) -> ext2_core::Result<Inode> {
        match self.number() {
            Some(nr) if nr != InodeNr::ROOT && nr.get() < fs.geometry().first_ino => {
                Err(Error::Caller(Errno::PERM, "the inode is the file system's own (poke sets its fields)"))
            }
            _ => self.find_in(fs, follow),
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
pub(crate) fn is_same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    id(a).is_some_and(|a| Some(a) == id(b))
}
