//! Images that are open for changes.
//!
//! # Invariants
//! An image is opened once, however many arguments name it: its lock is exclusive. Every image that was opened is
//! closed, also when something failed on the way, so that it is left clean.

use std::io;
use std::sync::Arc;

use blockdev::{BlockDevice, Counted, Counts};
use ext2_core::raw::SUPERBLOCK_OFFSET;
use ext2_core::{Errno, Error, Ext2, FileKind, Follow, Inode, NewInode};
use ext2_image::Walk;

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::interrupt;
use crate::kept;
use crate::settle::settle;
use crate::target::{DeviceKind, Durable, Mode, Target};

/// The images that a verb changes.
#[derive(Default)]
pub(crate) struct Images {
    open: Vec<(Target, Ext2, Before)>,
    /// Much is to be changed: it is brought to the disk as one.
    much: bool,
}

/// What an image was before it was opened: what is not changed is left as it was, down to the times in its superblock.
struct Before {
    device: Arc<Counted<Arc<dyn BlockDevice>>>,
    superblock: [u8; 1024],
    /// What was written when it had been opened.
    opened: Counts,
    /// Whether what is written says whether anything changed: it was unmounted cleanly, and is written without a log.
    can_tell: bool,
}

impl Before {
    fn of(device: Arc<dyn BlockDevice>) -> Self {
        let mut superblock = [0; 1024];
        // Where there is none, nothing is going to be opened.
        let _ = device.read_at(SUPERBLOCK_OFFSET, &mut superblock);
        let device = Arc::new(Counted::new(device));
        Self { device, superblock, opened: Counts::default(), can_tell: false }
    }

    /// Whether anything was written since it was opened, or is going to be.
    fn is_changed(&self) -> bool {
        let since = self.device.snapshot().since(&self.opened);
        !self.can_tell || since.writes + since.zeros + since.discards + since.stores > 0
    }

    /// Whether its superblock is what it was, which says that it is in use from the first change on.
    fn is_untouched(&self) -> bool {
        let mut now = [0; 1024];
        self.device.read_at(SUPERBLOCK_OFFSET, &mut now).is_ok() && now == self.superblock
    }

    /// Takes the times and the count of this opening back, where nothing else of the superblock has changed either.
    fn restore(&self) -> blockdev::Result<()> {
        let mut now = self.superblock;
        self.device.read_at(SUPERBLOCK_OFFSET, &mut now)?;
        // s_mtime, s_wtime, s_mnt_count, and s_state.
        for field in [44..54, 58..60] {
            now[field.clone()].copy_from_slice(&self.superblock[field]);
        }
        if now != self.superblock {
            return Ok(());
        }
        self.device.write_at(SUPERBLOCK_OFFSET, &self.superblock)?;
        self.device.flush()
    }
}

/// Runs `work` with images that can be changed, and closes them.
pub(crate) fn change(
    context: &mut Context,
    work: impl FnOnce(&mut Context, &mut Images) -> Result<()>,
) -> Result<()> {
    change_in(Images::default(), context, work)
}

/// As [`change`], where much may be changed at a time.
pub(crate) fn change_much(
    context: &mut Context,
    work: impl FnOnce(&mut Context, &mut Images) -> Result<()>,
) -> Result<()> {
    change_in(Images { much: true, ..Images::default() }, context, work)
}

fn change_in(
    mut images: Images,
    context: &mut Context,
    work: impl FnOnce(&mut Context, &mut Images) -> Result<()>,
) -> Result<()> {
    let done = work(context, &mut images);
    images.close(context);
    done
}

impl Images {
    /// None yet, of which much is going to be changed.
    pub(crate) fn for_much() -> Self {
        Self { much: true, ..Self::default() }
    }

    /// Closes all of them, and complains of those that cannot be.
    pub(crate) fn close(self, context: &mut Context) {
        for (target, fs, before) in self.open {
            close_one(context, &target, fs, &before);
        }
    }
}

fn close_one(context: &mut Context, target: &Target, fs: Ext2, before: &Before) {
    let closed = interrupt::passing(|| {
        interrupt::forget_image(&fs);
        let changed = before.is_changed();
        let closed = fs.close();
        if closed.is_ok() && !changed {
            before.restore().of(|| target.image_name()).unwrap_or_else(|error| context.complain(&error));
        }
        closed
    });
    if let Err(error) = closed {
        let what = match before.is_untouched() {
            true => format!("the changes did not reach it: {error}"),
            false => format!("cannot be closed, and is not clean: {error}"),
        };
        context.complain(&Failure::text(target.image_name(), what));
    }
}

impl Images {
    /// The image of a target.
    pub(crate) fn get(&mut self, context: &Context, target: &Target) -> Result<Ext2> {
        match kept::file_system(target, Some(context))? {
            Some(fs) => Ok(fs),
            None => self.get_own(context, target),
        }
    }

    /// The image of a target, if it is open here.
    pub(crate) fn find(&self, target: &Target) -> Option<Ext2> {
        self.open.iter().find(|(open, ..)| open.is_same_image(target)).map(|(_, fs, _)| fs.clone())
    }

