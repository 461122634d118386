//! Renaming (Linux: `ext2_rename`, and `RENAME_EXCHANGE`, which its ext2 lacks).
//!
//! A file gets its new name before it loses the old one; a target that is replaced stays reachable, as a name in `lost+found`,
//! until the new file has its name. Where there is no `lost+found` it is made for that long: a crash leaves the former target
//! there, and nothing in the directories that were changed. Two names in one block of a directory change places by one store of
//! that block's pointer.
//!
//! A directory that changes its parent, or its block, has no safe order in ext2 alone: two names for one directory stop e2fsck,
//! and so does none. Where the image has a journal (an ext3 one), the change is one transaction in it. Otherwise the window is
//! kept as short as it can be, a few stores of 4 bytes, or is closed by refusing with `EXDEV` where the file system was opened
//! with `strict_rename`.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bitflags::bitflags;

use super::shelter::{Keeper, Shelter};
use super::{LINK_MAX, check_name, is_dots, is_empty, with_locks};
use crate::dir::Found;
use crate::error::{Result, refuse};
use crate::inode::{FileKind, Inode};
use crate::journal::{Images, Journal, Transaction};
use crate::order::Written;
use crate::sync::Mended;
use crate::{Errno, Ext2, InodeNr};

bitflags! {
    /// How to rename.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct RenameFlags: u32 {
        /// `EEXIST` where the new name is there already.
        const NOREPLACE = 1;
        /// The two names change places.
        const EXCHANGE = 2;
    }
}

/// A rename with its directories and names; what they name is looked up under the locks.
struct Rename<'r> {
    old_dir: &'r Inode,
    old: &'r [u8],
    new_dir: &'r Inode,
    new: &'r [u8],
    source: Inode,
    target: Option<Inode>,
    lost: Option<Inode>,
    /// How many losses were known when it began.
    known: u32,
}

impl Ext2 {
    /// Renames `old` in `old_dir` to `new` in `new_dir`, over what is there if that can be replaced.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST` with `NOREPLACE`, `ENOTEMPTY`, `EISDIR` and `ENOTDIR` when a directory and another
    /// kind meet, `EINVAL` for a directory into itself or what is in it, `EMLINK`, `ENOSPC`, `EXDEV` for a
    /// directory where `strict_rename` asks for it, `EPERM`, `EROFS`; `Corrupt`, the device's errors.
    pub fn rename(
        &self,
        old_dir: &Inode,
        old: &[u8],
        new_dir: &Inode,
        new: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        if flags.contains(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE) {
            return refuse(Errno::INVAL, "either not to replace or to exchange");
        }
        old_dir.need_dir()?;
        new_dir.need_dir()?;
        if !Arc::ptr_eq(&self.0, &old_dir.0.fs) || !Arc::ptr_eq(&self.0, &new_dir.0.fs) {
            return refuse(Errno::XDEV, "");
        }
        // Linux refuses dots before it looks anything up, and a name that is too long when it is looked up.
        let (old_name, new_name) = (check_name(old), check_name(new));
        if (is_dots(old) || is_dots(new)) && !Mended::DotsAsNames.is_back() {
            let is_there = !is_dots(old) && flags.contains(RenameFlags::NOREPLACE);
            let errno = if is_there { Errno::EXIST } else { Errno::BUSY };
            return refuse(errno, "the name of a directory itself");
        }
        self.0.log.iter().for_each(|log| log.give_way());
        self.0.change(|| {
            old_name?;
            let writer = self.0.writer()?;
            // Between directories: held so that no directory moves while ancestors are walked.
            let mut between = (old_dir != new_dir).then(|| writer.rename.lock());
            // What a place is made of that is made for this one counts, too.
            let known = self.0.losses.count();
            let mut shelter = Shelter::default();
            loop {
                let source = old_dir.lookup(old)?;
                new_name.clone()?;
                let target = match new_dir.lookup(new) {
                    Ok(target) => Some(target),
                    Err(error) if error.refuses(Errno::NOENT) => None,
                    Err(error) => return Err(error),
                };
                let is_over = |is: fn(FileKind) -> bool| target.as_ref().is_some_and(|over| is(over.kind()));
                let over_directory = is_over(|kind| kind == FileKind::Directory);
                // What is kept reachable: a file, and a directory where a transaction moves it there.
                let is_kept = is_over(|kind| kind != FileKind::Directory)
                    || over_directory && self.0.sb.journal_inode.is_some();
                let lost = if is_kept { self.lost_found()? } else { None };
                let is_exposed = is_kept && lost.is_none() && !shelter.is_asked;
                let mut locks: Vec<&Inode> = [old_dir, new_dir].to_vec();
                locks.extend(lost.iter());
                locks.extend([Some(&source), target.as_ref()].into_iter().flatten());
                let (source_nr, target_nr) = (source.nr(), target.as_ref().map(Inode::nr));
                // Within a directory nothing gets below itself.
                let above = |dir: &Inode, matters: bool| {
                    if between.is_some() && matters { ancestors(dir) } else { Ok(BTreeSet::new()) }
                };
                let above_new = above(new_dir, source.kind() == FileKind::Directory)?;
                let above_old = above(old_dir, over_directory)?;
                let rename = Rename {
                    old_dir,
                    old,
                    new_dir,
                    new,
                    source: source.clone(),
                    target: target.clone(),
                    lost: lost.clone(),
                    known,
                };
                let step = with_locks(&locks, || {
                    let there = |found: Option<Found>| found.map(|found| found.nr);
                    let is_other = there(old_dir.0.find(old)?) != Some(source_nr)
                        || there(new_dir.0.find(new)?) != target_nr
                        // It was another rename's, and is gone.
                        || rename.lost.as_ref().is_some_and(|lost| lost.0.attrs.lock().links == 0);
                    if is_other && !Mended::RenameLooksOnce.is_back() {
                        return Ok(Step::Again);
                    }
                    if rename.check(flags, &above_new, &above_old)? {
                        if is_exposed {
                            return Ok(Step::Shelter);
                        }
                        rename.run(flags)?;
                    }
                    Ok(Step::Done)
                })?;
                match step {
                    Step::Again => {}
                    Step::Done => return Ok(()),
                    Step::Shelter => {
                        // Held so that nobody else finds a place that is about to go.
                        between.get_or_insert_with(|| writer.rename.lock());
                        shelter.make(self)?;
                    }
                }
            }
        })
    }
}

