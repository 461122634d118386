//! `e2dax-sim`: runs of the simulator.
//!
//! ```text
//! e2dax-sim [--seed N] [--runs N] [--seconds S] [--mode plain|threads|...] [--without BARRIER] [--shrink] [--trace]
//! ```
//! Without a seed it begins with one of its own, and goes on with the ones after it: for `--runs`, for `--seconds`, or
//! one run of the seed that was given. `--without` leaves out a fence or flush wherever it is made, and ends with the first
//! run that shows it. What fails is printed as one line, which repeats it: `--shrink`
//! leaves out what it does not take, and `--trace` tells it step by step. The exit code is 1 where something was found.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use e2dax_tests::sim::{self, Campaign, Failure, Mode};
use ext2_core::Barrier;

#[derive(Default)]
struct Asked {
    seed: Option<u64>,
    runs: Option<u64>,
    seconds: Option<u64>,
    mode: Option<Mode>,
    without: Option<Barrier>,
    shrink: bool,
    trace: bool,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().unwrap_or_default();
            value.parse().map_err(|_| format!("{word} takes a number, not {value:?}"))
        };
        match &word[..] {
            "--seed" => asked.seed = Some(number()?),
            "--runs" => asked.runs = Some(number()?),
            "--seconds" => asked.seconds = Some(number()?),
            "--mode" => {
                let name = words.next().unwrap_or_default();
                let found = Mode::ALL.iter().find(|(own, _)| *own == name);
                asked.mode = Some(found.ok_or_else(|| format!("there is no mode {name:?}"))?.1);
            }
            "--without" => {
                let name = words.next().unwrap_or_default();
                let found = Barrier::ALL.iter().find(|barrier| format!("{barrier:?}") == name);
                asked.without = Some(*found.ok_or_else(|| format!("there is no barrier {name:?}"))?);
            }
            "--shrink" => asked.shrink = true,
            "--trace" => asked.trace = true,
            other => return Err(format!("{other:?} is not understood")),
        }
    }
    Ok(asked)
}

fn tell(failure: &Failure, asked: &Asked) {
    println!("{failure} (commit {})", sim::commit());
    let small = asked.shrink.then(|| sim::shrink(failure));
    if let Some(small) = &small {
        println!("shrunk to {} steps: {}", small.steps.len(), small.words);
    }
    if asked.trace || asked.shrink {
        for (nr, (step, words)) in small.as_ref().unwrap_or(failure).steps.iter().enumerate() {
            println!("{nr:4}  {step} -> {words}");
        }
    }
}

fn main() -> ExitCode {
    let asked = match asked() {
        Ok(asked) => asked,
        Err(words) => {
            eprintln!("e2dax-sim: {words}");
            return ExitCode::from(2);
        }
    };
    // What panics is told with its steps.
    std::panic::set_hook(Box::new(|_| {}));
    let campaign = Campaign {
        first: asked.seed.unwrap_or_else(sim::new_seed),
        runs: asked.runs.unwrap_or(if asked.seconds.is_some() { u64::MAX } else { 1 }),
        time: Duration::from_secs(asked.seconds.unwrap_or(u64::from(u32::MAX))),
        mode: asked.mode.or(asked.without.map(|_| Mode::Crash)),
        without: asked.without,
        enough: if asked.without.is_some() { 1 } else { u64::MAX },
    };
    let begin = Instant::now();
    let tally = campaign.go(|failure| tell(failure, &asked));
    println!(
        "{} runs from seed {} on in {:.1} s, {} operations, {} states, {} findings",
        tally.runs,
        campaign.first,
        begin.elapsed().as_secs_f64(),
        tally.operations,
        tally.states,
        tally.found
    );
    ExitCode::from(u8::from(tally.found > 0))
}
