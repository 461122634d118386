//! Images that were not unmounted cleanly are mended once, before they are changed: what a machine does with its disks
//! when it boots, by `e2fsck -p`.

use std::ffi::OsStr;
use std::sync::Arc;

use blockdev::BlockDevice;
use ext2_core::{Ext2, IncompatFeatures, OpenOptions};
use ext2_image::check::{Checker, Options, Outcome};
use ext2_image::fields::Layout;
use ext2_image::jbd2;
use ext2_image::repair::Changes;

use crate::clock;
use crate::context::Context;
use crate::failure::{Of, Result};
use crate::progress::PassBar;
use crate::target::{Mode, Target};

/// Opens an image for a verb that changes all of it: its device, settled, and the file system as it is there. What cannot be read
/// at all is told here, by its name.
pub(crate) fn open_settled(image: &OsStr, context: &Context) -> Result<(Target, Arc<dyn BlockDevice>, Ext2)> {
    let target = Target::parse_image(image)?;
    let device = target.open_device(&context.image.by_calls(), Mode::Write, context.image.durability())?;
    settle(&target, &device, context)?;
    let fs = target.open_on(device.clone(), &context.image, Mode::Read, false)?;
    Ok((target, device, fs))
}

/// Mends the image if it is not clean. One that a person has to decide about is left as it is, and said to be; it can be
/// changed all the same, and stays not clean.
pub(crate) fn settle(target: &Target, device: &Arc<dyn BlockDevice>, context: &Context) -> Result<()> {
    if is_settled(&**device) {
        return Ok(());
    }
    if !device.is_read_only() {
        let recovered = ext2_image::rewrite::recover(&**device);
        if recovered.map_err(|error| target.failure(&**device, error))? {
            let name = target.image_name();
            context.note(&format!(
                "{name}: a change of the whole image was interrupted; it was carried out, and is whole now"
            ));
        }
        ext2_core::replay(&**device).map_err(|error| target.failure(&**device, error))?;
        replay_journal(target, device, context)?;
    }
    // What cannot be opened at all is told by who opens it next.
    let Ok(looked) = Ext2::open(device.clone(), &OpenOptions::read_only()) else { return Ok(()) };
    let (sb, geo) = (looked.superblock(), looked.geometry());
    if device.is_read_only() || (sb.clean && sb.last_orphan == 0) || sb.features.check_writable().is_err() {
        return Ok(());
    }
    let name = || target.image_name();
    let bytes = u64::from(geo.blocks_count) * geo.block_size.bytes();
    let _claim = device.claim(0, bytes).of(name)?;
    let bar = PassBar::default();
    let options = Options { progress: &|progress| bar.show(progress), ..Options::default() };
    // OK to cast: the seconds of an unsigned field, as e2fsck writes them.
    let now = clock::now()?.sec as u32;
    let outcome = Checker::new().mend_with(&**device, now, &options, &mut |_| {});
    bar.end();
    match outcome.of(name)? {
        Outcome::Clean | Outcome::Mended(_) => {
            context.note(&format!("{}: was not unmounted cleanly; it was mended, and is clean now", name()));
        }
        Outcome::Halts(finding) => {
            let text = format!("{}: was not unmounted cleanly, and needs a person: {finding}", name());
            context.note(&format!("{text}; run e2dax check -y"));
        }
    }
    Ok(())
}

/// Whether the superblock alone says that there is nothing to mend: clean, and without a mark of what was begun.
fn is_settled(device: &dyn BlockDevice) -> bool {
    let marks = IncompatFeatures::RECOVER | IncompatFeatures::UNFINISHED_REWRITE;
    let Ok(layout) = Layout::read(device) else { return false };
    layout.superblock().is_ok_and(|sb| {
        sb.clean && !sb.has_errors && sb.last_orphan == 0 && !sb.features.incompat.intersects(marks)
    })
}

/// Replays a journal of ext3 that was left full, as a mount does. One that cannot be is told by who opens the image next.
fn replay_journal(target: &Target, device: &Arc<dyn BlockDevice>, context: &Context) -> Result<()> {
    if context.image.ignore_journal || !jbd2::needs_replay(&**device).unwrap_or(false) {
        return Ok(());
    }
    let _claim = device.claim(0, device.size()).of(|| target.image_name())?;
    let changes = Changes::new(&**device);
    let Ok(Some(done)) = jbd2::replay(&changes) else { return Ok(()) };
    changes.apply().of(|| target.image_name())?;
    let (count, name) = (done.transactions, target.image_name());
    context.note(&format!(
        "{name}: its journal was not empty; {} replayed",
        crate::text::count(count, "transaction")
    ));
    Ok(())
}
