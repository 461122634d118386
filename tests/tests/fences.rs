//! Each fence and flush is there for a reason: leave one out wherever it is made, and some crash shows it.

use std::{
    collections::BTreeMap,
    num::NonZero,
    ops::{ControlFlow, Range},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use blockdev::{
    BlockDevice, Media, RamDevice, RecordedOp, Recorder,
    crash::{CrashLimits, CrashState, PmemModel, PmemOrder},
};
use e2dax_tests::{
    Scratch,
    crash::{self, Action, Base, Device, NOW, Plan},
    golden, need_tools, tree,
};
use ext2_core::{Barrier, Ext2, FileBlock, Follow, Timestamp, XattrSet};
use ext2_dax::{
    DaxFs, DaxOptions, File, OpenFor,
    mmu::{
        Protection, Sharing,
        soft::{MapRequest, SoftMap, SoftMmu},
    },
};
use ext2_image::{
    check::{Checker, Finding, Options},
    mkfs::{self, Format, Fresh, Output},
};

/// How each barrier was shown: by words.
type Shown = BTreeMap<Barrier, String>;

/// An image and a device, and the workloads that are tried on them.
struct Room {
    plan: Plan,
    workloads: Vec<Vec<Action>>,
}

fn room(base: Base, device: Device, workloads: Vec<Vec<Action>>) -> Room {
    let plan = Plan {
        limits: CrashLimits { exhaustive: 256, edges: 512, pairs: 16, samples: 16, ..CrashLimits::default() },
        states: 60_000,
        threads: 1,
        ..Plan::new(base, device)
    };
    Room { plan, workloads }
}

/// A size whose high half is not 0, and whose low half is a little less than what the file has.
const FAR: u64 = (1 << 32) + 2100;

fn rooms() -> Vec<Room> {
    use Action::{Close, Overtaken, RemoveXattr, SetXattr, Symlink, Sync, Truncate, Write};
    let words = crash::vocabulary();
    let dax = crash::dax_vocabulary();
    let mut plain = crash::singles(&words);
    plain.extend(words.iter().map(|word| vec![word.clone(), Close]));
    plain.extend(crash::pairs(&words));
    let (far, near) = (Truncate { path: "/a", size: FAR }, Truncate { path: "/a", size: 2300 });
    let set = SetXattr { path: "/s", len: 20, seed: 1 };
    plain.extend([
        vec![far.clone(), Sync],
        vec![far, Sync, near, Sync],
        vec![Symlink("/s", 20), Sync, set, Sync, RemoveXattr("/s"), Sync],
    ]);
    let mut rights = crash::singles(&crash::rights());
    rights.extend(crash::pairs(&crash::rights()));
    let grown = Write { path: "/a", offset: 2500, len: 12_000, seed: 29 };
    let moved = vec![
        vec![Write { path: "/a", offset: 2500, len: 1_100_000, seed: 30 }, Sync],
        vec![grown, Sync, Overtaken { path: "/a", len: 1_100_000, other: "/d/b", seed: 31 }, Sync],
    ];
    vec![
        room(Base::small(64, 256), Device::Words, plain),
        room(Base::small(80, 256), Device::Words, rights),
        room(Base::small(80, 0), Device::Words, crash::singles(&words)),
        room(Base::of("block-4k"), Device::Words, crash::singles(&dax)),
        room(Base::large(), Device::Lines, moved),
    ]
}

/// Leaves out each barrier that the workloads make, until a state shows it. Every processor takes the next workload.
fn try_out(rooms: &[Room], shown: &Mutex<Shown>) {
    let work: Vec<_> =
        rooms.iter().flat_map(|room| room.workloads.iter().map(|words| (&room.plan, words))).collect();
    let next = AtomicUsize::new(0);
    let each = || {
        while let Some((plan, workload)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            try_workload(plan, workload, shown);
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(each))));
}

fn try_workload(plan: &Plan, workload: &[Action], shown: &Mutex<Shown>) {
    for (barrier, times) in crash::barriers_of(plan, workload) {
        if shown.lock().unwrap().contains_key(&barrier) {
            continue;
        }
        let without = Plan { without: Some(barrier), ..plan.clone() };
        let report = crash::run(&without, [workload.to_vec()].into_iter());
        if let Some(violation) = report.violations.first() {
            let whole = crash::run(plan, [workload.to_vec()].into_iter());
            assert_eq!(whole.violated, 0, "nothing left out of {workload:?}: {:?}", whole.violations);
            let words = violation.lines().next().unwrap_or_default();
            let words = format!("{words}; left out {times} times of {workload:?}");
            shown.lock().unwrap().entry(barrier).or_insert(words);
        }
    }
}

