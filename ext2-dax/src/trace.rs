//! What the data path did, as typed events, and four ways to print them.
//!
//! [`oracle`] prints the lines of the recordings in `testdata/linux-6.1`, [`ftrace`] what the kernel's
//! trace file shows, [`json`] one JSON object a line, [`chrome`] a file that Perfetto and
//! `chrome://tracing` open.

pub mod chrome;
mod event;
pub mod ftrace;
pub mod json;
pub mod oracle;
mod recorder;

pub use event::{Event, FaultInfo, InodeId};
pub use recorder::{EventLog, Listener, Record, Tracer};
