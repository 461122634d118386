//! Where blocks go, said once more, block by block, from nothing but bitmaps and maps of files: after Linux's `ext2_find_goal`,
//! `ext2_new_blocks` and `alloc_new_reservation` for [`Policy::Goal`], after the module heads for [`Policy::Aligned`].

use std::collections::BTreeMap;
use std::ops::Range;

use ext2_core::placement::{FreeSpace, Request, Role, Which};
use ext2_core::{Geometry, GroupNr, InodeNr, Policy};

/// What is known of one file.
#[derive(Debug, Default)]
pub(crate) struct File {
    /// Its blocks: where each lies on the device.
    pub(crate) map: BTreeMap<u64, u32>,
    /// The last block given, since somebody holds the file: in the file, and on the device.
    pub(crate) last: Option<(u64, u32)>,
    /// Where the write that is under way ends.
    pub(crate) write_end: u64,
}

impl File {
    /// The block before `start`: what it is in the file, and where it lies, or would if it were not a hole.
    fn left(&self, start: u64) -> Option<(u64, u32)> {
        let left = start.checked_sub(1)?;
        let last = self.last.filter(|last| last.0 == left);
        last.or_else(|| self.map.get(&left).map(|&block| (left, block)))
    }
}

/// What is free, what is kept for whom, and where the blocks of files lie.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) policy: Policy,
    pub(crate) geo: Geometry,
    /// Blocks of 2 MiB.
    pub(crate) unit: u32,
    /// Blocks by which the device's first lies past an aligned place.
    pub(crate) shift: u32,
    /// Whether each block of the device is free.
    pub(crate) free: Vec<bool>,
    pub(crate) windows: BTreeMap<InodeNr, Range<u32>>,
    pub(crate) files: BTreeMap<InodeNr, File>,
    /// The first answer that was another than expected.
    pub(crate) complaint: Option<String>,
    /// The disk ran full: what was given back is not known.
    pub(crate) is_full: bool,
    pub(crate) counts: Counts,
}

/// What came up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Answers that were compared.
    pub(crate) answers: usize,
    /// Moves of what a small file had to a unit of its own.
    pub(crate) moves: usize,
    /// Answers from what was kept for another.
    pub(crate) from_others: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.answers += other.answers;
        self.moves += other.moves;
        self.from_others += other.from_others;
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}

/// An answer: blocks, and what is kept from then on.
pub(crate) type Answer = Option<(Range<u32>, Option<Range<u32>>)>;

impl Rule {
    fn group(&self, nr: u32) -> Range<u32> {
        let start = self.geo.group_start(GroupNr::new(nr));
        start..start + self.geo.group_len(GroupNr::new(nr))
    }

    fn groups(&self) -> u32 {
        self.geo.group_numbers().len() as u32
    }

    fn is_free(&self, block: u32) -> bool {
        self.free.get(block as usize).copied().unwrap_or(false)
    }

    /// The whole aligned unit around a block, in the block's group.
    fn unit_of(&self, block: u32) -> Option<Range<u32>> {
        let start = block.checked_sub((block + self.shift) % self.unit)?;
        let group = self.geo.group_of_block(block)?.0;
        let group = self.group(group.get());
        (start >= group.start && start + self.unit <= group.end).then(|| start..start + self.unit)
    }

    fn is_all_free(&self, blocks: &Range<u32>) -> bool {
        blocks.clone().all(|block| self.is_free(block))
    }

    fn may_take(&self, block: u32, which: Which, owner: Option<InodeNr>) -> bool {
        let is_kept = || self.windows.iter().any(|(who, kept)| Some(*who) != owner && kept.contains(&block));
        self.is_free(block) && (which == Which::EvenReserved || !is_kept())
    }

