//! Rewrites that are cut off at every moment: the image is the old one or the new one, or is carried out by `recover`.

use std::ops::ControlFlow;
use std::sync::Arc;

use blockdev::crash::{BlockModel, CrashLimits, CrashState, PmemModel, PmemOrder};
use blockdev::{BlockDevice, RamDevice, Recorder};
use e2dax_tests::{Scratch, need_tools, tools};
use ext2_core::{Ext2, FileKind, NewInode, OpenOptions};
use ext2_image::align::align;
use ext2_image::resize::Resize;
use ext2_image::rewrite::{self, Options};
use ext2_image::tune::Tune;

use crate::common::{assert_sound, contents, field};

const KIB: usize = 1 << 10;

/// An image of `kib` KiB made by mke2fs, with some files at its end, and free room behind it.
fn base(args: &str, kib: usize, behind: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.img");
    std::fs::File::create(&path).unwrap().set_len((kib * KIB) as u64).unwrap();
    let mut all: Vec<&str> = vec!["-t", "ext2", "-q", "-F"];
    all.extend(args.split(' '));
    all.push(path.to_str().unwrap());
    tools::run("mke2fs", &all).unwrap();
    let device = Arc::new(Scratch::new(std::fs::read(&path).unwrap()));
    let fs = Ext2::open(device.clone(), &e2dax_tests::crash::options()).unwrap();
    let root = fs.root().unwrap();
    let gap = root.create(b"gap", &NewInode::new(FileKind::Regular, 0o600)).unwrap();
    gap.write_at(0, &vec![b'g'; kib * KIB / 3]).unwrap();
    for nr in 0..6_u8 {
        let dir = root.create([b'd', b'0' + nr], &NewInode::new(FileKind::Directory, 0o755)).unwrap();
        let file = dir.create(b"file", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
        file.write_at(0, &vec![b'a' + nr; 15 * KIB]).unwrap();
        root.link(&file, [b'l', b'0' + nr]).unwrap();
    }
    drop(gap);
    root.unlink(b"gap").unwrap();
    fs.close().unwrap();
    let mut bytes = device.to_vec();
    bytes.resize((kib + behind) * KIB, 0);
    bytes
}

/// What may come of a crash, and what it must be.
struct Judge {
    before: e2dax_tests::tree::Tree,
    scratch: Arc<Scratch>,
    old: Vec<u8>,
    /// States by what they were: as before, unfinished, as after.
    seen: [u64; 3],
    /// The real e2fsck looks at every so manieth.
    e2fsck: u64,
}

impl Judge {
    fn look(&mut self, state: &CrashState<'_>) -> ControlFlow<()> {
        self.scratch.load(state.image);
        let device: Arc<dyn BlockDevice> = self.scratch.clone();
        let what = format!("before step {} ({:?})", state.op, state.choice);
        if rewrite::is_unfinished(&*device).unwrap() {
            self.seen[1] += 1;
            assert!(Ext2::open(device.clone(), &OpenOptions::read_only()).is_err(), "{what}");
            assert!(rewrite::recover(&*device).unwrap(), "{what}");
        } else if state.image[1024..2048] == self.old[1024..2048] {
            self.seen[0] += 1;
        } else {
            self.seen[2] += 1;
        }
        assert!(!rewrite::recover(&*device).unwrap(), "{what}");
        assert_sound(&*device, &what);
        assert!(contents(device.clone()) == self.before, "{what}: contents differ");
        let all: u64 = self.seen.iter().sum();
        if all.is_multiple_of(self.e2fsck) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), self.scratch.to_vec()).unwrap();
            tools::e2fsck_fn(file.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        ControlFlow::Continue(())
    }
}

