//! Paths of a walk that are kept: the first names of files that have several, and lines that are printed when all are known.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Paths that were kept while a tree was walked, all that is in a directory together, and the directory before or after it. They
/// share the names of their directories, so that memory is that of names: a path by itself is as long as the tree is deep.
///
/// ```
/// let mut paths = ext2_image::KeptPaths::default();
/// let kept = [&b"/a/b"[..], b"/a/c", b"/a"].map(|path| paths.keep(path));
/// assert_eq!(paths.path(kept[1]), b"/a/c");
/// ```
#[derive(Debug, Default)]
pub struct KeptPaths {
    /// Parts of paths, each with the place of the one before it.
    parts: Vec<(Option<usize>, Box<[u8]>)>,
    /// The places of those of the path that was kept last.
    last: Vec<usize>,
}

/// A path that was [kept](KeptPaths::keep).
#[derive(Clone, Copy, Debug)]
pub struct KeptPath(Option<usize>);

impl KeptPaths {
    /// Keeps a path.
    pub fn keep(&mut self, path: &[u8]) -> KeptPath {
        let mut parts = path.split(|&byte| byte == b'/');
        let mut same = 0;
        let mut next = parts.next();
        while let (Some(part), Some(&at)) = (next, self.last.get(same)) {
            if self.parts.get(at).is_none_or(|(_, there)| &**there != part) {
                break;
            }
            (same, next) = (same + 1, parts.next());
        }
        self.last.truncate(same);
        for part in next.into_iter().chain(parts) {
            self.parts.push((self.last.last().copied(), part.into()));
            self.last.push(self.parts.len() - 1);
        }
        KeptPath(self.last.last().copied())
    }

    /// The path as it was.
    #[must_use]
    pub fn path(&self, kept: KeptPath) -> Vec<u8> {
        let (mut at, mut parts) = (kept.0, Vec::new());
        while let Some((above, part)) = at.and_then(|at| self.parts.get(at)) {
            parts.push(&**part);
            at = *above;
        }
        parts.reverse();
        parts.join(&b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back_as_they_were_and_share_their_directories() {
        let given: [&[u8]; 8] = [b"/a", b"/a/b/c", b"/a/b/d", b"/a/be", b"/f", b"g/", b"", b"/"];
        let mut paths = KeptPaths::default();
        let kept = given.map(|path| paths.keep(path));
        assert_eq!(kept.map(|kept| paths.path(kept)), given);
        // The root's empty part is made anew behind a path without it.
        let bytes: usize = paths.parts.iter().map(|(_, part)| part.len()).sum();
        assert_eq!(bytes, "abcdbefg".len());
    }
}
