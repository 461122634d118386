//! Fewer steps that fail alike.

use super::{Failure, Step, run_steps};

/// Turns that are tried for each list of steps where the actors are threads: without a step they are others.
const SCHEDULES: u64 = 40;

/// Leaves out steps, ever smaller parts of them, for as long as a run without them fails with the same words.
#[must_use]
pub fn shrink(failure: &Failure) -> Failure {
    let mut best = failure.clone();
    let mut part = best.steps.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let before = best.steps.len();
        while from < best.steps.len() {
            let to = (from + part).min(best.steps.len());
            let steps = best.steps.iter().enumerate().filter(|(nr, _)| !(from..to).contains(nr));
            let steps: Vec<Step> = steps.map(|(_, (step, _))| step.clone()).collect();
            let prepared = best.prepared - best.prepared.clamp(from, to) + from;
            match again(&best, &steps, prepared) {
                Some(fewer) => best = fewer,
                None => from = to,
            }
        }
        if part == 1 && best.steps.len() == before {
            return best;
        }
        part = part.div_ceil(2).max(1);
    }
}

/// The failure of these steps, if they fail alike.
fn again(failure: &Failure, steps: &[Step], prepared: usize) -> Option<Failure> {
    let is_threads = prepared < steps.len() || failure.prepared < failure.steps.len();
    let schedules = if is_threads { SCHEDULES } else { 1 };
    (0..schedules).find_map(|more| {
        let mut options = failure.options.clone();
        options.schedule = options.schedule.wrapping_add(more);
        let found = *run_steps(&options, steps, prepared).err()?;
        (kind(&found.words) == kind(&failure.words)).then_some(found)
    })
}

/// What failures that are alike have in common: the words before the first number.
fn kind(words: &str) -> &str {
    words.split(|letter: char| letter.is_ascii_digit() || letter == ':').next().unwrap_or(words)
}
