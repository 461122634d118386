//! What a directory's blocks hold, entry by entry: a name goes into the tightest place that will do, and where one went
//! away there is room.

use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::{Rng, need_tools, small::is_clean};
use ext2_core::{BlockSize, Errno, Error, Ext2, FileBlock, FileKind, Inode, NewInode, OpenOptions};
use ext2_image::mkfs::{self, Format, Fresh, Revision};

const LEN: usize = 1024;

/// An entry: inode, bytes that it takes, name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    nr: u32,
    len: usize,
    name: Vec<u8>,
}

fn size_of(name: &[u8]) -> usize {
    (8 + name.len()).next_multiple_of(4)
}

impl Slot {
    fn used(&self) -> usize {
        if self.nr == 0 { 0 } else { size_of(&self.name) }
    }
}

type Blocks = Vec<Vec<Slot>>;

/// The tightest block that has a place for a name, by the largest place of each: as ext2 adds it, within the block to the
/// first place that is large enough.
fn add(blocks: &mut Blocks, nr: u32, name: &[u8]) {
    let need = size_of(name);
    let most = |block: &Vec<Slot>| block.iter().map(|slot| slot.len - slot.used()).max().unwrap_or(0);
    let tightest = (0..blocks.len())
        .filter(|&block| most(&blocks[block]) >= need)
        .min_by_key(|&block| (most(&blocks[block]), block));
    let name = name.to_vec();
    let Some(block) = tightest else {
        blocks.push(vec![Slot { nr, len: LEN, name }]);
        return;
    };
    let block = &mut blocks[block];
    let at = block.iter().position(|slot| slot.len - slot.used() >= need).expect("the largest place will do");
    let used = block[at].used();
    if used == 0 {
        // One that is dead keeps its length.
        block[at] = Slot { nr, len: block[at].len, name };
    } else {
        let len = block[at].len - used;
        block[at].len = used;
        block.insert(at + 1, Slot { nr, len, name });
    }
}

/// The entry before grows over it; the first of a block is dead.
fn remove(blocks: &mut Blocks, name: &[u8]) {
    let found = blocks.iter_mut().find_map(|block| {
        let at = block.iter().position(|slot| slot.nr != 0 && slot.name == name)?;
        Some((block, at))
    });
    let (block, at) = found.expect("the name is there");
    if at == 0 {
        block[0].nr = 0;
    } else {
        block[at - 1].len += block.remove(at).len;
    }
}

/// What the directory has on the device; each entry has the kind that it should.
fn read(dir: &Inode, device: &RamDevice, has_type: bool) -> Blocks {
    let mut blocks = Vec::new();
    for nr in 0..dir.size() / LEN as u64 {
        let target = dir.map(FileBlock::new(nr), 1).expect("a map").target.expect("a block");
        let mut bytes = vec![0; LEN];
        device.read_at(u64::from(target.get()) * LEN as u64, &mut bytes).expect("read");
        let (mut block, mut at) = (Vec::new(), 0);
        while at < LEN {
            let nr = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
            let len = usize::from(u16::from_le_bytes(bytes[at + 4..at + 6].try_into().expect("two")));
            let name = bytes[at + 8..][..usize::from(bytes[at + 6])].to_vec();
            let kind = match (has_type, &name[..]) {
                (false, _) => 0,
                (true, b"." | b"..") => 2,
                (true, _) => 5,
            };
            assert_eq!(bytes[at + 7], kind, "the kind of {name:?}");
            block.push(Slot { nr, len, name });
            at += len;
        }
        assert_eq!(at, LEN);
        blocks.push(block);
    }
    blocks
}

/// What lies in dead entries is nobody's.
fn without_the_dead(blocks: &Blocks) -> Blocks {
    let mut blocks = blocks.clone();
    blocks.iter_mut().flatten().filter(|slot| slot.nr == 0).for_each(|slot| slot.name.clear());
    blocks
}

/// A file system of 1 MiB with an empty directory `dir` and a FIFO.
fn empty(revision: Revision) -> (Arc<RamDevice>, Ext2, [Inode; 2]) {
    let device = Arc::new(RamDevice::new(1 << 20).expect("memory"));
    let format = Format { block_size: BlockSize::new(LEN as u64), revision, ..Format::default() };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    let root = fs.root().expect("root");
    let dir = root.create(b"dir", &NewInode::new(FileKind::Directory, 0o755)).expect("created");
    let fifo = root.create(b"fifo", &NewInode::new(FileKind::Fifo, 0o644)).expect("created");
    (device, fs, [dir, fifo])
}

