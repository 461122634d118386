//! A log in the place of an earlier one, and one that has to give way to who needs its room.

use std::sync::Arc;

use blockdev::RamDevice;
use e2dax_tests::{
    need_tools,
    small::{batched, file, image_of, is_clean, logged},
};
use ext2_core::{Closed, Ext2, FileKind, FixedClock, NewInode, OpenOptions, RenameFlags, Timestamp};

/// Commits of an earlier log lie where the next one has its own. Where the clock stands still, as for who builds reproducibly,
/// they must not be taken for it.
#[test]
fn what_was_synced_is_there_although_an_earlier_log_at_the_same_time_lay_in_its_place() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "256"], "16M");
    let clock = Arc::new(FixedClock(Timestamp::from_secs(1_700_000_000)));
    let options = OpenOptions { clock: Some(clock), ..logged() };
    // The count of mounts goes back with a check.
    for is_checked in [false, true] {
        let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
        let fs = Ext2::open(device.clone(), &options).unwrap();
        assert!(fs.has_log());
        let root = fs.root().unwrap();
        for nr in 0..6 {
            file(&root, &format!("first-{nr}"), b"first");
            fs.sync().unwrap();
        }
        drop(root);
        assert_eq!(fs.close().unwrap(), Closed::Clean);
        if is_checked {
            blockdev::BlockDevice::write_u16(&*device, 1024 + 52, 0).unwrap();
        }
        for round in 0..4 {
            let fs = Ext2::open(device.clone(), &options).unwrap();
            let root = fs.root().unwrap();
            for nr in 0..=round {
                file(&root, &format!("second-{round}-{nr}"), b"second");
                fs.sync().unwrap();
                // The power goes.
                let left = Arc::new(RamDevice::from_bytes(&device.to_vec()).unwrap());
                let found = Ext2::open(left, &OpenOptions::read_only()).unwrap();
                let name = format!("second-{round}-{nr}");
                assert!(found.exists(&name).unwrap(), "{name} is gone, checked: {is_checked}");
            }
            drop(root);
            fs.close().unwrap();
        }
        assert!(is_clean(&device.to_vec()));
    }
}

#[test]
fn a_rename_gets_the_room_that_a_log_keeps_free() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-N", "256", "-m", "0"], "2M");
    let folder = NewInode::new(FileKind::Directory, 0o755);
    let name = |nr: u8| [&[b'0' + nr][..], &[b'-'; 110]].concat();
    // A directory in which there is no room for a long name, and as many free blocks as `left` says.
    let crowded = |left: u64| {
        let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
        let fs = Ext2::open(device.clone(), &batched()).unwrap();
        assert!(fs.has_log());
        let root = fs.root().unwrap();
        let (from, to) = (root.create("from", &folder).unwrap(), root.create("to", &folder).unwrap());
        for nr in 0..7 {
            for dir in [&from, &to] {
                dir.create(name(nr), &NewInode::new(FileKind::Fifo, 0o644)).unwrap();
            }
        }
        let fill = file(&root, "fill", b"");
        while fs.statfs().unwrap().blocks_free > left && fs.has_log() {
            fill.append(&[1; 1024]).unwrap();
        }
        let free = fs.statfs().unwrap().blocks_free;
        (device, fs, [from, to], free)
    };
    let (.., kept) = crowded(0);
    let mut gone = 0;
    for more in 0..6 {
        let (device, fs, [from, to], free) = crowded(kept + more);
        let had_log = fs.has_log();
        let moved = fs.rename(&from, &name(0), &to, &[b'n'; 250], RenameFlags::empty());
        moved.unwrap_or_else(|error| panic!("{free} blocks are free, log {had_log}: {error}"));
        gone += u32::from(had_log && !fs.has_log());
        drop((from, to));
        fs.close().unwrap();
        assert!(is_clean(&device.to_vec()));
    }
    assert!(gone > 0, "it never gives way");
}
