//! After a loss: who was told of it writes again, and what a sync then returns for is there.

use std::sync::{Arc, atomic::Ordering};

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::small::create;
use ext2_core::{
    BlockSize, CompatFeatures, Ext2, FileKind, Follow, NewInode, OpenOptions, RenameFlags, Wait, XattrSet,
};
use ext2_image::mkfs::{self, Format, Fresh, Revision};

use crate::host::Host;

/// A file system on which somebody else's file is durable.
fn opened() -> (Arc<Host>, Ext2) {
    let (host, fs) = Host::opened();
    create(&fs, "other");
    fs.sync().unwrap();
    (host, fs)
}

/// Somebody else's fence fails.
fn lose(host: &Arc<Host>, fs: &Ext2) {
    host.loss_by_chmod(&fs.resolve("other", Follow::No).unwrap())();
}

/// What a crash leaves now of a file's contents, after e2fsck.
fn left(host: &Host, path: &str) -> Option<Vec<u8>> {
    let image = e2dax_tests::Scratch::new(host.disk.to_vec());
    let mut checker = ext2_image::check::Checker::new();
    let outcome = checker.mend(&image, e2dax_tests::crash::NOW, &mut |_| {}).unwrap();
    assert!(!matches!(outcome, ext2_image::check::Outcome::Halts(_)), "it needs a person");
    let fs = Ext2::open(Arc::new(image), &OpenOptions::read_only()).unwrap();
    fs.read(path).ok()
}

#[test]
fn what_is_written_again_in_its_place_and_synced_is_there() {
    // Up to which indirect block, and how it is written again and synced.
    for len in [3000, 100 << 10, 600 << 10] {
        for (is_held, is_whole) in [(true, false), (true, true), (false, false), (false, true)] {
            let (host, fs) = opened();
            let mut file = create(&fs, "f");
            file.write_at(0, &[1; 700]).unwrap();
            fs.sync().unwrap();
            // In pieces, so that pointers come into blocks that are there.
            (0..len).step_by(20_000).for_each(|at| {
                file.write_at(at as u64, &vec![7; 20_000.min(len - at)]).unwrap();
            });
            file.xattr_set(b"user.a", b"1", XattrSet::Any).unwrap();
            lose(&host, &fs);
            file.sync().unwrap_err();
            fs.sync().unwrap_err();
            if !is_held {
                drop(file);
                file = fs.resolve("f", Follow::No).unwrap();
            }
            file.write_at(0, &vec![7; len]).unwrap();
            match (is_held, is_whole) {
                (_, false) => file.sync().unwrap(),
                (true, true) => fs.sync().unwrap(),
                (false, true) => {
                    drop(file);
                    fs.sync().unwrap();
                }
            }
            let told = format!("{len} bytes, held {is_held}, all of it {is_whole}");
            assert!(left(&host, "f").is_some_and(|bytes| bytes == vec![7; len]), "{told}");
        }
    }
}

#[test]
fn a_sync_that_loses_what_it_has_stored_anew_leaves_that_to_the_next() {
    let (host, fs) = opened();
    let file = create(&fs, "f");
    fs.sync().unwrap();
    file.write_at(0, &[7; 3000]).unwrap();
    lose(&host, &fs);
    for _ in 0..2 {
        host.fails.store(true, Ordering::SeqCst);
        file.sync().unwrap_err();
    }
    file.write_at(0, &[7; 3000]).unwrap();
    file.sync().unwrap();
    assert_eq!(left(&host, "f"), Some(vec![7; 3000]));
}

#[test]
fn a_new_file_that_is_cut_and_written_again_keeps_its_name() {
    let (host, fs) = opened();
    let file = create(&fs, "f");
    lose(&host, &fs);
    file.sync().unwrap_err();
    file.truncate(0, Wait::Yes).unwrap();
    file.write_at(0, &[9; 3000]).unwrap();
    file.sync().unwrap();
    assert_eq!(left(&host, "f"), Some(vec![9; 3000]));
}

