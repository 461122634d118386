//! What a directory's blocks hold, entry by entry: a name goes into the tightest place that will do, and where one went
//! away there is room.

use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::{Rng, need_tools, small::is_clean};
use ext2_core::{BlockSize, Ext2, FileBlock, FileKind, Inode, NewInode, OpenOptions};
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

#[test]
fn each_name_goes_into_the_tightest_block_that_has_room_and_leaves_room_where_it_was() {
    need_tools!("e2fsck");
    for (seed, revision) in [(0, Revision::Dynamic), (1, Revision::Dynamic), (2, Revision::Original)] {
        let mut rng = Rng::new(seed);
        let device = Arc::new(RamDevice::new(1 << 20).expect("memory"));
        let format = Format { block_size: BlockSize::new(LEN as u64), revision, ..Format::default() };
        mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
        let mut fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
        let mut root = fs.root().expect("root");
        let mut dir = root.create(b"dir", &NewInode::new(FileKind::Directory, 0o755)).expect("created");
        let mut fifo = root.create(b"fifo", &NewInode::new(FileKind::Fifo, 0o644)).expect("created");
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
                drop((root, dir, fifo));
                fs.close().expect("closed");
                fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
                root = fs.root().expect("root");
                (dir, fifo) = (root.lookup(b"dir").expect("there"), root.lookup(b"fifo").expect("there"));
                (0..2).for_each(|_| drop(dir.lookup(b"none").expect_err("not there")));
            }
        }
        assert!(most > 6, "{most} blocks");
        drop((root, dir, fifo));
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
    let device = Arc::new(RamDevice::new(1 << 20).expect("memory"));
    mkfs::format(&*device, &Format { block_size: BlockSize::new(1024), ..Format::default() }, Fresh::Zeros)
        .expect("made");
    let names: Vec<String> = (0..60).map(|nr| format!("{nr:02}-a-name-of-some-length-{nr:040}")).collect();
    {
        let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
        let root = fs.root().expect("root");
        let dir = root.create(b"dir", &NewInode::new(FileKind::Directory, 0o755)).expect("created");
        let fifo = root.create(b"fifo", &NewInode::new(FileKind::Fifo, 0o644)).expect("created");
        names.iter().take(45).for_each(|name| dir.link(&fifo, name).expect("linked"));
        assert!((4..=4).contains(&(dir.size() / 1024)), "{} blocks", dir.size() / 1024);
        drop((root, dir, fifo));
        fs.close().expect("closed");
    }
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
    let device = Arc::new(RamDevice::new(1 << 20).expect("memory"));
    mkfs::format(&*device, &Format { block_size: BlockSize::new(1024), ..Format::default() }, Fresh::Zeros)
        .expect("made");
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    let root = fs.root().expect("root");
    let dir = root.create(b"dir", &NewInode::new(FileKind::Directory, 0o755)).expect("created");
    let fifo = root.create(b"fifo", &NewInode::new(FileKind::Fifo, 0o644)).expect("created");
    let mut rest = 5;
    for nr in 0.. {
        dir.link(&fifo, format!("{nr:02}-{}", "a".repeat(90))).expect("linked");
        // A few in the third block, too.
        rest -= i32::from(dir.size() == 3 * 1024);
        if rest == 0 {
            break;
        }
    }
    drop((root, dir, fifo));
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
