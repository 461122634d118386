//! Owners that change: what a crash shows to our reader, and to whoever does not know our mark.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use blockdev::{
    BlockDevice, RamDevice, RecordedOp, Recorder, Stored,
    crash::{CrashState, PmemModel, PmemOrder},
};
use e2dax_tests::crash::{Base, options};
use ext2_core::{Ext2, Follow, Inode, OpenOptions, SetAttr};

/// The lowest of the ids that nobody has, and that a mark looks like.
const NOBODY: u32 = 0xff00_0000;

/// What an inode says to who reads its fields as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fields {
    mode: u16,
    uid: u32,
    gid: u32,
}

/// Where inode `nr` lies in an image of one group.
fn place(fs: &Ext2, nr: u32, image: &[u8]) -> usize {
    let geo = fs.geometry();
    let desc = geo.descriptor_offset(ext2_core::GroupNr::new(0), ext2_core::GroupNr::new(0));
    let desc = usize::try_from(desc).expect("small");
    let table = u32::from_le_bytes(image[desc + 8..desc + 12].try_into().expect("4 bytes"));
    table as usize * geo.block_size.bytes() as usize + (nr as usize - 1) * usize::from(geo.inode_size)
}

fn fields(image: &[u8], at: usize) -> Fields {
    let half = |offset: usize| u16::from_le_bytes([image[at + offset], image[at + offset + 1]]);
    let whole = |low, high| u32::from(half(low)) | u32::from(half(high)) << 16;
    Fields { mode: half(0) & 0o7777, uid: whole(2, 120), gid: whole(24, 122) }
}

fn open(image: &[u8], options: &OpenOptions) -> Ext2 {
    let device = RamDevice::from_bytes(image).expect("memory");
    Ext2::open(Arc::new(device), options).expect("the image opens")
}

/// A base whose `/a` has these owners and is set-id.
fn image_of(uid: u32, gid: u32) -> Vec<u8> {
    let device = Arc::new(RamDevice::from_bytes(&Base::small(64, 128).image).expect("memory"));
    let fs = Ext2::open(device.clone(), &options()).expect("the image opens");
    let file = fs.resolve(b"/a", Follow::No).expect("it is there");
    let all = SetAttr { mode: Some(0o4755), uid: Some(uid), gid: Some(gid), ..SetAttr::default() };
    file.set_attr(&all).expect("set");
    drop(file);
    fs.close().expect("closed");
    device.to_vec()
}

#[test]
fn a_crash_shows_the_owners_from_before_or_after_and_to_others_at_worst_nobody() {
    for (old, new) in [
        ((0xffff, 0xffff), (0x1_0000, 0x1_0000)),
        ((0, 0), (1000, 1000)),
        ((0x1_0000, 7), (5, 0x3_0007)),
        ((1000, 1000), (1000, 0x1_03e8)),
        ((3, 4), (3, 5)),
        ((3, 4), (9, 4)),
        ((3, 4), (0x0100_0005, 0x1200_0007)),
    ] {
        let base = image_of(old.0, old.1);
        let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(&base).expect("memory")));
        let fs = Ext2::open(recorder.clone(), &options()).expect("the image opens");
        let file = fs.resolve(b"/a", Follow::No).expect("it is there");
        let at = place(&fs, file.nr().get(), &base);
        file.set_attr(&SetAttr { uid: Some(new.0), gid: Some(new.1), ..SetAttr::default() }).expect("set");
        file.sync().expect("synced");
        let log = recorder.snapshot();
        let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
        for order in [PmemOrder::Lines, PmemOrder::Words, PmemOrder::Program] {
            PmemModel::new(&base, &log).order(order).run(|state: &CrashState<'_>| {
                let fs = open(state.image, &OpenOptions::read_only());
                let attr = fs.resolve(b"/a", Follow::No).expect("it is there").attr();
                ours.insert((attr.uid, attr.gid));
                theirs.insert(fields(state.image, at));
                ControlFlow::Continue(())
            });
        }
        let both: BTreeSet<(u32, u32)> = [old, new].into();
        assert_eq!(ours, both);
        for seen in theirs {
            let is_known = both.contains(&(seen.uid, seen.gid));
            let is_nobody = seen.uid >= NOBODY && seen.gid >= NOBODY && seen.mode & 0o6000 == 0;
            assert!(is_known || is_nobody, "{old:?} to {new:?}: {seen:x?}");
        }
    }
}

