//! Turns: of some threads one goes on at a time, and at each lock a seed decides which.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use ext2_core::sync::turn::{self, Turns};

use crate::Rng;

/// Turns after which nobody believes any more that it will end.
const ENOUGH: u64 = 2_000_000;
/// Rounds in which nobody could go on.
const ROUNDS: u32 = 4;

/// The turns of some threads.
#[derive(Debug)]
pub(super) struct Schedule {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    /// One turn in so many is passed on.
    switch: u64,
    /// Or only these.
    preempted: Option<[u64; 2]>,
    current: usize,
    alive: Vec<bool>,
    stuck: Vec<bool>,
    /// Rounds in which nobody could go on.
    rounds: u32,
    turns: u64,
    ended: Option<&'static str>,
}

impl State {
    /// Whether the thread whose turn it is has to pass it on.
    fn is_passed_on(&mut self) -> bool {
        match self.preempted {
            Some(turns) => turns.contains(&self.turns),
            None => self.rng.one_in(self.switch),
        }
    }

    /// Chooses another one than the one whose turn it is, if another can go on.
    fn choose_another(&mut self) {
        let last = std::mem::replace(&mut self.stuck[self.current], true);
        let is_alone = (0..self.alive.len()).all(|nr| !self.alive[nr] || self.stuck[nr]);
        let current = self.current;
        if !is_alone {
            self.choose();
        }
        self.stuck[current] = last;
    }

    /// Chooses who goes on.
    fn choose(&mut self) {
        let of = |state: &Self, stuck: bool| -> Vec<usize> {
            (0..state.alive.len()).filter(|&nr| state.alive[nr] && (stuck || !state.stuck[nr])).collect()
        };
        let mut ready = of(self, false);
        if ready.is_empty() {
            self.rounds += 1;
            if self.rounds > ROUNDS {
                self.ended = Some("nobody can go on: a deadlock");
            }
            self.stuck.fill(false);
            ready = of(self, true);
        }
        if !ready.is_empty() {
            self.current = *self.rng.pick(&ready);
        }
    }
}

impl Schedule {
    /// Turns of so many threads, of which one in `switch` is passed on, or only one or two where that is 0.
    #[must_use]
    pub(super) fn new(mut rng: Rng, threads: usize, switch: u64) -> Arc<Self> {
        let current = rng.below(threads as u64) as usize;
        // Most races are about one of the first turns.
        let within = *rng.pick(&[12, 30, 80, 200]);
        let preempted = (switch == 0).then(|| {
            let first = 1 + rng.below(within);
            [first, if rng.one_in(2) { first } else { 1 + rng.below(within) }]
        });
        let state = State {
            rng,
            switch,
            preempted,
            current,
            alive: vec![true; threads],
            stuck: vec![false; threads],
            rounds: 0,
            turns: 0,
            ended: None,
        };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// The seat of a thread.
    #[must_use]
    pub(super) fn seat(self: &Arc<Self>, nr: usize) -> Arc<Seat> {
        Arc::new(Seat { schedule: self.clone(), nr, nowait: AtomicBool::new(false) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all have left, or nobody can go on: what is wrong then.
    ///
    /// # Errors
    /// Why it is over before all have left.
    pub(super) fn wait(&self) -> Result<(), &'static str> {
        let mut state = self.lock();
        loop {
            if let Some(words) = state.ended {
                return Err(words);
            }
            if !state.alive.contains(&true) {
                return Ok(());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the turn of a thread. One that will never come is waited for for ever: what the thread holds may not
    /// be let go of.
    fn wait_for(&self, nr: usize, mut state: MutexGuard<'_, State>) {
        self.changed.notify_all();
        while state.current != nr || state.ended.is_some() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The place of one thread among the others.
#[derive(Debug)]
pub(super) struct Seat {
    schedule: Arc<Schedule>,
    nr: usize,
    /// What it does now must not wait.
    nowait: AtomicBool,
}

impl Seat {
    /// Waits for the first turn.
    fn begin(&self) {
        self.schedule.wait_for(self.nr, self.schedule.lock());
    }

    /// Does something by turns, from the first turn of this thread until it leaves; what panics leaves, too.
    ///
    /// # Errors
    /// The panic.
    pub(super) fn during<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> std::thread::Result<T> {
        self.begin();
        let entered = turn::enter(self.clone());
        let went = catch_unwind(AssertUnwindSafe(work));
        drop(entered);
        self.leave();
        went
    }

    /// Says whether what comes next must not wait.
    pub(super) fn must_not_wait(&self, nowait: bool) {
        self.nowait.store(nowait, Ordering::Relaxed);
    }

    /// Leaves.
    fn leave(&self) {
        let mut state = self.schedule.lock();
        state.alive[self.nr] = false;
        state.stuck.fill(false);
        state.choose();
        drop(state);
        self.schedule.changed.notify_all();
    }
}

impl Turns for Seat {
    fn waits(&self) {
        if self.nowait.load(Ordering::Relaxed) {
            let mut state = self.schedule.lock();
            state.ended = Some("a call that must not wait waits for the lock of an inode");
            self.schedule.wait_for(self.nr, state);
        }
    }

    fn pass(&self, is_stuck: bool) {
        let mut state = self.schedule.lock();
        state.turns += 1;
        if state.turns > ENOUGH {
            state.ended = Some("goes on for ever");
        }
        if is_stuck {
            state.stuck[self.nr] = true;
        } else {
            state.stuck.fill(false);
            state.rounds = 0;
            if state.ended.is_none() && !state.is_passed_on() {
                return;
            }
            if state.preempted.is_some() {
                state.choose_another();
                return self.schedule.wait_for(self.nr, state);
            }
        }
        state.choose();
        self.schedule.wait_for(self.nr, state);
    }
}
