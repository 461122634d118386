//! What the library gave.

use std::ops::Range;

use ext2_core::{Acl, Attr, Closed, DirEntry, Errno, FileKind, StatFs};
use ext2_dax::mmu::soft::Died;

/// The number of an error that is the caller's, as Linux has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Refusal(i32);

impl Refusal {
    /// Whether it is this one.
    #[must_use]
    pub fn is(self, errno: Errno) -> bool {
        self.0 == errno.get()
    }
}

impl From<rustix::io::Errno> for Refusal {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self(errno.get())
    }
}

impl std::fmt::Debug for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "errno {}", self.0)
    }
}

/// What an operation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was not done: the actor has nothing that it could be done with.
    Nothing,
    /// It is done.
    Done,
    /// An inode was taken in hand: its number and kind.
    Inode(u32, FileKind),
    /// A number: of an inode, of bytes, an offset.
    Number(u64),
    /// What closing left.
    Closed(Closed),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Attributes.
    Attr(Box<Attr>),
    /// Space.
    Space(StatFs),
    /// Entries, and whether there are more.
    Entries(Vec<DirEntry>, bool),
    /// Names of attributes.
    Names(Vec<Vec<u8>>),
    /// Attributes with values.
    Xattrs(Vec<(Vec<u8>, Vec<u8>)>),
    /// An access control list.
    Acl(Option<Acl>),
    /// Ranges of bytes that are data.
    Ranges(Vec<Range<u64>>),
    /// A run from the block asked for: so many blocks, and whether they are a hole.
    Run(u64, bool),
    /// Bytes of some ranges.
    Parts(Vec<(u64, Vec<u8>)>),
    /// It was refused, as the caller may be.
    Refused(Refusal),
    /// A load died.
    Died(Died),
    /// A store died: with what the file has then, where it can be asked.
    StoreDied(Died, Vec<Range<u64>>),
    /// The device failed.
    Failed(String),
    /// What no sound image gives: it is called broken.
    Broken(String),
}

impl Answer {
    /// Of an error of the core.
    pub(super) fn of(error: &ext2_core::Error) -> Self {
        match error {
            ext2_core::Error::Caller(errno, _) => Self::Refused((*errno).into()),
            ext2_core::Error::Device(_) => Self::Failed(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }

    /// Of an error of the DAX layer.
    pub(super) fn of_dax(error: &ext2_dax::Error) -> Self {
        match error {
            ext2_dax::Error::FileSystem(below) => match Self::of(below) {
                // As the caller sees it.
                Self::Refused(_) => Self::Refused(error.errno().into()),
                other => other,
            },
            ext2_dax::Error::Device(_) => Self::Failed(error.to_string()),
            ext2_dax::Error::BadMapping(_) => Self::Broken(error.to_string()),
            _ => Self::Refused(error.errno().into()),
        }
    }

    /// Whether the operation was done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !matches!(
            self,
            Self::Nothing
                | Self::Refused(_)
                | Self::Died(_)
                | Self::StoreDied(..)
                | Self::Failed(_)
                | Self::Broken(_)
        )
    }

    /// In a few words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Bytes(bytes) => format!("{} bytes, CRC {:08x}", bytes.len(), crc32fast::hash(bytes)),
            Self::Parts(parts) => format!("{} parts", parts.len()),
            Self::Entries(entries, more) => {
                let names: Vec<_> =
                    entries.iter().map(|entry| super::operation::short(&entry.name)).collect();
                format!("{}{}", names.join(" "), if *more { " …" } else { "" })
            }
            other => format!("{other:?}"),
        }
    }
}
