//! Pull the plug at any instruction: `e2fsck -p` mends it alone, and nothing that was promised is gone.

use std::time::Duration;

use blockdev::crash::Limits;
use e2dax_tests::{
    crash::{self, Action, Base, Device, Plan, Report},
    tools,
};

/// Every so many states the real e2fsck is asked too: `E2DAX_CRASH_E2FSCK`, or 500.
fn e2fsck_every() -> u64 {
    let said = std::env::var("E2DAX_CRASH_E2FSCK").ok().and_then(|text| text.parse().ok());
    if tools::have("e2fsck") { said.unwrap_or(500) } else { 0 }
}

/// How many states a long run is to look at: `E2DAX_CRASH_STATES`.
fn long_run() -> Option<u64> {
    std::env::var("E2DAX_CRASH_STATES").ok().and_then(|text| text.parse().ok())
}

/// A bounded look: CI has minutes for everything, not hours for this.
fn plan(base: &Base, device: Device, seconds: u64) -> Plan {
    Plan {
        states: u64::MAX,
        base: base.clone(),
        device,
        limits: Limits { exhaustive: 128, edges: 24, pairs: 16, samples: 24, ..Limits::default() },
        e2fsck_every: e2fsck_every(),
        without_fence: None,
        time: Duration::from_secs(seconds),
    }
}

/// Each operation of the vocabulary: alone, with an fsync, with a sync.
fn seq_1() -> Vec<Vec<Action>> {
    let mut all = Vec::new();
    for action in crash::vocabulary() {
        if let Some(target) = action.target() {
            all.push(vec![action.clone(), Action::Fsync(target)]);
        }
        all.push(vec![action, Action::Sync]);
    }
    all
}

/// All pairs of them, apart and with an fsync between, so mixed that any part of them has some of everything.
fn seq_2() -> Vec<Vec<Action>> {
    let words = crash::vocabulary();
    let count = words.len();
    let mut all = Vec::new();
    for shift in 0..count {
        for first in 0..count {
            let (a, b) = (words[first].clone(), words[(first + shift) % count].clone());
            match a.target() {
                Some(target) if (first + shift) % 2 == 0 => {
                    all.push(vec![a, Action::Fsync(target), b, Action::Sync]);
                }
                _ => all.push(vec![a, b, Action::Sync]),
            }
        }
    }
    all
}

/// Longer ones, of a seed each, without end.
fn seeded(words: Vec<Action>, len: u64) -> impl Iterator<Item = Vec<Action>> + Send {
    (0u64..).map(move |seed| crash::seeded(&words, seed, len))
}

fn assert_kept(what: &str, report: &Report) {
    println!("{what}: {report}");
    assert!(report.states > 1000, "{what}: only {} states", report.states);
    let first: Vec<&String> = report.violations.iter().take(8).collect();
    assert!(first.is_empty(), "{what}: {} violations: {first:#?}", report.violations.len());
}

#[test]
fn every_operation_alone_survives_every_crash() {
    for name in ["times", "specials"] {
        let base = Base::of(name);
        for device in [Device::Lines, Device::Words, Device::Sectors, Device::Program] {
            let report = crash::run(&plan(&base, device, 20), seq_1().into_iter());
            assert_kept(&format!("{name}, {device:?}"), &report);
        }
    }
}

#[test]
fn pairs_of_operations_survive_every_crash() {
    let base = Base::of("times");
    for (device, seconds) in [(Device::Lines, 12), (Device::Sectors, 6), (Device::Words, 4)] {
        let seconds = if long_run().is_some() { 86_400 } else { seconds };
        let report = crash::run(&plan(&base, device, seconds), seq_2().into_iter());
        assert_kept(&format!("pairs, {device:?}"), &report);
    }
}

#[test]
fn long_workloads_survive_every_crash() {
    for (name, device) in
        [("specials", Device::Lines), ("times", Device::Words), ("revision-0", Device::Lines)]
    {
        let base = Base::of(name);
        let mut plan = plan(&base, device, 5);
        if let Some(states) = long_run() {
            plan.states = states;
            plan.time = Duration::from_secs(86_400);
        }
        assert_kept(
            &format!("seeded, {name}, {device:?}"),
            &crash::run(&plan, seeded(crash::vocabulary(), 12)),
        );
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
        let mut plan = plan(&base, device, 5);
        let report = crash::run(&plan, single.clone().into_iter());
        assert!(report.operations.1 < 6, "{device:?}: {report}");
        assert_kept(&format!("DAX, {device:?}"), &report);
        if let Some(states) = long_run() {
            plan.states = states / 4;
            plan.time = Duration::from_secs(86_400);
        }
        assert_kept(&format!("DAX, seeded, {device:?}"), &crash::run(&plan, seeded(words.clone(), 8)));
    }
}
