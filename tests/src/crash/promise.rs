//! What was promised when, and whether a tree keeps it.

use std::collections::{BTreeMap, BTreeSet};

use ext2_core::FileKind;

use super::{Action, STALE};
use crate::tree::{Node, Tree};

/// Bytes that are compared at a time.
const LINE: usize = 64;

/// A moment of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// So many operations have returned, and none is under way.
    After(usize),
    /// So many have returned, and the next has begun.
    During(usize),
}

/// What the file system showed before the first operation and after each.
///
/// # What is promised
/// - What an fsync or sync returned for is there: a fence is one for all that was stored before it.
/// - What was done since may be there or not, each operation for itself, but none halfway: a path is what it was at one
///   of these moments; one that was there all the time is there; a file that had a name all the time has one.
/// - Only a file that is being written may be in between: of a length between those it had (or up to the end of its
///   last block), and at each place with a byte that it had there, or zero where it ended before.
/// - Nothing else, and no byte of a stale block.
#[derive(Debug)]
pub struct History {
    actions: Vec<Option<Action>>,
    trees: Vec<Tree>,
    block_size: usize,
}

impl History {
    /// Begins with a durable tree.
    pub fn new(first: Tree, block_size: usize) -> Self {
        Self { actions: Vec::new(), trees: vec![first], block_size }
    }

    /// Adds an operation, unless it was refused, and what it led to.
    pub fn push(&mut self, action: Option<Action>, after: Tree) {
        self.actions.push(action);
        self.trees.push(after);
    }

    /// The operations that may be there or not, as numbers: from the last fsync to the one under way.
    fn window(&self, moment: Moment) -> (usize, usize) {
        let (done, end) = match moment {
            Moment::After(done) => (done, done),
            Moment::During(done) => (done, done + 1),
        };
        let done = done.min(self.actions.len());
        let is_barrier = |action: &Option<Action>| matches!(action, Some(Action::Fsync(_) | Action::Sync));
        let begun = self.actions[..done].iter().rposition(is_barrier).map_or(0, |at| at + 1);
        (begun, end.min(self.actions.len()))
    }

    /// Compares a tree that was found after a crash and repair with what is promised at a moment.
    ///
    /// # Errors
    /// What is not as promised.
    pub fn judge(&self, moment: Moment, found: &Tree) -> Result<(), String> {
        self.promise(moment).judge(found)
    }

    /// What is promised at a moment.
    pub fn promise(&self, moment: Moment) -> Promise<'_> {
        let (begin, end) = self.window(moment);
        let trees = &self.trees[begin..=end];
        let written = (begin..end).filter_map(|nr| {
            let path = self.actions[nr].as_ref()?.data_of()?;
            Some(self.trees[nr].get(path.as_bytes())?.inode)
        });
        let written = written.collect();
        let mut paths = BTreeMap::<&[u8], Vec<Option<&Node>>>::new();
        let mut versions = BTreeMap::<u32, Vec<&[u8]>>::new();
        for (nr, tree) in trees.iter().enumerate() {
            for (path, node) in tree {
                let known = paths.entry(path).or_default();
                known.resize(nr, None);
                known.push(Some(node));
                let versions = versions.entry(node.inode).or_default();
                if !versions.contains(&&node.content[..]) {
                    versions.push(&node.content);
                }
            }
        }
        paths.values_mut().for_each(|known| known.resize(trees.len(), None));
        let inodes = |tree: &Tree| tree.values().map(|node| node.inode).collect::<BTreeSet<u32>>();
        let always = trees.iter().map(inodes).reduce(|all, tree| &all & &tree).unwrap_or_default();
        Promise { trees, written, paths, versions, always, block_size: self.block_size }
    }
}

/// What is promised at one moment: what the file system showed at those that a crash may lead back to.
#[derive(Debug)]
pub struct Promise<'h> {
    trees: &'h [Tree],
    /// Inodes that are being written.
    written: BTreeSet<u32>,
    /// Every path, with what it was in each of the trees.
    paths: BTreeMap<&'h [u8], Vec<Option<&'h Node>>>,
    /// The contents that each inode had.
    versions: BTreeMap<u32, Vec<&'h [u8]>>,
    /// Inodes that were there all the time.
    always: BTreeSet<u32>,
    block_size: usize,
}