    /// The first blocks in `blocks` that may be taken, at most `count`.
    fn first_run(
        &self,
        blocks: Range<u32>,
        which: Which,
        owner: Option<InodeNr>,
        count: u32,
    ) -> Option<Range<u32>> {
        let mut at = blocks.start;
        while at < blocks.end {
            if !self.may_take(at, which, owner) {
                at += 1;
                continue;
            }
            let unit = self.unit_of(at);
            match &unit {
                Some(unit) if which == Which::Broken && self.is_all_free(unit) => {
                    at = unit.end;
                    continue;
                }
                _ => {}
            }
            // What is left of a unit is not left for what is whole.
            let part = |block: u32| (block + self.shift) / self.unit;
            let stays = |block: u32| which != Which::Broken || part(block) == part(at);
            let ends = (at + 1..blocks.end.min(at + count))
                .find(|&block| !self.may_take(block, which, owner) || !stays(block));
            return Some(at..ends.unwrap_or(blocks.end.min(at + count)));
        }
        None
    }

    pub(crate) fn search(&self, request: &Request, groups: u32, which: Which) -> Option<Range<u32>> {
        // Metadata does not go into what is kept for the file's data.
        let owner = matches!(request.role, Role::Data { .. }).then_some(request.owner);
        let goal = self.geo.group_of_block(request.goal);
        let first = goal.map_or(request.home, |(group, _)| group).get();
        let all = self.groups();
        let home = self.group(first);
        let from = goal.map_or(home.start, |_| request.goal);
        let others = (1..all).map(|step| self.group((first + step) % all));
        let tries = std::iter::once(from..home.end).chain(others).take(groups as usize);
        tries.chain([home]).find_map(|blocks| self.first_run(blocks, which, owner, request.count))
    }

    pub(crate) fn at(&self, block: u32, owner: InodeNr, count: u32) -> Option<Range<u32>> {
        let group = self.geo.group_of_block(block)?.0;
        let end = self.group(group.get()).end.min(block + count);
        let run = self.first_run(block..end, Which::Free, Some(owner), count)?;
        (run.start == block).then_some(run)
    }

    /// The first whole aligned unit after the goal that is free and kept for nobody.
    pub(crate) fn whole_unit(&self, goal: u32) -> Option<Range<u32>> {
        let (home, from) = self.geo.group_of_block(goal).map_or((0, 0), |(group, _)| (group.get(), goal));
        let all = self.groups();
        let others = (1..all).map(|step| self.group((home + step) % all));
        let mut tries = std::iter::once(from..self.group(home).end).chain(others).chain([self.group(home)]);
        let is_kept = |unit: &Range<u32>| {
            self.windows.values().any(|kept| kept.start < unit.end && unit.start < kept.end)
        };
        tries.find_map(|blocks| {
            let first = (blocks.start + self.shift).next_multiple_of(self.unit) - self.shift;
            (first..blocks.end)
                .step_by(self.unit as usize)
                .map(|start| start..start + self.unit)
                .find(|unit| unit.end <= blocks.end && self.is_all_free(unit) && !is_kept(unit))
        })
    }

    /// What a request is answered with.
    fn expected(&self, request: &Request) -> Answer {
        match self.policy {
            Policy::Goal => self.expected_by_goal(request),
            Policy::Aligned => self.expected_aligned(request),
        }
    }

    fn expected_by_goal(&self, request: &Request) -> Answer {
        let all = self.groups();
        let found = self
            .search(request, all, Which::Free)
            .or_else(|| self.search(request, all, Which::EvenReserved))?;
        let kept = self.windows.get(&request.owner);
        if request.role == Role::Meta {
            return Some((found, request.window.as_ref().and(kept.cloned())));
        }
        let len = match kept {
            Some(kept) if kept.contains(&found.start) => (2 * kept.len() as u32).clamp(8, 1027),
            _ => 8,
        };
        let group = self.geo.group_of_block(found.start).expect("a group").0;
        let end = self.group(group.get()).end.min(found.end + len);
        // Only what follows at once.
        let ends = (found.end..end).find(|&block| !self.may_take(block, Which::Free, Some(request.owner)));
        let window = found.end..ends.unwrap_or(end);
        Some((found, (!window.is_empty()).then_some(window)))
    }

