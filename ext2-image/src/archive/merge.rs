//! Members of archives as one tree, by the rules by which `tar` unpacks them one over the other.
//!
//! # Invariants
//! 1. Whatever a member or a link says, nothing is ever outside the root: links are followed as in a `chroot`.
//! 2. A name that comes again is a new file; other names of the old one keep what they had. Directories stay.
//! 3. What comes out depends on the members and their order alone.

mod tree;

use std::collections::HashMap;
use std::fs::File;

use super::contents::{ArchiveContents, Lower, Place};
use super::member::{Data, Member, MemberKind};
use super::{acl, owners};
use crate::manifest::quote;
use crate::mkfs::source::Times;
use crate::mkfs::{Alike, Body, Error, NodeAttrs, NodeId, Result, Tree, Warnings, attribute_lost};
use ext2_core::rules::XattrName;
use ext2_core::{Acl, AclKind, Timestamp};

/// What may take the place of a directory that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Nothing: `tar` refuses it.
    Tar,
    /// Anything: so a layer of a container image is applied.
    Layer,
}

/// Lists of access control, as text.
type Lists = Vec<(AclKind, Vec<u8>)>;

/// A file, by its number.
type Nr = u32;
const ROOT: Nr = 0;

#[derive(Debug)]
struct Node {
    attrs: NodeAttrs,
    acls: Lists,
    body: Body,
    /// Of a directory: the one that holds it; the root holds itself.
    parent: Nr,
    names: HashMap<Box<[u8]>, Nr>,
}

/// A tree in the making.
#[derive(Debug)]
pub struct Merge {
    nodes: Vec<Node>,
    files: Vec<File>,
    trees: Vec<Lower>,
    places: Vec<Place>,
    replace: Replace,
    times: Times,
    /// Links to what has not come yet: directory and name, and the path that they lead to.
    waiting: HashMap<(Nr, Box<[u8]>), Vec<u8>>,
    /// The directory that held the last member, by its path as written.
    last: Option<(Vec<u8>, Nr)>,
    warnings: Warnings,
    /// What is kept of attributes that many members have from one header.
    alike: Alike<Vec<String>>,
    /// Numbers of users and groups by names, as members say them.
    users: HashMap<Vec<u8>, u32>,
    groups: HashMap<Vec<u8>, u32>,
}

/// Links that a path may lead through (Linux: `MAXSYMLINKS`).
const LINKS_MAX: u32 = 40;

impl Merge {
    /// A tree of nothing but the root, which has mode 0755 and belongs to root unless a member says otherwise.
    #[must_use]
    pub fn new(replace: Replace, times: Times) -> Self {
        Self {
            nodes: vec![directory(ROOT)],
            files: Vec::new(),
            trees: Vec::new(),
            places: Vec::new(),
            replace,
            times,
            waiting: HashMap::new(),
            last: None,
            warnings: Warnings::default(),
            alike: Alike::default(),
            users: HashMap::new(),
            groups: HashMap::new(),
        }
    }

    /// Takes an archive that members come from; gives its number for [`member`](Self::member).
    pub fn archive(&mut self, file: File) -> u32 {
        self.files.push(file);
        self.files.len() as u32 - 1 // one descriptor each
    }

    /// Puts a member of archive `archive` into the tree.
    ///
    /// # Errors
    /// `Entry` for a path that leads out of the archive or through what is no directory, a directory that is not empty
    /// and would become something else, a link to a directory.
    pub fn member(&mut self, member: Member, archive: u32) -> Result<()> {
        let Member { path, kind, attrs, acls, owner_names, lost } = member;
        for what in lost {
            self.warnings.add(&path, what);
        }
        for (map, name, id) in
            [(&mut self.users, owner_names.0, attrs.uid), (&mut self.groups, owner_names.1, attrs.gid)]
        {
            if !name.is_empty() && !map.contains_key(&name) {
                map.insert(name, id);
            }
        }
        let Some((parent, name)) = self.place_of(&path)? else {
            if kind != MemberKind::Directory {
                return Err(Error::entry(&path, "the root is a directory and nothing else"));
            }
            let attrs = self.taken(&path, attrs);
            let root = &mut self.nodes[ROOT as usize];
            (root.attrs, root.acls) = (attrs, acls);
            return Ok(());
        };
        let body = match kind {
            MemberKind::HardLink(target) => return self.link(&path, parent, name, target),
            MemberKind::Directory => Body::Directory,
            MemberKind::Symlink(target) => Body::Symlink(target.into()),
            MemberKind::CharDevice(device) => Body::CharDevice(device),
            MemberKind::BlockDevice(device) => Body::BlockDevice(device),
            MemberKind::Fifo => Body::Fifo,
            MemberKind::File(data) => {
                let handle = self.places.len() as u64;
                let (size, spans) = match &data {
                    Data::Whole { size, .. } => (*size, None),
                    Data::Sparse(map) => (map.size(), Some(map.data().into())),
                };
                self.places.push(Place::Archive { archive, data });
                Body::File { size, data: spans, handle }
            }
        };
        let attrs = self.taken(&path, attrs);
        let there = self.nodes[parent as usize].names.get(&name).copied();
        if let Some(there) = there.filter(|&nr| body == Body::Directory && self.is_directory(nr)) {
            let node = &mut self.nodes[there as usize];
            (node.attrs, node.acls) = (attrs, acls);
            return Ok(());
        }
        let nr = self.add(&path, Node { attrs, acls, body, parent, names: HashMap::new() })?;
        self.name(&path, parent, name, nr)
    }

