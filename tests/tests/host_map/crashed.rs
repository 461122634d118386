//! Power cuts: what was stored through pointers, and synced, is there in every state that a crash may leave.

use std::ops::ControlFlow;
use std::sync::Arc;

use blockdev::crash::{BlockModel, CrashLimits, CrashReport, CrashState, PmemModel, PmemOrder, Visit};
use blockdev::{BlockDevice, MmapDevice, RamDevice, RecordedOp, Recorder};
use e2dax_tests::Rng;
use ext2_dax::Wait;
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::host::{HostMmu, HostOptions};
use ext2_dax::{DaxFs, File, OpenFor};

use crate::setup::{PAGE, format, open, request, tracked, ways};

/// Bytes of the image.
const IMAGE: u64 = 384 << 10;
/// Pages of the file, of which every third is data in the beginning.
const PAGES: u64 = 24;
const ROUNDS: u64 = 4;
const STORES: u64 = 4;

/// Where round `round` stores for the `nth` time.
fn place(round: u64, nth: u64) -> u64 {
    (round * 7 + nth * 5) % PAGES * PAGE + 8 * (nth + STORES * (round % 3))
}

/// The least value that each place must have after the sync of round `synced`.
fn promised(synced: u64) -> std::collections::BTreeMap<u64, u64> {
    (1..=synced).flat_map(|round| (0..STORES).map(move |nth| (place(round, nth), round))).collect()
}

fn file_of(fs: &DaxFs, open_for: OpenFor) -> File {
    File::open(fs, fs.ext2().root().unwrap().lookup(b"f").unwrap(), open_for).unwrap()
}

/// Stores by a mapping and syncs, by turns: the image before, and what the device was told.
fn record(way: HostOptions, forget: bool) -> (Vec<u8>, Vec<RecordedOp>) {
    let folder = if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
    let path = tempfile::Builder::new().prefix("host-map").tempfile_in(folder).unwrap();
    path.as_file().set_len(IMAGE).unwrap();
    let device = MmapDevice::open(path.path(), &blockdev::DeviceOptions::read_write()).unwrap();
    format(&device);
    let recorder = Arc::new(Recorder::of_mapped(device).unwrap());
    let fs = open(Arc::clone(&recorder) as Arc<dyn BlockDevice>);
    fs.ext2().write("f", "").unwrap();
    let file = file_of(&fs, OpenFor::Writing);
    file.truncate(PAGES * PAGE, Wait::Yes).unwrap();
    for page in (0..PAGES).step_by(3) {
        file.write_at(page * PAGE, &[0; PAGE as usize]).unwrap();
    }
    file.sync().unwrap();
    fs.ext2().sync().unwrap();
    let mmu = HostMmu::new(way).unwrap();
    let map = file.map_host(&mmu, &request(PAGES * PAGE, Sharing::Shared)).unwrap();
    let mut base = vec![0; IMAGE as usize];
    recorder.inner().read_at(0, &mut base).unwrap();
    let _ = recorder.take();
    if forget {
        recorder.ignore_fence(|_| true);
    }
    let mut rng = Rng::named(4, "host crash");
    for round in 1..=ROUNDS {
        for nth in 0..STORES {
            map.try_store(place(round, nth), &round.to_le_bytes()).unwrap();
        }
        // Pages that hold nothing that is looked at: blocks go, and others take them.
        file.punch_hole((PAGES - 1) * PAGE, PAGE, Wait::Yes).unwrap();
        if rng.below(2) == 0 {
            map.msync(0, PAGES * PAGE).unwrap();
            file.sync().unwrap();
        } else {
            file.sync().unwrap();
        }
        recorder.mark(round);
    }
    drop((map, file));
    (base, recorder.take())
}

/// Counts the states in which something is not there that was synced.
struct Judge {
    broken: Vec<String>,
    seen: u64,
}

impl Judge {
    fn look(&mut self, state: &CrashState<'_>) {
        self.seen += 1;
        let fs = open(Arc::new(RamDevice::from_bytes(state.image).unwrap()));
        let file = file_of(&fs, OpenFor::Reading);
        let synced = state.mark.unwrap_or(0);
        for (at, least) in promised(synced).into_iter().filter(|(at, _)| at / PAGE != PAGES - 1) {
            let mut word = [0; 8];
            let read = file.read_at(at, &mut word).unwrap();
            let word = u64::from_le_bytes(word);
            // What came after the sync may be there too.
            if read != 8 || word < least || word > ROUNDS {
                self.broken.push(format!("{word} at {at} after the sync of {synced}, which stored {least}"));
            }
        }
    }
}

fn run(base: &[u8], log: &[RecordedOp], pmem: bool) -> (Judge, CrashReport) {
    let limits = CrashLimits { exhaustive: 8, edges: 4, pairs: 1, samples: 2, ..CrashLimits::default() };
    let mut judge = Judge { broken: Vec::new(), seen: 0 };
    let visit = |state: &CrashState<'_>| {
        judge.look(state);
        ControlFlow::Continue(())
    };
    let report = if pmem { by_lines(base, log, limits, visit) } else { by_sectors(base, log, limits, visit) };
    (judge, report)
}

fn by_lines(base: &[u8], log: &[RecordedOp], limits: CrashLimits, visit: impl Visit) -> CrashReport {
    let mut model = PmemModel::new(base, log).order(PmemOrder::Lines);
    model.limits = limits;
    model.run(visit)
}

fn by_sectors(base: &[u8], log: &[RecordedOp], limits: CrashLimits, visit: impl Visit) -> CrashReport {
    let mut model = BlockModel::new(base, log);
    model.limits = limits;
    model.run(visit)
}

#[test]
fn what_was_stored_by_pointer_and_synced_is_there_after_every_crash() {
    for way in ways().into_iter().chain(tracked()) {
        let (base, log) = record(way, false);
        let stores =
            log.iter().filter(|op| matches!(op, RecordedOp::Store { path: blockdev::StorePath::Cached, .. }));
        assert!(stores.count() as u64 >= ROUNDS * STORES, "{way:?}: the recorder saw what came past it");
        for pmem in [true, false] {
            let (judge, report) = run(&base, &log, pmem);
            assert!(judge.broken.is_empty(), "{way:?}, pmem {pmem}: {:?}", &judge.broken[..1]);
            assert!(report.points > 4 * ROUNDS && judge.seen > 50, "{way:?}: {report:?}");
        }
    }
}

/// Were no fence kept, something would be lost: the states above are ones in which stores can be missing.
#[test]
fn without_its_fences_a_sync_would_promise_too_much() {
    let [way, ..] = ways()[..] else { panic!("there is always the eager way") };
    let (base, log) = record(way, true);
    for pmem in [true, false] {
        let (judge, _) = run(&base, &log, pmem);
        assert!(!judge.broken.is_empty(), "pmem {pmem}");
    }
}
