//! Repairs that chance does not find, each made on purpose.

use std::{fs, io::Write, path::Path, process::Stdio, sync::Arc};

use blockdev::BlockDevice;
use e2dax_tests::{Scratch, golden, need_tools, tools, tree};
use ext2_image::{
    check::Kind,
    repair::{Changes, UndoWriter, play, repair},
};

use crate::bench::{Bench, bytes_of, options};

/// Runs commands of debugfs that change an image.
pub(crate) fn debugfs(path: &Path, commands: &str) {
    let mut command = tools::command("debugfs");
    command
        .args(["-w", "-f", "-"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{commands}");
}

/// An image with a few files.
pub(crate) fn base(bench: &Bench, more: &[&str]) -> std::path::PathBuf {
    let path = bench.path("base.img");
    fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
    let mut args = vec!["-b", "1024"];
    args.extend(more);
    args.push(path.to_str().unwrap());
    tools::mke2fs(&args);
    for (name, bytes) in
        [("f", vec![b'F'; 5000]), ("g", (0..300_000u32).map(|nr| (nr % 251) as u8).collect())]
    {
        fs::write(bench.path(name), bytes).unwrap();
    }
    let write = |name: &str| format!("write {} d/{name}\n", bench.path(name).display());
    debugfs(&path, &format!("mkdir d\n{}{}symlink d/s f\n", write("f"), write("g")));
    path
}

/// Repairs the bytes, has e2fsck look, and gives what is there.
pub(crate) fn repaired(bench: &Bench, bytes: Vec<u8>, what: &str) -> (tree::Tree, Vec<Kind>) {
    let device = Arc::new(Scratch::new(bytes));
    let changes = Changes::new(&*device);
    let mut kinds = Vec::new();
    let report = repair(&changes, &options(), &mut |finding| {
        kinds.push(finding.kind);
        true
    })
    .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(report.clean, "{what}: {report:?}");
    changes.apply().unwrap();
    let path = bench.path("repaired.img");
    fs::write(&path, bytes_of(&*device)).unwrap();
    tools::e2fsck_fn(&path).unwrap_or_else(|said| panic!("{what}: {said}"));
    (tree::read(device).unwrap(), kinds)
}

#[test]
fn what_a_lost_superblock_or_descriptor_named_is_found_by_its_backups() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    for layout in [&["-t", "ext2"][..], &["-t", "ext2", "-g", "2048"], &["-t", "ext2", "-O", "^resize_inode"]]
    {
        let bytes = fs::read(base(&bench, layout)).unwrap();
        let wanted = tree::read(Arc::new(Scratch::new(bytes.clone()))).unwrap();
        for (name, range) in [
            ("superblock", 1024..2048),
            ("descriptors", 2048..3072),
            ("both", 0..4096),
            ("one group", 2080..2112),
        ] {
            let mut broken = bytes.clone();
            broken[range].fill(0);
            let (found, kinds) = repaired(&bench, broken, &format!("{layout:?}, {name}"));
            assert!(found == wanted, "{layout:?}, {name}: not the same tree");
            assert_eq!(
                kinds.contains(&Kind::SuperblockLost),
                matches!(name, "superblock" | "both"),
                "{kinds:?}"
            );
        }
    }
}

#[test]
fn a_file_with_extents_keeps_its_bytes_and_the_image_stays_ext2() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let ext4 =
        ["-t", "ext4", "-O", "^64bit,^metadata_csum,^flex_bg,^has_journal,^huge_file,^dir_nlink,^uninit_bg"];
    let path = base(&bench, &ext4);
    debugfs(&path, "feature -extents\n");
    let (found, kinds) = repaired(&bench, fs::read(&path).unwrap(), "extents");
    assert!(kinds.contains(&Kind::ForeignFlag), "{kinds:?}");
    assert_eq!(found[&b"/d/g"[..]].content, fs::read(bench.path("g")).unwrap());
    assert_eq!(found[&b"/d/f"[..]].content, vec![b'F'; 5000]);
}

