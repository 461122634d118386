//! Choosing the next step.

use ext2_core::{AclKind, FileKind, RenameFlags};
use ext2_dax::{
    OpenFor,
    mmu::{Protection, Sharing},
};

use super::{
    Actor, Data, HANDS, Model, Operation, Options, Scene, Step, Word,
    operation::{FILES, LEASES, LISTINGS, MAPS, Need, WHOLE, name, xattr_name},
    scenes::lost_and_found,
};
use crate::Rng;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// What chooses steps for a run.
#[derive(Clone, Debug)]
pub(super) struct Chooser {
    rng: Rng,
    shares: Vec<(Word, u32)>,
    total: u64,
    actors: Actor,
    names: u8,
    block: u64,
    reach: u64,
    /// Whether little makes the disk full.
    is_small: bool,
    /// Whether inodes share attributes.
    alike: bool,
    /// Whether every second rename exchanges.
    exchanges: bool,
    /// Operations that come first, the next one last.
    first: Vec<Operation>,
    /// The operation that ends a run.
    last: Option<Operation>,
}

impl Chooser {
    /// One that gives the same steps for the same options, if the answers are the same.
    #[must_use]
    pub(super) fn new(options: &Options, part: &str) -> Self {
        let is_first = part == "steps";
        let script =
            options.scene.filter(|_| is_first).map(|scene| scene.script(options)).unwrap_or_default();
        // First what e2fsck needs, where there is to be one.
        let mut first = Vec::new();
        if options.has_lost_and_found && is_first {
            first.extend(lost_and_found());
        }
        first.extend(script.first);
        first.reverse();
        Self {
            rng: Rng::named(options.seed, part),
            shares: options.shares.clone(),
            total: options.shares.iter().map(|(_, share)| u64::from(*share)).sum(),
            actors: options.actors,
            names: options.names,
            block: options.block,
            reach: options.reach,
            is_small: options.kib <= 128,
            alike: options.share_xattrs,
            exchanges: options.scene == Some(Scene::SameNames),
            first,
            last: script.last,
        }
    }

    /// Steps that are not left to chance.
    pub(super) fn known(&self) -> u32 {
        // OK to cast: a scene has a dozen.
        (self.first.len() + usize::from(self.last.is_some())) as u32
    }

    /// The next step.
    pub(super) fn next(&mut self, model: &Model) -> Step {
        if let Some(operation) = self.first.pop() {
            return Step { actor: 0, operation };
        }
        let actor = self.rng.below(self.actors.into()) as Actor;
        self.next_of(actor, model)
    }

    /// The step that a run ends with, where that is known when it begins.
    pub(super) fn last(&mut self) -> Option<Step> {
        self.last.take().map(|operation| Step { actor: 0, operation })
    }

    /// The next step of an actor.
    pub(super) fn next_of(&mut self, actor: Actor, model: &Model) -> Step {
        let is_empty = (0..HANDS).all(|hand| model.kind_in(actor, hand).is_none());
        let operation = if is_empty { Operation::Root { to: 0 } } else { self.prepared(actor, model) };
        Step { actor, operation }
    }

    /// An operation, or most of the time where it has nothing to be done with one that gets it.
    fn prepared(&mut self, actor: Actor, model: &Model) -> Operation {
        let mut word = self.word();
        if model.is_full() && self.rng.one_in(4) {
            // What needs no room.
            word = *self.rng.pick(&[Word::RemoveXattr, Word::Chmod, Word::Rename, Word::Unlink]);
        }
        let held = model.held(actor);
        let regular = (0..HANDS).any(|hand| model.kind_in(actor, hand) == Some(FileKind::Regular));
        // What needs something needs what that needs.
        for _ in 0..3 {
            let missing = match word.needs() {
                Need::Nothing => None,
                Need::Regular => (!regular).then_some(Word::Create),
                Need::File => held.files.iter().all(Option::is_none).then_some(Word::Open),
                Need::Map => held.maps.iter().all(Option::is_none).then_some(Word::Map),
                Need::Lease => held.leases.iter().all(Option::is_none).then_some(Word::Lease),
                Need::Listing => held.listings.iter().all(Option::is_none).then_some(Word::BeginListing),
            };
            match missing {
                Some(other) if !self.rng.one_in(10) => word = other,
                _ => break,
            }
        }
        self.operation(word, actor, model)
    }

    fn word(&mut self) -> Word {
        let mut at = self.rng.below(self.total);
        for (word, share) in &self.shares {
            match at.checked_sub(u64::from(*share)) {
                Some(rest) => at = rest,
                None => return *word,
            }
        }
        Word::Root
    }

