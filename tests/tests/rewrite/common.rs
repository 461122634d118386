//! Images with files, and what is asked of an image that was rewritten.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use blockdev::{BlockDevice, DeviceOptions, FileDevice};
use e2dax_tests::{tools, tree};
use ext2_core::{Ext2, FileKind, NewInode};
use ext2_image::check::Checker;

pub(crate) const MIB: u64 = 1 << 20;

/// Opens an image for writing.
pub(crate) fn open(path: &Path) -> Arc<dyn BlockDevice> {
    Arc::new(FileDevice::open(path, &DeviceOptions::read_write()).unwrap())
}

/// An image made by mke2fs, with files of many kinds and sizes in all of its groups; about half of it is in use.
pub(crate) fn image(path: &Path, args: &str, bytes: u64) {
    File::create(path).unwrap().set_len(bytes).unwrap();
    let mut all: Vec<&str> = vec!["-t", "ext2", "-q", "-F"];
    all.extend(args.split(' ').filter(|word| !word.is_empty()));
    all.push(path.to_str().unwrap());
    tools::run("mke2fs", &all).unwrap();
    fill(open(path), bytes);
}

/// Puts files of many kinds into an image, in all of its groups.
pub(crate) fn fill(device: Arc<dyn BlockDevice>, bytes: u64) {
    let fs = Ext2::open(device, &e2dax_tests::crash::options()).unwrap();
    let root = fs.root().unwrap();
    let folders = 12;
    let large = bytes / 4 / folders;
    for folder in 0..folders {
        let dir =
            root.create(format!("d{folder}").as_bytes(), &NewInode::new(FileKind::Directory, 0o755)).unwrap();
        let below = dir.create(b"below", &NewInode::new(FileKind::Directory, 0o700)).unwrap();
        for nr in 0..40_u64 {
            let name = format!("a-file-with-a-name-{nr}");
            let file = below.create(name.as_bytes(), &NewInode::new(FileKind::Regular, 0o644)).unwrap();
            let text = name.repeat((nr as usize * 37) % 400 + 1);
            file.write_at(nr % 3 * 5000, text.as_bytes()).unwrap();
            if nr % 5 == 0 {
                file.xattr_set(
                    b"user.note",
                    &text.as_bytes()[..300.min(text.len())],
                    ext2_core::XattrSet::Any,
                )
                .unwrap();
            }
            if nr % 7 == 0 {
                dir.link(&file, format!("l{nr}").as_bytes()).unwrap();
            }
        }
        let target = format!("below/{}", "x/../".repeat(folder as usize * 3));
        dir.symlink(b"link", target.as_bytes(), &NewInode::new(FileKind::Symlink, 0o777)).unwrap();
        let file = dir.create(b"large", &NewInode::new(FileKind::Regular, 0o600)).unwrap();
        let part: Vec<u8> = (0..65_536_u32).map(|n| (n / 7 + folder as u32 * 13) as u8).collect();
        let mut at = folder * 4096;
        while at < large {
            file.write_at(at, &part).unwrap();
            at += part.len() as u64 + if folder % 4 == 3 { 70_000 } else { 0 };
        }
    }
    // Room in the first groups, so that what is behind has somewhere to go.
    for folder in (0..folders).step_by(3) {
        let dir = fs.resolve(format!("/d{folder}").as_bytes(), ext2_core::Follow::No).unwrap();
        dir.unlink(b"large").unwrap();
    }
    fs.close().unwrap();
}

/// A field of four bytes of an image's superblock.
pub(crate) fn field(device: &dyn BlockDevice, at: u64) -> u32 {
    device.read_u32(1024 + at).unwrap()
}

/// What is in an image, by names, whatever its inodes are called; and which names are of one file.
pub(crate) fn contents(device: Arc<dyn BlockDevice>) -> tree::Tree {
    let fs = Ext2::open(device, &ext2_core::OpenOptions::read_only()).unwrap();
    let mut tree = tree::of(&fs).unwrap();
    // Of large files the sum of their contents.
    for (path, node) in tree.iter_mut().filter(|(_, node)| node.size > tree::LARGEST) {
        let inode = fs.resolve([b"/", path.as_slice()].concat(), ext2_core::Follow::No).unwrap();
        let (mut sum, mut at, mut part) = (crc32fast::Hasher::new(), 0, vec![0; 1 << 20]);
        while at < node.size {
            let len = inode.read_at(at, &mut part).unwrap();
            sum.update(&part[..len]);
            at += len as u64;
        }
        node.content = sum.finalize().to_le_bytes().to_vec();
    }
    let mut first: BTreeMap<u32, u32> = BTreeMap::new();
    for (nr, node) in tree.values_mut().enumerate() {
        node.inode = *first.entry(node.inode).or_insert(nr as u32);
    }
    tree
}

/// That our own check finds nothing.
pub(crate) fn assert_sound(device: &dyn BlockDevice, what: &str) {
    let mut found = Vec::new();
    let summary = Checker::new()
        .check(device, &ext2_image::check::Options { backups: true, ..Default::default() }, &mut |finding| {
            found.push(finding.to_string());
        })
        .unwrap();
    assert!(summary.is_clean(), "{what}: {found:#?}");
}
