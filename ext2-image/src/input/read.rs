//! Reading sources.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ext2_core::Timestamp;

use super::owner::Owner;
use super::source::Source;
use super::whiteout;
use crate::archive::{self, Merge, Owners, Replace};
use crate::manifest::{Manifest, parse};
use crate::mkfs::source::{
    CheckedFolder, Folder, Times, Xattrs, find_holes, format_of_manifest, read_directory, read_folder,
    tree_of_manifest,
};
use crate::mkfs::{Contents, Error, Format, NoContents, NodeAttrs, Result, Tree};
use crate::oci;

/// How sources are read.
#[derive(Clone, Debug)]
pub struct Reading<'a> {
    /// Which times are taken; none for all of an archive of a whole image, and of all else the last change.
    pub times: Option<Times>,
    /// Whether attributes are taken.
    pub xattrs: Xattrs,
    /// The directory with the contents of a manifest's files; none for the one that the manifest is in.
    pub contents: Option<&'a Path>,
    /// The time of files of a manifest that says none.
    pub default_time: Timestamp,
    /// The platform of container images; none where there is but one.
    pub platform: Option<oci::Platform>,
    /// The folder for files without a name that hold what had to be unpacked.
    pub spool: &'a Path,
    /// Whether contents are wanted once and soon: small files of a directory are then read with their attributes, and what
    /// becomes of them later is not seen.
    pub at_once: bool,
}

impl Reading<'_> {
    /// The times of what is no archive of an image.
    fn some_times(&self) -> Times {
        self.times.unwrap_or(Times::Modified)
    }
}

/// A source that could not be read.
#[derive(Debug)]
pub struct Failed {
    /// Its name, as it was written.
    pub source: OsString,
    /// Why not.
    pub error: Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source.display(), self.what())
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl Failed {
    /// Why, without the source's name.
    #[must_use]
    pub fn what(&self) -> String {
        match &self.error {
            // About the source as a whole.
            Error::Source { path, what } | Error::Entry { path, what } if path.is_empty() => what.clone(),
            error => error.to_string(),
        }
    }
}

/// What kind of source there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None.
    Nothing,
    /// Files.
    Files,
    /// A manifest, which says all that is to be there.
    Manifest,
    /// An archive of a whole image, which says what the image was like.
    Image,
}

/// What goes into a new image.
pub struct Input {
    /// Names and attributes.
    pub tree: Tree,
    /// The bytes of files.
    pub contents: Box<dyn Contents>,
    /// What it was read from.
    pub kind: Kind,
    /// The manifest that it was read from, or what an archive says of the image that it was made of.
    pub manifest: Option<Manifest>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("files", &self.tree.len())
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Input {
    /// Nothing but a root directory.
    #[must_use]
    pub fn nothing() -> Self {
        Self::new(Tree::new(NodeAttrs::default()), Box::new(NoContents), Kind::Nothing)
    }

    fn new(tree: Tree, contents: Box<dyn Contents>, kind: Kind) -> Self {
        Self { tree, contents, kind, manifest: None }
    }

    /// Reads sources, contents aside: one as it is, several one over the other.
    ///
    /// # Errors
    /// The source and what is wrong with it.
    pub fn read(sources: &[Source], how: &Reading<'_>) -> Result<Self, Failed> {
        let failed = |source: &Source| {
            let source = source.name().to_owned();
            move |error| Failed { source, error }
        };
        let mut input = match sources {
            [] => return Ok(Self::nothing()),
            [source] => Self::one(source, how).map_err(failed(source))?,
            several => {
                let mut merge = Merge::new(Replace::Layer, how.some_times());
                for source in several {
                    add(&mut merge, source, how).map_err(failed(source))?;
                }
                let (tree, contents) = merge.finish().map_err(failed(&several[several.len() - 1]))?;
                Self::new(tree, Box::new(contents), Kind::Files)
            }
        };
        if how.xattrs == Xattrs::Drop {
            input.tree.for_each_attrs(|attrs| attrs.xattrs.clear());
        }
        Ok(input)
    }

    fn one(source: &Source, how: &Reading<'_>) -> Result<Self> {
        match source {
            Source::Container { place, .. } => {
                let (tree, contents) =
                    oci::read(&place.path, &wanted(place, how), how.spool, how.some_times())?;
                Ok(Self::new(tree, Box::new(contents), Kind::Files))
            }
            Source::Path(path) if path.is_dir() => {
                let (times, xattrs) = (how.some_times(), how.xattrs);
                if how.at_once {
                    let (tree, contents) = read_folder(path, times, xattrs, &mut |_| ())?;
                    return Self::plain(tree, Box::new(contents));
                }
                let tree = read_directory(path, times, xattrs, &mut |_| ())?;
                Self::plain(tree, Box::new(Folder::new(path)))
            }
            Source::Path(path) => match read_manifest(path)? {
                Some(manifest) => {
                    let (tree, contents) = of_manifest(path, &manifest, how)?;
                    let input = Self::new(tree, Box::new(contents), Kind::Manifest);
                    Ok(Self { manifest: Some(manifest), ..input })
                }
                None => {
                    let archive = archive::read(path, how.spool, how.times)?;
                    let input = Self::plain(archive.tree, Box::new(archive.contents))?;
                    let kind = if archive.image.is_some() { Kind::Image } else { Kind::Files };
                    Ok(Self { kind, manifest: archive.image, ..input })
                }
            },
        }
    }

    /// Files that are no layer.
    fn plain(mut tree: Tree, contents: Box<dyn Contents>) -> Result<Self> {
        tree.sort()?;
        whiteout::warn(&mut tree);
        Ok(Self::new(tree, contents, Kind::Files))
    }

    /// Whether there is anything besides a root directory that was made up.
    #[must_use]
    pub fn has_source(&self) -> bool {
        self.kind != Kind::Nothing
    }

    /// The numbers of an owner; names are looked up in the image's own `/etc/passwd` and `/etc/group`.
    ///
    /// # Errors
    /// The name that is not there, in words.
    pub fn numbers(&mut self, owner: &Owner) -> Result<(u32, u32), String> {
        if let Some(numbers) = owner.numbers() {
            return Ok(numbers);
        }
        self.tree.sort().map_err(|error| error.to_string())?;
        owner.resolve(&Owners::of(&self.tree, &mut *self.contents))
    }

    /// Lets no file have a time after `epoch`.
    pub fn no_later_than(&mut self, epoch: Timestamp) {
        self.tree.for_each_attrs(|attrs| {
            for time in [&mut attrs.atime, &mut attrs.mtime, &mut attrs.ctime, &mut attrs.crtime] {
                *time = (*time).min(epoch);
            }
        });
    }

    /// The time of the newest change of a file.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.tree.ids().map(|node| self.tree.attrs(node).mtime).max()
    }