#[test]
fn a_repair_is_put_back_by_its_undo_file_and_by_e2undo() {
    need_tools!("mke2fs", "debugfs", "e2fsck", "e2undo");
    let bench = Bench::new();
    let path = base(&bench, &["-t", "ext2"]);
    debugfs(&path, "clri d/f\nsif d/g block[0] 3\nsif / links_count 77\n");
    let broken = fs::read(&path).unwrap();
    let device = Scratch::new(broken.clone());
    let changes = Changes::new(&device);
    assert!(repair(&changes, &options(), &mut |_| true).unwrap().clean);
    let mut superblock = [0; 1024];
    changes.read_at(1024, &mut superblock).unwrap();
    let undo = bench.path("undo");
    let file = fs::File::options().read(true).write(true).create_new(true).open(&undo).unwrap();
    let writer = std::cell::RefCell::new(Some(UndoWriter::new(&file)));
    let error = |error: std::io::Error| blockdev::Error::Io {
        op: "write",
        offset: 0,
        errno: None,
        message: error.to_string(),
    };
    let stored: Result<u64, blockdev::Error> = changes
        .store(&mut |at, old| writer.borrow_mut().as_mut().unwrap().add(at, old).map_err(error), &mut || {
            writer.borrow_mut().take().unwrap().finish(&superblock, 0).map_err(error)
        });
    assert!(stored.unwrap() > 0);
    let mended = bytes_of(&device);
    assert!(mended != broken);
    fs::write(&path, &mended).unwrap();
    tools::e2fsck_fn(&path).unwrap();
    // e2undo puts it back.
    tools::run("e2undo", &[undo.as_os_str(), path.as_os_str()]).unwrap();
    assert!(fs::read(&path).unwrap() == broken, "e2undo puts back something else");
    // So do we, and not into another image.
    let other = Scratch::new(golden::golden("empty"));
    assert!(play(&file, &other, false).is_err());
    play(&file, &device, false).unwrap();
    assert!(bytes_of(&device) == broken, "play puts back something else");
}

#[test]
fn groups_that_were_never_written_are_mended_and_their_descriptors_have_the_right_sums() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let make = || base(&bench, &["-O", "uninit_bg,^resize_inode", "-E", "lazy_itable_init=1"]);
    let whole = {
        let path = make();
        tools::e2fsck_fn(&path).unwrap();
        tree::read(Arc::new(Scratch::new(fs::read(&path).unwrap()))).unwrap()
    };
    assert!(whole.keys().any(|path| path.ends_with(b"d/g")));
    for (commands, kind) in [
        // The part of the table in which the files are is said to be unwritten.
        ("set_bg 0 itable_unused 2037\nset_bg 0 checksum calc\n", Some(Kind::EntryUnwritten)),
        ("set_bg 1 checksum 0x1234\n", Some(Kind::GroupChecksum)),
        ("set_bg 0 checksum 0\nset_bg 0 free_blocks_count 7\n", Some(Kind::GroupChecksum)),
        ("set_bg 0 free_blocks_count 7\nset_bg 0 checksum calc\n", Some(Kind::GroupFreeBlocks)),
        // A bitmap that was never written, although blocks of a file lie there.
        ("set_bg 0 flags 2\nset_bg 0 checksum calc\n", Some(Kind::BlocksMarkedFree)),
        ("unlink d/f\nunlink d/g\nrmdir lost+found\n", Some(Kind::Unattached)),
    ] {
        let path = make();
        debugfs(&path, commands);
        assert!(tools::e2fsck_fn(&path).is_err(), "{commands}");
        let (kept, kinds) = repaired(&bench, fs::read(&path).unwrap(), commands);
        assert!(kind.is_none_or(|kind| kinds.contains(&kind)), "{commands}: {kinds:?}");
        let files = |tree: &tree::Tree| {
            let mut all: Vec<_> = tree.values().map(|node| node.content.clone()).collect();
            all.retain(|content| !content.is_empty());
            all.sort();
            all
        };
        assert_eq!(files(&kept), files(&whole), "{commands}");
    }
}

