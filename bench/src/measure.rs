//! Interleaved rounds and their medians.
//!
//! Contestants take turns, round by round, so that what slows the machine for a second slows them all; of
//! each the median round counts.

use std::time::{Duration, Instant};

/// Someone who does the work of a round: the time that counts, since preparation does not.
pub struct Contestant<'a> {
    /// Who.
    pub name: &'static str,
    run: Box<dyn FnMut() -> Duration + 'a>,
}

impl std::fmt::Debug for Contestant<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contestant").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Contestant<'a> {
    /// One whose whole call counts.
    pub fn new(name: &'static str, mut run: impl FnMut() + 'a) -> Self {
        Self::timed(name, move || time(&mut run))
    }

    /// One that says itself what counts of its call.
    pub fn timed(name: &'static str, run: impl FnMut() -> Duration + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// How long a call takes.
pub fn time(run: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    run();
    begin.elapsed()
}

/// The median time of each contestant over `rounds` interleaved rounds, after one that does not count where
/// there are several.
pub fn medians(rounds: usize, contestants: &mut [Contestant<'_>]) -> Vec<(&'static str, Duration)> {
    let mut times = vec![Vec::new(); contestants.len()];
    let warm_up = usize::from(rounds > 1);
    for round in 0..rounds + warm_up {
        for (contestant, times) in contestants.iter_mut().zip(&mut times) {
            let took = (contestant.run)();
            if round >= warm_up {
                times.push(took);
            }
        }
    }
    contestants
        .iter()
        .zip(times)
        .map(|(contestant, mut times)| {
            times.sort_unstable();
            (contestant.name, times[times.len() / 2])
        })
        .collect()
}
