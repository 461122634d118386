//! One seed, from `mkfs` to `e2fsck`.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use blockdev::{BlockDevice, Faulty, RamDevice};
use ext2_image::check::{Checker, Finding, Options as CheckOptions};

use super::fenced::Fenced;
use super::{
    Actor, Answer, Mode, Operation, Options, Scene, Step, World,
    base::{self, BEGIN},
    choose::Chooser,
    compare::compare,
    crashes::{self, Crashes},
    failing,
    fsck::e2fsck,
    model::Model,
    scenes::Script,
    threads,
};
use crate::tools;

/// One image of so many is given to e2fsck too.
const E2FSCK_EVERY: u64 = 16;
/// The whole is compared after so many steps.
const COMPARE_EVERY: usize = 50;

/// Seconds after which a clock is right again.
const AFTERWARDS: i64 = 100_000;

/// What became of a run that found nothing.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The steps, with what each gave.
    pub steps: Vec<(Step, String)>,
    /// Those that did something.
    pub done: u64,
    /// States that a crash might have left, of those that were looked at.
    pub states: u64,
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Of the run.
    pub options: Options,
    /// All steps up to the one that failed, with what each gave.
    pub steps: Vec<(Step, String)>,
    /// How many of them prepared what threads then did, which are the rest.
    pub prepared: usize,
    /// What is wrong.
    pub words: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; after {} steps", self.options, self.steps.len())?;
        if let Some((step, _)) = self.steps.last().filter(|_| self.prepared == self.steps.len()) {
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
    fn is_over(&self) -> bool {
        match self {
            Self::Chosen(_, left) => *left == 0,
            Self::Given(steps) => steps.len() == 0,
        }
    }

    fn next(&mut self, model: &Model) -> Option<Step> {
        match self {
            Self::Chosen(_, 0) => None,
            Self::Chosen(chooser, left) => {
                *left -= 1;
                let last = if *left == 0 { chooser.last() } else { None };
                Some(last.unwrap_or_else(|| chooser.next(model)))
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
    let chooser = Chooser::new(options, "steps");
    let steps = (chooser.known() + options.steps).max(2);
    Run::go(options, Source::Chosen(Box::new(chooser), steps), None)
}

/// Runs these steps instead of those that the seed chooses: the first `prepared` one after another, and where the mode is
/// that of threads the rest at the same time.
///
/// # Errors
/// What it found.
pub fn run_steps(options: &Options, steps: &[Step], prepared: usize) -> Result<Outcome, Box<Failure>> {
    let (first, rest) = steps.split_at(prepared.min(steps.len()));
    let of = |actor: Actor| rest.iter().filter(|step| step.actor == actor).cloned().collect();
    let programs = (options.mode == Mode::Threads).then(|| (0..options.actors).map(of).collect());
    Run::go(options, Source::Given(first.iter()), programs)
}

/// The step that is being done, for who watches a run that does not return.
static NOW: Mutex<String> = Mutex::new(String::new());

/// The options of the run that is under way, and its last step; nothing between runs.
#[must_use]
pub(super) fn now() -> String {
    NOW.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// No run is under way.
pub(super) fn over() {
    NOW.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

struct Run {
    world: World,
    model: Model,
    outcome: Outcome,
    programs: Option<Vec<Vec<Step>>>,
    crashes: Option<Crashes>,
    faulty: Option<Arc<Faulty<Fenced>>>,
}

impl Run {
    fn go(
        options: &Options,
        mut source: Source<'_>,
        programs: Option<Vec<Vec<Step>>>,
    ) -> Result<Outcome, Box<Failure>> {
        *NOW.lock().unwrap_or_else(PoisonError::into_inner) = options.to_string();
        let image = base::image(options);
        let fail = |words: String, steps: Vec<_>, prepared| {
            Box::new(Failure { options: options.clone(), prepared, steps, words })
        };
        let early = |error: ext2_core::Error| fail(error.to_string(), Vec::new(), 0);
        let recorder = (options.mode == Mode::Crash).then(|| crashes::recorder(options, &image));
        let faulty = (options.mode == Mode::Failing).then(|| failing::device(options, &image));
        let world = match (&recorder, &faulty) {
            (Some(recorder), _) => World::new(options, crashes::shared(recorder)),
            (_, Some(faulty)) => World::new(options, faulty.clone()),
            _ => World::of_image(options, &image),
        };
        let world = world.map_err(early)?;
        let free = world.ext2().statfs().map_err(early)?;
        let model = Model::new(options, world.ext2().max_size(), free.files_free);
        let crashes =
            match recorder.map(|recorder| Crashes::new(options, &world, recorder, &image)).transpose() {
                Ok(crashes) => crashes,
                Err(words) => return Err(fail(words, Vec::new(), 0)),
            };
        let mut run = Self { world, model, outcome: Outcome::default(), programs, crashes, faulty };
        let mut prepared = 0;
        // A panic is a finding like any other; what was locked by it is let go of unlocked.
        let went = catch_unwind(AssertUnwindSafe(|| {
            while let Some(step) = source.next(&run.model) {
                match &run.faulty {
                    Some(_) if source.is_over() => return run.fail(options, step),
                    _ => run.step(options, step)?,
                }
            }
            if options.forgets && run.programs.is_none() {
                for actor in 0..options.actors {
                    run.step(options, Step { actor, operation: Operation::Exit })?;
                    run.step(options, Step { actor, operation: Operation::Root { to: 0 } })?;
                }
            }
            if options.scene == Some(Scene::SyncedTogether) && run.programs.is_none() {
                // Who has nothing in hand would look for something.
                for actor in 1..options.actors {
                    run.step(options, Step { actor, operation: Operation::Root { to: 0 } })?;
                }
            }
            if options.scene.is_some_and(Scene::is_shared) && run.programs.is_none() {
                for (actor, operation) in (1..options.actors).flat_map(|actor| {
                    Script::others_hold(options.scene).into_iter().map(move |own| (actor, own))
                }) {
                    run.step(options, Step { actor, operation })?;
                }
            }
            if options.mode == Mode::Threads && run.programs.is_none() {
                // A lease is its thread's.
                for (actor, lease) in (0..options.actors).flat_map(|actor| [0, 1].map(|lease| (actor, lease)))
                {
                    run.step(options, Step { actor, operation: Operation::EndLease { lease } })?;
                }
            }
            prepared = run.outcome.steps.len();
            if options.mode == Mode::Threads {
                return run.threads(options);
            }
            if let Some(crashes) = run.crashes.take() {
                run.outcome.states = crashes.judge(options)?;
            }
            run.finish(options)
        }));
        let words = match went {
            Ok(Ok(())) => return Ok(run.outcome),
            Ok(Err(words)) => words,
            Err(panic) => format!("panics: {}", panic_words(&*panic)),
        };
        let steps = std::mem::take(&mut run.outcome.steps);
        // What a panic or a thread that is stuck left locked is not touched again.
        std::mem::forget(run);
        let prepared = if prepared == 0 { steps.len() } else { prepared };
        Err(fail(words, steps, prepared))
    }

    /// Threads go on from here, each with a program.
    fn threads(&mut self, options: &Options) -> Result<(), String> {
        if options.scene == Some(Scene::OneProcess) {
            self.model.become_one_process();
            self.world.become_one_process();
        }
        let programs = self.programs.take().unwrap_or_else(|| threads::programs(options, &self.model));
        let now = options.begin + 1 + self.outcome.steps.len() as i64;
        let steps = programs.iter().flatten().cloned();
        self.outcome.steps.extend(steps.map(|step| (step, "at the same time".to_owned())));
        threads::run(options, &mut self.world, &self.model, &programs, now)?;
        self.outcome.done += 1;
        self.world.are_mappings_counted()?;
        self.world.close_together()?;
        sound(&self.world.bytes())?;
        self.set_right(options)
    }

    fn step(&mut self, options: &Options, step: Step) -> Result<(), String> {
        let nr = self.outcome.steps.len();
        let now = options.begin + 1 + nr as i64;
        self.world.clock.set(now);
        let room = self.world.room()?;
        if let Ok(mut now) = NOW.lock() {
            let end = now.find("; step").unwrap_or(now.len());
            now.truncate(end);
            now.push_str(&format!("; step {nr} by {step}"));
        }
        self.outcome.steps.push((step.clone(), "does not return".to_owned()));
        let file = crashes::file_of(&step, &self.model);
        if let Some(crashes) = &mut self.crashes {
            crashes.before(&step, &self.model, room);
        }
        let answer = self.world.perform(&step);
        self.outcome.steps[nr].1 = answer.words();
        if let Some(crashes) = &mut self.crashes {
            crashes.after(&step, &answer, file, &self.world)?;
        }
        self.outcome.done += u64::from(answer != Answer::Nothing);
        if options.reserved {
            let left = self.world.ext2().statfs().map_err(|error| error.to_string())?.blocks_free;
            if left < u64::from(self.world.ext2().superblock().reserved_blocks) {
                return Err(format!(
                    "{left} blocks are left: some that are reserved for root were given away"
                ));
            }
        }
        self.model.step(&step, &answer, now, room)?;
        if matches!(step.operation, Operation::Kill { .. }) {
            self.model.adopt_times(self.world.ext2())?;
            compare(self.world.ext2(), &self.model)?;
        }
        if nr % COMPARE_EVERY == COMPARE_EVERY - 1 {
            compare(self.world.ext2(), &self.model)?;
        }
        Ok(())
    }

    /// The last step, in which the device fails.
    fn fail(&mut self, options: &Options, step: Step) -> Result<(), String> {
        let Some(faulty) = self.faulty.clone() else { return Ok(()) };
        self.world.clock.set(options.begin + 1 + self.outcome.steps.len() as i64);
        let before: Vec<Step> = self.outcome.steps.iter().map(|(step, _)| step.clone()).collect();
        self.outcome.steps.push((step.clone(), "the device fails".to_owned()));
        self.outcome.done += 1;
        failing::run(options, &mut self.world, &faulty, &self.model, &before, &step)
    }

    fn finish(&mut self, options: &Options) -> Result<(), String> {
        compare(self.world.ext2(), &self.model)?;
        self.world.are_mappings_counted()?;
        if !self.model.is_read_only() && self.world.opens_twice() {
            return Err("it was opened for writing twice".to_owned());
        }
        self.world.close_together()?;
        let image = self.world.bytes();
        sound(&image)?;
        if options.seed.is_multiple_of(E2FSCK_EVERY) && tools::have("e2fsck") {
            e2fsck(&image)?;
        }
        self.world.mount(true).map_err(|error| format!("cannot be opened again: {error}"))?;
        compare(self.world.ext2(), &self.model).map_err(|words| format!("opened again: {words}"))?;
        self.set_right(options)
    }

    /// Where the clock was wrong it is set right, and the file system opened and closed once more: dates of the superblock
    /// that are early keep e2fsck, and our check, from doubting others.
    fn set_right(&mut self, options: &Options) -> Result<(), String> {
        if options.begin == BEGIN {
            return Ok(());
        }
        let told = |error: ext2_core::Error| format!("once the clock is right: {error}");
        if self.world.fs.is_some() {
            self.world.close().map_err(told)?;
        }
        self.world.clock.set(BEGIN + AFTERWARDS);
        self.world.mount(false).map_err(told)?;
        self.world.close().map_err(told)?;
        let image = self.world.bytes();
        sound(&image)?;
        if tools::have("e2fsck") { e2fsck(&image) } else { Ok(()) }
    }
}

/// Whether our own check finds nothing.
pub(super) fn sound(image: &[u8]) -> Result<(), String> {
    sound_by(&mut Checker::new(), &RamDevice::from_bytes(image).expect("memory"))
}

/// The same by a checker that has its memory already.
pub(super) fn sound_by(checker: &mut Checker, device: &dyn BlockDevice) -> Result<(), String> {
    let mut first = None;
    let mut sink = |finding: &Finding| first = first.take().or(Some(finding.to_string()));
    match checker.check(device, &CheckOptions::default(), &mut sink) {
        Ok(summary) if summary.is_clean() => Ok(()),
        Ok(_) => Err(format!("check is not content: {first:?}")),
        Err(error) => Err(format!("check: {error}")),
    }
}

/// What a panic says.
pub(super) fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().cloned();
    words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned())).unwrap_or_default()
}
