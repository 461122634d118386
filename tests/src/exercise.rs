//! Asking a file system everything, and changing everything in it: what tests and fuzz targets put damaged images through.

use std::collections::BTreeSet;

use ext2_core::{
    AclKind, Ext2, FileBlock, FileKind, Follow, Inode, InodeNr, NewInode, RenameFlags, SetAttr, Wait,
    XattrSet,
};
use ext2_image::fields::{Layout, Structure};
use ext2_image::inspect;
use ext2_image::manifest::{from_image, parse};

/// How far reading came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The image was refused.
    Nowhere,
    /// It was opened, and something in it cannot be read.
    In,
    /// Everything was read.
    Through,
}

/// Asks an open file system everything; panics where an answer is wrong.
pub fn try_everything(fs: &Ext2) -> Came {
    let _ = fs.statfs();
    let groups = fs.geometry().group_numbers();
    groups.take(200).for_each(|group| drop(fs.descriptor(group)));
    // The whole of it, as `e2dax manifest` does; what it gives must be a manifest.
    let manifest = from_image(fs);
    let came = if manifest.is_ok() { Came::Through } else { Came::In };
    assert_eq!(manifest.is_ok(), from_image(fs).is_ok(), "the same question has the same answer");
    if let Ok(manifest) = manifest {
        assert_eq!(parse(&manifest.to_string()).as_ref(), Ok(&manifest));
        for entry in manifest.entries().iter().take(50) {
            if entry.path.len() <= 4096 {
                fs.resolve(&entry.path, Follow::No).expect("a path of the walk leads somewhere");
                let _ = fs.resolve(&entry.path, Follow::Yes);
            }
        }
    }
    // And each part alone, where the whole stops at the first fault.
    let inodes = fs.superblock().inodes_count.min(400);
    for nr in (1..=inodes).filter_map(InodeNr::new) {
        if let Ok(inode) = fs.inode(nr) {
            try_inode(&inode);
        }
    }
    look_inside(fs);
    came
}

/// Asks what lies where, of the device and not of the file system: any answer is right that comes.
fn look_inside(fs: &Ext2) {
    let dev = &**fs.device();
    let Ok(layout) = Layout::read(dev) else { return };
    let _ = inspect::whose(dev, &layout, &[0, 1, 2, 40, 100, 1000], &mut |_, _| ());
    let _ = inspect::deleted(dev, &layout);
    let _ = inspect::journal(dev, &layout);
    let _ = inspect::bad_blocks(dev, &layout);
    for group in fs.geometry().group_numbers().take(2) {
        let _ = inspect::group_space(dev, &layout, group);
        for what in [Structure::Group(group), Structure::BlockBitmap(group), Structure::InodeBitmap(group)] {
            let _ = layout.take(dev, what);
        }
    }
    for nr in (1..20).filter_map(InodeNr::new) {
        if let Ok((_, bytes)) = inspect::read_inode(dev, &layout, nr) {
            let _ = inspect::pointers(dev, fs.geometry(), &bytes);
            let _ = layout.impossible(dev, Structure::Inode(nr), &bytes);
        }
    }
    for block in 0..fs.superblock().blocks_count.min(8) {
        for what in [Structure::Directory(block), Structure::Xattrs(block), Structure::Journal(block)] {
            let _ = layout.take(dev, what);
        }
    }
}

/// Asks an inode everything that can be asked.
pub fn try_inode(inode: &Inode) {
    let attr = inode.attr();
    let _ = inode.read_link();
    let _ = inode.acl(AclKind::Access);
    let _ = inode.acl(AclKind::Default);
    for name in inode.xattr_list().unwrap_or_default() {
        let _ = inode.xattr_get(&name);
    }
    if attr.kind == FileKind::Directory {
        let mut seen = BTreeSet::new();
        for entry in inode.entries(0).expect("a directory can be listed").take(2000) {
            // The rest of a directory that is broken can be gigabytes of the same error.
            let Ok(entry) = entry else { break };
            if seen.insert(entry.name.clone()) && seen.len() < 20 {
                match inode.lookup_nr(&entry.name) {
                    Ok(nr) => assert_eq!(nr, entry.nr, "listing and lookup agree on {:?}", entry.name),
                    Err(error) => assert!(!error.is(ext2_core::Errno::NOENT), "{:?} is listed", entry.name),
                }
            }
        }
    }
    let block_size = inode.fs().geometry().block_size.bytes();
    let blocks_count = u64::from(inode.fs().superblock().blocks_count);
    let blocks = attr.size.div_ceil(block_size);
    let (mut block, mut answers) = (0, 0);
    let mut buffer = [0; 1000];
    while block < blocks && answers < 200 {
        let Ok(mapping) = inode.map(FileBlock::new(block), blocks - block) else { break };
        assert!(mapping.start.get() == block && mapping.count >= 1 && mapping.count <= blocks - block);
        if let Some(target) = mapping.target {
            assert!(u64::from(target.get()) + mapping.count <= blocks_count, "{mapping:?} is inside");
        }
        if attr.kind == FileKind::Regular {
            let read = inode.read_at(block * block_size, &mut buffer).expect("what is mapped can be read");
            assert!(read > 0);
            let _ = inode.seek_data(block * block_size);
            let _ = inode.seek_hole(block * block_size);
        }
        block = mapping.end().get();
        answers += 1;
    }
    if attr.kind == FileKind::Regular {
        let _ = inode.read_at(attr.size.saturating_sub(10), &mut buffer);
        let _ = inode.read_at(u64::MAX, &mut buffer);
        let _ = inode.map(FileBlock::new(u64::MAX), u64::MAX);
    }
}

