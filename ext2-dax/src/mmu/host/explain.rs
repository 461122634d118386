//! What became of each unit of a mapping, and why it is not one translation of 2 MiB.

use std::fmt;

use blockdev::host_map::{PageRun, StoresBy};

use super::area::Area;
use super::runs::{Kind, Run};
use crate::entry::{PAGE_SIZE, PMD_PAGES, PMD_SIZE};
use crate::error::Result;

/// Why a unit is not one translation of 2 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// It is one.
    Huge,
    /// Nothing of it was touched, so that the kernel has not mapped it.
    Untouched,
    /// Address and file offset differ modulo 2 MiB.
    Colour,
    /// The mapping begins or ends inside the unit.
    Edge,
    /// The file ends inside the unit.
    PastEnd,
    /// The unit is in pieces: its blocks are not one run, or some of it is a hole.
    Pieces,
    /// Its blocks are one run that does not begin at a multiple of 2 MiB of the image's file.
    Unaligned,
    /// Stores are tracked by pages.
    Tracked,
    /// All that the file system can do is done; the host has pages of 4 KiB in its memory there.
    Host,
}

impl Why {
    /// In a few words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Huge => "one translation of 2 MiB",
            Self::Untouched => "not touched",
            Self::Colour => "address and offset differ modulo 2 MiB",
            Self::Edge => "the mapping begins or ends inside",
            Self::PastEnd => "the file ends inside",
            Self::Pieces => "not one run",
            Self::Unaligned => "the run is not aligned in the image",
            Self::Tracked => "stores are tracked by pages",
            Self::Host => "the host's pages are 4 KiB there",
        }
    }
}

/// A unit of 2 MiB of addresses, cut to the mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostUnit {
    /// The first file page.
    pub first: u64,
    /// Pages.
    pub count: u64,
    /// Pages with blocks that are mapped.
    pub data: u64,
    /// Runs of blocks they are in.
    pub runs: u64,
    /// Pages of holes that are mapped.
    pub hole: u64,
    /// Private copies.
    pub copies: u64,
    /// Pages past the end of the file.
    pub past_end: u64,
    /// Pages that the kernel has translations for now.
    pub present: u64,
    /// Of those, pages that translations of 2 MiB cover.
    pub huge: u64,
    /// Of those that are present, zero pages.
    pub zero: u64,
    /// Why it is not one translation.
    pub why: Why,
}

impl fmt::Display for HostUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, count, data, runs, hole, past_end, present, huge, zero, why, .. } = self;
        write!(f, "page {first}+{count}: {data} data in {runs}, {hole} hole, {past_end} past the end; ")?;
        write!(f, "kernel: {present} mapped, {huge} huge, {zero} zero: {}", why.text())
    }
}

impl Area {
    pub(super) fn explain(&self) -> Result<Vec<HostUnit>> {
        let vma = *self.vma();
        let (first, after) = self.pages();
        let kinds = self.space.kinds(0, (after - first) * PAGE_SIZE)?;
        let offset = self.file.memory().backing_file().map_or(0, |file| file.offset);
        let mut units = Vec::new();
        let mut kinds = kinds.as_slice();
        let mut at = vma.start;
        while at < vma.end {
            let next = ((at / PMD_SIZE + 1) * PMD_SIZE).min(vma.end);
            let (from, to) = (vma.page_at(at), vma.page_at(next));
            // Those that end before are done with.
            while kinds.first().is_some_and(|run| run.end <= at - vma.start) {
                kinds = &kinds[1..];
            }
            let runs = self.state().runs.within(from, to);
            units.push(self.unit(from, to, &runs, kinds, offset));
            at = next;
        }
        Ok(units)
    }

    fn is_tracked_by_pages(&self) -> bool {
        !matches!(self.space.stores_by(), StoresBy::Nobody | StoresBy::Signals { units: true })
    }

    /// Whether a unit is all data, in one run that is aligned in the image and in the mapping.
    pub(super) fn may_be_huge(&self, unit: &HostUnit) -> bool {
        let runs = self.state().runs.within(unit.first, unit.first + unit.count);
        let offset = self.file.memory().backing_file().map_or(0, |file| file.offset);
        let is_aligned = |device: u64| (device * PAGE_SIZE + offset).is_multiple_of(PMD_SIZE);
        unit.count == PMD_PAGES
            && self.vma().has_colour()
            && matches!(runs[..], [Run { kind: Kind::File(device), .. }] if is_aligned(device))
    }

    fn unit(&self, first: u64, after: u64, runs: &[Run], kinds: &[PageRun], offset: u64) -> HostUnit {
        let pages = |wanted: fn(&Kind) -> bool| -> u64 {
            runs.iter().filter(|run| wanted(&run.kind)).map(|run| run.end - run.start).sum()
        };
        let (start, end) = (self.byte(first), self.byte(after));
        let inside = kinds.iter().take_while(|run| run.start < end);
        let mut unit = HostUnit {
            first,
            count: after - first,
            data: pages(|kind| matches!(kind, Kind::File(_))),
            runs: runs.iter().filter(|run| matches!(run.kind, Kind::File(_))).count() as u64,
            hole: pages(|kind| *kind == Kind::Zeros),
            copies: pages(|kind| *kind == Kind::Copy),
            past_end: pages(|kind| *kind == Kind::End),
            present: 0,
            huge: 0,
            zero: 0,
            why: Why::Huge,
        };
        for run in inside {
            let count = (run.end.min(end) - run.start.max(start)) / PAGE_SIZE;
            unit.present += if run.kind.present { count } else { 0 };
            unit.huge += if run.kind.huge { count } else { 0 };
            unit.zero += if run.kind.zero { count } else { 0 };
        }
        let device = match runs {
            [Run { kind: Kind::File(device), .. }] => Some(device * PAGE_SIZE + offset),
            _ => None,
        };
        unit.why = if unit.huge == unit.count && unit.count == PMD_PAGES {
            Why::Huge
        } else if unit.present == 0 {
            Why::Untouched
        } else if !self.vma().has_colour() {
            Why::Colour
        } else if unit.past_end > 0 || self.file.end_page() < after {
            Why::PastEnd
        } else if unit.count < PMD_PAGES {
            Why::Edge
        } else if runs.len() > 1 {
            Why::Pieces
        } else if device.is_some_and(|byte| !byte.is_multiple_of(PMD_SIZE)) {
            Why::Unaligned
        } else if device.is_some() && self.is_tracked_by_pages() {
            Why::Tracked
        } else {
            Why::Host
        };
        unit
    }
}
