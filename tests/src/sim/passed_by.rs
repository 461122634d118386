//! Between two stores of a change a fence of somebody else's fails, and with it goes what the change has stored so far: it builds
//! nothing on that.

use std::sync::Arc;

use blockdev::{Calls, Fault, Faulty};
use ext2_core::{Ext2, FileKind, Inode, NewInode, SetAttr};

use super::{Options, Step, Word, World, failing::mended, fenced::Fenced};
use crate::{Rng, tree};

/// A file of who makes the fence.
const OTHERS: &[u8] = b"others";

/// Whether this can come between the stores of such a step: who makes the fence waits for nothing that the step holds.
pub(super) fn can_come_between(options: &Options, word: Word) -> bool {
    use Word as W;
    let is_change = matches!(
        word,
        W::Create
            | W::Symlink
            | W::Link
            | W::Unlink
            | W::Rmdir
            | W::Rename
            | W::Chmod
            | W::Chown
            | W::SetXattr
            | W::RemoveXattr
            | W::Write
            | W::Truncate
    );
    is_change && !options.share_xattrs && !options.log && !options.batch
}

/// Does the last step, with the loss in it, and looks at what the disk has.
pub(super) fn run(
    world: &mut World,
    device: &Arc<Faulty<Fenced>>,
    last: &Step,
    rng: &mut Rng,
) -> Result<(), String> {
    let fs = world.ext2().clone();
    let Ok(others) = others(&fs) else { return Ok(()) };
    fs.sync().map_err(|error| error.to_string())?;
    let names = |fs: &Ext2| -> Result<Vec<u32>, String> {
        Ok(tree::of(fs)?.values().map(|node| node.inode).collect())
    };
    let before = names(&fs)?;
    let known = device.clone();
    device.inner().begin_disk(rng.below(25), move || {
        let fail = move || {
            known.arm(Fault::once(Calls::FENCE | Calls::FLUSH, 0));
            let chmod = SetAttr { mode: Some(0o600), ..SetAttr::default() };
            let is_lost = others.set_attr(&chmod).is_err();
            known.disarm();
            if is_lost {
                known.inner().lose();
            }
        };
        // By somebody who holds nothing.
        std::thread::spawn(fail).join().expect("no panic");
    });
    let answer = world.perform(last);
    let disk = device.inner().take_disk();
    let after = names(&fs);
    drop(fs);
    // Nobody is told of it any more.
    let _ = world.close();
    let (Some(disk), Ok(after)) = (disk, after) else { return Ok(()) };
    let told =
        |words: String| format!("{words}; another's fence failed in {last}, which gave {}", answer.words());
    let left = tree::read(mended(disk).map_err(told)?).map_err(told)?;
    let is_there = |nr: &u32| left.values().any(|node| node.inode == *nr);
    let mut gone = before.iter().filter(|nr| after.contains(nr) && !is_there(nr));
    // What could not be removed durably may be gone.
    let may_go =
        !answer.is_done() && matches!(last.operation.word(), Word::Unlink | Word::Rmdir | Word::Rename);
    match gone.nth(usize::from(may_go)) {
        Some(nr) => Err(told(format!("inode {nr} has no name"))),
        None => Ok(()),
    }
}

fn others(fs: &Ext2) -> ext2_core::Result<Inode> {
    fs.root()?.create(OTHERS, &NewInode::new(FileKind::Regular, 0o644))
}
