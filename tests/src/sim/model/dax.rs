//! Open files, leases and mappings.

use std::{collections::BTreeMap, ops::Range};

use ext2_core::Errno;
use ext2_dax::{
    OpenFor,
    mmu::{
        Protection, Sharing,
        soft::{Died, Signal},
    },
};

use super::{Id, Model, Verdict, Wanted, contents::PAGE};
use crate::sim::{
    Actor, Answer, Operation, Step, Word,
    operation::{Data, WHOLE, WHOLE_READ},
};

const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
/// The largest offset of POSIX.
const LARGEST_OFFSET: u64 = i64::MAX.unsigned_abs();

fn no<T>(errno: Errno) -> Wanted<T> {
    Err(errno.into())
}

/// A mapping, and the copies that private stores have made: a byte is nothing where it was past the end of the file.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Mapping {
    pub(in crate::sim) id: Id,
    first: u64,
    pages: u64,
    sharing: Sharing,
    protection: Protection,
    copies: BTreeMap<u64, Vec<Option<u8>>>,
}

impl Mapping {
    /// Whether what is stored through it goes to no file.
    pub(in crate::sim) fn is_private(&self) -> bool {
        self.sharing == Sharing::Private
    }

    /// Whether the file can be stored to through it.
    pub(in crate::sim) fn may_store(&self) -> bool {
        !self.is_private() && self.protection == Protection::ReadWrite
    }

    /// Pages of the mapping with copies of its own.
    pub(in crate::sim) fn copied(&self) -> Vec<u64> {
        self.copies.keys().filter_map(|page| page.checked_sub(self.first)).collect()
    }

    /// Bytes of the mapping.
    pub(in crate::sim) fn len(&self) -> u64 {
        self.pages * PAGE
    }
}

