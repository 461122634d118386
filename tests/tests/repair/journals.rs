//! Journals in every format of jbd2, replayed beside e2fsck: written here byte by byte, by debugfs, and by the kernel.

use std::{fs, ops::ControlFlow, path::Path};

use blockdev::crash::{BlockModel, CrashLimits, CrashState, FenceMeans};
use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice, Recorder};
use e2dax_tests::{Scratch, golden, mount, need_mount, need_tools, tools};
use ext2_image::check::{Checker, Options};
use ext2_image::jbd2;
use ext2_image::repair::{Changes, repair};

use crate::bench::{Bench, bytes_of, options, repair_all};
use crate::crashes::Killed;
use crate::kinds::{base, debugfs};

pub(crate) const BLOCK: usize = 1024;
/// `JBD2_MAGIC_NUMBER`.
const MAGIC: u32 = 0xc03b_3998;
/// `s_incompat` of a journal: revocations, 64 bits, checksums of version 2 and 3.
const REVOKE: u32 = 1;
const LARGE: u32 = 2;
const SUMS_2: u32 = 8;
const SUMS_3: u32 = 16;

/// CRC-32C, bit by bit and without the inversion at its end, as jbd2 has it.
fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| sum >> 1 ^ if sum & 1 != 0 { 0x82f6_3b78 } else { 0 })
    })
}

/// CRC-32 from the highest bit down, of version 1.
fn crc32_be(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte) << 24, |sum, _| {
            sum << 1 ^ if sum >> 31 != 0 { 0x04c1_1db7 } else { 0 }
        })
    })
}

/// A format of a journal.
#[derive(Clone, Copy, Debug)]
struct Format {
    /// 0 for none.
    sums: u32,
    large: bool,
}

/// A journal that is being written into an image.
struct Writer<'i> {
    image: &'i mut [u8],
    /// The blocks of the journal.
    map: Vec<usize>,
    format: Format,
    seed: u32,
    next: usize,
    sequence: u32,
    /// The checksum of the transaction, of version 1.
    sum: u32,
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// The blocks of the journal's file as debugfs tells them: `(0-11):103-114, (IND):115, …`.
pub(crate) fn journal_map(path: &Path) -> Vec<usize> {
    let said = String::from_utf8(tools::debugfs(path, "stat <8>").unwrap()).unwrap();
    let (_, list) = said.split_once("BLOCKS:\n").expect("debugfs lists the blocks");
    let list = list.lines().next().unwrap();
    let mut map = Vec::new();
    for run in list.split(", ").filter(|run| !run.contains("IND")) {
        let (_, blocks) = run.split_once("):").unwrap();
        let mut ends = blocks.split('-').map(|nr| nr.trim().parse::<usize>().unwrap());
        let first = ends.next().unwrap();
        map.extend(first..=ends.next().unwrap_or(first));
    }
    map
}

impl<'i> Writer<'i> {
    /// An empty journal of a format, in place of the one that is there.
    fn new(image: &'i mut [u8], map: Vec<usize>, format: Format) -> Self {
        let at = map[0] * BLOCK;
        let uuid: Vec<u8> = (0..16).map(|nr| 0xa0 + nr).collect();
        let seed = crc32c(!0, &uuid);
        let head = &mut image[at..at + BLOCK];
        head.fill(0);
        let incompat = REVOKE
            | if format.large { LARGE } else { 0 }
            | match format.sums {
                2 => SUMS_2,
                3 => SUMS_3,
                _ => 0,
            };
        let sequence = 77;
        // Kind 4 is a superblock of version 2. The log begins at block 1.
        for (word, value) in [MAGIC, 4, 0, BLOCK as u32, map.len() as u32, 1, sequence, 1].iter().enumerate()
        {
            put(head, word * 4, *value);
        }
        put(head, 36, u32::from(format.sums == 1));
        put(head, 40, incompat);
        head[48..64].copy_from_slice(&uuid);
        put(head, 64, 1);
        if format.sums >= 2 {
            // CRC-32C.
            head[80] = 4;
            let sum = crc32c(!0, head);
            put(head, 252, sum);
        }
        Self { image, map, format, seed, next: 1, sequence, sum: !0 }
    }

