//! The recordings of Linux in `testdata/linux-6.1`, and how a replay is compared with them.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use blockdev::{BlockDevice, RamDevice};
use ext2_core::{Ext2, OpenOptions};
use ext2_dax::replay::{Events, Player, Script};
use ext2_dax::{DaxFs, DaxOptions};

use crate::golden::{gunzip, testdata};

/// One operation of a listing: its line up to the result, the result, and the events under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `op N LINE`.
    pub op: String,
    /// What it gave, extents of `fiemap` joined.
    pub result: String,
    /// The events' lines without indentation.
    pub events: Vec<String>,
}

fn folder() -> PathBuf {
    testdata().join("linux-6.1")
}

/// Names of all scripts, in order.
pub fn scripts() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder().join("scripts"))
        .expect("the scripts are there")
        .filter_map(|item| item.ok()?.file_name().to_str()?.strip_suffix(".ops").map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// A script by name.
pub fn script(name: &str) -> Script {
    let path = folder().join("scripts").join(name).with_extension("ops");
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Script::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The listing of a script under a file system: `ext2`, `ext4` or `xfs`. `None` where it was not run.
pub fn listing(file_system: &str, name: &str) -> Option<Vec<Step>> {
    let path = folder().join(file_system).join(name).with_extension("txt");
    fs::read_to_string(path).ok().map(|text| parse(&text))
}

/// A fresh copy of the image that a script starts from, in memory.
pub fn device(name: &str) -> Arc<RamDevice> {
    if name == "12-enospc" { small_device() } else { empty_device() }
}

/// An empty file system of 64 MiB, in memory.
pub fn empty_device() -> Arc<RamDevice> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    copy_of(&IMAGE, "base-64m.img.gz")
}

/// An empty file system of 4 MiB, in memory.
pub fn small_device() -> Arc<RamDevice> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    copy_of(&IMAGE, "base-4m.img.gz")
}

fn copy_of(image: &OnceLock<Vec<u8>>, name: &str) -> Arc<RamDevice> {
    let bytes = image.get_or_init(|| gunzip(&folder().join("images").join(name)));
    Arc::new(RamDevice::from_bytes(bytes).expect("the image fits memory"))
}

/// Plays a script on a device and gives what came of it.
pub fn replay(device: Arc<dyn BlockDevice>, script: &Script, options: DaxOptions) -> Vec<Step> {
    let ext2 = Ext2::open(device, &OpenOptions::default()).expect("the image opens");
    let mut player = Player::new(DaxFs::new(ext2, options));
    let mut text = String::new();
    player.play(script, |outcome| {
        outcome.write_oracle(&mut text, Events::Shown).expect("a string takes everything");
    });
    parse(&text)
}

/// Splits a listing into steps.
pub fn parse(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        if let Some(event) = line.strip_prefix("    ") {
            steps.last_mut().expect("an event follows an operation").events.push(event.to_owned());
        } else if let Some((op, result)) = line.split_once(" => ") {
            steps.push(Step { op: op.to_owned(), result: joined(result), events: Vec::new() });
        }
    }
    steps
}

/// The result with the extents of `fiemap` joined where they touch: where one is cut depends on the
/// allocator.
fn joined(result: &str) -> String {
    let Some(rest) = result.strip_prefix("extents=") else { return result.to_owned() };
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for word in rest.split_whitespace().skip(1) {
        let (start, len) = word.split_once(':').expect("an extent is LOGICAL:LENGTH");
        let (start, len): (u64, u64) = (start.parse().expect("a number"), len.parse().expect("a number"));
        match ranges.last_mut() {
            Some((first, length)) if *first + *length == start => *length += len,
            _ => ranges.push((start, len)),
        }
    }
    let list: Vec<String> = ranges.iter().map(|(start, len)| format!(" {start}:{len}")).collect();
    format!("extents={}{}", list.len(), list.concat())
}

impl Step {
    /// The operation's verb.
    pub fn verb(&self) -> &str {
        self.op.split_whitespace().nth(2).unwrap_or_default()
    }

    /// Faults among the events: each is one `dax_pte_fault` or `dax_pmd_fault`.
    pub fn faults(&self) -> usize {
        let is_fault = |event: &&String| {
            matches!(event.split_whitespace().next(), Some("dax_pte_fault" | "dax_pmd_fault"))
        };
        self.events.iter().filter(is_fault).count()
    }
}