#[test]
fn each_name_goes_into_the_tightest_block_that_has_room_and_leaves_room_where_it_was() {
    need_tools!("e2fsck");
    for (seed, revision) in [(0, Revision::Dynamic), (1, Revision::Dynamic), (2, Revision::Original)] {
        let mut rng = Rng::new(seed);
        let (device, mut fs, [mut dir, mut fifo]) = empty(revision);
        // Searched twice a directory has an index, by which a place is found.
        (0..2).for_each(|_| drop(dir.lookup(b"none").expect_err("not there")));
        let has_type = revision == Revision::Dynamic;
        let mut blocks = read(&dir, &device, has_type);
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut most = 0;
        for step in 0..900 {
            // It fills up, and empties, by turns.
            let fills = step % 300 < 200;
            if names.is_empty() || rng.below(10) < if fills { 8 } else { 3 } {
                let len = if rng.one_in(8) { 100 + rng.below(156) } else { 4 + rng.below(28) };
                let mut name = format!("{step:04}").into_bytes();
                name.resize(len.min(255) as usize, b'a' + (step % 26) as u8);
                dir.link(&fifo, &name).expect("linked");
                add(&mut blocks, fifo.nr().get(), &name);
                names.push(name);
            } else {
                let name = names.swap_remove(rng.below(names.len() as u64) as usize);
                dir.unlink(&name).expect("unlinked");
                remove(&mut blocks, &name);
            }
            let there = read(&dir, &device, has_type);
            assert_eq!(without_the_dead(&there), without_the_dead(&blocks), "after step {step}");
            most = most.max(blocks.len());
            if step % 50 == 0 {
                check_listing(&dir, &names);
                // Opened anew its index is built from all its blocks.
                drop((dir, fifo));
                fs.close().expect("closed");
                fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
                let root = fs.root().expect("root");
                (dir, fifo) = (root.lookup(b"dir").expect("there"), root.lookup(b"fifo").expect("there"));
                (0..2).for_each(|_| drop(dir.lookup(b"none").expect_err("not there")));
            }
        }
        assert!(most > 6, "{most} blocks");
        drop((dir, fifo));
        fs.close().expect("closed");
        assert!(is_clean(&device.to_vec()));
    }
}

/// A listing has all names, and goes on after each of them.
fn check_listing(dir: &Inode, names: &[Vec<u8>]) {
    let listed = |cookie| -> Vec<_> {
        dir.entries(cookie).expect("listed").map(|entry| entry.expect("whole")).collect()
    };
    let all = listed(0);
    let mut found: Vec<Vec<u8>> = all.iter().map(|entry| entry.name.to_vec()).collect();
    found.sort();
    let mut expected = names.to_vec();
    expected.extend([b".".to_vec(), b"..".to_vec()]);
    expected.sort();
    assert_eq!(found, expected);
    for (at, entry) in all.iter().enumerate() {
        assert_eq!(listed(entry.next_cookie), all[at + 1..], "after {:?}", entry.name);
    }
}