    fn header(&self, kind: u32) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        put(&mut block, 0, MAGIC);
        put(&mut block, 4, kind);
        put(&mut block, 8, self.sequence);
        block
    }

    fn append(&mut self, block: &[u8]) -> usize {
        let at = self.map[self.next] * BLOCK;
        self.image[at..at + BLOCK].copy_from_slice(block);
        self.next += 1;
        at
    }

    /// The checksum in the last four bytes of a descriptor or revocation.
    fn end(&self, block: &mut [u8]) {
        if self.format.sums >= 2 {
            let sum = crc32c(self.seed, block);
            put(block, BLOCK - 4, sum);
        }
    }

    /// A descriptor and the copies that it names.
    fn copies(&mut self, copies: &[(u32, Vec<u8>)]) {
        let mut descriptor = self.header(1);
        let mut at = 12;
        let mut blocks = Vec::new();
        for (nr, (to, bytes)) in copies.iter().enumerate() {
            let mut bytes = bytes.clone();
            // Escaped, UUID as before, last.
            let escaped = bytes[..4] == MAGIC.to_be_bytes();
            let flags =
                u32::from(escaped) | if nr > 0 { 2 } else { 0 } | if nr + 1 == copies.len() { 8 } else { 0 };
            if escaped {
                bytes[..4].fill(0);
            }
            let sum = crc32c(crc32c(self.seed, &self.sequence.to_be_bytes()), &bytes);
            put(&mut descriptor, at, *to);
            if self.format.sums == 3 {
                put(&mut descriptor, at + 4, flags);
                put(&mut descriptor, at + 12, sum);
                at += 16;
            } else {
                let half = if self.format.sums == 2 { sum & 0xffff } else { 0 };
                put(&mut descriptor, at + 4, half << 16 | flags);
                at += 8 + if self.format.large { 4 } else { 0 } + if self.format.sums == 2 { 2 } else { 0 };
            }
            if nr == 0 {
                at += 16;
            }
            blocks.push(bytes);
        }
        self.end(&mut descriptor);
        self.sum = crc32_be(self.sum, &descriptor);
        self.append(&descriptor);
        for bytes in blocks {
            self.sum = crc32_be(self.sum, &bytes);
            self.append(&bytes);
        }
    }

    fn revoke(&mut self, blocks: &[u32]) {
        let mut block = self.header(5);
        let mut at = 16;
        for &revoked in blocks {
            at += if self.format.large { 4 } else { 0 };
            put(&mut block, at, revoked);
            at += 4;
        }
        put(&mut block, 12, at as u32);
        self.end(&mut block);
        self.append(&block);
    }

    /// Ends a transaction; gives where its commit lies.
    fn commit(&mut self) -> usize {
        let mut block = self.header(2);
        if self.format.sums == 1 {
            // CRC-32, of four bytes.
            (block[12], block[13]) = (1, 4);
            put(&mut block, 16, self.sum);
        }
        put(&mut block, 52, 1_700_000_000);
        if self.format.sums >= 2 {
            let sum = crc32c(self.seed, &block);
            put(&mut block, 16, sum);
        }
        (self.sequence, self.sum) = (self.sequence + 1, !0);
        self.append(&block)
    }
}

