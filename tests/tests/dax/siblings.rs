//! More of the same kinds as what once went wrong: other calls, kinds, block sizes and places.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use blockdev::crash::{CrashLimits, CrashState, PmemModel, PmemOrder};
use blockdev::{Access, BlockDevice, FileDevice, Media, RamDevice, Recorder};
use e2dax_tests::Scratch;
use e2dax_tests::small::{is_clean, ram};
use e2dax_tests::{need_tools, tree};
use ext2_core::{
    Acl, AclEntry, AclKind, AclTag, BlockSize, Closed, Errno, Ext2, FileKind, Inode, NewInode, OpenOptions,
    RenameFlags, SetAttr, Wait,
};
use ext2_dax::mmu::Sharing;
use ext2_dax::rw::Limits;
use ext2_dax::uio::{SliceSink, SliceSource};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
use ext2_image::check::{Checker, Outcome};
use ext2_image::mkfs::{self, Format, Fresh};

use crate::setup::{file, finishes, fresh, inode, map};

const PAGE: u64 = 4096;
const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);
const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);
const FIFO: NewInode = NewInode::new(FileKind::Fifo, 0o644);

fn formatted(kib: u64, block: u64, inode_size: u16) -> Arc<RamDevice> {
    let device = Arc::new(RamDevice::new(kib << 10).unwrap());
    let format = Format { block_size: BlockSize::new(block), inode_size, ..Format::default() };
    mkfs::format(&*device, &format, Fresh::Zeros).unwrap();
    device
}

#[test]
fn whatever_waits_for_a_lease_keeps_no_call_waiting_that_must_not() {
    type Cut = fn(&File) -> Result<(), ext2_dax::Error>;
    let cuts: [(&str, Cut); 5] = [
        ("truncation", |file| file.truncate(100, Wait::Yes)),
        ("punch", |file| file.punch_hole(0, PAGE, Wait::Yes)),
        ("the core's truncation", |file| Ok(file.inode().truncate(0, Wait::Yes)?)),
        ("the core's punch", |file| Ok(file.inode().punch_hole(0, PAGE, Wait::Yes)?)),
        ("fallocate", |file| Ok(file.inode().fallocate(3, 0, PAGE)?)),
    ];
    for (what, cut) in cuts {
        let (_device, fs) = fresh(16);
        let file = file(&fs, b"f");
        file.write_at(0, &[1; 8192]).unwrap();
        let appending = File::open(&fs, file.inode().clone(), OpenFor::Appending).unwrap();
        let lease = file.lease(0..PAGE, Access::Read).unwrap();
        let cutter = {
            let file = file.clone();
            std::thread::spawn(move || cut(&file))
        };
        let asked = file.clone();
        let got = finishes(what, move || {
            let now = Limits { nowait: true, ..Limits::default() };
            let mut buf = [0; 10];
            (0..200)
                .map(|_| {
                    let read = asked.read_to(0, 10, &mut SliceSink::new(&mut buf), now);
                    let write = asked.write_from(PAGE, 1, &mut SliceSource::new(b"x"), now);
                    let grown = appending.write_from(0, 1, &mut SliceSource::new(b"x"), now);
                    [read, write, grown].map(|done| done.map_err(|error| error.errno()))
                })
                .collect::<BTreeSet<_>>()
        });
        // The cutter may hold the lock at any moment, but for no longer than it takes to find the lease.
        for [read, write, grown] in got {
            assert!([Ok(10), Err(Errno::AGAIN)].contains(&read), "{what}: {read:?}");
            assert!([Ok(1), Err(Errno::AGAIN)].contains(&write), "{what}: {write:?}");
            assert_eq!(grown, Err(Errno::AGAIN), "{what}: at the end of the file");
        }
        drop(lease);
        cutter.join().unwrap().unwrap();
    }
}

