//! Pull the plug at any instruction: `e2fsck -p` mends it alone, and nothing that was promised is gone.

use std::time::{Duration, Instant};

use blockdev::crash::CrashLimits;
use e2dax_tests::{
    crash::{self, Action, Base, Device, Moves, Plan, Report, Sharing},
    need_tools, tools,
};
use ext2_image::check::Kind;

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Every so many states the real e2fsck is asked too: `E2DAX_CRASH_E2FSCK`, or 500.
fn e2fsck_every() -> u64 {
    if tools::have("e2fsck") { number("E2DAX_CRASH_E2FSCK").unwrap_or(500) } else { 0 }
}

/// A bounded look: CI has minutes for everything, not hours for this.
fn plan(base: &Base, device: Device, seconds: u64) -> Plan {
    let mut plan = Plan {
        limits: CrashLimits { exhaustive: 128, edges: 24, pairs: 16, samples: 24, ..CrashLimits::default() },
        e2fsck_every: e2fsck_every(),
        time: Duration::from_secs(seconds),
        ..Plan::new(base.clone(), device)
    };
    if let Some(threads) = number("E2DAX_CRASH_THREADS").and_then(|threads| usize::try_from(threads).ok()) {
        plan.threads = threads;
    }
    plan
}

fn assert_kept(what: &str, report: &Report) {
    println!("{what}: {report}");
    // Fewer than at first sight: what two workloads begin with is counted once.
    assert!(report.states > 500, "{what}: only {} states", report.states);
    assert_eq!(report.violated, 0, "{what}: {:#?}", report.violations.iter().take(8).collect::<Vec<_>>());
    // So that whoever mounts the image as it is gives nothing away twice.
    for kind in [Kind::BlocksMarkedFree, Kind::InodesMarkedFree] {
        assert_eq!(report.repairs.get(&kind), None, "{what}: {}", kind.text());
    }
}

#[test]
fn every_operation_alone_survives_every_crash() {
    for name in ["times", "specials"] {
        let base = Base::of(name);
        for device in [Device::Lines, Device::Words, Device::Sectors, Device::Program] {
            let report =
                crash::run(&plan(&base, device, 20), crash::singles(&crash::vocabulary()).into_iter());
            assert_kept(&format!("{name}, {device:?}"), &report);
        }
    }
}

#[test]
fn what_changes_rights_survives_every_crash_at_every_step() {
    let all = crash::singles(&crash::rights()).into_iter().chain(crash::pairs(&crash::rights()));
    let all: Vec<Vec<Action>> = all.collect();
    for (base, device, seconds) in [
        (Base::small(80, 256), Device::Words, 12),
        (Base::small(64, 128), Device::Lines, 6),
        (Base::small(80, 256), Device::Sectors, 6),
        (Base::small(64, 128), Device::Program, 6),
    ] {
        let what = format!("rights, {}, {device:?}", base.name);
        assert_kept(&what, &crash::run(&plan(&base, device, seconds), all.clone().into_iter()));
    }
}

#[test]
fn without_a_lost_and_found_every_operation_survives_every_crash() {
    for (base, device) in [
        (Base::small(80, 256), Device::Lines),
        (Base::small(64, 128), Device::Words),
        (Base::of("specials"), Device::Sectors),
    ] {
        let base = base.bare();
        let renames = crash::vocabulary().into_iter().filter(|word| word.replaces().is_some());
        let words: Vec<Action> = renames.collect();
        let all = crash::singles(&words).into_iter().chain(crash::pairs(&words));
        let report = crash::run(&plan(&base, device, 10), all);
        assert_kept(&format!("{}, {device:?}", base.name), &report);
    }
}

#[test]
fn who_lets_go_of_shared_attributes_survives_every_crash() {
    need_tools!("e2fsck");
    for (base, device) in [
        (Base::shared(80, 128, 2), Device::Lines),
        (Base::shared(80, 256, 3), Device::Words),
        (Base::shared(80, 128, 3), Device::Sectors),
        (Base::of("ext3-clean").sharing(2), Device::Lines),
    ] {
        let every = number("E2DAX_CRASH_E2FSCK").unwrap_or(20);
        let plan = Plan { e2fsck_every: every, ..plan(&base, device, 10) };
        let report = crash::run(&plan, crash::sharing().into_iter());
        assert_kept(&format!("{}, {device:?}", base.name), &report);
        assert_eq!((report.excepted, report.halts), (0, 0), "{report}");
    }
}

