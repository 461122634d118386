//! The page tables of one mapping: places of 2 MiB, each empty, one translation, or 512.

use std::collections::BTreeMap;

use blockdev::{Access, DaxDevice, PmemSlice};
use ext2_core::sync::Mended;

use crate::entry::{DevPage, Order, PAGE_SIZE, PMD_PAGES, PMD_SIZE};
use crate::mapping::PrivateCopies;
use crate::mmu::soft::Counters;
use crate::mmu::{CowPage, Slot, SlotTaken, Target, Writable};

/// Where a translation leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// To the zero page, or the huge one.
    Zero,
    /// To the device, at this page.
    Device(DevPage),
    /// To a private copy.
    Copy,
}

impl From<Target> for Leads {
    fn from(target: Target) -> Self {
        match target {
            Target::Zero => Self::Zero,
            Target::Page(page) => Self::Device(page),
        }
    }
}

/// Translations of one size beside each other that lead to pages beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Translation {
    /// First address.
    pub address: u64,
    /// The size of each.
    pub order: Order,
    /// How many, at least 1.
    pub count: u64,
    /// Where the first leads.
    pub leads: Leads,
    /// Whether stores go through.
    pub writable: bool,
}

impl Translation {
    /// Whether `next` is the translation after the last of these.
    fn goes_on_with(&self, next: &Self) -> bool {
        let leads = match (self.leads, next.leads) {
            (Leads::Device(first), Leads::Device(page)) => first.get() + self.count == page.get(),
            (here, there) => here == there,
        };
        leads
            && self.order == Order::Pte
            && next.order == Order::Pte
            && self.address + self.count * PAGE_SIZE == next.address
            && self.writable == next.writable
    }
}

/// What one page leads to.
#[derive(Debug, Default)]
enum Pte {
    #[default]
    None,
    Mapped(Target, Writable),
    Copy(CowPage),
}

#[derive(Debug)]
enum Place {
    Huge(Target, Writable),
    Table(Box<[Pte]>),
}

/// The places of one mapping, by address divided by 2 MiB.
#[derive(Debug, Default)]
pub(super) struct Tables {
    places: BTreeMap<u64, Place>,
    /// Set when the mapping is gone: nothing is mapped any more.
    dead: bool,
}

/// What an access finds.
pub(super) enum Found<'a> {
    /// No translation.
    Missing,
    /// One that does not let stores through.
    ReadOnly,
    /// The zero page.
    Zero,
    /// Device memory.
    Page(DevPage),
    /// Private memory.
    Copy(&'a [u8; PAGE_SIZE as usize]),
}

/// Whether the access is a load or a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Load,
    Store,
}

fn place_of(address: u64) -> u64 {
    address / PMD_SIZE
}

fn pte_of(address: u64) -> usize {
    // OK to cast: below 512.
    ((address / PAGE_SIZE) % PMD_PAGES) as usize
}

