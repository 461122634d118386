//! A block of a directory: its entries, those that were removed, and the nodes of a hash tree.

use alloc::format;
use alloc::vec::Vec;

use ext2_core::raw::{DIRENT_HEADER, dirent_size};
use ext2_core::rules::decode_rec_len;

use super::spec::Kind::Int;
use super::spec::Sense::{Choice, Inode, Plain};
use super::spec::{Spec, little, take_apart};
use super::{Field, Value};

const TYPES: &[(u32, &str)] = &[
    (0, "not said"),
    (1, "file"),
    (2, "directory"),
    (3, "character device"),
    (4, "block device"),
    (5, "FIFO"),
    (6, "socket"),
    (7, "symlink"),
];

const ENTRY: &[Spec] = &[
    ("inode", 0, Int(4), Inode, ""),
    ("rec_len", 4, Int(2), Plain, "bytes to the next entry"),
    ("name_len", 6, Int(1), Plain, ""),
    ("file_type", 7, Int(1), Choice(TYPES), ""),
];

/// An entry of a directory block, in use or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirRecord {
    /// Where it begins in the block, in bytes.
    pub offset: usize,
    /// The inode; 0 for none.
    pub inode: u32,
    /// Bytes to the next entry, as it is stored.
    pub rec_len: usize,
    /// The type byte; without `filetype` the high byte of the name's length.
    pub file_type: u8,
    /// The name, cut at the end of the block.
    pub name: Vec<u8>,
    /// It is found in the room of another entry, or has no inode: a name that was removed.
    pub is_deleted: bool,
    /// What makes it impossible.
    pub wrong: Option<&'static str>,
}

/// The entry at `offset`; `None` where fewer than eight bytes are left.
fn record(block: &[u8], offset: usize) -> Option<DirRecord> {
    let rest = block.get(offset..)?;
    // OK to cast: the fields have these lengths.
    let inode = little(rest, 0, 4)? as u32;
    let rec_len = decode_rec_len(little(rest, 4, 2)? as u16, block.len());
    let (name_len, file_type) = (usize::from(*rest.get(6)?), *rest.get(7)?);
    let name = rest.get(DIRENT_HEADER..DIRENT_HEADER + name_len);
    let wrong = if rec_len < DIRENT_HEADER + 4 || !rec_len.is_multiple_of(4) {
        Some("rec_len is none that an entry can have")
    } else if rec_len > rest.len() {
        Some("rec_len leads out of the block")
    } else if inode != 0 && dirent_size(name_len) > rec_len {
        Some("the name does not fit in rec_len")
    } else {
        None
    };
    let name = name.unwrap_or_else(|| rest.get(DIRENT_HEADER..).unwrap_or_default()).to_vec();
    Some(DirRecord { offset, inode, rec_len, file_type, name, is_deleted: inode == 0, wrong })
}

/// The entries of a block in the order of their offsets, with what can still be read of removed ones in the room behind
/// those in use. A broken entry is the last.
#[must_use]
pub fn records(block: &[u8]) -> Vec<DirRecord> {
    let (mut all, mut offset) = (Vec::new(), 0);
    while let Some(found) = record(block, offset) {
        let (broken, next) = (found.wrong.is_some(), offset.saturating_add(found.rec_len));
        let used = if found.inode == 0 { DIRENT_HEADER + 4 } else { dirent_size(found.name.len()) };
        let from = offset + used;
        all.push(found);
        if broken {
            break;
        }
        removed(block, from, next, &mut all);
        offset = next;
    }
    all
}

/// What looks like an entry between two bytes of a block.
fn removed(block: &[u8], from: usize, to: usize, all: &mut Vec<DirRecord>) {
    let mut at = from;
    while at + DIRENT_HEADER + 4 <= to {
        let found = record(block, at).filter(|found| {
            let name_len = block.get(at + 6).copied().map_or(0, usize::from);
            let fits = found.wrong.is_none() && at + dirent_size(name_len) <= to && at + found.rec_len <= to;
            let is_name = !found.name.is_empty() && !found.name.iter().any(|&byte| byte == 0 || byte == b'/');
            fits && is_name && found.inode != 0 && found.file_type <= 7
        });
        match found {
            Some(found) => {
                at += dirent_size(found.name.len());
                all.push(DirRecord { is_deleted: true, ..found });
            }
            None => at += 4,
        }
    }
}

/// The fields of a directory block. Removed entries are called `removed[N]`.
#[must_use]
pub fn directory(block: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    let (mut used, mut gone) = (0, 0);
    let mut end = 0;
    for found in records(block) {
        // An entry without an inode is in the chain; what lies in the room of another is not.
        let in_chain = !found.is_deleted || found.inode == 0;
        let (nr, what) = if in_chain { (&mut used, "entry") } else { (&mut gone, "removed") };
        let prefix = format!("{what}[{nr}].");
        *nr += 1;
        if found.offset < end {
            continue;
        }
        let Some(rest) = block.get(found.offset..) else { break };
        for mut field in take_apart(rest, ENTRY) {
            if let (Some(wrong), "rec_len") = (found.wrong, &*field.name) {
                field.meaning = wrong.into();
            } else if field.name == "inode" && found.inode == 0 {
                field.meaning = "not in use".into();
            }
            fields.push(field.inside(found.offset, &prefix));
        }
        end = found.offset + DIRENT_HEADER;
        // The name of an entry that is not in use may have been written over by what follows.
        let is_overwritten = found.inode == 0 && found.name.len() + DIRENT_HEADER > found.rec_len;
        if !found.name.is_empty() && !is_overwritten {
            let value = Value::Text(found.name.clone());
            fields.push(Field::new(end, found.name.len(), format!("{prefix}name"), value));
            end += found.name.len();
        }
    }
    let mut kept: Vec<Field> = Vec::with_capacity(fields.len());
    fields.sort_by_key(|field| field.offset);
    for field in fields {
        if kept.last().is_none_or(|last| last.offset + last.length <= field.offset) {
            kept.push(field);
        }
    }
    kept
}