/// Compares what we make of a journal with what e2fsck does; gives ours.
fn compare(bench: &Bench, name: &str, bytes: Vec<u8>) -> jbd2::Replay {
    let path = bench.path("theirs.img");
    fs::write(&path, &bytes).unwrap();
    let _ = tools::command("e2fsck").args(["-y", "-E", "journal_only"]).arg(&path).output().unwrap();
    let theirs = fs::read(&path).unwrap();
    let device = Scratch::new(bytes);
    assert!(jbd2::needs_replay(&device).unwrap(), "{name}");
    let done = jbd2::replay(&device).unwrap_or_else(|error| panic!("{name}: {error}")).unwrap();
    let ours = bytes_of(&device);
    // The superblock and its backups have times of e2fsck; the journal's own superblock the number that is next.
    let differ: Vec<usize> = (0..ours.len() / BLOCK)
        .filter(|block| ours[block * BLOCK..][..BLOCK] != theirs[block * BLOCK..][..BLOCK])
        .filter(|block| {
            let block = &ours[block * BLOCK..][..BLOCK];
            block[56..58] != [0x53, 0xef] && block[..4] != MAGIC.to_be_bytes()
        })
        .collect();
    assert!(differ.is_empty(), "{name}: blocks {differ:?} differ, {done:?}");
    assert!(!jbd2::needs_replay(&device).unwrap(), "{name}");
    assert_eq!(jbd2::replay(&device).unwrap(), None, "{name}: a second time");
    let report = repair_all(&device).unwrap();
    assert!(report.clean, "{name}: {report:?}");
    fs::write(&path, bytes_of(&device)).unwrap();
    tools::e2fsck_fn(&path).unwrap_or_else(|said| panic!("{name}: {said}"));
    done
}

/// What is wrong with the last transaction of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Nothing,
    /// A byte of a copy.
    Copy,
    /// A byte of the commit.
    Commit,
}

/// Writes three transactions: copies one of which is escaped; a revocation; and one more, which may be broken.
fn journal_of(image: &mut [u8], map: Vec<usize>, format: Format, wrong: Break) {
    let filled = |byte: u8| vec![byte; BLOCK];
    let mut escaped = filled(0x5a);
    escaped[..4].copy_from_slice(&MAGIC.to_be_bytes());
    let mut journal = Writer::new(image, map, format);
    journal.copies(&[(9000, escaped), (9001, filled(1)), (9002, filled(2))]);
    journal.commit();
    journal.revoke(&[9001]);
    journal.copies(&[(9002, filled(3)), (9003, filled(4))]);
    journal.commit();
    // Behind the descriptor in the journal, though not on the device: an indirect block lies between.
    let at = journal.map[journal.next + 1] * BLOCK;
    journal.copies(&[(9003, filled(5))]);
    let commit = journal.commit();
    match wrong {
        Break::Nothing => {}
        Break::Copy => image[at + 100] ^= 0x40,
        Break::Commit => image[commit + 600] ^= 0x40,
    }
    // `needs_recovery`.
    image[1024 + 96] |= 4;
}

#[test]
fn journals_of_every_format_are_replayed_as_e2fsck_replays_them() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &["-t", "ext3"]);
    let (image, map) = (fs::read(&path).unwrap(), journal_map(&path));
    assert!((1024..5000).contains(&map.len()), "{}", map.len());
    for (sums, large) in [0, 1, 2, 3].into_iter().flat_map(|sums| [(sums, false), (sums, true)]) {
        for wrong in [Break::Nothing, Break::Copy, Break::Commit] {
            // Without checksums nobody sees it.
            if sums == 0 && wrong != Break::Nothing || sums == 1 && wrong == Break::Commit {
                continue;
            }
            let mut bytes = image.clone();
            let format = Format { sums, large };
            journal_of(&mut bytes, map.clone(), format, wrong);
            let done = compare(&bench, &format!("{format:?} {wrong:?}"), bytes);
            let is_whole = wrong == Break::Nothing;
            assert_eq!(done.broken.is_none(), is_whole, "{format:?} {wrong:?}: {done:?}");
            assert_eq!(done.blocks, if is_whole { 5 } else { 4 }, "{format:?} {wrong:?}: {done:?}");
            assert_eq!(done.revoked, 1, "{format:?} {wrong:?}");
        }
    }
}

