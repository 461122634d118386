//! The crash models, against a slow one that is too simple to be wrong, and what each state promises.

#![cfg(feature = "std")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use blockdev::crash::{
    BlockModel, Choice, CrashLimits, CrashState, FenceMeans, PmemModel, PmemOrder, Points,
};
use blockdev::{
    Access, BlockDevice, DaxDevice, RamDevice, RecordedOp, Recorder, StorePath, Stored, conformance,
};
use proptest::prelude::*;

type Images = BTreeSet<Vec<u8>>;

/// Every image that a model shows, all exhaustively.
fn images(run: impl FnOnce(&mut dyn FnMut(&CrashState<'_>) -> ControlFlow<()>)) -> Images {
    let mut images = Images::new();
    run(&mut |state| {
        images.insert(state.image.to_vec());
        ControlFlow::Continue(())
    });
    images
}

fn everything() -> CrashLimits {
    CrashLimits { exhaustive: u64::MAX, ..CrashLimits::default() }
}

/// What is in flight, and what is guaranteed, said as plainly as possible: lists of `(place, byte)` stores of
/// one unit, by cell, with how many of them the next fence settles.
struct Plain {
    cell: usize,
    unit: usize,
    settled: Vec<u8>,
    flight: BTreeMap<usize, (Vec<Unit>, usize)>,
}

type Unit = Vec<(usize, u8)>;

impl Plain {
    fn store(&mut self, offset: u64, data: &Stored, queue: bool) {
        let bytes = match data {
            Stored::Bytes(bytes) => bytes.to_vec(),
            Stored::Zeros(len) => vec![0; *len as usize],
        };
        let mut units = BTreeMap::<usize, Vec<(usize, u8)>>::new();
        for (at, byte) in (offset as usize..).zip(bytes) {
            units.entry(at / self.unit).or_default().push((at, byte));
        }
        for unit in units.into_values() {
            let (list, queued) = self.flight.entry(unit[0].0 / self.cell).or_default();
            list.push(unit);
            if queue {
                *queued = list.len();
            }
        }
    }

    fn settle(&mut self, all: bool) {
        for (list, queued) in self.flight.values_mut() {
            let count = if all { list.len() } else { *queued };
            list.drain(..count).flatten().for_each(|(at, byte)| self.settled[at] = byte);
            *queued = 0;
        }
    }

    fn states(&self, into: &mut Images) {
        let mut found = Images::from([self.settled.clone()]);
        for (list, _) in self.flight.values() {
            let mut more = Images::new();
            for image in &found {
                let mut image = image.clone();
                more.insert(image.clone());
                for unit in list {
                    unit.iter().for_each(|&(at, byte)| image[at] = byte);
                    more.insert(image.clone());
                }
            }
            found = more;
        }
        into.extend(found);
    }
}

fn plain_pmem(base: &[u8], log: &[RecordedOp], cell: usize) -> Images {
    let mut plain = Plain { cell, unit: 8, settled: base.to_vec(), flight: BTreeMap::new() };
    let mut found = Images::new();
    plain.states(&mut found);
    for op in log {
        match op {
            RecordedOp::Store { offset, data, path } => {
                plain.store(*offset, data, *path == StorePath::Bypassing)
            }
            RecordedOp::WriteBack { offset, len } if *len > 0 => {
                let cells = *offset as usize / cell..=(offset + len - 1) as usize / cell;
                for (_, (list, queued)) in plain.flight.range_mut(cells) {
                    *queued = list.len();
                }
            }
            RecordedOp::Fence(_) | RecordedOp::Flush(_) => plain.settle(false),
            RecordedOp::WriteBack { .. } | RecordedOp::Mark(_) => {}
        }
        plain.states(&mut found);
    }
    found
}

fn plain_block(base: &[u8], log: &[RecordedOp], fences: FenceMeans) -> Images {
    let mut plain = Plain { cell: 512, unit: 512, settled: base.to_vec(), flight: BTreeMap::new() };
    let mut found = Images::new();
    plain.states(&mut found);
    for op in log {
        match op {
            RecordedOp::Store { offset, data, .. } => plain.store(*offset, data, false),
            RecordedOp::Flush(_) => plain.settle(true),
            RecordedOp::Fence(_) if fences == FenceMeans::Durable => plain.settle(true),
            _ => {}
        }
        plain.states(&mut found);
    }
    found
}

/// A step of a workload on a device of `size` bytes.
#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Zero(u64, u64),
    Cached(u64, Vec<u8>),
    WriteBack(u64, u64),
    Fence,
    Flush,
    Mark,
}

fn steps(size: u64, longest: usize) -> impl Strategy<Value = Vec<Step>> {
    let bytes = || prop::collection::vec(0..4_u8, 1..longest);
    let step = prop_oneof![
        3 => (0..size, bytes()).prop_map(|(at, bytes)| Step::Write(at, bytes)),
        1 => (0..size, 1..longest as u64).prop_map(|(at, len)| Step::Zero(at, len)),
        2 => (0..size, bytes()).prop_map(|(at, bytes)| Step::Cached(at, bytes)),
        2 => (0..size, 0..longest as u64).prop_map(|(at, len)| Step::WriteBack(at, len)),
        2 => Just(Step::Fence),
        1 => Just(Step::Flush),
        1 => Just(Step::Mark),
    ];
    prop::collection::vec(step, 1..10)
}

fn record(device: &Recorder<RamDevice>, steps: &[Step]) -> Vec<RecordedOp> {
    let size = device.size();
    let slice = device.direct_access(0, size.div_ceil(4096), Access::Write).unwrap();
    for step in steps {
        // What does not fit is refused, and must not be logged.
        let _ = match step {
            Step::Write(at, bytes) => device.write_at(*at, bytes),
            Step::Zero(at, len) => device.zero(*at, *len),
            Step::Cached(at, bytes) => slice.copy_in_cached(*at, bytes),
            Step::WriteBack(at, len) => device.write_back(*at, *len),
            Step::Fence => device.fence(),
            Step::Flush => device.flush(),
            Step::Mark => {
                device.mark(1);
                Ok(())
            }
        };
    }
    device.take()
}

fn base(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 3) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pmem_states_are_exactly_those_of_the_plain_model(steps in steps(150, 30)) {
        let base = base(150);
        let log = record(&Recorder::new(RamDevice::from_bytes(&base).unwrap()), &steps);
        for (order, cell) in [(PmemOrder::Lines, 64), (PmemOrder::Words, 8)] {
            for points in [Points::Boundaries, Points::EveryStore] {
                let mut model = PmemModel::new(&base, &log).order(order);
                (model.points, model.limits) = (points, everything());
                // The product of words explodes; a cut of it is still a set of legal states.
                model.limits.exhaustive = 3000;
                let mut complete = true;
                let found = images(|visit| {
                    let report = model.run(visit);
                    complete = report.points == report.exhaustive_points;
                });
                prop_assume!(complete);
                prop_assert!(found == plain_pmem(&base, &log, cell), "{order:?} {points:?} {log:?}");
            }
        }
    }

    #[test]
    fn block_states_are_exactly_those_of_the_plain_model(steps in steps(1800, 700)) {
        let base = base(1800);
        let log = record(&Recorder::new(RamDevice::from_bytes(&base).unwrap()), &steps);
        for fences in [FenceMeans::Nothing, FenceMeans::Durable] {
            let mut model = BlockModel::new(&base, &log).fences(fences);
            model.limits = everything();
            let found = images(|visit| {
                model.run(visit);
            });
            prop_assert!(found == plain_block(&base, &log, fences));
        }
    }

    #[test]
    fn chosen_states_are_legal_and_each_comes_once(steps in steps(150, 30), seed in any::<u64>()) {
        let base = base(150);
        let device = Recorder::new(RamDevice::from_bytes(&base).unwrap());
        let log = record(&device, &steps);
        let legal = plain_pmem(&base, &log, 64);
        let mut model = PmemModel::new(&base, &log);
        model.limits = CrashLimits { exhaustive: 1, edges: 20, pairs: 10, samples: 30, seed };
        let mut shown = BTreeSet::new();
        let mut newest = false;
        let report = model.run(|state| {
            assert!(legal.contains(state.image), "{state:?}");
            // All marks have the same value here, so only the number of marks tells equal images apart.
            let marks = log[..state.op].iter().filter(|op| matches!(op, RecordedOp::Mark(_))).count();
            shown.insert((marks, state.image.to_vec()));
            newest |= state.image == device.inner().to_vec();
            ControlFlow::Continue(())
        });
        prop_assert_eq!(shown.len() as u64, report.states);
        prop_assert!(newest, "all that was stored is a state of the end");
    }

    #[test]
    fn a_killed_process_leaves_a_prefix(steps in steps(150, 30)) {
        let base = base(150);
        let log = record(&Recorder::new(RamDevice::from_bytes(&base).unwrap()), &steps);
        let mut model = PmemModel::new(&base, &log).order(PmemOrder::Program);
        model.limits = everything();
        let found = images(|visit| {
            model.run(visit);
        });
        let mut plain = Plain { cell: 1, unit: 8, settled: base.clone(), flight: BTreeMap::new() };
        let mut expected = Images::from([base.clone()]);
        for op in &log {
            let RecordedOp::Store { offset, data, .. } = op else { continue };
            plain.store(*offset, data, true);
            // By unit, in order of places.
            for (list, _) in std::mem::take(&mut plain.flight).into_values() {
                list.into_iter().flatten().for_each(|(at, byte)| plain.settled[at] = byte);
                expected.insert(plain.settled.clone());
            }
        }
        // One cell per byte above, and a unit lies in the cell of its first byte.
        prop_assert!(found == expected);
    }
}

