//! Small scopes: every sequence of up to so many letters of an alphabet, on a file system of few blocks, where the other
//! runs take samples of long ones.
//!
//! A letter is one operation, or a few that belong together. Each sequence is done anew, on a device of its own, so that
//! what is in memory is what these steps left there. Its last letter is held against the model; what led to it was, when it
//! was the last. What changed nothing is not gone on from: what was refused, but for want of room.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use blockdev::{
    RamDevice, Recorder,
    crash::{CrashLimits, CrashReport},
};
use ext2_core::Errno;
use ext2_image::check::Checker;

use super::{
    Answer, Mode, Operation, Options, Step, World,
    base::{self, BEGIN},
    compare::compare,
    crashes::{self, Crashes, Look},
    fsck::e2fsck,
    model::{Model, Room},
    run::{panic_words, sound_by},
};

/// How many states of a crash point are looked at: most have no more.
const LIMITS: CrashLimits = CrashLimits { exhaustive: 256, edges: 32, pairs: 16, samples: 16, seed: 1 };

/// A letter of the alphabet.
#[derive(Clone, Debug)]
pub struct Letter {
    /// What it is called.
    pub name: &'static str,
    /// What is done, one after another.
    pub operations: Vec<Operation>,
}

/// All sequences of an alphabet up to a length.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The file system, and whether power fails.
    pub options: Options,
    /// What is done before it is closed and taken as the base of each sequence.
    pub prepared: Vec<Operation>,
    /// What each sequence begins with.
    pub begin: Vec<Operation>,
    /// The alphabet.
    pub letters: Vec<Letter>,
    /// Letters of the longest sequence.
    pub depth: usize,
    /// One image of so many is given to e2fsck; 0 for none.
    pub e2fsck_every: u64,
}

/// What a walk did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walked {
    /// Sequences.
    pub sequences: u64,
    /// Those of the full length.
    pub longest: u64,
    /// Those whose last letter was refused, and that were not gone on from.
    pub refused: u64,
    /// Those whose last letter found too little room.
    pub full: u64,
    /// Images that were given to e2fsck.
    pub e2fsck: u64,
    /// Moments at which power failed.
    pub points: u64,
    /// Those of which all states were looked at.
    pub whole_points: u64,
    /// States that a crash might have left.
    pub states: u64,
}

impl fmt::Display for Walked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequences, longest, refused, full, e2fsck, points, whole_points, states } = self;
        write!(
            f,
            "{sequences} sequences, {longest} of them of full length, {refused} ended by a refusal, {full} for want of room; \
             {e2fsck} images by e2fsck"
        )?;
        if *points > 0 {
            write!(f, "; {states} states at {points} moments, all states of {whole_points}")?;
        }
        Ok(())
    }
}

/// A step that was taken: what it gave, and the model and what was free before it.
#[derive(Clone, Debug)]
struct Taken {
    step: Step,
    answer: Answer,
    before: Model,
    room: Room,
}

impl Scope {
    /// Does all of them.
    ///
    /// # Errors
    /// The first that fails: its letters, its steps, and what is wrong.
    pub fn walk(&self) -> Result<Walked, String> {
        let options = &self.options;
        let (image, model) = self.base()?;
        let mut walk = Walk {
            scope: self,
            image,
            done: 1 + self.prepared.len() as i64,
            checker: Checker::new(),
            walked: Walked::default(),
            letters: Vec::new(),
            path: Vec::new(),
        };
        let begun = walk.sequence(&self.begin, &model);
        let (model, taken) = begun.map_err(|words| format!("{options}: the beginning: {words}"))?;
        let gone_wrong = taken.iter().find(|taken| !taken.answer.is_done());
        if let Some(Taken { step, answer, .. }) = gone_wrong {
            return Err(format!("{options}: the beginning: {step} gives {}", answer.words()));
        }
        walk.path = taken;
        walk.walked = Walked::default();
        walk.visit(&model).map_err(|words| format!("{options}: {}: {words}", walk.letters.join(", ")))?;
        Ok(walk.walked)
    }

