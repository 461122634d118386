//! The same questions at other doors: other calls, other handles, other orders, other widths.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use blockdev::crash::{CrashState, PmemModel, PmemOrder};
use blockdev::{Access, BlockDevice, Media, MmapDevice, Partition, RamDevice, Recorder};
use ext2_core::{
    Closed, Ext2, FileKind, Follow, Inode, InodeFlags, NewInode, OnError, OpenOptions, RenameFlags, SetAttr,
    Timestamp, XattrSet,
};
use ext2_dax::mmu::soft::{MapRequest, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, Errno, File, Leased, OpenFor, Wait};
use ext2_image::mkfs::{self, Format, Fresh};

use crate::setup::{device, file, finishes, format, fresh, inode, map, open, request};

const PAGE: u64 = 4096;
const UNIT: u64 = 2 << 20;

/// Every call that changes a file that is open, by its name.
fn changes(file: &File) -> Vec<(&'static str, Result<(), ext2_dax::Error>)> {
    let inode = file.inode();
    let now = Some(Timestamp { sec: 5, nsec: 0 });
    let core = |done: ext2_core::Result<()>| done.map_err(ext2_dax::Error::from);
    vec![
        ("write_at", file.write_at(10, b"x").map(drop)),
        ("write_all_at", file.write_all_at(9000, b"x")),
        ("zero_range", file.zero_range(0, 10)),
        ("punch_hole", file.punch_hole(0, PAGE, Wait::Yes)),
        ("truncate to less", file.truncate(1, Wait::Yes)),
        ("truncate to more", file.truncate(1 << 20, Wait::Yes)),
        ("lease", file.lease(0..PAGE, Access::Write).map(drop)),
        ("map", file.map(&SoftMmu::new(), &request(PAGE, Sharing::Shared)).map(drop)),
        ("write_at of the core", core(inode.write_at(0, b"x").map(drop))),
        ("truncate of the core", core(inode.truncate(9, Wait::Yes))),
        ("punch_hole of the core", core(inode.punch_hole(0, PAGE, Wait::Yes))),
        ("zero_range of the core", core(inode.zero_range(0, 10))),
        ("fallocate, keeping the size", core(inode.fallocate(3, 0, PAGE))),
        ("fallocate with zeros", core(inode.fallocate(0x11, 0, PAGE))),
        ("owner", core(inode.set_attr(&SetAttr { uid: Some(7), ..SetAttr::default() }))),
        ("mode", core(inode.set_attr(&SetAttr { mode: Some(0o600), ..SetAttr::default() }))),
        ("times", core(inode.set_attr(&SetAttr { mtime: now, atime: now, ..SetAttr::default() }))),
        ("attribute", core(inode.xattr_set(b"user.k", b"v", XattrSet::Any))),
        ("attribute's end", core(inode.xattr_remove(b"user.there"))),
    ]
}

#[test]
fn a_flag_that_is_set_while_a_file_is_open_ends_every_way_to_change_it() {
    // What may only grow is not mapped by a writer, whatever else it is: Linux asks that first.
    let both = InodeFlags::IMMUTABLE | InodeFlags::APPEND;
    for (flags, of_map) in [(InodeFlags::IMMUTABLE, Errno::PERM), (both, Errno::ACCES)] {
        let (device, fs) = fresh(16);
        let file = file(&fs, b"f");
        file.write_at(0, &[1; 8192]).unwrap();
        file.inode().xattr_set(b"user.there", b"v", XattrSet::Any).unwrap();
        file.inode().set_flags(flags).unwrap();
        let before = device.to_vec();
        for (what, done) in changes(&file) {
            let errno = done.as_ref().err().map(ext2_dax::Error::errno);
            let expected = if what == "map" { of_map } else { Errno::PERM };
            assert_eq!(errno, Some(expected), "{flags:?}, {what}");
        }
        let root = fs.ext2().root().unwrap();
        assert!(root.unlink(b"f").is_err_and(|error| error.is(Errno::PERM)));
        assert!(root.link(file.inode(), b"g").is_err_and(|error| error.is(Errno::PERM)));
        let renamed = fs.ext2().rename(&root, b"f", &root, b"g", RenameFlags::empty());
        assert!(renamed.is_err_and(|error| error.is(Errno::PERM)));
        assert!(device.to_vec() == before, "{flags:?}: the image changed");
        file.inode().set_flags(InodeFlags::empty()).unwrap();
        file.write_at(0, b"again").unwrap();
    }
}

