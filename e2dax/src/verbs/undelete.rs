//! `undelete`: a deleted file, back under a name.

use std::ffi::OsString;

use ext2_core::GroupNr;
use ext2_image::fields::{Layout, Structure};
use ext2_image::inspect::{poke, revive};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::images::change;
use crate::target::{Mode, Target};

/// Restore a deleted file under a new name
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax deleted disk.img
  e2dax undelete 'disk.img:<12>' disk.img:/found

Nothing is changed unless every block of the file is still free.")]
pub(crate) struct Args {
    /// The inode by its number
    #[arg(value_name = "IMG:<NR>")]
    target: OsString,

    /// Its new name, in the same image
    #[arg(value_name = "IMG:/PATH")]
    name: OsString,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (target, name) = (Target::parse(&args.target)?, Target::parse(&args.name)?);
    let Some(nr) = target.number() else {
        return Err(Failure::usage(&args.target, "name the inode by its number, as IMG:<12>"));
    };
    if !target.is_same_image(&name) {
        return Err(Failure::usage(&args.name, "is in another image"));
    }
    // A name that is taken is found out before anything is changed.
    {
        let fs = name.open(&context.image, Mode::Read)?;
        let (parent, last) = name.parent_in(&fs).of(|| name.name())?;
        if parent.lookup(last).is_ok() {
            return Err(ext2_core::Error::Caller(ext2_core::Errno::EXIST, "")).of(|| name.name());
        }
    }
    let was_clean;
    {
        let raw = target.open_raw(&context.image, Mode::Write)?;
        was_clean = raw.layout.superblock().of(|| target.image_name())?.clean;
        revive(&*raw.device, &raw.layout, nr).of(|| target.image_name())?;
    }
    // Opened as an image that was not unmounted cleanly, whose bitmaps follow from its inodes; that is no news.
    let level = log::max_level();
    log::set_max_level(log::LevelFilter::Error);
    let named = change(context, |context, images| {
        let device = name.open_device(&context.image, Mode::Write, context.image.durability())?;
        let fs = images.adopt(context, &name, device)?;
        let inode = fs.inode(nr).of(|| target.name())?;
        let (parent, last) = name.parent_in(&fs).of(|| name.name())?;
        parent.link(&inode, last).of(|| name.name())
    });
    log::set_max_level(level);
    named?;
    // The link that brought it back is not a name.
    let raw = target.open_raw(&context.image, Mode::Write)?;
    let layout = Layout::read(&*raw.device).of(|| target.image_name())?;
    let set = |what, field, value| {
        let poked = poke(&*raw.device, &layout, what, field, value, false).of(|| target.name())?;
        poked.map(drop).map_err(|wrong| Failure::text(target.name(), wrong.to_string()))
    };
    set(Structure::Inode(nr), "i_links_count", "1")?;
    // Bitmaps and counts are right again.
    if was_clean {
        set(Structure::Superblock(GroupNr::new(0)), "s_state", "1")?;
    }
    raw.device.flush().of(|| target.image_name())
}