    fn expected_aligned(&self, request: &Request) -> Answer {
        let all = self.groups();
        let kept = request.window.as_ref().and_then(|_| self.windows.get(&request.owner)).cloned();
        let mut wishes = &[(Which::Broken, 8), (Which::Free, all), (Which::EvenReserved, all)][..];
        if let Role::Data { logical, big, unit_base } = request.role {
            let within = (logical % u64::from(self.unit)) as u32;
            let count = request.count.min(self.unit - within);
            if let Some(base) = unit_base {
                if let Some(run) = self.at(base + within, request.owner, count) {
                    return Some((run, kept));
                }
            } else if big && let Some(unit) = self.whole_unit(request.goal) {
                return Some((unit.start + within..unit.start + within + count, Some(unit)));
            }
            if big {
                wishes = &wishes[1..];
            }
        }
        let found = wishes.iter().find_map(|&(which, groups)| self.search(request, groups, which))?;
        Some((found, kept))
    }

    /// Where the unit of 2 MiB around block `start` of a file begins on the device, if a neighbour in it lies there.
    fn base(&self, file: &File, start: u64) -> Option<u32> {
        let unit = u64::from(self.unit);
        let first = start - start % unit;
        let by = |(logical, block): (u64, u32)| {
            let base = block.checked_sub((logical - first) as u32)?;
            (base > 0 && (base + self.shift).is_multiple_of(self.unit)).then_some(base)
        };
        let known = |(&logical, &block): (&u64, &u32)| (logical, block);
        let left = file.left(start).filter(|left| left.0 >= first);
        let before = file.map.range(first..start).next().map(known);
        let after = file.map.range(start..first + unit).next().map(known);
        [left, before, after].into_iter().flatten().find_map(by)
    }

    /// Looks at what is wanted and what was answered, and remembers it.
    pub(crate) fn note(&mut self, request: &Request, answer: &Answer) {
        if self.complaint.is_some() || self.is_full {
            return;
        }
        let wrong = self.wrong_request(request);
        let expected = self.expected(request);
        let got = answer.as_ref().map(|(run, kept)| {
            (run.clone(), kept.as_ref().map(|kept| (self.geo.group_of_block(kept.start), kept.len())))
        });
        let wanted = expected.as_ref().map(|(run, kept)| {
            (run.clone(), kept.as_ref().map(|kept| (self.geo.group_of_block(kept.start), kept.len())))
        });
        let same = got.as_ref().map(|got| &got.0) == wanted.as_ref().map(|wanted| &wanted.0);
        if let Some(wrong) = wrong {
            self.complaint = Some(format!("{wrong}: {request:?}"));
        } else if !same {
            self.complaint = Some(format!("{request:?} got {got:?}, not {wanted:?}"));
        }
        self.counts.answers += 1;
        let Some((run, kept)) = expected else {
            self.is_full = true;
            return;
        };
        let is_from_other = !self.may_take(run.start, Which::Free, Some(request.owner));
        self.counts.from_others += usize::from(is_from_other);
        run.clone().for_each(|block| self.free[block as usize] = false);
        // What is taken where too little is left for indirect blocks is given back by another way.
        self.is_full = self.free.iter().filter(|free| **free).count() < 4;
        match kept {
            Some(kept) => self.windows.insert(request.owner, kept),
            None if request.role != Role::Meta => self.windows.remove(&request.owner),
            None => None,
        };
        if let Role::Data { logical, .. } = request.role
            && let Some(file) = self.files.get_mut(&request.owner)
        {
            file.map.extend((logical..).zip(run.clone()));
            file.last = Some((logical + run.len() as u64 - 1, run.end - 1));
        }
    }

    /// Compares what a placement sees of the groups.
    pub(crate) fn note_space(&mut self, space: &FreeSpace<'_>) {
        let groups = space.groups();
        let all = (0..groups + 2).all(|nr| {
            let own = if nr < self.groups() { self.group(nr) } else { 0..0 };
            let seen = space.group_blocks(GroupNr::new(nr));
            (own.start, own.end) == (seen.start, seen.end)
        });
        let place = self.free.len() as u32 / 3;
        let edges = [place, place.next_multiple_of(self.unit) - self.shift, 1, self.geo.blocks_count];
        let is_aligned = |block: u32| (block + self.shift).is_multiple_of(self.unit);
        let same = edges.iter().all(|&block| {
            space.is_aligned(block) == is_aligned(block)
                && space.group_of(block) == self.geo.group_of_block(block).map(|(group, _)| group)
        });
        if !(all && same && groups == self.groups() && space.unit() == self.unit) {
            self.complaint = Some("a placement sees other groups than there are".to_owned());
        }
    }

