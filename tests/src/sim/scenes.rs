//! Scenes: what half of the runs begin with. A fault that needs several things at once (a private copy, and then a hole in
//! the place of what was copied) comes up by chance once in hours; where the stage is set for it, in seconds. What follows
//! is chosen as ever.

use ext2_core::{FileKind, Policy};
use ext2_dax::{
    OpenFor,
    mmu::{Protection, Sharing},
};

use super::{Backend, Mode, Operation, Options, Word};
use crate::{Rng, tools};

mod alone;
mod together;

/// Bytes of a page.
const PAGE: u64 = 4096;
/// The name of `lost+found`.
const LOST_FOUND: u8 = 26;

/// A scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// A private mapping has a copy of a page that is punched, and perhaps cut off then.
    PrivateCopy,
    /// A name in a full block of a directory becomes longer while the directory is listed.
    PackedBlock,
    /// A mapping stores while the file system is closed.
    ClosedUnderStores,
    /// An attribute goes while no block is free.
    FullDisk,
    /// A file system whose second group has reserved inodes is killed, and opened as it was left.
    FewInodes,
    /// Memory is leased up to the largest offset.
    LongLease,
    /// Memory is leased, stored to, and synced.
    SyncedLease,
    /// A name is taken by, or exchanged with, another.
    Replaced,
    /// Owners and mode change in one call.
    Owners,
    /// A block of attributes is shared.
    SharedAttributes,
    /// A file that shares its attributes is removed while it is open and no block is free, and the process is killed.
    DeadSharer,
    /// On a full disk a file that shares its attributes is removed while it is held, and another is truncated.
    DeadBesideTruncation,
    /// A file without a name gets one.
    FirstName,
    /// Several pages are read or written at once.
    Transfer,
    /// Something needs a feature that the superblock does not name yet.
    FirstUse,
    /// A hole is mapped twice, and stored to.
    MappedHole,
    /// A batch of the fewest blocks that there can be one of takes contents that go to blocks which were given up.
    SmallBatch,
    /// A hole of 2 MiB is stored to where only blocks that are reserved for root are left.
    Reserved,
    /// Threads look up, make, remove and rename the same few names.
    SameNames,
    /// Threads load from one mapping and store to it, or append to one file.
    OneProcess,
    /// A mapping, or a lease that has ended, stored; one thread syncs, takes pages away, or lets go of all, and others sync all.
    SyncedTogether,
    /// A file that nobody has opened yet is cut off, punched, or moved as it grows; meanwhile others open it, and look at it.
    FirstOpened,
    /// Threads change the rights, flags, attributes and bytes of one file, and one makes it immutable.
    OneFile,
    /// A hole that all have mapped and looked at gets blocks, by a store, a write or a lease; all look at it again.
    SeenHole,
    /// A file that all have mapped further than it goes grows, and others look at what it has then.
    Growing,
    /// A tree is walked while a directory goes from one place in it to another, and back.
    WalkedMoves,
}

/// The operations of a scene.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// In order.
    pub(super) first: Vec<Operation>,
    /// What the run ends with.
    pub(super) last: Option<Operation>,
}

impl Scene {
    /// Whether all actors have in hand what the first one made before threads begin.
    pub(super) fn is_shared(self) -> bool {
        matches!(self, Self::FirstOpened | Self::OneFile | Self::SeenHole | Self::WalkedMoves | Self::Growing)
    }

    /// Those of a mode.
    fn of(mode: Mode) -> Vec<Self> {
        let stored = [
            Self::SyncedLease,
            Self::Replaced,
            Self::Owners,
            Self::SharedAttributes,
            Self::FirstName,
            Self::PackedBlock,
        ];
        match mode {
            Mode::Plain => vec![
                Self::PrivateCopy,
                Self::PackedBlock,
                Self::ClosedUnderStores,
                Self::FullDisk,
                Self::FewInodes,
                Self::LongLease,
                Self::MappedHole,
                Self::DeadSharer,
                Self::SmallBatch,
                Self::Reserved,
            ],
            Mode::Threads => {
                vec![
                    Self::SameNames,
                    Self::OneProcess,
                    Self::SyncedTogether,
                    Self::OneFile,
                    Self::SeenHole,
                    Self::WalkedMoves,
                    Self::Growing,
                ]
            }
            Mode::Crash => [&[Self::DeadBesideTruncation][..], &stored].concat(),
            Mode::Failing => {
                [&[Self::MappedHole, Self::MappedHole, Self::FirstUse, Self::Transfer][..], &stored].concat()
            }
        }
    }

    /// The same options with a scene, and what it needs; in every second run none.
    pub(super) fn choose(options: Options) -> Options {
        let mut rng = Rng::named(options.seed, "scene");
        // Not among the draws below, so that seeds stay what they are.
        let is_opened = options.mode == Mode::Threads && Rng::named(options.seed, "first open").one_in(6);
        if !is_opened && rng.one_in(2) {
            return options;
        }
        let scene = if is_opened { Self::FirstOpened } else { *rng.pick(&Self::of(options.mode)) };
        let mut options = Options { scene: Some(scene), ..options };
        scene.fit(&mut options, &mut rng);
        options
    }

