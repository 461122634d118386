//! One JSON object a line. Numbers are decimal; flags and outcomes are strings.

use std::fmt::{self, Write};

use super::event::{Event, FaultInfo};
use super::recorder::Record;

/// Appends the object of `record` and a line feed to `out`.
///
/// # Errors
/// What `out` says.
pub fn write(out: &mut impl Write, record: &Record) -> fmt::Result {
    let id = record.inode;
    write!(
        out,
        "{{\"event\":\"{}\",\"time_ns\":{},\"thread\":{},\"dev\":\"{}:{}\",\"ino\":{}",
        record.event.name(),
        record.time_ns,
        record.thread,
        id.dev.0,
        id.dev.1,
        id.ino
    )?;
    fields(out, &record.event)?;
    out.write_str("}\n")
}

/// Appends the event's own fields, each with a comma before it.
pub(super) fn fields(out: &mut impl Write, event: &Event) -> fmt::Result {
    if let Some(info) = event.fault() {
        fault(out, info)?;
    }
    if let Event::PmdFault(_, max) | Event::PmdFaultDone(_, max, _) = event {
        write!(out, ",\"max_pgoff\":{max}")?;
    }
    if let Some(result) = event.result() {
        write!(out, ",\"result\":\"{result}\"")?;
    }
    match event {
        Event::WritebackRange { start, end } | Event::WritebackRangeDone { start, end } => {
            write!(out, ",\"start_index\":{start},\"end_index\":{end}")
        }
        Event::WritebackOne { pgoff, pglen } => write!(out, ",\"pgoff\":{pgoff},\"pglen\":{pglen}"),
        Event::IomapIter { pos, length, flags, offset, answered, kind, map_flags, addr } => {
            write!(out, ",\"pos\":{pos},\"length\":{length},\"op\":\"")?;
            bitflags::parser::to_writer(flags, &mut *out)?;
            write!(out, "\",\"offset\":{offset},\"answered\":{answered},\"type\":\"{kind:?}\",\"flags\":\"")?;
            bitflags::parser::to_writer(map_flags, &mut *out)?;
            out.write_char('"')?;
            addr.map_or(Ok(()), |addr| write!(out, ",\"addr\":{addr}"))
        }
        Event::GetBlock { block, asked, create, mapped, sized, addr, size } => {
            write!(out, ",\"block\":{block},\"asked\":{asked},\"create\":{create},\"mapped\":{mapped}")?;
            write!(out, ",\"sized\":{sized},\"size\":{size}")?;
            if *mapped { write!(out, ",\"addr\":{addr}") } else { Ok(()) }
        }
        Event::Fallback { index, reason } => {
            write!(out, ",\"pgoff\":{index},\"reason\":\"{}\",\"number\":{}", reason.name(), reason.number())
        }
        Event::Downgrade { index } => write!(out, ",\"pgoff\":{index}"),
        Event::Invalidate { start, end } => write!(out, ",\"start_index\":{start},\"end_index\":{end}"),
        Event::Undo { pos, len } => write!(out, ",\"pos\":{pos},\"length\":{len}"),
        _ => Ok(()),
    }
}

fn fault(out: &mut impl Write, info: &FaultInfo) -> fmt::Result {
    write!(
        out,
        ",\"shared\":{},\"write\":{},\"address\":{},\"vm_start\":{},\"vm_end\":{},\"pgoff\":{}",
        info.shared, info.write, info.address, info.vm_start, info.vm_end, info.pgoff
    )
}
