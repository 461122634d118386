//! Completion: verbs, and names in the image.

use ext2_core::{FileKind, Follow};
use rustyline::Context as Line;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;

use super::line::verbs;
use crate::kept;
use crate::target::{ImageOptions, Mode};

/// What rustyline asks.
pub(super) struct Helper {
    verbs: Vec<String>,
    options: ImageOptions,
}

impl Helper {
    /// With all verbs of the command.
    pub(super) fn new(options: ImageOptions) -> Self {
        let own = ["cd", "pwd", "lcd", "sync", "help", "quit"].map(String::from);
        let mut verbs = verbs();
        verbs.extend(own);
        verbs.sort();
        Self { verbs, options }
    }

    /// Names of the image that go on from what is typed.
    fn names(&self, word: &str) -> Vec<Pair> {
        let (colon, path) = word.strip_prefix(':').map_or(("", word), |path| (":", path));
        let (directory, start) = path.split_at(path.rfind('/').map_or(0, |slash| slash + 1));
        let Some(target) = kept::target(directory.as_bytes()) else { return Vec::new() };
        let Ok((fs, inode)) = target.resolve(&self.options, Mode::Read, Follow::Yes) else {
            return Vec::new();
        };
        let Ok(entries) = inode.entries(0) else { return Vec::new() };
        let mut found: Vec<Pair> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let nr = entry.nr;
                let name = String::from_utf8(entry.name.into_bytes()).ok()?;
                let is_dir = fs.inode(nr).is_ok_and(|inode| inode.kind() == FileKind::Directory);
                let slash = if is_dir { "/" } else { "" };
                let quoted = name.replace('\\', "\\\\").replace(' ', "\\ ");
                let is_dots = name == "." || name == "..";
                (!is_dots && name.starts_with(start)).then(|| Pair {
                    display: format!("{name}{slash}"),
                    replacement: format!("{colon}{directory}{quoted}{slash}"),
                })
            })
            .collect();
        found.sort_by(|a, b| a.display.cmp(&b.display));
        found
    }
}

impl Completer for Helper {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Line<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = line.get(..pos).unwrap_or(line);
        let start = before.rfind(' ').map_or(0, |space| space + 1);
        let word = before.get(start..).unwrap_or_default();
        if before.get(..start).is_some_and(|before| !before.trim().is_empty()) {
            return Ok((start, self.names(word)));
        }
        let pair = |name: &String| Pair { display: name.clone(), replacement: format!("{name} ") };
        Ok((start, self.verbs.iter().filter(|name| name.starts_with(word)).map(pair).collect()))
    }
}

impl Hinter for Helper {
    type Hint = String;
}

impl Highlighter for Helper {}
impl Validator for Helper {}
impl rustyline::Helper for Helper {}
