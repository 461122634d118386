//! What the superblock says of the journal, a mark and a number, beside what the journal itself holds.

use std::{fs, sync::Arc};

use e2dax_tests::{Scratch, need_tools, tools, tree};
use ext2_image::check::{Checker, Finding, Kind, Options};
use ext2_image::repair::{self, Changes, Policy, Report, repair};

use crate::bench::{Bench, bytes_of, options};
use crate::journals::{BLOCK, full, journal_map, put, replayed};
use crate::kinds::{base, debugfs};

/// Where the superblock and its backup lie: the groups have 8192 blocks.
const SUPERS: [usize; 2] = [BLOCK, 8193 * BLOCK];
/// `s_feature_compat`, and `has_journal` in it.
const COMPAT: usize = 0x5c;
const HAS_JOURNAL: u8 = 4;
/// `s_feature_incompat`, and `needs_recovery` in it.
const INCOMPAT: usize = 0x60;
const MARK: u8 = 4;
/// `s_journal_inum`.
const NUMBER: usize = 0xe0;
/// `s_jnl_backup_type`.
const MAP_KEPT: usize = 0xfd;
/// `bg_inode_table` of a descriptor.
const TABLE: usize = 8;
/// `s_first` and `s_start` of a journal.
const FIRST: usize = 20;
const START: usize = 28;

/// Repairs an image, and gives what came of it, what was found, and the bytes.
fn repaired(bytes: &[u8], policy: Policy, says: bool) -> (Report, Vec<Kind>, Vec<u8>) {
    let device = Scratch::new(bytes.to_vec());
    let changes = Changes::new(&device);
    // As the command does it.
    let _ = ext2_image::jbd2::replay(&changes);
    let mut kinds = Vec::new();
    let report = repair(&changes, &repair::Options { policy, ..options() }, &mut |finding| {
        kinds.push(finding.kind);
        says
    })
    .unwrap();
    changes.apply().unwrap();
    (report, kinds, bytes_of(&device))
}

/// Repairs an image to the end, has e2fsck look, and gives the bytes.
fn mended(bench: &Bench, what: &str, bytes: &[u8], policy: Policy) -> Vec<u8> {
    let (report, kinds, after) = repaired(bytes, policy, true);
    assert!(report.clean, "{what}: {kinds:?}, {report:?}");
    let path = bench.path("after.img");
    fs::write(&path, &after).unwrap();
    tools::e2fsck_fn(&path).unwrap_or_else(|said| panic!("{what}: {said}"));
    let (report, kinds, again) = repaired(&after, Policy::Asked, true);
    assert!(report.mended == 0 && again == after, "{what}: a second time: {kinds:?}");
    after
}

/// What [`full`] leads to, once it is replayed.
fn held(bytes: &[u8]) -> &[u8] {
    &bytes[9000 * BLOCK..9004 * BLOCK]
}

#[test]
fn a_journal_that_only_mended_descriptors_lead_to_is_replayed() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let (mut bytes, head) = full(&bench);
    let wanted = replayed(&Scratch::new(bytes.clone()));
    // No copy of the journal's map: its inode alone tells where it is.
    SUPERS.iter().for_each(|at| bytes[at + MAP_KEPT] = 0);
    bytes[..3 * BLOCK].fill(0);
    let after = mended(&bench, "without superblock and descriptors", &bytes, Policy::Asked);
    assert!(held(&after) == wanted);
    assert_eq!(after[head + START..][..4], [0; 4]);
}

