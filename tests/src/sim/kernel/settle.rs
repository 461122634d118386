//! Bringing the kernel's file system to where the library's is, after a difference.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::{fs, io::Errno};

use super::{
    attributes::{
        chmod, put_xattrs, set_flags, set_modified, set_times_again, touch_modified, while_changeable,
    },
    contents::{PUNCH, put_ranges, write_zeros},
    difference::{Case, Difference, FieldCase},
    fields::{FLAGS, FOR_DIRECTORIES},
    hands::{Given, Kernel, call},
};
use crate::sim::{Answer, Operation};

impl Difference {
    /// After two answers that differ.
    ///
    /// # Errors
    /// Why it cannot be done: the list ends there.
    pub(super) fn settle(self, case: &Case<'_>, kernel: &Kernel) -> Result<(), String> {
        use Operation as O;
        let words = |answer: Answer| answer.words();
        let failed = |errno: Errno| errno.to_string();
        match (self, &case.step.operation) {
            (
                Self::NoZeroRange | Self::FarRange,
                O::Zero { at, len, .. }
                | O::FileZero { at, len, .. }
                | O::Fallocate { mode: 0x11, at, len, .. },
            ) => {
                let file = kernel.changed(case.step).map_err(words)?;
                write_zeros(file.as_fd(), &(*at..at.saturating_add(*len))).map_err(failed)?;
                let size = fs::fstat(&file).map_err(failed)?.st_size.unsigned_abs();
                // Which notes a change, as the library does, also where all was zeros.
                if *at < size && *len > 0 { touch_modified(file.as_fd()).map_err(failed) } else { Ok(()) }
            }
            (
                Self::FarRange,
                O::Punch { at, .. } | O::FilePunch { at, .. } | O::Fallocate { mode: 3, at, .. },
            ) => {
                let file = kernel.changed(case.step).map_err(words)?;
                let size = fs::fstat(&file).map_err(failed)?.st_size.unsigned_abs();
                let end = size.next_multiple_of(case.geometry.block);
                if *at < size { fs::fallocate(file, PUNCH, *at, end - at).map_err(failed) } else { Ok(()) }
            }
            // Flags that it cannot have are not compared.
            (Self::FlagsOfKind, O::SetFlags { of, flags }) => {
                set_flags(kernel.hand(*of).map_err(words)?, flags & FLAGS & !FOR_DIRECTORIES).map_err(failed)
            }
            (Self::StoreAllocates, O::Store { map, at, data }) => {
                let (Answer::Ranges(wanted) | Answer::StoreDied(_, wanted)) = case.ours else {
                    return Ok(());
                };
                let file = kernel.changed(case.step).map_err(words)?;
                put_ranges(file.as_fd(), wanted).map_err(failed)?;
                let map = kernel.map(*map).map_err(words)?;
                let died = matches!(case.kernel, Given::Answer(Answer::StoreDied(..))) && case.ours.is_done();
                if died && map.is_shared {
                    call(rustix::io::pwrite(&file, &data.bytes(*at), map.first + at)).map_err(words)?;
                } else if died {
                    return Err("a private store died".to_owned());
                }
                Ok(())
            }
            (Self::ShortWrite, O::Write { at, data, .. } | O::FileWrite { at, data, .. }) => {
                let (Answer::Number(put), kernel_put) = (case.ours, case.kernel) else { return Ok(()) };
                let there = match kernel_put {
                    Given::Answer(Answer::Number(there)) => *there,
                    _ => 0,
                };
                let file = kernel.changed(case.step).map_err(words)?;
                let bytes = data.bytes(*at);
                // Where it went, if it was appended.
                let size = fs::fstat(&file).map_err(failed)?.st_size.unsigned_abs();
                let start = if case.appends { size - there } else { *at };
                let mut next = there;
                while next < *put {
                    let end = (start + next + 1).next_multiple_of(case.geometry.block) - start;
                    let part = &bytes[next as usize..end.min(*put) as usize];
                    call(rustix::io::pwrite(&file, part, start + next)).map_err(words)?;
                    next += part.len() as u64;
                }
                if there > *put { Err("the kernel wrote more".to_owned()) } else { Ok(()) }
            }
            (Self::MoreAttributes, O::SetXattr { of, .. } | O::SetAcl { of, .. }) => {
                let of = kernel.hand(*of).map_err(words)?;
                put_xattrs(of, case.xattrs).map_err(failed)?;
                // A list for access sets the mode.
                let is_list = matches!(case.step.operation, O::SetAcl { .. });
                if is_list { chmod(of, case.mode).map_err(failed) } else { Ok(()) }
            }
            (Self::UnknownFlags, O::SetFlags { of, flags }) => {
                set_flags(kernel.hand(*of).map_err(words)?, flags & FLAGS).map_err(failed)
            }
            _ => Ok(()),
        }
    }

    /// After a field that differs.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub(super) fn settle_field(self, case: &FieldCase<'_>, of: BorrowedFd<'_>) -> Result<(), String> {
        let failed = |errno: Errno| format!("{self:?} is not settled: {errno}");
        match self {
            Self::SetIdOfDirectory | Self::SetIdOfOwner => chmod(of, case.ours.mode).map_err(failed),
            Self::NothingToSet if matches!(case.operation(), Some(Operation::SetTimes { .. })) => {
                set_times_again(of).map_err(failed)
            }
            Self::FallocateModifies => {
                let seen = case.seen.ok_or("its times were not seen before")?;
                set_modified(of, seen[1]).map_err(failed)
            }
            // Which what is mapped to be stored to before it is made immutable notes as well, but nobody may set. Where the kernel
            // alone notes one, since the library has mapped the unit already, it is taken back.
            Self::StoreModifies => match case.seen {
                Some(seen) if seen[1] != case.kernel.mtime => {
                    while_changeable(of, |of| set_modified(of, seen[1])).map_err(failed)
                }
                _ => while_changeable(of, touch_modified).map_err(failed),
            },
            _ => Ok(()),
        }
    }
}
