//! Crashes: a workload is recorded, every state that the media may hold at any moment of it is mended as `e2fsck -p`
//! would, and compared with what the file system had promised.
//!
//! The promise is built from the running file system itself: what it shows after each operation is what a crash must
//! not take away. That what it shows is right is the concern of the model test.
//!
//! # What a state costs
//! A state differs in some lines from the one before it, and so does the copy that is mended: its changes are brought up
//! to date and its own undone. Each state is mended, whatever it has in common with others. Then its files are read,
//! unless what would be read is, block for block, what was read and found as promised in a state before it.

mod action;
mod again;
mod base;
mod external;
mod judge;
mod known;
mod promise;
mod report;
mod rights;
mod states;
mod sweep;
mod workload;

pub use action::{Action, bytes_of, perform};
pub use base::{Base, NOW, STALE, options, spoil_free_blocks};
pub use judge::barriers_of;
pub use promise::{History, Moment, Promise};
pub use report::Report;
pub use sweep::{Device, Moves, Plan, Sharing, run};
pub use workload::{
    dax_vocabulary, in_inodes, moves, pairs, rights, seeded, sharing, singles, vocabulary, wild,
};
