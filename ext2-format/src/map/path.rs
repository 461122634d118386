//! From the number of a file's block to the pointers that lead to it (Linux: `ext2_block_to_path`).

/// Direct pointers in an inode.
pub const DIRECT: u64 = 12;

/// Pointers in an inode: the direct ones and the roots of three trees.
pub const SLOTS: usize = 15;

/// The shape of all trees with `pointers` pointers an indirect block.
///
/// ```
/// use ext2_format::map::Shape;
///
/// // Blocks of 4 KiB hold 1,024 pointers: two levels of them lead to 4 GiB.
/// let shape = Shape::new(1024);
/// assert_eq!(shape.span(2) * 4096, 4 << 30);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Logarithm of the pointers in an indirect block: it is a power of two, and a shift is cheaper than a
    /// division.
    log2: u32,
}

/// Where a block of a file hangs: in which of the inode's pointers, under how many levels of indirect
/// blocks, and as the how-manieth block of that tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Index into `i_block`.
    pub slot: usize,
    /// Levels of indirect blocks: 0 to 3.
    pub depth: u32,
    /// The block's number within the tree of `slot`; 0 with depth 0.
    pub within: u64,
}

impl Shape {
    /// Trees of blocks with `pointers` pointers each, a power of two of at most 16384.
    pub const fn new(pointers: u64) -> Self {
        Self { log2: pointers.trailing_zeros() }
    }

    /// Pointers in an indirect block.
    pub const fn pointers(self) -> u64 {
        1 << self.log2
    }

    /// Data blocks under `levels` levels of indirect blocks: pointers to the power of `levels`.
    pub const fn span(self, levels: u32) -> u64 {
        // 16384^3 = 2^42 fits.
        1 << (self.log2 * levels)
    }

    /// The number of blocks that a file can have pointers for.
    pub const fn max_blocks(self) -> u64 {
        DIRECT + self.span(1) + self.span(2) + self.span(3)
    }

    /// The path to a block, unless no pointer reaches that far.
    pub fn path(self, block: u64) -> Option<Path> {
        if block < DIRECT {
            return Some(Path { slot: block as usize, depth: 0, within: 0 });
        }
        let mut within = block - DIRECT;
        for depth in 1..=3 {
            let span = self.span(depth);
            if within < span {
                return Some(Path { slot: 11 + depth as usize, depth, within });
            }
            within -= span;
        }
        None
    }

    /// The index, within an indirect block at `level` (1 is the one that the inode points to) of a tree
    /// of `depth` levels, of the pointer that leads to the tree's block `within`.
    pub fn index(self, path: &Path, level: u32) -> u64 {
        (path.within >> (self.log2 * (path.depth - level))) & (self.pointers() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaf_arrays_of_4_kib_blocks_begin_at_0_12_and_every_1024_from_1036() {
        let shape = Shape::new(1024);
        assert_eq!(shape.path(11), Some(Path { slot: 11, depth: 0, within: 0 }));
        assert_eq!(shape.path(12), Some(Path { slot: 12, depth: 1, within: 0 }));
        assert_eq!(shape.path(1035), Some(Path { slot: 12, depth: 1, within: 1023 }));
        assert_eq!(shape.path(1036), Some(Path { slot: 13, depth: 2, within: 0 }));
        assert_eq!(shape.path(1_049_612), Some(Path { slot: 14, depth: 3, within: 0 }));
        assert_eq!(shape.max_blocks(), 1_074_791_436);
        assert_eq!(shape.path(shape.max_blocks()), None);
        assert_eq!(shape.path(u64::MAX), None);
    }

    #[test]
    fn indexes_are_the_digits_of_the_block_within_its_tree() {
        let shape = Shape::new(4);
        let path = shape.path(12 + 4 + 16 + (2 * 16 + 4 + 3)).unwrap();
        assert_eq!(path.depth, 3);
        assert_eq!([1, 2, 3].map(|level| shape.index(&path, level)), [2, 1, 3]);
    }
}
