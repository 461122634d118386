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

/// What the kernel makes one mapping (VMA) of, where it follows on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joins {
    /// Pages that were placed alike.
    Alike,
    /// The same, and pages of 2 MiB were asked for. Of a run, all or nothing was.
    Huge,
    /// Nothing: who touched them before they were moved here has made them a mapping of their own.
    Never,
}

/// Pages that are alike: from `start` to before `end`. It is one mapping of the kernel at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) kind: Kind,
    pub(super) joins: Joins,
}

impl Run {
    /// The part in `start..end`.
    pub(super) fn cut(self, start: u64, end: u64) -> Self {
        let first = self.start.max(start);
        Self { start: first, end: self.end.min(end), kind: self.kind.shifted(first - self.start), ..self }
    }

    /// Whether `next`, which begins where this ends, is more of the same.
    fn goes_on(&self, next: &Self) -> bool {
        let joins = self.joins != Joins::Never && next.joins != Joins::Never;
        joins && self.kind.shifted(self.end - self.start) == next.kind
    }
}

/// The runs of a mapping, which lie one after the other without a gap. Neighbours differ, or never join.
#[derive(Debug)]
pub(super) struct Runs(BTreeMap<u64, Run>);

impl Runs {
    pub(super) fn new(start: u64, end: u64, kind: Kind) -> Self {
        Self(BTreeMap::from([(start, Run { start, end, kind, joins: Joins::Alike })]))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The run that holds `page`.
    pub(super) fn at(&self, page: u64) -> Option<Run> {
        let (_, run) = self.0.range(..=page).next_back()?;
        (page < run.end).then_some(*run)
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
        let runs = self.0.range(first..end).map(|(_, run)| run.cut(start, end));
        runs.filter(|run| run.start < run.end).collect()
    }

    /// The run that `run` becomes a part of when it is [set](Self::set).
    pub(super) fn joined(&self, run: Run) -> Run {
        let mut whole = run;
        if let Some(before) = run.start.checked_sub(1).and_then(|page| self.at(page)) {
            // What ends further on is cut where this begins.
            let before = before.cut(before.start, run.start);
            if before.goes_on(&run) {
                let joins = if before.joins == Joins::Huge { Joins::Huge } else { whole.joins };
                whole = Run { end: whole.end, joins, ..before };
            }
        }
        if let Some(after) = self.at(run.end) {
            let after = after.cut(run.end, after.end);
            if run.goes_on(&after) {
                let joins = if after.joins == Joins::Huge { Joins::Huge } else { whole.joins };
                whole = Run { end: after.end, joins, ..whole };
            }
        }
        whole
    }

    /// Makes the pages of `run`, which lie in the mapping, this.
    pub(super) fn set(&mut self, run: Run) {
        let whole = self.joined(run);
        for edge in [whole.start, whole.end] {
            if let Some(cut) = self.at(edge).filter(|cut| cut.start < edge) {
                self.0.insert(cut.start, cut.cut(cut.start, edge));
                self.0.insert(edge, cut.cut(edge, cut.end));
            }
        }
        let covered: Vec<u64> = self.0.range(whole.start..whole.end).map(|(at, _)| *at).collect();
        for at in covered {
            self.0.remove(&at);
        }
        self.0.insert(whole.start, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(runs: &mut Runs, start: u64, end: u64, kind: Kind) {
        runs.set(Run { start, end, kind, joins: Joins::Alike });
    }

    fn list(runs: &Runs) -> Vec<(u64, u64, Kind)> {
        runs.within(0, 1000).into_iter().map(|run| (run.start, run.end, run.kind)).collect()
    }

    #[test]
    fn contiguous_pages_are_one_run_and_are_cut_at_the_right_page() {
        let mut runs = Runs::new(0, 100, Kind::Missing);
        set(&mut runs, 10, 20, Kind::File(500));
        set(&mut runs, 20, 30, Kind::File(510));
        assert_eq!(
            list(&runs),
            [(0, 10, Kind::Missing), (10, 30, Kind::File(500)), (30, 100, Kind::Missing)]
        );
        set(&mut runs, 15, 16, Kind::Zeros);
        assert_eq!(runs.kind(16), Some(Kind::File(506)));
        assert_eq!(runs.at(12).map(|run| run.end), Some(15));
        set(&mut runs, 15, 16, Kind::File(505));
        assert_eq!(runs.len(), 3);
        set(&mut runs, 0, 100, Kind::End);
        assert_eq!(list(&runs), [(0, 100, Kind::End)]);
    }

    #[test]
    fn what_never_joins_is_a_run_of_its_own_and_a_huge_neighbour_makes_all_of_it_huge() {
        let mut runs = Runs::new(0, 100, Kind::Missing);
        let zeros = |start, end| Run { start, end, kind: Kind::Zeros, joins: Joins::Never };
        runs.set(zeros(10, 20));
        runs.set(zeros(20, 30));
        assert_eq!(runs.len(), 4);
        assert_eq!(runs.within(0, 25)[1..], [zeros(10, 20), zeros(20, 25)]);
        let file = |start, end, joins| Run { start, end, kind: Kind::File(start), joins };
        runs.set(file(40, 50, Joins::Huge));
        runs.set(file(51, 60, Joins::Alike));
        assert_eq!(runs.joined(file(50, 51, Joins::Alike)), file(40, 60, Joins::Huge));
        runs.set(file(50, 51, Joins::Huge));
        assert_eq!((runs.at(41), runs.at(59)), (runs.at(40), Some(file(40, 60, Joins::Huge))));
        // The rest of a run that was cut is still what was asked for.
        set(&mut runs, 45, 46, Kind::Missing);
        assert_eq!(runs.at(50), Some(file(46, 60, Joins::Huge)));
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
            set(&mut runs, start, end, kind);
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
