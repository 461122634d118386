//! The four ways to print events.

use ext2_dax::fault::{Fallback, FaultResult};
use ext2_dax::iomap::{MapFlags, MapKind, OpFlags};
use ext2_dax::trace::{Event, FaultInfo, InodeId, Record, chrome, ftrace, json, oracle};

fn info() -> FaultInfo {
    let (vm_start, vm_end) = (0x7000_0000_0000, 0x7000_0040_0000);
    FaultInfo { shared: true, write: true, address: 0x7000_0000_3000, vm_start, vm_end, pgoff: 3 }
}

fn record(event: Event) -> Record {
    Record { time_ns: 1_000_234_567, thread: 2, inode: InodeId { dev: (259, 0), ino: 12 }, event }
}

fn iter() -> Event {
    let (flags, map_flags) = (OpFlags::WRITE | OpFlags::DAX, MapFlags::NEW | MapFlags::MERGED);
    let kind = MapKind::Mapped;
    Event::IomapIter {
        pos: 8192,
        length: 4096,
        flags,
        offset: 4096,
        answered: 8192,
        kind,
        map_flags,
        addr: None,
    }
}

#[test]
fn the_recordings_format_leaves_out_what_differs_from_boot_to_boot() {
    let line = |event| oracle::line(&event).unwrap_or_default();
    assert_eq!(line(Event::PteFault(info(), FaultResult::empty())), "dax_pte_fault shared WRITE pgoff=0x3");
    assert_eq!(
        line(Event::PmdFaultDone(info(), 8, FaultResult::MAJOR | FaultResult::NOPAGE)),
        "dax_pmd_fault_done shared WRITE pgoff=0x3 max_pgoff=0x8 -> MAJOR|NOPAGE"
    );
    assert_eq!(line(Event::PmdLoadHole(info())), "dax_pmd_load_hole shared");
    assert_eq!(line(Event::WritebackRange { start: 0, end: 15 }), "dax_writeback_range pgoff=0x0-0xf");
    assert_eq!(line(Event::WritebackRangeDone { start: 0, end: 15 }), "dax_writeback_range_done");
    assert_eq!(line(Event::Downgrade { index: 512 }), "", "the kernel has no such event");
}

#[test]
fn ftrace_text_has_the_kernel_s_fields_in_the_kernel_s_order() {
    let mut text = String::new();
    ftrace::write(&mut text, &record(Event::PteFaultDone(info(), FaultResult::NOPAGE))).unwrap();
    ftrace::write(&mut text, &record(Event::PmdFault(info(), 8))).unwrap();
    ftrace::write(&mut text, &record(Event::WritebackOne { pgoff: 512, pglen: 512 })).unwrap();
    let head = "           e2dax-2       [000] .....     1.000234: ";
    let expected = [
        "dax_pte_fault_done: dev 259:0 ino 0xc shared WRITE address 0x700000003000 pgoff 0x3 NOPAGE",
        "dax_pmd_fault: dev 259:0 ino 0xc shared WRITE address 0x700000003000 vm_start 0x700000000000 \
         vm_end 0x700000400000 pgoff 0x3 max_pgoff 0x8",
        "dax_writeback_one: dev 259:0 ino 0xc pgoff 0x200 pglen 0x200",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected.map(|line| format!("{head}{line}")));
}

#[test]
fn json_is_one_object_a_line() {
    let mut text = String::new();
    json::write(&mut text, &record(iter())).unwrap();
    json::write(&mut text, &record(Event::Fallback { index: 512, reason: Fallback::Conflict })).unwrap();
    let head = |name| {
        format!("{{\"event\":\"{name}\",\"time_ns\":1000234567,\"thread\":2,\"dev\":\"259:0\",\"ino\":12")
    };
    let iter = "\"pos\":8192,\"length\":4096,\"op\":\"WRITE | DAX\",\"offset\":4096,\"answered\":8192,\
                \"type\":\"Mapped\",\"flags\":\"NEW | MERGED\"}";
    let expected = [
        format!("{},{iter}", head("iomap_iter")),
        format!("{},\"pgoff\":512,\"reason\":\"conflict\",\"number\":6}}", head("e2dax_fallback")),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn chrome_has_a_slice_for_each_fault() {
    let mut text = String::new();
    let records = [
        record(Event::PteFault(info(), FaultResult::empty())),
        record(Event::LoadHole(info(), FaultResult::NOPAGE)),
        record(Event::PteFaultDone(info(), FaultResult::NOPAGE)),
    ];
    chrome::write_all(&mut text, &records).unwrap();
    let phases: Vec<&str> = text.split("\"ph\":\"").skip(1).map(|rest| &rest[..1]).collect();
    assert_eq!(phases, ["B", "i", "E"]);
    assert_eq!(text.matches("\"name\":\"dax_pte_fault\"").count(), 2, "a slice ends under its own name");
    assert!(text.contains("\"ts\":1000234.567"));
    assert_eq!(text.matches('{').count(), text.matches('}').count());
    assert!(text.starts_with("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[") && text.ends_with("]}\n"));
}
