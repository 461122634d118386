//! New seeds of the simulator, each time: what fails prints one line, from which `e2dax-sim` has it again.
//!
//! `E2DAX_SIM_SECONDS` is how long each mode runs instead of a few seconds, `E2DAX_SIM_SEED` where the seeds begin.

use std::time::Duration;

use e2dax_tests::sim::{self, Campaign, Mode};

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs new seeds of one mode.
fn campaign(mode: Mode) {
    let campaign = Campaign {
        first: number("E2DAX_SIM_SEED").unwrap_or_else(sim::new_seed),
        runs: u64::MAX,
        time: Duration::from_secs(number("E2DAX_SIM_SECONDS").unwrap_or(15)),
        mode: Some(mode),
        without: None,
        enough: 5,
    };
    let mut found = Vec::new();
    let tally = campaign.go(|failure| {
        println!("{failure} (commit {})", sim::commit());
        found.push(failure.to_string());
    });
    println!("{mode:?} from seed {} on: {tally:?}", campaign.first);
    assert!(tally.operations > 0, "nothing was done");
    assert!(found.is_empty(), "{} of {} runs: {}", found.len(), tally.runs, found[0]);
}

#[test]
#[ignore = "the model or the code is wrong, and which is not settled: docs/tests.md"]
fn every_answer_is_what_the_model_says() {
    campaign(Mode::Plain);
}

#[test]
#[ignore = "the model or the code is wrong, and which is not settled: docs/tests.md"]
fn what_threads_are_answered_is_what_some_order_gives() {
    campaign(Mode::Threads);
}

#[test]
#[ignore = "the model or the code is wrong, and which is not settled: docs/tests.md"]
fn what_was_promised_is_there_after_every_crash() {
    campaign(Mode::Crash);
}

#[test]
#[ignore = "the model or the code is wrong, and which is not settled: docs/tests.md"]
fn a_device_that_fails_costs_no_more_than_the_operation() {
    campaign(Mode::Failing);
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
