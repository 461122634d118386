//! Scenes of one actor, or of several that act one after another.

use ext2_core::{AclKind, FileKind, RenameFlags};
use ext2_dax::mmu::{Protection, Sharing};

use super::{PAGE, Script};
use crate::{
    Rng,
    sim::{Data, Operation, Options},
};

impl Script {
    pub(super) fn private_copy(&mut self, rng: &mut Rng) {
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
    pub(super) fn packed_block(&mut self, rng: &mut Rng) {
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

    pub(super) fn closed_under_stores(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.open();
        self.does(O::FileWrite { file: 0, at: 0, data: Data { len: 5000, seed: 3 }, nowait: false });
        self.map(if rng.one_in(3) { Sharing::Shared } else { Sharing::Synchronous }, 0);
        if rng.one_in(3) {
            self.does(O::Store { map: 0, at: 10, data: Data { len: 10, seed: 5 } });
        }
        self.does(O::Close);
    }

    pub(super) fn full_disk(&mut self, rng: &mut Rng) {
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

    pub(super) fn long_lease(&mut self, rng: &mut Rng) {
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

    pub(super) fn synced_lease(&mut self, rng: &mut Rng) {
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

    pub(super) fn replaced(&mut self, rng: &mut Rng) {
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

    pub(super) fn owners(&mut self, rng: &mut Rng) {
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
            if rng.one_in(2) {
                // Then who writes finds nothing to take.
                self.does(O::Chmod { of: 1, mode: *rng.pick(&[0o755, 0o711]) });
            }
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

    pub(super) fn shared_attributes(&mut self, rng: &mut Rng) {
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

    pub(super) fn dead_sharer(&mut self, rng: &mut Rng, options: &Options) {
        use Operation as O;
        if rng.one_in(3) {
            return self.shares_with_the_dead(rng);
        }
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

    /// What a file without a name was given is given to another.
    fn shares_with_the_dead(&mut self, rng: &mut Rng) {
        use Operation as O;
        let value = Data { len: 5, seed: 0 };
        self.make(1, FileKind::Regular, 0o644, 1);
        self.does(O::Unlink { dir: 0, name: 1 });
        self.does(O::SetXattr { of: 1, name: 0, value, how: 0 });
        self.make(2, FileKind::Regular, 0o644, 2);
        self.does(O::SetXattr { of: 2, name: 0, value, how: 0 });
        self.does(O::Kill { mended: rng.one_in(2) });
    }

    pub(super) fn dead_beside_truncation(&mut self, rng: &mut Rng) {
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

    pub(super) fn first_name(&mut self, rng: &mut Rng) {
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

    pub(super) fn transfer(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.open();
        let pages = 2 + rng.below(4);
        let at = rng.below(2 * PAGE);
        let data = |seed| Data { len: (pages * PAGE) as u32, seed };
        if rng.one_in(4) {
            self.does(O::FileTruncate { file: 0, size: at + pages * PAGE, wait: true });
        } else {
            self.does(O::FileWrite { file: 0, at, data: data(3), nowait: false });
        }
        let len = data(0).len;
        self.does(match rng.below(5) {
            0 => O::FileRead { file: 0, at, len, nowait: false },
            1 => O::Read { of: 1, at, len },
            2 => O::Write { of: 1, at, data: data(90) },
            _ => O::FileWrite { file: 0, at, data: data(90), nowait: false },
        });
    }

    pub(super) fn first_use(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.make(1, FileKind::Regular, 0o644, 1);
        self.does(match rng.below(4) {
            0 => O::Write { of: 1, at: 1 << 31, data: Data { len: 1, seed: 3 } },
            _ => O::SetXattr { of: 1, name: 0, value: Data { len: 5, seed: 0 }, how: 0 },
        });
    }

    pub(super) fn mapped_hole(&mut self, rng: &mut Rng) {
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

    pub(super) fn small_batch(&mut self, rng: &mut Rng) {
        use Operation as O;
        self.make(1, FileKind::Regular, 0o644, 1);
        let data = Data { len: (300 + rng.below(150) as u32) << 10, seed: 3 };
        self.does(O::Write { of: 1, at: 0, data });
        self.does(O::SyncAll);
        self.does(O::Truncate { of: 1, size: 0, wait: true });
        self.make(2, FileKind::Regular, 0o644, 2);
        self.does(O::Write { of: 2, at: 0, data });
    }

    pub(super) fn reserved(&mut self, rng: &mut Rng) {
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
