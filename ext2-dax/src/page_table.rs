//! What a fault handler needs of a page table, be it in software or the host's.

use std::fmt::Debug;

use crate::entry::{DevPage, PAGE_SIZE};

/// What a translation leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Zeros that cannot be stored to.
    Zero,
    /// A page of the device, the first one of a 2 MiB translation.
    Page(DevPage),
}

/// Whether a translation lets stores through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    /// A store faults.
    No,
    /// A store reaches the page.
    Yes,
}

/// What hangs in the place of a page table that covers 2 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Nothing.
    None,
    /// A table of 4 KiB translations. No 2 MiB fault is tried while it is there.
    Table,
    /// One translation of 2 MiB.
    Huge,
}

/// A 2 MiB translation was not installed because something hangs in its place already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotTaken;

/// A page of private memory, copied from a file's page.
pub type CowPage = Box<[u8; PAGE_SIZE as usize]>;

/// A page table, as a fault handler uses it. All addresses lie in the VMA that the fault was for.
pub trait PageTable: Debug {
    /// What hangs in the 2 MiB place around `address`.
    fn slot(&self, address: u64) -> Slot;

    /// Whether there is a huge zero page to map.
    fn has_huge_zero_page(&self) -> bool;

    /// Maps the page at `address`; replaces a translation that was there, but no private copy: that was made, and stored
    /// to, by another thread since the fault began.
    fn map_pte(&self, address: u64, target: Target, writable: Writable);

    /// Maps the 2 MiB unit around `address`. A translation of 2 MiB to the same place that was there is
    /// made writable if asked.
    ///
    /// # Errors
    /// `SlotTaken`.
    fn map_pmd(&self, address: u64, target: Target, writable: Writable) -> Result<(), SlotTaken>;

    /// Maps a private copy at `address`; one that is there already stays.
    fn map_copy(&self, address: u64, page: CowPage);

    /// Takes the 2 MiB translation around `address` away, if there is one (Linux: `split_huge_pmd` of a
    /// file mapping).
    fn split(&self, address: u64);
}