#[test]
fn a_recorder_conforms_and_logs_only_what_happened() {
    let device = Recorder::new(RamDevice::new(300_000).unwrap());
    conformance::check(&device);
    device.take();
    assert!(device.write_at(300_000, b"x").is_err());
    assert!(device.zero(1, 300_000).is_err());
    assert!(device.recovery_write(u64::MAX, b"x").is_err());
    assert!(device.is_empty());
}

#[test]
fn a_cached_store_is_durable_only_when_written_back_and_fenced() {
    let device = Recorder::new(RamDevice::new(4096).unwrap());
    let slice = device.direct_access(0, 1, Access::Write).unwrap();
    slice.store_u32(0, 1).unwrap();
    device.fence().unwrap();
    device.mark(1);
    device.write_back(0, 4).unwrap();
    device.mark(2);
    device.fence().unwrap();
    device.mark(3);
    let mut lost = BTreeSet::new();
    PmemModel::new(&[0; 4096], &device.take()).run(|state| {
        if state.image[0] == 0 {
            lost.insert(state.mark);
        }
        ControlFlow::Continue(())
    });
    assert_eq!(lost, BTreeSet::from([None, Some(1), Some(2)]));
}

#[test]
fn a_fence_left_out_lets_the_pointer_arrive_before_its_block() {
    let dangling = |ignored: Option<u64>| {
        let device = Recorder::new(RamDevice::new(8192).unwrap());
        if let Some(tag) = ignored {
            device.ignore_fence(move |fence| fence.tag == tag);
        }
        device.write_at(4096, &[7; 4096]).unwrap();
        device.fence_tagged(1).unwrap();
        device.write_u32(0, 1).unwrap();
        device.fence_tagged(2).unwrap();
        assert_eq!(device.fences(), 2);
        let mut found = false;
        PmemModel::new(&[0; 8192], &device.take()).run(|state| {
            found |= state.image[0] == 1 && state.image[4096..].contains(&0);
            ControlFlow::Continue(())
        });
        found
    };
    assert!(!dangling(None));
    assert!(dangling(Some(1)));
    assert!(!dangling(Some(2)));
}

