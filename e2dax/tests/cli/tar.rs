//! Archives that the command writes: what other tools make of them, and that nothing of the machine is in them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt as _};
use std::path::Path;

use e2dax_tests::{need_mount, need_tools, skip, tools};

use crate::common::Folder;
use crate::everything;

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
fn an_image_is_not_replaced_by_its_own_archive() {
    let folder = with_image();
    let image = fs::read(folder.path("a.img")).unwrap();
    std::os::unix::fs::symlink("a.img", folder.path("link")).unwrap();
    fs::hard_link(folder.path("a.img"), folder.path("other")).unwrap();
    for output in ["a.img", "link", "other"] {
        let said = folder.run(&["tar", "a.img", "-o", output, "--force"]).fails(1);
        assert!(said.contains("is the image"), "{said}");
        assert!(fs::read(folder.path("a.img")).unwrap() == image, "{output}");
    }
}

#[test]
fn an_archive_that_fails_leaves_the_one_that_was_there() {
    need_tools!("prlimit");
    let folder = with_image();
    fs::write(folder.path("old.tar"), b"old").unwrap();
    std::os::unix::fs::symlink("old.tar", folder.path("link")).unwrap();
    let before = folder.names();
    // No room for all of it.
    let e2dax = env!("CARGO_BIN_EXE_e2dax");
    let fails = |output: &str| {
        let script =
            format!("trap '' XFSZ; exec prlimit --fsize=50000 {e2dax} tar a.img --force -o {output}");
        let output = tools::command("sh").current_dir(folder.root()).args(["-c", &script]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", tools::words(&output));
        assert!(tools::words(&output).contains("File too large"), "{}", tools::words(&output));
    };
    for output in ["old.tar", "link", "new.tar"] {
        fails(output);
        assert_eq!(fs::read(folder.path("old.tar")).unwrap(), b"old", "{output}");
        assert_eq!(folder.names(), before, "{output}");
    }
    // One that is made takes the place of what the link leads to, with its permissions.
    let mode = |name: &str| fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o7777;
    fs::set_permissions(folder.path("old.tar"), fs::Permissions::from_mode(0o640)).unwrap();
    folder.run(&["tar", "a.img", "--force", "-o", "link"]).ok();
    assert!(fs::symlink_metadata(folder.path("link")).unwrap().is_symlink());
    assert!(fs::read(folder.path("old.tar")).unwrap() == folder.run(&["tar", "a.img"]).bytes());
    assert_eq!(mode("old.tar"), 0o640);
    assert_eq!(folder.names(), before);
}

/// A loop device over a file, until it is dropped.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Self {
        let device = tools::run("losetup", &["-f".as_ref(), "--show".as_ref(), file.as_os_str()]).unwrap();
        Self(String::from_utf8(device).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = tools::run("losetup", &["-d", &self.0]);
    }
}