#[test]
fn a_directory_that_was_not_searched_yet_is_filled_from_its_first_block_on() {
    let names: Vec<String> = (0..60).map(|nr| format!("{nr:02}-a-name-of-some-length-{nr:040}")).collect();
    let (device, fs, [dir, fifo]) = empty(Revision::Dynamic);
    names.iter().take(45).for_each(|name| dir.link(&fifo, name).expect("linked"));
    assert!((4..=4).contains(&(dir.size() / 1024)), "{} blocks", dir.size() / 1024);
    drop((dir, fifo));
    fs.close().expect("closed");
    // Of each block one name goes; the first that comes takes the place in the first block, the last that in the last.
    let mut gone = BTreeMap::new();
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    let root = fs.root().expect("root");
    let (dir, fifo) = (root.lookup(b"dir").expect("there"), root.lookup(b"fifo").expect("there"));
    for (nr, block) in read(&dir, &device, true).iter().enumerate() {
        gone.insert(nr, block[block.len() - 2].name.clone());
    }
    gone.values().for_each(|name| dir.unlink(name).expect("unlinked"));
    drop((root, dir, fifo));
    fs.close().expect("closed");
    for (nr, name) in (0..gone.len()).zip(&names[50..]) {
        // Opened anew each time: nobody searched before.
        let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
        let root = fs.root().expect("root");
        let (dir, fifo) = (root.lookup(b"dir").expect("there"), root.lookup(b"fifo").expect("there"));
        let size = dir.size();
        dir.link(&fifo, name).expect("linked");
        assert_eq!(dir.size(), size, "the directory grew");
        let block = read(&dir, &device, true)
            .iter()
            .position(|block| block.iter().any(|slot| slot.name == name.as_bytes()));
        assert_eq!(block, Some(nr), "{name}");
        drop((root, dir, fifo));
        fs.close().expect("closed");
    }
}

/// A file system with a directory `dir` of three blocks, whose entries all name one FIFO.
fn three_blocks() -> (Arc<RamDevice>, Ext2) {
    let (device, fs, [dir, fifo]) = empty(Revision::Dynamic);
    let mut rest = 5;
    for nr in 0.. {
        dir.link(&fifo, format!("{nr:02}-{}", "a".repeat(90))).expect("linked");
        // A few in the third block, too.
        rest -= i32::from(dir.size() == 3 * 1024);
        if rest == 0 {
            break;
        }
    }
    drop((dir, fifo));
    (device, fs)
}

#[test]
fn names_of_a_small_directory_are_found_and_removed_without_an_index() {
    let (device, mut fs) = three_blocks();
    let mut blocks = read(&fs.root().expect("root").lookup(b"dir").expect("there"), &device, true);
    for block in [2, 0, 1] {
        for at in [3, 2] {
            // Opened anew each time, nothing is known of the directory.
            fs.close().expect("closed");
            fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
            let dir = fs.root().expect("root").lookup(b"dir").expect("there");
            let name = blocks[block][at].name.clone();
            dir.lookup(&name).expect("there");
            drop(dir);
            fs.close().expect("closed");
            fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
            let dir = fs.root().expect("root").lookup(b"dir").expect("there");
            let mut listing = dir.entries(0).expect("listed");
            let entry = listing.find(|entry| entry.as_ref().is_ok_and(|entry| *entry.name == name[..]));
            let entry = entry.expect("listed").expect("whole");
            assert!(listing.inode(&entry).expect("whole").is_some());
            dir.unlink(&name).expect("unlinked");
            assert_eq!(listing.inode(&entry).expect("whole"), None, "its name is gone");
            remove(&mut blocks, &name);
            assert_eq!(without_the_dead(&read(&dir, &device, true)), without_the_dead(&blocks));
        }
    }
}

/// Where the directory `dir` lies on the device.
fn inode_at(fs: &Ext2) -> u64 {
    let nr = fs.root().expect("root").lookup_nr(b"dir").expect("there");
    let (group, index) = fs.geometry().group_of_inode(nr).expect("a group");
    let table = u64::from(fs.descriptor(group).expect("a descriptor").bg_inode_table.get());
    table * LEN as u64 + u64::from(index) * u64::from(fs.geometry().inode_size)
}

#[test]
fn a_block_that_a_crash_left_past_the_end_of_a_directory_goes_before_it_grows() {
    need_tools!("e2fsck");
    let (device, fs) = three_blocks();
    let at = inode_at(&fs);
    fs.close().expect("closed");
    device.write_u32(at + 4, 2 * 1024).expect("stored");
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    let root = fs.root().expect("root");
    let (dir, fifo) = (root.lookup(b"dir").expect("there"), root.lookup(b"fifo").expect("there"));
    let before = read(&dir, &device, true);
    let free = fs.statfs().expect("counted").blocks_free;
    let mut nr = 0;
    while dir.size() == 2 * 1024 {
        dir.link(&fifo, format!("{nr:03}{}", "b".repeat(200))).expect("linked");
        nr += 1;
    }
    // One block went, one came, and the names are those that there were and the new ones.
    assert_eq!((fs.statfs().expect("counted").blocks_free, dir.attr().blocks_512), (free, 6));
    let names = |blocks: &Blocks| blocks.iter().flatten().filter(|slot| slot.nr != 0).count();
    assert_eq!(names(&read(&dir, &device, true)), names(&before) + nr);
    // The count of links is that of names once more.
    drop((root, dir, fifo));
    fs.close().expect("closed");
}