impl Promise<'_> {
    /// Compares a tree that was found after a crash and repair with what is promised.
    ///
    /// # Errors
    /// What is not as promised.
    pub fn judge(&self, found: &Tree) -> Result<(), String> {
        for (path, known) in &self.paths {
            let name = path.escape_ascii();
            let Some(node) = found.get(*path) else {
                if known.iter().all(Option::is_some) {
                    return Err(format!("{name} is gone"));
                }
                continue;
            };
            if !known.iter().flatten().any(|known| self.fits(node, known)) {
                let known: Vec<String> = known.iter().map(|known| show(*known)).collect();
                return Err(format!("{name} is {}, and was {}", show(Some(node)), known.join(", then ")));
            }
        }
        for (path, node) in found {
            if node.kind == FileKind::Regular && node.content.contains(&STALE) {
                return Err(format!("{} shows stale bytes", path.escape_ascii()));
            }
            // What is to be replaced is kept reachable there until it may go.
            if !self.paths.contains_key(&path[..]) && !path.starts_with(b"/lost+found/") {
                return Err(format!("{} was never there", path.escape_ascii()));
            }
        }
        let there: BTreeSet<u32> = found.values().map(|node| node.inode).collect();
        if let Some(lost) = self.always.difference(&there).next() {
            return Err(format!("inode {lost} has no name any more"));
        }
        check_links(found)
    }

    /// Compares less of it: every file that was there at all these moments is found with its bytes, under whatever
    /// name, and no byte of a stale block.
    ///
    /// # Errors
    /// What is lost.
    pub fn judge_contents(&self, found: &Tree) -> Result<(), String> {
        let [first, rest @ ..] = self.trees else { return Ok(()) };
        for (path, node) in first.iter().filter(|(_, node)| node.kind != FileKind::Directory) {
            let is_same = |other: &&Node| other.inode == node.inode && other.content == node.content;
            let is_lasting = rest.iter().all(|tree| tree.values().any(|other| is_same(&other)));
            if is_lasting && !found.values().any(|other| is_same(&other)) {
                return Err(format!("{} is lost", path.escape_ascii()));
            }
        }
        for (path, node) in found {
            if node.kind == FileKind::Regular && node.content.contains(&STALE) {
                return Err(format!("{} shows stale bytes", path.escape_ascii()));
            }
        }
        Ok(())
    }

    /// Whether what was found is what is known, or on the way to it where the file is being written.
    fn fits(&self, found: &Node, known: &Node) -> bool {
        let is_written = self.written.contains(&known.inode);
        if found.kind != known.kind || found.xattrs != known.xattrs {
            return false;
        }
        // A write takes set-id bits away, which may be there already or not yet.
        if found.mode != known.mode && !(is_written && found.mode & 0o1777 == known.mode & 0o1777) {
            return false;
        }
        if found.content == known.content {
            return true;
        }
        if found.kind != FileKind::Regular {
            return false;
        }
        let versions = self.versions.get(&known.inode).map_or(&[][..], Vec::as_slice);
        let lens = || versions.iter().map(|version| version.len());
        let shortest = lens().min().unwrap_or(0);
        let longest = lens().max().unwrap_or(0);
        let len = found.content.len();
        if is_written {
            // e2fsck makes a file as long as its last block where blocks lie past its end.
            if len < shortest || len > longest.next_multiple_of(self.block_size) {
                return false;
            }
        } else if len != known.content.len() {
            return false;
        }
        // Most of it is whole lines of one version; only what is torn is compared by the byte.
        (0..).step_by(LINE).zip(found.content.chunks(LINE)).all(|(start, line)| {
            versions.iter().any(|version| version.get(start..start + line.len()) == Some(line))
                || line.iter().zip(start..).all(|(&byte, at)| {
                    versions.iter().any(|version| version.get(at).copied().unwrap_or(0) == byte)
                })
        })
    }
}

/// Every file has as many links as names, every directory two and one for each directory in it.
fn check_links(tree: &Tree) -> Result<(), String> {
    let mut names = BTreeMap::<u32, u16>::new();
    for (path, node) in tree {
        *names.entry(node.inode).or_default() += 1;
        if node.kind == FileKind::Directory {
            *names.entry(node.inode).or_default() += 1;
            if let Some(slash) = path.iter().rposition(|byte| *byte == b'/')
                && let Some(parent) = tree.get(&path[..slash])
            {
                *names.entry(parent.inode).or_default() += 1;
            }
        }
    }
    for (path, node) in tree {
        let counted = names.get(&node.inode).copied().unwrap_or(0);
        if node.links != counted {
            return Err(format!("{} has {} links and {counted} names", path.escape_ascii(), node.links));
        }
    }
    Ok(())
}

fn show(node: Option<&Node>) -> String {
    let Some(node) = node else { return "not there".to_owned() };
    let runs = node.content.chunk_by(|a, b| (*a == 0) == (*b == 0));
    let runs: Vec<String> =
        runs.map(|run| format!("{}{}", if run[0] == 0 { "0*" } else { "x*" }, run.len())).collect();
    format!(
        "{:?} {:o} of {} bytes ({}; crc {:08x}) with {} xattrs",
        node.kind,
        node.mode,
        node.content.len(),
        runs.join(" "),
        crc32fast::hash(&node.content),
        node.xattrs.len()
    )
}
