//! What an image does not have of its source, or has otherwise, and nobody should find out later.
//!
//! Nothing is dropped in silence: whoever reads a source, or plans an image of it, leaves a warning for each loss.
//! Warnings of one kind are kept together, with their first paths and a count, so that a source with a million losses
//! costs no more memory than one with ten.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::manifest::quote;

/// Paths that are kept of each kind.
const PATHS: usize = 3;
/// Kinds that are kept; what a hostile source has above that counts as one.
const KINDS: usize = 200;

/// One kind of loss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// What is lost or changed.
    pub what: String,
    /// The first files that it is about, by path; empty where it is about the source as a whole.
    pub paths: Vec<Vec<u8>>,
    /// How many files it is about.
    pub count: u64,
}

/// `PATH, PATH: what happened`, fit for a terminal whatever bytes a path has.
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nr, path) in self.paths.iter().enumerate() {
            write!(f, "{}{}", if nr == 0 { "" } else { ", " }, quote(path))?;
        }
        match self.count - self.paths.len() as u64 {
            0 => {}
            more if self.paths.is_empty() => write!(f, "{more} files")?,
            more => write!(f, " and {more} more")?,
        }
        if self.paths.is_empty() && self.count == 0 {
            return f.write_str(&self.what);
        }
        write!(f, ": {}", self.what)
    }
}

/// All that was lost so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    kinds: BTreeMap<String, Warning>,
}

impl Warnings {
    /// Notes that of the file `path` something is lost or changed. `what` is the same for every file that it happens
    /// to, and holds no raw bytes of the source.
    pub fn add(&mut self, path: &[u8], what: impl Into<String>) {
        let warning = self.kind(what.into());
        if warning.paths.len() < PATHS {
            warning.paths.push(path.to_vec());
        }
        warning.count += 1;
    }

    /// Notes something about the source as a whole.
    pub fn note(&mut self, what: impl Into<String>) {
        self.kind(what.into());
    }

    fn kind(&mut self, what: String) -> &mut Warning {
        let what = if self.kinds.len() < KINDS || self.kinds.contains_key(&what) {
            what
        } else {
            "more was lost".into()
        };
        self.kinds.entry(what.clone()).or_insert_with(|| Warning { what, ..Warning::default() })
    }

    /// Takes over what others noted.
    pub fn append(&mut self, more: Self) {
        for (what, from) in more.kinds {
            let to = self.kind(what);
            to.count += from.count;
            let room = PATHS.saturating_sub(to.paths.len());
            to.paths.extend(from.paths.into_iter().take(room));
        }
    }

    /// Whether nothing was lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Each kind once.
    pub fn iter(&self) -> impl Iterator<Item = &Warning> {
        self.kinds.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn losses_of_one_kind_are_told_once_with_their_number_and_no_raw_bytes() {
        let mut warnings = Warnings::default();
        for nr in 0..5 {
            warnings.add(&[b'/', b'a' + nr, 0x1b], "a socket has no place in it");
        }
        warnings.note("cut off");
        let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2);
        assert!(told[0].ends_with(" and 2 more: a socket has no place in it"), "{told:?}");
        assert!(!told[0].contains('\x1b'));
        assert_eq!(told[1], "cut off");
    }

    #[test]
    fn a_hostile_source_cannot_fill_memory_with_warnings() {
        let mut warnings = Warnings::default();
        for nr in 0..1000 {
            warnings.add(b"/f", alloc::format!("kind {nr}"));
        }
        assert_eq!(warnings.iter().count(), KINDS + 1);
    }
}
