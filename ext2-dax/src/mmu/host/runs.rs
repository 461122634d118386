//! What each page of a mapping is, in runs.

use std::collections::BTreeMap;

/// What pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: an access faults, or, where nobody answers, reads what was there.
    Missing,
    /// Zeros, as the file has a hole.
    Zeros,
    /// The file's, the first being this page of the device.
    File(u64),
    /// The same, for loads alone, where nobody answers faults: not all who map the file were told of the blocks.
    Shown(u64),
    /// Private copies.
    Copy,
    /// No page of the file: a bus error.
    End,
}

impl Kind {
    fn shifted(self, pages: u64) -> Self {
        match self {
            Self::File(first) => Self::File(first + pages),
            Self::Shown(first) => Self::Shown(first + pages),
            other => other,
        }
    }
}

/// Pages that are alike: from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) kind: Kind,
}

impl Run {
    /// The part in `start..end`.
    pub(super) fn cut(self, start: u64, end: u64) -> Self {
        let first = self.start.max(start);
        Self { start: first, end: self.end.min(end), kind: self.kind.shifted(first - self.start) }
    }
}

/// The runs of a mapping, which lie one after the other without a gap; neighbours differ.
#[derive(Debug)]
pub(super) struct Runs(BTreeMap<u64, (u64, Kind)>);

impl Runs {
    pub(super) fn new(start: u64, end: u64, kind: Kind) -> Self {
        Self(BTreeMap::from([(start, (end, kind))]))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The run that holds `page`.
    pub(super) fn at(&self, page: u64) -> Option<Run> {
        let (&start, &(end, kind)) = self.0.range(..=page).next_back()?;
        (page < end).then_some(Run { start, end, kind })
    }

    /// The kind of `page`.
    pub(super) fn kind(&self, page: u64) -> Option<Kind> {
        self.at(page).map(|run| run.kind.shifted(page - run.start))
    }

    /// The runs in `start..end`, cut to it.
    pub(super) fn within(&self, start: u64, end: u64) -> Vec<Run> {
        if start >= end {
            return Vec::new();
        }
        let first = self.at(start).map_or(start, |run| run.start);
        let runs = self.0.range(first..end).map(|(&start, &(end, kind))| Run { start, end, kind });
        runs.map(|run| run.cut(start, end)).filter(|run| run.start < run.end).collect()
    }

    /// Makes `start..end`, which lies in the mapping, this.
    pub(super) fn set(&mut self, start: u64, end: u64, kind: Kind) {
        if let Some(run) = self.at(start).filter(|run| run.start < start) {
            self.0.insert(run.start, (start, run.kind));
            if run.end > end {
                self.0.insert(end, (run.end, run.kind.shifted(end - run.start)));
            }
        }
        if let Some(run) = self.at(end.saturating_sub(1)).filter(|run| run.start >= start && run.end > end) {
            self.0.insert(end, (run.end, run.kind.shifted(end - run.start)));
        }
        let covered: Vec<u64> = self.0.range(start..end).map(|(at, _)| *at).collect();
        for at in covered {
            self.0.remove(&at);
        }
        let (mut start, mut end, mut kind) = (start, end, kind);
        if let Some(before) = start.checked_sub(1).and_then(|page| self.at(page))
            && before.kind.shifted(start - before.start) == kind
        {
            (start, kind) = (before.start, before.kind);
        }
        if let Some(after) =
            self.at(end).filter(|after| after.start == end && kind.shifted(end - start) == after.kind)
        {
            self.0.remove(&after.start);
            end = after.end;
        }
        self.0.insert(start, (end, kind));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(runs: &Runs) -> Vec<(u64, u64, Kind)> {
        runs.within(0, 1000).into_iter().map(|run| (run.start, run.end, run.kind)).collect()
    }

    #[test]
    fn contiguous_pages_are_one_run_and_are_cut_at_the_right_page() {
        let mut runs = Runs::new(0, 100, Kind::Missing);
        runs.set(10, 20, Kind::File(500));
        runs.set(20, 30, Kind::File(510));
        assert_eq!(
            list(&runs),
            [(0, 10, Kind::Missing), (10, 30, Kind::File(500)), (30, 100, Kind::Missing)]
        );
        runs.set(15, 16, Kind::Zeros);
        assert_eq!(runs.kind(16), Some(Kind::File(506)));
        assert_eq!(runs.at(12).map(|run| run.end), Some(15));
        runs.set(15, 16, Kind::File(505));
        assert_eq!(runs.len(), 3);
        runs.set(0, 100, Kind::End);
        assert_eq!(list(&runs), [(0, 100, Kind::End)]);
    }

    #[test]
    fn every_way_to_set_agrees_with_a_list_of_pages() {
        let kinds = [Kind::Missing, Kind::Zeros, Kind::File(0), Kind::End];
        let mut model = [Kind::Missing; 24];
        let mut runs = Runs::new(0, 24, Kind::Missing);
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (a, b) = ((state >> 20) % 25, (state >> 40) % 25);
            let (start, end) = (a.min(b), a.max(b));
            if start == end {
                continue;
            }
            let kind = match kinds[(state >> 60) as usize % kinds.len()] {
                // Contiguous with what other steps place, as often as not.
                Kind::File(_) => Kind::File(start + 100 * (state >> 50 & 1)),
                kind => kind,
            };
            runs.set(start, end, kind);
            for page in start..end {
                model[page as usize] = kind.shifted(page - start);
            }
            for (page, kind) in (0..).zip(model) {
                assert_eq!(runs.kind(page), Some(kind));
            }
            let all = runs.within(0, 24);
            let ends: Vec<u64> = all.iter().map(|run| run.end).collect();
            assert!(all.iter().skip(1).map(|run| run.start).eq(ends.iter().copied().take(all.len() - 1)));
            let alike = |pair: &[Run]| pair[0].kind.shifted(pair[0].end - pair[0].start) == pair[1].kind;
            assert!(!all.windows(2).any(alike), "{all:?}");
        }
    }
}
