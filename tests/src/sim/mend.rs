//! Mending an image as `e2fsck -p` does: a journal is replayed, one of ours or that of ext3, then it is checked.

use blockdev::BlockDevice;
use ext2_image::{
    check::{Checker, Finding, Outcome},
    jbd2,
};

use crate::crash::NOW;

/// Mends it, and tells what was found.
///
/// # Errors
/// What is no image, or cannot be followed; the device's.
pub(super) fn mend(
    checker: &mut Checker,
    device: &dyn BlockDevice,
    sink: &mut dyn FnMut(&Finding),
) -> ext2_core::Result<Outcome> {
    ext2_core::replay(device)?;
    jbd2::replay(device)?;
    checker.mend(device, NOW, sink)
}

/// The same where nobody may be needed.
///
/// # Errors
/// What needs a person, in words.
pub(super) fn mend_alone(checker: &mut Checker, device: &dyn BlockDevice) -> Result<(), String> {
    match mend(checker, device, &mut |_| {}) {
        Ok(Outcome::Clean | Outcome::Mended(_)) => Ok(()),
        Ok(Outcome::Halts(finding)) => Err(format!("needs a person: {finding}")),
        Err(error) => Err(format!("cannot be mended: {error}")),
    }
}
