//! A placement that asks one of the two that are built in, and tells the rule what came of it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blockdev::BlockDevice;
use ext2_core::placement::{FreeSpace, Placed, Placement, Request};
use ext2_core::{Ext2, InodeNr, Policy};

use crate::rule::{Counts, Rule};

/// The placement.
#[derive(Debug)]
pub(crate) struct Watched {
    inner: Arc<dyn Placement>,
    rule: Mutex<Option<Rule>>,
}

/// The rule, while it is used.
pub(crate) struct Used<'a>(MutexGuard<'a, Option<Rule>>);

impl std::ops::Deref for Used<'_> {
    type Target = Rule;
    fn deref(&self) -> &Rule {
        self.0.as_ref().expect("it has begun")
    }
}

impl std::ops::DerefMut for Used<'_> {
    fn deref_mut(&mut self) -> &mut Rule {
        self.0.as_mut().expect("it has begun")
    }
}

impl Watched {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { inner: policy.placement(), rule: Mutex::new(None) }
    }

    /// Begins to compare.
    pub(crate) fn begin(&self, fs: &Ext2, policy: Policy, device: &dyn BlockDevice) {
        let geo = fs.geometry().clone();
        let (size, unit) = (geo.block_size.bytes(), 2 << 20);
        let first = device.dax().expect("memory").pfn(0) * 4096;
        let rule = Rule {
            policy,
            unit: (unit / size) as u32,
            shift: (first % unit / size) as u32,
            free: Vec::new(),
            windows: Default::default(),
            files: Default::default(),
            complaint: None,
            is_full: false,
            counts: Counts::default(),
            geo,
        };
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = Some(rule);
    }

    pub(crate) fn rule(&self) -> Used<'_> {
        Used(self.rule.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A write to a file begins, up to this block of it.
    pub(crate) fn begin_write(&self, file: InodeNr, end: u64) {
        self.rule().files.entry(file).or_default().write_end = end;
    }

    /// Nobody holds the file any more, or it was cut: nothing is kept for it.
    pub(crate) fn forget(&self, file: InodeNr) {
        let mut rule = self.rule();
        rule.windows.remove(&file);
        rule.files.remove(&file);
    }

    /// A hole was punched: where the file grew last may be gone.
    pub(crate) fn forget_last(&self, file: InodeNr) {
        if let Some(file) = self.rule().files.get_mut(&file) {
            file.last = None;
        }
    }
}

impl Placement for Watched {
    fn place<'s>(
        &self,
        space: &'s FreeSpace<'_>,
        request: &Request,
    ) -> ext2_core::Result<Option<Placed<'s>>> {
        let placed = self.inner.place(space, request)?;
        let answer = placed.as_ref().map(|placed| {
            assert!(
                !placed.taken.is_empty() && placed.window.as_ref().is_none_or(|window| !window.is_empty())
            );
            let start = placed.taken.start().map_or(0, |start| start.get());
            let kept = placed.window.as_ref().map(|window| {
                // Where it begins is known to the file system alone; a group and a length are enough.
                let start = space.group_blocks(window.group()).start;
                start..start + window.len()
            });
            (start..start + placed.taken.len(), kept) as (Range<u32>, Option<Range<u32>>)
        });
        if let Some(rule) = self.rule.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            rule.note(request, &answer);
            rule.note_space(space);
        }
        Ok(placed)
    }

    fn small_file_bytes(&self) -> Option<u64> {
        self.inner.small_file_bytes()
    }
}
