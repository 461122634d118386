//! Threads: some steps that prepare, then a short program for each actor, run at the same time under a schedule. What
//! all of them were answered, and what is there at the end, has to be what some order of the operations gives in the
//! model, in which what had returned before another began comes first (linearizability).

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use ext2_core::sync::turn;

use super::{
    Actor, Answer, Model, Operation, Options, Scene, Step, Word, World, choose::Chooser, compare::compare,
    model::Room, operation::LEASES, perform::Doer, run::panic_words, scenes::Script, schedule::Schedule,
};
use crate::Rng;

/// Orders that are tried before the search is given up.
const ORDERS: u64 = 200_000;
/// Bytes of a page, within which a store is one.
const PAGE: u64 = 4096;

/// An operation of a thread.
#[derive(Clone, Debug)]
struct Event {
    step: Step,
    answer: Answer,
    /// Numbers of the moments when it began and had returned.
    begin: u64,
    end: u64,
}

/// The programs of the actors.
pub(super) fn programs(options: &Options, model: &Model) -> Vec<Vec<Step>> {
    let mut chooser = Chooser::new(options, "programs");
    let mut lengths = Rng::named(options.seed, "lengths");
    let longest = if options.scene.is_some_and(|scene| scene != Scene::SyncedTogether) { 2 } else { 4 };
    // What one thread takes in hand the others do not have.
    let is_process = options.scene == Some(Scene::OneProcess);
    let is_of = |word| options.shares.iter().any(|(own, _)| *own == word);
    let program = |actor: Actor| {
        // Most of those that sync together begin with it.
        let first = match options.scene {
            Some(Scene::SyncedTogether) => Script::synced_first(actor, &mut lengths).into_iter().collect(),
            Some(Scene::FirstOpened) => Script::opened_first(actor, &mut lengths, options),
            Some(Scene::SeenHole) => Script::filled_first(actor, &mut lengths),
            Some(Scene::Growing) => Script::grown_first(actor, &mut lengths),
            Some(Scene::WalkedMoves) => Script::moved_first(actor, &mut lengths),
            Some(Scene::OneFile) => Script::changed_first(actor, &mut lengths),
            _ => Vec::new(),
        };
        let first = first.into_iter().map(move |operation| Step { actor, operation });
        // Who opens a file goes on with it when all are through.
        let least = u64::from(options.scene != Some(Scene::FirstOpened));
        let own = (0..least + lengths.below(longest))
            .map(|_| chooser.next_of(actor, model))
            .filter(|step| !is_process || is_of(step.operation.word()))
            .map(|step| Step { operation: in_one_piece(step.operation), ..step });
        // What was stored is seen by each at its end.
        let page = Operation::Load { map: 0, at: 0, len: PAGE as u32 };
        let seen = (is_process && options.block >= PAGE).then_some(Step { actor, operation: page });
        // Who waits for a lease waits for its holder.
        let leases = (0..LEASES).map(|lease| Step { actor, operation: Operation::EndLease { lease } });
        first.chain(own).chain(seen).chain(leases).collect()
    };
    (0..options.actors).map(program).collect()
}

/// An operation that is done at once, or not: a store of many pages is not.
fn in_one_piece(operation: Operation) -> Operation {
    use Operation as O;
    let place = |at: u64| at / PAGE * PAGE + (at % PAGE).min(PAGE - 100);
    let short = |mut data: super::Data| {
        data.len = data.len.min(100);
        data
    };
    match operation {
        O::Write { of, at, data } => O::Write { of, at: place(at), data: short(data) },
        O::FileWrite { file, at, data, nowait } => {
            O::FileWrite { file, at: place(at), data: short(data), nowait }
        }
        O::Store { map, at, data } => O::Store { map, at: place(at), data: short(data) },
        O::Load { map, at, len } => O::Load { map, at: place(at), len: len.min(100) },
        other => other,
    }
}

/// Whether it is a call that must not wait for anybody.
fn must_not_wait(operation: &Operation) -> bool {
    matches!(operation, Operation::FileRead { nowait: true, .. } | Operation::FileWrite { nowait: true, .. })
}