#[test]
fn nothing_that_was_open_changes_an_image_that_was_closed() {
    let (device, fs) = fresh(32);
    let file = file(&fs, b"f");
    file.write_at(0, &vec![1; 3 << 20]).unwrap();
    file.truncate(6 << 20, Wait::Yes).unwrap();
    let shared: Vec<_> = (0..2).map(|_| map(&file, 6 << 20, Sharing::Shared)).collect();
    let private = map(&file, 6 << 20, Sharing::Private);
    // Pages and a unit that can be stored to, a hole, and what nobody has looked at.
    shared[0].store(0, 1).unwrap();
    shared[1].store(2 << 20, 1).unwrap();
    shared[0].load(5 << 20).unwrap();
    let reader = file.lease(0..PAGE, Access::Read).unwrap();
    let dir = fs.ext2().root().unwrap().create(b"d", &DIR).unwrap();
    assert_eq!(fs.ext2().clone().close(), Ok(Closed::Clean));
    let before = device.to_vec();
    for map in &shared {
        for at in [0, PAGE, 2 << 20, (2 << 20) + PAGE, 4 << 20, 5 << 20] {
            assert!(map.store(at, 9).is_err(), "a store at {at}");
            assert_ne!(map.load(at), Ok(9));
        }
        map.msync(0, 6 << 20).unwrap();
    }
    // Private pages are nobody's but the mapping's.
    private.store(0, 9).unwrap();
    private.store(5 << 20, 9).unwrap();
    assert_eq!((private.load(0), private.load(5 << 20), shared[0].load(0)), (Ok(9), Ok(9), Ok(1)));
    assert!(file.lease(0..PAGE, Access::Write).is_err_and(|error| error.is(Errno::ROFS)));
    assert!(file.write_at(0, b"x").is_err_and(|error| error.is(Errno::ROFS)));
    assert!(dir.create(b"x", &FILE).is_err_and(|error| error.is(Errno::ROFS)));
    assert!(dir.tmpfile(&FILE).is_err_and(|error| error.is(Errno::ROFS)));
    file.sync().unwrap();
    fs.ext2().sync().unwrap();
    drop((reader, shared, private, file, dir, fs));
    assert!(device.to_vec() == before, "the image changed");
}

#[test]
fn all_of_a_file_is_asked_for_by_the_largest_number_on_every_device() {
    let folder = tempfile::tempdir().unwrap();
    for block in [1024, 2048, 4096] {
        for on_disk in [false, true] {
            let device: Arc<dyn BlockDevice> = if on_disk {
                let path = folder.path().join(format!("image{block}"));
                std::fs::write(&path, formatted(4 << 10, block, 256).to_vec()).unwrap();
                Arc::new(FileDevice::open(&path, &blockdev::DeviceOptions::read_write()).unwrap())
            } else {
                formatted(4 << 10, block, 256)
            };
            let fs = DaxFs::new(Ext2::open(device, &OpenOptions::default()).unwrap(), DaxOptions::default());
            for (size, data) in [(0, 0), (10_000, 0), (10_000, 9_000), (70_000, 66_000)] {
                let name = format!("f{size}-{data}");
                let file = file(&fs, name.as_bytes());
                file.write_at(0, &vec![1; data]).unwrap();
                file.truncate(size, Wait::Yes).unwrap();
                for at in [0, 1, size.saturating_sub(1), size, size + 1, u64::MAX - 1, u64::MAX] {
                    let what = format!("blocks of {block}, on disk: {on_disk}, {name} from {at}");
                    let mut buf = vec![7; 80_000];
                    let read = file.read_to(at, u64::MAX, &mut SliceSink::new(&mut buf), Limits::default());
                    assert_eq!(read, Ok(size.saturating_sub(at)), "{what}");
                    assert_eq!(file.inode().read_at(at, &mut buf), Ok(size.saturating_sub(at) as usize));
                }
                file.zero_range(0, u64::MAX).unwrap();
                file.punch_hole(0, u64::MAX, Wait::Yes).unwrap();
                file.inode().fallocate(3, 1, u64::MAX - 1).unwrap();
                assert_eq!((file.size(), file.extents().unwrap()), (size, Vec::new()), "{name}");
                let too_large = [
                    file.write_at(u64::MAX, b"x").map(drop),
                    file.write_from(1 << 62, u64::MAX, &mut SliceSource::new(&[1]), Limits::default())
                        .map(drop),
                    file.truncate(u64::MAX, Wait::Yes),
                ];
                for refused in too_large {
                    assert!(refused.as_ref().is_err_and(|error| error.is(Errno::FBIG)), "{refused:?}");
                }
            }
        }
    }
}

