//! What goes into a new file system, as options say it.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use ext2_core::Timestamp;
use ext2_image::input::{Failed, Input, Kind, Owner, OwnerMap, Reading};
use ext2_image::mkfs::source::{Times, Xattrs};
use ext2_image::mkfs::{Format, Inodes, NodeAttrs, NodeId, Size, identity, identity_of_seed};
use ext2_image::oci::Platform;

use crate::failure::{Failure, Result};
use crate::text::show_os;

/// How the source is taken.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "What goes in")]
pub(super) struct SourceArgs {
    /// Give every file this owner and group: numbers, or names from the image's own /etc/passwd and
    /// /etc/group
    #[arg(long, value_name = "USER:GROUP", value_parser = Owner::parse)]
    owner: Option<Owner>,

    /// Change owner A to B: A:B for users and groups alike, or UID:GID=UID:GID, of which each part may be
    /// left out. May be repeated; the first match counts
    #[arg(long, value_name = "A:B", value_parser = OwnerMap::parse)]
    map_owner: Vec<OwnerMap>,

    /// Which times of files are taken [default: modified; all of an archive that `e2dax tar` made of an image]
    #[arg(long, value_name = "WHICH")]
    times: Option<TimesArg>,

    /// Which platform to take from a multi-platform container image, such as linux/amd64 or linux/arm/v7
    #[arg(long, value_name = "OS/ARCH", requires = "from")]
    platform: Option<Platform>,

    /// Leave extended attributes and ACLs out
    #[arg(long)]
    no_xattrs: bool,

    /// Turn runs of zero blocks into holes; this reads every file twice
    #[arg(long)]
    pub(super) sparse: bool,
}

/// Which times of files are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TimesArg {
    /// The last change of the contents, for all four
    Modified,
    /// All as they are; reading and copying changes them
    All,
}

impl From<TimesArg> for Times {
    fn from(which: TimesArg) -> Self {
        if which == TimesArg::All { Self::All } else { Self::Modified }
    }
}

/// What goes in, and what options say of it.
pub(super) struct Taken {
    pub(super) input: Input,
    root_owner: Option<(u32, u32)>,
    /// The size that a manifest says, once its format was read.
    size: Option<u64>,
}

impl Taken {
    /// Reads what `--from` names, contents aside; with `at_once`, which says that they are wanted next, those of small files
    /// as well.
    pub(super) fn read(args: &super::Args, epoch: Option<Timestamp>, at_once: bool) -> Result<Self> {
        let spool = spool(&args.image);
        let how = Reading {
            times: args.source.times.map(Times::from),
            xattrs: if args.source.no_xattrs { Xattrs::Drop } else { Xattrs::Keep },
            contents: args.contents.as_deref(),
            default_time: epoch.unwrap_or_default(),
            platform: args.source.platform.clone(),
            spool: &spool,
            at_once,
        };
        let mut input = Input::read(&args.sources(), &how).map_err(|failed| of_source(&failed))?;
        let mut numbers = |owner: &Option<Owner>, option: &str| {
            let Some(owner) = owner else { return Ok(None) };
            let numbers = input.numbers(owner);
            numbers.map(Some).map_err(|what| Failure::usage(&OsString::from(option), what))
        };
        let owner = numbers(&args.source.owner, "--owner")?;
        let root_owner = numbers(&args.format.root_owner, "--root-owner")?;
        let maps = &args.source.map_owner;
        input.tree.for_each_attrs(|attrs| {
            OwnerMap::apply(maps, attrs);
            (attrs.uid, attrs.gid) = owner.unwrap_or((attrs.uid, attrs.gid));
        });
        if let Some(owner) = root_owner {
            let root = input.tree.attrs_mut(NodeId::ROOT);
            (root.uid, root.gid) = owner;
        }
        if let Some(epoch) = epoch {
            input.no_later_than(epoch);
        }
        Ok(Self { input, root_owner, size: None })
    }

    /// Whether the source says all that is to be there.
    pub(super) fn is_exact(&self) -> bool {
        matches!(self.input.kind, Kind::Manifest | Kind::Image)
    }

    /// Whether the size is only that of the image which an archive was made of: the archive may have grown since.
    pub(super) fn may_have_grown(&self) -> bool {
        self.input.kind == Kind::Image
    }

    /// The size that the source says.
    pub(super) fn size(&self) -> Option<Size> {
        self.size.map(Size::Bytes)
    }

    /// The format: what the source says, then what the options say, then what derives from both.
    pub(super) fn format(&mut self, all: &super::Args, epoch: Option<Timestamp>) -> Result<Format> {
        let args = &all.format;
        let usage = |what: String| Failure::usage(&OsString::from("--features"), what);
        let input = &mut self.input;
        let newest = if input.has_source() { input.newest_until(now()) } else { None };
        let created = epoch.or(newest).unwrap_or_else(now);
        let mut format = Format { created, ..Format::default() };
        let seed = args.seed.as_deref().unwrap_or_default().as_bytes();
        let ids = if input.has_source() {
            identity(&mut input.tree, seed).map_err(|error| Failure::text("", error.to_string()))?
        } else if args.seed.is_some() {
            identity_of_seed(seed)
        } else if let Some(epoch) = epoch {
            // The same command gives the same bytes.
            let told = format!("{epoch} {:?} {:?} {:?}", all.size, args.label, all.image.file_name());
            identity_of_seed(told.as_bytes())
        } else {
            identity_of_seed(&random()?)
        };
        (format.uuid, format.hash_seed) = ids;
        let size = input.apply_manifest(&mut format);
        self.size = size.map_err(|error| Failure::text("", error.to_string()))?;
        // What is asked for counts before what the source says: another seed, and the inodes of another size.
        if args.seed.is_some() {
            (format.uuid, format.hash_seed) = ids;
        }
        if all.size.is_some() && input.kind == Kind::Image {
            format.inodes = Inodes::BySize;
        }
        args.apply(&mut format).map_err(usage)?;
        format.root_owner = self.root_owner.unwrap_or(format.root_owner);
        if !input.has_source() {
            let (owner, made) = (format.root_owner, format.created);
            input.tree.for_each_attrs(|attrs| *attrs = NodeAttrs::new(0o755, owner, made));
        }
        Ok(format)
    }
}

/// An error about what `--from` names, or a part of it.
fn of_source(failed: &Failed) -> Failure {
    Failure::text(show_os(&failed.source), failed.what())
}

/// Where files without a name lie while an image is made: beside it, unless it is a device.
fn spool(image: &Path) -> PathBuf {
    let is_special = std::fs::metadata(image).is_ok_and(|found| !found.is_file());
    if is_special {
        return std::env::temp_dir();
    }
    image.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

fn now() -> Timestamp {
    use ext2_core::{Clock as _, SystemClock};
    Timestamp::from_secs(SystemClock.now().sec)
}

/// Bytes that nobody else has.
fn random() -> Result<[u8; 16]> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map(|()| bytes).map_err(|error| Failure::host(path, error))
}
