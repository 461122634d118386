//! What may be chosen of a plan besides the format.

/// How large the file system is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many bytes.
    Bytes(u64),
    /// As small as the tree allows with so many bytes left free, rounded up to 2 MiB.
    Auto {
        /// Bytes that are left free.
        slack: u64,
    },
}

/// What a file system of automatic size leaves free besides the slack in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spare {
    /// Percent of the bytes that the files take.
    pub percent: u16,
    /// Inodes.
    pub inodes: u64,
}

/// What is to be done about 2 MiB pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AlignChoice {
    /// Align where that takes no room, and from 64 MiB up where it takes some, unless the given size has no room for it.
    Auto,
    /// Align.
    Units,
    /// Do not.
    Off,
}

/// Whether there is a directory `lost+found`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostAndFound {
    /// There is.
    Always,
    /// Only if the tree has it.
    AsInTree,
}

/// How a tree becomes a file system, besides its [`Format`](super::Format).
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How large.
    pub size: Size,
    /// What an automatic size leaves free besides its slack.
    pub spare: Spare,
    /// Whether aligned.
    pub align: AlignChoice,
    /// Where the file system begins on the device that is mapped, in bytes: a partition's start.
    pub device_offset: u64,
    /// Whether with `lost+found`.
    pub lost_and_found: LostAndFound,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: Size::Auto { slack: 0 },
            spare: Spare::default(),
            align: AlignChoice::Auto,
            device_offset: 0,
            lost_and_found: LostAndFound::Always,
        }
    }
}