#[test]
fn a_descriptor_that_leads_past_the_device_keeps_nobody_from_the_journal_nor_from_the_rest() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let (whole, _) = full(&bench);
    let wanted = replayed(&Scratch::new(whole.clone()));
    let tree = tree::read(Arc::new(Scratch::new(replay_of(&whole)))).unwrap();
    let last = whole.len().div_ceil(BLOCK) as u32 - 1;
    for (has_mark, has_map) in [(false, false), (false, true), (true, false), (true, true)] {
        for table in [1 << 30, u32::MAX, last] {
            let what = format!("mark {has_mark}, copy of the map {has_map}, table at {table}");
            let mut bytes = whole.clone();
            if !has_mark {
                bytes[BLOCK + INCOMPAT] &= !MARK;
            }
            if !has_map {
                SUPERS.iter().for_each(|at| bytes[at + MAP_KEPT] = 0);
            }
            bytes[2 * BLOCK + TABLE..][..4].copy_from_slice(&table.to_le_bytes());
            let mut kinds = Vec::new();
            let device = Scratch::new(bytes.clone());
            if !has_mark {
                let mut told = |finding: &Finding| kinds.push(finding.kind);
                Checker::new().check(&device, &Options::default(), &mut told).unwrap();
                assert!(kinds.contains(&Kind::InodeTablePlace), "{what}: {kinds:?}");
            }
            let after = mended(&bench, &what, &bytes, Policy::Asked);
            assert!(held(&after) == wanted, "{what}");
            assert!(tree::read(Arc::new(Scratch::new(after))).unwrap() == tree, "{what}");
        }
    }
}

#[test]
fn a_journal_without_a_mark_that_only_the_copy_of_its_map_leads_to_is_replayed() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let (bytes, head) = full(&bench);
    let wanted = replayed(&Scratch::new(bytes.clone()));
    let path = bench.path("lost.img");
    fs::write(&path, bytes).unwrap();
    debugfs(&path, "clri <8>\n");
    let mut bytes = fs::read(&path).unwrap();
    // A backup has the copy, and no mark.
    bytes[..2 * BLOCK].fill(0);
    let after = mended(&bench, "without superblock and inode", &bytes, Policy::Asked);
    // Before anything is mended by what the blocks say without it, the inode among them.
    let (_, kinds, _) = repaired(&bytes, Policy::Asked, true);
    assert_eq!(kinds[..2], [Kind::SuperblockLost, Kind::JournalUnmarked], "{kinds:?}");
    assert!(held(&after) == wanted);
    assert_eq!(after[head + START..][..4], [0; 4]);
}

#[test]
fn a_full_journal_without_a_mark_needs_a_person_and_is_kept_until_one_says_yes() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let (mut bytes, head) = full(&bench);
    let wanted = replayed(&Scratch::new(bytes.clone()));
    bytes[BLOCK + INCOMPAT] &= !MARK;
    let path = bench.path("unmarked.img");
    fs::write(&path, &bytes).unwrap();
    // e2fsck -n tells it, and calls the image clean.
    tools::e2fsck_fn(&path).unwrap();
    let mut kinds = Vec::new();
    let device = Scratch::new(bytes.clone());
    let look = Checker::new().check(&device, &Options::default(), &mut |finding| kinds.push(finding.kind));
    assert!(look.unwrap().is_clean());
    assert_eq!(kinds, [Kind::JournalUnmarked]);
    // Nobody is asked by -p.
    tools::e2fsck_p(&path).unwrap_err();
    let (report, kinds, after) = repaired(&bytes, Policy::Preen, true);
    assert_eq!((report.clean, report.mended, &kinds[..]), (false, 0, &[Kind::JournalUnmarked][..]));
    assert_eq!(report.stopped.unwrap().to_string().split(':').next(), Some("inode 8"));
    assert!(after == bytes);
    let (report, _, after) = repaired(&bytes, Policy::Asked, false);
    assert!(report.mended == 0 && after[head..][..4 * BLOCK] == bytes[head..][..4 * BLOCK]);
    assert!(held(&after) != wanted);
    let after = mended(&bench, "without a mark", &bytes, Policy::Asked);
    assert!(held(&after) == wanted);
    assert_eq!(after[head + START..][..4], [0; 4]);
}

