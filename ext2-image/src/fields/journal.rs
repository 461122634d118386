//! A block of a journal (jbd2): all of it has the highest byte first.

use alloc::format;
use alloc::vec::Vec;

use ext2_format::journal::MAGIC;

use super::spec::Kind::{Big, Text, Uuid};
use super::spec::Sense::{Bits, Choice, Hex, Plain};
use super::spec::{Order, Spec, big, take_apart};
use super::{Field, PointsTo, Value};

const KINDS: &[(u32, &str)] = &[
    (1, "descriptor: copies of blocks follow"),
    (2, "commit"),
    (3, "superblock of version 1"),
    (4, "superblock of version 2"),
    (5, "revoked blocks"),
];
const INCOMPAT: &[(u32, &str)] =
    &[(1, "revoke"), (2, "64bit"), (4, "async_commit"), (8, "csum_v2"), (16, "csum_v3"), (32, "fast_commit")];
const TAG_FLAGS: &[(u32, &str)] = &[(1, "escaped"), (2, "same uuid"), (4, "deleted"), (8, "last")];

const HEADER: &[Spec] = &[
    ("h_magic", 0, Big, Hex, ""),
    ("h_blocktype", 4, Big, Choice(KINDS), ""),
    ("h_sequence", 8, Big, Plain, "transaction"),
];

const SUPERBLOCK: &[Spec] = &[
    ("s_blocksize", 12, Big, Plain, "bytes of a block"),
    ("s_maxlen", 16, Big, Plain, "blocks of the journal"),
    ("s_first", 20, Big, Plain, "first block of the log"),
    ("s_sequence", 24, Big, Plain, "first transaction in the log"),
    ("s_start", 28, Big, Plain, "where the log begins, 0 when it is empty"),
    ("s_errno", 32, Big, Plain, ""),
    ("s_feature_compat", 36, Big, Hex, ""),
    ("s_feature_incompat", 40, Big, Bits(INCOMPAT), ""),
    ("s_feature_ro_compat", 44, Big, Hex, ""),
    ("s_uuid", 48, Uuid, Plain, ""),
    ("s_nr_users", 64, Big, Plain, ""),
    ("s_dynsuper", 68, Big, Plain, ""),
    ("s_max_transaction", 72, Big, Plain, ""),
    ("s_max_trans_data", 76, Big, Plain, ""),
    ("s_mark", 128, Text(8), Plain, "e2daxlog: a log that e2dax made"),
];

/// Whether a block of a journal is one of the journal's own, and not a copy of another.
#[must_use]
pub fn is_journal_block(block: &[u8]) -> bool {
    big(block, 0, 4) == Some(MAGIC.into())
}

/// The fields of a block of a journal; none for a copy of another block.
#[must_use]
pub fn journal_block(block: &[u8]) -> Vec<Field> {
    if !is_journal_block(block) {
        return Vec::new();
    }
    let mut fields = take_apart(block, HEADER);
    match big(block, 4, 4) {
        Some(3 | 4) => fields.extend(take_apart(block, SUPERBLOCK)),
        Some(1) => fields.extend(tags(block)),
        Some(5) => fields.extend(revoked(block)),
        _ => {}
    }
    fields
}

fn word(block: &[u8], at: usize, name: alloc::string::String) -> Option<Field> {
    let mut field = Field::new(at, 4, name, Value::Number(big(block, at, 4)?));
    field.order = Order::Big;
    Some(field)
}

/// The tags of a descriptor, of the format without checksums and 64 bits, which is the one of ext2 and ext3 images.
fn tags(block: &[u8]) -> Vec<Field> {
    let (mut fields, mut at) = (Vec::new(), 12);
    for nr in 0_usize.. {
        let (Some(mut number), Some(mut flags)) = (
            word(block, at, format!("tag[{nr}].t_blocknr")),
            big(block, at + 6, 2)
                .map(|flags| Field::new(at + 6, 2, format!("tag[{nr}].t_flags"), Value::Hex(flags))),
        ) else {
            break;
        };
        // OK to cast: a field of four bytes.
        number.points_to = Some(PointsTo::Block(number.value.number().unwrap_or_default() as u32));
        number.meaning = "the block of which a copy follows".into();
        let bits = flags.value.number().unwrap_or_default();
        flags.order = Order::Big;
        flags.bits = TAG_FLAGS;
        flags.meaning = super::text::bit_names(bits, TAG_FLAGS).into();
        fields.extend([number, flags]);
        at += 8;
        if bits & 2 == 0 {
            at += 16;
        }
        if bits & 8 != 0 {
            break;
        }
    }
    fields
}

/// The blocks that a block of revocations names.
fn revoked(block: &[u8]) -> Vec<Field> {
    let mut fields: Vec<Field> = word(block, 12, "r_count".into()).into_iter().collect();
    let end = fields.first().and_then(|field| field.value.number()).unwrap_or_default() as usize;
    for (nr, at) in (16..end.min(block.len()).saturating_sub(3)).step_by(4).enumerate() {
        let Some(mut field) = word(block, at, format!("revoked[{nr}]")) else { break };
        // OK to cast: a field of four bytes.
        field.points_to = Some(PointsTo::Block(field.value.number().unwrap_or_default() as u32));
        fields.push(field);
    }
    fields
}
