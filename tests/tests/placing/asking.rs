//! Placements that ask more of the free blocks than they need: each answer is compared, and what they took goes back.

use std::sync::{Arc, Mutex, PoisonError};

use e2dax_tests::Rng;
use ext2_core::placement::{FreeSpace, Placed, Placement, Request, Which};
use ext2_core::{GroupNr, Result};

use crate::rule::Rule;
use crate::watched::Watched;

/// Asks at random after each answer of the placement that is watched.
#[derive(Debug)]
pub(crate) struct Asking {
    inner: Arc<Watched>,
    rng: Mutex<Rng>,
}

impl Asking {
    pub(crate) fn new(inner: Arc<Watched>, seed: u64) -> Self {
        Self { inner, rng: Mutex::new(Rng::new(seed)) }
    }

    /// A block near the start of a unit, of a group or of what somebody keeps, or any.
    fn block(rng: &mut Rng, rule: &Rule) -> u32 {
        let any = rng.below(rule.free.len() as u64) as u32;
        let kept: Vec<u32> = rule.windows.values().flat_map(|kept| [kept.start, kept.end]).collect();
        let near = match rng.below(4) {
            0 => (any + rule.shift).next_multiple_of(rule.unit).saturating_sub(rule.shift),
            1 => any.next_multiple_of(rule.geo.blocks_per_group),
            2 if !kept.is_empty() => *rng.pick(&kept),
            _ => any,
        };
        (near + rng.below(5) as u32).saturating_sub(2)
    }

    fn ask(&self, space: &FreeSpace<'_>, request: &Request) -> Result<()> {
        let mut rule = self.inner.rule();
        if rule.is_full || rule.complaint.is_some() {
            return Ok(());
        }
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let mut complaint = None;
        for _ in 0..4 {
            let mut asked = request.clone();
            asked.goal = Self::block(&mut rng, &rule);
            let which = *rng.pick(&[Which::Free, Which::EvenReserved, Which::Broken, Which::Broken]);
            let groups = 1 + rng.below(u64::from(space.groups()) + 1) as u32;
            let expected = rule.search(&asked, groups, which);
            let taken = space.search(asked.goal, groups, which)?;
            let found = taken.as_ref().and_then(|taken| {
                let start = taken.start()?.get();
                Some(start..start + taken.len())
            });
            if found != expected {
                complaint = Some(format!(
                    "{which:?} in {groups} groups for {asked:?} found {found:?}, not {expected:?}"
                ));
            }
            drop(taken);
            let count = rng.below(700) as u32;
            let most = count.min(request.count);
            let expected = if most == 0 { None } else { rule.at(asked.goal, request.owner, most) };
            let taken = space.take_at(asked.goal, count)?;
            let found = taken.as_ref().and_then(|taken| {
                let start = taken.start()?.get();
                Some(start..start + taken.len())
            });
            if found != expected {
                complaint = Some(format!(
                    "{count} blocks at {} for {request:?}: {found:?}, not {expected:?}",
                    asked.goal
                ));
            }
        }
        let expected = rule.whole_unit(request.goal);
        let unit = space.reserve_unit()?;
        let found = unit.as_ref().map(|unit| space.start_of(unit)..space.start_of(unit) + unit.len());
        if found != expected {
            complaint = Some(format!("the unit {found:?}, not {expected:?}, for {request:?}"));
        }
        if let Some(unit) = unit {
            space.release(&unit)?;
        }
        rule.complaint = rule.complaint.take().or(complaint);
        Ok(())
    }
}

impl Placement for Asking {
    fn place<'s>(&self, space: &'s FreeSpace<'_>, request: &Request) -> Result<Option<Placed<'s>>> {
        let placed = self.inner.place(space, request)?;
        self.ask(space, request)?;
        Ok(placed)
    }

    fn small_file_bytes(&self) -> Option<u64> {
        self.inner.small_file_bytes()
    }
}

/// Keeps a block in the middle of what is free, and looks what others may take beside it.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// The block that is kept from the first answer on.
    kept: Mutex<Option<u32>>,
    complaint: Mutex<Option<String>>,
}

impl Keeping {
    pub(crate) fn check(&self) {
        if let Some(complaint) = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take() {
            panic!("{complaint}");
        }
    }

    fn complain(&self, what: String) {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }

    /// The first aligned blocks of the first group.
    fn units(space: &FreeSpace<'_>) -> Vec<u32> {
        let all = space.group_blocks(GroupNr::new(0));
        all.filter(|&block| space.is_aligned(block)).collect()
    }
}

impl Placement for Keeping {
    fn place<'s>(&self, space: &'s FreeSpace<'_>, _: &Request) -> Result<Option<Placed<'s>>> {
        let units = Self::units(space);
        let unit = space.unit();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = *kept {
            // Another's block: what lies before it can be had, and it cannot.
            for (at, expected) in [(block - 2, 1), (block - 1, 1), (block, 0), (block + 1, 1)] {
                // The request is for one block.
                let len = space.take_at(at, 4)?.map_or(0, |taken| taken.len());
                if len != expected {
                    self.complain(format!("{len} blocks at {at} beside {block}"));
                }
            }
        } else {
            // A block that is kept anywhere in a unit or before it.
            for (block, expected) in [
                (units[1] - 1, 1),
                (units[1], 2),
                (units[1] + 1, 2),
                (units[1] + unit / 2, 2),
                (units[2] - 2, 2),
                (units[2] - 1, 2),
                (units[2], 1),
                (units[2] + 1, 1),
            ] {
                let before = space.take_at(block - 1, 1)?;
                let window = match &before {
                    Some(before) => space.reserve_after(before, 1)?,
                    None => None,
                };
                drop(before);
                let Some(window) = window.filter(|window| space.start_of(window) == block) else {
                    self.complain(format!("block {block} is not kept"));
                    continue;
                };
                let mut found = Vec::new();
                // The first unit has the structures of the group.
                let whole = space.reserve_unit()?;
                found.extend(whole.as_ref().map(|whole| space.start_of(whole)));
                if found != [units[expected]] {
                    self.complain(format!("the unit at {found:?} while {block} is kept, of {units:?}"));
                }
                whole.iter().try_for_each(|whole| space.release(whole))?;
                space.release(&window)?;
            }
        }
        let window = match (*kept, space.take_at(units[3] + 100, 1)?) {
            (None, Some(before)) => space.reserve_after(&before, 1)?,
            _ => None,
        };
        let Some(taken) = space.search(units[3] + 300, 1, Which::EvenReserved)? else { return Ok(None) };
        *kept = window.as_ref().map(|window| space.start_of(window)).or(*kept);
        Ok(Some(Placed { taken, window }))
    }
}