/// What is recorded, with a mark or not, and what has to hold in every state.
struct Special {
    barrier: Barrier,
    base: Vec<u8>,
    record: fn(Arc<Recorder<RamDevice>>),
    holds: fn(&CrashState<'_>) -> Result<(), String>,
}

impl Special {
    /// The first state that is not as it has to be.
    fn first_fault(&self, without: Option<Barrier>) -> Option<String> {
        let ram = RamDevice::with_media(self.base.len() as u64, Media::Persistent).expect("memory");
        ram.write_at(0, &self.base).expect("memory is written");
        let recorder = Arc::new(Recorder::new(ram));
        if let Some(without) = without {
            recorder.ignore_fence(move |fence| fence.tag == without.tag());
        }
        (self.record)(recorder.clone());
        let log: Vec<RecordedOp> = recorder.snapshot();
        let is_it = |op: &&RecordedOp| matches!(op, RecordedOp::Fence(id) | RecordedOp::Flush(id) if id.tag == self.barrier.tag());
        assert_eq!(log.iter().any(|op| is_it(&op)), without.is_none(), "{:?} is made", self.barrier);
        let mut fault = None;
        let mut model = PmemModel::new(&self.base, &log).order(PmemOrder::Words);
        model.limits =
            CrashLimits { exhaustive: 256, edges: 64, pairs: 16, samples: 16, ..CrashLimits::default() };
        model.run(|state: &CrashState<'_>| match (self.holds)(state) {
            Ok(()) => ControlFlow::Continue(()),
            Err(words) => {
                fault = Some(words);
                ControlFlow::Break(())
            }
        });
        fault
    }
}

fn specials() -> Vec<Special> {
    let mut unclean = Base::small(64, 256).image;
    // The bitmap of blocks, and the mark of a clean unmount.
    unclean[3 * 1024..3 * 1024 + 4].fill(0);
    unclean[1024 + 58] = 0;
    vec![
        Special {
            barrier: Barrier::MadeOver,
            base: Base::small(64, 256).image,
            record: make_over,
            holds: what_was_there_is_whole_or_gone,
        },
        Special {
            barrier: Barrier::MadeBefore,
            base: vec![0; 64 << 10],
            record: make,
            holds: a_whole_superblock_has_all_else,
        },
        Special { barrier: Barrier::Made, base: vec![0; 64 << 10], record: make, holds: is_clean_once_done },
        Special { barrier: Barrier::Mended, base: unclean, record: mend, holds: is_clean_once_done },
        Special {
            barrier: Barrier::FaultReturned,
            base: Base::of("block-4k").image,
            record: fault,
            holds: what_was_stored_is_in_the_file,
        },
        Special {
            barrier: Barrier::SizeRaised,
            base: Base::of("block-4k").image,
            record: growth,
            holds: what_was_stored_is_in_the_file,
        },
        Special {
            barrier: Barrier::BriefWritten,
            base: sharers(),
            record: leave,
            holds: e2fsck_makes_no_journal,
        },
        Special {
            barrier: Barrier::BriefForgotten,
            base: sharers(),
            record: leave,
            holds: e2fsck_makes_no_journal,
        },
    ]
}

fn format() -> Format {
    Format { created: Timestamp::from_secs(i64::from(NOW)), uuid: [1; 16], ..Format::default() }
}

/// Where the superblock is.
const SUPER: Range<usize> = 1024..2048;

fn make_over(device: Arc<Recorder<RamDevice>>) {
    mkfs::format(&*device, &format(), Fresh::Unknown).expect("a file system is made");
}

/// Over another file system: where its superblock is, so is all of it.
fn what_was_there_is_whole_or_gone(state: &CrashState<'_>) -> Result<(), String> {
    let old = Base::small(64, 256).image;
    if state.image[SUPER] == old[SUPER] && state.image != old {
        return Err("the superblock of before is there, and all else is not".into());
    }
    Ok(())
}