    /// Which times of the members that follow are taken.
    pub fn set_times(&mut self, times: Times) {
        self.times = times;
    }

    /// Notes something that a person should know about an archive as a whole.
    pub fn note(&mut self, what: &str) {
        self.warnings.note(what);
    }

    /// Notes something that a person should know about a member.
    pub fn warn(&mut self, path: &[u8], what: &str) {
        self.warnings.add(path, what);
    }

    /// Removes what a path names, with all that is below it. Links in the path are followed, but for its last name.
    /// Gives whether there was something.
    ///
    /// # Errors
    /// `Entry` for a path that leads out of the archive or through what is no directory.
    pub fn remove(&mut self, path: &[u8]) -> Result<bool> {
        if parts(path)?.is_empty() {
            return Err(Error::entry(path, "the root cannot be removed"));
        }
        let Some((parent, name)) = self.place_without_making(path)? else { return Ok(false) };
        self.last = None;
        let waited = self.waiting.remove(&(parent, name.clone())).is_some();
        Ok(self.nodes[parent as usize].names.remove(&name).is_some() || waited)
    }

    /// Removes all that is in the directory of a path, if there is one; it stays itself.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn clear(&mut self, path: &[u8]) -> Result<()> {
        self.last = None;
        let nr = if parts(path)?.is_empty() { Some(ROOT) } else { self.find(path)? };
        if let Some(nr) = nr.filter(|&nr| self.is_directory(nr)) {
            self.nodes[nr as usize].names.clear();
            self.waiting.retain(|(parent, _), _| *parent != nr);
        }
        Ok(())
    }

    /// The tree, and what has the bytes of its files.
    ///
    /// # Errors
    /// `Source` for a link to what is in no archive.
    pub fn finish(mut self) -> Result<(Tree, ArchiveContents)> {
        self.resolve_waiting()?;
        let mut tree = Tree::new(self.nodes[ROOT as usize].attrs.clone());
        let mut known: Vec<Option<NodeId>> = vec![None; self.nodes.len()];
        known[ROOT as usize] = Some(NodeId::ROOT);
        let mut listed: Vec<(NodeId, Lists)> = Vec::new();
        let root_acls = core::mem::take(&mut self.nodes[ROOT as usize].acls);
        if !root_acls.is_empty() {
            listed.push((NodeId::ROOT, root_acls));
        }
        let mut pending = vec![(ROOT, NodeId::ROOT)];
        while let Some((nr, parent)) = pending.pop() {
            // In the order of names, so that what is said of them is said in the same order each time.
            let mut names: Vec<_> = core::mem::take(&mut self.nodes[nr as usize].names).into_iter().collect();
            names.sort_unstable();
            for (name, nr) in names {
                if let Some(node) = known[nr as usize] {
                    tree.link(parent, &name, node)?;
                    continue;
                }
                let from = &mut self.nodes[nr as usize];
                let attrs = core::mem::take(&mut from.attrs);
                let node = tree.add(parent, &name, attrs, from.body.clone())?;
                known[nr as usize] = Some(node);
                if !from.acls.is_empty() {
                    listed.push((node, core::mem::take(&mut from.acls)));
                }
                if from.body == Body::Directory {
                    pending.push((nr, node));
                }
            }
        }
        tree.sort()?;
        tree.warnings_mut().append(core::mem::take(&mut self.warnings));
        let mut contents = ArchiveContents::new(self.files, self.places, self.trees);
        if !listed.is_empty() {
            let owners = owners::Owners::of(&tree, &mut contents);
            let (users, groups) = (self.users, self.groups);
            // What the image says of itself counts before what the archive says of who packed it.
            let number = |who, name: &[u8]| match who {
                acl::Who::User => owners.user(name).or_else(|| users.get(name).copied()),
                acl::Who::Group => owners.group(name).or_else(|| groups.get(name).copied()),
            };
            // In the order of paths, for the warnings.
            listed.sort_by_key(|(node, _)| tree.path(*node));
            for (node, lists) in listed {
                set_lists(&mut tree, node, &lists, &number);
            }
        }
        acl::settle(&mut tree);
        Ok((tree, contents))
    }

    /// The attributes of a member as they are kept.
    fn taken(&mut self, path: &[u8], attrs: NodeAttrs) -> NodeAttrs {
        let warnings = &mut self.warnings;
        kept(attrs, self.times, &mut self.alike, &mut |what| warnings.add(path, what))
    }

    fn add(&mut self, path: &[u8], node: Node) -> Result<Nr> {
        let nr = Nr::try_from(self.nodes.len()).map_err(|_| Error::entry(path, "more than 2^32 members"))?;
        self.nodes.push(node);
        Ok(nr)
    }

    fn is_directory(&self, nr: Nr) -> bool {
        self.nodes[nr as usize].body == Body::Directory
    }

    /// Lets a name mean a file, in place of what it means.
    fn name(&mut self, path: &[u8], parent: Nr, name: Box<[u8]>, nr: Nr) -> Result<()> {
        self.vacate(path, parent, &name)?;
        self.nodes[parent as usize].names.insert(name, nr);
        Ok(())
    }

    /// Lets a name mean nothing.
    fn vacate(&mut self, path: &[u8], parent: Nr, name: &[u8]) -> Result<()> {
        let there = self.nodes[parent as usize].names.get(name).copied();
        let is_full = |nr: Nr| self.is_directory(nr) && !self.nodes[nr as usize].names.is_empty();
        if self.replace == Replace::Tar && there.is_some_and(is_full) {
            return Err(Error::entry(
                path,
                "comes again as something else, and is a directory that is not empty",
            ));
        }
        if there.is_some() {
            self.last = None;
        }
        self.waiting.remove(&(parent, name.into()));
        self.nodes[parent as usize].names.remove(name);
        Ok(())
    }

    fn link(&mut self, path: &[u8], parent: Nr, name: Box<[u8]>, target: Vec<u8>) -> Result<()> {
        match self.find(&target)? {
            Some(nr) if self.is_directory(nr) => Err(Error::entry(path, "is a link to a directory")),
            // Itself.
            Some(nr) if self.nodes[parent as usize].names.get(&name) == Some(&nr) => Ok(()),
            Some(nr) => self.name(path, parent, name, nr),
            None => {
                self.vacate(path, parent, &name)?;
                self.waiting.insert((parent, name), target);
                Ok(())
            }
        }
    }

    /// Gives the links whose targets came after them their files; a target may be such a link itself.
    fn resolve_waiting(&mut self) -> Result<()> {
        let mut all: Vec<(Nr, Box<[u8]>)> = self.waiting.keys().cloned().collect();
        all.sort_unstable();
        for first in all {
            let mut chain = vec![first];
            let found = loop {
                let Some(at) = chain.last() else { break None };
                let Some(target) = self.waiting.get(at).cloned() else {
                    break self.nodes[at.0 as usize].names.get(&at.1).copied();
                };
                if chain.len() > self.waiting.len() {
                    break None;
                }
                match self.place_without_making(&target)? {
                    Some(next) => chain.push(next),
                    None => break None,
                }
            };
            let found = found.filter(|&nr| !self.is_directory(nr));
            for at in chain {
                let Some(target) = self.waiting.remove(&at) else { continue };
                let Some(nr) = found else {
                    let path = [self.path_of(at.0), b"/".to_vec(), at.1.to_vec()].concat();
                    let what = format!("is a link to what is not in the archive: {}", quote(&target));
                    return Err(Error::source(&path, what));
                };
                self.nodes[at.0 as usize].names.entry(at.1).or_insert(nr);
            }
        }
        Ok(())
    }

    /// The path of a directory, for messages.
    fn path_of(&self, mut nr: Nr) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = Vec::new();
        while nr != ROOT {
            let parent = self.nodes[nr as usize].parent;
            let name = self.nodes[parent as usize].names.iter().find(|&(_, &child)| child == nr);
            parts.push(name.map_or(b"?", |(name, _)| name));
            nr = parent;
        }
        parts.iter().rev().flat_map(|part| [b"/", *part].concat()).collect()
    }

    /// The file that a path names: links on the way are followed, but for the last name.
    fn find(&mut self, path: &[u8]) -> Result<Option<Nr>> {
        let found = self.place_without_making(path)?;
        Ok(found.and_then(|(parent, name)| self.nodes[parent as usize].names.get(&name).copied()))
    }

    fn place_without_making(&mut self, path: &[u8]) -> Result<Option<(Nr, Box<[u8]>)>> {
        let parts = parts(path)?;
        let Some((name, above)) = parts.split_last() else { return Ok(None) };
        Ok(self.descend(path, above, false)?.map(|parent| (parent, (*name).into())))
    }

    /// Directory and last name of a member, whose directories are made where no member has said them yet; none for the
    /// root.
    fn place_of(&mut self, path: &[u8]) -> Result<Option<(Nr, Box<[u8]>)>> {
        let all = parts(path)?;
        let Some((name, above)) = all.split_last() else { return Ok(None) };
        let key = above.join(&b'/');
        let known = self.last.as_ref().filter(|(path, _)| *path == key).map(|(_, nr)| *nr);
        let parent = match known {
            Some(nr) => nr,
            None => {
                let Some(nr) = self.descend(path, above, true)? else { return Ok(None) };
                self.last = Some((key, nr));
                nr
            }
        };
        Ok(Some((parent, (*name).into())))
    }

    /// The directory that names lead to, through links as if the root were the only one there is. Where one is missing
    /// it is made, or the answer is none.
    fn descend(&mut self, path: &[u8], names: &[&[u8]], make: bool) -> Result<Option<Nr>> {
        let mut at = ROOT;
        let mut left: Vec<Vec<u8>> = names.iter().rev().map(|name| name.to_vec()).collect();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                at = self.nodes[at as usize].parent;
                continue;
            }
            let Some(&next) = self.nodes[at as usize].names.get(name.as_slice()) else {
                if !make {
                    return Ok(None);
                }
                let nr = self.add(path, directory(at))?;
                self.name(path, at, name.into(), nr)?;
                at = nr;
                continue;
            };
            match &self.nodes[next as usize].body {
                Body::Directory => at = next,
                Body::Symlink(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Error::entry(path, "leads through too many symbolic links"));
                    }
                    if target.starts_with(b"/") {
                        at = ROOT;
                    }
                    let more = target.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
                    let more: Vec<Vec<u8>> = more.map(<[u8]>::to_vec).collect();
                    left.extend(more.into_iter().rev());
                }
                _ if !make => return Ok(None),
                _ => return Err(Error::entry(path, "leads through what is no directory")),
            }
        }
        Ok(Some(at))
    }
}

