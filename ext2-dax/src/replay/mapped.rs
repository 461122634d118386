//! What a script's program maps files into: a page table in software, or this process.

use std::sync::Arc;

use crate::error::Result;
use crate::file::File;
#[cfg(all(target_os = "linux", not(miri), not(loom)))]
use crate::mmu::host::{HostMap, HostMmu};
use crate::mmu::soft::{Died, MapRequest, Signal, SoftMap, SoftMmu};

/// The address space of the program.
#[derive(Debug)]
pub(super) enum AddressSpace {
    Soft(Arc<SoftMmu>),
    #[cfg(all(target_os = "linux", not(miri), not(loom)))]
    Host(Arc<HostMmu>),
}

/// One of its mappings.
#[derive(Debug)]
pub(super) enum Mapped {
    Soft(SoftMap),
    #[cfg(all(target_os = "linux", not(miri), not(loom)))]
    Host(HostMap),
}

impl AddressSpace {
    /// The page table in software, if it is one.
    pub(super) fn soft(&self) -> Option<&Arc<SoftMmu>> {
        match self {
            Self::Soft(mmu) => Some(mmu),
            #[cfg(all(target_os = "linux", not(miri), not(loom)))]
            Self::Host(_) => None,
        }
    }

    pub(super) fn map(&self, file: &File, request: &MapRequest) -> Result<Mapped> {
        match self {
            Self::Soft(mmu) => file.map(mmu, request).map(Mapped::Soft),
            #[cfg(all(target_os = "linux", not(miri), not(loom)))]
            Self::Host(mmu) => file.map_host(mmu, request).map(Mapped::Host),
        }
    }
}

impl Mapped {
    /// The page table in software, if it is one.
    pub(super) fn soft(&self) -> Option<&SoftMap> {
        match self {
            Self::Soft(map) => Some(map),
            #[cfg(all(target_os = "linux", not(miri), not(loom)))]
            Self::Host(_) => None,
        }
    }

    pub(super) fn load(&self, offset: u64) -> Result<u8, Signal> {
        match self {
            Self::Soft(map) => map.load(offset),
            #[cfg(all(target_os = "linux", not(miri), not(loom)))]
            Self::Host(map) => map.load(offset),
        }
    }

    pub(super) fn store(&self, offset: u64, byte: u8) -> Result<(), Signal> {
        match self {
            Self::Soft(map) => map.store(offset, byte),
            #[cfg(all(target_os = "linux", not(miri), not(loom)))]
            Self::Host(map) => map.store(offset, byte),
        }
    }

    pub(super) fn load_bytes(&self, offset: u64, buf: &mut [u8]) -> Result<(), Died> {
        match self {
            Self::Soft(map) => map.load_bytes(offset, buf),
            #[cfg(all(target_os = "linux", not(miri), not(loom)))]
            Self::Host(map) => map.try_load(offset, buf),
        }
    }

    pub(super) fn msync(&self, offset: u64, len: u64) -> Result<()> {
        match self {
            Self::Soft(map) => map.msync(offset, len),
            #[cfg(all(target_os = "linux", not(miri), not(loom)))]
            Self::Host(map) => map.msync(offset, len),
        }
    }
}
