//! The members of a tar archive as a tree. Any bytes are an archive, or an error that names the member.
//!
//! Knows nothing of the command, so that the fuzz target takes this file as it is.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek as _};
use std::os::unix::fs::FileExt as _;

use ext2_core::{DeviceNr, Timestamp};
use ext2_image::mkfs::{Body, Contents, Error, NodeAttrs, NodeId, SourceFile, Tree};

use super::sparse;

/// The bytes of an archive; handles are offsets in it, or with [`SPARSE`] numbers of maps.
#[derive(Debug)]
pub(crate) struct TarContents {
    file: File,
    sparse: Vec<sparse::Map>,
    base: u64,
    map: Option<usize>,
    path: Vec<u8>,
}

/// Added to the number of a sparse member's map; no archive is as long.
const SPARSE: u64 = 1 << 63;

impl Contents for TarContents {
    fn open(&mut self, file: &SourceFile<'_>) -> ext2_image::mkfs::Result<()> {
        self.base = file.handle;
        self.map = file.handle.checked_sub(SPARSE).and_then(|index| usize::try_from(index).ok());
        self.path = file.path();
        Ok(())
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> ext2_image::mkfs::Result<()> {
        let read = match self.map.and_then(|index| self.sparse.get(index)) {
            Some(map) => map.read_at(&self.file, offset, buf),
            None => self.file.read_exact_at(buf, self.base + offset),
        };
        read.map_err(|error| Error::source(&self.path, error))
    }

    fn host_file(&self) -> Option<(&File, u64)> {
        // A sparse member's pieces lie in the archive without what is between them.
        self.map.is_none().then_some((&self.file, self.base))
    }
}

/// Reads the names and attributes of the members of `file`, which is not packed, from its start.
///
/// # Errors
/// What the file gives; an archive that is cut off or contradicts itself, with the member's name; one that is empty.
pub(crate) fn read(mut file: File) -> Result<(Tree, TarContents), Box<dyn std::error::Error>> {
    file.rewind()?;
    let mut reader = Reader::new();
    let mut count = 0;
    for entry in tar::Archive::new(&file).entries_with_seek()? {
        reader.entry(&mut entry?, &file)?;
        count += 1;
    }
    if count == 0 {
        return Err("is no directory, no manifest and no tar archive with files".into());
    }
    let contents = TarContents { file, sparse: reader.sparse, base: 0, map: None, path: Vec::new() };
    Ok((reader.tree, contents))
}

struct Reader {
    tree: Tree,
    sparse: Vec<sparse::Map>,
    nodes: HashMap<Vec<u8>, NodeId>,
}

type TarResult<T> = std::result::Result<T, Error>;

impl Reader {
    fn new() -> Self {
        let root = NodeAttrs::new(0o755, (0, 0), Timestamp::default());
        Self { tree: Tree::new(root), sparse: Vec::new(), nodes: HashMap::from([(Vec::new(), NodeId::ROOT)]) }
    }

    fn entry(&mut self, entry: &mut tar::Entry<'_, &File>, file: &File) -> TarResult<()> {
        let header = entry.header().clone();
        let raw_path = entry.path_bytes().into_owned();
        let failed = |error: io::Error| Error::source(&raw_path, error);
        let mut attrs = NodeAttrs::new(
            (header.mode().map_err(failed)? & 0o7777) as u16, // 12 bits
            (narrow(header.uid().map_err(failed)?), narrow(header.gid().map_err(failed)?)),
            Timestamp::from_secs(i64::try_from(header.mtime().map_err(failed)?).unwrap_or(i64::MAX)),
        );
        let pax = extensions(entry, &mut attrs).map_err(failed)?;
        let kind = header.entry_type();
        let sparse = if kind.is_gnu_sparse() {
            Some(sparse::Map::of_gnu(&header, file, entry.raw_file_position()).map_err(failed)?)
        } else if let Some((_, size)) = &pax {
            Some(sparse::Map::of_pax(file, entry.raw_file_position(), *size).map_err(failed)?)
        } else {
            None
        };
        let shown = pax.map_or_else(|| raw_path.clone(), |(name, _)| name);
        let path = normal(&shown).ok_or_else(|| Error::entry(&shown, "the path leads out of the archive"))?;
        let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
        let device = DeviceNr {
            major: header.device_major().ok().flatten().unwrap_or(0),
            minor: header.device_minor().ok().flatten().unwrap_or(0),
        };
        let body = match kind {
            tar::EntryType::Directory => Body::Directory,
            tar::EntryType::Symlink => Body::Symlink(link.into()),
            tar::EntryType::Char => Body::CharDevice(device),
            tar::EntryType::Block => Body::BlockDevice(device),
            tar::EntryType::Fifo => Body::Fifo,
            tar::EntryType::Link => {
                let target = normal(&link).and_then(|path| self.nodes.get(&path).copied());
                let target = target
                    .ok_or_else(|| Error::source(&raw_path, "is a link to what is not in the archive"))?;
                return self.link(&path, target);
            }
            _ if sparse.is_some() => {
                let Some(map) = sparse else { return Ok(()) };
                let (size, data) = (map.size(), Some(map.data().into()));
                self.sparse.push(map);
                Body::File { size, data, handle: SPARSE + self.sparse.len() as u64 - 1 }
            }
            kind if kind.is_file() || kind.is_contiguous() => {
                Body::File { size: entry.size(), data: None, handle: entry.raw_file_position() }
            }
            // Volume labels and the like.
            _ => return Ok(()),
        };
        self.put(&path, attrs, body)
    }