impl Model {
    pub(super) fn dax_step(&mut self, step: &Step, answer: &Answer) -> Verdict {
        use Operation as O;
        let actor = step.actor;
        match &step.operation {
            O::Open { of, open_for, file } => {
                let id = self.hand(actor, *of);
                let flags = self.node(id).flags;
                let wanted = self.regular(id).and_then(|()| match open_for {
                    OpenFor::Reading => Ok(()),
                    _ if self.read_only => no(Errno::ROFS),
                    _ if flags & IMMUTABLE != 0 => no(Errno::PERM),
                    OpenFor::Writing if flags & APPEND != 0 => no(Errno::PERM),
                    _ => Ok(()),
                });
                if self.agree(answer, wanted)? {
                    self.held_mut(actor).files[usize::from(*file)] = Some((id, *open_for));
                }
                Ok(())
            }
            O::CloseFile { file } => {
                self.held_mut(actor).files[usize::from(*file)] = None;
                Ok(())
            }
            O::FileRead { file, at, len, nowait } => {
                let (id, _) = self.file(actor, *file);
                if *nowait && (!self.is_dax() || self.buffer_head) {
                    return self.agree(answer, no(Errno::OPNOTSUPP)).map(drop);
                }
                if *nowait && self.may_meet(answer) {
                    return Ok(());
                }
                let len = if *len == WHOLE { WHOLE_READ } else { *len };
                self.same(answer, Ok(Answer::Bytes(self.read(id, *at, len))))
            }
            O::FileWrite { file, at, data, nowait } => {
                self.file_write(self.file(actor, *file), *at, *data, *nowait, answer)
            }
            O::FileTruncate { file, size, wait } => {
                let (id, writing) = self.file(actor, *file);
                let wanted = Self::open_for_writing(writing).and_then(|()| self.cuttable(id));
                self.truncate(id, *size, *wait, wanted, answer)
            }
            O::FilePunch { file, at, len, wait } => {
                let (id, writing) = self.file(actor, *file);
                let wanted = Self::open_for_writing(writing).and_then(|()| self.cuttable(id));
                self.punch(id, *at, *len, *wait, wanted, answer)
            }
            O::FileZero { file, at, len } => {
                let (id, writing) = self.file(actor, *file);
                let wanted = Self::open_for_writing(writing).and_then(|()| self.cuttable(id));
                self.zero(id, *at, *len, wanted, answer)
            }
            O::FileSeekData { file, at } => {
                self.same(answer, self.seek(self.file(actor, *file).0, *at, true))
            }
            O::FileSeekHole { file, at } => {
                self.same(answer, self.seek(self.file(actor, *file).0, *at, false))
            }
            O::FileExtents { file } => {
                self.same(answer, Ok(Answer::Ranges(self.ranges(self.file(actor, *file).0))))
            }
            O::FileSync { .. } => self.agree(answer, Ok(())).map(drop),
            O::Lease { file, at, len, writing, lease } => {
                let (id, open_for) = self.file(actor, *file);
                let wanted = match () {
                    () if !self.is_dax() => no(Errno::OPNOTSUPP),
                    () if *writing => self.storable(id, open_for),
                    () => Ok(()),
                };
                let wanted = wanted.and_then(|()| if *len == 0 { no(Errno::INVAL) } else { Ok(()) });
                if self.agree(answer, wanted)? {
                    let range = *at..at.saturating_add(*len).min(LARGEST_OFFSET);
                    if *answer != Answer::Ranges(vec![range.clone()]) {
                        return Err(format!("{answer:?}, and the model says {range:?}"));
                    }
                    self.held_mut(actor).leases[usize::from(*lease)] = Some((id, range));
                }
                Ok(())
            }
            O::LeaseSync { .. } => self.agree(answer, Ok(())).map(drop),
            O::LeaseRead { lease } | O::LeaseWrite { lease, .. } => {
                let (id, range) = self.lease(actor, *lease);
                let (now, flags) = (self.now, self.node(id).flags);
                // Memory that may be stored to counts as changed when it is given.
                self.node_mut(id).perhaps_modified(now);
                let stores = step.operation.word() == Word::LeaseWrite;
                if let Answer::Refused(refusal) = answer {
                    let errno = if flags & IMMUTABLE != 0 { Errno::PERM } else { Errno::ACCES };
                    let is_forbidden = flags & (IMMUTABLE | APPEND) != 0;
                    return if refusal.is(errno) && is_forbidden {
                        Ok(())
                    } else {
                        Err(format!("{refusal:?} of a lease"))
                    };
                }
                for (at, bytes) in parts(answer, &range)? {
                    let size = self.node(id).size();
                    let end = size.clamp(*at, at + bytes.len() as u64);
                    let bytes = &bytes[..(end - at) as usize];
                    if stores {
                        self.put(id, *at, bytes);
                    } else if self.stored(id, *at..end) != bytes {
                        return Err(format!("the lease shows other bytes from {at} on than the file has"));
                    }
                }
                Ok(())
            }
            O::EndLease { lease } => {
                self.held_mut(actor).leases[usize::from(*lease)] = None;
                Ok(())
            }
            O::Map { file, page, pages, sharing, protection, map } => {
                let (id, open_for) = self.file(actor, *file);
                let is_shared = *sharing != Sharing::Private;
                let stores = is_shared && *protection == Protection::ReadWrite;
                let only_grows = self.node(id).flags & APPEND != 0;
                let wanted = match () {
                    () if *pages == 0 => no(Errno::INVAL),
                    () if !self.is_dax() => no(Errno::OPNOTSUPP),
                    () if *sharing == Sharing::Synchronous && (!self.persistent || self.buffer_head) => {
                        no(Errno::OPNOTSUPP)
                    }
                    () if is_shared && open_for != OpenFor::Reading && only_grows => no(Errno::ACCES),
                    () if stores => self.storable(id, open_for),
                    () => Ok(()),
                };
                if self.agree(answer, wanted)? {
                    self.held_mut(actor).maps[usize::from(*map)] = Some(Mapping {
                        id,
                        first: *page,
                        pages: *pages,
                        sharing: *sharing,
                        protection: *protection,
                        copies: BTreeMap::new(),
                    });
                }
                Ok(())
            }
            O::Load { map, at, len } => self.load(actor, *map, *at, *len, answer),
            O::Store { map, at, data } => self.store(actor, *map, *at, *data, answer),
            O::Msync { map, page, pages } => {
                let mapped = self.mapping(actor, *map).pages;
                let wanted = if page + pages > mapped && *pages > 0 { no(Errno::NOMEM) } else { Ok(()) };
                self.agree(answer, wanted).map(drop)
            }
            O::Unmap { map } => {
                self.held_mut(actor).maps[usize::from(*map)] = None;
                Ok(())
            }
            other => unreachable!("{other:?} is judged elsewhere"),
        }
    }

