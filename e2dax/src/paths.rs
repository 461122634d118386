//! Many paths, in memory for their names.

use crate::failure::Result;

/// Paths in the order in which a walk came to them or left them, each kept as what it has beyond the beginning of the one before:
/// all those of a deep tree together are as long as its names, where each by itself is as long as the tree is deep.
#[derive(Default)]
pub(crate) struct Paths {
    /// How much of the path before it each has, and what follows.
    parts: Vec<(usize, Box<[u8]>)>,
    last: Vec<u8>,
}

impl Paths {
    pub(crate) fn push(&mut self, path: &[u8]) {
        let same = self.last.iter().zip(path).take_while(|(a, b)| a == b).count();
        let rest = path.get(same..).unwrap_or_default();
        self.parts.push((same, rest.into()));
        self.last.truncate(same);
        self.last.extend_from_slice(rest);
    }

    /// Gives each of them, in order.
    pub(crate) fn each(&self, mut give: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut path = Vec::new();
        for (same, rest) in &self.parts {
            path.truncate(*same);
            path.extend_from_slice(rest);
            give(&path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back_as_they_were_and_share_what_they_begin_with() {
        let given: [&[u8]; 7] = [b"/a/b/c", b"/a/b", b"/a", b"/abc", b"", b"/", b"/a/b/c"];
        let mut paths = Paths::default();
        given.iter().for_each(|path| paths.push(path));
        let mut back = Vec::new();
        let mut keep = |path: &[u8]| {
            back.push(path.to_vec());
            Ok(())
        };
        paths.each(&mut keep).unwrap();
        assert_eq!(back, given);
        assert_eq!(paths.parts.iter().map(|(_, rest)| rest.len()).sum::<usize>(), 6 + 2 + 1 + 5);
    }
}
