//! Groups that contradict themselves: the others are used, and nothing of theirs is taken or lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use blockdev::BlockDevice;
use e2dax_tests::{
    golden, need_tools,
    small::{Ram, is_clean, mended, open, ram},
    tools,
};
use ext2_core::{
    Errno, Error, Ext2, FileBlock, FileKind, Follow, GroupNr, NewInode, Object, OpenOptions, Policy, Wait,
};

const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);
const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);

/// An image of 4 MiB with four groups, and a file with blocks in the first.
fn image(more: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    let mut args = vec!["-t", "ext2", "-b", "1024", "-g", "1024", "-N", "256"];
    args.extend(more);
    args.extend([path.to_str().expect("a path of ours"), "4m"]);
    tools::mke2fs(&args);
    let device = ram(&std::fs::read(&path).expect("read"));
    let fs = open(&device);
    let file = fs.root().expect("root").create(b"old", &FILE).expect("created");
    file.write_at(0, &[7; 40_000]).expect("written");
    drop(file);
    fs.close().expect("closed");
    device.to_vec()
}

/// A field of a group's descriptor: its byte in the image, and what is there.
fn field(image: &[u8], group: usize, at: usize) -> (usize, u32) {
    let at = 2048 + 32 * group + at;
    (at, u32::from_le_bytes(image[at..at + 4].try_into().expect("four bytes")))
}

const BLOCK_BITMAP: usize = 0;
const INODE_BITMAP: usize = 4;
const INODE_TABLE: usize = 8;

fn open_with(device: &Ram, policy: Policy) -> Result<Ext2, Error> {
    let shared: Arc<dyn BlockDevice> = device.clone();
    Ext2::open(shared, &OpenOptions { policy, ..OpenOptions::default() })
}

#[test]
fn a_group_whose_bitmap_of_blocks_contradicts_it_is_left_alone_and_the_others_are_used() {
    need_tools!("mke2fs", "e2fsck");
    let base = image(&[]);
    for (fill, policy) in
        [(0xff, Policy::Aligned), (0xff, Policy::Goal), (0, Policy::Aligned), (0, Policy::Goal)]
    {
        let mut bad = base.clone();
        let start = field(&bad, 0, BLOCK_BITMAP).1 as usize * 1024;
        bad[start..start + 128].fill(fill);
        let device = ram(&bad);
        let fs = open_with(&device, policy).expect("open");
        let root = fs.root().expect("root");
        let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let file = root.create(b"new", &FILE).expect("created");
        file.write_at(0, &bytes).expect("written");
        root.create(b"dir", &DIR).expect("created");
        let group = fs.geometry().blocks_per_group;
        for block in 0..bytes.len().div_ceil(1024) as u64 {
            let target = file.map(FileBlock::new(block), 1).expect("mapped").target.expect("a block");
            assert!(target.get() > group, "{target:?} is in the group that is broken");
        }
        // What lay in the broken group can be cut and removed; its blocks stay taken.
        let old = root.lookup(b"old").expect("there");
        old.truncate(20_000, Wait::Yes).expect("cut");
        drop(old);
        root.unlink(b"old").expect("unlinked");
        drop(file);
        let mut read = vec![0; bytes.len()];
        root.lookup(b"new").expect("there").read_at(0, &mut read).expect("read");
        assert!(read == bytes);
        assert!(!fs.is_read_only());
        drop(root);
        fs.close().expect("closed");
        let left = device.to_vec();
        assert_eq!(left[1024 + 58] & 2, 2, "the image is not marked for a check");
        assert!(left[start..start + 128].iter().all(|&byte| byte == fill), "the bitmap was written");
        mended(&left, "a group whose bitmap was left alone");
    }
}

#[test]
fn a_group_whose_bitmap_of_inodes_contradicts_it_is_left_alone_and_the_others_are_used() {
    need_tools!("mke2fs", "e2fsck");
    let base = image(&[]);
    for (from, fill) in [(0, 0xff), (0, 0), (1, 0), (1, 0x55)] {
        let mut bad = base.clone();
        let start = field(&bad, 0, INODE_BITMAP).1 as usize * 1024;
        bad[start + from..start + 8].fill(fill);
        let device = ram(&bad);
        let fs = open(&device);
        let root = fs.root().expect("root");
        root.unlink(b"old").expect("unlinked");
        for nr in 0..150 {
            let file = root.create(format!("f{nr}").as_bytes(), &FILE).expect("created");
            assert!(
                file.nr().get() > fs.geometry().inodes_per_group,
                "inode {} is in the broken group",
                file.nr()
            );
        }
        drop(root);
        fs.close().expect("closed");
        let left = device.to_vec();
        assert_eq!(left[1024 + 58] & 2, 2, "the image is not marked for a check");
        mended(&left, "a group whose bitmap of inodes was left alone");
    }
}