    /// The directory that holds a path, made with default attributes where the archive has not said it yet.
    fn parent(&mut self, path: &[u8]) -> TarResult<NodeId> {
        let above = path.iter().rposition(|&byte| byte == b'/').map_or(&[][..], |cut| &path[..cut]);
        if let Some(&node) = self.nodes.get(above) {
            return Ok(node);
        }
        let parent = self.parent(above)?;
        let attrs = NodeAttrs::new(0o755, (0, 0), Timestamp::default());
        let node = self.tree.add(parent, last(above), attrs, Body::Directory)?;
        self.nodes.insert(above.to_vec(), node);
        Ok(node)
    }

    fn put(&mut self, path: &[u8], attrs: NodeAttrs, body: Body) -> TarResult<()> {
        // A path that comes again replaces what was there, as unpacking the archive would.
        if let Some(&node) = self.nodes.get(path) {
            return self.tree.replace(node, attrs, body);
        }
        let parent = self.parent(path)?;
        let node = self.tree.add(parent, last(path), attrs, body)?;
        self.nodes.insert(path.to_vec(), node);
        Ok(())
    }

    fn link(&mut self, path: &[u8], target: NodeId) -> TarResult<()> {
        if self.nodes.get(path) == Some(&target) {
            return Ok(());
        }
        let parent = self.parent(path)?;
        self.tree.link(parent, last(path), target)?;
        self.nodes.insert(path.to_vec(), target);
        Ok(())
    }
}

/// User and group numbers have 32 bits in every file system.
fn narrow(id: u64) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// A path without leading, trailing and double slashes and without `.`; `None` where it has `..`.
fn normal(path: &[u8]) -> Option<Vec<u8>> {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let parts: Vec<&[u8]> = parts.collect();
    (!parts.contains(&&b".."[..])).then(|| parts.join(&b'/'))
}

/// Takes attributes and fractions of seconds from the extended headers; gives name and size of a sparse member.
fn extensions(
    entry: &mut tar::Entry<'_, &File>,
    attrs: &mut NodeAttrs,
) -> io::Result<Option<(Vec<u8>, u64)>> {
    let Some(all) = entry.pax_extensions()? else { return Ok(None) };
    let (mut name, mut size, mut version) = (None, None, None);
    for extension in all {
        let extension = extension?;
        let (key, value) = (extension.key_bytes(), extension.value_bytes());
        match key {
            b"mtime" => {
                if let Some(time) = time(value) {
                    (attrs.atime, attrs.mtime, attrs.ctime, attrs.crtime) = (time, time, time, time);
                }
            }
            b"uid" => attrs.uid = number(value).unwrap_or(attrs.uid),
            b"gid" => attrs.gid = number(value).unwrap_or(attrs.gid),
            b"GNU.sparse.name" => name = Some(value.to_vec()),
            b"GNU.sparse.realsize" => {
                size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            }
            b"GNU.sparse.major" => version = Some(value == b"1"),
            _ if key.starts_with(b"GNU.sparse.") => version = version.or(Some(false)),
            _ if key.starts_with(b"SCHILY.acl.") => {
                log::warn!(
                    "an access control list in the archive is left out: it names users by their names"
                );
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    attrs.xattrs.retain(|(known, _)| known != name);
                    attrs.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    match (version, name, size) {
        (None, ..) => Ok(None),
        (Some(true), Some(name), Some(size)) => Ok(Some((name, size))),
        _ => Err(io::Error::other("is a sparse member of an old form: 1.0 and GNU's are known")),
    }
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a fraction.
fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let sec: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nsec: u32 = digits.parse().ok()?;
    // The fraction of a time before 1970 counts backwards.
    match (text.starts_with('-'), nsec) {
        (true, 1..) => Some(Timestamp { sec: sec - 1, nsec: 1_000_000_000 - nsec }),
        _ => Some(Timestamp { sec, nsec }),
    }
}
