//! Ranges of this process's addresses whose pages are put together from a file, one run at a time, while threads use them.
//!
//! A [`HostSpace`] is one range. Each of its pages is one of these at any moment:
//!
//! | kind | placed by | a load | a store |
//! |---|---|---|---|
//! | missing | [`place_missing`](HostSpace::place_missing) | waits for who answers [`HostFaults::next`] | the same |
//! | zeros | [`place_zeros`](HostSpace::place_zeros) | the kernel's zero page | waits, as above |
//! | a page of the file | [`place_file`](HostSpace::place_file) | the file's page | the same, or a private copy |
//! | nothing | [`place_end`](HostSpace::place_end) | `SIGBUS`, `BUS_ADRERR` | the same |
//! | a private page | [`copy_page`](HostSpace::copy_page) | itself | itself |
//!
//! What waits is told through userfaultfd. The file itself is never registered, only the anonymous memory under it, so that
//! any file that can be mapped will do, whatever file system it is on.
//!
//! Pages of the file may be protected so that the first store to each is noted: [`StoresBy`].
//!
//! # Invariants
//! 1. Every change of a page is one system call that the kernel makes whole: no thread ever sees a page that is neither what
//!    it was nor what it is to be. Where a page is to fault again, a range that is prepared elsewhere is moved over it
//!    (`mremap`); mapping anonymous memory and registering it afterwards lets zeros through in between.
//! 2. When a call that takes pages away returns, no access through them is under way.
//! 3. Nothing outside the range is touched, and nothing is unmapped while a [`PmemSlice`](crate::PmemSlice) of it lives.
//! 4. Memory that a child of `fork` would share is not inherited: the child gets `SIGSEGV`.
//!
//! # Traps of the kernel
//! - `mremap` of a registered range waits until somebody has read the event, and whoever reads events may himself be the one
//!   who moves. So there is a second reader, who wakes only then: [`HostFaults::assist`].
//! - A range that is registered for missing pages stays so: `UFFDIO_REGISTER` does not take a mode away. Which of the two a
//!   range is for is settled before it is shown.
//! - Write-protection of a mapped file takes its 2 MiB translations apart, and ends fault-around.

mod abi;
mod bits;
mod faults;
mod ledger;
mod pages;
mod reserve;
mod signals;
mod space;
mod stage;
mod stores;
#[cfg(test)]
mod tests;
mod uffd;
mod view;

pub use faults::{HostFaults, Next, PageFault, keep_signals_away};
pub use pages::{PageKind, PageRun};
pub use reserve::Reserve;
pub use signals::resume_store;
pub use space::{FileUse, HostSpace, Rights, max_map_count};
pub use stores::StoresBy;
pub use uffd::Features;
pub use view::{HostView, huge_zero_page};
