//! What people expect of a command: other kinds of file named, packed images read, manual pages, completions, sizes that can be
//! read, and paths that are never passed over.

use std::fs;
use std::process::Command;

use e2dax_tests::{need_tools, tools};

use crate::common::Folder;

#[test]
fn files_of_other_kinds_are_named_with_what_to_do() {
    let folder = Folder::with(&["block-1k"]);
    let mut tar = vec![0; 10_240];
    tar[257..262].copy_from_slice(b"ustar");
    fs::write(folder.path("tar"), tar).unwrap();
    fs::write(folder.path("vhdx"), [b"vhdxfile".as_slice(), &[0; 4096]].concat()).unwrap();
    fs::write(folder.path("zeros"), [0; 65536]).unwrap();
    let kinds = [
        ("tar", "a tar archive"),
        ("vhdx", "a VHDX image; qemu-img convert"),
        ("zeros", "e2dax mkfs makes one"),
    ];
    for (file, said) in kinds {
        for line in ["ls", "info", "df", "check", "resize 8M", "tune -L x", "align", "touch", "mkdir", "rm"] {
            let mut words: Vec<&str> = line.split(' ').collect();
            let place = format!("{file}:/x");
            let is_about_a_file = matches!(words[0], "touch" | "mkdir" | "rm");
            words.insert(1, if is_about_a_file { &place } else { file });
            let message = folder.run(&words);
            let text = format!("{}{}", message.out(), message.err());
            assert!(text.contains(said) && message.code() == 8, "{words:?}: {text}");
        }
    }
    fs::write(folder.path("empty"), "").unwrap();
    fs::write(folder.path("small"), "text").unwrap();
    for verb in ["ls", "info", "check", "align"] {
        assert!(folder.run(&[verb, "empty"]).fails(8).contains("is an empty file"), "{verb}");
        assert!(folder.run(&[verb, "small"]).fails(8).contains("it has 4 bytes"), "{verb}");
    }
    if tools::have("xz") {
        Command::new("xz").args(["-k", "block-1k.img"]).current_dir(folder.root()).status().unwrap();
        let image = ["manifest", "block-1k.img.xz"];
        assert!(folder.run(&image).fails(1).contains("is a file system of ext2 and no tar archive"));
        let make = ["mkfs", "new.img", "--from", "block-1k.img.xz"];
        assert!(folder.run(&make).fails(1).contains("is a file system of ext2"));
    }
    // What begins with zeros, as an archive without members does, and is none.
    for (at, mark, said) in [(0x8001, "CD001", "an ISO 9660 image"), (0xff6, "SWAPSPACE2", "swap space")] {
        let mut bytes = vec![0; 64 << 10];
        bytes[at..at + mark.len()].copy_from_slice(mark.as_bytes());
        fs::write(folder.path("other"), bytes).unwrap();
        let message = folder.run(&["mkfs", "other.img", "--from", "other"]).fails(1);
        assert!(message.contains(&format!("is {said} and no tar archive")), "{message}");
    }
    for (tool, image, make, said) in [
        ("mkfs.xfs", "xfs", vec!["-q", "-d", "file,name=xfs,size=400m"], "an XFS file system"),
        ("mke2fs", "ext4", vec!["-q", "-t", "ext4", "ext4", "8M"], "ext4"),
        ("mksquashfs", "squash", vec![".", "squash", "-quiet", "-no-progress"], "a squashfs image"),
    ] {
        if !tools::have(tool) {
            continue;
        }
        Command::new(tool).args(make).current_dir(folder.root()).output().unwrap();
        let message = folder.run(&["ls", image]).fails(8);
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn packed_images_are_read_and_not_written() {
    need_tools!("gzip", "zstd");
    let folder = Folder::with(&["block-1k"]);
    for (tool, packed) in [("gzip", "block-1k.img.gz"), ("zstd", "block-1k.img.zst")] {
        let made = Command::new(tool).args(["-q", "-k", "block-1k.img"]).current_dir(folder.root()).status();
        assert!(made.unwrap().success());
        for verb in ["ls", "info", "df", "tree", "check", "manifest", "groups"] {
            let (whole, unpacked) = (folder.run(&[verb, packed]), folder.run(&[verb, "block-1k.img"]));
            assert_eq!(whole.err(), "", "{verb}");
            let words = |text: String| {
                let text = text.replace(packed, "block-1k.img");
                text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(words(whole.out()), words(unpacked.out()), "{verb}");
        }
        let before = fs::read(folder.path(packed)).unwrap();
        let message = folder.run(&["touch", &format!("{packed}:/x")]).fails(1);
        assert!(message.contains(&format!("packed by {tool}")), "{message}");
        assert_eq!(fs::read(folder.path(packed)).unwrap(), before);
        fs::write(folder.path("cut"), &before[..before.len() / 2]).unwrap();
        let message = folder.run(&["ls", "cut"]).fails(1);
        assert!(message.contains("cannot be unpacked"), "{message}");
    }
}

#[test]
fn disks_in_qcow2_files_are_read_with_what_is_behind_them() {
    need_tools!("qemu-img");
    let folder = Folder::with(&["block-4k"]);
    let qemu = |arguments: &[&str]| {
        let made = Command::new("qemu-img").args(arguments).current_dir(folder.root()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let convert = ["convert", "-f", "raw", "-O", "qcow2"];
    let make = |more: &[&str]| qemu(&[&convert[..], more].concat());
    make(&["-o", "compat=0.10", "block-4k.img", "two.qcow2"]);
    make(&["block-4k.img", "three.qcow2"]);
    make(&["-c", "block-4k.img", "packed.qcow2"]);
    qemu(&["create", "-q", "-f", "qcow2", "-b", "three.qcow2", "-F", "qcow2", "over.qcow2"]);
    let manifest = folder.run(&["manifest", "block-4k.img"]).ok();
    for name in ["two", "three", "packed", "over"] {
        let disk = format!("{name}.qcow2");
        assert_eq!(folder.run(&["manifest", &disk]).ok(), manifest, "{name}");
        let message = folder.run(&["touch", &format!("{disk}:/x")]).fails(1);
        assert!(message.contains("packed by qcow2"), "{message}");
    }
    fs::remove_file(folder.path("three.qcow2")).unwrap();
    let message = folder.run(&["ls", "over.qcow2"]).fails(1);
    assert!(message.contains("cannot be unpacked (qcow2)"), "{message}");
    fs::write(folder.path("bad"), [b"QFI\xfb\0\0\0\x03".as_slice(), &[0xff; 4096]].concat()).unwrap();
    folder.run(&["ls", "bad"]).fails(1);
}

#[test]
fn a_qcow2_file_names_no_file_outside_its_folder() {
    need_tools!("qemu-img");
    let folder = Folder::with(&["block-4k"]);
    fs::create_dir_all(folder.path("in/below")).unwrap();
    let secret = folder.path("block-4k.img");
    fs::copy(&secret, folder.path("in/below/base.raw")).unwrap();
    std::os::unix::fs::symlink(&secret, folder.path("in/link.raw")).unwrap();
    let absolute = folder.path("in/below/base.raw");
    let size = fs::metadata(&secret).unwrap().len().to_string();
    let make = |name: &str, format: &str, behind: &str| {
        let place = folder.path(&format!("in/{name}"));
        let arguments = ["create", "-q", "-f", "qcow2", "-u", "-b", behind, "-F", format];
        let made = Command::new("qemu-img").args(arguments).arg(place).arg(&size).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    make("a", "raw", "below/base.raw");
    make("b", "raw", absolute.to_str().unwrap());
    for name in ["in/a", "in/b"] {
        assert!(!folder.run(&["manifest", name]).ok().is_empty());
    }
    for (nr, behind) in [secret.to_str().unwrap(), "../block-4k.img", "below/../../block-4k.img", "link.raw"]
        .iter()
        .enumerate()
    {
        let name = format!("outside{nr}");
        make(&name, "raw", behind);
        let image = format!("in/{name}");
        for verb in ["ls", "info", "manifest", "check"] {
            let run = folder.run(&[verb, &image]);
            let said = run.err();
            assert!(
                run.code() != 0 && said.contains("does not lie in its folder"),
                "{behind}: {verb}: {said}"
            );
            assert!(said.contains("--allow-backing"), "{said}");
        }
        let run = folder.run(&["manifest", "--allow-backing", &image]);
        assert_eq!(run.ok(), folder.run(&["manifest", "block-4k.img"]).ok());
    }
    make("device", "raw", "/dev/zero");
    folder.run(&["ls", "in/device"]).fails(1);
    make("folder", "raw", "below");
    assert!(folder.run(&["ls", "in/folder"]).fails(1).contains("no regular file"));
    // A chain without an end.
    make("itself", "qcow2", "itself");
    assert!(folder.run(&["ls", "in/itself"]).fails(1).contains("behind each other"));
    folder.run(&["ls", "--allow-backing", "in/itself"]).fails(1);
    // A disk of which nothing is there is not read byte by byte.
    let huge = folder.path("in/huge");
    let arguments = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=2M"];
    let made = Command::new("qemu-img").args(arguments).arg(huge).arg("1T").output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder.run(&["ls", "in/huge"]).fails(8);
}

#[test]
fn a_path_that_a_verb_would_pass_over_is_an_error() {
    let folder = Folder::with(&["block-1k"]);
    let place = "block-1k.img:/etc";
    for verb in ["info", "df", "check", "groups", "journal", "deleted"] {
        let message = folder.run(&[verb, place]).fails(if verb == "check" { 16 } else { 2 });
        assert!(message.contains("all of an image"), "{verb}: {message}");
    }
    folder.run(&["poke", place, "superblock", "state", "1"]).fails(2);
    folder.run(&["whose", place, "1"]).fails(2);
    for verb in ["align", "sparsify", "resize", "tune"] {
        let more: &[&str] = if verb == "resize" { &["auto"] } else { &[] };
        let message = folder.run(&[&[verb, place], more].concat()).fails(2);
        assert!(message.contains("all of an image"), "{verb}: {message}");
    }
    folder.run(&["check", "-y", place]).fails(16);
    folder.run(&["info", "block-1k.img:/"]).ok();
}

#[test]
fn odd_names_are_shown_as_text_and_empty_ones_are_seen() {
    let folder = Folder::with(&["block-1k"]);
    let odd = "a\u{1b}[31mb\nc";
    folder.run(&["touch", &format!("block-1k.img:/{odd}")]).ok();
    let place = format!("block-1k.img:/{odd}/x");
    let shell = format!("rm{odd}");
    for words in [
        &["ls", "block-1k.img"][..],
        &["find", "block-1k.img"],
        &["tree", "block-1k.img"],
        &["lsattr", "block-1k.img"],
        &["manifest", "block-1k.img"],
        &["ls", "--raw", "block-1k.img"],
        &["mkdir", &place],
        &["cat", &place],
        &["check", odd],
        &["diff", odd, odd],
        &["manifest", "--check", odd, "block-1k.img"],
        &["shell", "block-1k.img", "-c", &shell],
        &["shell", "block-1k.img", "-x", "-c", &shell],
        &["replay", "block-1k.img", odd],
        &["chmod", odd, "block-1k.img:/"],
        &[odd],
    ] {
        let run = folder.run(words);
        let (out, err) = (run.out(), run.err());
        assert!(!out.contains('\u{1b}') && !err.contains('\u{1b}'), "{words:?}: {out:?} {err:?}");
    }
    for verb in ["ls", "check", "manifest", "tar", "shell"] {
        assert!(folder.run(&[verb, ""]).err().contains("e2dax: '': No such file"), "{verb}");
    }
    // Nothing that is written into a directory is an error too.
    assert!(folder.run(&["write", "block-1k.img:/"]).fails(1).contains("is a directory"));
}

#[test]
fn h_is_for_sizes_that_people_read() {
    let folder = Folder::with(&["block-1k"]);
    for arguments in [&["df", "-h"][..], &["ls", "-lh"], &["du", "-sh"]] {
        let arguments: Vec<&str> = arguments.iter().chain(&["block-1k.img"]).copied().collect();
        let out = folder.run(&arguments).ok();
        let is_size = |word: &str| {
            let digits = word.strip_suffix(['K', 'M', 'G']).unwrap_or("x");
            digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        };
        assert!(out.split_whitespace().any(is_size), "{arguments:?}: {out}");
        assert!(folder.run(&[arguments[0], "--help"]).ok().contains("Usage: e2dax"));
    }
    assert!(folder.run(&["stat", "-h"]).ok().contains("Usage: e2dax stat"));
}

#[test]
fn manual_pages_and_completions_know_every_verb() {
    let folder = Folder::with(&[]);
    folder.run(&["man", "man1"]).ok();
    let help = folder.run(&["--help"]).ok();
    let verbs = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let verbs: Vec<&str> = verbs
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() > 30, "{verbs:?}");
    for verb in &verbs {
        let page = fs::read_to_string(folder.path(&format!("man1/e2dax-{verb}.1"))).unwrap();
        assert!(page.contains(".TH") && page.contains("SYNOPSIS"), "{verb}");
    }
    assert!(fs::read_to_string(folder.path("man1/e2dax.1")).unwrap().contains("durability"));
    for shell in ["bash", "zsh", "fish"] {
        let text = folder.run(&["completions", shell]).ok();
        for verb in &verbs {
            assert!(text.contains(verb), "{shell}: {verb}");
        }
        fs::write(folder.path(shell), text).unwrap();
    }
    let checked = Command::new("bash").arg("-n").arg(folder.path("bash")).status();
    assert!(checked.is_ok_and(|status| status.success()));
}
