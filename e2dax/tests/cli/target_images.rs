//! What `mkfs` writes to: nothing is destroyed before a new image is whole, and sizes leave the room that they promise.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::process::Command;

use e2dax_tests::{need_tools, tools};

use crate::common::Folder;

/// A folder with a directory `tree` that has a file of 3 MiB and a list of users.
fn with_tree() -> Folder {
    let folder = Folder::with(&[]);
    fs::create_dir_all(folder.path("tree/etc")).unwrap();
    fs::write(folder.path("tree/big"), vec![1; 3 << 20]).unwrap();
    fs::write(folder.path("tree/etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:44::/:/bin/sh\n").unwrap();
    fs::write(folder.path("tree/etc/group"), "root:x:0:\nstaff:x:50:\n").unwrap();
    folder
}

/// The names in a folder.
fn names(folder: &Folder) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder.root())
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_image_that_cannot_be_made_leaves_the_old_one_and_nothing_else() {
    let folder = with_tree();
    fs::write(folder.path("old.img"), b"precious").unwrap();
    let before = names(&folder);
    // The archive ends in the middle of a member.
    need_tools!("tar");
    tools::run(
        "tar",
        &["-cf", folder.path("a.tar").to_str().unwrap(), "-C", folder.path("tree").to_str().unwrap(), "."],
    )
    .unwrap();
    let whole = fs::read(folder.path("a.tar")).unwrap();
    fs::write(folder.path("a.tar"), &whole[..1 << 20]).unwrap();
    let message = folder.run(&["mkfs", "old.img", "-f", "--from", "a.tar"]).fails(1);
    assert!(message.contains("cut off"), "{message}");
    fs::remove_file(folder.path("a.tar")).unwrap();
    folder.run(&["mkfs", "old.img", "-f", "--from", "tree", "--size", "1M"]).fails(1);
    folder.run(&["mkfs", "old.img", "-f", "--from", "missing"]).fails(1);
    assert_eq!(fs::read(folder.path("old.img")).unwrap(), b"precious");
    assert_eq!(names(&folder), before);
    folder.run(&["mkfs", "old.img", "--from", "tree"]).fails(1);
    folder.run(&["mkfs", "old.img", "-f", "--from", "tree"]).ok();
    assert_eq!(names(&folder), before, "nothing is left beside it");
}

#[test]
fn source_and_target_are_never_one_file_and_an_image_is_no_stream() {
    let folder = with_tree();
    need_tools!("tar");
    tools::run(
        "tar",
        &["-cf", folder.path("a.tar").to_str().unwrap(), "-C", folder.path("tree").to_str().unwrap(), "."],
    )
    .unwrap();
    let before = fs::read(folder.path("a.tar")).unwrap();
    fs::hard_link(folder.path("a.tar"), folder.path("link.tar")).unwrap();
    for image in ["a.tar", "link.tar"] {
        folder.run(&["mkfs", image, "-f", "--from", "a.tar"]).fails(1);
    }
    let script = "\"$0\" mkfs a.tar -f --from - < a.tar";
    let run = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_e2dax")])
        .current_dir(folder.root())
        .output();
    assert_eq!(run.unwrap().status.code(), Some(1));
    assert_eq!(fs::read(folder.path("a.tar")).unwrap(), before);
    folder.run(&["mkfs", "-", "--from", "tree"]).fails(2);
    folder.run(&["mkfs", "/dev/null", "-f", "--from", "tree"]).fails(1);
}

#[test]
fn a_part_of_an_image_is_written_and_the_rest_left_alone() {
    let folder = with_tree();
    let file = File::options().read(true).write(true).create_new(true).open(folder.path("disk")).unwrap();
    file.set_len(16 << 20).unwrap();
    file.write_all_at(b"loader", 0).unwrap();
    file.write_all_at(b"last", (16 << 20) - 4).unwrap();
    folder.run(&["mkfs", "disk@2M", "--from", "tree", "--size", "12M"]).ok();
    let mut edges = [0; 6];
    file.read_exact_at(&mut edges, 0).unwrap();
    assert_eq!(&edges, b"loader");
    file.read_exact_at(&mut edges[..4], (16 << 20) - 4).unwrap();
    assert_eq!(&edges[..4], b"last");
    assert_eq!(file.metadata().unwrap().len(), 16 << 20);
    assert!(folder.run(&["ls", "disk@2M:/"]).ok().contains("big"));
    let message = folder.run(&["mkfs", "disk@2M", "-f", "--from", "tree", "--size", "15M"]).fails(1);
    assert!(message.contains("14680064"), "{message}");
    folder.run(&["mkfs", "disk@2M", "--from", "tree"]).fails(1);
}

