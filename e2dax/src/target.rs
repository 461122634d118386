//! Places in images: `IMG`, `IMG:/path`, `IMG@OFFSET:/path`, `IMG@pN:/path`; and how images are opened.
//!
//! All of it is bytes. A `:` or `@` may be part of a file's name: the longest part of the argument that is a file of
//! this machine is the image.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::BlockDevice;
use clap::{Args, ValueEnum};
use ext2_core::{BlockSize, Ext2, Follow, GroupNr, Inode, OpenOptions, SuperblockAt};

use crate::failure::{Failure, Of, Result};
use crate::text::show;

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

    /// Read an image whose journal needs recovery, as it is without the journal
    #[arg(long, global = true)]
    pub(crate) ignore_journal: bool,
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
}

/// A place in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The file of this machine.
    pub(crate) image: PathBuf,
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
        (target.image.as_os_str() != argument).then_some(target)
    }

    /// The longest part before a `:` (or all of it) that is an image.
    fn find(argument: &OsStr) -> Option<Self> {
        let bytes = argument.as_bytes();
        let colons = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
        std::iter::once(bytes.len()).chain(colons).find_map(|cut| {
            let (image, rest) = bytes.split_at_checked(cut)?;
            let path = rest.get(1..).unwrap_or_default().to_vec();
            let image = PathBuf::from(OsString::from_vec(image.to_vec()));
            let meta = std::fs::metadata(&image).ok()?;
            (!meta.is_dir()).then_some(Self { image, path })
        })
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
        show(self.image.as_os_str().as_bytes())
    }

    /// The device in which the file system lies.
    pub(crate) fn open_device(&self, options: &ImageOptions, mode: Mode) -> Result<Arc<dyn BlockDevice>> {
        let kind = match options.device {
            DeviceKind::Mmap => blockdev::Kind::Mmap,
            DeviceKind::File => blockdev::Kind::File,
            DeviceKind::Ram => blockdev::Kind::Ram,
        };
        let how = match mode {
            Mode::Read => blockdev::OpenOptions::read_only(),
        };
        blockdev::open_image(&self.image, &blockdev::OpenOptions { kind, ..how }).map_err(|error| match error
        {
            // These are about the file as a whole and name it themselves.
            blockdev::Error::Io { op: op @ ("open" | "lock" | "map"), message, .. } => {
                let own = format!("{}: ", self.image.display());
                let message = message.strip_prefix(own.as_str()).unwrap_or(&message);
                Failure::text(self.image_name(), format!("{op}: {message}"))
            }
            other => Failure::new(self.image_name(), other),
        })
    }

    /// The file system.
    pub(crate) fn open(&self, options: &ImageOptions, mode: Mode) -> Result<Ext2> {
        let device = self.open_device(options, mode)?;
        let how = OpenOptions {
            read_only: mode == Mode::Read,
            superblock: options.superblock.unwrap_or_default(),
            ignore_journal: options.ignore_journal,
            ..OpenOptions::default()
        };
        Ext2::open(device, &how).of(|| self.image_name())
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
