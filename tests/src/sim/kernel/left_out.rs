//! What is not held against the kernel, because it has no such operation or would not ask its driver of ext2.

use ext2_core::{FileKind, InodeFlags};
use ext2_dax::{
    OpenFor,
    mmu::{Protection, Sharing},
};

use super::{geometry::Geometry, hands::Kernel, maps::PAGE};
use crate::sim::{Model, Operation, Step, Word};

/// The name that has a slash.
const SLASH: u8 = 25;

/// Why a word or a step is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// Leases: the kernel gives no program the memory of a file but by a mapping.
    Leases,
    /// `MapBlocks` and `GiveUpWrite` are functions of the core; no system call is one of them.
    Blocks,
    /// `Close` under all that is held, and `Kill`: the kernel unmounts nothing that is in use, and is not killed here.
    Ends,
    /// `TouchModified`, `TouchAccessed` and `StripSetid` are parts of other operations of the kernel; `Walk` and `RemoveAll` are
    /// made of others.
    Parts,
    /// What a trim does to blocks that are free nobody sees.
    Trims,
    /// A name with a slash is a path to system calls.
    Slash,
    /// A descriptor of what is no symbolic link is refused as one by the path, before ext2 is asked.
    NoLink,
    /// Bytes and flags of devices, pipes, sockets and links are those of other drivers.
    OtherDrivers,
    /// The mode of a symbolic link: refused by the kernel's file system layer.
    ModeOfLink,
    /// Files are mapped only where a block is a page.
    NoPages,
    /// Mappings that are synchronous are refused on disks.
    Synchronous,
    /// A mapping to be stored to of what was opened for appending: `O_APPEND` does not keep the kernel from it, as no program is
    /// kept from opening it otherwise; the library's handle is for appending only.
    MapOfAppender,
    /// A mapping to be stored to of what is immutable, and was opened before: the library refuses it, the kernel each store. One
    /// that was there before is stored to, as with ext2's own driver; the ext4 driver refuses it.
    MapOfImmutable,
    /// A mapping for reading of what may only be appended to, and was opened for writing before: the kernel refuses it as one for
    /// storing.
    MapOfAppendOnly,
    /// A directory that is opened for reading its bytes: the kernel refuses when they are read, the library has no such handle.
    DirectoryOpened,
    /// A write through what was opened before the file became append-only: the kernel looks at that when a file is opened, the
    /// library with each write.
    AppendOnlyLater,
    /// What lies outside of a mapping, and stores to one for reading, are the processor's answers.
    OutsideTheMap,
}

impl LeftOut {
    /// Why a word is left out, if all of it is.
    #[must_use]
    pub fn word(word: Word) -> Option<Self> {
        use Word as W;
        match word {
            W::Lease | W::LeaseRead | W::LeaseWrite | W::LeaseSync | W::EndLease => Some(Self::Leases),
            W::MapBlocks | W::GiveUpWrite => Some(Self::Blocks),
            W::Close | W::Kill => Some(Self::Ends),
            W::TouchModified | W::TouchAccessed | W::StripSetid | W::Walk | W::RemoveAll => Some(Self::Parts),
            W::Trim => Some(Self::Trims),
            _ => None,
        }
    }