    /// The image that each sequence begins with, and the model of it.
    fn base(&self) -> Result<(Vec<u8>, Model), String> {
        let options = &self.options;
        let device = Arc::new(RamDevice::from_bytes(&base::image(options)).expect("memory"));
        let mut world = World::new(options, device.clone()).map_err(|error| error.to_string())?;
        let files_free = world.ext2().statfs().map_err(|error| error.to_string())?.files_free;
        let mut model = Model::new(options, world.ext2().max_size(), files_free);
        for (operation, now) in self.prepared.iter().zip(BEGIN + 1..) {
            let step = Step { actor: 0, operation: operation.clone() };
            let answer = take(&mut world, &mut model, &step, now)?;
            if !answer.is_done() {
                return Err(format!("prepared: {step} gives {}", answer.words()));
            }
        }
        world.close().map_err(|error| error.to_string())?;
        let remounted = Step { actor: 0, operation: Operation::Remount { read_only: false } };
        model.step(&remounted, &Answer::Done, BEGIN, Room { blocks: 0, inodes: 0 })?;
        Ok((device.to_vec(), model))
    }
}

/// Does a step and holds the answer against the model.
fn take(world: &mut World, model: &mut Model, step: &Step, now: i64) -> Result<Answer, String> {
    let room = world.room()?;
    world.clock.set(now);
    let answer = world.perform(step);
    model.step(step, &answer, now, room)?;
    Ok(answer)
}

struct Walk<'s> {
    scope: &'s Scope,
    image: Vec<u8>,
    /// Steps before those of the path, in seconds.
    done: i64,
    checker: Checker,
    walked: Walked,
    letters: Vec<&'static str>,
    path: Vec<Taken>,
}

/// A file system that is being used, and what is recorded of it.
struct Running {
    world: World,
    recorder: Option<(Arc<Recorder<RamDevice>>, Crashes)>,
}

impl Running {
    /// Does a step; the model is the one before it, and the room.
    fn perform(&mut self, step: &Step, model: &Model, room: Room, now: i64) -> Result<Answer, String> {
        self.world.clock.set(now);
        let Some((_, crashes)) = &mut self.recorder else { return Ok(self.world.perform(step)) };
        let file = crashes::file_of(step, model);
        crashes.before(step, model, room);
        let answer = self.world.perform(step);
        crashes.after(step, &answer, file, &self.world)?;
        Ok(answer)
    }
}