/// Has a log of ours begun and ended in the image, whose journal says so from then on.
fn used_by_us(bytes: &[u8]) -> Vec<u8> {
    let device = std::sync::Arc::new(Scratch::new(bytes.to_vec()));
    let options = ext2_core::OpenOptions { log: true, ..ext2_core::OpenOptions::default() };
    let fs = ext2_core::Ext2::open(device.clone(), &options).unwrap();
    assert!(fs.has_log());
    fs.close().unwrap();
    bytes_of(&device)
}

#[test]
fn what_a_kernel_leaves_in_a_journal_after_us_is_no_log_of_ours() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &["-t", "ext3"]);
    let map = journal_map(&path);
    let image = used_by_us(&fs::read(&path).unwrap());
    let head = map[0] * BLOCK;
    let mark = &image[head + 0x80..][..16];
    assert!(mark.starts_with(b"e2daxlog"));
    // A kernel stores its own numbers into the journal's superblock, and leaves the rest of it.
    let mut bytes = image.clone();
    journal_of(&mut bytes, map.clone(), Format { sums: 0, large: false }, Break::Nothing);
    bytes[head + 0x80..][..16].copy_from_slice(mark);
    let device = Scratch::new(bytes.clone());
    ext2_core::replay(&device).unwrap();
    assert!(bytes_of(&device) == bytes, "revocations are not for a replay that knows none");
    let done = compare(&bench, "after a log of ours", bytes);
    assert_eq!((done.transactions, done.blocks, done.revoked), (3, 5, 1));
}

/// What the transactions of [`journal_of`] lead to, in block 9000 and those behind it.
pub(crate) fn replayed(device: &Scratch) -> Vec<u8> {
    jbd2::replay(device).unwrap();
    bytes_of(device)[9000 * BLOCK..9004 * BLOCK].to_vec()
}

#[test]
fn a_replay_whose_power_fails_before_it_is_stored_is_done_again() {
    need_tools!("mke2fs", "debugfs");
    let bench = Bench::new();
    let path = base(&bench, &["-t", "ext3"]);
    let (mut bytes, map) = (fs::read(&path).unwrap(), journal_map(&path));
    journal_of(&mut bytes, map, Format { sums: 0, large: false }, Break::Nothing);
    let wanted = replayed(&Scratch::new(bytes.clone()));
    // As the command does it: all of it is known before any of it is stored, alone or together with what is mended.
    let store = |device: &dyn BlockDevice, mends: bool| {
        let changes = Changes::new(device);
        jbd2::replay(&changes).unwrap();
        if mends {
            repair(&changes, &options(), &mut |_| true).unwrap();
        }
        changes.apply().map(drop)
    };
    for mends in [false, true] {
        for kill in 0.. {
            let device = Killed { inner: Scratch::new(bytes.clone()), left: kill.into() };
            let done = store(&device, mends);
            assert!(replayed(&device.inner) == wanted, "{mends}: killed after {kill}");
            if done.is_ok() {
                assert!(kill > 3, "{kill}");
                break;
            }
        }
        let recorder = Recorder::new(RamDevice::from_bytes(&bytes).unwrap());
        store(&recorder, mends).unwrap();
        let log = recorder.snapshot();
        let mut model = BlockModel::new(&bytes, &log).fences(FenceMeans::Durable);
        model.limits = CrashLimits { exhaustive: 3, edges: 3, pairs: 0, samples: 3, seed: 1 };
        let mut states = 0;
        model.run(|state: &CrashState<'_>| {
            states += 1;
            assert!(replayed(&Scratch::new(state.image.to_vec())) == wanted, "{mends}: before {}", state.op);
            ControlFlow::Continue(())
        });
        assert!(states > 5, "{states}");
    }
}

/// An image with a full journal, and where the journal's superblock lies.
pub(crate) fn full(bench: &Bench) -> (Vec<u8>, usize) {
    let path = base(bench, &["-t", "ext3"]);
    let (mut bytes, map) = (fs::read(&path).unwrap(), journal_map(&path));
    let head = map[0] * BLOCK;
    journal_of(&mut bytes, map, Format { sums: 0, large: false }, Break::Nothing);
    (bytes, head)
}

