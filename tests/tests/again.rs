//! A call of the device fails once, the caller does what failed again, and something else: what memory knows then is what the
//! image has when it is opened anew, and a check finds nothing in an image that is called clean.
//!
//! `E2DAX_AGAIN_EVERY=1` does it for each call of each operation and each of seven others; by default every eleventh time.

use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice};
use e2dax_tests::log_is_lost;
use ext2_core::{
    BlockSize, Closed, CompatFeatures, Ext2, FileKind, Follow, Inode, InodeFlags, NewInode, OpenOptions,
    Policy, RenameFlags, Result, RoCompatFeatures, SetAttr, Wait, XattrSet,
};
use ext2_image::check::{self, Outcome};
use ext2_image::mkfs::{self, Format, Fresh};

/// All calls that may change what is there.
const CHANGES: Calls = Calls::WRITE.union(Calls::ZERO).union(Calls::FENCE).union(Calls::FLUSH);

type Operation = fn(&Ext2) -> Result<()>;

fn at(fs: &Ext2, path: &str) -> Result<Inode> {
    fs.resolve(path, Follow::No)
}

fn file() -> NewInode {
    NewInode::new(FileKind::Regular, 0o755)
}

fn folder() -> NewInode {
    NewInode::new(FileKind::Directory, 0o755)
}

fn set(uid: Option<u32>, gid: Option<u32>, mode: Option<u16>) -> SetAttr {
    SetAttr { uid, gid, mode, ..SetAttr::default() }
}

fn rename(fs: &Ext2, from: &str, to: &str, new: &[u8], flags: RenameFlags) -> Result<()> {
    fs.rename(&fs.root()?, from.as_bytes(), &at(fs, to)?, new, flags)
}

/// A name that fills a block of a directory with three others.
const LONG: [u8; 250] = [b'n'; 250];

