//! `check -p`, `-y`, `--dry-run`, `--undo`, `undo`, `--superblock auto` and `--rescue`.

use std::fs;

use e2dax_tests::{need_tools, tools};

use crate::common::Folder;

/// Breaks the root's link count and the free blocks of group 0 of `empty`, which `e2fsck -p` mends.
pub(crate) fn break_counts(image: &mut [u8]) {
    let table = u32::from_le_bytes(image[2048 + 8..2048 + 12].try_into().unwrap()) as usize * 1024;
    image[table + 256 + 26] = 9;
    image[2048 + 12] = 1;
}

/// Makes the mode of the root say no kind of file, which a person has to decide about.
pub(crate) fn break_root(image: &mut [u8]) {
    let table = u32::from_le_bytes(image[2048 + 8..2048 + 12].try_into().unwrap()) as usize * 1024;
    image[table + 256 + 1] &= 0x0f;
}

#[test]
fn preening_mends_what_needs_no_question_and_stops_at_what_does() {
    need_tools!("e2fsck");
    let folder = Folder::with(&["empty"]);
    let path = folder.path("empty.img");
    let sound = fs::read(&path).unwrap();
    assert_eq!(folder.run(&["check", "-p", "empty.img"]).code(), 0);
    assert!(fs::read(&path).unwrap() == sound, "a sound image was changed");
    let mut image = sound.clone();
    break_counts(&mut image);
    fs::write(&path, &image).unwrap();
    let run = folder.run(&["check", "-p", "empty.img"]);
    assert_eq!(run.code(), 1, "{}", run.out());
    tools::e2fsck_fn(&path).unwrap();
    break_root(&mut image);
    fs::write(&path, &image).unwrap();
    let run = folder.run(&["check", "-p", "empty.img"]);
    assert_eq!(run.code() & 4, 4);
    assert!(run.out().contains("needs a person"), "{}", run.out());
    let run = folder.run(&["check", "-y", "empty.img"]);
    assert_eq!(run.code(), 1, "{}", run.out());
    tools::e2fsck_fn(&path).unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(folder.run(&["check", "-y", "empty.img"]).code(), 0);
    assert!(fs::read(&path).unwrap() == before, "a second run changes something");
}

#[test]
fn a_dry_run_stores_nothing_and_an_undo_file_puts_all_of_it_back() {
    need_tools!("e2fsck");
    let folder = Folder::with(&["empty"]);
    let path = folder.path("empty.img");
    let mut broken = fs::read(&path).unwrap();
    break_counts(&mut broken);
    break_root(&mut broken);
    fs::write(&path, &broken).unwrap();
    let run = folder.run(&["check", "-y", "--dry-run", "empty.img"]);
    assert_eq!(run.code(), 1, "{}", run.out());
    assert!(run.out().contains("would store "), "{}", run.out());
    assert!(fs::read(&path).unwrap() == broken, "a dry run stores");
    let run = folder.run(&["check", "-y", "--json", "--undo", "a.undo", "empty.img"]);
    assert_eq!(run.code(), 1, "{}", run.out());
    tools::e2fsck_fn(&path).unwrap();
    folder.run(&["check", "-y", "--undo", "a.undo", "empty.img"]).fails(8);
    assert_eq!(folder.run(&["undo", "a.undo", "empty.img"]).code(), 0);
    assert!(fs::read(&path).unwrap() == broken, "not all of it was put back");
}

#[test]
fn a_lost_superblock_is_found_for_looking_and_written_back_by_a_repair() {
    need_tools!("e2fsck", "mke2fs");
    let folder = Folder::with(&[]);
    let path = folder.path("b.img");
    fs::File::create(&path).unwrap().set_len(20 << 20).unwrap();
    tools::mke2fs(&["-b", "1024", path.to_str().unwrap()]);
    folder.run_with(&["write", "b.img:/kept"], b"kept").ok();
    let mut image = fs::read(&path).unwrap();
    image[1024..2048].fill(0);
    fs::write(&path, &image).unwrap();
    folder.run(&["ls", "b.img"]).fails(8);
    assert!(folder.run(&["ls", "--superblock", "auto", "b.img"]).ok().contains("kept"));
    assert!(folder.run(&["ls", "--superblock", "8193", "b.img"]).ok().contains("kept"));
    folder.run(&["check", "-n", "b.img"]).fails(8);
    let run = folder.run(&["check", "-n", "--superblock", "auto", "b.img"]);
    assert!(run.code() <= 4, "{}", run.out());
    assert_eq!(folder.run(&["check", "-y", "b.img"]).code(), 1);
    tools::e2fsck_fn(&path).unwrap();
    assert_eq!(folder.run(&["cat", "b.img:/kept"]).ok(), "kept");
}

