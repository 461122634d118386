//! What is told of an inode, part by part.

use ext2_core::{Attr, FileKind, Timestamp};

use crate::sim::base::BEGIN;

/// Flags that both know.
pub(super) const FLAGS: u32 = 0x3_80ff;

/// Flags that only directories have.
pub(super) const FOR_DIRECTORIES: u32 = 0x3_0000;

/// A part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Kind,
    Mode,
    Owners,
    Links,
    Size,
    Blocks,
    Device,
    Flags,
    Atime,
    Mtime,
    Ctime,
}

/// The parts, but for times, that differ.
pub(super) fn differing(ours: &Attr, kernel: &Attr) -> Vec<Field> {
    // Of others the kernel tells none.
    let known = match ours.kind {
        FileKind::Directory => FLAGS,
        FileKind::Regular => FLAGS & !FOR_DIRECTORIES,
        _ => 0,
    };
    let flags = |attr: &Attr| attr.flags.bits() & known;
    let parts = [
        (Field::Kind, ours.kind == kernel.kind),
        (Field::Mode, ours.mode == kernel.mode),
        (Field::Owners, (ours.uid, ours.gid) == (kernel.uid, kernel.gid)),
        (Field::Links, ours.links == kernel.links),
        (Field::Size, ours.size == kernel.size),
        (Field::Blocks, ours.blocks_512 == kernel.blocks_512),
        (Field::Device, ours.device == kernel.device),
        (Field::Flags, flags(ours) == flags(kernel)),
    ];
    parts.iter().filter(|(_, is_equal)| !is_equal).map(|(part, _)| *part).collect()
}

/// Last read, last change of the contents, last change of the inode.
pub(super) fn times(attr: &Attr) -> [(Field, Timestamp); 3] {
    [(Field::Atime, attr.atime), (Field::Mtime, attr.mtime), (Field::Ctime, attr.ctime)]
}

/// Seconds of the library's clock in a list: one for each step.
const CLOCK: std::ops::Range<i64> = BEGIN + 1..BEGIN + 1_000_000;

/// Whether two times are of the same kind: that of the clock of each since the list began at `start`, or one that was asked
/// for.
pub(super) fn is_alike(ours: Timestamp, kernel: Timestamp, start: i64) -> bool {
    if CLOCK.contains(&ours.sec) {
        kernel.sec >= start && kernel.sec < start + 100_000
    } else {
        ours == kernel
    }
}