    /// Gives it the file system that it needs.
    fn fit(self, options: &mut Options, rng: &mut Rng) {
        match self {
            Self::PrivateCopy | Self::LongLease | Self::SyncedLease | Self::MappedHole | Self::Transfer => {
                options.buffer_head = false;
                if !options.is_dax() {
                    of_blocks(options, 4096, if options.mode == Mode::Plain { 1024 } else { 384 });
                    options.backend = Backend::Ram;
                }
            }
            Self::ClosedUnderStores => {
                // What is stored to a synchronous mapping waits for a sync in the middle of its fault.
                of_blocks(options, 4096, 1024);
                (options.backend, options.persistent) = (Backend::Ram, true);
                options.buffer_head = false;
            }
            Self::PackedBlock => of_blocks(options, 1024, 128),
            Self::Reserved => {
                of_blocks(options, 4096, 16 << 10);
                (options.backend, options.buffer_head, options.policy) =
                    (Backend::Ram, false, Policy::Aligned);
                (options.journal, options.reserved) = (false, true);
            }
            Self::SmallBatch => {
                of_blocks(options, 1024, 1100);
                (options.backend, options.log, options.batch) = (Backend::File, true, true);
                (options.inodes, options.journal, options.share_xattrs) = (64, false, false);
                options.shares.retain(|(word, _)| *word != Word::Kill);
            }
            Self::FullDisk => {
                of_blocks(options, 1024, 128);
                (options.share_xattrs, options.journal) = (false, false);
            }
            Self::FewInodes => {
                of_blocks(options, 1024, 9 << 10);
                (options.inodes, options.journal) = (16, false);
            }
            Self::DeadSharer => {
                // A journal has 1024 blocks.
                let block = *rng.pick(&[1024, 4096]);
                options.journal = rng.one_in(2) && tools::have("mke2fs");
                of_blocks(
                    options,
                    block,
                    if options.journal { 1200 * (block >> 10) } else { 256 * (block >> 10) },
                );
                options.share_xattrs = true;
            }
            Self::Replaced => options.has_lost_and_found = rng.one_in(3),
            Self::DeadBesideTruncation => {
                of_blocks(options, 1024, 128);
                (options.share_xattrs, options.journal, options.inode_size) = (true, false, 128);
            }
            Self::SharedAttributes => {
                options.share_xattrs = true;
                // What changes a block that is shared needs room for a journal.
                options.kib = options.kib.max(512);
            }
            Self::FirstUse => {
                of_blocks(options, 1024, 128);
                (options.few_features, options.journal) = (true, false);
            }
            Self::Owners | Self::FirstName => {}
            Self::OneProcess => {
                // A file is mapped where a block is a page; where not, it is appended to.
                let block = *rng.pick(&[4096, 4096, 1024]);
                of_blocks(options, block, 384);
                (options.backend, options.buffer_head) = (Backend::Ram, false);
                options.switch = *rng.pick(&[10, 40, 0, 0]);
                options.shares = match block {
                    4096 => vec![(Word::Load, 1), (Word::Store, 1)],
                    _ => vec![(Word::FileRead, 1), (Word::FileWrite, 2)],
                };
            }
            Self::SyncedTogether => {
                use Word as W;
                of_blocks(options, 4096, 384);
                (options.backend, options.buffer_head, options.persistent) = (Backend::Ram, false, true);
                (options.forgets, options.switch) = (false, *rng.pick(&[2, 10, 40, 0, 0]));
                options.shares = vec![(W::SyncAll, 6), (W::FileSync, 2), (W::Exit, 2), (W::Store, 1)];
            }
            Self::FirstOpened => {
                use Word as W;
                // One that moves has a unit of 2 MiB to move to.
                let moves = rng.one_in(4);
                of_blocks(options, 4096, if moves { 8 << 10 } else { 384 });
                (options.backend, options.buffer_head, options.forgets) = (Backend::Ram, false, false);
                options.policy = if moves { Policy::Aligned } else { options.policy };
                options.switch = *rng.pick(&[10, 0, 0, 0]);
                options.shares = vec![(W::Read, 2), (W::Write, 1), (W::Truncate, 1), (W::Punch, 1)];
            }
            Self::SeenHole => {
                of_blocks(options, 4096, 384);
                (options.backend, options.buffer_head, options.forgets) = (Backend::Ram, false, false);
                options.switch = *rng.pick(&[10, 0, 0, 0]);
                options.shares = vec![(Word::Load, 3), (Word::Store, 2), (Word::FileWrite, 1)];
                // One gives blocks, one stores, and one sees whether it still maps the hole.
                options.actors = 3;
                options.map_for_real(rng.one_in(2));
            }
            Self::Growing => {
                of_blocks(options, 4096, 384);
                (options.backend, options.buffer_head, options.forgets) = (Backend::Ram, false, false);
                options.switch = *rng.pick(&[10, 0, 0, 0]);
                options.shares = vec![(Word::Load, 3), (Word::Read, 2), (Word::FileWrite, 1)];
                options.map_for_real(!rng.one_in(4));
            }
            Self::WalkedMoves => {
                use Word as W;
                (options.forgets, options.names) = (false, 3);
                options.switch = *rng.pick(&[10, 40, 0, 0, 0]);
                options.shares = vec![(W::Rename, 4), (W::Walk, 2), (W::Lookup, 1)];
            }
            Self::OneFile => {
                use Word as W;
                (options.forgets, options.switch) = (false, *rng.pick(&[10, 40, 0, 0, 0]));
                let rights =
                    [(W::SetAcl, 4), (W::StripSetid, 4), (W::Chmod, 2), (W::Chown, 1), (W::SetFlags, 2)];
                let others =
                    [(W::SetXattr, 2), (W::RemoveXattr, 1), (W::Truncate, 1), (W::Punch, 1), (W::Zero, 1)];
                options.shares = [&rights[..], &others, &[(W::Acl, 1)]].concat();
            }
            Self::SameNames => {
                use Word as W;
                options.forgets = true;
                options.names = 2 + rng.below(2) as u8;
                options.switch = *rng.pick(&[10, 40, 0, 0, 0, 0]);
                options.shares =
                    vec![(W::Lookup, 4), (W::Create, 4), (W::Unlink, 3), (W::Rmdir, 4), (W::Rename, 6)];
            }
        }
        // In crashes what follows costs states.
        options.steps = match options.mode {
            // A sync would leave nothing to do.
            Mode::Threads if self == Self::SyncedTogether => 0,
            // Nor would who opens it before.
            Mode::Threads if self.is_shared() => 0,
            Mode::Threads => rng.below(4) as u32,
            // On a full disk what follows may meet the exception that `docs/durability.md` names.
            Mode::Crash if self == Self::DeadBesideTruncation => 0,
            Mode::Crash => *rng.pick(&[1, 4, 12]),
            Mode::Failing => rng.below(6) as u32,
            Mode::Plain => options.steps,
        };
    }

