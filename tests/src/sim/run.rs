//! One seed, from `mkfs` to `e2fsck`.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use blockdev::RamDevice;
use ext2_core::check::{Checker, Finding, Options as CheckOptions};

use super::{
    Answer, Options, Step, World,
    base::{self, BEGIN},
    choose::Chooser,
    compare::compare,
    model::{Model, Room},
};
use crate::{golden, tools};

/// One image of so many is given to e2fsck too.
const E2FSCK_EVERY: u64 = 16;
/// The whole is compared after so many steps.
const COMPARE_EVERY: usize = 50;

/// What became of a run that found nothing.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The steps, with what each gave.
    pub steps: Vec<(Step, String)>,
    /// Those that did something.
    pub done: u64,
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Of the run.
    pub options: Options,
    /// All steps up to the one that failed, with what each gave.
    pub steps: Vec<(Step, String)>,
    /// What is wrong.
    pub words: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; after {} steps", self.options, self.steps.len())?;
        if let Some((step, _)) = self.steps.last() {
            write!(f, ", the last by {step}")?;
        }
        write!(f, ": {}", self.words)
    }
}

/// Where the steps come from.
enum Source<'s> {
    Chosen(Box<Chooser>, u32),
    Given(std::slice::Iter<'s, Step>),
}

impl Source<'_> {
    fn next(&mut self, model: &Model) -> Option<Step> {
        match self {
            Self::Chosen(_, 0) => None,
            Self::Chosen(chooser, left) => {
                *left -= 1;
                Some(chooser.next(model))
            }
            Self::Given(steps) => steps.next().cloned(),
        }
    }
}

/// Runs a seed.
///
/// # Errors
/// What it found.
pub fn run(options: &Options) -> Result<Outcome, Box<Failure>> {
    let source = Source::Chosen(Box::new(Chooser::new(options, "steps")), options.steps);
    Run::go(options, source)
}

/// Runs these steps instead of those that the seed chooses.
///
/// # Errors
/// What it found.
pub fn run_steps(options: &Options, steps: &[Step]) -> Result<Outcome, Box<Failure>> {
    Run::go(options, Source::Given(steps.iter()))
}

struct Run {
    world: World,
    model: Model,
    outcome: Outcome,
}

impl Run {
    fn go(options: &Options, mut source: Source<'_>) -> Result<Outcome, Box<Failure>> {
        let image = base::image(options);
        let fail = |words: String, steps| Box::new(Failure { options: options.clone(), steps, words });
        let world = World::of_image(options, &image).map_err(|error| fail(error.to_string(), Vec::new()))?;
        let free = world.ext2().statfs().map_err(|error| fail(error.to_string(), Vec::new()))?;
        let model = Model::new(options, world.ext2().max_size(), free.files_free);
        let mut run = Self { world, model, outcome: Outcome::default() };
        // A panic is a finding like any other; what was locked by it is let go of unlocked.
        let went = catch_unwind(AssertUnwindSafe(|| {
            while let Some(step) = source.next(&run.model) {
                run.step(step)?;
            }
            run.finish(options.seed)
        }));
        match went {
            Ok(Ok(())) => Ok(run.outcome),
            Ok(Err(words)) => Err(fail(words, std::mem::take(&mut run.outcome.steps))),
            Err(panic) => {
                let steps = std::mem::take(&mut run.outcome.steps);
                // What the panic left locked is not touched again.
                std::mem::forget(run);
                Err(fail(format!("panics: {}", panic_words(&*panic)), steps))
            }
        }
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        let nr = self.outcome.steps.len();
        let now = BEGIN + 1 + nr as i64;
        self.world.clock.set(now);
        let free = self.world.ext2().statfs().map_err(|error| error.to_string())?;
        let room = Room { blocks: free.blocks_free, inodes: free.files_free };
        self.outcome.steps.push((step.clone(), "does not return".to_owned()));
        let answer = self.world.perform(&step);
        self.outcome.steps[nr].1 = answer.words();
        self.outcome.done += u64::from(answer != Answer::Nothing);
        self.model.step(&step, &answer, now, room)?;
        if nr % COMPARE_EVERY == COMPARE_EVERY - 1 {
            compare(self.world.ext2(), &self.model)?;
        }
        Ok(())
    }

    fn finish(&mut self, seed: u64) -> Result<(), String> {
        compare(self.world.ext2(), &self.model)?;
        self.world.close().map_err(|error| format!("cannot be closed: {error}"))?;
        let image = self.world.bytes();
        sound(&image)?;
        if seed.is_multiple_of(E2FSCK_EVERY) && tools::have("e2fsck") {
            e2fsck(&image)?;
        }
        self.world.mount(true).map_err(|error| format!("cannot be opened again: {error}"))?;
        compare(self.world.ext2(), &self.model).map_err(|words| format!("opened again: {words}"))
    }
}

/// Whether our own check finds nothing.
fn sound(image: &[u8]) -> Result<(), String> {
    let device = RamDevice::from_bytes(image).expect("memory");
    let mut first = None;
    let mut sink = |finding: &Finding| first = first.take().or(Some(finding.to_string()));
    match Checker::new().check(&device, &CheckOptions::default(), &mut sink) {
        Ok(summary) if summary.is_clean() => Ok(()),
        Ok(_) => Err(format!("check is not content: {first:?}")),
        Err(error) => Err(format!("check: {error}")),
    }
}

/// Whether e2fsck finds nothing.
fn e2fsck(image: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = folder.path().join("image");
    golden::write_sparse(&path, image).map_err(|error| error.to_string())?;
    tools::e2fsck_fn(&path).map_err(|said| format!("e2fsck: {said}"))
}

/// What a panic says.
fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().cloned();
    words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned())).unwrap_or_default()
}