#[test]
fn a_file_system_that_is_open_read_only_refuses_every_call_and_no_byte_changes() {
    let (device, fs) = fresh(16);
    let made = file(&fs, b"f");
    made.write_at(0, &[1; 8192]).unwrap();
    made.inode().xattr_set(b"user.there", b"v", XattrSet::Any).unwrap();
    fs.ext2().root().unwrap().create(b"d", &NewInode::new(FileKind::Directory, 0o755)).unwrap();
    drop(made);
    assert_eq!(fs.ext2().clone().close(), Ok(Closed::Clean));
    let before = device.to_vec();
    let ext2 = Ext2::open(device.clone(), &OpenOptions::read_only()).unwrap();
    let fs = DaxFs::new(ext2.clone(), DaxOptions::default());
    let file = File::open(&fs, ext2.resolve("/f", Follow::No).unwrap(), OpenFor::Reading).unwrap();
    for (what, done) in changes(&file) {
        let errno = done.expect_err(what).errno();
        assert!([Errno::ROFS, Errno::BADF, Errno::ACCES].contains(&errno), "{what}: {errno:?}");
    }
    let root = ext2.root().unwrap();
    let new = NewInode::new(FileKind::Regular, 0o644);
    let refusals = [
        ("create", root.create(b"n", &new).map(drop)),
        ("symlink", root.symlink(b"n", b"to", &NewInode::new(FileKind::Symlink, 0o777)).map(drop)),
        ("link", root.link(file.inode(), b"n").map(drop)),
        ("unlink", root.unlink(b"f").map(drop)),
        ("rmdir", root.rmdir(b"d").map(drop)),
        ("rename", ext2.rename(&root, b"f", &root, b"n", RenameFlags::empty())),
        ("exchange", ext2.rename(&root, b"f", &root, b"d", RenameFlags::EXCHANGE)),
        ("flags", file.inode().set_flags(InodeFlags::IMMUTABLE)),
    ];
    for (what, done) in refusals {
        assert!(done.as_ref().is_err_and(|error| error.is(Errno::ROFS)), "{what}: {done:?}");
    }
    // Reading and syncing change no time.
    file.read_at(0, &mut [0; 100]).unwrap();
    file.sync().unwrap();
    ext2.sync().unwrap();
    drop((file, root, fs));
    assert_eq!(ext2.close(), Ok(Closed::ReadOnly));
    assert!(device.to_vec() == before, "the image changed");
}

#[test]
fn blocks_that_come_by_any_call_are_seen_by_who_has_looked_at_the_hole() {
    type Fill = fn(&DaxFs, &File);
    let fills: [(&str, Fill); 6] = [
        ("a write", |_, file| assert_eq!(file.write_at(PAGE, &[9; 100]), Ok(100))),
        ("a write of another handle", |fs, file| {
            let other = File::open(fs, file.inode().clone(), OpenFor::Writing).unwrap();
            other.write_all_at(PAGE, &[9; 100]).unwrap();
        }),
        ("the core's write", |_, file| assert_eq!(file.inode().write_at(PAGE, &[9; 100]), Ok(100))),
        ("a store of another address space", |_, file| {
            let other = map(file, 2 * PAGE, Sharing::Shared);
            other.store_bytes(PAGE, &[9; 100]).unwrap();
        }),
        ("a store of 2 MiB of another address space", |_, file| {
            let other = map(file, file.size(), Sharing::Shared);
            other.store_bytes(PAGE, &[9; 100]).unwrap();
        }),
        ("a write after the end was there and gone", |_, file| {
            let size = file.size();
            file.truncate(PAGE + 7, Wait::Yes).unwrap();
            file.write_at(PAGE, &[9; 100]).unwrap();
            file.truncate(size, Wait::Yes).unwrap();
        }),
    ];
    for size in [3 * PAGE, UNIT, 2 * UNIT + 5 * PAGE] {
        for (what, fill) in fills {
            let (_device, fs) = fresh(32);
            let file = file(&fs, b"f");
            file.truncate(size, Wait::Yes).unwrap();
            let reading = MapRequest { protection: Protection::ReadOnly, ..request(size, Sharing::Shared) };
            let odd = MapRequest { colour: PAGE, ..request(size, Sharing::Shared) };
            let maps = [
                map(&file, size, Sharing::Shared),
                map(&file, size, Sharing::Private),
                file.map(&SoftMmu::new(), &reading).unwrap(),
                file.map(&SoftMmu::new(), &odd).unwrap(),
            ];
            for map in &maps {
                assert_eq!((map.load(0), map.load(PAGE), map.load(2 * PAGE)), (Ok(0), Ok(0), Ok(0)));
            }
            fill(&fs, &file);
            for (nr, map) in maps.iter().enumerate() {
                let seen = (map.load(PAGE - 1), map.load(PAGE), map.load(PAGE + 99), map.load(PAGE + 100));
                assert_eq!(seen, (Ok(0), Ok(9), Ok(9), Ok(0)), "{what}, a size of {size}, mapping {nr}");
            }
            // And a page beside it, by one of them.
            maps[0].store(2 * PAGE, 8).unwrap();
            for (nr, map) in maps.iter().enumerate() {
                assert_eq!(map.load(2 * PAGE), Ok(8), "{what}, a size of {size}, mapping {nr}");
            }
        }
    }
}