    pub(in crate::sim) fn file(&self, actor: Actor, file: u8) -> (Id, OpenFor) {
        self.held(actor).files[usize::from(file)].expect("what was done was done with a file")
    }

    fn lease(&self, actor: Actor, lease: u8) -> (Id, Range<u64>) {
        self.held(actor).leases[usize::from(lease)].clone().expect("what was done was done with a lease")
    }

    fn mapping(&self, actor: Actor, map: u8) -> &Mapping {
        self.held(actor).maps[usize::from(map)].as_ref().expect("what was done was done with a mapping")
    }

    /// Whether what must not wait may have met another thread.
    fn may_meet(&self, answer: &Answer) -> bool {
        self.has_threads && matches!(answer, Answer::Refused(refusal) if refusal.is(Errno::AGAIN))
    }

    /// Whether memory of a file may be given away to be stored to.
    fn storable(&self, id: Id, open_for: OpenFor) -> Wanted {
        let flags = self.node(id).flags;
        match () {
            () if open_for != OpenFor::Writing => no(Errno::ACCES),
            () if self.read_only => no(Errno::ROFS),
            () if flags & IMMUTABLE != 0 => no(Errno::PERM),
            () if flags & APPEND != 0 => no(Errno::ACCES),
            () => Ok(()),
        }
    }

    fn file_write(
        &mut self,
        (id, open_for): (Id, OpenFor),
        at: u64,
        data: Data,
        nowait: bool,
        answer: &Answer,
    ) -> Verdict {
        let bytes = data.bytes(at);
        let at = if open_for == OpenFor::Appending { self.node(id).size() } else { at };
        // Nothing to write is nothing to refuse.
        let wanted = Self::open_for_writing(open_for);
        if !nowait {
            let wanted = wanted.and_then(|()| if data.len == 0 { Ok(()) } else { self.writable() });
            let wanted = wanted.and_then(|()| self.fits(id, at, data));
            return self.write_bytes(id, at, &bytes, wanted, answer);
        }
        if wanted.is_ok() && (!self.is_dax() || self.buffer_head) {
            return self.agree(answer, no(Errno::OPNOTSUPP)).map(drop);
        }
        if wanted.is_ok() && self.may_meet(answer) {
            // It may have come as far as to note the time.
            let now = self.now;
            self.node_mut(id).perhaps_modified(now);
            return Ok(());
        }
        // What is inside the file is written where there are blocks; the file does not grow.
        let (size, blocks) = self.blocks(id);
        let inside = u64::from(data.len).min(size.saturating_sub(at));
        let there =
            (at / self.block..(at + inside).div_ceil(self.block)).take_while(|nr| blocks.contains_key(nr));
        let most = there.last().map_or(0, |nr| ((nr + 1) * self.block - at).min(inside));
        // What a write that waits could not do either is said first.
        let wanted = wanted.and_then(|()| self.fits(id, at, data));
        let wanted = wanted.and_then(|()| if most == 0 && data.len > 0 { no(Errno::AGAIN) } else { Ok(()) });
        let now = self.now;
        self.node_mut(id).perhaps_modified(now);
        self.write_bytes(id, at, &bytes[..most as usize], wanted, answer)
    }

    /// Pages past this one are no part of the file any more: private copies of them go too.
    pub(super) fn drop_copies(&mut self, id: Id, first_gone: u64) {
        for held in &mut self.actors {
            for map in held.maps.iter_mut().flatten().filter(|map| map.id == id) {
                map.copies.retain(|page, _| *page < first_gone);
            }
        }
    }

    /// How an access to bytes of a mapping ends: how many are done, and the signal if not all.
    fn access(&self, map: &Mapping, at: u64, len: u64, stores: bool) -> (u64, Option<Signal>) {
        if stores && map.protection == Protection::ReadOnly && len > 0 {
            return (0, Some(Signal::Segv));
        }
        let file_end = self.node(map.id).size().div_ceil(PAGE).saturating_sub(map.first) * PAGE;
        let end = at + len;
        let stop = map.len().min(file_end).max(at);
        if end <= stop {
            return (len, None);
        }
        (stop - at, Some(if stop >= map.len() { Signal::Segv } else { Signal::Bus }))
    }

