//! Owners that change: what a crash shows to our reader, and to whoever does not know our mark.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use blockdev::{
    RamDevice, Recorder,
    crash::{CrashState, PmemModel, PmemOrder},
};
use e2dax_tests::crash::{Base, options};
use ext2_core::{Ext2, Follow, OpenOptions, SetAttr};

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