#[test]
fn no_call_waits_for_a_lease_of_its_own() {
    for access in [Access::Read, Access::Write] {
        let (_device, fs) = fresh(16);
        let file = file(&fs, b"f");
        file.write_at(0, &[1; 8192]).unwrap();
        let other = inode(fs.ext2(), b"other");
        let again = File::open(&fs, file.inode().clone(), OpenFor::Appending).unwrap();
        let map = map(&file, 1 << 20, Sharing::Shared);
        finishes("a call under a lease of its own", move || {
            let lease = file.lease(0..1 << 20, access).unwrap();
            let (ext2, root) = (fs.ext2(), fs.ext2().root().unwrap());
            again.write_at(0, b"at the end").unwrap();
            map.store(100, 1).unwrap();
            map.store(9000, 1).unwrap_or_default();
            map.msync(0, 8192).unwrap();
            file.inode().set_attr(&SetAttr { uid: Some(7), ..SetAttr::default() }).unwrap();
            file.inode().xattr_set(b"user.k", b"v", XattrSet::Any).unwrap();
            assert!(file.inode().fallocate(3, 0, PAGE).is_err_and(|error| error.is(Errno::BUSY)));
            let second = file.lease(PAGE..2 * PAGE, Access::Read).unwrap();
            drop(second);
            root.link(file.inode(), b"g").unwrap();
            root.unlink(b"g").unwrap();
            // Its name goes, its blocks do not.
            ext2.rename(&root, b"other", &root, b"f", RenameFlags::empty()).unwrap();
            ext2.sync().unwrap();
            assert!(matches!(lease.parts().unwrap()[0].1, Leased::Memory(_)));
            drop((map, again, file, lease, other));
            assert_eq!(ext2.clone().close(), Ok(Closed::Clean));
        });
    }
}

#[test]
fn a_synchronous_mapping_asks_the_memory_below_whatever_lies_over_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    std::fs::File::create(&path).unwrap().set_len(17 << 20).unwrap();
    let on_disk = || MmapDevice::open(&path, &blockdev::DeviceOptions::read_write()).unwrap();
    let part = |device: Arc<dyn BlockDevice>| Partition::new(device, 1 << 20, 16 << 20).unwrap();
    let devices: Vec<(Arc<dyn BlockDevice>, bool)> = vec![
        (Arc::new(part(Arc::new(on_disk()))), false),
        (Arc::new(part(device(17, Media::Persistent))), true),
        (Arc::new(Recorder::new(RamDevice::with_media(16 << 20, Media::Persistent).unwrap())), true),
        (Arc::new(Recorder::new(RamDevice::new(16 << 20).unwrap())), false),
        (Arc::new(Recorder::new(part(device(17, Media::Volatile)))), false),
    ];
    for (nr, (device, wanted)) in devices.into_iter().enumerate() {
        format(&*device);
        let fs = open(device);
        let file = file(&fs, b"f");
        file.truncate(8192, Wait::Yes).unwrap();
        let given = file.map(&SoftMmu::new(), &request(PAGE, Sharing::Synchronous));
        assert_eq!(given.is_ok(), wanted, "device {nr}");
        drop((given, file));
        fs.ext2().clone().close().unwrap();
    }
}