#[test]
fn a_journal_that_is_none_is_mended_without_a_question_as_by_e2fsck() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let (bytes, head) = full(&bench);
    let before = tree::read(Arc::new(Scratch::new(replay_of(&bytes)))).unwrap();
    let path = bench.path("broken.img");
    for (what, commands) in [
        ("an inode of zeros", "clri <8>\n"),
        ("an inode with another block", "sif <8> block[0] 12000\n"),
        ("an inode that is not used", "ssv journal_inum 100\n"),
        ("an inode past the last", "ssv journal_inum 99999\n"),
        ("no inode", "ssv journal_inum 0\n"),
        ("a superblock of zeros", ""),
        ("a superblock for other blocks", "\n"),
        ("a descriptor of transactions", "\t"),
    ] {
        for (has_mark, has_feature) in [(false, false), (false, true), (true, false), (true, true)] {
            let what = format!("{what}, mark {has_mark}, feature {has_feature}");
            let mut broken = bytes.clone();
            match commands {
                "" => broken[head..][..BLOCK].fill(0),
                "\n" => put(&mut broken[head..], 12, 2048),
                "\t" => put(&mut broken[head..], 4, 1),
                _ => {
                    fs::write(&path, &broken).unwrap();
                    debugfs(&path, commands);
                    broken = fs::read(&path).unwrap();
                }
            }
            broken[BLOCK + MAP_KEPT] = 0;
            if !has_mark {
                broken[BLOCK + INCOMPAT] &= !MARK;
            }
            if !has_feature {
                broken[BLOCK + COMPAT] &= !HAS_JOURNAL;
            }
            fs::write(&path, &broken).unwrap();
            tools::e2fsck_p(&path).unwrap_or_else(|said| panic!("{what}: {said}"));
            for policy in [Policy::Preen, Policy::Asked] {
                let after = mended(&bench, &what, &broken, policy);
                assert_eq!(after[BLOCK + INCOMPAT] & MARK, 0, "{what}");
                if !has_feature {
                    assert_eq!(after[BLOCK + NUMBER], 0, "{what}");
                }
                let tree = tree::read(Arc::new(Scratch::new(after))).unwrap();
                assert!(tree == before, "{what}");
            }
        }
    }
}

fn replay_of(bytes: &[u8]) -> Vec<u8> {
    let device = Scratch::new(bytes.to_vec());
    replayed(&device);
    bytes_of(&device)
}

#[test]
fn a_journal_of_a_version_that_is_not_known_needs_a_person() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let (mut bytes, head) = full(&bench);
    put(&mut bytes[head..], 4, 9);
    let path = bench.path("version.img");
    for mark in [MARK, 0] {
        bytes[BLOCK + INCOMPAT] = bytes[BLOCK + INCOMPAT] & !MARK | mark;
        fs::write(&path, &bytes).unwrap();
        tools::e2fsck_p(&path).unwrap_err();
        let (report, kinds, after) = repaired(&bytes, Policy::Preen, true);
        assert!(!report.clean && kinds == [Kind::JournalVersion], "{kinds:?}");
        assert!(after == bytes);
        mended(&bench, "another version", &bytes, Policy::Asked);
    }
}

#[test]
fn a_journal_without_its_feature_goes_with_number_mark_and_blocks_as_by_e2fsck() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let (whole, head) = full(&bench);
    let wanted = replayed(&Scratch::new(whole.clone()));
    let path = bench.path("unused.img");
    for (is_full, has_mark) in [(false, false), (false, true), (true, false), (true, true)] {
        let what = format!("full {is_full}, mark {has_mark}");
        let mut bytes = whole.clone();
        bytes[BLOCK + COMPAT] &= !HAS_JOURNAL;
        if !is_full {
            put(&mut bytes[head..], START, 0);
        }
        if !has_mark {
            bytes[BLOCK + INCOMPAT] &= !MARK;
            let look = Checker::new().check(&Scratch::new(bytes.clone()), &Options::default(), &mut |_| {});
            assert!(look.unwrap().is_clean(), "{what}");
        }
        fs::write(&path, &bytes).unwrap();
        tools::e2fsck_fn(&path).unwrap();
        tools::e2fsck_p(&path).unwrap();
        let theirs = fs::read(&path).unwrap();
        for policy in [Policy::Preen, Policy::Asked] {
            let after = mended(&bench, &what, &bytes, policy);
            // Free blocks are as many as e2fsck leaves.
            for field in [12, NUMBER, COMPAT, INCOMPAT] {
                assert_eq!(after[BLOCK + field..][..4], theirs[BLOCK + field..][..4], "{what}: {field}");
            }
            // What a mark says that it holds is brought back first, which e2fsck does not do.
            assert_eq!(held(&after) == wanted, is_full && has_mark, "{what}");
        }
    }
}