#[test]
fn a_directory_with_a_hash_tree_is_a_plain_one_once_it_is_changed() {
    const INDEX: u32 = 0x1000;
    for change in [0, 1, 2] {
        let (device, fs) = three_blocks();
        let at = inode_at(&fs);
        fs.close().expect("closed");
        device.write_u32(at + 32, device.read_u32(at + 32).expect("read") | INDEX).expect("stored");
        let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
        let root = fs.root().expect("root");
        let dir = root.lookup(b"dir").expect("there");
        let name = read(&dir, &device, true)[1][2].name.clone();
        let flags = || device.read_u32(at + 32).expect("read") & INDEX;
        dir.lookup(&name).expect("there");
        assert_eq!(flags(), INDEX);
        match change {
            0 => dir.unlink(&name).expect("unlinked"),
            1 => dir.link(&root.lookup(b"fifo").expect("there"), b"new").expect("linked"),
            _ => fs.rename(&dir, &name, &root, b"moved", ext2_core::RenameFlags::empty()).expect("renamed"),
        }
        assert_eq!(flags(), 0, "change {change}");
    }
}

/// A file system with a directory `dir` of so many blocks, whose entries all name one FIFO: three in each block, beside
/// its own and its parent's in the first.
fn many_blocks(blocks: u64) -> (Arc<RamDevice>, Ext2) {
    let (device, fs, [dir, fifo]) = empty(Revision::Dynamic);
    for nr in 0..3 * blocks {
        dir.link(&fifo, format!("{nr:0250}")).expect("linked");
    }
    assert_eq!(dir.size(), blocks * 1024);
    drop((dir, fifo));
    (device, fs)
}

/// Where the blocks of `dir` lie on the device.
fn places(fs: &Ext2) -> Vec<u64> {
    let dir = fs.root().expect("root").lookup(b"dir").expect("there");
    let at = |nr| dir.map(FileBlock::new(nr), 1).expect("a map").target.expect("a block").get();
    (0..dir.size() / LEN as u64).map(|nr| u64::from(at(nr)) * LEN as u64).collect()
}

#[test]
fn a_broken_block_hides_its_names_in_a_large_directory_and_those_after_it_in_a_small_one() {
    // Up to four blocks are few.
    for blocks in [2_u64, 3, 4, 5, 6] {
        let (device, fs) = many_blocks(blocks);
        let places = places(&fs);
        let names: Vec<Vec<Vec<u8>>> =
            read(&fs.root().expect("root").lookup(b"dir").expect("there"), &device, true)
                .iter()
                .map(|block| block.iter().map(|slot| slot.name.clone()).collect())
                .collect();
        fs.close().expect("closed");
        // The second entry of the second block is longer than what is left.
        let second = u64::from(device.read_u32(places[1] + 4).expect("read") as u16);
        device.write_u16(places[1] + second + 4, 1000).expect("stored");
        let fs = Ext2::open(device, &OpenOptions::default()).expect("open");
        let root = fs.root().expect("root");
        let dir = root.lookup(b"dir").expect("there");
        let is_large = blocks > 4;
        // However often it is searched.
        for round in 0..4 {
            let found = |name: &[u8]| match dir.lookup(name) {
                Ok(_) => "there",
                Err(Error::Corrupt(_)) => "corrupt",
                Err(error) => {
                    assert!(error.is(Errno::NOENT), "{error}");
                    "none"
                }
            };
            let what = format!("{blocks} blocks, round {round}");
            assert_eq!(found(b"none"), if is_large { "none" } else { "corrupt" }, "{what}");
            assert_eq!(found(&names[0][2]), "there", "{what}");
            assert_eq!(found(&names[1][0]), "there", "{what}");
            assert_eq!(found(&names[1][2]), if is_large { "none" } else { "corrupt" }, "{what}");
            if let Some(after) = names.get(2) {
                assert_eq!(found(&after[1]), if is_large { "there" } else { "corrupt" }, "{what}");
            }
            // That a directory has one name is said where nothing else is wrong.
            let error = dir.link(&root, b"none").expect_err("refused");
            assert_eq!(matches!(error, Error::Corrupt(_)), !is_large, "{what}: {error}");
        }
        // A name before the break can be removed; the next one does not go into that block.
        let first = &names[1][0];
        dir.unlink(first).expect("removed");
        assert_eq!(dir.size(), blocks * 1024);
        assert!(dir.lookup(first).is_err());
        if is_large {
            let fifo = root.lookup(b"fifo").expect("there");
            dir.link(&fifo, b"n".repeat(250)).expect("linked");
            assert_eq!(dir.size(), (blocks + 1) * 1024);
        }
    }
}

