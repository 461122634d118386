//! Images made by the command: from archives and manifests, for other owners, behind a header; compared and reported.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use e2dax_tests::{need_tools, skip, tools};

use crate::common::Folder;

/// A folder with a tree `tree` of some files, one of them of 5 MiB.
fn with_tree() -> Folder {
    let folder = Folder::with(&[]);
    let tree = folder.path("tree");
    fs::create_dir_all(tree.join("sub/empty")).unwrap();
    fs::write(tree.join("sub/small"), b"small").unwrap();
    fs::hard_link(tree.join("sub/small"), tree.join("link")).unwrap();
    std::os::unix::fs::symlink("sub/small", tree.join("sym")).unwrap();
    let bytes: Vec<u8> = (0..5_u32 << 20).map(|at| (at >> 12) as u8 | 1).collect();
    fs::write(tree.join("big"), bytes).unwrap();
    folder
}

/// The lines of an image's manifest without times and without what the root has of its own.
fn files(folder: &Folder, image: &str) -> Vec<String> {
    let text = folder.run(&["manifest", image]).ok();
    let lines = text.lines().filter(|line| line.starts_with('/') && !line.starts_with("/lost+found"));
    let plain = |line: &str| {
        let words = line.split(' ').filter(|word| !word.contains("time=")).collect::<Vec<_>>();
        words.join(" ")
    };
    lines.filter(|line| !line.starts_with("/ ")).map(plain).collect()
}

#[test]
fn archives_of_every_packing_make_the_image_of_the_directory() {
    need_tools!("tar", "gzip", "zstd");
    let folder = with_tree();
    folder.run(&["mkfs", "dir.img", "--from", "tree", "--no-xattrs"]).ok();
    let expected = files(&folder, "dir.img");
    assert_eq!(expected.len(), 6, "{expected:#?}");
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    for (name, options) in [("a.tar", "-cf"), ("b.tgz", "-czf"), ("c.tar.zst", "--zstd -cf")] {
        let mut words: Vec<String> = options.split(' ').map(str::to_owned).collect();
        words.extend([path(name), "--format=posix".into(), "-C".into(), path("tree"), ".".into()]);
        tools::run("tar", &words).unwrap();
        folder.run(&["mkfs", "tar.img", "--force", "--from", name]).ok();
        assert_eq!(files(&folder, "tar.img"), expected, "{name}");
    }
    let archive = fs::read(folder.path("b.tgz")).unwrap();
    folder.run_with(&["mkfs", "stdin.img", "--from", "-"], &archive).ok();
    assert_eq!(files(&folder, "stdin.img"), expected);
    folder.run_with(&["mkfs", "none.img", "--from", "-"], b"this is no archive").fails(1);
    assert!(!folder.path("none.img").exists());
}

#[test]
fn holes_of_an_archive_stay_holes() {
    need_tools!("tar");
    let folder = with_tree();
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let file = File::create(folder.path("tree/sparse")).unwrap();
    file.set_len(40 << 20).unwrap();
    for piece in 0..30_u64 {
        file.write_all_at(&[piece as u8 + 1; 5000], (piece << 20) + 4096).unwrap();
    }
    folder.run(&["mkfs", "dir.img", "--from", "tree", "--no-xattrs"]).ok();
    let expected = files(&folder, "dir.img");
    assert!(expected.iter().any(|line| line.contains("holes=0+4096,")), "{expected:#?}");
    for format in ["gnu", "posix"] {
        let format = format!("--format={format}");
        tools::run("tar", &["-Scf", &path("a.tar"), &format, "-C", &path("tree"), "."]).unwrap();
        assert!(fs::metadata(folder.path("a.tar")).unwrap().len() < 8 << 20, "tar knows the holes");
        folder.run(&["mkfs", "tar.img", "--force", "--from", "a.tar"]).ok();
        assert_eq!(files(&folder, "tar.img"), expected, "{format}");
    }
}

