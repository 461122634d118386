//! Features that the superblock lost or gained by a bit, where the rest of the image tells of it.

use std::{fs, path::Path, sync::Arc};

use e2dax_tests::{Scratch, crash, need_tools, tools, tree};
use ext2_core::{Ext2, FileKind, NewInode};
use ext2_image::{
    check::{Checker, Kind, Options},
    repair::{self, Changes, Policy, repair},
};

use crate::{
    bench::{Bench, options},
    kinds::{base, debugfs, repaired},
};

/// Where features lie, in bytes of the device: incompatible ones, and those that do not keep others from reading.
const INCOMPAT: usize = 1024 + 96;
const RO_COMPAT: usize = 1024 + 100;
const META_BG: u8 = 0x10;
const RECOVER: u8 = 0x4;
const SPARSE_SUPER: u8 = 0x1;

/// The block of a file, as debugfs has it.
fn block_of(path: &Path, file: &str, nr: u32) -> String {
    let said = tools::debugfs(path, &format!("bmap {file} {nr}")).unwrap();
    String::from_utf8(said).unwrap().trim().to_owned()
}

fn tree_of(bytes: &[u8]) -> tree::Tree {
    tree::read(Arc::new(Scratch::new(bytes.to_vec()))).unwrap()
}

#[test]
fn the_resize_inode_goes_where_meta_bg_gives_its_blocks_to_files() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &["-O", "resize_inode"]);
    let mut bytes = fs::read(&path).unwrap();
    let before = tree_of(&bytes);
    bytes[INCOMPAT] |= META_BG;
    let (after, kinds) = repaired(&bench, bytes, "both features");
    assert!(kinds.contains(&Kind::ResizeInode), "{kinds:?}");
    assert!(before == after);
    // The copy of a block that two files have comes to lie where the spare descriptors were.
    debugfs(&path, &format!("sif d/g block[0] {}\n", block_of(&path, "d/f", 0)));
    let mut bytes = fs::read(&path).unwrap();
    let before = tree_of(&bytes);
    bytes[INCOMPAT] |= META_BG;
    let (after, kinds) = repaired(&bench, bytes, "both features, and a block of two files");
    assert!(kinds.contains(&Kind::ResizeInode) && kinds.contains(&Kind::DoubleUse), "{kinds:?}");
    for name in ["/d/f", "/d/g"] {
        assert!(before[name.as_bytes()].content == after[name.as_bytes()].content, "{name}");
    }
}

/// An image of many groups with a file in each.
fn of_many_groups(bench: &Bench) -> Vec<u8> {
    let path = base(bench, &["-g", "2048", "-m", "0"]);
    let device = Arc::new(Scratch::new(fs::read(&path).unwrap()));
    let image = Ext2::open(device.clone(), &crash::options()).unwrap();
    for nr in 0..50_u8 {
        let dir = image.root().unwrap().create([b'd', nr + 50], &NewInode::new(FileKind::Directory, 0o755));
        let file = dir.unwrap().create(b"file", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
        assert_eq!(file.write_at(0, &vec![nr; 250_000]).unwrap(), 250_000);
    }
    image.close().unwrap();
    device.to_vec()
}

#[test]
fn a_sparse_super_that_was_lost_is_seen_by_groups_that_begin_without_a_backup() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let mut bytes = of_many_groups(&bench);
    let before = tree_of(&bytes);
    bytes[RO_COMPAT] &= !SPARSE_SUPER;
    let (after, kinds) = repaired(&bench, bytes, "no sparse_super");
    assert_eq!(kinds, [Kind::SparseSuper]);
    assert!(before == after);
    // One that never had it stays without.
    let path = base(&bench, &["-g", "2048", "-O", "^sparse_super,^resize_inode"]);
    debugfs(&path, "sif d/f links_count 9\n");
    let (_, kinds) = repaired(&bench, fs::read(&path).unwrap(), "a backup in each group");
    assert_eq!(kinds, [Kind::Links]);
}

#[test]
fn a_file_that_claims_the_place_of_a_backup_has_its_bytes_copied_before_the_backup_is_written() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &[]);
    debugfs(&path, "sif d/f block[0] 8193\n");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8193 * 1024..8194 * 1024].fill(b'X');
    let (after, kinds) = repaired(&bench, bytes, "a file in the place of a backup");
    assert!(kinds.contains(&Kind::BackupSuperblock), "{kinds:?}");
    let mut wanted = vec![b'F'; 5000];
    wanted[..1024].fill(b'X');
    assert!(after[&b"/d/f"[..]].content == wanted);
}

#[test]
fn a_mark_that_a_journal_is_full_is_cleared_where_there_is_none() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    for more in [&["-b", "4096"][..], &["-g", "2048"]] {
        let path = base(&bench, more);
        let mut bytes = fs::read(&path).unwrap();
        let before = tree_of(&bytes);
        bytes[INCOMPAT] |= RECOVER;
        let mut kinds = Vec::new();
        let device = Arc::new(Scratch::new(bytes.clone()));
        let summary = Checker::new()
            .check(&*device, &Options::default(), &mut |finding| kinds.push(finding.kind))
            .unwrap();
        assert!(!summary.is_clean() && kinds == [Kind::RecoveryLeft], "{more:?}: {kinds:?}");
        for policy in [Policy::Preen, Policy::Asked] {
            let device = Arc::new(Scratch::new(bytes.clone()));
            let changes = Changes::new(&*device);
            let options = repair::Options { policy, ..options() };
            let report = repair(&changes, &options, &mut |_| true).unwrap();
            assert!(report.clean && report.mended == 1, "{more:?}: {report:?}");
            changes.apply().unwrap();
            fs::write(&path, device.to_vec()).unwrap();
            tools::e2fsck_fn(&path).unwrap();
            assert!(before == tree::read(device).unwrap());
        }
        fs::write(&path, &bytes).unwrap();
        tools::e2fsck_p(&path).unwrap();
    }
}
