//! Moving a directory, the one change that ext2 has no safe order for: by one transaction where the image has a journal,
//! by one store where both names fit in a block, or refused where that was asked for.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use blockdev::crash::{CrashLimits, PmemModel};
use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice, Recorder};
use e2dax_tests::{golden, need_tools, tools};
use ext2_core::{Errno, Ext2, FileKind, Follow, NewInode, OpenOptions, RenameFlags};

const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);
const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);

/// An image with `/a/moved/inside`, `/b/empty` and `/b/other/thing`, cleanly unmounted.
fn image(journal: bool) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    let mut args = vec!["-t", if journal { "ext3" } else { "ext2" }, "-b", "1024", "-I", "256", "-N", "64"];
    if journal {
        args.extend(["-J", "size=1"]);
    }
    args.extend([path.to_str().expect("a path of ours"), "3m"]);
    tools::mke2fs(&args);
    let device: Arc<RamDevice> =
        Arc::new(RamDevice::from_bytes(&std::fs::read(&path).expect("read")).expect("memory"));
    let shared: Arc<dyn BlockDevice> = device.clone();
    let fs = Ext2::open(shared, &OpenOptions::default()).expect("open");
    let root = fs.root().expect("root");
    let a = root.create(b"a", &DIR).expect("created");
    let b = root.create(b"b", &DIR).expect("created");
    a.create(b"moved", &DIR)
        .expect("created")
        .create(b"inside", &FILE)
        .expect("created")
        .write_at(0, b"kept")
        .expect("written");
    b.create(b"empty", &DIR).expect("created");
    b.create(b"other", &DIR).expect("created").create(b"thing", &FILE).expect("created");
    drop((root, a, b));
    fs.close().expect("closed");
    device.to_vec()
}

/// Renames on a recorded device; gives the log.
fn record(base: &[u8], from: &str, to: &str, flags: RenameFlags) -> Vec<blockdev::RecordedOp> {
    let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(base).expect("memory")));
    let shared: Arc<dyn BlockDevice> = recorder.clone();
    let fs =
        Ext2::open(shared, &OpenOptions { strict_rename: true, ..OpenOptions::default() }).expect("open");
    let (old_dir, old) = fs.resolve_parent(from.as_bytes()).expect("parent");
    let (new_dir, new) = fs.resolve_parent(to.as_bytes()).expect("parent");
    fs.rename(&old_dir, old, &new_dir, new, flags).expect("renamed");
    drop((old_dir, new_dir));
    fs.close().expect("closed");
    recorder.take()
}

/// Every crash state is mended by `e2fsck -p` alone, and then passes `holds`. Gives the number of states.
fn every_crash(base: &[u8], log: &[blockdev::RecordedOp], holds: impl Fn(&Ext2)) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    let mut model = PmemModel::new(base, log);
    model.limits = CrashLimits { exhaustive: 16, edges: 12, pairs: 4, samples: 4, seed: 1 };
    let report = model.run(|state: &blockdev::crash::CrashState<'_>| {
        golden::write_sparse(&path, state.image).expect("written");
        if let Err(said) = tools::e2fsck_p(Path::new(&path)) {
            panic!("a crash before store {} needs a human: {said}", state.op);
        }
        let mended = std::fs::read(&path).expect("read");
        let device: Arc<dyn BlockDevice> = Arc::new(RamDevice::from_bytes(&mended).expect("memory"));
        holds(&Ext2::open(device, &OpenOptions::read_only()).expect("open"));
        ControlFlow::Continue(())
    });
    report.states
}

fn there(fs: &Ext2, path: &str) -> bool {
    fs.resolve(path.as_bytes(), Follow::No).is_ok()
}

#[test]
fn with_a_journal_a_directory_moves_in_one_transaction() {
    need_tools!("mke2fs", "e2fsck");
    let base = image(true);
    let seen = std::sync::Mutex::new(BTreeSet::new());
    let log = record(&base, "/a/moved", "/b/here", RenameFlags::empty());
    let states = every_crash(&base, &log, |fs| {
        let place = (there(fs, "/a/moved/inside"), there(fs, "/b/here/inside"));
        assert!(place.0 ^ place.1, "the directory is at {place:?}");
        seen.lock().expect("a lock").insert(place);
    });
    assert_eq!(seen.into_inner().expect("a lock").len(), 2, "states of before and after");
    println!("{states} crash states of a move");
}

#[test]
fn with_a_journal_a_directory_replaces_an_empty_one_in_one_transaction() {
    need_tools!("mke2fs", "e2fsck");
    let base = image(true);
    let log = record(&base, "/a/moved", "/b/empty", RenameFlags::empty());
    every_crash(&base, &log, |fs| {
        let place = (there(fs, "/a/moved/inside"), there(fs, "/b/empty/inside"));
        assert!(place.0 ^ place.1, "the directory is at {place:?}");
    });
}

#[test]
fn with_a_journal_two_directories_change_places_in_one_transaction() {
    need_tools!("mke2fs", "e2fsck");
    let base = image(true);
    let log = record(&base, "/a/moved", "/b/other", RenameFlags::EXCHANGE);
    every_crash(&base, &log, |fs| {
        let before = there(fs, "/a/moved/inside") && there(fs, "/b/other/thing");
        let after = there(fs, "/a/moved/thing") && there(fs, "/b/other/inside");
        assert!(before ^ after);
    });
}