/// The attributes of a member as they are kept; `lost` is told of what is left out, and `alike` knows what that is of lists that
/// members share.
pub(super) fn kept(
    mut attrs: NodeAttrs,
    times: Times,
    alike: &mut Alike<Vec<String>>,
    lost: &mut dyn FnMut(String),
) -> NodeAttrs {
    if times == Times::Modified {
        (attrs.atime, attrs.ctime, attrs.crtime) = (attrs.mtime, attrs.mtime, attrs.mtime);
    }
    let told = alike.change(&mut attrs.xattrs, |list| {
        let mut told = Vec::new();
        list.retain(|(name, value)| match XattrName::parse(name) {
            Ok(parsed) if parsed.acl_kind().is_some() && Acl::from_user(value).is_none() => {
                told.push(format!("attribute {} is left out: it is no access control list", quote(name)));
                false
            }
            Ok(_) => true,
            Err(_) => {
                told.push(attribute_lost(name));
                false
            }
        });
        told
    });
    told.into_iter().for_each(lost);
    attrs
}

/// A directory that no member has said.
fn directory(parent: Nr) -> Node {
    Node {
        attrs: NodeAttrs::new(0o755, (0, 0), Timestamp::default()),
        acls: Vec::new(),
        body: Body::Directory,
        parent,
        names: HashMap::new(),
    }
}

