//! A script on several machines, step by step.

use std::collections::BTreeMap;

use ext2_core::Follow;
use ext2_dax::replay::{Events, Op, Player, Script};
use serde::Serialize;

use crate::machines::Machine;
use crate::snapshot;
use crate::step::{Call, Counts, Step};

/// A flight has at most so many steps; a page that shows more helps nobody.
const STEPS: usize = 400;

/// A flight.
#[derive(Clone, Debug, Serialize)]
pub struct Flight {
    /// The lines of the script.
    pub script: Vec<String>,
    /// Lines that were left out.
    pub cut: usize,
    /// The machines with their steps, one for each line.
    pub machines: Vec<Track>,
    /// For each step what is not the same on all machines: `result`, `calls`, `faults`, `locks`, `map`, `table`.
    pub differs: Vec<Vec<&'static str>>,
}

/// What a machine did.
#[derive(Clone, Debug, Serialize)]
pub struct Track {
    /// A word for the machine.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// Flies a script, each machine on its own copy of `image`.
///
/// # Errors
/// A line that is no operation, an image that does not open.
pub fn fly(script: &str, image: &[u8], machines: &[Machine]) -> Result<Flight, String> {
    let mut script = Script::parse(script.as_bytes()).map_err(|error| error.to_string())?;
    let cut = script.lines.len().saturating_sub(STEPS);
    script.lines.truncate(STEPS);
    let tracks: Result<Vec<Track>, String> =
        machines.iter().map(|machine| track(machine, &script, image)).collect();
    Ok(Flight::new(script.lines.iter().map(|line| line.text.clone()).collect(), cut, tracks?))
}

impl Flight {
    /// Of steps that somebody made.
    pub(crate) fn new(script: Vec<String>, cut: usize, machines: Vec<Track>) -> Self {
        let differs = (0..script.len()).map(|step| differences(&machines, step)).collect();
        let mut machines = machines;
        for step in 0..script.len() {
            compare_calls(&mut machines, step);
        }
        Self { script, cut, machines, differs }
    }
}

fn track(machine: &Machine, script: &Script, image: &[u8]) -> Result<Track, String> {
    let mut player = machine.boot(image)?;
    let block_size = player.fs().ext2().geometry().block_size.bytes();
    let mut names = BTreeMap::new();
    let mut before = Counts::default();
    let steps = script
        .lines
        .iter()
        .map(|line| {
            let outcome = player.step(line);
            for path in paths(&line.op) {
                learn(&player, path, &mut names);
            }
            let total =
                Counts::of(&player.fs().asked(), &player.mmu().map(|mmu| mmu.counters()).unwrap_or_default());
            let (files, maps) = snapshot::of(&player, &names);
            let mut step = Step {
                result: outcome.result,
                files,
                maps,
                counts: total.since(&before),
                total,
                ..Step::default()
            };
            step.hear(&outcome.events, block_size);
            before = total;
            step
        })
        .collect();
    Ok(Track { id: machine.id, name: machine.name, about: machine.about, steps })
}

/// The listing of a script on one machine, in the format of the recordings.
pub(crate) fn listing(script: &str, image: &[u8], machine: &Machine) -> Result<String, String> {
    let script = Script::parse(script.as_bytes()).map_err(|error| error.to_string())?;
    let mut text = String::new();
    machine.boot(image)?.play(&script, |outcome| {
        // Writing to a String does not fail.
        let _ = outcome.write_oracle(&mut text, Events::Shown);
    });
    Ok(text)
}

/// Notes how the script names the file at `path`.
fn learn(player: &Player, path: &str, names: &mut BTreeMap<u32, String>) {
    let absolute = format!("/{path}");
    if let Ok(inode) = player.fs().ext2().resolve(absolute.as_bytes(), Follow::Yes) {
        names.insert(inode.nr().get(), path.to_owned());
    }
}

/// The paths that an operation names.
pub(crate) fn paths(op: &Op) -> Vec<&str> {
    match op {
        Op::Create { path }
        | Op::Write { path, .. }
        | Op::Read { path, .. }
        | Op::Truncate { path, .. }
        | Op::Fsync { path }
        | Op::Fallocate { path, .. }
        | Op::Stat { path }
        | Op::Fiemap { path }
        | Op::SeekHole { path, .. }
        | Op::SeekData { path, .. }
        | Op::Mkdir { path }
        | Op::Rmdir { path }
        | Op::Unlink { path }
        | Op::Symlink { path, .. }
        | Op::Map { path, .. } => vec![path],
        Op::Rename { from, to } | Op::Link { from, to } => vec![from, to],
        Op::Unmap { .. }
        | Op::Load { .. }
        | Op::Store { .. }
        | Op::Touch { .. }
        | Op::Mcrc { .. }
        | Op::Msync { .. } => Vec::new(),
    }
}

/// Marks in step `at` the fields that say something else than those of the same call on another machine.
fn compare_calls(machines: &mut [Track], at: usize) {
    let all: Vec<Vec<Call>> = machines
        .iter()
        .map(|track| track.steps.get(at).map(|step| step.calls.clone()).unwrap_or_default())
        .collect();
    for (nr, track) in machines.iter_mut().enumerate() {
        let Some(step) = track.steps.get_mut(at) else { continue };
        for (_, calls) in all.iter().enumerate().filter(|(other, _)| *other != nr) {
            for (call, theirs) in step.calls.iter_mut().zip(calls) {
                call.compare(theirs);
            }
        }
    }
}

/// What differs in step `at`. Blocks and translations count where the step changed them: what differs once would else be
/// marked for ever.
fn differences(machines: &[Track], at: usize) -> Vec<&'static str> {
    let steps: Vec<&Step> = machines.iter().filter_map(|track| track.steps.get(at)).collect();
    let Some((first, rest)) = steps.split_first() else { return Vec::new() };
    let changed = |same: &dyn Fn(&Step, &Step) -> bool| {
        machines.iter().any(|track| {
            let before = at.checked_sub(1).and_then(|before| track.steps.get(before));
            match (before, track.steps.get(at)) {
                (Some(before), Some(now)) => !same(before, now),
                _ => true,
            }
        })
    };
    let differs = |same: &dyn Fn(&Step, &Step) -> bool| !rest.iter().all(|step| same(first, step));
    let maps =
        |a: &Step, b: &Step| a.files.iter().map(|file| &file.map).eq(b.files.iter().map(|file| &file.map));
    let tables = |a: &Step, b: &Step| a.maps == b.maps;
    let locks = |step: &Step| (step.counts.exclusive, step.counts.shared, step.counts.dio);
    let found = [
        ("result", differs(&|a, b| a.result == b.result)),
        ("calls", differs(&|a, b| a.counts.calls == b.counts.calls)),
        ("faults", differs(&|a, b| a.counts.faults() == b.counts.faults())),
        ("locks", differs(&|a, b| locks(a) == locks(b))),
        ("map", changed(&maps) && differs(&maps)),
        ("table", changed(&tables) && differs(&tables)),
    ];
    found.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
}