#[test]
fn reserved_inodes_of_any_group_are_nobodys_however_the_image_was_left() {
    need_tools!("mke2fs", "e2fsck", "debugfs");
    // Groups of 8, of 16, and one that ends where the reserved ones do.
    for (inodes, size, block) in [("24", "20m", "1024"), ("16", "12m", "1024"), ("40", "36m", "1024")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let args = ["-t", "ext2", "-b", block, "-I", "128", "-N", inodes, "-O", "^resize_inode"];
        let path_text = path.to_str().unwrap();
        e2dax_tests::tools::mke2fs(&[&args[..], &[path_text, size]].concat());
        let clean = std::fs::read(&path).unwrap();
        for is_unclean in [false, true] {
            let mut bytes = clean.clone();
            if is_unclean {
                bytes[1024 + 58] &= !1;
            }
            let device = ram(&bytes);
            let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
            let root = fs.root().unwrap();
            let mut held = Vec::new();
            for nr in 0.. {
                let name = format!("n{nr}");
                let made = match nr % 4 {
                    0 => root.create(&name, &FILE),
                    1 => root.create(&name, &DIR),
                    2 => root.symlink(&name, b"to", &NewInode::new(FileKind::Symlink, 0o777)),
                    _ => root.tmpfile(&FILE),
                };
                match made {
                    Ok(made) => held.push(made),
                    Err(error) => {
                        assert!(error.is(Errno::NOSPC), "{error}");
                        break;
                    }
                }
            }
            let numbers: BTreeSet<u32> = held.iter().map(|inode| inode.nr().get()).collect();
            assert_eq!(numbers.len(), held.len());
            assert!(numbers.first().is_some_and(|nr| *nr >= 11), "{inodes}: {numbers:?}");
            let all = fs.geometry().inodes_count;
            assert_eq!(numbers.last(), Some(&all), "{inodes}: the last one was not given");
            drop((held, root));
            fs.close().unwrap();
            assert!(is_unclean || is_clean(&device.to_vec()));
        }
    }
}

/// What is looked at of the states of `change` on an image: `see` gets each, mended as by `e2fsck -p`.
fn states(
    base: &[u8],
    options: &OpenOptions,
    change: impl FnOnce(&Ext2),
    mut see: impl FnMut(&tree::Tree),
) -> u64 {
    let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(base).unwrap()));
    let fs = Ext2::open(recorder.clone(), options).unwrap();
    change(&fs);
    let log = recorder.snapshot();
    drop(fs);
    let (device, mut checker) = (Arc::new(Scratch::new(base.to_vec())), Checker::new());
    let mut count = 0;
    let mut model = PmemModel::new(base, &log).order(PmemOrder::Lines);
    model.limits = CrashLimits { exhaustive: 24, edges: 8, pairs: 4, samples: 6, seed: 5 };
    model.run(|state: &CrashState<'_>| {
        count += 1;
        device.follow(state.image, state.changed);
        match checker.mend(&*device, e2dax_tests::crash::NOW, &mut |_| {}) {
            Ok(Outcome::Clean | Outcome::Mended(_)) => {}
            other => panic!("{other:?} before entry {} of the log", state.op),
        }
        see(&tree::read(device.clone()).unwrap());
        ControlFlow::Continue(())
    });
    count
}

