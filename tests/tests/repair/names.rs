//! What has no name any more: found again, in passes that are few.

use std::{cell::Cell, fs, sync::Arc};

use blockdev::Counted;
use e2dax_tests::{Scratch, crash, need_tools, tools, tree};
use ext2_core::{Ext2, FileKind, Inode, NewInode};
use ext2_image::{
    check::{Kind, Pass, Progress},
    repair::{Changes, Options, repair},
};

use crate::{
    bench::{Bench, bytes_of, options},
    kinds::{base, debugfs},
};

#[test]
fn trees_without_a_name_are_found_in_one_round_of_passes_and_another_that_looks() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &[]);
    fs::write(bench.path("x"), b"one of many").unwrap();
    let write = |name: String| format!("write {} {name}\n", bench.path("x").display());
    // More names than a block of lost+found has room for.
    let mut commands = "mkdir d/e\nmkdir d/e/below\nmkdir far\n".to_owned();
    for nr in 0..90 {
        commands += &write(format!("far/file{nr}"));
    }
    debugfs(&path, &commands);
    let files = |tree: &tree::Tree| {
        let mut all: Vec<_> = tree.values().map(|node| node.content.clone()).collect();
        all.retain(|content| !content.is_empty());
        all.sort();
        all
    };
    let whole = tree::read(Arc::new(Scratch::new(fs::read(&path).unwrap()))).unwrap();
    debugfs(&path, "clri d\nclri far\nunlink lost+found\nsif / links_count 99\nfreeb 900 300\n");
    let device = Arc::new(Scratch::new(fs::read(&path).unwrap()));
    let changes = Changes::new(&*device);
    let rounds = Cell::new(0);
    let progress = |at: Progress| {
        rounds.set(rounds.get() + u32::from(at.pass == Pass::Inodes && at.done == 1));
    };
    let report = repair(&changes, &Options { progress: &progress, ..options() }, &mut |_| true).unwrap();
    assert!(report.clean, "{report:?}");
    assert_eq!(rounds.get(), 2);
    changes.apply().unwrap();
    fs::write(&path, bytes_of(&*device)).unwrap();
    tools::e2fsck_fn(&path).unwrap();
    assert_eq!(files(&tree::read(device).unwrap()), files(&whole));
}

#[test]
fn the_blocks_of_a_full_root_are_not_read_again_for_each_file_without_a_name() {
    const LOST: u64 = 1000;
    need_tools!("mke2fs");
    let bench = Bench::new();
    let path = base(&bench, &["-N", "4096", "-m", "0"]);
    let image = Arc::new(Scratch::new(fs::read(&path).unwrap()));
    let mounted = Ext2::open(image.clone(), &crash::options()).unwrap();
    let root = mounted.root().unwrap();
    root.rmdir(b"lost+found").unwrap();
    let new = |dir: &Inode, name: &str| {
        dir.create(name.as_bytes(), &NewInode::new(FileKind::Regular, 0o644)).unwrap()
    };
    let many = root.create(b"many", &NewInode::new(FileKind::Directory, 0o755)).unwrap();
    for nr in 0..LOST {
        new(&many, &format!("file{nr}")).write_at(0, b"its bytes").unwrap();
    }
    // The root has some hundred blocks, and there is no free one.
    let linked = new(&root, "linked");
    for nr in 0..1200 {
        root.link(&linked, format!("{nr:0>240}").as_bytes()).unwrap();
    }
    let rest = new(&root, "rest");
    let mut at = 0;
    for step in [1 << 20, 64 << 10, 1 << 10] {
        while rest.write_at(at, &vec![b'r'; step]).is_ok_and(|written| written == step) {
            at += step as u64;
        }
    }
    drop((root, many, linked, rest));
    mounted.close().unwrap();
    let mut bytes = image.to_vec();
    fs::write(&path, &bytes).unwrap();
    // The directory keeps its blocks and has no names.
    let said = String::from_utf8(tools::debugfs(&path, "blocks many").unwrap()).unwrap();
    let blocks: Vec<usize> = said.split_whitespace().map(|nr| nr.parse().unwrap()).collect();
    for (nr, block) in blocks.iter().enumerate() {
        let block = &mut bytes[block * 1024..][..1024];
        if block[8..20].windows(4).any(|name| name == b"file") || nr == 0 {
            let at = if nr == 0 { 12 } else { 0 };
            block[at + 4..at + 6].copy_from_slice(&(1024 - at as u16).to_le_bytes());
            if nr > 0 {
                block[..4].fill(0);
            }
        }
    }
    let device = Counted::new(Scratch::new(bytes));
    let mut found = 0;
    repair(&Changes::new(&device), &options(), &mut |finding| {
        found += u64::from(finding.kind == Kind::Unattached);
        true
    })
    .unwrap();
    let reads = device.reset().reads;
    println!("{reads} reads for {found} files");
    assert_eq!(found, LOST);
    assert!(reads < 40 * LOST, "{reads} reads for {found} files");
}
