//! What a source should not have where it stands alone.

use crate::mkfs::{Body, NodeId, Tree};
use crate::oci::{is_whiteout, without_layers};

/// Warns of names that would hide something if there were a layer below, and of a container image that was taken as
/// plain files.
pub(super) fn warn(tree: &mut Tree) {
    let mut warnings = core::mem::take(tree.warnings_mut());
    for directory in tree.directories() {
        for (name, node) in tree.children(directory).filter(|(name, _)| is_whiteout(name)) {
            let path = if tree.first_name(node) == (directory, name) {
                tree.path(node)
            } else {
                [tree.path(directory), b"/".to_vec(), name.to_vec()].concat()
            };
            warnings.add(
                &path,
                "is named as a whiteout of a container's layer, and is kept as a file: there is no layer below it",
            );
        }
    }
    for node in tree.ids() {
        if let Some(what) = without_layers(tree, node) {
            warnings.add(&tree.path(node), what);
        }
    }
    let has = |wanted: &[u8]| {
        let found = tree.children(NodeId::ROOT).find(|(name, _)| *name == wanted);
        found.map(|(_, node)| tree.body(node))
    };
    let is_file = |name: &[u8]| matches!(has(name), Some(Body::File { .. }));
    let is_layout = is_file(b"oci-layout") && is_file(b"index.json");
    let is_saved = is_file(b"manifest.json") && (has(b"blobs").is_some() || is_file(b"repositories"));
    if is_layout || is_saved {
        warnings
            .note("this is a container image, taken as plain files: oci: before its name unpacks its layers");
    }
    *tree.warnings_mut() = warnings;
}
