//! What every answer has to be: a file system that knows names, bytes, attributes and who holds what, and no blocks but
//! which of a file's are there.
//!
//! [`Model::step`] compares an answer with what it says, and goes on from there. Where a sound file system has a choice
//! (the number of a new inode, how much of a write fits on a disk that is full), the model takes what was answered, after
//! it has found that it is one of the choices.

mod attributes;
mod contents;
mod dax;
mod listing;
mod names;
mod node;

use std::{collections::BTreeMap, ops::Range};

use ext2_core::{Closed, Errno, Ext2, FileKind, Unclean};
use ext2_dax::OpenFor;

use super::{Actor, Answer, HANDS, Operation, Options, Step, answer::Refusal, compare::walk, operation};
pub(super) use dax::Mapping;
pub(super) use listing::Listing;
pub(super) use node::ROOT;
pub use node::{Content, Id, Node};

/// The first inode that is not reserved.
const FIRST_INODE: u32 = 11;

/// What the model says to an answer.
pub type Verdict = Result<(), String>;

/// What an operation should give, but for its value.
type Wanted<T = ()> = Result<T, Refusal>;

/// What was free before an operation: who is refused for want of space has to find too little there.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Blocks.
    pub blocks: u64,
    /// Inodes.
    pub inodes: u64,
}

/// What an actor holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) hands: Vec<Option<Id>>,
    /// With what for.
    pub(super) files: Vec<Option<(Id, OpenFor)>>,
    pub(super) maps: Vec<Option<Mapping>>,
    pub(super) leases: Vec<Option<(Id, Range<u64>)>>,
    pub(super) listings: Vec<Option<Listing>>,
}

impl Held {
    fn new() -> Self {
        fn none<T: Clone>(count: u8) -> Vec<Option<T>> {
            vec![None; usize::from(count)]
        }
        Self {
            hands: none(HANDS),
            files: none(operation::FILES),
            maps: none(operation::MAPS),
            leases: none(operation::LEASES),
            listings: none(operation::LISTINGS),
        }
    }

    fn has(&self, id: Id) -> bool {
        self.hands.contains(&Some(id))
            || self.files.iter().flatten().any(|file| file.0 == id)
            || self.maps.iter().flatten().any(|map| map.id == id)
            || self.leases.iter().flatten().any(|lease| lease.0 == id)
            || self.listings.iter().flatten().any(|listing| listing.dir == id)
    }
}

/// The model.
#[derive(Clone, Debug)]
pub struct Model {
    nodes: BTreeMap<Id, Node>,
    next: Id,
    pub(super) actors: Vec<Held>,
    block: u64,
    /// Bytes of the largest file.
    max_size: u64,
    inodes: u64,
    has_crtime: bool,
    /// Whether the device is memory of which a block is a page.
    is_memory: bool,
    /// Whether changes go through a log, which is not in the device's memory; what is only read has none.
    has_log: bool,
    strict_rename: bool,
    has_journal: bool,
    read_only: bool,
    /// The present, in seconds.
    now: i64,
    room: Room,
    /// Who does the step.
    actor: Actor,
    has_threads: bool,
    buffer_head: bool,
    persistent: bool,
    /// Whether inodes share blocks of attributes.
    shares_xattrs: bool,
    /// Whether nobody tells stores through mappings apart, so that each sync finds that all pages may have been stored to.
    counts_all_as_stored: bool,
}