/// A file system with two directories, something of each kind in both, and no `lost+found`. Its root hands down a group and an
/// access list.
fn without_place(block: u64, inode_size: u16) -> Vec<u8> {
    let device = formatted(256 * (block >> 10), block, inode_size);
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    root.rmdir(b"lost+found").unwrap();
    for dir in ["one", "two"] {
        let dir = root.create(dir, &DIR).unwrap();
        for name in ["file", "other"] {
            dir.create(name, &FILE).unwrap().write_at(0, name.as_bytes()).unwrap();
        }
        dir.symlink(b"link", b"to", &NewInode::new(FileKind::Symlink, 0o777)).unwrap();
        dir.create(b"pipe", &FIFO).unwrap();
    }
    root.set_attr(&SetAttr { mode: Some(0o2755), gid: Some(7), ..SetAttr::default() }).unwrap();
    let entry = |tag, permissions| AclEntry { tag, permissions };
    let all = [entry(AclTag::UserObj, 7), entry(AclTag::User(9), 7), entry(AclTag::GroupObj, 5)];
    let list = Acl::new([&all[..], &[entry(AclTag::Mask, 7), entry(AclTag::Other, 5)]].concat()).unwrap();
    root.set_acl(AclKind::Default, Some(&list)).unwrap();
    drop(root);
    fs.close().unwrap();
    device.to_vec()
}

#[test]
fn no_rename_over_anything_leaves_a_name_that_nobody_made_where_there_is_no_lost_and_found() {
    let exchange = RenameFlags::EXCHANGE;
    let none = RenameFlags::empty();
    let renames = [
        ("one/file", "one/other", none),
        ("one/file", "two/file", none),
        ("one/file", "two/link", none),
        ("one/link", "two/pipe", none),
        ("one/pipe", "one/link", none),
        ("one/file", "one/other", exchange),
        ("one/file", "two/link", exchange),
        ("one/link", "two/other", exchange),
    ];
    for (block, inode_size) in [(1024, 128), (4096, 256)] {
        let base = without_place(block, inode_size);
        for (from, to, flags) in renames {
            let before = tree::read(ram(&base)).unwrap();
            let what = format!("{from} to {to} with {flags:?}, blocks of {block}");
            let path = |name: &str| format!("/{name}").into_bytes();
            let (source, target) = (before[&path(from)].inode, before[&path(to)].inode);
            let mut seen = BTreeMap::<_, u64>::new();
            let mut places = 0;
            let count = states(
                &base,
                &OpenOptions::default(),
                |fs| {
                    let (old_dir, old) = fs.resolve_parent(from.as_bytes()).unwrap();
                    let (new_dir, new) = fs.resolve_parent(to.as_bytes()).unwrap();
                    fs.rename(&old_dir, old, &new_dir, new, flags).unwrap();
                },
                |tree| {
                    let strange =
                        tree.keys().find(|path| path.contains(&b'#') && !path.starts_with(b"/lost+found/"));
                    assert_eq!(strange, None, "{what}");
                    if let Some(place) = tree.get(&path("lost+found")) {
                        places += 1;
                        let rights = (place.mode, place.uid, place.gid, &place.xattrs[..]);
                        assert_eq!(rights, (0o700, 0, 0, &[][..]), "{what}: lost+found is nobody's heir");
                    }
                    let at = |name: &str| tree.get(&path(name)).map(|node| node.inode);
                    let names = (at(from) == Some(source), at(to) == Some(target));
                    let named = tree.values().filter(|node| node.inode == source).count();
                    assert!(named > 0, "{what}: what is renamed has no name");
                    if flags == exchange {
                        let both = tree.values().filter(|node| node.inode == target).count();
                        assert!(both > 0, "{what}: what it changes places with has no name");
                    }
                    *seen.entry(names).or_default() += 1;
                },
            );
            assert!(count > 5 && seen.len() > 1 && places > 0, "{what}: {seen:?}, {places}");
        }
    }
}