    /// What is wrong with a request for a file's data, if anything is.
    fn wrong_request(&mut self, request: &Request) -> Option<String> {
        let home = self.geo.group_of_inode(request.owner).expect("a group").0;
        if request.home != home {
            return Some("not the group of the inode".into());
        }
        let home = self.group(home.get()).start;
        let Role::Data { logical, big, unit_base } = request.role else {
            let of_file = self.files.get(&request.owner).and_then(|file| file.last);
            let is_start = |block: u32| self.group_starts().any(|start| start == block);
            // Indirect blocks go after what they point to, all else to the start of a group.
            return match (of_file, request.count) {
                (_, count) if count != 1 => Some("more than one block for metadata".into()),
                (Some(_), _) if !self.is_start_of_last(request) => Some("not after the file's blocks".into()),
                (None, _) if !is_start(request.goal) => Some("not from the start of a group".into()),
                _ => None,
            };
        };
        let small = match self.policy {
            Policy::Aligned => (1 << 20) / self.geo.block_size.bytes(),
            Policy::Goal => u64::MAX,
        };
        self.move_small(request.owner, (logical, unit_base), small);
        let file = &self.files[&request.owner];
        let hole_end = file.map.range(logical..).next().map_or(u64::MAX, |(&at, _)| at);
        let count = file.write_end.min(hole_end) - logical;
        let free = self.free.iter().filter(|free| **free).count() as u64;
        let left = file.left(logical);
        let goal = match (left, file.last) {
            (Some((_, left)), _) => left + 1,
            (None, Some((_, last))) => last,
            (None, None) => home,
        };
        if request.goal != goal {
            return Some(format!("another goal than {goal}, after {left:?} and {:?}", file.last));
        }
        if unit_base != self.base(file, logical) {
            return Some(format!("another unit than {:?}", self.base(file, logical)));
        }
        if u64::from(request.count) != count.min(free) {
            return Some(format!("not the {count} that are missing"));
        }
        if big != (logical + count > small) {
            return Some("wrongly big or small".into());
        }
        if request.window.as_ref().map(|window| window.len())
            != self.windows.get(&request.owner).map(|kept| kept.len() as u32)
        {
            return Some(format!("another window than {:?}", self.windows.get(&request.owner)));
        }
        None
    }

    fn group_starts(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.groups()).map(|nr| self.group(nr).start)
    }

    /// Whether a request for an indirect block has its goal at the start of the run that was given last.
    fn is_start_of_last(&self, request: &Request) -> bool {
        let Some((logical, block)) = self.files.get(&request.owner).and_then(|file| file.last) else {
            return false;
        };
        let map = &self.files[&request.owner].map;
        let run = (0..).take_while(|&back| {
            logical
                .checked_sub(back)
                .and_then(|at| map.get(&at))
                .is_some_and(|&at| u64::from(at) + back == u64::from(block))
        });
        let longest = run.count() as u32;
        (block + 1 - longest..=block).contains(&request.goal)
    }

    /// A small file that grows, in front of `logical`, moves what it has of that unit to one of its own.
    fn move_small(&mut self, owner: InodeNr, (logical, unit_base): (u64, Option<u32>), small: u64) {
        let file = &self.files[&owner];
        let first = logical - logical % u64::from(self.unit);
        let moves = logical > first
            && logical - first <= small
            && file.write_end > small
            && self.base(file, logical).is_none();
        if !moves {
            return;
        }
        let home = self.geo.group_of_inode(owner).expect("a group").0;
        let goal = file.last.map_or(self.group(home.get()).start, |(_, block)| block);
        self.windows.remove(&owner);
        let unit = self.whole_unit(goal);
        let Some(file) = self.files.get_mut(&owner) else { return };
        let Some(unit) = unit else {
            file.last = None;
            return;
        };
        debug_assert!(unit_base.is_none_or(|base| base > 0));
        self.counts.moves += 1;
        for (&at, block) in file.map.range_mut(first..logical) {
            self.free[*block as usize] = true;
            *block = unit.start + (at - first) as u32;
            self.free[*block as usize] = false;
        }
        file.last = Some((logical - 1, unit.start + (logical - 1 - first) as u32));
        self.windows.insert(owner, unit);
    }
}
