//! `diff` and `manifest` of directories, archives, parts of images and manifests.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use e2dax_tests::need_tools;

use crate::common::Folder;

/// A tree, an archive of it, and an image made of it.
fn tree() -> Folder {
    let folder = Folder::with(&[]);
    let root = folder.path("tree");
    fs::create_dir_all(root.join("etc/conf")).unwrap();
    fs::create_dir_all(root.join("etc-more")).unwrap();
    for (name, text) in [("etc/a", "a\n"), ("etc/conf/b", "b\n"), ("etc-more/x", "x"), ("zero", "")] {
        fs::write(root.join(name), text).unwrap();
    }
    fs::hard_link(root.join("etc/a"), root.join("etc-more/link")).unwrap();
    symlink("etc/a", root.join("link")).unwrap();
    folder.run(&["mkfs", "--from", "tree", "a.img"]).code();
    folder
}

#[test]
fn an_image_is_what_was_put_in() {
    need_tools!("tar");
    let folder = tree();
    Command::new("tar")
        .args(["-C", "tree", "--format=pax", "-czf", "tree.tar.gz", "."])
        .current_dir(folder.root())
        .status()
        .unwrap();
    for side in ["tree", "tree.tar.gz", "a.img"] {
        assert_eq!(folder.run(&["diff", side, "a.img"]).ok(), "", "{side}");
        assert_eq!(folder.run(&["diff", "a.img", side]).ok(), "", "{side}");
    }
    assert_eq!(folder.run(&["diff", "tree/etc", "a.img:/etc"]).ok(), "");
    let manifest = folder.run(&["manifest", "tree"]).ok();
    fs::write(folder.path("m"), &manifest).unwrap();
    assert!(manifest.starts_with("e2dax-manifest 1\n/ d "), "{manifest}");
    assert_eq!(folder.run(&["diff", "m", "tree"]).ok(), "");
    assert_eq!(folder.run(&["manifest", "--check", "m", "tree.tar.gz"]).ok(), "");
}

#[test]
fn what_differs_is_1_and_what_cannot_be_compared_is_2() {
    let folder = tree();
    fs::write(folder.path("tree/etc/a"), "A\n").unwrap();
    folder.run(&["rm", "a.img:/zero"]).ok();
    let run = folder.run(&["diff", "--without", "times", "tree", "a.img"]);
    assert_eq!(run.code(), 1, "{}", run.err());
    let out = run.out();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(
        lines[0].starts_with("/etc-more/link: crc: ") && lines[1] == "/zero: path: there != missing",
        "{out}"
    );
    let later = folder.run(&["touch", "-t", "5", "a.img:/etc/conf/b"]);
    later.ok();
    assert!(folder.run(&["diff", "tree", "a.img"]).out().contains("/etc/conf/b: mtime: "));
    assert!(!folder.run(&["diff", "--without", "times", "tree", "a.img"]).out().contains("mtime"));
    for arguments in [
        &["diff", "nothing", "a.img"][..],
        &["diff", "a.img", "a.img:/etc/a"],
        &["diff", "--layout", "tree", "a.img"],
        &["manifest", "--check", "nothing", "a.img"],
    ] {
        folder.run(arguments).fails(2);
    }
}

#[test]
fn a_part_of_an_image_is_written_as_if_it_were_all() {
    let folder = tree();
    let part = folder.run(&["manifest", "--without", "times", "a.img:/etc"]).ok();
    let paths: Vec<&str> = part.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(paths, ["/", "/a", "/conf", "/conf/b"]);
    assert!(!part.contains("mtime="), "{part}");
    let whole = folder.run(&["manifest", "a.img"]).ok();
    let mut sorted: Vec<&str> = whole.lines().skip(2).collect();
    sorted.sort_unstable();
    assert_eq!(whole.lines().skip(2).collect::<Vec<_>>(), sorted, "the order is that of LC_ALL=C sort");
    assert!(whole.contains("/etc/a h hardlink=/etc-more/link"), "{whole}");
}