impl Tables {
    /// What is behind the page around `address`.
    pub(super) fn find(&self, address: u64, wish: Wish) -> Found<'_> {
        let (target, writable) = match self.places.get(&place_of(address)) {
            None => return Found::Missing,
            Some(Place::Huge(target, writable)) => {
                let within = (address % PMD_SIZE) / PAGE_SIZE;
                let target = match target {
                    Target::Zero => Target::Zero,
                    Target::Page(first) => match DevPage::new(first.get() + within) {
                        Some(page) => Target::Page(page),
                        None => return Found::Missing,
                    },
                };
                (target, *writable)
            }
            Some(Place::Table(ptes)) => match ptes.get(pte_of(address)) {
                None | Some(Pte::None) => return Found::Missing,
                Some(Pte::Mapped(target, writable)) => (*target, *writable),
                Some(Pte::Copy(page)) => return Found::Copy(page),
            },
        };
        match (target, writable, wish) {
            (_, Writable::No, Wish::Store) | (Target::Zero, _, Wish::Store) => Found::ReadOnly,
            (Target::Zero, _, Wish::Load) => Found::Zero,
            (Target::Page(page), _, _) => Found::Page(page),
        }
    }

    /// The private copy around `address`, to be stored to.
    pub(super) fn copy_mut(&mut self, address: u64) -> Option<&mut [u8; PAGE_SIZE as usize]> {
        match self.places.get_mut(&place_of(address))? {
            Place::Table(ptes) => match ptes.get_mut(pte_of(address))? {
                Pte::Copy(page) => Some(page),
                _ => None,
            },
            Place::Huge(..) => None,
        }
    }

    pub(super) fn slot(&self, address: u64) -> Slot {
        match self.places.get(&place_of(address)) {
            None => Slot::None,
            Some(Place::Huge(..)) => Slot::Huge,
            Some(Place::Table(_)) => Slot::Table,
        }
    }

    /// Maps a page, but not over a private copy: another thread has made it, and stored to it, since this one looked.
    fn put(&mut self, address: u64, pte: Pte) {
        if self.dead {
            return;
        }
        let place = self.places.entry(place_of(address)).or_insert_with(new_table);
        if let Place::Huge(..) = place {
            *place = new_table();
        }
        if let Place::Table(ptes) = place {
            let there = &mut ptes[pte_of(address)];
            if !matches!(there, Pte::Copy(_)) || Mended::CopiesReplaced.is_back() {
                *there = pte;
            }
        }
    }

    pub(super) fn map_pte(&mut self, address: u64, target: Target, writable: Writable) {
        self.put(address, Pte::Mapped(target, writable));
    }

    pub(super) fn map_copy(&mut self, address: u64, page: CowPage) {
        self.put(address, Pte::Copy(page));
    }

    pub(super) fn map_pmd(
        &mut self,
        address: u64,
        target: Target,
        writable: Writable,
    ) -> Result<(), SlotTaken> {
        if self.dead {
            return Ok(());
        }
        match self.places.get_mut(&place_of(address)) {
            None => {
                self.places.insert(place_of(address), Place::Huge(target, writable));
                Ok(())
            }
            Some(Place::Huge(there, allowed)) if *there == target => {
                if writable == Writable::Yes {
                    *allowed = Writable::Yes;
                }
                Ok(())
            }
            Some(_) => Err(SlotTaken),
        }
    }

    pub(super) fn split(&mut self, address: u64) {
        if self.slot(address) == Slot::Huge {
            self.places.remove(&place_of(address));
        }
    }

    /// Takes the translations of `start..end` away. Tables stay where they hang.
    pub(super) fn zap(&mut self, start: u64, end: u64, copies: PrivateCopies) {
        let (mut first, last) = (place_of(start), place_of(end - 1));
        for (at, place) in self.places.range_mut(first..=last) {
            if let Place::Table(ptes) = place {
                for_range(ptes, *at, start, end, |pte| {
                    if !matches!(pte, Pte::Copy(_)) || copies == PrivateCopies::Drop {
                        *pte = Pte::None;
                    }
                });
            }
        }
        // Not listed first: a fault takes the zero page away like this, and allocates nothing for it.
        let is_huge = |(at, place): (&u64, &Place)| matches!(place, Place::Huge(..)).then_some(*at);
        while let Some(at) = self.places.range(first..=last).find_map(is_huge) {
            self.places.remove(&at);
            first = at;
        }
    }

    pub(super) fn write_protect(&mut self, start: u64, end: u64) {
        for (at, place) in self.places.range_mut(place_of(start)..=place_of(end - 1)) {
            match place {
                Place::Huge(_, writable) => *writable = Writable::No,
                Place::Table(ptes) => for_range(ptes, *at, start, end, |pte| {
                    if let Pte::Mapped(_, writable) = pte {
                        *writable = Writable::No;
                    }
                }),
            }
        }
    }

    /// Takes everything away for good.
    pub(super) fn kill(&mut self) {
        self.dead = true;
        self.places.clear();
    }

    /// Whether the mapping is gone.
    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Everything that is mapped, in order of addresses, 4 KiB translations that go on each other as one run.
    pub(super) fn list(&self) -> Vec<Translation> {
        let mut list: Vec<Translation> = Vec::new();
        for (at, place) in &self.places {
            let base = at * PMD_SIZE;
            match place {
                Place::Huge(target, writable) => {
                    let leads = Leads::from(*target);
                    let writable = *writable == Writable::Yes;
                    list.push(Translation { address: base, order: Order::Pmd, count: 1, leads, writable });
                }
                Place::Table(ptes) => {
                    for (pte, address) in ptes.iter().zip((base..).step_by(PAGE_SIZE as usize)) {
                        let (leads, writable) = match pte {
                            Pte::None => continue,
                            Pte::Copy(_) => (Leads::Copy, true),
                            Pte::Mapped(target, writable) => {
                                (Leads::from(*target), *writable == Writable::Yes)
                            }
                        };
                        let next = Translation { address, order: Order::Pte, count: 1, leads, writable };
                        match list.last_mut() {
                            Some(last) if last.goes_on_with(&next) => last.count += 1,
                            _ => list.push(next),
                        }
                    }
                }
            }
        }
        list
    }

    pub(super) fn count(&self, counters: &mut Counters) {
        for place in self.places.values() {
            match place {
                Place::Huge(target, _) => {
                    counters.pmds += 1;
                    counters.zero_pmds += u64::from(*target == Target::Zero);
                }
                Place::Table(ptes) => {
                    for pte in ptes {
                        counters.ptes += u64::from(!matches!(pte, Pte::None));
                        counters.zero_ptes += u64::from(matches!(pte, Pte::Mapped(Target::Zero, _)));
                    }
                }
            }
        }
    }
}

fn new_table() -> Place {
    Place::Table((0..PMD_PAGES).map(|_| Pte::None).collect())
}

/// Calls `each` for the pages of the place `at` whose addresses lie in `start..end`.
fn for_range(ptes: &mut [Pte], at: u64, start: u64, end: u64, each: impl FnMut(&mut Pte)) {
    let base = at * PMD_SIZE;
    // OK to cast: both at most 512.
    let first = (start.saturating_sub(base) / PAGE_SIZE) as usize;
    let last = (end.saturating_sub(base).div_ceil(PAGE_SIZE)).min(PMD_PAGES) as usize;
    if let Some(range) = ptes.get_mut(first..last) {
        range.iter_mut().for_each(each);
    }
}

/// The memory of a device page, for one access.
pub(super) fn memory(device: &dyn DaxDevice, page: DevPage, wish: Wish) -> blockdev::Result<PmemSlice<'_>> {
    let access = if wish == Wish::Store { Access::Write } else { Access::Read };
    device.direct_access(page.get(), 1, access)
}