#[test]
fn a_journal_whose_inode_was_lost_gets_it_back_from_the_copy_of_its_map() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &["-t", "ext3"]);
    let map = journal_map(&path);
    for commands in
        ["clri <8>\n", "sif <8> links_count 0\n", "sif <8> block[0] 12000\n", "sif <8> block[IND] 0\n"]
    {
        debugfs(&path, commands);
        let bytes = fs::read(&path).unwrap();
        for policy in [Policy::Preen, Policy::Asked] {
            let after = mended(&bench, commands, &bytes, policy);
            assert_eq!(after[BLOCK + COMPAT] & HAS_JOURNAL, HAS_JOURNAL, "{commands}");
            assert_eq!(journal_map(&bench.path("after.img")), map, "{commands}");
        }
        base(&bench, &["-t", "ext3"]);
    }
}

#[test]
fn a_backup_with_the_mark_of_a_full_journal_is_a_backup() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let (mut bytes, head) = full(&bench);
    let wanted = replayed(&Scratch::new(bytes.clone()));
    // As a file system has it that grew while it was mounted.
    bytes[SUPERS[1] + INCOMPAT] |= MARK;
    bytes[SUPERS[0]..][..BLOCK].fill(0);
    let after = mended(&bench, "a backup with a mark", &bytes, Policy::Asked);
    assert!(held(&after) == wanted);
    // Without a journal to which it could lead.
    bytes[head..][..BLOCK].fill(0);
    mended(&bench, "a backup with a mark, and no journal", &bytes, Policy::Asked);
}

#[test]
fn transactions_in_front_of_where_the_log_is_said_to_begin_are_replayed() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let (bytes, head) = full(&bench);
    let wanted = replayed(&Scratch::new(bytes.clone()));
    let map = journal_map(&bench.path("base.img"));
    // The same transactions, which go on at the start of the ring.
    let mut round = bytes.clone();
    let (len, start) = (map.len(), map.len() - 3);
    (0..16).for_each(|nr| round[map[1 + nr] * BLOCK..][..BLOCK].fill(0));
    for nr in 0..16 {
        let to = (start - 1 + nr) % (len - 1) + 1;
        round[map[to] * BLOCK..][..BLOCK].copy_from_slice(&bytes[map[1 + nr] * BLOCK..][..BLOCK]);
    }
    put(&mut round[head..], START, start as u32);
    for (what, bytes) in [("from the first block", bytes), ("round the end", round)] {
        assert!(replayed(&Scratch::new(bytes.clone())) == wanted, "{what}");
        for first in [0, len - 1, len, 1 << 30] {
            let mut broken = bytes.clone();
            put(&mut broken[head..], FIRST, first as u32);
            for has_mark in [true, false] {
                if !has_mark {
                    broken[BLOCK + INCOMPAT] &= !MARK;
                }
                let after = mended(&bench, &format!("{what}: s_first {first}"), &broken, Policy::Asked);
                assert!(held(&after) == wanted, "{what}: s_first {first}");
                assert_eq!(after[head + FIRST..][..4], [0, 0, 0, 1], "{what}: s_first {first}");
            }
        }
    }
}