#[test]
fn attributes_that_lie_in_inodes_survive_every_crash() {
    need_tools!("e2fsck");
    for (base, device) in [
        (Base::small(80, 256).in_inodes(), Device::Lines),
        (Base::small(80, 256).in_inodes(), Device::Words),
        (Base::small(80, 256).in_inodes().crowded(1), Device::Words),
    ] {
        let plan = Plan { e2fsck_every: 20, ..plan(&base, device, 10) };
        let report = crash::run(&plan, crash::in_inodes().into_iter());
        assert_kept(&format!("{}, {device:?}", base.name), &report);
    }
}

/// The exception that the promise names: there is no room for a journal.
#[test]
fn in_a_full_image_who_lets_go_of_shared_attributes_needs_a_person_for_a_moment_at_worst() {
    need_tools!("e2fsck");
    let base = Base::shared(80, 128, 3).crowded(5);
    let plan = Plan { sharing: Sharing::Excepted, e2fsck_every: 20, ..plan(&base, Device::Lines, 10) };
    // One at a time may be removed while it is open.
    let two_are_held = |words: &[Action]| matches!(words, [Action::Hold(_), Action::Hold(_), ..]);
    let all = crash::sharing().into_iter().filter(|words| !two_are_held(words));
    let report = crash::run(&plan, all);
    assert_kept(&base.name, &report);
    assert!(report.excepted > 0, "{report}");
}

#[test]
fn pairs_of_operations_survive_every_crash() {
    let base = Base::small(80, 256);
    for (device, seconds) in [(Device::Lines, 12), (Device::Sectors, 6), (Device::Words, 6)] {
        let report =
            crash::run(&plan(&base, device, seconds), crash::pairs(&crash::vocabulary()).into_iter());
        assert_kept(&format!("pairs, {device:?}"), &report);
    }
}

#[test]
fn long_workloads_survive_every_crash() {
    for (base, device) in [
        (Base::of("specials"), Device::Lines),
        (Base::small(64, 128), Device::Lines),
        (Base::small(80, 256), Device::Words),
        (Base::of("revision-0"), Device::Lines),
    ] {
        let workloads = (0..).map(|seed| crash::wild(seed, 12));
        assert_kept(
            &format!("wild, {}, {device:?}", base.name),
            &crash::run(&plan(&base, device, 5), workloads),
        );
    }
}

/// Whoever mounts without e2fsck, and loses power again. `E2DAX_CRASH_SECONDS` is how long each image is looked at.
#[test]
fn a_second_crash_while_the_first_is_mended_by_opening_is_survived_too() {
    for (base, device, every) in [
        (Base::small(80, 256), Device::Lines, 100),
        (Base::small(64, 128), Device::Words, 100),
        (Base::of("specials"), Device::Lines, 1000),
        (Base::of("revision-0"), Device::Sectors, 1000),
    ] {
        let plan = Plan {
            limits: CrashLimits { exhaustive: 32, edges: 16, pairs: 8, samples: 8, ..CrashLimits::default() },
            e2fsck_every: 0,
            again_every: every,
            ..plan(&base, device, number("E2DAX_CRASH_SECONDS").unwrap_or(5))
        };
        let report = crash::run(&plan, (0..).map(|seed| crash::wild(seed, 12)));
        assert_kept(&format!("second crashes, {}, {device:?}", base.name), &report);
        assert!(report.again > 100, "only {} states of second crashes", report.again);
    }
}

#[test]
fn attributes_of_a_symlink_that_lies_in_its_inode_survive_every_crash() {
    use Action::{RemoveXattr, SetXattr, Symlink, Sync};
    let set = |seed| SetXattr { path: "/s", len: 20, seed };
    let made = [Symlink("/s", 20), Sync, set(1), Sync];
    let words = [
        vec![],
        vec![RemoveXattr("/s"), Sync],
        vec![RemoveXattr("/s"), set(2), Sync],
        vec![set(2), RemoveXattr("/s")],
        vec![RemoveXattr("/s"), Action::Link("/s", "/d/s"), Sync],
        vec![RemoveXattr("/s"), Action::Unlink("/s"), Symlink("/s", 300), Sync],
    ];
    let all: Vec<Vec<Action>> = words.iter().map(|more| [&made[..], more].concat()).collect();
    let base = Base::of("times");
    for device in [Device::Lines, Device::Words, Device::Sectors, Device::Program] {
        let report = crash::run(&plan(&base, device, 20), all.clone().into_iter());
        println!("symlinks, {device:?}: {report}");
        assert!(report.states > 50, "only {} states", report.states);
        let first: Vec<&String> = report.violations.iter().take(8).collect();
        assert!(first.is_empty(), "{device:?}: {} violations: {first:#?}", report.violations.len());
    }
}

