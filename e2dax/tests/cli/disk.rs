//! Disks: tables that other tools find nothing to complain of, with the same identifiers each time.

use std::fs;

use e2dax_tests::{need_tools, tools};

use crate::common::Folder;

fn with_tree() -> Folder {
    let folder = Folder::with(&[]);
    fs::create_dir(folder.path("tree")).unwrap();
    fs::write(folder.path("tree/file"), vec![3; 5 << 20]).unwrap();
    fs::write(folder.path("esp.img"), vec![7; 1_000_001]).unwrap();
    fs::write(folder.path("boot.img"), vec![8; 3 << 20]).unwrap();
    folder
}

const OTHERS: [&str; 4] = ["--partition", "EFI=esp.img", "--partition", "BOOT=boot.img"];

#[test]
fn a_disk_has_its_partitions_and_nothing_to_complain_of() {
    need_tools!("sfdisk");
    let folder = with_tree();
    for (table, types) in [
        ("gpt", ["C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "BC13C2FF-59E6-4262-A352-B275FD6F7172"]),
        ("mbr", ["type=ef", "type=ea"]),
    ] {
        let arguments =
            ["mkfs", "disk.img", "--force", "--from", "tree", "--dax-align", "on", "--disk", table];
        let said = folder.run(&[&arguments[..], &OTHERS].concat()).ok();
        let path = folder.path("disk.img");
        let output = tools::command("sfdisk").arg("--verify").arg(&path).output().unwrap();
        let words = tools::words(&output);
        assert!(output.status.success() && output.stderr.is_empty(), "{words}");
        assert!(words.contains("No errors detected"), "{words}");
        let dump = tools::run("sfdisk", &["--dump", path.to_str().unwrap()]).unwrap();
        let dump = String::from_utf8(dump).unwrap();
        let starts = ["start=        4096", "start=        8192", "start=       16384"];
        for word in types.iter().chain(&starts) {
            assert!(dump.contains(word), "{word}: {dump}");
        }
        // What was printed is what Linux calls them.
        if table == "gpt" {
            let uuids = said.lines().filter_map(|line| line.split("PARTUUID=").nth(1));
            for uuid in uuids {
                assert!(dump.contains(&uuid.to_uppercase()), "{uuid}: {dump}");
            }
        }
        let bytes = fs::read(&path).unwrap();
        assert!(bytes[2 << 20..].starts_with(&fs::read(folder.path("esp.img")).unwrap()));
        assert!(bytes[4 << 20..].starts_with(&fs::read(folder.path("boot.img")).unwrap()));
        assert!(folder.run(&["check", "disk.img@p3"]).ok().contains("clean"));
        assert!(folder.run(&["dax-report", "disk.img@p3"]).ok().contains('2'));
        // Once more: the same bytes.
        folder.run(&[&arguments[..], &OTHERS].concat()).ok();
        assert!(bytes == fs::read(&path).unwrap());
    }
}

#[test]
fn a_sealed_disk_has_the_hash_tree_in_its_partition() {
    let folder = with_tree();
    let said = folder.run(&["mkfs", "disk.img", "--from", "tree", "--disk", "gpt", "--seal"]).ok();
    let root = said.lines().find_map(|line| line.strip_prefix("root hash: ")).unwrap();
    assert!(folder.run(&["check", "--seal", root, "disk.img@p1"]).ok().contains("sealed"));
}

#[test]
fn what_no_disk_has_is_refused_before_anything_is_made() {
    let folder = with_tree();
    let many: Vec<&str> = (0..4).flat_map(|_| ["--partition", "x=esp.img"]).collect();
    let said =
        folder.run(&[&["mkfs", "d.img", "--from", "tree", "--disk", "mbr"][..], &many].concat()).fails(1);
    assert!(said.contains("5 partitions are too many"), "{said}");
    folder.run(&["mkfs", "d.img", "--from", "tree", "--disk", "gpt", "--partition", "EFI=none.img"]).fails(1);
    folder.run(&["mkfs", "d.img", "--from", "tree", "--partition", "EFI=esp.img"]).fails(2);
    assert!(!folder.path("d.img").exists());
}