#[test]
fn a_journal_that_cannot_be_read_now_is_not_given_up() {
    need_tools!("mke2fs", "debugfs");
    let (bytes, _) = full(&Bench::new());
    let wanted = replayed(&Scratch::new(bytes.clone()));
    let mut failed = 0;
    for nr in 0..60 {
        let device = Faulty::new(Scratch::new(bytes.clone()));
        device.arm(Fault::once(Calls::READ, nr));
        let is_repaired = repair_all(&device).is_ok();
        device.disarm();
        let after = bytes_of(device.inner());
        if is_repaired {
            assert!(after[9000 * BLOCK..9004 * BLOCK] == wanted, "read {nr} failed");
        } else {
            assert!(after == bytes, "read {nr} failed: something was stored");
            failed += 1;
        }
    }
    assert!(failed > 5, "{failed}");
}

#[test]
fn a_journal_with_features_that_are_not_known_is_refused_and_kept() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let (whole, head) = full(&bench);
    let mut empty = whole.clone();
    // Where the log begins, and the mark.
    put(&mut empty[head..], 28, 0);
    empty[1024 + 96] &= !4;
    let path = bench.path("journal.img");
    // Features, as `s_feature_incompat` and `s_feature_ro_compat` have them, and what e2fsck knows of them.
    for (at, feature, is_known) in [(40, 0x40, false), (44, 1, false), (40, 0x20, true)] {
        for bytes in [&whole, &empty] {
            let mut bytes = bytes.clone();
            put(&mut bytes[head..], at, feature);
            fs::write(&path, &bytes).unwrap();
            let device = Scratch::new(bytes.clone());
            if is_known && bytes[1024 + 96] & 4 == 0 {
                assert_eq!(repair_all(&device).unwrap().mended, 0);
                continue;
            }
            let error = repair_all(&device).unwrap_err();
            assert!(error.contains("of the journal"), "{error}");
            assert!(Checker::new().check(&device, &Options::default(), &mut |_| {}).is_err());
            assert!(bytes_of(&device) == bytes, "{at} {feature:#x}: something was stored");
            assert!(tools::e2fsck_fn(&path).is_err(), "{at} {feature:#x}");
        }
    }
}

#[test]
fn what_a_journal_holds_is_brought_back_where_the_superblock_or_its_feature_was_lost() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let (bytes, _) = full(&bench);
    let wanted = replayed(&Scratch::new(bytes.clone()));
    let lost = |lose: &dyn Fn(&mut [u8])| {
        let mut bytes = bytes.clone();
        lose(&mut bytes);
        let device = Scratch::new(bytes);
        let report = repair_all(&device).unwrap();
        assert!(report.clean, "{report:?}");
        let after = bytes_of(&device);
        fs::write(bench.path("after.img"), &after).unwrap();
        tools::e2fsck_fn(&bench.path("after.img")).unwrap();
        after[9000 * BLOCK..9004 * BLOCK].to_vec()
    };
    // A backup does not say that the journal is full.
    assert!(lost(&|bytes| bytes[1024..2048].fill(0)) == wanted);
    // `has_journal`; the mark and the number are still there.
    assert!(lost(&|bytes| bytes[1024 + 92] &= !4) == wanted);
    // Its number; the superblock has a copy of its map. Without that nothing says where it is.
    assert!(lost(&|bytes| bytes[1024 + 0xe0..1024 + 0xe4].fill(0)) == wanted);
    let nothing = lost(&|bytes| {
        bytes[1024 + 0xe0..1024 + 0xe4].fill(0);
        bytes[1024 + 0xfd] = 0;
    });
    assert!(nothing != wanted);
}

