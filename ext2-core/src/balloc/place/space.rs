//! The free blocks, as a placement sees them.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::Ordering;

use super::{Place, Request, Role};
use crate::balloc::blocks::Run;
use crate::balloc::group::{Group, Groups, Window};
use crate::error::Result;
use crate::fs::Fs;
use crate::{DeviceBlock, GroupNr, InodeNr};

/// The free blocks of a file system, for the request that is being answered: whose owner and count hold for all that is
/// taken and reserved here. Blocks are those of the device.
pub struct FreeSpace<'a> {
    fs: &'a Fs,
    groups: &'a Groups,
    place: &'a Place,
    request: &'a Request,
}

/// Which free blocks a search takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Which {
    /// Any that are not kept for another file.
    Free,
    /// Those too: the last resort.
    EvenReserved,
    /// Only those in units of 2 MiB of which a part is taken.
    Broken,
}

/// Blocks that a placement took, all of one group. They are given back when this is dropped.
#[must_use = "dropping it gives the blocks back"]
pub struct Taken<'s> {
    fs: &'s Fs,
    /// None once it is kept.
    run: Option<Run>,
}

impl Taken<'_> {
    /// The first block.
    #[must_use]
    pub fn start(&self) -> Option<DeviceBlock> {
        self.run.map(|run| run.start)
    }

    /// How many blocks.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.run.map_or(0, |run| run.len)
    }

    /// Whether there is none, which never is so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.run.is_none()
    }

    pub(super) fn keep(mut self) -> Run {
        match self.run.take() {
            Some(run) => run,
            None => unreachable!("only this takes it, and it takes all of it"),
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take()
            && let Err(error) = self.fs.release(run)
        {
            log::error!("blocks could not be given back");
            self.fs.found_broken(&error);
        }
    }
}

impl fmt::Debug for Taken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Taken").field(&self.run).finish()
    }
}

impl fmt::Debug for FreeSpace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreeSpace").field("request", self.request).finish_non_exhaustive()
    }
}

/// A search for free blocks in a group.
struct Search {
    /// Whose windows may be taken from.
    owner: Option<InodeNr>,
    /// The first bit that is looked at.
    from: u32,
    which: Which,
}

impl<'a> FreeSpace<'a> {
    pub(super) fn new(fs: &'a Fs, groups: &'a Groups, place: &'a Place, request: &'a Request) -> Self {
        Self { fs, groups, place, request }
    }

    /// Groups of the file system.
    #[must_use]
    pub fn groups(&self) -> u32 {
        self.groups.len()
    }

    /// The blocks of a group; none for a number past the last.
    #[must_use]
    pub fn group_blocks(&self, group: GroupNr) -> Range<u32> {
        if group.get() >= self.groups() {
            return 0..0;
        }
        let start = self.fs.geo.group_start(group);
        start..start.saturating_add(self.fs.geo.group_len(group))
    }

    /// The group of a block.
    #[must_use]
    pub fn group_of(&self, block: u32) -> Option<GroupNr> {
        self.fs.geo.group_of_block(block).map(|(group, _)| group)
    }

    /// How many blocks of a group are free, for now.
    #[must_use]
    pub fn free_blocks_of(&self, group: GroupNr) -> u32 {
        self.groups.free_blocks_of.get(group.get() as usize).map_or(0, |free| free.load(Ordering::Relaxed))
    }

    /// Blocks of a unit of 2 MiB.
    #[must_use]
    pub fn unit(&self) -> u32 {
        self.place.unit
    }

    /// Whether a unit that begins at this block can be mapped by a page of 2 MiB.
    #[must_use]
    pub fn is_aligned(&self, block: u32) -> bool {
        self.place.is_aligned(block)
    }

