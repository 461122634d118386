//! The structures of an image taken apart: each field with its place, its name, its value, what that means, and what it
//! points to. `hex`, `poke` and whatever draws an image use one description of the format.
//!
//! | module | is |
//! |---|---|
//! | `spec` | fields at fixed places, as tables |
//! | `superblock`, `group`, `inode`, `xattr`, `directory`, `indirect`, `bitmap`, `journal` | one structure each |
//! | `set` | a value as text, stored into a field |
//! | `structure` | where a structure lies on a device, and its fields |
//!
//! # Invariants
//! 1. Any bytes can be taken apart: what makes no sense is shown as it is, and said to be wrong in its meaning.
//! 2. A field lies inside the bytes that were given. Fields come in ascending order of their offsets and do not overlap.
//! 3. Names are those of the kernel (`s_`, `bg_`, `i_`, `e_`, `h_`); what repeats has an index: `i_block[12]`,
//!    `entry[3].rec_len`.
//!
//! ```
//! use ext2_core::GroupNr;
//! use ext2_image::fields::{Layout, Structure, find};
//!
//! let image = ext2_image::mkfs::in_memory(8 << 20)?;
//! let superblock = Layout::read(&image)?.take(&image, Structure::Superblock(GroupNr::new(0)))?;
//! let magic = find(&superblock.fields, "s_magic").expect("every superblock has one");
//! assert_eq!((magic.offset, magic.length, magic.value.to_string()), (56, 2, "0xef53".into()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bitmap;
mod directory;
mod group;
mod indirect;
mod inode;
mod journal;
mod set;
mod spec;
mod structure;
mod superblock;
mod text;
mod xattr;

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

pub use bitmap::{BitRun, bit_runs, bitmap};
pub use directory::{DirRecord, directory, records};
pub use group::group_descriptor;
pub use indirect::indirect;
pub use inode::{InodeShape, inode};
pub use journal::{is_journal_block, journal_block};
pub use set::{Wrong, find, set};
pub use spec::Order;
pub use structure::{Layout, Structure, Taken};
pub use superblock::superblock;
pub use text::{mode_letters, parse_time, utc};
pub use xattr::xattr_block;

/// A field of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// Where it begins, in bytes from the structure's first byte.
    pub offset: usize,
    /// Its length in bytes; at least 1.
    pub length: usize,
    /// The kernel's name for it.
    pub name: Cow<'static, str>,
    /// What it holds.
    pub value: Value,
    /// What that means, in a few words; empty where the name says it all.
    pub meaning: Cow<'static, str>,
    /// What it leads to.
    pub points_to: Option<PointsTo>,
    /// In which order its bytes are.
    pub order: Order,
    /// The names of its bits, where it is a set of them.
    pub(crate) bits: &'static [(u32, &'static str)],
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A count or a number, best read in decimal.
    Number(u64),
    /// A set of bits or a magic number, best read in hexadecimal.
    Hex(u64),
    /// Permissions, best read in octal.
    Octal(u64),
    /// Seconds since 1970, signed.
    Time(i64),
    /// Text that ends at its first NUL or with the field.
    Text(Vec<u8>),
    /// 16 bytes of a UUID.
    Uuid([u8; 16]),
    /// Bytes that are nothing of the above.
    Bytes(Vec<u8>),
}

impl Value {
    /// The number, where it is one; a time as its 32 bits.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) | Self::Hex(number) | Self::Octal(number) => Some(*number),
            // OK to cast: the low 32 bits are what is stored.
            Self::Time(seconds) => Some(u64::from(*seconds as u32)),
            Self::Text(_) | Self::Uuid(_) | Self::Bytes(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Hex(number) => write!(f, "{number:#x}"),
            Self::Octal(number) => write!(f, "{number:#o}"),
            Self::Time(seconds) => write!(f, "{seconds}"),
            Self::Text(bytes) => write!(f, "\"{}\"", crate::manifest::quote(bytes)),
            Self::Uuid(bytes) => {
                for (nr, byte) in bytes.iter().enumerate() {
                    let dash = if matches!(nr, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
            Self::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// What a field leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointsTo {
    /// A block of the device.
    Block(u32),
    /// An inode.
    Inode(u32),
    /// A byte of the same structure, from its first one.
    Byte(usize),
}
