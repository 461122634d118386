//! Scenes of threads: what is there before they begin, and what they begin with.

use ext2_core::{AclKind, FileKind, Policy, RenameFlags};
use ext2_dax::{
    OpenFor,
    mmu::{Protection, Sharing},
};

use super::{PAGE, Scene, Script};
use crate::{
    Rng,
    sim::{Actor, Data, Operation, Options},
};

/// The name of the file that all have in hand.
const SHARED: u8 = 1;
/// The names of two directories, which are in the hands after the first, and of one that goes from one to the other.
const PLACES: [u8; 2] = [0, 1];
const MOVED: u8 = 2;
/// Bytes up to which a file is small to [`Policy::Aligned`].
const SMALL: u64 = 1 << 20;

impl Script {
    pub(super) fn one_end(&mut self) {
        self.make(1, FileKind::Regular, 0o644, 1);
        self.does(Operation::Open { of: 1, open_for: OpenFor::Appending, file: 0 });
    }

    pub(super) fn one_process(&mut self, rng: &mut Rng) {
        self.open();
        let data = Data { len: 1 + rng.below(2 * PAGE) as u32, seed: 3 };
        self.does(Operation::FileWrite { file: 0, at: 0, data, nowait: false });
        let sharing = if rng.one_in(4) { Sharing::Shared } else { Sharing::Private };
        let protection = Protection::ReadWrite;
        self.does(Operation::Map { file: 0, page: 0, pages: 1, sharing, protection, map: 0 });
    }

    pub(super) fn synced_together(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.open();
        let data = Data { len: 2 * PAGE as u32, seed: 3 };
        self.does(O::FileWrite { file: 0, at: 0, data, nowait: false });
        let which = rng.below(3);
        if which > 0 {
            self.does(O::Lease { file: 0, at: 0, len: 1 + rng.below(2 * PAGE), writing: true, lease: 0 });
            self.does(O::LeaseWrite { lease: 0, seed: 9 });
        }
        if which < 2 {
            self.map(Sharing::Shared, 0);
            for seed in 0..1 + rng.below(3) as u8 {
                let data = Data { len: 1 + rng.below(100) as u32, seed };
                self.does(O::Store { map: 0, at: rng.below(2 * PAGE - 100), data });
            }
        }
    }

    /// What an actor begins with beside others that sync: it syncs, or takes pages away that were stored to, of the file that
    /// the first one has open.
    pub(in crate::sim) fn synced_first(actor: Actor, rng: &mut Rng) -> Option<Operation> {
        let at = PAGE * rng.below(2);
        match (actor, rng.below(5)) {
            (_, 0) => None,
            (0, 1) => Some(Operation::FileTruncate { file: 0, size: at + rng.below(2) * 1000, wait: true }),
            (0, 2) => Some(Operation::FilePunch { file: 0, at, len: PAGE * (1 + rng.below(2)), wait: true }),
            (0, _) => Some(Operation::FileSync { file: 0 }),
            _ => Some(Operation::SyncAll),
        }
    }

    /// A file that is written to by its inode alone. One that moves as it grows is as long as a small one can be.
    pub(super) fn first_opened(&mut self, rng: &mut Rng, options: &Options) {
        self.make(SHARED, FileKind::Regular, 0o644, 1);
        let len = if moves(options) { SMALL } else { PAGE + 1 + rng.below(PAGE) };
        self.does(Operation::Write { of: 1, at: 0, data: Data { len: len as u32, seed: 3 } });
    }

    /// How the others come to have what a scene is about in the hands of whoever made it, and what they do with it first.
    pub(in crate::sim) fn others_hold(scene: Option<Scene>) -> Vec<Operation> {
        let mut hold = vec![Operation::Root { to: 0 }];
        match scene {
            Some(Scene::WalkedMoves) => {
                hold.extend(PLACES.map(|name| Operation::Lookup { dir: 0, name, to: 1 + name }));
            }
            _ => hold.push(Operation::Lookup { dir: 0, name: SHARED, to: 1 }),
        }
        match scene {
            Some(Scene::SeenHole) => hold.extend(look_at(1)),
            Some(Scene::Growing) => hold.extend(look_at(3)),
            _ => {}
        }
        hold
    }