    /// Takes the first free run at or after block `from`, in its group and in the ones that follow, `groups` of them, around
    /// the end; then once more in the first of them, from its start. At most `count` blocks of the request. A search for
    /// metadata passes over the owner's window too: an indirect block in it would break the unit.
    ///
    /// # Errors
    /// The device's, the image's.
    pub fn search(&self, from: u32, groups: u32, which: Which) -> Result<Option<Taken<'_>>> {
        let (group, bit) = self.fs.geo.group_of_block(from).unwrap_or((self.request.home, 0));
        let owner = matches!(self.request.role, Role::Data { .. }).then_some(self.request.owner);
        let starts = core::iter::once(bit).chain(core::iter::repeat(0));
        for (nr, from) in self.around(group).zip(starts).take(groups as usize) {
            if let Some(taken) = self.take_in(nr, &Search { owner, from, which })? {
                return Ok(Some(taken));
            }
        }
        self.take_in(group, &Search { owner, from: 0, which })
    }

    /// Takes a run that begins exactly at a block, if that is free and not kept for another: at most `count` blocks, and
    /// no more than the request wants.
    ///
    /// # Errors
    /// The device's, the image's.
    pub fn take_at(&self, block: u32, count: u32) -> Result<Option<Taken<'_>>> {
        let Some((nr, bit)) = self.fs.geo.group_of_block(block) else { return Ok(None) };
        let owner = Some(self.request.owner);
        let mut group = self.groups.get(nr).lock();
        if count == 0
            || group.free_run(self.fs, nr, bit, 1)? == 0
            || group.window_of_other(bit, owner).is_some()
        {
            return Ok(None);
        }
        let search = Search { owner, from: bit, which: Which::Free };
        self.take_locked(nr, &mut group, &search, count.min(self.request.count))
    }

    /// Takes what is free at the start of a window or after it in its group.
    pub(super) fn take_after(&self, window: &Window) -> Result<Option<Taken<'_>>> {
        let search = Search { owner: Some(self.request.owner), from: window.bits.start, which: Which::Free };
        self.take_in(window.group, &search)
    }

    /// The block at which a window begins.
    #[must_use]
    pub fn start_of(&self, window: &Window) -> u32 {
        self.fs.geo.group_start(window.group).saturating_add(window.bits.start)
    }

    /// Keeps a whole, aligned, free unit of 2 MiB for the owner: the next one after the goal, around all groups.
    ///
    /// # Errors
    /// The device's, the image's.
    pub fn reserve_unit(&self) -> Result<Option<Window>> {
        let (place, owner) = (self.place, self.request.owner);
        let Some(frees) = place.frees_to_search().filter(|_| place.unit > 0) else { return Ok(None) };
        let (home, goal_bit) = self.fs.geo.group_of_block(self.request.goal).unwrap_or((GroupNr::new(0), 0));
        let starts = core::iter::once(goal_bit).chain(core::iter::repeat(0));
        let tries = self.around(home).zip(starts).chain(core::iter::once((home, 0)));
        for (nr, from) in tries {
            if self.free_blocks_of(nr) < place.unit {
                continue;
            }
            let (first, units) = place.units(self.fs, nr);
            let mut group = self.groups.get(nr).lock();
            let skip = from.saturating_sub(first).div_ceil(place.unit);
            for start in (skip..units).map(|unit| first + unit * place.unit) {
                if group.free_run(self.fs, nr, start, place.unit)? < place.unit {
                    continue;
                }
                let end = start + place.unit;
                let before =
                    group.windows.range(..end).next_back().is_some_and(|(_, &(past, _))| past > start);
                if !before {
                    group.windows.insert(start, (end, owner));
                    return Ok(Some(Window { group: nr, bits: start..end }));
                }
            }
        }
        place.found_none(frees);
        Ok(None)
    }

    /// Keeps the free blocks that follow blocks which were taken, at most `len`, for the owner.
    ///
    /// # Errors
    /// The device's, the image's.
    pub fn reserve_after(&self, taken: &Taken<'_>, len: u32) -> Result<Option<Window>> {
        let Some((run, (nr, bit))) =
            taken.run.and_then(|run| Some((run, self.fs.geo.group_of_block(run.block(0))?)))
        else {
            return Ok(None);
        };
        let (start, owner) = (bit + run.len, Some(self.request.owner));
        let mut group = self.groups.get(nr).lock();
        let free = group.free_run(self.fs, nr, start, len)?;
        let end = (start + free).min(group.next_window_of_other(start, owner));
        if end <= start || group.window_of_other(start, owner).is_some() {
            return Ok(None);
        }
        group.windows.insert(start, (end, self.request.owner));
        Ok(Some(Window { group: nr, bits: start..end }))
    }

    /// Gives up what was kept.
    ///
    /// # Errors
    /// `EROFS`.
    pub fn release(&self, window: &Window) -> Result<()> {
        self.fs.release_window(window)
    }

    /// All groups, from one on and around.
    fn around(&self, from: GroupNr) -> impl Iterator<Item = GroupNr> + use<> {
        let (len, from) = (self.groups.len(), from.get());
        (0..len).map(move |nr| GroupNr::new(((u64::from(from) + u64::from(nr)) % u64::from(len)) as u32))
    }

    /// Takes the first run that a search finds in a group at or after its first bit.
    fn take_in(&self, nr: GroupNr, search: &Search) -> Result<Option<Taken<'_>>> {
        if self.free_blocks_of(nr) == 0 {
            return Ok(None);
        }
        let mut group = self.groups.get(nr).lock();
        self.take_locked(nr, &mut group, search, self.request.count)
    }

    fn take_locked(
        &self,
        nr: GroupNr,
        group: &mut Group,
        search: &Search,
        count: u32,
    ) -> Result<Option<Taken<'_>>> {
        let (fs, mut from) = (self.fs, search.from);
        loop {
            let bitmap = group.blocks(fs, nr)?;
            let Some(bit) = bitmap.and_then(|bitmap| bitmap.first_free(from..u32::MAX)) else {
                return Ok(None);
            };
            let mut end = u32::MAX;
            if search.which != Which::EvenReserved {
                if let Some(past) = group.window_of_other(bit, search.owner) {
                    from = past;
                    continue;
                }
                end = group.next_window_of_other(bit, search.owner);
            }
            if search.which == Which::Broken {
                let ((first, units), unit) = (self.place.units(fs, nr), self.place.unit);
                if bit < first {
                    end = end.min(first);
                } else if bit < first + units * unit {
                    let start = bit - (bit - first) % unit;
                    if group.free_run(fs, nr, start, unit)? == unit {
                        from = start + unit;
                        continue;
                    }
                    end = end.min(start + unit);
                }
            }
            let Some(bitmap) = group.blocks(fs, nr)? else { return Ok(None) };
            let len = bitmap.free_run(bit, count).min(end - bit);
            group.take_blocks(fs, nr, bit..bit + len)?;
            self.groups.count_blocks(nr, group, len.into());
            // A block past the first data block is never 0: bit 0 of group 0 is the superblock's.
            let start = DeviceBlock::new(fs.geo.group_start(nr).saturating_add(bit));
            return Ok(start.map(|start| Taken { fs, run: Some(Run { start, len }) }));
        }
    }
}
