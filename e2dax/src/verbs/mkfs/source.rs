//! What goes into a new file system: nothing, a directory, a tar archive or a manifest.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use ext2_core::Timestamp;
use ext2_image::archive;
use ext2_image::manifest::{Manifest, parse};
use ext2_image::mkfs::source::{
    CheckedFolder, Folder, Times, Xattrs, find_holes, format_of_manifest, read_directory, tree_of_manifest,
};
use ext2_image::mkfs::{
    Contents, Format, NoContents, NodeAttrs, NodeId, Size, Tree, identity, identity_of_seed,
};

use super::format::parse_owner;
use super::owner::{self, Owner};
use crate::failure::{Failure, Result};
use crate::text::show_os;

/// How the source is taken.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "What goes in")]
pub(super) struct SourceArgs {
    /// Let every file belong to this user and group: numbers, or names of the image's own /etc/passwd and /etc/group
    #[arg(long, value_name = "USER:GROUP", value_parser = owner::parse)]
    owner: Option<Owner>,

    /// Let what belongs to A belong to B. A:B are two numbers, for users and groups alike; in UID:GID=UID:GID each may be
    /// left out. May come several times; the first that fits counts
    #[arg(long, value_name = "A:B", value_parser = parse_map)]
    map_owner: Vec<Map>,

    /// Which times of a directory's files are taken
    #[arg(long, value_name = "WHICH", default_value = "modified")]
    times: TimesArg,

    /// Leave extended attributes and ACLs out
    #[arg(long)]
    no_xattrs: bool,

    /// Let runs of zero blocks be holes; every file is read twice for it
    #[arg(long)]
    pub(super) sparse: bool,
}

/// Which times of a directory's files are taken.
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

/// From whom to whom.
#[derive(Clone, Copy, Debug)]
enum Map {
    /// A number, be it a user's or a group's.
    Number(u32, u32),
    /// User and group; `None` for anybody, and for who it was.
    Owner((Option<u32>, Option<u32>), (Option<u32>, Option<u32>)),
}

fn parse_map(text: &str) -> Result<Map, String> {
    let Some((from, to)) = text.split_once('=') else {
        return parse_owner(text).map(|(from, to)| Map::Number(from, to));
    };
    let side = |text: &str| -> Result<(Option<u32>, Option<u32>), String> {
        let (uid, gid) = text.split_once(':').ok_or("UID:GID, UID: or :GID")?;
        let number = |text: &str| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|error| format!("{text:?}: {error}")),
        };
        Ok((number(uid)?, number(gid)?))
    };
    Ok(Map::Owner(side(from)?, side(to)?))
}

impl SourceArgs {
    fn change(&self, attrs: &mut NodeAttrs, owner: Option<(u32, u32)>) {
        let (mut uid, mut gid) = (None, None);
        for map in &self.map_owner {
            match *map {
                Map::Number(from, to) => {
                    uid = uid.or((attrs.uid == from).then_some(to));
                    gid = gid.or((attrs.gid == from).then_some(to));
                }
                Map::Owner(from, to) => {
                    let is = |wanted: Option<u32>, id: u32| wanted.is_none_or(|wanted| wanted == id);
                    if is(from.0, attrs.uid) && is(from.1, attrs.gid) {
                        (uid, gid) = (uid.or(to.0), gid.or(to.1));
                    }
                }
            }
        }
        (attrs.uid, attrs.gid) = (uid.unwrap_or(attrs.uid), gid.unwrap_or(attrs.gid));
        if let Some(owner) = owner {
            (attrs.uid, attrs.gid) = owner;
        }
        if self.no_xattrs {
            attrs.xattrs.clear();
        }
    }
}

/// What goes in, opened.
pub(super) struct Input {
    tree: Tree,
    contents: Box<dyn Contents>,
    kind: Kind,
    manifest: Option<Manifest>,
    root_owner: Option<(u32, u32)>,
    /// The size that a manifest says, once its format was read.
    size: Option<u64>,
}

/// Where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nothing,
    Files,
    Manifest,
}

impl Input {
    /// Reads what `--from` names, contents aside.
    pub(super) fn open(args: &super::Args, epoch: Option<Timestamp>) -> Result<Self> {
        let mut input = match &args.from {
            None => Self::new(Tree::new(NodeAttrs::default()), Box::new(NoContents), Kind::Nothing),
            Some(path) if path.is_dir() => Self::directory(path, &args.source)?,
            Some(path) => match read_manifest(path)? {
                Some(manifest) => Self::manifest(path, args.contents.as_deref(), manifest, epoch)?,
                None => {
                    let read = archive::read(path, &spool(&args.image), args.source.times.into());
                    let (tree, contents) = read.map_err(|error| of_source(path, &error))?;
                    Self::new(tree, Box::new(contents), Kind::Files)
                }
            },
        };
        let owner = input.numbers(args.source.owner.as_ref(), "--owner")?;
        input.root_owner = input.numbers(args.format.root_owner.as_ref(), "--root-owner")?;
        input.tree.for_each_attrs(|attrs| args.source.change(attrs, owner));
        if let Some(owner) = input.root_owner {
            let root = input.tree.attrs_mut(NodeId::ROOT);
            (root.uid, root.gid) = owner;
        }
        input.tree.for_each_attrs(|attrs| {
            if let Some(epoch) = epoch {
                for time in [&mut attrs.atime, &mut attrs.mtime, &mut attrs.ctime, &mut attrs.crtime] {
                    *time = (*time).min(epoch);
                }
            }
        });
        Ok(input)
    }

