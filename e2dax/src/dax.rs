//! Files mapped in the software MMU and touched: what `fault` and `demo` share.

use clap::ValueEnum;
use ext2_core::{Ext2, Inode};
use ext2_dax::mmu::soft::{Counters, MapRequest, Signal, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::trace::{Event, EventLog, Record};
use ext2_dax::{Compat, DaxFs, DaxOptions, File, OpenFor};

use crate::failure::{Failure, Of, Result};
use crate::json::{Json, object};
use crate::text::count as words;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// Whose behaviour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Behaviour {
    /// Ours: holes in full, faults of 2 MiB
    #[default]
    Full,
    /// Linux 6.1's ext2: holes of one block, no faults of 2 MiB
    #[value(name = "linux-6.1")]
    Linux61,
}

impl Behaviour {
    /// The same for the library.
    pub(crate) fn compat(self) -> Compat {
        match self {
            Self::Full => Compat::FULL,
            Self::Linux61 => Compat::LINUX_6_1,
        }
    }
}

/// What touching a range came to.
#[derive(Debug)]
pub(crate) struct Touched {
    /// Pages that were touched before it ended.
    pub(crate) pages: u64,
    /// The signal that ended it, and the page of the file where.
    pub(crate) died: Option<(String, u64)>,
    /// What happened.
    pub(crate) records: Vec<Record>,
    /// What the address space counted.
    pub(crate) counters: Counters,
}

/// The file system with its files by DAX, or why there is none.
pub(crate) fn open(fs: Ext2, behaviour: Behaviour, name: impl Fn() -> String) -> Result<DaxFs> {
    let block = fs.geometry().block_size.bytes();
    if block < PAGE {
        return Err(Failure::text(
            name(),
            format!(
                "blocks are smaller than a page: of blocks of {block} bytes no file can be mapped, each access is a copy, \
                 and Linux does not mount it with dax; make it anew: e2dax mkfs -b 4096"
            ),
        ));
    }
    let dax = DaxFs::new(fs, DaxOptions { compat: behaviour.compat(), ..DaxOptions::default() });
    dax.check_dax().of(name)?;
    Ok(dax)
}

/// Maps the pages of `len` bytes from `at` on, shared and read-only, and loads a byte of each.
pub(crate) fn touch(
    dax: &DaxFs,
    inode: Inode,
    at: u64,
    len: u64,
    name: impl Fn() -> String,
) -> Result<Touched> {
    let file = File::open(dax, inode, OpenFor::Reading).of(&name)?;
    let range = TouchedRange::new(at, len, file.size());
    let log = EventLog::new();
    dax.tracer().listen(Some(log.clone()));
    let mmu = SoftMmu::new();
    let map = file.map(&mmu, &range.request).of(&name)?;
    let (pages, died) = range.load(|offset| map.load(offset));
    let counters = mmu.counters();
    dax.tracer().listen(None);
    drop(map);
    Ok(Touched { pages, died, records: log.take(), counters })
}

/// Pages of a file that are touched through a mapping, in whichever address space that is.
pub(crate) struct TouchedRange {
    /// The mapping, shared and read-only: of the whole units around them, as a program maps a file and not a page of it.
    pub(crate) request: MapRequest,
    first: u64,
    end: u64,
}

impl TouchedRange {
    /// The pages of `len` bytes from `at` on, or one, of a file of `size` bytes.
    pub(crate) fn new(at: u64, len: u64, size: u64) -> Self {
        let first = at - at % PAGE;
        let end = at.saturating_add(len.max(1));
        let offset = first - first % ext2_image::UNIT;
        let request = MapRequest {
            offset,
            len: end.max(size) - offset,
            sharing: Sharing::Shared,
            protection: Protection::ReadOnly,
            colour: 0,
        };
        Self { request, first, end }
    }

    /// Loads a byte of each, by its offset in the mapping: how many there were, and the signal that ended it with the page of
    /// the file where.
    pub(crate) fn load(&self, load: impl Fn(u64) -> Result<u8, Signal>) -> (u64, Option<(String, u64)>) {
        let mut page = self.first;
        while page < self.end {
            if let Err(signal) = load(page - self.request.offset) {
                return ((page - self.first) / PAGE, Some((signal.to_string(), page / PAGE)));
            }
            page += PAGE;
        }
        ((page - self.first) / PAGE, None)
    }
}

/// How often the file system was asked for a mapping.
pub(crate) fn asked(records: &[Record]) -> u64 {
    records.iter().filter(|record| matches!(record.event, Event::IomapIter { .. })).count() as u64
}

impl Touched {
    /// Faults that were taken: those of 2 MiB that succeeded, and those of 4 KiB.
    pub(crate) fn faults(&self) -> u64 {
        self.counters.pte_faults + self.counters.pmd_faults - self.counters.pmd_fallbacks
    }

    /// How often the file system was asked for a mapping.
    pub(crate) fn asked(&self) -> u64 {
        asked(&self.records)
    }

    /// The lines of the summary.
    pub(crate) fn summary(&self) -> Vec<String> {
        let count = &self.counters;
        let mut lines = vec![
            format!("{} touched, {}", words(self.pages, "page"), words(self.faults(), "fault")),
            format!("  of 2 MiB: {} tried, {} fell back", count.pmd_faults, count.pmd_fallbacks),
            format!("  of 4 KiB: {}", count.pte_faults),
            format!("iomap_begin asked {}", words(self.asked(), "time")),
            format!(
                "mapped: {} ({} to the huge zero page), {} ({} to the zero page), {}",
                words(count.pmds, "PMD"),
                count.zero_pmds,
                words(count.ptes, "PTE"),
                count.zero_ptes,
                words(count.mapped_bytes(), "byte")
            ),
        ];
        if let Some((signal, page)) = &self.died {
            lines.push(format!("{signal} at page {page} of the file"));
        }
        lines
    }

    /// The same as an object.
    pub(crate) fn to_json(&self) -> Json {
        let count = &self.counters;
        object! {
            "pages": self.pages,
            "faults": self.faults(),
            "pmd_faults": count.pmd_faults,
            "pmd_fallbacks": count.pmd_fallbacks,
            "pte_faults": count.pte_faults,
            "iomap_begin": self.asked(),
            "pmds": count.pmds,
            "zero_pmds": count.zero_pmds,
            "ptes": count.ptes,
            "zero_ptes": count.zero_ptes,
            "mapped": count.mapped_bytes(),
            "signal": self.died.as_ref().map(|(signal, _)| signal.clone()),
            "signal_page": self.died.as_ref().map(|(_, page)| *page),
        }
    }
}
