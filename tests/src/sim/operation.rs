//! The vocabulary.

use std::fmt;

use ext2_core::{AclKind, FileKind, RenameFlags};
use ext2_dax::{
    OpenFor,
    mmu::{Protection, Sharing},
};

/// Who does it: a process with a user, and with hands, files, mappings, leases and listings of its own.
pub type Actor = u8;

/// What each actor can hold: so many inodes.
pub const HANDS: u8 = 8;
/// So many open files.
pub(super) const FILES: u8 = 3;
/// So many mappings, all in the actor's address space.
pub(super) const MAPS: u8 = 3;
/// So many leases.
pub(super) const LEASES: u8 = 2;
/// So many directories that are being listed.
pub(super) const LISTINGS: u8 = 2;

/// A length that means: as much as there is, up to [`WHOLE_READ`] bytes.
pub(super) const WHOLE: u32 = u32::MAX;
/// The bytes that are read then.
pub(super) const WHOLE_READ: u32 = 60_000;

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who.
    pub actor: Actor,
    /// What.
    pub operation: Operation,
}

/// Bytes that an operation writes: so many, which depend on the seed and on where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// How many.
    pub len: u32,
    /// Which.
    pub seed: u8,
}

impl Data {
    /// The bytes at an offset of a file. None of them is 0, or the byte of stale blocks.
    #[must_use]
    pub fn bytes(self, offset: u64) -> Vec<u8> {
        let byte = |at: u64| {
            1 + ((at / 3).wrapping_add(u64::from(self.seed) * 31).wrapping_add(at % 3 * 67) % 200) as u8
        };
        (0..u64::from(self.len)).map(|at| byte(offset.wrapping_add(at))).collect()
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident $({ $($field:ident: $type:ty),* $(,)? })?,)*) => {
        /// An operation. `dir`, `of` and `to` are hands of the actor; names are numbers that [`name`] spells; offsets and
        /// lengths are bytes. What asks for a hand that holds nothing, or something else, is not done.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // the fields are said above
        pub enum Operation {
            $($(#[$doc])* $name $({ $($field: $type),* })?,)*
        }

        /// The kinds of operation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs)] // those of `Operation`
        pub enum Word {
            $($name,)*
        }

        impl Word {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }

        impl Operation {
            /// Its kind.
            #[must_use]
            pub fn word(&self) -> Word {
                match self {
                    $(Self::$name { .. } => Word::$name,)*
                }
            }
        }
    };
}

operations! {
    // Names.
    /// Takes the root in hand.
    Root { to: u8 },
    /// Takes in hand what a name leads to.
    Lookup { dir: u8, name: u8, to: u8 },
    /// Asks for the number of a name.
    LookupNr { dir: u8, name: u8 },
    /// Takes an inode that is in hand once more, by its number.
    ByNumber { of: u8, to: u8 },
    /// Follows a path of names from the root.
    Resolve { path: [u8; 2], follow: bool, to: u8 },
    /// The same up to the last name.
    ResolveParent { path: [u8; 2], to: u8 },
    /// Makes a file, directory or special file.
    Create { dir: u8, name: u8, kind: FileKind, mode: u16, umask: u16, to: u8 },
    /// Makes a symbolic link, to a path of one name, or to so many bytes.
    Symlink { dir: u8, name: u8, target: u8, len: u16, to: u8 },
    /// Makes a file without a name.
    Tmpfile { dir: u8, mode: u16, to: u8 },
    /// Gives an inode another name.
    Link { of: u8, dir: u8, name: u8 },
    Unlink { dir: u8, name: u8 },
    Rmdir { dir: u8, name: u8 },
    Rename { dir: u8, name: u8, to_dir: u8, to_name: u8, flags: RenameFlags },
    ReadLink { of: u8 },
    /// Begins to list a directory.
    BeginListing { dir: u8, listing: u8 },
    /// Goes on listing, by so many entries at most.
    List { listing: u8, count: u8 },
    /// Lets go of an inode.
    LetGo { of: u8 },
    /// Walks the tree below an inode.
    Walk { of: u8 },
    /// Removes a directory in the root with all that is in it, where nothing of that is to stay as it is.
    RemoveAll { name: u8 },

    // Attributes.
    Stat { of: u8 },
    StatFs,
    Chmod { of: u8, mode: u16 },
    /// Changes owners, and the mode with them where one is given.
    Chown { of: u8, uid: Option<u32>, gid: Option<u32>, mode: Option<u16> },
    SetTimes { of: u8, atime: Option<i64>, mtime: Option<i64> },
    Touch { of: u8 },
    TouchModified { of: u8 },
    TouchAccessed { of: u8 },
    StripSetid { of: u8 },
    SetFlags { of: u8, flags: u32 },
    SetXattr { of: u8, name: u8, value: Data, how: u8 },
    RemoveXattr { of: u8, name: u8 },
    GetXattr { of: u8, name: u8 },
    ListXattrs { of: u8 },
    Xattrs { of: u8 },
    SetAcl { of: u8, which: AclKind, acl: Option<u16> },
    Acl { of: u8, which: AclKind },

    // Contents.
    Read { of: u8, at: u64, len: u32 },
    /// The same, from where the bytes lie on the device.
    ReadPieces { of: u8, at: u64, len: u32 },
    Write { of: u8, at: u64, data: Data },
    Truncate { of: u8, size: u64, wait: bool },
    Punch { of: u8, at: u64, len: u64, wait: bool },
    Zero { of: u8, at: u64, len: u64 },
    Fallocate { of: u8, mode: u32, at: u64, len: u64 },
    SeekData { of: u8, at: u64 },
    SeekHole { of: u8, at: u64 },
    Extents { of: u8 },
    /// Maps one run of blocks.
    MapBlocks { of: u8, at: u64, len: u64 },
    /// Begins a write, which allocates its blocks, and gives it up.
    GiveUpWrite { of: u8, at: u64, len: u64 },

    // Through the DAX layer.
    Open { of: u8, open_for: OpenFor, file: u8 },
    CloseFile { file: u8 },
    FileRead { file: u8, at: u64, len: u32, nowait: bool },
    FileWrite { file: u8, at: u64, data: Data, nowait: bool },
    FileTruncate { file: u8, size: u64, wait: bool },
    FilePunch { file: u8, at: u64, len: u64, wait: bool },
    FileZero { file: u8, at: u64, len: u64 },
    FileSeekData { file: u8, at: u64 },
    FileSeekHole { file: u8, at: u64 },
    FileExtents { file: u8 },
    FileSync { file: u8 },
    Lease { file: u8, at: u64, len: u64, writing: bool, lease: u8 },
    LeaseRead { lease: u8 },
    LeaseWrite { lease: u8, seed: u8 },
    LeaseSync { lease: u8 },
    EndLease { lease: u8 },
    Map { file: u8, page: u64, pages: u64, sharing: Sharing, protection: Protection, map: u8 },
    Load { map: u8, at: u64, len: u32 },
    Store { map: u8, at: u64, data: Data },
    Msync { map: u8, page: u64, pages: u64 },
    Unmap { map: u8 },

    // The whole.
    /// Discards runs of so many free blocks.
    Trim { least: u16 },
    Sync { of: u8 },
    SyncAll,
    /// The process dies: all that it holds is let go of.
    Exit,
    /// Everybody lets go, and the file system is closed and opened again.
    Remount { read_only: bool },
    /// The file system is closed under all that everybody holds, while another thread stores to what is mapped the bytes that
    /// are there; nothing may be changed any more. Then as above.
    Close,
    /// The process of the file system is killed: what it stored is what there is. Opened again as it is left or, where
    /// `mended` says so, after `e2fsck -p`.
    Kill { mended: bool },
}

/// What an operation is done with, besides hands that hold anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// A regular file in a hand.
    Regular,
    /// An open file.
    File,
    /// A mapping.
    Map,
    /// A lease.
    Lease,
    /// A directory that is being listed.
    Listing,
}

