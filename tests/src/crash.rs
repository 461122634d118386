//! Crashes: a workload is recorded, every state that the media may hold at any moment of it is mended as `e2fsck -p`
//! would, and compared with what the file system had promised.
//!
//! The promise is built from the running file system itself: what it shows after each operation is what a crash must
//! not take away. That what it shows is right is the concern of the model test.

mod action;
mod promise;
mod sweep;

pub use action::{Action, bytes_of, dax_vocabulary, perform, seeded, vocabulary};
pub use promise::{History, Moment};
pub use sweep::{Base, Device, NOW, Plan, Report, STALE, options, run};