fn a_whole_superblock_has_all_else(state: &CrashState<'_>) -> Result<(), String> {
    let made = RamDevice::new(state.image.len() as u64).expect("memory");
    mkfs::format(&made, &format(), Fresh::Zeros).expect("a file system is made");
    let mut whole = vec![0; state.image.len()];
    made.read_at(0, &mut whole).expect("memory is read");
    if state.image[SUPER] == whole[SUPER] && state.image != whole {
        return Err("the superblock is there, and all else is not".into());
    }
    Ok(())
}

fn make(device: Arc<Recorder<RamDevice>>) {
    mkfs::format(&*device, &format(), Fresh::Zeros).expect("a file system is made");
    mkfs::DeviceOutput::new(&*device, Fresh::Zeros).flush().expect("it is durable");
    device.mark(1);
}

fn mend(device: Arc<Recorder<RamDevice>>) {
    Checker::new().mend(&*device, NOW, &mut |_| {}).expect("a bitmap is mended");
    device.mark(1);
}

fn is_clean_once_done(state: &CrashState<'_>) -> Result<(), String> {
    if state.mark.is_none() {
        return Ok(());
    }
    let mut first = None;
    let mut sink = |finding: &Finding| first = first.take().or(Some(finding.to_string()));
    match Checker::new().check(&Scratch::new(state.image.to_vec()), &Options::default(), &mut sink) {
        Ok(summary) if summary.is_clean() && state.image[1024 + 58] & 1 != 0 => Ok(()),
        Ok(_) => Err(format!("it had returned, and the image is not clean: {first:?}")),
        Err(error) => Err(format!("it had returned, and there is no file system: {error}")),
    }
}

/// What is stored into the hole of `/h`, of which no file has a byte.
const STORED: u64 = 0x5a5b_5c5d_5e5f_6061;

/// Where: in the second block.
const HOLE: u64 = 6000 / 8 * 8;

/// `/h`, mapped synchronously.
fn mapped(device: &Arc<Recorder<RamDevice>>) -> (File, SoftMap) {
    let fs = Ext2::open(device.clone(), &crash::options()).expect("the image opens");
    let inode = fs.resolve(b"/h", Follow::No).expect("it is there");
    let file = File::open(&DaxFs::new(fs, DaxOptions::default()), inode, OpenFor::Writing).expect("it opens");
    let request = MapRequest {
        offset: 0,
        len: file.size(),
        sharing: Sharing::Synchronous,
        protection: Protection::ReadWrite,
        colour: 0,
    };
    let map = file.map(&SoftMmu::new(), &request).expect("it is mapped");
    (file, map)
}

/// Stores, and does as a program does that brings its own lines to the media: they alone are behind this fence.
fn store(device: &Recorder<RamDevice>, file: &File, map: &SoftMap, at: u64) {
    map.store_bytes(at, &STORED.to_le_bytes()).expect("it is stored");
    let block = file.inode().map(FileBlock::new(at / 4096), 1).expect("mapped").target;
    let place = u64::from(block.expect("there is a block").get()) * 4096 + at % 4096;
    device.dax().expect("memory").write_back(place, 8).expect("written back");
}

fn fault(device: Arc<Recorder<RamDevice>>) {
    let (file, map) = mapped(&device);
    store(&device, &file, &map, HOLE);
}

/// The page in which the file ends is mapped, and the file becomes longer in it.
fn growth(device: Arc<Recorder<RamDevice>>) {
    let (file, map) = mapped(&device);
    let end = file.size();
    map.store(end - 1, 1).expect("it is stored");
    file.write_at(end, &[2; 24]).expect("written");
    assert_eq!((end - 1) / 4096, (end + 23) / 4096, "another page");
    store(&device, &file, &map, end.next_multiple_of(8));
}

/// A synchronous mapping: a byte that is on the media, for whatever reason, is in the file.
fn what_was_stored_is_in_the_file(state: &CrashState<'_>) -> Result<(), String> {
    let word = STORED.to_le_bytes();
    if !state.image.chunks(8).any(|chunk| chunk == word) {
        return Ok(());
    }
    let device = Arc::new(Scratch::new(state.image.to_vec()));
    Checker::new().mend(&*device, NOW, &mut |_| {}).map_err(|error| error.to_string())?;
    let tree = tree::read(device)?;
    match tree.get(&b"/h"[..]) {
        Some(file) if file.content.chunks(8).any(|chunk| chunk == word) => Ok(()),
        _ => Err("what was stored is on the media and not in the file".to_owned()),
    }
}

