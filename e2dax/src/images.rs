//! Images that are open for changes.
//!
//! # Invariants
//! An image is opened once, however many arguments name it: its lock is exclusive. Every image that was opened is
//! closed, also when something failed on the way, so that it is left clean.

use ext2_core::{Errno, Error, Ext2, FileKind, Follow, Inode, NewInode};
use ext2_image::Walk;

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::settle::settle;
use crate::target::{DeviceKind, Durable, Mode, Target};

/// The images that a verb changes.
#[derive(Default)]
pub(crate) struct Images {
    open: Vec<(Target, Ext2)>,
    /// Much is to be changed: through a log.
    much: bool,
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
    for (target, fs) in images.open {
        if let Err(error) = fs.close() {
            let what = format!("cannot be closed, and is not clean: {error}");
            context.complain(&Failure::text(target.image_name(), what));
        }
    }
    done
}

impl Images {
    /// The image of a target.
    pub(crate) fn get(&mut self, context: &Context, target: &Target) -> Result<Ext2> {
        if let Some((_, fs)) = self.open.iter().find(|(open, _)| open.is_same_image(target)) {
            return Ok(fs.clone());
        }
        let options = &context.image;
        let device = target.open_device(options, Mode::Write, options.durability())?;
        settle(target, &device, context)?;
        let ordered = options.durability.map_or(self.much, |asked| asked == Durable::Ordered);
        let fs =
            target.open_on(device, options, Mode::Write, ordered && options.device != DeviceKind::Ram)?;
        self.open.push((target.clone(), fs.clone()));
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
        let inode = fs.resolve(target.path(), follow).of(|| target.name())?;
        Ok((fs, inode))
    }

    /// The directory in which the last name of a target's path lies or would lie, and that name.
    pub(crate) fn parent<'t>(&mut self, context: &Context, target: &'t Target) -> Result<(Inode, &'t [u8])> {
        let fs = self.get(context, target)?;
        let (parent, name) = fs.resolve_parent(target.path()).of(|| target.name())?;
        if matches!(name, b"." | b".." | b"/") {
            let none = Error::Caller(Errno::INVAL, "the path ends in no name");
            return Err(none).of(|| target.name());
        }
        Ok((parent, name))
    }

    /// What a target names; an empty file is made where there is nothing, or with `no_create` the answer is none.
    pub(crate) fn file(
        &mut self,
        context: &Context,
        target: &Target,
        no_create: bool,
    ) -> Result<Option<Inode>> {
        let fs = self.get(context, target)?;
        let inode = match fs.resolve(target.path(), Follow::Yes) {
            Err(error) if error.is(Errno::NOENT) && no_create => return Ok(None),
            Err(error) if error.is(Errno::NOENT) => {
                let (parent, name) = self.parent(context, target)?;
                parent.create(name, &NewInode::new(FileKind::Regular, 0o644))
            }
            other => other,
        };
        inode.map(Some).of(|| target.name())
    }
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
