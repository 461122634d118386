//! The table of what came out, a row for each module.

use std::collections::HashMap;

use crate::{equivalent::Equivalent, modules, outcome::Outcome, site::Mutant};

#[derive(Default)]
struct Row {
    mutants: usize,
    tried: usize,
    caught: usize,
    explained: usize,
    not_reached: usize,
    alive: usize,
}

/// The table, in Markdown.
#[must_use]
pub fn table(mutants: &[Mutant], outcomes: &HashMap<String, Outcome>, equivalent: &Equivalent) -> String {
    let mut text = "| module | mutants | tried | caught | explained | not reached | alive | score |\n|---|---|---|---|---|---|---|---|\n".to_owned();
    let mut sum = Row::default();
    for module in modules::ALL {
        let mut row = Row::default();
        for mutant in mutants.iter().filter(|mutant| mutant.module == module.name) {
            for row in [&mut row, &mut sum] {
                row.add(outcomes.get(&mutant.key).copied(), equivalent.holds(&mutant.key));
            }
        }
        text.push_str(&row.line(&format!("`{}`", module.name)));
    }
    text + &sum.line("all")
}

impl Row {
    fn add(&mut self, outcome: Option<Outcome>, explained: bool) {
        self.mutants += 1;
        let Some(outcome) = outcome else { return };
        self.tried += 1;
        match outcome {
            _ if outcome.is_caught() => self.caught += 1,
            _ if explained => self.explained += 1,
            Outcome::NotReached => self.not_reached += 1,
            _ => self.alive += 1,
        }
    }

    fn line(&self, name: &str) -> String {
        let Self { mutants, tried, caught, explained, not_reached, alive } = self;
        // OK to cast: a few thousand.
        let score = 100.0 * (caught + explained) as f64 / (*tried).max(1) as f64;
        format!(
            "| {name} | {mutants} | {tried} | {caught} | {explained} | {not_reached} | {alive} | {score:.1} % |\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::table;
    use crate::{equivalent::Equivalent, outcome::Outcome, site::Mutant};

    #[test]
    fn what_is_caught_or_explained_counts() {
        let mutants: Vec<Mutant> = ["a", "b", "c", "d", "e"]
            .map(|key| Mutant { id: 1, module: "map", key: key.to_owned(), line: 1, text: String::new() })
            .to_vec();
        let outcomes = [
            ("a", Outcome::Caught),
            ("b", Outcome::Same),
            ("c", Outcome::NotReached),
            ("d", Outcome::TimedOut),
        ];
        let outcomes = outcomes.map(|(key, outcome)| (key.to_owned(), outcome)).into_iter().collect();
        let equivalent = Equivalent::parse("b\n  It is.\n").expect("it is understood");
        assert!(
            table(&mutants, &outcomes, &equivalent).contains("| `map` | 5 | 4 | 2 | 1 | 1 | 0 | 75.0 % |")
        );
    }
}