    fn slot(&mut self, count: u8) -> u8 {
        self.rng.below(count.into()) as u8
    }

    /// A hand, of the kind that is asked for where there is one, and sometimes of another.
    fn hand(&mut self, actor: Actor, model: &Model, kind: Option<FileKind>) -> u8 {
        let fits = |hand: &u8| {
            let there = model.kind_in(actor, *hand);
            there.is_some() && (kind.is_none() || there == kind)
        };
        let hands: Vec<u8> = (0..HANDS).filter(fits).collect();
        if hands.is_empty() || self.rng.one_in(40) { self.slot(HANDS) } else { *self.rng.pick(&hands) }
    }

    fn name(&mut self) -> u8 {
        self.slot(self.names)
    }

    /// A name, of those that a directory has in most cases.
    fn name_in(&mut self, dir: u8, actor: Actor, model: &Model) -> u8 {
        let there: Vec<u8> = (0..self.names).filter(|nr| model.has_name(actor, dir, &name(*nr))).collect();
        if there.is_empty() || self.rng.one_in(3) { self.name() } else { *self.rng.pick(&there) }
    }

    /// A hand to take something in; what holds the root is kept most of the time.
    fn to(&mut self) -> u8 {
        if self.rng.one_in(30) { 0 } else { 1 + self.slot(HANDS - 1) }
    }

    /// An offset: near the beginning, near an edge of the block map, or far away.
    fn offset(&mut self) -> u64 {
        let pointers = self.block / 4;
        let edges = [12, 12 + pointers, 12 + 2 * pointers, 12 + pointers + pointers * pointers];
        let at = match self.rng.below(12) {
            0..=7 => self.rng.below(self.reach),
            8 | 9 => self.rng.pick(&edges[..2]) * self.block - 3000 + self.rng.below(6000),
            10 => self.rng.pick(&edges) * self.block - 3000 + self.rng.below(6000),
            _ => (2 << 20) - 5000 + self.rng.below(10_000),
        };
        if self.rng.one_in(3) { at / self.block * self.block } else { at }
    }

    fn len(&mut self) -> u32 {
        match self.rng.below(10) {
            0..=3 => self.rng.below(100) as u32,
            4..=7 => self.rng.below(9000) as u32,
            8 => self.rng.below(60_000) as u32,
            _ => (self.rng.below(4) * self.block) as u32,
        }
    }

    fn long(&mut self) -> u64 {
        match self.rng.below(6) {
            0 => self.rng.below(4 << 20),
            1 => (1 + self.rng.below(4)) * self.block,
            2 => u64::MAX / 2,
            _ => self.rng.below(20_000),
        }
    }

    fn data(&mut self) -> Data {
        Data { len: self.len(), seed: self.rng.below(256) as u8 }
    }

    fn mode(&mut self) -> u16 {
        if self.rng.one_in(3) {
            self.rng.below(0o10000) as u16
        } else {
            *self.rng.pick(&[0o644, 0o755, 0o600, 0o6755, 0o4711])
        }
    }

    /// An open file of the actor.
    fn file(&mut self) -> u8 {
        self.slot(FILES)
    }

    /// A slot of those that are in use, in most cases.
    fn used<T>(&mut self, slots: &[Option<T>]) -> u8 {
        let used: Vec<u8> =
            (0..slots.len() as u8).filter(|slot| slots[usize::from(*slot)].is_some()).collect();
        if used.is_empty() || self.rng.one_in(20) {
            self.slot(slots.len() as u8)
        } else {
            *self.rng.pick(&used)
        }
    }

    /// A page of a file: near the beginning, or in the second 2 MiB.
    fn page(&mut self) -> u64 {
        if self.rng.one_in(6) { *self.rng.pick(&[510, 511, 512, 1030]) } else { self.rng.below(8) }
    }

    fn time(&mut self) -> Option<i64> {
        let far = [i64::MIN, i64::from(i32::MIN) - 1, -1, 1 << 31, 1 << 33, 1 << 34, i64::MAX];
        if self.rng.one_in(6) {
            return Some(*self.rng.pick(&far));
        }
        *self.rng.pick(&[None, Some(0), Some(1), Some(1_600_000_000), Some(i64::from(i32::MAX))])
    }

