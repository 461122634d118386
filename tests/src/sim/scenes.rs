//! Scenes: what half of the runs begin with. A fault that needs several things at once (a private copy, and then a hole in
//! the place of what was copied) comes up by chance once in hours; where the stage is set for it, in seconds. What follows
//! is chosen as ever.

use ext2_core::{AclKind, FileKind, Policy, RenameFlags};
use ext2_dax::{
    OpenFor,
    mmu::{Protection, Sharing},
};

use super::{Backend, Data, Mode, Operation, Options, Word};
use crate::{Rng, tools};

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
    /// Whether all actors have the first one's file in hand before threads begin.
    pub(super) fn is_about_one_file(self) -> bool {
        matches!(self, Self::FirstOpened | Self::OneFile | Self::SeenHole)
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
                vec![Self::SameNames, Self::OneProcess, Self::SyncedTogether, Self::OneFile, Self::SeenHole]
            }
            Mode::Crash => [&[Self::DeadBesideTruncation][..], &stored].concat(),
            Mode::Failing => [&[Self::MappedHole, Self::MappedHole, Self::FirstUse][..], &stored].concat(),
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
            Self::PrivateCopy | Self::LongLease | Self::SyncedLease | Self::MappedHole => {
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
            Mode::Threads if matches!(self, Self::FirstOpened | Self::OneFile | Self::SeenHole) => 0,
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
            Self::MappedHole => script.mapped_hole(rng),
            Self::SmallBatch => script.small_batch(rng),
            Self::Reserved => script.reserved(rng),
            Self::SameNames => script.same_names(rng),
            Self::SyncedTogether => script.synced_together(rng),
            Self::FirstOpened => script.first_opened(rng, options),
            Self::OneFile => script.one_file(rng),
            Self::SeenHole => script.seen_hole(),
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

    fn private_copy(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.open();
        self.does(O::FileWrite {
            file: 0,
            at: 0,
            data: Data { len: 3 * PAGE as u32, seed: 3 },
            nowait: false,
        });
        self.map(Sharing::Private, 0);
        let page = rng.below(3);
        let at = page * PAGE + rng.below(PAGE);
        self.does(O::Load { map: 0, at, len: 1 });
        self.does(O::Store { map: 0, at, data: Data { len: 1 + rng.below(100) as u32, seed: 5 } });
        let (at, len) = (page * PAGE, (1 + rng.below(2)) * PAGE);
        self.does(if rng.one_in(2) {
            O::FilePunch { file: 0, at, len, wait: true }
        } else {
            O::Punch { of: 1, at, len, wait: true }
        });
        self.does(O::Load { map: 0, at, len: PAGE as u32 });
        if rng.one_in(3) {
            self.does(O::FileTruncate { file: 0, size: rng.below(at.max(1)), wait: false });
            self.does(O::Load { map: 0, at, len: PAGE as u32 });
        }
    }

    /// A block of 1 KiB with room that lies apart: only packed it has enough for a name of 255 bytes.
    fn packed_block(&mut self, rng: &mut Rng) {
        use Operation as O;
        for (long, short) in [(13, 0), (14, 1), (15, 2)] {
            self.make(long, FileKind::Fifo, 0o600, 1);
            let kind = if rng.one_in(2) { FileKind::Directory } else { FileKind::Fifo };
            let kind = if short == 0 { FileKind::Directory } else { kind };
            self.make(short, kind, 0o755, 2);
        }
        // What is left of the block is not enough, nor is one of the two places where a name was.
        self.make(16, FileKind::Fifo, 0o600, 1);
        self.does(O::Unlink { dir: 0, name: 13 });
        self.does(O::Unlink { dir: 0, name: 15 });
        self.does(O::BeginListing { dir: 0, listing: 0 });
        self.does(O::List { listing: 0, count: 2 + rng.below(4) as u8 });
        let flags = RenameFlags::empty();
        let rename = O::Rename { dir: 0, name: 0, to_dir: 0, to_name: 20, flags };
        self.does(rename);
        self.does(O::List { listing: 0, count: 9 });
    }

    fn closed_under_stores(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.open();
        self.does(O::FileWrite { file: 0, at: 0, data: Data { len: 5000, seed: 3 }, nowait: false });
        self.map(if rng.one_in(3) { Sharing::Shared } else { Sharing::Synchronous }, 0);
        if rng.one_in(3) {
            self.does(O::Store { map: 0, at: 10, data: Data { len: 10, seed: 5 } });
        }
        self.does(O::Close);
    }

    fn full_disk(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.make(1, FileKind::Regular, 0o644, 1);
        for name in 0..2 + rng.below(2) as u8 {
            self.does(O::SetXattr { of: 1, name, value: Data { len: 100, seed: name }, how: 0 });
        }
        self.make(2, FileKind::Regular, 0o644, 2);
        for at in [0, 60_000, 120_000, 180_000] {
            self.does(O::Write { of: 2, at, data: Data { len: 60_000, seed: 7 } });
        }
        self.does(O::RemoveXattr { of: 1, name: rng.below(2) as u8 });
    }

    fn long_lease(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.open();
        self.does(O::FileWrite {
            file: 0,
            at: rng.below(9000),
            data: Data { len: 100, seed: 3 },
            nowait: false,
        });
        let writing = rng.one_in(2);
        self.does(O::Lease { file: 0, at: rng.below(9000), len: u64::MAX, writing, lease: 0 });
        self.does(O::LeaseRead { lease: 0 });
    }

    fn synced_lease(&mut self, rng: &mut Rng) {
        use Operation as O;
        let at = rng.below(9000);
        self.open();
        self.does(O::FileWrite {
            file: 0,
            at,
            data: Data { len: 1 + rng.below(100) as u32, seed: 3 },
            nowait: false,
        });
        self.does(O::Lease { file: 0, at: 0, len: 12_000, writing: true, lease: 0 });
        self.does(O::LeaseWrite { lease: 0, seed: 9 });
        self.does(match rng.below(3) {
            0 => O::FileSync { file: 0 },
            1 => O::LeaseSync { lease: 0 },
            _ => O::SyncAll,
        });
    }

    fn replaced(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.make(1, FileKind::Regular, 0o644, 1);
        self.make(2, FileKind::Regular, 0o600, 2);
        for of in [1, 2] {
            if rng.one_in(2) {
                self.does(O::Write { of, at: 0, data: Data { len: 1 + rng.below(2000) as u32, seed: of } });
            }
        }
        if rng.one_in(2) {
            self.does(O::SyncAll);
        }
        let flags = if rng.one_in(2) { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
        self.does(O::Rename { dir: 0, name: 1, to_dir: 0, to_name: 2, flags });
    }

    fn owners(&mut self, rng: &mut Rng) {
        use Operation as O;
        let mode = *rng.pick(&[0o4711, 0o6751, 0o2755, 0o4700]);
        self.make(1, FileKind::Regular, mode, 1);
        if rng.one_in(4) {
            self.does(O::SetAcl { of: 1, which: AclKind::Access, acl: Some(rng.below(1 << 15) as u16) });
        }
        if rng.one_in(2) {
            self.does(O::SyncAll);
        }
        if rng.one_in(4) {
            self.does(O::StripSetid { of: 1 });
            let data = Data { len: 1 + rng.below(100) as u32, seed: 3 };
            self.does(O::Write { of: 1, at: rng.below(3000), data });
            return;
        }
        let mut id = || *rng.pick(&[None, Some(0), Some(1000), Some(0x1_0000), Some(0x2_0001)]);
        let (uid, gid) = (id(), id());
        let mode = Some(*rng.pick(&[0o755, 0o4755, 0o6755, 0o4711]));
        self.does(O::Chown { of: 1, uid, gid, mode });
    }

    fn shared_attributes(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.sharers();
        let value = Data { len: 5, seed: 0 };
        if rng.one_in(2) {
            self.does(match rng.below(3) {
                0 => O::SetXattr { of: 1, name: 1, value, how: 0 },
                1 => O::RemoveXattr { of: 1, name: 0 },
                _ => O::Unlink { dir: 0, name: 1 },
            });
        }
    }

    fn sharers(&mut self) {
        let value = Data { len: 5, seed: 0 };
        for of in [1, 2] {
            self.make(of, FileKind::Regular, 0o644, of);
            self.does(Operation::SetXattr { of, name: 0, value, how: 0 });
        }
    }

    fn dead_sharer(&mut self, rng: &mut Rng, options: &Options) {
        use Operation as O;
        self.sharers();
        self.make(3, FileKind::Regular, 0o644, 3);
        // More than there is room for, and then what is left of it block by block.
        let len = options.block as u32;
        self.does(O::Write { of: 3, at: 0, data: Data { len: (options.kib << 10) as u32, seed: 7 } });
        for block in 0..3 {
            self.does(O::Write { of: 2, at: block * options.block, data: Data { len, seed: 7 } });
        }
        self.does(O::Unlink { dir: 0, name: 2 });
        self.does(O::Kill { mended: rng.one_in(4) });
    }

    fn dead_beside_truncation(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.sharers();
        self.make(3, FileKind::Regular, 0o644, 3);
        self.does(O::Write { of: 3, at: 0, data: Data { len: 2000 + rng.below(20_000) as u32, seed: 4 } });
        self.make(4, FileKind::Regular, 0o644, 4);
        for at in [0, 60_000, 120_000] {
            self.does(O::Write { of: 4, at, data: Data { len: 60_000, seed: 7 } });
        }
        self.does(O::Unlink { dir: 0, name: 1 });
        self.does(O::SyncAll);
        self.does(O::Truncate { of: 3, size: rng.below(2000), wait: true });
    }

    fn first_name(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.does(O::Root { to: 0 });
        self.does(O::Tmpfile { dir: 0, mode: 0o644, to: 1 });
        self.does(O::Write {
            of: 1,
            at: rng.below(3000),
            data: Data { len: 1 + rng.below(100) as u32, seed: 3 },
        });
        self.does(O::Link { of: 1, dir: 0, name: 1 });
    }

    fn first_use(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.make(1, FileKind::Regular, 0o644, 1);
        self.does(match rng.below(4) {
            0 => O::Write { of: 1, at: 1 << 31, data: Data { len: 1, seed: 3 } },
            _ => O::SetXattr { of: 1, name: 0, value: Data { len: 5, seed: 0 }, how: 0 },
        });
    }

    fn mapped_hole(&mut self, rng: &mut Rng) {
        use Operation as O;
        let at = rng.below(9000);
        self.open();
        self.does(O::FileTruncate { file: 0, size: 10_000, wait: true });
        self.map(Sharing::Shared, 0);
        self.map(Sharing::Shared, 1);
        self.does(O::Load { map: 0, at, len: 1 });
        self.does(O::Store { map: 1, at, data: Data { len: 1 + rng.below(100) as u32, seed: 3 } });
        if rng.one_in(4) {
            self.does(O::Msync { map: 1, page: 0, pages: 3 });
        }
    }

    fn small_batch(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.make(1, FileKind::Regular, 0o644, 1);
        let data = Data { len: (300 + rng.below(150) as u32) << 10, seed: 3 };
        self.does(O::Write { of: 1, at: 0, data });
        self.does(O::SyncAll);
        self.does(O::Truncate { of: 1, size: 0, wait: true });
        self.make(2, FileKind::Regular, 0o644, 2);
        self.does(O::Write { of: 2, at: 0, data });
    }

    fn reserved(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.open();
        // Past the hole, so that its indirect block is there.
        let data = Data { len: 10, seed: 3 };
        self.does(O::FileWrite { file: 0, at: 3 << 20, data, nowait: false });
        self.make(2, FileKind::Regular, 0o644, 2);
        for at in [0, 4 << 20] {
            self.does(O::Write { of: 2, at, data: Data { len: 4 << 20, seed: 7 } });
        }
        let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
        self.does(O::Map { file: 0, page: 0, pages: 512, sharing, protection, map: 0 });
        self.does(O::Store { map: 0, at: rng.below(2 << 20), data: Data { len: 1, seed: 5 } });
    }
}