    /// The image of a target, which is not a shell's.
    pub(crate) fn get_own(&mut self, context: &Context, target: &Target) -> Result<Ext2> {
        if let Some((_, fs, _)) = self.open.iter().find(|(open, ..)| open.is_same_image(target)) {
            return Ok(fs.clone());
        }
        let options = match self.much || self.is_ordered(context) {
            true => &context.image.by_calls(),
            false => &context.image,
        };
        let device = target.open_device(options, Mode::Write, options.durability())?;
        settle(target, &device, context)?;
        self.adopt(context, target, device)
    }

    /// Whether changes reach the disk together.
    fn is_ordered(&self, context: &Context) -> bool {
        context.image.durability.map_or(self.much, |asked| asked == Durable::Ordered)
    }

    /// The image of a target that is open nowhere yet, on its device, without being mended first.
    pub(crate) fn adopt(
        &mut self,
        context: &Context,
        target: &Target,
        device: Arc<dyn BlockDevice>,
    ) -> Result<Ext2> {
        let options = &context.image;
        let batch = self.is_ordered(context) && options.device() != DeviceKind::Ram;
        let mut before = Before::of(device);
        let fs = interrupt::passing(|| {
            let fs = target.open_on(before.device.clone(), options, Mode::Write, batch)?;
            interrupt::watch_image(target.image_name(), &fs);
            Result::Ok(fs)
        })?;
        before.opened = before.device.snapshot();
        // What is kept back is not counted; where nothing changed, it is dropped below.
        before.can_tell = fs.superblock().clean && !batch;
        self.open.push((target.clone(), fs.clone(), before));
        Ok(fs)
    }

    /// The image of a target, and what its path leads to.
    pub(crate) fn resolve(
        &mut self,
        context: &Context,
        target: &Target,
        follow: Follow,
    ) -> Result<(Ext2, Inode)> {
        let fs = self.get(context, target)?;
        let inode = target.find_to_change(&fs, follow).of(|| target.name())?;
        Ok((fs, inode))
    }

    /// The directory in which the last name of a target's path lies or would lie, and that name.
    pub(crate) fn parent<'t>(&mut self, context: &Context, target: &'t Target) -> Result<(Inode, &'t [u8])> {
        let fs = self.get(context, target)?;
        let (parent, name) = target.parent_in(&fs).of(|| target.name())?;
        if matches!(name, b"." | b".." | b"/") {
            let none = Error::Caller(Errno::INVAL, "the path ends in no name");
            return Err(none).of(|| target.name());
        }
        // Nothing but a directory is removed, moved or replaced by a name with a slash behind it.
        if parent.lookup(name).is_ok_and(|there| there.kind() != FileKind::Directory) {
            refuse_a_slash(target.path(), || target.name())?;
        }
        Ok((parent, name))
    }

    /// As [`parent`](Self::parent), for what is no directory and is to get that name.
    pub(crate) fn parent_of_file<'t>(
        &mut self,
        context: &Context,
        target: &'t Target,
    ) -> Result<(Inode, &'t [u8])> {
        let found = self.parent(context, target)?;
        refuse_a_slash(target.path(), || target.name())?;
        Ok(found)
    }

    /// What a target names; an empty file is made where there is nothing, or with `no_create` the answer is none.
    pub(crate) fn file(
        &mut self,
        context: &Context,
        target: &Target,
        no_create: bool,
    ) -> Result<Option<Inode>> {
        let fs = self.get(context, target)?;
        let inode = match target.find_to_change(&fs, Follow::Yes) {
            Err(error) if error.is(Errno::NOENT) && no_create => return Ok(None),
            Err(error) if error.is(Errno::NOENT) => {
                let (parent, name) = self.parent_of_file(context, target)?;
                parent.create(name, &NewInode::new(FileKind::Regular, 0o644))
            }
            other => other,
        };
        inode.map(Some).of(|| target.name())
    }
}

/// Refuses, for what is no directory, a path that ends as only those of directories do.
pub(crate) fn refuse_a_slash(path: &[u8], name: impl FnOnce() -> String) -> Result<()> {
    if path.ends_with(b"/") {
        return Err(Failure::new(name(), io::Error::from(io::ErrorKind::NotADirectory)));
    }
    Ok(())
}

/// Does something to each of the targets, which are all arguments that say which; a failure of one does not keep the
/// others from it.
pub(crate) fn for_each(
    context: &mut Context,
    arguments: &[std::ffi::OsString],
    mut work: impl FnMut(&mut Context, &mut Images, &Target) -> Result<()>,
) -> Result<()> {
    change(context, |context, images| {
        for argument in arguments {
            let done = Target::parse(argument).and_then(|target| work(context, images, &target));
            context.or_complain(done)?;
        }
        Ok(())
    })
}

/// What is below a directory, itself first, or just a file: for verbs with `-R`. Errors are complained of.
pub(crate) fn below(
    context: &mut Context,
    target: &Target,
    inode: &Inode,
    recursive: bool,
    mut work: impl FnMut(&mut Context, &[u8], &Inode) -> Result<()>,
) -> Result<()> {
    if !recursive {
        return work(context, target.path(), inode);
    }
    for step in Walk::new(inode, target.path()) {
        let done = match step {
            Ok(found) => work(context, &found.path, &found.inode),
            Err(error) => Err(Failure::new(target.name_of(&error.path), error.error)),
        };
        context.or_complain(done)?;
    }
    Ok(())
}
