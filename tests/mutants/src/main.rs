//! `e2dax-mutants`: small changes of the core that no test notices.
//!
//! Every change is present in one build, each behind a switch (`switch/`), so that thousands of them cost one compilation.
//! Each killer (a seed of the simulator, a test) then runs once to note which mutants it comes by, and each mutant meets the
//! killers that do, until one fails.

mod compile;
mod conditions;
mod equivalent;
mod find;
mod folder;
mod hunt;
mod killers;
mod modules;
mod outcome;
mod process;
mod record;
mod render;
mod sample;
mod site;
mod table;
mod tree;
mod values;

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use crate::{equivalent::Equivalent, folder::Folder, hunt::Hunt, outcome::Outcome, sample::Chosen};

/// Mutants of the core: which small changes no test notices.
#[derive(Debug, Parser)]
#[command(name = "e2dax-mutants")]
struct Cli {
    /// The workspace
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))]
    root: PathBuf,
    /// Where the mutated copy and the results go [default: target/mutants of the workspace]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Mutants with a reason [default: equivalent.txt beside this program's sources]
    #[arg(long)]
    equivalent: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Copy the workspace, put all mutants in, and build them with the tests
    Build {
        /// Where cargo puts what it builds [default: build in the folder]
        #[arg(long)]
        target: Option<PathBuf>,
    },
    /// Run what may notice them: goes on where it was stopped
    Run {
        #[command(flatten)]
        chosen: Chosen,
        /// Try again what no test noticed and no reason explains, after a build with other tests
        #[arg(long)]
        again: bool,
        /// Seeds of each mode of the simulator
        #[arg(long, default_value_t = 60)]
        seeds: u64,
        /// Seconds for one mutant
        #[arg(long, default_value_t = 60)]
        budget: u64,
        /// Processes at the same time
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Print the table
    Table,
    /// Print the mutants that live and have no reason
    Alive {
        #[command(flatten)]
        chosen: Chosen,
    },
}

fn go(cli: &Cli) -> io::Result<()> {
    let folder = cli.folder.clone().unwrap_or_else(|| cli.root.join("target/mutants"));
    let folder = Folder::new(&folder)?;
    let list = cli.equivalent.clone().unwrap_or_else(|| cli.root.join("tests/mutants/equivalent.txt"));
    let equivalent = Equivalent::parse(&std::fs::read_to_string(list)?).map_err(io::Error::other)?;
    match &cli.verb {
        Verb::Build { target } => {
            record::forget(&folder)?;
            let target = target.clone().unwrap_or_else(|| folder.join("build"));
            return compile::compile(&cli.root.canonicalize()?, &folder, &target);
        }
        Verb::Run { chosen, again, seeds, budget, jobs } => {
            let mutants = folder.mutants()?;
            let outcomes = outcome::all(&folder)?;
            let lives = |key: &str, outcome: &Outcome| !outcome.is_caught() && !equivalent.holds(key);
            let wanted = |key: &str| outcomes.get(key).is_none_or(|outcome| *again && lives(key, outcome));
            let killers = record::record(&folder, killers::all(&folder, *seeds)?, *jobs)?;
            println!("{} killers", killers.len());
            let mutants: Vec<_> =
                chosen.of(&mutants).into_iter().filter(|mutant| wanted(&mutant.key)).collect();
            let hunt = Hunt { folder: &folder, killers: &killers, budget: Duration::from_secs(*budget) };
            hunt.all(&mutants, *jobs)?;
        }
        Verb::Alive { chosen } => {
            let mutants = folder.mutants()?;
            let outcomes = outcome::all(&folder)?;
            for mutant in chosen.of(&mutants) {
                match outcomes.get(&mutant.key) {
                    Some(outcome) if !outcome.is_caught() && !equivalent.holds(&mutant.key) => {
                        println!("{}\tline {}: {}", outcome.word(), mutant.line, mutant.key);
                    }
                    _ => {}
                }
            }
            return Ok(());
        }
        Verb::Table => {}
    }
    let (mutants, outcomes) = (folder.mutants()?, outcome::all(&folder)?);
    print!("{}", table::table(&mutants, &outcomes, &equivalent));
    let caught = |key: &str| outcomes.get(key).copied().is_some_and(Outcome::is_caught);
    for mutant in mutants.iter().filter(|mutant| equivalent.holds(&mutant.key) && caught(&mutant.key)) {
        println!("in the list, but caught: {}", mutant.key);
    }
    match &equivalent.stale(&mutants)[..] {
        [] => Ok(()),
        stale => Err(io::Error::other(format!("in the list, but no mutant:\n{}", stale.join("\n")))),
    }
}

fn main() -> ExitCode {
    match go(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("e2dax-mutants: {error}");
            ExitCode::FAILURE
        }
    }
}