#[test]
fn fields_that_only_later_formats_know_are_cleared() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &["-t", "ext3"]);
    debugfs(&path, "sif <9> flags 0x40000000\n");
    let (_, kinds) = repaired(&bench, fs::read(&path).unwrap(), "a flag of a reserved inode");
    assert_eq!(kinds, [Kind::ForeignFlag]);
    // A journal of version 1, with users as those of version 2 have that lie on a device of their own.
    let path = base(&bench, &["-t", "ext3"]);
    let mut bytes = fs::read(&path).unwrap();
    let at = crate::journals::journal_map(&path)[0] * 1024;
    bytes[at + 7] = 3;
    bytes[at + 67] = 2;
    let (_, kinds) = repaired(&bench, bytes, "a journal of version 1");
    assert_eq!(kinds, [Kind::JournalFields]);
}

#[test]
fn a_journal_in_an_image_has_one_file_system_and_is_not_elsewhere() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &["-t", "ext3"]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1024 + 0xd0..1024 + 0xe0].fill(0x5a);
    // e2fsck has no repair for this one.
    let (_, kinds) = repaired(&bench, bytes, "a journal that is said to be elsewhere");
    assert_eq!(kinds, [Kind::JournalElsewhere]);
    // One that does lie on another device is left to whoever has that, and so is what it holds.
    let path = base(&bench, &["-t", "ext2"]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1024 + 0xd0..1024 + 0xe0].fill(0x5a);
    bytes[1024 + 92] |= 4;
    for incompat in [bytes[1024 + 96], bytes[1024 + 96] | 4] {
        bytes[1024 + 96] = incompat;
        let device = e2dax_tests::Scratch::new(bytes.clone());
        let error = crate::bench::repair_all(&device).unwrap_err();
        assert!(error.contains("journal on another device"), "{error}");
        assert!(crate::bench::bytes_of(&device) == bytes);
    }
    let path = base(&bench, &["-t", "ext3"]);
    let mut bytes = fs::read(&path).unwrap();
    let at = crate::journals::journal_map(&path)[0] * 1024;
    assert_eq!(bytes[at + 4..at + 8], [0, 0, 0, 4]);
    bytes[at + 64..at + 68].copy_from_slice(&[0xf9, 0x36, 0xbc, 0x61]);
    let (_, kinds) = repaired(&bench, bytes, "a journal of many");
    assert_eq!(kinds, [Kind::JournalUsers]);
}

#[test]
fn a_hole_in_a_directory_is_closed_and_the_superblock_stays_where_it_lies_in_block_0() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &["-b", "4096"]);
    // A second block, and none before it; no indirect block, which number 0 would be.
    debugfs(&path, "sif d block[3] 300\nsif d size 16384\n");
    let bytes = fs::read(&path).unwrap();
    let (tree, kinds) = repaired(&bench, bytes.clone(), "a directory with a hole");
    assert!(kinds.contains(&Kind::DirectoryHole), "{kinds:?}");
    assert!(tree.contains_key(&b"d/f"[..]) || tree.contains_key(&b"/d/f"[..]), "{:?}", tree.keys());
    let after = fs::read(bench.path("repaired.img")).unwrap();
    // Features, sizes and the UUID; counts and times may differ.
    for field in [1024..1028, 1024 + 24..1024 + 44, 1024 + 92..1024 + 136] {
        assert_eq!(after[field.clone()], bytes[field]);
    }
}

