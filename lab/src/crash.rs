//! The crash lab: a few operations, every state that a crash may leave of them, what `check` says of each, what repair
//! makes of it, and whether what fsync returned for is there.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use blockdev::crash::{BlockModel, Choice, CrashLimits, CrashState, PmemModel, PmemOrder};
use blockdev::{RamDevice, RecordedOp as Logged, Recorder};
use ext2_core::{Barrier, Ext2, Follow, OpenOptions};
use ext2_dax::DaxFs;
use ext2_dax::replay::{CrcSink, Op, Player, Script};
use ext2_dax::uio::Sink;
use ext2_image::check::{Checker, Finding, Options, Outcome, Preen};
use ext2_image::fields::Layout;
use ext2_image::repair::{self, Changes, Policy};
use serde::Serialize;

use crate::blocks::{Blocks, Use};
use crate::flight::paths;
use crate::machines::{self, NOW, empty_image};

/// What the lab begins with.
pub(crate) const SCRIPT: &str =
    "create a\nwrite a 0 6000 1\nfsync a\nmkdir d\nrename a d/b\nfsync d/b\nunlink d/b\n";

/// Bytes of the image: the smallest in which a student finds anything.
const SIZE: u64 = 256 << 10;
/// At most so many operations.
const STEPS: usize = 40;
/// At most so many states are shown.
const STATES: usize = 1500;

/// All crash states of a script.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Crashes {
    script: Vec<String>,
    results: Vec<String>,
    /// The fences and flushes that were made, or would have been.
    fences: Vec<FenceLine>,
    /// What went to the device, in order.
    log: Vec<LogLine>,
    states: Vec<State>,
    /// Whether there are more.
    more: bool,
    bad: usize,
    lost: usize,
}

#[derive(Clone, Debug, Serialize)]
struct FenceLine {
    name: String,
    text: &'static str,
    times: usize,
    left_out: bool,
}

#[derive(Clone, Debug, Serialize)]
struct LogLine {
    /// `store`, `write-back`, `fence`, `flush` or `step`.
    kind: &'static str,
    offset: u64,
    len: u64,
    /// The fence's name, the line of the script, or what is stored to.
    text: String,
}

#[derive(Clone, Debug, Serialize)]
struct State {
    /// Entries of the log before the crash.
    at: usize,
    /// The operation that was under way, or the last that was done.
    step: usize,
    done: bool,
    how: &'static str,
    in_flight: usize,
    /// What check says.
    findings: Vec<String>,
    /// What repair without questions makes of it: `clean`, `mended`, `halts`.
    repair: &'static str,
    /// What it stops at.
    halts: String,
    /// What repair mends then, if every question is answered by yes.
    asked: Vec<String>,
    /// Files that fsync had returned for and that are not as they were.
    lost: Vec<String>,
    /// Names in the tree after repair.
    tree: Vec<String>,
}

/// A file that fsync returned for: which steps it holds for, and what it was.
struct Promise {
    path: String,
    from: usize,
    until: usize,
    size: u64,
    crc: u32,
}