#[test]
fn what_goes_through_dax_survives_every_crash() {
    let base = Base::of("block-4k");
    let words = crash::dax_vocabulary();
    let single = words.iter().map(|word| {
        let last = word.target().map_or(Action::Sync, Action::Fsync);
        vec![word.clone(), last, Action::Sync]
    });
    let single: Vec<Vec<Action>> = single.collect();
    for device in [Device::Lines, Device::Words] {
        let plan = plan(&base, device, 5);
        let report = crash::run(&plan, single.clone().into_iter());
        assert!(report.operations.1 < 6, "{device:?}: {report}");
        assert_kept(&format!("DAX, {device:?}"), &report);
        let seeded = (0..).map(|seed| crash::seeded(&words, seed, 8));
        assert_kept(&format!("DAX, seeded, {device:?}"), &crash::run(&plan, seeded));
    }
}

#[test]
fn directories_that_change_their_parent_survive_every_crash_in_a_journal() {
    need_tools!("e2fsck");
    for device in [Device::Lines, Device::Words] {
        let plan = Plan {
            limits: CrashLimits { exhaustive: 32, edges: 16, pairs: 8, samples: 8, ..CrashLimits::default() },
            ..plan(&Base::of("ext3-clean"), device, 15)
        };
        for base in [plan.base.clone(), plan.base.clone().bare()] {
            let plan = Plan { base, ..plan.clone() };
            let report = crash::run(&plan, crash::moves().into_iter());
            assert_eq!(report.operations.1, 0, "{device:?}: {report}");
            assert_kept(&format!("moves in a journal, {}, {device:?}", plan.base.name), &report);
        }
    }
}

/// The one exception that the promise names.
#[test]
fn directories_that_change_their_parent_without_a_journal_need_a_person_at_worst_and_lose_nothing() {
    need_tools!("e2fsck");
    for device in [Device::Lines, Device::Sectors] {
        let plan = Plan { moves: Moves::Excepted, ..plan(&Base::small(80, 256), device, 15) };
        let report = crash::run(&plan, crash::moves().into_iter());
        println!("moves without a journal, {device:?}: {report}");
        assert!(report.states > 50 && report.excepted > 0, "{device:?}: {report}");
        assert_eq!(report.violated, 0, "{device:?}: {:#?}", report.violations);
    }
}

/// Images, devices and workloads of the long run, in turns.
fn turns() -> Vec<(Base, Device)> {
    vec![
        (Base::small(80, 256), Device::Lines),
        (Base::small(80, 256), Device::Words),
        (Base::small(64, 128), Device::Lines),
        (Base::small(80, 256), Device::Sectors),
        (Base::small(80, 0), Device::Words),
        (Base::small(64, 256), Device::Lines),
        (Base::small(80, 256).bare(), Device::Lines),
        (Base::shared(80, 128, 2), Device::Words),
        (Base::small(80, 256).in_inodes(), Device::Lines),
    ]
}

/// Seeds of one turn.
const TURN: u64 = 64;

/// `E2DAX_CRASH_STATES=100000000` looks at so many states and prints how far it is; without it, at some.
/// `E2DAX_CRASH_SEED` is where the seeds begin (pairs of operations are looked at first when it is 0): a run that was
/// ended goes on with the number that it printed last, and several may share the seeds. `E2DAX_CRASH_SECONDS` ends it in
/// any case.
#[test]
fn every_state_of_a_long_run_survives() {
    let states = number("E2DAX_CRASH_STATES");
    let is_long = states.is_some();
    let states = states.unwrap_or(20_000);
    let seconds = number("E2DAX_CRASH_SECONDS").unwrap_or(1 << 20);
    let begin = Instant::now();
    let left = |all: &Report| states.saturating_sub(all.states);
    let time = || Duration::from_secs(seconds).saturating_sub(begin.elapsed());
    let mut all = Report::default();
    // The other tests look at the pairs.
    let mut seed = number("E2DAX_CRASH_SEED").unwrap_or(u64::from(!is_long));
    let is_first = seed == 0;
    for round in 0.. {
        for (base, device) in turns() {
            let plan = Plan { states: left(&all), time: time(), ..plan(&base, device, seconds) };
            let report = if is_first && round == 0 {
                crash::run(&plan, crash::pairs(&crash::vocabulary()).into_iter())
            } else {
                crash::run(&plan, (seed..seed + TURN).map(|seed| crash::wild(seed, 12)))
            };
            all.add(report);
        }
        if !(is_first && round == 0) {
            seed += TURN;
        }
        println!("after {} s, next seed {seed}: {all}", begin.elapsed().as_secs());
        if left(&all) == 0 || time().is_zero() || all.violated > 0 {
            break;
        }
    }
    assert_kept("long run", &all);
}
