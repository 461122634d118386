//! Units of 2 MiB: which of them one entry of a page table's second level (PMD) could map, and why not the others.
//!
//! A unit is 2 MiB of a file from an offset that is a multiple of 2 MiB. A fault maps one whole if it lies inside the
//! file, and either nothing is stored for it (then the huge zero page stands for it) or its blocks are one run that
//! begins at a multiple of 2 MiB of physical memory. Linux: `dax_iomap_pmd_fault`, which besides needs `iomap_begin`
//! to tell it so in one answer.

use core::ops::AddAssign;

use ext2_core::Result;
use ext2_core::{FileBlock, Inode};

/// Bytes of a unit: what one PMD maps.
pub const UNIT: u64 = 2 << 20;

/// Bytes of a page: a unit counts as inside the file when its last page has a byte of it.
const PAGE: u64 = 4096;

/// What one PMD can do with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnitState {
    /// Map its blocks.
    Mappable,
    /// Map the huge zero page: the unit is all hole.
    HugeZero,
    /// Nothing: a part of the unit is hole.
    Hole,
    /// Nothing: its blocks are not one run.
    Fragmented,
    /// Nothing: its run does not begin at a multiple of 2 MiB of memory.
    Unaligned,
    /// Nothing: the file ends in it.
    PastEof,
}

impl UnitState {
    /// In a word or two, as `e2dax map` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mappable => "mappable",
            Self::HugeZero => "huge zero page",
            Self::Hole => "hole",
            Self::Fragmented => "fragmented",
            Self::Unaligned => "unaligned",
            Self::PastEof => "past EOF",
        }
    }
}

/// Units in a row that are in the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnitRun {
    /// The first unit; it begins at byte `first * UNIT` of the file.
    pub first: u64,
    /// Units, at least 1.
    pub count: u64,
    /// The state of each.
    pub state: UnitState,
}

/// Units by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitCounts {
    /// [`UnitState::Mappable`].
    pub mappable: u64,
    /// [`UnitState::HugeZero`].
    pub huge_zero: u64,
    /// [`UnitState::Hole`].
    pub hole: u64,
    /// [`UnitState::Fragmented`].
    pub fragmented: u64,
    /// [`UnitState::Unaligned`].
    pub unaligned: u64,
    /// [`UnitState::PastEof`].
    pub past_eof: u64,
}

impl UnitCounts {
    /// Units that lie wholly inside the file.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.with_data() + self.huge_zero
    }

    /// Whole units for which something is stored.
    #[must_use]
    pub fn with_data(&self) -> u64 {
        self.mappable + self.hole + self.fragmented + self.unaligned
    }
}

impl AddAssign<UnitRun> for UnitCounts {
    fn add_assign(&mut self, run: UnitRun) {
        let count = match run.state {
            UnitState::Mappable => &mut self.mappable,
            UnitState::HugeZero => &mut self.huge_zero,
            UnitState::Hole => &mut self.hole,
            UnitState::Fragmented => &mut self.fragmented,
            UnitState::Unaligned => &mut self.unaligned,
            UnitState::PastEof => &mut self.past_eof,
        };
        *count = count.saturating_add(run.count);
    }
}

impl AddAssign for UnitCounts {
    fn add_assign(&mut self, other: Self) {
        self.mappable += other.mappable;
        self.huge_zero += other.huge_zero;
        self.hole += other.hole;
        self.fragmented += other.fragmented;
        self.unaligned += other.unaligned;
        self.past_eof += other.past_eof;
    }
}

/// The units of a file, in order. An error ends the iteration.
///
/// ```
/// use ext2_image::Units;
/// # let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(16 << 20)?, &Default::default())?;
///
/// fs.write("model.bin", vec![1; 6 << 20])?;
/// let counts = Units::of(&fs.resolve("model.bin", ext2_core::Follow::Yes)?, 0).counts()?;
/// assert_eq!((counts.mappable, counts.whole()), (3, 3), "a page of 2 MiB maps each of the three");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Units {
    inode: Inode,
    bias: u64,
    /// The unit that comes next.
    next: u64,
    size: u64,
}

impl Units {
    /// The units of `inode`. `bias` is how many bytes behind a multiple of 2 MiB of memory the file system begins: 0 for
    /// a device that is the file system, the offset of a partition for one inside it.
    #[must_use]
    pub fn of(inode: &Inode, bias: u64) -> Self {
        Self { inode: inode.clone(), bias, next: 0, size: inode.size() }
    }

    /// Counts them all.
    ///
    /// # Errors
    /// `Corrupt`, the device's errors.
    pub fn counts(self) -> Result<UnitCounts> {
        let mut counts = UnitCounts::default();
        for run in self {
            counts += run?;
        }
        Ok(counts)
    }

    /// The run of units from `self.next` on, of at most `whole` units.
    fn run(&self, whole: u64) -> Result<(u64, UnitState)> {
        let geometry = self.inode.fs().geometry().block_size;
        let per_unit = UNIT / geometry.bytes();
        let mut block = self.next * per_unit;
        let mapping = self.inode.map(FileBlock::new(block), whole * per_unit)?;
        let units = mapping.count / per_unit;
        if units > 0 {
            let state = match mapping.target {
                None => UnitState::HugeZero,
                Some(target) => {
                    let start = self.bias.wrapping_add(u64::from(target.get()) * geometry.bytes());
                    if start.is_multiple_of(UNIT) { UnitState::Mappable } else { UnitState::Unaligned }
                }
            };
            return Ok((units, state));
        }
        // The unit has several mappings: does one of them say hole?
        let end = block + per_unit;
        let mut part = mapping;
        loop {
            if part.is_hole() {
                return Ok((1, UnitState::Hole));
            }
            block = part.end().get();
            if block >= end {
                return Ok((1, UnitState::Fragmented));
            }
            part = self.inode.map(FileBlock::new(block), end - block)?;
        }
    }
}

impl Iterator for Units {
    type Item = Result<UnitRun>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.next;
        let whole = self.size.div_ceil(PAGE).saturating_mul(PAGE) / UNIT;
        if first >= self.size.div_ceil(UNIT) {
            return None;
        }
        if first >= whole {
            self.next = first + 1;
            return Some(Ok(UnitRun { first, count: 1, state: UnitState::PastEof }));
        }
        match self.run(whole - first) {
            Ok((count, state)) => {
                self.next = first + count;
                Some(Ok(UnitRun { first, count, state }))
            }
            Err(error) => {
                self.next = u64::MAX;
                Some(Err(error))
            }
        }
    }
}