const OPERATIONS: &[(&str, Operation)] = &[
    ("chown of one", |fs| at(fs, "f")?.set_attr(&set(Some(70_000), None, None))),
    ("chown and chmod", |fs| at(fs, "f")?.set_attr(&set(Some(70_000), Some(80_000), Some(0o4711)))),
    ("chgrp", |fs| at(fs, "f")?.set_attr(&set(None, Some(70), None))),
    ("chmod", |fs| at(fs, "f")?.set_attr(&set(None, None, Some(0o4711)))),
    ("chattr", |fs| at(fs, "f")?.set_flags(InodeFlags::NODUMP)),
    ("grow past 2 GiB", |fs| at(fs, "f")?.truncate(3 << 30, Wait::Yes)),
    ("grow past 4 GiB", |fs| at(fs, "f")?.truncate(6 << 30, Wait::Yes)),
    ("append", |fs| at(fs, "f")?.append(&[8; 70_000]).map(drop)),
    ("shrink", |fs| at(fs, "f")?.truncate(5000, Wait::Yes)),
    ("shrink from 5 GiB", |fs| at(fs, "far")?.truncate(5000, Wait::Yes)),
    ("empty", |fs| at(fs, "x")?.truncate(0, Wait::Yes)),
    ("overwrite", |fs| at(fs, "f")?.write_all_at(3000, &[9; 9000])),
    ("write past the end", |fs| at(fs, "f")?.write_all_at(400_000, &[9; 90_000])),
    ("write much", |fs| at(fs, "f")?.write_all_at(30_000, &[9; 400_000])),
    ("write at 5 GiB", |fs| at(fs, "f")?.write_all_at(5 << 30, &[9; 9000])),
    ("punch", |fs| at(fs, "f")?.punch_hole(1000, 100_000, Wait::Yes)),
    ("zero", |fs| at(fs, "f")?.zero_range(1000, 100_000)),
    ("create", |fs| fs.root()?.create("n", &file()).map(drop)),
    ("mkdir", |fs| fs.root()?.create("n", &folder()).map(drop)),
    ("create in a new block", |fs| at(fs, "big")?.create(LONG, &file()).map(drop)),
    ("mkdir in a new block", |fs| at(fs, "big")?.create(LONG, &folder()).map(drop)),
    ("symlink", |fs| {
        fs.root()?.symlink("n", [b'a'; 200], &NewInode::new(FileKind::Symlink, 0o777)).map(drop)
    }),
    ("unlink", |fs| fs.root()?.unlink("f")),
    ("unlink with attributes", |fs| fs.root()?.unlink("x")),
    ("unlink one of two names", |fs| fs.root()?.unlink("second")),
    ("unlink a symlink", |fs| fs.root()?.unlink("l")),
    ("rmdir", |fs| fs.root()?.rmdir("e")),
    ("link", |fs| fs.root()?.link(&at(fs, "x")?, "n")),
    ("link in a new block", |fs| at(fs, "big")?.link(&at(fs, "x")?, LONG)),
    ("rename", |fs| rename(fs, "f", "/", b"n", RenameFlags::empty())),
    ("rename over", |fs| rename(fs, "f", "/", b"x", RenameFlags::empty())),
    ("exchange", |fs| rename(fs, "f", "/", b"x", RenameFlags::EXCHANGE)),
    ("rename a directory", |fs| rename(fs, "d", "/", b"n", RenameFlags::empty())),
    ("move a directory", |fs| rename(fs, "d", "big", b"n", RenameFlags::empty())),
    ("move into a new block", |fs| rename(fs, "f", "big", &LONG, RenameFlags::empty())),
    ("replace a directory", |fs| rename(fs, "d", "/", b"e", RenameFlags::empty())),
    ("first attribute", |fs| at(fs, "f")?.xattr_set(b"user.a", &[3; 300], XattrSet::Any)),
    ("another attribute", |fs| at(fs, "x")?.xattr_set(b"user.b", &[3; 300], XattrSet::Any)),
    ("one attribute less", |fs| at(fs, "x")?.xattr_remove(b"user.a")),
    ("the last attribute", |fs| at(fs, "one")?.xattr_remove(b"user.a")),
    ("attribute of a symlink", |fs| at(fs, "l")?.xattr_set(b"trusted.b", &[3; 300], XattrSet::Any)),
    ("sync", Ext2::sync),
];

/// What the image is, on which they are done.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// With all that mkfs gives it.
    Usual,
    /// Without features that are noted when they are used first.
    Plain,
    /// The Hurd's.
    Hurd,
}

fn base(kind: Kind, bytes: u64) -> Vec<u8> {
    let device = RamDevice::new(bytes).unwrap();
    let mut features = Format::default_features();
    if kind == Kind::Plain {
        features.compat = CompatFeatures::empty();
        features.ro_compat.remove(RoCompatFeatures::LARGE_FILE);
    }
    let format = Format { features, block_size: BlockSize::new(1024), ..Format::default() };
    mkfs::format(&device, &format, Fresh::Zeros).unwrap();
    if kind == Kind::Hurd {
        device.write_u32(1024 + 72, 1).unwrap();
    }
    let device = Arc::new(device);
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    for name in ["f", "x", "far", "one", "kept"] {
        let made = root.create(name, &file()).unwrap();
        made.write_all_at(0, &vec![name.as_bytes()[0]; 40_000]).unwrap();
        if kind == Kind::Plain {
            continue;
        }
        match name {
            "f" => {}
            "far" => made.write_all_at(5 << 30, b"far").unwrap(),
            _ => made.xattr_set(b"user.a", b"1", XattrSet::Any).unwrap(),
        }
        if name == "x" {
            made.xattr_set(b"user.c", &[1; 100], XattrSet::Any).unwrap();
        }
    }
    root.link(&at(&fs, "kept").unwrap(), "second").unwrap();
    root.symlink("l", [b'b'; 100], &NewInode::new(FileKind::Symlink, 0o777)).unwrap();
    for name in ["d", "e", "big"] {
        root.create(name, &folder()).unwrap();
    }
    at(&fs, "d").unwrap().create("inside", &file()).unwrap();
    let big = at(&fs, "big").unwrap();
    for nr in 0..3 {
        big.create([b'a' + nr; 250], &file()).unwrap();
    }
    drop((root, big));
    assert_eq!(fs.close().unwrap(), Closed::Clean);
    device.to_vec()
}

