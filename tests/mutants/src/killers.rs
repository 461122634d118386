//! What notices mutants: seeds of the simulator, and tests, a process for each.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::folder::Folder;

/// Crates whose unit tests and integration tests take part.
const PACKAGES: &[&str] = &["ext2-format", "ext2-core", "ext2-dax", "e2dax-tests"];
/// Integration tests that take part: those about the modules, but for sweeps that take long and are what the simulator samples.
const TESTS: &[&str] = &[
    // Of the crates.
    "it",
    "pieces",
    "short_ways",
    // Of all of them together.
    "alloc",
    "attributes",
    "big_holes",
    "dir_blocks",
    "dax",
    "dax_read",
    "dax_rw",
    "freed",
    "groups",
    "half_way",
    "host_map",
    "junk",
    "lies",
    "limits",
    "linux_bugs",
    "little_room",
    "log",
    "maps",
    "modified",
    "names",
    "oracle",
    "placing",
    "posix",
    "rights",
    "stores",
    "told",
    "trees",
    "units",
];
/// The program that runs seeds of the simulator.
pub const SIMULATOR: &str = "e2dax-sim";
const MODES: &[&str] = &["plain", "failing", "crash", "threads"];

/// What cargo is asked to build.
#[must_use]
pub fn build_arguments() -> Vec<String> {
    let mut arguments = vec!["--lib".to_owned(), "--bin".to_owned(), SIMULATOR.to_owned()];
    for (option, names) in [("-p", PACKAGES), ("--test", TESTS)] {
        arguments.extend(names.iter().flat_map(|name| [option.to_owned(), (*name).to_owned()]));
    }
    arguments
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Killer {
    /// What it is called, in one line.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// What it is told.
    pub arguments: Vec<String>,
}

/// All of them: `seeds` of each mode of the simulator, and each test of the programs that were built.
///
/// # Errors
/// The host's; a program that does not list its tests.
pub fn all(folder: &Folder, seeds: u64) -> io::Result<Vec<Killer>> {
    let mut killers = Vec::new();
    for line in folder.lines("programs.tsv")? {
        let Some((name, program)) = line.split_once('\t') else { continue };
        let program = Path::new(program);
        // Tests of what tests are made of tell nothing.
        if name == "e2dax_tests" {
            continue;
        }
        if name == SIMULATOR {
            simulator(program, seeds, &mut killers);
        } else {
            tests(name, program, &mut killers)?;
        }
    }
    Ok(killers)
}

fn simulator(program: &Path, seeds: u64, killers: &mut Vec<Killer>) {
    for mode in MODES {
        for seed in 1..=seeds {
            let arguments = ["--seed", &seed.to_string(), "--mode", mode].map(str::to_owned).to_vec();
            killers.push(Killer {
                name: format!("sim {mode} {seed}"),
                program: program.to_owned(),
                arguments,
            });
        }
    }
}

fn tests(name: &str, program: &Path, killers: &mut Vec<Killer>) -> io::Result<()> {
    let output = Command::new(program).args(["--list", "--format", "terse"]).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{} does not list its tests", program.display())));
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some(test) = line.strip_suffix(": test") else { continue };
        let arguments = ["--exact", test].map(str::to_owned).to_vec();
        killers.push(Killer { name: format!("{name} {test}"), program: program.to_owned(), arguments });
    }
    Ok(())
}