    fn load(&mut self, actor: Actor, map: u8, at: u64, len: u32, answer: &Answer) -> Verdict {
        let map = self.mapping(actor, map);
        let (done, signal) = self.access(map, at, u64::from(len), false);
        if let Some(signal) = signal {
            let wanted = Answer::Died(Died { signal, done });
            // Who maps pages ahead has those of a file that grows a moment before its size says so.
            let is_ahead = self.has_threads && self.counts_all_as_stored && signal == Signal::Bus;
            return if *answer == wanted || is_ahead && matches!(answer, Answer::Bytes(_)) {
                Ok(())
            } else {
                Err(format!("{}, not {wanted:?}", answer.words()))
            };
        }
        let Answer::Bytes(bytes) = answer else { return Err(format!("{answer:?}")) };
        let size = self.node(map.id).size();
        for (place, byte) in (map.first * PAGE + at..).zip(bytes) {
            let wanted = match map.copies.get(&(place / PAGE)) {
                Some(copy) => copy[(place % PAGE) as usize],
                None if place < size => Some(self.stored(map.id, place..place + 1)[0]),
                None => None,
            };
            if wanted.is_some_and(|wanted| wanted != *byte) {
                return Err(format!(
                    "byte {place} of the file is {byte:#x} in the mapping, not {wanted:#x?}"
                ));
            }
        }
        Ok(())
    }

    fn store(&mut self, actor: Actor, map: u8, at: u64, data: Data, answer: &Answer) -> Verdict {
        let mapping = self.mapping(actor, map).clone();
        let (done, signal) = self.access(&mapping, at, u64::from(data.len), true);
        let (first, now, id) = (mapping.first * PAGE + at, self.now, mapping.id);
        let mut put = done;
        let mut grown: &[Range<u64>] = &[];
        match (answer, signal) {
            (Answer::StoreDied(died, ranges), _) if died.signal == Signal::Bus && died.done < done => {
                // A page that is to be stored to needs a block.
                let need = self.cost(first, u64::from(data.len)) + 512;
                if mapping.is_private() || self.room.blocks >= need {
                    return Err(format!("{died:?}, with {:?} free", self.room));
                }
                put = died.done;
                if self.buffer_head {
                    // Linux 4.8 keeps what it allocated for 2 MiB before it fell back.
                    self.adopt(id, first..first + u64::from(data.len), ranges)?;
                }
            }
            // What was stored before may lie past the end, in the last page, which has a block then.
            (Answer::StoreDied(died, ranges), Some(signal)) if *died == (Died { signal, done }) => {
                grown = ranges
            }
            (Answer::Ranges(ranges), None) => grown = ranges,
            _ => {
                return Err(format!(
                    "{}, and {done} bytes should be stored, then {signal:?}",
                    answer.words()
                ));
            }
        }
        let bytes = &data.bytes(at)[..put as usize];
        if mapping.is_private() {
            let size = self.node(id).size();
            for (place, byte) in (first..).zip(bytes) {
                let page = place / PAGE;
                let fresh = || {
                    let there = self.stored(id, page * PAGE..(page + 1) * PAGE);
                    (page * PAGE..).zip(there).map(|(at, byte)| (at < size).then_some(byte)).collect()
                };
                let copy = self.mapping(actor, map).copies.get(&page).cloned().unwrap_or_else(fresh);
                let slot = usize::from(map);
                let held = self.held_mut(actor).maps[slot].as_mut().expect("just found");
                held.copies.insert(page, copy);
                held.copies.get_mut(&page).expect("just there")[(place % PAGE) as usize] = Some(*byte);
            }
            return Ok(());
        }
        if put == 0 && data.len > 0 {
            self.node_mut(id).perhaps_modified(now);
            return Ok(());
        }
        if !grown.is_empty() {
            self.adopt(id, first..first + put, grown)?;
        }
        let size = self.node(id).size();
        let inside = size.clamp(first, first + put) - first;
        self.put(id, first, &bytes[..inside as usize]);
        self.node_mut(id).perhaps_modified(now);
        Ok(())
    }
}

/// The parts that a lease gave, which lie in it.
fn parts<'a>(answer: &'a Answer, range: &Range<u64>) -> Result<&'a [(u64, Vec<u8>)], String> {
    let Answer::Parts(parts) = answer else { return Err(format!("{answer:?}")) };
    match parts.iter().find(|(at, bytes)| *at < range.start || at + bytes.len() as u64 > range.end) {
        Some((at, _)) => Err(format!("a part at {at} is outside of the lease {range:?}")),
        None => Ok(parts),
    }
}