/// All that is there, by path; what a lookup finds and a listing does not, too.
fn view(fs: &Ext2) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![(String::new(), fs.root().unwrap())];
    while let Some((path, inode)) = left.pop() {
        let attr = inode.attr();
        let (kind, mode, uid, gid, size) = (attr.kind, attr.mode, attr.uid, attr.gid, attr.size);
        let (links, blocks, flags) = (attr.links, attr.blocks_512, attr.flags);
        let mut words =
            format!("{kind:?} {mode:o} {uid} {gid} {size} bytes {links} links {blocks} {flags:?}");
        words += &format!(" {:?}", inode.xattrs().unwrap());
        match kind {
            FileKind::Directory => {
                let names: Vec<_> =
                    inode.entries(0).unwrap().map(|entry| entry.unwrap().name.to_vec()).collect();
                for name in names.iter().filter(|name| ![&b"."[..], b".."].contains(&&name[..])) {
                    let path = format!("{path}/{}", String::from_utf8_lossy(name));
                    match inode.lookup(name) {
                        Ok(child) => left.push((path, child)),
                        Err(error) => drop(all.insert(path, error.to_string())),
                    }
                }
                for name in ["f", "x", "n", "d", "e", "second", "l"] {
                    if inode.lookup(name).is_ok() && !names.iter().any(|other| other == name.as_bytes()) {
                        all.insert(format!("{path}/{name}"), "is found, and not listed".to_owned());
                    }
                }
            }
            FileKind::Regular => {
                let runs: Vec<_> =
                    inode.extents().map(|run| run.map(|run| (run.start, run.count)).unwrap()).collect();
                let mut bytes = vec![0; size.min(500_000) as usize];
                inode.read_exact_at(0, &mut bytes).unwrap();
                words += &format!(" {runs:?} {:x}", crc32fast::hash(&bytes));
            }
            _ => {}
        }
        all.insert(path, words);
    }
    all
}

/// Lets a call fail in an operation, does that again or the one that is so many after it, and tells what is wrong then.
fn fails(
    base: &[u8],
    options: &OpenOptions,
    nr: usize,
    other: usize,
    fault: Fault,
) -> std::result::Result<bool, String> {
    let device = Arc::new(Faulty::new(RamDevice::from_bytes(base).unwrap()));
    let fs = Ext2::open(device.clone(), options).unwrap();
    view(&fs);
    let operation = OPERATIONS[nr].1;
    device.arm(fault);
    let first = operation(&fs);
    let has_failed = device.fired() > 0;
    device.disarm();
    // One that ended all writing may know other things than the device has.
    if !has_failed || fs.is_read_only() {
        return Ok(has_failed);
    }
    // What is done again may hide what the failure left from the other.
    let again = (first.is_err() && other == 0).then(|| operation(&fs));
    // Those that follow in the table are about the same file, mostly.
    let other = OPERATIONS[(nr + other) % OPERATIONS.len()];
    let _ = (other.1)(&fs);
    let _ = fs.root().unwrap().create("last", &file()).and_then(|last| last.write_all_at(0, &[1; 50_000]));
    // What a fence or a flush has lost is told once.
    let synced = fs.sync().or_else(|_| fs.sync());
    let live = view(&fs);
    let closed = fs.close();
    let told =
        |what: String| Err(format!("{first:?}, again {again:?}, then {}, {closed:?}: {what}", other.0));
    if let (Err(one), Err(other), true) = (&synced, &closed, options.log || options.batch)
        && log_is_lost(one)
        && log_is_lost(other)
    {
        return Ok(true);
    }
    if synced.is_err() || closed.is_err() {
        return told(format!("nothing fails any more: {synced:?}"));
    }
    let image = device.inner().to_vec();
    let there = view(&Ext2::open(device, &OpenOptions::read_only()).unwrap());
    if live != there {
        let differs = live.iter().filter(|(path, words)| there.get(*path) != Some(words));
        let differs = differs.map(|(path, words)| format!("{path}: {words}; there {:?}", there.get(path)));
        return told(differs.collect::<Vec<_>>().join("\n"));
    }
    let mut findings = Vec::new();
    let image = RamDevice::from_bytes(&image).unwrap();
    check::check(&image, &check::Options::default(), &mut |found| findings.push(found.to_string())).unwrap();
    if closed == Ok(Closed::Clean) && !findings.is_empty() {
        return told(format!("{findings:?}"));
    }
    match check::mend(&image, 1_700_000_000, &mut |_| {}).unwrap() {
        Outcome::Halts(why) => told(format!("needs a person: {why}")),
        _ => Ok(true),
    }
}