    /// The time of the newest change of a file that is not from the future, counted from `now`: what an image is said to be
    /// made at. e2fsck asks what became of the clock where that is later than its own.
    #[must_use]
    pub fn newest_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.tree.ids().map(|node| self.tree.attrs(node).mtime).filter(|&time| time <= now).max()
    }

    /// Lets a format be what a manifest, or an archive of an image, says, and gives the bytes of the file system where it
    /// says them.
    ///
    /// # Errors
    /// `Format`.
    pub fn apply_manifest(&self, format: &mut Format) -> Result<Option<u64>> {
        self.manifest.as_ref().map_or(Ok(None), |manifest| format_of_manifest(manifest, format))
    }

    /// Turns runs of zero blocks of `block` bytes into holes.
    ///
    /// # Errors
    /// `Source`.
    pub fn find_holes(&mut self, block: usize) -> Result<()> {
        find_holes(&mut self.tree, &mut *self.contents, block, &mut |_| ())
    }
}

fn wanted(place: &oci::Place, how: &Reading<'_>) -> oci::Wanted {
    oci::Wanted { tag: place.tag.clone(), platform: how.platform.clone() }
}

/// Applies a source over what is there.
fn add(merge: &mut Merge, source: &Source, how: &Reading<'_>) -> Result<()> {
    match source {
        Source::Container { place, .. } => oci::add(merge, &place.path, &wanted(place, how), how.spool),
        Source::Path(path) if path.is_dir() => {
            let tree = read_directory(path, how.some_times(), how.xattrs, &mut |_| ())?;
            oci::add_tree(merge, tree, Box::new(Folder::new(path)))
        }
        Source::Path(path) => match read_manifest(path)? {
            Some(manifest) => {
                let (tree, contents) = of_manifest(path, &manifest, how)?;
                oci::add_tree(merge, tree, Box::new(contents))
            }
            None => {
                let opened = archive::open(path, how.spool).map_err(|error| Error::source(b"", error))?;
                oci::add_layer(merge, opened)
            }
        },
    }
}

fn of_manifest(path: &Path, manifest: &Manifest, how: &Reading<'_>) -> Result<(Tree, CheckedFolder)> {
    let beside = || path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let folder = how.contents.map_or_else(beside, Path::to_path_buf);
    let built = tree_of_manifest(manifest, &folder, how.default_time)?;
    Ok((built.tree, CheckedFolder::new(&folder, built.sums)))
}

/// The manifest in a file, if it is one by its first bytes.
fn read_manifest(path: &Path) -> Result<Option<Manifest>> {
    if path == Path::new("-") {
        return Ok(None);
    }
    let failed = |error: std::io::Error| Error::source(b"", in_words(&error));
    // A pipe can be read once only, and not by this.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Ok(None);
    }
    let mut start = Vec::new();
    File::open(path).and_then(|file| file.take(4096).read_to_end(&mut start)).map_err(failed)?;
    let is_text = !start.contains(&0) && !start.is_empty();
    let mut lines =
        start.split(|&byte| byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    if !is_text || !lines.next().is_some_and(|line| line.starts_with(b"e2dax-manifest ")) {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    parse(&text).map(Some).map_err(|error| Error::source(b"", error))
}

/// An error of the host without its number, which tells a person nothing.
fn in_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