#[test]
fn what_a_sound_image_has_no_use_for_is_cleared_and_all_else_is_kept() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    // A symlink with a pointer more, in an image of ext2.
    let path = base(&bench, &[]);
    let target = "t".repeat(80);
    debugfs(&path, &format!("symlink long {target}\nsif long block[2] 548102836\n"));
    let (tree, kinds) = repaired(&bench, fs::read(&path).unwrap(), "a symlink with a pointer more");
    assert!(kinds.contains(&Kind::IllegalBlock) && !kinds.contains(&Kind::Symlink), "{kinds:?}");
    assert!(tree.values().any(|node| node.content == target.as_bytes()), "{:?}", tree.keys());
    // Inodes that were never written, which only uninit_bg knows; a journal elsewhere.
    let path = base(&bench, &[]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[2048 + 28] = 7;
    bytes[1024 + 0xd0..1024 + 0xe0].fill(0x5a);
    let (_, kinds) = repaired(&bench, bytes, "fields of features that are not there");
    assert_eq!(kinds, [Kind::GroupFlags, Kind::JournalElsewhere]);
    // The list of bad blocks with data in its inode.
    let path = base(&bench, &[]);
    debugfs(&path, "sif <1> flags 0x10000000\n");
    let (_, kinds) = repaired(&bench, fs::read(&path).unwrap(), "bad blocks with a flag");
    assert_eq!(kinds, [Kind::ForeignFlag]);
    // Others that are reserved.
    let path = base(&bench, &[]);
    debugfs(&path, "sif <5> flags 0x80000\nsif <9> flags 0x80000\n");
    let (_, kinds) = repaired(&bench, fs::read(&path).unwrap(), "extents of reserved inodes");
    assert_eq!(kinds, [Kind::ForeignFlag, Kind::ForeignFlag]);
    // The resize inode leads to what is no block, beside its own.
    let path = base(&bench, &["-O", "resize_inode"]);
    let mut bytes = fs::read(&path).unwrap();
    let double = tools::run("debugfs", &["-c", "-R", "stat <7>", path.to_str().unwrap()]).unwrap();
    let double = String::from_utf8(double).unwrap();
    let double: usize =
        double.split("(DIND):").nth(1).unwrap().split(',').next().unwrap().trim().parse().unwrap();
    bytes[double * 1024 + 1020..double * 1024 + 1024].fill(0xff);
    let (_, kinds) = repaired(&bench, bytes, "a resize inode with a pointer more");
    assert_eq!(kinds[0], Kind::ResizeInode, "{kinds:?}");
}

#[test]
fn a_journal_is_found_by_its_copy_in_the_superblock_and_brings_the_descriptors_back() {
    need_tools!("e2fsck");
    let bench = Bench::new();
    let mut bytes = golden::golden("ext3-recover");
    let (before, _) = repaired(&bench, bytes.clone(), "a full journal");
    // The journal has this block as it should be.
    bytes[2048 + 8..2048 + 12].copy_from_slice(&7u32.to_le_bytes());
    let (after, _) = repaired(&bench, bytes, "a full journal, and no table of inodes");
    assert!(before == after, "{:?} {:?}", before.keys(), after.keys());
}

#[test]
fn metadata_that_a_file_claims_for_pointers_stays_as_it_is() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let path = base(&bench, &[]);
    let before = tree::read(Arc::new(Scratch::new(fs::read(&path).unwrap()))).unwrap();
    // The table of inodes is no indirect block: few of its words are numbers of blocks.
    let bytes = fs::read(&path).unwrap();
    let table = u32::from_le_bytes(bytes[2048 + 8..2048 + 12].try_into().unwrap());
    for block in [2, table] {
        debugfs(&path, &format!("sif d/f block[IND] {block}\n"));
        let (after, _) = repaired(&bench, fs::read(&path).unwrap(), "metadata as an indirect block");
        for (name, node) in &before {
            let same = after.get(name).is_some_and(|other| other.kind == node.kind);
            assert!(same, "{}: {:?}", name.escape_ascii(), after.keys());
        }
        let large = |tree: &tree::Tree| {
            tree.iter().find(|(name, _)| name.ends_with(b"d/g")).unwrap().1.content.clone()
        };
        assert!(large(&before) == large(&after));
    }
}
