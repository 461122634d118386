//! Turns: of some threads one goes on at a time, and at each lock a seed decides which.

use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use ext2_core::sync::turn::Turns;

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
    current: usize,
    alive: Vec<bool>,
    stuck: Vec<bool>,
    /// Rounds in which nobody could go on.
    rounds: u32,
    turns: u64,
    ended: Option<&'static str>,
}

impl State {
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
    /// Turns of so many threads, of which one in `switch` is passed on.
    #[must_use]
    pub(super) fn new(mut rng: Rng, threads: usize, switch: u64) -> Arc<Self> {
        let current = rng.below(threads as u64) as usize;
        let state = State {
            rng,
            switch,
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
    pub(super) fn begin(&self) {
        self.schedule.wait_for(self.nr, self.schedule.lock());
    }

    /// Says whether what comes next must not wait.
    pub(super) fn must_not_wait(&self, nowait: bool) {
        self.nowait.store(nowait, Ordering::Relaxed);
    }

    /// Leaves.
    pub(super) fn leave(&self) {
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
            let switch = state.switch;
            if state.ended.is_none() && !state.rng.one_in(switch) {
                return;
            }
        }
        state.choose();
        self.schedule.wait_for(self.nr, state);
    }
}