#[test]
fn a_rename_that_is_refused_stores_nothing_where_there_is_no_lost_and_found() {
    let exchange = RenameFlags::EXCHANGE;
    let none = RenameFlags::empty();
    let noreplace = RenameFlags::NOREPLACE;
    let mut base = without_place(1024, 128);
    {
        let device = ram(&base);
        let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
        let held = fs.resolve(b"/two/other", ext2_core::Follow::No).unwrap();
        held.set_flags(ext2_core::InodeFlags::IMMUTABLE).unwrap();
        drop(held);
        fs.close().unwrap();
        base = device.to_vec();
    }
    let refusals = [
        ("one", "two/file", none, Errno::NOTDIR),
        ("one/file", "two", none, Errno::ISDIR),
        ("one", "one/file", none, Errno::INVAL),
        ("one", "one/file", exchange, Errno::INVAL),
        ("one/file", "one", none, Errno::NOTEMPTY),
        ("one/file", "two/file", noreplace, Errno::EXIST),
        ("one/file", "two/other", none, Errno::PERM),
        ("two/other", "one/file", exchange, Errno::PERM),
        ("one", "two/link", exchange, Errno::XDEV),
    ];
    for (from, to, flags, errno) in refusals {
        let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(&base).unwrap()));
        let options = OpenOptions { strict_rename: errno == Errno::XDEV, ..OpenOptions::default() };
        let fs = Ext2::open(recorder.clone(), &options).unwrap();
        let (old_dir, old) = fs.resolve_parent(from.as_bytes()).unwrap();
        let (new_dir, new) = fs.resolve_parent(to.as_bytes()).unwrap();
        let before = recorder.len();
        let refused = fs.rename(&old_dir, old, &new_dir, new, flags).unwrap_err();
        assert_eq!(refused.errno(), errno, "{from} to {to} with {flags:?}");
        assert_eq!(recorder.len(), before, "{from} to {to} with {flags:?}");
    }
}

#[test]
fn files_with_all_the_names_that_they_may_have_do_not_change_places() {
    let device = ram(&without_place(1024, 128));
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    let nr = fs.resolve(b"/one/file", ext2_core::Follow::No).unwrap().nr().get();
    let table = fs.descriptor(ext2_core::GroupNr::new(0)).unwrap().bg_inode_table.get();
    fs.close().unwrap();
    let links = u64::from(table) * 1024 + u64::from(nr - 1) * 128 + 26;
    device.write_at(links, &u16::MAX.to_le_bytes()).unwrap();
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    for (from, to) in [("one/file", "two/file"), ("two/file", "one/file")] {
        let (old_dir, old) = fs.resolve_parent(from.as_bytes()).unwrap();
        let (new_dir, new) = fs.resolve_parent(to.as_bytes()).unwrap();
        let refused = fs.rename(&old_dir, old, &new_dir, new, RenameFlags::EXCHANGE).unwrap_err();
        assert_eq!(refused.errno(), Errno::MLINK, "{from} to {to}: {refused}");
    }
    // Nothing is wrong with the image.
    assert_eq!(fs.close().unwrap(), Closed::Clean);
}

#[test]
fn the_last_free_blocks_take_attributes_that_nobody_shares() {
    need_tools!("e2fsck");
    // A journal for the moment would take nine of them.
    for free in 1..12 {
        let device = formatted(256, 1024, 128);
        let options = OpenOptions { share_xattrs: true, ..OpenOptions::default() };
        let fs = Ext2::open(device.clone(), &options).unwrap();
        let root = fs.root().unwrap();
        let [file, filler] = ["file", "filler"].map(|name| root.create(name, &FILE).unwrap());
        file.xattr_set(b"user.a", b"its own", ext2_core::XattrSet::Any).unwrap();
        let mut at = 0;
        while filler.write_at(at, &[1; 1024]).is_ok_and(|written| written == 1024) {
            at += 1024;
        }
        filler.truncate(at - free * 1024, Wait::Yes).unwrap();
        assert_eq!(fs.statfs().unwrap().blocks_free, free);
        file.xattr_set(b"user.b", b"more", ext2_core::XattrSet::Any).unwrap();
        drop((root, file, filler));
        fs.close().unwrap();
        assert!(is_clean(&device.to_vec()), "{free} were free");
    }
}

