//! Whole trees over what is there: directories and manifests as layers.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Merge, Node, Nr, ROOT};
use crate::archive::contents::{Lower, Place};
use crate::mkfs::{Body, Contents, NodeId, Result, Tree};

impl Merge {
    /// Puts a tree over what is there: its directories keep what is in them, all else is new. `skip` says of a name
    /// whether it is left out, with what is below it. Contents are read when they are asked for.
    ///
    /// # Errors
    /// `Entry`.
    pub fn tree(
        &mut self,
        mut tree: Tree,
        contents: Box<dyn Contents + Send>,
        skip: &dyn Fn(&Tree, &[u8], NodeId) -> bool,
    ) -> Result<()> {
        tree.sort()?;
        self.last = None;
        self.warnings.append(core::mem::take(tree.warnings_mut()));
        let number = self.trees.len() as u32; // one for each source that was named
        let mut known: HashMap<NodeId, Nr> = HashMap::from([(NodeId::ROOT, ROOT)]);
        let root = &mut self.nodes[ROOT as usize];
        root.attrs.clone_from(tree.attrs(NodeId::ROOT));
        root.acls.clear();
        for directory in tree.directories() {
            let Some(&parent) = known.get(&directory) else { continue };
            for (name, node) in tree.children(directory).filter(|(name, node)| !skip(&tree, name, *node)) {
                let path = tree.path(node);
                let nr = match known.get(&node) {
                    Some(&nr) => nr,
                    None => self.take(&tree, &path, (parent, name), (number, node))?,
                };
                known.insert(node, nr);
                if self.nodes[parent as usize].names.get(name) != Some(&nr) {
                    self.name(&path, parent, name.into(), nr)?;
                }
            }
        }
        self.trees.push(Lower { tree: Arc::new(tree), contents });
        Ok(())
    }

    /// The file of a name: the directory that is there, or one that has no name yet.
    fn take(
        &mut self,
        tree: &Tree,
        path: &[u8],
        (parent, name): (Nr, &[u8]),
        (number, node): (u32, NodeId),
    ) -> Result<Nr> {
        let attrs = tree.attrs(node).clone();
        let mut body = tree.body(node).clone();
        if let Body::File { handle, .. } = &mut body {
            *handle = self.places.len() as u64;
            self.places.push(Place::Tree { tree: number, node });
        }
        let there = self.nodes[parent as usize].names.get(name).copied();
        if let Some(there) = there.filter(|&nr| body == Body::Directory && self.is_directory(nr)) {
            let node = &mut self.nodes[there as usize];
            (node.attrs, node.acls) = (attrs, Vec::new());
            return Ok(there);
        }
        self.add(path, Node { attrs, acls: Vec::new(), body, parent, names: HashMap::new() })
    }
}
