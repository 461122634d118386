//! Where blocks go.
//!
//! Two policies. **Goal** does as Linux: after the file's last block, in the inode's group, with a window
//! of blocks kept for each file that grows, so that two writers do not interleave. **Aligned**, the
//! default, also keeps whole units of 2 MiB, aligned on the device, for the data of files that grow past
//! a small size; indirect blocks, directories and small files fill the units that are broken already.
//! Only so can a page of 2 MiB map a file.

mod aligned;
mod goal;

use core::sync::atomic::{AtomicBool, Ordering};

use super::blocks::Run;
use super::group::{Group, Groups, Window};
use crate::error::{Result, refuse};
use crate::fs::Fs;
use crate::{DeviceBlock, Errno, GroupNr, InodeNr};

/// How blocks are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// Whole aligned units of 2 MiB for files that grow past a small size.
    #[default]
    Aligned,
    /// As Linux's ext2.
    Goal,
}

/// Bytes that one entry of a page middle directory maps.
const PMD_SIZE: u64 = 2 << 20;

/// Bytes that a file may fill in blocks of its neighbours before it gets units of its own: half a unit, so that
/// what is moved then is little, and files that never fill a unit do not break one each. With 64 KiB an image
/// that is churned at 75 % keeps 70 % of its units mappable, with this nearly all.
const SMALL_FILE: u64 = 1024 << 10;

/// Groups that are searched for room in broken units before a whole one is broken.
const NEIGHBOURS: u32 = 8;

/// What somebody wants blocks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A file's data, from this block of the file on.
    Data {
        /// The first block's number in the file.
        logical: u64,
        /// Whether the file is past the size of a small one.
        big: bool,
        /// Where the file's unit of 2 MiB around `logical` begins on the device, if it lies there already.
        unit_base: Option<u32>,
    },
    /// Indirect blocks, directory blocks, attribute blocks.
    Meta,
}

/// A wish for blocks.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Who.
    pub(crate) owner: InodeNr,
    /// The group of the inode.
    pub(crate) home: GroupNr,
    /// The block that would be best.
    pub(crate) goal: u32,
    /// At most so many.
    pub(crate) count: u32,
    /// What for.
    pub(crate) role: Role,
    /// The owner's window.
    pub(crate) window: Option<Window>,
}

/// The placing of blocks of one file system.
#[derive(Debug)]
pub(crate) struct Place {
    policy: Policy,
    /// Blocks of a unit of 2 MiB.
    unit: u32,
    /// Blocks by which the device's block 0 lies past an aligned place.
    shift: u32,
    /// A search found no free unit, and nothing was freed since.
    no_units: AtomicBool,
    use_reserved: bool,
}

impl Place {
    /// `device_offset`: bytes by which the device's first byte lies past an address that is aligned to
    /// 2 MiB.
    pub(crate) fn new(policy: Policy, block_size: u64, device_offset: u64, use_reserved: bool) -> Self {
        Self {
            policy,
            unit: (PMD_SIZE / block_size) as u32,
            shift: (device_offset % PMD_SIZE / block_size) as u32,
            no_units: AtomicBool::new(false),
            use_reserved,
        }
    }

    /// Blocks of a unit of 2 MiB.
    pub(crate) fn unit(&self) -> u32 {
        self.unit
    }

    /// Whether a block of the device lies at an aligned place.
    pub(crate) fn is_aligned(&self, block: u32) -> bool {
        (u64::from(block) + u64::from(self.shift)).is_multiple_of(self.unit.into())
    }

    /// Blocks from which on a file is no longer small, 0 where there are no units.
    pub(crate) fn small_file_blocks(&self, block_size: u64) -> u64 {
        match self.policy {
            Policy::Aligned => SMALL_FILE / block_size,
            Policy::Goal => u64::MAX,
        }
    }

    /// Something was freed: there may be whole units again.
    pub(crate) fn freed(&self) {
        self.no_units.store(false, Ordering::Relaxed);
    }

    /// The bit of the first aligned block in a group, and how many whole units follow.
    fn units(&self, fs: &Fs, nr: GroupNr) -> (u32, u32) {
        let start = u64::from(fs.geo.group_start(nr)) + u64::from(self.shift);
        let first = (start.next_multiple_of(self.unit.into()) - start) as u32;
        (first, fs.geo.group_len(nr).saturating_sub(first) / self.unit)
    }
}