    /// Its operations.
    pub(super) fn script(self, options: &Options) -> Script {
        let mut rng = Rng::named(options.seed, "script");
        let rng = &mut rng;
        let mut script = Script::default();
        match self {
            Self::PrivateCopy => script.private_copy(rng),
            Self::PackedBlock => script.packed_block(rng),
            Self::ClosedUnderStores => script.closed_under_stores(rng),
            Self::FullDisk => script.full_disk(rng),
            Self::FewInodes => script.does(Operation::Kill { mended: false }),
            Self::LongLease => script.long_lease(rng),
            Self::SyncedLease => script.synced_lease(rng),
            Self::Replaced => script.replaced(rng),
            Self::Owners => script.owners(rng),
            Self::DeadBesideTruncation => script.dead_beside_truncation(rng),
            Self::SharedAttributes => script.shared_attributes(rng),
            Self::DeadSharer => script.dead_sharer(rng, options),
            Self::FirstName => script.first_name(rng),
            Self::FirstUse => script.first_use(rng),
            Self::Transfer => script.transfer(rng),
            Self::MappedHole => script.mapped_hole(rng),
            Self::SmallBatch => script.small_batch(rng),
            Self::Reserved => script.reserved(rng),
            Self::SameNames => script.same_names(rng),
            Self::SyncedTogether => script.synced_together(rng),
            Self::FirstOpened => script.first_opened(rng, options),
            Self::OneFile => script.one_file(rng),
            Self::SeenHole => script.seen_hole(),
            Self::WalkedMoves => script.walked_moves(),
            Self::Growing => script.growing(),
            Self::OneProcess if options.block < PAGE => script.one_end(),
            Self::OneProcess => script.one_process(rng),
        }
        if options.mode == Mode::Failing && script.last.is_none() {
            // The device fails in what the scene is about.
            script.last = script.first.pop();
        }
        script
    }
}

fn of_blocks(options: &mut Options, block: u64, kib: u64) {
    (options.block, options.kib) = (block, kib);
    (options.log, options.batch, options.real_mappings) = (false, false, false);
}

/// Makes `lost+found`.
pub(super) fn lost_and_found() -> [Operation; 2] {
    let (dir, name, kind, mode, umask, to) = (0, LOST_FOUND, FileKind::Directory, 0o700, 0, 1);
    [Operation::Root { to: 0 }, Operation::Create { dir, name, kind, mode, umask, to }]
}

impl Script {
    fn does(&mut self, operation: Operation) {
        self.first.push(operation);
    }

    /// Makes something in the root, which the first hand holds then.
    fn make(&mut self, name: u8, kind: FileKind, mode: u16, to: u8) {
        if self.first.is_empty() {
            self.does(Operation::Root { to: 0 });
        }
        self.does(Operation::Create { dir: 0, name, kind, mode, umask: 0, to });
    }

    /// Makes a file, and opens it.
    fn open(&mut self) {
        self.make(1, FileKind::Regular, 0o644, 1);
        self.does(Operation::Open { of: 1, open_for: OpenFor::Writing, file: 0 });
    }

    fn map(&mut self, sharing: Sharing, map: u8) {
        let protection = Protection::ReadWrite;
        self.does(Operation::Map { file: 0, page: 0, pages: 3, sharing, protection, map });
    }
}
