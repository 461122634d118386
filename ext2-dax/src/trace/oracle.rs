//! The format of the listings in `testdata/linux-6.1`: what the kernel traced, less what differs from
//! boot to boot (times, addresses, inode numbers, page frame numbers).

use super::event::{Event, FaultInfo};

/// The line of `event` without indentation; `None` for events that are not the kernel's `fs_dax`.
#[must_use]
pub fn line(event: &Event) -> Option<String> {
    let name = event.is_fs_dax().then(|| event.name())?;
    Some(match event {
        Event::PmdFault(info, max) => format!("{name} {} max_pgoff={max:#x}", place(info)),
        Event::PmdFaultDone(info, max, result) => {
            format!("{name} {} max_pgoff={max:#x} -> {result}", place(info))
        }
        Event::PmdLoadHole(info) | Event::PmdLoadHoleFallback(info) => format!("{name} {}", sharing(info)),
        Event::PteFault(info, _) => format!("{name} {}", place(info)),
        Event::PteFaultDone(info, result)
        | Event::LoadHole(info, result)
        | Event::InsertPfnMkwrite(info, result)
        | Event::InsertPfnMkwriteNoEntry(info, result) => format!("{name} {} -> {result}", place(info)),
        Event::WritebackRange { start, end } => format!("{name} pgoff={start:#x}-{end:#x}"),
        Event::WritebackOne { pgoff, pglen } => format!("{name} pgoff={pgoff:#x} pglen={pglen:#x}"),
        _ => name.to_owned(),
    })
}

fn place(info: &FaultInfo) -> String {
    let write = if info.write { " WRITE" } else { "" };
    format!("{}{write} pgoff={:#x}", sharing(info), info.pgoff)
}

fn sharing(info: &FaultInfo) -> &'static str {
    if info.shared { "shared" } else { "private" }
}
