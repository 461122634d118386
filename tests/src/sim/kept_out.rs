//! What is kept out of the runs, as it is known to be wrong. Each has a name, and goes when it is mended.

use super::{Operation, Step};

/// The name of the fault that a step would find again.
#[must_use]
pub(super) fn kept_out(step: &Step) -> Option<&'static str> {
    use Operation as O;
    match &step.operation {
        O::MapBlocks { len, .. } if *len > 1 << 40 => Some("a map of more blocks than a file can have"),
        _ => None,
    }
}
