//! What came out of each mutant, by its key, so that it stays when the code around it changes.

use std::{collections::HashMap, io};

use crate::{folder::Folder, record::append};

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A killer failed.
    Caught,
    /// A killer did not end.
    TimedOut,
    /// No killer comes by it.
    NotReached,
    /// Whoever comes by it computes the same.
    Same,
    /// Killers that come by it passed.
    Alive,
}

const WORDS: [(Outcome, &str); 5] = [
    (Outcome::Caught, "caught"),
    (Outcome::TimedOut, "timed-out"),
    (Outcome::NotReached, "not-reached"),
    (Outcome::Same, "same"),
    (Outcome::Alive, "alive"),
];

impl Outcome {
    /// Its word in tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        WORDS.iter().find(|(outcome, _)| *outcome == self).map_or("", |(_, word)| word)
    }

    /// Whether a killer noticed.
    #[must_use]
    pub fn is_caught(self) -> bool {
        matches!(self, Self::Caught | Self::TimedOut)
    }
}

/// All outcomes; the last one of each mutant counts.
///
/// # Errors
/// The host's.
pub fn all(folder: &Folder) -> io::Result<HashMap<String, Outcome>> {
    let row = |line: String| {
        let mut fields = line.splitn(4, '\t');
        let word = fields.next()?;
        let outcome = WORDS.iter().find(|(_, own)| *own == word)?.0;
        Some((fields.nth(2)?.to_owned(), outcome))
    };
    Ok(folder.lines("results.tsv")?.into_iter().filter_map(row).collect())
}

/// Adds one: what it was, how many killers were asked, the last of them, and the mutant.
///
/// # Errors
/// The host's.
pub fn add(folder: &Folder, outcome: Outcome, asked: usize, last: &str, key: &str) -> io::Result<()> {
    append(folder, "results.tsv", &format!("{}\t{asked}\t{last}\t{key}\n", outcome.word()))
}