/// Two files of an image that is large enough for e2fsck to make a journal in it share their attributes.
fn sharers() -> Vec<u8> {
    Base::small(2 << 10, 128).sharing(2).image
}

fn leave(device: Arc<Recorder<RamDevice>>) {
    let fs = Ext2::open(device, &crash::options()).expect("the image opens");
    let file = fs.resolve(b"/h", Follow::No).expect("it is there");
    file.xattr_set(b"user.k", b"another", XattrSet::Any).expect("it is set");
    fs.shut_down();
}

/// e2fsck mends it, and does not take what is left of our journal for a broken one of somebody's, which it would replace.
fn e2fsck_makes_no_journal(state: &CrashState<'_>) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = folder.path().join("state.img");
    std::fs::write(&path, state.image).map_err(|error| error.to_string())?;
    let done = std::process::Command::new("e2fsck").arg("-fp").arg(&path).output();
    let done = done.map_err(|error| error.to_string())?;
    let mended = std::fs::read(&path).map_err(|error| error.to_string())?;
    match done.status.code() {
        Some(0 | 1) if mended[1024 + 0x5c] & 4 == 0 => Ok(()),
        _ => Err(String::from_utf8_lossy(&done.stdout).into_owned()),
    }
}

/// What only e2fsck can mend or judge: a journal, and the hash tree of a directory.
fn rooms_of_e2fsck() -> Vec<Room> {
    let journal = Base::of("ext3-clean");
    let Room { plan, workloads } = room(journal, Device::Words, crash::moves());
    let limits = CrashLimits { exhaustive: 32, edges: 16, pairs: 4, samples: 4, ..CrashLimits::default() };
    let journal = Room { plan: Plan { limits, e2fsck_every: 1, ..plan }, workloads };
    let image = golden::image("htree").file_system();
    let tree = Base { name: "htree".to_owned(), image, block_size: 1024, is_bare: false };
    let create = vec![vec![Action::Create("/one-level/a-new-name"), Action::Sync]];
    let Room { plan, workloads } = room(tree, Device::Words, create);
    let tree = Room { plan: Plan { limits, e2fsck_every: 1, ..plan }, workloads };
    let Room { plan, workloads } = room(Base::shared(80, 128, 2), Device::Words, crash::sharing());
    let plan = Plan { limits, e2fsck_every: 1, ..plan };
    let sharing = Room { plan, workloads };
    // Without room for a transaction a dead file is in the list of orphans until it is let go.
    let Room { plan, workloads } = room(Base::shared(80, 128, 3).crowded(5), Device::Words, crash::sharing());
    let plan = Plan { limits, e2fsck_every: 1, sharing: crash::Sharing::Excepted, ..plan };
    let workloads =
        workloads.into_iter().filter(|words| matches!(words[..], [Action::Hold(_), Action::Unlink(_), ..]));
    let full = Room { plan, workloads: workloads.collect() };
    vec![journal, tree, sharing, full]
}

#[test]
fn a_fence_that_is_left_out_is_noticed() {
    need_tools!("e2fsck");
    let shown = Mutex::new(Shown::new());
    try_out(&rooms(), &shown);
    for special in specials() {
        assert_eq!(special.first_fault(None), None, "{:?} is not left out", special.barrier);
        if let Some(words) = special.first_fault(Some(special.barrier)) {
            shown.lock().unwrap().insert(special.barrier, words);
        }
    }
    try_out(&rooms_of_e2fsck(), &shown);
    let shown = shown.into_inner().unwrap();
    println!("{} fences and flushes in the code, each left out wherever it is made:", Barrier::ALL.len());
    for barrier in Barrier::ALL {
        let words = shown.get(barrier).map_or("NOT NOTICED", String::as_str);
        println!("{barrier:?} ({}): {words}", barrier.text());
    }
    let missing: Vec<&Barrier> = Barrier::ALL.iter().filter(|barrier| !shown.contains_key(barrier)).collect();
    assert_eq!(missing, <[&Barrier; 0]>::default(), "nothing shows that these are needed");
}
