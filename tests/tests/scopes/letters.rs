//! The alphabets: words of the simulator about two files and a directory.

use e2dax_tests::{
    crash::Device,
    sim::{Data, Letter, Mode, Operation as O, Options, Scope},
};
use ext2_core::{FileKind, RenameFlags};
use ext2_dax::{
    OpenFor,
    mmu::{Protection, Sharing},
};

/// Hands: the root, the directory, the two files, and one for what else there is.
const ROOT: u8 = 0;
const D: u8 = 1;
const A: u8 = 2;
const B: u8 = 3;
const OTHER: u8 = 4;

/// Bytes of a block of these file systems.
const BLOCK: u64 = 4096;
/// The first byte that is reached through the indirect block.
const EDGE: u64 = 12 * BLOCK;

/// The number of a name of one letter.
const fn named(letter: u8) -> u8 {
    letter - b'a'
}

fn letter(name: &'static str, operations: impl Into<Vec<O>>) -> Letter {
    Letter { name, operations: operations.into() }
}

fn make(dir: u8, name: u8, kind: FileKind, to: u8) -> O {
    O::Create { dir, name: named(name), kind, mode: 0o755, umask: 0o022, to }
}

fn rename(name: &'static str, from: (u8, u8), to: (u8, u8), flags: RenameFlags) -> Letter {
    let (dir, to_dir) = (from.0, to.0);
    letter(name, [O::Rename { dir, name: named(from.1), to_dir, to_name: named(to.1), flags }])
}

/// What each sequence begins with, and what comes after a remount.
fn take_all() -> Vec<O> {
    let take = |name, to| O::Lookup { dir: ROOT, name: named(name), to };
    vec![O::Root { to: ROOT }, take(b'd', D), take(b'a', A), take(b'b', B)]
}

/// Names come, move and go.
pub(crate) fn names() -> Vec<Letter> {
    let (plain, exchange) = (RenameFlags::empty(), RenameFlags::EXCHANGE);
    vec![
        letter("create a", [make(ROOT, b'a', FileKind::Regular, A)]),
        letter("create d/b", [make(D, b'b', FileKind::Regular, B)]),
        letter("mkdir d", [make(ROOT, b'd', FileKind::Directory, D)]),
        letter("rmdir d", [O::Rmdir { dir: ROOT, name: named(b'd') }]),
        letter("unlink a", [O::Unlink { dir: ROOT, name: named(b'a') }]),
        letter("unlink b", [O::Unlink { dir: ROOT, name: named(b'b') }]),
        letter("unlink d/a", [O::Unlink { dir: D, name: named(b'a') }]),
        letter("link a b", [O::Link { of: A, dir: ROOT, name: named(b'b') }]),
        rename("rename a b", (ROOT, b'a'), (ROOT, b'b'), plain),
        rename("rename a d/a", (ROOT, b'a'), (D, b'a'), plain),
        rename("rename d/a a", (D, b'a'), (ROOT, b'a'), plain),
        rename("rename d b", (ROOT, b'd'), (ROOT, b'b'), plain),
        rename("exchange a b", (ROOT, b'a'), (ROOT, b'b'), exchange),
        rename("exchange a d", (ROOT, b'a'), (ROOT, b'd'), exchange),
        letter(
            "symlink b",
            [O::Symlink { dir: ROOT, name: named(b'b'), target: named(b'a'), len: 0, to: OTHER }],
        ),
    ]
}

/// Bytes of one file, by calls and through a mapping.
pub(crate) fn bytes() -> Vec<Letter> {
    let write = |at, len| O::Write { of: A, at, data: Data { len, seed: 7 } };
    let truncate = |size| O::Truncate { of: A, size, wait: true };
    let punch = |at, len| O::Punch { of: A, at, len, wait: true };
    let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
    let map = O::Map { file: 0, page: 0, pages: 2, sharing, protection, map: 0 };
    let store = O::Store { map: 0, at: BLOCK - 5, data: Data { len: 10, seed: 9 } };
    vec![
        letter("write a block", [write(0, 4096)]),
        letter("append a part", [write(BLOCK + 900, 100)]),
        letter("write at the edge", [write(EDGE - 50, 100)]),
        letter("truncate to nothing", [truncate(0)]),
        letter("truncate to a part", [truncate(2000)]),
        letter("truncate to more", [truncate(EDGE + BLOCK)]),
        letter("punch the first block", [punch(0, BLOCK)]),
        letter("punch from a part on", [punch(1000, 2 * EDGE)]),
        letter("map and store", [O::Open { of: A, open_for: OpenFor::Writing, file: 0 }, map, store]),
        letter("unmap", [O::Unmap { map: 0 }, O::CloseFile { file: 0 }]),
    ]
}

/// What makes durable or lets go.
pub(crate) fn ends() -> Vec<Letter> {
    let remount = [vec![O::Remount { read_only: false }], take_all()].concat();
    vec![
        letter("fsync a", [O::Sync { of: A }]),
        letter("sync", [O::SyncAll]),
        letter("let go of a", [O::LetGo { of: A }]),
        letter("remount", remount),
    ]
}

/// All sequences of these letters: of up to `depth`, from a file system of eleven blocks with a file of a block, an empty one
/// and a directory, so that few blocks are free.
pub(crate) fn scope(letters: Vec<Letter>, depth: usize) -> Scope {
    let bare = Options::of_mode(1, Mode::Plain).bare();
    let options = Options { block: BLOCK, kib: 44, inode_size: 128, inodes: 16, ..bare };
    let prepared = vec![
        O::Root { to: ROOT },
        make(ROOT, b'a', FileKind::Regular, A),
        O::Write { of: A, at: 0, data: Data { len: 3000, seed: 3 } },
        make(ROOT, b'b', FileKind::Regular, B),
        make(ROOT, b'd', FileKind::Directory, D),
    ];
    Scope { options, prepared, begin: take_all(), letters, depth, e2fsck_every: 500 }
}

/// The same where power fails at each moment of the last letter and after it, on hardware of one kind.
pub(crate) fn crashing(letters: Vec<Letter>, depth: usize, crash: Device) -> Scope {
    let scope = scope(letters, depth);
    let options = Options { mode: Mode::Crash, crash, strict_rename: true, ..scope.options };
    Scope { options, ..scope }
}
