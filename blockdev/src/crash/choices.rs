//! Which states of a crash point are visited, and in which order.
//!
//! Each function leaves the cells as it likes; the caller puts them back.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::cells::Cells;
use super::{Choice, CrashLimits};

/// What is called for each state: the cells show it.
pub(super) type Show<'s> = &'s mut dyn FnMut(&mut Cells, Choice) -> ControlFlow<()>;

/// A small generator of random numbers (splitmix64).
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        // OK to cast: the product's high half is below `bound`.
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

/// Visits the states of the cells in flight, all of them or a choice. Tells whether it was all.
pub(super) fn visit(
    cells: &mut Cells,
    limits: &CrashLimits,
    random: &mut Random,
    show: Show<'_>,
) -> ControlFlow<(), bool> {
    let lens = cells.in_flight().iter().map(|cell| cell.len() as u64 + 1);
    let all = lens.fold(1_u64, u64::saturating_mul) <= limits.exhaustive.max(1);
    if all {
        exhaustive(cells, show)?;
    } else {
        prefixes(cells, limits.edges, show)?;
        single_cells(cells, limits.edges, show)?;
        single_stores(cells, limits.edges, show)?;
        pairs(cells, limits.pairs, random, show)?;
        samples(cells, limits.samples, random, show)?;
    }
    ControlFlow::Continue(all)
}

/// Every combination, each reached from the one before by a step of one unit in one cell (a reflected Gray
/// code of mixed radix).
fn exhaustive(cells: &mut Cells, show: Show<'_>) -> ControlFlow<()> {
    let count = cells.in_flight().len();
    let mut chosen = alloc::vec![0_usize; count];
    let mut upwards = alloc::vec![true; count];
    show(cells, Choice::Exhaustive)?;
    loop {
        let mut number = 0;
        loop {
            if number == count {
                return ControlFlow::Continue(());
            }
            let top = cells.in_flight()[number].len();
            if upwards[number] && chosen[number] < top {
                chosen[number] += 1;
                break;
            }
            if !upwards[number] && chosen[number] > 0 {
                chosen[number] -= 1;
                break;
            }
            upwards[number] = !upwards[number];
            number += 1;
        }
        cells.choose(number, chosen[number]);
        show(cells, Choice::Exhaustive)?;
    }
}

/// At most about `most` of `count` numbers, evenly spread.
fn spread(count: usize, most: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(count.div_ceil(most.max(1)).max(1))
}

/// Nothing, all, and what came first in program order.
fn prefixes(cells: &mut Cells, most: usize, show: Show<'_>) -> ControlFlow<()> {
    show(cells, Choice::None)?;
    let mut units = Vec::new();
    for (number, cell) in cells.in_flight().iter().enumerate() {
        units.extend(cell.ops().enumerate().map(|(unit, op)| (op, number, unit + 1)));
    }
    units.sort_unstable();
    let step = units.len().div_ceil(most.max(1)).max(1);
    for (at, &(op, number, count)) in units.iter().enumerate() {
        cells.choose(number, count);
        let ends_store = units.get(at + 1).is_none_or(|&(next, ..)| next != op);
        if (ends_store || at % step == 0) && at + 1 < units.len() {
            show(cells, Choice::Prefix)?;
        }
    }
    show(cells, Choice::All)
}

/// One cell ahead of all others, at each of its lengths, and one behind.
fn single_cells(cells: &mut Cells, most: usize, show: Show<'_>) -> ControlFlow<()> {
    let count = cells.in_flight().len();
    for (choice, ahead) in [(Choice::Ahead, true), (Choice::Behind, false)] {
        cells.choose_all(|cell| if ahead { 0 } else { cell.len() });
        for number in spread(count, most) {
            let len = cells.in_flight()[number].len();
            // The ends of a long list, where torn stores show, say as much as its middle.
            for chosen in (0..=len).filter(|chosen| len <= 16 || *chosen <= 8 || len - chosen <= 8) {
                if chosen != if ahead { 0 } else { len } {
                    cells.choose(number, chosen);
                    show(cells, choice)?;
                }
            }
            cells.choose(number, if ahead { 0 } else { len });
        }
    }
    ControlFlow::Continue(())
}

/// One store of the log arrived whole and alone (but for what its cells had before it), or alone did not.
fn single_stores(cells: &mut Cells, most: usize, show: Show<'_>) -> ControlFlow<()> {
    // For each store the cells it has units in, with the number of units before its first and up to its last.
    let mut stores = BTreeMap::<usize, BTreeMap<usize, (usize, usize)>>::new();
    for (number, cell) in cells.in_flight().iter().enumerate() {
        for (unit, op) in cell.ops().enumerate() {
            let (_, last) = stores.entry(op).or_default().entry(number).or_insert((unit, unit));
            *last = unit + 1;
        }
    }
    let picked = spread(stores.len(), most).collect::<alloc::collections::BTreeSet<_>>();
    for (choice, ahead) in [(Choice::Ahead, true), (Choice::Behind, false)] {
        cells.choose_all(|cell| if ahead { 0 } else { cell.len() });
        for (_, parts) in stores.values().enumerate().filter(|(at, _)| picked.contains(at)) {
            for (&number, &(first, last)) in parts {
                cells.choose(number, if ahead { last } else { first });
            }
            show(cells, choice)?;
            for &number in parts.keys() {
                let len = cells.in_flight()[number].len();
                cells.choose(number, if ahead { 0 } else { len });
            }
        }
    }
    ControlFlow::Continue(())
}

/// Two cells ahead of all others, and two behind.
fn pairs(cells: &mut Cells, most: usize, random: &mut Random, show: Show<'_>) -> ControlFlow<()> {
    let count = cells.in_flight().len();
    if count < 2 {
        return ControlFlow::Continue(());
    }
    let mut picked = Vec::new();
    if count * (count - 1) / 2 <= most {
        picked.extend((1..count).flat_map(|b| (0..b).map(move |a| (a, b))));
    } else {
        for _ in 0..most {
            let a = random.below(count);
            let b = (a + 1 + random.below(count - 1)) % count;
            picked.push((a, b));
        }
    }
    for ahead in [true, false] {
        cells.choose_all(|cell| if ahead { 0 } else { cell.len() });
        for &(a, b) in &picked {
            for number in [a, b] {
                let len = cells.in_flight()[number].len();
                cells.choose(number, if ahead { len } else { 0 });
            }
            show(cells, Choice::Pair)?;
            for number in [a, b] {
                let len = cells.in_flight()[number].len();
                cells.choose(number, if ahead { 0 } else { len });
            }
        }
    }
    ControlFlow::Continue(())
}

/// Random lengths: each sample has its own bias towards nothing, something or all.
fn samples(cells: &mut Cells, most: usize, random: &mut Random, show: Show<'_>) -> ControlFlow<()> {
    for _ in 0..most {
        let (bias, torn) = (1 + random.below(15), 1 + random.below(8));
        cells.choose_all(|cell| {
            if random.below(torn) == 0 {
                random.below(cell.len() + 1)
            } else if random.below(16) < bias {
                cell.len()
            } else {
                0
            }
        });
        show(cells, Choice::Sample)?;
    }
    ControlFlow::Continue(())
}
