//! Mending an image as `e2fsck -p` does: a journal is replayed, one of ours or that of ext3, then it is checked.

use blockdev::BlockDevice;
use ext2_image::{
    check::{Checker, Finding, Outcome},
    jbd2,
    repair::Changes,
};

use crate::crash::NOW;

/// Where `s_state` is in an image.
const STATE_OFFSET: u64 = 1024 + 58;

/// Mends it, and tells what was found, and whether the image was marked as clean once its journal was replayed.
///
/// # Errors
/// What is no image, or cannot be followed; the device's.
pub(super) fn mend(
    checker: &mut Checker,
    device: &dyn BlockDevice,
    sink: &mut dyn FnMut(&Finding),
) -> ext2_core::Result<(Outcome, bool)> {
    ext2_core::replay(device)?;
    replay_journal(device)?;
    let mut state = [0];
    device.read_at(STATE_OFFSET, &mut state)?;
    Ok((checker.mend(device, NOW, sink)?, state[0] & 1 != 0))
}

/// Replays a journal of ext3 as the command does it: all of it is known before any of it is stored.
///
/// # Errors
/// One that cannot be followed; the device's.
pub(super) fn replay_journal(device: &dyn BlockDevice) -> ext2_core::Result<()> {
    let changes = Changes::new(device);
    jbd2::replay(&changes)?;
    changes.apply()?;
    Ok(())
}

/// The same where nobody may be needed.
///
/// # Errors
/// What needs a person, in words.
pub(super) fn mend_alone(checker: &mut Checker, device: &dyn BlockDevice) -> Result<(), String> {
    match mend(checker, device, &mut |_| {}) {
        Ok((Outcome::Clean | Outcome::Mended(_), _)) => Ok(()),
        Ok((Outcome::Halts(finding), _)) => Err(format!("needs a person: {finding}")),
        Err(error) => Err(format!("cannot be mended: {error}")),
    }
}
