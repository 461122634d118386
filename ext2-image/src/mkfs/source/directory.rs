//! The tree of a directory of the host.
//!
//! Threads look at folders, one each at a time; the one that asked puts what they find into the tree. In what order
//! that happens does not matter: a tree is sorted before anything is made of it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::Folder;
use super::kept::{Kept, Room};
use super::look::{Found, Look};
use super::which::{Times, Xattrs};
use crate::mkfs::{Body, NodeId, Result, Tree, attribute_lost};

/// Files that are handed over at once.
const BATCH: usize = 256;
/// Threads at most: more only wait for the host's locks.
const THREADS: usize = 4;

/// Walks the directory `root` and gives its tree; `progress` hears how many files were found so far.
///
/// Contents come from [`Folder`](super::Folder). Hard links stay links, holes stay holes.
///
/// # Errors
/// `Source` for what cannot be read, `Entry` for what a tree cannot hold.
pub fn read_directory(
    root: &Path,
    times: Times,
    xattrs: Xattrs,
    progress: &mut dyn FnMut(usize),
) -> Result<Tree> {
    read(root, (times, xattrs), None, progress).map(|(tree, _)| tree)
}

/// As [`read_directory`], and gives the contents too, for who wants them once and soon: small files are read with their
/// attributes, up to 32 MiB of them, all else when it is wanted.
///
/// # Errors
/// As for [`read_directory`].
pub fn read_folder(
    root: &Path,
    times: Times,
    xattrs: Xattrs,
    progress: &mut dyn FnMut(usize),
) -> Result<(Tree, Folder)> {
    let (tree, kept) = read(root, (times, xattrs), Some(&Room::new()), progress)?;
    Ok((tree, Folder::with(root, kept)))
}

fn read(
    root: &Path,
    (times, xattrs): (Times, Xattrs),
    room: Option<&Room>,
    progress: &mut dyn FnMut(usize),
) -> Result<(Tree, Arc<Kept>)> {
    let (attrs, lost) = Look::new(times, xattrs).at_root(root)?;
    let mut tree = Tree::new(attrs);
    lost.iter().for_each(|name| tree.warnings_mut().add(b"/", attribute_lost(name)));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let (ask, asked) = channel::<Job>();
    let (tell, told) = sync_channel::<Told>(4 * threads);
    let asked = Mutex::new(asked);
    let mut kept = Kept::default();
    std::thread::scope(|scope| {
        // Moved in: threads that wait end when nobody can ask or be told any more.
        let (ask, told) = (ask, told);
        for _ in 0..threads {
            let (tell, asked) = (tell.clone(), &asked);
            scope.spawn(move || work(Look::keeping(times, xattrs, room), asked, &tell));
        }
        drop(tell);
        gather(&mut tree, &mut kept, root, (&ask, &told), progress)
    })?;
    Ok((tree, Arc::new(kept)))
}

/// A folder that is to be looked at.
struct Job {
    folder: PathBuf,
    node: NodeId,
    /// Its path in the tree.
    shown: Vec<u8>,
}

/// What a thread has to say.
enum Told {
    /// Files of the folder of this path, which has this node.
    Files(NodeId, PathBuf, Vec<Found>),
    /// That a folder is finished, or why it cannot be.
    Done(Result<()>),
}

/// A thread: folder by folder, until nobody asks for more.
fn work(mut look: Look<'_>, asked: &Mutex<Receiver<Job>>, tell: &SyncSender<Told>) {
    let next = || asked.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(Job { folder, node, shown }) = next() {
        let mut batch = Vec::with_capacity(BATCH);
        let send = |batch: &mut Vec<Found>| {
            // Nobody listens after an error; then there is nothing to be told.
            let _ = tell.send(Told::Files(node, folder.clone(), std::mem::take(batch)));
        };
        let done = look.list(&folder, &shown, &mut |found| {
            batch.push(found);
            if batch.len() == BATCH {
                send(&mut batch);
            }
        });
        send(&mut batch);
        if tell.send(Told::Done(done)).is_err() {
            return;
        }
    }
}