#[test]
fn a_full_file_system_with_a_broken_group_says_that_it_is_full() {
    need_tools!("mke2fs");
    let mut bad = image(&[]);
    for group in 0..4 {
        let start = field(&bad, group, BLOCK_BITMAP).1 as usize * 1024;
        bad[start..start + 128].fill(0xff);
    }
    for policy in [Policy::Aligned, Policy::Goal] {
        let fs = open_with(&ram(&bad), policy).expect("open");
        let file = fs.root().expect("root").create(b"new", &FILE).expect("created");
        assert!(file.write_at(0, &[1; 3 << 20]).expect_err("full").is(Errno::NOSPC));
    }
}

#[test]
fn structures_that_lie_outside_their_group_or_on_each_other_are_not_written_by() {
    need_tools!("mke2fs");
    let base = image(&[]);
    let table = |group| field(&base, group, INODE_TABLE).1;
    let bitmap = |group| field(&base, group, BLOCK_BITMAP).1;
    let lies = [
        (0, BLOCK_BITMAP, table(0)),
        (0, BLOCK_BITMAP, table(0) + 3),
        (0, INODE_BITMAP, bitmap(0)),
        (0, INODE_BITMAP, 1),
        (0, BLOCK_BITMAP, 2),
        (1, INODE_TABLE, bitmap(1) - 2),
        (1, BLOCK_BITMAP, bitmap(2)),
        (2, INODE_TABLE, table(1)),
        (3, INODE_TABLE, 4095),
        (1, INODE_BITMAP, table(0)),
    ];
    for (group, at, value) in lies {
        let mut bad = base.clone();
        let place = field(&bad, group, at).0;
        bad[place..place + 4].copy_from_slice(&value.to_le_bytes());
        let device = ram(&bad);
        let error = open_with(&device, Policy::Aligned).expect_err("refused");
        let Error::Corrupt(corrupt) = &error else { panic!("{error}") };
        assert_eq!(corrupt.object(), Object::Group(GroupNr::new(group as u32)), "{error}");
        assert!(device.to_vec() == bad, "something was stored");
    }
}

/// Where the author of `/node` lies.
fn author(fs: &Ext2) -> u64 {
    let nr = fs.resolve(b"/node", Follow::No).expect("there").nr();
    let (group, index) = fs.geometry().group_of_inode(nr).expect("a group");
    let table = fs.descriptor(group).expect("a descriptor").bg_inode_table.get();
    u64::from(table) * 1024 + u64::from(index) * 128 + 124
}

/// An image that the Hurd made, with a translator on `/node`: the image, and the translator's block.
fn hurd() -> (Vec<u8>, u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    let name = path.to_str().expect("a path of ours");
    tools::mke2fs(&["-t", "ext2", "-o", "hurd", "-I", "128", "-b", "1024", "-N", "64", name, "1m"]);
    let device = ram(&std::fs::read(&path).expect("read"));
    let fs = open(&device);
    let new = NewInode { uid: 5, ..FILE };
    fs.root().expect("root").create(b"node", &new).expect("created");
    let author = author(&fs);
    // Whoever makes a file is its author.
    assert_eq!(device.read_u32(author).expect("read"), 5);
    fs.close().expect("closed");
    golden::write_sparse(&path, &device.to_vec()).expect("written");
    let said = tools::debugfs(&path, "ffb").expect("a free block");
    let block: u32 = String::from_utf8_lossy(&said)
        .split(|c: char| !c.is_ascii_digit())
        .rfind(|word| !word.is_empty())
        .and_then(|word| word.parse().ok())
        .expect("a number");
    for request in [format!("set_inode_field /node translator {block}"), format!("setb {block}")] {
        tools::run("debugfs", &["-w", "-R", &request, name]).expect("changed");
    }
    let output = tools::command("e2fsck").args(["-fy", name]).output().expect("run");
    assert!(output.status.code().is_some_and(|code| code < 4), "{}", tools::words(&output));
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[block as usize * 1024..][..10].copy_from_slice(b"/hurd/null");
    bytes[author as usize..][..4].copy_from_slice(&77_u32.to_le_bytes());
    (bytes, block)
}

