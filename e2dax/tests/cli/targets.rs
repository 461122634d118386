//! Places in images, and what is said when there is nothing there.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::process::Stdio;

use crate::common::Folder;

#[test]
fn a_partition_is_found_by_number_and_by_offset() {
    let folder = Folder::with(&["partition-mbr", "partition-gpt"]);
    for image in ["partition-mbr.img", "partition-gpt.img"] {
        let names = folder.run(&["ls", &format!("{image}@p2:/")]).ok();
        assert!(names.contains("README\n"), "{names}");
        for place in ["@p2", "@1048576", "@1M:", "@1048576:/"] {
            assert_eq!(folder.run(&["ls", &format!("{image}{place}")]).ok(), names, "{place}");
        }
    }
}

#[test]
fn a_disk_without_a_file_system_at_its_beginning_names_its_partitions() {
    let folder = Folder::with(&["partition-gpt"]);
    let message = folder.run(&["ls", "partition-gpt.img"]).fails(8);
    assert!(message.contains("try partition-gpt.img@p1 or partition-gpt.img@p2"), "{message}");
    let message = folder.run(&["ls", "partition-gpt.img@p7"]).fails(1);
    assert!(message.contains("partition-gpt.img@p7: "), "{message}");
}

#[test]
fn a_name_with_a_colon_or_an_at_is_a_file_when_there_is_one() {
    let folder = Folder::with(&["block-1k"]);
    fs::rename(folder.path("block-1k.img"), folder.path("a:b@p1")).unwrap();
    let names = folder.run(&["ls", "a:b@p1"]).ok();
    assert!(names.contains("README\n"));
    assert_eq!(folder.run(&["ls", "a:b@p1:/"]).ok(), names);
    assert_eq!(folder.run(&["ls", "a:b@p1@0:/"]).ok(), names);
    assert_eq!(folder.run(&["ls", "a:b@p1:README"]).ok(), "README\n");
}

#[test]
fn names_that_are_not_utf8_are_found_and_shown_escaped() {
    let folder = Folder::with(&["block-4k"]);
    let argument = OsString::from_vec(b"block-4k.img:/dir/caf\xe9 \\ space".to_vec());
    let shown = folder.run(&[OsString::from("stat"), argument.clone()]).ok();
    assert!(shown.contains("/dir/caf\\xe9 \\x5c space"), "{shown}");
    let json = folder.run(&[OsString::from("stat"), "--json".into(), argument]).ok();
    assert!(json.contains(r#""name":"caf\\xe9 \\x5c space""#), "{json}");
}

#[test]
fn what_is_missing_fails_with_1_and_is_named() {
    let folder = Folder::with(&["block-1k"]);
    for (arguments, object) in [
        (vec!["ls", "nothing.img"], "nothing.img: No such file"),
        (vec!["cat", "nothing.img:/a"], "nothing.img: No such file"),
        (vec!["ls", "."], ".: is a directory"),
        (vec!["stat", "block-1k.img:/nothing"], "block-1k.img:/nothing: no such file"),
        (vec!["cat", "block-1k.img:/dir"], "block-1k.img:/dir: is a directory"),
        (vec!["ls", "block-1k.img:/README/x"], "block-1k.img:/README/x: not a directory"),
        (vec!["cat", "block-1k.img:/loop"], "block-1k.img:/loop: too many levels"),
    ] {
        let message = folder.run(&arguments).fails(1);
        assert!(message.starts_with(&format!("e2dax: {object}")), "{arguments:?}: {message}");
    }
}

#[test]
fn what_is_broken_or_not_supported_fails_with_8_and_says_why() {
    let folder = Folder::with(&["ext4-extents", "ext3-recover"]);
    fs::write(folder.path("zeros.img"), vec![0; 65536]).unwrap();
    fs::write(folder.path("short.img"), b"short").unwrap();
    for (image, why) in [
        ("ext4-extents.img", "extents"),
        ("ext3-recover.img", "journal"),
        ("zeros.img", "zeros"),
        ("short.img", "too small"),
    ] {
        let message = folder.run(&["info", image]).fails(8);
        assert!(message.starts_with(&format!("e2dax: {image}: ")) && message.contains(why), "{message}");
    }
    folder.run(&["ls", "--ignore-journal", "ext3-recover.img"]).ok();
}

#[test]
fn what_makes_no_sense_fails_with_2() {
    let folder = Folder::with(&["block-1k"]);
    for arguments in [
        vec!["nothing"],
        vec!["ls"],
        vec!["ls", "--device", "tape", "block-1k.img"],
        vec!["ls", "--superblock", "seven", "block-1k.img"],
        vec!["cp", "block-1k.img", "elsewhere"],
        vec!["find", "block-1k.img", "-type", "z"],
        vec!["xattr", "--raw", "block-1k.img:/README"],
    ] {
        folder.run(&arguments).fails(2);
    }
}

#[test]
fn every_kind_of_device_shows_the_same() {
    let folder = Folder::with(&["block-2k"]);
    let shown = folder.run(&["ls", "-lRi", "block-2k.img"]).ok();
    for device in ["mmap", "file", "ram"] {
        assert_eq!(folder.run(&["ls", "-lRi", "--device", device, "block-2k.img"]).ok(), shown, "{device}");
    }
}

#[test]
fn a_broken_superblock_is_replaced_by_a_backup() {
    let folder = Folder::with(&["meta-bg"]);
    let names = folder.run(&["ls", "meta-bg.img"]).ok();
    let mut bytes = fs::read(folder.path("meta-bg.img")).unwrap();
    bytes[1024..2048].fill(0);
    fs::write(folder.path("meta-bg.img"), &bytes).unwrap();
    folder.run(&["ls", "meta-bg.img"]).fails(8);
    assert_eq!(folder.run(&["ls", "--superblock", "257:1024", "meta-bg.img"]).ok(), names);
}

#[test]
fn nobody_reading_the_output_is_no_reason_to_complain() {
    let folder = Folder::with(&["names"]);
    for verb in ["ls", "find", "manifest", "tree"] {
        let mut command = folder.command(&[verb, "names.img"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{verb}");
    }
}

#[test]
fn reading_changes_no_byte_of_an_image_and_needs_no_permission_to() {
    let folder = Folder::with(&["block-4k"]);
    let path = folder.path("block-4k.img");
    let before = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    for verb in ["info", "tree", "df", "du", "manifest"] {
        folder.run(&[verb, "block-4k.img"]).ok();
    }
    assert!((fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap()) == before);
}
