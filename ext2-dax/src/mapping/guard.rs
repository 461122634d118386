//! An entry that is held locked, and what may be done with it.

use ext2_core::sync::Mended;

use super::DaxMapping;
use crate::entry::{Content, DevPage, Entry, Order};
use crate::wait::Wake;

/// An entry held locked; unlocked, and the next waiter woken, when dropped.
#[derive(Debug)]
pub struct EntryGuard<'a> {
    pub(super) mapping: &'a DaxMapping,
    pub(super) at: u64,
    pub(super) entry: Entry,
}

/// Whether an insertion marks its entry as stored to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It does.
    Dirty,
    /// It leaves the mark as it is.
    AsItIs,
}

impl EntryGuard<'_> {
    /// First file page of the entry.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.at
    }

    /// Its size.
    #[must_use]
    pub fn order(&self) -> Order {
        self.entry.order()
    }

    /// What it says is mapped.
    #[must_use]
    pub fn content(&self) -> Content {
        self.entry.content()
    }

    /// Says what is about to be mapped at this entry (Linux: `dax_insert_entry`). An entry that has
    /// blocks keeps them. A zero page that gives way to blocks is first taken from all who map it.
    pub(crate) fn insert(&mut self, content: Content, mark: Mark) {
        let replaces = !matches!(self.entry.content(), Content::Page(_));
        if self.entry.content() == Content::Zero && matches!(content, Content::Page(_)) {
            self.mapping.unmap_zero(self.at, &(self.at..self.at));
        }
        let mut shard = self.mapping.shard(self.at).lock();
        let mut entry = shard.entries.get(&self.at).copied().unwrap_or(self.entry.locked());
        if replaces {
            entry = entry.with_content(content);
        }
        if mark == Mark::Dirty && !entry.is_dirty() {
            entry = entry.dirty();
            self.mapping.count_dirty(1);
        }
        shard.put(self.at, entry);
        self.entry = entry;
    }

    /// A store fault failed: the file may have blocks by now where the entry says hole, so nobody may go on to map that
    /// hole.
    pub(crate) fn forget_hole(&mut self) {
        if self.entry.content() == Content::Zero && !Mended::FaultLeavesHole.is_back() {
            self.mapping.unmap_zero(self.at, &(self.at..self.at));
            self.entry = self.entry.with_content(Content::Empty);
        }
    }

    /// The device page that belongs to file page `index`, if the entry has blocks.
    #[must_use]
    pub fn page_of(&self, index: u64) -> Option<DevPage> {
        match self.entry.content() {
            Content::Page(first) => DevPage::new(first.get().checked_add(index.checked_sub(self.at)?)?),
            Content::Empty | Content::Zero => None,
        }
    }
}

impl Drop for EntryGuard<'_> {
    fn drop(&mut self) {
        let mut shard = self.mapping.shard(self.at).lock();
        if let Some(entry) = shard.entries.get_mut(&self.at) {
            *entry = entry.unlocked();
        }
        drop(shard);
        self.mapping.wake(self.at, Wake::Next);
    }
}
