//! The verbs that look.

use std::fs;

use e2dax_tests::{golden, need_tools, tools};

use crate::common::Folder;

#[test]
fn info_tells_what_mke2fs_made() {
    let folder = Folder::with(&["block-4k"]);
    let text = folder.run(&["info", "block-4k.img"]).ok();
    for line in ["block size:   4096 bytes", "state:        clean", "size:         768 blocks, 3145728 bytes"]
    {
        assert!(text.lines().any(|have| have == line), "{line}\n{text}");
    }
    let json = folder.run(&["info", "--json", "block-4k.img"]).ok();
    assert!(json.contains(r#""block_size":4096,"blocks":768,"#), "{json}");
    assert!(json.contains(r#""features":["ext_attr","resize_inode","dir_index","filetype""#), "{json}");
}

#[test]
fn ls_shows_modes_owners_sizes_and_devices() {
    let folder = Folder::with(&["block-4k"]);
    let text = folder.run(&["ls", "-l", "block-4k.img"]).ok();
    for line in [
        "-rw-rw-r-- 2   1000    100    2000 2023-11-14 22:13:20 README",
        "brw-r--r-- 1      0      0     8,1 2023-11-14 22:13:20 disk",
        "-rwsr-sr-x 1 100000 200000     100 2023-11-14 22:13:20 set-id",
        "lrwxrwxrwx 1      0      0       6 2023-11-14 22:13:20 fast -> README",
    ] {
        assert!(text.lines().any(|have| have == line), "{line}\n{text}");
    }
    let names = folder.run(&["ls", "-a", "block-4k.img"]).ok();
    assert!(names.starts_with(".\n..\nREADME\n"), "{names}");
}

#[test]
fn ls_goes_on_when_one_of_its_arguments_fails() {
    let folder = Folder::with(&["block-4k"]);
    let run = folder.run(&["ls", "block-4k.img:/nothing", "block-4k.img:/README"]);
    assert_eq!(run.code(), 1);
    assert!(run.out().ends_with("/README\n"), "{}", run.out());
}

#[test]
fn a_name_for_an_inode_that_is_reserved_is_followed_by_no_verb() {
    need_tools!("mke2fs", "debugfs");
    let folder = Folder::with(&[]);
    let image = folder.path("a.img");
    tools::mke2fs(&["-q".as_ref(), "-t".as_ref(), "ext3".as_ref(), image.as_os_str(), "4M".as_ref()]);
    let image = image.to_str().unwrap();
    tools::run("debugfs", &["-w", "-R", "ln <8> journal", image]).unwrap();
    let verbs = ["ls -l", "ls -Rl", "lsattr", "lsattr -R", "stat", "find", "tree", "manifest", "cat", "du"];
    for verb in verbs {
        let target = if matches!(verb, "stat" | "cat") { "a.img:/journal" } else { "a.img:/" };
        let run = folder.run(&verb.split(' ').chain([target]).collect::<Vec<_>>());
        assert!(run.err().contains("inode 8, which is reserved"), "{verb}: {}{}", run.out(), run.err());
        assert_eq!(run.code(), 8, "{verb}");
        assert!(!run.out().lines().any(|line| line.ends_with("journal")), "{verb}: {}", run.out());
    }
}

#[test]
fn json_lines_are_one_object_for_each_file() {
    let folder = Folder::with(&["specials"]);
    let paths = folder.run(&["find", "specials.img", "-0"]).ok();
    let json = folder.run(&["find", "specials.img", "--json"]).ok();
    assert_eq!(paths.matches('\0').count(), json.lines().count());
    for line in json.lines() {
        assert!(
            line.starts_with(r#"{"path":"/"#) && line.ends_with("}}") || line.ends_with("null}"),
            "{line}"
        );
    }
}

#[test]
fn tree_goes_on_behind_a_link_that_cannot_be_read() {
    let folder = Folder::with(&[]);
    folder.run(&["mkfs", "a.img", "--size", "1M", "-q"]).ok();
    folder.run(&["ln", "-s", &"long/".repeat(40), "a.img:/b"]).ok();
    folder.run(&["mkdir", "a.img:/a", "a.img:/c"]).ok();
    let nr = folder.run(&["ls", "-di", "a.img:/b"]).ok().split_whitespace().next().unwrap().to_owned();
    folder.run(&["poke", "a.img", &format!("inode:{nr}"), "block[0]", "4000000000", "--force"]).ok();
    let run = folder.run(&["tree", "a.img"]);
    assert_eq!(run.code(), 8);
    assert!(run.err().contains("a.img:/b: "), "{}", run.err());
    for name in ["a", "b", "c", "lost+found"] {
        assert!(run.out().lines().any(|line| line.ends_with(&format!(" {name}"))), "{}", run.out());
    }
}

#[test]
fn tree_draws_what_is_below() {
    let folder = Folder::with(&["block-4k"]);
    let text = folder.run(&["tree", "-d", "block-4k.img"]).ok();
    let expected = "/\n├── dir\n│   └── sub\n│       └── dir\n├── lost+found\n└── sticky\n";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn cat_writes_the_bytes_and_parts_of_them() {
    let folder = Folder::with(&["block-1k"]);
    let whole = folder.run(&["cat", "block-1k.img:/big"]);
    assert_eq!(whole.bytes().len(), 307_200);
    let part = folder.run(&["cat", "--at", "100000", "--len", "50", "block-1k.img:/big"]);
    assert_eq!(part.bytes(), &whole.bytes()[100_000..100_050]);
    let twice = folder.run(&["cat", "block-1k.img:/README", "block-1k.img:/README"]);
    assert_eq!(twice.bytes().len(), 4000);
}

#[test]
fn find_tests_names_types_sizes_and_bits_with_one_dash_or_two() {
    let folder = Folder::with(&["block-4k"]);
    let find = |tests: &[&str]| {
        let arguments = [&["find", "block-4k.img"], tests].concat();
        folder.run(&arguments).ok().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(find(&["-name", "s*", "-type", "f"]), ["/set-id", "/sparse"]);
    assert_eq!(find(&["--size", "+300000", "-links", "2"]), ["/big", "/big.again"]);
    assert_eq!(find(&["-perm", "4000"]), ["/set-id"]);
    assert_eq!(find(&["-type", "cbp"]), ["/disk", "/null", "/pipe"]);
    assert_eq!(find(&["-path", "/dir/*/README"]), ["/dir/sub/dir/README"]);
    assert_eq!(find(&["-inum", "2"]), ["/"]);
}

#[test]
fn du_sums_to_what_df_says_is_used() {
    let folder = Folder::with(&["block-4k", "sparse-triple"]);
    for image in ["block-4k", "sparse-triple"] {
        let name = format!("{image}.img");
        let sum: u64 = folder.run(&["du", "-s", &name]).ok().split(' ').next().unwrap().parse().unwrap();
        let json = folder.run(&["df", "--json", &name]).ok();
        let used =
            json.split(r#""used":"#).nth(1).unwrap().split(',').next().unwrap().parse::<u64>().unwrap();
        // What no path leads to: the inode of the resize reserve.
        assert!(sum <= used && used - sum <= 1 << 20, "{image}: du {sum}, df {used}");
        assert!(sum > 0);
    }
}

#[test]
fn xattr_decodes_lists_and_quotes_text() {
    let folder = Folder::with(&["xattr-256"]);
    let acl = folder.run(&["xattr", "xattr-256.img:/acl"]).ok();
    assert!(acl.starts_with("system.posix_acl_access=u::rw-,u:1000:rw-,"), "{acl}");
    let several = folder.run(&["xattr", "xattr-256.img:/several"]).ok();
    assert!(
        several.contains("user.a=\"one\"\n") && several.contains("user.binary=0x00ff0a0d\n"),
        "{several}"
    );
    let raw = folder.run(&["xattr", "-n", "user.binary", "--raw", "xattr-256.img:/several"]);
    assert_eq!(raw.bytes(), b"\x00\xff\n\r");
    let message = folder.run(&["xattr", "-n", "user.none", "xattr-256.img:/several"]).fails(1);
    assert!(message.contains("user.none"), "{message}");
}

#[test]
fn map_tells_holes_places_and_why_a_unit_cannot_be_mapped() {
    let folder = Folder::with(&["two-mib"]);
    let hole = folder.run(&["map", "two-mib.img:/hole"]).ok();
    assert!(hole.contains("\n      0 2097152 hole        -\n"), "{hole}");
    assert!(hole.contains("1 of 1 whole units of 2 MiB mappable by one PMD (100.0%)"), "{hole}");
    let mixed = folder.run(&["map", "two-mib.img:/mixed"]).ok();
    assert!(mixed.contains("unit 0 (bytes 0..2097152): hole\n"), "{mixed}");
    let data = folder.run(&["map", "two-mib.img:/data"]).ok();
    assert!(data.contains("unit 0 (bytes 0..2097152): fragmented\n"), "{data}");
    let all = folder.run(&["map", "--all", "--json", "two-mib.img"]).ok();
    assert!(all.ends_with(
        "\"units\":{\"whole\":4,\"mappable\":0,\"huge_zero\":2,\"hole\":1,\"fragmented\":1,\"unaligned\":0,\"past_eof\":0}}\n"
    ), "{all}");
}

#[test]
fn a_manifest_is_what_the_golden_image_is_committed_with() {
    let images = ["block-64k", "names", "xattr-128", "sparse-triple"];
    let folder = Folder::with(&images);
    for image in images {
        let committed = golden::testdata().join(format!("golden/{image}.manifest"));
        let name = format!("{image}.img");
        let arguments = ["manifest".as_ref(), "--check".as_ref(), committed.as_os_str(), name.as_ref()];
        assert_eq!(folder.run(&arguments).ok(), "", "{image}");
        let text = folder.run(&["manifest", &name]).ok();
        assert_eq!(
            folder.run_with(&["manifest", "--check", "-", &name], text.as_bytes()).ok(),
            "",
            "{image}"
        );
    }
}

#[test]
fn manifest_check_names_each_difference_and_exits_with_1_or_2() {
    let folder = Folder::with(&["block-4k"]);
    let text = folder.run(&["manifest", "block-4k.img"]).ok();
    let changed = text.replace("/empty f 0000", "/empty f 0644").replace("/sticky d ", "/stucky d ");
    assert_ne!(text, changed);
    let run = folder.run_with(&["manifest", "--check", "-", "block-4k.img"], changed.as_bytes());
    assert_eq!(run.code(), 1);
    let expected =
        "/empty: mode: 0644 != 0000\n/sticky: path: missing != there\n/stucky: path: there != missing\n";
    assert_eq!(run.out(), expected);
    fs::write(folder.path("broken.manifest"), "nothing of the kind\n").unwrap();
    let message = folder.run(&["manifest", "--check", "broken.manifest", "block-4k.img"]).fails(2);
    assert!(message.contains("broken.manifest: manifest line 1"), "{message}");
}
