//! Which modules a source of `ext2-dax` names: point 3 of the mail is about what the iterator may know.

use serde::Serialize;

/// What a file of the library knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Knows {
    /// The file.
    pub(crate) file: &'static str,
    /// Modules of the crate that it names, each once.
    pub(crate) modules: Vec<String>,
    /// Of these, those that are about DAX.
    pub(crate) of_dax: Vec<String>,
}

/// The three files that may not know DAX, and one that has to.
const FILES: [(&str, &str); 4] = [
    ("iomap.rs", include_str!("../quoted/iomap.rs")),
    ("map_kind.rs", include_str!("../quoted/map_kind.rs")),
    ("iter.rs", include_str!("../quoted/iter.rs")),
    ("rw.rs", include_str!("../quoted/rw.rs")),
];

/// What the iterator may name.
const ALLOWED: [&str; 4] = ["error", "iomap", "iter", "map_kind"];

/// The line that the mutant has more: the iterator does the faulting.
pub(crate) const MUTANT_LINE: &str = "use crate::fault::FaultResult;";

/// What each file knows; with `mutant`, `iter.rs` has one line more.
pub(crate) fn knowledge(mutant: bool) -> Vec<Knows> {
    FILES
        .iter()
        .map(|&(file, text)| {
            let more = if mutant && file == "iter.rs" { MUTANT_LINE } else { "" };
            let mut modules: Vec<String> =
                code_lines(text).chain([more]).flat_map(named).map(str::to_owned).collect();
            modules.sort();
            modules.dedup();
            let of_dax = modules.iter().filter(|name| !ALLOWED.contains(&name.as_str())).cloned().collect();
            Knows { file, modules, of_dax }
        })
        .collect()
}

/// Lines that are not comments, up to the tests of the file.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
}

/// The modules that a line names.
fn named(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .map(|(at, prefix)| {
            let rest = &line[at + prefix.len()..];
            &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
        })
        .filter(|name| !name.is_empty())
        .collect()
}
