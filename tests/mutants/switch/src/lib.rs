//! Which mutant is active in this process: the one whose number is in `E2DAX_MUTANT`, or none.
//!
//! With `E2DAX_MUTANT_RECORD` none is active, and each mutant that is come by is noted in the file of that name, once: four
//! bytes, little-endian, the number, with the highest bit set where the mutant's value is another. That of a comparison is
//! computed to find out; any other mutant counts as another wherever it is come by.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicU32, Ordering::Relaxed},
    },
};

/// Added to a number that is noted where the mutant's value is another.
pub const DIFFERS: u32 = 1 << 31;

const UNREAD: u32 = u32::MAX;
const RECORD: u32 = u32::MAX - 1;
const MOST: usize = 1 << 16;

static ACTIVE: AtomicU32 = AtomicU32::new(UNREAD);
static NOTED: [AtomicU8; MOST] = [const { AtomicU8::new(0) }; MOST];
static RECORD_FILE: OnceLock<File> = OnceLock::new();

/// Whether mutant `id` is active.
#[inline]
#[must_use]
pub fn on(id: u32) -> bool {
    let active = ACTIVE.load(Relaxed);
    if active < RECORD { active == id } else { on_slow(id) }
}

#[cold]
fn on_slow(id: u32) -> bool {
    let active = read();
    if active == RECORD {
        note(id, true);
    }
    active == id
}

/// Whether one of the mutants `first..=last` is active, or they are noted.
#[inline]
#[must_use]
pub fn any(first: u32, last: u32) -> bool {
    let active = ACTIVE.load(Relaxed);
    if active < RECORD { (first..=last).contains(&active) } else { any_slow(first, last) }
}

#[cold]
fn any_slow(first: u32, last: u32) -> bool {
    let active = read();
    active == RECORD || (first..=last).contains(&active)
}

/// The value of the active one of some mutants of a comparison, or else the `original`.
#[must_use]
pub fn choose(original: bool, mutants: &[(u32, bool)]) -> bool {
    let active = read();
    if active == RECORD {
        for &(id, value) in mutants {
            note(id, value != original);
        }
    }
    mutants.iter().find(|(id, _)| *id == active).map_or(original, |(_, value)| *value)
}

/// The active mutant, or [`RECORD`].
fn read() -> u32 {
    let active = ACTIVE.load(Relaxed);
    if active != UNREAD {
        return active;
    }
    let active = match (std::env::var_os("E2DAX_MUTANT_RECORD"), std::env::var("E2DAX_MUTANT")) {
        (Some(path), _) => {
            let file = OpenOptions::new().append(true).create(true).open(path).expect("the record opens");
            let _ = RECORD_FILE.set(file);
            RECORD
        }
        (None, Ok(number)) => number.parse().expect("E2DAX_MUTANT is a number"),
        (None, Err(_)) => 0,
    };
    ACTIVE.store(active, Relaxed);
    active
}

fn note(id: u32, differs: bool) {
    let bits = 1 | u8::from(differs) << 1;
    if NOTED[id as usize].fetch_or(bits, Relaxed) & bits == bits {
        return;
    }
    let Some(mut file) = RECORD_FILE.get() else { return };
    // Appended by one call each, so that threads and processes do not mix.
    file.write_all(&(id | if differs { DIFFERS } else { 0 }).to_le_bytes()).expect("the record takes a number");
}
