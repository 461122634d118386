//! Extended attributes: a block of them (`struct ext2_xattr_header`), and those inside an inode.

use alloc::format;
use alloc::vec::Vec;

use super::spec::Kind::{Int, Words};
use super::spec::Sense::{Choice, Hex, Plain};
use super::spec::{Spec, little, take_apart};
use super::{Field, PointsTo, Value};

const HEADER: &[Spec] = &[
    ("h_magic", 0, Int(4), Hex, "0xea020000"),
    ("h_refcount", 4, Int(4), Plain, "inodes that use the block"),
    ("h_blocks", 8, Int(4), Plain, "blocks; always 1"),
    ("h_hash", 12, Int(4), Hex, "of all attributes"),
    ("h_checksum", 16, Int(4), Hex, ""),
    ("h_reserved", 20, Words(3), Hex, ""),
];

const PREFIXES: &[(u32, &str)] = &[
    (0, "no prefix"),
    (1, "user."),
    (2, "system.posix_acl_access"),
    (3, "system.posix_acl_default"),
    (4, "trusted."),
    (6, "security."),
    (7, "system."),
    (8, "system.richacl"),
    (255, "removed in its place"),
];

const ENTRY: &[Spec] = &[
    ("e_name_len", 0, Int(1), Plain, ""),
    ("e_name_index", 1, Int(1), Choice(PREFIXES), "prefix"),
    ("e_value_offs", 2, Int(2), Plain, "where its value lies"),
    ("e_value_block", 4, Int(4), Plain, "always 0"),
    ("e_value_size", 8, Int(4), Plain, "bytes of the value"),
    ("e_hash", 12, Int(4), Hex, ""),
];

/// Bytes of an entry before its name.
const ENTRY_LEN: usize = 16;

/// The fields of an attribute block.
#[must_use]
pub fn xattr_block(block: &[u8]) -> Vec<Field> {
    let mut fields = take_apart(block, HEADER);
    fields.extend(entries(block, 32, 0));
    fields
}

/// The fields of the attributes inside an inode: `room` begins with their magic number.
pub(super) fn inside(room: &[u8]) -> Vec<Field> {
    let mut fields = take_apart(room, &HEADER[..1]);
    fields.extend(entries(room, 4, 4));
    fields
}

/// The entries from byte `at` on, and their values, whose offsets count from byte `base`.
fn entries(bytes: &[u8], at: usize, base: usize) -> Vec<Field> {
    let (mut fields, mut values, mut at) = (Vec::new(), Vec::<Field>::new(), at);
    for nr in 0_usize.. {
        let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= 4) else { break };
        if little(rest, 0, 4) == Some(0) {
            fields.push(Field::new(at, 4, "end", Value::Hex(0)).says("end of the list"));
            at += 4;
            break;
        }
        let mut entry = take_apart(rest, ENTRY);
        if entry.len() < ENTRY.len() {
            break;
        }
        let number = |entry: &[Field], nr: usize| {
            entry.get(nr).and_then(|field| field.value.number()).unwrap_or_default() as usize
        };
        let (name_len, offset, size) = (number(&entry, 0), number(&entry, 2), number(&entry, 4));
        let value = base
            .checked_add(offset)
            .and_then(|from| Some((from, bytes.get(from..from.checked_add(size)?)?)))
            .filter(|_| size > 0);
        if let (Some((from, _)), Some(field)) = (value, entry.get_mut(2)) {
            field.points_to = Some(PointsTo::Byte(from));
        }
        let prefix = format!("entry[{nr}].");
        fields.extend(entry.into_iter().map(|field| field.inside(at, &prefix)));
        let Some(name) = rest.get(ENTRY_LEN..ENTRY_LEN + name_len) else { break };
        if !name.is_empty() {
            let name = Value::Text(name.to_vec());
            fields.push(Field::new(at + ENTRY_LEN, name_len, format!("{prefix}e_name"), name));
        }
        if let Some((from, value)) = value {
            let value = Value::Bytes(value.to_vec());
            values.push(Field::new(from, size, format!("{prefix}value"), value));
        }
        at += ENTRY_LEN + name_len.next_multiple_of(4);
    }
    // Values that lie on entries, or on each other, would be shown twice: the entries that say so are there.
    values.sort_by_key(|field| field.offset);
    let mut end = at.min(bytes.len());
    for field in values {
        if field.offset >= end {
            end = field.offset + field.length;
            fields.push(field);
        } else if let Some(offset) =
            field.name.strip_suffix("value").map(|prefix| [prefix, "e_value_offs"].concat())
        {
            fields
                .iter_mut()
                .filter(|field| field.name == offset)
                .for_each(|field| field.meaning = "lies on the entries or on another value".into());
        }
    }
    fields
}