#[test]
fn owners_are_replaced_and_times_clamped_as_asked() {
    let folder = with_tree();
    let mut command =
        folder.command(&["mkfs", "a.img", "--from", "tree", "--owner", "70000:5", "--root-owner", "0:0"]);
    assert!(command.env("SOURCE_DATE_EPOCH", "1000000000").status().unwrap().success());
    let text = folder.run(&["manifest", "a.img"]).ok();
    let line = text.lines().find(|line| line.starts_with("/link ")).unwrap();
    assert!(line.contains(" 70000 5 5 2 atime=1000000000 mtime=1000000000 ctime=1000000000"), "{line}");
    assert!(text.contains("/sub/small h hardlink=/link\n"), "{text}");
    folder.run(&["mkfs", "b.img", "--from", "a.img.missing"]).fails(1);
    folder.run(&["mkfs", "b.img", "--from", "tree", "--map-owner", "0:8", "--map-owner", ":=7:6"]).ok();
    let text = folder.run(&["manifest", "b.img"]).ok();
    assert!(text.contains(" 8 8 5 2 ") || text.contains(" 7 6 5 2 "), "{text}");
}

#[test]
fn a_size_that_is_too_small_is_refused_with_the_size_that_would_do() {
    let folder = with_tree();
    let message = folder.run(&["mkfs", "a.img", "--from", "tree", "--size", "3M"]).fails(1);
    let needed =
        message.split(' ').find_map(|word| word.parse::<u64>().ok().filter(|&nr| nr > 5 << 20)).unwrap();
    assert!(!folder.path("a.img").exists());
    folder.run(&["mkfs", "a.img", "--from", "tree", "--size", &needed.to_string()]).ok();
    let message = folder.run(&["mkfs", "a.img", "--from", "tree"]).fails(1);
    assert!(message.contains("--force"), "{message}");
    folder.run(&["mkfs", "b.img"]).fails(2);
}

#[test]
fn an_image_behind_a_header_is_found_with_dax_and_reports_all_of_its_units() {
    let folder = with_tree();
    folder.run(&["mkfs", "a.img", "--from", "tree", "--pfn-header", "--dax-align", "on"]).ok();
    assert_eq!(folder.run(&["cat", "a.img@dax:/link"]).ok(), "small");
    let summary = folder.run(&["dax-report", "--summary", "a.img@dax"]).ok();
    assert!(
        summary
            .contains("1 files of 2 MiB and more, 2 whole units with data: 2 mappable by us (100.0%), 1 by"),
        "{summary}"
    );
    // The same file system one MiB further on: nothing lies right any more, and it is said why.
    let report = folder.run(&["dax-report", "--device-offset", "3M", "a.img@dax"]).ok();
    assert!(report.contains("2 unaligned") && report.contains("container: "), "{report}");
    let json = folder.run(&["dax-report", "--json", "a.img@dax"]).ok();
    assert!(json.contains("\"summary\":{\"units\":2,\"ours\":2,\"ext4_driver\":1,"), "{json}");
    folder.run(&["ls", "a.img"]).fails(8);
}

#[test]
fn diff_names_files_fields_places_and_the_first_bit() {
    let folder = with_tree();
    let mkfs = |image: &str, options: &[&str]| {
        let mut words = vec!["mkfs", image, "--from", "tree", "--seed", "x", "--size", "16M"];
        words.extend(options);
        folder.run(&words).ok();
    };
    mkfs("a.img", &[]);
    mkfs("b.img", &[]);
    assert_eq!(folder.run(&["diff", "--bits", "--layout", "a.img", "b.img"]).ok(), "");
    let image = File::options().write(true).open(folder.path("b.img")).unwrap();
    // s_mtime: no user of the file system sees it.
    image.write_all_at(&[9], 1024 + 44).unwrap();
    assert_eq!(folder.run(&["diff", "a.img", "b.img"]).ok(), "bits: byte 1068: superblock: s_mtime\n");
    assert_eq!(folder.run(&["diff", "--bits", "a.img", "b.img"]).code(), 1);
    mkfs("c.img", &["--dax-align", "off"]);
    let found = folder.run(&["diff", "--layout", "a.img", "c.img"]);
    assert_eq!(found.code(), 1);
    assert!(found.out().contains("/big: blocks: "), "{}", found.out());
    fs::write(folder.path("tree/sub/small"), b"SMALL").unwrap();
    mkfs("d.img", &["-U", "00000000-0000-0000-0000-000000000001"]);
    let found = folder.run(&["diff", "a.img", "d.img"]);
    assert!(found.code() == 1 && found.out().contains("/link: crc: "), "{}", found.out());
}