#[test]
fn no_crash_shows_owners_that_a_file_never_had_nor_rights_for_the_wrong_one() {
    let all = [
        SetAttr { uid: Some(0x1_0000), ..SetAttr::default() },
        SetAttr { gid: Some(0x2_0001), ..SetAttr::default() },
        SetAttr { uid: Some(0x1_0000), gid: Some(0), mode: Some(0o6755), ..SetAttr::default() },
        SetAttr { gid: Some(3), mode: Some(0o755), ..SetAttr::default() },
    ];
    for (nr, change) in all.iter().enumerate() {
        let ram = RamDevice::new(1 << 20).unwrap();
        mkfs::format(&ram, &Format::default(), Fresh::Zeros).unwrap();
        let made = Arc::new(ram);
        let fs = Ext2::open(made.clone(), &OpenOptions::default()).unwrap();
        let old = (0xffff_u32, 0xffff_u32, 0o6755_u16);
        let start = SetAttr { uid: Some(old.0), gid: Some(old.1), ..SetAttr::default() };
        let file = inode(&fs, b"f");
        file.set_attr(&start).unwrap();
        file.set_attr(&SetAttr { mode: Some(old.2), ..SetAttr::default() }).unwrap();
        drop(file);
        fs.close().unwrap();
        let base = made.to_vec();
        let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(&base).unwrap()));
        let fs = Ext2::open(recorder.clone(), &OpenOptions::default()).unwrap();
        let file = fs.resolve("/f", Follow::No).unwrap();
        file.set_attr(change).unwrap();
        file.sync().unwrap();
        let now = file.attr();
        let new = (now.uid, now.gid, now.mode & 0o7777);
        let log = recorder.snapshot();
        let mut seen = BTreeSet::new();
        for order in [PmemOrder::Lines, PmemOrder::Words, PmemOrder::Program] {
            PmemModel::new(&base, &log).order(order).run(|state: &CrashState<'_>| {
                let device = Arc::new(RamDevice::from_bytes(state.image).unwrap());
                let fs = Ext2::open(device, &OpenOptions::read_only()).unwrap();
                let attr = fs.resolve("/f", Follow::No).unwrap().attr();
                seen.insert((attr.uid, attr.gid, attr.mode & 0o7777));
                ControlFlow::Continue(())
            });
        }
        for found @ (uid, gid, mode) in seen {
            let owners = [(old.0, old.1), (new.0, new.1)].contains(&(uid, gid));
            let is_old = found == old;
            let is_new = found == new;
            assert!(owners && (is_old || is_new || mode & 0o6000 == 0), "{nr}: {uid} {gid} {mode:o}");
        }
    }
}

/// Whatever else goes on in the directory, a call on a sound image is done or is refused for a reason of the names.
#[test]
fn names_that_come_and_go_under_every_verb_are_never_an_image_that_is_broken() {
    let (device, fs) = fresh(16);
    assert_eq!(fs.ext2().clone().close(), Ok(Closed::Clean));
    drop(fs);
    let options = OpenOptions { errors: Some(OnError::RemountRo), ..OpenOptions::default() };
    let fs = Ext2::open(device, &options).unwrap();
    let root = fs.root().unwrap();
    let of = |kind| NewInode::new(kind, 0o700);
    let dirs = [b"p", b"q"].map(|name| root.create(name, &of(FileKind::Directory)).unwrap());
    let stop = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_millis(900);
    // A link may have its own name as its target.
    let allowed = [
        Errno::LOOP,
        Errno::NOENT,
        Errno::EXIST,
        Errno::NOTEMPTY,
        Errno::ISDIR,
        Errno::NOTDIR,
        Errno::INVAL,
        Errno::PERM,
    ];
    let verb = |nr: u64, names: &[&[u8]; 3], dirs: &[Inode; 2]| -> ext2_core::Result<()> {
        let (from, to) = (&dirs[(nr % 2) as usize], &dirs[(nr / 2 % 2) as usize]);
        let (one, two) = (names[(nr / 4 % 3) as usize], names[(nr / 12 % 3) as usize]);
        match nr / 36 % 12 {
            0 => from.create(one, &of(FileKind::Regular)).map(drop),
            1 => from.create(one, &of(FileKind::Directory)).map(drop),
            2 => from.symlink(one, b"x", &of(FileKind::Symlink)).map(drop),
            3 => from.unlink(one).map(drop),
            4 => from.rmdir(one).map(drop),
            5 => fs.rename(from, one, to, two, RenameFlags::empty()),
            6 => fs.rename(from, one, to, two, RenameFlags::EXCHANGE),
            7 => fs.rename(from, one, to, two, RenameFlags::NOREPLACE),
            8 => from.lookup(one).and_then(|found| to.link(&found, two)).map(drop),
            9 => fs.resolve([&b"/p/"[..], one, b"/", two].concat(), Follow::Yes).map(drop),
            10 => from.lookup(one).map(|found| assert_eq!(found.attr().nr, found.nr())),
            _ => from.entries(0)?.try_for_each(|entry| entry.map(drop)),
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let (verb, stop, dirs, allowed) = (&verb, &stop, &dirs, &allowed);
            scope.spawn(move || {
                let mut state = (thread + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                while !stop.load(Ordering::Relaxed) && Instant::now() < until {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let done = verb(state >> 8, &[b"x", b"y", b"z"], dirs);
                    if let Err(error) = done
                        && !allowed.iter().any(|errno| error.is(*errno))
                    {
                        stop.store(true, Ordering::Relaxed);
                        panic!("{error} ({:?}), verb {}", error.errno(), state >> 8);
                    }
                }
            });
        }
    });
    assert!(!fs.is_read_only());
    drop((dirs, root));
    assert_eq!(fs.close(), Ok(Closed::Clean));
}

