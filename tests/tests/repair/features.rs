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
