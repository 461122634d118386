//! Files are moved into whole units of 2 MiB where there is room for them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use e2dax_tests::{need_tools, tools};
use ext2_core::{Ext2, FileKind, NewInode, Policy};
use ext2_image::align::align;
use ext2_image::rewrite::Options;

use crate::common::{MIB, assert_sound, contents, open};

/// An image of `mib` MiB with `files` files of some MiB whose blocks lie among those of small ones, as Linux puts them
/// when they are written by turns.
pub(crate) fn scattered(path: &Path, args: &str, mib: u64, files: u64) {
    File::create(path).unwrap().set_len(mib * MIB).unwrap();
    let mut all: Vec<&str> = vec!["-t", "ext2", "-q", "-F"];
    all.extend(args.split(' '));
    all.push(path.to_str().unwrap());
    tools::run("mke2fs", &all).unwrap();
    let options = ext2_core::OpenOptions { policy: Policy::Goal, ..e2dax_tests::crash::options() };
    let fs = Ext2::open(open(path), &options).unwrap();
    let root = fs.root().unwrap();
    let make = |name: String| root.create(name.as_bytes(), &NewInode::new(FileKind::Regular, 0o644)).unwrap();
    let large: Vec<_> = (0..files).map(|nr| make(format!("large{nr}"))).collect();
    let small: Vec<_> = (0..8).map(|nr| make(format!("small{nr}"))).collect();
    let part = vec![0x5a; 96 << 10];
    let each = (mib * MIB / 2 / files).max(2 * MIB + 300_000);
    let mut at = 0;
    while at < each {
        for (nr, file) in large.iter().enumerate() {
            file.write_at(at, &part).unwrap();
            small[(at as usize / part.len() + nr) % 8].write_at(at / 8, &part[..5000]).unwrap();
        }
        at += part.len() as u64;
    }
    drop((large, small));
    fs.close().unwrap();
}

#[test]
fn scattered_files_become_mappable_wholly_and_keep_their_contents() {
    need_tools!("mke2fs", "e2fsck");
    let folder = tempfile::tempdir().unwrap();
    for (args, mib, files) in [
        ("-b 4096", 64, 4),
        ("-b 1024 -O resize_inode,has_journal", 96, 5),
        ("-b 4096 -O ^resize_inode -N 64", 24, 2),
    ] {
        let path = folder.path().join("image.img");
        scattered(&path, args, mib, files);
        tools::e2fsck_fn(&path).unwrap();
        let before = contents(open(&path));
        let device = open(&path);
        let done = align(&device, &Options::default()).unwrap();
        println!("{args}: {done:?}");
        assert!(done.before.fragmented + done.before.unaligned > 0, "{args}");
        assert_eq!((done.after.fragmented, done.after.unaligned), (0, 0), "{args}: {done:?}");
        assert_eq!(done.after.with_data(), done.before.with_data());
        assert_sound(&*device, args);
        let again = align(&device, &Options::default()).unwrap();
        assert_eq!((again.rounds, again.after), (0, done.after), "{args}");
        drop(device);
        tools::e2fsck_fn(&path).unwrap_or_else(|error| panic!("{args}: {error}"));
        assert!(contents(open(&path)) == before, "{args}: contents differ");
    }
}

#[test]
fn small_files_make_room_where_no_unit_is_free() {
    need_tools!("mke2fs", "e2fsck");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.img");
    scattered(&path, "-b 4096 -O ^resize_inode -N 4096", 64, 4);
    {
        // A small file in each unit that is free.
        let fs = Ext2::open(open(&path), &e2dax_tests::crash::options()).unwrap();
        let root = fs.root().unwrap();
        let mut nr = 0;
        let mut kept = Vec::new();
        while let Ok(file) =
            root.create(format!("s{nr}").as_bytes(), &NewInode::new(FileKind::Regular, 0o644))
        {
            if file.write_at(0, &[7; 4096]).is_err() || nr > 3000 {
                break;
            }
            kept.push(nr);
            nr += 1;
            let filler = format!("f{nr}");
            let file = root.create(filler.as_bytes(), &NewInode::new(FileKind::Regular, 0o644)).unwrap();
            if file.write_at(0, &vec![8; 1 << 20]).is_err() {
                break;
            }
        }
        for nr in 1..=nr {
            let _ = root.unlink(format!("f{nr}").as_bytes());
        }
        fs.close().unwrap();
    }
    let before = contents(open(&path));
    let device: Arc<dyn blockdev::BlockDevice> = open(&path);
    let done = align(&device, &Options::default()).unwrap();
    println!("{done:?}");
    assert_eq!((done.after.fragmented, done.after.unaligned), (0, 0), "{done:?}");
    drop(device);
    tools::e2fsck_fn(&path).unwrap();
    assert!(contents(open(&path)) == before);
}