#[test]
fn an_image_keeps_the_permissions_of_the_one_that_it_replaces_also_through_a_link() {
    let folder = with_tree();
    fs::write(folder.path("real.img"), b"x").unwrap();
    fs::set_permissions(folder.path("real.img"), std::os::unix::fs::PermissionsExt::from_mode(0o640))
        .unwrap();
    std::os::unix::fs::symlink("real.img", folder.path("name.img")).unwrap();
    folder.run(&["mkfs", "name.img", "-f", "--from", "tree"]).ok();
    assert!(fs::symlink_metadata(folder.path("name.img")).unwrap().is_symlink());
    assert_eq!(fs::metadata(folder.path("real.img")).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn owners_are_named_by_the_users_and_groups_of_the_image() {
    let folder = with_tree();
    folder.run(&["mkfs", "i.img", "--from", "tree", "--owner", "web:staff", "--root-owner", "web"]).ok();
    let text = folder.run(&["manifest", "i.img"]).ok();
    assert!(text.lines().any(|line| line.starts_with("/big f ") && line.contains(" 33 50 ")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("/ d ") && line.contains(" 33 44 ")), "{text}");
    let message = folder.run(&["mkfs", "j.img", "--from", "tree", "--owner", "nobody:staff"]).fails(2);
    assert!(message.contains("nobody"), "{message}");
}

#[test]
fn promised_room_is_free_for_everybody_and_comes_with_inodes() {
    let folder = with_tree();
    let info = |image: &str, key: &str| -> u64 {
        let text = folder.run(&["info", "--json", image]).ok();
        let at = text.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key}: {text}"));
        let rest = text[at..].split_once(':').unwrap().1.trim_start();
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    for (size, bytes, inodes) in
        [("auto+10M", 10 << 20, 2560), ("auto+10%", 300_000, 16), ("auto+1000inodes", 0, 1000)]
    {
        folder.run(&["mkfs", "i.img", "-f", "--from", "tree", "--size", size]).ok();
        let usable = info("i.img", "blocks_free").saturating_sub(info("i.img", "blocks_reserved")) * 4096;
        assert!(usable >= bytes, "{size}: {usable} bytes");
        assert!(info("i.img", "inodes_free") >= inodes, "{size}");
    }
}

#[test]
fn every_size_above_the_automatic_one_fits() {
    let folder = with_tree();
    fs::write(folder.path("tree/more"), vec![1; 20 << 20]).unwrap();
    folder.run(&["mkfs", "i.img", "--from", "tree"]).ok();
    let least = fs::metadata(folder.path("i.img")).unwrap().len();
    for more in (0..=8).map(|step| step << 19).chain([40 << 20, 600 << 20]) {
        let size = (least + more).to_string();
        folder.run(&["mkfs", "j.img", "-f", "--quiet", "--from", "tree", "--size", &size]).ok();
        if tools::have("e2fsck") {
            tools::e2fsck_fn(&folder.path("j.img")).unwrap();
        }
    }
}

#[test]
fn verbs_keep_the_time_that_they_are_told_and_leave_alone_what_they_do_not_change() {
    let folder = with_tree();
    let told = |arguments: &[&str]| {
        let run = folder.command(arguments).env("SOURCE_DATE_EPOCH", "1000000000").output().unwrap();
        assert!(run.status.success(), "{arguments:?}: {}", tools::words(&run));
    };
    for image in ["a.img", "b.img"] {
        told(&["mkfs", image, "--from", "tree"]);
        told(&["mkdir", &format!("{image}:/new")]);
        told(&["truncate", "-s", "5000", &format!("{image}:/etc/passwd")]);
        told(&["touch", &format!("{image}:/touched")]);
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    let before = fs::read(folder.path("a.img")).unwrap();
    assert!(before == fs::read(folder.path("b.img")).unwrap(), "the same commands, the same bytes");
    folder.run(&["rm", "-f", "a.img:/missing"]).ok();
    folder.run(&["touch", "-c", "a.img:/missing"]).ok();
    folder.run(&["mkdir", "a.img:/new"]).fails(1);
    assert!(before == fs::read(folder.path("a.img")).unwrap(), "nothing was changed");
    for image in ["c.img", "d.img"] {
        told(&["mkfs", "empty.img", "-f", "--size", "4M"]);
        fs::rename(folder.path("empty.img"), folder.path(image)).unwrap();
    }
    assert!(
        fs::read(folder.path("c.img")).unwrap() == fs::read(folder.path("d.img")).unwrap(),
        "empty images too"
    );
}

#[test]
fn capabilities_are_written_as_text_and_stored_as_bytes() {
    let folder = with_tree();
    folder.run(&["mkfs", "i.img", "--from", "tree"]).ok();
    folder.run(&["setfattr", "-n", "security.capability", "-v", "cap_net_raw+ep", "i.img:/big"]).ok();
    let text = folder.run(&["manifest", "i.img"]).ok();
    assert!(text.contains("security.capability:0100000200200000000000000000000000000000"), "{text}");
    folder.run(&["setfattr", "-n", "security.capability", "-v", "cap_net_rwa+ep", "i.img:/big"]).fails(2);
    folder.run(&["setfattr", "-n", "security.capability", "-v", "0x00", "i.img:/big"]).fails(2);
}

#[test]
fn a_size_that_no_pmem_driver_maps_is_told() {
    let folder = with_tree();
    let run = folder.run(&["mkfs", "i.img", "--from", "tree", "--size", "9M"]);
    assert_eq!(run.code(), 0);
    assert!(run.err().contains("no multiple of 2 MiB"), "{}", run.err());
}
