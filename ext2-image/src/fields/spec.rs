//! Fields at fixed places, as tables.

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;

use super::text::{bit_names, utc};
use super::{Field, PointsTo, Value};

/// In which order the bytes of a number are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The lowest first: everything of ext2.
    Little,
    /// The highest first: journals.
    Big,
}

/// What a field is made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A number of so many bytes (1, 2, 4 or 8).
    Int(usize),
    /// A number of four bytes, the highest first.
    Big,
    /// Text in so many bytes.
    Text(usize),
    /// A UUID.
    Uuid,
    /// So many bytes.
    Bytes(usize),
    /// So many numbers of four bytes, each a field.
    Words(usize),
}

/// How its value is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sense {
    /// As a number.
    Plain,
    /// In hexadecimal.
    Hex,
    /// In octal.
    Octal,
    /// As a set of bits with names.
    Bits(&'static [(u32, &'static str)]),
    /// As one of several values with names.
    Choice(&'static [(u32, &'static str)]),
    /// As a time in seconds; 0 is none.
    Time,
    /// As a block of the device; 0 is none.
    Block,
    /// As an inode; 0 is none.
    Inode,
}

/// A field: its name, its offset in bytes, what it is made of, how it is read, and what it is for.
pub(super) type Spec = (&'static str, usize, Kind, Sense, &'static str);

/// A little-endian number of up to eight bytes; `None` where it does not lie inside.
pub(super) fn little(bytes: &[u8], offset: usize, length: usize) -> Option<u64> {
    let part = bytes.get(offset..offset.checked_add(length)?)?;
    Some(part.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// The same with the highest byte first.
pub(super) fn big(bytes: &[u8], offset: usize, length: usize) -> Option<u64> {
    let part = bytes.get(offset..offset.checked_add(length)?)?;
    Some(part.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

impl Field {
    /// A field with nothing to say of its meaning.
    pub(super) fn new(
        offset: usize,
        length: usize,
        name: impl Into<Cow<'static, str>>,
        value: Value,
    ) -> Self {
        Self {
            offset,
            length,
            name: name.into(),
            value,
            meaning: Cow::Borrowed(""),
            points_to: None,
            order: Order::Little,
            bits: &[],
        }
    }

    /// With a meaning.
    pub(super) fn says(mut self, meaning: impl Into<Cow<'static, str>>) -> Self {
        self.meaning = meaning.into();
        self
    }

    /// With what it leads to.
    pub(super) fn leads_to(mut self, points_to: Option<PointsTo>) -> Self {
        self.points_to = points_to;
        self
    }

    /// What it holds among other bytes of the structure, where it is a number.
    pub(crate) fn number_in(&self, bytes: &[u8]) -> Option<Value> {
        let number = match self.order {
            Order::Little => little(bytes, self.offset, self.length)?,
            Order::Big => big(bytes, self.offset, self.length)?,
        };
        Some(match self.value {
            Value::Number(_) => Value::Number(number),
            Value::Hex(_) => Value::Hex(number),
            Value::Octal(_) => Value::Octal(number),
            // OK to cast: the 32 bits of a time, signed.
            Value::Time(_) => Value::Time(i64::from((number as u32).cast_signed())),
            Value::Text(_) | Value::Uuid(_) | Value::Bytes(_) => return None,
        })
    }

    /// Moved on by so many bytes, under a longer name.
    pub(super) fn inside(mut self, offset: usize, prefix: &str) -> Self {
        self.offset += offset;
        if !prefix.is_empty() {
            self.name = format!("{prefix}{}", self.name).into();
        }
        self
    }
}

/// The fields of a table that lie inside `bytes`.
pub(super) fn take_apart(bytes: &[u8], table: &[Spec]) -> Vec<Field> {
    let mut fields = Vec::with_capacity(table.len());
    for spec in table {
        let (name, offset, kind, sense, about) = *spec;
        match kind {
            Kind::Words(count) => {
                for nr in 0..count {
                    let word = (name, offset + 4 * nr, Kind::Int(4), sense, about);
                    fields.extend(one(bytes, &word, format!("{name}[{nr}]").into()));
                }
            }
            _ => fields.extend(one(bytes, spec, name.into())),
        }
    }
    fields
}

/// One field, if it lies inside.
fn one(bytes: &[u8], spec: &Spec, name: Cow<'static, str>) -> Option<Field> {
    let (_, offset, kind, sense, about) = *spec;
    let part = |length: usize| bytes.get(offset..offset + length);
    let (length, value, order) = match kind {
        Kind::Text(length) => {
            let text = part(length)?;
            let end = text.iter().position(|&byte| byte == 0).unwrap_or(length);
            (length, Value::Text(text.get(..end)?.to_vec()), Order::Little)
        }
        Kind::Uuid => (16, Value::Uuid(part(16)?.try_into().ok()?), Order::Little),
        Kind::Bytes(length) => (length, Value::Bytes(part(length)?.to_vec()), Order::Little),
        Kind::Int(length) => (length, read_as(little(bytes, offset, length)?, sense), Order::Little),
        Kind::Big => (4, read_as(big(bytes, offset, 4)?, sense), Order::Big),
        Kind::Words(_) => return None,
    };
    let mut field = Field::new(offset, length, name, value);
    field.order = order;
    let number = field.value.number().unwrap_or_default();
    // OK to cast: numbers of blocks and inodes are fields of four bytes at most.
    let word = number as u32;
    let (says, leads): (Cow<'static, str>, _) = match sense {
        Sense::Bits(names) => {
            field.bits = names;
            (bit_names(number, names).into(), None)
        }
        Sense::Choice(names) => {
            let known = names.iter().find(|(value, _)| u64::from(*value) == number);
            (known.map_or_else(|| "no value that is known".into(), |(_, name)| (*name).into()), None)
        }
        Sense::Time if number != 0 => (format!("{} UTC", utc(i64::from(word.cast_signed()))).into(), None),
        Sense::Block if number != 0 => ("".into(), Some(PointsTo::Block(word))),
        Sense::Inode if number != 0 => ("".into(), Some(PointsTo::Inode(word))),
        _ => ("".into(), None),
    };
    let meaning = match (about, &*says) {
        (_, "") => about.into(),
        ("", _) => says,
        _ => format!("{about}: {says}").into(),
    };
    Some(field.says(meaning).leads_to(leads))
}

fn read_as(number: u64, sense: Sense) -> Value {
    match sense {
        Sense::Hex | Sense::Bits(_) => Value::Hex(number),
        Sense::Octal => Value::Octal(number),
        // OK to cast: the 32 bits of a time, signed.
        Sense::Time => Value::Time(i64::from((number as u32).cast_signed())),
        Sense::Plain | Sense::Choice(_) | Sense::Block | Sense::Inode => Value::Number(number),
    }
}