/// Asks for folders and puts what is found into the tree, until there are no more.
fn gather(
    tree: &mut Tree,
    kept: &mut Kept,
    root: &Path,
    (ask, told): (&Sender<Job>, &Receiver<Told>),
    progress: &mut dyn FnMut(usize),
) -> Result<()> {
    // Files with several names, by device and inode.
    let mut links = HashMap::new();
    // The threads live as long as `ask`: it is always heard.
    let _ = ask.send(Job { folder: root.to_path_buf(), node: NodeId::ROOT, shown: b"/".to_vec() });
    let mut open = 1_usize;
    while open > 0 {
        let Ok(told) = told.recv() else { break };
        match told {
            Told::Files(parent, folder, files) => {
                for found in files {
                    let first = found.linked.and_then(|id| links.get(&id).copied());
                    if let Some(first) = first {
                        tree.link(parent, &found.name, first)?;
                        continue;
                    }
                    let (lost, stamp, mut body) = (found.lost, found.stamp, found.body);
                    if let (Body::File { handle, .. }, Some(bytes)) = (&mut body, &found.bytes) {
                        *handle = kept.push(bytes);
                    }
                    let is_folder = body == Body::Directory;
                    let node = tree.add(parent, &found.name, found.attrs, body)?;
                    if let Some(stamp) = stamp {
                        tree.set_stamp(node, stamp);
                    }
                    for name in lost {
                        let path = tree.path(node);
                        tree.warnings_mut().add(&path, attribute_lost(&name));
                    }
                    if let Some(id) = found.linked {
                        links.insert(id, node);
                    }
                    if is_folder {
                        let folder = folder.join(OsStr::from_bytes(&found.name));
                        let _ = ask.send(Job { folder, node, shown: tree.path(node) });
                        open += 1;
                    }
                }
                progress(tree.len());
            }
            Told::Done(done) => {
                done?;
                open -= 1;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mkfs::{Contents as _, SourceFile};

    #[test]
    fn small_files_are_kept_as_they_were_and_others_read_when_they_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let bytes = |len: usize| (0..len).map(|n| (n * 7 + len) as u8 | 1).collect::<Vec<u8>>();
        let sizes = [0, 1, 300, 4096, 4097, 100_000];
        for size in sizes {
            std::fs::write(root.join(format!("{size:06}")), bytes(size)).unwrap();
        }
        std::fs::hard_link(root.join("000300"), root.join("linked")).unwrap();
        std::fs::File::create(root.join("hole")).unwrap().set_len(8192).unwrap();
        std::os::unix::fs::symlink("000001", root.join("symlink")).unwrap();
        let (tree, mut contents) = read_folder(root, Times::Modified, Xattrs::Keep, &mut |_| ()).unwrap();
        // What else is known of them is what is known without keeping any.
        let plain = read_directory(root, Times::Modified, Xattrs::Keep, &mut |_| ()).unwrap();
        let lines = |tree: Tree| {
            let entries = crate::manifest::TreeEntries::new(tree, Box::new(Folder::new(root))).unwrap();
            entries.map(Result::unwrap).collect::<Vec<_>>()
        };
        assert_eq!(lines(tree.clone()), lines(plain));
        for size in sizes {
            std::fs::remove_file(root.join(format!("{size:06}"))).unwrap();
        }
        let mut other = contents.another().unwrap();
        for size in sizes.into_iter().filter(|size| *size > 0) {
            let node = tree.ids().find(
                |node| matches!(tree.body(*node), Body::File { size: found, .. } if *found == size as u64),
            );
            let node = node.unwrap();
            let Body::File { handle, .. } = *tree.body(node) else { panic!("it is a file") };
            let file = SourceFile { tree: &tree, node, size: size as u64, handle };
            for contents in [&mut contents as &mut dyn crate::mkfs::Contents, &mut *other] {
                if size > 4096 {
                    assert!(contents.open(&file).is_err(), "it is gone");
                    continue;
                }
                contents.open(&file).unwrap();
                let mut part = vec![0; size - size / 3];
                contents.read_at((size / 3) as u64, &mut part).unwrap();
                assert_eq!(part, bytes(size)[size / 3..]);
                assert!(contents.read_at(1, &mut vec![0; size]).is_err());
                contents.close().unwrap();
            }
        }
    }
}
