//! Runs the killers against each mutant, until one fails.
//!
//! Asked are those that come by the mutant and for which it makes a difference, first what has caught most in the least time
//! so far.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    folder::Folder,
    outcome::{self, Outcome},
    process::{self, End},
    record::Known,
    site::Mutant,
};

/// What a hunt is done with.
#[derive(Debug)]
pub struct Hunt<'a> {
    /// Where the results go.
    pub folder: &'a Folder,
    /// The killers.
    pub killers: &'a [Known],
    /// The time that one mutant may take altogether.
    pub budget: Duration,
}

/// How often the killers of a kind ran against mutants of a module, and how often they caught.
type Tally = Mutex<HashMap<(String, &'static str), (u32, u32)>>;

/// A test, or all seeds of a mode of the simulator.
fn kind(name: &str) -> &str {
    if name.starts_with("sim ") { name.rsplit_once(' ').map_or(name, |(mode, _)| mode) } else { name }
}

impl Hunt<'_> {
    /// Hunts all of `mutants` by so many threads.
    ///
    /// # Errors
    /// The host's.
    pub fn all(&self, mutants: &[&Mutant], workers: usize) -> io::Result<()> {
        let next = AtomicUsize::new(0);
        let tally = Mutex::new(HashMap::new());
        let worker = |worker: usize| -> io::Result<()> {
            let temporary = self.folder.join(&format!("tmp-{worker}"));
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(mutant) = mutants.get(at) else { return Ok(()) };
                let (outcome, asked, last) = self.one(mutant, &tally, &temporary)?;
                outcome::add(self.folder, outcome, asked, &last, &mutant.key)?;
                if !outcome.is_caught() || at % 100 == 99 {
                    println!(
                        "{}/{} {}: line {}: {}",
                        at + 1,
                        mutants.len(),
                        outcome.word(),
                        mutant.line,
                        mutant.key
                    );
                }
            }
        };
        std::thread::scope(|scope| {
            let worker = &worker;
            let threads: Vec<_> = (0..workers).map(|nr| scope.spawn(move || worker(nr))).collect();
            let ends = threads.into_iter().map(|thread| thread.join());
            ends.collect::<Vec<_>>()
                .into_iter()
                .try_for_each(|end| end.unwrap_or_else(|_| Err(io::Error::other("a worker panicked"))))
        })
    }

    fn one(&self, mutant: &Mutant, tally: &Tally, temporary: &Path) -> io::Result<(Outcome, usize, String)> {
        let order = self.order(mutant, tally);
        if order.is_empty() {
            let reached = self.killers.iter().any(|known| known.reached.contains(&mutant.id));
            return Ok((if reached { Outcome::Same } else { Outcome::NotReached }, 0, String::new()));
        }
        let mut left = self.budget;
        for (asked, index) in order.iter().enumerate() {
            let known = &self.killers[*index];
            let number = mutant.id.to_string();
            let (end, took) = process::run(&known.killer, ("E2DAX_MUTANT", &number), known.time, temporary)?;
            {
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                let own = tally.entry((kind(&known.killer.name).to_owned(), mutant.module)).or_insert((0, 0));
                own.0 += 1;
                own.1 += u32::from(end != End::Passed);
            }
            let outcome = match end {
                End::Passed => {
                    left = left.saturating_sub(took);
                    if left.is_zero() {
                        return Ok((Outcome::Alive, asked + 1, String::new()));
                    }
                    continue;
                }
                End::Failed => Outcome::Caught,
                End::TimedOut => Outcome::TimedOut,
            };
            return Ok((outcome, asked + 1, known.killer.name.clone()));
        }
        Ok((Outcome::Alive, order.len(), String::new()))
    }

    /// The killers for which a mutant makes a difference, the one first that most likely catches it soonest.
    fn order(&self, mutant: &Mutant, tally: &Tally) -> Vec<usize> {
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<(f64, usize)> = Vec::new();
        for (index, known) in self.killers.iter().enumerate() {
            if known.differs.contains(&mutant.id) {
                let of = (kind(&known.killer.name).to_owned(), mutant.module);
                let (runs, caught) = tally.get(&of).copied().unwrap_or_default();
                let chance = (f64::from(caught) + 1.0) / (f64::from(runs) + 2.0);
                // Who comes by few mutants is about them.
                let breadth = (known.differs.len() as f64).sqrt();
                order.push((known.time.as_secs_f64().max(0.02) * breadth / chance, index));
            }
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        order.into_iter().map(|(_, index)| index).collect()
    }
}
