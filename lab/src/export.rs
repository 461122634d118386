//! Flights in other formats, and the page with a recording in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ext2_dax::replay::Script;
use ext2_dax::trace::{Record, chrome, ftrace, json};
use serde::Serialize;

use crate::flight::{Flight, fly};
use crate::machines::{Machine, standard};

/// What one machine did with a script: `chrome` (Perfetto), `ftrace`, `json`, or `markdown` of all three.
///
/// # Errors
/// No such format, a line that is no operation, an image that does not open.
pub(crate) fn text(script: &str, image: &[u8], machine: &Machine, format: &str) -> Result<String, String> {
    if format == "markdown" {
        return Ok(markdown(&fly(script, image, &standard())?));
    }
    let script = Script::parse(script.as_bytes()).map_err(|error| error.to_string())?;
    let mut records: Vec<Record> = Vec::new();
    machine.boot(image)?.play(&script, |outcome| records.extend(&outcome.events));
    let mut text = String::new();
    let written = match format {
        "chrome" => chrome::write_all(&mut text, &records),
        "ftrace" => {
            text.push_str(ftrace::HEADER);
            records.iter().try_for_each(|record| ftrace::write(&mut text, record))
        }
        "json" => records.iter().try_for_each(|record| json::write(&mut text, record)),
        other => return Err(format!("{other:?} is no format: chrome, ftrace, json, markdown")),
    };
    // Writing to a String does not fail.
    debug_assert!(written.is_ok());
    Ok(text)
}

/// A table with a line for each step.
fn markdown(flight: &Flight) -> String {
    let mut text = String::from("| step | operation |");
    for track in &flight.machines {
        let _ = write!(text, " {} | calls | faults |", track.name);
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---|---|---|".repeat(flight.machines.len()));
    text.push('\n');
    for (at, line) in flight.script.iter().enumerate() {
        let _ = write!(text, "| {} | {} |", at + 1, code(line));
        for step in flight.machines.iter().filter_map(|track| track.steps.get(at)) {
            let result = step.result.replace('|', "\\|");
            let _ = write!(text, " {result} | {} | {} |", step.counts.calls, step.counts.faults());
        }
        text.push('\n');
    }
    text
}

/// A span of code in a cell, whatever is in it.
fn code(line: &str) -> String {
    let line = line.replace('|', "\\|");
    let ticks = if line.contains('`') { "``" } else { "`" };
    let space = if line.starts_with('`') || line.ends_with('`') { " " } else { "" };
    format!("{ticks}{space}{line}{space}{ticks}")
}

/// A script that somebody ran, as a page shows it first.
#[derive(Debug, Serialize)]
pub struct Recording {
    name: String,
    flight: Flight,
    /// What can be saved of it: of each machine for Perfetto and as ftrace writes it, and of all.
    chrome: BTreeMap<&'static str, String>,
    ftrace: BTreeMap<&'static str, String>,
    markdown: String,
}

impl Recording {
    /// Flies a script on the three machines, each on a copy of `image`.
    ///
    /// # Errors
    /// A line that is no operation, an image that does not open.
    pub fn of(name: &str, script: &str, image: &[u8]) -> Result<Self, String> {
        let flight = fly(script, image, &standard())?;
        let all = |format: &str| -> Result<BTreeMap<&'static str, String>, String> {
            standard().iter().map(|machine| Ok((machine.id, text(script, image, machine, format)?))).collect()
        };
        Ok(Self {
            name: name.to_owned(),
            chrome: all("chrome")?,
            ftrace: all("ftrace")?,
            markdown: markdown(&flight),
            flight,
        })
    }
}

/// The place in the page where a recording goes.
const PLACE: &str = "<script id=\"recording\" type=\"application/json\">";

/// `page`, which is `docs/lab.html`, with a recording in it that it shows first. `None` where the page has no place for one.
#[must_use]
pub fn page_with(page: &str, recording: &Recording) -> Option<String> {
    // Inside a script nothing may end it.
    let recording = serde_json::to_string(recording).ok()?.replace('<', "\\u003c");
    let (before, after) = page.split_once(PLACE)?;
    Some(format!("{before}{PLACE}{recording}{after}"))
}