#[test]
fn an_entry_that_was_broken_since_it_was_looked_at_is_not_found() {
    let (device, fs) = many_blocks(6);
    let places = places(&fs);
    let dir = fs.root().expect("root").lookup(b"dir").expect("there");
    let blocks = read(&dir, &device, true);
    assert!(dir.lookup(b"none").expect_err("not there").is(Errno::NOENT));
    for (block, slot) in [(1, 0), (2, 1), (3, 2), (5, 2)] {
        let (name, before) =
            (&blocks[block][slot].name, blocks[block][..slot].iter().map(|slot| slot.len).sum::<usize>());
        let at = places[block] + before as u64 + 4;
        let rest = LEN - before;
        let need = size_of(name);
        for (rec_len, is_found) in [
            (need, true),
            (need - 4, false),
            (12, false),
            (0, false),
            (rest, true),
            (rest + 4, false),
            (LEN + 4, false),
            (blocks[block][slot].len, true),
        ] {
            device.write_u16(at, rec_len as u16).expect("stored");
            let found = dir.lookup(name);
            assert_eq!(found.is_ok(), is_found, "{rec_len} bytes in block {block}, entry {slot}: {found:?}");
        }
        // Another name of the same beginning, or of the same length.
        let old = device.read_u32(at).expect("read");
        for name_len in [249_u8, 251, 255, 250] {
            let mut bytes = old.to_le_bytes();
            bytes[2] = name_len;
            device.write_u32(at, u32::from_le_bytes(bytes)).expect("stored");
            assert_eq!(dir.lookup(name).is_ok(), name_len == 250, "a name of {name_len} bytes");
        }
        let mut byte = [0];
        device.read_at(at + 4 + 249, &mut byte).expect("read");
        device.write_at(at + 4 + 249, b"x").expect("stored");
        assert!(dir.lookup(name).expect_err("another name").is(Errno::NOENT));
        device.write_at(at + 4 + 249, &byte).expect("stored");
        dir.lookup(name).expect("there");
    }
}

#[test]
fn a_listing_ends_at_a_block_that_the_directory_has_twice() {
    let (device, fs) = many_blocks(1);
    let (at, count) = (inode_at(&fs), u64::from(fs.geometry().blocks_count));
    // Two free blocks: one of pointers to the first block of the directory, and one of pointers to that.
    let root = fs.root().expect("root");
    let file = root.create(b"file", &NewInode::new(FileKind::Regular, 0o644)).expect("created");
    file.write_at(0, &[1; 2048]).expect("written");
    let of_file =
        [0, 1].map(|nr| file.map(FileBlock::new(nr), 1).expect("a map").target.expect("a block").get());
    drop((root, file));
    fs.close().expect("closed");
    let block = device.read_u32(at + 40).expect("read");
    device.write_words(u64::from(of_file[0]) * 1024, &[block; 256]).expect("stored");
    device.write_words(u64::from(of_file[1]) * 1024, &[of_file[0]; 256]).expect("stored");
    (0..12).for_each(|slot| device.write_u32(at + 40 + 4 * slot, block).expect("stored"));
    device.write_u32(at + 40 + 48, of_file[0]).expect("stored");
    device.write_u32(at + 40 + 52, of_file[1]).expect("stored");
    for blocks in [2, count - 1, count, count + 500] {
        device.write_u32(at + 4, (blocks * 1024) as u32).expect("stored");
        let fs = Ext2::open(device.clone(), &OpenOptions::read_only()).expect("open");
        let dir = fs.root().expect("root").lookup(b"dir").expect("there");
        let all: Vec<_> = dir.entries(0).expect("listed").collect();
        let whole = all.iter().filter(|entry| entry.is_ok()).count();
        assert_eq!((whole, all.len() - whole), (5, 1), "{blocks}");
    }
}

