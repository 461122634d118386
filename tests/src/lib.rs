//! What the tests of the workspace share: golden images, the tools of other people, mounts that always come down
//! again, walks of mounted trees, seeded chance, and skips that are seen.
//!
//! Everything here panics where a test would: a helper that fails is a test that fails. What the machine lacks is
//! announced with [`skip!`] instead, and `.ci/run` counts the announcements.

mod claimed;
pub mod crash;
pub mod dax;
pub mod exercise;
mod forward;
pub mod golden;
mod hook;
pub mod hostile;
pub mod machine;
pub mod memory;
pub mod mount;
pub mod oracle;
pub mod posix;
pub mod rng;
pub mod scratch;
mod short_runs;
pub mod sim;
pub mod skip;
pub mod slow;
pub mod small;
pub mod tools;
pub mod tree;
pub mod walk;

pub use claimed::Claimed;
pub use golden::{Golden, Verdict};
pub use hook::Hook;
pub use mount::{Access, with_mount};
pub use rng::Rng;
pub use scratch::Scratch;
pub use short_runs::ShortRuns;
pub use walk::walk;

/// Whether a call failed since a log could not be written: it is no log any more, and says so for good.
pub fn log_is_lost(error: &ext2_core::Error) -> bool {
    error.to_string().contains("its log could not be written")
}

/// The programs in the README of the project and of its crates, which are compiled with the documentation tests.
#[cfg(doctest)]
mod readme {
    #[doc = include_str!("../../README.md")]
    pub struct Project;
    #[doc = include_str!("../../blockdev/README.md")]
    pub struct Blockdev;
    #[doc = include_str!("../../ext2-sync/README.md")]
    pub struct Sync;
    #[doc = include_str!("../../ext2-cache/README.md")]
    pub struct Cache;
    #[doc = include_str!("../../ext2-format/README.md")]
    pub struct Format;
    #[doc = include_str!("../../ext2-core/README.md")]
    pub struct Core;
    #[doc = include_str!("../../ext2-image/README.md")]
    pub struct Image;
    #[doc = include_str!("../../ext2-dax/README.md")]
    pub struct Dax;
}