#[test]
fn who_lists_a_directory_sees_once_what_is_there_all_the_time_whatever_is_done_to_the_rest() {
    type Change = fn(&Ext2, &Inode, u32);
    let changes: [(&str, Change); 7] = [
        ("renamed to longer names", |fs, dir, nr| {
            let to = format!("go{nr}{}", "-".repeat(10 + nr as usize));
            fs.rename(dir, format!("go{nr}").as_bytes(), dir, to.as_bytes(), RenameFlags::empty()).unwrap();
        }),
        ("renamed to shorter names", |fs, dir, nr| {
            let to = format!("g{nr}");
            fs.rename(dir, format!("go{nr}").as_bytes(), dir, to.as_bytes(), RenameFlags::empty()).unwrap();
        }),
        ("renamed over each other", |fs, dir, nr| {
            let to = format!("go{}", (nr + 1) % 12);
            let done = fs.rename(dir, format!("go{nr}").as_bytes(), dir, to.as_bytes(), RenameFlags::empty());
            assert!(done.is_ok() || done.is_err_and(|error| error.is(Errno::NOENT)));
        }),
        ("exchanged", |fs, dir, nr| {
            let to = format!("go{}", (nr + 5) % 12);
            fs.rename(dir, format!("go{nr}").as_bytes(), dir, to.as_bytes(), RenameFlags::EXCHANGE).unwrap();
        }),
        ("removed, and others made in their place", |_, dir, nr| {
            dir.unlink(format!("go{nr}")).unwrap();
            dir.create(format!("new{nr}"), &FIFO).unwrap();
        }),
        ("moved to another directory and back", |fs, dir, nr| {
            let (root, name) = (fs.root().unwrap(), format!("go{nr}").into_bytes());
            fs.rename(dir, &name, &root, &name, RenameFlags::empty()).unwrap();
            fs.rename(&root, &name, dir, &name, RenameFlags::empty()).unwrap();
        }),
        ("linked", |_, dir, nr| {
            let of = dir.lookup(format!("go{nr}")).unwrap();
            dir.link(&of, format!("again{nr}{}", "-".repeat(100))).unwrap();
        }),
    ];
    for (block, stay) in [(1024, 20), (1024, 400), (4096, 60)] {
        for (what, change) in changes {
            let fs = Ext2::open(formatted(1 << 10, block, 128), &OpenOptions::default()).unwrap();
            let dir = fs.root().unwrap().create(b"dir", &DIR).unwrap();
            let pipe = dir.create(b"stay", &FIFO).unwrap();
            // Those that stay and those that go lie beside each other; some were removed before.
            let mut wanted = BTreeSet::from([b"stay".to_vec()]);
            for nr in 0..stay {
                if nr % (stay / 12) == 0 && nr / (stay / 12) < 12 {
                    dir.create(format!("go{}", nr / (stay / 12)), &FIFO).unwrap();
                }
                dir.link(&pipe, format!("stay{nr:04}")).unwrap();
                wanted.insert(format!("stay{nr:04}").into_bytes());
            }
            for nr in (0..stay).step_by(7) {
                dir.unlink(format!("stay{nr:04}")).unwrap();
                wanted.remove(format!("stay{nr:04}").as_bytes());
            }
            // Two who list, one of them slowly, while the others change one after another.
            let mut seen = [BTreeMap::<Vec<u8>, u32>::new(), BTreeMap::new()];
            let mut cookies = [0, 0];
            for nr in 0..12 {
                for (who, steps) in [(0, 3), (1, stay as usize / 11)] {
                    for entry in dir.entries(cookies[who]).unwrap().take(steps) {
                        let entry = entry.unwrap();
                        cookies[who] = entry.next_cookie;
                        *seen[who].entry(entry.name.into_bytes()).or_default() += 1;
                    }
                }
                change(&fs, &dir, nr);
            }
            for (who, seen) in seen.iter_mut().enumerate() {
                for entry in dir.entries(cookies[who]).unwrap() {
                    *seen.entry(entry.unwrap().name.into_bytes()).or_default() += 1;
                }
                let wrong: Vec<_> = wanted
                    .iter()
                    .filter(|name| seen.get(*name) != Some(&1))
                    .map(|name| (name.escape_ascii().to_string(), seen.get(name)))
                    .collect();
                assert!(wrong.is_empty(), "{what}, blocks of {block}, {stay} names: {wrong:?}");
            }
        }
    }
}

