//! Walking a tree in the order of a manifest, with memory for what is open and not for what was seen.
//!
//! The order is that of the printed paths, in which `/a-b` comes between `/a` and `/a/x`. So a directory has two places
//! among the names beside it: its own, by its name, and that of what is in it, by its name and a slash.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::quote::quoted;

/// A name of a directory that is still to be given.
#[derive(Debug)]
struct Item<T> {
    name: Box<[u8]>,
    what: T,
    /// What is in it, and not itself.
    is_below: bool,
}

impl<T> Item<T> {
    /// The order of two items of a directory.
    fn order(&self, other: &Self) -> Ordering {
        let same = self.name.iter().zip(&other.name).take_while(|(a, b)| a == b).count();
        // Two names differ in a byte, or one of them ends here and what follows it is a slash or nothing.
        let next = |item: &Self| {
            let slash = item.is_below.then_some(b'/');
            quoted(item.name.get(same..).unwrap_or_default()).chain(slash).next()
        };
        match (self.name.get(same), other.name.get(same)) {
            (Some(a), Some(b)) => quoted(&[*a]).cmp(quoted(&[*b])),
            _ => next(self).cmp(&next(other)),
        }
    }
}

/// A directory that is walked.
#[derive(Debug)]
struct Folder<T> {
    /// The bytes of its path, without a slash at the end; none for the root.
    len: usize,
    /// The next one last.
    rest: Vec<Item<T>>,
}

/// The directories that are walked.
#[derive(Debug)]
pub(crate) struct Folders<T> {
    /// The path of the one that was entered last, which begins with those of all that are open.
    path: Vec<u8>,
    /// The innermost last.
    open: Vec<Folder<T>>,
}

/// A step of a walk.
pub(crate) enum Next<T> {
    /// A file.
    File(Vec<u8>, T),
    /// A directory whose names are to be pushed, by its path without a slash at the end.
    Enter(Vec<u8>, T),
}

impl<T: Copy> Folders<T> {
    pub(crate) fn new() -> Self {
        Self { path: Vec::new(), open: Vec::new() }
    }

    /// Enters a directory with these names; the flag says which are directories themselves. Gives a name that is there twice.
    pub(crate) fn push(
        &mut self,
        path: Vec<u8>,
        names: impl Iterator<Item = (Vec<u8>, T, bool)>,
    ) -> Option<Vec<u8>> {
        let mut rest = Vec::new();
        for (name, what, is_directory) in names {
            let name = name.into_boxed_slice();
            if is_directory {
                rest.push(Item { name: name.clone(), what, is_below: true });
            }
            rest.push(Item { name, what, is_below: false });
        }
        rest.shrink_to_fit();
        rest.sort_unstable_by(|a, b| b.order(a));
        let twice = rest.windows(2).find_map(|pair| match pair {
            [a, b] if a.name == b.name && a.is_below == b.is_below => Some(a.name.to_vec()),
            _ => None,
        });
        self.open.push(Folder { len: path.len(), rest });
        self.path = path;
        twice
    }

    /// What comes next.
    pub(crate) fn next(&mut self) -> Option<Next<T>> {
        loop {
            let folder = self.open.last_mut()?;
            let Some(item) = folder.rest.pop() else {
                self.open.pop();
                continue;
            };
            let above = self.path.get(..folder.len).unwrap_or_default();
            let path = [above, b"/", &item.name].concat();
            return Some(if item.is_below {
                Next::Enter(path, item.what)
            } else {
                Next::File(path, item.what)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::quote;
    use alloc::string::String;

    #[test]
    fn names_are_in_the_order_of_their_printed_paths() {
        let names: [&[u8]; 12] = [
            b"a",
            b"a-b",
            b"a0",
            b"a/",
            b"a-b/",
            b"a b",
            b"a\\x",
            b"a]",
            b"a\xff\xfe",
            b"a\xff",
            b"a\n/",
            b"A",
        ];
        for one in names {
            for other in names {
                let item = |name: &[u8]| Item {
                    name: name.strip_suffix(b"/").unwrap_or(name).into(),
                    what: (),
                    is_below: name.ends_with(b"/"),
                };
                let key = |name: &[u8]| -> String { quote(name) };
                let found = item(one).order(&item(other));
                assert_eq!(found, key(one).cmp(&key(other)), "{} {}", key(one), key(other));
            }
        }
    }
}
