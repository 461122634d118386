//! Pass 2: the tree of hashes of a directory. Every leaf is named once, every node has the room that its block gives, and
//! the hashes of a leaf's names lie where the nodes say. Linux's ext2 does not look at it; e2fsck and ext4 do.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::FromBytes;

use super::finding::{Kind, Place};
use super::hash::Hasher;
use super::run::{Run, Step};
use crate::little::{half, word};
use ext2_core::raw::RawDirentHeader;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    #[default]
    Leaf,
    Root,
    Node,
}

/// What is known of a block.
#[derive(Clone, Copy, Debug)]
struct Known {
    role: Role,
    named: bool,
    named_twice: bool,
    first: bool,
    last: bool,
    parent: u32,
    /// The hashes of what is in it, the least and the greatest.
    min: u32,
    max: u32,
    /// What its parent says of them.
    from: u32,
    to: u32,
}

/// The tree of a directory, as far as its blocks were seen.
#[derive(Debug)]
pub(crate) struct Tree {
    inode: u32,
    hasher: Hasher,
    depth: u32,
    blocks: Vec<Known>,
    /// A fault that was reported, after which nothing else of the tree is looked at.
    broken: bool,
}

impl Run<'_> {
    /// Begins with a directory of so many blocks.
    pub(crate) fn begin_tree(&self, inode: u32, blocks: u32) -> Tree {
        /// `EXT2_FLAGS_UNSIGNED_HASH`.
        const UNSIGNED: u32 = 2;
        let known = Known {
            role: Role::Leaf,
            named: false,
            named_twice: false,
            first: false,
            last: false,
            parent: 0,
            min: u32::MAX,
            max: 0,
            from: 0,
            to: 0,
        };
        let unsigned = self.raw.s_flags.get() & UNSIGNED != 0;
        let seed = self.raw.s_hash_seed.map(|word| word.get());
        Tree {
            inode,
            hasher: Hasher { version: 0, unsigned, seed },
            depth: 0,
            blocks: vec![known; blocks as usize],
            broken: false,
        }
    }

    /// Takes a block of the directory.
    pub(crate) fn take_into_tree(&mut self, tree: &mut Tree, nr: u32, bytes: &[u8]) -> Step {
        if tree.broken || nr as usize >= tree.blocks.len() {
            return Ok(());
        }
        let whole = ext2_core::rules::decode_rec_len(half(bytes, 4), bytes.len()) == bytes.len();
        let name_len = bytes.get(6).copied().unwrap_or(0);
        let is_node = word(bytes, 0) == 0
            && whole
            && name_len == 0
            && usize::from(half(bytes, 8)) == (bytes.len() - 8) / 8;
        if nr == 0 {
            tree.hasher.version = bytes.get(28).copied().unwrap_or(0);
            tree.depth = u32::from(bytes.get(30).copied().unwrap_or(0)) + 1;
            let start = 24 + usize::from(bytes.get(29).copied().unwrap_or(0));
            if let Some(root) = tree.blocks.first_mut() {
                (root.role, root.first, root.last) = (Role::Root, true, true);
            }
            return self.take_node(tree, nr, bytes, start);
        }
        if is_node {
            if let Some(node) = tree.blocks.get_mut(nr as usize) {
                node.role = Role::Node;
            }
            return self.take_node(tree, nr, bytes, 8);
        }
        let (mut min, mut max) = (u32::MAX, 0);
        let mut at = 0;
        while let Some(rest) = bytes.get(at..)
            && let Ok((header, after)) = RawDirentHeader::read_from_prefix(rest)
        {
            let len = ext2_core::rules::decode_rec_len(header.rec_len.get(), bytes.len());
            if len < 12 {
                break;
            }
            if header.inode.get() != 0
                && let Some(name) = after.get(..header.name_len.into())
            {
                let hash = tree.hasher.hash(name);
                (min, max) = (min.min(hash), max.max(hash));
            }
            at += len;
        }
        if let Some(leaf) = tree.blocks.get_mut(nr as usize) {
            (leaf.min, leaf.max) = (min, max);
        }
        Ok(())
    }

    /// Takes the entries of a root or node, which begin at `start` with how many there may be and how many there are.
    fn take_node(&mut self, tree: &mut Tree, nr: u32, bytes: &[u8], start: usize) -> Step {
        const BLOCK: u32 = 0x0fff_ffff;
        let limit = bytes.len().saturating_sub(start) / 8;
        let [said, count] = [start, start + 2].map(|at| usize::from(half(bytes, at)));
        for (found, fault) in [(said, said != limit), (count, count > limit)] {
            if fault {
                let numbers = (Some(found as u64), Some(limit as u64));
                return self.break_tree(tree, Kind::IndexLimit, numbers.0, numbers.1);
            }
        }
        let (mut min, mut max, mut hash) = (u32::MAX, 0, 0);
        for index in 0..count {
            let at = start + index * 8;
            let before = hash;
            hash = if index == 0 { 0 } else { word(bytes, at) & !1 };
            let block = word(bytes, at + 4) & BLOCK;
            let next = if index + 1 < count { word(bytes, at + 8) & !1 } else { u32::MAX - 1 };
            let Some(below) = tree.blocks.get_mut(block as usize) else {
                return self.break_tree(tree, Kind::IndexNode, Some(block.into()), None);
            };
            if hash < before {
                return self.break_tree(tree, Kind::IndexOrder, Some(nr.into()), None);
            }
            if below.named {
                below.named_twice = true;
            } else {
                (below.named, below.parent) = (true, nr);
            }
            (below.from, below.to) = (hash, next);
            below.first |= index == 0;
            below.last |= index + 1 == count;
            (min, max) = (min.min(hash), max.max(hash));
        }
        if let Some(own) = tree.blocks.get_mut(nr as usize) {
            (own.min, own.max) = (min, max);
        }
        Ok(())
    }

    /// Reports a fault of a tree, and takes the flag from the directory where that is wanted: its names are found without.
    fn break_tree(&mut self, tree: &mut Tree, kind: Kind, found: Option<u64>, expected: Option<u64>) -> Step {
        tree.broken = true;
        if self.report(Place::Inode(tree.inode), kind, found, expected)? {
            self.drop_index(tree.inode)?;
        }
        Ok(())
    }

    /// Compares what the blocks have with what their parents say.
    pub(crate) fn finish_tree(&mut self, mut tree: Tree) -> Step {
        if tree.broken {
            return Ok(());
        }
        if let Some(root) = tree.blocks.first_mut() {
            root.named_twice |= root.named;
            root.named = true;
        }
        // What is at the edges of a node says what is in it.
        for role in [Role::Leaf, Role::Node] {
            for nr in 0..tree.blocks.len() {
                let Some(&edge) = tree.blocks.get(nr) else { break };
                if edge.role == role
                    && let Some(parent) = tree.blocks.get_mut(edge.parent as usize)
                {
                    if edge.first {
                        parent.min = edge.min;
                    }
                    if edge.last {
                        parent.max = edge.max;
                    }
                }
            }
        }
        let wrong = tree.blocks.iter().enumerate().position(|(nr, block)| {
            !block.first && block.min < block.from
                || block.role == Role::Leaf && tree.depth_of(block) != tree.depth
                || nr != 0 && block.max > block.to
                || !block.named
                || block.named_twice
        });
        match wrong {
            Some(nr) => self.break_tree(&mut tree, Kind::IndexNode, Some(nr as u64), None),
            None => Ok(()),
        }
    }
}

impl Tree {
    /// How many nodes are above a block, the root included.
    fn depth_of(&self, block: &Known) -> u32 {
        let (mut block, mut depth) = (block, 0);
        // No tree that was let in is deeper.
        while block.role != Role::Root && depth < 8 {
            let Some(parent) = self.blocks.get(block.parent as usize) else { break };
            (block, depth) = (parent, depth + 1);
        }
        depth
    }
}