/// Runs `script` with the named fences left out, and shows its crash states under `order`: `lines`, `words`, `program` or
/// `block`.
///
/// # Errors
/// A line that is no operation, a fence or an order that there is not.
pub(crate) fn run(script: &str, without: &[String], order: &str, seed: u64) -> Result<Crashes, String> {
    let mut script = Script::parse(script.as_bytes()).map_err(|error| error.to_string())?;
    script.lines.truncate(STEPS);
    let left_out = without
        .iter()
        .map(|name| named(name).map(Barrier::tag).ok_or_else(|| format!("there is no fence {name:?}")))
        .collect::<Result<Vec<u64>, String>>()?;
    let base = empty_image(SIZE)?;
    let all = record(&script, &base, &[])?;
    let taken = record(&script, &base, &left_out)?;
    let promises = promises(&script, &base)?;

    let mut states = Vec::new();
    let mut checker = Checker::new();
    let mut more = false;
    let mut visit = |state: &CrashState<'_>| {
        if states.len() == STATES {
            more = true;
            return ControlFlow::Break(());
        }
        states.push(judge(state, &mut checker, &promises));
        ControlFlow::Continue(())
    };
    let limits = CrashLimits {
        exhaustive: 32,
        edges: 16,
        pairs: 4,
        samples: 4,
        seed: CrashLimits::default().seed ^ seed,
    };
    let pmem = |order| {
        let mut model = PmemModel::new(&base, &taken.log).order(order);
        model.limits = limits;
        model
    };
    match order {
        "lines" => pmem(PmemOrder::Lines).run(&mut visit),
        "words" => pmem(PmemOrder::Words).run(&mut visit),
        "program" => pmem(PmemOrder::Program).run(&mut visit),
        "block" => {
            let mut model = BlockModel::new(&base, &taken.log);
            model.limits = limits;
            model.run(&mut visit)
        }
        other => return Err(format!("{other:?} is no order: lines, words, program, block")),
    };
    let places = Places::of(&taken.image)?;
    let lines: Vec<String> = script.lines.iter().map(|line| line.text.clone()).collect();
    Ok(Crashes {
        fences: fences(&all.log, &left_out),
        log: taken.log.iter().map(|entry| log_line(entry, &lines, &places)).collect(),
        bad: states.iter().filter(|state: &&State| state.repair == "halts").count(),
        lost: states.iter().filter(|state: &&State| !state.lost.is_empty()).count(),
        script: lines,
        results: taken.results,
        states,
        more,
    })
}

struct Taken {
    log: Vec<Logged>,
    /// All bytes of the device afterwards.
    image: Vec<u8>,
    results: Vec<String>,
}

fn named(name: &str) -> Option<Barrier> {
    Barrier::ALL.iter().copied().find(|barrier| format!("{barrier:?}") == name)
}

/// Runs the script over a recorder. Marks are twice the number of the step when it begins, and one more when it is done.
fn record(script: &Script, base: &[u8], left_out: &[u64]) -> Result<Taken, String> {
    let device = Arc::new(Recorder::new(RamDevice::from_bytes(base).map_err(|error| error.to_string())?));
    let left_out = left_out.to_vec();
    device.ignore_fence(move |fence| left_out.contains(&fence.tag));
    let ours = machines::ours();
    let ext2 = machines::open(Arc::clone(&device) as _, ours.policy)?;
    let mut player = Player::new(DaxFs::new(ext2, ours.options));
    let mut results = Vec::new();
    for (step, line) in (0_u64..).zip(&script.lines) {
        device.mark(2 * step);
        results.push(player.step(line).result);
        device.mark(2 * step + 1);
    }
    let log = device.snapshot();
    Ok(Taken { log, image: device.inner().to_vec(), results })
}

/// What fsync returned for, as a run without a crash has it.
fn promises(script: &Script, base: &[u8]) -> Result<Vec<Promise>, String> {
    let mut player = machines::ours().boot(base)?;
    let mut promises: Vec<Promise> = Vec::new();
    for (step, line) in script.lines.iter().enumerate() {
        // Whoever names a file, or a directory above it, may change it.
        let named = paths(&line.op);
        for promise in promises.iter_mut().filter(|promise| promise.until == usize::MAX) {
            let touched =
                |path: &&str| promise.path == *path || promise.path.starts_with(&format!("{path}/"));
            if named.iter().any(touched)
                && !matches!(line.op, Op::Fsync { .. } | Op::Read { .. } | Op::Stat { .. })
            {
                promise.until = step;
            }
        }
        let outcome = player.step(line);
        if let (Op::Fsync { path }, "ok") = (&line.op, outcome.result.as_str())
            && let Some((size, crc)) = contents(player.fs().ext2(), path)
        {
            promises.push(Promise { path: path.clone(), from: step, until: usize::MAX, size, crc });
        }
    }
    Ok(promises)
}

