//! Users and groups by name, as `/etc/passwd` and `/etc/group` of a tree say them.

use std::collections::HashMap;

use super::number;
use crate::mkfs::{Body, Contents, NodeId, SourceFile, Tree};

/// Numbers by names.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    users: HashMap<Vec<u8>, (u32, u32)>,
    groups: HashMap<Vec<u8>, u32>,
}

/// Bytes of a list that are read at most.
const MOST: u64 = 16 << 20;

impl Owners {
    /// Those of `tree`, which is [sorted](Tree::sort). A list that is missing or cannot be read has nobody in it.
    #[must_use]
    pub fn of(tree: &Tree, contents: &mut dyn Contents) -> Self {
        let mut owners = Self::default();
        let id =
            |field: Option<&[u8]>| field.and_then(number::of_decimal).and_then(|id| u32::try_from(id).ok());
        for line in lines(tree, contents, b"passwd") {
            let mut fields = line.split(|&byte| byte == b':');
            if let (Some(name), Some(uid), Some(gid)) = (fields.next(), id(fields.nth(1)), id(fields.next()))
            {
                owners.users.entry(name.to_vec()).or_insert((uid, gid));
            }
        }
        for line in lines(tree, contents, b"group") {
            let mut fields = line.split(|&byte| byte == b':');
            if let (Some(name), Some(gid)) = (fields.next(), id(fields.nth(1))) {
                owners.groups.entry(name.to_vec()).or_insert(gid);
            }
        }
        owners
    }

    /// The number of a user.
    #[must_use]
    pub fn user(&self, name: &[u8]) -> Option<u32> {
        self.users.get(name).map(|found| found.0)
    }

    /// The group that a user belongs to.
    #[must_use]
    pub fn group_of_user(&self, name: &[u8]) -> Option<u32> {
        self.users.get(name).map(|found| found.1)
    }

    /// The number of a group.
    #[must_use]
    pub fn group(&self, name: &[u8]) -> Option<u32> {
        self.groups.get(name).copied()
    }
}

/// The lines of a file in `/etc`.
fn lines(tree: &Tree, contents: &mut dyn Contents, name: &[u8]) -> Vec<Vec<u8>> {
    let child = |parent: NodeId, name: &[u8]| {
        tree.children(parent).find(|(known, _)| *known == name).map(|found| found.1)
    };
    let found = child(NodeId::ROOT, b"etc").and_then(|etc| child(etc, name));
    let Some(node) = found else { return Vec::new() };
    let Body::File { size, handle, .. } = *tree.body(node) else { return Vec::new() };
    let mut bytes = vec![0; size.min(MOST) as usize];
    let file = SourceFile { tree, node, size, handle };
    let read = contents.open(&file).and_then(|()| contents.read_at(0, &mut bytes));
    contents.abandon();
    match read {
        Ok(()) => bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect(),
        Err(_) => Vec::new(),
    }
}
