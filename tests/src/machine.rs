//! Trees made of the machine's own files: names, sizes, modes and links that nobody made up.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

/// Where files are taken from, in this order.
const SOURCES: [&str; 4] = ["/usr/lib", "/usr/share", "/usr/include", "/etc"];

/// What a tree came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Files, symlinks and further names of files.
    pub files: usize,
    /// Directories.
    pub directories: usize,
    /// Bytes in files.
    pub bytes: u64,
}

/// Copies some of the machine's files into `target`: at most `files` of them and at most `bytes` in all, no file above
/// an eighth of that. Hard links between them stay hard links, symlinks are copied as they are. What the process may
/// not read is passed over. The same machine gives the same tree.
pub fn build_tree(target: &Path, files: usize, bytes: u64) -> Tree {
    let mut tree = Tree::default();
    let mut made: BTreeSet<PathBuf> = BTreeSet::new();
    let mut first_names: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    let mut pending: Vec<PathBuf> = SOURCES.iter().rev().map(PathBuf::from).collect();
    while let Some(folder) = pending.pop() {
        let Ok(list) = fs::read_dir(&folder) else { continue };
        let mut paths: Vec<PathBuf> = list.filter_map(Result::ok).map(|item| item.path()).collect();
        paths.sort();
        // Directories are pushed in reverse so that they come off in order, after the files beside them.
        for path in paths.iter().rev() {
            if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
                pending.push(path.clone());
            }
        }
        // Not too much of one folder: variety is worth more than completeness.
        for path in paths.iter().take(40) {
            if tree.files >= files {
                return tree;
            }
            let Ok(found) = fs::symlink_metadata(path) else { continue };
            if found.is_dir() || (found.is_file() && found.len() > (bytes / 8).min(bytes - tree.bytes)) {
                continue;
            }
            let place = target.join(path.strip_prefix("/").expect("the sources are absolute"));
            let parent = place.parent().expect("a file is in a folder");
            fs::create_dir_all(parent).expect("folders can be made in the target");
            made.extend(parent.ancestors().take_while(|folder| *folder != target).map(Path::to_path_buf));
            tree.directories = made.len();
            let id = (found.dev(), found.ino());
            let copied = if found.is_symlink() {
                fs::read_link(path).and_then(|to| symlink(to, &place)).is_ok()
            } else if !found.is_file() {
                false
            } else if let Some(first) = first_names.get(&id).filter(|_| found.nlink() > 1) {
                fs::hard_link(first, &place).is_ok()
            } else {
                first_names.insert(id, place.clone());
                let length = fs::copy(path, &place);
                tree.bytes += length.as_ref().copied().unwrap_or(0);
                length.is_ok()
            };
            tree.files += usize::from(copied);
        }
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_the_machine_keeps_its_limits() {
        let folder = tempfile::tempdir().unwrap();
        let tree = build_tree(folder.path(), 300, 8 << 20);
        assert_eq!(tree.files, 300, "any machine has so many small files");
        assert!(tree.bytes > 0 && tree.bytes <= 8 << 20 && tree.directories > 3, "{tree:?}");
        let walked = crate::walk(folder.path()).unwrap();
        assert_eq!(walked.entries().len(), 1 + tree.files + tree.directories);
    }
}