/// The names of a path, without slashes at its ends and without `.`.
pub(super) fn parts(path: &[u8]) -> Result<Vec<&[u8]>> {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let parts: Vec<&[u8]> = parts.collect();
    if parts.contains(&&b".."[..]) {
        return Err(Error::entry(path, "the path leads out of the archive, or may"));
    }
    Ok(parts)
}

/// Turns the lists of a file from text into attributes.
fn set_lists(
    tree: &mut Tree,
    node: NodeId,
    lists: &[(AclKind, Vec<u8>)],
    number: &dyn Fn(acl::Who, &[u8]) -> Option<u32>,
) {
    let path = tree.path(node);
    for (kind, text) in lists {
        let name: &[u8] = match kind {
            AclKind::Access => b"system.posix_acl_access",
            AclKind::Default => b"system.posix_acl_default",
        };
        // The same list may be there in bytes, which need no reading.
        if tree.attrs(node).xattrs.iter().any(|(known, _)| known == name) {
            continue;
        }
        let shown = quote(name);
        let parsed = acl::parse(text, *kind, number);
        if !parsed.is_valid {
            tree.warnings_mut()
                .add(&path, format!("{shown} is left out: its text is no access control list"));
        }
        for who in parsed.unknown {
            let what = format!(
                "the entry of {} in {shown} is left out: nobody in the archive has that name",
                quote(&who)
            );
            tree.warnings_mut().add(&path, what);
        }
        if let Some(acl) = parsed.acl {
            tree.attrs_mut(node).xattrs.push((name.to_vec(), acl.to_user()));
        }
    }
}
