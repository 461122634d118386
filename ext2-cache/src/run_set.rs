//! Runs of blocks that are kept in mind.

use alloc::collections::BTreeMap;

/// Runs of blocks by their first block, none of which touches another.
#[derive(Debug, Default)]
pub struct RunSet(BTreeMap<u32, u32>);

impl RunSet {
    /// The last of the runs that has a block of `from..to`: its first block, and the one after it.
    fn touched(&self, from: u64, to: u64) -> Option<(u64, u64)> {
        let (&start, &len) = self.0.range(..u32::try_from(to).unwrap_or(u32::MAX)).next_back()?;
        let run = (u64::from(start), u64::from(start) + u64::from(len));
        (run.1 > from).then_some(run)
    }

    /// Whether one of the blocks `from..to` is there.
    #[must_use]
    pub fn touches(&self, from: u64, to: u64) -> bool {
        self.touched(from, to).is_some()
    }

    /// Adds the blocks `from..to`, of which some may be there.
    pub fn add(&mut self, mut from: u64, mut to: u64) {
        while let Some((start, end)) = self.touched(from, to) {
            self.0.remove(&(start as u32));
            (from, to) = (from.min(start), to.max(end));
        }
        // OK to cast: blocks of a device that has 32-bit numbers.
        self.0.insert(from as u32, (to - from) as u32);
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_lie_in_one_another_are_one() {
        let mut runs = RunSet::default();
        runs.add(10, 20);
        runs.add(12, 14);
        runs.add(30, 31);
        assert!(runs.touches(19, 25) && runs.touches(0, 11) && runs.touches(30, 40));
        assert!(!runs.touches(20, 30) && !runs.touches(0, 10) && !runs.touches(31, 99));
        runs.add(5, 40);
        assert_eq!(runs.0, BTreeMap::from([(5, 35)]));
        runs.clear();
        assert!(!runs.touches(0, u64::from(u32::MAX)));
    }
}