    /// Two directories, of which the first has another.
    pub(super) fn walked_moves(&mut self) {
        use Operation as O;
        PLACES.into_iter().for_each(|name| self.make(name, FileKind::Directory, 0o755, 1 + name));
        let kind = FileKind::Directory;
        self.does(O::Create { dir: 1, name: MOVED, kind, mode: 0o755, umask: 0, to: 3 });
    }

    /// What an actor begins with where a tree is walked: the first walks it, and the others move what is in it.
    pub(in crate::sim) fn moved_first(actor: Actor, rng: &mut Rng) -> Vec<Operation> {
        if actor == 0 {
            return vec![Operation::Walk { of: 0 }];
        }
        let flags = RenameFlags::empty();
        let there = Operation::Rename { dir: 1, name: MOVED, to_dir: 2, to_name: MOVED, flags };
        let back = Operation::Rename { dir: 2, name: MOVED, to_dir: 1, to_name: MOVED, flags };
        if rng.one_in(2) { vec![there] } else { vec![there, back] }
    }

    /// A hole of one page that is looked at.
    pub(super) fn seen_hole(&mut self) {
        self.make(SHARED, FileKind::Regular, 0o644, 1);
        self.does(Operation::Truncate { of: 1, size: PAGE, wait: true });
        look_at(1).into_iter().for_each(|operation| self.does(operation));
    }

    /// A file of less than a page.
    pub(super) fn growing(&mut self) {
        self.make(SHARED, FileKind::Regular, 0o644, 1);
        self.does(Operation::Write { of: 1, at: 0, data: Data { len: 100, seed: 3 } });
        look_at(3).into_iter().for_each(|operation| self.does(operation));
    }

    /// What an actor begins with beside a file that grows: the first makes it longer, and the others ask how long it is, and look
    /// at what is there.
    pub(in crate::sim) fn grown_first(actor: Actor, rng: &mut Rng) -> Vec<Operation> {
        use Operation as O;
        if actor == 0 {
            return vec![match rng.below(3) {
                0 => O::FileTruncate { file: 0, size: PAGE + 100, wait: true },
                1 => O::Write { of: 1, at: PAGE, data: Data { len: 100, seed: 9 } },
                _ => O::FileWrite { file: 0, at: PAGE, data: Data { len: 100, seed: 9 }, nowait: false },
            }];
        }
        vec![O::Read { of: 1, at: PAGE, len: 100 }, O::Load { map: 0, at: PAGE, len: 100 }]
    }

    /// What an actor begins with where all look at a hole: most often the first writes, the second stores, and both look at it
    /// again; the third looks at what they have stored.
    pub(in crate::sim) fn filled_first(actor: Actor, rng: &mut Rng) -> Vec<Operation> {
        use Operation as O;
        // Each in a place of its own.
        let (at, data) = (u64::from(actor) * 1000, Data { len: 100, seed: actor + 1 });
        let look = O::Load { map: 0, at, len: 100 };
        let part = if rng.one_in(4) { rng.below(4) } else { actor.into() };
        match part {
            0 => vec![O::FileWrite { file: 0, at, data, nowait: false }, look],
            1 => vec![O::Store { map: 0, at, data }, look],
            2 => (0..3).map(|other| O::Load { map: 0, at: other * 1000, len: 100 }).collect(),
            _ => {
                let lease = O::Lease { file: 0, at, len: 100, writing: true, lease: 0 };
                vec![lease, O::LeaseWrite { lease: 0, seed: 9 }, look]
            }
        }
    }

