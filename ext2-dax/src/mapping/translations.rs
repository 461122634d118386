//! A memory mapping, as the file sees it that it maps.

use ext2_core::plumbing::Taken;

use super::stored::StoredRun;

/// Whether private copies of pages go with the pages that they were copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrivateCopies {
    /// They stay: only the file's own translations are stale.
    Keep,
    /// They go: the file has no such pages any more.
    Drop,
}

/// One memory mapping of a file, as the file sees it (Linux: a VMA in `i_mmap`).
///
/// An address space of somebody else's implements this, gives it to [`DaxMapping::attach`](super::DaxMapping::attach) when it maps
/// a file, and has its [`PageTable`](crate::mmu::PageTable) filled by [`fault::handle`](crate::fault::handle). Both calls come
/// with locks of the file held: they take only locks of the address space's own, under which it asks nothing of a file.
pub trait Translations: std::fmt::Debug + Send + Sync {
    /// Takes away every translation of the file pages from `start` to before `end`, which may lie past all that is
    /// mapped. A 2 MiB translation that touches the range goes whole. When this returns no access made through them is
    /// under way, and [`take_stored`](Self::take_stored) tells of all stores that were: the pages may stay the file's.
    fn zap(&self, start: u64, end: u64, copies: PrivateCopies);

    /// Makes every translation of these file pages read-only, so that the next store faults. An address space that finds
    /// stores by itself ([`take_stored`](Self::take_stored)) has nothing to do.
    fn write_protect(&self, start: u64, end: u64);

    /// Whether pages are mapped before they are touched, so that there are translations without entries. Such an address
    /// space is told of all that changes.
    fn maps_ahead(&self) -> bool {
        false
    }

    /// Whether who stores through it brings that to the media by himself, and relies on what leads there.
    fn is_synchronous(&self) -> bool {
        false
    }

    /// The file has blocks in these pages where it had a hole, or may have: who maps the hole looks again. The caller keeps
    /// truncation and punching away.
    fn published(&self, start: u64, end: u64) {
        self.zap(start, end, PrivateCopies::Keep);
    }

    /// As [`published`](Self::published), where nobody else maps the file: the blocks may be mapped at once. Where others map
    /// it, all have to be told before the first maps them, or a store through one would not be seen through another.
    fn published_alone(&self, start: u64, end: u64) {
        self.published(start, end);
    }

    /// All who map the file were told by [`published`](Self::published) of the blocks that these pages have: what was mapped for
    /// loads alone, so that no store through one mapping is missed by another, may be stored to.
    fn told(&self, start: u64, end: u64) {
        let _ = (start, end);
    }

    /// As [`zap`](Self::zap) where private copies stay, before pages are taken from the file for a reason, after which all are
    /// told that it is [settled](Self::settled). Who has to show something until then may know by the reason what is enough.
    fn going(&self, start: u64, end: u64, why: Taken) {
        let _ = why;
        self.zap(start, end, PrivateCopies::Keep);
    }

    /// What was [zapped](Self::zap) may be mapped again, as the file has it now. No fault is handled yet.
    fn settled(&self, start: u64, end: u64) {
        let _ = (start, end);
    }

    /// The file is about to be longer by these pages: what it has is what it says by now.
    fn grown(&self, start: u64, end: u64) {
        let _ = (start, end);
    }

    /// What was stored to these pages since the last call, as far as no store fault told of it.
    fn take_stored(&self, start: u64, end: u64) -> Vec<StoredRun> {
        let _ = (start, end);
        Vec::new()
    }

    /// Lets no store reach the file any more: it faults, or dies.
    fn stop_stores(&self) {
        self.write_protect(0, u64::MAX);
    }

    /// Lets stores through again.
    fn resume_stores(&self) {}
}