impl Model {
    /// The model of an empty file system.
    #[must_use]
    pub fn new(options: &Options, max_size: u64, free_inodes: u64) -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::root())]),
            next: ROOT + 1,
            actors: (0..options.actors).map(|_| Held::new()).collect(),
            block: options.block,
            max_size,
            inodes: free_inodes,
            has_crtime: options.inode_size > 128,
            is_memory: options.is_memory(),
            has_log: options.log,
            strict_rename: options.strict_rename,
            has_journal: options.journal || options.log,
            read_only: false,
            now: 0,
            room: Room { blocks: 0, inodes: 0 },
            actor: 0,
            has_threads: false,
            buffer_head: options.buffer_head,
            persistent: options.persistent,
            shares_xattrs: options.share_xattrs,
            counts_all_as_stored: options.real_mappings,
        }
    }

    /// From now on each actor is a thread.
    #[must_use]
    pub(super) fn with_threads(&self) -> Self {
        Self { has_threads: true, ..self.clone() }
    }

    /// From now on all actors have what the first has, and what one does with it all see.
    pub(super) fn become_one_process(&mut self) {
        self.actors.truncate(1);
    }

    /// Whether files can be mapped.
    fn is_dax(&self) -> bool {
        self.is_memory && (!self.has_log || self.read_only)
    }

    /// Whether nothing can be changed.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn held(&self, actor: Actor) -> &Held {
        &self.actors[usize::from(actor) % self.actors.len()]
    }

    fn held_mut(&mut self, actor: Actor) -> &mut Held {
        let nr = usize::from(actor) % self.actors.len();
        &mut self.actors[nr]
    }

    /// A node that is there.
    #[must_use]
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[&id]
    }

    fn node_mut(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).expect("the node of an id is there")
    }

    fn hand(&self, actor: Actor, hand: u8) -> Id {
        self.held(actor).hands[usize::from(hand)].expect("what was done was done with something")
    }

    /// Compares the answer of a step at `now`, before which there was so much room, and takes the step.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn step(&mut self, step: &Step, answer: &Answer, now: i64, room: Room) -> Verdict {
        (self.now, self.room, self.actor) = (now, room, step.actor);
        // Also where nothing is done: a mapping that ends with the run notes the time of the last step.
        self.note_mapped();
        match answer {
            Answer::Nothing => return Ok(()),
            Answer::Broken(words) | Answer::Failed(words) => return Err(words.clone()),
            _ => {}
        }
        self.names_step(step, answer)?;
        // The last step may have been the one that made it.
        self.note_mapped();
        self.collect();
        Ok(())
    }

    /// Notes that what is mapped for storing may be found to have been stored to now, where stores are not told apart.
    fn note_mapped(&mut self) {
        if self.counts_all_as_stored {
            let (mapped, now) = (self.mapped_for_storing(), self.now);
            mapped.into_iter().for_each(|id| self.node_mut(id).perhaps_modified(now));
        }
    }

    /// What is mapped for storing, once for each mapping.
    fn mapped_for_storing(&self) -> Vec<Id> {
        let maps = self.actors.iter().flat_map(|held| held.maps.iter().flatten());
        maps.filter(|map| map.may_store()).map(|map| map.id).collect()
    }

    /// Whether the step is to be taken: both say that it was done. Both may refuse it with the same number.
    fn agree(&self, answer: &Answer, wanted: Wanted) -> Result<bool, String> {
        match (answer, wanted) {
            (Answer::Refused(ours), Err(models)) if *ours == models => Ok(false),
            (Answer::Refused(ours), Err(models)) => Err(format!("{ours:?}, and the model says {models:?}")),
            (Answer::Refused(ours), Ok(())) => Err(format!("{ours:?}, and the model says that it works")),
            (_, Err(models)) => Err(format!("{}, and the model says {models:?}", answer.words())),
            (_, Ok(())) => Ok(true),
        }
    }

    /// The same for what takes `blocks` blocks and `inodes` inodes at most: it may be refused where there are fewer.
    fn agree_in(&self, answer: &Answer, wanted: Wanted, blocks: u64, inodes: u64) -> Result<bool, String> {
        if let Answer::Refused(refusal) = answer
            && refusal.is(Errno::NOSPC)
            && wanted.is_ok()
        {
            let is_short = self.room.blocks < blocks || self.room.inodes < inodes;
            let found = format!("ENOSPC, with {:?} free, for {blocks} blocks, {inodes} inodes", self.room);
            return if is_short { Ok(false) } else { Err(found) };
        }
        self.agree(answer, wanted)
    }

    /// Refuses what changes something where nothing can be changed.
    fn writable(&self) -> Wanted {
        if self.read_only { Err(Errno::ROFS.into()) } else { Ok(()) }
    }

    /// The node of a number, if one has it.
    fn of_nr(&self, nr: u32) -> Option<Id> {
        self.nodes.iter().find(|(_, node)| node.nr == nr).map(|(id, _)| *id)
    }

    /// Takes in hand what an answer names, which has to be `id`.
    fn take(&mut self, actor: Actor, to: u8, id: Id, answer: &Answer) -> Verdict {
        let node = self.node(id);
        if *answer != Answer::Inode(node.nr, node.kind) {
            return Err(format!("{answer:?}, and the model says {} {:?}", node.nr, node.kind));
        }
        self.held_mut(actor).hands[usize::from(to)] = Some(id);
        Ok(())
    }

    /// Forgets nodes that have no name and that nobody holds.
    fn collect(&mut self) {
        let actors = &self.actors;
        self.nodes.retain(|id, node| node.links > 0 || actors.iter().any(|held| held.has(*id)));
    }

    /// Adds a node under the number that was answered.
    fn add(&mut self, node: Node, answer: &Answer) -> Result<Id, String> {
        let Answer::Inode(nr, kind) = *answer else { return Err(format!("{answer:?} is no inode")) };
        if nr < FIRST_INODE {
            return Err(format!("inode {nr} is reserved, and was given out"));
        }
        if kind != node.kind {
            return Err(format!("a {kind:?} was made, and a {:?} was asked for", node.kind));
        }
        if let Some(id) = self.of_nr(nr) {
            return Err(format!("inode {nr} was given out, which is in use: {:?}", self.node(id).kind));
        }
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, Node { nr, ..node });
        Ok(id)
    }

    /// Every node with a name, with one path of it, the root first.
    #[must_use]
    pub fn paths(&self) -> Vec<(Vec<u8>, Id)> {
        let mut found = vec![(Vec::new(), ROOT)];
        let mut at = 0;
        while let Some((path, id)) = found.get(at).cloned() {
            if let Content::Directory(names) = &self.node(id).content {
                found.extend(names.iter().map(|(name, id)| ([&path[..], b"/", name].concat(), *id)));
            }
            at += 1;
        }
        found
    }

    /// Whether no block was free at the last step.
    pub(super) fn is_full(&self) -> bool {
        self.room.blocks == 0
    }

    /// Whether a directory in a hand has a name.
    pub(super) fn has_name(&self, actor: Actor, hand: u8, name: &[u8]) -> bool {
        self.held(actor).hands[usize::from(hand)].is_some_and(|id| match &self.node(id).content {
            Content::Directory(names) => names.contains_key(name),
            _ => false,
        })
    }

    /// Whether what is in a hand has an attribute.
    pub(super) fn has_xattr(&self, actor: Actor, hand: u8, name: &[u8]) -> bool {
        self.held(actor).hands[usize::from(hand)].is_some_and(|id| self.node(id).xattrs.contains_key(name))
    }

    /// The kind of what an actor has in a hand.
    pub(super) fn kind_in(&self, actor: Actor, hand: u8) -> Option<FileKind> {
        self.held(actor).hands[usize::from(hand)].map(|id| self.node(id).kind)
    }

    /// What a close has to say of what it left, while somebody stores through each mapping.
    fn closed(&mut self, answer: &Answer) -> Verdict {
        let files = self.actors.iter().flat_map(|held| held.files.iter().flatten());
        let written = files.filter(|(_, open_for)| *open_for == OpenFor::Writing).map(|(id, _)| *id);
        let stored: Vec<Id> = written.chain(self.mapped_for_storing()).collect();
        let now = self.now;
        stored.iter().for_each(|id| self.node_mut(*id).perhaps_modified(now));
        let stored = !stored.is_empty();
        let nameless = self.nodes.values().any(|node| node.links == 0);
        // Memory that was looked at counts as lent for as long as the lease is there.
        let leased = self.actors.iter().any(|held| held.leases.iter().any(Option::is_some));
        let fits = match answer {
            Answer::Closed(Closed::ReadOnly) => self.read_only,
            _ if self.read_only => false,
            Answer::Closed(Closed::Unclean(Unclean::FilesWithoutName)) => nameless,
            Answer::Closed(Closed::Unclean(Unclean::Leases)) => leased && !nameless,
            // Another thread stores meanwhile.
            Answer::Closed(Closed::Unclean(Unclean::ChangesUnderWay)) => stored && !nameless,
            Answer::Closed(Closed::Clean) => !nameless,
            _ => false,
        };
        let found = format!("{answer:?}; files without a name: {nameless}, leases: {leased}");
        if fits { Ok(()) } else { Err(found) }
    }

    /// Takes over the times that an image has after a kill: those that were late are lost.
    pub(super) fn adopt_times(&mut self, fs: &Ext2) -> Verdict {
        for (path, id) in self.paths() {
            let inode = walk(fs, &path).map_err(|error| error.to_string())?;
            let attr = inode.attr();
            let node = self.node_mut(id);
            (node.atime, node.mtime, node.ctime) = (attr.atime.sec, attr.mtime.sec, attr.ctime.sec);
            node.perhaps.clear();
        }
        Ok(())
    }

    /// What is no operation of names.
    fn rest_step(&mut self, step: &Step, answer: &Answer) -> Verdict {
        match &step.operation {
            Operation::Exit => *self.held_mut(step.actor) = Held::new(),
            Operation::Remount { read_only } => {
                if *answer != Answer::Done {
                    return Err(format!("{answer:?}"));
                }
                self.actors.iter_mut().for_each(|held| *held = Held::new());
                self.read_only = *read_only;
            }
            Operation::Close => {
                self.closed(answer)?;
                self.actors.iter_mut().for_each(|held| *held = Held::new());
                self.read_only = false;
            }
            Operation::Kill { .. } => {
                if *answer != Answer::Done {
                    return Err(format!("{answer:?}"));
                }
                self.actors.iter_mut().for_each(|held| *held = Held::new());
                self.read_only = false;
            }
            Operation::Sync { .. } | Operation::SyncAll => {
                self.agree(answer, Ok(()))?;
            }
            Operation::Trim { .. } => {
                self.agree(answer, self.writable())?;
            }
            _ => return self.attributes_step(step, answer),
        }
        Ok(())
    }
}