impl Word {
    pub(super) fn needs(self) -> Need {
        use Word as W;
        match self {
            W::Read
            | W::ReadPieces
            | W::Write
            | W::Truncate
            | W::Punch
            | W::Zero
            | W::Fallocate
            | W::Open => Need::Regular,
            W::SeekData | W::SeekHole | W::Extents | W::MapBlocks | W::GiveUpWrite => Need::Regular,
            W::FileRead | W::FileWrite | W::FileTruncate | W::FilePunch | W::FileZero | W::FileSync => {
                Need::File
            }
            W::FileSeekData | W::FileSeekHole | W::FileExtents | W::CloseFile | W::Lease | W::Map => {
                Need::File
            }
            W::Load | W::Store | W::Msync | W::Unmap => Need::Map,
            W::LeaseRead | W::LeaseWrite | W::LeaseSync | W::EndLease => Need::Lease,
            W::List => Need::Listing,
            _ => Need::Nothing,
        }
    }
}

/// A name of the vocabulary: some that collide often, some that fill a block soon, and some that are none.
#[must_use]
pub fn name(nr: u8) -> Vec<u8> {
    match nr {
        0..=12 => vec![b'a' + nr],
        27 => b"\xff\xfe not text".to_vec(),
        13..=19 => [&[b'a' + nr][..], &[b'-'; 230]].concat(),
        20 => vec![b'n'; 255],
        21 => vec![b'n'; 256],
        22 => Vec::new(),
        23 => b".".to_vec(),
        24 => b"..".to_vec(),
        25 => b"a/b".to_vec(),
        26 => b"lost+found".to_vec(),
        _ => format!("name-{nr}").into_bytes(),
    }
}

/// A name, or its beginning.
pub(super) fn short(name: &[u8]) -> String {
    let end = name.len().min(12);
    format!("{}{}", name[..end].escape_ascii(), if end < name.len() { "…" } else { "" })
}

/// The name of an extended attribute.
#[must_use]
pub fn xattr_name(nr: u8) -> &'static [u8] {
    [&b"user.a"[..], b"user.b", b"trusted.c", b"security.d", b"user.a long name", b"user.", b"other.x"]
        [usize::from(nr) % 7]
}

/// User and group of an actor. The first is root.
#[must_use]
pub fn user(actor: Actor) -> (u32, u32) {
    [(0, 0), (1000, 100), (65_537, 65_538), (7, 100)][usize::from(actor) % 4]
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}: {:?}", user(self.actor).0, self.operation)
    }
}
