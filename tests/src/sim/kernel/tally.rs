//! Counts of what was compared.

use std::{collections::BTreeMap, fmt};

use super::{difference::Difference, left_out::LeftOut};
use crate::sim::Word;

/// What lists of operations came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Lists.
    pub lists: u64,
    /// Of those, which ended early, as the two were not brought together again after a difference.
    pub ended: u64,
    /// Operations that both did, and whose answers were compared.
    pub operations: u64,
    /// The same for each word.
    pub words: BTreeMap<Word, u64>,
    /// Whole trees that were compared.
    pub trees: u64,
    /// Differences, and how often each came up.
    pub differences: BTreeMap<Difference, u64>,
    /// Steps that were left out.
    pub left_out: BTreeMap<LeftOut, u64>,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        (self.lists, self.ended) = (self.lists + other.lists, self.ended + other.ended);
        (self.operations, self.trees) = (self.operations + other.operations, self.trees + other.trees);
        fn join<K: Ord + Copy>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            from.iter().for_each(|(key, count)| *into.entry(*key).or_default() += count);
        }
        join(&mut self.words, &other.words);
        join(&mut self.differences, &other.differences);
        join(&mut self.left_out, &other.left_out);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} lists, {} of them ended early; {} operations, {} trees",
            self.lists, self.ended, self.operations, self.trees
        )?;
        self.words.iter().try_for_each(|(word, count)| write!(f, "{word:?} {count}, "))?;
        writeln!(f)?;
        self.differences.iter().try_for_each(|(one, count)| writeln!(f, "{count:8} {one:?}"))?;
        self.left_out.iter().try_for_each(|(one, count)| writeln!(f, "{count:8} left out: {one:?}"))
    }
}