/// The image with as many full blocks in `/b`, changed by `change`.
fn with_full_blocks(blocks: u64, change: impl FnOnce(&Ext2)) -> Vec<u8> {
    let device = Arc::new(RamDevice::from_bytes(&image(true)).expect("memory"));
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    let b = fs.resolve(b"/b", Follow::No).expect("there");
    let file = b.create(b"file", &FILE).expect("created");
    // Four such names fill a block, but for less than any other needs.
    let mut nr = 0;
    while b.size() <= blocks * 1024 {
        b.link(&file, format!("{nr:03}{}", "n".repeat(240)).as_bytes()).expect("linked");
        nr += 1;
    }
    // The last one was too many: its block stays, empty, and is taken away with it.
    b.unlink(format!("{:03}{}", nr - 1, "n".repeat(240)).as_bytes()).expect("removed");
    change(&fs);
    drop((b, file));
    fs.close().expect("closed");
    device.to_vec()
}

#[test]
fn with_a_journal_a_directory_moves_in_one_transaction_into_one_that_grows() {
    need_tools!("mke2fs", "e2fsck");
    // By the first block behind an indirect block.
    let base = with_full_blocks(12, |_| ());
    let name = format!("/b/{}", "h".repeat(240));
    let log = record(&base, "/a/moved", &name, RenameFlags::empty());
    every_crash(&base, &log, |fs| {
        let place = (there(fs, "/a/moved/inside"), there(fs, &format!("{name}/inside")));
        assert!(place.0 ^ place.1, "the directory is at {place:?}");
    });
}

#[test]
fn with_a_journal_and_no_lost_and_found_a_directory_replaces_an_empty_one_in_one_transaction() {
    need_tools!("mke2fs", "e2fsck");
    let base = with_full_blocks(1, |fs| fs.root().and_then(|root| root.rmdir(b"lost+found")).expect("empty"));
    let log = record(&base, "/a/moved", "/b/empty", RenameFlags::empty());
    every_crash(&base, &log, |fs| {
        let place = (there(fs, "/a/moved/inside"), there(fs, "/b/empty/inside"));
        assert!(place.0 ^ place.1, "the directory is at {place:?}");
        for entry in fs.read_dir("/").expect("listed") {
            let name = entry.expect("an entry").name;
            assert!(!name.starts_with(b"#"), "{name:?} was made by nobody");
        }
    });
}

#[test]
fn a_directory_renamed_in_its_block_changes_by_one_store() {
    need_tools!("mke2fs", "e2fsck");
    let base = image(false);
    let log = record(&base, "/a/moved", "/a/renamed", RenameFlags::empty());
    every_crash(&base, &log, |fs| {
        assert!(there(fs, "/a/moved/inside") ^ there(fs, "/a/renamed/inside"));
    });
}

#[test]
fn without_a_journal_a_strict_file_system_refuses_to_move_a_directory() {
    need_tools!("mke2fs");
    let device: Arc<dyn BlockDevice> = Arc::new(RamDevice::from_bytes(&image(false)).expect("memory"));
    let options = OpenOptions { strict_rename: true, ..OpenOptions::default() };
    let fs = Ext2::open(device, &options).expect("open");
    let (a, old) = fs.resolve_parent(b"/a/moved").expect("parent");
    let (b, new) = fs.resolve_parent(b"/b/here").expect("parent");
    let refused = fs.rename(&a, old, &b, new, RenameFlags::empty()).expect_err("refused");
    assert_eq!(refused.errno(), Errno::XDEV);
    assert!(there(&fs, "/a/moved/inside"));
}

#[test]
fn a_directory_that_is_renamed_in_its_own_on_a_full_disk_keeps_one_name_through_every_crash() {
    need_tools!("mke2fs", "e2fsck", "debugfs");
    let base = image(true);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("left");
    for after in 0.. {
        let device = Arc::new(Faulty::new(RamDevice::from_bytes(&base).expect("memory")));
        let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
        let root = fs.root().expect("root");
        let a = root.lookup(b"a").expect("found");
        let fill = root.create(b"fill", &FILE).expect("created");
        let mut end = 0;
        // No block is left for a copy of the directory's.
        while let Ok(len) = fill.write_at(end, &[1; 1024]) {
            end += len as u64;
        }
        assert_eq!(fs.statfs().expect("counts").blocks_free, 0);
        fs.sync().expect("synced");
        device.arm(Fault::from_then_on(Calls::WRITE, after));
        let done = fs.rename(&a, b"moved", &a, b"other", RenameFlags::empty());
        let has_failed = device.fired() > 0;
        std::fs::write(&path, device.inner().to_vec()).expect("written");
        device.disarm();
        let outcome = tools::e2fsck_p(&path);
        assert!(outcome.is_ok(), "write {after}, {done:?}: {outcome:?}");
        let left = Arc::new(RamDevice::from_bytes(&std::fs::read(&path).expect("read")).expect("memory"));
        let left = Ext2::open(left, &OpenOptions::read_only()).expect("open");
        let has = |name: &str| left.resolve(format!("/a/{name}/inside"), Follow::No).is_ok();
        assert!(has("moved") != has("other"), "write {after}, {done:?}");
        if !has_failed {
            assert!(done.is_ok() && after > 4, "{done:?} after {after}");
            break;
        }
    }
}