#[test]
fn a_visitor_can_stop_and_names_its_state() {
    let device = Recorder::new(RamDevice::new(4096).unwrap());
    device.write_at(0, &[1; 256]).unwrap();
    let log = device.take();
    let mut seen = 0;
    let report = PmemModel::new(&[0; 4096], &log).run(|state| {
        seen += 1;
        assert_eq!((state.op, state.mark, state.in_flight), (1, None, 4));
        assert_eq!(state.crc32(), crc32fast::hash(state.image));
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(report.stopped && report.states == 3 && seen == 3);
}

#[test]
fn what_is_too_much_to_visit_is_visited_at_its_edges() {
    let device = Recorder::new(RamDevice::new(1 << 20).unwrap());
    device.write_at(0, &[1; 65536]).unwrap();
    device.write_at(4096, &[2; 100]).unwrap();
    let log = device.take();
    let base = vec![0; 1 << 20];
    let mut choices = BTreeMap::<String, u64>::new();
    let report = PmemModel::new(&base, &log).run(|state| {
        *choices.entry(format!("{:?}", state.choice)).or_default() += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(report.exhaustive_points, 0);
    for choice in [Choice::None, Choice::All, Choice::Prefix, Choice::Ahead, Choice::Behind, Choice::Pair] {
        assert!(choices.contains_key(&format!("{choice:?}")), "{choice:?}: {choices:?}");
    }
    assert!(choices["Sample"] > 100 && report.states > 5000, "{choices:?}");
}

#[test]
fn an_array_of_words_may_be_torn_between_its_words_and_never_within_one() {
    let device = Recorder::new(RamDevice::new(4096).unwrap());
    device.write_words(56, &[0x1111_1111, 0x2222_2222, 0x3333_3333]).unwrap();
    device.fence().unwrap();
    let log = device.take();
    let states = images(|visit| {
        let mut model = PmemModel::new(&[0; 4096], &log);
        model.limits = everything();
        model.run(visit);
    });
    let words = states.iter().map(|image| [56, 60, 64].map(|at: usize| image[at..at + 4].to_vec()));
    let expected = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1)]
        .map(|(a, b, c)| [vec![0x11 * a; 4], vec![0x22 * b; 4], vec![0x33 * c; 4]]);
    assert_eq!(words.collect::<BTreeSet<_>>(), BTreeSet::from(expected));
}