/// Size and checksum of a file.
fn contents(fs: &Ext2, path: &str) -> Option<(u64, u32)> {
    let inode = fs.resolve(format!("/{path}").as_bytes(), Follow::No).ok()?;
    let (mut sink, mut at) = (CrcSink::default(), 0);
    let mut buf = [0; 4096];
    loop {
        match inode.read_at(at, &mut buf).ok()? {
            0 => return Some((inode.size(), sink.crc())),
            got => {
                sink.put_bytes(buf.get(..got)?);
                at += got as u64;
            }
        }
    }
}

fn fences(log: &[Logged], left_out: &[u64]) -> Vec<FenceLine> {
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for entry in log {
        if let Logged::Fence(id) | Logged::Flush(id) = entry {
            *times.entry(id.tag).or_default() += 1;
        }
    }
    let line = |barrier: &Barrier| {
        let times = *times.get(&barrier.tag())?;
        let left_out = left_out.contains(&barrier.tag());
        Some(FenceLine { name: format!("{barrier:?}"), text: barrier.text(), times, left_out })
    };
    Barrier::ALL.iter().filter_map(line).collect()
}

/// What lies where, for words about stores.
struct Places {
    layout: Layout,
    blocks: Blocks,
}

impl Places {
    fn of(image: &[u8]) -> Result<Self, String> {
        let device = RamDevice::from_bytes(image).map_err(|error| error.to_string())?;
        let layout = Layout::read(&device).map_err(|error| error.to_string())?;
        Ok(Self { blocks: Blocks::of(&device, &layout), layout })
    }

    /// What lies at a byte of the device.
    fn word(&self, offset: u64) -> String {
        let Ok(geo) = self.layout.geometry() else { return String::new() };
        let block = offset / geo.block_size.bytes();
        if (1024..2048).contains(&offset) {
            return "superblock".into();
        }
        let Some((used, ino, _)) = u32::try_from(block).ok().and_then(|block| self.blocks.get(block)) else {
            return String::new();
        };
        match used {
            Use::InodeTable => {
                // One group is all that so small an image has.
                let first =
                    (0..block).rev().take_while(|block| self.is_table(*block)).last().unwrap_or(block);
                let within = offset - first * geo.block_size.bytes();
                format!("inode {}", within / u64::from(geo.inode_size) + 1)
            }
            Use::Superblock | Use::Descriptors => "group descriptor".into(),
            Use::BlockBitmap => "block bitmap".into(),
            Use::InodeBitmap => "inode bitmap".into(),
            Use::Directory => format!("directory, inode {ino}"),
            Use::Data => format!("data of inode {ino}"),
            Use::Free | Use::Nobody => "a block that is free again".into(),
            _ => format!("block {block}"),
        }
    }

    fn is_table(&self, block: u64) -> bool {
        let used = u32::try_from(block).ok().and_then(|block| self.blocks.get(block));
        used.is_some_and(|(used, ..)| used == Use::InodeTable)
    }
}

fn log_line(entry: &Logged, script: &[String], places: &Places) -> LogLine {
    let fence = |tag: u64| {
        let barrier = Barrier::ALL.iter().find(|barrier| barrier.tag() == tag);
        barrier.map_or_else(String::new, |barrier| format!("{barrier:?}"))
    };
    let (kind, offset, len, text) = match entry {
        Logged::Store { offset, data, .. } => ("store", *offset, data.len(), places.word(*offset)),
        Logged::WriteBack { offset, len } => ("write-back", *offset, *len, String::new()),
        Logged::Fence(id) => ("fence", 0, 0, fence(id.tag)),
        Logged::Flush(id) => ("flush", 0, 0, fence(id.tag)),
        Logged::Mark(mark) => {
            let line =
                usize::try_from(mark / 2).ok().and_then(|step| script.get(step)).cloned().unwrap_or_default();
            let (kind, text) = if mark % 2 == 0 { ("step", line) } else { ("done", line) };
            (kind, 0, 0, text)
        }
    };
    LogLine { kind, offset, len, text }
}

