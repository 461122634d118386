//! A tree that is as deep as names are long: what each verb takes for it is memory for the names, and not for a path for each
//! directory.

use std::fs;

use e2dax_tests::{need_tools, tools};
use ext2_core::{BlockSize, Ext2, FileKind, Inode, NewInode, OpenOptions};
use ext2_image::mkfs::{Format, Fresh, Inodes, format};

use crate::common::Folder;

/// Directories in each other. The path of the last has 250 KiB, and all of them together 122 MiB.
const DEPTH: usize = 1000;

/// An image in which each directory has another, an empty one, and a file with two names.
fn deep(folder: &Folder) {
    let device = blockdev::RamDevice::new(12 << 20).unwrap();
    let is = Format {
        block_size: BlockSize::new(1024),
        inodes: Inodes::Count(4 * DEPTH as u64),
        ..Format::default()
    };
    format(&device, &is, Fresh::Zeros).unwrap();
    let device = std::sync::Arc::new(device);
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    let new = |dir: &Inode, name: &[u8], kind| dir.create(name, &NewInode::new(kind, 0o755)).unwrap();
    let mut at = new(&fs.root().unwrap(), b"top", FileKind::Directory);
    for _ in 0..DEPTH {
        let file = new(&at, b"file", FileKind::Regular);
        at.link(&file, "second").unwrap();
        new(&at, b"void", FileKind::Directory);
        at = new(&at, &[b'n'; 255], FileKind::Directory);
    }
    drop(at);
    fs.close().unwrap();
    fs::write(folder.path("deep.img"), device.to_vec()).unwrap();
}

#[test]
fn a_deep_tree_takes_memory_for_its_names_and_not_for_their_paths() {
    need_tools!("prlimit", "mke2fs");
    let folder = Folder::with(&[]);
    deep(&folder);
    let e2dax = env!("CARGO_BIN_EXE_e2dax");
    let verbs = [
        "find deep.img -name none",
        "tree deep.img",
        "du deep.img",
        "ls -R deep.img:/",
        "tar deep.img -o -",
        "manifest deep.img",
        "dax-report deep.img",
        "map --all deep.img",
        "whose deep.img 3000",
        "cp -r deep.img:/top copy.img:/",
        "chmod -R 700 deep.img:/",
        "rm -r deep.img:/top",
    ];
    let run =
        |script: &str| tools::command("sh").current_dir(folder.root()).args(["-c", script]).output().unwrap();
    assert!(run("mke2fs -q -b 1024 -N 8000 copy.img 24m").status.success());
    for verb in verbs {
        let output = run(&format!("exec prlimit --data=100000000 {e2dax} {verb} >/dev/null"));
        assert!(
            output.status.success(),
            "{verb}: {}",
            tools::words(&output).chars().take(500).collect::<String>()
        );
    }
    // Each directory of the host that is filled is held open.
    let script = "ulimit -n $(ulimit -Hn); exec prlimit --data=100000000";
    let output = run(&format!("{script} {e2dax} cp -r copy.img:/top out >/dev/null"));
    let said = tools::words(&output);
    assert!(output.status.success() || said.contains("Too many open files"), "{:.500}", said);
    assert!(run("rm -rf out").status.success());
    assert_eq!(folder.run(&["ls", "deep.img:/"]).ok(), "lost+found\n");
    folder.run(&["check", "deep.img"]).ok();
}