#[test]
fn the_translator_of_a_hurd_inode_is_kept_and_goes_with_it() {
    need_tools!("mke2fs", "e2fsck", "debugfs");
    let (base, block) = hurd();
    for unclean in [false, true] {
        let mut image = base.clone();
        if unclean {
            image[1024 + 58..1024 + 60].fill(0);
        }
        let device = ram(&image);
        let fs = open(&device);
        let root = fs.root().expect("root");
        let file = root.create(b"new", &FILE).expect("created");
        for at in 0.. {
            match file.write_at(at * 1024, &[9; 1024]) {
                Ok(_) => {}
                Err(error) => {
                    assert!(error.is(Errno::NOSPC), "{error}");
                    break;
                }
            }
        }
        let node = fs.resolve(b"/node", Follow::No).expect("there");
        node.set_attr(&ext2_core::SetAttr { mode: Some(0o600), uid: Some(70_000), ..Default::default() })
            .expect("set");
        drop((file, node));
        fs.sync().expect("synced");
        let mut bytes = [0; 10];
        device.read_at(u64::from(block) * 1024, &mut bytes).expect("read");
        assert_eq!(&bytes, b"/hurd/null", "unclean: {unclean}");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image");
        std::fs::write(&path, device.to_vec()).expect("written");
        let said = tools::debugfs(&path, "stat /node").expect("read");
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains(&format!("Translator: {block}")), "{said}");
        assert_eq!(device.read_u32(author(&fs)).expect("read"), 77);
        // Removed, it gives its block back.
        let free = fs.statfs().expect("counted").blocks_free;
        root.unlink(b"node").expect("unlinked");
        assert_eq!(fs.statfs().expect("counted").blocks_free, free + 1, "unclean: {unclean}");
        drop(root);
        fs.close().expect("closed");
        let mut left = device.to_vec();
        left[1024 + 58] |= 1;
        assert!(is_clean(&left), "unclean: {unclean}");
    }
}

/// A device that counts the bytes that are read.
#[derive(Debug)]
struct Reads {
    inner: Ram,
    bytes: std::sync::atomic::AtomicU64,
}

impl BlockDevice for Reads {
    e2dax_tests::forward!(inner: size, write_at, zero, fence, flush);

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> blockdev::Result<()> {
        self.bytes.fetch_add(buf.len() as u64, std::sync::atomic::Ordering::Relaxed);
        self.inner.read_at(offset, buf)
    }
}

