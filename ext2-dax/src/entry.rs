//! The value of one entry in a file's tree of pages in use (Linux: the XArray value of fs/dax.c).
//!
//! An entry stands for one page or for one aligned unit of 512 pages. It is the lock of its range: who
//! changes what is mapped there, or looks the block map up in order to map it, holds it locked.
//!
//! ```
//! use ext2_dax::entry::Order;
//!
//! // Page 700 of a file lies in the unit of pages 512 to 1023.
//! assert_eq!(Order::Pmd.round(700), 512);
//! assert_eq!((Order::Pmd.pages(), Order::Pmd.bytes()), (512, 2 << 20));
//! assert_eq!(Order::Pte.round(700), 700);
//! ```

use std::fmt;

/// Pages of 4 KiB in a unit of 2 MiB.
pub const PMD_PAGES: u64 = 512;
/// Bytes of a page.
pub const PAGE_SIZE: u64 = blockdev::PAGE_SIZE;
/// Bytes of a unit that one PMD maps.
pub const PMD_SIZE: u64 = PMD_PAGES * PAGE_SIZE;

/// A page of the device, numbered from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevPage(u64);

impl DevPage {
    /// Page number `page`; `None` where its bytes would not have 64-bit addresses.
    #[must_use]
    pub const fn new(page: u64) -> Option<Self> {
        if page <= u64::MAX / PAGE_SIZE { Some(Self(page)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The device byte at which it begins.
    #[must_use]
    pub const fn byte(self) -> u64 {
        self.0 * PAGE_SIZE
    }
}

/// How large an entry or a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One page of 4 KiB.
    Pte,
    /// An aligned unit of 2 MiB.
    Pmd,
}

impl Order {
    /// Pages of this size.
    #[must_use]
    pub const fn pages(self) -> u64 {
        match self {
            Self::Pte => 1,
            Self::Pmd => PMD_PAGES,
        }
    }

    /// Bytes of this size.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.pages() * PAGE_SIZE
    }

    /// The file page at which the unit around `index` begins.
    #[must_use]
    pub const fn round(self, index: u64) -> u64 {
        index & !(self.pages() - 1)
    }
}

/// What an entry says is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing: it is only a lock.
    Empty,
    /// The zero page (or the huge one), because the file has a hole there.
    Zero,
    /// The device page of the entry's first page.
    Page(DevPage),
}

/// The packed word: flags in the low bits, the device page above them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(u64);

const LOCKED: u64 = 1;
const PMD: u64 = 1 << 1;
const ZERO: u64 = 1 << 2;
const EMPTY: u64 = 1 << 3;
const DIRTY: u64 = 1 << 4;
const TOWRITE: u64 = 1 << 5;
const PAGE_SHIFT: u32 = 8;

impl Entry {
    pub(crate) fn new(order: Order, content: Content) -> Self {
        let order = if order == Order::Pmd { PMD } else { 0 };
        Self(order | Self::content_bits(content))
    }

    fn content_bits(content: Content) -> u64 {
        match content {
            Content::Empty => EMPTY,
            Content::Zero => ZERO,
            // OK to shift: a `DevPage` is below 2^52.
            Content::Page(page) => page.get() << PAGE_SHIFT,
        }
    }

    pub(crate) fn order(self) -> Order {
        if self.0 & PMD != 0 { Order::Pmd } else { Order::Pte }
    }

    pub(crate) fn content(self) -> Content {
        if self.0 & EMPTY != 0 {
            Content::Empty
        } else if self.0 & ZERO != 0 {
            Content::Zero
        } else {
            Content::Page(DevPage(self.0 >> PAGE_SHIFT))
        }
    }

    pub(crate) fn with_content(self, content: Content) -> Self {
        Self(self.0 & (LOCKED | PMD | DIRTY | TOWRITE) | Self::content_bits(content))
    }

    pub(crate) fn is_locked(self) -> bool {
        self.0 & LOCKED != 0
    }

    pub(crate) fn is_dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    pub(crate) fn is_towrite(self) -> bool {
        self.0 & TOWRITE != 0
    }

    pub(crate) fn locked(self) -> Self {
        Self(self.0 | LOCKED)
    }

    pub(crate) fn unlocked(self) -> Self {
        Self(self.0 & !LOCKED)
    }

    pub(crate) fn dirty(self) -> Self {
        Self(self.0 | DIRTY)
    }

    pub(crate) fn clean(self) -> Self {
        Self(self.0 & !DIRTY)
    }

    pub(crate) fn towrite(self) -> Self {
        Self(self.0 | TOWRITE)
    }

    pub(crate) fn not_towrite(self) -> Self {
        Self(self.0 & !TOWRITE)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.order(), self.content())?;
        for (bit, name) in [(LOCKED, "locked"), (DIRTY, "dirty"), (TOWRITE, "towrite")] {
            if self.0 & bit != 0 {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }
}

/// An entry as others may see it, with the file page at which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryInfo {
    /// First file page.
    pub index: u64,
    /// Its size.
    pub order: Order,
    /// What it maps.
    pub content: Content,
    /// Whether somebody works on it.
    pub locked: bool,
    /// Whether it was stored to since it was last written back.
    pub dirty: bool,
}

impl EntryInfo {
    pub(crate) fn new(index: u64, entry: Entry) -> Self {
        Self {
            index,
            order: entry.order(),
            content: entry.content(),
            locked: entry.is_locked(),
            dirty: entry.is_dirty(),
        }
    }
}