/// Records what `work` does to an image, and looks at all that a crash may leave of it.
fn sweep(what: &str, bytes: &[u8], samples: usize, work: impl FnOnce(Arc<dyn BlockDevice>)) {
    let device = Arc::new(Recorder::new(RamDevice::from_bytes(bytes).unwrap()));
    work(device.clone());
    let log = device.take();
    let limits = CrashLimits {
        exhaustive: 4 * samples as u64,
        edges: samples,
        pairs: samples,
        samples,
        ..CrashLimits::default()
    };
    let before = contents(Arc::new(Scratch::new(bytes.to_vec())));
    let mut judge = Judge {
        before,
        scratch: Arc::new(Scratch::new(Vec::new())),
        old: bytes.to_vec(),
        seen: [0; 3],
        e2fsck: 40,
    };
    for order in [PmemOrder::Lines, PmemOrder::Program] {
        let mut model = PmemModel::new(bytes, &log).order(order);
        model.limits = limits;
        model.run(|state: &CrashState<'_>| judge.look(state));
    }
    let mut model = BlockModel::new(bytes, &log);
    model.limits = limits;
    model.run(|state: &CrashState<'_>| judge.look(state));
    println!("{what}: {:?} states as before, unfinished and as after", judge.seen);
    assert!(judge.seen.iter().all(|&states| states > 0), "{what}: {:?}", judge.seen);
}

#[test]
fn a_resize_that_is_cut_off_is_not_begun_or_is_carried_out() {
    need_tools!("mke2fs", "e2fsck");
    let resize = |blocks: u64| {
        move |device: Arc<dyn BlockDevice>| {
            let plan = Resize::plan(&*device, blocks).unwrap();
            let done = plan.run(&*device, &Options::default()).unwrap();
            println!("{done:?}");
        }
    };
    let few = "-b 1024 -g 256 -N 64 -O resize_inode -E resize=8192";
    sweep("grow", &base(few, 768, 512), 4, resize(1200));
    sweep("shrink", &base(few, 1024, 0), 4, resize(600));
    // As far as it goes: what moves has no other room than blocks that metadata had, which only the log may write.
    let least = |device: Arc<dyn BlockDevice>| {
        let blocks = Resize::minimum(&*device).unwrap();
        resize(blocks.into())(device);
    };
    sweep("shrink as far as it goes", &base(few, 1024, 0), 2, least);
}

#[test]
fn a_change_of_the_superblock_that_is_cut_off_is_there_or_not() {
    need_tools!("mke2fs", "e2fsck");
    sweep("tune", &base("-b 1024 -g 256 -N 64 -O ^resize_inode,^sparse_super", 1024, 0), 4, |device| {
        let features = ext2_core::Features {
            ro_compat: ext2_core::RoCompatFeatures::SPARSE_SUPER | ext2_core::RoCompatFeatures::LARGE_FILE,
            ..Ext2::open(device.clone(), &OpenOptions::read_only()).unwrap().superblock().features
        };
        let tune = Tune {
            label: Some(b"another name".to_vec()),
            uuid: Some([9; 16]),
            features: Some(features),
            ..Tune::default()
        };
        assert!(tune.apply(&*device, &Options::default()).unwrap());
        assert_eq!(field(&*device, 104), 0x0909_0909);
    });
}

/// A small image with a file of a whole unit in pieces, and room for it.
fn in_pieces() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pieces.img");
    std::fs::File::create(&path).unwrap().set_len(7 << 20).unwrap();
    let args = "-t ext2 -q -F -b 4096 -N 32 -O ^resize_inode";
    let mut all: Vec<&str> = args.split(' ').collect();
    all.push(path.to_str().unwrap());
    tools::run("mke2fs", &all).unwrap();
    let device = Arc::new(Scratch::new(std::fs::read(&path).unwrap()));
    let options = OpenOptions { policy: ext2_core::Policy::Goal, ..e2dax_tests::crash::options() };
    let fs = Ext2::open(device.clone(), &options).unwrap();
    let root = fs.root().unwrap();
    let make = |name: &[u8]| root.create(name, &NewInode::new(FileKind::Regular, 0o644)).unwrap();
    let (large, small) = (make(b"large"), make(b"small"));
    for part in 0..8_u64 {
        large.write_at(part * (256 << 10), &vec![b'a' + part as u8; 256 << 10]).unwrap();
        small.write_at(part * 4096, &[b'0' + part as u8; 4096]).unwrap();
    }
    drop((large, small));
    fs.close().unwrap();
    device.to_vec()
}

#[test]
fn an_alignment_that_is_cut_off_is_not_begun_or_is_carried_out() {
    need_tools!("mke2fs", "e2fsck");
    sweep("align", &in_pieces(), 3, |device| {
        let done = align(&device, &Options::default()).unwrap();
        println!("{done:?}");
        assert!(done.rounds > 0 && done.after.mappable > done.before.mappable, "{done:?}");
    });
}

#[test]
fn a_rewrite_that_is_stopped_at_any_of_its_steps_leaves_the_image_as_it_was() {
    need_tools!("mke2fs");
    type Work<'w> = &'w dyn Fn(&Arc<dyn BlockDevice>, &Options<'_>) -> ext2_core::Result<()>;
    let few = "-b 1024 -g 256 -N 64 -O resize_inode -E resize=8192";
    let resize = |blocks: u64| {
        move |device: &Arc<dyn BlockDevice>, options: &Options<'_>| {
            Resize::plan(&**device, blocks)?.run(&**device, options).map(drop)
        }
    };
    let (grow, shrink) = (resize(1200), resize(600));
    let works: [(&str, Vec<u8>, Work<'_>); 3] = [
        ("grow", base(few, 768, 512), &grow),
        ("shrink", base(few, 1024, 0), &shrink),
        ("align", in_pieces(), &|device, options| align(device, options).map(drop)),
    ];
    for (what, bytes, work) in works {
        let before = contents(Arc::new(Scratch::new(bytes.clone())));
        let mut stops = 0_u64;
        loop {
            let device: Arc<dyn BlockDevice> = Arc::new(Scratch::new(bytes.clone()));
            let left = std::cell::Cell::new(stops);
            let stop = || left.replace(left.get().saturating_sub(1)) == 0;
            let watch = rewrite::Watch { progress: &|_| (), stop: &stop };
            let done = work(&device, &Options { watch, ..Options::default() });
            let name = format!("{what}, stopped at {stops}");
            assert!(!rewrite::is_unfinished(&*device).unwrap(), "{name}");
            assert_sound(&*device, &name);
            assert!(contents(device.clone()) == before, "{name}");
            match done {
                Ok(()) => break,
                Err(error) => assert!(error.is(ext2_core::Errno::INTR), "{name}: {error}"),
            }
            let mut head = [0; 1024];
            device.read_at(1024, &mut head).unwrap();
            // Of an alignment the rounds before it stay.
            assert!(what == "align" || head == bytes[1024..2048], "{name}");
            stops += 1;
        }
        println!("{what}: stopped at {stops} places");
        assert!(stops >= 1, "{what}: {stops}");
    }
}

#[test]
fn a_log_that_is_not_whole_changes_nothing() {
    need_tools!("mke2fs");
    let bytes = base("-b 1024 -g 256 -N 64 -O ^resize_inode", 512, 512);
    let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(&bytes).unwrap()));
    let plan = Resize::plan(&*recorder, 1000).unwrap();
    plan.run(&*recorder, &Options::default()).unwrap();
    let log = recorder.take();
    // The state in which the log holds and nothing was carried out.
    let mut marked = None;
    PmemModel::new(&bytes, &log).order(PmemOrder::Program).run(|state: &CrashState<'_>| {
        if state.image[1024 + 96 + 3] & 0x40 == 0 {
            return ControlFlow::Continue(());
        }
        marked = Some(state.image.to_vec());
        ControlFlow::Break(())
    });
    let marked = marked.unwrap();
    let head = u32::from_le_bytes(marked[1024 + 992..1024 + 996].try_into().unwrap()) as usize * KIB;
    let place = |nr: usize| {
        let at = head + 24 + nr * 12 + 4;
        u32::from_le_bytes(marked[at..at + 4].try_into().unwrap()) as usize * KIB
    };
    // The index, contents of two entries, the pointer, and an entry that leads outside.
    for at in
        [head, head + 9, head + 13, head + 17, head + 25, head + 29, place(0), place(1) + 900, 1024 + 993]
    {
        let mut bytes = marked.clone();
        bytes[at] ^= 0x41;
        let device = Scratch::new(bytes.clone());
        assert!(rewrite::recover(&device).is_err(), "byte {at}");
        assert!(device.to_vec() == bytes, "byte {at}");
    }
}
