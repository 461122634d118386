//! Flying the lessons.

use std::sync::Arc;

use ext2_dax::Asked;
use ext2_dax::entry::PAGE_SIZE;
use ext2_dax::fault::device_page;
use ext2_dax::iomap::{Iomap, MapKind};
use ext2_dax::mmu::soft::{MapRequest, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};

use super::{LESSONS, Lesson, Ran};
use crate::flight::{Flight, Track, fly};
use crate::machines::{self, IMAGE_SIZE, Machine, empty_image};
use crate::snapshot::map_state;
use crate::source;
use crate::step::{Counts, Step};
use crate::toy::Toy;

/// Runs lesson `number`, with its mutant in place of this library or not.
///
/// # Errors
/// No such lesson.
pub(crate) fn run(number: usize, mutant: bool) -> Result<Ran, String> {
    let lesson = LESSONS
        .iter()
        .find(|lesson| lesson.number == number)
        .ok_or_else(|| format!("there is no lesson {number}"))?;
    let machine = match (number, mutant) {
        (1, true) => {
            Machine { id: "e2dax", name: "this library", about: "on the old path", ..machines::linux_4_8() }
        }
        (6, true) => machines::one_block_holes(),
        (7, true) => machines::goal_blocks(),
        _ => machines::ours(),
    };
    let flight = match number {
        2 => pages(mutant),
        4 => unmapped(mutant)?,
        5 => past_the_end(mutant)?,
        _ => fly(
            lesson.script,
            &empty_image(IMAGE_SIZE)?,
            &[machines::linux_4_8(), machines::linux_6_1(), machine],
        )?,
    };
    let knowledge = if number == 3 { source::knowledge(mutant) } else { Vec::new() };
    let of_iterator =
        knowledge.iter().filter(|knows| knows.file != "rw.rs" && !knows.of_dax.is_empty()).count();
    let measured = measure(lesson, &flight, of_iterator);
    let right = if mutant { None } else { lesson.choices.iter().position(|choice| *choice == measured) };
    Ok(Ran { lesson, mutant, measured, right, flight, knowledge })
}

