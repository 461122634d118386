//! What is kept out of the runs, as it is known to be wrong. Each has a name, and goes when it is mended.

use super::{
    Mode, Model, Operation, Step, Word,
    model::{Content, Id},
};

/// The name of the fault that a step would find again.
#[must_use]
pub(super) fn kept_out(step: &Step, model: &Model, mode: Mode) -> Option<&'static str> {
    use Operation as O;
    if mode == Mode::Crash || mode == Mode::Failing {
        match step.operation.word() {
            Word::Chown => return Some("owners that a crash tears"),
            Word::GiveUpWrite => return Some("a write given up that frees blocks another takes"),
            _ => {}
        }
    }
    let held = model.held(step.actor);
    let hand = |of: u8| held.hands[usize::from(of)].map(|id| model.node(id));
    match &step.operation {
        O::MapBlocks { len, .. } if *len > 1 << 40 => Some("a map of more blocks than a file can have"),
        O::TouchModified { .. } if model.is_read_only() => Some("times that change where nothing may"),
        O::Open { of, writing: true, .. }
            if model.is_read_only() || hand(*of).is_some_and(|node| node.flags & 0x30 != 0) =>
        {
            Some("a file opened for writing that cannot be written")
        }
        O::FileWrite { file, at, data, .. } => {
            let (id, _) = held.files[usize::from(*file)]?;
            grows_under_lease(model, id, at + u64::from(data.len))
        }
        O::FileTruncate { file, size, .. } => {
            grows_under_lease(model, held.files[usize::from(*file)]?.0, *size)
        }
        O::Write { of, at, data } => {
            grows_under_lease(model, held.hands[usize::from(*of)]?, at + u64::from(data.len))
        }
        O::Truncate { of, size, .. } => grows_under_lease(model, held.hands[usize::from(*of)]?, *size),
        O::Map { file, .. } => {
            let file = held.files[usize::from(*file)].map(|(id, _)| model.node(id));
            let flagged =
                file.is_some_and(|node| node.flags & 0x30 != 0 && matches!(node.content, Content::File(..)));
            flagged.then_some("stores to a file that only grows, or cannot be changed")
        }
        _ => None,
    }
}

/// Whether a file that is leased somewhere becomes longer.
fn grows_under_lease(model: &Model, id: Id, end: u64) -> Option<&'static str> {
    let is_leased =
        model.actors.iter().flat_map(|held| held.leases.iter().flatten()).any(|(of, _)| *of == id);
    (is_leased && end > model.node(id).size()).then_some("who leases what a file will be waits for itself")
}
