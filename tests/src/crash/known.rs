//! Mended images that are known to be as promised, by what was read of them.
//!
//! The reader is a function of the bytes that it reads: which block it reads next depends on those before, and on
//! nothing else. So the blocks it read of an image, in their order, with a hash of each, lead through a tree of
//! decisions to its verdict; another image that takes the same way has the same tree of files. Blocks that are free,
//! bitmaps and counts are not read, and differ between most states.

use std::collections::HashMap;

use super::Moment;
use crate::Scratch;

/// A place in the tree of decisions: which block is read next; none where all was read.
type Next = Option<u32>;

/// What passed, by moment.
#[derive(Debug, Default)]
pub(super) struct Known {
    nodes: Vec<Next>,
    roots: HashMap<Moment, usize>,
    /// From a node, by the hash of its block.
    edges: HashMap<(usize, u64), usize>,
}

impl Known {
    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.roots.clear();
        self.edges.clear();
    }

    /// Whether what is on the device agrees, in all that the reader would read, with something that passed.
    pub(super) fn contains(&self, moment: Moment, device: &Scratch) -> bool {
        device.with_sums(|sums| {
            let mut node = self.roots.get(&moment).copied();
            while let Some(here) = node {
                match self.nodes.get(here) {
                    Some(Some(block)) => node = self.edges.get(&(here, sums[*block as usize])).copied(),
                    Some(None) => return true,
                    None => return false,
                }
            }
            false
        })
    }

    /// What is on the device passed, and these blocks were read of it.
    pub(super) fn add(&mut self, moment: Moment, device: &Scratch, read: &[u32]) {
        device.with_sums(|sums| {
            let mut nexts = read.iter().copied().map(Some).chain([None]);
            let Some(first) = nexts.next() else { return };
            let nodes = &mut self.nodes;
            let mut make = |next: Next| {
                nodes.push(next);
                nodes.len() - 1
            };
            let mut node = *self.roots.entry(moment).or_insert_with(|| make(first));
            for (block, next) in read.iter().zip(nexts) {
                node = *self.edges.entry((node, sums[*block as usize])).or_insert_with(|| make(next));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use blockdev::BlockDevice;

    use super::*;
    use crate::scratch::GRAIN;

    #[test]
    fn an_image_is_known_that_agrees_in_what_was_read_and_no_other() {
        let device = Scratch::new(vec![0; 8 * GRAIN]);
        let mut known = Known::default();
        let moment = Moment::During(3);
        assert!(!known.contains(moment, &device));
        known.add(moment, &device, &[1, 4]);
        assert!(known.contains(moment, &device));
        assert!(!known.contains(Moment::After(3), &device));
        device.write_at(2 * GRAIN as u64, &[1]).unwrap();
        assert!(known.contains(moment, &device));
        device.write_at(GRAIN as u64, &[1]).unwrap();
        assert!(!known.contains(moment, &device));
        // With other bytes in the first block the reader went elsewhere.
        known.add(moment, &device, &[1, 6, 7]);
        device.write_at(4 * GRAIN as u64, &[1]).unwrap();
        assert!(known.contains(moment, &device));
        device.restore();
        device.write_at(6 * GRAIN as u64, &[1]).unwrap();
        assert!(known.contains(moment, &device));
        device.write_at(4 * GRAIN as u64, &[1]).unwrap();
        assert!(!known.contains(moment, &device));
    }
}