#[test]
fn times_at_the_edges_are_held_as_they_are_found_again() {
    for inode_size in [128, 256] {
        for sec in
            [i64::MIN, -(1 << 31) - 1, -(1 << 31), -1, 0, (1 << 31) - 1, 1 << 31, 1 << 33, 1 << 34, i64::MAX]
        {
            for nsec in [0, 1, 999_999_999, 1_000_000_000, u32::MAX] {
                let ram = Arc::new(RamDevice::new(1 << 20).unwrap());
                mkfs::format(&*ram, &Format { inode_size, ..Format::default() }, Fresh::Zeros).unwrap();
                let fs = Ext2::open(ram.clone(), &OpenOptions::default()).unwrap();
                let file = inode(&fs, b"f");
                let time = Timestamp { sec, nsec };
                let before = file.attr();
                let change = SetAttr { mtime: Some(time), atime: Some(time), ..SetAttr::default() };
                let set = file.set_attr(&change);
                let held = file.attr();
                match set {
                    Ok(()) => assert!(held.mtime.nsec < 1_000_000_000, "{time:?}: {:?}", held.mtime),
                    Err(error) => {
                        assert!(error.is(Errno::INVAL) && nsec >= 1_000_000_000, "{time:?}: {error}");
                        assert_eq!((held.mtime, held.atime), (before.mtime, before.atime));
                    }
                }
                drop(file);
                fs.close().unwrap();
                let fs = Ext2::open(ram, &OpenOptions::read_only()).unwrap();
                let again = fs.resolve("/f", Follow::No).unwrap().attr();
                assert_eq!((again.mtime, again.atime), (held.mtime, held.atime), "{inode_size}: {time:?}");
            }
        }
    }
}

/// What the README shows, run.
#[test]
fn the_program_of_the_readme_loads_the_bytes_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
    let bytes: Vec<u8> = (0..10_000_u32).map(|at| (at * 7) as u8).collect();
    {
        let device = Arc::new(MmapDevice::open(&path, &blockdev::DeviceOptions::read_write()).unwrap());
        format(&*device);
        let fs = open(device);
        file(&fs, b"data").write_all_at(0, &bytes).unwrap();
        fs.ext2().clone().close().unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    let fs = Ext2::open_path(&path, &OpenOptions::read_only()).unwrap();
    let inode = fs.resolve("/data", Follow::Yes).unwrap();
    let file = File::open(&DaxFs::new(fs, DaxOptions::default()), inode, OpenFor::Reading).unwrap();
    let mut head = [0; 16];
    assert_eq!(file.read_at(0, &mut head).unwrap(), 16);
    assert_eq!(head[..], bytes[..16]);
    let mmu = SoftMmu::new();
    let (sharing, protection) = (Sharing::Shared, Protection::ReadOnly);
    let map =
        file.map(&mmu, &MapRequest { offset: 0, len: file.size(), sharing, protection, colour: 0 }).unwrap();
    assert_eq!(map.load(5), Ok(bytes[5]));
    assert_eq!((mmu.counters().pte_faults, mmu.counters().major), (1, 0));
    drop((map, file));
    assert!(std::fs::read(&path).unwrap() == before, "a reader changed the image");
}

#[test]
fn a_device_is_opened_however_it_is_held() {
    let image = device(4, Media::Volatile).to_vec();
    let ram = || RamDevice::from_bytes(&image).unwrap();
    let lent: &'static RamDevice = Box::leak(Box::new(ram()));
    let boxed: Box<dyn BlockDevice> = Box::new(ram());
    let shared: Arc<dyn BlockDevice> = Arc::new(ram());
    let options = OpenOptions::read_only();
    for fs in [
        Ext2::open(ram(), &options),
        Ext2::open(Arc::new(ram()), &options),
        Ext2::open(boxed, &options),
        Ext2::open(Arc::clone(&shared), &options),
        Ext2::open(lent, &options),
        Ext2::open(Partition::new(lent, 0, 4 << 20).unwrap(), &options),
    ] {
        assert!(fs.unwrap().root().unwrap().entries(0).unwrap().count() >= 2);
    }
}
