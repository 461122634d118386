//! Verbs that look inside an image and change single fields, beside what debugfs and dumpe2fs say of the same image.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2dax_tests::need_tools;

use crate::common::Folder;

/// What a program prints.
fn output(folder: &Folder, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder.root()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// An image that mke2fs and debugfs made: a file with a double indirect block, a small one, a directory, a link.
fn made_by_debugfs() -> Folder {
    let folder = Folder::with(&[]);
    let big: Vec<u8> = (0..400_000_u32).map(|at| (at / 1024) as u8 ^ at as u8).collect();
    fs::write(folder.path("big"), big).unwrap();
    fs::write(folder.path("small"), b"hi\n").unwrap();
    output(&folder, "mke2fs", &["-q", "-t", "ext2", "-b", "1024", "-I", "128", "a.img", "16M"]);
    let script =
        "write big big\nwrite small small\nmkdir d\nwrite small d/x\nsymlink lnk small\nwrite small <12>\n";
    fs::write(folder.path("script"), script).unwrap();
    output(&folder, "debugfs", &["-w", "-f", "script", "a.img"]);
    folder
}

fn e2fsck_is_silent(folder: &Folder, image: &str) {
    let run = Command::new("e2fsck").args(["-fn", image]).current_dir(folder.root()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}

#[test]
fn an_inode_is_named_by_its_number_wherever_a_path_is() {
    need_tools!("mke2fs", "debugfs");
    let folder = made_by_debugfs();
    let number = |path: &str| {
        let out = folder.run(&["ls", "-id", &format!("a.img:{path}")]).ok();
        out.split_whitespace().next().unwrap().to_owned()
    };
    let (small, dir) = (number("/small"), number("/d"));
    let of = |nr: &str, rest: &str| format!("a.img:<{nr}>{rest}");
    assert_eq!(folder.run(&["cat", &of(&small, "")]).ok(), "hi\n");
    assert_eq!(folder.run(&["cat", &of(&dir, "/x")]).ok(), "hi\n");
    assert_eq!(folder.run(&["ls", &of(&dir, "")]).ok(), "x\n");
    assert!(folder.run(&["stat", &of(&small, "")]).ok().contains(&format!("inode:      {small}\n")));
    folder.run(&["cp", &of(&small, ""), "out"]).ok();
    assert_eq!(fs::read(folder.path("out")).unwrap(), b"hi\n");
    folder.run(&["chmod", "600", &of(&small, "")]).ok();
    assert!(folder.run(&["stat", "a.img:/small"]).ok().contains("0600"));
    folder.run(&["touch", &of(&dir, "/new")]).ok();
    folder.run(&["rm", "a.img:/d/new"]).ok();
    // A name of that form is told by its slash, and an inode has no name that could be removed.
    assert_eq!(folder.run(&["cat", "a.img:/<12>"]).ok(), "hi\n");
    folder.run(&["rm", &of(&small, "")]).fails(1);
    folder.run(&["stat", "a.img:<99999>"]).fails(8);
    e2fsck_is_silent(&folder, "a.img");
}

#[test]
fn block_maps_are_those_of_debugfs() {
    need_tools!("mke2fs", "debugfs");
    let folder = made_by_debugfs();
    let theirs = output(&folder, "debugfs", &["-R", "stat big", "a.img"]);
    let theirs = theirs.split("BLOCKS:\n").nth(1).unwrap().split("\nTOTAL").next().unwrap();
    let ours = folder.run(&["stat", "a.img:/big"]).ok();
    let ours = ours.lines().find_map(|line| line.strip_prefix("blocks:")).unwrap().trim();
    assert_eq!(ours, theirs.trim());
    for block in [0, 11, 12, 13, 267, 268, 269, 390, 391, 100_000] {
        let block = block.to_string();
        let theirs = output(&folder, "debugfs", &["-R", &format!("bmap big {block}"), "a.img"]);
        assert_eq!(folder.run(&["map", "--at", &block, "a.img:/big"]).ok(), theirs, "block {block}");
    }
    let map = folder.run(&["map", "--blocks", "a.img:/big"]).ok();
    assert_eq!(map.matches(" indirect ").count(), 3, "{map}");
    assert!(folder.run(&["stat", "--json", "a.img:/big"]).ok().contains("\"pointers\":["));
}

#[test]
fn whose_a_block_is_is_what_icheck_and_ncheck_say() {
    need_tools!("mke2fs", "debugfs");
    let folder = made_by_debugfs();
    let blocks: Vec<u32> = (1..1200).step_by(7).chain([8193, 8194]).collect();
    let words: Vec<String> = blocks.iter().map(u32::to_string).collect();
    let theirs = output(&folder, "debugfs", &["-R", &format!("icheck {}", words.join(" ")), "a.img"]);
    let mut arguments = vec!["whose", "--json", "a.img"];
    arguments.extend(words.iter().map(String::as_str));
    let ours = folder.run(&arguments).ok();
    for line in theirs.lines().skip(1) {
        let (block, inode) = line.split_once('\t').unwrap();
        let line = ours.lines().find(|line| line.contains(&format!("\"block\":{block},"))).unwrap();
        match inode {
            "<block not found>" => {
                assert!(line.contains("\"inode\":null"), "{line}")
            }
            // The room for descriptors is also inode 7's.
            "7" => assert!(line.contains("reserved-descriptors") || line.contains("\"inode\":7,"), "{line}"),
            inode => assert!(line.contains(&format!("\"inode\":{inode},")), "{line} is not of {inode}"),
        }
    }
    let text = folder.run(&["whose", "a.img", "1", "2", "8193"]).ok();
    assert_eq!(
        text, "1: superblock\n2: group descriptors\n8193: copy of the superblock in group 1\n",
        "structures have no inode"
    );
    assert_eq!(folder.run(&["whose", "a.img", "--inode", "11"]).ok(), "11: /lost+found\n");
    folder.run(&["whose", "a.img", "99999"]).fails(1);
    folder.run(&["whose", "a.img"]).fails(2);
}

#[test]
fn groups_are_those_of_dumpe2fs() {
    need_tools!("mke2fs", "debugfs", "dumpe2fs");
    let folder = made_by_debugfs();
    let theirs = output(&folder, "dumpe2fs", &["a.img"]);
    let theirs: Vec<String> = theirs
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Free "))
        .filter(|line| (line.starts_with("blocks: ") || line.starts_with("inodes: ")) && line.contains('-'))
        .map(|line| line.replace(", ", " "))
        .collect();
    let ours = folder.run(&["groups", "a.img"]).ok();
    let ours: Vec<&str> = ours.lines().filter_map(|line| line.trim().strip_prefix("free ")).collect();
    assert_eq!(ours, theirs);
    assert_eq!(folder.run(&["groups", "--bad", "a.img"]).ok(), "");
    folder.run(&["groups", "--group", "9", "a.img"]).fails(8);
}

#[test]
fn names_that_were_removed_are_seen_in_the_blocks_of_their_directory() {
    need_tools!("mke2fs", "debugfs");
    let folder = made_by_debugfs();
    folder.run(&["rm", "a.img:/small"]).ok();
    let raw = folder.run(&["ls", "--raw", "a.img"]).ok();
    let line = raw.lines().find(|line| line.ends_with(" small")).expect(&raw);
    assert!(line.contains("removed"), "{line}");
    assert!(raw.lines().any(|line| line.ends_with(" d") && !line.contains("removed")), "{raw}");
    folder.run(&["ls", "--raw", "a.img:/big"]).fails(1);
}

#[test]
fn what_debugfs_deletes_comes_back_whole() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let folder = made_by_debugfs();
    assert_eq!(folder.run(&["deleted", "a.img"]).ok(), "nothing that was deleted can be found\n");
    let nr = folder.run(&["ls", "-i", "a.img:/big"]).ok();
    let nr = nr.split_whitespace().next().unwrap().to_owned();
    output(&folder, "debugfs", &["-w", "-R", "rm big", "a.img"]);
    let found = folder.run(&["deleted", "--json", "a.img"]).ok();
    assert!(found.starts_with(&format!("{{\"inode\":{nr},\"mode\":\"0")), "{found}");
    assert!(found.contains("\"blocks\":394,\"free\":394"), "{found}");
    let place = format!("a.img:<{nr}>");
    folder.run(&["undelete", &place, "a.img:/d/x"]).fails(1);
    folder.run(&["undelete", "a.img:/d", "a.img:/y"]).fails(2);
    folder.run(&["undelete", &place, "a.img:/d/back"]).ok();
    assert_eq!(folder.run(&["cat", "a.img:/d/back"]).bytes(), fs::read(folder.path("big")).unwrap());
    e2fsck_is_silent(&folder, "a.img");
    assert_eq!(folder.run(&["deleted", "a.img"]).ok(), "nothing that was deleted can be found\n");
    // Once more, and now somebody takes a block of it.
    output(&folder, "debugfs", &["-w", "-R", "rm d/back", "a.img"]);
    let before = fs::read(folder.path("a.img")).unwrap();
    let first = folder.run(&["hex", "--json", "a.img", "--inode", &nr]).ok();
    let first =
        first.split("\"i_block[0]\",\"value\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
    folder.run(&["poke", "a.img", "bit:block", &first, "used"]).ok();
    let message = folder.run(&["undelete", &place, "a.img:/d/back"]).fails(8);
    assert!(message.contains("1 of its 394 blocks are taken"), "{message}");
    folder.run(&["poke", "a.img", "bit:block", &first, "free"]).ok();
    assert_eq!(fs::read(folder.path("a.img")).unwrap(), before, "what is refused changes nothing");
}

#[test]
fn a_poke_changes_one_field_and_its_reverse_gives_the_image_back() {
    let folder = Folder::with(&["block-1k"]);
    let image = "block-1k.img";
    let before = fs::read(folder.path(image)).unwrap();
    let out = folder.run(&["poke", image, "superblock", "s_free_blocks_count", "7"]).ok();
    let was = out.split(": ").nth(2).unwrap().split(' ').next().unwrap().to_owned();
    assert!(out.starts_with("superblock: s_free_blocks_count: ") && out.ends_with(" -> 7\n"), "{out}");
    let after = fs::read(folder.path(image)).unwrap();
    let changed: Vec<usize> = (0..before.len()).filter(|&at| before[at] != after[at]).collect();
    assert!(changed.iter().all(|at| (1036..1040).contains(at)), "{changed:?}");
    folder.run(&["poke", image, "superblock", "free_blocks_count", &was]).ok();
    assert_eq!(fs::read(folder.path(image)).unwrap(), before);
    // What makes no sense needs --force, and can be mended although the image does not open.
    for (structure, field, value) in
        [("superblock", "magic", "0"), ("inode:2", "mode", "0170000"), ("inode:2", "block[0]", "4000000000")]
    {
        let message = folder.run(&["poke", image, structure, field, value]).fails(1);
        assert!(message.contains("--force"), "{message}");
        assert_eq!(fs::read(folder.path(image)).unwrap(), before);
    }
    for (field, value) in [("nonsense", "1"), ("links_count", "65536"), ("links_count", "x")] {
        let message = folder.run(&["poke", image, "inode", "2", field, value, "--force"]).fails(1);
        assert!(!message.contains("--force"), "{message}");
    }
    folder.run(&["poke", image, "superblock", "magic", "0", "--force"]).ok();
    folder.run(&["ls", image]).fails(8);
    assert!(folder.run(&["hex", image, "--superblock"]).ok().contains("0xef53 is expected"));
    folder.run(&["poke", image, "superblock", "magic", "0xef53"]).ok();
    assert_eq!(fs::read(folder.path(image)).unwrap(), before);
    for wrong in [&["nonsense", "a", "b"][..], &["inode", "a", "b"], &["bit:group", "1", "free"]] {
        let arguments: Vec<&str> = ["poke", image].iter().chain(wrong).copied().collect();
        folder.run(&arguments).fails(2);
    }
}

#[test]
fn every_structure_is_shown_with_its_fields() {
    need_tools!("mke2fs", "debugfs");
    let folder = made_by_debugfs();
    let hex = |arguments: &[&str]| {
        folder.run(&["hex", "a.img"].iter().chain(arguments).copied().collect::<Vec<_>>()).ok()
    };
    assert!(hex(&["--superblock"]).contains("s_log_block_size"));
    assert!(
        hex(&["--superblock=group:1"]).starts_with("superblock of group 1, 1024 bytes at byte 8389632\n")
    );
    assert!(hex(&["--group", "1"]).contains("bg_free_blocks_count"));
    assert!(hex(&["--block-bitmap", "0"]).contains("all used"));
    assert!(hex(&["--inode-bitmap", "0"]).contains("all free"));
    let map = folder.run(&["map", "--blocks", "a.img:/big"]).ok();
    let indirect = map.lines().find(|line| line.contains(" indirect ")).unwrap();
    let indirect = indirect.split_whitespace().last().unwrap();
    assert!(hex(&["--block", indirect]).starts_with("pointers in block "));
    let names = folder.run(&["map", "--at", "0", "a.img:/"]).ok();
    let names = hex(&["--block", names.trim()]);
    assert!(names.starts_with("directory block ") && names.contains("entry[0].rec_len"), "{names}");
    let small = folder.run(&["map", "--at", "0", "a.img:/small"]).ok();
    let bytes = hex(&["--block", small.trim()]);
    assert!(bytes.contains("68 69 0a 00") && bytes.contains("hi..") && bytes.contains("*\n"), "{bytes}");
    assert!(folder.run(&["hex", "a.img:/lnk"]).ok().contains("\"small\""));
    let both = folder.run(&["hex", "a.img:/lnk", "--inode", "2"]).fails(2);
    assert!(both.contains("two structures"), "{both}");
    hex(&["--inode", "2", "--json"]);
}

#[test]
fn a_journal_is_listed_block_by_block() {
    need_tools!("mke2fs");
    let folder = Folder::with(&["block-1k"]);
    output(&folder, "mke2fs", &["-q", "-t", "ext3", "j.img", "8M"]);
    let listed = folder.run(&["journal", "j.img"]).ok();
    assert!(listed.starts_with("inode 8, 1 block of its own\n") && listed.contains("superblock"), "{listed}");
    let message = folder.run(&["journal", "block-1k.img"]).fails(1);
    assert!(message.contains("has no journal"), "{message}");
}

#[test]
fn the_scripts_of_the_documentation_do_what_they_say() {
    need_tools!("e2fsck", "awk");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scripts");
    for name in ["lesson", "tester"] {
        let folder = Folder::with(&[]);
        let run = Command::new("sh")
            .arg(scripts.join(format!("{name}.sh")))
            .env("E2DAX", env!("CARGO_BIN_EXE_e2dax"))
            .current_dir(folder.root())
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success() && out.ends_with(&format!("{name} done\n")), "{name}:\n{out}{err}");
    }
}