#[test]
fn owners_that_a_crash_left_on_their_way_arrive_when_the_image_is_opened_for_writing() {
    let (old, new) = ((0xffff, 0xffff), (0x1_0000, 0x2_0005));
    let base = image_of(old.0, old.1);
    let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(&base).expect("memory")));
    let fs = Ext2::open(recorder.clone(), &options()).expect("the image opens");
    let file = fs.resolve(b"/a", Follow::No).expect("it is there");
    let at = place(&fs, file.nr().get(), &base);
    file.set_attr(&SetAttr { uid: Some(new.0), gid: Some(new.1), ..SetAttr::default() }).expect("set");
    let log = recorder.snapshot();
    let mut marked = 0;
    PmemModel::new(&base, &log).order(PmemOrder::Words).run(|state: &CrashState<'_>| {
        let before = fields(state.image, at);
        let device = Arc::new(RamDevice::from_bytes(state.image).expect("memory"));
        Ext2::open(device.clone(), &options()).expect("the image opens").close().expect("closed");
        let after = fields(&device.to_vec(), at);
        assert!([old, new].contains(&(after.uid, after.gid)), "{before:x?} became {after:x?}");
        if before.uid >= NOBODY {
            marked += 1;
            assert_eq!((after.uid, after.gid), new);
        }
        ControlFlow::Continue(())
    });
    assert!(marked > 0, "no state with a mark");
}

/// What the inode of a path says after each store of a change that a program could tell from the one before, the first of them
/// before the change; and how many stores to the inode there were.
fn steps(base: &[u8], path: &str, change: impl FnOnce(&Inode)) -> (Vec<Fields>, usize) {
    let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(base).expect("memory")));
    let fs = Ext2::open(recorder.clone(), &options()).expect("the image opens");
    let file = fs.resolve(path, Follow::No).expect("it is there");
    let at = place(&fs, file.nr().get(), base);
    recorder.take();
    change(&file);
    let (mut image, mut count) = (base.to_vec(), 0);
    let mut seen = vec![fields(&image, at)];
    for op in recorder.take() {
        let RecordedOp::Store { offset, data: Stored::Bytes(bytes), .. } = op else { continue };
        let offset = offset as usize;
        count += usize::from((at..at + 128).contains(&offset));
        image[offset..offset + bytes.len()].copy_from_slice(&bytes);
        let now = fields(&image, at);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    (seen, count)
}

/// An image whose file or directory has this mode and these owners.
fn image_with(path: &str, mode: u16, uid: u32, gid: u32) -> Vec<u8> {
    let device = Arc::new(RamDevice::from_bytes(&Base::small(64, 128).image).expect("memory"));
    let fs = Ext2::open(device.clone(), &options()).expect("the image opens");
    let inode = fs.resolve(path, Follow::No).expect("it is there");
    let all = SetAttr { mode: Some(mode), uid: Some(uid), gid: Some(gid), ..SetAttr::default() };
    inode.set_attr(&all).expect("set");
    drop(inode);
    fs.close().expect("closed");
    device.to_vec()
}

#[test]
fn what_lies_in_one_word_changes_by_one_store() {
    let old = Fields { mode: 0o4755, uid: 0x1_0003, gid: 0x2_0004 };
    let base = image_with("/a", old.mode, old.uid, old.gid);
    for new in [
        Fields { mode: 0o6711, ..old },
        Fields { mode: 0, ..old },
        Fields { uid: 0x1_0009, ..old },
        Fields { mode: 0o600, uid: 0x1_0009, ..old },
        Fields { gid: 0x2_0009, ..old },
        Fields { uid: 0x5_0003, gid: 0x6_0004, ..old },
    ] {
        let all = SetAttr {
            mode: (new.mode != old.mode).then_some(new.mode),
            uid: (new.uid != old.uid).then_some(new.uid),
            gid: (new.gid != old.gid).then_some(new.gid),
            ..SetAttr::default()
        };
        assert_eq!(steps(&base, "/a", |file| file.set_attr(&all).expect("set")), (vec![old, new], 1));
    }
}