#[test]
fn what_is_left_of_an_image_that_is_cut_off_is_saved_and_what_is_missing_is_told() {
    need_tools!("e2fsck", "mke2fs");
    let folder = Folder::with(&[]);
    let path = folder.path("c.img");
    fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
    tools::mke2fs(&["-b", "1024", path.to_str().unwrap()]);
    let large: Vec<u8> = (0..6_000_000u32).map(|nr| (nr % 251) as u8).collect();
    folder.run_with(&["write", "c.img:/small"], b"small").ok();
    folder.run_with(&["write", "c.img:/large"], &large).ok();
    fs::File::options().write(true).open(&path).unwrap().set_len(4 << 20).unwrap();
    folder.run(&["ls", "c.img"]).fails(8);
    let names = folder.run(&["ls", "--rescue", "c.img"]);
    assert!(names.out().contains("small") && names.out().contains("large"), "{}", names.out());
    let run = folder.run(&["cp", "-r", "--rescue", "c.img:", "saved"]);
    assert_eq!(run.code(), 1);
    assert!(run.err().contains("large: ") && run.err().contains("bytes are missing"), "{}", run.err());
    assert_eq!(fs::read(folder.path("saved/small")).unwrap(), b"small");
    let saved = fs::read(folder.path("saved/large")).unwrap();
    assert_eq!(saved.len(), large.len());
    let same = saved.chunks(1024).zip(large.chunks(1024)).filter(|(a, b)| a == b).count();
    assert!(same > 2000, "{same} blocks were saved");
    assert!(
        saved.chunks(1024).zip(large.chunks(1024)).all(|(a, b)| a == b || a.iter().all(|byte| *byte == 0))
    );
    let run = folder.run(&["cat", "--rescue", "c.img:/large"]);
    assert!(run.code() != 0 && run.err().contains("large"), "{}", run.err());
    assert!(run.bytes() == saved, "cat saves something else than cp");
    assert_eq!(folder.run(&["cat", "--rescue", "c.img:/small"]).ok(), "small");
    // What is left is mended where it is.
    let run = folder.run(&["check", "-y", "c.img"]);
    assert_eq!(run.code(), 1, "{}{}", run.out(), run.err());
    tools::e2fsck_fn(&path).unwrap();
    assert_eq!(folder.run(&["cat", "c.img:/small"]).ok(), "small");
}

#[test]
fn a_journal_that_was_left_full_is_replayed_by_preening_and_before_a_change() {
    need_tools!("e2fsck");
    for first in [&["check", "-p", "ext3-recover.img"][..], &["touch", "ext3-recover.img:/x"]] {
        let folder = Folder::with(&["ext3-recover"]);
        folder.run(&["ls", "ext3-recover.img"]).fails(8);
        let run = folder.run(first);
        assert!(run.code() <= 1, "{}", run.err());
        assert!(run.err().contains("replayed"), "{}", run.err());
        folder.run(&["ls", "ext3-recover.img"]).ok();
        tools::e2fsck_fn(&folder.path("ext3-recover.img")).unwrap();
    }
}

#[test]
fn what_owners_use_is_said_and_set_right_where_the_files_of_quota_have_them() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let folder = Folder::with(&[]);
    let path = folder.path("q.img");
    fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
    tools::mke2fs(&["-b", "1024", "-O", "quota", path.to_str().unwrap()]);
    folder.run(&["check", "-n", "q.img"]).ok();
    let change = |what: &str| tools::run("debugfs", &["-w", "-R", what, path.to_str().unwrap()]).unwrap();
    change("mkdir d");
    let said = folder.run(&["check", "-n", "q.img"]);
    assert!(said.code() == 4 && said.out().contains("quota"), "{}", said.out());
    assert_eq!(folder.run(&["check", "-p", "q.img"]).code(), 1);
    tools::e2fsck_fn(&path).unwrap();
    // An owner without an entry gets none: what to do about it is said.
    change("sif d uid 7");
    let said = folder.run(&["check", "-y", "q.img"]);
    assert!(said.code() == 5 && said.err().contains("tune2fs"), "{} {}", said.out(), said.err());
}
