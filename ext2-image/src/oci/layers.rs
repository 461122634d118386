//! Layers: unpacked by several threads, applied in their order.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::choose::Layer;
use super::digest::{Buffered, Checked};
use super::store::{Store, missing};
use crate::archive::{self, Merge, Opened, nameless, unpacked};
use crate::mkfs::{Body, Contents, Error, NodeId, Result, Tree, Xattr};
use ext2_core::DeviceNr;

/// What the name of a whiteout begins with.
const WHITEOUT: &[u8] = b".wh.";
/// The name that empties a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What names begin with that are of no file: aufs' own.
const META: &[u8] = b".wh..wh.";

/// Whether a name is one that a layer says what is not there with.
#[must_use]
pub fn is_whiteout(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT)
}

/// The directory and the last name of a path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// What a name in a layer stands for, besides a file.
enum Hides<'n> {
    /// All of its directory that layers below have.
    Directory,
    /// This name of its directory, in the layers below.
    Name(&'n [u8]),
    /// Nothing: aufs' own.
    Nothing,
}

/// What the whiteout `name` of the directory `folder` hides; none where it is no whiteout.
fn hides<'n>(folder: &[u8], name: &'n [u8]) -> Result<Option<Hides<'n>>> {
    if name == OPAQUE {
        return Ok(Some(Hides::Directory));
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok(None) };
    if name.starts_with(META) {
        return Ok(Some(Hides::Nothing));
    }
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(Error::entry(&[folder, b"/", name].concat(), "is a whiteout of no name"));
    }
    Ok(Some(Hides::Name(hidden)))
}

fn hide(merge: &mut Merge, folder: &[u8], what: &Hides<'_>) -> Result<()> {
    match what {
        Hides::Directory => merge.clear(folder),
        Hides::Name(name) => merge.remove(&[folder, b"/", name].concat()).map(drop),
        Hides::Nothing => Ok(()),
    }
}

/// Applies an archive as a layer over what is there: first its whiteouts, wherever they stand in it, because they are
/// about the layers below alone; then its members.
///
/// # Errors
/// `Source` and `Entry`.
pub fn add_layer(merge: &mut Merge, layer: Opened) -> Result<()> {
    apply(merge, layer, false)
}

/// `is_whole`: a digest says that nothing of the archive is missing, whatever its end looks like. (Layers by umoci with
/// nothing but a whiteout have no mark at their end.)
fn apply(merge: &mut Merge, layer: Opened, is_whole: bool) -> Result<()> {
    let file = layer.file.try_clone().map_err(|error| Error::source(b"", error))?;
    let archive = merge.archive(layer.file);
    let mut members = archive::Members::new(&file, layer.len);
    if is_whole {
        members = members.known_whole();
    }
    let (mut kept, mut own) = (Vec::new(), BTreeSet::new());
    while let Some(member) = members.next_member()? {
        let (folder, name) = split(&member.path);
        own.extend(own_folder(folder).map(<[u8]>::to_vec));
        match hides(folder, name)? {
            Some(what) => hide(merge, folder, &what)?,
            None => kept.push(member),
        }
    }
    members.notes().iter().for_each(|note| merge.note(note));
    kept.into_iter().try_for_each(|member| merge.member(member, archive))?;
    // Now that other members are links to what is in it.
    own.iter().try_for_each(|folder| merge.remove(folder).map(drop))
}

/// The directory of aufs' own in which a path lies, as `.wh..wh.plnk`.
fn own_folder(path: &[u8]) -> Option<&[u8]> {
    let mut end = 0;
    path.split(|&byte| byte == b'/').find_map(|part| {
        end += part.len() + 1;
        part.starts_with(META).then(|| path.get(..end - 1)).flatten()
    })
}

/// What overlayfs marks directories with, and says of itself.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// What follows the prefix of an attribute that is overlayfs' own.
fn own(name: &[u8]) -> Option<&[u8]> {
    OVERLAY.iter().find_map(|prefix| name.strip_prefix(*prefix))
}

/// What an attribute is through overlayfs: the own ones are not seen, and those of an overlayfs within it, which begin twice so,
/// are without one of the prefixes (`ovl_is_escaped_xattr`).
fn seen((name, value): &Xattr) -> Option<Xattr> {
    let Some(what) = own(name) else { return Some((name.clone(), value.clone())) };
    let inner = what.strip_prefix(b"overlay.")?;
    let prefix = name.strip_suffix(what)?;
    Some(([prefix, inner].concat(), value.clone()))
}

/// The value of an attribute that is overlayfs' own.
fn own_value<'t>(tree: &'t Tree, node: NodeId, what: &[u8]) -> Option<&'t [u8]> {
    let mut xattrs = tree.attrs(node).xattrs.iter();
    xattrs.find(|(name, _)| own(name) == Some(what)).map(|(_, value)| value.as_slice())
}

/// What overlayfs says of a file that has its bytes, or of a directory that has another name, in a layer below.
const ELSEWHERE: [(&[u8], &str); 2] = [
    (b"metacopy", "has its bytes in a layer below (metacopy of overlayfs), where they are not looked for"),
    (b"redirect", "has another name in the layers below (redirect_dir of overlayfs), which is not followed"),
];