/// Runs programs at the same time, and looks for an order.
///
/// # Errors
/// With the history, what is wrong.
pub(super) fn run(
    options: &Options,
    world: &mut World,
    model: &Model,
    programs: &[Vec<Step>],
    now: i64,
) -> Result<(), String> {
    world.clock.set(now);
    let room = Room { blocks: u64::MAX, inodes: u64::MAX };
    if let Some(memory) = &world.unwritten {
        let inodes: Vec<_> = world.actors.iter().flat_map(|held| held.files.iter().flatten()).collect();
        let inodes: Vec<_> = inodes.into_iter().map(|(file, _)| file.inode().clone()).collect();
        memory.watch(&inodes, world.ext2()).map_err(|error| error.to_string())?;
    }
    let schedule = Schedule::new(Rng::named(options.schedule, "turns"), programs.len(), options.switch);
    let moment = Arc::new(AtomicU64::new(0));
    let histories: Arc<Mutex<Vec<Vec<Event>>>> = Arc::new(Mutex::new(vec![Vec::new(); programs.len()]));
    let panics: Arc<Mutex<Option<String>>> = Arc::new(Mutex::new(None));
    let early: Arc<Mutex<Option<String>>> = Arc::new(Mutex::new(None));
    let mut threads = Vec::new();
    for (nr, (program, mut held)) in programs.iter().zip(std::mem::take(&mut world.actors)).enumerate() {
        let (program, fs, device) = (program.clone(), world.fs().clone(), world.device.clone());
        let unwritten = world.unwritten.clone();
        let (seat, moment, histories, panics, early) =
            (schedule.seat(nr), moment.clone(), histories.clone(), panics.clone(), early.clone());
        threads.push(std::thread::spawn(move || {
            let went = seat.during(|| {
                for step in program {
                    let begin = moment.fetch_add(1, Ordering::Relaxed);
                    turn::pass();
                    let stores = unwritten.as_ref().map_or(0, |memory| memory.stores());
                    seat.must_not_wait(must_not_wait(&step.operation));
                    let answer = Doer { fs: &fs, device: &device, held: &mut held }.perform(&step);
                    seat.must_not_wait(false);
                    // All that was stored before it began: no other file is stored to.
                    let is_sync = matches!(step.operation.word(), Word::SyncAll | Word::FileSync);
                    if let Some(memory) = unwritten.as_ref().filter(|_| is_sync && answer.is_done())
                        && let Some(byte) = memory.of_first(stores)
                    {
                        let words =
                            format!("{step} returned, and byte {byte} of the device is not written back");
                        early.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(words);
                    }
                    let end = moment.fetch_add(1, Ordering::Relaxed);
                    let event = Event { step, answer, begin, end };
                    histories.lock().unwrap_or_else(PoisonError::into_inner)[nr].push(event);
                }
            });
            if let Err(panic) = went {
                let words = format!("panics: {}", panic_words(&*panic));
                panics.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(words);
            }
            held
        }));
    }
    let ended = schedule.wait();
    let mut histories = histories.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let panic = panics.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Err(words) = ended {
        return Err(format!("{words}\n{}", story(&histories)));
    }
    if let Some(words) = panic {
        return Err(format!("{words}\n{}", story(&histories)));
    }
    if let Some(words) = early.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(format!("{words}\n{}", story(&histories)));
    }
    for thread in threads {
        world.actors.push(thread.join().map_err(|_| "a thread was lost".to_owned())?);
    }
    if options.scene == Some(Scene::FirstOpened) {
        look_afterwards(world, &mut histories, &moment);
    }
    let mut search =
        Search { histories: &histories, world, now, room, tried: 0, best: (0, "no order".to_owned()) };
    if search.go(&mut vec![0; histories.len()], &model.with_threads()) || search.tried > ORDERS {
        return Ok(());
    }
    let (_, words) = search.best;
    Err(format!("no order gives these answers: {words}\n{}", story(&histories)))
}

/// Actors do one after another what [`Script::opened_last`] says, when all threads are through.
fn look_afterwards(world: &mut World, histories: &mut [Vec<Event>], moment: &AtomicU64) {
    for (nr, history) in histories.iter_mut().enumerate() {
        for operation in Script::opened_last() {
            // OK to cast: there are three at most.
            let step = Step { actor: nr as Actor, operation };
            let begin = moment.fetch_add(1, Ordering::Relaxed);
            let answer = world.perform(&step);
            let end = moment.fetch_add(1, Ordering::Relaxed);
            history.push(Event { step, answer, begin, end });
        }
    }
}

/// The search for an order.
struct Search<'s> {
    histories: &'s [Vec<Event>],
    world: &'s World,
    now: i64,
    room: Room,
    tried: u64,
    /// How far the best order went, and what was wrong then.
    best: (usize, String),
}

impl Search<'_> {
    fn go(&mut self, at: &mut Vec<usize>, model: &Model) -> bool {
        self.tried += 1;
        let done: usize = at.iter().sum();
        if at.iter().zip(self.histories).all(|(at, history)| *at == history.len()) {
            return match compare(self.world.ext2(), model) {
                Ok(()) => true,
                Err(words) => {
                    self.best = (done, words);
                    false
                }
            };
        }
        // What had returned before another began comes before it.
        let first_end =
            at.iter().zip(self.histories).filter_map(|(at, history)| history.get(*at)).map(|e| e.end);
        let first_end = first_end.min().unwrap_or(u64::MAX);
        for nr in 0..at.len() {
            let Some(event) = self.histories[nr].get(at[nr]).filter(|event| event.begin < first_end) else {
                continue;
            };
            let mut next = model.clone();
            match next.step(&event.step, &event.answer, self.now, self.room) {
                Ok(()) => {
                    at[nr] += 1;
                    if self.go(at, &next) || self.tried > ORDERS {
                        return true;
                    }
                    at[nr] -= 1;
                }
                Err(words) if done >= self.best.0 => self.best = (done, format!("{}: {words}", event.step)),
                Err(_) => {}
            }
        }
        false
    }
}

/// What happened, in the order in which it began.
fn story(histories: &[Vec<Event>]) -> String {
    let mut all: Vec<&Event> = histories.iter().flatten().collect();
    all.sort_by_key(|event| event.begin);
    let line = |event: &&Event| {
        format!("  {}..{} {} -> {}", event.begin, event.end, event.step, event.answer.words())
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}