#[test]
fn rebuilding_an_unclean_image_reads_no_more_than_a_few_times_its_size() {
    need_tools!("mke2fs");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    let name = path.to_str().expect("a path of ours");
    tools::mke2fs(&["-t", "ext2", "-b", "1024", "-I", "128", "-N", "4096", name, "16m"]);
    let sound = std::fs::read(&path).expect("read");
    let geometry = {
        let shared: Arc<dyn BlockDevice> = ram(&sound);
        Ext2::open(shared, &OpenOptions::read_only()).expect("open").geometry().clone()
    };
    // One block whose pointers all lead to the next, and so on, in a ring: every inode walks it at all its levels.
    let ring: Vec<u32> = (9000..9256).collect();
    for directories in [false, true] {
        let mut bad = sound.clone();
        bad[1024 + 58..1024 + 60].fill(0);
        for (nr, block) in ring.iter().enumerate() {
            for pointer in 0..256 {
                let next = ring[(nr + pointer) % ring.len()];
                bad[*block as usize * 1024 + 4 * pointer..][..4].copy_from_slice(&next.to_le_bytes());
            }
        }
        for nr in 20..=geometry.inodes_count {
            let (group, index) =
                geometry.group_of_inode(ext2_core::InodeNr::new(nr).expect("a number")).expect("a group");
            let table = field(&bad, group.get() as usize, INODE_TABLE).1;
            let inode = table as usize * 1024 + index as usize * 128;
            let mode: u16 = if directories { 0o040_755 } else { 0o100_644 };
            bad[inode..inode + 2].copy_from_slice(&mode.to_le_bytes());
            bad[inode + 4..inode + 8].copy_from_slice(&(1_u32 << 30).to_le_bytes());
            bad[inode + 26..inode + 28].copy_from_slice(&1_u16.to_le_bytes());
            for slot in 0..15 {
                let block = ring[(nr as usize + slot) % ring.len()];
                bad[inode + 40 + 4 * slot..][..4].copy_from_slice(&block.to_le_bytes());
            }
        }
        let device = Arc::new(Reads { inner: ram(&bad), bytes: 0.into() });
        let began = Instant::now();
        let opened = Ext2::open(device.clone(), &OpenOptions::default());
        let read = device.bytes.load(std::sync::atomic::Ordering::Relaxed);
        println!("directories: {directories}: {read} bytes in {:?}, {:?}", began.elapsed(), opened.err());
        assert!(read < 8 * bad.len() as u64, "{read} bytes were read");
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

/// Whether our check finds an image as clean, or not, as e2fsck does.
#[track_caller]
fn agrees(image: &[u8], what: &str) {
    let mut findings = Vec::new();
    let mut note = |finding: &ext2_image::check::Finding| findings.push(finding.to_string());
    let summary = ext2_image::check::check(&*ram(image), &ext2_image::check::Options::default(), &mut note);
    assert_eq!(summary.expect("checked").is_clean(), is_clean(image), "{what}: {findings:?}");
}

#[test]
fn the_check_of_what_the_hurd_and_others_made_agrees_with_e2fsck() {
    need_tools!("mke2fs", "e2fsck", "debugfs");
    let (base, block) = hurd();
    let (node, table) = {
        let fs = open(&ram(&base));
        (
            author(&fs) as usize - 124,
            fs.descriptor(GroupNr::new(0)).expect("a descriptor").bg_inode_table.get(),
        )
    };
    let lies: &[(&str, usize, &[u8])] = &[
        ("nothing", 36, &block.to_le_bytes()),
        ("no translator", 36, &[0; 4]),
        ("a translator nowhere", 36, &99_999_u32.to_le_bytes()),
        ("a translator in a free block", 36, &(block + 1).to_le_bytes()),
        ("a translator in the table of inodes", 36, &table.to_le_bytes()),
        ("a fragment", 116, &[1]),
        ("a fragment's size", 117, &[1]),
        ("more of the mode", 118, &[1, 1]),
        ("an author", 124, &[1, 2, 3, 4]),
    ];
    let put = |image: &[u8], at: usize, bytes: &[u8]| {
        let mut image = image.to_vec();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    assert!(is_clean(&base));
    for (what, at, bytes) in lies {
        agrees(&put(&base, node + at, bytes), what);
    }
    // The same inode without a translator, its block free, made by Linux and by FreeBSD.
    let plain = {
        let device = ram(&base);
        let fs = open(&device);
        fs.root().expect("root").unlink(b"node").expect("unlinked");
        fs.root().expect("root").create(b"node", &FILE).expect("created");
        assert_eq!(author(&fs) as usize - 124, node);
        fs.close().expect("closed");
        device.to_vec()
    };
    for os in [0, 3] {
        let plain = put(&plain, 1024 + 72, &[os]);
        assert!(is_clean(&plain));
        for (what, at, bytes) in lies {
            agrees(&put(&plain, node + at, bytes), &format!("{what}, system {os}"));
        }
    }
}

#[test]
fn what_linux_keeps_where_the_hurd_has_a_translator_is_no_block() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-I", "128"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let old = root.lookup(b"old").expect("there");
    let block = old.map(FileBlock::new(3), 1).expect("mapped").target.expect("a block");
    let new = root.create(b"new", &FILE).expect("created");
    let (group, index) = fs.geometry().group_of_inode(new.nr()).expect("a group");
    let table = fs.descriptor(group).expect("a descriptor").bg_inode_table.get();
    drop((root, old, new));
    fs.close().expect("closed");
    // The version of the inode: as a number, that of a block of another file.
    device.write_u32(u64::from(table) * 1024 + u64::from(index) * 128 + 36, block.get()).expect("written");
    let fs = open(&device);
    let free = fs.statfs().expect("counted").blocks_free;
    fs.root().expect("root").unlink(b"new").expect("removed");
    assert_eq!(fs.statfs().expect("counted").blocks_free, free);
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

#[test]
fn a_group_whose_bitmap_has_the_last_reserved_inode_as_free_gives_none() {
    need_tools!("mke2fs");
    let device = ram(&image(&[]));
    let fs = open(&device);
    let first = GroupNr::new(0);
    let bitmap = fs.descriptor(first).expect("a descriptor").bg_inode_bitmap.get();
    fs.close().expect("closed");
    // Inode 10.
    let mut bytes = [0; 2];
    device.read_at(u64::from(bitmap) * 1024, &mut bytes).expect("read");
    assert_eq!(bytes[1] & 2, 2);
    device.write_at(u64::from(bitmap) * 1024 + 1, &[bytes[1] & !2]).expect("written");
    let fs = open(&device);
    let made = fs.root().expect("root").create(b"new", &FILE).expect("in another group");
    assert_ne!(fs.geometry().group_of_inode(made.nr()).expect("a group").0, first);
}

#[test]
fn a_disk_is_full_when_every_group_is_whichever_comes_first() {
    need_tools!("mke2fs");
    for policy in [Policy::Aligned, Policy::Goal] {
        let device = ram(&image(&["-m", "0"]));
        let options = OpenOptions { policy, ..OpenOptions::default() };
        let fs = Ext2::open(device.clone(), &options).expect("open");
        let dir = fs.root().expect("root").create(b"dir", &DIR).expect("created");
        let file = dir.create(b"new", &FILE).expect("created");
        let mut at = 0;
        while let Ok(done) = file.write_at(at, &[9; 1024]) {
            at += done as u64;
        }
        assert_eq!(fs.statfs().expect("counted").blocks_free, 0, "{policy:?}");
    }
}
