//! Scripts of file operations, run against the DAX path and written down the way the recordings of
//! Linux in `testdata/linux-6.1` are.
//!
//! A [`Script`] is parsed whole before anything is done, so a mistake in it changes nothing. A
//! [`Player`] keeps what a running kernel keeps between the calls of a program: open files (the inode
//! cache), memory mappings, and one address space.
//!
//! ```
//! use ext2_dax::replay::{Events, Player, Script};
//! use ext2_dax::{DaxFs, DaxOptions};
//! # let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(16 << 20)?, &Default::default())?;
//!
//! let script = Script::parse(b"create f\ntruncate f 8192\nread f 0 8192 # a hole\nunlink nothing\n")?;
//! let mut listing = String::new();
//! Player::new(DaxFs::new(fs, DaxOptions::default())).play(&script, |outcome| {
//!     outcome.write_oracle(&mut listing, Events::Hidden).expect("a String");
//! });
//! assert!(listing.starts_with("op 1 create f => ok\nop 2 truncate f 8192 => ok\nop 3 read f 0 8192 => n=8192"));
//! assert!(listing.ends_with("op 4 unlink nothing => errno=2\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod mapped;
mod namespace;
mod parse;
mod pattern;
mod play;

pub use parse::{Line, MapMode, Op, ParseError, Script};
pub use pattern::{CrcSink, PatternSource};
pub use play::{Events, Outcome, Player};