#[test]
fn at_no_store_may_anybody_do_more_than_before_or_after() {
    let owners = [(3, 4), (0x1_0003, 4), (3, 0x2_0004), (0x1_0009, 0x2_0008)];
    for path in ["/a", "/d"] {
        for mode in [0o4755, 0o2750, 0o700] {
            for new_mode in [0, 0o6777, 0o2750, 0o600] {
                for (uid, gid) in owners {
                    let base = image_with(path, mode, 3, 4);
                    let all = SetAttr {
                        mode: Some(new_mode),
                        uid: Some(uid),
                        gid: Some(gid),
                        ..SetAttr::default()
                    };
                    let (seen, _) = steps(&base, path, |inode| inode.set_attr(&all).expect("set"));
                    let what = format!("{path} {mode:o} to {new_mode:o} of {uid:#x} and {gid:#x}: {seen:x?}");
                    assert_eq!(seen.last(), Some(&Fields { mode: new_mode, uid, gid }), "{what}");
                    for now in &seen {
                        let (is_old, is_new) =
                            ((now.uid, now.gid) == (3, 4), (now.uid, now.gid) == (uid, gid));
                        assert!(is_old || now.mode & !new_mode == 0, "{what}");
                        assert!(is_new || now.mode & !mode == 0, "{what}");
                        let is_nobody = now.uid >= NOBODY && now.gid >= NOBODY;
                        assert!(is_old || is_new || is_nobody, "{what}");
                        // A file that is nobody's is not set-id; a directory gives nobody a right by it, and keeps it.
                        match path {
                            "/a" => assert!(!is_nobody || now.mode & 0o6000 == 0, "{what}"),
                            _ => assert!(mode & new_mode & 0o6000 & !now.mode == 0, "{what}"),
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn set_id_bits_are_stripped_by_one_store_where_there_are_any() {
    for (mode, left) in [
        (0o4755, 0o755),
        (0o4000, 0),
        (0o6755, 0o755),
        (0o2755, 0o755),
        // Without the right of the group to execute it the bit means something else.
        (0o2744, 0o2744),
        (0o6744, 0o2744),
        (0o755, 0o755),
        (0o10, 0o10),
        (0o2010, 0o10),
        (0, 0),
    ] {
        let old = Fields { mode, uid: 3, gid: 4 };
        let base = image_with("/a", mode, 3, 4);
        let (seen, count) = steps(&base, "/a", |file| file.strip_setid().expect("stripped"));
        assert_eq!(seen.last(), Some(&Fields { mode: left, ..old }), "{mode:o}");
        assert_eq!(
            (seen.len() - 1, count),
            (usize::from(left != mode), usize::from(left != mode)),
            "{mode:o}"
        );
    }
}

#[test]
fn owners_change_on_an_image_of_the_hurd_and_what_it_keeps_in_its_fields_stays() {
    for (old, new) in [
        ((0, 0), (0x1_0001, 0x2_0002)),
        ((0x1_0001, 0x2_0002), (7, 8)),
        ((1, 2), (0x3_0001, 0x4_0005)),
        ((1, 2), (5, 6)),
        ((1, 2), (0x1234_0005, 0x5678_0006)),
    ] {
        let mut base = image_with("/a", 0o644, old.0, old.1);
        base[1024 + 72] = 1;
        let device = Arc::new(RamDevice::from_bytes(&base).expect("memory"));
        let fs = Ext2::open(device.clone(), &options()).expect("the image opens");
        let file = fs.resolve("/a", Follow::No).expect("it is there");
        let at = place(&fs, file.nr().get(), &base);
        // The author.
        device.write_u32(at as u64 + 124, 0x0bad_cafe).expect("stored");
        file.set_attr(&SetAttr { uid: Some(new.0), gid: Some(new.1), ..SetAttr::default() }).expect("set");
        let found = fields(&device.to_vec(), at);
        assert_eq!((found.uid, found.gid), new, "from {old:x?}");
        assert_eq!((file.attr().uid, file.attr().gid), new, "from {old:x?}");
        assert_eq!(device.read_u32(at as u64 + 124).expect("read"), 0x0bad_cafe);
    }
}