    /// Why a step is left out, if it is.
    pub(super) fn of(step: &Step, model: &Model, kernel: &Kernel, geometry: &Geometry) -> Option<Self> {
        use Operation as O;
        let kind = |hand: u8| model.kind_in(step.actor, hand);
        match step.operation {
            O::Lookup { name: SLASH, .. } | O::LookupNr { name: SLASH, .. } => Some(Self::Slash),
            O::Create { name: SLASH, .. } | O::Symlink { name: SLASH, .. } => Some(Self::Slash),
            O::Link { name: SLASH, .. } | O::Unlink { name: SLASH, .. } => Some(Self::Slash),
            O::Rmdir { name: SLASH, .. } | O::Rename { name: SLASH, .. } => Some(Self::Slash),
            O::Rename { to_name: SLASH, .. } => Some(Self::Slash),
            O::ReadLink { of } if kind(of) != Some(FileKind::Symlink) => Some(Self::NoLink),
            O::Chmod { of, .. } | O::Chown { of, mode: Some(_), .. }
                if kind(of) == Some(FileKind::Symlink) =>
            {
                Some(Self::ModeOfLink)
            }
            O::SetFlags { of, .. }
            | O::Read { of, .. }
            | O::ReadPieces { of, .. }
            | O::Write { of, .. }
            | O::Truncate { of, .. }
            | O::Punch { of, .. }
            | O::Zero { of, .. }
            | O::Fallocate { of, .. }
            | O::Open { of, .. }
                if !matches!(kind(of), Some(FileKind::Regular | FileKind::Directory) | None) =>
            {
                Some(Self::OtherDrivers)
            }
            O::Map { .. } | O::Load { .. } | O::Store { .. } | O::Msync { .. } | O::Unmap { .. }
                if geometry.block != PAGE =>
            {
                Some(Self::NoPages)
            }
            O::Open { of, open_for: OpenFor::Reading, .. } if kind(of) == Some(FileKind::Directory) => {
                Some(Self::DirectoryOpened)
            }
            O::FileWrite { file, .. } if is_append_only(step, file, model) => Some(Self::AppendOnlyLater),
            O::Map { sharing: Sharing::Synchronous, .. } => Some(Self::Synchronous),
            O::Map { file, sharing: Sharing::Shared, protection: Protection::ReadWrite, .. }
                if model.held(step.actor).files[usize::from(file)]
                    .is_some_and(|(_, open_for)| open_for == OpenFor::Appending) =>
            {
                Some(Self::MapOfAppender)
            }
            O::Map { file, sharing: Sharing::Shared, protection: Protection::ReadWrite, .. }
                if has_flag(step, file, model, InodeFlags::IMMUTABLE) =>
            {
                Some(Self::MapOfImmutable)
            }
            O::Map { file, sharing: Sharing::Shared, protection: Protection::ReadOnly, .. }
                if is_append_only(step, file, model) =>
            {
                Some(Self::MapOfAppendOnly)
            }
            O::Store { map, .. } if is_of_immutable(step, map, model) => Some(Self::MapOfImmutable),
            O::Load { map, at, len } => Self::access(kernel, map, at, len.into(), false),
            O::Store { map, at, data } => Self::access(kernel, map, at, data.len.into(), true),
            O::Msync { map, page, pages } => Self::access(kernel, map, page * PAGE, pages * PAGE, false),
            _ => None,
        }
    }

    fn access(kernel: &Kernel, map: u8, at: u64, len: u64, stores: bool) -> Option<Self> {
        let map = kernel.map(map).ok()?;
        (at + len > map.len() || stores && map.is_read_only).then_some(Self::OutsideTheMap)
    }
}

/// Whether what a mapping stores goes to a file that is immutable by now.
fn is_of_immutable(step: &Step, map: u8, model: &Model) -> bool {
    let map = model.held(step.actor).maps[usize::from(map)].as_ref();
    map.is_some_and(|map| !map.is_private() && model.node(map.id).flags & InodeFlags::IMMUTABLE.bits() != 0)
}

/// Whether a file that is open, and not for appending, may only be appended to.
fn is_append_only(step: &Step, file: u8, model: &Model) -> bool {
    has_flag(step, file, model, InodeFlags::APPEND)
}

/// Whether a file that is open for writing has a flag.
fn has_flag(step: &Step, file: u8, model: &Model, flag: InodeFlags) -> bool {
    let open = model.held(step.actor).files[usize::from(file)];
    open.is_some_and(|(id, open_for)| open_for == OpenFor::Writing && model.node(id).flags & flag.bits() != 0)
}
