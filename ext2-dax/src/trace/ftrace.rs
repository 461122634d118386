//! The text of the kernel's trace file: one line an event, as `trace-cmd report` or
//! `/sys/kernel/tracing/trace` show it.

use std::fmt::{self, Write};

use super::event::{Event, FaultInfo, InodeId};
use super::recorder::Record;

/// What the kernel writes above the lines.
pub const HEADER: &str = "# tracer: nop\n#\n#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n\
                          #              | |         |   |||||     |         |\n";

/// Appends the line of `record`, with its line feed, to `out`.
///
/// # Errors
/// What `out` says.
pub fn write(out: &mut impl Write, record: &Record) -> fmt::Result {
    let (seconds, micros) = (record.time_ns / 1_000_000_000, record.time_ns / 1000 % 1_000_000);
    let name = record.event.name();
    write!(out, "           e2dax-{:<7} [000] ..... {seconds:5}.{micros:06}: {name}: ", record.thread)?;
    fields(out, record.inode, &record.event)?;
    out.write_char('\n')
}

fn inode(out: &mut impl Write, id: InodeId) -> fmt::Result {
    write!(out, "dev {}:{} ino {:#x} ", id.dev.0, id.dev.1, id.ino)
}

fn fault(out: &mut impl Write, info: &FaultInfo) -> fmt::Result {
    let sharing = if info.shared { "shared" } else { "private" };
    let flags = if info.write { "WRITE" } else { "" };
    write!(out, "{sharing} {flags} address {:#x} ", info.address)
}

fn fields(out: &mut impl Write, id: InodeId, event: &Event) -> fmt::Result {
    inode(out, id)?;
    match event {
        Event::PmdFault(info, max) => pmd(out, info, *max),
        Event::PmdFaultDone(info, max, result) => {
            pmd(out, info, *max)?;
            write!(out, " {result}")
        }
        Event::PmdLoadHole(info) | Event::PmdLoadHoleFallback(info) => {
            let sharing = if info.shared { "shared" } else { "private" };
            write!(out, "{sharing} address {:#x} zero_page huge radix_entry 0x7", info.address)
        }
        Event::PteFault(info, result)
        | Event::PteFaultDone(info, result)
        | Event::LoadHole(info, result)
        | Event::InsertPfnMkwrite(info, result)
        | Event::InsertPfnMkwriteNoEntry(info, result) => {
            fault(out, info)?;
            write!(out, "pgoff {:#x} {result}", info.pgoff)
        }
        Event::WritebackRange { start, end } | Event::WritebackRangeDone { start, end } => {
            write!(out, "pgoff {start:#x}-{end:#x}")
        }
        Event::WritebackOne { pgoff, pglen } => write!(out, "pgoff {pgoff:#x} pglen {pglen:#x}"),
        Event::IomapIter { pos, length, flags, offset, answered, kind, map_flags, addr } => {
            write!(out, "pos {pos:#x} length {length:#x} flags {:#x} -> ", flags.bits())?;
            if let Some(addr) = addr {
                write!(out, "addr {addr:#x} ")?;
            }
            write!(out, "offset {offset:#x} length {answered:#x} type {kind:?} flags {:#x}", map_flags.bits())
        }
        Event::GetBlock { block, asked, create, mapped, sized, addr, size } => {
            write!(out, "iblock {block:#x} b_size {asked:#x} create {} -> ", u8::from(*create))?;
            if *mapped {
                write!(out, "addr {addr:#x} ")?;
            }
            let state = if *mapped {
                "mapped"
            } else if *sized {
                "sized"
            } else {
                "none"
            };
            write!(out, "b_size {size:#x} state {state}")
        }
        Event::Fallback { index, reason } => write!(out, "pgoff {index:#x} reason {reason}"),
        Event::Downgrade { index } => write!(out, "pgoff {index:#x}"),
        Event::Invalidate { start, end } => write!(out, "pgoff {start:#x}-{:#x}", end.saturating_sub(1)),
        Event::Undo { pos, len } => write!(out, "pos {pos:#x} length {len:#x}"),
    }
}

fn pmd(out: &mut impl Write, info: &FaultInfo, max_pgoff: u64) -> fmt::Result {
    fault(out, info)?;
    write!(out, "vm_start {:#x} vm_end {:#x} ", info.vm_start, info.vm_end)?;
    write!(out, "pgoff {:#x} max_pgoff {max_pgoff:#x}", info.pgoff)
}
