//! Archives that the command writes: what other tools make of them, and that nothing of the machine is in them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use e2dax_tests::{need_tools, tools};

use crate::common::Folder;

/// A folder with an image of a tree that a plain header does not hold: long names, links, holes, times.
fn with_image() -> Folder {
    let folder = Folder::with(&[]);
    let tree = folder.path("tree");
    let long = "d".repeat(120);
    fs::create_dir_all(tree.join(&long)).unwrap();
    fs::create_dir_all(tree.join("empty")).unwrap();
    fs::write(tree.join(&long).join("f".repeat(200)), b"far down").unwrap();
    fs::write(tree.join("newline\nand \u{e4}"), b"odd name").unwrap();
    fs::hard_link(tree.join("newline\nand \u{e4}"), tree.join("other name")).unwrap();
    std::os::unix::fs::symlink("x".repeat(150), tree.join("link")).unwrap();
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.set_len(9 << 20).unwrap();
    sparse.write_all_at(&[7; 5000], 3 << 20).unwrap();
    sparse.write_all_at(b"end", (7 << 20) + 100).unwrap();
    let all_hole = File::create(tree.join(&long).join("hole")).unwrap();
    all_hole.set_len(1 << 20).unwrap();
    fs::write(tree.join("dense"), vec![9; 100_000]).unwrap();
    folder.run(&["mkfs", "a.img", "--from", "tree"]).ok();
    folder
}

/// The lines of an image's files, all but the root's, whose times change when somebody unpacks into it.
fn lines(folder: &Folder, image: &str) -> Vec<String> {
    let text = folder.run(&["manifest", image]).ok();
    let lines = text.lines().filter(|line| line.starts_with('/') && !line.starts_with("/ "));
    lines.map(str::to_owned).collect()
}

#[test]
fn gnu_tar_and_bsdtar_unpack_what_was_written_without_a_word() {
    need_tools!("tar", "bsdtar");
    let folder = with_image();
    folder.run(&["tar", "a.img", "-o", "a.tar"]).ok();
    let expected = lines(&folder, "a.img");
    assert_eq!(expected.len(), 10, "{expected:#?}");
    for tool in ["tar", "bsdtar"] {
        let out = folder.path(tool);
        fs::create_dir(&out).unwrap();
        let archive = folder.path("a.tar");
        let output = tools::command(tool).arg("-xpf").arg(&archive).arg("-C").arg(&out).output().unwrap();
        assert!(output.status.success() && tools::words(&output).is_empty(), "{}", tools::words(&output));
        folder.run(&["mkfs", "b.img", "--force", "--from", tool, "--size", "20M"]).ok();
        assert_eq!(lines(&folder, "b.img"), expected, "{tool}");
    }
    // Holes take no room in it.
    assert!(fs::metadata(folder.path("a.tar")).unwrap().len() < 200_000);
}

#[test]
fn the_same_files_give_the_same_archive_and_a_part_is_an_archive_too() {
    need_tools!("tar");
    let folder = with_image();
    folder.run(&["tar", "a.img", "-o", "a.tar"]).ok();
    let first = fs::read(folder.path("a.tar")).unwrap();
    assert!(first == folder.run(&["tar", "a.img"]).bytes());
    let said = folder.run(&["tar", "a.img", "-o", "a.tar"]).fails(1);
    assert_eq!(said, "e2dax: a.tar: exists: --force replaces it\n");
    // Only what is there, whatever the image is like that it is in.
    folder.run(&["mkfs", "b.img", "--from", "tree", "--size", "64M", "-b", "1K"]).ok();
    let part = |image: &str| folder.run(&["tar", image]).bytes().to_vec();
    assert!(part("a.img:/empty") == part("b.img:/empty"));
    fs::write(folder.path("one.tar"), part("a.img:/dense")).unwrap();
    let names = tools::run("tar", &["-tf", folder.path("one.tar").to_str().unwrap()]).unwrap();
    assert_eq!(names, b"dense\n");
    folder.run(&["tar", "a.img:/nothing"]).fails(1);
}