#[test]
fn a_device_gets_an_archive_only_when_that_is_asked_for_and_nobody_uses_it() {
    need_mount!();
    need_tools!("losetup", "tar");
    let folder = with_image();
    folder.run(&["mkfs", "d.img", "--size", "8M"]).ok();
    let before = fs::read(folder.path("d.img")).unwrap();
    let device = Loop::new(&folder.path("d.img"));
    let said = folder.run(&["tar", "a.img", "-o", &device.0]).fails(1);
    assert!(said.contains("is a device: --force overwrites what is on it"), "{said}");
    let at = folder.path("at");
    fs::create_dir(&at).unwrap();
    tools::run("mount", &["-t", "ext2", "-o", "ro", &device.0, at.to_str().unwrap()]).unwrap();
    let used = folder.run(&["tar", "a.img", "--force", "-o", &device.0]);
    tools::run("umount", &[at.to_str().unwrap()]).unwrap();
    let said = used.fails(1);
    assert!(said.contains("in use"), "{said}");
    assert!(fs::read(folder.path("d.img")).unwrap() == before);
    folder.run(&["tar", "a.img", "--force", "-o", &device.0]).ok();
    let listed = tools::run("tar", &["-tf", &device.0]).unwrap();
    assert!(String::from_utf8(listed).unwrap().contains("sparse"));
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

/// A folder with the tree that has everything.
fn with_everything() -> Option<Folder> {
    let folder = Folder::with(&[]);
    everything::make(&folder.path("tree")).then_some(folder)
}

impl Folder {
    /// Makes an image of a source, whatever is said of it, and gives its bytes.
    #[track_caller]
    fn image(&self, image: &str, source: &str, options: &[&str]) -> Vec<u8> {
        let run = self.run(&[&["mkfs", image, "--force", "--quiet", "--from", source][..], options].concat());
        assert_eq!(run.code(), 0, "{source} {options:?}: {}", run.err());
        fs::read(self.path(image)).unwrap()
    }

    /// Makes an image of an archive of an image, and asks that it be that image.
    #[track_caller]
    fn comes_back(&self, image: &str, options: &[&str]) {
        let name = self.path(image.split(['@', ':']).next().unwrap());
        let first = fs::read(name).unwrap();
        self.run(&["tar", image, "--force", "-o", "a.tar"]).ok();
        let second = self.image("again.img", "a.tar", options);
        let differ = || self.run(&["diff", image, "again.img", "--layout"]).out();
        assert!(first == second, "{image} {options:?}: {} {} {}", first.len(), second.len(), differ());
        self.run(&["tar", "again.img", "--force", "-o", "b.tar"]).ok();
        assert!(fs::read(self.path("a.tar")).unwrap() == fs::read(self.path("b.tar")).unwrap());
    }
}

#[test]
fn an_image_of_an_archive_of_an_image_is_that_image_bit_for_bit() {
    let Some(folder) = with_everything() else { skip!("no devices or attributes here") };
    for options in [
        &[][..],
        &["--times", "all"],
        &["-I", "128"],
        &["-b", "1024", "-g", "1024", "-I", "128"],
        &["-r", "0", "--no-xattrs"],
        &["--size", "40M", "-L", "same \u{e4}", "-m", "1.5", "-M", "/mnt/x"],
        &["--size", "9000001", "--no-lost-and-found"],
        &["--size", "129M"],
        &["--seed", "x", "--owner", "70000:4294967294"],
        &["--size", "auto+10%+50inodes"],
        &["-N", "500", "-O", "^resize_inode,sparse_super2,^dir_index", "-b", "2048"],
        &["-U", "01234567-89ab-cdef-0123-456789abcdef", "--dax-align", "on"],
    ] {
        folder.image("a.img", "tree", options);
        // As it was without a word, and with the same words.
        folder.comes_back("a.img", &[]);
        // An owner is that of all members, and lost+found is one by now.
        if !options.contains(&"--owner") {
            folder.comes_back("a.img", options);
        }
    }
}

#[test]
fn images_of_archives_layers_and_partitions_come_back_bit_for_bit_too() {
    need_tools!("tar");
    let Some(folder) = with_everything() else { skip!("no devices or attributes here") };
    let root = folder.path("tree");
    let words = ["--format=posix", "--sparse", "--xattrs", "--xattrs-include=*", "--acls", "-C"];
    let archive = folder.path("tree.tar");
    let words = [&words[..], &[root.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."]].concat();
    tools::run("tar", &words).unwrap();
    folder.image("a.img", "tree.tar", &[]);
    folder.comes_back("a.img", &[]);
    fs::create_dir_all(folder.path("over/deep")).unwrap();
    fs::write(folder.path("over/deep/.wh.link"), b"").unwrap();
    fs::write(folder.path("over/deep/more"), b"more").unwrap();
    folder.image("a.img", "tree.tar", &["--from", "over"]);
    folder.comes_back("a.img", &[]);
    // With a time of making that is 1970, and times that are all before it.
    let mut command = folder.command(&["mkfs", "a.img", "-f", "-q", "--from", "tree"]);
    assert!(command.env("SOURCE_DATE_EPOCH", "0").status().unwrap().success());
    folder.comes_back("a.img", &[]);
    // A partition, into a partition.
    let plain = folder.image("a.img", "tree", &[]);
    folder.image("disk.img", "tree", &["--disk", "gpt"]);
    folder.run(&["tar", "disk.img@p1", "-f", "-o", "a.tar"]).ok();
    assert!(folder.image("b.img", "a.tar", &[]) == plain);
    let disk = fs::read(folder.path("disk.img")).unwrap();
    folder.run(&["mkfs", "disk.img@p1", "--force", "--quiet", "--from", "a.tar"]).ok();
    assert!(fs::read(folder.path("disk.img")).unwrap() == disk);
    // What was sealed gives the image without the seal.
    folder.image("sealed.img", "tree", &["--seal"]);
    folder.run(&["tar", "sealed.img", "-f", "-o", "a.tar"]).ok();
    assert!(folder.image("b.img", "a.tar", &[]) == plain);
    assert!(folder.image("b.img", "a.tar", &["--seal"]) == fs::read(folder.path("sealed.img")).unwrap());
}

#[test]
fn what_an_archive_says_of_its_image_gives_way_to_options_and_to_what_was_added() {
    need_tools!("tar");
    let folder = with_image();
    folder.image("a.img", "tree", &["--size", "12M", "-L", "first", "-N", "64"]);
    folder.run(&["tar", "a.img", "-o", "a.tar"]).ok();
    let info = |image: &str| folder.run(&["info", image, "--json"]).ok();
    folder.image("b.img", "a.tar", &["-L", "second", "--size", "32M"]);
    assert!(info("b.img").contains("\"label\":\"second\""), "{}", info("b.img"));
    assert!(info("b.img").contains("\"size\":33554432,") && !info("b.img").contains("\"inodes\":64,"));
    folder.image("b.img", "a.tar", &["--size", "auto"]);
    assert!(fs::metadata(folder.path("b.img")).unwrap().len() < 12 << 20);
    folder.image("b.img", "a.tar", &["--seed", "another"]);
    assert!(
        info("a.img")
            .split(',')
            .find(|field| field.contains("uuid"))
            .is_some_and(|uuid| { !info("b.img").contains(uuid) })
    );
    // More than there is room for, and more files than inodes: as large as it takes, and said.
    fs::create_dir(folder.path("more")).unwrap();
    (0..60).for_each(|nr| fs::write(folder.path("more").join(format!("f{nr}")), b"x").unwrap());
    fs::write(folder.path("large"), vec![3; 14 << 20]).unwrap();
    for name in ["more", "large"] {
        fs::copy(folder.path("a.tar"), folder.path("b.tar")).unwrap();
        let archive = folder.path("b.tar");
        let words = ["-C", folder.root().to_str().unwrap(), "-rf", archive.to_str().unwrap(), name];
        tools::run("tar", &words).unwrap();
        let run = folder.run(&["mkfs", "b.img", "-f", "-q", "--from", "b.tar"]);
        assert_eq!(run.code(), 0, "{}", run.err());
        assert!(
            run.err().contains("not of the size of the image that the archive was made of"),
            "{}",
            run.err()
        );
        folder.run(&["stat", &format!("b.img:/{name}")]).ok();
        assert!(info("b.img").contains("\"label\":\"first\""));
    }
    // Two archives in a row are no image, nor is one of several sources.
    let twice = [fs::read(folder.path("a.tar")).unwrap(), fs::read(folder.path("a.tar")).unwrap()].concat();
    fs::write(folder.path("twice.tar"), twice).unwrap();
    for options in [&["twice.tar"][..], &["a.tar", "--from", "more"]] {
        folder.image("b.img", options[0], &options[1..]);
        assert!(info("b.img").contains("\"label\":\"\""), "{options:?}");
    }
}

#[test]
fn an_archive_of_a_file_system_that_is_not_made_here_becomes_one_that_is() {
    need_tools!("mke2fs", "e2fsck");
    let folder = Folder::with(&[]);
    let source = folder.path("tree");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), b"contents").unwrap();
    let source = source.to_str().unwrap();
    for options in [
        &["-t", "ext3", "-J", "size=1"][..],
        &["-t", "ext2", "-b", "1024", "-I", "128", "-O", "sparse_super2"],
        &["-t", "ext4", "-O", "^extents,^64bit,^metadata_csum,^has_journal,^flex_bg,^uninit_bg"],
    ] {
        let image = folder.path("a.img");
        let words = [options, &["-q", "-F", "-d", source, image.to_str().unwrap(), "16M"]].concat();
        tools::run("mke2fs", &words).unwrap();
        folder.run(&["tar", "a.img", "-f", "-o", "a.tar"]).ok();
        folder.image("b.img", "a.tar", &[]);
        tools::e2fsck_fn(&folder.path("b.img")).unwrap();
        assert_eq!(lines(&folder, "b.img"), lines(&folder, "a.img"), "{options:?}");
        let bytes = |name: &str| fs::metadata(folder.path(name)).unwrap().len();
        assert_eq!(bytes("b.img"), bytes("a.img"));
    }
}
