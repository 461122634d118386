//! `check`.

use std::fs;

use crate::common::Folder;

#[test]
fn a_sound_image_is_clean_with_its_counts() {
    let folder = Folder::with(&["empty"]);
    let text = folder.run(&["check", "--backups", "empty.img"]).ok();
    assert_eq!(text, "empty.img: clean, 11/16 inodes, 23/256 blocks\n");
}

#[test]
fn each_finding_names_its_object_and_whether_e2fsck_mends_it() {
    let folder = Folder::with(&["empty"]);
    let path = folder.path("empty.img");
    let mut image = fs::read(&path).unwrap();
    // The root's link count and the free blocks of group 0.
    let table = u32::from_le_bytes(image[2048 + 8..2048 + 12].try_into().unwrap()) as usize * 1024;
    image[table + 256 + 26] = 9;
    image[2048 + 12] = 1;
    fs::write(&path, image).unwrap();
    let run = folder.run(&["check", "empty.img"]);
    assert_eq!(run.code(), 4);
    let text = run.out();
    assert!(text.contains("inode 2: i_links_count is 9, should be 3 (mends)\n"), "{text}");
    assert!(text.contains("group 0: bg_free_blocks_count is 1, should be 233 (mends)\n"), "{text}");
    assert!(text.ends_with("empty.img: 2 faults\n"), "{text}");
    let run = folder.run(&["check", "--json", "empty.img"]);
    assert_eq!(run.code(), 4);
    let links = r#"{"object":"inode","number":2,"kind":"Links","text":"i_links_count","found":9,"expected":3,"preen":"mends"}"#;
    assert!(run.out().lines().any(|line| line == links), "{}", run.out());
}

#[test]
fn exit_codes_are_those_of_e2fsck() {
    let folder = Folder::with(&["ext4-extents", "unclean"]);
    assert_eq!(folder.run(&["check", "unclean.img"]).code(), 4);
    let message = folder.run(&["check", "ext4-extents.img"]).fails(8);
    assert!(message.contains("extents"), "{message}");
    folder.run(&["check", "missing.img"]).fails(8);
    assert_eq!(folder.run(&["check"]).code(), 16);
    assert_eq!(folder.run(&["check", "--wrong", "unclean.img"]).code(), 16);
    assert_eq!(folder.run(&["check", "--help"]).code(), 0);
}
