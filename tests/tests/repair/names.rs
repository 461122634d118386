//! What has no name any more: found again, in passes that are few.

use std::{cell::Cell, fs, sync::Arc};

use e2dax_tests::{Scratch, need_tools, tools, tree};
use ext2_image::{
    check::{Pass, Progress},
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