fn sweep(base: &[u8], options: &OpenOptions) {
    let every = std::env::var("E2DAX_AGAIN_EVERY").map_or(11, |n| n.parse().expect("a number"));
    let (mut tried, mut wrong) = (0, Vec::new());
    for (nr, (name, _)) in OPERATIONS.iter().enumerate() {
        for calls in [CHANGES, Calls::READ] {
            let all = (0..60).flat_map(|after| (0..7).map(move |other| (after, other)));
            for (after, other) in all.skip(nr % every).step_by(every) {
                match fails(base, options, nr, other, Fault::once(calls, after)) {
                    Ok(true) => tried += 1,
                    Ok(false) => break,
                    Err(words) => wrong.push(format!("{name}, call {after} of {calls:?}: {words}")),
                }
            }
        }
    }
    println!("{tried} calls failed");
    assert!(tried > 100 && wrong.is_empty(), "{}: {}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn what_is_done_again_after_a_failure_is_what_the_image_has() {
    sweep(&base(Kind::Usual, 8 << 20), &OpenOptions::default());
}

#[test]
fn the_same_where_blocks_of_attributes_are_shared() {
    sweep(&base(Kind::Usual, 8 << 20), &OpenOptions { share_xattrs: true, ..OpenOptions::default() });
}

#[test]
fn the_same_where_features_are_noted_when_they_are_used() {
    sweep(&base(Kind::Plain, 8 << 20), &OpenOptions::default());
}

#[test]
fn the_same_on_an_image_of_the_hurd() {
    sweep(&base(Kind::Hurd, 8 << 20), &OpenOptions { policy: Policy::Goal, ..OpenOptions::default() });
}

#[test]
fn the_same_behind_a_log() {
    sweep(&base(Kind::Usual, 20 << 20), &OpenOptions { log: true, ..OpenOptions::default() });
}

#[test]
fn the_same_in_a_batch() {
    sweep(&base(Kind::Usual, 20 << 20), &OpenOptions { batch: true, ..OpenOptions::default() });
}

#[test]
fn an_image_that_could_not_be_closed_is_in_use_while_it_changes() {
    let base = base(Kind::Usual, 8 << 20);
    let mut failed = 0;
    for after in 0..20 {
        let device = Arc::new(Faulty::new(RamDevice::from_bytes(&base).unwrap()));
        let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
        device.arm(Fault::once(CHANGES, after));
        let closed = fs.clone().close();
        device.disarm();
        if closed.is_ok() {
            break;
        }
        failed += 1;
        let made = fs.root().unwrap().create("after", &file());
        let Ok(made) = made else { continue };
        made.write_all_at(0, &[7; 100_000]).unwrap();
        made.sync().unwrap();
        let state = device.read_u32(1024 + 58).unwrap() & 1;
        assert_eq!(state, 0, "call {after}: {closed:?}, and it is called clean");
    }
    assert!(failed > 3);
}