    /// What an actor begins with beside others: the first takes blocks away, or moves them, and the others open the file.
    pub(in crate::sim) fn opened_first(actor: Actor, rng: &mut Rng, options: &Options) -> Vec<Operation> {
        use Operation as O;
        let at = PAGE * rng.below(2);
        let wait = !rng.one_in(6);
        if actor == 0 {
            return vec![match rng.below(5) {
                _ if moves(options) => O::Write { of: 1, at: SMALL, data: Data { len: 100, seed: 9 } },
                0..=2 => O::Truncate { of: 1, size: at + rng.below(2) * 1000, wait },
                _ => O::Punch { of: 1, at, len: PAGE * (1 + rng.below(2)), wait },
            }];
        }
        let mut first = vec![O::Open { of: 1, open_for: OpenFor::Writing, file: 0 }];
        if rng.one_in(4) {
            let len = 1 + rng.below(2 * PAGE - at);
            first.push(O::Lease { file: 0, at, len, writing: true, lease: 0 });
            first.push(if rng.one_in(2) {
                O::LeaseWrite { lease: 0, seed: 9 }
            } else {
                O::LeaseRead { lease: 0 }
            });
            return first;
        }
        let sharing = if rng.one_in(4) { Sharing::Private } else { Sharing::Shared };
        first.push(O::Map { file: 0, page: 0, pages: 3, sharing, protection: Protection::ReadWrite, map: 0 });
        first.push(O::Load { map: 0, at, len: 100 });
        first
    }

    /// What shows, when all threads are through, whether what an actor has mapped is the file's: what is there, and that
    /// the file has what is stored then.
    pub(in crate::sim) fn opened_last() -> impl Iterator<Item = Operation> {
        (0..2).flat_map(|page| {
            let at = page * PAGE;
            let load = Operation::Load { map: 0, at, len: PAGE as u32 };
            [load, Operation::Store { map: 0, at, data: Data { len: 50, seed: 11 } }]
        })
    }

    /// A file with set-id bits and, at times, an access list.
    pub(super) fn one_file(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.make(SHARED, FileKind::Regular, *rng.pick(&[0o4755, 0o6755, 0o644]), 1);
        self.does(O::Write { of: 1, at: 0, data: Data { len: 1 + rng.below(9000) as u32, seed: 3 } });
        if rng.one_in(2) {
            self.does(O::SetAcl { of: 1, which: AclKind::Access, acl: Some(rng.below(1 << 15) as u16) });
        }
    }

    /// What an actor begins with beside others that change the same file: the first takes rights away, and looks at what
    /// they guard, twice: what the others change may come before or after, and not in between.
    pub(in crate::sim) fn changed_first(actor: Actor, rng: &mut Rng) -> Vec<Operation> {
        use Operation as O;
        let look = match rng.below(3) {
            0 => O::Xattrs { of: 1 },
            1 => O::Acl { of: 1, which: AclKind::Access },
            _ => O::Read { of: 1, at: 0, len: 10_000 },
        };
        match (actor, rng.below(3)) {
            (0, 0) => vec![O::StripSetid { of: 1 }],
            (0, _) => vec![O::SetFlags { of: 1, flags: 0x10 << rng.below(2) }, look],
            _ => Vec::new(),
        }
    }

    pub(super) fn same_names(&mut self, rng: &mut Rng) {
        for name in 0..2 {
            let kind = if rng.one_in(3) { FileKind::Regular } else { FileKind::Directory };
            self.make(name, kind, 0o755, 1 + name);
        }
    }
}

/// Opens and maps so many pages of the file in hand, and looks at the first.
fn look_at(pages: u64) -> [Operation; 3] {
    let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
    [
        Operation::Open { of: 1, open_for: OpenFor::Writing, file: 0 },
        Operation::Map { file: 0, page: 0, pages, sharing, protection, map: 0 },
        Operation::Load { map: 0, at: 0, len: 1 },
    ]
}

/// Whether the file of a run is one that moves as it grows.
fn moves(options: &Options) -> bool {
    options.policy == Policy::Aligned && options.kib << 10 > 2 * SMALL
}
