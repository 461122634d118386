//! The table that is printed.

use std::time::Duration;

/// In what a row is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// Gigabytes (10^9) a second, for work over so many bytes.
    Bytes(f64),
    /// Microseconds a call, for so many calls.
    Calls(f64),
    /// Seconds.
    Seconds,
}

impl Unit {
    fn show(self, took: Duration) -> String {
        let seconds = took.as_secs_f64();
        match self {
            Self::Bytes(bytes) => format!("{:.2} GB/s", bytes / seconds / 1e9),
            Self::Calls(calls) => {
                let micros = seconds / calls * 1e6;
                if micros < 1.0 { format!("{:.1} ns", micros * 1e3) } else { format!("{micros:.2} us") }
            }
            Self::Seconds => format!("{seconds:.3} s"),
        }
    }
}

/// Prints the head of a table.
pub fn head(title: &str) {
    println!("\n## {title}\n");
    println!("| what | ours | beside | it | ours is |\n|---|---:|---|---:|---:|");
}

/// Prints a row: ours, which is the first, and each of the others with how many times faster ours is.
pub fn row(what: &str, unit: Unit, medians: &[(&'static str, Duration)]) {
    let Some(((_, ours), others)) = medians.split_first() else { return };
    if others.is_empty() {
        println!("| {what} | {} | | | |", unit.show(*ours));
    }
    for (nr, (name, theirs)) in others.iter().enumerate() {
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
        let (what, own) = if nr == 0 { (what, unit.show(*ours)) } else { ("", String::new()) };
        println!("| {what} | {own} | {name} | {} | {ratio:.2} x |", unit.show(*theirs));
    }
}

/// Prints a row that holds numbers and no times.
pub fn note(what: &str, value: &str) {
    println!("| {what} | {value} | | | |");
}

/// Says aloud that something is not measured.
pub fn skip(what: &str, why: &str) {
    println!("| {what} | skipped: {why} | | | |");
}
