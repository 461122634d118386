//! What can happen, with the names and fields of the kernel's tracepoints.
//!
//! `fs_dax` has the fault and write-back events, `iomap` one for each call of the iterator; the rest
//! are ours, for what the kernel does not say: why a 2 MiB fault fell back, what was asked and answered
//! about a hole, what was taken away.

use crate::fallback::Fallback;
use crate::fault_result::FaultResult;
use crate::map_kind::{MapFlags, MapKind, OpFlags};

/// Which inode an event is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InodeId {
    /// Device number: major, minor.
    pub dev: (u32, u32),
    /// Inode number.
    pub ino: u64,
}

/// What all fault events say of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultInfo {
    /// Whether the mapping has `VM_SHARED`: shared, and of a file opened for writing.
    pub shared: bool,
    /// Whether it was a store.
    pub write: bool,
    /// The address touched.
    pub address: u64,
    /// First address of the mapping.
    pub vm_start: u64,
    /// First address after it.
    pub vm_end: u64,
    /// The file page touched.
    pub pgoff: u64,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// `dax_pmd_fault`: a 2 MiB fault begins. `max_pgoff` is the first file page past EOF.
    PmdFault(FaultInfo, u64),
    /// `dax_pmd_fault_done`.
    PmdFaultDone(FaultInfo, u64, FaultResult),
    /// `dax_pmd_load_hole`: the huge zero page is mapped.
    PmdLoadHole(FaultInfo),
    /// `dax_pmd_load_hole_fallback`: it could not be.
    PmdLoadHoleFallback(FaultInfo),
    /// `dax_pte_fault`: a 4 KiB fault begins.
    PteFault(FaultInfo, FaultResult),
    /// `dax_pte_fault_done`.
    PteFaultDone(FaultInfo, FaultResult),
    /// `dax_load_hole`: the zero page is mapped.
    LoadHole(FaultInfo, FaultResult),
    /// `dax_insert_pfn_mkwrite`: a synchronous fault made its page writable.
    InsertPfnMkwrite(FaultInfo, FaultResult),
    /// `dax_insert_pfn_mkwrite_no_entry`: the entry was gone by then.
    InsertPfnMkwriteNoEntry(FaultInfo, FaultResult),
    /// `dax_writeback_range`: write-back of these file pages, both inclusive, begins.
    WritebackRange {
        /// First file page.
        start: u64,
        /// Last file page.
        end: u64,
    },
    /// `dax_writeback_one`: an entry was written back.
    WritebackOne {
        /// First file page.
        pgoff: u64,
        /// File pages.
        pglen: u64,
    },
    /// `dax_writeback_range_done`.
    WritebackRangeDone {
        /// First file page.
        start: u64,
        /// Last file page.
        end: u64,
    },
    /// `iomap_iter`: the file system answered.
    IomapIter {
        /// File byte asked.
        pos: u64,
        /// Bytes asked.
        length: u64,
        /// What for.
        flags: OpFlags,
        /// First file byte of the answer.
        offset: u64,
        /// Bytes of the answer.
        answered: u64,
        /// What is there.
        kind: MapKind,
        /// What is special about it.
        map_flags: MapFlags,
        /// Device byte of the answer's first byte, where blocks are there.
        addr: Option<u64>,
    },
    /// Ours, of the path of Linux 4.8: `get_block` was asked by a buffer head, and what stood in it afterwards.
    GetBlock {
        /// File block asked.
        block: u64,
        /// Bytes asked (`b_size` before).
        asked: u64,
        /// Whether blocks were to be allocated.
        create: bool,
        /// Whether `b_blocknr` counts.
        mapped: bool,
        /// Whether the size of a hole is said.
        sized: bool,
        /// Device byte of the first block; means nothing where it is not mapped.
        addr: u64,
        /// Bytes answered (`b_size` after).
        size: u64,
    },
    /// Ours: a 2 MiB fault fell back to 4 KiB.
    Fallback {
        /// First file page of the unit.
        index: u64,
        /// Why.
        reason: Fallback,
    },
    /// Ours: an empty or zero entry of 2 MiB gave way to 4 KiB entries.
    Downgrade {
        /// First file page of the unit.
        index: u64,
    },
    /// Ours: translations of these file pages were taken away, `end` not included.
    Invalidate {
        /// First file page.
        start: u64,
        /// First file page after.
        end: u64,
    },
    /// Ours: `iomap_end` took blocks back, from this file byte on.
    Undo {
        /// First file byte.
        pos: u64,
        /// Bytes.
        len: u64,
    },
}

impl Event {
    /// The tracepoint's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PmdFault(..) => "dax_pmd_fault",
            Self::PmdFaultDone(..) => "dax_pmd_fault_done",
            Self::PmdLoadHole(..) => "dax_pmd_load_hole",
            Self::PmdLoadHoleFallback(..) => "dax_pmd_load_hole_fallback",
            Self::PteFault(..) => "dax_pte_fault",
            Self::PteFaultDone(..) => "dax_pte_fault_done",
            Self::LoadHole(..) => "dax_load_hole",
            Self::InsertPfnMkwrite(..) => "dax_insert_pfn_mkwrite",
            Self::InsertPfnMkwriteNoEntry(..) => "dax_insert_pfn_mkwrite_no_entry",
            Self::WritebackRange { .. } => "dax_writeback_range",
            Self::WritebackOne { .. } => "dax_writeback_one",
            Self::WritebackRangeDone { .. } => "dax_writeback_range_done",
            Self::IomapIter { .. } => "iomap_iter",
            Self::GetBlock { .. } => "e2dax_get_block",
            Self::Fallback { .. } => "e2dax_fallback",
            Self::Downgrade { .. } => "e2dax_downgrade",
            Self::Invalidate { .. } => "e2dax_invalidate",
            Self::Undo { .. } => "e2dax_undo",
        }
    }

    /// Whether the kernel's `fs_dax` system has this event.
    #[must_use]
    pub fn is_fs_dax(&self) -> bool {
        self.name().starts_with("dax_")
    }

    /// What the event says of a fault, if it is about one.
    #[must_use]
    pub fn fault(&self) -> Option<&FaultInfo> {
        match self {
            Self::PmdFault(info, ..)
            | Self::PmdFaultDone(info, ..)
            | Self::PmdLoadHole(info)
            | Self::PmdLoadHoleFallback(info)
            | Self::PteFault(info, ..)
            | Self::PteFaultDone(info, ..)
            | Self::LoadHole(info, ..)
            | Self::InsertPfnMkwrite(info, ..)
            | Self::InsertPfnMkwriteNoEntry(info, ..) => Some(info),
            _ => None,
        }
    }

    /// The outcome that the event carries, where it has one.
    #[must_use]
    pub fn result(&self) -> Option<FaultResult> {
        match self {
            Self::PmdFaultDone(_, _, result)
            | Self::PteFault(_, result)
            | Self::PteFaultDone(_, result)
            | Self::LoadHole(_, result)
            | Self::InsertPfnMkwrite(_, result)
            | Self::InsertPfnMkwriteNoEntry(_, result) => Some(*result),
            _ => None,
        }
    }
}
