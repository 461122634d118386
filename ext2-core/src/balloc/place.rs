//! Where blocks go.
//!
//! A [`Placement`] decides; two are built in. [`Goal`] does as Linux: after the file's last block, in the inode's group, with
//! a window of blocks kept for each file that grows, so that two writers do not interleave. [`Aligned`], the default, also
//! keeps whole units of 2 MiB, aligned on the device, for the data of files that grow past a small size; indirect blocks,
//! directories and small files fill the units that are broken already. Only so can a page of 2 MiB map a file.
//!
//! # Invariants
//! 1. A placement takes blocks through [`FreeSpace`] alone, and each of them is free, of one group, and taken for the request
//!    that is being answered. Whatever a placement does, an image stays sound.
//! 2. What it took and does not answer with is given back.

mod aligned;
mod goal;
mod space;

pub use aligned::Aligned;
pub use goal::Goal;
pub use space::{FreeSpace, Taken, Which};

use alloc::sync::Arc;
use core::fmt::Debug;
use core::sync::atomic::{AtomicU32, Ordering};

use super::blocks::Run;
use super::group::Window;
use crate::error::{Result, refuse};
use crate::fs::{Fs, writer::Writer};
use crate::sync::Mended;
use crate::{DeviceBlock, Errno, GroupNr, InodeNr};

/// Which of the built-in placements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// [`Aligned`]: whole aligned units of 2 MiB for files that grow past a small size.
    #[default]
    Aligned,
    /// [`Goal`]: as Linux's ext2.
    Goal,
}

impl Policy {
    /// The placement.
    #[must_use]
    pub fn placement(self) -> Arc<dyn Placement> {
        match self {
            Self::Aligned => Arc::new(Aligned),
            Self::Goal => Arc::new(Goal),
        }
    }
}

/// A policy: says where the blocks of a request lie. Give one of your own as
/// [`OpenOptions::placement`](crate::OpenOptions::placement).
///
/// It is called from many threads, with no lock of a group held, and must not use the file system that it serves.
///
/// ```
/// use ext2_core::placement::{FreeSpace, Placed, Placement, Request, Which};
/// use ext2_core::{GroupNr, OpenOptions, Result};
/// use std::sync::Arc;
///
/// /// The first free blocks of the device, for everything.
/// #[derive(Debug)]
/// struct FirstFit;
///
/// impl Placement for FirstFit {
///     fn place<'s>(&self, space: &'s FreeSpace<'_>, _: &Request) -> Result<Option<Placed<'s>>> {
///         let first = space.group_blocks(GroupNr::new(0)).start;
///         for which in [Which::Free, Which::EvenReserved] {
///             if let Some(taken) = space.search(first, space.groups(), which)? {
///                 return Ok(Some(Placed { taken, window: None }));
///             }
///         }
///         Ok(None)
///     }
/// }
///
/// let options = OpenOptions { placement: Some(Arc::new(FirstFit)), ..OpenOptions::default() };
/// let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(8 << 20)?, &options)?;
/// fs.write("file", "some bytes")?;
/// assert_eq!(fs.read("file")?, b"some bytes");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Placement: Debug + Send + Sync {
    /// Takes blocks for a request, at least one; `None` where none is free. They need not be as many as asked for, and they
    /// need not lie where the request would like them.
    ///
    /// # Errors
    /// Those of [`FreeSpace`], to be handed on.
    fn place<'s>(&self, space: &'s FreeSpace<'_>, request: &Request) -> Result<Option<Placed<'s>>>;

    /// The bytes that a file may grow to before it is to lie in whole aligned units of 2 MiB, and is moved into one: then
    /// [`Role::Data`] says that it is big. `None`, the default, where no file is.
    fn small_file_bytes(&self) -> Option<u64> {
        None
    }
}

/// The answer to a request.
#[derive(Debug)]
pub struct Placed<'s> {
    /// The blocks.
    pub taken: Taken<'s>,
    /// What is kept for the owner from now on. It is given back with the next request of the same owner.
    pub window: Option<Window>,
}

/// Bytes that one entry of a page middle directory maps.
const PMD_SIZE: u64 = 2 << 20;

/// What somebody wants blocks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A file's data, from this block of the file on.
    Data {
        /// The first block's number in the file.
        logical: u64,
        /// Whether the file is past [`Placement::small_file_bytes`].
        big: bool,
        /// Where the file's unit of 2 MiB around `logical` begins on the device, if it lies there already.
        unit_base: Option<u32>,
    },
    /// Indirect blocks, directory blocks, attribute blocks.
    Meta,
}

