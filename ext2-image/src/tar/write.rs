//! Writing an archive.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use ext2_core::{FileKind, Inode, InodeNr};

use super::contents::Reader;
use super::header::BLOCK;
use super::image;
use super::member::{Member, kind_of, write_comment};
use crate::Walk;
use crate::kept_paths::{KeptPath, KeptPaths};
use crate::manifest::quote;

/// `Result` of writing an archive.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why an archive was not written to its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file of the image cannot be read.
    File {
        /// Its path.
        path: Vec<u8>,
        /// Why not.
        error: ext2_core::Error,
    },
    /// A file changed while it was read.
    Changed {
        /// Its path.
        path: Vec<u8>,
        /// How.
        what: &'static str,
    },
    /// The archive cannot be written.
    Output(std::io::Error),
}

impl Error {
    pub(super) fn file(path: &[u8], error: ext2_core::Error) -> Self {
        Self::File { path: path.into(), error }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "{}: {error}", quote(path)),
            Self::Changed { path, what } => write!(f, "{}: {what}", quote(path)),
            Self::Output(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { error, .. } => Some(error),
            Self::Output(error) => Some(error),
            Self::Changed { .. } => None,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

/// A file that is not in the archive, because none can hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// Its path.
    pub path: Vec<u8>,
    /// Why.
    pub what: &'static str,
}

/// What is in the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Names.
    pub members: u64,
    /// Bytes of data, holes not counted.
    pub bytes: u64,
    /// What is not in it.
    pub left_out: Vec<LeftOut>,
}

/// Writes the tree below `inode`, itself as `./`, or a single file under its own name. The archive of the root says what the
/// image was like. `path` is its path in the image,
/// for messages. `progress` hears how many bytes of data were written so far.
///
/// # Errors
/// `File` for the first thing that cannot be read: an archive that lacks files would be taken for a whole one. `Output`.
pub fn write(
    inode: &Inode,
    path: &[u8],
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<Report> {
    let fs = inode.fs();
    let mut writer = Writer {
        reader: Reader::new(fs.superblock().blocks_count.into()),
        first_names: BTreeMap::new(),
        kept: KeptPaths::default(),
        report: Report::default(),
        out,
        progress,
    };
    if inode.nr() == InodeNr::ROOT {
        write_comment(&image::comment(&fs), writer.out)?;
    }
    let start = path.strip_suffix(b"/").unwrap_or(path);
    for found in Walk::new(inode, path) {
        let found = found.map_err(|error| Error::file(&error.path, error.error))?;
        let is_directory = found.inode.kind() == FileKind::Directory;
        let below = found.path.get(start.len()..).unwrap_or_default();
        let below = below.strip_prefix(b"/").unwrap_or(below);
        let name = match (found.depth, is_directory) {
            (0, true) => b"./".to_vec(),
            (0, false) => found.name().to_vec(),
            (_, true) => [below, b"/"].concat(),
            (_, false) => below.to_vec(),
        };
        writer.member(&found.inode, &found.path, &name)?;
    }
    // Two blocks of zeros end an archive.
    writer.out.write_all(&[0; 2 * BLOCK])?;
    Ok(writer.report)
}

struct Writer<'w> {
    reader: Reader,
    /// The first name of every file that has several.
    first_names: BTreeMap<InodeNr, KeptPath>,
    kept: KeptPaths,
    report: Report,
    out: &'w mut dyn Write,
    progress: &'w mut dyn FnMut(u64),
}

impl Writer<'_> {
    fn member(&mut self, inode: &Inode, path: &[u8], name: &[u8]) -> Result<()> {
        let attr = inode.attr();
        let Some(kind) = kind_of(attr.kind) else {
            let what = "a socket, which no archive holds";
            self.report.left_out.push(LeftOut { path: path.into(), what });
            return Ok(());
        };
        self.report.members += 1;
        if attr.kind != FileKind::Directory && attr.links > 1 {
            if let Some(first) = self.first_names.get(&attr.nr) {
                let member =
                    Member { path: name, kind: b'1', link: &self.kept.path(*first), stored: 0, sparse: None };
                return Ok(member.write(&attr, &[], self.out)?);
            }
            self.first_names.insert(attr.nr, self.kept.keep(name));
        }
        let failed = |error| Error::file(path, error);
        let mut xattrs = inode.xattrs().map_err(failed)?;
        xattrs.sort();
        xattrs.dedup_by(|later, first| later.0 == first.0);
        let link = match attr.kind {
            FileKind::Symlink => inode.read_link().map_err(failed)?,
            _ => Vec::new(),
        };
        let mut member = Member { path: name, kind, link: &link, stored: 0, sparse: None };
        if attr.kind != FileKind::Regular {
            return Ok(member.write(&attr, &xattrs, self.out)?);
        }
        let data = self.reader.data(inode).map_err(failed)?;
        member.stored = data.stored();
        let map = data.has_holes().then(|| data.map());
        if let Some(map) = &map {
            member.stored += map.len() as u64;
            member.sparse = Some(data.size);
        }
        member.write(&attr, &xattrs, self.out)?;
        self.out.write_all(map.as_deref().unwrap_or_default())?;
        self.reader.copy(inode, &data, path, self.out)?;
        self.report.bytes += data.stored();
        (self.progress)(self.report.bytes);
        Ok(())
    }
}