/// What a look under the locks came to.
enum Step {
    /// The names are others' by now.
    Again,
    /// Nothing refuses the rename, and what it replaces needs a place that is not there.
    Shelter,
    Done,
}

/// The directories above and including `dir`.
fn ancestors(dir: &Inode) -> Result<BTreeSet<InodeNr>> {
    let mut all = BTreeSet::new();
    let mut at = dir.clone();
    loop {
        let nr = at.nr();
        if !all.insert(nr) {
            return Err(at.0.corrupt("is above itself"));
        }
        if nr == InodeNr::ROOT {
            return Ok(all);
        }
        at = at.parent()?;
    }
}

impl Rename<'_> {
    /// What refuses the rename whatever room there is, in the order of Linux: `do_renameat2`, then `vfs_rename`. False
    /// where both names are one file's, so that nothing is to be done.
    fn check(
        &self,
        flags: RenameFlags,
        above_new: &BTreeSet<InodeNr>,
        above_old: &BTreeSet<InodeNr>,
    ) -> Result<bool> {
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        // No name is looked up in a directory that is removed.
        self.new_dir.0.check_alive()?;
        match &self.target {
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return refuse(Errno::EXIST, ""),
            None if exchange => return refuse(Errno::NOENT, ""),
            _ => {}
        }
        if self.is_dir() && above_new.contains(&self.source.nr()) {
            return refuse(Errno::INVAL, "a directory cannot be put into itself");
        }
        if self.target.as_ref().is_some_and(|target| above_old.contains(&target.nr())) {
            let errno = if exchange { Errno::INVAL } else { Errno::NOTEMPTY };
            return refuse(errno, "the target is above what is moved");
        }
        if self.target.as_ref() == Some(&self.source) {
            return Ok(false);
        }
        self.old_dir.0.check_removable(&self.source.0)?;
        self.new_dir.0.check_insertable()?;
        let Some(target) = &self.target else { return Ok(true) };
        self.new_dir.0.check_removable(&target.0)?;
        if exchange { self.check_exchange(target) } else { self.check_replace(target) }?;
        Ok(true)
    }

    /// Whether the target may be replaced.
    fn check_replace(&self, target: &Inode) -> Result<()> {
        match (self.is_dir(), target.kind() == FileKind::Directory) {
            (true, false) => refuse(Errno::NOTDIR, ""),
            (false, true) => refuse(Errno::ISDIR, ""),
            (true, true) if !is_empty(&target.0)? => refuse(Errno::NOTEMPTY, ""),
            (true, true) => Ok(()),
            (false, false) => self.check_links(&self.source),
        }
    }

    /// Whether both may have one name more, for a moment or, a directory's `..`, for good.
    fn check_exchange(&self, target: &Inode) -> Result<()> {
        // The directory that gets one for a file has a link more.
        let gains = match (self.is_dir(), target.kind() == FileKind::Directory) {
            (true, false) => Some(self.new_dir),
            (false, true) => Some(self.old_dir),
            _ => None,
        };
        if !self.same_parent() && gains.is_some_and(|dir| dir.0.attrs.lock().links >= LINK_MAX) {
            return refuse(Errno::MLINK, "a directory has at most 32000 links");
        }
        let is_dir = |inode: &&Inode| inode.kind() == FileKind::Directory;
        let mut both = [&self.source, target].into_iter();
        both.clone().filter(|inode| !is_dir(inode)).try_for_each(|inode| self.check_links(inode))?;
        if both.any(|inode| is_dir(&inode)) && self.source.0.fs.sb.journal_inode.is_none() {
            return self.check_strict();
        }
        Ok(())
    }

    /// Refuses what moves a directory without a transaction, if that was asked for.
    fn check_strict(&self) -> Result<()> {
        let fs = &self.source.0.fs;
        if fs.writer()?.strict_rename && !fs.is_logged() {
            return refuse(Errno::XDEV, "a directory cannot be moved safely against a crash here");
        }
        Ok(())
    }

    /// What [`check`](Self::check) let pass. Where there is no room but what a log keeps free, the log goes first.
    fn run(&self, flags: RenameFlags) -> Result<()> {
        self.source.0.fs.with_room(|| self.run_whole(flags))
    }

    fn run_whole(&self, flags: RenameFlags) -> Result<()> {
        // Under a log the whole of it is one change.
        let _whole = self.source.0.fs.hold_log();
        match &self.target {
            None => self.to_new_name(),
            Some(target) if flags.contains(RenameFlags::EXCHANGE) => self.exchange(target),
            Some(target) if self.is_dir() => self.replace_directory(target),
            Some(target) => self.replace_file(target),
        }
    }

    fn is_dir(&self) -> bool {
        self.source.kind() == FileKind::Directory
    }

    fn same_parent(&self) -> bool {
        self.old_dir == self.new_dir
    }

    /// Makes what moves directories safe: a transaction with the blocks as `plan` changes them, where there is a
    /// journal that they fit in. Without one it is refused, if that was asked for.
    fn guard_window(
        &self,
        plan: impl FnOnce(&mut Images) -> Result<bool>,
    ) -> Result<Option<Transaction<'_>>> {
        let fs = &self.source.0.fs;
        if let Some(journal) = Journal::find(fs)? {
            let mut images = Images::default();
            if plan(&mut images)? && journal.fits(&images) {
                return fs.whole(|| journal.commit(&images)).map(Some);
            }
        }
        self.check_strict().map(|()| None)
    }

    /// What happens to the `..` of a directory that goes to another parent.
    fn plan_parent(&self, images: &mut Images, dir: &Inode, parent: &Inode) -> Result<()> {
        if self.same_parent() || dir.kind() != FileKind::Directory {
            return Ok(());
        }
        let found = dir.0.must_find(b"..")?;
        dir.0.plan_to_replace(images, &found, parent.0.as_named())
    }

    fn to_new_name(&self) -> Result<()> {
        let (old_dir, new_dir, source) = (&self.old_dir.0, &self.new_dir.0, &self.source.0);
        let found = old_dir.must_find(self.old)?;
        if self.is_dir() {
            if !self.same_parent() && new_dir.attrs.lock().links >= LINK_MAX {
                return refuse(Errno::MLINK, "a directory has at most 32000 links");
            }
            if self.same_parent() && old_dir.rename_in_block(&found, self.new, source.as_named())?.is_some() {
                source.touch_ctime();
                return Ok(());
            }
            old_dir.find_removal(&found)?;
            let plan = |images: &mut Images| {
                // As it is done: both names may lie in one block, and the new one in what the old one leaves unused.
                let is_there = new_dir.plan_to_add(images, self.new, source.as_named())?;
                old_dir.plan_to_remove(images, &found)?;
                self.plan_parent(images, &self.source, self.new_dir)?;
                Ok(is_there)
            };
            let has_journal = source.fs.sb.journal_inode.is_some();
            let room =
                if has_journal { new_dir.find_room_there(self.new)? } else { new_dir.find_room(self.new)? };
            let named = Written::since(self.known, source.as_named());
            let transaction = self.guard_window(plan)?;
            return source.fs.whole(|| {
                new_dir.put_name(self.new, room, named)?;
                self.remove_old()?;
                self.adopt(&self.source)?;
                Transaction::end(transaction)
            });
        }
        // One more name, then one less: a crash shows both, never none.
        self.check_links(&self.source)?;
        old_dir.find_removal(&found)?;
        let room = new_dir.find_room(self.new)?;
        source.fs.whole(|| {
            source.count_link(1)?;
            let counted = Written::since(self.known, source.as_named());
            if let Err(error) = new_dir.put_name(self.new, room, counted) {
                source.count_link(-1)?;
                return Err(error);
            }
            self.remove_old()?;
            source.count_link(-1)
        })
    }

    /// Takes the old name away. It is looked for anew, since the new one may lie in the same block.
    fn remove_old(&self) -> Result<()> {
        let dir = &self.old_dir.0;
        let removal = dir.find_removal(&dir.must_find(self.old)?)?;
        dir.remove_name(self.old, &removal).map(drop)
    }

    /// A rename needs one name more for a moment.
    fn check_links(&self, inode: &Inode) -> Result<()> {
        // The limit leaves room: a count of 65535 is what the field can hold.
        if inode.0.attrs.lock().links == u16::MAX {
            return refuse(Errno::MLINK, "an inode has at most 65535 names");
        }
        Ok(())
    }

    /// A directory is in `new_dir` now: its `..` and the link counts follow.
    fn adopt(&self, dir: &Inode) -> Result<()> {
        if !self.same_parent() {
            let _gone = dir.0.replace_parent(self.new_dir.0.as_named())?;
            self.new_dir.0.count_link(1)?;
            self.old_dir.0.count_link(-1)?;
        }
        dir.0.touch_ctime();
        Ok(())
    }

    /// Finds a second name for an inode that is about to lose its only one: in `lost+found`, or beside it where there is
    /// none and no room to make one.
    fn find_keeper(&self, inode: &Inode) -> Result<Keeper> {
        let place = self.lost.as_ref().unwrap_or(self.new_dir);
        let (nr, mut other) = (inode.nr(), 0);
        let mut name = format!("#{nr}").into_bytes();
        while place.0.find(&name)?.is_some() {
            other += 1;
            name = format!("#{nr}.{other}").into_bytes();
        }
        let room = place.0.find_room_there(&name)?;
        Ok(Keeper { place: place.clone(), name, room })
    }

    fn replace_directory(&self, target: &Inode) -> Result<()> {
        let named = self.source.0.as_named();
        let (old_found, new_found) =
            (self.old_dir.0.must_find(self.old)?, self.new_dir.0.must_find(self.new)?);
        // In a transaction the target moves to `lost+found`, to die there when it has lost its name for good.
        let concerned = [self.old_dir, self.new_dir, &self.source, target];
        let shelter = self.lost.as_ref().filter(|lost| !concerned.contains(lost));
        let keeper = shelter.map(|_| self.find_keeper(target)).transpose()?;
        let plan = |images: &mut Images| {
            let Some(keeper) = &keeper else { return Ok(false) };
            self.old_dir.0.plan_to_remove(images, &old_found)?;
            self.plan_parent(images, &self.source, self.new_dir)?;
            self.new_dir.0.plan_to_replace(images, &new_found, named)?;
            let parent = target.0.must_find(b"..")?;
            target.0.plan_to_replace(images, &parent, keeper.place.0.as_named())?;
            keeper.place.0.plan_to_add(images, &keeper.name, target.0.as_named())
        };
        self.old_dir.0.find_removal(&old_found)?;
        let transaction = self.guard_window(plan)?;
        let keeper = keeper.filter(|_| transaction.is_some());
        target.0.fs.whole(|| {
            let kept = match keeper {
                Some(keeper) => {
                    let place = keeper.place.0.as_named();
                    let kept = keeper.keep(target, self.known)?;
                    let _gone = target.0.replace_parent(place)?;
                    Some(kept)
                }
                None => {
                    target.0.kill()?;
                    None
                }
            };
            let named = Written::since(self.known, named);
            let _gone = self.new_dir.0.replace_name(&new_found, named)?;
            self.remove_old()?;
            self.adopt(&self.source)?;
            self.new_dir.0.count_link(-1)?;
            Transaction::end(transaction)?;
            match kept {
                Some(kept) => {
                    target.0.kill()?;
                    kept.let_go()
                }
                None => Ok(()),
            }
        })
    }

    fn replace_file(&self, target: &Inode) -> Result<()> {
        let source = &self.source.0;
        let last = target.0.attrs.lock().links <= 1;
        self.old_dir.0.find_removal(&self.old_dir.0.must_find(self.old)?)?;
        let keeper = if last { Some(self.find_keeper(target)?) } else { None };
        target.0.fs.whole(|| {
            let kept = keeper.map(|keeper| keeper.keep(target, self.known)).transpose()?;
            source.count_link(1)?;
            let counted = Written::since(self.known, source.as_named());
            let found = self.new_dir.0.must_find(self.new)?;
            let _gone = self.new_dir.0.replace_name(&found, counted)?;
            match kept {
                Some(kept) => {
                    target.0.kill()?;
                    kept.let_go()?;
                }
                None => target.0.count_link(-1)?,
            }
            self.remove_old()?;
            source.count_link(-1)
        })
    }

    /// The two names change places.
    fn exchange(&self, target: &Inode) -> Result<()> {
        let source = &self.source;
        let moves_directory = self.is_dir() || target.kind() == FileKind::Directory;
        let (old_found, new_found) =
            (self.old_dir.0.must_find(self.old)?, self.new_dir.0.must_find(self.new)?);
        let keeper =
            if target.kind() == FileKind::Directory { None } else { Some(self.find_keeper(target)?) };
        let keeper = keeper.filter(|_| !Mended::ExchangeKeepsNothing.is_back());
        let transaction = if moves_directory {
            let plan = |images: &mut Images| {
                self.old_dir.0.plan_to_replace(images, &old_found, target.0.as_named())?;
                self.new_dir.0.plan_to_replace(images, &new_found, source.0.as_named())?;
                self.plan_parent(images, source, self.new_dir)?;
                self.plan_parent(images, target, self.old_dir)?;
                Ok(true)
            };
            self.guard_window(plan)?
        } else {
            None
        };
        source.0.fs.whole(|| {
            let kept = match keeper {
                None => None,
                Some(keeper) => {
                    target.0.count_link(1)?;
                    Some(keeper.keep(target, self.known)?)
                }
            };
            if !self.is_dir() {
                source.0.count_link(1)?;
            }
            let named = |inode: &Inode| Written::since(self.known, inode.0.as_named());
            let found = self.new_dir.0.must_find(self.new)?;
            let _gone = self.new_dir.0.replace_name(&found, named(source))?;
            let found = self.old_dir.0.must_find(self.old)?;
            let _gone = self.old_dir.0.replace_name(&found, named(target))?;
            if let Some(kept) = kept {
                kept.let_go()?;
                target.0.count_link(-1)?;
            }
            if !self.is_dir() {
                source.0.count_link(-1)?;
            }
            if !self.same_parent() {
                for (inode, parent) in [(source, self.new_dir), (target, self.old_dir)] {
                    if inode.kind() == FileKind::Directory {
                        let _gone = inode.0.replace_parent(parent.0.as_named())?;
                        let other = if *parent == *self.new_dir { self.old_dir } else { self.new_dir };
                        parent.0.count_link(1)?;
                        other.0.count_link(-1)?;
                    }
                }
            }
            source.0.touch_ctime();
            target.0.touch_ctime();
            Transaction::end(transaction)
        })
    }
}