/// A wish for blocks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// Who.
    pub owner: InodeNr,
    /// The group of the inode.
    pub home: GroupNr,
    /// The block of the device that would be best.
    pub goal: u32,
    /// At most so many blocks.
    pub count: u32,
    /// What for.
    pub role: Role,
    /// What is kept for the owner so far.
    pub window: Option<Window>,
}

/// The placing of blocks of one file system.
#[derive(Debug)]
pub(crate) struct Place {
    policy: Arc<dyn Placement>,
    /// Blocks of a unit of 2 MiB.
    unit: u32,
    /// Blocks by which the device's block 0 lies past an aligned place.
    shift: u32,
    /// How often something was freed.
    frees: AtomicU32,
    /// The count of these at which a search found no whole unit.
    none_at: AtomicU32,
    use_reserved: bool,
}

impl Place {
    /// `device_offset`: bytes by which the device's first byte lies past an address that is aligned to
    /// 2 MiB.
    pub(crate) fn new(
        policy: Arc<dyn Placement>,
        block_size: u64,
        device_offset: u64,
        use_reserved: bool,
    ) -> Self {
        Self {
            policy,
            unit: (PMD_SIZE / block_size) as u32,
            shift: (device_offset % PMD_SIZE / block_size) as u32,
            frees: AtomicU32::new(1),
            none_at: AtomicU32::new(0),
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

    /// Blocks from which on a file is no longer small.
    pub(crate) fn small_file_blocks(&self, block_size: u64) -> u64 {
        self.policy.small_file_bytes().map_or(u64::MAX, |bytes| bytes / block_size)
    }

    /// Something was freed: there may be whole units again.
    pub(crate) fn freed(&self) {
        self.frees.fetch_add(1, Ordering::Relaxed);
    }

    /// How often something was freed; none where no whole unit has been found since the last time.
    fn frees_to_search(&self) -> Option<u32> {
        let frees = self.frees.load(Ordering::Relaxed);
        (frees != self.none_at.load(Ordering::Relaxed)).then_some(frees)
    }

    /// No whole unit was found by a search that began when so much had been freed.
    fn found_none(&self, frees: u32) {
        self.none_at.store(frees, Ordering::Relaxed);
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
    /// owner has from now on. Where there are none left, those that a log keeps free. Linux: `ext2_new_blocks`.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub(crate) fn take(&self, request: &Request) -> Result<(Run, Option<Window>)> {
        self.with_room(|| self.take_free(request))
    }

    fn take_free(&self, request: &Request) -> Result<(Run, Option<Window>)> {
        let (Writer { groups, place, .. }, free) = (self.writer()?, self.blocks_to_take()?);
        if free == 0 {
            return refuse(Errno::NOSPC, "no free block");
        }
        let request =
            &Request { count: request.count.min(u32::try_from(free).unwrap_or(u32::MAX)), ..request.clone() };
        let space = FreeSpace::new(self, groups, place, request);
        match place.policy.place(&space, request)? {
            Some(placed) => Ok((placed.taken.keep(), placed.window)),
            None => refuse(Errno::NOSPC, "no free block"),
        }
    }

    /// Free blocks, but for those of root where they are left alone.
    pub(crate) fn blocks_to_take(&self) -> Result<u64> {
        let writer = self.writer()?;
        let use_reserved = writer.place.use_reserved && !super::reserve::is_left();
        let kept = if use_reserved { 0 } else { u64::from(self.sb.reserved_blocks) };
        Ok(writer.groups.free_blocks.load(Ordering::Relaxed).saturating_sub(kept))
    }

    /// Takes a whole aligned unit of 2 MiB, if one is free. Near `goal`.
    pub(crate) fn take_unit(&self, owner: InodeNr, goal: u32) -> Result<Option<Run>> {
        let Writer { groups, place, .. } = self.writer()?;
        if self.blocks_to_take()? < place.unit.into() && !Mended::UnitsOfReserve.is_back() {
            return Ok(None);
        }
        let (home, role) = (GroupNr::new(0), Role::Meta);
        let request = &Request { owner, home, goal, count: place.unit, role, window: None };
        let space = FreeSpace::new(self, groups, place, request);
        let Some(window) = space.reserve_unit()? else { return Ok(None) };
        let taken = space.take_after(&window);
        self.release_window(&window)?;
        // On a disk that is nearly full somebody may have taken from the window.
        let whole = |taken: &Taken<'_>| {
            taken.len() == place.unit && place.is_aligned(taken.start().map_or(0, DeviceBlock::get))
        };
        Ok(taken?.filter(whole).map(Taken::keep))
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