#[test]
fn a_journal_whose_copies_are_its_own_records_is_replayed_in_the_end() {
    need_tools!("mke2fs", "debugfs");
    let bench = Bench::new();
    let path = base(&bench, &["-t", "ext3"]);
    let (mut bytes, map) = (fs::read(&path).unwrap(), journal_map(&path));
    let mut journal = Writer::new(&mut bytes, map.clone(), Format { sums: 0, large: false });
    // Three blocks go round. The second, a descriptor too, takes the place of the commit, and leads back to the first.
    let mut descriptor = |nr: usize| {
        let mut block = journal.header(1);
        put(&mut block, 12, nr as u32);
        put(&mut block, 16, 2 | 8);
        journal.append(&block);
    };
    descriptor(map[3]);
    descriptor(9000);
    journal.commit();
    put(&mut bytes[map[0] * BLOCK..], 16, 4);
    bytes[1024 + 96] |= 4;
    let device = Scratch::new(bytes);
    let done = jbd2::replay(&device).unwrap().unwrap();
    assert_eq!(done.transactions, 1);
    assert!(!jbd2::needs_replay(&device).unwrap());
}

#[test]
fn a_journal_is_replayed_as_e2fsck_replays_it() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let copies = bench.path("copies");
    // The first block begins as a block of the journal does, and is escaped there.
    let mut bytes = vec![0x5a; BLOCK];
    bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
    bytes.extend((0..3).flat_map(|nr| vec![nr; BLOCK]));
    fs::write(&copies, bytes).unwrap();
    let mut images = vec![("golden".to_owned(), golden::golden("ext3-recover"))];
    for (name, sums, work) in [
        ("plain", "", "jw -b 9000-9003 COPIES\n"),
        ("revoked", "", "jw -b 9000-9003 COPIES\njw -r 9001-9002\njw -b 9002 COPIES\n"),
        ("not committed", "", "jw -b 9000-9003 COPIES\njw -b 9010-9013 COPIES -c\n"),
        // With a revocation debugfs 1.47 writes a checksum that e2fsck calls wrong too.
        ("version 3", "-c", "jw -b 9000-9003 COPIES\njw -b 9002 COPIES\n"),
        ("version 2", "-c -v 2", "jw -b 9000-9003 COPIES\njw -b 9002 COPIES\n"),
    ] {
        let path = base(&bench, &["-t", "ext3"]);
        let work = work.replace("COPIES", copies.to_str().unwrap());
        debugfs(&path, &format!("jo {sums}\n{work}jc\n"));
        images.push((name.to_owned(), fs::read(&path).unwrap()));
    }
    let mut transactions = 0;
    for (name, bytes) in images {
        let done = compare(&bench, &name, bytes);
        assert_eq!(done.broken, None, "{name}");
        transactions += done.transactions;
    }
    assert!(transactions >= 8, "{transactions}");
}

#[test]
fn journals_that_the_kernel_left_full_are_replayed_as_e2fsck_replays_them() {
    need_mount!();
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    for options in ["data=ordered", "journal_checksum", "journal_async_commit,data=writeback", "data=journal"]
    {
        let path = base(&bench, &["-t", "ext3"]);
        let mut bytes = Vec::new();
        mount::with_mount_as(&path, "ext4", options, |root| {
            for nr in 0..40 {
                let folder = root.join(format!("folder {nr}"));
                fs::create_dir(&folder).unwrap();
                fs::write(folder.join("file"), vec![nr; 3000]).unwrap();
            }
            tools::run("sync", &["-f".as_ref(), root.as_os_str()]).unwrap();
            // What is given up between two transactions is revoked.
            for nr in 0..10 {
                fs::remove_dir_all(root.join(format!("folder {nr}"))).unwrap();
            }
            fs::write(root.join("last"), vec![7; 100_000]).unwrap();
            tools::run("sync", &["-f".as_ref(), root.as_os_str()]).unwrap();
            bytes = fs::read(&path).unwrap();
        });
        let done = compare(&bench, &format!("mounted with '{options}'"), bytes);
        assert_eq!(done.broken, None, "{options}");
        assert!(done.transactions >= 2 && done.blocks > 20, "{options}: {done:?}");
    }
}
