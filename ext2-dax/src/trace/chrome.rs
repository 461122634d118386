//! The Trace Event Format, which Perfetto and `chrome://tracing` open: faults and write-backs are
//! slices with a beginning and an end, everything else is an instant.

use std::fmt::{self, Write};

use super::event::Event;
use super::json;
use super::recorder::Record;

/// Writes a whole file of `records`.
///
/// # Errors
/// What `out` says.
pub fn write_all<'a>(out: &mut impl Write, records: impl IntoIterator<Item = &'a Record>) -> fmt::Result {
    out.write_str("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    for (at, record) in records.into_iter().enumerate() {
        out.write_str(if at == 0 { "\n" } else { ",\n" })?;
        write_one(out, record)?;
    }
    out.write_str("\n]}\n")
}

fn write_one(out: &mut impl Write, record: &Record) -> fmt::Result {
    let event = &record.event;
    let phase = match event {
        Event::PmdFault(..) | Event::PteFault(..) | Event::WritebackRange { .. } => 'B',
        Event::PmdFaultDone(..) | Event::PteFaultDone(..) | Event::WritebackRangeDone { .. } => 'E',
        _ => 'i',
    };
    let name = event.name();
    let name = name.strip_suffix("_done").unwrap_or(name);
    write!(
        out,
        "{{\"name\":\"{name}\",\"cat\":\"dax\",\"ph\":\"{phase}\",\"pid\":1,\"tid\":{}",
        record.thread
    )?;
    write!(out, ",\"ts\":{}.{:03}", record.time_ns / 1000, record.time_ns % 1000)?;
    if phase == 'i' {
        out.write_str(",\"s\":\"t\"")?;
    }
    write!(out, ",\"args\":{{\"ino\":{}", record.inode.ino)?;
    json::fields(out, event)?;
    out.write_str("}}")
}
