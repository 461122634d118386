//! Which blocks move where.

use alloc::vec::Vec;

/// A run of blocks that keeps its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) len: u32,
}

/// Runs of blocks and where they go; no block twice.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    runs: Vec<Move>,
    blocks: u64,
}

impl Moves {
    /// Adds a run, next to the last one where it goes on.
    pub(crate) fn push(&mut self, from: u32, to: u32, len: u32) {
        self.blocks += u64::from(len);
        if let Some(last) = self.runs.last_mut()
            && last.from + last.len == from
            && last.to + last.len == to
        {
            last.len += len;
            return;
        }
        self.runs.push(Move { from, to, len });
    }

    /// Puts the runs in order: [`get`](Self::get) needs it.
    pub(crate) fn sort(&mut self) {
        self.runs.sort_unstable_by_key(|run| run.from);
    }

    /// Where a block goes, if it moves.
    pub(crate) fn get(&self, block: u32) -> Option<u32> {
        let at = self.runs.partition_point(|run| run.from <= block).checked_sub(1)?;
        let run = self.runs.get(at)?;
        let within = block - run.from;
        (within < run.len).then(|| run.to + within)
    }

    /// The runs.
    pub(crate) fn runs(&self) -> &[Move] {
        &self.runs
    }

    /// How many blocks move.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_goes_where_its_run_goes() {
        let mut moves = Moves::default();
        moves.push(100, 10, 5);
        moves.push(105, 15, 1);
        moves.push(50, 200, 2);
        moves.sort();
        assert_eq!(moves.runs().len(), 2);
        assert_eq!(moves.blocks(), 8);
        assert_eq!(
            [49, 50, 51, 52, 99, 100, 105, 106].map(|block| moves.get(block)),
            [None, Some(200), Some(201), None, None, Some(10), Some(15), None]
        );
    }
}