fn judge(state: &CrashState<'_>, checker: &mut Checker, promises: &[Promise]) -> State {
    let (step, done) = match state.mark {
        Some(mark) => (usize::try_from(mark / 2).unwrap_or(usize::MAX), mark % 2 == 1),
        None => (0, false),
    };
    let mut findings = Vec::new();
    // A state that cannot be read at all is told by the repair below.
    let device = RamDevice::from_bytes(state.image);
    let looked = device.as_ref().map_err(|error| error.to_string()).and_then(|device| {
        let mut note = |finding: &Finding| {
            let person = if finding.preen() == Preen::Halts { " (needs a person)" } else { "" };
            findings.push(format!("{finding}{person}"));
        };
        checker.check(device, &Options::default(), &mut note).map_err(|error| error.to_string())
    });
    findings.extend(looked.err());
    let mut judged = State {
        at: state.op,
        step,
        done,
        how: how(state.choice),
        in_flight: state.in_flight,
        findings,
        repair: "halts",
        halts: String::new(),
        asked: Vec::new(),
        lost: Vec::new(),
        tree: Vec::new(),
    };
    let device = match device {
        Ok(device) => device,
        Err(error) => return State { halts: error.to_string(), ..judged },
    };
    // OK to cast: the lab's time is a positive 32-bit one.
    match checker.mend(&device, NOW as u32, &mut |_| ()) {
        Ok(Outcome::Clean) => judged.repair = "clean",
        Ok(Outcome::Mended(_)) => judged.repair = "mended",
        Ok(Outcome::Halts(finding)) => judged.halts = finding.to_string(),
        Err(error) => judged.halts = error.to_string(),
    }
    if judged.repair == "halts" {
        match mend_all(&device) {
            Ok(lines) => judged.asked = lines,
            Err(error) => judged.halts = error,
        }
    }
    match Ext2::open(Arc::new(device), &OpenOptions::read_only()) {
        Ok(fs) => {
            judged.tree = tree(&fs);
            let due = |promise: &&Promise| {
                let returned = promise.from < step || (promise.from == step && done);
                returned && step < promise.until
            };
            for promise in promises.iter().filter(due) {
                let there = contents(&fs, &promise.path);
                if there != Some((promise.size, promise.crc)) {
                    judged.lost.push(promise.path.clone());
                }
            }
        }
        Err(error) => judged.halts = error.to_string(),
    }
    judged
}

/// Repairs as `check -y` does; what was mended.
fn mend_all(device: &RamDevice) -> Result<Vec<String>, String> {
    let changes = Changes::new(device);
    let mut lines = Vec::new();
    // OK to cast: the lab's time is a positive 32-bit one.
    let options = repair::Options { now: NOW as u32, policy: Policy::Asked, progress: &|_| () };
    let mut note = |finding: &Finding| {
        lines.push(finding.to_string());
        true
    };
    repair::repair(&changes, &options, &mut note).map_err(|error| error.to_string())?;
    changes.apply().map_err(|error| error.to_string())?;
    Ok(lines)
}

fn how(choice: Choice) -> &'static str {
    match choice {
        Choice::Exhaustive => "one of all states here",
        Choice::None => "nothing in flight arrived",
        Choice::All => "all that was in flight arrived",
        Choice::Prefix => "what came first arrived",
        Choice::Ahead => "one store alone arrived",
        Choice::Behind => "all but one store arrived",
        Choice::Pair => "two stores arrived, or all but two",
        Choice::Sample => "a random part arrived",
        _ => "",
    }
}

/// The names of the tree, with sizes.
fn tree(fs: &Ext2) -> Vec<String> {
    let Ok(root) = fs.root() else { return Vec::new() };
    let mut names: Vec<String> = ext2_image::Walk::new(&root, b"/")
        .filter_map(Result::ok)
        .filter(|found| found.depth > 0)
        .take(64)
        .map(|found| {
            let path = String::from_utf8_lossy(&found.path).into_owned();
            let (size, links) = (found.inode.size(), found.inode.attr().links);
            format!("{path} ({size} bytes, {links} link{})", if links == 1 { "" } else { "s" })
        })
        .collect();
    names.sort();
    names
}