/// Changes what can be changed. Everything may fail; nothing may panic.
pub fn modify_everything(fs: &Ext2) {
    let Ok(root) = fs.root() else { return };
    let new = |kind| NewInode { kind, mode: 0o644, uid: 1, gid: 2, umask: 0, device: None };
    let names: Vec<(Inode, Vec<u8>)> = directories(fs)
        .into_iter()
        .flat_map(|dir| {
            let entries: Vec<_> =
                dir.entries(0).into_iter().flatten().take(60).filter_map(Result::ok).collect();
            entries.into_iter().map(move |entry| (dir.clone(), entry.name.into_bytes()))
        })
        .filter(|(_, name)| !matches!(&name[..], b"." | b".."))
        .take(120)
        .collect();
    let _ = root.create(b"made", &new(FileKind::Directory));
    let made = root.lookup(b"made").unwrap_or_else(|_| root.clone());
    for (index, (dir, name)) in names.iter().enumerate() {
        let Ok(inode) = dir.lookup(name) else { continue };
        match index % 8 {
            0 => drop((dir.unlink(name), dir.rmdir(name))),
            1 => drop((inode.truncate(inode.size() / 3, Wait::Yes), inode.truncate(0, Wait::Yes))),
            2 => drop((inode.write_at(inode.size(), &[1; 3000]), inode.write_at(300_000, &[2; 100]))),
            3 => drop(fs.rename(dir, name, &made, format!("moved{index}").as_bytes(), RenameFlags::empty())),
            4 => drop((
                inode.xattr_set(b"user.new", &[3; 100], XattrSet::Any),
                inode.xattr_list().map(|names| names.iter().for_each(|name| drop(inode.xattr_remove(name)))),
            )),
            5 => drop((made.link(&inode, name), inode.punch_hole(1000, 100_000, Wait::Yes))),
            6 => drop(inode.set_attr(&SetAttr { mode: Some(0o600), ..SetAttr::default() })),
            _ => drop(fs.rename(dir, name, &root, b"made", RenameFlags::EXCHANGE)),
        }
    }
    for index in 0..40 {
        let Ok(file) = made.create(format!("file{index}").as_bytes(), &new(FileKind::Regular)) else {
            continue;
        };
        let _ = file.write_at(index * 3000, &[4; 5000]);
    }
    let _ = fs.sync();
}

/// Changes a file system by path, each change in one call, and removes every tree in it. Everything may fail; nothing may panic,
/// or go on for ever.
pub fn remove_everything(fs: &Ext2) -> Came {
    let Ok(root) = fs.root() else { return Came::In };
    let entries = root.entries(0).into_iter().flatten().take(60).map_while(Result::ok);
    let names: Vec<Vec<u8>> = entries
        .map(|entry| entry.name.into_bytes())
        .filter(|name| !matches!(&name[..], b"." | b".."))
        .collect();
    let mut came = Came::Through;
    let _ = fs.create_dir_all("new/below/it");
    let _ = fs.write("new/below/file", [5; 3000]);
    for name in &names {
        let _ = fs.write(name, b"other bytes");
        let _ = fs.create_dir_all([name, &b"/deep/down"[..]].concat());
        let _ = fs.symlink(name, "new/link");
        let _ = fs.hard_link(name, "new/second");
        if fs.rename_path(name, "new/moved").is_ok() {
            let _ = fs.rename_path("new/moved", name);
        }
        if fs.remove_file(name).is_err() && fs.remove_dir(name).is_err() && fs.remove_dir_all(name).is_err() {
            came = Came::In;
        }
    }
    if fs.remove_dir_all("new").is_err() || fs.sync().is_err() {
        came = Came::In;
    }
    came
}

/// The directories that can be reached, each once.
pub fn directories(fs: &Ext2) -> Vec<Inode> {
    let mut found: Vec<Inode> = fs.root().into_iter().collect();
    let mut seen: BTreeSet<InodeNr> = found.iter().map(Inode::nr).collect();
    let mut at = 0;
    while let Some(dir) = found.get(at).cloned() {
        for entry in dir.entries(0).into_iter().flatten().take(500).map_while(Result::ok) {
            if let Ok(inode) = fs.inode(entry.nr)
                && inode.kind() == FileKind::Directory
                && seen.insert(entry.nr)
            {
                found.push(inode);
            }
        }
        at += 1;
    }
    found
}