#[test]
fn a_store_that_fails_is_seen_alike_by_leases_and_private_mappings() {
    use blockdev::{Calls, Fault, Faulty};
    let base = crate::setup::device(4, Media::Volatile).to_vec();
    for calls in [Calls::FENCE, Calls::WRITE, Calls::ZERO, Calls::DIRECT_ACCESS, Calls::STORE] {
        for after in 0..12 {
            let device = Arc::new(Faulty::new(RamDevice::from_bytes(&base).unwrap()));
            let options =
                OpenOptions { errors: Some(ext2_core::OnError::Continue), ..OpenOptions::default() };
            let fs = DaxFs::new(Ext2::open(device.clone(), &options).unwrap(), DaxOptions::default());
            let file = file(&fs, b"f");
            file.truncate(8192, Wait::Yes).unwrap();
            let lease = file.lease(0..8192, Access::Read).unwrap();
            let [private, one, other] =
                [Sharing::Private, Sharing::Shared, Sharing::Shared].map(|of| map(&file, 8192, of));
            assert_eq!((private.load(0), one.load(0), lease.runs().unwrap().len()), (Ok(0), Ok(0), 1));
            device.arm(Fault::once(calls, after));
            let stored = other.store(0, 7);
            device.disarm();
            let what = format!("{calls:?} {after}, {stored:?}");
            if file.write_at(1, &[9]).is_err() {
                continue;
            }
            let mut bytes = [0xa5; 2];
            file.read_at(0, &mut bytes).unwrap();
            assert_eq!(bytes[1], 9, "{what}");
            for map in [&private, &one, &other] {
                assert_eq!((map.load(0), map.load(1)), (Ok(bytes[0]), Ok(9)), "{what}");
            }
            let parts = lease.parts().unwrap();
            let ext2_dax::Leased::Memory(memory) = parts[0].1 else { panic!("{what}: {parts:?}") };
            let mut leased = [0; 2];
            memory.copy_out(0, &mut leased).unwrap();
            assert_eq!(leased, bytes, "{what}: through the lease");
        }
    }
}

#[test]
fn what_is_held_may_be_sent_and_shared_and_what_is_given_compared() {
    fn sent<T: Send + Sync + 'static>() {}
    fn caught<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    fn value<T: Clone + PartialEq + std::fmt::Debug>() {}
    sent::<ext2_dax::mmu::host::HostMap>();
    sent::<ext2_dax::mmu::host::HostMmu>();
    sent::<ext2_core::Cursor<Inode>>();
    sent::<ext2_core::Cursor<File>>();
    sent::<ext2_core::ReadDir>();
    sent::<ext2_dax::LeasedPart>();
    sent::<ext2_image::check::Checker>();
    sent::<blockdev::Arena>();
    sent::<blockdev::Overlay<RamDevice>>();
    sent::<std::io::Error>();
    caught::<blockdev::Error>();
    caught::<ext2_core::Error>();
    caught::<ext2_dax::Error>();
    value::<ext2_core::Attr>();
    value::<ext2_core::DirEntry>();
    value::<ext2_core::StatFs>();
    value::<ext2_core::Closed>();
    value::<ext2_dax::LeasedRun>();
    value::<ext2_dax::mmu::soft::MapRequest>();
    // A number survives the way into the standard library's errors from wherever it came.
    let (_device, fs) = fresh(4);
    let file = file(&fs, b"f");
    let _ = inode(fs.ext2(), b"g");
    let numbers = [
        (std::io::Error::from(file.truncate(u64::MAX, Wait::Yes).unwrap_err()), Errno::FBIG),
        (std::io::Error::from(fs.ext2().root().unwrap().lookup("none").unwrap_err()), Errno::NOENT),
        (std::io::Error::from(fs.ext2().root().unwrap().create("f", &FILE).unwrap_err()), Errno::EXIST),
        (std::io::Error::from(file.lease(0..0, Access::Read).unwrap_err()), Errno::INVAL),
    ];
    for (error, errno) in numbers {
        assert_eq!(error.raw_os_error(), Some(errno.get()), "{error}");
    }
}
