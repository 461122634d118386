//! The simulator: the same seeds each time, so that a change is told by what it changed. What fails prints one line, from
//! which `e2dax-sim` shows it again.
//!
//! With `E2DAX_SIM_SECONDS` each mode runs new seeds for that long, or those from `E2DAX_SIM_SEED` on.

use std::time::Duration;

use e2dax_tests::sim::{self, Campaign, Fault, Mode, Search};

/// Faults that are found within seconds, and by which mode.
const FOUND: &[(&str, Mode)] = &[
    ("MapAsksNobody", Mode::Plain),
    ("LeaseAsksNobody", Mode::Plain),
    ("RightsOfTheDevice", Mode::Plain),
    ("SyncOnVolatile", Mode::Plain),
    ("OpenTwice", Mode::Plain),
    ("TimesUncut", Mode::Plain),
    ("NumberLost", Mode::Plain),
    ("DotsAsNames", Mode::Plain),
    ("RunsTakenFirst", Mode::Threads),
    ("LeavingPassedOver", Mode::Threads),
    ("UnitsOfReserve", Mode::Plain),
    ("LateAttach", Mode::Threads),
    ("EarlyDeath", Mode::Plain),
    ("ResizeReach", Mode::Plain),
];

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs seeds of one mode: so many, or as long as the environment says.
fn campaign(mode: Mode, runs: u64) {
    let seconds = number("E2DAX_SIM_SECONDS");
    let first = if seconds.is_some() { sim::new_seed() } else { 1 };
    let campaign = Campaign {
        first: number("E2DAX_SIM_SEED").unwrap_or(first),
        runs: if seconds.is_some() { u64::MAX } else { runs },
        time: Duration::from_secs(seconds.unwrap_or(u64::from(u32::MAX))),
        mode: Some(mode),
        fault: None,
        enough: 5,
    };
    let mut found = Vec::new();
    let tally = campaign.go(
        |failure| {
            println!("{failure} (commit {})", sim::commit());
            found.push(failure.to_string());
        },
        |_| {},
    );
    println!("{mode:?} from seed {} on: {tally:?}", campaign.first);
    assert!(tally.operations > 0, "nothing was done");
    assert!(found.is_empty(), "{} of {} runs: {}", found.len(), tally.runs, found[0]);
}

#[test]
fn every_answer_is_what_the_model_says() {
    campaign(Mode::Plain, 150);
}

#[test]
fn what_threads_are_answered_is_what_some_order_gives() {
    campaign(Mode::Threads, 400);
}

#[test]
fn what_was_promised_is_there_after_every_crash() {
    campaign(Mode::Crash, 120);
}

#[test]
fn a_device_that_fails_costs_no_more_than_the_operation() {
    campaign(Mode::Failing, 2000);
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for (_, mode) in Mode::ALL {
        let options = sim::Options::of_mode(11, mode);
        let words = || sim::run(&options).map(|outcome| outcome.steps).map_err(|failure| failure.to_string());
        assert_eq!(format!("{:?}", words()), format!("{:?}", words()));
    }
}

#[test]
fn every_public_function_has_a_word_or_a_reason_to_have_none() {
    assert_eq!(sim::api::unsaid(), Vec::<String>::new());
}

/// Each fault that is put back is found by the first of its searches, from the same seeds each time: by runs of the mode that
/// is best at it. A process each, since what is put back is put back for all of a process.
#[test]
fn each_fault_that_is_put_back_is_found_again() {
    let search =
        |mode| Search { searches: 1, time: Duration::from_secs(60), mode: Some(mode), first: Some(1) };
    let mut missed = Vec::new();
    for (fault, mode) in FOUND {
        let fault = Fault::named(fault).expect("a fault of this name");
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_e2dax-sim"));
        let sought = search(*mode).go(program, fault).expect("the simulator runs");
        println!("{fault}: {:?} runs, {:?}: {}", sought.runs, sought.time, sought.words);
        if sought.found == 0 {
            missed.push(fault);
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
