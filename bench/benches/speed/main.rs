//! One table: what was done, ours, each peer on the same bytes in the same run, and the memory's own limit.
//!
//! `cargo bench -p bench` runs all of it, at the sizes of docs/performance.md, in some minutes;
//! `cargo bench -p bench -- read names` runs the sections named. `E2DAX_BENCH=quick` makes everything ten
//! times smaller. Images lie in `/dev/shm`, so that no disk is measured.

mod faults;
mod lookup;
mod mappings;
mod memory;
mod names;
mod opening;
mod peers;
mod read;
mod threads;
mod trees;
mod write;

use std::path::PathBuf;

use tempfile::TempDir;

/// What can go wrong is said, and ends the section.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Sizes, and a folder in memory.
pub(crate) struct Bench {
    folder: TempDir,
    /// What all sizes are divided by.
    divisor: u64,
}

impl Bench {
    fn new() -> Result<Self> {
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let quick = std::env::var("E2DAX_BENCH").is_ok_and(|word| word == "quick");
        let folder = tempfile::Builder::new().prefix("e2dax-bench-").tempdir_in(parent)?;
        Ok(Self { folder, divisor: if quick { 10 } else { 1 } })
    }

    /// A path for an image.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A size or number, smaller for a quick look.
    fn scaled(&self, full: u64) -> u64 {
        (full / self.divisor).max(1)
    }
}

/// A section of the table: its name and what prints it.
type Section = (&'static str, fn(&Bench) -> Result<()>);

const SECTIONS: [Section; 10] = [
    ("read", read::run),
    ("write", write::run),
    ("lookup", lookup::run),
    ("faults", faults::run),
    ("mappings", mappings::run),
    ("names", names::run),
    ("trees", trees::run),
    ("open", opening::run),
    ("threads", threads::run),
    ("memory", memory::run),
];

fn machine() {
    let first = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
        line.and_then(|line| line.split_once(':').map(|(_, value)| value.trim().to_owned()))
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "{}, {cores} processors, {} of memory, Linux {}",
        first("/proc/cpuinfo", "model name").unwrap_or_default(),
        first("/proc/meminfo", "MemTotal").unwrap_or_default(),
        release.trim()
    );
}

fn main() -> Result<()> {
    if let Some(task) = std::env::args().nth(1).filter(|word| word == memory::CHILD) {
        return memory::child(&task);
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let bench = Bench::new()?;
    machine();
    for (name, run) in SECTIONS {
        if (wanted.is_empty() || wanted.iter().any(|word| word == name))
            && let Err(error) = run(&bench)
        {
            println!("\n{name}: ended by: {error}");
        }
    }
    Ok(())
}
