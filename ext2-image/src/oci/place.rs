//! `DIR[:TAG]`: where an image is, and which one of those there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A directory or archive with images, and a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory or archive.
    pub path: PathBuf,
    /// The tag.
    pub tag: Option<String>,
}

impl Place {
    /// Reads `oci:PATH[:TAG]`; `oci-archive:` and `docker-archive:`, as other tools have them, mean the same. `None` for
    /// what begins otherwise. The longest part before a colon that is there is the path.
    #[must_use]
    pub fn parse(text: &OsStr) -> Option<Self> {
        let bytes = text.as_bytes();
        let prefixes = [&b"oci:"[..], b"oci-archive:", b"docker-archive:"];
        let rest = prefixes.iter().find_map(|prefix| bytes.strip_prefix(*prefix))?;
        let path = |bytes: &[u8]| Path::new(OsStr::from_bytes(bytes)).to_path_buf();
        let colons = rest.iter().enumerate().rev().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
        for at in colons {
            let (before, tag) = (path(&rest[..at]), String::from_utf8_lossy(&rest[at + 1..]));
            if !path(rest).exists() && before.exists() {
                return Some(Self { path: before, tag: Some(tag.into_owned()) });
            }
        }
        Some(Self { path: path(rest), tag: None })
    }
}
