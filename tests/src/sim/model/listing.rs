//! Listing in pieces: what is there all the time is seen exactly once, whatever comes and goes meanwhile.

use std::collections::BTreeMap;

use super::{Content, Id, Model, Verdict};
use crate::sim::{Answer, Operation, Step, operation::short};

/// A directory that is being listed.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Listing {
    pub(super) dir: Id,
    /// The names that have been there since it began, each with whether it was seen.
    due: BTreeMap<Vec<u8>, bool>,
}

impl Model {
    /// A name has gone: who lists the directory may have seen it or not.
    pub(super) fn name_went(&mut self, dir: Id, name: &[u8]) {
        for held in &mut self.actors {
            for listing in held.listings.iter_mut().flatten().filter(|listing| listing.dir == dir) {
                listing.due.remove(name);
            }
        }
    }

    pub(super) fn listing_step(&mut self, step: &Step, answer: &Answer) -> Verdict {
        match step.operation {
            Operation::BeginListing { dir, listing } => {
                let dir = self.hand(step.actor, dir);
                if self.agree(answer, self.directory(dir))? {
                    let Content::Directory(names) = &self.node(dir).content else { return Ok(()) };
                    let mut due: BTreeMap<Vec<u8>, bool> =
                        names.keys().map(|name| (name.clone(), false)).collect();
                    if self.node(dir).links > 0 {
                        due.extend([(b".".to_vec(), false), (b"..".to_vec(), false)]);
                    }
                    self.held_mut(step.actor).listings[usize::from(listing)] = Some(Listing { dir, due });
                }
                Ok(())
            }
            Operation::List { listing, .. } => self.list(step.actor, usize::from(listing), answer),
            _ => Ok(()),
        }
    }

    fn list(&mut self, actor: u8, slot: usize, answer: &Answer) -> Verdict {
        let Answer::Entries(entries, more) = answer else { return Err(format!("{answer:?}")) };
        let Some(mut listing) = self.held_mut(actor).listings[slot].take() else {
            return Err("nothing is being listed".to_owned());
        };
        let alive = self.node(listing.dir).links > 0;
        let mut piece = Vec::new();
        for entry in entries {
            let shown = short(&entry.name);
            match self.lookup(listing.dir, &entry.name) {
                // A transaction puts a directory that is replaced into `lost+found`, where it dies: what `..` of such a one is
                // called is nobody's business.
                Ok(id) if alive || entry.name != b".." => {
                    let node = self.node(id);
                    if node.nr != entry.nr.get() || entry.kind.is_some_and(|kind| kind != node.kind) {
                        return Err(format!("{shown} is listed as {}, and is {}", entry.nr, node.nr));
                    }
                }
                Err(_) if alive => return Err(format!("{shown} is listed and is not there")),
                _ => {}
            }
            if piece.contains(&&entry.name) {
                return Err(format!("{shown} is listed twice in one piece"));
            }
            piece.push(&entry.name);
            if let Some(seen) = listing.due.get_mut(&entry.name[..]) {
                if *seen {
                    return Err(format!("{shown}, which was there all the time, is listed twice"));
                }
                *seen = true;
            }
        }
        if *more {
            self.held_mut(actor).listings[slot] = Some(listing);
            return Ok(());
        }
        match listing.due.iter().find(|(_, seen)| !**seen) {
            Some((name, _)) if alive => {
                Err(format!("{}, which was there all the time, is not listed", short(name)))
            }
            _ => Ok(()),
        }
    }
}
