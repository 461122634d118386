//! One field changed, so that a script can damage an image, or mend it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use blockdev::BlockDevice;
use ext2_core::{InodeNr, Result};

use crate::fields::{Layout, Structure, Wrong, find, set};

/// A field that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Poked {
    /// The kernel's name of the field.
    pub field: String,
    /// Where it lies on the device, in bytes.
    pub offset: u64,
    /// What it held.
    pub before: String,
    /// What it holds.
    pub after: String,
}

/// Why a field was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such field, or no such value.
    Wrong(Wrong),
    /// The structure would be impossible in itself, for this reason.
    Impossible(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(wrong) => wrong.fmt(f),
            Self::Impossible(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for Refused {}

/// Sets a field of a structure, by its name, to a value as text ([`set`] has the forms). Nothing else is changed: no
/// count, no copy, no checksum. Without `force` a value is refused that makes the structure impossible in itself
/// ([`Layout::impossible`]) where it was not before. It is durable once the device was flushed.
///
/// # Errors
/// The inner one: no such field, no such value, or one that makes no sense. The outer one: as [`Layout::take`].
pub fn poke(
    dev: &dyn BlockDevice,
    layout: &Layout,
    what: Structure,
    name: &str,
    value: &str,
    force: bool,
) -> Result<Result<Poked, Refused>> {
    let taken = layout.take(dev, what)?;
    let Some(field) = find(&taken.fields, name) else {
        let near = taken.fields.iter().map(|field| &*field.name).find(|known| known.contains(name));
        let near = near.map_or_else(String::new, |near| format!("; there is {near}"));
        return Ok(Err(Refused::Wrong(Wrong(format!("has no field {name:?}{near}")))));
    };
    let mut bytes = taken.bytes.clone();
    if let Err(wrong) = set(&mut bytes, field, value) {
        return Ok(Err(Refused::Wrong(wrong)));
    }
    // To take a structure apart again costs more than all else; a number can be read by itself.
    let by_itself = field.number_in(&bytes).filter(|_| force);
    let fields = if by_itself.is_some() { Vec::new() } else { layout.fields(what, &bytes) };
    if !force
        && let Some(why) = layout.impossible_with(dev, what, &bytes, &fields)
        && layout.impossible_with(dev, what, &taken.bytes, &taken.fields).is_none()
    {
        return Ok(Err(Refused::Impossible(format!("{}: {why}", field.name))));
    }
    let (from, to) = (field.offset, field.offset + field.length);
    let offset = taken.offset + from as u64;
    dev.write_at(offset, bytes.get(from..to).unwrap_or_default())?;
    let there = || fields.iter().find(|after| after.offset == field.offset).map(|after| after.value.clone());
    Ok(Ok(Poked {
        field: field.name.clone().into_owned(),
        offset,
        before: field.value.to_string(),
        after: by_itself.or_else(there).map_or_else(String::new, |value| value.to_string()),
    }))
}

/// Sets or clears the bit of a block or an inode in its bitmap, and gives what it was. No count is changed. It is durable once the
/// device was flushed.
///
/// # Errors
/// A block or inode of no group; the device's.
pub fn poke_bit(dev: &dyn BlockDevice, layout: &Layout, of: Structure, is_used: bool) -> Result<bool> {
    let geo = layout.geometry()?;
    let (bitmap, bit) = match of {
        Structure::Inode(nr) => {
            geo.group_of_inode(nr).map(|(group, bit)| (Structure::InodeBitmap(group), bit))
        }
        Structure::Contents(block) => {
            geo.group_of_block(block).map(|(group, bit)| (Structure::BlockBitmap(group), bit))
        }
        _ => None,
    }
    .ok_or_else(|| ext2_core::Corrupt::new(ext2_core::Object::Superblock, "has no group for that number"))?;
    let (offset, _) = layout.place(dev, bitmap)?;
    let at = offset + u64::from(bit / 8);
    let mut byte = [0];
    dev.read_at(at, &mut byte)?;
    let before = byte[0] >> (bit % 8) & 1 != 0;
    byte[0] = byte[0] & !(1 << (bit % 8)) | u8::from(is_used) << (bit % 8);
    dev.write_at(at, &byte)?;
    Ok(before)
}

/// The inode of a number, as a structure.
impl From<InodeNr> for Structure {
    fn from(nr: InodeNr) -> Self {
        Self::Inode(nr)
    }
}
