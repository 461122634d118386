//! What an archive of a whole image says of the image: a comment (POSIX pax: `comment`, in a global header), which every
//! other program passes over in silence.
//!
//! The comment is `e2dax-image 1` and the fields of a manifest's `fs` line, a blank before each.

use ext2_core::{Ext2, Features, Timestamp};

use crate::manifest::{Manifest, describe_image, parse};
use crate::mkfs::{Format, source::format_of_manifest};

/// What such a comment begins with.
const START: &str = "e2dax-image 1 ";

/// Bytes that are looked at at once.
const CHUNK: usize = 1 << 16;

/// The comment of a file system.
pub(super) fn comment(fs: &Ext2) -> Vec<u8> {
    let superblock = fs.superblock();
    let mut said = describe_image(fs);
    // What cannot be made is not asked for: an archive of a file system of ext4 is to become one of ext2.
    let (has, makeable) = (superblock.features, Format::makeable_features());
    let features = Features {
        compat: has.compat & makeable.compat,
        incompat: has.incompat & makeable.incompat,
        ro_compat: has.ro_compat & makeable.ro_compat,
    };
    said.set_filesystem("features", features.to_names().as_bytes());
    said.set_filesystem("created", superblock.created.sec.to_string().as_bytes());
    if !superblock.last_mounted.is_empty() {
        said.set_filesystem("last-mounted", &superblock.last_mounted);
    }
    // As many as a bitmap of one block counts is what everybody has.
    if u64::from(superblock.blocks_per_group) != (superblock.block_size.bytes() * 8).min((1 << 16) - 8) {
        said.set_filesystem("blocks-per-group", superblock.blocks_per_group.to_string().as_bytes());
    }
    if let Some(bytes) = bytes(fs, &said) {
        said.set_filesystem("bytes", bytes.to_string().as_bytes());
    }
    let text = said.to_string();
    let fields = text.lines().find_map(|line| line.strip_prefix("fs ")).unwrap_or_default();
    [START, fields].concat().into_bytes()
}

/// The bytes of the image, where it has a few more than its blocks take: what is left over at the end makes no group.
fn bytes(fs: &Ext2, said: &Manifest) -> Option<u64> {
    let superblock = fs.superblock();
    let end = u64::from(superblock.blocks_count) * superblock.block_size.bytes();
    let bytes = fs.device().size();
    if bytes <= end {
        return None;
    }
    let mut format = Format { created: Timestamp::default(), ..Format::default() };
    format_of_manifest(said, &mut format).ok()?;
    let layout = format.layout(bytes, 0).ok()?;
    // A hash tree or another file system is not the image's own.
    (layout.geometry().blocks_count == superblock.blocks_count && is_zero(fs, end, bytes)).then_some(bytes)
}

/// Whether there is nothing in a range of the device.
fn is_zero(fs: &Ext2, mut at: u64, end: u64) -> bool {
    let mut buffer = vec![0; CHUNK];
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        let part = buffer.get_mut(..len).unwrap_or_default();
        if fs.device().read_at(at, part).is_err() || part.iter().any(|&byte| byte != 0) {
            return false;
        }
        at += len as u64;
    }
    true
}

/// What a comment says of an image, if it is about one: a manifest without entries.
#[cfg_attr(not(feature = "archive"), allow(dead_code))] // who reads no archives reads no comments
pub(crate) fn image_of_comment(comment: &[u8]) -> Option<Manifest> {
    let fields = core::str::from_utf8(comment).ok()?.strip_prefix(START)?;
    if fields.contains('\n') {
        return None;
    }
    parse(&format!("e2dax-manifest 1\nfs {fields}\n")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_as_it_was_written_and_others_are_remarks() {
        let fs = Ext2::open(crate::mkfs::in_memory(8 << 20).unwrap(), &Default::default()).unwrap();
        let said = image_of_comment(&comment(&fs)).unwrap();
        assert_eq!(said.filesystem().get("block-size").map(Vec::as_slice), Some(&b"4096"[..]));
        assert!(said.filesystem().contains_key("uuid") && said.entries().is_empty());
        for other in [
            "",
            "0123456789abcdef",
            "e2dax-image 2 blocks=5",
            "e2dax-image 1 blocks",
            "e2dax-image 1 a=1\nb=2",
        ] {
            assert!(image_of_comment(other.as_bytes()).is_none(), "{other}");
        }
    }
}