/// A number and the word for what is counted.
fn count(number: u64, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// What the lesson asks for, of the last machine, which is this library.
fn measure(lesson: &Lesson, flight: &Flight, of_iterator: usize) -> String {
    let Some(last) = flight.machines.last() else { return String::new() };
    let steps = || last.steps.iter().zip(&flight.script);
    match lesson.number {
        1 => {
            let reads = steps().filter(|(_, line)| line.starts_with("read"));
            count(reads.map(|(step, _)| step.counts.exclusive).sum(), "time")
        }
        2 => count(last.steps.iter().filter(|step| step.result.contains("not")).count() as u64, "place"),
        3 => count(of_iterator as u64, "file"),
        6 => {
            let touch = steps().filter(|(_, line)| line.starts_with("touch"));
            count(touch.map(|(step, _)| step.counts.faults()).sum(), "fault")
        }
        7 => {
            let maps = last.steps.last().map(|step| step.maps.as_slice()).unwrap_or_default();
            count(maps.iter().flat_map(|map| &map.runs).map(|run| run.count).sum(), "translation")
        }
        _ => last.steps.first().map(|step| step.result.clone()).unwrap_or_default(),
    }
}

fn single(id: &'static str, name: &'static str, about: &'static str, lines: Vec<(String, Step)>) -> Flight {
    let (script, steps) = lines.into_iter().unzip();
    Flight::new(script, 0, vec![Track { id, name, about, steps }])
}

/// Six places: what the helper, or the mask by hand, makes of them.
fn pages(mutant: bool) -> Flight {
    const CASES: [(u64, u64, u64); 6] = [
        (40 * PAGE_SIZE, 7 * PAGE_SIZE, 7 * PAGE_SIZE),
        (40 * PAGE_SIZE, 7 * PAGE_SIZE, 9 * PAGE_SIZE + 12),
        (40 * PAGE_SIZE + 1000, 7 * PAGE_SIZE + 1000, 7 * PAGE_SIZE + 1000),
        (40 * PAGE_SIZE + 1000, 7 * PAGE_SIZE + 1000, 8 * PAGE_SIZE),
        (40 * PAGE_SIZE + 1000, 7 * PAGE_SIZE + 1000, 9 * PAGE_SIZE + 512),
        (40 * PAGE_SIZE + 4095, 7 * PAGE_SIZE + 4095, 8 * PAGE_SIZE),
    ];
    let lines = CASES.iter().map(|&(addr, offset, pos)| {
        // By the definition: the page of the byte's own address.
        let there = (addr + (pos - offset)) / PAGE_SIZE;
        let found = if mutant {
            (addr + ((pos - offset) & !(PAGE_SIZE - 1))) / PAGE_SIZE
        } else {
            device_page(&Iomap::<()>::mapped(offset, 4 * PAGE_SIZE, addr), pos)
                .map_or(u64::MAX, |page| page.get())
        };
        let result =
            if found == there { format!("page {found}") } else { format!("page {found}, not {there}") };
        let text = format!("addr {addr:#x}, offset {offset:#x}: the page of byte {pos:#x}");
        (text, Step { result, ..Step::default() })
    });
    let about = if mutant { "the mask by hand" } else { "device_page" };
    single("e2dax", "this library", about, lines.collect())
}

/// A step of the toy.
fn toy_step(toy: &Toy, result: String) -> Step {
    let mut step = Step { result, ..Step::default() };
    step.hear(&toy.log.take(), PAGE_SIZE);
    step.counts = Counts { calls: step.calls.len() as u64, ..Counts::default() };
    step.total = step.counts;
    step
}

fn request(pages: u64) -> MapRequest {
    let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
    MapRequest { offset: 0, len: pages * PAGE_SIZE, sharing, protection, colour: 0 }
}

/// A write to a block that is said to be unwritten, and what is in it then.
fn unmapped(mutant: bool) -> Result<Flight, String> {
    let toy = Toy::new(PAGE_SIZE, 0, MapKind::Unwritten).map_err(|error| error.to_string())?;
    let bytes = [0xaa; 16];
    let written = if mutant { toy.write_and_warn(0, &bytes) } else { toy.write(0, &bytes) };
    let result = match written {
        Ok(count) => format!("n={count}"),
        Err(error) => format!("errno={}", error.errno().get()),
    };
    let write = toy_step(&toy, result);
    let byte = toy.first_byte().map_err(|error| error.to_string())?;
    let look = toy_step(&toy, format!("byte={byte:02x}"));
    let map = SoftMmu::new().map(Arc::clone(&toy) as _, &request(1)).map_err(|error| error.to_string())?;
    let store = match map.store(0, 1) {
        Ok(()) => "ok".into(),
        Err(signal) => format!("signal={signal}"),
    };
    let store = toy_step(&toy, store);
    let about = if mutant { "warns, and goes on" } else { "the library's path over a toy file system" };
    let lines = vec![
        ("write f 0 16".to_owned(), write),
        ("look at the block".to_owned(), look),
        ("store m 0 1".to_owned(), store),
    ];
    Ok(single("e2dax", "this library", about, lines))
}

/// Loads from both pages of a file of one page.
fn past_the_end(mutant: bool) -> Result<Flight, String> {
    let lenience = if mutant { PAGE_SIZE - 1 } else { 0 };
    let toy = Toy::new(PAGE_SIZE, lenience, MapKind::Mapped).map_err(|error| error.to_string())?;
    let map = SoftMmu::new().map(Arc::clone(&toy) as _, &request(3)).map_err(|error| error.to_string())?;
    let (mut lines, mut before) = (Vec::new(), Counts::default());
    for page in [1, 0, 2] {
        let result = match map.load(page * PAGE_SIZE) {
            Ok(byte) => format!("byte={byte:02x}"),
            Err(signal) => format!("signal={signal}"),
        };
        let mut step = toy_step(&toy, result);
        step.maps = vec![map_state("m", &map)];
        let calls = before.calls + step.counts.calls;
        step.total = Counts { calls, ..Counts::of(&Asked::default(), &map.mmu().counters()) };
        step.counts = step.total.since(&before);
        before = step.total;
        lines.push((format!("load m {:#x}", page * PAGE_SIZE), step));
    }
    let about = if mutant { "pos >= i_size + PAGE_SIZE - 1" } else { "pos >= i_size" };
    Ok(single("e2dax", "this library", about, lines))
}