/// What overlayfs would look for in layers below, or hide there, of a file of a tree that stands alone; in words.
pub(crate) fn without_layers(tree: &Tree, node: NodeId) -> Option<&'static str> {
    match tree.body(node) {
        Body::CharDevice(DeviceNr { major: 0, minor: 0 }) => {
            Some("is a whiteout of overlayfs, and is kept as a device: there is no layer below it")
        }
        Body::File { size: 1.., .. } if own_value(tree, node, b"metacopy").is_some() => Some(
            "has its bytes in a layer below (metacopy of overlayfs), and is stored as what is there: zeros",
        ),
        Body::Directory if own_value(tree, node, b"redirect").is_some() => {
            Some("has another name in the layers below (redirect_dir of overlayfs), which are not there")
        }
        _ => None,
    }
}

/// Applies a tree as a layer over what is there. It may have whiteouts as archives have them, or as directories of
/// overlayfs do: devices 0:0, empty files with an attribute where their directory says that it has such, and an attribute of
/// directories that hide what is below.
///
/// # Errors
/// `Entry`, also for what overlayfs would look for elsewhere in the layers below.
pub fn add_tree(merge: &mut Merge, mut tree: Tree, contents: Box<dyn Contents + Send>) -> Result<()> {
    tree.sort()?;
    for node in tree.ids() {
        let elsewhere = ELSEWHERE.iter().find(|(attribute, _)| own_value(&tree, node, attribute).is_some());
        if let Some((_, what)) = elsewhere {
            return Err(Error::entry(&tree.path(node), *what));
        }
    }
    let mut holes = BTreeSet::new();
    for directory in tree.directories() {
        let folder = tree.path(directory);
        let opaque = own_value(&tree, directory, b"opaque");
        if opaque == Some(b"y") {
            hide(merge, &folder, &Hides::Directory)?;
        }
        for (name, node) in tree.children(directory) {
            let is_hole = match tree.body(node) {
                Body::CharDevice(DeviceNr { major: 0, minor: 0 }) => true,
                // Since Linux 6.7 (`ovl_path_check_xwhiteout_xattr`).
                Body::File { size: 0, .. } => {
                    opaque == Some(b"x") && own_value(&tree, node, b"whiteout").is_some()
                }
                _ => false,
            };
            if is_hole {
                holes.insert(node);
                hide(merge, &folder, &Hides::Name(name))?;
            } else if let Some(what) = hides(&folder, name)? {
                hide(merge, &folder, &what)?;
            }
        }
    }
    tree.for_each_attrs(|attrs| {
        if attrs.xattrs.iter().any(|(name, _)| own(name).is_some()) {
            attrs.xattrs = attrs.xattrs.iter().filter_map(seen).collect();
        }
    });
    merge.tree(tree, contents, &|_, name, node| is_whiteout(name) || holes.contains(&node))
}

/// Unpacks and applies layers.
pub(super) fn add(merge: &mut Merge, store: &Store, layers: &[Layer], spool: &Path) -> Result<()> {
    let named = |layer: &Layer, error: Error| match error {
        // About the layer as a whole.
        Error::Source { path, what } if path.is_empty() => Error::source(layer.name.as_bytes(), what),
        Error::Source { path, what } => Error::Source { path, what: format!("{what} (in {})", layer.name) },
        Error::Entry { path, what } => Error::Entry { path, what: format!("{what} (in {})", layer.name) },
        other => other,
    };
    let unpacked = unpack_all(store, layers, spool);
    for (layer, opened) in layers.iter().zip(unpacked) {
        opened.and_then(|opened| apply(merge, opened, true)).map_err(|error| named(layer, error))?;
    }
    Ok(())
}

/// Unpacks all layers, with as many threads as there are processors.
fn unpack_all(store: &Store, layers: &[Layer], spool: &Path) -> Vec<Result<Opened>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<Opened>>>> = layers.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        while let Some((layer, result)) = {
            let nr = next.fetch_add(1, Ordering::Relaxed);
            layers.get(nr).zip(results.get(nr))
        } {
            let opened = unpack(store, layer, spool);
            if let Ok(mut result) = result.lock() {
                *result = Some(opened);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(layers.len()).min(8);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let lost = || Err(Error::source(b"", "was not unpacked"));
    results.into_iter().map(|result| result.into_inner().ok().flatten().unwrap_or_else(lost)).collect()
}

/// A layer as a file that can be sought in, its digests checked.
fn unpack(store: &Store, layer: &Layer, spool: &Path) -> Result<Opened> {
    let failed = |error: io::Error| Error::source(b"", error);
    let blob = store.blob(&layer.name)?.ok_or_else(|| missing(&layer.name))?;
    if let Some(size) = layer.size.filter(|&size| size != blob.len) {
        return Err(Error::source(b"", format!("has {} bytes, not {size}", blob.len)));
    }
    let mut file = nameless(spool).map_err(failed)?;
    let mut copy = |packed: Box<dyn io::BufRead + '_>| -> io::Result<u64> {
        let mut checked = Checked::new(unpacked(packed)?, &layer.diff_id);
        let len = archive::copy(&mut checked, &mut file)?;
        checked.finish().map(|()| len)
    };
    let len = match &layer.digest {
        None => copy(Box::new(io::BufReader::with_capacity(256 << 10, blob))),
        Some(digest) => {
            let mut checked = Checked::new(blob, digest);
            let len = copy(Box::new(Buffered::new(&mut checked)));
            // A blob that is not what it should be is not blamed for what is in it.
            checked.finish().and(len)
        }
    };
    Ok(Opened { file, len: len.map_err(failed)?, is_device: false })
}
