//! Files with extents in an image that has no such feature.

use std::sync::{Arc, atomic::AtomicU64};

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::Scratch;
use ext2_core::{Ext2, FileKind, Inode, NewInode, OpenOptions};
use ext2_image::check;
use ext2_image::fields::{Layout, Structure};
use ext2_image::inspect::poke;
use ext2_image::mkfs::{self, Format, Fresh, Inodes};

use crate::bench::{bytes_of, repair_all};
use crate::crashes::Killed;

const BLOCK: u64 = 1024;

/// An image of blocks of 1 KiB with the empty files `a` and `b`, in this order of their inodes.
fn image(bytes: u64) -> (Arc<RamDevice>, Ext2, [Inode; 2]) {
    let device = Arc::new(RamDevice::new(bytes).unwrap());
    let format = Format {
        block_size: ext2_core::BlockSize::new(BLOCK),
        inodes: Inodes::Count(64),
        reserved_percent: 0.0,
        ..Format::default()
    };
    mkfs::format(&*device, &format, Fresh::Zeros).unwrap();
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    let files = ["a", "b"].map(|name| root.create(name, &NewInode::new(FileKind::Regular, 0o644)).unwrap());
    (device, fs, files)
}

/// Bytes that tell a file and each of its blocks.
fn contents(of: u8, blocks: u64) -> Vec<u8> {
    (0..blocks * BLOCK).map(|at| of ^ (at / BLOCK) as u8 ^ (at % 7) as u8).collect()
}

/// The head of a node of extents, and its entries.
fn node(depth: u16, entries: &[[u32; 3]], most: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [0xf30a, entries.len() as u16, most, depth, 0, 0] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    entries.iter().flatten().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    bytes
}

/// Makes an inode one with extents whose root has these entries.
fn set_root(device: &dyn BlockDevice, inode: u32, depth: u16, entries: &[[u32; 3]]) {
    let layout = Layout::read(device).unwrap();
    let structure = Structure::Inode(ext2_core::InodeNr::new(inode).unwrap());
    let mut root = node(depth, entries, 4);
    root.resize(60, 0);
    for (nr, word) in root.chunks_exact(4).enumerate() {
        let value = u32::from_le_bytes(word.try_into().unwrap()).to_string();
        poke(device, &layout, structure, &format!("i_block[{nr}]"), &value, true).unwrap().unwrap();
    }
    poke(device, &layout, structure, "i_flags", "0x80000", true).unwrap().unwrap();
}

/// Lets extents say where the blocks of a file are, in a leaf that lies where its indirect block was.
fn with_extents(device: &dyn BlockDevice, runs: &[(u64, u64, u64)], inode: u32, leaf: u64) {
    let entries: Vec<[u32; 3]> =
        runs.iter().map(|&(first, start, len)| [first as u32, len as u32, start as u32]).collect();
    let most = ((BLOCK - 12) / 12) as u16;
    device.write_at(leaf * BLOCK, &node(0, &entries, most)).unwrap();
    set_root(device, inode, 1, &[[0, leaf as u32, 0]]);
}

/// The runs of a file: block of the file, block of the device, blocks.
fn runs(file: &Inode) -> Vec<(u64, u64, u64)> {
    let run = |run: ext2_core::Mapping| {
        (run.start.get(), u64::from(run.target.expect("it is mapped").get()), run.count)
    };
    file.extents().map(|found| run(found.unwrap())).collect()
}

/// The first indirect block of a file.
fn indirect(device: &dyn BlockDevice, inode: u32) -> u64 {
    // The table of the first group: its place is in the first descriptor, behind the superblock.
    let table = u64::from(device.read_u32(2 * BLOCK + 8).unwrap()) * BLOCK;
    let size = u64::from(device.read_u32(1024 + 88).unwrap() & 0xffff);
    u64::from(device.read_u32(table + u64::from(inode - 1) * size + 40 + 12 * 4).unwrap())
}

fn read(device: &Arc<RamDevice>, name: &str) -> Vec<u8> {
    let fs = Ext2::open(device.clone(), &OpenOptions::read_only()).unwrap();
    fs.read(name).unwrap()
}

fn assert_clean(device: &dyn BlockDevice) {
    let summary = check::check(device, &Default::default(), &mut |finding| println!("{finding}")).unwrap();
    assert!(summary.is_clean());
}

/// Two files of 100 blocks with extents in blocks of their own, those of the second before all of the first; and their bytes.
fn two_files() -> (Arc<RamDevice>, [Vec<u8>; 2]) {
    let (device, fs, [a, b]) = image(1 << 20);
    let bytes = [contents(0xa0, 100), contents(0xb0, 100)];
    b.write_at(0, &bytes[1]).unwrap();
    a.write_at(0, &bytes[0]).unwrap();
    let (numbers, all_runs) = ([a.nr().get(), b.nr().get()], [runs(&a), runs(&b)]);
    fs.close().unwrap();
    drop((a, b));
    let leaves = numbers.map(|nr| indirect(&*device, nr));
    assert!(leaves[1] < leaves[0], "{leaves:?}");
    for (nr, (runs, leaf)) in numbers.into_iter().zip(all_runs.iter().zip(leaves)) {
        with_extents(&*device, runs, nr, leaf);
    }
    (device, bytes)
}