    fn operation(&mut self, word: Word, actor: Actor, model: &Model) -> Operation {
        use Operation as O;
        let dir = |own: &mut Self| own.hand(actor, model, Some(FileKind::Directory));
        match word {
            Word::Root => O::Root { to: self.to() },
            Word::Lookup => {
                let dir = dir(self);
                O::Lookup { dir, name: self.name_in(dir, actor, model), to: self.to() }
            }
            Word::LookupNr => O::LookupNr { dir: dir(self), name: self.name() },
            Word::ByNumber => O::ByNumber { of: self.hand(actor, model, None), to: self.to() },
            Word::Resolve => {
                let path = [self.path_name(), self.path_name()];
                O::Resolve { path, follow: self.rng.one_in(2), to: self.to() }
            }
            Word::ResolveParent => {
                O::ResolveParent { path: [self.path_name(), self.path_name()], to: self.to() }
            }
            Word::Create => {
                let kind = match self.rng.below(12) {
                    0..=5 => FileKind::Regular,
                    6..=9 => FileKind::Directory,
                    10 => FileKind::Fifo,
                    _ => *self.rng.pick(&[FileKind::Socket, FileKind::CharDevice, FileKind::BlockDevice]),
                };
                let umask = *self.rng.pick(&[0o022, 0, 0o077]);
                O::Create { dir: dir(self), name: self.name(), kind, mode: self.mode(), umask, to: self.to() }
            }
            Word::Symlink => {
                let len = if self.rng.one_in(2) { 0 } else { 1 + self.rng.below(1100) as u16 };
                O::Symlink { dir: dir(self), name: self.name(), target: self.slot(12), len, to: self.to() }
            }
            Word::Tmpfile => O::Tmpfile { dir: dir(self), mode: self.mode(), to: self.to() },
            Word::Link => O::Link { of: self.hand(actor, model, None), dir: dir(self), name: self.name() },
            Word::Unlink => {
                let dir = dir(self);
                O::Unlink { dir, name: self.name_in(dir, actor, model) }
            }
            Word::Rmdir => {
                let dir = dir(self);
                O::Rmdir { dir, name: self.name_in(dir, actor, model) }
            }
            Word::Rename => {
                let flags = match self.rng.below(8) {
                    _ if self.exchanges && self.rng.one_in(2) => RenameFlags::EXCHANGE,
                    0 => RenameFlags::NOREPLACE,
                    1 | 2 => RenameFlags::EXCHANGE,
                    3 if self.rng.one_in(4) => RenameFlags::all(),
                    _ => RenameFlags::empty(),
                };
                let from = dir(self);
                let to = if self.rng.one_in(2) { from } else { dir(self) };
                let name = self.name_in(from, actor, model);
                let to_name = if self.rng.one_in(2) { self.name_in(to, actor, model) } else { self.name() };
                O::Rename { dir: from, name, to_dir: to, to_name, flags }
            }
            Word::ReadLink => O::ReadLink { of: self.hand(actor, model, Some(FileKind::Symlink)) },
            Word::BeginListing => O::BeginListing { dir: dir(self), listing: self.slot(LISTINGS) },
            Word::List => {
                O::List { listing: self.used(&model.held(actor).listings), count: 1 + self.slot(6) }
            }
            Word::LetGo => O::LetGo { of: self.hand(actor, model, None) },
            Word::Stat => O::Stat { of: self.hand(actor, model, None) },
            Word::StatFs => O::StatFs,
            Word::Walk => O::Walk { of: dir(self) },
            Word::RemoveAll => O::RemoveAll { name: self.path_name() },
            Word::Trim => O::Trim { least: *self.rng.pick(&[0, 1, 2, 9, 100]) },
            Word::Chmod => O::Chmod { of: self.hand(actor, model, None), mode: self.mode() },
            Word::Chown => {
                let id = |own: &mut Self| {
                    *own.rng.pick(&[None, Some(0), Some(1000), Some(0xffff), Some(0x1_0000)])
                };
                let (uid, gid) = (id(self), id(self));
                let mode = self.rng.one_in(2).then(|| self.mode());
                O::Chown { of: self.hand(actor, model, None), uid, gid, mode }
            }
            Word::SetTimes => {
                O::SetTimes { of: self.hand(actor, model, None), atime: self.time(), mtime: self.time() }
            }
            Word::Touch => O::Touch { of: self.hand(actor, model, None) },
            Word::TouchModified => O::TouchModified { of: self.hand(actor, model, None) },
            Word::TouchAccessed => O::TouchAccessed { of: self.hand(actor, model, None) },
            Word::StripSetid => O::StripSetid { of: self.hand(actor, model, None) },
            Word::SetFlags => {
                let flags = *self.rng.pick(&[0, 0, 0x10, 0x20, 0x80, 0x40, 0x8, 0x1_0000, !0x30]);
                O::SetFlags { of: self.hand(actor, model, None), flags }
            }
            Word::SetXattr => {
                let len = *self.rng.pick(&[0, 5, 100, 300, 900, 3000]) as u32;
                // Where inodes may share them, few that differ.
                let (len, seeds, names) = if self.alike { (len % 7, 1, 2) } else { (len, 8, 7) };
                let value = Data { len, seed: self.slot(seeds) };
                O::SetXattr {
                    of: self.hand(actor, model, None),
                    name: self.slot(names),
                    value,
                    how: self.slot(3),
                }
            }
            Word::RemoveXattr => {
                let of = self.hand(actor, model, None);
                let there: Vec<u8> =
                    (0..7).filter(|nr| model.has_xattr(actor, of, xattr_name(*nr))).collect();
                let name = if there.is_empty() { self.slot(7) } else { *self.rng.pick(&there) };
                O::RemoveXattr { of, name }
            }
            Word::GetXattr => O::GetXattr { of: self.hand(actor, model, None), name: self.slot(7) },
            Word::ListXattrs => O::ListXattrs { of: self.hand(actor, model, None) },
            Word::Xattrs => O::Xattrs { of: self.hand(actor, model, None) },
            Word::SetAcl => {
                let acl = if self.rng.one_in(3) { None } else { Some(self.rng.below(1 << 16) as u16) };
                O::SetAcl { of: self.hand(actor, model, None), which: self.acl_kind(), acl }
            }
            Word::Acl => O::Acl { of: self.hand(actor, model, None), which: self.acl_kind() },
            _ => self.contents(word, actor, model),
        }
    }