#[test]
fn a_file_that_moves_into_a_directory_that_was_told_keeps_its_name() {
    let (host, fs) = opened();
    let root = fs.root().unwrap();
    let file = create(&fs, "f");
    file.write_at(0, &[7; 3000]).unwrap();
    fs.sync().unwrap();
    let folder = root.create("d", &NewInode::new(FileKind::Directory, 0o755)).unwrap();
    lose(&host, &fs);
    folder.sync().unwrap_err();
    fs.rename(&root, b"f", &folder, b"f", RenameFlags::empty()).unwrap();
    file.sync().unwrap_err();
    file.sync().unwrap();
    assert_eq!(left(&host, "d/f"), Some(vec![7; 3000]));
}

#[test]
fn a_feature_that_a_loss_took_is_stored_again() {
    for revision in [Revision::Original, Revision::Dynamic] {
        for nth in 0.. {
            let mut format = Format { block_size: BlockSize::new(1024), revision, ..Format::default() };
            format.features.compat -= CompatFeatures::EXT_ATTR;
            if revision == Revision::Original {
                format.inode_size = 128;
            }
            let ram = RamDevice::new(4 << 20).unwrap();
            mkfs::format(&ram, &format, Fresh::Zeros).unwrap();
            let host = Arc::new(Host::of(&ram.to_vec()));
            let fs = Ext2::open(host.clone(), &OpenOptions::default()).unwrap();
            let [first, other] = ["f", "other"].map(|name| create(&fs, name));
            fs.sync().unwrap();
            // Another's loss behind one of the stores of the first attribute.
            host.stores_before.store(nth, Ordering::SeqCst);
            host.at_store.set(host.loss_by_chmod(&other));
            let set = first.xattr_set(b"user.a", b"1", XattrSet::Any);
            if host.at_store.is_set() {
                set.unwrap();
                assert!(nth > 2);
                break;
            }
            let new = create(&fs, "new");
            new.write_at(0, &[5; 100]).unwrap();
            new.xattr_set(b"user.b", b"2", XattrSet::Any).unwrap();
            new.sync().unwrap();
            assert_eq!(left(&host, "new"), Some(vec![5; 100]), "{revision:?}, store {nth}");
        }
    }
}

#[test]
fn a_block_of_attributes_whose_first_user_may_be_lost_gets_no_second() {
    let host = Host::formatted(4);
    let fs = Ext2::open(host.clone(), &OpenOptions { share_xattrs: true, ..OpenOptions::default() }).unwrap();
    let [one, two, _] = ["one", "two", "other"].map(|name| create(&fs, name));
    fs.sync().unwrap();
    one.xattr_set(b"user.a", b"same", XattrSet::Any).unwrap();
    lose(&host, &fs);
    two.write_at(0, &[5; 100]).unwrap();
    two.xattr_set(b"user.a", b"same", XattrSet::Any).unwrap();
    host.fence().unwrap();
    assert_eq!(left(&host, "two"), Some(vec![5; 100]));
}

#[test]
fn a_name_is_put_in_no_block_whose_bit_another_loses_as_it_is_taken() {
    for nth in 0.. {
        let (host, fs) = opened();
        let other = fs.resolve("other", Follow::No).unwrap();
        let folder = fs.root().unwrap().create("d", &NewInode::new(FileKind::Directory, 0o755)).unwrap();
        let target = create(&fs, "target");
        // No room for one more.
        let name = |nr: usize| format!("{nr}{}", "x".repeat(200));
        (0..4).for_each(|nr| folder.link(&target, name(nr)).unwrap());
        fs.sync().unwrap();
        host.stores_before.store(nth, Ordering::SeqCst);
        host.at_store.set(host.loss_by_chmod(&other));
        let done = folder.link(&target, name(4));
        if host.at_store.is_set() {
            done.unwrap();
            assert!(nth > 2);
            break;
        }
        let Ok(()) = done else { continue };
        let block = folder.extents().last().unwrap().unwrap().target.unwrap().get() - 1;
        let disk = host.disk.to_vec();
        let bitmap = u32::from_le_bytes(disk[2048..2052].try_into().unwrap()) as usize * 1024;
        assert!(disk[bitmap + block as usize / 8] >> (block % 8) & 1 == 1, "store {nth}");
    }
}
