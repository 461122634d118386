//! What the tests of the workspace share: golden images, the tools of other people, mounts that always come down
//! again, walks of mounted trees, seeded chance, and skips that are seen.
//!
//! Everything here panics where a test would: a helper that fails is a test that fails. What the machine lacks is
//! announced with [`skip!`] instead, and `.ci/run` counts the announcements.

pub mod crash;
pub mod dax;
pub mod exercise;
pub mod golden;
pub mod hostile;
pub mod machine;
pub mod memory;
pub mod mount;
pub mod oracle;
pub mod posix;
pub mod rng;
pub mod scratch;
pub mod sim;
pub mod skip;
pub mod small;
pub mod tools;
pub mod tree;
pub mod walk;

pub use golden::{Golden, Verdict};
pub use mount::{Access, with_mount};
pub use rng::Rng;
pub use scratch::Scratch;
pub use walk::walk;

/// The program in the README, which is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
