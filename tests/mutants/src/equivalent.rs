//! Mutants that do the same as the code, each with its reason: `equivalent.txt`.
//!
//! A line that is not indented names a mutant by its key, or several by `...` at the end; the indented lines below it
//! are the reason. Lines that begin with `#` are for the reader.

use crate::site::Mutant;

/// The list.
#[derive(Debug, Default)]
pub struct Equivalent(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    key: String,
    reason: String,
}

impl Equivalent {
    /// Reads the list.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut entries: Vec<Entry> = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            match (line.starts_with(' '), entries.last_mut()) {
                (false, _) => entries.push(Entry { key: line.trim_end().to_owned(), reason: String::new() }),
                (true, Some(entry)) => entry.reason.push_str(line),
                (true, None) => return Err(format!("a reason without a mutant: {line}")),
            }
        }
        match entries.iter().find(|entry| entry.reason.is_empty()) {
            Some(entry) => Err(format!("no reason: {}", entry.key)),
            None => Ok(Self(entries)),
        }
    }

    /// Whether a mutant is in the list.
    #[must_use]
    pub fn holds(&self, key: &str) -> bool {
        self.0.iter().any(|entry| matches(&entry.key, key))
    }

    /// Entries that name no mutant any more.
    #[must_use]
    pub fn stale(&self, mutants: &[Mutant]) -> Vec<&str> {
        let gone = |entry: &&Entry| !mutants.iter().any(|mutant| matches(&entry.key, &mutant.key));
        self.0.iter().filter(gone).map(|entry| &entry.key[..]).collect()
    }
}

fn matches(pattern: &str, key: &str) -> bool {
    pattern.strip_suffix("...").map_or(key == pattern, |start| key.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::Equivalent;

    #[test]
    fn each_entry_has_a_reason_and_may_stand_for_several() {
        let list = Equivalent::parse(
            "# why\na.rs f: b: < is <=\n    Never equal.\na.rs g...\n    No\n    matter.\n",
        );
        let list = list.expect("it is understood");
        assert!(
            list.holds("a.rs f: b: < is <=") && list.holds("a.rs g: c") && !list.holds("a.rs f: b: < is ==")
        );
        assert!(Equivalent::parse("a.rs f\n").is_err() && Equivalent::parse("  reason\n").is_err());
    }

    #[test]
    fn the_list_is_understood() {
        Equivalent::parse(include_str!("../equivalent.txt")).expect("equivalent.txt is understood");
    }
}