#[test]
fn a_manifest_and_its_contents_make_the_same_image_again() {
    let folder = with_tree();
    folder.run(&["mkfs", "a.img", "--from", "tree", "--times", "all"]).ok();
    fs::write(folder.path("a.manifest"), folder.run(&["manifest", "a.img"]).ok()).unwrap();
    folder.run(&["mkfs", "b.img", "--from", "a.manifest", "--contents", "tree"]).ok();
    assert_eq!(folder.run(&["diff", "--bits", "a.img", "b.img"]).ok(), "");
    assert!(fs::read(folder.path("a.img")).unwrap() == fs::read(folder.path("b.img")).unwrap());
}

#[test]
fn a_link_that_leads_to_nothing_yet_leads_to_the_new_image() {
    let folder = Folder::with(&[]);
    std::fs::create_dir(folder.path("large")).unwrap();
    std::os::unix::fs::symlink("large/a.img", folder.path("second")).unwrap();
    std::os::unix::fs::symlink("second", folder.path("first")).unwrap();
    folder.run(&["mkfs", "first", "--size", "2M"]).ok();
    assert!(std::fs::symlink_metadata(folder.path("large/a.img")).unwrap().is_file());
    for link in ["first", "second"] {
        assert!(std::fs::symlink_metadata(folder.path(link)).unwrap().is_symlink(), "{link}");
    }
    std::os::unix::fs::symlink("circle", folder.path("circle")).unwrap();
    let said = folder.run(&["mkfs", "circle", "--size", "1M"]).fails(1);
    assert!(said.contains("Too many levels of symbolic links"), "{said}");
}

#[test]
fn an_image_that_replaces_another_is_on_the_disk_before_it_has_the_name() {
    need_tools!("strace");
    let folder = with_tree();
    folder.run(&["mkfs", "a.img", "--from", "tree"]).ok();
    folder.run(&["mkfs", "b.img", "--from", "tree", "--seal", "--hash-file", "b.tree"]).ok();
    fs::write(folder.path("a.tar"), b"old").unwrap();
    let e2dax = env!("CARGO_BIN_EXE_e2dax");
    for (line, files) in [
        (&["mkfs", "a.img", "--force", "--quiet", "--from", "tree"][..], 1),
        (&["mkfs", "b.img", "--force", "--quiet", "--from", "tree", "--seal", "--hash-file", "b.tree"], 2),
        (&["tar", "a.img", "--force", "-o", "a.tar"], 1),
    ] {
        let words = ["-f", "-o", "calls", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2", e2dax];
        let mut traced = tools::command("strace");
        let output = traced.current_dir(folder.root()).args(words).args(line).output().unwrap();
        if !output.status.success() && tools::words(&output).contains("ptrace") {
            skip!("nobody may be traced here");
        }
        assert!(output.status.success(), "{}", tools::words(&output));
        let calls = fs::read_to_string(folder.path("calls")).unwrap();
        let calls: Vec<&str> = calls.lines().collect();
        let renames: Vec<_> = calls.windows(2).filter(|pair| pair[1].contains("rename")).collect();
        assert_eq!(renames.len(), files, "{calls:#?}");
        assert!(renames.iter().all(|pair| pair[0].contains("sync(")), "{calls:#?}");
    }
}
