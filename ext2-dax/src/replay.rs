//! Scripts of file operations, run against the DAX path and written down the way the recordings of
//! Linux in `testdata/linux-6.1` are.
//!
//! A [`Script`] is parsed whole before anything is done, so a mistake in it changes nothing. A
//! [`Player`] keeps what a running kernel keeps between the calls of a program: open files (the inode
//! cache), memory mappings, and one address space.

mod namespace;
mod parse;
mod pattern;
mod play;

pub use parse::{Line, MapMode, Op, ParseError, Script};
pub use pattern::{CrcSink, PatternSource};
pub use play::{Events, Outcome, Player};