    fn new(tree: Tree, contents: Box<dyn Contents>, kind: Kind) -> Self {
        Self { tree, contents, kind, manifest: None, root_owner: None, size: None }
    }

    fn directory(path: &Path, args: &SourceArgs) -> Result<Self> {
        let xattrs = if args.no_xattrs { Xattrs::Drop } else { Xattrs::Keep };
        let tree = read_directory(path, args.times.into(), xattrs, &mut |_| ());
        let tree = tree.map_err(|error| of_source(path, &error))?;
        Ok(Self::new(tree, Box::new(Folder::new(path)), Kind::Files))
    }

    fn manifest(
        path: &Path,
        contents: Option<&Path>,
        manifest: Manifest,
        epoch: Option<Timestamp>,
    ) -> Result<Self> {
        let beside = || path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let folder = contents.map_or_else(beside, Path::to_path_buf);
        let built = tree_of_manifest(&manifest, &folder, epoch.unwrap_or_default());
        let built = built.map_err(|error| of_source(path, &error))?;
        let contents = CheckedFolder::new(&folder, built.sums);
        let input = Self::new(built.tree, Box::new(contents), Kind::Manifest);
        Ok(Self { manifest: Some(manifest), ..input })
    }

    /// The numbers of an owner; names are the image's own.
    fn numbers(&mut self, owner: Option<&Owner>, option: &str) -> Result<Option<(u32, u32)>> {
        let Some(owner) = owner else { return Ok(None) };
        if let Some(numbers) = owner.numbers() {
            return Ok(Some(numbers));
        }
        self.tree.sort().map_err(|error| Failure::text("", error.to_string()))?;
        let owners = archive::Owners::of(&self.tree, &mut *self.contents);
        owner.resolve(&owners).map(Some).map_err(|what| Failure::usage(&OsString::from(option), what))
    }

    pub(super) fn has_source(&self) -> bool {
        self.kind != Kind::Nothing
    }

    /// Whether the source says all that is to be there.
    pub(super) fn is_exact(&self) -> bool {
        self.kind == Kind::Manifest
    }

    /// The size that the source says.
    pub(super) fn size(&self) -> Option<Size> {
        self.size.map(Size::Bytes)
    }

    /// The format: what the source says, then what the options say, then what derives from both.
    pub(super) fn format(&mut self, all: &super::Args, epoch: Option<Timestamp>) -> Result<Format> {
        let args = &all.format;
        let usage = |what: String| Failure::usage(&OsString::from("--features"), what);
        let newest = self.tree.ids().map(|node| self.tree.attrs(node).mtime).max();
        let mut format = Format {
            created: epoch.or(newest.filter(|_| self.has_source())).unwrap_or_else(now),
            ..Format::default()
        };
        let seed = args.seed.as_deref().unwrap_or_default().as_bytes();
        let (id, hash_seed) = if self.has_source() {
            identity(&mut self.tree, seed).map_err(|error| Failure::text("", error.to_string()))?
        } else if args.seed.is_some() {
            identity_of_seed(seed)
        } else if let Some(epoch) = epoch {
            // The same command gives the same bytes.
            let told = format!("{epoch} {:?} {:?} {:?}", all.size, args.label, all.image.file_name());
            identity_of_seed(told.as_bytes())
        } else {
            identity_of_seed(&random()?)
        };
        (format.uuid, format.hash_seed) = (id, hash_seed);
        if let Some(manifest) = &self.manifest {
            let size = format_of_manifest(manifest, &mut format);
            self.size = size.map_err(|error| Failure::text("", error.to_string()))?;
        }
        args.apply(&mut format).map_err(usage)?;
        format.root_owner = self.root_owner.unwrap_or(format.root_owner);
        if !self.has_source() {
            let (owner, made) = (format.root_owner, format.created);
            self.tree.for_each_attrs(|attrs| *attrs = NodeAttrs::new(0o755, owner, made));
        }
        Ok(format)
    }

    /// Turns runs of zero blocks into holes.
    pub(super) fn find_holes(&mut self, block: usize) -> ext2_image::mkfs::Result<()> {
        find_holes(&mut self.tree, &mut *self.contents, block, &mut |_| ())
    }

    /// The tree, for a plan that owns it from here on.
    pub(super) fn take_tree(&mut self) -> Tree {
        std::mem::replace(&mut self.tree, Tree::new(NodeAttrs::default()))
    }

    pub(super) fn contents(&mut self) -> &mut dyn Contents {
        &mut *self.contents
    }
}

/// An error about what `--from` names, or a part of it.
fn of_source(path: &Path, error: &ext2_image::mkfs::Error) -> Failure {
    let text = error.to_string();
    // Where it is about the source as a whole, it has no path of its own.
    Failure::text(show_os(path.as_os_str()), text.strip_prefix(": ").unwrap_or(&text))
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

/// The manifest in a file, if it is one by its first bytes.
fn read_manifest(path: &Path) -> Result<Option<Manifest>> {
    if path == Path::new("-") {
        return Ok(None);
    }
    let host = |error| Failure::host(path, error);
    let mut start = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(4096).read_to_end(&mut start)).map_err(host)?;
    let is_text = !start.contains(&0) && !start.is_empty();
    let mut lines =
        start.split(|&byte| byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    if !is_text || !lines.next().is_some_and(|line| line.starts_with(b"e2dax-manifest ")) {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(host)?;
    let manifest =
        parse(&text).map_err(|error| Failure::text(show_os(path.as_os_str()), error.to_string()))?;
    Ok(Some(manifest))
}