#[test]
fn a_directory_grows_by_a_block_and_the_indirect_blocks_that_lead_to_it_or_not_at_all() {
    need_tools!("e2fsck");
    // At the direct blocks, and where the first tree begins and has begun.
    for (blocks, need) in [(11, 1), (12, 2), (13, 1)] {
        for free in 0..4 {
            let (device, fs) = many_blocks(blocks);
            let root = fs.root().expect("root");
            let (dir, fifo) = (root.lookup(b"dir").expect("there"), root.lookup(b"fifo").expect("there"));
            let left = || fs.statfs().expect("counted").blocks_free;
            let filler = root.create(b"filler", &NewInode::new(FileKind::Regular, 0o644)).expect("created");
            while left() > free {
                let most = if left() > free + 20 { left() - free - 15 } else { 1 };
                filler.append(&vec![1; (most * 1024) as usize]).expect("written");
            }
            let more = b"n".repeat(250);
            let (before, there) = (left(), read(&dir, &device, true));
            let done = dir.link(&fifo, &more);
            let fits = before >= need;
            assert_eq!(done.is_ok(), fits, "{blocks} blocks, {before} free: {done:?}");
            assert_eq!(left(), before - if fits { need } else { 0 }, "{blocks} blocks, {before} free");
            if !fits {
                assert!(done.expect_err("full").is(Errno::NOSPC));
                assert_eq!(read(&dir, &device, true), there);
                // Nothing came of it: with room it goes on.
                filler.truncate(0, ext2_core::Wait::Yes).expect("cut");
                dir.link(&fifo, &more).expect("linked");
            }
            drop((root, dir, fifo, filler));
            fs.close().expect("closed");
            assert!(is_clean(&device.to_vec()));
        }
    }
}

#[test]
fn a_directory_whose_first_blocks_are_empty_is_not() {
    let (device, fs) = many_blocks(3);
    let root = fs.root().expect("root");
    let dir = root.lookup(b"dir").expect("there");
    let blocks = read(&dir, &device, true);
    for block in &blocks {
        for slot in block.iter().filter(|slot| slot.name.len() > 2) {
            assert!(root.rmdir(b"dir").expect_err("not empty").is(Errno::NOTEMPTY));
            dir.unlink(&slot.name).expect("unlinked");
        }
    }
    root.rmdir(b"dir").expect("empty");
}

#[test]
fn a_directory_with_the_number_of_a_dead_one_begins_anew() {
    need_tools!("e2fsck");
    let device = Arc::new(RamDevice::new(1 << 20).expect("memory"));
    mkfs::format(&*device, &Format { block_size: BlockSize::new(1024), ..Format::default() }, Fresh::Zeros)
        .expect("made");
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    let root = fs.root().expect("root");
    let (dir, file) = (NewInode::new(FileKind::Directory, 0o755), NewInode::new(FileKind::Regular, 0o644));
    let names: Vec<_> = (0..40).map(|nr| format!("{nr:0200}")).collect();
    let mut number = None;
    for _ in 0..3 {
        let made = root.create("dir", &dir).expect("created");
        assert_eq!(*number.get_or_insert(made.nr()), made.nr(), "it gets the number that is free");
        assert_eq!(made.size(), 1024);
        for name in &names {
            assert!(made.lookup(name).is_err());
            made.create(name, &file).expect("created");
            assert!(made.lookup(name).is_ok());
        }
        assert_eq!(made.size(), 10 * 1024);
        assert!(is_clean(&synced(&fs, &device)));
        names.iter().for_each(|name| made.unlink(name).expect("unlinked"));
        drop(made);
        root.rmdir("dir").expect("removed");
    }
    drop(root);
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

/// The image of a file system that is in use, as one that was unmounted.
fn synced(fs: &Ext2, device: &RamDevice) -> Vec<u8> {
    fs.sync().expect("synced");
    let mut bytes = device.to_vec();
    bytes[1024 + 58] |= 1;
    bytes
}
