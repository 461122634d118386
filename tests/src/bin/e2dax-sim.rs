//! `e2dax-sim`: runs of the simulator.
//!
//! ```text
//! e2dax-sim [--seed N] [--runs N] [--seconds S] [--mode plain|threads|...] [--with FAULT] [--shrink] [--trace]
//! e2dax-sim --put-back FAULT|all [--searches N] [--seconds S] [--mode ...] [--seed N]
//! ```
//! Without a seed it begins with one of its own, and goes on with the ones after it: for `--runs`, for `--seconds`, or
//! one run of the seed that was given. `--with` puts a fault back that was mended, or leaves out a fence or flush wherever it
//! is made, and ends with the first run that shows it; `--put-back` does that several times, and prints a row of a table
//! with the middle of the runs and seconds that it took. What fails is printed as one line, which repeats it: `--shrink`
//! leaves out what it does not take, and `--trace` tells it step by step. The exit code is 1 where something was found.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use e2dax_tests::sim::{self, Campaign, Failure, Fault, Mode, Search, Tally};

/// How often a long campaign says on stderr how far it has come.
const PROGRESS: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Asked {
    seed: Option<u64>,
    runs: Option<u64>,
    seconds: Option<u64>,
    mode: Option<Mode>,
    with: Option<Fault>,
    put_back: Vec<Fault>,
    searches: Option<u64>,
    shrink: bool,
    trace: bool,
}

const HELP: &str = "\
Runs of the simulator: one seed is one file system, its operations, and what goes wrong.

  e2dax-sim [--seed N] [--runs N] [--seconds S] [--mode MODE] [--with FAULT] [--shrink] [--trace]
  e2dax-sim --put-back FAULT|all [--searches N] [--seconds S] [--mode MODE] [--seed N]

  --seed N          begin with this seed; without it, with a new one, which is printed
  --runs N          this many runs, each with the seed after the last (1, and no end for --with without a seed)
  --seconds S       begin no run after S seconds
  --mode MODE       all runs in this mode: plain, threads, crash or failing; without it, the seed chooses
  --with FAULT      put a mended fault back, or leave out a fence or flush, and end with the first run that shows it
  --put-back FAULT  search for the fault several times and print a row of a table with the median; `all` for every one
  --searches N      how many times (5), of --seconds each at most (600)
  --shrink          leave out the steps that a failure does not need
  --trace           print each step of a failure

What fails is one line with the seed, the options and the commit. Exit code: 0 nothing found, 1 something found (with
--put-back: not found by each search), 2 usage.
";

/// What the command line asks for; nothing, where it asks for help.
fn asked() -> Result<Option<Asked>, String> {
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
            "--searches" => asked.searches = Some(number()?),
            "--with" => asked.with = Some(fault(&words.next().unwrap_or_default())?),
            "--put-back" => {
                let name = words.next().unwrap_or_default();
                asked.put_back = if name == "all" { Fault::mended().collect() } else { vec![fault(&name)?] };
            }
            "--shrink" => asked.shrink = true,
            "--trace" => asked.trace = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("{other:?} is not understood")),
        }
    }
    Ok(Some(asked))
}

fn fault(name: &str) -> Result<Fault, String> {
    Fault::named(name).ok_or_else(|| format!("there is no fault {name:?}"))
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

/// A row of a table for each fault. What is not found by every search makes the exit code 1.
fn put_back(asked: &Asked) -> ExitCode {
    let search = Search {
        searches: asked.searches.unwrap_or(5),
        time: Duration::from_secs(asked.seconds.unwrap_or(600)),
        mode: asked.mode,
        first: asked.seed,
    };
    let mut all = true;
    println!("| fault | mode | found | runs | seconds |\n|---|---|---|---|---|");
    for fault in &asked.put_back {
        match std::env::current_exe().and_then(|program| search.go(&program, *fault)) {
            Ok(sought) => {
                all &= sought.found == search.searches;
                let runs = sought.runs.map_or("–".to_owned(), |runs| runs.to_string());
                let time = sought.time.map_or("–".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
                println!(
                    "| `{fault}` | {} | {} of {} | {runs} | {time} |",
                    sought.modes.join(", "),
                    sought.found,
                    search.searches
                );
                if asked.trace {
                    println!("{}", sought.words);
                }
            }
            Err(error) => {
                eprintln!("e2dax-sim: {error}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::from(u8::from(!all))
}

fn main() -> ExitCode {
    let asked = match asked() {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(words) => {
            eprintln!("e2dax-sim: {words} (--help tells what is)");
            return ExitCode::from(2);
        }
    };
    if !asked.put_back.is_empty() {
        return put_back(&asked);
    }
    // What panics is told with its steps.
    std::panic::set_hook(Box::new(|_| {}));
    // A fault without a seed is searched for.
    let searches = asked.with.is_some() && asked.seed.is_none();
    // Nothing but a crash sees a fence.
    let sees = |fault: &Fault| searches || matches!(fault, Fault::Without(_));
    let campaign = Campaign {
        first: asked.seed.unwrap_or_else(sim::new_seed),
        runs: asked.runs.unwrap_or(if searches || asked.seconds.is_some() { u64::MAX } else { 1 }),
        time: Duration::from_secs(asked.seconds.unwrap_or(u64::from(u32::MAX))),
        mode: asked.mode.or(asked.with.filter(sees).map(Fault::mode)),
        fault: asked.with,
        enough: if asked.with.is_some() { 1 } else { u64::MAX },
    };
    let begin = Instant::now();
    let line = |tally: &Tally| {
        let (first, time) = (campaign.first, begin.elapsed().as_secs_f64());
        let Tally { runs, operations, states, found } = tally;
        format!(
            "{runs} runs from seed {first} on in {time:.1} s, {operations} operations, {states} states, {found} findings"
        )
    };
    let mut said = begin;
    let tally = campaign.go(
        |failure| tell(failure, &asked),
        |tally| {
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                eprintln!("{}", line(tally));
            }
        },
    );
    println!("{}", line(&tally));
    ExitCode::from(u8::from(tally.found > 0))
}