    /// A name that is one: paths are split where they should be.
    fn path_name(&mut self) -> u8 {
        let name = self.slot(self.names.min(20));
        if self.rng.one_in(12) { 23 + self.slot(2) } else { name }
    }

    fn acl_kind(&mut self) -> AclKind {
        *self.rng.pick(&[AclKind::Access, AclKind::Default])
    }

    fn contents(&mut self, word: Word, actor: Actor, model: &Model) -> Operation {
        use Operation as O;
        let of = |own: &mut Self| own.hand(actor, model, Some(FileKind::Regular));
        match word {
            Word::Read => O::Read { of: of(self), at: self.offset(), len: self.len() },
            Word::ReadPieces => O::ReadPieces { of: of(self), at: self.offset(), len: self.len() },
            Word::Write => {
                let mut data = self.data();
                if self.is_small && self.rng.one_in(10) {
                    // So that it is full at times.
                    data.len = 60_000;
                }
                O::Write { of: of(self), at: self.offset(), data }
            }
            Word::Truncate => O::Truncate { of: of(self), size: self.offset(), wait: self.rng.one_in(2) },
            Word::Punch => {
                O::Punch { of: of(self), at: self.offset(), len: self.long(), wait: self.rng.one_in(2) }
            }
            Word::Zero => O::Zero { of: of(self), at: self.offset(), len: self.long() },
            Word::Fallocate => {
                let mode = *self.rng.pick(&[0, 1, 3, 0x11, 0x10, 8]);
                O::Fallocate { of: of(self), mode, at: self.offset(), len: self.long() }
            }
            Word::SeekData => O::SeekData { of: of(self), at: self.offset() },
            Word::SeekHole => O::SeekHole { of: of(self), at: self.offset() },
            Word::Extents => O::Extents { of: of(self) },
            Word::MapBlocks => O::MapBlocks { of: of(self), at: self.offset(), len: self.long() },
            Word::GiveUpWrite => {
                O::GiveUpWrite { of: of(self), at: self.offset(), len: u64::from(self.len()) }
            }
            Word::Sync => O::Sync { of: self.hand(actor, model, None) },
            Word::SyncAll => O::SyncAll,
            Word::Exit => O::Exit,
            Word::Close => O::Close,
            Word::Kill => O::Kill { mended: self.rng.one_in(2) },
            Word::Remount => O::Remount { read_only: self.rng.one_in(4) && !model.is_read_only() },
            Word::Open => {
                let open_for = *self.rng.pick(&[
                    OpenFor::Writing,
                    OpenFor::Writing,
                    OpenFor::Writing,
                    OpenFor::Appending,
                    OpenFor::Reading,
                ]);
                O::Open { of: of(self), open_for, file: self.file() }
            }
            Word::CloseFile => O::CloseFile { file: self.file() },
            Word::FileRead => O::FileRead {
                file: self.used(&model.held(actor).files),
                at: self.offset(),
                len: if self.rng.one_in(12) { WHOLE } else { self.len() },
                nowait: self.rng.one_in(4),
            },
            Word::FileWrite => O::FileWrite {
                file: self.used(&model.held(actor).files),
                at: self.offset(),
                data: self.data(),
                nowait: self.rng.one_in(4),
            },
            Word::FileTruncate => O::FileTruncate {
                file: self.used(&model.held(actor).files),
                size: self.offset(),
                wait: self.rng.one_in(2),
            },
            Word::FilePunch => O::FilePunch {
                file: self.used(&model.held(actor).files),
                at: self.offset(),
                len: self.long(),
                wait: self.rng.one_in(2),
            },
            Word::FileZero => {
                O::FileZero { file: self.used(&model.held(actor).files), at: self.offset(), len: self.long() }
            }
            Word::FileSeekData => {
                O::FileSeekData { file: self.used(&model.held(actor).files), at: self.offset() }
            }
            Word::FileSeekHole => {
                O::FileSeekHole { file: self.used(&model.held(actor).files), at: self.offset() }
            }
            Word::FileExtents => O::FileExtents { file: self.used(&model.held(actor).files) },
            Word::FileSync => O::FileSync { file: self.used(&model.held(actor).files) },
            Word::Lease => O::Lease {
                file: self.used(&model.held(actor).files),
                at: self.offset(),
                len: if self.rng.one_in(12) { u64::MAX } else { u64::from(self.len()) },
                writing: self.rng.one_in(2),
                lease: self.slot(LEASES),
            },
            Word::LeaseRead => O::LeaseRead { lease: self.used(&model.held(actor).leases) },
            Word::LeaseWrite => {
                O::LeaseWrite { lease: self.used(&model.held(actor).leases), seed: self.rng.below(256) as u8 }
            }
            Word::LeaseSync => O::LeaseSync { lease: self.used(&model.held(actor).leases) },
            Word::EndLease => O::EndLease { lease: self.slot(LEASES) },
            Word::Map => {
                let sharing = *self.rng.pick(&[
                    Sharing::Shared,
                    Sharing::Shared,
                    Sharing::Shared,
                    Sharing::Private,
                    Sharing::Private,
                    Sharing::Synchronous,
                ]);
                let protection = *self.rng.pick(&[
                    Protection::ReadWrite,
                    Protection::ReadWrite,
                    Protection::ReadWrite,
                    Protection::ReadOnly,
                ]);
                let (page, pages) = (self.page(), *self.rng.pick(&[1, 4, 20, 520, 1100]));
                let page = if self.rng.one_in(2) { 0 } else { page };
                O::Map {
                    file: self.used(&model.held(actor).files),
                    page,
                    pages,
                    sharing,
                    protection,
                    map: self.slot(MAPS),
                }
            }
            Word::Load => {
                let (map, at) = self.in_map(actor, model);
                O::Load { map, at, len: self.len() }
            }
            Word::Store => {
                let (map, at) = self.in_map(actor, model);
                O::Store { map, at, data: self.data() }
            }
            Word::Msync => O::Msync {
                map: self.used(&model.held(actor).maps),
                page: self.page(),
                pages: self.rng.below(10),
            },
            Word::Unmap => O::Unmap { map: self.slot(MAPS) },
            other => unreachable!("{other:?} is chosen elsewhere"),
        }
    }

    /// A mapping and a place in it: in most cases inside the file.
    fn in_map(&mut self, actor: Actor, model: &Model) -> (u8, u64) {
        let held = model.held(actor);
        let maps: Vec<u8> = (0..MAPS).filter(|map| held.maps[usize::from(*map)].is_some()).collect();
        if maps.is_empty() {
            return (self.slot(MAPS), self.offset());
        }
        let map = *self.rng.pick(&maps);
        let mapping = held.maps[usize::from(map)].as_ref().expect("just found");
        let size = model.node(mapping.id).size().clamp(1, mapping.len());
        let copied = mapping.copied();
        let at = match self.rng.below(6) {
            0 => self.rng.below(mapping.len() + PAGE),
            1 | 2 if !copied.is_empty() => self.rng.pick(&copied) * PAGE + self.rng.below(PAGE),
            _ => self.rng.below(size),
        };
        (map, at)
    }
}
