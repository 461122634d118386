//! Mappings, by system calls and by loads and stores of this thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use blockdev::host_map::{FileUse, HostSpace, Rights};
use ext2_dax::mmu::{
    Protection, Sharing,
    soft::{Died, Signal},
};
use rustix::fs;

use super::{
    contents::ranges,
    hands::{Done, Kernel, call, done},
};
use crate::sim::{Answer, Operation, Step};

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;

/// A mapping.
#[derive(Debug)]
pub(super) struct Map {
    space: HostSpace,
    file: OwnedFd,
    /// The byte of the file that it begins with.
    pub(super) first: u64,
    /// Whether others see what is stored.
    pub(super) is_shared: bool,
    /// Whether it is for reading only.
    pub(super) is_read_only: bool,
}

impl Map {
    /// The file.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Bytes.
    pub(super) fn len(&self) -> u64 {
        self.space.len()
    }

    /// Does something with each page of a range in turn, until one has no bytes.
    fn pages(
        &self,
        at: u64,
        len: u64,
        mut access: impl FnMut(u64, u64) -> blockdev::Result<()>,
    ) -> Result<(), Died> {
        let mut done = 0;
        while done < len {
            let next = (at + done + 1).next_multiple_of(PAGE).min(at + len);
            access(at + done, next - at - done).map_err(|_| Died { signal: Signal::Bus, done })?;
            done = next - at;
        }
        Ok(())
    }
}

impl Kernel {
    /// A mapping.
    pub(super) fn map(&self, map: u8) -> Result<&Map, Answer> {
        self.held.maps.get(usize::from(map)).and_then(Option::as_ref).ok_or(Answer::Nothing)
    }

    /// Does it, which is about mappings.
    pub(super) fn attempt_maps(&mut self, step: &Step) -> Done {
        use Operation as O;
        match &step.operation {
            O::Map { file, page, pages, sharing, protection, map } => {
                let is_shared = *sharing != Sharing::Private;
                let is_read_only = *protection == Protection::ReadOnly;
                let rights = match (is_shared, is_read_only) {
                    (false, _) => Rights::Private,
                    (true, true) => Rights::Read,
                    (true, false) => Rights::ReadWrite,
                };
                let file = call(rustix::io::fcntl_dupfd_cloexec(self.file(*file)?, 0))?;
                let (first, len) = (page * PAGE, pages * PAGE);
                let space = HostSpace::reserve(None, rights, len, 0).map_err(refused)?;
                space.place_file(0, len, file.as_fd(), first, FileUse::Plain).map_err(refused)?;
                let mapped = Map { space, file, first, is_shared, is_read_only };
                self.held.maps[usize::from(*map)] = Some(mapped);
                Ok(Answer::Done)
            }
            O::Load { map, at, len } => {
                let map = self.map(*map)?;
                let mut bytes = vec![0xee; *len as usize];
                let loaded = map.pages(*at, u64::from(*len), |from, len| {
                    let within = (from - at) as usize;
                    map.space.memory(from, len)?.copy_out(0, &mut bytes[within..within + len as usize])
                });
                loaded.map_err(Answer::Died)?;
                Ok(Answer::Bytes(bytes))
            }
            O::Store { map, at, data } => {
                let map = self.map(*map)?;
                let bytes = data.bytes(*at);
                let stored = map.pages(*at, u64::from(data.len), |from, len| {
                    let within = (from - at) as usize;
                    map.space.memory(from, len)?.copy_in_cached(0, &bytes[within..within + len as usize])
                });
                let found = call(ranges(map.file()))?;
                match stored {
                    Ok(()) => Ok(Answer::Ranges(found)),
                    Err(died) => Err(Answer::StoreDied(died, found)),
                }
            }
            // What msync does with all of a file that is on a disk.
            O::Msync { map, .. } => done(fs::fdatasync(self.map(*map)?.file())),
            O::Unmap { map } => {
                self.map(*map)?;
                self.held.maps[usize::from(*map)] = None;
                Ok(Answer::Done)
            }
            other => unreachable!("{other:?} is left out"),
        }
    }
}

/// Why the kernel maps no file.
fn refused(error: blockdev::Error) -> Answer {
    match error {
        blockdev::Error::Io { errno: Some(errno), .. } => {
            Answer::Refused(rustix::io::Errno::from_raw_os_error(errno).into())
        }
        other => Answer::Broken(other.to_string()),
    }
}