impl Walk<'_> {
    /// All sequences that go on from the path, which led to this model.
    fn visit(&mut self, model: &Model) -> Result<(), String> {
        let scope = self.scope;
        for letter in &scope.letters {
            self.letters.push(letter.name);
            let (next, taken) = self.sequence(&letter.operations, model)?;
            if let Some(goes_on) = self.count(&taken)
                && goes_on
                && self.letters.len() < scope.depth
            {
                let before = self.path.len();
                self.path.extend(taken);
                self.visit(&next)?;
                self.path.truncate(before);
            }
            self.letters.pop();
        }
        Ok(())
    }

    /// Counts a sequence by its last letter: whether it is gone on from, or nothing where it was none, as there was
    /// nothing that the letter could be done with.
    fn count(&mut self, taken: &[Taken]) -> Option<bool> {
        let is_full = |answer: &Answer| matches!(answer, Answer::Refused(errno) if errno.is(Errno::NOSPC));
        if taken.iter().all(|taken| taken.answer == Answer::Nothing) {
            return None;
        }
        let full = taken.iter().any(|taken| is_full(&taken.answer));
        let did = taken.iter().any(|taken| {
            taken.answer.is_done() || matches!(taken.answer, Answer::Died(_) | Answer::StoreDied(..))
        });
        self.walked.sequences += 1;
        self.walked.longest += u64::from(self.letters.len() == self.scope.depth);
        self.walked.full += u64::from(full);
        self.walked.refused += u64::from(!did && !full);
        Some(did || full)
    }

    /// The path, and then these operations, and what is there in the end. Gives the model, and the steps.
    fn sequence(&mut self, last: &[Operation], model: &Model) -> Result<(Model, Vec<Taken>), String> {
        let mut taken = Vec::new();
        // A panic is a finding like any other.
        let went = catch_unwind(AssertUnwindSafe(|| self.attempt(last, model, &mut taken)));
        went.unwrap_or_else(|panic| Err(format!("panics: {}", panic_words(&*panic))))
            .map(|model| (model, taken.clone()))
            .map_err(|words| {
                let steps = self.path.iter().chain(&taken);
                let steps = steps.map(|taken| format!("\n  {}: {}", taken.step, taken.answer.words()));
                format!("{words}{}", steps.collect::<String>())
            })
    }

    fn attempt(
        &mut self,
        last: &[Operation],
        model: &Model,
        taken: &mut Vec<Taken>,
    ) -> Result<Model, String> {
        let mut running = self.begin()?;
        let times = BEGIN + 1 + self.done..;
        for (known, now) in self.path.iter().zip(times) {
            let answer = running.perform(&known.step, &known.before, known.room, now)?;
            if answer != known.answer {
                return Err(format!(
                    "{} gave {} before, now {}",
                    known.step,
                    known.answer.words(),
                    answer.words()
                ));
            }
        }
        let mut model = model.clone();
        for (operation, now) in last.iter().zip(BEGIN + 1 + self.done + self.path.len() as i64..) {
            let step = Step { actor: 0, operation: operation.clone() };
            let room = running.world.room()?;
            taken.push(Taken { step: step.clone(), answer: Answer::Nothing, before: model.clone(), room });
            let answer = running.perform(&step, &model, room, now)?;
            if let Some(taken) = taken.last_mut() {
                taken.answer = answer.clone();
            }
            model.step(&step, &answer, now, room)?;
        }
        if taken.iter().all(|taken| taken.answer == Answer::Nothing) {
            return Ok(model);
        }
        match running.recorder.take() {
            Some((_, crashes)) => self.crash(crashes)?,
            None => self.finish(&mut running.world, &model)?,
        }
        Ok(model)
    }

    fn begin(&self) -> Result<Running, String> {
        let options = &self.scope.options;
        let words = |error: ext2_core::Error| error.to_string();
        if options.mode == Mode::Crash {
            let recorder = crashes::recorder(options, &self.image);
            let world = World::new(options, crashes::shared(&recorder)).map_err(words)?;
            let crashes = Crashes::new(options, &world, recorder.clone(), &self.image)?;
            return Ok(Running { world, recorder: Some((recorder, crashes)) });
        }
        let device = Arc::new(RamDevice::from_bytes(&self.image).expect("memory"));
        let world = World::new(options, device).map_err(words)?;
        Ok(Running { world, recorder: None })
    }

    /// The states that a crash may leave in the last letter, and after it.
    fn crash(&mut self, crashes: Crashes) -> Result<(), String> {
        let skip_marks = if self.path.is_empty() { 0 } else { 2 * self.path.len() + 1 };
        let look = Look { limits: LIMITS, skip_marks, seen: self.walked.states, most: u64::MAX };
        let (states, report) = crashes.judge_by(&self.scope.options, look)?;
        let CrashReport { points, exhaustive_points, .. } = report;
        self.walked.states = states;
        self.walked.points += points;
        self.walked.whole_points += exhaustive_points;
        Ok(())
    }

    /// The whole against the model, and the image against both checks; then the whole again, opened anew.
    fn finish(&mut self, world: &mut World, model: &Model) -> Result<(), String> {
        compare(world.ext2(), model)?;
        world.close().map_err(|error| format!("cannot be closed: {error}"))?;
        sound_by(&mut self.checker, &*world.device)?;
        let every = self.scope.e2fsck_every;
        if every > 0 && self.walked.sequences.is_multiple_of(every) {
            self.walked.e2fsck += 1;
            e2fsck(&world.bytes())?;
        }
        world.mount(true).map_err(|error| format!("cannot be opened again: {error}"))?;
        compare(world.ext2(), model).map_err(|words| format!("opened again: {words}"))
    }
}