#[test]
fn a_map_that_is_made_of_extents_takes_no_block_in_which_those_of_another_file_lie() {
    let (device, bytes) = two_files();
    assert!(repair_all(&*device).unwrap().clean);
    assert_clean(&*device);
    assert!(read(&device, "a") == bytes[0], "the first file");
    assert!(read(&device, "b") == bytes[1], "the second file");
    let report = repair_all(&*device).unwrap();
    assert!(report.clean && report.mended == 0, "{report:?}");
}

#[test]
fn extents_are_whole_until_the_map_that_is_made_of_them_is_stored() {
    let (device, bytes) = two_files();
    let image = bytes_of(&*device);
    let mut states = 0;
    for kill in 0.. {
        let killed = Killed { inner: Scratch::new(image.clone()), left: AtomicU64::new(kill) };
        if repair_all(&killed).is_ok() {
            break;
        }
        states += 1;
        let device = Arc::new(RamDevice::new(image.len() as u64).unwrap());
        device.write_at(0, &bytes_of(&killed)).unwrap();
        assert!(repair_all(&*device).unwrap().clean, "killed after {kill}");
        assert_clean(&*device);
        assert!(read(&device, "a") == bytes[0], "the first file, killed after {kill}");
        assert!(read(&device, "b") == bytes[1], "the second file, killed after {kill}");
    }
    assert!(states > 3, "{states} states");
}

#[test]
fn extents_for_whose_map_there_is_no_room_stay() {
    let (device, fs, [a, b]) = image(2 << 20);
    let bytes = contents(0xa0, 40);
    a.write_at(0, &bytes).unwrap();
    let entries: Vec<[u32; 3]> =
        runs(&a).iter().map(|&(first, start, len)| [first as u32, len as u32, start as u32]).collect();
    assert!(entries.len() <= 4, "they have room in the inode: {entries:?}");
    let root = fs.root().unwrap();
    let new = |name: &str| root.create(name, &NewInode::new(FileKind::Regular, 0o644));
    let heir = new("heir").unwrap().nr();
    let fill = |file: &Inode| {
        let mut end = 0;
        while matches!(file.write_at(end, &[7; 1024]), Ok(1024)) {
            end += BLOCK;
        }
    };
    fill(&b);
    fill(&new("rest").unwrap());
    let (nr, spare) = (a.nr().get(), indirect(&*device, a.nr().get()));
    fs.close().unwrap();
    drop((a, b, root));
    set_root(&*device, nr, 0, &entries);
    // The block that the map had is another file's, so that none is free.
    let layout = Layout::read(&*device).unwrap();
    for (field, value) in
        [("i_block[0]", spare.to_string()), ("i_size", "1024".into()), ("i_blocks", "2".into())]
    {
        poke(&*device, &layout, Structure::Inode(heir), field, &value, true).unwrap().unwrap();
    }
    let report = repair_all(&*device).unwrap();
    assert!(!report.clean, "there is no block for a map");
    // Where there is one, all of it is a file again.
    let heir = Structure::Inode(heir);
    for field in ["i_block[0]", "i_size", "i_blocks"] {
        poke(&*device, &layout, heir, field, "0", true).unwrap().unwrap();
    }
    assert!(repair_all(&*device).unwrap().clean);
    assert_clean(&*device);
    assert!(read(&device, "a") == bytes);
}

#[test]
fn nodes_of_extents_that_lead_to_the_same_node_are_read_once() {
    let (device, fs, [a, b]) = image(4 << 20);
    b.write_at(0, &[1; 8 << 10]).unwrap();
    let (nr, first) = (a.nr().get(), runs(&b)[0].1);
    fs.close().unwrap();
    drop((a, b));
    let most = ((BLOCK - 12) / 12) as u16;
    // Four levels, each of whose entries all lead to the next: 84 to the power of 4 ways to the last.
    for level in 0..5u32 {
        let below = [0, first as u32 + level + 1, 0];
        let entries = if level == 4 { vec![] } else { vec![below; usize::from(most)] };
        let bytes = node(4 - level as u16, &entries, most);
        device.write_at((first + u64::from(level)) * BLOCK, &bytes).unwrap();
    }
    set_root(&*device, nr, 5, &[[0, first as u32, 0]; 4]);
    let started = std::time::Instant::now();
    assert!(repair_all(&*device).unwrap().clean);
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    assert_clean(&*device);
}
