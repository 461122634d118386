//! Walking a tree in the order of a manifest, with memory for what is open and not for what was seen.
//!
//! The order is that of the printed paths, in which `/a-b` comes between `/a` and `/a/x`. So a directory has two places
//! among the names beside it: its own, by its name, and that of what is in it, by its name and a slash.

use alloc::string::String;
use alloc::vec::Vec;

use super::quote;

/// A name of a directory that is still to be given.
#[derive(Debug)]
struct Item<T> {
    key: String,
    name: Vec<u8>,
    what: T,
    /// What is in it, and not itself.
    is_below: bool,
}

/// A directory that is walked.
#[derive(Debug)]
struct Folder<T> {
    /// Its path, without a slash at the end; empty for the root.
    path: Vec<u8>,
    /// The next one last.
    rest: Vec<Item<T>>,
}

/// The directories that are walked, the innermost last.
#[derive(Debug)]
pub(super) struct Folders<T>(Vec<Folder<T>>);

/// A step of a walk.
pub(super) enum Next<T> {
    /// A file.
    File(Vec<u8>, T),
    /// A directory whose names are to be pushed, by its path without a slash at the end.
    Enter(Vec<u8>, T),
}

impl<T: Copy> Folders<T> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Enters a directory with these names; the flag says which are directories themselves.
    pub(super) fn push(&mut self, path: Vec<u8>, names: impl Iterator<Item = (Vec<u8>, T, bool)>) {
        let mut rest = Vec::new();
        for (name, what, is_directory) in names {
            let key = quote(&name);
            if is_directory {
                let below = [key.as_str(), "/"].concat();
                rest.push(Item { key: below, name: name.clone(), what, is_below: true });
            }
            rest.push(Item { key, name, what, is_below: false });
        }
        rest.sort_unstable_by(|a, b| b.key.cmp(&a.key));
        self.0.push(Folder { path, rest });
    }

    /// What comes next.
    pub(super) fn next(&mut self) -> Option<Next<T>> {
        loop {
            let folder = self.0.last_mut()?;
            let Some(item) = folder.rest.pop() else {
                self.0.pop();
                continue;
            };
            let path = [&folder.path[..], b"/", &item.name].concat();
            return Some(if item.is_below {
                Next::Enter(path, item.what)
            } else {
                Next::File(path, item.what)
            });
        }
    }
}