impl Fs {
    /// Takes blocks as the request wants them, one run of at least one block; and the window that the
    /// owner has from now on. Linux: `ext2_new_blocks`.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub(crate) fn take(&self, request: &Request) -> Result<(Run, Option<Window>)> {
        let writer = self.writer()?;
        let (groups, place) = (&writer.groups, &writer.place);
        let use_reserved = place.use_reserved && !super::reserve::is_left();
        let kept = if use_reserved { 0 } else { u64::from(self.sb.reserved_blocks) };
        let free = groups.free_blocks.load(Ordering::Relaxed).saturating_sub(kept);
        if free == 0 {
            return refuse(Errno::NOSPC, "no free block");
        }
        let request =
            &Request { count: request.count.min(u32::try_from(free).unwrap_or(u32::MAX)), ..request.clone() };
        let placed = match place.policy {
            Policy::Aligned => aligned::place(self, groups, place, request)?,
            Policy::Goal => goal::place(self, groups, request)?,
        };
        match placed {
            Some(placed) => Ok(placed),
            None => refuse(Errno::NOSPC, "no free block"),
        }
    }

    /// Takes a whole aligned unit of 2 MiB, if one is free. Near `goal`.
    pub(crate) fn take_unit(&self, owner: InodeNr, goal: u32) -> Result<Option<Run>> {
        let writer = self.writer()?;
        let (groups, place) = (&writer.groups, &writer.place);
        let Some(window) = aligned::reserve_unit(self, groups, place, owner, goal)? else {
            return Ok(None);
        };
        let request =
            Search { owner: Some(owner), from: window.bits.start, count: place.unit, kind: Kind::Any };
        let run = take_in(self, groups, window.group, &request)?;
        self.release_window(&window)?;
        match run {
            Some(run) if run.len == place.unit && place.is_aligned(run.block(0)) => Ok(Some(run)),
            // On a disk that is nearly full somebody took from the window.
            Some(run) => self.release(run).map(|()| None),
            None => Ok(None),
        }
    }

    /// Makes a run the window of `owner`: what of it is free stays the owner's.
    pub(crate) fn reserve(&self, owner: InodeNr, run: Run) -> Result<Option<Window>> {
        let writer = self.writer()?;
        let Some((nr, bit)) = self.geo.group_of_block(run.block(0)) else { return Ok(None) };
        let (mut group, end) = (writer.groups.get(nr).lock(), bit + run.len);
        if group.windows.range(..end).next_back().is_some_and(|(_, &(past, _))| past > bit) {
            return Ok(None);
        }
        group.windows.insert(bit, (end, owner));
        Ok(Some(Window { group: nr, bits: bit..end }))
    }

    /// Gives up a window.
    pub(crate) fn release_window(&self, window: &Window) -> Result<()> {
        let writer = self.writer()?;
        writer.groups.get(window.group).lock().windows.remove(&window.bits.start);
        writer.place.freed();
        Ok(())
    }
}

/// Which free blocks a search may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Any that are not in another's window.
    Any,
    /// Also those in windows: the last resort.
    EvenReserved,
    /// Only those in units of which a part is taken.
    Broken {
        /// The bit of the group's first aligned block.
        first: u32,
        /// Whole units.
        units: u32,
        /// Blocks of a unit.
        unit: u32,
    },
}

/// A search for free blocks in a group.
struct Search {
    /// Whose windows may be taken from.
    owner: Option<InodeNr>,
    /// The first bit that is looked at.
    from: u32,
    count: u32,
    kind: Kind,
}

/// Takes the first run that a search finds in a group at or after its first bit.
fn take_in(fs: &Fs, groups: &Groups, nr: GroupNr, search: &Search) -> Result<Option<Run>> {
    if groups.free_blocks_of.get(nr.get() as usize).is_none_or(|free| free.load(Ordering::Relaxed) == 0) {
        return Ok(None);
    }
    let mut group = groups.get(nr).lock();
    take_locked(fs, groups, nr, &mut group, search)
}

fn take_locked(
    fs: &Fs,
    groups: &Groups,
    nr: GroupNr,
    group: &mut Group,
    search: &Search,
) -> Result<Option<Run>> {
    let mut from = search.from;
    loop {
        let bitmap = group.blocks(fs, nr)?;
        let Some(bit) = bitmap.and_then(|bitmap| bitmap.first_free(from..u32::MAX)) else {
            return Ok(None);
        };
        let mut end = u32::MAX;
        if search.kind != Kind::EvenReserved {
            if let Some(past) = group.window_of_other(bit, search.owner) {
                from = past;
                continue;
            }
            end = group.next_window_of_other(bit, search.owner);
        }
        if let Kind::Broken { first, units, unit } = search.kind
            && bit >= first
            && bit < first + units * unit
        {
            let start = bit - (bit - first) % unit;
            if group.free_run(fs, nr, start, unit)? == unit {
                from = start + unit;
                continue;
            }
            end = end.min(start + unit);
        }
        let Some(bitmap) = group.blocks(fs, nr)? else { return Ok(None) };
        let len = bitmap.free_run(bit, search.count).min(end - bit);
        group.take_blocks(fs, nr, bit..bit + len)?;
        groups.count_blocks(nr, group, len.into());
        // A block past the first data block is never 0: bit 0 of group 0 is the superblock's.
        let start = DeviceBlock::new(fs.geo.group_start(nr).saturating_add(bit));
        return Ok(start.map(|start| Run { start, len }));
    }
}

/// All groups, from one on and around.
fn around(groups: &Groups, from: GroupNr) -> impl Iterator<Item = GroupNr> + use<> {
    let (len, from) = (groups.len(), from.get());
    (0..len).map(move |nr| GroupNr::new(((u64::from(from) + u64::from(nr)) % u64::from(len)) as u32))
}

/// A search that begins at a goal, goes around all groups, and back to the start of the goal's.
fn search_around(
    fs: &Fs,
    groups: &Groups,
    request: &Request,
    kind: impl Fn(GroupNr) -> Kind,
    most: u32,
) -> Result<Option<Run>> {
    let (group, bit) = fs.geo.group_of_block(request.goal).unwrap_or((request.home, 0));
    // A window is for data: an indirect block in it would break the unit.
    let owner = matches!(request.role, Role::Data { .. }).then_some(request.owner);
    let count = request.count;
    for (nr, from) in
        around(groups, group).zip(core::iter::once(bit).chain(core::iter::repeat(0))).take(most as usize)
    {
        let search = Search { owner, from, count, kind: kind(nr) };
        if let Some(run) = take_in(fs, groups, nr, &search)? {
            return Ok(Some(run));
        }
    }
    take_in(fs, groups, group, &Search { owner, from: 0, count, kind: kind(group) })
}
