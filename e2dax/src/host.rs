//! A file mapped into this process and touched, beside the same in software.

use ext2_core::Inode;
use ext2_dax::mmu::host::{Granularity, HostCounters, HostMmu, HostOptions, HostUnit};
use ext2_dax::trace::EventLog;
use ext2_dax::{DaxFs, File, OpenFor};

use crate::dax::{PAGE, Touched, TouchedRange, asked};
use crate::failure::{Of, Result};
use crate::json::{Json, object};

/// What touching a range in this process came to.
#[derive(Debug)]
pub(crate) struct HostTouched {
    pages: u64,
    died: Option<(String, u64)>,
    asked: u64,
    counters: HostCounters,
    mappings: u64,
    resident: u64,
    units: Vec<HostUnit>,
}

/// Maps the pages of `len` bytes from `at` on, shared and read-only, into this process, and loads a byte of each. Faults are of
/// one page or one unit, as in software.
pub(crate) fn touch(
    dax: &DaxFs,
    inode: Inode,
    at: u64,
    len: u64,
    name: impl Fn() -> String,
) -> Result<HostTouched> {
    let file = File::open(dax, inode, OpenFor::Reading).of(&name)?;
    let options = HostOptions { granularity: Granularity::Pages, ..HostOptions::default() };
    let mmu = HostMmu::new(options).of(&name)?;
    let range = TouchedRange::new(at, len, file.size());
    let log = EventLog::new();
    dax.tracer().listen(Some(log.clone()));
    let map = file.map_host(&mmu, &range.request).of(&name)?;
    let (pages, died) = range.load(|offset| map.load(offset));
    let counters = mmu.counters();
    let units = map.explain().of(&name)?;
    let view = map.view().of(&name)?;
    dax.tracer().listen(None);
    let asked = asked(&log.take());
    let units = units.into_iter().filter(|unit| unit.data + unit.hole + unit.present > 0).collect();
    Ok(HostTouched { pages, died, asked, counters, mappings: view.mappings, resident: view.resident, units })
}

impl HostTouched {
    /// Whether a signal ended it.
    pub(crate) fn has_died(&self) -> bool {
        self.died.is_some()
    }

    fn sum(&self, of: impl Fn(&HostUnit) -> u64) -> u64 {
        self.units.iter().map(of).sum()
    }

    /// Both, side by side, and the units as the kernel has them.
    pub(crate) fn beside(&self, soft: &Touched) -> Vec<String> {
        let (there, here) = (&soft.counters, &self.counters);
        let row = |what: &str, soft: u64, host: u64| format!("{what:<28}{soft:>14}{host:>16}");
        let mut lines = vec![format!("{:<28}{:>14}{:>16}", "", "in software", "in this process")];
        lines.extend([
            row("pages touched", soft.pages, self.pages),
            row("faults of 2 MiB tried", there.pmd_faults, here.pmd_faults),
            row("  fell back", there.pmd_fallbacks, here.pmd_fallbacks),
            row("faults of 4 KiB", there.pte_faults, here.pte_faults),
            row("iomap_begin asked", soft.asked(), self.asked),
            row("bytes mapped", there.mapped_bytes(), self.sum(|unit| unit.data + unit.hole) * PAGE),
            row("  of them zeros", there.zero_bytes(), self.sum(|unit| unit.hole) * PAGE),
        ]);
        let here = format!("{} mappings, {} bytes resident", self.mappings, self.resident);
        lines.push(format!("the kernel: {} faults told, {here}", self.counters.faults));
        lines.extend(self.units.iter().map(|unit| format!("  {unit}")));
        if let Some((signal, page)) = &self.died {
            lines.push(format!("in this process: {signal} at page {page} of the file"));
        }
        lines
    }

    /// The same as an object.
    pub(crate) fn to_json(&self) -> Json {
        object! {
            "pages": self.pages,
            "faults": self.counters.faults,
            "pmd_faults": self.counters.pmd_faults,
            "pmd_fallbacks": self.counters.pmd_fallbacks,
            "pte_faults": self.counters.pte_faults,
            "iomap_begin": self.asked,
            "mapped": self.sum(|unit| unit.data + unit.hole) * PAGE,
            "huge": self.sum(|unit| unit.huge) * PAGE,
            "zero": self.sum(|unit| unit.zero) * PAGE,
            "mappings": self.mappings,
            "resident": self.resident,
            "signal": self.died.as_ref().map(|(signal, _)| signal.clone()),
            "signal_page": self.died.as_ref().map(|(_, page)| *page),
        }
    }
}
