//! What the data path did, as typed events, and four ways to print them.
//!
//! [`oracle`] prints the lines of the recordings in `testdata/linux-6.1`, [`ftrace`] what the kernel's
//! trace file shows, [`json`] one JSON object a line, [`chrome`] a file that Perfetto and
//! `chrome://tracing` open.
//!
//! ```
//! use ext2_core::Follow;
//! use ext2_dax::trace::{EventLog, ftrace};
//! use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
//! # let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(16 << 20)?, &Default::default())?;
//!
//! fs.write("file", "")?;
//! let dax = DaxFs::new(fs.clone(), DaxOptions::default());
//! let file = File::open(&dax, fs.resolve("file", Follow::Yes)?, OpenFor::Writing)?;
//! let log = EventLog::new();
//! dax.tracer().listen(Some(log.clone()));
//! file.write_all_at(1 << 20, b"after a hole")?;
//!
//! let mut text = String::new();
//! for record in log.take() {
//!     ftrace::write(&mut text, &record)?;
//! }
//! assert!(text.contains("iomap_iter"), "{text}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod chrome;
mod event;
pub mod ftrace;
pub mod json;
pub mod oracle;
mod recorder;

pub use event::{Event, FaultInfo, InodeId};
pub use recorder::{EventLog, Listener, Record, Tracer};
