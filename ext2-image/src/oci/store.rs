//! What has the blobs and documents of images: a directory, or a tar archive of one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::blob::Blob;
use super::digest::{Checked, Digest};
use crate::archive::{self, Data, MemberKind, Members};
use crate::mkfs::{Error, Result};

/// Bytes that a document has at most (the specification advises registries to the same).
const DOCUMENT_MAX: u64 = 4 << 20;

/// A directory or an archive.
#[derive(Debug)]
pub(super) enum Store {
    Directory(PathBuf),
    Archive { file: File, members: HashMap<Vec<u8>, Found> },
}

/// A member of an archive that may be asked for.
#[derive(Debug)]
pub(super) enum Found {
    File {
        at: u64,
        len: u64,
    },
    /// Layers that came twice are links in older archives.
    Link(Vec<u8>),
}

impl Store {
    /// Opens what is at `path`.
    pub(super) fn open(path: &Path, spool: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Directory(path.into()));
        }
        let opened = archive::open(path, spool).map_err(|error| Error::source(b"", error))?;
        let mut found = HashMap::new();
        {
            let mut members = Members::new(&opened.file, opened.len);
            while let Some(member) = members.next_member()? {
                let name = normal(&member.path);
                let item = match member.kind {
                    MemberKind::File(Data::Whole { at, size }) => Found::File { at, len: size },
                    MemberKind::Symlink(target) if !target.starts_with(b"/") => {
                        let above =
                            name.iter().rposition(|&byte| byte == b'/').map_or(&[][..], |at| &name[..at]);
                        Found::Link(normal(&[above, b"/", &target].concat()))
                    }
                    MemberKind::HardLink(target) => Found::Link(normal(&target)),
                    _ => continue,
                };
                found.insert(name, item);
            }
        }
        Ok(Self::Archive { file: opened.file, members: found })
    }

    /// The file of a name, which has no `..` in it.
    pub(super) fn blob(&self, name: &str) -> Result<Option<Blob>> {
        let failed = |error: io::Error| Error::source(name.as_bytes(), error);
        match self {
            Self::Directory(folder) => match File::open(folder.join(name)) {
                Ok(file) => {
                    let found = file.metadata().map_err(failed)?;
                    if !found.is_file() {
                        return Err(Error::source(name.as_bytes(), "is not a file"));
                    }
                    Ok(Some(Blob { file, at: 0, len: found.len() }))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed(error)),
            },
            Self::Archive { file, members } => {
                let mut name = normal(name.as_bytes());
                for _ in 0..8 {
                    match members.get(&name) {
                        Some(&Found::File { at, len }) => {
                            return Ok(Some(Blob { file: file.try_clone().map_err(failed)?, at, len }));
                        }
                        Some(Found::Link(target)) => name.clone_from(target),
                        None => return Ok(None),
                    }
                }
                Err(Error::source(&name, "leads through too many links"))
            }
        }
    }

    /// A document of a name, if it is there.
    pub(super) fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(blob) = self.blob(name)? else { return Ok(None) };
        let failed = |what: &str| Error::source(name.as_bytes(), what);
        if blob.len > DOCUMENT_MAX {
            return Err(failed("is longer than 4 MiB, which no document of an image is"));
        }
        let mut bytes = Vec::new();
        { blob }.read_to_end(&mut bytes).map_err(|error| Error::source(name.as_bytes(), error))?;
        Ok(Some(bytes))
    }

    /// A document by its digest, which it has to have.
    pub(super) fn checked_document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let name = digest.path();
        let bytes = self.document(&name)?.ok_or_else(|| missing(&name))?;
        Checked::new(&bytes[..], digest).finish().map_err(|error| Error::source(name.as_bytes(), error))?;
        Ok(bytes)
    }
}

pub(super) fn missing(name: &str) -> Error {
    Error::source(name.as_bytes(), "is not there")
}

/// A path without `.`, with `..` taken away as far as there is something above.
fn normal(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}
