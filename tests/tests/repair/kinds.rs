//! Repairs that chance does not find, each made on purpose.

use std::{fs, io::Write, path::Path, process::Stdio, sync::Arc};

use blockdev::BlockDevice;
use e2dax_tests::{Scratch, golden, need_tools, tools, tree};
use ext2_image::{
    check::Kind,
    jbd2,
    repair::{Changes, UndoWriter, play, repair},
};

use crate::bench::{Bench, bytes_of, options, repair_all};

/// Runs commands of debugfs that change an image.
fn debugfs(path: &Path, commands: &str) {
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
fn base(bench: &Bench, more: &[&str]) -> std::path::PathBuf {
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
fn repaired(bench: &Bench, bytes: Vec<u8>, what: &str) -> (tree::Tree, Vec<Kind>) {
    let device = Arc::new(Scratch::new(bytes));
    let changes = Changes::new(&*device);
    let mut kinds = Vec::new();
    let report = repair(&changes, &options(), &mut |finding| {
        kinds.push(finding.kind);
        true
    })
    .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(report.clean, "{what}: {report:?}");
    let stored: Result<u64, blockdev::Error> = changes.store(&mut |_, _| Ok(()), &mut || Ok(()));
    stored.unwrap();
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
fn a_journal_is_replayed_as_e2fsck_replays_it() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    let copies = bench.path("copies");
    // The first block begins as a block of the journal does, and is escaped there.
    let mut bytes = vec![0x5a; 1024];
    bytes[..4].copy_from_slice(&0xc03b_3998_u32.to_be_bytes());
    bytes.extend((0..3).flat_map(|nr| vec![nr; 1024]));
    fs::write(&copies, bytes).unwrap();
    let mut images = vec![("golden".to_owned(), golden::golden("ext3-recover"))];
    for sums in ["", "-c", "-c -v 2", "-c -v 3"] {
        for (name, work) in [
            ("plain", "jw -b 9000-9003 COPIES\n"),
            ("revoked", "jw -b 9000-9003 COPIES\njw -r 9001-9002\njw -b 9002 COPIES\n"),
            ("not committed", "jw -b 9000-9003 COPIES\njw -b 9010-9013 COPIES -c\n"),
        ] {
            let path = base(&bench, &["-t", "ext3"]);
            let work = work.replace("COPIES", copies.to_str().unwrap());
            debugfs(&path, &format!("jo {sums}\n{work}jc\n"));
            images.push((format!("{name} {sums}"), fs::read(&path).unwrap()));
        }
    }
    let mut transactions = 0;
    for (name, bytes) in images {
        let path = bench.path("theirs.img");
        fs::write(&path, &bytes).unwrap();
        let _ = tools::command("e2fsck").args(["-y", "-E", "journal_only"]).arg(&path).output().unwrap();
        let theirs = fs::read(&path).unwrap();
        let device = Scratch::new(bytes);
        assert!(jbd2::needs_replay(&device).unwrap(), "{name}");
        let done = jbd2::replay(&device).unwrap_or_else(|error| panic!("{name}: {error}")).unwrap();
        assert_eq!(done.broken, None, "{name}");
        transactions += done.transactions;
        let ours = bytes_of(&device);
        // The superblock and its backups have times of e2fsck; the journal's own superblock the number that is next.
        let differ: Vec<usize> = (0..ours.len() / 1024)
            .filter(|block| ours[block * 1024..][..1024] != theirs[block * 1024..][..1024])
            .filter(|block| {
                let block = &ours[block * 1024..][..1024];
                block[56..58] != [0x53, 0xef] && block[..4] != 0xc03b_3998_u32.to_be_bytes()
            })
            .collect();
        assert!(differ.is_empty(), "{name}: blocks {differ:?} differ, {done:?}");
        assert!(!jbd2::needs_replay(&device).unwrap(), "{name}");
        assert_eq!(jbd2::replay(&device).unwrap(), None, "{name}: a second time");
        let report = repair_all(&device).unwrap();
        assert!(report.clean, "{name}: {report:?}");
    }
    assert!(transactions > 12, "{transactions}");
}

#[test]
fn a_journal_with_a_broken_checksum_is_not_followed_past_it() {
    need_tools!("mke2fs", "debugfs");
    let bench = Bench::new();
    let copies = bench.path("copies");
    fs::write(&copies, vec![0x5a; 1024]).unwrap();
    let path = base(&bench, &["-t", "ext3"]);
    debugfs(&path, &format!("jo -c -v 3\njw -b 9000 {0}\njw -b 9001 {0}\njc\n", copies.display()));
    let mut bytes = fs::read(&path).unwrap();
    // The commits: magic, kind 2.
    let head = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 2];
    let commits: Vec<usize> =
        (0..bytes.len()).step_by(1024).filter(|&at| bytes[at..].starts_with(&head)).collect();
    assert_eq!(commits.len(), 2);
    bytes[commits[1] + 55] ^= 1;
    let device = Scratch::new(bytes);
    let done = jbd2::replay(&device).unwrap().unwrap();
    assert_eq!((done.transactions, done.blocks), (1, 1), "{done:?}");
    assert!(done.broken.is_some());
}
