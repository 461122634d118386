//! A side of a comparison: an image or a directory in it, a directory of this machine, an archive, a manifest.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use blockdev::BlockDevice;
use clap::ValueEnum;
use ext2_core::raw::{MAGIC, RawSuperblock, SUPERBLOCK_OFFSET};
use ext2_core::{Ext2, FileKind, Follow, Inode};
use ext2_image::archive::{ArchiveEntries, Packing, is_tar as is_tar_start};
use ext2_image::manifest::{Entry, ImageEntries, Manifest, Without, describe_image, parse};
use ext2_image::mkfs::source::{DirectoryEntries, Times, Xattrs};
use ext2_image::{foreign, packed};

use crate::context::{Context, warn};
use crate::failure::{Failure, Of, Result};
use crate::target::{ImageOptions, Mode, Target};
use crate::text::show_os;

/// What is compared.
pub(crate) enum Side {
    /// An image that is open, and where in it the tree begins.
    Image(Target, Ext2, Inode),
    /// A directory of this machine.
    Directory(PathBuf),
    /// An archive.
    Archive(PathBuf),
    /// A manifest.
    Manifest(Manifest),
}

/// Entries in the order of a manifest.
pub(crate) type Entries = Box<dyn Iterator<Item = Result<Entry>>>;

/// What `--without` leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// All times
    Times,
    /// Users and groups
    Owners,
    /// Extended attributes and access lists
    Xattrs,
    /// Attribute flags
    Flags,
    /// Where holes are
    Holes,
}

/// All parts together.
pub(crate) fn without(parts: &[Part]) -> Without {
    let has = |part| parts.contains(&part);
    Without {
        times: has(Part::Times),
        owners: has(Part::Owners),
        xattrs: has(Part::Xattrs),
        flags: has(Part::Flags),
        holes: has(Part::Holes),
    }
}

impl Side {
    /// Opens what an argument names.
    ///
    /// # Errors
    /// What is not there or cannot be read.
    pub(crate) fn open(argument: &OsStr, context: &Context) -> Result<Self> {
        let path = Path::new(argument);
        let is_place = crate::kept::directory().is_some() || Target::parse_inside(argument).is_some();
        if !is_place {
            if path.is_dir() {
                return Ok(Self::Directory(path.into()));
            }
            if let Some(manifest) = manifest(path)? {
                return Ok(Self::Manifest(manifest));
            }
            if is_archive(path, &context.image) {
                return Ok(Self::Archive(path.into()));
            }
        }
        let target = Target::parse(argument)?;
        let (fs, inode) = target.resolve(&context.image, Mode::Read, Follow::Yes)?;
        if inode.kind() != FileKind::Directory {
            return Err(Failure::text(target.name(), "is not a directory"));
        }
        Ok(Self::Image(target, fs, inode))
    }

    /// Whether it is a whole image.
    pub(crate) fn image(&self) -> Option<(&Target, &Ext2)> {
        match self {
            Self::Image(target, fs, inode) if inode.nr() == ext2_core::InodeNr::ROOT => Some((target, fs)),
            _ => None,
        }
    }

    /// Whether it has blocks, so that its holes and its `lost+found` mean something.
    pub(crate) fn has_blocks(&self) -> bool {
        matches!(self, Self::Image(..) | Self::Manifest(_))
    }

    /// What it says of the file system itself.
    pub(crate) fn file_system(&self) -> Manifest {
        match (self, self.image()) {
            (Self::Manifest(manifest), _) => file_system_of(manifest),
            (_, Some((_, fs))) => describe_image(fs),
            _ => Manifest::default(),
        }
    }

    /// Its entries, one after the other.
    ///
    /// # Errors
    /// What cannot be read.
    pub(crate) fn entries(self) -> Result<Entries> {
        Ok(match self {
            Self::Image(target, _, inode) => {
                Box::new(ImageEntries::new(&inode).map(move |entry| entry.of(|| target.name())))
            }
            Self::Manifest(manifest) => Box::new(manifest.into_entries().into_iter().map(Ok)),
            Self::Directory(path) => {
                let entries = DirectoryEntries::new(&path, Times::Modified, Xattrs::Keep);
                Box::new(entries.map(move |entry| entry.map_err(|error| of_source(&path, &error))))
            }
            Self::Archive(path) => {
                let entries = ArchiveEntries::open(&path, &std::env::temp_dir(), None);
                let entries = entries.map_err(|error| of_source(&path, &error))?;
                let name = show_os(path.as_os_str());
                entries.warnings().iter().for_each(|lost| warn(&format!("{name}: {lost}")));
                Box::new(entries.map(move |entry| entry.map_err(|error| of_source(&path, &error))))
            }
        })
    }
}

/// What a manifest says of the file system itself.
pub(crate) fn file_system_of(manifest: &Manifest) -> Manifest {
    let mut alone = Manifest::default();
    for (key, value) in manifest.filesystem() {
        alone.set_filesystem(key, value);
    }
    alone
}

fn of_source(path: &Path, error: &ext2_image::mkfs::Error) -> Failure {
    let text = error.to_string();
    Failure::text(show_os(path.as_os_str()), text.strip_prefix(": ").unwrap_or(&text))
}

/// Bytes up to which a file is looked at for what it is.
const HEAD: usize = 4096;

/// The manifest in a file, if it is one by its first line.
fn manifest(path: &Path) -> Result<Option<Manifest>> {
    use std::io::Read as _;
    let host = |error| Failure::host(path, error);
    if !std::fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
        return Ok(None);
    }
    let mut head = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head)).map_err(host)?;
    let mut lines =
        head.split(|&byte| byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    if head.contains(&0) || !lines.next().is_some_and(|line| line.starts_with(b"e2dax-manifest ")) {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(host)?;
    parse(&text).map(Some).map_err(|error| Failure::text(show_os(path.as_os_str()), error.to_string()))
}

/// Whether a file is an archive and no image: a packed one is unpacked to see.
fn is_archive(path: &Path, options: &ImageOptions) -> bool {
    let whole =
        if packed::packer_of(path).is_some() { packed::unpack(path, options.backing()).ok() } else { None };
    let file = whole.as_deref().unwrap_or(path);
    let how =
        blockdev::DeviceOptions { kind: blockdev::Backend::File, ..blockdev::DeviceOptions::read_only() };
    let Ok(device) = blockdev::open_image(file, &how) else { return false };
    let mut start = vec![0; device.size().min(1024) as usize];
    if device.read_at(0, &mut start).is_err() {
        return false;
    }
    let is_tar = || foreign::recognise(&*device).is_some_and(|kind| kind.name == "a tar archive");
    match Packing::of(&start) {
        _ if is_tar_start(&start) => true,
        // No image is packed in these ways. (What was unpacked above is not packed any more.)
        Some(Packing::Xz | Packing::Bzip2 | Packing::Lz4 | Packing::Lzip) => true,
        // Its mark is weak: an image may begin with anything.
        Some(Packing::Lzma) => !is_ext2(&*device),
        _ => is_tar(),
    }
}

/// Whether a device has the magic number of ext2.
fn is_ext2(device: &dyn BlockDevice) -> bool {
    let mut magic = [0; 2];
    let at = SUPERBLOCK_OFFSET + core::mem::offset_of!(RawSuperblock, s_magic) as u64;
    device.read_at(at, &mut magic).is_ok() && u16::from_le_bytes(magic) == MAGIC
}
